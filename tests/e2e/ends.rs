//! Limits of connections, starts and stops of the whole product, and logins that stall.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::gateway::{Gateway, Place};
use tests::issuer::{Issuer, NAME, now_s};
use tests::process::{command_line, tree};
use tests::suite::{Case, run};
use tests::wire::Wire;
use tests::world::{Shown, World, wireward};

fn main() -> ExitCode {
    run(vec![
        Case::new("a_session_ends_with_its_token_and_a_transaction_may_be_finished", token_expires),
        Case::new("one_client_too_many_is_told_so_and_others_go_on", one_too_many),
        Case::new("a_handshake_that_stalls_ends_with_login_timeout", stalled_handshake),
        Case::new("a_second_gateway_on_the_same_port_says_so_and_ends", same_port),
        Case::new("session_numbers_do_not_repeat_when_the_dataplane_is_killed_thrice", numbers),
        Case::new("sigterm_tells_every_session_and_records_its_end", sigterm),
    ])
}

fn enter(world: &World, gateway: &Gateway) -> Wire {
    let token = world.through("dba").password;
    Wire::login(gateway.port, NAME, "shop", token.as_bytes()).expect("a dba gets in")
}

fn one_too_many(world: &World) {
    let (_place, gateway) = world.another("narrow", |c| format!("{c}\n[limits]\nmax_client_conn = 2\n"));
    let mut inside = [enter(world, &gateway), enter(world, &gateway)];
    for _ in 0..100 {
        let token = world.through("dba").password;
        let refused = Wire::login(gateway.port, NAME, "shop", token.as_bytes()).err().expect("there is no room");
        assert_eq!(refused.sqlstate(), "53300");
        let text = refused.field(b'M').unwrap_or_default();
        assert!(text.starts_with("wireward: sorry, too many clients already"), "{text}");
    }
    // Those that say nothing take no place for long, and however many they are, the sessions inside go on.
    let mute: Vec<Wire> = (0..200).map(|_| Wire::connect(gateway.port)).collect();
    for wire in &mut inside {
        wire.query("select 1");
        wire.until_ready();
    }
    drop(mute);
    drop(inside);
    sleep(Duration::from_millis(500));
    enter(world, &gateway);
}

/// The head of a TLS record of 512 bytes, and the beginning of a ClientHello.
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8];

fn stalled_handshake(world: &World) {
    let (_place, gateway) = world.another("hasty", |c| format!("{c}\n[limits]\nlogin_timeout_s = 1.0\n"));
    let request = [0, 0, 0, 8, 4, 210, 22, 47];
    let rows: [(&str, &[u8], &[u8]); 4] = [
        ("requested", &request, HALF_A_HELLO),
        ("requested, and no hello", &request, b""),
        ("direct", b"", HALF_A_HELLO),
        ("half a startup message", b"", &[0, 0, 0, 80, 0, 3]),
    ];
    for (what, first, then) in rows {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(8))).expect("a socket takes a timeout");
        stream.write_all(first).expect("it reads");
        let mut answer = vec![0; usize::from(!first.is_empty())];
        stream.read_exact(&mut answer).expect("it answers");
        stream.write_all(then).expect("it reads");
        let begun = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let waited = begun.elapsed();
        assert!(waited > Duration::from_millis(500) && waited < Duration::from_secs(4), "{what}: {waited:?}");
        let in_clear = rest.starts_with(b"E");
        assert_eq!(in_clear, what == "half a startup message", "{what}: {:?}", String::from_utf8_lossy(&rest));
    }
}

fn same_port(world: &World) {
    let begun = Instant::now();
    let mut command = Command::new("timeout");
    let place = Place::new(&world.directory.0.join("second"));
    std::fs::create_dir_all(world.directory.0.join("second")).expect("our directory is writable");
    let bundle = tests::policy::compile(None).expect("the policy is right");
    place.furnish(&world.issuer, &bundle, &world.upstream, world.gateway.port).expect("our directory is writable");
    command.args(["-k", "5", "60"]).arg(wireward()).arg("run").arg("--config").arg(place.configuration());
    let shown = Shown::of(command);
    assert!(!shown.success, "{shown:?}");
    assert!(begun.elapsed() < Duration::from_secs(30), "it tried for {:?}", begun.elapsed());
    shown.must_complain(&format!("cannot listen on 127.0.0.1:{}: Address already in use", world.gateway.port));
    enter(world, &world.gateway);
}

fn dataplane_of(gateway: &Gateway) -> Option<Pid> {
    let pid = tree(gateway.process.id()).into_iter().find(|pid| command_line(*pid).contains("wireward dataplane "))?;
    Pid::from_raw(pid as i32)
}

fn sessions(place: &Place) -> Vec<serde_json::Value> {
    let mut command = Command::new(wireward());
    command.args(["sessions", "--json", "--config"]).arg(place.configuration());
    let shown = Shown::of(command).must_succeed();
    shown.out.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn numbers(world: &World) {
    let (place, gateway) = world.another("killed", |c| c);
    // Up for long enough to count as proved: it is started again from now on.
    sleep(Duration::from_millis(2500));
    let mut entered = 0;
    let begun = Instant::now();
    for _ in 0..4 {
        let token = world.through("dba").password;
        let mut seen = 0;
        while seen < 3 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the gateway does not come back");
            if TcpStream::connect(("127.0.0.1", gateway.port)).is_err() {
                sleep(Duration::from_millis(5));
                continue;
            }
            let enter = || Wire::login(gateway.port, NAME, "shop", token.as_bytes()).is_ok();
            let entering = std::panic::catch_unwind(std::panic::AssertUnwindSafe(enter));
            seen += usize::from(entering.unwrap_or(false));
        }
        entered += seen;
        if let Some(pid) = dataplane_of(&gateway).filter(|_| entered < 12) {
            kill_process(pid, Signal::KILL).expect("our own child takes signals");
        }
    }
    println!("three kills and {entered} sessions in {:?}", begun.elapsed());
    sleep(Duration::from_millis(1500));
    let recorded = sessions(&place);
    let ids: BTreeSet<String> = recorded.iter().filter_map(|s| Some(s["session"].as_str()?.to_owned())).collect();
    assert!(ids.len() >= entered, "{entered} sessions were served, {} numbers are recorded", ids.len());
}

fn sigterm(world: &World) {
    let (place, mut gateway) = world.another("stopped", |c| c);
    let mut inside: Vec<Wire> = (0..4).map(|_| enter(world, &gateway)).collect();
    inside[0].query("begin");
    inside[0].until_ready();
    let mut half = Wire::connect(gateway.port);
    half.startup(&[("user", NAME), ("database", "shop")]);
    half.expect();
    kill_process(Pid::from_child(&gateway.process), Signal::TERM).expect("our own child takes signals");
    for wire in inside.iter_mut().chain([&mut half]) {
        let last = wire.expect();
        assert_eq!((last.sqlstate().as_str(), last.field(b'S').as_deref()), ("57P01", Some("FATAL")), "{last:?}");
        assert!(wire.is_closed_clean());
    }
    let status = gateway.process.wait().expect("it is our child");
    assert_eq!(status.code(), Some(0));
    let recorded = sessions(&place);
    assert_eq!(recorded.len(), 4, "{recorded:?}");
    for session in recorded {
        assert!(session.to_string().contains("the gateway is shutting down"), "{session}");
    }
}

/// Everything after a session's token has expired: an idle one ends at once, a statement and a transaction may finish.
fn token_expires(world: &World) {
    const LIFE: Duration = Duration::from_secs(4);
    let mut claims = Issuer::claims("ann", &["dba"]);
    claims["exp"] = serde_json::json!(now_s() + LIFE.as_secs());
    let token = world.issuer.sign(&claims).expect("the issuer signs");
    let (_place, gateway) = world.another("strict", |c| c.replace("[policy]", "leeway_s = 0\n\n[policy]"));
    let enter = || Wire::login(gateway.port, NAME, "shop", token.as_bytes()).expect("it has not expired yet");
    let (mut idle, mut running, mut open) = (enter(), enter(), enter());
    open.query("begin");
    open.until_ready();
    running.query("select pg_sleep(5), 'finished'");
    let told = idle.expect();
    assert_eq!((told.kind, told.sqlstate().as_str()), (b'E', "28000"), "{told:?}");
    assert!(told.field(b'M').is_some_and(|text| text.contains("the token has expired")), "{told:?}");
    assert!(idle.is_closed_clean());
    open.query("select 1");
    assert!(open.until_ready().iter().all(|m| m.kind != b'E'), "the transaction goes on");
    open.query("commit");
    assert!(open.until_ready().iter().any(|m| m.kind == b'C'), "and can be finished");
    assert_eq!(open.expect().sqlstate(), "28000");
    assert!(running.until_ready().iter().any(|m| m.kind == b'D'), "the statement is finished");
    assert_eq!(running.expect().sqlstate(), "28000");
}
