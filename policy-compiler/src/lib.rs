//! Text policy → one artifact file, SQL text → what it would do, and the two together → a verdict.
//!
//! ```text
//! policy/     TOML files, strict, every error with its place      → Checked
//! build/      roles become bits, names stay names                 → Tables
//! artifact/   tables + their source text in one checked file      → Policy
//! statement/  SQL text, by the server's own grammar               → Analysis
//! judge       Policy × Subject × Analysis                         → Judgement
//! explain     the same from Checked, slow and obvious: the oracle of the tests
//! ```

pub mod artifact;
pub mod build;
pub mod cli;
pub mod detect;
pub mod explain;
pub mod judge;
pub mod policy;
pub mod statement;
