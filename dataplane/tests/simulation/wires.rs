//! Ties a shard's simulator to the world: who is at the other end of each connection, and what is checked at once when the
//! shard acts.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;

use dataplane::address::Address;
use dataplane::config::TokenExpiry;
use dataplane::io::Conn;
use dataplane::io::sim::{Peer, Random, Sim};
use dataplane::io::tls::Role;

use super::client::{Account, split};
use super::law::{Court, DRAIN_TIMEOUT, FIRST_ADDRESS, certificates};
use super::ledger::Ledger;
use super::oracle;
use super::tally::Tally;
use super::upstream::{Dead, House, Intake, Rests, UpstreamPeer, must_arrive};
use super::world::{CANCEL_PORT, EPOCH_NS, FIRST_PORT, TURN_NS_MAX};

/// What a shard's panic carries, so that it is told from a failed check.
pub struct Injected;

/// Where the next panic is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    Clock,
    Send,
}

impl Armed {
    /// Panics if this is the place. The hook stays silent: nobody has failed.
    pub fn strike(armed: &Cell<Option<Armed>>, here: Armed) {
        if armed.get() == Some(here) {
            armed.set(None);
            resume_unwind(Box::new(Injected));
        }
    }
}

/// What the whole world shares.
#[derive(Clone)]
pub struct World {
    pub court: Rc<Court>,
    pub house: House,
    pub ledger: Rc<RefCell<Ledger>>,
    pub tally: Rc<RefCell<Tally>>,
    /// Wall clock at the world's beginning.
    pub wall_ns: u64,
    pub lies: usize,
    pub dead_addresses: usize,
}

/// What one shard's hooks share, also with the shard's successor.
#[derive(Clone, Default)]
pub struct Wires {
    pub shard: usize,
    pub clock_ns: Rc<Cell<u64>>,
    pub armed: Rc<Cell<Option<Armed>>>,
    pub ends: Rc<RefCell<Ends>>,
    /// When the shard was told to stop, and whose statements ran then.
    pub stopping_ns: Rc<Cell<Option<u64>>>,
    pub running: Rc<RefCell<HashSet<u32>>>,
}

/// Who is at the other end of each connection.
#[derive(Default)]
pub struct Ends {
    pub clients: HashMap<Conn, u32>,
    cancellers: HashSet<Conn>,
    upstreams: HashMap<Conn, Rc<RefCell<Intake>>>,
    /// Clients whose farewell has been lent to a send.
    farewells: HashMap<u32, usize>,
}

impl Ends {
    fn forget(&mut self, conn: Conn) {
        self.clients.remove(&conn);
        self.cancellers.remove(&conn);
        self.upstreams.remove(&conn);
    }
}

impl Wires {
    /// Hangs the checks into a simulator.
    pub fn tie(&self, sim: &mut Sim, world: &World, seed: u64) {
        let (wires, of_world, mut random) = (self.clone(), world.clone(), Random::new(seed));
        sim.on_dial(Box::new(move |conn, address| wires.dialed(conn, address, &of_world, &mut random)));
        let (wires, of_world) = (self.clone(), world.clone());
        sim.on_accept(Box::new(move |conn, peer| wires.accepted(conn, peer.port().into(), &of_world)));
        let (wires, of_world) = (self.clone(), world.clone());
        sim.on_secure(Box::new(move |_, role| wires.secured(role, &of_world)));
        let (wires, of_world) = (self.clone(), world.clone());
        sim.on_send(Box::new(move |conn, bytes| {
            let mut ledger = of_world.ledger.borrow_mut();
            ledger.read();
            wires.sent(conn, bytes, &of_world, &ledger);
            drop(ledger);
            Armed::strike(&wires.armed, Armed::Send);
        }));
    }

    fn dialed(&self, conn: Conn, address: &Address, world: &World, random: &mut Random) -> Option<Box<dyn Peer>> {
        let Address::Tcp(address) = address else { panic!("no upstream is at {address}") };
        let is_dead = address.port() < FIRST_ADDRESS + world.dead_addresses as u16;
        // Unanswered, silent, closing, a hot standby, or refused.
        let how = if is_dead { random.below(5) } else { usize::MAX };
        if how == 4 {
            return None;
        }
        let (is_standby, dialed_ns) = (how == 3, self.clock_ns.get());
        let intake = Rc::new(RefCell::new(Intake { is_standby, dialed_ns, ..Intake::default() }));
        let mut ends = self.ends.borrow_mut();
        ends.forget(conn);
        ends.upstreams.insert(conn, intake.clone());
        Some(match Dead::drawn(how) {
            Some(dead) => Box::new(dead),
            None => Box::new(UpstreamPeer::new(intake, world.house.clone(), random, world.lies)),
        })
    }

    fn accepted(&self, conn: Conn, port: u32, world: &World) {
        let mut ends = self.ends.borrow_mut();
        ends.forget(conn);
        if port >= CANCEL_PORT {
            ends.cancellers.insert(conn);
            return;
        }
        ends.clients.insert(conn, port - FIRST_PORT);
        world.court.comes(port - FIRST_PORT);
    }

    /// (i) A handshake that begins now is made with a certificate that is in force.
    fn secured(&self, role: &Role, world: &World) {
        let Role::Server(config) = role else { panic!("no upstream is asked for TLS here") };
        let which = certificates().iter().position(|known| Arc::ptr_eq(known, config)).expect("one of ours");
        let known = world.court.now(self.shard, |generation| generation.certificate == which);
        assert!(known, "a handshake is made with certificate {which}, which is not in force");
        world.tally.borrow_mut().add("certificate exchanged", which);
    }

    /// (c) Nothing leaves before its record is in the ring.
    fn sent(&self, conn: Conn, bytes: &[u8], world: &World, ledger: &Ledger) {
        let mut ends = self.ends.borrow_mut();
        if let Some(intake) = ends.upstreams.get(&conn) {
            let mut intake = intake.borrow_mut();
            let recorded = intake.client.and_then(|c| ledger.evidence.get(&c)).map_or(0, |e| e.requests.len());
            let received = intake.received.len();
            intake.handed.truncate(received);
            intake.handed.extend_from_slice(bytes);
            let end = intake.handed.len();
            intake.sends.push((end, recorded));
            return;
        }
        if ends.cancellers.contains(&conn) {
            return;
        }
        let number = ends.clients[&conn];
        self.note_farewell(&mut world.house.accounts[number as usize].borrow_mut(), bytes);
        let account = world.house.accounts[number as usize].borrow();
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
        // Its first bytes may have left together with the end of the login.
        let first = if recorded.is_empty() { 0 } else { from + same };
        let farewell_from = *ends.farewells.entry(number).or_insert(first);
        let begins = from + same == farewell_from;
        assert!(
            farewell_from == recorded.len() && (!begins || oracle::is_our_fatal(rest)),
            "client {number} is sent {} before it is recorded",
            oracle::show(rest)
        );
        if begins && !account.lied_to {
            self.check_farewell(&account, rest, recorded, world);
        }
    }

    /// What the gateway says at the end is known from here on, also if it does not arrive.
    fn note_farewell(&self, account: &mut Account, bytes: &[u8]) {
        let Some(at) = oracle::position(bytes, b"SFATAL\0VFATAL\0C").filter(|_| account.farewell.is_none()) else {
            return;
        };
        account.farewell = Some((self.clock_ns.get(), bytes[at..].escape_ascii().to_string()));
    }

    /// (j), (k) Nobody is sent away whose statement or transaction may still be finished, nor before the time.
    fn check_farewell(&self, account: &Account, farewell: &[u8], recorded: &[u8], world: &World) {
        let (number, now_ns) = (account.number, self.clock_ns.get());
        let rests = rests(&world.house, number, recorded);
        let mut tally = world.tally.borrow_mut();
        if oracle::contains(farewell, b"is shutting down") {
            let stopping_ns = self.stopping_ns.get().expect("it was told to stop");
            let is_over = now_ns >= stopping_ns + DRAIN_TIMEOUT.as_nanos() as u64;
            assert!(
                is_over || rests.wholly,
                "client {number} was sent away in the midst of a statement or transaction"
            );
            let what = if is_over { "cut off by the end of drain_timeout" } else { "told of the stop" };
            tally.add(what, 1);
            tally.add(
                "statement finished while stopping",
                usize::from(!is_over && self.running.borrow().contains(&number)),
            );
        }
        if oracle::contains(farewell, b"token has expired") {
            let wall_ns = world.wall_ns + now_ns;
            let expiry_ns = world.court.expiries_unix_s[number as usize].saturating_mul(1_000_000_000);
            assert!(wall_ns >= expiry_ns, "client {number} was sent away before its token had expired");
            let is_over = wall_ns >= expiry_ns + world.court.token_expiry.grace().as_nanos() as u64;
            let (what, may_go) = match world.court.token_expiry {
                TokenExpiry::End => ("expired: end", true),
                TokenExpiry::FinishStatement => ("expired: finish-statement", rests.from_statements),
                TokenExpiry::FinishTransaction => ("expired: finish-transaction", rests.wholly),
            };
            let last = split(recorded).0.last().map(|frame| oracle::show(frame));
            assert!(
                is_over || may_go,
                "client {number} was sent away in the midst of what it may finish: {what}, after {last:?}"
            );
            tally.add(what, 1);
            let has_finished = !is_over && wall_ns > expiry_ns + TURN_NS_MAX;
            tally.add("finished after its token had expired", usize::from(has_finished));
        }
    }
}

/// What a client's upstream has under way, as the gateway can know it: nothing is on its way there, all that it has answered
/// is in the record, and what is in the record is whole.
fn rests(house: &House, client: u32, recorded: &[u8]) -> Rests {
    let (frames, rest) = split(recorded);
    let count = frames.iter().filter(|frame| must_arrive(frame)).count();
    let intakes = house.intakes.borrow();
    let served = intakes.iter().map(|intake| intake.borrow()).rfind(|i| i.client == Some(client));
    served.filter(|_| rest.is_empty()).map_or(Rests::default(), |intake| intake.known_rests(count))
}

/// The wall clock when a world begins.
pub fn wall_ns(offset_ns: u64) -> u64 {
    EPOCH_NS + offset_ns
}
