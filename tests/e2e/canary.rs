//! Secrets: the upstream's password never leaves the gateway, and a client's token is never written down.

use std::fs;
use std::process::ExitCode;
use tests::process;
use tests::suite::{Case, run};
use tests::wire::Wire;
use tests::world::{Login, World};

fn main() -> ExitCode {
    run(vec![
        Case::new("no_client_ever_receives_the_upstream_password", not_in_client_bytes),
        Case::new("no_command_line_or_environment_holds_a_secret", not_in_command_lines),
        Case::new("no_log_and_no_recording_holds_a_secret", not_in_files),
        Case::new("no_replayed_session_holds_a_secret", not_in_replays),
        Case::new("no_file_of_a_secret_is_readable_by_others", secret_files_are_private),
    ])
}

/// The password is hexadecimal digits: no protocol or log would escape it.
fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// Sessions of every role that work, fail, are refused and ask about credentials. Returns their tokens and bytes.
fn busy_sessions(world: &World) -> Vec<(Login, Vec<u8>)> {
    ["analyst", "agent", "dba"].map(|role| busy_session(world, world.through(role))).into()
}

fn busy_session(world: &World, login: Login) -> (Login, Vec<u8>) {
    let statements = [
        "select count(*) from orders",
        "select 1/0",
        "drop table customers_of_nobody",
        "select * from pg_stat_activity",
        "select * from pg_authid",
        "select current_setting('application_name'), current_user, session_user",
        "select * from pg_hba_file_rules",
        "show all",
        "nonsense",
    ];
    let entered = Wire::login(login.port, &login.user, "shop", login.password.as_bytes());
    let mut wire = entered.unwrap_or_else(|refusal| panic!("{refusal:?}"));
    for statement in statements {
        wire.query(statement);
        wire.until_ready();
    }
    let refused = Wire::login(world.gateway.port, &login.user, "shop", format!("{}x", login.password).as_bytes());
    assert!(refused.is_err(), "a spoiled token is refused");
    (login, wire.received)
}

fn not_in_client_bytes(world: &World) {
    for (_, received) in busy_sessions(world) {
        assert!(received.len() > 1000, "the session was busy");
        assert!(!holds(&received, &world.upstream.password));
    }
}

fn not_in_command_lines(world: &World) {
    let (login, _) = busy_session(world, world.through("dba"));
    let pids = world.gateway_pids();
    assert!(!pids.is_empty());
    for pid in pids {
        let line = process::command_line(pid);
        for secret in [&world.upstream.password, &login.password] {
            assert!(!line.contains(secret.as_str()), "process {pid}: {line}");
            assert!(!holds(&process::environment(pid), secret), "the environment of process {pid}: {line}");
        }
    }
}

fn not_in_files(world: &World) {
    let sessions = busy_sessions(world);
    for path in world.gateway_files() {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!holds(&bytes, &world.upstream.password), "{} holds the upstream's password", path.display());
        for (login, _) in &sessions {
            let (_, signature) = login.password.rsplit_once('.').expect("a token has a signature");
            assert!(!holds(&bytes, signature), "{} holds a token", path.display());
        }
    }
}

/// Recordings are compressed: what counts is what a reader of them is shown.
fn not_in_replays(world: &World) {
    let sessions = busy_sessions(world);
    let replayed = replay_all(world);
    assert!(!replayed.contains(&world.upstream.password));
    for (login, _) in sessions {
        let (_, signature) = login.password.rsplit_once('.').expect("a token has a signature");
        assert!(!replayed.contains(signature));
    }
}

/// Every session as it is replayed, as soon as the recorder has written the busy ones.
fn replay_all(world: &World) -> String {
    for _ in 0..50 {
        let listed = world.evidence("sessions", &[]);
        let names = listed.out.lines().filter_map(|line| line.split_whitespace().next());
        let names = names.filter(|name| name.starts_with("s_"));
        let replayed: String = names.map(|name| world.evidence("replay", &[name]).out).collect();
        if replayed.matches("select count(*) from orders").count() >= 3 {
            return replayed;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the replays do not show the statements of three sessions: {:?}", world.evidence("sessions", &[]));
}

fn secret_files_are_private(world: &World) {
    use std::os::unix::fs::PermissionsExt;
    for path in world.gateway_files() {
        let mode = fs::metadata(&path).expect("the file is there").permissions().mode();
        let is_public = path == world.place.log() || path.extension().is_some_and(|extension| extension == "pub");
        assert!(is_public || mode & 0o077 == 0, "{} can be read by others: {mode:o}", path.display());
    }
}
