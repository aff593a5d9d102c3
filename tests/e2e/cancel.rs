//! Cancel requests: the right key stops the statement that runs, over all shards; nothing else stops anything.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::suite::{Case, run};
use tests::wire::{Message, Wire, cancel};
use tests::world::World;

const SLEEP: &str = "select pg_sleep(3)";
/// Long enough that a statement has reached the server, and that the next cancel of a session counts again.
const SETTLE: Duration = Duration::from_millis(150);

fn main() -> ExitCode {
    run(vec![
        Case::new("a_running_statement_is_cancelled_whichever_shard_hears_of_it", across_shards),
        Case::new("psql_cancels_with_ctrl_c", psql_interrupted),
        Case::new("a_cancel_request_without_the_right_key_stops_nothing", wrong_keys),
        Case::new("an_idle_session_is_not_cancelled_later", idle),
        Case::new("the_right_key_counts_while_others_of_its_address_guess", guesses),
        Case::new("a_flood_of_right_keys_reaches_the_server_ten_times_a_second", flood),
        Case::new("the_key_of_a_session_that_has_ended_is_worth_nothing", ended),
        Case::new("the_process_id_is_the_servers_own", process_id),
    ])
}

struct Session {
    wire: Wire,
}

impl Session {
    fn open(world: &World) -> Session {
        let login = world.through("dba");
        let wire = Wire::login(login.port, &login.user, "shop", login.password.as_bytes()).expect("a dba gets in");
        Session { wire }
    }

    /// The secret's first bits name the shard.
    fn shard(&self, shards: usize) -> usize {
        usize::from(self.wire.key[4]) & (shards.next_power_of_two() - 1)
    }

    fn starts(&mut self, text: &str) {
        self.wire.query(text);
        sleep(SETTLE);
    }

    /// SQLSTATE of the statement that was started, or `None` if it succeeded.
    fn outcome(&mut self) -> Option<String> {
        self.wire.until_ready().iter().find(|m| m.kind == b'E').map(Message::sqlstate)
    }
}

fn across_shards(world: &World) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut shards = [0; 256];
    for _ in 0..16 {
        let mut session = Session::open(world);
        shards[session.shard(cpus)] += 1;
        session.starts(SLEEP);
        cancel(world.gateway.port, &session.wire.key);
        assert_eq!(session.outcome().as_deref(), Some("57014"));
        session.wire.query("select 1");
        assert_eq!(session.outcome(), None, "the session goes on");
    }
    let used = shards.iter().filter(|n| **n > 0).count();
    assert!(used > 1 || cpus == 1, "16 sessions came to one shard of {cpus}: the test shows nothing");
}

fn psql_interrupted(world: &World) {
    let login = world.through("dba");
    let mut command = std::process::Command::new("timeout");
    command.args(["-s", "INT", "1"]).arg(world.server.binaries().join("psql")).args([
        "-X",
        "-c",
        "select pg_sleep(20)",
    ]);
    command.env("PGHOST", "127.0.0.1").env("PGPORT", login.port.to_string()).env("PGDATABASE", "shop");
    command.env("PGUSER", &login.user).env("PGPASSWORD", &login.password).env("PGSSLMODE", "disable");
    let began = Instant::now();
    let output = command.output().expect("psql runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("canceling statement due to user request"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(10), "psql hung for {:?}", began.elapsed());
}

fn wrong_keys(world: &World) {
    let mut session = Session::open(world);
    let key = session.wire.key.clone();
    let flip = |place: usize| {
        let mut key = key.clone();
        key[place] ^= 1;
        key
    };
    session.starts("select pg_sleep(1.5)");
    let elsewhere = [&key[..4], &[key[4] ^ 0x7f], &key[5..]].concat();
    // Another secret, another process, another shard, a shard that is not there, too short, too long.
    for wrong in [flip(7), flip(3), flip(4), elsewhere, key[..7].to_vec(), [&key[..], &[0]].concat()] {
        cancel(world.gateway.port, &wrong);
    }
    assert_eq!(session.outcome(), None, "a wrong key has stopped the statement");
}

fn idle(world: &World) {
    let mut session = Session::open(world);
    session.wire.query("begin");
    assert_eq!(session.outcome(), None);
    cancel(world.gateway.port, &session.wire.key);
    session.starts("select pg_sleep(0.3)");
    assert_eq!(session.outcome(), None, "a cancel of before has stopped a later statement");
}

fn guesses(world: &World) {
    const RIGHT: usize = 5;
    let mut session = Session::open(world);
    let mut wrong = session.wire.key.clone();
    wrong[7] ^= 1;
    let stop = Arc::new(AtomicBool::new(false));
    let (port, ends) = (world.gateway.port, stop.clone());
    // More than forty a second.
    let guesser = std::thread::spawn(move || {
        let mut guesses = 0;
        while !ends.load(Ordering::Relaxed) {
            cancel(port, &wrong);
            guesses += 1;
            sleep(Duration::from_millis(5));
        }
        guesses
    });
    for _ in 0..RIGHT {
        session.starts(SLEEP);
        cancel(world.gateway.port, &session.wire.key);
        assert_eq!(session.outcome().as_deref(), Some("57014"), "a right key was not heard among wrong ones");
    }
    stop.store(true, Ordering::Relaxed);
    let guesses = guesser.join().expect("the guesser ends");
    assert!(guesses > 4 * RIGHT, "{guesses} guesses are no flood");
    let log = std::fs::read_to_string(world.place.log()).expect("a log");
    assert!(log.contains("cancel requests with wrong keys"), "the operator is told");
}

fn flood(world: &World) {
    const FOR: Duration = Duration::from_secs(2);
    let mut session = Session::open(world);
    let stop = Arc::new(AtomicBool::new(false));
    let (port, key) = (world.gateway.port, session.wire.key.clone());
    let flooders: Vec<_> = (0..4)
        .map(|_| {
            let (stop, key) = (stop.clone(), key.clone());
            std::thread::spawn(move || {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    cancel(port, &key);
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    let (began, mut cancelled) = (Instant::now(), 0);
    while began.elapsed() < FOR {
        session.wire.query(SLEEP);
        assert_eq!(session.outcome().as_deref(), Some("57014"));
        cancelled += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let sent: usize = flooders.into_iter().map(|f| f.join().expect("a flooder ends")).sum();
    println!("{sent} cancel requests in 2 s, {cancelled} reached the server");
    assert!(sent > 10 * cancelled, "{sent} requests are no flood for {cancelled} cancels");
    assert!(cancelled <= 25, "{cancelled} cancels in 2 s");
}

fn ended(world: &World) {
    let first = Session::open(world);
    let key = first.wire.key.clone();
    drop(first);
    sleep(SETTLE);
    // The next sessions take the places of those that have gone.
    let mut sessions: Vec<Session> = (0..8).map(|_| Session::open(world)).collect();
    sessions.iter_mut().for_each(|s| s.wire.query("select pg_sleep(1)"));
    sleep(SETTLE);
    cancel(world.gateway.port, &key);
    assert!(sessions.iter_mut().all(|s| s.outcome().is_none()), "an old key has stopped a new session's statement");
}

/// A client finds itself by it: in functions, in the server's views, in its own notifications.
fn process_id(world: &World) {
    let mut session = Session::open(world);
    let key = session.wire.key.clone();
    let process_id = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    session.wire.query("select pg_backend_pid()");
    assert_eq!(session.wire.rows(), [[Some(process_id.to_string().into_bytes())]]);
    session.wire.query("select count(*) from pg_stat_activity where pid = pg_backend_pid() and state = 'active'");
    assert_eq!(session.wire.rows(), [[Some(b"1".to_vec())]]);
    session.wire.query("listen me; notify me, 'hello'");
    let messages = session.wire.until_ready();
    let told = messages.iter().find(|message| message.kind == b'A').expect("a notification");
    assert_eq!(told.body[..4], key[..4], "{told:?}");
    let mut other = Session::open(world);
    session.starts(SLEEP);
    other.wire.query(&format!("select pg_cancel_backend({process_id})"));
    assert_eq!(other.wire.rows(), [[Some(b"t".to_vec())]]);
    assert_eq!(session.outcome().as_deref(), Some("57014"), "as knex cancels");
    other.wire.query(&format!("select pg_terminate_backend({process_id})"));
    assert_eq!(other.wire.rows(), [[Some(b"t".to_vec())]]);
    assert!(session.wire.is_ended());
}
