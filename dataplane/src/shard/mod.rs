//! ONE CORE. Everything that a core owns, and its loop: wait for events, feed them to their sessions, arm what they want.
//!
//! A connection lives and dies on one shard; nothing here is shared with another thread but what `control` publishes and
//! what comes by mailbox.

pub mod accept;
pub mod cancel;
pub mod census;
pub mod drive;
mod eviction;
pub mod judging;
pub mod listen;
pub mod mailbox;
mod refusals;
mod resting;
pub mod spawn;
pub mod timers;
mod upstream;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use policy_compiler::artifact::RoleSet;

use crate::buffer::{Gathered, Slab};
use crate::config::{Limits, TokenExpiry};
use crate::control::Control;
use crate::control::analyser::Analyser;
use crate::control::route::Endpoint;
use crate::datapath::counters::Counters;
use crate::datapath::plan_cache::PlanCache;
use crate::fault::Fault;
use crate::io::tls::SecureIo;
use crate::io::{Conn, Event};
use crate::protocol::Scratch;
use crate::protocol::postgres::dissector::{NameKey, Shared};
use crate::session::{Input, Output, Session, Shortage};
use accept::Door;
use cancel::Guesses;
use census::{Census, Seat};
use judging::View;
use mailbox::{Mail, Mailbox, Postbox, Reload};
use refusals::Refusals;
use resting::Resting;
use timers::{Kind, Timers};
use upstream::Spares;

/// The recorder counts as gone when its heartbeat is older than this (decision 11).
const HEARTBEAT_NS_MAX: u64 = 1_000_000_000;
/// Shards of a process: session numbers of one shard are as far apart.
const SHARDS_MAX: u64 = 128;
/// How long a shard sleeps when nothing at all is due.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// How often a shard looks who has finished, while sessions are to end.
const STOPPING_WAIT: Duration = Duration::from_millis(20);
/// Under load what is no session's is looked at as often, not at every turn.
const CHORES_EVERY_NS: u64 = 1_000_000;
/// Before a shard sleeps for longer it looks once more, so what `/metrics` shows is no older than this.
const CHORES_WAIT: Duration = Duration::from_millis(20);
/// How long a session waits for other sessions' gathered frames to leave: longer than those that do not move are left alone.
const GATHERING_WAIT_MAX: Duration = Duration::from_secs(20);
/// How often sessions that wait for the ring look again.
const STALLED_WAIT: Duration = Duration::from_millis(1);

/// The ring as a shard uses it: evidence goes in, and its state says whether statements may start.
pub trait Tap: crate::datapath::tap::Evidence {
    fn recorder_heartbeat_ns(&self) -> u64;
    fn beat(&mut self, now_unix_ns: u64);
    /// Bytes that are used and bytes that there are.
    fn fill_bytes(&self) -> (usize, usize);
}

impl<M: ring::Memory> Tap for ring::Producer<M> {
    fn recorder_heartbeat_ns(&self) -> u64 {
        ring::Producer::recorder_heartbeat_ns(self)
    }
    fn beat(&mut self, now_unix_ns: u64) {
        ring::Producer::beat(self, now_unix_ns);
    }
    fn fill_bytes(&self) -> (usize, usize) {
        (self.used_bytes(), self.capacity_bytes())
    }
}

/// Both clocks, as the shell reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub unix_ns: u64,
    pub monotonic_ns: u64,
}

impl Now {
    /// Wraps in 49 days: for what is compared within seconds.
    fn monotonic_ms(self) -> u32 {
        (self.monotonic_ns / 1_000_000) as u32
    }
}

pub struct Entry {
    session: Session,
    client: Conn,
    listener: u16,
    upstream: Option<Conn>,
    /// Connections whose `Closed` is still to come.
    open: u8,
    closing: bool,
    view: Option<Rc<View>>,
    /// Of its upstream, once it is known which.
    endpoint: Option<Arc<Endpoint>>,
    /// Which of the endpoint's addresses it is at.
    address: u16,
    /// Until when that address may take for its login, monotonic ms.
    dial_until_ms: u32,
    /// The key of a text of this session that is with the analyser: while it is here the answer is awaited.
    pending: Option<Arc<u128>>,
    /// Its place among its subject's sessions, once it is let in.
    seat: Option<Seat>,
    /// What it waits for, and since when.
    shortage: Option<Shortage>,
    stalled_since_ns: u64,
    /// It stands in [`Shard::stalled`].
    retrying: bool,
    /// A statement of it was cancelled, last at this moment, monotonic ms.
    was_cancelled: bool,
    cancelled_ms: u32,
}

/// What sessions that begin from now on have in common.
fn shared(limits: &Limits, control: &Control, name_key: NameKey) -> Rc<Shared> {
    Rc::new(Shared {
        limits: limits.session,
        token_bytes_max: limits.token_bytes_max,
        keeps_upstreams: limits.idle_upstreams_max > 0,
        ignored_startup_parameters: control.ignored_startup_parameters().to_vec(),
        name_key,
    })
}

impl Entry {
    fn new(session: Session, client: Conn, listener: usize) -> Self {
        Self {
            session,
            client,
            listener: listener as u16,
            upstream: None,
            open: 1,
            closing: false,
            view: None,
            endpoint: None,
            address: 0,
            dial_until_ms: 0,
            pending: None,
            seat: None,
            shortage: None,
            stalled_since_ns: 0,
            retrying: false,
            was_cancelled: false,
            cancelled_ms: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Upstream,
    /// An address of the upstream that would not do.
    Parting,
    /// An upstream's connection that no session has.
    Spare,
}

pub struct Shard<I> {
    io: I,
    slab: Slab,
    tap: Box<dyn Tap>,
    control: Arc<Control>,
    analyser: Analyser,
    mailbox: Mailbox,
    /// All shards' postboxes, by number, our own too.
    siblings: Vec<Postbox>,
    guesses: Guesses,
    census: Census,
    counters: Arc<Counters>,
    limits: Limits,
    shared: Rc<Shared>,
    /// By listener.
    doors: Vec<Door>,
    recorder_absent_max: Duration,
    /// The recorder's last sign of life that was looked at.
    recorder_seen_unix_ns: u64,
    entries: Vec<Option<Box<Entry>>>,
    free: Vec<u32>,
    /// Process id at the upstream and place of each session that has one: what cancels name.
    backends: BTreeSet<(u32, u32)>,
    /// Which session a connection belongs to, and which end of it.
    connections: Vec<Option<(u32, End)>>,
    timers: Timers,
    plans: PlanCache,
    views: HashMap<(RoleSet, usize), Rc<View>>,
    views_made: u64,
    scratch: Scratch,
    random: Box<dyn FnMut(&mut [u8])>,
    gathered: Gathered,
    /// Bytes of texts that may yet be analysed in this turn.
    turn_bytes: usize,
    /// Sessions that wait for the ring, the recorder or the budget.
    stalled: Vec<u32>,
    refusals: Refusals,
    resting: Resting,
    spares: Spares,
    /// When it was last told that an upstream cannot be reached, monotonic ns.
    told_unreachable_ns: Option<u64>,
    next_session: u64,
    number: u8,
    now: Now,
    events: Vec<Event>,
    outputs: Vec<Output>,
    /// Sessions whose token has expired: index, id, and until when they may finish, monotonic ns.
    expired: Vec<(u32, u64, u64)>,
    /// Until when sessions may finish, monotonic ns.
    stopping: Option<u64>,
    /// When it was last looked who keeps slots, in the slab's seconds.
    evicted_s: u32,
    /// When it was last looked who keeps room of the budget, in the budget's seconds.
    holders_seen_s: u32,
    /// When the chores are due again, monotonic ns.
    chores_due_ns: u64,
    /// Something happened in the last turn.
    was_busy: bool,
}

/// What a shard is made of.
pub struct Parts<I> {
    pub io: I,
    pub slab: Slab,
    pub tap: Box<dyn Tap>,
    pub control: Arc<Control>,
    pub analyser: Analyser,
    pub mailbox: Mailbox,
    pub siblings: Vec<Postbox>,
    pub census: Census,
    pub counters: Arc<Counters>,
    pub limits: Limits,
    pub doors: Vec<Door>,
    pub recorder_absent_max: Duration,
    /// Fills a buffer with unpredictable bytes (the simulator's are predictable).
    pub random: Box<dyn FnMut(&mut [u8])>,
    pub number: u8,
    pub now: Now,
}

impl<I: SecureIo> Shard<I> {
    pub fn new(parts: Parts<I>) -> Self {
        let mut random = parts.random;
        let mut key = [0; 16];
        random(&mut key);
        parts.census.tell(parts.number, 0);
        parts.counters.tls_sessions_open.set(0);
        // After a panic the configuration in force is not the one that the thread was given.
        let standing = parts.mailbox.standing();
        let (control, limits, doors) = match standing.reload {
            Some(Reload { control, limits, doors }) => (control, limits, doors),
            None => (parts.control, parts.limits, parts.doors),
        };
        let mut shard = Self {
            io: parts.io,
            slab: parts.slab,
            tap: parts.tap,
            shared: shared(&limits, &control, NameKey(key)),
            control,
            analyser: parts.analyser,
            mailbox: parts.mailbox,
            siblings: parts.siblings,
            guesses: Guesses::default(),
            census: parts.census,
            counters: parts.counters,
            limits,
            doors,
            recorder_absent_max: parts.recorder_absent_max,
            recorder_seen_unix_ns: 0,
            entries: Vec::new(),
            free: Vec::new(),
            backends: BTreeSet::new(),
            connections: Vec::new(),
            timers: Timers::default(),
            plans: PlanCache::new(limits.plans_max),
            views: HashMap::new(),
            views_made: 0,
            scratch: Scratch::default(),
            random,
            gathered: Gathered::new(limits.gathered_bytes_max),
            turn_bytes: judging::TURN_BYTES_MAX,
            stalled: Vec::new(),
            refusals: Refusals::default(),
            resting: Resting::default(),
            spares: Spares::default(),
            told_unreachable_ns: None,
            // Counts on from the nanosecond of the start, so no later start gives a number again.
            next_session: parts.now.unix_ns / SHARDS_MAX * SHARDS_MAX + u64::from(parts.number),
            number: parts.number,
            now: parts.now,
            events: Vec::new(),
            outputs: Vec::new(),
            expired: Vec::new(),
            stopping: None,
            evicted_s: 0,
            holders_seen_s: 0,
            chores_due_ns: 0,
            was_busy: false,
        };
        if standing.stops {
            shard.stop();
        }
        // The bell may have rung for the one before.
        shard.on_mail();
        // It may sleep before its first turn, and is well.
        shard.publish();
        shard
    }

    pub fn io(&mut self) -> &mut I {
        &mut self.io
    }

    pub fn sessions(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Slots that nobody holds; after the last session all but the driver's own.
    pub fn slots_free(&self) -> usize {
        self.slab.free()
    }

    /// One round: wait, then handle all that has happened.
    pub fn turn(&mut self, clock: &mut dyn FnMut() -> Now) {
        let mut events = std::mem::take(&mut self.events);
        let patience = self.patience();
        self.io.wait(&mut self.slab, patience, &mut events);
        self.now = clock();
        self.turn_bytes = judging::TURN_BYTES_MAX;
        let now_s = (self.now.monotonic_ns / 1_000_000_000) as u32;
        self.slab.tick(now_s);
        self.gathered.tick(now_s);
        let is_quiet = events.is_empty();
        for event in events.drain(..) {
            self.on_event(event);
        }
        self.events = events;
        self.on_timers();
        self.retry_stalled();
        self.end_stopping();
        self.end_expired();
        if is_quiet || self.now.monotonic_ns >= self.chores_due_ns {
            self.do_chores();
        }
        self.was_busy = !is_quiet;
    }

    /// What may be a little late.
    fn do_chores(&mut self) {
        self.chores_due_ns = self.now.monotonic_ns + CHORES_EVERY_NS;
        self.tap.beat(self.now.unix_ns);
        self.evict();
        self.end_spares();
        self.tell_refusals();
        self.publish();
    }

    /// What `/metrics` shows as it is now.
    fn publish(&self) {
        let (used_bytes, capacity_bytes) = self.tap.fill_bytes();
        self.counters.turned_monotonic_ns.set(self.now.monotonic_ns);
        self.counters.recorder_heartbeat_unix_ns.set(self.tap.recorder_heartbeat_ns());
        self.counters.ring_used_bytes.set(used_bytes as u64);
        self.counters.ring_capacity_bytes.set(capacity_bytes as u64);
        self.counters.sessions_open.set(self.sessions() as u64);
        self.counters.sessions_stalled.set(self.stalled.len() as u64);
        self.counters.slots_free.set(self.slab.unused() as u64);
        self.counters.upstreams_kept.set(self.spares.len() as u64);
    }

    fn patience(&self) -> Duration {
        match self.stalled.is_empty() {
            true if self.stopping.is_some() || !self.expired.is_empty() => STOPPING_WAIT,
            true => {
                let longest = if self.was_busy { CHORES_WAIT } else { IDLE_WAIT };
                self.timers.next_in(self.now.monotonic_ns).map_or(longest, |due| due.min(longest))
            }
            false => STALLED_WAIT,
        }
    }

    /// Its sign of life is looked at again only when the last one seen is too old, or the clock has gone back since.
    fn recorder_present(&mut self) -> bool {
        let now_ns = self.now.unix_ns;
        let is_fresh = |seen: u64| now_ns.saturating_sub(seen) <= HEARTBEAT_NS_MAX;
        if !is_fresh(self.recorder_seen_unix_ns) || self.recorder_seen_unix_ns > now_ns {
            self.recorder_seen_unix_ns = self.tap.recorder_heartbeat_ns();
        }
        is_fresh(self.recorder_seen_unix_ns)
    }

    fn on_mail(&mut self) {
        while let Some(mail) = self.mailbox.next() {
            match mail {
                Mail::Decided(decided) => self.decided(decided),
                Mail::Cancel(ask) => self.asked(&ask),
                Mail::MayCancel { session, index, leave } => self.may_cancel(session, index, leave),
                Mail::Admit { session, index, request } => {
                    // The session may have gone, and another be in its place.
                    let place = self.entries.get(index as usize).and_then(Option::as_ref);
                    if place.is_some_and(|e| e.session.id() == session && !e.closing) {
                        self.admit(index, request, true);
                    }
                }
                Mail::Reload(reload) => self.reload(*reload),
                Mail::Catalogue => self.renew_views(),
                Mail::MakeRoom(resource) => self.close_spares_of(|endpoint| endpoint.resource == resource),
                Mail::Stop => {
                    self.stop();
                    self.tell_last_refusals();
                }
            }
        }
    }

    /// No new session from now on. Who runs nothing is told why it ends; a statement or a transaction has
    /// `drain_timeout` to be finished.
    fn stop(&mut self) {
        let until = self.now.monotonic_ns + self.limits.drain_timeout.as_nanos() as u64;
        self.stopping.get_or_insert(until);
        self.close_spares();
        self.end_stopping();
    }

    fn end_stopping(&mut self) {
        let Some(until) = self.stopping else { return };
        let late = self.now.monotonic_ns >= until;
        for index in 0..self.entries.len() as u32 {
            let idle = |e: &Entry| !e.session.is_relaying() || e.session.is_idle();
            if self.entries[index as usize].as_deref().is_some_and(|e| !e.closing && (late || idle(e))) {
                self.feed(index, Input::End(Fault::ShuttingDown));
            }
        }
    }

    /// It was told to stop, and the last session is gone, and the last connection that was kept of one.
    pub fn has_stopped(&self) -> bool {
        self.stopping.is_some() && self.sessions() == 0 && self.spares.len() == 0
    }

    fn on_timers(&mut self) {
        let now_ms = self.now.monotonic_ms();
        while let Some((kind, index, id)) = self.timers.due(self.now.monotonic_ns) {
            let Some(entry) = self.entries[index as usize].as_mut().filter(|e| e.session.id() == id) else { continue };
            match kind {
                Kind::Lease => entry.session.forget_lease(),
                Kind::Expiry => {
                    let grace_ns = self.limits.token_expiry.grace().as_nanos() as u64;
                    self.expired.push((index, id, self.now.monotonic_ns + grace_ns));
                }
                // Another address may have begun its time since.
                Kind::Dial if entry.dial_until_ms.wrapping_sub(now_ms) as i32 > 0 || entry.session.is_relaying() => {}
                Kind::Dial => self.dial_late(index),
                // It had its time to say goodbye.
                _ if entry.session.is_draining() => self.close(index),
                _ if !entry.session.is_relaying() => self.feed(index, Input::End(Fault::LoginTimeout)),
                _ => {}
            }
        }
    }

    /// Sessions whose token has expired end when they have finished what they may finish, or their grace is over.
    fn end_expired(&mut self) {
        for (index, id, until_ns) in std::mem::take(&mut self.expired) {
            let entry = self.entries[index as usize].as_ref().filter(|e| e.session.id() == id && !e.closing);
            let Some(entry) = entry.filter(|e| !e.session.is_draining()) else { continue };
            let finished = match self.limits.token_expiry {
                TokenExpiry::End => true,
                TokenExpiry::FinishStatement => entry.session.running().is_none(),
                TokenExpiry::FinishTransaction => entry.session.is_idle(),
            };
            match finished || self.now.monotonic_ns >= until_ns {
                true => self.feed(index, Input::End(Fault::TokenExpired)),
                false => self.expired.push((index, id, until_ns)),
            }
        }
    }

    /// Bytes that messages above a slot may still take of the budget; after the last session all of it.
    pub fn gathered_bytes_free(&self) -> usize {
        self.gathered.free_bytes()
    }

    /// What was short may be there again. There is no waiting for ever: of two that wait for each other, one must go.
    fn retry_stalled(&mut self) {
        if self.stalled.is_empty() {
            return;
        }
        self.end_idle_holders();
        for index in std::mem::take(&mut self.stalled) {
            let Some(entry) = self.entries[index as usize].as_mut() else { continue };
            entry.retrying = false;
            let waited = Duration::from_nanos(self.now.monotonic_ns.saturating_sub(entry.stalled_since_ns));
            let input = match entry.shortage {
                Some(Shortage::Recorder) if waited > self.recorder_absent_max => Input::End(Shortage::Recorder.fault()),
                Some(Shortage::GatheredBytes) if waited > GATHERING_WAIT_MAX => {
                    Input::End(Shortage::GatheredBytes.fault())
                }
                _ => Input::Again,
            };
            self.feed(index, input);
        }
    }
}
