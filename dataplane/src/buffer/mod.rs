//! The memory that connection bytes live in: a slab of slots per shard, and the sum that sizes it.

pub mod budget;
pub mod slab;

pub use slab::{SLOT_BYTES, Slab, Slot};
