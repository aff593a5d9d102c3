//! Budgets as counts, never as times: a count is the same on every machine and under every load (design 3, "Budgets").
//!
//! `known.rs` counts inside one shard between a fake client and a fake upstream: allocations, copies, turns, memory.
//! `system_calls.rs` counts at the real process.

mod desk;
mod dialog;
mod known;
mod memory;
mod system_calls;
mod table;
mod tls;
