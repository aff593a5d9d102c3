//! The admin listener: health follows what the gateway can do, metrics count what was done, and neither shows a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::process::command_line;
use tests::suite::{Case, run};
use tests::wire::Wire;
use tests::world::{Shown, World};

fn main() -> ExitCode {
    run(vec![
        Case::new("health_turns_503_when_the_recorder_is_stopped_and_200_when_it_is_back", recorder_stopped),
        Case::new("metrics_count_what_was_done", counts),
        Case::new("a_session_by_tls_counts_until_it_ends", tls_sessions),
        Case::new("the_exposition_parses", parses),
        Case::new("no_page_and_no_log_line_holds_a_secret_or_a_value", no_secrets),
        Case::new("the_log_of_all_processes_is_json_lines", json_lines),
    ])
}

/// Status, head and body of a page.
fn get(world: &World, path: &str) -> (u16, String, String) {
    let url = world.place.admin().expect("an admin listener");
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket takes a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: wireward\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, head.to_owned(), body.to_owned())
}

/// Asks for health until it has this status; its body.
fn until_health(world: &World, status: u16) -> String {
    let begun = Instant::now();
    loop {
        let (found, _, body) = get(world, "/healthz");
        if found == status {
            return body;
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "health is still {found}: {body}");
        sleep(Duration::from_millis(100));
    }
}

fn recorder_stopped(world: &World) {
    until_health(world, 200);
    let is_recorder = |pid: &u32| command_line(*pid).contains("wireward recorder ");
    let pid = world.gateway_pids().into_iter().find(is_recorder).expect("there is a recorder");
    let pid = Pid::from_raw(pid as i32).expect("not 0");
    kill_process(pid, Signal::STOP).expect("our own child takes signals");
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until_health(world, 503)));
    kill_process(pid, Signal::CONT).expect("our own child takes signals");
    let body = stopped.expect("health turns 503");
    let health: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(health["status"], "unavailable");
    let reason = health["reasons"][0].as_str().expect("a reason");
    assert!(reason.starts_with("the recorder shows no life in the ring of shard "), "{reason}");
    assert_eq!(until_health(world, 200), "{\"reasons\":[],\"status\":\"ok\"}\n");
}

/// Every series, shards added up.
fn series(world: &World) -> BTreeMap<String, f64> {
    let (status, _, page) = get(world, "/metrics");
    assert_eq!(status, 200, "{page}");
    let mut sums = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let (family, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels: Vec<&str> = labels
            .trim_end_matches('}')
            .split(',')
            .filter(|l| !l.starts_with("shard=") && !l.starts_with("protocol="))
            .collect();
        let key = format!("{family} {}", labels.join(","));
        *sums.entry(key.trim_end().to_owned()).or_insert(0.0) += value.parse::<f64>().expect("a number");
    }
    sums
}

fn enter(world: &World, role: &str) -> Wire {
    let login = world.through(role);
    Wire::login(login.port, &login.user, "shop", login.password.as_bytes()).expect("a known role gets in")
}

fn ask(wire: &mut Wire, text: &str) {
    wire.query(text);
    wire.until_ready();
}

fn counts(world: &World) {
    let before = series(world);
    let mut analyst = enter(world, "analyst");
    ask(&mut analyst, "select email from customers where id < 4");
    ask(&mut analyst, "select email from customers where id < 4");
    let mut agent = enter(world, "agent");
    ask(&mut agent, "select status from orders where id = 1");
    ask(&mut agent, "drop table orders");
    ask(&mut enter(world, "dba"), "select 'admin e2e'");
    let login = world.through("dba");
    let spoiled = format!("{}x", login.password);
    assert!(Wire::login(login.port, &login.user, "shop", spoiled.as_bytes()).is_err());
    let after = series(world);
    let grown = |key: &str| {
        let of = |page: &BTreeMap<String, f64>| *page.get(key).unwrap_or_else(|| panic!("{key} is not in {page:?}"));
        of(&after) - of(&before)
    };
    for (key, times) in [
        ("wireward_connections_accepted_total", 4.0),
        ("wireward_logins_total outcome=\"admitted\"", 3.0),
        ("wireward_logins_total outcome=\"not_admitted\"", 1.0),
        ("wireward_logins_total outcome=\"unreachable\"", 0.0),
        ("wireward_statements_total verdict=\"mask\"", 3.0),
        ("wireward_statements_total verdict=\"block\"", 1.0),
        ("wireward_statements_total verdict=\"allow\"", 1.0),
        ("wireward_executions_total", 5.0),
        ("wireward_rows_masked_total by=\"mask\"", 6.0),
        ("wireward_rows_masked_total by=\"detectors\"", 1.0),
        ("wireward_cancel_requests_total outcome=\"denied\"", 0.0),
    ] {
        assert_eq!(grown(key), times, "{key}");
    }
    let judged = grown("wireward_plan_cache_hits_total") + grown("wireward_plan_cache_misses_total");
    assert_eq!(judged, 5.0, "each text is looked for once");
    assert!(grown("wireward_received_bytes_total side=\"client\"") > 1000.0, "four tokens came");
    assert!(grown("wireward_received_bytes_total side=\"upstream\"") > 300.0, "six rows came");
    assert!(after["wireward_sessions_open"] >= 2.0 && after["wireward_slots_free"] > 100.0, "{after:?}");
    assert!(after["wireward_catalogue_age_seconds resource=\"shop\""] < 30.0, "{after:?}");
    assert_eq!(after["wireward_driver_info driver=\"io_uring\""], 1.0);
}

fn tls_sessions(world: &World) {
    let before = series(world);
    let login = world.through("dba");
    let mut psql = world.tool(&login, "psql", &["-X", "-q", "-A", "-t", "-c", "select 'by TLS'"]);
    psql.env("PGSSLMODE", "require");
    Shown::of(psql).must_succeed().must_print("by TLS");
    let key = "wireward_client_tls_handshakes_total outcome=\"done\"";
    assert_eq!(series(world)[key] - before[key], 1.0);
    let begun = Instant::now();
    while series(world)["wireward_tls_sessions_open"] != 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(3), "the session has ended and still counts");
        sleep(Duration::from_millis(50));
    }
}

/// The grammar of the text format, as far as it is used.
fn parses(world: &World) {
    let (status, head, page) = get(world, "/metrics");
    assert_eq!(status, 200);
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(page.ends_with('\n'));
    let (mut family, mut families, mut seen) = ("", BTreeSet::new(), BTreeSet::new());
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name) && is_name(name), "{line}");
            family = name;
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok_and(|v| v >= 0.0), "{line}");
        assert!(seen.insert(series.to_owned()), "twice: {series}");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert_eq!(name, family, "{line}");
        let labels = labels.strip_suffix('}').expect("a closing brace");
        for label in labels.split(',').filter(|l| !l.is_empty()) {
            let (label, value) = label.split_once('=').expect("a label");
            assert!(is_name(label) && value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
    }
    assert!(seen.len() > 60, "{page}");
    assert_eq!(get(world, "/").0, 404);
}

fn no_secrets(world: &World) {
    let login = world.through("analyst");
    let mut wire = Wire::login(login.port, &login.user, "shop", login.password.as_bytes()).expect("an analyst gets in");
    ask(&mut wire, "select 'canary_literal', ssn from customers");
    ask(&mut wire, "drop table canary_relation");
    let claimed = Wire::login(login.port, "canary_user", "canary_database", b"canary_token").err();
    assert!(claimed.is_some());
    let shown = format!("{}{}", get(world, "/metrics").2, get(world, "/healthz").2);
    let log = fs::read_to_string(world.place.log()).expect("the log is readable");
    let (_, signature) = login.password.rsplit_once('.').expect("a token has a signature");
    for secret in ["canary_", signature, &world.upstream.password, &world.hash_key(), "select", "analyst-test"] {
        assert!(!shown.contains(secret), "{secret} is shown");
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

fn json_lines(world: &World) {
    let log = fs::read_to_string(world.place.log()).expect("the log is readable");
    let mut events = BTreeSet::new();
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["time", "level", "event", "process", "message"] {
            assert!(event[field].is_string(), "{field} is not in {line}");
        }
        assert!(event["time"].as_str().is_some_and(|t| t.len() == 24 && t.ends_with('Z')), "{line}");
        events.insert(event["event"].as_str().unwrap_or_default().to_owned());
    }
    assert!(events.contains("started"), "{log}");
}
