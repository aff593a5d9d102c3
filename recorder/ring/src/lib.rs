//! The shared-memory ring between one shard of the dataplane and the recorder.
//!
//! One producer, one consumer, one sealed memfd. A record is claimed, written in place, and committed by one atomic
//! store of its length; it stays in the ring until the recorder has it on disk. So either process may die at any
//! instruction and nothing that was acknowledged is lost. `RECORD.md` gives every byte of the format.
//!
//! Reading order: [`record`] (what a record is), [`layout`] (where things lie), [`producer`], [`consumer`], [`shm`]
//! (the mapped pages; the only unsafe code). The algorithm is generic over [`Memory`], so that tests run it on loom's
//! cells and on memory that stops working at the n-th step.
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod consumer;
pub mod layout;
pub mod producer;
pub mod record;
pub mod shm;

pub use consumer::{Consumer, Poisoned, Record};
pub use layout::{AttachError, Memory, Words};
pub use producer::{Claim, ClaimError, Producer, TooLong};
pub use record::{Flags, Gap, Header, Kind, Level, Receipt};
pub use shm::{CAPACITY_BYTES_DEFAULT, Mapped, create, map};
