//! The gateway over epoll: started with `--io epoll`, and where io_uring is forbidden.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::process;
use tests::server::Outcome;
use tests::suite::{Case, run_in};
use tests::world::{Login, Shown, World, python, script_path, tests_path, wireward};

const FELL_BACK: &str = "epoll is used instead";

fn main() -> ExitCode {
    let mut cases = vec![
        Case::new("no_process_of_the_gateway_has_a_ring", no_ring),
        Case::new("results_are_those_of_the_server", same_as_direct),
        Case::new("a_large_result_a_large_value_and_a_copy_pass", large),
        Case::new("eight_clients_of_pgbench_run", pgbench),
        Case::new("a_cancel_request_stops_its_statement", cancel),
        Case::new("where_io_uring_is_forbidden_auto_falls_back_and_says_so", falls_back),
        Case::new("where_io_uring_is_forbidden_uring_alone_does_not_start", insists),
        Case::new("under_the_shipped_seccomp_profile_io_uring_runs", confined),
    ];
    cases.extend(Case::of_script("policy_cases.py"));
    cases.extend(Case::of_script("tls_cases.py"));
    run_in(start, cases)
}

fn start() -> Outcome<World> {
    World::start_by(|directory| script(directory, &format!("{} \"$@\" --io epoll", wireward().display())), "", None)
}

/// A program that runs a line of shell in its own place.
fn script(directory: &Path, line: &str) -> Outcome<PathBuf> {
    let path = directory.join("wireward.sh");
    fs::write(&path, format!("#!/bin/sh\nexec {line}\n"))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

/// Whether a process of this tree holds an io_uring.
fn has_ring(root: u32) -> bool {
    let pids = process::tree(root);
    assert!(pids.len() >= 3, "a gateway has three processes: {pids:?}");
    let files = pids.into_iter().flat_map(|pid| {
        let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).expect("root may look").flatten().collect();
        open
    });
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|to| to.to_string_lossy().contains("io_uring"))
}

fn no_ring(world: &World) {
    assert!(!has_ring(world.gateway.process.id()));
    let log = fs::read_to_string(world.place.log()).expect("the log is there");
    assert!(!log.contains(FELL_BACK), "epoll was asked for: {log}");
    // The same look finds the ring of a gateway that has one; its port is open a moment before.
    let (_, usual) = world.another("usual", |c| c);
    let began = Instant::now();
    while !has_ring(usual.process.id()) {
        assert!(began.elapsed() < Duration::from_secs(20), "no ring is seen where there is one");
        sleep(Duration::from_millis(20));
    }
}

fn same_as_direct(world: &World) {
    let statements = [
        "select id, item, amount, placed_at, status from orders order by id limit 200",
        "select 1; select 2; select 3",
        "select 1/0",
        "create temporary table t (n int); insert into t select generate_series(1, 5); select * from t",
        "\\d orders",
        "select 'goes on'",
    ];
    let (through, directly) =
        (world.psql(&world.through("dba"), &statements), world.psql(&world.direct(), &statements));
    assert_eq!(through, directly);
    through.must_print("goes on");
    let masked = world.psql(&world.through("analyst"), &["select ssn from customers where id = 1"]);
    masked.must_succeed().must_print("***-**-");
}

fn large(world: &World) {
    let rows = "select n, repeat('x', 50) from generate_series(1, 1000000) n";
    let count = format!("\\copy ({rows}) to program 'wc -l'");
    world.psql(&world.through("dba"), &[&count]).must_succeed().must_print("1000000");
    // Longer than any socket's buffer: sends are short and wait, in both directions.
    let lengths = "select length(repeat('y', 30000000)), repeat('y', 30000000)";
    let shown = world.psql(&world.through("dba"), &[lengths]).must_succeed();
    assert!(shown.out.starts_with("30000000|yyy") && shown.out.len() > 30_000_000, "{} bytes", shown.out.len());
    let file = world.directory.0.join("rows.txt");
    fs::write(&file, "z".repeat(1000).repeat(10_000)).expect("our directory is writable");
    let copies = ["create temp table c (t text)", "\\copy c from 'rows.txt'", "select count(*), sum(length(t)) from c"];
    world.psql(&world.through("dba"), &copies).must_succeed().must_print("1|10000000");
}

fn pgbench(world: &World) {
    let known = world.directory.0.join("known.sql");
    fs::write(&known, "select item from orders where id = 42;\n").expect("our directory is writable");
    let known = known.display().to_string();
    let options = ["-n", "-M", "prepared", "-c", "8", "-j", "2", "-t", "500", "-f", &known];
    let shown = Shown::of(world.tool(&world.through("dba"), "pgbench", &options));
    shown.must_print("number of transactions actually processed: 4000/4000");
}

fn cancel(world: &World) {
    let mut command = Command::new("timeout");
    command.args(["-s", "INT", "1"]).arg(world.server.binaries().join("psql")).args([
        "-X",
        "-c",
        "select pg_sleep(20)",
    ]);
    let Login { port, user, password } = world.through("dba");
    command.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGDATABASE", "shop");
    command.env("PGUSER", user).env("PGPASSWORD", password).env("PGSSLMODE", "disable");
    let began = Instant::now();
    Shown::of(command).must_complain("canceling statement due to user request");
    assert!(began.elapsed() < Duration::from_secs(10), "psql hung for {:?}", began.elapsed());
}

/// The gateway under the seccomp profile that is shipped for containers.
fn under_seccomp(world: &World, name: &str, options: &str) -> PathBuf {
    let (python, filter) = (python(), script_path("with_seccomp.py"));
    let profile = tests_path("../dataplane/wireward.seccomp.json");
    let paths = [&python, &filter, &profile].map(|path| path.display().to_string()).join(" ");
    let directory = world.directory.0.join(name);
    fs::create_dir_all(&directory).expect("our directory is writable");
    script(&directory, &format!("{paths} {options} {} \"$@\"", wireward().display()))
        .unwrap_or_else(|why| panic!("{why}"))
}

fn forbidden(world: &World) -> PathBuf {
    under_seccomp(world, "filter", "--without-io-uring")
}

fn confined(world: &World) {
    // A credential from a program: children are confined as well.
    let password = world.directory.0.join("confined/upstream.password");
    let command = format!("{{ command = [\"cat\", \"{}\"] }}", password.display());
    let (place, gateway) = world.another_by(&under_seccomp(world, "shipped", ""), "confined", |c| {
        c.replace("{ file = \"upstream.password\" }", &command)
    });
    assert!(has_ring(gateway.process.id()));
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).expect("it runs");
    assert!(status.contains("\nSeccomp:\t2\n"), "it runs under a filter: {status}");
    let login = Login { port: gateway.port, ..world.through("dba") };
    world.psql(&login, &["select 'in'"]).must_succeed().must_print("in");
    let log = fs::read_to_string(place.log()).expect("the log is there");
    assert!(!log.contains(FELL_BACK), "{log}");
    world.evidence_of(&place, "sessions", &[]).must_succeed();
}

fn falls_back(world: &World) {
    let (place, gateway) = world.another_by(&forbidden(world), "forbidden", |written| {
        written.replace("[recording]\n", "[recording]\nshell = \"auto\"\n")
    });
    assert!(!has_ring(gateway.process.id()));
    let login = Login { port: gateway.port, ..world.through("dba") };
    world.psql(&login, &["select 'in'"]).must_succeed().must_print("in");
    let log = fs::read_to_string(place.log()).expect("the log is there");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(FELL_BACK)).collect();
    let expected = "io_uring cannot be used: Operation not permitted";
    assert!(lines.len() == 1 && lines[0].contains(expected), "one line for all shards: {log}");
    let recorder = log.lines().find(|line| line.contains("plain is used instead"));
    assert!(recorder.is_some_and(|line| line.contains(expected)), "the recorder falls back too: {log}");
}

fn insists(world: &World) {
    let mut command = Command::new(forbidden(world));
    command.arg("run").arg("--config").arg(world.place.configuration()).args(["--io", "uring"]);
    let shown = Shown::of(command);
    assert!(!shown.success, "{shown:?}");
    shown.must_complain("io_uring cannot be used").must_complain("--io auto");
}
