//! HOT: per byte, per frame. No allocation in the steady state, no lock, no clock, no log, no panic; `tests/tidy.rs` holds it.
//!
//! Reading order: [`lane`] (one direction's bytes), [`relay`] (two lanes and the pump: the way of the data), [`replies`] (what
//! is owed to whom), [`verdict`], [`plan_cache`], [`shape`], [`mask`], [`copy_text`], [`stream`], [`tap`],
//! [`counters`].

pub mod copy_text;
pub mod counters;
pub mod lane;
pub mod mask;
pub mod plan_cache;
pub mod relay;
pub mod replies;
pub mod report;
pub mod shape;
pub mod stream;
pub mod tap;
pub mod verdict;
