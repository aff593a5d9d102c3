//! [`Tls`] over the seeded simulator, between a shell that asks in every way it may and a peer with rustls' own buffered
//! connection: what goes in comes out, whatever the network does, and every slot comes back.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataplane::address::Address;
use dataplane::buffer::{SLOT_BYTES, Slab, Slot};
use dataplane::io::sim::{Line, Peer, Random, Sim, Weather};
use dataplane::io::tls::{Role, SecureIo, Tls};
use dataplane::io::{Conn, Event, Io, Lent};
use dataplane::shard::mailbox::mailbox;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

const SEEDS: u64 = 400;
const ROUNDS_MAX: usize = 60_000;
const BYTES_MAX: usize = 150_000;
const PORT: u16 = 9;

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn configs(seed: u64) -> Configs {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["db.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let versions: &[_] = if seed % 2 == 0 { &[&TLS13] } else { &[&TLS12] };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_protocol_versions(versions).with_no_client_auth();
    let client = ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots);
    Configs {
        server: server.with_single_cert(vec![certificate.der().clone()], key).unwrap().into(),
        client: client.with_no_client_auth().into(),
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    let bytes = if random.per_mille(500) { 2_000 } else { BYTES_MAX };
    let bytes = random.below(bytes);
    (0..bytes).map(|_| random.next() as u8).collect()
}

/// What the peer has seen and what became of it; read when the world has ended.
#[derive(Default)]
struct Account {
    received: Vec<u8>,
    /// The gateway has ended TLS in an orderly way.
    goodbye: bool,
    faulted: bool,
    broken: bool,
}

/// The other end: says its text in pieces, keeps what comes.
struct Other {
    connection: Connection,
    say: Vec<u8>,
    said: usize,
    random: Random,
    account: Rc<RefCell<Account>>,
    /// Writes garbage in clear when so much was said.
    garbage_at: Option<usize>,
    left: bool,
}

impl Other {
    fn work(&mut self, line: &mut Line) {
        let mut account = self.account.borrow_mut();
        if let Err(error) = self.connection.process_new_packets() {
            account.broken = true;
            assert!(account.faulted || self.garbage_at.is_some(), "the peer: {error}");
        }
        let mut piece = [0; 4096];
        loop {
            match self.connection.reader().read(&mut piece) {
                Ok(0) => {
                    account.goodbye = true;
                    break;
                }
                Ok(n) => account.received.extend_from_slice(&piece[..n]),
                Err(_) => break,
            }
        }
        drop(account);
        self.flush(line);
    }

    fn flush(&mut self, line: &mut Line) {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut line.out).unwrap();
        }
    }
}

impl Peer for Other {
    fn received(&mut self, bytes: &[u8], line: &mut Line) {
        let mut rest = bytes;
        while !rest.is_empty() && !self.account.borrow().broken {
            self.connection.read_tls(&mut rest).unwrap();
            self.work(line);
        }
    }

    fn tick(&mut self, _now_ns: u64, line: &mut Line) {
        if self.left || self.account.borrow().broken {
            return;
        }
        self.flush(line);
        if self.connection.is_handshaking() || !self.random.per_mille(300) {
            return;
        }
        if self.garbage_at.is_some_and(|at| self.said >= at) {
            line.out.extend_from_slice(b"in clear, and long enough for the head of a record");
            self.left = true;
            return;
        }
        let to = self.garbage_at.unwrap_or(self.say.len()).min(self.said + 1 + self.random.below(40_000));
        self.connection.writer().write_all(&self.say[self.said..to]).unwrap();
        self.said = to;
        if self.garbage_at.is_none() && self.said == self.say.len() {
            self.connection.send_close_notify();
            self.left = true;
        }
        self.flush(line);
    }

    fn closed(&mut self) {}

    fn faulted(&mut self) {
        self.account.borrow_mut().faulted = true;
    }
}

/// The shell: one connection, slots of its own, and sends of every kind.
struct Shell {
    io: Tls<Sim>,
    slab: Slab,
    random: Random,
    say: Vec<u8>,
    said: usize,
    /// The slot that is lent to a send, and from where.
    sending: Option<Option<Slot>>,
    received: Vec<u8>,
    /// A slot with room that the next receive may go into, and how far it is filled.
    open: Option<(Slot, usize)>,
    /// What the receive in flight may bring at most.
    room: usize,
    receiving: bool,
    secured: bool,
    ended: bool,
    failed: bool,
    closed: bool,
}

impl Shell {
    fn new(io: Tls<Sim>, slab: Slab, random: Random, say: Vec<u8>) -> Shell {
        Shell {
            io,
            slab,
            random,
            say,
            said: 0,
            sending: None,
            received: Vec::new(),
            open: None,
            room: 0,
            receiving: false,
            secured: false,
            ended: false,
            failed: false,
            closed: false,
        }
    }

    fn send(&mut self, conn: Conn) {
        let rest = &self.say[self.said..];
        let bytes = rest.len().min(1 + self.random.below(2 * SLOT_BYTES));
        if bytes == 0 || self.sending.is_some() {
            return;
        }
        if self.random.per_mille(500)
            && let Some(slot) = self.slab.take()
        {
            let from = self.random.below(SLOT_BYTES);
            let to = SLOT_BYTES.min(from + bytes);
            self.slab.bytes_mut(&slot, from..to).copy_from_slice(&rest[..to - from]);
            self.io.send(&mut self.slab, conn, Lent::Slot { slot: &slot, from, to });
            self.sending = Some(Some(slot));
        } else {
            let from = self.random.below(9);
            let bytes = [&[0; 9][..from], &rest[..bytes]].concat();
            self.io.send(&mut self.slab, conn, Lent::Heap { bytes, from });
            self.sending = Some(None);
        }
        // Once, as a shell does that waits for it; the rest of a short send is not the shell's to hurry.
        self.io.hurry();
    }

    fn receive(&mut self, conn: Conn) {
        if self.receiving || self.ended || !self.random.per_mille(600) {
            return;
        }
        match &self.open {
            Some((slot, from)) => {
                self.room = SLOT_BYTES - from;
                self.io.receive_into(&self.slab, conn, slot, *from);
            }
            None => {
                self.room = if self.random.per_mille(300) { 1 + self.random.below(2_000) } else { SLOT_BYTES };
                self.io.receive_at_most(conn, self.room);
            }
        }
        self.receiving = true;
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Secured { result, .. } => {
                assert!(!std::mem::replace(&mut self.secured, true), "told twice of the handshake");
                self.failed |= result.is_err();
            }
            Event::Received { slot, result, .. } => {
                assert!(self.secured || result.is_err(), "plaintext before the handshake's end");
                self.take(slot, result.unwrap_or(0));
                self.failed |= result.is_err();
            }
            Event::Sent { result, heap, .. } => {
                let lent = self.sending.take().expect("a send is in flight");
                assert_eq!(lent.is_none(), heap.is_some(), "the lent buffer comes back");
                lent.into_iter().for_each(|slot| self.slab.give(slot));
                self.said += result.unwrap_or(0);
                self.failed |= result.is_err();
            }
            Event::Closed { .. } => self.closed = true,
            other => panic!("{other:?}"),
        }
    }

    fn take(&mut self, slot: Option<Slot>, bytes: usize) {
        assert!(std::mem::replace(&mut self.receiving, false), "bytes that nobody asked for");
        assert!(bytes <= self.room, "{bytes} bytes where {} were asked for", self.room);
        self.ended |= bytes == 0;
        let (slot, from) = match (slot, self.open.take()) {
            (Some(slot), None) => (slot, 0),
            (None, Some(open)) => open,
            (None, None) => return assert_eq!(bytes, 0),
            (Some(_), Some(_)) => panic!("a slot came where one was named"),
        };
        self.received.extend_from_slice(self.slab.bytes(&slot, from..from + bytes));
        match bytes > 0 && from + bytes < SLOT_BYTES && self.random.per_mille(500) {
            true => self.open = Some((slot, from + bytes)),
            false => self.slab.give(slot),
        }
    }

    fn is_done(&self, peer_says: usize) -> bool {
        self.failed
            || self.ended && self.sending.is_none() && (self.said == self.say.len() || self.received.len() < peer_says)
    }
}

fn peer(configs: &Configs, is_server: bool) -> Connection {
    match is_server {
        true => ServerConnection::new(configs.server.clone()).unwrap().into(),
        false => ClientConnection::new(configs.client.clone(), name()).unwrap().into(),
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("db.test").unwrap()
}

/// What is different in a world.
#[derive(Clone, Copy, Default)]
struct Trouble {
    weather: Weather,
    /// Slots are taken away and come back now and then.
    starve: bool,
    /// The shell closes after so many rounds.
    close_after: Option<usize>,
    garbage: bool,
}

fn live(seed: u64, trouble: Trouble) {
    let mut random = Random::new(seed);
    let configs = configs(seed);
    let server = random.per_mille(500);
    let (account, clock) = (Rc::new(RefCell::new(Account::default())), Rc::new(Cell::new(0)));
    let peer_says = text(&mut random);
    let other = RefCell::new(Some(Other {
        connection: peer(&configs, !server),
        garbage_at: trouble.garbage.then(|| random.below(peer_says.len() + 1)),
        say: peer_says.clone(),
        said: 0,
        random: Random::new(seed + 1),
        account: account.clone(),
        left: false,
    }));
    let (_mailbox, _, bell) = mailbox().unwrap();
    let mut sim = Sim::new(seed, trouble.weather, bell, clock);
    sim.on_dial(Box::new(move |_, _| Some(Box::new(other.borrow_mut().take()?))));
    let (slab, say) = (Slab::new(6).unwrap(), text(&mut random));
    let mut shell = Shell::new(Tls::new(sim), slab, random, say);
    let conn = shell.io.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], PORT)).into()).unwrap();
    if !wait_for_connect(&mut shell) {
        return;
    }
    let role = if server { Role::Server(configs.server.clone()) } else { Role::Client(configs.client.clone(), name()) };
    shell.io.secure(&mut shell.slab, conn, role, b"");
    run(&mut shell, conn, trouble, peer_says.len());
    judge(seed, &shell, trouble, &account.borrow(), &peer_says);
}

fn wait_for_connect(shell: &mut Shell) -> bool {
    let mut events = Vec::new();
    while events.is_empty() {
        shell.io.wait(&mut shell.slab, Duration::from_millis(1), &mut events);
    }
    matches!(events[..], [Event::Connected { result: Ok(()), .. }])
}

/// Other sessions give slots back and take some.
fn starve(shell: &mut Shell, hidden: &mut Vec<Slot>) {
    hidden.drain(..).for_each(|slot| shell.slab.give(slot));
    let wanted = shell.random.below(7);
    hidden.extend((0..wanted).filter_map(|_| shell.slab.take()));
}

/// Turns until the connection is closed; everything that is held comes back then.
fn run(shell: &mut Shell, conn: Conn, trouble: Trouble, peer_says: usize) {
    let mut events = Vec::new();
    let mut hidden: Vec<Slot> = Vec::new();
    let mut closing = false;
    for round in 0..ROUNDS_MAX {
        shell.io.wait(&mut shell.slab, Duration::from_millis(5), &mut events);
        for event in events.drain(..) {
            match event {
                Event::Received { slot, .. } if closing => slot.into_iter().for_each(|s| shell.slab.give(s)),
                Event::Sent { .. } | Event::Secured { .. } if closing => {}
                event => shell.on(event),
            }
        }
        if shell.closed {
            break;
        }
        if shell.secured && !closing && !shell.failed {
            shell.receive(conn);
            shell.send(conn);
        }
        if !closing && (shell.is_done(peer_says) || trouble.close_after.is_some_and(|at| round >= at)) {
            closing = true;
            shell.io.close(conn, b"");
        }
        if trouble.starve && shell.random.per_mille(300) {
            starve(shell, &mut hidden);
        }
        assert!(round + 1 < ROUNDS_MAX, "it does not end: said {}, received {}", shell.said, shell.received.len());
    }
    let lent = shell.sending.take().flatten();
    hidden.into_iter().chain(lent).chain(shell.open.take().map(|(slot, _)| slot)).for_each(|s| shell.slab.give(s));
}

fn judge(seed: u64, shell: &Shell, trouble: Trouble, account: &Account, peer_says: &[u8]) {
    assert!(shell.closed, "seed {seed}");
    assert_eq!(shell.slab.free(), 6, "seed {seed}: a slot is lost");
    assert!(peer_says.starts_with(&shell.received), "seed {seed}: what came is not what was said");
    assert!(shell.say.starts_with(&account.received), "seed {seed}: what was sent is not what was heard");
    let calm = !account.faulted && trouble.close_after.is_none() && !trouble.garbage;
    if calm {
        assert!(!shell.failed, "seed {seed}: it failed without a reason");
        assert_eq!(shell.received.len(), peer_says.len(), "seed {seed}: not all has come");
        assert_eq!(account.received.len(), shell.say.len(), "seed {seed}: not all has gone");
    }
    if trouble.garbage && trouble.close_after.is_none() && !account.faulted {
        assert!(shell.failed, "seed {seed}: garbage went unnoticed");
    }
}

fn weather(seed: u64) -> Weather {
    let mut random = Random::new(seed ^ 0xfeed);
    let chunk_bytes_max = [0, 1 + random.below(50), 1 + random.below(3000)][random.below(3)];
    Weather { late: random.below(600), chunk_bytes_max, lingering: random.per_mille(500), ..Weather::default() }
}

fn all(trouble: impl Fn(u64, &mut Random) -> Trouble) {
    for seed in 0..SEEDS {
        let trouble = trouble(seed, &mut Random::new(seed ^ 0xabcd));
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| live(seed, trouble)));
        assert!(lived.is_ok(), "seed {seed}");
    }
}

#[test]
fn what_goes_in_comes_out_however_the_records_are_cut() {
    all(|seed, _| Trouble { weather: weather(seed), ..Trouble::default() });
}

#[test]
fn a_starved_slab_delays_and_loses_nothing() {
    all(|seed, _| Trouble { weather: weather(seed), starve: true, ..Trouble::default() });
}

#[test]
fn a_close_at_any_moment_gives_every_slot_back() {
    all(|seed, random| {
        let close_after = Some(random.below(60));
        Trouble { weather: weather(seed), starve: random.per_mille(300), close_after, ..Trouble::default() }
    });
}

#[test]
fn resets_cuts_and_silence_give_every_slot_back() {
    all(|seed, random| {
        let (reset, cut, mute) = (random.below(30), random.below(30), random.below(10));
        let close_after = Some(2_000);
        Trouble { weather: Weather { reset, cut, mute, ..weather(seed) }, close_after, ..Trouble::default() }
    });
}

#[test]
fn bytes_in_clear_end_the_connection_and_are_never_delivered() {
    all(|seed, _| Trouble { weather: weather(seed), garbage: true, ..Trouble::default() });
}

#[test]
fn a_wait_moves_one_handshake_on_however_many_peers_have_answered() {
    const PEERS: usize = 12;
    let configs = configs(0);
    let (_mailbox, _, bell) = mailbox().unwrap();
    let mut sim = Sim::new(1, Weather::default(), bell, Rc::new(Cell::new(0)));
    let server = configs.server.clone();
    sim.on_dial(Box::new(move |_, _| {
        Some(Box::new(Other {
            connection: ServerConnection::new(server.clone()).unwrap().into(),
            garbage_at: None,
            say: vec![7; 10],
            said: 0,
            random: Random::new(1),
            account: Rc::default(),
            left: false,
        }))
    }));
    let (mut io, mut slab, mut events) = (Tls::new(sim), Slab::new(40).unwrap(), Vec::new());
    for _ in 0..PEERS {
        io.connect(&Address::from(SocketAddr::from(([127, 0, 0, 1], PORT)))).unwrap();
    }
    let mut secured = 0;
    for _ in 0..ROUNDS_MAX {
        io.wait(&mut slab, Duration::from_millis(1), &mut events);
        let mut here = 0;
        for event in events.drain(..) {
            match event {
                Event::Connected { conn, .. } => {
                    io.secure(&mut slab, conn, Role::Client(configs.client.clone(), name()), b"");
                }
                Event::Secured { result, .. } => here += usize::from(result.is_ok()),
                other => panic!("{other:?}"),
            }
        }
        assert!(here <= 1, "{here} handshakes were finished in one wait");
        secured += here;
        if secured == PEERS {
            return;
        }
    }
    panic!("only {secured} of {PEERS} handshakes were finished");
}
