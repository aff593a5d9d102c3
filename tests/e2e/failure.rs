//! Deaths and stalls of the gateway's own processes: nothing acknowledged is lost, nothing runs unrecorded.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tests::gateway::{Gateway, Place};
use tests::process::{command_line, tree};
use tests::suite::{Case, run};
use tests::wire::{Message, Wire};
use tests::world::{Login, World};

/// Kills of the whole product; the ring and the recorder alone have their own test in `recorder/`.
const KILLS: usize = 50;
/// The same with the other shell of the recorder.
const KILLS_GLOMMIO: usize = 15;
const CLIENTS: usize = 4;

fn main() -> ExitCode {
    run(vec![
        Case::new("a_session_goes_on_when_the_recorder_is_killed", recorder_killed),
        Case::new("no_statement_starts_while_the_recorder_is_stopped", recorder_stopped),
        Case::new("stalled_sessions_end_with_57P01_and_new_ones_work_when_it_is_back", recorder_absent),
        Case::new("a_killed_dataplane_leaves_closed_and_verified_sessions", dataplane_killed),
        Case::new("fifty_kills_lose_no_acknowledged_record", fifty_kills),
        Case::new("kills_lose_no_acknowledged_record_through_glommio", kills_through_glommio),
    ])
}

fn pid_of(gateway: &Gateway, part: &str) -> Option<Pid> {
    let wanted = format!("wireward {part} ");
    let pid = tree(gateway.process.id()).into_iter().find(|pid| command_line(*pid).contains(&wanted))?;
    Pid::from_raw(pid as i32)
}

fn signal(world: &World, part: &str, signal: Signal) {
    let pid = pid_of(&world.gateway, part).unwrap_or_else(|| panic!("there is no {part}"));
    kill_process(pid, signal).expect("our own child takes signals");
}

fn enter(world: &World) -> Wire {
    let login = world.through("dba");
    Wire::login(login.port, &login.user, "shop", login.password.as_bytes()).expect("a dba gets in")
}

/// The first cell of the first row of an answer.
fn cell(messages: &[Message]) -> Option<String> {
    let row = messages.iter().find(|m| m.kind == b'D')?;
    Some(String::from_utf8_lossy(&row.body[6..]).into_owned())
}

fn ask(wire: &mut Wire, text: &str) -> Option<String> {
    wire.query(text);
    cell(&wire.until_ready())
}

fn recorder_killed(world: &World) {
    let mut wire = enter(world);
    assert_eq!(ask(&mut wire, "select 'before'").as_deref(), Some("before"));
    for _ in 0..3 {
        signal(world, "recorder", Signal::KILL);
        assert_eq!(ask(&mut wire, "select 'after'").as_deref(), Some("after"));
        sleep(Duration::from_millis(300));
    }
}

fn recorder_stopped(world: &World) {
    let mut wire = enter(world);
    signal(world, "recorder", Signal::STOP);
    sleep(Duration::from_millis(1500));
    wire.query("select 'held_back_mark'");
    sleep(Duration::from_millis(700));
    let early = world.reached_the_server("held_back_mark");
    signal(world, "recorder", Signal::CONT);
    assert!(!early, "a statement started without a recorder");
    assert_eq!(cell(&wire.until_ready()).as_deref(), Some("held_back_mark"));
}

fn recorder_absent(world: &World) {
    let mut wire = enter(world);
    signal(world, "recorder", Signal::STOP);
    sleep(Duration::from_millis(1500));
    let sent = Instant::now();
    wire.query("select 'never_run_mark'");
    let answer = wire.next();
    let waited = sent.elapsed();
    signal(world, "recorder", Signal::CONT);
    assert_eq!(answer.map(|m| m.sqlstate()).as_deref(), Some("57P01"));
    assert!(waited > Duration::from_secs(4), "the session ended after {waited:?}, before recorder_absent_max");
    assert!(!world.reached_the_server("never_run_mark"));
    sleep(Duration::from_millis(200));
    assert_eq!(ask(&mut enter(world), "select 'back'").as_deref(), Some("back"));
}

fn dataplane_killed(world: &World) {
    let mut wire = enter(world);
    assert_eq!(ask(&mut wire, "select 'last_words_mark'").as_deref(), Some("last_words_mark"));
    signal(world, "dataplane", Signal::KILL);
    assert!(wire.is_ended());
    until_served(&world.through("dba"));
    // The recorder writes what it has within its usual delay.
    sleep(Duration::from_millis(500));
    assert!(recorded_marks(world, &world.place).contains("last_words_mark"));
    world.evidence("sessions", &[]).must_print("producer died");
    world.evidence("verify", &[]).must_succeed();
}

fn fifty_kills(world: &World) {
    kills(world, &world.place, &world.gateway, KILLS);
}

/// `auto`, as the directory may be in memory, where there is no direct I/O.
fn kills_through_glommio(world: &World) {
    let shell = |written: String| written.replace("[recording]\n", "[recording]\nshell = \"auto\"\n");
    let (place, gateway) = world.another("glommio", shell);
    kills(world, &place, &gateway, KILLS_GLOMMIO);
    let log = std::fs::read_to_string(place.log()).expect("the log is there");
    let told =
        log.lines().filter(|line| line.contains("through the glommio shell") || line.contains("plain is used instead"));
    assert!(told.count() > KILLS_GLOMMIO / 2, "each recorder says what writes: {log}");
}

/// Clients write down each mark whose answer they have; after the kills every one of them must be in the recordings.
fn kills(world: &World, place: &Place, gateway: &Gateway, wanted: usize) {
    let login = Login { port: gateway.port, ..world.through("dba") };
    // A supervisor gives up on a child that dies five times before it has lived for two seconds.
    sleep(Duration::from_millis(2500));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<JoinHandle<Vec<String>>> = (0..CLIENTS)
        .map(|number| {
            let (login, stop) = (login.clone(), stop.clone());
            std::thread::spawn(move || client(number, &login, &stop))
        })
        .collect();
    let mut killed = 0;
    let begun = Instant::now();
    while killed < wanted {
        assert!(begun.elapsed() < Duration::from_secs(120), "after {killed} kills the gateway does not come back");
        let part = if killed % 3 == 0 { "dataplane" } else { "recorder" };
        // Times that repeat no pattern of the gateway's own.
        sleep(Duration::from_millis(60 + (killed as u64 * 37) % 190));
        if let Some(pid) = pid_of(gateway, part) {
            kill_process(pid, Signal::KILL).expect("our own child takes signals");
            killed += 1;
        }
    }
    until_served(&login);
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<String> = clients.into_iter().flat_map(|c| c.join().expect("a client ends")).collect();
    sleep(Duration::from_millis(1000));
    world.evidence_of(place, "verify", &[]).must_succeed();
    let recorded = recorded_marks(world, place);
    let lost: Vec<&String> = acknowledged.iter().filter(|mark| !recorded.contains(*mark)).collect();
    assert!(
        acknowledged.len() > 4 * wanted,
        "only {} statements came through: too few to prove anything",
        acknowledged.len()
    );
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged are lost: {:?}",
        lost.len(),
        acknowledged.len(),
        &lost[..lost.len().min(5)]
    );
    println!("{wanted} kills, {} acknowledged statements, none lost", acknowledged.len());
}

fn client(number: usize, login: &Login, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(mut wire) = try_to_enter(login) else {
            sleep(Duration::from_millis(20));
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            let mark = format!("mark_{number}_{}_x", acknowledged.len());
            match catch_unwind(AssertUnwindSafe(|| ask(&mut wire, &format!("select '{mark}'")))) {
                Ok(Some(answer)) if answer == mark => acknowledged.push(mark),
                _ => break,
            }
            sleep(Duration::from_millis(2));
        }
    }
    acknowledged
}

/// A session, if the gateway is there and lives through the login.
fn try_to_enter(login: &Login) -> Option<Wire> {
    TcpStream::connect(("127.0.0.1", login.port)).ok()?;
    let enter = || Wire::login(login.port, &login.user, "shop", login.password.as_bytes()).ok();
    catch_unwind(AssertUnwindSafe(enter)).ok().flatten()
}

fn until_served(login: &Login) {
    for _ in 0..100 {
        let served = |mut wire: Wire| catch_unwind(AssertUnwindSafe(|| ask(&mut wire, "select 1"))).is_ok();
        if try_to_enter(login).is_some_and(served) {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("the gateway does not come back");
}

/// Every `…mark…` word that the replayed sessions show.
fn recorded_marks(world: &World, place: &Place) -> BTreeSet<String> {
    let sessions = world.evidence_of(place, "sessions", &["--json"]).out;
    let ids = sessions.lines().filter_map(|line| {
        let session: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(session["session"].as_str()?.to_owned())
    });
    let mut marks = BTreeSet::new();
    for id in ids {
        let shown = world.evidence_of(place, "replay", &[&id, "--all", "--json"]).out;
        let words = shown.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.contains("mark"));
        marks.extend(words.map(str::to_owned));
    }
    marks
}
