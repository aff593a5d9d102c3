//! Deadlines of sessions. Those of constant length are in order by themselves, a queue a kind; tokens expire when they like.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Timers {
    logins: VecDeque<Deadline>,
    drains: VecDeque<Deadline>,
    leases: VecDeque<Deadline>,
    dials: BinaryHeap<Reverse<Deadline>>,
    expiries: BinaryHeap<Reverse<Deadline>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deadline {
    at_ns: u64,
    index: u32,
    id: u64,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Login,
    Drain,
    /// The session stays, and keeps its upstream's connection for itself.
    Lease,
    /// An address of the upstream has had its time.
    Dial,
    /// The session's token expires.
    Expiry,
}

/// Whose login a deadline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It has not said who it is.
    Stranger,
    /// It is being let in.
    Known,
    /// It is in, or gone.
    Over,
}

/// Deadlines that an empty queue has room for.
const EMPTY_KEPT: usize = 64;
/// Logins that one call looks at.
const LOGINS_LOOKED_AT_MAX: usize = 1024;

impl Timers {
    /// The oldest stranger whose deadline is not after `until_ns`: its index. Deadlines that are of no use any more and stand
    /// first are forgotten.
    pub fn oldest_login(&mut self, until_ns: u64, who: impl Fn(u32, u64) -> Waiting) -> Option<u32> {
        while self.logins.pop_front_if(|d| who(d.index, d.id) == Waiting::Over).is_some() {}
        let old = self.logins.iter().take(LOGINS_LOOKED_AT_MAX).take_while(|d| d.at_ns <= until_ns);
        old.map(|d| (d.index, d.id)).find(|(index, id)| who(*index, *id) == Waiting::Stranger).map(|(index, _)| index)
    }

    /// `at_ns`: monotonic. Deadlines of one kind must be set in order, but for [`Kind::Dial`] and [`Kind::Expiry`].
    pub fn set(&mut self, kind: Kind, at_ns: u64, index: u32, id: u64) {
        let deadline = Deadline { at_ns, index, id };
        match kind {
            Kind::Login => self.logins.push_back(deadline),
            Kind::Drain => self.drains.push_back(deadline),
            Kind::Lease => self.leases.push_back(deadline),
            Kind::Dial => self.dials.push(Reverse(deadline)),
            Kind::Expiry => self.expiries.push(Reverse(deadline)),
        }
    }

    /// A session whose deadline has passed: which, its index and id. The session may long be gone.
    pub fn due(&mut self, now_ns: u64) -> Option<(Kind, u32, u64)> {
        let queues =
            [(Kind::Login, &mut self.logins), (Kind::Drain, &mut self.drains), (Kind::Lease, &mut self.leases)];
        for (kind, queue) in queues {
            if let Some(deadline) = queue.pop_front_if(|d| d.at_ns <= now_ns) {
                // A crowd's memory is not kept for those who stay.
                if queue.is_empty() {
                    queue.shrink_to(EMPTY_KEPT);
                }
                return Some((kind, deadline.index, deadline.id));
            }
        }
        for (kind, heap) in [(Kind::Dial, &mut self.dials), (Kind::Expiry, &mut self.expiries)] {
            let is_due = heap.peek().is_some_and(|Reverse(d)| d.at_ns <= now_ns);
            if let Some(Reverse(deadline)) = is_due.then(|| heap.pop()).flatten() {
                return Some((kind, deadline.index, deadline.id));
            }
        }
        None
    }

    /// How long until the next deadline.
    pub fn next_in(&self, now_ns: u64) -> Option<Duration> {
        let queued = [&self.logins, &self.drains].into_iter().filter_map(|q| q.front()).map(|d| d.at_ns);
        let heaped = [&self.dials, &self.expiries].into_iter().filter_map(|h| h.peek()).map(|Reverse(d)| d.at_ns);
        let first = queued.chain(heaped).min()?;
        Some(Duration::from_nanos(first.saturating_sub(now_ns)))
    }
}
