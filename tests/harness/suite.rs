//! Runs the cases of one test file in order, in one thread: the kernel ends our servers when the thread that started
//! them dies, so that thread must live as long as the file's cases do.

use crate::server::Outcome;
use crate::world::World;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// A case panics when it fails, like any test.
pub struct Case {
    pub name: String,
    run: Box<dyn Fn(&World)>,
}

impl Case {
    pub fn new(name: &str, run: fn(&World)) -> Case {
        Case { name: name.to_owned(), run: Box::new(run) }
    }

    /// Every case of a Python script in `tests/e2e/`, as the script lists them.
    pub fn of_script(script: &'static str) -> Vec<Case> {
        Case::of_script_with(script, |_, _| {})
    }

    /// [`Case::of_script`], each in an environment that `prepare` has changed.
    pub fn of_script_with(script: &'static str, prepare: fn(&World, &mut Command)) -> Vec<Case> {
        let listed = World::list_python_cases(script);
        let case = |name: String| Case {
            run: Box::new({
                let name = name.clone();
                move |world| world.python(script, &name, prepare)
            }),
            name,
        };
        listed.into_iter().map(case).collect()
    }
}

/// The `main` of a test file. Understands what `cargo test -- …` passes: `--list`, names to filter by, `--exact`.
pub fn run(cases: Vec<Case>) -> ExitCode {
    run_in(World::start, cases)
}

/// [`run`] in a world that `start` makes.
pub fn run_in(start: fn() -> Outcome<World>, cases: Vec<Case>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let is_wanted = |case: &Case| {
        let hit = |name: &&String| if exact { case.name == **name } else { case.name.contains(name.as_str()) };
        wanted.is_empty() || wanted.iter().any(hit)
    };
    let cases: Vec<Case> = cases.into_iter().filter(is_wanted).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    if cases.is_empty() {
        println!("\nrunning 0 tests\n");
        return ExitCode::SUCCESS;
    }
    run_all(start, &cases)
}

fn run_all(start: fn() -> Outcome<World>, cases: &[Case]) -> ExitCode {
    println!("\nrunning {} tests", cases.len());
    // What a client printed says more than our own stack.
    std::panic::set_hook(Box::new(|panic| println!("\n{panic}\n")));
    let world = match start() {
        Ok(world) => world,
        Err(why) => {
            println!("the servers did not start: {why}");
            return ExitCode::FAILURE;
        }
    };
    let failed: Vec<&str> = cases.iter().filter(|case| !passes(case, &world)).map(|case| case.name.as_str()).collect();
    if failed.is_empty() {
        println!("\ntest result: ok. {} passed\n", cases.len());
        return ExitCode::SUCCESS;
    }
    println!("\nfailures:\n    {}\n", failed.join("\n    "));
    println!("{}", world.last_words());
    println!("test result: FAILED. {} passed; {} failed\n", cases.len() - failed.len(), failed.len());
    ExitCode::FAILURE
}

fn passes(case: &Case, world: &World) -> bool {
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (case.run)(world)));
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("test {} ... {verdict} ({} ms)", case.name, start.elapsed().as_millis());
    outcome.is_ok()
}
