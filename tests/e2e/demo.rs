//! The demonstration as a newcomer starts it: its tour walks itself, and `D/env` holds what a shell needs.

use std::fs;
use std::process::{Command, ExitCode};

use tests::suite::{Case, run};
use tests::world::{Shown, World, wireward};

/// What scripts find in `D/env`.
const NAMES: [&str; 14] = [
    "PGHOST",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "ANALYST_TOKEN",
    "AGENT_TOKEN",
    "DBA_TOKEN",
    "WIREWARD_CONFIG",
    "WIREWARD_ADMIN",
    "UPSTREAM_DSN",
    "RECORDINGS",
];

fn main() -> ExitCode {
    run(vec![
        Case::new("the_tour_walks_itself_and_leaves_its_environment", sample),
        Case::new("the_tour_walks_before_a_server_of_ones_own", own_server),
        Case::new("a_promise_that_does_not_hold_ends_the_tour_with_1", broken_promise),
    ])
}

/// Runs `wireward demo --check` in a directory of its own.
fn demo(world: &World, name: &str, arguments: &[&str]) -> Shown {
    let mut command = Command::new(wireward());
    command.args(["demo", "--check", "--dir"]).arg(world.directory.0.join(name)).args(arguments);
    // psql for a server of one's own is looked for as a person's shell would.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:{}", world.server.binaries().display()));
    Shown::of(command)
}

fn steps(shown: &Shown) -> usize {
    shown.out.lines().filter(|line| line.starts_with("ok ")).count()
}

fn sample(world: &World) {
    let shown = demo(world, "tour", &[]).must_succeed();
    assert_eq!(steps(&shown), 14, "{}", shown.out);
    let environment = fs::read_to_string(world.directory.0.join("tour/env")).expect("D/env is written");
    for name in NAMES {
        let line = environment.lines().find(|line| line.starts_with(&format!("export {name}='")));
        assert!(line.is_some_and(|line| line.len() > name.len() + 10), "{name} is not in {environment}");
    }
}

fn own_server(world: &World) {
    let upstream = &world.upstream;
    let dsn =
        format!("postgresql://{}:{}@{}/{}", upstream.user, upstream.password, upstream.address, upstream.database);
    let shown = demo(world, "own", &["--upstream", &dsn]).must_succeed();
    assert_eq!(steps(&shown), 14, "{}", shown.out);
}

fn broken_promise(world: &World) {
    let policy = world.directory.0.join("open");
    fs::create_dir_all(&policy).expect("our directory is writable");
    let text = include_str!("../../dataplane/src/demo/policy.toml").replace("\"customers.email\", ", "");
    fs::write(policy.join("policy.toml"), text.replace("kinds = [\"*\"]", "kinds = [\"us-ssn\"]")).expect("writable");
    let shown = demo(world, "broken", &["--policy", &policy.display().to_string()]);
    assert!(!shown.success && shown.out.contains("FAILED  an analyst reads customers with personal data masked"));
}
