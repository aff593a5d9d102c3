//! psycopg 3 and 2 through the gateway: formats, prepared statements, pipelines, cursors, COPY, transactions.

use std::process::ExitCode;
use tests::suite::{Case, run};

fn main() -> ExitCode {
    run(Case::of_script("psycopg3_cases.py"))
}
