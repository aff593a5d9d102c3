//! Upstream connections that are lent again, over the seeded simulator: clients of a few identities come again and again, leave
//! in every way, and the upstream resets badly, slowly or not at all. No statement may reach a back-end that another session
//! has used and nobody has reset, nor one of another identity; each answer belongs to the session that gets it; and nothing
//! is left at the end.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dataplane::buffer::{Slab, budget};
use dataplane::config::{Limits, Resource, TokenExpiry};
use dataplane::control::Control;
use dataplane::control::analyser::Analyser;
use dataplane::control::catalogue::Snapshot;
use dataplane::control::credential::{Secret, Source};
use dataplane::control::identity::Identity;
use dataplane::datapath::counters::Counters;
use dataplane::io::sim::{Line, Peer, Random, Sim, Weather};
use dataplane::protocol::postgres::dissector;
use dataplane::protocol::postgres::wire::{cstr_at, message, put_cstr, u32_at, untagged};
use dataplane::session::attempts::Target;
use dataplane::shard::accept::Door;
use dataplane::shard::census::Census;
use dataplane::shard::mailbox::{Mail, Mailbox, mailbox};
use dataplane::shard::{Now, Parts, Shard};
use policy_compiler::artifact::Policy;
use ring::{Consumer, Producer, Words};

const SEEDS: u64 = 1_000;
const CLIENTS: usize = 30;
const EPOCH_NS: u64 = 1_800_000_000_000_000_000;
const STATEMENTS_MAX: usize = 4;
const TURNS_MAX: usize = 100_000;
const POLICY: &str =
    "[[role]]\nname = \"plain\"\n[[grant]]\nto = [\"plain\"]\nresources = [\"shop\"]\neffects = [\"*\"]\n";

type Ring = Words<Arc<[AtomicU64]>>;

/// What has happened in all seeds, by name: what never happens is not tested.
type Tally = Rc<RefCell<HashMap<&'static str, u64>>>;

fn add(tally: &Tally, what: &'static str) {
    *tally.borrow_mut().entry(what).or_default() += 1;
}

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Goodbye,
    HangUp,
    Reset,
    InTransaction,
    /// Its last statement is not answered yet.
    Amid,
}

const LEAVES: [Leave; 5] = [Leave::Goodbye, Leave::HangUp, Leave::Reset, Leave::InTransaction, Leave::Amid];

/// One session's client: logs in, says its statements one after the other, and goes.
struct Client {
    number: usize,
    identity: usize,
    statements: usize,
    leave: Leave,
    said: usize,
    heard: Vec<u8>,
    has_greeted: bool,
    has_begun: bool,
    may_end: bool,
    tally: Tally,
}

fn framed(out: &mut Vec<u8>, tag: u8, text: &[u8]) {
    message(out, tag, |out| put_cstr(out, text));
}

/// Whole messages at the head of what has come; they are taken out.
fn take_messages(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(length) = u32_at(bytes, 1).map(|n| n as usize + 1).filter(|n| *n <= bytes.len()) {
        let frame: Vec<u8> = bytes.drain(..length).collect();
        found.push((frame[0], frame[5..].to_vec()));
    }
    found
}

impl Client {
    fn text(&self, n: usize) -> String {
        format!("select 'i{}.c{}.{n}'", self.identity, self.number)
    }

    fn next(&mut self, line: &mut Line) {
        if self.said < self.statements {
            framed(&mut line.out, b'Q', self.text(self.said).as_bytes());
            self.said += 1;
            return;
        }
        match self.leave {
            Leave::Goodbye => message(&mut line.out, b'X', |_| ()),
            Leave::HangUp => {}
            Leave::Reset => line.reset = true,
            Leave::InTransaction if !std::mem::replace(&mut self.has_begun, true) => {
                return framed(&mut line.out, b'Q', b"begin");
            }
            Leave::InTransaction => {}
            Leave::Amid => {
                framed(&mut line.out, b'Q', self.text(self.said).as_bytes());
                self.said += 1;
            }
        }
        add(&self.tally, "client has come to its end");
        (self.may_end, line.fin) = (true, true);
    }
}

impl Peer for Client {
    fn received(&mut self, bytes: &[u8], line: &mut Line) {
        self.heard.extend_from_slice(bytes);
        for (tag, body) in take_messages(&mut self.heard) {
            match tag {
                b'R' if body == [0, 0, 0, 3] => framed(&mut line.out, b'p', format!("i{}", self.identity).as_bytes()),
                b'D' => {
                    let expected = format!("i{}.c{}.{}", self.identity, self.number, self.said - 1);
                    assert_eq!(String::from_utf8_lossy(&body[6..]), expected, "an answer of somebody else");
                }
                b'Z' => self.next(line),
                // A server that has gone, a farewell of ours: the session ends.
                b'E' => self.may_end = true,
                _ => {}
            }
        }
    }

    fn tick(&mut self, _: u64, line: &mut Line) {
        if !std::mem::replace(&mut self.has_greeted, true) {
            untagged(&mut line.out, |out| {
                out.extend_from_slice(&(3u32 << 16).to_be_bytes());
                for word in ["user", &format!("i{}", self.identity), "database", "shop", ""] {
                    put_cstr(out, word.as_bytes());
                }
            });
        }
    }

    fn closed(&mut self) {
        assert!(self.may_end, "client {} of {} was sent away", self.number, self.identity);
    }

    fn faulted(&mut self) {
        self.may_end = true;
    }
}

/// How a back-end answers DISCARD ALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Well,
    Late,
    Never,
    Error,
    WithSetting,
    WithMore,
    Closes,
}

const ANSWERS: [Answer; 6] =
    [Answer::Late, Answer::Never, Answer::Error, Answer::WithSetting, Answer::WithMore, Answer::Closes];

/// One back-end, for one login.
struct Backend {
    identity: Option<String>,
    heard: Vec<u8>,
    /// The session that has left something here.
    used_by: Option<String>,
    in_transaction: bool,
    answer: Answer,
    owed: VecDeque<(u64, Vec<u8>)>,
    now_ns: u64,
    /// It speaks by itself at some time after a reset.
    restless: bool,
    tally: Tally,
}

impl Backend {
    fn log_in(&mut self, line: &mut Line) {
        let Some(length) = u32_at(&self.heard, 0).map(|n| n as usize).filter(|n| *n <= self.heard.len()) else {
            return;
        };
        let hello: Vec<u8> = self.heard.drain(..length).collect();
        let (mut at, mut words) = (8, Vec::new());
        while let Some((word, next)) = cstr_at(&hello, at) {
            words.push(String::from_utf8_lossy(word).into_owned());
            at = next;
        }
        let name = words.iter().position(|word| word == "application_name").map(|n| words[n + 1].clone());
        self.identity = name.and_then(|name| name.split(' ').next().map(str::to_owned));
        let out = &mut line.out;
        message(out, b'R', |out| out.extend_from_slice(&[0; 4]));
        for (name, value) in [("server_version", "15.18"), ("in_hot_standby", "off")] {
            message(out, b'S', |out| {
                put_cstr(out, name.as_bytes());
                put_cstr(out, value.as_bytes());
            });
        }
        message(out, b'K', |out| out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2]));
        message(out, b'Z', |out| out.push(b'I'));
        add(&self.tally, "login");
    }

    fn say(&mut self, text: &str, line: &mut Line) {
        let mut out = Vec::new();
        match text {
            "DISCARD ALL" => return self.discard(line),
            "begin" => {
                self.in_transaction = true;
                framed(&mut out, b'C', b"BEGIN");
            }
            _ => {
                let value = text.trim_start_matches("select '").trim_end_matches('\'');
                let (session, _) = value.rsplit_once('.').unwrap_or_else(|| panic!("not of a client: {text}"));
                let (identity, _) = session.split_once('.').expect("a statement of a client");
                assert_eq!(self.identity.as_deref(), Some(identity), "a statement at somebody else's back-end");
                let before = self.used_by.replace(session.to_owned());
                assert!(before.is_none_or(|b| b == session), "a statement of {session} where something is left");
                message(&mut out, b'T', |out| {
                    out.extend_from_slice(&[0, 1]);
                    put_cstr(out, b"v");
                    out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
                });
                message(&mut out, b'D', |out| {
                    out.extend_from_slice(&[0, 1]);
                    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    out.extend_from_slice(value.as_bytes());
                });
                framed(&mut out, b'C', b"SELECT 1");
            }
        }
        message(&mut out, b'Z', |out| out.push(if self.in_transaction { b'T' } else { b'I' }));
        self.owed.push_back((self.now_ns, out));
    }

    fn discard(&mut self, line: &mut Line) {
        assert!(!self.in_transaction, "a reset in a transaction");
        assert!(self.owed.is_empty(), "a reset while an answer is owed");
        let mut out = Vec::new();
        let mut delay_ns = 0;
        add(&self.tally, self.answer.name());
        match self.answer {
            Answer::Never => return,
            Answer::Closes => return line.fin = true,
            Answer::Late => delay_ns = 2_000_000_000,
            Answer::Error => framed(&mut out, b'E', b"SERROR\0C55000\0Mno\0"),
            Answer::WithSetting => framed(&mut out, b'S', b"TimeZone\0UTC"),
            Answer::Well | Answer::WithMore => {}
        }
        // What failed stays: whoever comes next would find it.
        if self.answer != Answer::Error {
            framed(&mut out, b'C', b"DISCARD ALL");
            self.used_by = None;
        }
        message(&mut out, b'Z', |out| out.push(b'I'));
        if self.answer == Answer::WithMore {
            framed(&mut out, b'N', b"SNOTICE\0");
        }
        if matches!(self.answer, Answer::WithSetting | Answer::WithMore) {
            self.used_by = Some("nobody: it is in doubt".into());
        }
        self.owed.push_back((self.now_ns + delay_ns, out));
    }
}

impl Answer {
    fn name(self) -> &'static str {
        match self {
            Self::Well => "reset",
            Self::Late => "late reset",
            Self::Never => "reset that is not answered",
            Self::Error => "reset that failed",
            Self::WithSetting => "reset that reports a setting",
            Self::WithMore => "reset with something behind it",
            Self::Closes => "reset that ends the connection",
        }
    }
}

impl Peer for Backend {
    fn received(&mut self, bytes: &[u8], line: &mut Line) {
        self.heard.extend_from_slice(bytes);
        if self.identity.is_none() {
            self.log_in(line);
        }
        if self.identity.is_none() {
            return;
        }
        for (tag, body) in take_messages(&mut self.heard) {
            match tag {
                b'Q' => self.say(&String::from_utf8_lossy(&body[..body.len() - 1]), line),
                b'X' => line.fin = true,
                _ => panic!("the gateway says {tag}"),
            }
        }
    }

    fn tick(&mut self, now_ns: u64, line: &mut Line) {
        self.now_ns = now_ns;
        while self.owed.front().is_some_and(|(due_ns, _)| *due_ns <= now_ns) {
            line.out.extend(self.owed.pop_front().expect("there is one").1);
        }
        let is_clean = self.identity.is_some() && self.used_by.is_none() && self.owed.is_empty();
        if is_clean && std::mem::take(&mut self.restless) {
            add(&self.tally, "kept connection whose server speaks by itself");
            framed(&mut line.out, b'E', b"SFATAL\0VFATAL\0C57P01\0Mgoing\0");
            line.fin = true;
        }
    }

    fn closed(&mut self) {}

    fn faulted(&mut self) {}
}

fn control() -> Control {
    let source = policy_compiler::policy::Source { name: "leases.toml".into(), text: POLICY.into() };
    let policy = Policy::from_bytes(policy_compiler::build::compile(&[source]).expect("a policy")).expect("a bundle");
    let resource = Resource {
        name: "shop".into(),
        hosts: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 5432)).into()],
        target_session_attrs: Target::Any,
        connect_timeout: Duration::from_secs(5),
        database: "shop".into(),
        user: "gateway".into(),
        credential: Source::Env("NONE".into()),
        allow_md5: false,
        allow_cleartext: true,
        role: None,
        application_name: Default::default(),
        tls: None,
        oauth_issuer: None,
    };
    let verify = Box::new(|token: &[u8], _| {
        let name = String::from_utf8_lossy(token).into_owned();
        let roles = vec!["plain".to_owned()];
        Ok(Identity { subject: name.clone(), name, roles, expires_unix_s: u64::MAX, ..Identity::default() })
    });
    Control::new(verify, policy, vec![(resource, Secret::new(b"secret"), Snapshot::default())])
}

fn limits(idle_upstreams_max: u32) -> Limits {
    Limits {
        max_client_conn: 100,
        sessions_per_subject_max: 100,
        active_sessions_max: 50,
        login_timeout: Duration::from_secs(30),
        drain_timeout: Duration::from_secs(1),
        token_expiry: TokenExpiry::FinishTransaction,
        token_bytes_max: 4096,
        idle_upstreams_max,
        server_idle_timeout: Duration::from_secs(3),
        server_lifetime: Duration::from_secs(3600),
        session: dissector::Limits {
            statement_bytes_max: 1 << 16,
            bind_bytes_max: 1 << 16,
            row_bytes_max: 1 << 17,
            prepared_statements_max: 10,
            prepared_bytes_max: 1 << 20,
        },
        gathered_bytes_max: 1 << 22,
        plans_max: 64,
    }
}

fn weather(random: &mut Random) -> Weather {
    let fault = if random.per_mille(300) { 5 } else { 0 };
    Weather {
        late: random.below(500),
        chunk_bytes_max: [0, 1, 7, 60][random.below(4)],
        lingering: random.per_mille(500),
        stall: fault,
        reset: fault,
        cut: fault,
        ..Weather::default()
    }
}

/// All clients of a world, and when the last one comes.
fn send_clients(sim: &mut Sim, random: &mut Random, tally: &Tally) -> u64 {
    let mut at_ns = 0;
    for number in 0..CLIENTS {
        let spread_ns = [50_000_000, 1_500_000_000][random.below(2)];
        at_ns += random.below(spread_ns) as u64;
        let client = Client {
            number,
            identity: random.below(3),
            statements: random.below(STATEMENTS_MAX),
            leave: LEAVES[random.below(LEAVES.len())],
            said: 0,
            heard: Vec::new(),
            has_greeted: false,
            has_begun: false,
            may_end: false,
            tally: tally.clone(),
        };
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + number as u16));
        sim.arrive((at_ns, from, Box::new(client)));
    }
    at_ns
}

fn backend(random: &mut Random, tally: &Tally) -> Backend {
    let answer = if random.per_mille(300) { ANSWERS[random.below(ANSWERS.len())] } else { Answer::Well };
    Backend {
        identity: None,
        heard: Vec::new(),
        used_by: None,
        in_transaction: false,
        answer,
        owed: VecDeque::new(),
        now_ns: 0,
        restless: random.per_mille(100),
        tally: tally.clone(),
    }
}

fn now(at_ns: u64) -> Now {
    Now { unix_ns: EPOCH_NS + at_ns, monotonic_ns: 1 + at_ns }
}

fn shard(io: Sim, mailbox: Mailbox, ring: Ring, counters: Arc<Counters>, random: &mut Random) -> Shard<Sim> {
    let mut bytes = Random::new(random.next());
    Shard::new(Parts {
        io,
        slab: Slab::new(budget::slots(CLIENTS as u32)).expect("memory"),
        tap: Box::new(Producer::attach(ring).expect("a fresh ring")),
        control: control().into(),
        analyser: Analyser::by_hand().0,
        mailbox,
        siblings: Vec::new(),
        census: Census::default(),
        counters,
        limits: limits([2, 16][random.below(2)]),
        doors: vec![Door::default()],
        recorder_absent_max: Duration::from_secs(5),
        random: Box::new(move |out| out.iter_mut().for_each(|b| *b = bytes.next() as u8)),
        number: 0,
        now: now(0),
    })
}

/// Runs one seed; the hash of all that has moved.
fn run(seed: u64, tally: &Tally) -> u64 {
    let mut random = Random::new(seed);
    let weather = weather(&mut random);
    let clock_ns = Rc::new(Cell::new(0));
    let (mailbox, postbox, bell) = mailbox().expect("an event descriptor");
    let mut sim = Sim::new(random.next(), weather, bell, clock_ns.clone());
    let stop_ns = send_clients(&mut sim, &mut random, tally) + 1_000_000_000;
    let (of_backends, mut drawn) = (tally.clone(), Random::new(random.next()));
    sim.on_dial(Box::new(move |_, _| Some(Box::new(backend(&mut drawn, &of_backends)))));
    let (counters, words): (Arc<Counters>, Arc<[AtomicU64]>) = (Arc::default(), Words::heap(1 << 20, 1).0.into());
    let mut consumer = Consumer::attach(Words(words.clone())).expect("a fresh ring");
    consumer.beat(EPOCH_NS);
    let mut shard = shard(sim, mailbox, Words(words), counters.clone(), &mut random);
    let (mut is_stopping, mut record) = (false, Vec::new());
    for _ in 0..TURNS_MAX {
        consumer.beat(EPOCH_NS + clock_ns.get());
        shard.turn(&mut || now(clock_ns.get()));
        while let Some(read) = consumer.poll(&mut record).expect("the ring is sound") {
            consumer.release(read.end_position, read.header.seq).expect("one consumer");
            record.clear();
        }
        if clock_ns.get() > stop_ns && !std::mem::replace(&mut is_stopping, true) {
            postbox.send(Mail::Stop);
        }
        if shard.has_stopped() {
            break;
        }
    }
    assert!(shard.has_stopped(), "the shard does not stop: {} sessions are left", shard.sessions());
    assert_eq!(shard.io().open(), 0, "a connection is left");
    assert_eq!(shard.slots_free(), budget::slots(CLIENTS as u32) as usize, "a slot is lost");
    *tally.borrow_mut().entry("lent").or_default() += counters.upstream_leases.get();
    shard.io().trace()
}

#[test]
fn nobody_goes_on_where_another_has_left_something() {
    let tally = Tally::default();
    for seed in 0..SEEDS {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, &tally)));
        let trace = ran.unwrap_or_else(|_| panic!("seed {seed} failed"));
        if seed < SEEDS / 10 {
            assert_eq!(run(seed, &tally), trace, "seed {seed} did not repeat itself");
        }
    }
    let tally = tally.borrow();
    println!("{tally:#?}");
    for what in ["lent", "login", "client has come to its end", "kept connection whose server speaks by itself"] {
        assert!(tally.get(what).is_some_and(|n| *n > SEEDS), "{what}: too seldom to show anything");
    }
    for answer in [Answer::Well].iter().chain(&ANSWERS) {
        assert!(tally.get(answer.name()).is_some_and(|n| *n > SEEDS / 10), "{}: too seldom", answer.name());
    }
}
