//! An upstream connection that a client has left at rest is lent to its next session, clean; to nobody else, and not when
//! something of the old session may still be under way.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::gateway::{Gateway, Place};
use tests::issuer::NAME;
use tests::suite::{Case, run};
use tests::wire::{Wire, cancel};
use tests::world::World;

/// The server has answered, and the gateway has heard it.
const SETTLE: Duration = Duration::from_millis(150);

fn main() -> ExitCode {
    run(vec![
        Case::new("the_next_session_of_a_client_goes_on_where_the_last_one_was", same_backend),
        Case::new("nothing_of_the_last_session_is_left", nothing_left),
        Case::new("another_identity_role_name_or_setting_logs_in_anew", others),
        Case::new("an_upstream_that_is_not_at_rest_is_not_lent", not_at_rest),
        Case::new("a_session_that_stays_keeps_its_upstream_and_one_that_is_kept_waits_for_its_client", stays),
        Case::new("a_kept_connection_that_its_server_ends_is_not_lent", ended_by_server),
        Case::new("kept_connections_end_with_their_time_and_their_number_is_bounded", bounded),
        Case::new("an_upstream_without_room_gets_back_what_is_kept", full),
        Case::new("a_reload_ends_them_and_a_stop_does_not_wait", reload_and_stop),
        Case::new("with_no_room_for_them_every_session_logs_in", switched_off),
    ])
}

/// Kept connections are a shard's own: with one, each session finds them.
fn one_shard(world: &World, name: &str, limits: &str) -> (Place, Gateway) {
    let limits = if limits.is_empty() { "idle_upstreams_max = 16" } else { limits };
    world.another(name, |c| format!("{c}\n[runtime]\nshards = 1\n[limits]\n{limits}\n"))
}

struct Client<'a> {
    world: &'a World,
    port: u16,
    token: String,
}

impl<'a> Client<'a> {
    fn new(world: &'a World, gateway: &Gateway, subject: &str, role: &str) -> Self {
        let token = world.issuer.token(subject, &[role]).expect("the issuer signs");
        Client { world, port: gateway.port, token }
    }

    fn enter(&self) -> Wire {
        Wire::login(self.port, NAME, "shop", self.token.as_bytes()).expect("it is let in")
    }

    fn enter_with(&self, parameters: &[(&str, &str)]) -> Wire {
        let mut wire = Wire::connect(self.port);
        wire.startup(&[&[("user", NAME), ("database", "shop")], parameters].concat());
        wire.expect();
        wire.send(b'p', &[self.token.as_bytes(), b"\0"].concat());
        wire.until_ready();
        wire
    }

    /// The back-end that a fresh session has, which then says goodbye.
    fn backend(&self) -> String {
        let mut wire = self.enter();
        let backend = backend(&mut wire);
        leave(wire);
        backend
    }

    /// Whether the server still has that back-end.
    fn is_there(&self, backend: &str) -> bool {
        let text = format!("select count(*) from pg_stat_activity where pid = {backend}");
        self.world.psql(&self.world.direct(), &[&text]).out.trim() == "1"
    }
}

fn backend(wire: &mut Wire) -> String {
    one(wire, "select pg_backend_pid()")
}

fn one(wire: &mut Wire, text: &str) -> String {
    wire.query(text);
    let rows = wire.rows();
    String::from_utf8(rows[0][0].clone().unwrap_or_default()).expect("text")
}

fn run_all(wire: &mut Wire, texts: &[&str]) {
    for text in texts {
        wire.query(text);
        wire.rows();
    }
}

/// Says goodbye, as clients do, and waits until its upstream has been reset.
fn leave(mut wire: Wire) {
    wire.send(b'X', b"");
    assert!(wire.is_ended());
    sleep(SETTLE);
}

fn same_backend(world: &World) {
    for driver in ["uring", "epoll"] {
        let (_place, gateway) = world.another(driver, |c| {
            format!("{c}\n[runtime]\nshards = 1\nio = \"{driver}\"\n[limits]\nidle_upstreams_max = 16\n")
        });
        same_backend_through(world, &gateway);
    }
}

fn same_backend_through(world: &World, gateway: &Gateway) {
    for role in ["analyst", "dba"] {
        let client = Client::new(world, gateway, "ann", role);
        let first = client.backend();
        assert_eq!([client.backend(), client.backend()], [first.clone(), first.clone()], "{role}");
        // Who hangs up without a word leaves it too.
        drop(client.enter());
        sleep(SETTLE);
        assert_eq!(client.backend(), first, "{role}, after a client that hung up");
        // Two at once are two.
        let (mut one, mut two) = (client.enter(), client.enter());
        let both = [backend(&mut one), backend(&mut two)];
        assert!(both[0] != both[1] && both.contains(&first), "{role}: {both:?}, {first}");
    }
}

/// What a session can leave on its back-end.
const TRACES: &[&str] = &[
    "create temp table mine (n int)",
    "create sequence if not exists reuse_numbers",
    "select nextval('reuse_numbers')",
    "prepare p as select 1",
    "declare c cursor with hold for select 1",
    "listen news",
    "select pg_advisory_lock(4711)",
    "set statement_timeout = '7s'",
    "set my.own = 'secret'",
    "set work_mem = '1MB'",
];

fn nothing_left(world: &World) {
    let (_place, gateway) = one_shard(world, "clean", "");
    let client = Client::new(world, &gateway, "ann", "dba");
    let mut wire = client.enter();
    let first = backend(&mut wire);
    run_all(&mut wire, TRACES);
    leave(wire);
    let mut wire = client.enter();
    assert_eq!(backend(&mut wire), first, "the test shows nothing on another back-end");
    for (text, left) in [
        ("select count(*) from pg_class where relname = 'mine' and relpersistence = 't'", "0"),
        ("select count(*) from pg_prepared_statements", "0"),
        ("select count(*) from pg_cursors", "0"),
        ("select count(*) from pg_listening_channels()", "0"),
        ("select count(*) from pg_locks where locktype = 'advisory'", "0"),
        ("select current_setting('statement_timeout')", "0"),
        ("select coalesce(current_setting('my.own', true), '')", ""),
        ("select current_setting('work_mem') <> '1MB'", "t"),
        ("select current_setting('standard_conforming_strings')", "on"),
        ("select current_setting('application_name')", "ann via wireward"),
    ] {
        assert_eq!(one(&mut wire, text), left, "{text}");
    }
    wire.query("select currval('reuse_numbers')");
    assert!(wire.until_ready().iter().any(|m| m.kind == b'E' && m.sqlstate() == "55000"), "a sequence's value is left");
    run_all(&mut wire, &["drop sequence reuse_numbers"]);
}

fn others(world: &World) {
    let (_place, gateway) = one_shard(world, "others", "");
    let ann = Client::new(world, &gateway, "ann", "dba");
    let first = ann.backend();
    let long = "a".repeat(80);
    for (what, other) in [
        ("identity", Client::new(world, &gateway, "bob", "dba").backend()),
        ("role", Client::new(world, &gateway, "ann", "analyst").backend()),
        ("a name that the server cuts", Client::new(world, &gateway, &format!("{long}1"), "dba").backend()),
    ] {
        assert_ne!(other, first, "{what}");
    }
    let cut = |end| Client::new(world, &gateway, &format!("{long}{end}"), "dba").backend();
    assert_ne!(cut("2"), cut("3"), "names that are alike in their first 63 bytes");
    for parameters in [[("application_name", "tool")], [("timezone", "Asia/Tokyo")], [("statement_timeout", "9s")]] {
        let mut wire = ann.enter_with(&parameters);
        assert_ne!(backend(&mut wire), first, "{parameters:?}");
        leave(wire);
    }
    assert_eq!(ann.backend(), first, "and ann's own was kept all the time");
}

/// What a client may leave its upstream in.
const UNREST: [(&str, fn(&mut Wire, u16)); 8] = [
    ("a transaction", |wire, _| run_all(wire, &["begin", "select 1"])),
    ("a failed transaction", |wire, _| {
        run_all(wire, &["begin"]);
        wire.query("select 1/0");
        wire.until_ready();
    }),
    ("a statement that runs", |wire, _| wire.query("select pg_sleep(0.5)")),
    ("a pipeline without its end", |wire, _| {
        wire.send(b'P', b"\0select 1\0\0\0");
        wire.send(b'H', b"");
        wire.expect();
    }),
    ("a COPY that waits for data", |wire, _| {
        run_all(wire, &["create temp table t (n int)"]);
        wire.query("copy t from stdin");
        assert_eq!(wire.expect().kind, b'G');
    }),
    ("a function that nobody knows", |wire, _| {
        run_all(wire, &["create function pg_temp.f() returns int language sql as 'select 1'", "select pg_temp.f()"]);
    }),
    ("a setting that the server reports", |wire, _| run_all(wire, &["set datestyle = 'SQL'"])),
    ("a cancelled statement", |wire, port| {
        wire.query("select pg_sleep(5)");
        sleep(SETTLE);
        cancel(port, &wire.key);
        assert!(wire.until_ready().iter().any(|m| m.kind == b'E' && m.sqlstate() == "57014"));
    }),
];

fn not_at_rest(world: &World) {
    let (_place, gateway) = one_shard(world, "unrest", "");
    let client = Client::new(world, &gateway, "ann", "dba");
    for (what, leave_it) in UNREST {
        let mut wire = client.enter();
        let first = backend(&mut wire);
        leave_it(&mut wire, gateway.port);
        drop(wire);
        sleep(Duration::from_millis(700));
        assert_ne!(client.backend(), first, "{what}: the next session has got it");
        assert!(!client.is_there(&first), "{what}: it is still there");
    }
}

fn stays(world: &World) {
    let (_place, gateway) = one_shard(world, "stays", "");
    let client = Client::new(world, &gateway, "ann", "dba");
    let mut wire = client.enter();
    let first = backend(&mut wire);
    sleep(Duration::from_millis(5_600));
    leave(wire);
    assert_ne!(client.backend(), first);
    // Who comes back later than the addresses are looked at again (5 s) finds its own all the same.
    let second = client.backend();
    sleep(Duration::from_secs(7));
    assert_eq!(client.backend(), second);
}

fn ended_by_server(world: &World) {
    let (_place, gateway) = one_shard(world, "ended", "");
    let client = Client::new(world, &gateway, "ann", "dba");
    let first = client.backend();
    let killed = world.psql(&world.direct(), &[&format!("select pg_terminate_backend({first})")]);
    assert!(killed.success, "{}", killed.err);
    sleep(SETTLE);
    assert_ne!(client.backend(), first);
}

fn bounded(world: &World) {
    let (_place, gateway) = one_shard(world, "bounded", "idle_upstreams_max = 2\nserver_idle_timeout_s = 7");
    let clients: Vec<Client> = (0..4).map(|n| Client::new(world, &gateway, &format!("subject-{n}"), "dba")).collect();
    let first: Vec<String> = clients.iter().map(Client::backend).collect();
    let kept: Vec<bool> = clients.iter().zip(&first).map(|(client, backend)| client.is_there(backend)).collect();
    assert_eq!(kept, [false, false, true, true], "the oldest go first");
    let until = Instant::now() + Duration::from_secs(10);
    while clients.iter().zip(&first).any(|(client, backend)| client.is_there(backend)) {
        assert!(Instant::now() < until, "one is kept for longer than server_idle_timeout_s");
        sleep(SETTLE);
    }
}

fn full(world: &World) {
    let (_place, gateway) = one_shard(world, "full", "");
    let client = |n: u32| Client::new(world, &gateway, &format!("subject-{n}"), "dba");
    let kept: Vec<String> = (0..3).map(|n| client(n).backend()).collect();
    let role = &world.direct().user;
    let limit = |what: &str| {
        let text = format!("alter role {role} connection limit {what}");
        let shown = world.server.run_script("shop", &text);
        assert!(shown.is_ok(), "{shown:?}");
    };
    let count = format!("select count(*) from pg_stat_activity where usename = '{role}'");
    // The catalogue's reader comes and goes beside them: the fewest of some looks are those that stay.
    let connections = (0..8).map(|_| {
        sleep(Duration::from_millis(100));
        let shown = world.server.run_script("shop", &count).expect("the server counts");
        shown.split_whitespace().find_map(|word| word.parse::<u32>().ok()).expect("a number")
    });
    limit(&connections.min().expect("some looks").to_string());
    let newcomer = client(3);
    newcomer.backend();
    limit("-1");
    for backend in &kept {
        assert!(!newcomer.is_there(backend), "{backend} is still kept");
    }
}

fn reload_and_stop(world: &World) {
    let (place, gateway) = one_shard(world, "reload", "");
    let client = Client::new(world, &gateway, "ann", "dba");
    let first = client.backend();
    let written = std::fs::read_to_string(place.configuration()).expect("it is there");
    std::fs::write(place.configuration(), format!("{written}\nmax_client_conn = 9000\n")).expect("it is ours");
    let until = Instant::now() + Duration::from_secs(10);
    while client.is_there(&first) {
        assert!(Instant::now() < until, "a reload does not end it");
        sleep(SETTLE);
    }
    let second = client.backend();
    assert!(client.is_there(&second));
    let began = Instant::now();
    drop(gateway);
    assert!(began.elapsed() < Duration::from_secs(3), "the stop took {:?}", began.elapsed());
    sleep(SETTLE);
    assert!(!client.is_there(&second));
}

fn switched_off(world: &World) {
    let (_place, gateway) = one_shard(world, "off", "idle_upstreams_max = 0");
    let client = Client::new(world, &gateway, "ann", "dba");
    let first = client.backend();
    assert!(!client.is_there(&first));
}
