//! Shells: what performs the core's writes. `plain` works on every Linux.

pub mod plain;
