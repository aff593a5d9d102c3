//! Hostile statements by kind, made from a seed, on servers 15 and 18: `generator/`. `make hostile` is the campaign.

use std::process::ExitCode;

use tests::arena::on_each_version;

/// What every run of the tests takes.
const SECONDS: &str = "120";
/// One seed, so that a run that failed fails again. A campaign has seeds of its own.
const SEED: &str = "1";

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        println!("hostile_statements_of_every_kind_show_and_change_nothing: test");
        return ExitCode::SUCCESS;
    }
    let given = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let arguments = [given("WIREWARD_HOSTILE_SECONDS", SECONDS), given("WIREWARD_HOSTILE_SEED", SEED)];
    on_each_version("generator/campaign.py", &arguments)
}
