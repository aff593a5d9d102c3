//! How many client connections all shards hold together: written when one comes or goes, never per transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::SHARDS_MAX;

/// One count a shard, so that a shard which is started again begins at nothing.
#[derive(Clone)]
pub struct Census(Arc<[AtomicUsize]>);

impl Default for Census {
    fn default() -> Self {
        Self((0..SHARDS_MAX).map(|_| AtomicUsize::new(0)).collect())
    }
}

impl Census {
    pub fn tell(&self, shard: u8, connections: usize) {
        self.0[usize::from(shard) % SHARDS_MAX].store(connections, Ordering::Relaxed);
    }

    pub fn total(&self) -> usize {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}
