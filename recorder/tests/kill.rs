//! Two processes and `kill -9` at random moments: 225 producers, 225 recorders, one ring, one ledger outside both.
//!
//! This binary starts itself again as the producer or the recorder; the ring comes as standard input. Every second recorder
//! writes through glommio, so each shell finds what the other was killed over.

mod support;

use recorder::checkpoint::{PUBLIC_KEY_FILE_NAME, read_public_key};
use recorder::segment::writer::Limits;
use recorder::shell::choice::Choice;
use recorder::{RunConfig, run};
use ring::{ClaimError, Flags, Kind, Producer};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use support::{Directory, Random, payload, read_all};

const KILLS: u32 = 225;
const ROLE: &str = "WIREWARD_KILL_TEST_ROLE";
const PLACE: &str = "WIREWARD_KILL_TEST_DIRECTORY";

#[test]
fn four_hundred_and_fifty_kills_lose_no_acknowledged_record() {
    let directory = Directory::new();
    let ring = ring::create(256 << 10).unwrap();
    let mut random = Random(3);
    let (mut producer, mut recorder) = (start("producer", &ring, &directory), start("plain", &ring, &directory));
    let (mut producers, mut recorders) = (0, 0);
    while producers < KILLS || recorders < KILLS {
        std::thread::sleep(Duration::from_micros(1000 + random.below(60_000)));
        if (random.below(2) == 0 && producers < KILLS) || recorders == KILLS {
            kill(&mut producer);
            producers += 1;
            producer = start("producer", &ring, &directory);
        } else {
            kill(&mut recorder);
            recorders += 1;
            recorder = start(if recorders % 2 == 0 { "plain" } else { "glommio" }, &ring, &directory);
        }
    }
    kill(&mut producer);
    wait_until_drained(&ring);
    kill(&mut recorder);
    check(&directory);
}

fn start(role: &str, ring: &OwnedFd, directory: &Directory) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "this_process_is_a_child_of_the_kill_test", "--nocapture"])
        .env(ROLE, role)
        .env(PLACE, &directory.0)
        .stdin(ring.try_clone().unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// SIGKILL; a child that ended by itself before has failed.
fn kill(child: &mut Child) {
    assert_eq!(child.try_wait().unwrap(), None, "a child stopped by itself");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn wait_until_drained(ring: &OwnedFd) {
    let probe = Producer::attach(ring::map(ring).unwrap()).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while probe.used_bytes() > 0 {
        assert!(Instant::now() < until, "the recorder does not drain the ring");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The ledger's whole lines: what producers were given receipts for, or saw to be durable.
fn ledger(directory: &Directory) -> Vec<(u64, u64)> {
    let bytes = std::fs::read(directory.0.join("ledger")).unwrap();
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    bytes.chunks_exact(16).map(|line| (number(&line[..8]), number(&line[8..]))).collect()
}

fn check(directory: &Directory) {
    let records = read_all(&directory.recordings());
    let own = |ring: u64| records.iter().filter(move |((r, _), _)| *r == ring);
    let ring = records.iter().find(|(_, (kind, ..))| *kind == Kind::Request).map(|((ring, _), _)| *ring).unwrap();
    let last = own(ring).count() as u64;
    assert!(own(ring).map(|((_, seq), _)| *seq).eq(1..=last), "the sequence has a hole");
    for ((_, seq), (kind, _, bytes)) in own(ring) {
        if *kind == Kind::Request {
            let tag = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert_eq!(bytes[8..], payload(tag), "record {seq} is not whole");
        }
    }
    let ledger = ledger(directory);
    for (seq, tag) in &ledger {
        let (_, _, bytes) =
            records.get(&(ring, *seq)).unwrap_or_else(|| panic!("record {seq} was acknowledged and is lost"));
        assert_eq!(bytes[..8], tag.to_le_bytes(), "record {seq}");
    }
    assert!(ledger.len() > 5000, "only {} records were acknowledged", ledger.len());
    let opened = own(ring).filter(|(_, (kind, ..))| *kind == Kind::Open).count();
    let closed = records.iter().filter(|((r, _), (kind, ..))| *r != ring && *kind == Kind::Close).count();
    assert!(opened > 50 && closed + 1 >= opened, "{opened} sessions opened, {closed} closed");
    let key = read_public_key(&directory.recordings().join(PUBLIC_KEY_FILE_NAME)).unwrap();
    let outcome = recorder::verify::verify(&directory.recordings(), &key).unwrap();
    assert_eq!(outcome.problems, [], "{:?}", outcome.notes);
    println!("{} acknowledged, {last} recorded, {} segments, {opened} sessions", ledger.len(), outcome.segments);
}

#[test]
fn this_process_is_a_child_of_the_kill_test() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = PathBuf::from(std::env::var(PLACE).unwrap());
    let ring = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    match &role[..] {
        "producer" => produce(ring, &directory),
        "glommio" => record(ring, &directory, Choice::Glommio),
        _ => record(ring, &directory, Choice::Plain),
    }
}

fn record(ring: OwnedFd, directory: &Path, shell: Choice) {
    let config = RunConfig {
        rings: vec![ring],
        directory: directory.join("recordings"),
        key_path: directory.join("key.pem"),
        limits: Limits { segment_bytes_max: 1 << 20, segment_age_ms_max: 3_600_000 },
        shell,
        settled: |_, _| {},
        report: |_| {},
    };
    run(config, &AtomicBool::new(false)).unwrap();
}

fn open_session(producer: &mut Producer<ring::Mapped>, session: u64) {
    loop {
        if let Ok(mut claim) = producer.try_claim(2) {
            claim.write(b"{}").unwrap();
            let _ = claim.commit(Kind::Open, Flags::WHOLE, session, 1);
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// One session a life; each receipt goes to the ledger, which survives this process.
fn produce(ring: OwnedFd, directory: &Path) {
    let mut producer = Producer::attach(ring::map(ring).unwrap()).unwrap();
    let mut ledger = OpenOptions::new().create(true).append(true).open(directory.join("ledger")).unwrap();
    let mut random = Random(u64::from(std::process::id()));
    let session = u64::from(std::process::id()) << 32 | random.below(1 << 31);
    open_session(&mut producer, session);
    loop {
        let tag = random.below(1 << 40);
        let body = payload(tag);
        match producer.try_claim(8 + body.len()) {
            Ok(mut claim) => {
                claim.write(&tag.to_le_bytes()).unwrap();
                claim.write(&body).unwrap();
                let receipt = claim.commit(Kind::Request, Flags::WHOLE, session, 2);
                let line = [receipt.seq.to_le_bytes(), tag.to_le_bytes()].concat();
                ledger.write_all(&line).unwrap();
            }
            Err(ClaimError::Full) => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => panic!("{error}"),
        }
        if random.below(16) == 0 {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}
