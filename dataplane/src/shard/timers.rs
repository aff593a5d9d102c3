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

/// Deadlines that a queue has room for, however few it holds.
const ROOM_KEPT: usize = 64;
/// Logins that one call looks at.
const LOGINS_LOOKED_AT_MAX: usize = 1024;

impl Timers {
    /// Forgets the deadlines of logins that are over and stand first.
    pub fn forget_logins(&mut self, who: impl Fn(u32, u64) -> Waiting) {
        while self.logins.pop_front_if(|d| who(d.index, d.id) == Waiting::Over).is_some() {}
        spare(&mut self.logins);
    }

    /// The oldest stranger whose deadline is not after `until_ns`: its index.
    pub fn oldest_login(&mut self, until_ns: u64, who: impl Fn(u32, u64) -> Waiting) -> Option<u32> {
        self.forget_logins(&who);
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
                spare(queue);
                return Some((kind, deadline.index, deadline.id));
            }
        }
        for (kind, heap) in [(Kind::Dial, &mut self.dials), (Kind::Expiry, &mut self.expiries)] {
            let is_due = heap.peek().is_some_and(|Reverse(d)| d.at_ns <= now_ns);
            if let Some(Reverse(deadline)) = is_due.then(|| heap.pop()).flatten() {
                if is_roomy(heap.len(), heap.capacity()) {
                    heap.shrink_to(heap.len() * 2);
                }
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

/// A crowd's memory is not kept for those who stay.
fn spare(queue: &mut VecDeque<Deadline>) {
    if is_roomy(queue.len(), queue.capacity()) {
        queue.shrink_to(queue.len() * 2);
    }
}

fn is_roomy(deadlines: usize, room: usize) -> bool {
    room > ROOM_KEPT && deadlines < room / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        const CROWD: u32 = 10_000;
        let mut timers = Timers::default();
        for index in 0..CROWD {
            timers.set(Kind::Login, 1_000_000, index, 0);
            timers.set(Kind::Dial, u64::from(CROWD - index), index, 0);
        }
        // The last login goes on; the dials of all but the first three have had their time.
        timers.forget_logins(|index, _| if index < CROWD - 1 { Waiting::Over } else { Waiting::Known });
        let late = std::iter::from_fn(|| timers.due(u64::from(CROWD) - 3));
        assert_eq!(late.last(), Some((Kind::Dial, 3, 0)));
        assert_eq!((timers.logins.len(), timers.dials.len()), (1, 3));
        assert!(timers.logins.capacity() <= ROOM_KEPT && timers.dials.capacity() <= ROOM_KEPT);
        assert_eq!(timers.due(1_000_000), Some((Kind::Login, CROWD - 1, 0)));
        assert_eq!(timers.due(1_000_000), Some((Kind::Dial, 2, 0)));
    }
}
