//! Several addresses of an upstream: a primary and its hot standby, failover, dead addresses before a live one, names, sockets,
//! and upstreams that fail in the midst.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tests::gateway::{Gateway, Place, Upstream};
use tests::issuer::NAME;
use tests::policy;
use tests::server::{Server, free_port};
use tests::shop;
use tests::suite::{Case, run};
use tests::wire::{Message, Wire, cancel};
use tests::world::{Login, Shown, World, wireward};

const PATIENCE: Duration = Duration::from_secs(15);
const RECOVERY: &str = "select pg_is_in_recovery()";

fn main() -> ExitCode {
    run(vec![
        Case::new("the_kind_of_server_is_chosen_as_libpq_chooses_it_and_failover_is_followed", primary_and_standby),
        Case::new("addresses_that_are_dead_in_any_way_are_followed_by_the_next", dead_addresses),
        Case::new("an_address_that_is_late_does_not_hold_up_every_login", rested),
        Case::new("when_no_address_will_do_the_client_is_told_each_reason_and_no_address", all_dead),
        Case::new("a_host_name_is_resolved_and_one_that_cannot_be_is_passed_over", names),
        Case::new("a_cancel_request_goes_to_the_address_in_use", cancelled_at_the_second),
        Case::new("a_server_with_too_many_connections_is_heard_in_its_own_words", too_many),
        Case::new("a_reply_that_is_cut_short_is_never_shown_as_complete", cut_replies),
        Case::new("check_config_tells_what_each_address_says", checked),
    ])
}

/// A gateway whose configuration is changed while it runs.
struct Stage<'w> {
    world: &'w World,
    place: Place,
    gateway: Gateway,
    original: String,
    /// What the original says about the upstream.
    address: String,
}

impl<'w> Stage<'w> {
    fn new(world: &'w World, name: &str, upstream: &Upstream) -> Self {
        let directory = world.directory.0.join(name);
        fs::create_dir_all(&directory).expect("our directory is writable");
        let (place, port) = (Place::new(&directory), free_port().expect("a port is free"));
        let bundle = policy::compile(None).expect("the policy is right");
        place.furnish(&world.issuer, &bundle, upstream, port).expect("our directory is writable");
        let gateway = place.start(&wireward(), port).unwrap_or_else(|why| panic!("{why}"));
        let original = fs::read_to_string(place.configuration()).expect("it has just been written");
        Self { world, place, gateway, original, address: format!("address = \"{}\"", upstream.address) }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.log()).expect("the log is there")
    }

    /// Puts other addresses and settings in force.
    #[track_caller]
    fn set(&self, addresses: &[&str], settings: &str) {
        let words = "the configuration was read again";
        let before = self.log().matches(words).count();
        assert!(self.original.contains(&self.address));
        let text = self.original.replace(&self.address, &format!("address = {addresses:?}\n{settings}\n"));
        let next = self.place.configuration().with_extension("next");
        fs::write(&next, text).and_then(|()| fs::rename(next, self.place.configuration())).expect("our directory");
        let began = Instant::now();
        while self.log().matches(words).count() == before {
            assert!(began.elapsed() < PATIENCE, "no reload: {}", self.log());
            sleep(Duration::from_millis(20));
        }
        sleep(Duration::from_millis(50));
    }

    fn login(&self) -> Login {
        Login { port: self.gateway.port, ..self.world.through("dba") }
    }

    fn ask(&self, statement: &str) -> Shown {
        self.world.psql(&self.login(), &[statement])
    }

    fn wire(&self) -> Wire {
        let login = self.login();
        Wire::login(login.port, NAME, "shop", login.password.as_bytes()).expect("a dba gets in")
    }
}

fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A primary of its own with the shop, which also listens at a socket and by IPv6.
fn primary(world: &World, name: &str) -> (Server, Upstream, String) {
    let directory = world.directory.0.join(name);
    fs::create_dir_all(&directory).expect("our directory is writable");
    let sockets = directory.join("s");
    fs::create_dir_all(&sockets).expect("our directory is writable");
    fs::set_permissions(&sockets, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let listens = format!("unix_socket_directories={}", sockets.display());
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let addresses = if has_ipv6 { "listen_addresses=127.0.0.1,::1" } else { "listen_addresses=127.0.0.1" };
    let (server, upstream) = shop::start(&directory, &[&listens, addresses, "log_statement=all"]).expect("it starts");
    let socket = format!("{}/.s.PGSQL.{}", sockets.display(), server.port);
    (server, upstream, socket)
}

/// A hot standby of a primary, made by pg_basebackup.
fn standby(world: &World, of: &Server, of_name: &str, name: &str) -> Server {
    let directory = world.directory.0.join(name);
    fs::create_dir_all(&directory).expect("our directory is writable");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o711)).expect("it is ours");
    let known = world.directory.0.join(of_name).join("superuser.password");
    let password = fs::read_to_string(&known).expect("it was kept");
    fs::copy(&known, directory.join("superuser.password")).expect("our directory is writable");
    let data = directory.join("pg");
    let mut backup = Command::new(of.binaries().join("pg_basebackup"));
    backup.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-p", &of.port.to_string()]);
    backup.arg("-D").arg(&data).env("PGPASSWORD", password).current_dir(&directory);
    Shown::of(backup).must_succeed();
    let mut owner = Command::new("chown");
    owner.arg("-R").arg("--reference").arg(world.directory.0.join(of_name).join("pg")).arg(&data);
    Shown::of(owner).must_succeed();
    Server::start(&directory, &["log_statement=all"]).expect("it starts")
}

fn primary_and_standby(world: &World) {
    let (first, upstream, socket) = primary(world, "first");
    let second = standby(world, &first, "first", "second");
    let stage = Stage::new(world, "pair", &upstream);
    let (p, s) = (at(first.port), at(second.port));
    let rows: [(&str, [&str; 2], &str); 9] = [
        ("any", [&s, &p], "t"),
        ("any", [&p, &s], "f"),
        ("read-write", [&s, &p], "f"),
        ("primary", [&s, &p], "f"),
        ("read-only", [&p, &s], "t"),
        ("standby", [&p, &s], "t"),
        ("prefer-standby", [&p, &s], "t"),
        ("prefer-standby", [&p, &socket], "f"),
        ("read-write", [&s, &socket], "f"),
    ];
    for (target, addresses, recovers) in rows {
        stage.set(&addresses, &format!("target_session_attrs = \"{target}\""));
        let shown = stage.ask(RECOVERY).must_succeed();
        assert_eq!(shown.out.trim(), recovers, "{target} of {addresses:?}");
        must_not_hang_on_a_wish(&stage, recovers);
    }
    stage.ask("select inet_client_addr() is null").must_succeed().must_print("t");
    // What the default is decides, not only what the server is.
    let set = |value: &str| {
        first.run_script("postgres", &format!("alter role wireward set default_transaction_read_only = {value}"))
    };
    set("on").expect("the superuser may");
    stage.set(&[&p], "target_session_attrs = \"primary\"");
    stage.ask(RECOVERY).must_succeed().must_print("f");
    stage.set(&[&p], "target_session_attrs = \"read-only\"");
    stage.ask(RECOVERY).must_succeed().must_print("f");
    set("off").expect("the superuser may");
    by_ipv6(&stage, first.port);
    failover(&stage, first, &second);
}

/// What a client wishes for itself says nothing of the server.
fn must_not_hang_on_a_wish(stage: &Stage<'_>, recovers: &str) {
    for wish in ["on", "off"] {
        let mut client = stage.world.tool(&stage.login(), "psql", &["-XAtqc", RECOVERY]);
        client.env("PGOPTIONS", format!("-c default_transaction_read_only={wish}"));
        assert_eq!(Shown::of(client).must_succeed().out.trim(), recovers, "for a client with {wish}");
    }
}

/// Nobody takes writes until the standby is promoted; what is told names neither of them.
fn failover(stage: &Stage<'_>, first: Server, second: &Server) {
    let (p, s) = (at(first.port), at(second.port));
    stage.set(&[&p, &s], "target_session_attrs = \"read-write\"");
    let mut open = stage.wire();
    open.query(
        "begin; insert into orders (customer_id, item, amount, placed_at, status) values (1, 'lost', 1, now(), 'new')",
    );
    open.until_ready();
    drop(first);
    let last = open.expect();
    assert_eq!((last.kind, last.sqlstate().as_str()), (b'E', "57P01"), "the server's own words: {last:?}");
    assert!(open.next().is_none(), "and they are the last");
    let refused = stage.ask(RECOVERY);
    refused.clone().must_complain(
        "the upstream cannot be reached: address 1 refused the connection, address 2 is a hot standby; the resource has \
         target_session_attrs = \"read-write\"; try again or ask the operator",
    );
    assert!(!refused.err.contains(&second.port.to_string()), "{refused:?}");
    assert!(stage.log().contains(&format!("127.0.0.1:{} is a hot standby", second.port)), "{}", stage.log());
    second.run_script("postgres", "select pg_promote()").expect("the superuser may");
    stage.ask(RECOVERY).must_succeed().must_print("f");
    let written = ["create table t_failover (n int)", "insert into t_failover values (1) returning n"];
    stage.world.psql(&stage.login(), &written).must_succeed().must_print("1");
    stage.ask("select count(*) from orders where item = 'lost'").must_succeed().must_print("0");
}

fn by_ipv6(stage: &Stage<'_>, port: u16) {
    if TcpListener::bind("[::1]:0").is_ok() {
        stage.set(&[&format!("[::1]:{port}")], "");
        stage.ask("select host(inet_server_addr())").must_succeed().must_print("::1");
    }
}

/// What stands at an address where no session can be had, as long as this lives.
enum Dead {
    /// Nobody listens.
    Refuses(u16),
    /// The accept queue is full: no SYN is answered.
    Ignores(TcpListener, #[allow(dead_code)] Vec<TcpStream>),
    /// The kernel accepts, and nobody says anything.
    Silent(TcpListener),
    /// It is reset as soon as it is accepted.
    Resets(u16),
    /// It ends as soon as it is accepted.
    Ends(u16),
}

impl Dead {
    fn port(&self) -> u16 {
        match self {
            Self::Refuses(port) | Self::Resets(port) | Self::Ends(port) => *port,
            Self::Ignores(listener, _) | Self::Silent(listener) => listener.local_addr().expect("it is bound").port(),
        }
    }

    fn refuses() -> Self {
        Self::Refuses(free_port().expect("a port is free"))
    }

    fn ignores() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        rustix::net::listen(&listener, 0).expect("the queue may be short");
        let address = listener.local_addr().expect("it is bound");
        let waiting = (0..4).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok());
        let waiting: Vec<TcpStream> = waiting.collect();
        assert!(waiting.len() < 4, "its queue takes everybody");
        Self::Ignores(listener, waiting)
    }

    fn silent() -> Self {
        Self::Silent(TcpListener::bind("127.0.0.1:0").expect("a port is free"))
    }

    fn closes(resets: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        spawn(move || {
            for stream in listener.incoming().flatten() {
                if resets {
                    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
                }
            }
        });
        if resets { Self::Resets(port) } else { Self::Ends(port) }
    }

    fn all() -> [Self; 5] {
        [Self::refuses(), Self::ignores(), Self::silent(), Self::closes(true), Self::closes(false)]
    }
}

/// The world's own server as an upstream.
fn usual(world: &World) -> Upstream {
    let Upstream { address, database, user, password } = &world.upstream;
    Upstream { address: address.clone(), database: database.clone(), user: user.clone(), password: password.clone() }
}

const HASTY: &str = "connect_timeout_s = 0.5";

fn dead_addresses(world: &World) {
    let stage = Stage::new(world, "dead", &usual(world));
    let dead = Dead::all();
    for dead in &dead {
        stage.set(&[&at(dead.port()), &world.upstream.address], HASTY);
        stage.ask("select 'reached'").must_succeed().must_print("reached");
    }
    let mut all: Vec<String> = dead.iter().map(|dead| at(dead.port())).collect();
    all.push(world.upstream.address.clone());
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    stage.set(&all, HASTY);
    // Many at the same time, each with its own way through the addresses.
    let login = stage.login();
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut command = world.tool(&login, "psql", &["-XAtq", "-c", "select 'reached'"]);
        clients.push(spawn(move || {
            Shown::of({
                command.stdin(std::process::Stdio::null());
                command
            })
        }));
    }
    for client in clients {
        client.join().expect("it ends").must_succeed().must_print("reached");
    }
    let open = "select count(*) from pg_stat_activity where application_name = 'psql' and pid <> pg_backend_pid()";
    let began = Instant::now();
    while world.psql(&world.direct(), &[open]).must_succeed().out.trim() != "0" {
        assert!(began.elapsed() < PATIENCE, "a session was left behind at the server");
        sleep(Duration::from_millis(100));
    }
}

fn rested(world: &World) {
    const LOGINS: usize = 12;
    let stage = Stage::new(world, "rested", &usual(world));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.set_nonblocking(true).expect("a socket can be so");
    stage.set(&[&at(listener.local_addr().expect("it is bound").port()), &world.upstream.address], HASTY);
    for _ in 0..LOGINS {
        stage.ask("select 'reached'").must_succeed().must_print("reached");
    }
    // A shard finds it out once, and the catalogue's reader asks every time.
    let tried = std::iter::from_fn(|| listener.accept().ok()).count();
    assert!((2..LOGINS).contains(&tried), "it was tried {tried} times for {LOGINS} logins");
}

fn all_dead(world: &World) {
    let stage = Stage::new(world, "doomed", &usual(world));
    let dead = Dead::all();
    let ports: Vec<String> = dead.iter().map(|dead| at(dead.port())).collect();
    let addresses: Vec<&str> = ports.iter().map(String::as_str).collect();
    // Its catalogue has been read while it could be reached.
    let gate = Gate::open(world.server.port);
    let first = at(gate.port);
    let all: Vec<&str> = [first.as_str()].into_iter().chain(addresses).collect();
    stage.set(&all, HASTY);
    stage.ask("select 'reached'").must_succeed();
    gate.behave(REFUSE);
    let began = Instant::now();
    let refused = stage.ask("select 'reached'");
    refused.clone().must_complain(
        "the upstream cannot be reached: address 1 closed the connection during the login, address 2 refused the connection, \
         address 3 did not answer within connect_timeout_s, address 4 did not answer within connect_timeout_s, address 5 closed \
         the connection during the login, address 6 closed the connection during the login; try again or ask the operator",
    );
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(refused.err.matches("FATAL").count(), 1, "it is told once: {refused:?}");
    let log = stage.log();
    let told = log.lines().find(|line| line.contains("resource shop cannot be reached")).unwrap_or_default();
    for port in &ports {
        assert!(told.contains(port) && !refused.err.contains(port), "{port}: {told}");
    }
    assert!(!told.contains(&world.upstream.password));
    gate.behave(PASS);
    stage.ask("select 'reached'").must_succeed().must_print("reached");
}

fn names(world: &World) {
    let stage = Stage::new(world, "names", &usual(world));
    let named = format!("localhost:{}", world.server.port);
    stage.set(&[&named], "tls = \"disable\"");
    stage.ask("select 'by name'").must_succeed().must_print("by name");
    stage.set(&["nowhere.invalid:5432", &named], "tls = \"disable\"");
    stage.ask("select 'by the other name'").must_succeed().must_print("by the other name");
    assert!(stage.log().contains("host nowhere.invalid:5432 of resource shop cannot be resolved"), "{}", stage.log());
}

fn cancelled_at_the_second(world: &World) {
    let stage = Stage::new(world, "second", &usual(world));
    let dead = Dead::refuses();
    stage.set(&[&at(dead.port()), &world.upstream.address], "");
    let mut wire = stage.wire();
    wire.query("select pg_sleep(20)");
    sleep(Duration::from_millis(300));
    cancel(stage.gateway.port, &wire.key);
    let outcome = wire.until_ready().iter().find(|m| m.kind == b'E').map(Message::sqlstate);
    assert_eq!(outcome.as_deref(), Some("57014"));
}

fn too_many(world: &World) {
    let stage = Stage::new(world, "full", &usual(world));
    let (first, second) = (world.upstream.address.as_str(), format!("localhost:{}", world.server.port));
    stage.set(&[first, &second], "tls = \"disable\"");
    let limit = |n: i32| world.server.run_script("postgres", &format!("alter role wireward connection limit {n}"));
    limit(0).expect("the superuser may");
    // The next address is not tried: it is the same account there.
    let login = stage.login();
    let refused = Wire::login(login.port, NAME, "shop", login.password.as_bytes()).err();
    limit(-1).expect("the superuser may");
    let refused = refused.expect("there is no room");
    assert_eq!(refused.sqlstate(), "53300", "{refused:?}");
    assert!(refused.field(b'M').is_some_and(|text| text.contains("too many connections for role")), "{refused:?}");
    stage.ask("select 'room'").must_succeed().must_print("room");
}

/// What a gate does with new connections, or how many bytes of the server's replies it lets through before it ends them.
const PASS: usize = usize::MAX;
const REFUSE: usize = usize::MAX - 1;

/// A relay before a server, which fails on demand.
struct Gate {
    port: u16,
    mode: Arc<AtomicUsize>,
    resets: Arc<AtomicUsize>,
}

impl Gate {
    fn open(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let (mode, resets) = (Arc::new(AtomicUsize::new(PASS)), Arc::new(AtomicUsize::new(0)));
        let (of_thread, of_thread_resets) = (mode.clone(), resets.clone());
        spawn(move || {
            for client in listener.incoming().flatten() {
                let (mode, resets) = (of_thread.clone(), of_thread_resets.clone());
                if mode.load(Ordering::Relaxed) != REFUSE {
                    spawn(move || relay(client, to, &mode, &resets));
                }
            }
        });
        Self { port, mode, resets }
    }

    fn behave(&self, mode: usize) {
        self.mode.store(mode, Ordering::Relaxed);
    }
}

/// Moves bytes both ways. When the mode becomes a number, that many bytes of replies still pass.
fn relay(client: TcpStream, to: u16, mode: &AtomicUsize, resets: &AtomicUsize) {
    let mut server = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, to))).expect("the server listens");
    let over = Arc::new(AtomicBool::new(false));
    let requests = {
        let (from, onward) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        let over = over.clone();
        spawn(move || pass_requests(from, onward, &over))
    };
    pass_replies(&mut server, &client, mode);
    if resets.load(Ordering::Relaxed) > 0 {
        let _ = sockopt::set_socket_linger(&client, Some(Duration::ZERO));
    }
    let _ = server.shutdown(Shutdown::Both);
    // Only when the last copy of the socket is closed the peer hears of it, by a reset or an end.
    over.store(true, Ordering::Relaxed);
    let _ = requests.join();
}

fn pass_requests(mut from: TcpStream, mut onward: TcpStream, over: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket takes a timeout");
    let mut buffer = [0; 8192];
    while !over.load(Ordering::Relaxed) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) if onward.write_all(&buffer[..n]).is_err() => break,
            Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            _ => {}
        }
    }
    let _ = onward.shutdown(Shutdown::Both);
}

fn pass_replies(server: &mut TcpStream, mut client: &TcpStream, mode: &AtomicUsize) {
    let mut buffer = [0; 8192];
    let mut left = None;
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        let limit = mode.load(Ordering::Relaxed);
        if limit < REFUSE {
            left.get_or_insert(limit);
        }
        let passed = left.map_or(n, |left: usize| left.min(n));
        if client.write_all(&buffer[..passed]).is_err() || passed < n {
            return;
        }
        left = left.map(|left| left - passed);
    }
}

/// One statement whose replies end after `cut` bytes.
fn cut_once(stage: &Stage<'_>, gate: &Gate, statement: &str, row_bytes: usize, cut: usize) {
    gate.behave(PASS);
    let mut wire = stage.wire();
    gate.behave(cut);
    wire.query(statement);
    let mut rows = 0;
    let mut last = None;
    while let Some(message) = wire.next() {
        assert!(!b"CZ".contains(&message.kind), "cut at {cut}: {:?} after {rows} rows", message.kind as char);
        assert!(last.is_none(), "cut at {cut}: something comes after the error");
        match message.kind {
            b'D' => {
                assert_eq!(message.body.len() + 5, row_bytes, "cut at {cut}: a row is not whole");
                rows += 1;
            }
            b'E' => last = Some(message),
            _ => {}
        }
    }
    assert!(rows <= cut / row_bytes, "{rows} rows of {cut} bytes");
    // In the midst of a row that passes in pieces there is no place for a reason.
    let passes_in_pieces = row_bytes > 32 * 1024;
    let told = last.map_or(passes_in_pieces, |m| m.sqlstate() == "08006" && m.field(b'S').as_deref() == Some("FATAL"));
    assert!(told, "cut at {cut}: no reason is given");
}

fn cut_replies(world: &World) {
    let gate = Gate::open(world.server.port);
    let stage = Stage::new(world, "cut", &usual(world));
    stage.set(&[&at(gate.port)], "");
    let mut cuts = 0;
    for resets in [0, 1] {
        gate.resets.store(resets, Ordering::Relaxed);
        // In the midst of RowDescription, at its end, in the midst of rows of either size, and of a COPY.
        for (statement, row_bytes) in [
            ("select repeat('x', 90) from generate_series(1, 5000)", 101),
            ("select repeat('x', 60000) from generate_series(1, 40)", 60_011),
        ] {
            for cut in [0, 3, 30, 33, 34, 500, 5_001, 70_000, 200_003] {
                cut_once(&stage, &gate, statement, row_bytes, cut);
                cuts += 1;
            }
        }
    }
    assert_eq!(cuts, 36);
    gate.behave(PASS);
    stage.ask("select 'whole again'").must_succeed().must_print("whole again");
}

fn checked(world: &World) {
    let stage = Stage::new(world, "checked", &usual(world));
    let dead = Dead::refuses();
    let check = |addresses: &[&str], settings: &str| {
        let path = stage.place.configuration().with_extension("check");
        let text = stage.original.replace(&stage.address, &format!("address = {addresses:?}\n{settings}"));
        fs::write(&path, text).expect("our directory is writable");
        let mut command = Command::new(wireward());
        command.args(["check-config", "--config"]).arg(path);
        Shown::of(command)
    };
    let good = check(&[&at(dead.port()), &world.upstream.address], "").must_succeed();
    assert!(good.out.contains(&world.upstream.address), "{good:?}");
    for (addresses, settings, expected) in [
        (vec![at(dead.port())], "", "Connection refused"),
        (vec!["nowhere.invalid:1".to_owned()], "tls = \"disable\"", "nowhere.invalid:1 cannot be resolved: "),
        (vec![world.upstream.address.clone()], "target_session_attrs = \"standby\"", "is a primary"),
        (vec!["nowhere.invalid:1".to_owned()], "", "name the authority of its certificate"),
        (vec!["nowhere".to_owned()], "", "write a host and a port"),
        (vec![], "", "it can list 1 to 16"),
        (vec![at(1)], "target_session_attrs = \"read\"", "expected one of `any`, `read-write`"),
    ] {
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let shown = check(&addresses, settings);
        assert!(!shown.success && shown.out.contains(expected), "{expected}: {shown:?}");
    }
}
