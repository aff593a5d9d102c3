//! What pgaudit says ran on a server 15 lies within what the analysis predicts: `truth/run.py` runs the statements and compares.

use std::process::{Command, ExitCode};

use tests::server::{Outcome, Server, random_hex};
use tests::world::{Directory, python, tests_path};

/// What every run of the tests takes; `make truth` takes 50,000.
const STATEMENTS: &str = "3000";
/// pgaudit tells the client, so what a statement did comes with its answer. It tells of views and of what they read.
const SETTINGS: [&str; 8] = [
    "shared_preload_libraries=pgaudit",
    "pgaudit.log=all",
    "pgaudit.log_relation=on",
    "pgaudit.log_client=on",
    "pgaudit.log_level=notice",
    "max_connections=50",
    "max_prepared_transactions=2",
    "log_min_messages=fatal",
];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--list") {
        println!("what_pgaudit_reports_lies_within_what_was_predicted: test");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<bool> {
    let directory = Directory(std::env::temp_dir().join(format!("wireward-truth-{}", random_hex(4)?)));
    std::fs::create_dir_all(&directory.0).map_err(|error| error.to_string())?;
    let server = Server::start(&directory.0, &SETTINGS)?;
    let password =
        std::fs::read_to_string(directory.0.join("superuser.password")).map_err(|error| error.to_string())?;
    let statements = std::env::var("WIREWARD_TRUTH_STATEMENTS").unwrap_or_else(|_| STATEMENTS.to_owned());
    let mut command = Command::new(python());
    command.arg(tests_path("e2e/truth/run.py")).arg(statements).current_dir(&directory.0);
    command.env("SERVER_PORT", server.port.to_string()).env("SUPERUSER_PASSWORD", password);
    command.env("ANALYSE", env!("CARGO_BIN_EXE_analyse")).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command.status().map_err(|error| format!("cannot run {}: {error}", python().display()))?.success())
}
