//! The memory that connection bytes live in: a slab of slots per shard, the sum that sizes it, and the budget of what lies outside.

pub mod budget;
pub mod gathered;
pub mod slab;

pub use gathered::{Gathered, Share};
pub use slab::{SLOT_BYTES, Slab, Slot};
