//! asyncpg through the gateway: it prepares everything, re-executes without Describe, and resets pooled connections.

use std::process::ExitCode;
use tests::suite::{Case, run};

fn main() -> ExitCode {
    run(Case::of_script("asyncpg_cases.py"))
}
