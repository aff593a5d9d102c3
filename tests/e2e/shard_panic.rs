//! A shard panics: it alone is started again, its sessions end with records, the other shard's go on.
//!
//! The shards, their rings and the recorder are the product's; what cannot be had from outside is the panic. Here it comes from
//! the check of a token, which runs on the shard.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dataplane::config::{Config, Limits, Resource};
use dataplane::control::Control;
use dataplane::control::analyser::Analyser;
use dataplane::control::catalogue::Snapshot;
use dataplane::control::credential::Secret;
use dataplane::control::identity::Identity;
use dataplane::io::driver::Choice;
use dataplane::shard::accept::Door;
use dataplane::shard::listen::listen;
use dataplane::shard::mailbox::{Mail, mailbox};
use dataplane::shard::spawn::{self, Assignment};
use policy_compiler::artifact::Policy;
use tests::gateway::{Place, Upstream};
use tests::issuer::Issuer;
use tests::server::{free_port, random_hex};
use tests::wire::{Wire, frame};
use tests::world::Directory;

const SHARDS: usize = 2;

/// Lets everybody in and answers every statement with nothing.
fn upstream() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| serve(stream)))));
    port
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    stream.read_exact(&mut vec![0; u32::from_be_bytes(head) as usize - 4])?;
    stream.write_all(&[frame(b'R', &[0; 4]), frame(b'K', &[1; 8]), frame(b'Z', b"I")].concat())?;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        stream.read_exact(&mut vec![0; length - 4])?;
        stream.write_all(&[frame(b'C', b"SELECT 0\0"), frame(b'Z', b"I")].concat())?;
    }
}

fn verify(token: &[u8], _now_s: u64) -> Result<Identity, &'static str> {
    assert_ne!(token, b"panic", "a bug in a shard");
    let name = String::from_utf8_lossy(token).into_owned();
    Ok(Identity {
        subject: name.clone(),
        name,
        roles: vec!["dba".into()],
        expires_unix_s: u64::MAX,
        ..Identity::default()
    })
}

/// Limits and resource as a configuration gives them, and the control side that lets in whoever has a name.
fn control(directory: &Directory) -> (Limits, Arc<Control>) {
    let (place, port) = (Place::new(&directory.0), free_port().expect("a port is free"));
    let behind = Upstream {
        address: format!("127.0.0.1:{}", upstream()),
        database: "shop".into(),
        user: "gateway".into(),
        password: "secret".into(),
    };
    let bundle = tests::policy::compile(None).expect("the policy is right");
    place.furnish(&Issuer::new().expect("a key"), &bundle, &behind, port).expect("our directory is writable");
    let config = Config::load(&place.configuration()).expect("it has just been written");
    let policy = Policy::open(&config.policy_file).expect("it has just been written");
    let resource: Resource = config.resources[0].clone();
    let guarded = (resource, Secret::new(b"secret"), Snapshot::of(&[]));
    (config.limits, Arc::new(Control::new(Box::new(verify), policy, vec![guarded])))
}

fn enter(port: u16, name: &str) -> Wire {
    Wire::login(port, name, "shop", name.as_bytes()).unwrap_or_else(|why| panic!("{name}: {why:?}"))
}

fn works(wire: &mut Wire) {
    wire.query("select 1");
    assert!(wire.until_ready().iter().all(|m| m.kind != b'E'));
}

fn scene(ports: [u16; SHARDS]) {
    let (mut here, mut elsewhere) = (enter(ports[0], "ada"), enter(ports[1], "bob"));
    works(&mut here);
    works(&mut elsewhere);
    let mut bad = Wire::connect(ports[0]);
    bad.startup(&[("user", "eve"), ("database", "shop")]);
    assert_eq!(bad.expect().kind, b'R');
    bad.send(b'p', b"panic\0");
    assert!(bad.is_ended(), "the shard has survived");
    assert!(here.is_ended(), "its session goes on");
    works(&mut elsewhere);
    // The kernel keeps who comes meanwhile.
    works(&mut enter(ports[0], "cyd"));
    works(&mut elsewhere);
}

#[test]
fn a_shard_that_panics_is_started_again_its_sessions_end_with_records_and_others_go_on() {
    let directory = Directory(std::env::temp_dir().join(format!("wireward-panic-{}", random_hex(4).expect("random"))));
    std::fs::create_dir_all(&directory.0).expect("the directory for temporary files is writable");
    let recordings = directory.0.join("evidence");
    let rings: Vec<_> = (0..SHARDS).map(|_| ring::create(1 << 20).expect("memory")).collect();
    let (limits, control) = control(&directory);
    let analyser = Analyser::start(1).expect("a thread");
    let (driver, _) = Choice::Auto.settle().expect("a driver");
    let mailboxes: Vec<_> = (0..SHARDS).map(|_| mailbox().expect("an event descriptor")).collect();
    let postboxes: Vec<_> = mailboxes.iter().map(|(_, postbox, _)| postbox.clone()).collect();
    let ports = [0; SHARDS].map(|_| free_port().expect("a port is free"));
    let recorder_config = recorder::RunConfig {
        rings: rings.iter().map(|ring| ring.try_clone().expect("a descriptor")).collect(),
        directory: recordings.clone(),
        key_path: directory.0.join("evidence.key"),
        limits: recorder::segment::writer::Limits::default(),
        shell: recorder::shell::choice::Choice::Plain,
        settled: |_, _| {},
        report: |_| {},
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let recorder = scope.spawn(|| recorder::run(recorder_config, &stop));
        let mut shards = Vec::new();
        for (number, (ring, (mailbox, _, bell))) in rings.iter().zip(mailboxes).enumerate() {
            let assignment = Assignment {
                number: number as u8,
                driver,
                listeners: vec![listen(([127, 0, 0, 1], ports[number]).into()).expect("it is free")],
                ring: ring.try_clone().expect("a descriptor"),
                bell,
                mailbox,
                siblings: postboxes.clone(),
                census: Default::default(),
                counters: Arc::default(),
                control: control.clone(),
                analyser: analyser.clone(),
                limits,
                doors: vec![Door::default()],
                recorder_absent_max: Duration::from_secs(5),
            };
            shards.push(scope.spawn(move || spawn::run(&assignment)));
        }
        let played = thread::spawn(move || scene(ports)).join();
        postboxes.iter().for_each(|postbox| postbox.send(Mail::Stop));
        shards.into_iter().for_each(|shard| shard.join().expect("no panic leaves a shard").expect("it starts"));
        // What the rings still hold is drained before the recorder ends.
        stop.store(true, Ordering::Relaxed);
        recorder.join().expect("no panic").expect("it records");
        played.expect("the scene was played");
    });
    ends_are_recorded(&recordings);
}

fn ends_are_recorded(recordings: &Path) {
    let catalog = recorder::catalog::catalog(recordings).expect("readable");
    assert!(catalog.damage.is_empty(), "{} places are damaged", catalog.damage.len());
    let ends: Vec<(&str, Option<&str>)> =
        catalog.sessions.iter().map(|s| (s.subject.as_str(), s.closed.as_deref())).collect();
    let end = |name: &str| ends.iter().find(|(subject, _)| *subject == name).and_then(|(_, closed)| *closed);
    assert_eq!(end("bob"), Some("client closed"));
    assert_eq!(end("cyd"), Some("client closed"));
    let of_the_panicked = end("ada").expect("its session has an end");
    assert_ne!(of_the_panicked, "client closed");
}
