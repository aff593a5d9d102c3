//! One seed's world: a shard over the simulator, its clients, their upstreams, a recorder, and a clock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dataplane::address::Address;
use dataplane::buffer::{Slab, budget};
use dataplane::config::{Limits, Resource};
use dataplane::control::Control;
use dataplane::control::analyser::{Analyser, Job};
use dataplane::control::catalogue::Snapshot;
use dataplane::control::credential::{Secret, Source};
use dataplane::control::identity::Identity;
use dataplane::io::Conn;
use dataplane::io::sim::{Peer, Random, Sim};
use dataplane::protocol::postgres::dissector;
use dataplane::session::attempts::Target;
use dataplane::shard::mailbox::mailbox;
use dataplane::shard::{Now, Parts, Shard};
use policy_compiler::artifact::Policy;

use super::client::{Account, Client, Ending};
use super::ledger::{self, Evidence, Ledger};
use super::oracle;
use super::scenario::{Outage, Scenario};
use super::script::script;
use super::server::TABLES;
use super::upstream::{Dead, Intake, UpstreamPeer};

/// Client n comes from this port plus n.
pub const FIRST_PORT: u32 = 10_000;
const EPOCH_NS: u64 = 1_800_000_000_000_000_000;
const TURNS_MAX: usize = 200_000;
/// When the world ends for whoever is left: longer than every time limit of a session.
const DOOMSDAY_NS: u64 = 60_000_000_000;
pub const RECORDER_ABSENT_MAX: Duration = Duration::from_secs(5);

/// The upstream's addresses are ports from here on; a session can be had at the last of them.
const FIRST_ADDRESS: u16 = 5432;
const ADDRESSES: u16 = 3;

/// As much as one session may hold, a request and a notice, so that two must wait for each other.
const GATHERED_BYTES_MAX: usize = 210_000;

const POLICY: &str = r#"
[[role]]
name = "plain"
[[role]]
name = "masked"
[[grant]]
to = ["plain", "masked"]
resources = ["shop"]
effects = ["read", "insert"]
[[rule]]
name = "no-drop"
action = "block"
to = ["plain", "masked"]
effects = ["ddl"]
[[mask]]
name = "numbers"
columns = ["people.ssn"]
action = "redact"
except = ["plain"]
resources = ["shop"]
[[detect]]
name = "content"
kinds = ["*"]
action = "redact"
except = ["plain"]
resources = ["shop"]
"#;

type Accounts = Rc<Vec<Rc<RefCell<Account>>>>;

/// Who is at the other end of each connection.
#[derive(Default)]
struct Ends {
    clients: HashMap<Conn, u32>,
    upstreams: HashMap<Conn, Rc<RefCell<Intake>>>,
    intakes: Vec<Rc<RefCell<Intake>>>,
    /// Clients whose farewell has been lent to a send.
    farewells: HashMap<u32, usize>,
}

pub struct World {
    shard: Shard<Sim>,
    scenario: Scenario,
    accounts: Accounts,
    ends: Rc<RefCell<Ends>>,
    ledger: Rc<RefCell<Ledger>>,
    clock_ns: Rc<Cell<u64>>,
    analyser: Analyser,
    control: Arc<Control>,
    slots: usize,
}

/// Runs one seed; the trace's hash.
pub fn run(seed: u64, analyser: &Analyser) -> u64 {
    let mut world = World::new(seed, analyser.clone());
    world.turn_until_over();
    if std::env::var_os("WIREWARD_SIM_SEED").is_some() {
        world.dump();
    }
    world.check();
    world.shard.io().trace()
}

impl World {
    fn new(seed: u64, analyser: Analyser) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random);
        let (producer, ledger) = ledger::ring(1 << 20);
        let ledger = Rc::new(RefCell::new(ledger));
        let clock_ns = Rc::new(Cell::new(0));
        let (mailbox, _, bell) = mailbox().expect("an event descriptor");
        let slots = budget::slots(scenario.clients as u32) - budget::KERNEL_SLOTS;
        let slab = Slab::new(slots).expect("memory");
        let mut sim = Sim::new(random.next(), scenario.weather, bell, clock_ns.clone());
        let accounts = accounts(&mut random, &scenario);
        let ends = Rc::new(RefCell::new(Ends::default()));
        arrivals(&mut sim, &mut random, &scenario, &accounts);
        connect_world(&mut sim, &mut random, &scenario, &accounts, &ends, &ledger);
        let control = control();
        let mut bytes = Random::new(random.next());
        let shard = Shard::new(Parts {
            io: sim,
            slab,
            tap: Box::new(producer),
            control: control.clone(),
            analyser: analyser.clone(),
            mailbox,
            limits: limits(),
            siblings: Vec::new(),
            census: dataplane::shard::census::Census::default(),
            counters: Arc::default(),
            doors: Vec::new(),
            recorder_absent_max: RECORDER_ABSENT_MAX,
            random: Box::new(move |out| out.iter_mut().for_each(|b| *b = bytes.next() as u8)),
            number: 0,
            now: Now { unix_ns: EPOCH_NS, monotonic_ns: 0 },
        });
        let slots = slots as usize;
        Self { shard, scenario, accounts, ends, ledger, clock_ns, analyser, control, slots }
    }

    fn turn_until_over(&mut self) {
        let mut doomed = false;
        for _ in 0..TURNS_MAX {
            self.record();
            self.turn();
            if self.shard.io().open() == 0 && self.shard.sessions() == 0 {
                return;
            }
            if self.clock_ns.get() > DOOMSDAY_NS && !doomed {
                doomed = true;
                self.shard.io().reset_all();
            }
        }
        panic!("not over after {TURNS_MAX} turns: {} sessions are left", self.shard.sessions());
    }

    /// The recorder's turn: it beats and frees room, unless the scenario has it dead or its disk stuck.
    fn record(&mut self) {
        let now_ns = self.clock_ns.get();
        let mut ledger = self.ledger.borrow_mut();
        let outage = self.scenario.outage.filter(|o| (o.from_ns..o.to_ns).contains(&now_ns));
        if outage.is_none_or(|o| o.beats) {
            ledger.beat(EPOCH_NS + now_ns);
        }
        if outage.is_none() {
            ledger.release();
        }
    }

    /// One turn. The analyser is a thread of its own: it is held up during the turn and awaited after it, so that its
    /// letters come at the same turn whenever a seed is run.
    fn turn(&mut self) {
        let clock_ns = self.clock_ns.clone();
        let mut clock = move || Now { unix_ns: EPOCH_NS + clock_ns.get(), monotonic_ns: clock_ns.get() };
        if !self.scenario.taste.long {
            return self.shard.turn(&mut clock);
        }
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        self.submit(move || assert!(gate.lock().expect("one holder").recv().is_err()));
        self.shard.turn(&mut clock);
        drop(open);
        let (done, wait) = channel();
        self.submit(move || done.send(()).expect("it waits"));
        wait.recv().expect("the analyser lives");
    }

    /// Has the analyser thread do something, after all that it was given before.
    fn submit(&self, work: impl Fn() + Send + Sync + 'static) {
        let subject = self.control.subject(policy().roles_for(["plain"].into_iter()), 0);
        let deliver = Arc::new(move |_| work());
        let job = Job { session: 0, index: 0, key: 0, subject, text: Box::default(), deliver };
        assert!(self.analyser.submit(job), "the analyser's queue is full");
    }

    /// Everything that was said, for whoever repeats a seed.
    fn dump(&self) {
        let lines = |title: &str, bytes: &[u8]| {
            eprintln!("--- {title}");
            super::client::split(bytes).0.iter().for_each(|f| eprintln!("{} {}", f[0] as char, oracle::show(f)));
        };
        eprintln!("{:?}", self.scenario);
        for account in self.accounts.iter().map(|a| a.borrow()) {
            let number = account.number;
            eprintln!(
                "=== client {number} masked={} faulted={} done={}",
                account.masked, account.faulted, account.done
            );
            lines("sent", &account.sent);
            lines("received", account.answers());
            lines("expected", &account.expected);
            for intake in self.ends.borrow().intakes.iter().map(|i| i.borrow()).filter(|i| i.client == Some(number)) {
                lines("upstream received", &intake.received[intake.login_end..]);
            }
        }
    }

    fn check(&mut self) {
        let mut ledger = self.ledger.borrow_mut();
        ledger.read();
        for account in self.accounts.iter() {
            let account = account.borrow();
            let evidence = ledger.evidence.get(&account.number);
            oracle::nothing_strays(&account, evidence);
            if account.stranger {
                assert!(evidence.is_none(), "a stranger has a session");
                assert!(account.login_end.is_none(), "a stranger was let in");
                continue;
            }
            self.check_end(&account);
            let Some(evidence) = evidence else { continue };
            oracle::answers_are_the_servers(&account, self.is_outage_long());
            oracle::the_record_is_complete(&account, evidence);
            self.check_patience(evidence);
            for intake in &self.ends.borrow().intakes {
                let intake = intake.borrow();
                if intake.is_standby {
                    // A login that was cut off has no end.
                    let is_cut_off = intake.login_end == 0;
                    assert!(
                        is_cut_off || intake.received.len() == intake.login_end,
                        "a standby was sent more than a login"
                    );
                } else if intake.client == Some(account.number) {
                    oracle::requests_are_the_clients(&account, &intake, evidence);
                }
            }
        }
        assert_eq!(self.shard.sessions(), 0, "a session is left");
        assert_eq!(self.shard.slots_free(), self.slots, "a slot is lost");
        assert_eq!(self.shard.gathered_bytes_free(), GATHERED_BYTES_MAX, "gathered bytes are lost");
    }

    /// (f) Nobody has waited for the recorder for longer than the limit. What is slow by itself does not count.
    fn check_patience(&self, evidence: &Evidence) {
        let Scenario { weather, taste, outage: Some(outage), .. } = self.scenario else { return };
        let is_slow = weather.stall > 0 || weather.mute > 0 || taste.large || self.scenario.dead_addresses > 0;
        if outage.beats || !self.is_outage_long() || is_slow {
            return;
        }
        let waited =
            evidence.opened_ns < EPOCH_NS + outage.from_ns && evidence.last_request_ns > EPOCH_NS + outage.to_ns;
        assert!(!waited, "a session has waited for the recorder for {RECORDER_ABSENT_MAX:?} and gone on");
    }

    fn is_outage_long(&self) -> bool {
        let outage_ns = self.scenario.outage.map_or(0, |o: Outage| o.to_ns - o.from_ns);
        u128::from(outage_ns) > RECORDER_ABSENT_MAX.as_nanos()
    }

    /// (e), (f) Without a fault a client reaches its end; with a long outage it may end with 57P01 instead.
    fn check_end(&self, account: &Account) {
        if account.faulted || account.done {
            return;
        }
        let (frames, rest) = super::client::split(account.answers());
        let told = frames.last().is_some_and(|f| oracle::is_our_fatal(f) && oracle::contains(f, b"C57P01\0"));
        // In its login it has no frames to count, and in the midst of a row there is no place for a reason.
        let told = told || !rest.is_empty() || oracle::contains(&account.received, b"C57P01\0");
        assert!(
            self.is_outage_long() && told,
            "client {} has no fault and did not come to its end; last: {}",
            account.number,
            frames.last().map_or(String::new(), |f| oracle::show(f))
        );
    }
}

fn accounts(random: &mut Random, scenario: &Scenario) -> Accounts {
    let account = |number| Account::new(number, random.per_mille(500), random.per_mille(scenario.strangers));
    Rc::new((0..scenario.clients as u32).map(account).map(RefCell::new).map(Rc::new).collect())
}

fn arrivals(sim: &mut Sim, random: &mut Random, scenario: &Scenario, accounts: &Accounts) {
    let mut at_ns = 0;
    for account in accounts.iter() {
        let ending = match random.below(1000) {
            n if n < scenario.leavers / 2 => Ending::Fin,
            n if n < scenario.leavers => Ending::Reset,
            _ => Ending::Terminate,
        };
        let steps = script(random, scenario.taste);
        let client = Client::new(account.clone(), steps, ending, random.per_mille(300));
        let port = FIRST_PORT + account.borrow().number;
        at_ns += random.below(scenario.arrival_spread_ns) as u64;
        sim.arrive(at_ns, SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16)), Box::new(client));
    }
}

/// Ties the connections to who is behind them, and checks every send at its submission.
fn connect_world(
    sim: &mut Sim,
    random: &mut Random,
    scenario: &Scenario,
    accounts: &Accounts,
    ends: &Rc<RefCell<Ends>>,
    ledger: &Rc<RefCell<Ledger>>,
) {
    let (mut random, lies, dead) = (Random::new(random.next()), scenario.lies, scenario.dead_addresses as u16);
    let (of_dial, of_accept, of_send) = (ends.clone(), ends.clone(), ends.clone());
    let (accounts, accounts_of_send) = (accounts.clone(), accounts.clone());
    sim.on_dial(Box::new(move |conn, address| {
        let Address::Tcp(address) = address else { panic!("no upstream is at {address}") };
        let is_dead = address.port() < FIRST_ADDRESS + dead;
        // Unanswered, silent, closing, a hot standby, or refused.
        let how = if is_dead { random.below(5) } else { usize::MAX };
        if how == 4 {
            return None;
        }
        let intake = Rc::new(RefCell::new(Intake { is_standby: how == 3, ..Intake::default() }));
        of_dial.borrow_mut().dialed(conn, intake.clone());
        Some(match Dead::drawn(how) {
            Some(dead) => Box::new(dead) as Box<dyn Peer>,
            None => Box::new(UpstreamPeer::new(intake, accounts.clone(), &mut random, lies)),
        })
    }));
    sim.on_accept(Box::new(move |conn, peer| {
        let mut ends = of_accept.borrow_mut();
        ends.upstreams.remove(&conn);
        ends.clients.insert(conn, u32::from(peer.port()) - FIRST_PORT);
    }));
    let ledger = ledger.clone();
    sim.on_send(Box::new(move |conn, bytes| {
        let mut ledger = ledger.borrow_mut();
        ledger.read();
        of_send.borrow_mut().check_send(conn, bytes, &accounts_of_send, &ledger);
    }));
}

impl Ends {
    fn dialed(&mut self, conn: Conn, intake: Rc<RefCell<Intake>>) {
        self.intakes.push(intake.clone());
        self.clients.remove(&conn);
        self.upstreams.insert(conn, intake);
    }

    /// (c) Nothing leaves before its record is in the ring.
    fn check_send(&mut self, conn: Conn, bytes: &[u8], accounts: &Accounts, ledger: &Ledger) {
        if let Some(intake) = self.upstreams.get(&conn) {
            let mut intake = intake.borrow_mut();
            let recorded = intake.client.and_then(|c| ledger.evidence.get(&c)).map_or(0, |e| e.requests.len());
            let end = intake.received.len() + bytes.len();
            intake.sends.push((end, recorded));
            return;
        }
        let number = self.clients[&conn];
        let account = accounts[number as usize].borrow();
        let Some(login_end) = account.login_end else { return };
        let from = account.received.len() - login_end;
        let recorded = ledger.evidence.get(&number).map_or(&[][..], |e| &e.responses);
        let known = recorded.get(from..).unwrap_or_default();
        let same = bytes.len().min(known.len());
        assert_eq!(&bytes[..same], &known[..same], "client {number} is sent what is not in its record");
        let rest = &bytes[same..];
        if rest.is_empty() {
            return;
        }
        let farewell_from = *self.farewells.entry(number).or_insert(from + same);
        let begins = from + same == farewell_from;
        assert!(
            farewell_from == recorded.len() && (!begins || oracle::is_our_fatal(rest)),
            "client {number} is sent {} before it is recorded",
            oracle::show(rest)
        );
    }
}

fn policy() -> Policy {
    static COMPILED: OnceLock<Policy> = OnceLock::new();
    let compile = || {
        let source = policy_compiler::policy::Source { name: "simulation".into(), text: POLICY.into() };
        let bytes = policy_compiler::build::compile(&[source]).expect("a sound policy");
        Policy::from_bytes(bytes).expect("a sound artifact")
    };
    COMPILED.get_or_init(compile).clone()
}

fn control() -> Arc<Control> {
    let verify = |token: &[u8], _: u64| {
        let text = std::str::from_utf8(token).map_err(|_| "not a token")?;
        let (name, role) = text.split_once('.').filter(|(n, _)| n.starts_with('c')).ok_or("not a token")?;
        Ok(Identity {
            subject: name.to_owned(),
            name: name.to_owned(),
            roles: vec![role.to_owned()],
            actors: Vec::new(),
            expires_unix_s: u64::MAX,
        })
    };
    let resource = Resource {
        name: "shop".into(),
        hosts: (0..ADDRESSES).map(|n| SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_ADDRESS + n)).into()).collect(),
        target_session_attrs: Target::ReadWrite,
        connect_timeout: Duration::from_secs(4),
        database: "shop".into(),
        user: "gateway".into(),
        credential: Source::Env("NONE".into()),
        allow_md5: false,
        allow_cleartext: true,
        role: None,
        tls: None,
        oauth_issuer: None,
    };
    let guarded = (resource, Secret::new(b"upstream secret"), Snapshot::of(&TABLES));
    Arc::new(Control::new(Box::new(verify), policy(), vec![guarded]))
}

fn limits() -> Limits {
    Limits {
        max_client_conn: 100,
        active_sessions_max: 100,
        login_timeout: Duration::from_secs(30),
        drain_timeout: Duration::from_secs(1),
        token_expiry: dataplane::config::TokenExpiry::FinishTransaction,
        token_bytes_max: 4096,
        session: dissector::Limits {
            statement_bytes_max: 1 << 20,
            bind_bytes_max: 1 << 20,
            row_bytes_max: 1 << 20,
            prepared_statements_max: 100,
            prepared_bytes_max: 1 << 20,
        },
        gathered_bytes_max: GATHERED_BYTES_MAX,
        plans_max: 64,
    }
}
