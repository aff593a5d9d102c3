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
        Case::new("no_password_of_a_statement_is_recorded", no_password_of_a_statement_is_recorded),
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

/// Statements that carry a secret, each by its own canary; `?` is its place. Most fail: what matters is the record.
const SECRET_STATEMENTS: [&str; 20] = [
    "alter role nobody_here password '?'",
    "alter user nobody_here with encrypted password E'?'",
    "create role nobody_there password $$?$$ connection limit no",
    "alter role nobody_here password 'SCRAM-SHA-256$4096:?$?:?'",
    "create user mapping for public server nowhere options (user 'u', password '?')",
    "alter user mapping for public server nowhere options (set \"password\" '?')",
    "create server nowhere foreign data wrapper none_here options (passfile '?')",
    "alter server nowhere options (set sslpassword '?')",
    "create subscription nothing connection 'host=127.0.0.1 port=1 password=?' publication p with (connect = false)",
    "alter subscription nothing connection 'postgres://u:?@127.0.0.1:1/d'",
    "select * from dblink('host=127.0.0.1 port=1 password=?', 'select 1') as t(a int)",
    "select dblink_connect('c', 'host=127.0.0.1 port=1 ' || 'pass' || 'word=?')",
    "select length('postgresql://u:?@db.example/d')",
    "do $$ begin execute 'alter role nobody_here password ''?'''; exception when others then null; end $$",
    "do $$ begin alter role nobody_here password '?'; exception when others then null; end $$",
    "explain select length('password=?')",
    "prepare p as select length('password=?')",
    "alter role nobody_here password '?",
    "/* password: ? */ select 1",
    "update pg_authid set rolpassword = '?' where false",
];

/// Starred in the record, by simple and extended protocol, as parameters and in messages of many pieces; and it still verifies.
fn no_password_of_a_statement_is_recorded(world: &World) {
    let login = world.through("dba");
    let mut wire = Wire::login(login.port, &login.user, "shop", login.password.as_bytes()).expect("a dba gets in");
    for (number, statement) in SECRET_STATEMENTS.iter().enumerate() {
        let text = statement.replace('?', &format!("cAnArY{number}q"));
        wire.query(&text);
        wire.until_ready();
        wire.extended(&text, None, false);
        wire.until_ready();
        let padded = format!("select 1 /* {} */; {text}", "x ".repeat(40_000));
        wire.query(&padded);
        wire.until_ready();
    }
    for filler in ["", &"x ".repeat(40_000)] {
        let value = format!("host=h {filler} password=cAnArY-as-a-parameter");
        let bind = [&b"\0\0\0\0\0\x01"[..], &(value.len() as u32).to_be_bytes(), value.as_bytes(), b"\0\0"].concat();
        wire.send(b'P', b"\0select length($1)\0\0\0");
        wire.send(b'B', &bind);
        wire.send(b'E', b"\0\0\0\0\0");
        wire.send(b'S', b"");
        assert_eq!(wire.rows()[0][0].as_deref(), Some(value.len().to_string().as_bytes()), "the server sees it whole");
    }
    for number in 0..3 {
        wire.query(&format!("select count(*) from orders where id = {number}"));
        wire.until_ready();
    }
    let recorded = recorded_when(world, "select count(*) from orders where id = 2");
    assert!(!holds(&recorded, "cAnArY"), "a secret is recorded: {}", around(&recorded, "cAnArY"));
    assert!(holds(&recorded, "alter role nobody_here password '"), "the statements themselves are recorded");
    let replayed = replay_all(world);
    assert!(!replayed.contains("cAnArY"), "a secret is replayed: {}", around(replayed.as_bytes(), "cAnArY"));
    assert!(replayed.contains("alter role nobody_here password '********"), "{replayed}");
    for path in world.gateway_files() {
        assert!(!holds(&fs::read(&path).expect("a file"), "cAnArY"), "{} holds a secret", path.display());
    }
    world.evidence("verify", &[]).must_succeed();
}

/// All payloads of the recordings, as soon as they have `last`.
fn recorded_when(world: &World, last: &str) -> Vec<u8> {
    for _ in 0..100 {
        let mut bytes = Vec::new();
        let visit = |entry: recorder::segment::reader::Entry<'_>| {
            bytes.extend_from_slice(entry.payload);
            Ok(())
        };
        recorder::evidence::walk(&world.place.recordings(), |_| true, visit).expect("the recordings can be read");
        if holds(&bytes, last) {
            return bytes;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the recordings do not show {last}");
}

fn around(bytes: &[u8], what: &str) -> String {
    let at = bytes.windows(what.len()).position(|window| window == what.as_bytes()).unwrap_or(0);
    String::from_utf8_lossy(&bytes[at.saturating_sub(300)..bytes.len().min(at + 60)]).into_owned()
}
