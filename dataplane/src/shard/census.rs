//! How many client connections all shards hold together, and how many of them each subject has: written when one comes, is let
//! in or goes, never per transaction.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::SHARDS_MAX;

/// One count a shard, so that a shard which is started again begins at nothing.
#[derive(Clone)]
pub struct Census {
    connections: Arc<[AtomicUsize]>,
    seats: Seats,
    hasher: RandomState,
}

/// Sessions by subject.
#[derive(Clone, Debug, Default)]
struct Seats(Arc<Mutex<HashMap<u64, usize>>>);

/// One session of a subject. Its place is free again when it drops, also with a shard that panics.
#[derive(Debug)]
pub struct Seat {
    who: u64,
    seats: Seats,
}

impl Default for Census {
    fn default() -> Self {
        let connections = (0..SHARDS_MAX).map(|_| AtomicUsize::new(0)).collect();
        Self { connections, seats: Seats::default(), hasher: RandomState::new() }
    }
}

impl Census {
    pub fn tell(&self, shard: u8, connections: usize) {
        self.connections[usize::from(shard) % SHARDS_MAX].store(connections, Ordering::Relaxed);
    }

    pub fn total(&self) -> usize {
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// One more session of this subject; `None` if it has `max` already.
    pub fn seat(&self, subject: &impl Hash, max: usize) -> Option<Seat> {
        let who = self.hasher.hash_one(subject);
        let mut seats = self.seats.lock();
        let taken = seats.entry(who).or_default();
        (*taken < max).then(|| {
            *taken += 1;
            Seat { who, seats: self.seats.clone() }
        })
    }

    /// Sessions that have been let in; after the last one none.
    pub fn seated(&self) -> usize {
        self.seats.lock().values().sum()
    }
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A number that stands for the subject while the process lives.
    pub fn who(&self) -> u64 {
        self.who
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.lock();
        if let Some(taken) = seats.get_mut(&self.who) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_has_places_of_its_own_over_all_shards_and_they_come_back() {
        let census = Census::default();
        let (agent, dba) = (("issuer", "agent"), ("issuer", "dba"));
        let shards = [census.clone(), census.clone()];
        let taken: Vec<Seat> = shards.iter().filter_map(|census| census.seat(&agent, 2)).collect();
        assert_eq!((taken.len(), census.seated()), (2, 2));
        assert!(census.seat(&agent, 2).is_none(), "the agent has its two");
        let other = census.seat(&dba, 2).expect("another subject has places of its own");
        assert_ne!(other.who(), taken[0].who());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _taken = taken;
            panic!("as a shard would");
        }));
        assert!(panicked.is_err() && census.seat(&agent, 2).is_some(), "who panics gives back what it had");
        drop(other);
        assert_eq!(census.seated(), 0, "nothing is kept of who has gone");
        assert!(census.seats.lock().is_empty());
    }
}
