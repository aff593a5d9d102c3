//! A changed configuration comes into force whole or not at all, while sessions go on.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::authority;
use tests::gateway::{Gateway, Place};
use tests::issuer::NAME;
use tests::suite::{Case, run};
use tests::wire::{Message, Wire, cancel};
use tests::world::{Login, Shown, World, wireward};

const POLICY: &str = include_str!("../../dataplane/src/demo/policy.toml");
const NO_ORDERS: &str = r#"
[[rule]]
name = "no-orders"
action = "block"
except = ["dba"]
effects = ["read"]
relations = ["orders"]
"#;
/// Files are looked at five times a second, and a change must have stood for one look.
const NOTICED_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    run(vec![
        Case::new("a_tighter_policy_holds_for_sessions_and_prepared_statements_that_are_there", tighter),
        Case::new("a_tighter_policy_holds_for_what_sql_has_prepared_and_for_open_cursors", tighter_in_sql),
        Case::new("a_mask_that_is_gone_or_new_counts_from_the_next_statement", masks),
        Case::new("a_session_whose_role_is_gone_ends_with_the_reason", role_gone),
        Case::new("what_cannot_be_used_leaves_the_old_in_force_and_says_why", bad_files),
        Case::new("what_clients_may_bring_is_reloaded", startup_parameters),
        Case::new("sighup_reads_everything_again", hangup),
        Case::new("a_certificate_and_a_credential_are_exchanged_while_it_runs", rotated),
        Case::new("a_cancel_goes_where_the_session_is_not_where_new_ones_would_go", moved_upstream),
        Case::new("reloads_under_load_fail_no_statement", under_load),
        Case::new("a_view_that_is_made_anew_is_masked_under_a_prepared_statement_too", view_made_anew),
    ])
}

/// A gateway with files of its own.
struct Stage<'w> {
    world: &'w World,
    place: Place,
    gateway: Gateway,
    directory: PathBuf,
}

impl<'w> Stage<'w> {
    fn new(world: &'w World, name: &str) -> Self {
        let (place, gateway) = world.another(name, |text| text);
        let directory = place.configuration().parent().expect("a file has a directory").to_owned();
        Stage { world, place, gateway, directory }
    }

    /// Compiles a policy into the file that the gateway watches, by a rename as `policy build` does it.
    fn policy(&self, text: &str) {
        let source = self.directory.join("next.toml");
        fs::write(&source, text).expect("our directory is writable");
        let mut build = std::process::Command::new(wireward());
        build.args(["policy", "build"]).arg(&source).arg("-o").arg(self.directory.join("policy.bundle"));
        Shown::of(build).must_succeed();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.log()).expect("the log is there")
    }

    fn reloads(&self) -> usize {
        self.log().matches("the configuration was read again").count()
    }

    /// Does something, and waits until the log has one line more with these words.
    #[track_caller]
    fn until_logged(&self, words: &str, change: impl FnOnce()) {
        let before = self.log().matches(words).count();
        change();
        let began = Instant::now();
        while self.log().matches(words).count() == before {
            assert!(began.elapsed() < NOTICED_MAX, "no {words:?} in {}", self.log());
            sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn until_in_force(&self, change: impl FnOnce()) {
        self.until_logged("the configuration was read again", change);
        // The shards hear of it with their next event.
        sleep(Duration::from_millis(50));
    }

    fn login(&self, role: &str) -> Login {
        Login { port: self.gateway.port, ..self.world.through(role) }
    }

    fn enter(&self, role: &str) -> Wire {
        let login = self.login(role);
        Wire::login(login.port, NAME, "shop", login.password.as_bytes()).expect("the token lets in")
    }
}

fn prepare(wire: &mut Wire, name: &str, text: &str) {
    wire.send(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat());
    wire.send(b'S', b"");
    assert!(wire.until_ready().iter().all(|m| m.kind != b'E'), "{text} can be prepared");
}

fn execute(wire: &mut Wire, name: &str) -> Vec<Message> {
    wire.send(b'B', &[b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat());
    wire.send(b'E', b"\0\0\0\0\0");
    wire.send(b'S', b"");
    wire.until_ready()
}

fn error(messages: &[Message]) -> Option<String> {
    messages.iter().find(|m| m.kind == b'E').map(|m| format!("{} {}", m.sqlstate(), m.field(b'M').unwrap_or_default()))
}

fn cell(messages: &[Message]) -> String {
    let row = messages.iter().find(|m| m.kind == b'D').unwrap_or_else(|| panic!("a row comes: {messages:?}"));
    String::from_utf8_lossy(&row.body[6..]).into_owned()
}

fn ask(wire: &mut Wire, text: &str) -> Vec<Message> {
    wire.query(text);
    wire.until_ready()
}

fn tighter(world: &World) {
    const TEXT: &str = "select id from orders where id = 1";
    let stage = Stage::new(world, "tighter");
    let mut wire = stage.enter("analyst");
    prepare(&mut wire, "s", TEXT);
    // Judged by another thread; kept up to 8 KiB.
    prepare(&mut wire, "long", &format!("{TEXT} -- {}", "x".repeat(7_000)));
    prepare(&mut wire, "not kept", &format!("{TEXT} -- {}", "x".repeat(9_000)));
    assert_eq!(cell(&execute(&mut wire, "s")), "1");
    stage.until_in_force(|| stage.policy(&format!("{POLICY}{NO_ORDERS}")));
    for messages in [execute(&mut wire, "s"), execute(&mut wire, "long"), ask(&mut wire, TEXT)] {
        assert!(error(&messages).is_some_and(|e| e.starts_with("42501") && e.contains("no-orders")), "{messages:?}");
    }
    let refused = error(&execute(&mut wire, "not kept"));
    assert_eq!(refused.as_deref(), Some("0A000 cached plan must not change result type"));
    assert!(error(&ask(&mut wire, "select 1")).is_none(), "the session goes on");
    stage.until_in_force(|| stage.policy(POLICY));
    for name in ["s", "long"] {
        assert_eq!(cell(&execute(&mut wire, name)), "1", "what was loosened again is allowed again");
    }
}

/// By EXECUTE and FETCH, in every form in which they can be sent.
fn tighter_in_sql(world: &World) {
    const TEXT: &str = "select id from orders where id = 1";
    let stage = Stage::new(world, "tighter in sql");
    let uses = [
        "execute s",
        "execute long",
        "fetch c",
        "fetch p",
        "select 1; execute s",
        "move c",
        "explain analyze execute s",
    ];
    let mut wires: Vec<Wire> = uses.iter().map(|_| stage.enter("analyst")).collect();
    for (wire, text) in wires.iter_mut().zip(uses) {
        ask(wire, &format!("prepare s as {TEXT}"));
        ask(wire, &format!("prepare long as {TEXT} -- {}", "x".repeat(9_000)));
        ask(wire, &format!("declare c cursor with hold for {TEXT}; begin"));
        wire.send(b'P', &[b"\0", TEXT.as_bytes(), b"\0\0\0"].concat());
        wire.send(b'B', b"p\0\0\0\0\0\0\0\0");
        wire.send(b'S', b"");
        assert!(error(&wire.until_ready()).is_none());
        if !text.contains(';') {
            prepare(wire, "by the protocol", text);
        }
    }
    stage.until_in_force(|| stage.policy(&format!("{POLICY}{NO_ORDERS}")));
    for (wire, text) in wires.iter_mut().zip(uses) {
        let refused = |messages: &[Message]| {
            error(messages).is_some_and(|e| e.contains("no-orders") || e.starts_with("0A000 cached plan must"))
        };
        let sent = ask(wire, text);
        assert!(refused(&sent), "{text}: {sent:?}");
        ask(wire, "rollback");
        if text.contains("execute") && !text.contains(';') {
            let sent = execute(wire, "by the protocol");
            assert!(refused(&sent), "{text} by the protocol: {sent:?}");
        }
        assert!(error(&ask(wire, "select 1")).is_none(), "the session goes on");
    }
}

fn masks(world: &World) {
    const TEXT: &str = "select email from customers where id = 1";
    let stage = Stage::new(world, "masks");
    let mut wire = stage.enter("analyst");
    prepare(&mut wire, "s", TEXT);
    let stars = |text: &str| !text.is_empty() && text.chars().all(|c| c == '*');
    assert!(stars(&cell(&execute(&mut wire, "s"))));
    let open = POLICY.replace("\"customers.email\", ", "").replace("kinds = [\"*\"]", "kinds = [\"us-ssn\"]");
    stage.until_in_force(|| stage.policy(&open));
    assert!(cell(&execute(&mut wire, "s")).contains('@'), "the mask is gone");
    stage.until_in_force(|| stage.policy(POLICY));
    assert!(stars(&cell(&execute(&mut wire, "s"))), "the mask is there again");
    assert!(stars(&cell(&ask(&mut wire, TEXT))));
}

fn role_gone(world: &World) {
    let stage = Stage::new(world, "role-gone");
    let mut agent = stage.enter("agent");
    let mut analyst = stage.enter("analyst");
    let without = POLICY.replace("agent", "robot");
    stage.until_in_force(|| stage.policy(&without));
    let told = agent.expect();
    assert_eq!((told.kind, told.sqlstate().as_str()), (b'E', "57P01"), "{told:?}");
    assert!(told.field(b'M').is_some_and(|m| m.contains("no role of the session")), "{told:?}");
    assert!(error(&ask(&mut analyst, "select 1")).is_none(), "others go on");
}

fn bad_files(world: &World) {
    const STAYS: &str = "the configuration stays as it was";
    let stage = Stage::new(world, "bad-files");
    let mut wire = stage.enter("analyst");
    let file = |name: &str| stage.directory.join(name);
    for (name, content, reason) in [
        ("policy.bundle", "no artifact".to_owned(), "policy.file"),
        ("jwks.json", "{".to_owned(), "jwks.json"),
        ("server.pem", "no certificate".to_owned(), "server.pem"),
        ("wireward.toml", "nonsense = 1".to_owned(), "unknown field `nonsense`"),
        ("wireward.toml", moved(&stage), "listener.address cannot be changed while the gateway runs"),
        ("wireward.toml", without_admin(&stage), "admin.address cannot be changed while the gateway runs"),
    ] {
        let before = fs::read(file(name)).expect("it is there");
        stage.until_logged(STAYS, || fs::write(file(name), content).expect("our directory is writable"));
        let log = stage.log();
        let line = log.lines().rfind(|line| line.contains(STAYS)).expect("it was waited for");
        assert!(line.contains(reason), "{name}: {line}");
        assert!(cell(&ask(&mut wire, "select email from customers where id = 1")).starts_with('*'), "{name}");
        assert!(error(&ask(&mut stage.enter("analyst"), "select 1")).is_none(), "{name}: new sessions go on too");
        stage.until_in_force(|| fs::write(file(name), &before).expect("our directory is writable"));
    }
}

/// The configuration with another port.
fn moved(stage: &Stage<'_>) -> String {
    let text = fs::read_to_string(stage.place.configuration()).expect("it is there");
    text.replace(&format!(":{}\"", stage.gateway.port), ":1\"")
}

fn without_admin(stage: &Stage<'_>) -> String {
    let text = fs::read_to_string(stage.place.configuration()).expect("it is there");
    text.split("[admin]").next().unwrap_or_default().to_owned()
}

fn startup_parameters(world: &World) {
    let stage = Stage::new(world, "startup-parameters");
    let bring = || {
        let mut psql = world.tool(&stage.login("dba"), "psql", &["-XAtqc", "show post_auth_delay"]);
        psql.env("PGOPTIONS", "-c post_auth_delay=1");
        Shown::of(psql)
    };
    bring().must_complain("post_auth_delay cannot be set by a client");
    let text = fs::read_to_string(stage.place.configuration()).expect("it is there");
    let allowing = format!("{text}\n[limits]\nignore_startup_parameters = [\"POST_AUTH_DELAY\"]\nplans_max = 16\n");
    stage.until_in_force(|| fs::write(stage.place.configuration(), allowing).expect("our directory is writable"));
    // It is let in, and the parameter counts for nothing.
    bring().must_succeed().must_print("0");
}

fn hangup(world: &World) {
    let stage = Stage::new(world, "hangup");
    let pid = Pid::from_raw(stage.gateway.process.id() as i32).expect("a process has a number");
    let mut wire = stage.enter("analyst");
    stage.until_in_force(|| kill_process(pid, Signal::HUP).expect("our own child takes signals"));
    assert!(error(&ask(&mut wire, "select 1")).is_none(), "SIGHUP ends nothing");
    assert!(error(&ask(&mut stage.enter("analyst"), "select 1")).is_none());
}

fn rotated(world: &World) {
    let stage = Stage::new(world, "rotated");
    let root = stage.place.root_certificate();
    let old = stage.directory.join("old-ca.pem");
    fs::copy(&root, &old).expect("our directory is writable");
    let verified = |root: &PathBuf| {
        let mut psql = world.tool(&stage.login("analyst"), "psql", &["-XAtqc", "select 1"]);
        psql.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", root);
        Shown::of(psql)
    };
    verified(&old).must_succeed();
    stage.until_in_force(|| authority::certify(&stage.directory).expect("our directory is writable"));
    verified(&root).must_succeed();
    assert!(!verified(&old).success, "the old certificate is served still");

    let change = format!("alter role {} password 'another'", world.upstream.user);
    let mut wire = stage.enter("analyst");
    world.psql(&world.direct(), &[&change]).must_succeed();
    stage.until_in_force(|| fs::write(stage.directory.join("upstream.password"), "another").expect("writable"));
    assert!(error(&ask(&mut stage.enter("analyst"), "select 1")).is_none(), "new sessions use the new password");
    assert!(error(&ask(&mut wire, "select 1")).is_none(), "old sessions go on");
    let back = format!("alter role {} password '{}'", world.upstream.user, world.upstream.password);
    let direct = Login { password: "another".into(), ..world.direct() };
    world.psql(&direct, &[&back]).must_succeed();
}

fn moved_upstream(world: &World) {
    let stage = Stage::new(world, "moved");
    let mut wire = stage.enter("dba");
    wire.query("select pg_sleep(20)");
    let text = fs::read_to_string(stage.place.configuration()).expect("it is there");
    let away = text.replace(&world.upstream.address, "127.0.0.1:1");
    stage.until_in_force(|| fs::write(stage.place.configuration(), away).expect("our directory is writable"));
    let began = Instant::now();
    cancel(stage.gateway.port, &wire.key);
    assert_eq!(error(&wire.until_ready()).map(|e| e[..5].to_owned()).as_deref(), Some("57014"));
    assert!(began.elapsed() < Duration::from_secs(10), "the statement ended by itself");
}

fn under_load(world: &World) {
    const RELOADS: usize = 12;
    let stage = Stage::new(world, "under-load");
    let script = stage.directory.join("load.sql");
    fs::write(&script, "select id, email from customers where id = 7;\n").expect("our directory is writable");
    let script = script.display().to_string();
    let arguments = ["-n", "-M", "prepared", "-c", "8", "-j", "1", "-T", "20", "-f", &script];
    let mut load = world.tool(&stage.login("analyst"), "pgbench", &arguments);
    let before = stage.reloads();
    let running = std::thread::spawn(move || Shown::of(load_output(&mut load)));
    let rules: Vec<String> = (0..1_000).map(|n| NO_ORDERS.replace("no-orders", &format!("rule-{n}"))).collect();
    for n in 0..RELOADS {
        let rules = if n % 2 == 0 { rules.concat() } else { String::new() };
        stage.until_in_force(|| stage.policy(&format!("{POLICY}{rules}")));
    }
    let shown = running.join().expect("pgbench ends");
    assert!(shown.success && !shown.err.contains("ERROR"), "{shown:?}");
    shown.must_print("number of failed transactions: 0 ");
    assert!(stage.reloads() >= before + RELOADS);
}

fn load_output(command: &mut std::process::Command) -> std::process::Command {
    std::mem::replace(command, std::process::Command::new("true"))
}

fn view_made_anew(world: &World) {
    world.psql(&world.direct(), &["create view shown as select name as it from customers"]).must_succeed();
    let stage = Stage::new(world, "view");
    let mut wire = stage.enter("analyst");
    prepare(&mut wire, "s", "select it || '' from shown limit 1");
    let clear = cell(&execute(&mut wire, "s"));
    world
        .psql(&world.direct(), &["create or replace view shown as select reverse(ssn) as it from customers"])
        .must_succeed();
    let began = Instant::now();
    loop {
        let messages = execute(&mut wire, "s");
        // The catalogue is read every 5 s: until then the old definition counts (README, weak spots).
        if error(&messages).is_some() || cell(&messages).chars().all(|c| c == '*') {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{clear}, then {} after 10 s", cell(&messages));
        sleep(Duration::from_millis(200));
    }
    world.psql(&world.direct(), &["drop view shown"]).must_succeed();
}
