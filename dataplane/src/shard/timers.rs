//! Deadlines of sessions. Few kinds, each of constant length, so a queue per kind is in order by itself.

use std::collections::VecDeque;
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Timers {
    logins: VecDeque<Deadline>,
    drains: VecDeque<Deadline>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at_ns: u64,
    index: u32,
    id: u64,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Login,
    Drain,
}

impl Timers {
    /// `at_ns`: monotonic. Deadlines of one kind must be set in order.
    pub fn set(&mut self, kind: Kind, at_ns: u64, index: u32, id: u64) {
        let queue = match kind {
            Kind::Login => &mut self.logins,
            Kind::Drain => &mut self.drains,
        };
        queue.push_back(Deadline { at_ns, index, id });
    }

    /// A session whose deadline has passed: its index and id. The session may long be gone.
    pub fn due(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        for queue in [&mut self.logins, &mut self.drains] {
            if let Some(deadline) = queue.pop_front_if(|d| d.at_ns <= now_ns) {
                return Some((deadline.index, deadline.id));
            }
        }
        None
    }

    /// How long until the next deadline.
    pub fn next_in(&self, now_ns: u64) -> Option<Duration> {
        let first = [&self.logins, &self.drains].into_iter().filter_map(|q| q.front()).map(|d| d.at_ns).min()?;
        Some(Duration::from_nanos(first.saturating_sub(now_ns)))
    }
}
