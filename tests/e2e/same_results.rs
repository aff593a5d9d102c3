//! Many queries, directly and through the gateway as a dba, compared byte by byte in text and in binary.

use std::process::ExitCode;
use tests::suite::{Case, run};

fn main() -> ExitCode {
    run(Case::of_script("same_results.py"))
}
