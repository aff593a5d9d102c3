//! The recorder: it drains the rings into segments, compressed and hash-chained, and can show and check them later.
//!
//! A record's way: [`core`] takes it from a ring into a block; [`compress`] and [`segment::writer`] lay the block out,
//! linked to the one before ([`chain`]); a [`shell`] writes and flushes it; only then does the ring give up the
//! record. Every second [`checkpoint`] signs the last block. At start [`recover`] finds the last whole block.
//!
//! The way back: [`segment::reader`] reads blocks and checks the chain; [`catalog`] lists sessions; [`replay`] shows one;
//! [`verify`] checks a whole directory; [`cli`] is what the commands call. `segment/FORMAT.md` gives every byte.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod catalog;
pub mod chain;
pub mod checkpoint;
pub mod cli;
pub mod compress;
pub mod core;
pub mod evidence;
pub mod people;
pub mod recover;
pub mod replay;
pub mod segment;
pub mod session;
pub mod shell;
pub mod verify;

pub use shell::{RunConfig, RunError, run};
