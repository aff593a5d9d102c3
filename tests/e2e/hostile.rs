//! Ways around masks and rules that no detector would catch.

use std::process::ExitCode;
use tests::suite::{Case, run};

fn main() -> ExitCode {
    run(Case::of_script("hostile_cases.py"))
}
