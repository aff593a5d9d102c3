//! Ways in: several listeners, IPv6, unix-domain sockets, and proxies that name their clients.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::gateway::{Gateway, Place};
use tests::issuer::NAME;
use tests::policy;
use tests::process::{command_line, tree};
use tests::server::{free_port, tied_to_us, wait_for_port};
use tests::suite::{Case, run};
use tests::wire::{Message, Wire, cancel};
use tests::world::{Login, Shown, World, wireward};

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    run(vec![
        Case::new("a_client_behind_haproxy_is_known_by_its_own_address", behind_haproxy),
        Case::new("a_connection_that_is_no_proxys_is_closed_without_a_word", no_proxy),
        Case::new("each_header_is_taken_or_refused_with_what_to_do", headers),
        Case::new(
            "what_follows_a_header_is_the_clients_and_nothing_before_a_handshake_is_read_after_it",
            behind_a_header,
        ),
        Case::new("guesses_at_cancel_keys_are_counted_by_the_client_that_the_proxy_names", guesses),
        Case::new("several_listeners_and_ipv6_serve_the_same", listeners),
        Case::new("psql_comes_in_by_a_unix_socket", unix_socket),
        Case::new("a_unix_socket_serves_on_all_shards_by_either_driver", unix_shards),
        Case::new("the_file_of_a_unix_socket_is_made_anew_kept_from_others_and_removed", socket_file),
    ])
}

/// A gateway with more listeners: `[[listener]]` tables in which `PORT` is a free one. Gives their ports.
fn with_listeners(world: &World, name: &str, tables: &[&str]) -> (Place, Gateway, Vec<u16>) {
    let ports: Vec<u16> = tables.iter().map(|_| free_port().expect("a port is free")).collect();
    let written = tables.iter().zip(&ports).map(|(table, port)| {
        format!("\n[[listener]]\nprotocol = \"postgres\"\n{}\n", table.replace("PORT", &port.to_string()))
    });
    let written: String = written.collect();
    let (place, gateway) = world.another(name, |c| c + &written);
    for (table, port) in tables.iter().zip(&ports).filter(|(table, _)| table.contains("127.0.0.1:PORT")) {
        wait_for_port(*port, PATIENCE).unwrap_or_else(|why| panic!("{table}: {why}"));
    }
    (place, gateway, ports)
}

fn dba(world: &World, port: u16) -> Login {
    Login { port, ..world.through("dba") }
}

/// psql at a host of its own, with more of its environment.
fn psql(world: &World, login: &Login, host: &str, settings: &[(&str, &str)], statement: &str) -> Shown {
    let mut command = world.tool(login, "psql", &["-XAtq", "-c", statement]);
    command.env("PGHOST", host).envs(settings.iter().copied());
    Shown::of(command)
}

/// The client addresses of all sessions of a gateway, refused logins too, in order.
fn clients(place: &Place) -> Vec<String> {
    let mut command = Command::new(wireward());
    command.args(["sessions", "--json", "--config"]).arg(place.configuration());
    let all = Shown::of(command).out;
    all.split("\"client\":\"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// Waits until the record holds a client that fits.
fn until_recorded(place: &Place, what: &str, fits: impl Fn(&str) -> bool) {
    let began = Instant::now();
    while !clients(place).iter().any(|client| fits(client)) {
        assert!(began.elapsed() < PATIENCE, "no {what} in {:?}", clients(place));
        sleep(Duration::from_millis(100));
    }
}

fn metric(place: &Place, labels: &str) -> f64 {
    let address = place.admin().expect("it has an admin listener");
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    let lines = page.lines().filter(|line| line.contains(labels));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A running haproxy, stopped when dropped.
struct Haproxy(Child);

impl Haproxy {
    /// Passes connections on from `port` to `to`, coming from 127.0.0.5, with a header. Its health checks end with a FIN
    /// (`linger`): after the RST that is haproxy's habit, the kernel may have forgotten who it was before the gateway asks.
    fn start(directory: &Path, port: u16, to: u16) -> Haproxy {
        let file = directory.join("haproxy.cfg");
        let text = format!(
            "global\n    maxconn 64\ndefaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
             listen wireward\n    bind 127.0.0.1:{port}\n    source 127.0.0.5\n\
             \x20   option tcp-check\n    tcp-check connect default linger\n\
             \x20   server gateway 127.0.0.1:{to} send-proxy-v2 check inter 200ms check-send-proxy\n"
        );
        fs::write(&file, text).expect("our directory is writable");
        let mut command = tied_to_us(Path::new("haproxy"), "TERM");
        let child = command.arg("-db").arg("-f").arg(&file).spawn().expect("haproxy is installed; .ci/run does it");
        wait_for_port(port, PATIENCE).expect("haproxy listens");
        Haproxy(child)
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

const FROM_HAPROXY: &str = "address = \"127.0.0.1:PORT\"\nplaintext = \"loopback\"\nproxy_protocol = true\nproxy_from = [\"127.0.0.5\"]\n\
                            tls = { certificate = \"server.crt\", key = \"server.key\" }";

fn behind_haproxy(world: &World) {
    let (certificate, key) = certificate_of(world);
    let table = FROM_HAPROXY.replace("server.crt", &certificate).replace("server.key", &key);
    let (place, _gateway, ports) = with_listeners_unready(world, "haproxy", &table);
    let front = free_port().expect("a port is free");
    let _haproxy = Haproxy::start(&world.directory.0, front, ports);
    let login = dba(world, front);
    psql(world, &login, "127.0.0.1", &[], "select 'in clear'").must_succeed().must_print("in clear");
    psql(world, &login, "127.0.0.1", &[("PGSSLMODE", "require")], "select 'by tls'")
        .must_succeed()
        .must_print("by tls");
    let own = |client: &str| client.starts_with("127.0.0.1:");
    until_recorded(&place, "client by its own address", own);
    let wrong = Login { password: "no token".into(), ..login.clone() };
    assert!(!psql(world, &wrong, "127.0.0.1", &[], "select 1").success);
    until_recorded(&place, "refused client by its own address", |_| clients(&place).len() == 3);
    assert!(clients(&place).iter().all(|client| own(client)), "{:?}: the proxy is nobody's client", clients(&place));
    // A cancel request is a connection of its own, with a header of its own.
    let mut wire = Wire::login(front, NAME, "shop", login.password.as_bytes()).expect("a dba gets in");
    wire.query("select pg_sleep(20)");
    sleep(Duration::from_millis(300));
    cancel(front, &wire.key);
    let outcome = wire.until_ready().iter().find(|m| m.kind == b'E').map(Message::sqlstate);
    assert_eq!(outcome.as_deref(), Some("57014"));
    assert!(metric(&place, "outcome=\"client\"") >= 4.0, "each of its clients is counted");
    // haproxy asks every 200 ms whether we are there, for nobody; that is no login.
    let began = Instant::now();
    while metric(&place, "outcome=\"local\"") < 2.0 {
        assert!(began.elapsed() < PATIENCE, "no health check was counted");
        sleep(Duration::from_millis(100));
    }
}

/// The files of the world's own listener.
fn certificate_of(world: &World) -> (String, String) {
    let text = fs::read_to_string(world.place.configuration()).expect("a configuration");
    let file = |key: &str| {
        let name =
            text.split(&format!("{key} = \"")).nth(1).and_then(|rest| rest.split('"').next()).expect("tls is set");
        world.directory.0.join(name).display().to_string()
    };
    (file("certificate"), file("key"))
}

/// As [`with_listeners`], for one that does not take our own connections.
fn with_listeners_unready(world: &World, name: &str, table: &str) -> (Place, Gateway, u16) {
    let port = free_port().expect("a port is free");
    let table = table.replace("PORT", &port.to_string());
    let (place, gateway) = world.another(name, |c| format!("{c}\n[[listener]]\nprotocol = \"postgres\"\n{table}\n"));
    (place, gateway, port)
}

fn no_proxy(world: &World) {
    let table = "address = \"127.0.0.1:PORT\"\nplaintext = \"loopback\"\nproxy_protocol = true\nproxy_from = [\"127.0.0.5\", \"10.0.0.0/8\"]";
    let (place, _gateway, port) = with_listeners_unready(world, "straight", table);
    for hello in [header(0x21, 0x11, &V4_LOCAL), b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec()] {
        let mut wire = Wire::connect(port);
        wire.raw(&hello);
        assert!(wire.is_ended() && wire.received.is_empty(), "{:?}", wire.received);
    }
    assert_eq!(metric(&place, "reason=\"proxy_from\""), 2.0);
    // One is the test's own, to see that the gateway is up.
    assert!(metric(&place, "wireward_connections_accepted_total") <= 1.0, "they are no sessions");
}

fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, block].concat()
}

/// From 127.0.0.77:4660 to 127.0.0.1:5432.
const V4_LOCAL: [u8; 12] = [127, 0, 0, 77, 127, 0, 0, 1, 0x12, 0x34, 0x15, 0x38];
/// From 203.0.113.7:4660.
const V4_FAR: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 1, 0x12, 0x34, 0x15, 0x38];

const FROM_US: &str =
    "address = \"127.0.0.1:PORT\"\nplaintext = \"loopback\"\nproxy_protocol = true\nproxy_from = [\"127.0.0.1\"]";

fn log_in_behind(world: &World, port: u16, header: &[u8]) -> Result<Wire, Message> {
    let mut wire = Wire::connect(port);
    wire.raw(header);
    wire.startup(&[("user", NAME), ("database", "shop")]);
    let asked = wire.expect();
    if asked.kind == b'E' {
        return Err(asked);
    }
    wire.send(b'p', &[world.through("dba").password.as_bytes(), b"\0"].concat());
    wire.until_ready();
    Ok(wire)
}

fn headers(world: &World) {
    let (place, _gateway, ports) = with_listeners(world, "headers", &[FROM_US]);
    let port = ports[0];
    let mut v6 = [0; 36];
    (v6[15], v6[32], v6[33]) = (1, 0x12, 0x35);
    let with_fields = [&V4_LOCAL[..], b"\x02\0\x0bexample.com\x05\0\x04uniq"].concat();
    for (what, header, client) in [
        ("IPv4", header(0x21, 0x11, &V4_LOCAL), Some("127.0.0.77:4660")),
        ("IPv6", header(0x21, 0x21, &v6), Some("[::1]:4661")),
        ("more fields", header(0x21, 0x11, &with_fields), Some("127.0.0.77:4660")),
        ("LOCAL", header(0x20, 0x00, b""), None),
        ("unspecified", header(0x21, 0x00, b""), None),
    ] {
        let before = clients(&place).len();
        let mut wire = log_in_behind(world, port, &header).unwrap_or_else(|refused| panic!("{what}: {refused:?}"));
        wire.query("select 1");
        wire.until_ready();
        drop(wire);
        let began = Instant::now();
        while clients(&place).len() == before && began.elapsed() < PATIENCE {
            sleep(Duration::from_millis(50));
        }
        let last = clients(&place).last().cloned().unwrap_or_default();
        let as_expected = client.map_or(last.starts_with("127.0.0.1:"), |client| last == client);
        assert!(as_expected, "{what}: {last}");
    }
    refused_headers(&place, port);
}

fn refused_headers(place: &Place, port: u16) {
    let refused_before = metric(place, "outcome=\"refused\"");
    let rows: [(&[u8], &str); 5] = [
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", "version 1 header came; this listener takes version 2"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "they begin with a PROXY protocol version 2 header"),
        (&header(0x21, 0x11, &V4_LOCAL[..11]), "header is malformed"),
        (&header(0x21, 0x12, &V4_LOCAL), "not about a TCP or unix stream"),
        (&header(0x21, 0x11, &[0; 5000]), "longer than 4 KiB"),
    ];
    for (bytes, words) in rows {
        let mut wire = Wire::connect(port);
        wire.raw(bytes);
        let said = wire.expect();
        assert!(said.kind == b'E' && said.field(b'M').is_some_and(|m| m.contains(words)), "{words}: {said:?}");
        assert!(wire.next().is_none(), "{words}: it goes on");
    }
    assert_eq!(metric(place, "outcome=\"refused\"") - refused_before, 5.0);
}

fn behind_a_header(world: &World) {
    let (certificate, key) = certificate_of(world);
    let tls = format!("{FROM_US}\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}");
    let (_place, _gateway, ports) = with_listeners(world, "follows", &[&tls]);
    let port = ports[0];
    let near = header(0x21, 0x11, &V4_LOCAL);
    // Cut anywhere, and with the startup message in the same segment.
    let mut wire = Wire::connect(port);
    for byte in &near {
        wire.raw(&[*byte]);
    }
    wire.startup(&[("user", NAME), ("database", "shop")]);
    assert_eq!(wire.expect().kind, b'R');
    let ask = b"\0\0\0\x08\x04\xd2\x16\x2f";
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.write_all(&[&near[..], ask].concat()).expect("it reads");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"S");
    // What was sent in clear behind the request must never be read as if it came by TLS (CVE-2021-23214).
    let mut wire = Wire::connect(port);
    wire.raw(&[&near[..], ask, b"\0\0\0\x08\0\x03\0\0"].concat());
    let said = wire.expect();
    assert!(said.field(b'M').is_some_and(|m| m.contains("bytes came before the answer")), "{said:?}");
    // A client elsewhere may not send its token in clear because a proxy brings it; a second header is no startup message.
    let far = header(0x21, 0x11, &V4_FAR);
    let refused = log_in_behind(world, port, &far).err().expect("it is refused");
    assert_eq!(refused.sqlstate(), "28000", "{refused:?}");
    let mut wire = Wire::connect(port);
    wire.raw(&[&near[..], &near].concat());
    assert_eq!(wire.expect().sqlstate(), "08P01");
}

fn guesses(world: &World) {
    let (place, _gateway, ports) = with_listeners(world, "guesses", &[FROM_US]);
    let from = |last: u8| header(0x21, 0x11, &[&[127, 0, 0, last][..], &V4_LOCAL[4..]].concat());
    let mut wire = log_in_behind(world, ports[0], &from(2)).expect("a dba gets in");
    let key = wire.key.clone();
    let mut wrong = key.clone();
    wrong[7] ^= 1;
    // Whether the key counts when it comes from there, after 40 wrong ones from 127.0.0.66 within a second.
    let mut counts_from = |last: u8| {
        wire.query("select pg_sleep(2)");
        sleep(Duration::from_millis(150));
        (0..40).for_each(|_| cancel_behind(ports[0], &from(66), &wrong));
        cancel_behind(ports[0], &from(last), &key);
        wire.until_ready().iter().any(|message| message.kind == b'E')
    };
    assert!(counts_from(66), "guesses at keys keep a right one of the same client from counting");
    assert!(counts_from(70), "guesses at keys keep a right one of another client from counting");
    let log = std::fs::read_to_string(place.log()).expect("the gateway's log");
    assert!(log.contains("127.0.0.66 sends many cancel requests"), "the log does not name the client that guesses");
}

fn cancel_behind(port: u16, header: &[u8], key: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let length = (8 + key.len() as u32).to_be_bytes();
    let _ = stream.write_all(&[header, &length, &80_877_102u32.to_be_bytes(), key].concat());
    let _ = stream.read_to_end(&mut Vec::new());
}

fn listeners(world: &World) {
    if TcpStream::connect(("::1", 9)).is_err_and(|e| e.kind() == std::io::ErrorKind::AddrNotAvailable) {
        return println!("there is no IPv6 here");
    }
    let port = free_port().expect("a port is free");
    let any = free_port().expect("a port is free");
    let (certificate, key) = certificate_of(world);
    let tables = [
        format!("address = \"127.0.0.1:{port}\"\nplaintext = \"loopback\""),
        format!("address = \"[::1]:{port}\"\nplaintext = \"loopback\""),
        format!("address = \"[::]:{any}\"\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}"),
    ];
    let (place, gateway, _) = with_listeners(world, "several", &[&tables[0], &tables[1], &tables[2]]);
    wait_for_port(port, PATIENCE).expect("it listens");
    for (host, at) in [("127.0.0.1", gateway.port), ("127.0.0.1", port), ("::1", port)] {
        psql(world, &dba(world, at), host, &[], "select 'here'").must_succeed().must_print("here");
    }
    until_recorded(&place, "client by IPv6", |client| client.starts_with("[::1]:"));
    // The IPv6 wildcard is one for IPv6 alone: the IPv4 address of the same port is free for another.
    psql(world, &dba(world, any), "::1", &[("PGSSLMODE", "require")], "select 'here'").must_succeed();
    let _other = TcpListener::bind((Ipv4Addr::LOCALHOST, any)).expect("it is free");
}

/// A directory for sockets, with a path that is short enough.
fn socket_directory(world: &World, name: &str) -> PathBuf {
    let directory = world.directory.0.join(name);
    fs::create_dir_all(&directory).expect("our directory is writable");
    directory
}

fn unix_table(directory: &Path, more: &str) -> String {
    format!("address = \"{}/.s.PGSQL.6432\"\n{more}", directory.display())
}

fn unix_socket(world: &World) {
    let directory = socket_directory(world, "s1");
    let (place, _gateway, _) = with_listeners(world, "unix", &[&unix_table(&directory, "unix_socket_mode = \"0750\"")]);
    let host = directory.display().to_string();
    let login = dba(world, 6432);
    psql(world, &login, &host, &[], "select 'by file'").must_succeed().must_print("by file");
    let analyst = Login { port: 6432, ..world.through("analyst") };
    psql(world, &analyst, &host, &[], "select ssn from customers where id = 1")
        .must_succeed()
        .must_print("***-**-1007");
    let uid = rustix::process::getuid().as_raw();
    until_recorded(&place, "client by its user", |client| client == format!("unix:uid={uid}"));
    let wrong = Login { password: "no token".into(), ..login.clone() };
    psql(world, &wrong, &host, &[], "select 1").must_complain("FATAL");
    let file = fs::metadata(directory.join(".s.PGSQL.6432")).expect("the socket is there");
    assert_eq!(file.mode() & 0o777, 0o750);
    assert_eq!(fs::read_dir(&directory).expect("it is readable").count(), 1, "nothing else is left there");
}

fn unix_shards(world: &World) {
    for io in ["uring", "epoll"] {
        let directory = socket_directory(world, &format!("s-{io}"));
        let table = unix_table(&directory, "");
        let written =
            format!("\n[runtime]\nio = \"{io}\"\nshards = 3\n\n[[listener]]\nprotocol = \"postgres\"\n{table}\n");
        let (place, gateway) = world.another(&format!("unix-{io}"), |c| c + &written);
        let login = dba(world, 6432);
        let host = directory.display().to_string();
        let script = world.directory.0.join("short.sql");
        fs::write(&script, "select 1;\n").expect("our directory is writable");
        let file = script.display().to_string();
        // Each transaction is a connection of its own.
        let mut command = world.tool(&login, "pgbench", &["-n", "-C", "-c", "4", "-t", "15", "-f", &file]);
        let shown = Shown::of({
            command.env("PGHOST", &host);
            command
        });
        assert!(shown.success && shown.out.contains("60/60"), "{io}: {shown:?}");
        let accepted = |shard: u8| metric(&place, &format!("wireward_connections_accepted_total{{shard=\"{shard}\"}}"));
        let by_shard = [accepted(0), accepted(1), accepted(2)];
        assert!(by_shard.iter().all(|n| *n > 0.0), "{io}: not all shards have clients: {by_shard:?}");
        drop(gateway);
        assert!(!directory.join(".s.PGSQL.6432").exists(), "{io}: the file is left behind");
    }
}

fn socket_file(world: &World) {
    let directory = socket_directory(world, "s3");
    let path = directory.join(".s.PGSQL.6432");
    drop(UnixListener::bind(&path).expect("our directory is writable"));
    let table = unix_table(&directory, "");
    // What somebody has left behind is replaced.
    let (_place, gateway, _) = with_listeners(world, "file", &[&table]);
    let (login, host) = (dba(world, 6432), directory.display().to_string());
    psql(world, &login, &host, &[], "select 'anew'").must_succeed().must_print("anew");
    // A second gateway does not take it away.
    let shown = start_in_vain(world, &table);
    assert!(!shown.success && shown.err.contains("another process serves clients there"), "{shown:?}");
    psql(world, &login, &host, &[], "select 'still here'").must_succeed();
    // After a crash the file is stale; the dataplane that is started again makes it anew.
    let dataplane = tree(gateway.process.id()).into_iter().find(|pid| command_line(*pid).contains(" dataplane "));
    let dataplane = dataplane.and_then(|pid| Pid::from_raw(pid as i32)).expect("it runs");
    kill_process(dataplane, Signal::KILL).expect("it is ours");
    let began = Instant::now();
    while !psql(world, &login, &host, &[], "select 'again'").success {
        assert!(began.elapsed() < PATIENCE, "nobody serves at {host} after a crash");
        sleep(Duration::from_millis(100));
    }
    drop(gateway);
    assert!(fs::symlink_metadata(&path).is_err(), "the file is left behind");
    // Nothing but a socket is ever replaced.
    symlink("/etc/passwd", &path).expect("our directory is writable");
    let shown = start_in_vain(world, &table);
    assert!(!shown.success && shown.err.contains("it is no socket"), "{shown:?}");
    assert!(fs::symlink_metadata(&path).is_ok());
}

/// Runs a gateway with one more listener, which cannot be had, until it gives up.
fn start_in_vain(world: &World, table: &str) -> Shown {
    let directory = world.directory.0.join("in-vain");
    fs::create_dir_all(&directory).expect("our directory is writable");
    let place = Place::new(&directory);
    let bundle = policy::compile(None).expect("the policy is right");
    place
        .furnish(&world.issuer, &bundle, &world.upstream, free_port().expect("a port is free"))
        .expect("it is writable");
    let text = fs::read_to_string(place.configuration()).expect("it has just been written");
    let text = format!("{text}\n[[listener]]\nprotocol = \"postgres\"\n{table}\n");
    fs::write(place.configuration(), text).expect("our directory is writable");
    let mut command = Command::new("timeout");
    command.arg("30").arg(wireward()).arg("run").arg("--config").arg(place.configuration());
    Shown::of(command)
}
