//! The hostile corpus, `tests/corpus/hostile/`: every row in every form, on servers 15 and 18. Words behind `--` choose rows.

use std::process::{Command, ExitCode};

use tests::arena::{Arena, Plan};
use tests::server::Outcome;
use tests::world::{python, tests_path};

const MAJORS: [u32; 2] = [15, 18];
const DATABASES: [&str; 3] = ["shop", "twin", "other"];
const ROLES: [&str; 6] = ["analyst", "agent", "reader", "writer", "locker", "dba"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("hostile_rows_show_and_change_nothing_and_honest_rows_work: test");
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    // The kernel ends a server when the thread that started it dies, so each version has its own thread throughout.
    let outcomes = std::thread::scope(|threads| {
        let threads = MAJORS.map(|major| {
            threads.spawn({
                let words = &words;
                move || on(major, words)
            })
        });
        threads.map(|thread| thread.join().expect("no thread panics"))
    });
    let mut all_passed = true;
    for outcome in outcomes {
        let (passed, report) = outcome.unwrap_or_else(|why| (false, why));
        println!("{report}");
        all_passed &= passed;
    }
    if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all rows passed, and what the run printed.
fn on(major: u32, words: &[String]) -> Outcome<(bool, String)> {
    let script = "corpus/run.py";
    let made =
        Command::new(python()).arg(tests_path("e2e").join(script)).args(["--setup", &major.to_string()]).output();
    let made = made.map_err(|error| format!("cannot run {}: {error}; .ci/run makes it", python().display()))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    let setup = String::from_utf8_lossy(&made.stdout);
    let policies = tests_path("corpus/hostile/policy");
    let arena = Arena::start(&Plan { major, script: &setup, databases: &DATABASES, policies: &policies })?;
    let output = arena.script(script, &ROLES)?.args(words).output().map_err(|error| error.to_string())?;
    let told = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&told).into_owned()))
}
