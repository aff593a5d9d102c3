//! TLS on both sides, with psql, pgbench and drivers; what is rude or wrong about it stands in `tls_cases.py`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tests::gateway::{Gateway, Place};
use tests::suite::{Case, run};
use tests::wire::Wire;
use tests::world::{Login, Shown, World};

fn main() -> ExitCode {
    let mut cases = vec![
        Case::new("every_sslmode_does_what_it_says_where_tls_is_offered", offered),
        Case::new("where_tls_is_required_a_session_in_clear_is_refused", required),
        Case::new("a_foreign_authority_and_channel_binding_fail_in_words_of_libpq", refused_by_libpq),
        Case::new("results_are_the_same_over_tls", same_results),
        Case::new("large_results_and_copies_are_the_same_over_tls", large_results),
        Case::new("eight_clients_of_pgbench_run_over_tls", pgbench),
        Case::new("idle_connections_with_tls_hold_little_memory_that_of_the_c_library_included", idle_memory),
        Case::new("a_certificate_of_a_client_is_checked_and_recorded", client_certificates),
    ];
    cases.extend(Case::of_script("tls_cases.py"));
    cases.push(Case::new("an_upstream_is_reached_by_tls_only_if_it_can_be_verified", upstream));
    cases.push(Case::new("an_upstream_without_tls_or_with_bytes_in_clear_is_not_used", rude_upstream));
    cases.push(Case::new("who_stands_between_and_strips_scram_plus_is_found_out", man_in_the_middle));
    run(cases)
}

/// psql with an sslmode and other settings of libpq.
fn psql(world: &World, login: &Login, settings: &[(&str, &str)], statements: &[&str]) -> Shown {
    let mut arguments = vec!["-XAtq", "-v", "VERBOSITY=verbose"];
    statements.iter().for_each(|statement| arguments.extend(["-c", statement]));
    let mut command = world.tool(login, "psql", &arguments);
    command.envs(settings.iter().copied());
    Shown::of(command)
}

fn verified<'a>(root: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", root)]
}

fn at(gateway: &Gateway, world: &World) -> Login {
    Login { port: gateway.port, ..world.through("dba") }
}

fn offered(world: &World) {
    let root = world.place.root_certificate();
    let root = root.to_str().expect("a plain path");
    let ask = |settings: &[(&str, &str)]| {
        psql(world, &world.through("dba"), settings, &["\\conninfo", "select 'in'"]).must_succeed().must_print("in")
    };
    assert!(!ask(&[("PGSSLMODE", "disable")]).out.contains("SSL connection"));
    // libpq asks for TLS only where clear text is refused.
    assert!(!ask(&[("PGSSLMODE", "allow")]).out.contains("SSL connection"));
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let settings = [("PGSSLMODE", mode), ("PGSSLROOTCERT", root), ("PGSSLMAXPROTOCOLVERSION", version)];
            ask(&settings).must_print(&format!("SSL connection (protocol: {version}"));
        }
    }
}

fn required(world: &World) {
    let (place, gateway) = world.another("required", |c| c.replace("plaintext = \"loopback\"", "#"));
    let login = at(&gateway, world);
    let root = place.root_certificate();
    psql(world, &login, &verified(root.to_str().expect("a plain path")), &["select 'in'"]).must_print("in\n");
    let refused = psql(world, &login, &[("PGSSLMODE", "disable")], &["select 1"]);
    assert!(!refused.success);
    let in_clear = Wire::login(login.port, &login.user, "shop", login.password.as_bytes()).err();
    assert_eq!(in_clear.map(|error| error.sqlstate()).as_deref(), Some("28000"));
    refused.must_complain("FATAL:  wireward: this listener asks for TLS; connect with sslmode=require or better");
    psql(world, &login, &[("PGSSLMODE", "allow")], &["\\conninfo"]).must_succeed().must_print("SSL connection");
}

fn refused_by_libpq(world: &World) {
    let root = write(&world.directory.0.join("foreign.pem"), &Authority::new("foreign").pem, 0o644);
    let settings = verified(&root);
    psql(world, &world.through("dba"), &settings, &["select 1"]).must_complain("certificate verify failed");
    // Another name with our address: only verify-full looks at it.
    let root = world.place.root_certificate().display().to_string();
    let elsewhere = |mode| {
        let named = [("PGHOST", "elsewhere.example"), ("PGHOSTADDR", "127.0.0.1")];
        let settings = [&named[..], &[("PGSSLMODE", mode), ("PGSSLROOTCERT", root.as_str())]].concat();
        psql(world, &world.through("dba"), &settings, &["select 'in'"])
    };
    elsewhere("verify-ca").must_succeed().must_print("in");
    elsewhere("verify-full").must_complain("does not match host name \"elsewhere.example\"");
    let settings = [("PGSSLMODE", "require"), ("PGCHANNELBINDING", "require")];
    psql(world, &world.through("dba"), &settings, &["select 1"]).must_complain("channel binding required");
}

fn same_results(world: &World) {
    let rows = [
        "select id, name, email, ssn, card, phone from customers order by id limit 50",
        "select 'write to ada@example.com', 1/0",
        "drop table orders",
        "select count(*) from orders",
    ];
    for role in ["analyst", "agent", "dba"] {
        for row in rows.iter().filter(|row| role != "dba" || !row.starts_with("drop")) {
            let clear = world.psql(&world.through(role), &[row]);
            let over_tls = psql(world, &world.through(role), &[("PGSSLMODE", "require")], &[row]);
            assert_eq!(over_tls, clear, "{role}: {row}");
        }
    }
    let masked = psql(world, &world.through("analyst"), &[("PGSSLMODE", "require")], &rows[..1]).must_succeed();
    assert!(masked.out.contains("***-**-") && !masked.out.contains('@'), "{}", masked.out);
}

fn large_results(world: &World) {
    let statements = [
        "\\o |sha256sum",
        "select n, md5(n::text) from generate_series(1, 1000000) n",
        "\\o |sha256sum",
        "select repeat('abcdefghij', 3000000)",
        "\\o",
        "\\copy (select n, md5(n::text) from generate_series(1, 300000) n) to 'copied.tsv'",
        "\\! sha256sum copied.tsv",
        "create temp table copied (n int, t text)",
        "\\copy copied from 'copied.tsv'",
        "select count(*), md5(string_agg(t, '' order by n)) from copied",
    ];
    let directly = world.psql(&world.direct(), &statements).must_succeed().must_print("300000|");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let settings = [("PGSSLMODE", "require"), ("PGSSLMAXPROTOCOLVERSION", version)];
        assert_eq!(psql(world, &world.through("dba"), &settings, &statements), directly, "{version}");
    }
}

fn pgbench(world: &World) {
    let tables = ["-i", "-s", "1", "-I", "dtgvpf", "-q"];
    let bench = ["-n", "-M", "prepared", "-c", "8", "-j", "2", "-t", "100"];
    for arguments in [&tables[..], &bench[..]] {
        let mut command = world.tool(&world.through("dba"), "pgbench", arguments);
        command.env("PGSSLMODE", "require");
        let shown = Shown::of(command);
        assert!(shown.success, "{shown:?}");
        assert!(arguments == tables || shown.out.contains("actually processed: 800/800"), "{shown:?}");
    }
}

/// A connection whose handshake is done, and that says no more.
fn idle(world: &World, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", world.gateway.port)).expect("it listens");
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).expect("it reads");
    let mut answer = [0];
    stream.read_exact(&mut answer).expect("it answers");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(config.clone(), name).expect("a good configuration");
    client.complete_io(&mut stream).expect("the handshake goes through");
    StreamOwned::new(client, stream)
}

fn idle_memory(world: &World) {
    const CONNECTIONS: u64 = 200;
    let config = dataplane::control::certificate::client(&world.place.root_certificate()).expect("it is right");
    let mut open = Vec::new();
    let mut fill = || {
        open.extend((0..CONNECTIONS).map(|_| idle(world, &config)));
        sleep(Duration::from_millis(300));
        world.gateway_bytes()
    };
    fill();
    let (before, after) = (fill(), fill());
    let each = after.saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes of private memory an idle connection with TLS");
    assert!(each < 12 * 1024, "an idle connection with TLS holds {each} bytes");
}

/// An authority of a test, which signs what the test needs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut root = CertificateParams::new([]).expect("no names");
        root.distinguished_name.push(DnType::CommonName, name);
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = root.self_signed(&key).expect("it can sign itself").pem();
        Authority { pem, issuer: Issuer::new(root, key) }
    }

    /// PEM of a certificate and of its key.
    fn sign(&self, common_name: &str, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut leaf = CertificateParams::new(names).expect("the names are good");
        leaf.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        (leaf.signed_by(&key, &self.issuer).expect("it signs").pem(), key.serialize_pem())
    }
}

fn write(path: &Path, text: &str, mode: u32) -> String {
    fs::write(path, text).expect("our directory is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the file is ours");
    path.to_str().expect("a plain path").to_owned()
}

fn client_certificates(world: &World) {
    let (known, foreign) = (Authority::new("known"), Authority::new("foreign"));
    let ca = write(&world.directory.0.join("clients.pem"), &known.pem, 0o644);
    let (place, gateway) = world.another("certified", |c| {
        c.replace("key = \"server.key\"", &format!("key = \"server.key\", client_ca = \"{ca}\""))
    });
    let login = at(&gateway, world);
    let show = |authority: &Authority| {
        let (certificate, key) = authority.sign("ann's laptop", &[]);
        let certificate = write(&world.directory.0.join("client.pem"), &certificate, 0o644);
        let key = write(&world.directory.0.join("client.key"), &key, 0o600);
        let settings = [("PGSSLMODE", "require"), ("PGSSLCERT", &certificate), ("PGSSLKEY", &key)];
        psql(world, &login, &settings, &["select 'in'"])
    };
    show(&known).must_succeed().must_print("in");
    let recorded = || {
        sleep(Duration::from_millis(500));
        let mut command = Command::new(tests::world::wireward());
        command.args(["sessions", "--json"]).arg("--config").arg(place.configuration());
        let sessions = Shown::of(command).out;
        let last = sessions.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let id = last.and_then(|s| Some(s["session"].as_str()?.to_owned())).unwrap_or_else(|| panic!("{sessions}"));
        let mut command = Command::new(tests::world::wireward());
        command.args(["replay", &id, "--config"]).arg(place.configuration());
        Shown::of(command)
    };
    recorded().must_print("ann's laptop").must_print("\"tls\":true");
    psql(world, &login, &[("PGSSLMODE", "require")], &["select 'in'"]).must_succeed().must_print("in");
    recorded().must_print("\"client_certificate\":null");
    let refused = show(&foreign);
    assert!(!refused.success);
    refused.must_complain("alert unknown ca");
}

/// Gives the server this certificate, or none.
fn serve(world: &World, certificate: Option<(String, String)>) {
    let mode = if certificate.is_some() { "on" } else { "off" };
    if let Some((certificate, key)) = certificate {
        let data = world.directory.0.join("pg");
        let owner = fs::metadata(&data).expect("the server's directory is there");
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            write(&path, &text, 0o600);
            chown(&path, Some(owner.uid()), Some(owner.gid())).expect("we may give it away");
        }
    }
    let set = |line: &str| world.server.run_script("postgres", line).unwrap_or_else(|why| panic!("{why}"));
    set(&format!("alter system set ssl = {mode}"));
    set("alter system set log_connections = on");
    set("select pg_reload_conf()");
    sleep(Duration::from_millis(300));
}

/// A gateway that reaches `port` by TLS and trusts this authority.
fn behind_tls(world: &World, name: &str, authority: &Authority, port: u16) -> (Place, Gateway) {
    let ca = write(&world.directory.0.join(format!("{name}.ca.pem")), &authority.pem, 0o644);
    world.another(name, |c| {
        let address =
            format!("address = \"127.0.0.1:{port}\"\ntls = \"verify-full\"\ntls_ca = \"{ca}\"\ntls_name = \"db.test\"");
        c.replace(&format!("address = \"{}\"", world.upstream.address), &address)
    })
}

fn upstream(world: &World) {
    let (authority, foreign) = (Authority::new("known"), Authority::new("foreign"));
    serve(world, Some(authority.sign("db", &["db.test"])));
    let (place, gateway) = behind_tls(world, "upstream", &authority, world.server.port);
    let login = at(&gateway, world);
    let own = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()";
    world.psql(&login, &[own]).must_succeed().must_print("t|TLSv1.3\n");
    assert!(
        world.reached_the_server("application_name=wireward catalogue SSL enabled"),
        "the catalogue comes in clear"
    );

    let refused = |certificate, why: &str| {
        serve(world, certificate);
        let shown = world.psql(&login, &["select 1"]);
        assert!(!shown.success, "{shown:?}");
        let log = fs::read_to_string(place.log()).expect("the log is readable");
        assert!(log.contains(why), "{why} is not in {log}");
        shown
    };
    let words = "the upstream made no TLS connection that can be trusted";
    refused(Some(foreign.sign("db", &["db.test"])), "TLS with an upstream: invalid peer certificate: UnknownIssuer")
        .must_complain(words);
    refused(Some(authority.sign("db", &["other.test"])), "not valid for name").must_complain(words);
    refused(None, "").must_complain("the upstream does not offer TLS, and the resource asks for it");
    serve(world, Some(authority.sign("db", &["db.test"])));
    world.psql(&login, &["select 'again'"]).must_succeed().must_print("again");
}

/// `tls_between.py`, stopped when dropped.
struct Between {
    process: Child,
    port: u16,
}

impl Between {
    fn start(world: &World, certificate: &(String, String)) -> Between {
        write(&world.directory.0.join("between.pem"), &certificate.0, 0o644);
        write(&world.directory.0.join("between.key"), &certificate.1, 0o600);
        let mut command = world.script("tls_between.py", "between");
        let mut process = command.stdout(Stdio::piped()).spawn().expect("Python starts");
        let mut line = String::new();
        let output = process.stdout.take().expect("it has an output");
        BufReader::new(output).read_line(&mut line).expect("it says its port");
        Between { process, port: line.trim().parse().expect("a port") }
    }

    fn behave(&self, world: &World, how: &str) {
        fs::write(world.directory.0.join("between.mode"), how).expect("our directory is writable");
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        // `timeout`, which it runs under, hands this signal on.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

fn rude_upstream(world: &World) {
    let authority = Authority::new("known");
    let certificate = authority.sign("db", &["db.test"]);
    serve(world, Some(certificate.clone()));
    let between = Between::start(world, &certificate);
    between.behave(world, "pass");
    let (_place, gateway) = behind_tls(world, "rude", &authority, between.port);
    let login = at(&gateway, world);
    world.psql(&login, &["select 'passed'"]).must_succeed().must_print("passed");
    between.behave(world, "stuff");
    world.psql(&login, &["select 1"]).must_complain("the upstream's answer to a TLS request is malformed");
    between.behave(world, "none");
    world.psql(&login, &["select 1"]).must_complain("the upstream does not offer TLS, and the resource asks for it");
}

fn man_in_the_middle(world: &World) {
    let authority = Authority::new("known");
    serve(world, Some(authority.sign("db", &["db.test"])));
    // He has a certificate that the gateway trusts, but not the server's own.
    let between = Between::start(world, &authority.sign("db", &["db.test"]));
    between.behave(world, "pass");
    let (place, gateway) = behind_tls(world, "between", &authority, between.port);
    between.behave(world, "read");
    let login = at(&gateway, world);
    let refused = "the upstream refused the gateway's login";
    let reached = |text| assert!(world.reached_the_server(text), "the server does not say {text:?}");
    world.psql(&login, &["select 'bound to another certificate'"]).must_complain(refused);
    reached("SCRAM channel binding check failed");
    between.behave(world, "strip");
    world.psql(&login, &["select 'not bound at all'"]).must_complain(refused);
    reached("SCRAM channel binding negotiation error");
    assert!(!world.reached_the_server("not bound at all"));
    // The catalogue is read every 5 seconds, and with the same restraint.
    sleep(Duration::from_secs(6));
    let log = fs::read_to_string(place.log()).expect("the log is readable");
    assert!(log.contains("catalogue of resource shop: ") && log.contains("channel binding"), "{log}");
}
