//! The seeded simulator behind the io trait: no kernel, no clock, every choice drawn from one seed.
//!
//! Completions come in any order, late, short, or not at all; connections are refused, reset, cut in mid-message, or fall
//! silent. The world around the shard is a set of [`Peer`]s: state machines that are given bytes and produce bytes. The
//! simulator holds the shard to the trait's rules (`io/mod.rs`) and folds all that moves into [`Sim::trace`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::tls::{Role, SecureIo};
use super::{Conn, Event, Io, Lent, Source, Target};
use crate::address::Address;
use crate::buffer::{SLOT_BYTES, Slab, Slot};

/// Xorshift64*: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and the state must not be zero.
        let mut random = Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1);
        (0..8).for_each(|_| {
            random.next();
        });
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0..n. `n` is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }

    /// True `n` times in a thousand.
    pub fn per_mille(&mut self, n: usize) -> bool {
        self.below(1000) < n
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        (1..items.len()).for_each(|i| items.swap(i, self.below(i + 1)));
    }
}

/// The wire as a peer holds it.
#[derive(Debug, Default)]
pub struct Line {
    /// Bytes on their way to the shard.
    pub out: Vec<u8>,
    /// No more bytes will follow.
    pub fin: bool,
    pub reset: bool,
}

/// The other end of a connection.
pub trait Peer {
    /// Bytes from the shard, cut anywhere.
    fn received(&mut self, bytes: &[u8], line: &mut Line);
    /// Called at every wait: time has passed.
    fn tick(&mut self, now_ns: u64, line: &mut Line);
    /// The connection is gone: the shard has closed it, or a fault has.
    fn closed(&mut self);
    /// The simulator has laid a fault on the connection: not all that was sent will arrive.
    fn faulted(&mut self);
    /// False: whoever connects to it waits for ever.
    fn answers(&self) -> bool {
        true
    }
}

/// How likely each fault is. All are per mille of an operation, a completion or a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// A completion that could come waits for another round.
    pub late: usize,
    /// Most bytes of one completion; 0 is no limit.
    pub chunk_bytes_max: usize,
    /// Sends that were taken whole do not end a wait, where the shard allows it: they are told at its end, as by io_uring.
    pub lingering: bool,
    /// A completion after which the peer reads nothing for up to 300 ms.
    pub stall: usize,
    /// A completion that resets the connection instead.
    pub reset: usize,
    /// A completion after which the peer's bytes end in the midst.
    pub cut: usize,
    /// A completion after which the peer is silent for ever.
    pub mute: usize,
    /// A connect that is refused.
    pub refuse: usize,
}

/// Told of every send at its submission: the moment at which bytes leave the shard's hands.
pub type OnSend = Box<dyn FnMut(Conn, &[u8])>;
/// Told of every TLS handshake that the shard begins, with what it serves or asks for.
pub type OnSecure = Box<dyn FnMut(Conn, &Role)>;
/// A client that is still to come: when, from where, and who.
pub type Arrival = (u64, SocketAddr, Box<dyn Peer>);

/// How often each fault has really struck.
#[derive(Clone, Copy, Debug, Default)]
pub struct Struck {
    pub late: u64,
    pub short: u64,
    pub stall: u64,
    pub reset: u64,
    pub cut: u64,
    pub mute: u64,
    pub refuse: u64,
}

/// Answers a connect; `None` refuses it.
pub type OnDial = Box<dyn FnMut(Conn, &Address) -> Option<Box<dyn Peer>>>;

/// A send in flight, with a copy of what was lent: the shard must not change it meanwhile.
struct Sending {
    source: Source,
    copy: Vec<u8>,
    /// The peer has it, but the shard is told only with the next event, unless it hurries.
    delivered: Option<Result<usize, Errno>>,
    hurried: bool,
}

struct Connection {
    peer: Box<dyn Peer>,
    inbound: VecDeque<u8>,
    fin: bool,
    reset: bool,
    mute: bool,
    stalled_until_ns: u64,
    connecting: bool,
    receiving: Option<Target>,
    sending: Option<Sending>,
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Connect,
    Receive,
    Send,
}

pub struct Sim {
    pub random: Random,
    pub weather: Weather,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// Numbers whose `Closed` is being told: free from the next wait on.
    retired: Vec<u32>,
    /// Handshakes that are over at the next wait: the simulator runs above TLS.
    secured: Vec<Conn>,
    arrivals: VecDeque<Arrival>,
    pub struck: Struck,
    on_secure: OnSecure,
    on_dial: OnDial,
    on_accept: Box<dyn FnMut(Conn, SocketAddr)>,
    on_send: OnSend,
    bell: OwnedFd,
    clock_ns: Rc<Cell<u64>>,
    trace: u64,
}

impl Sim {
    /// `bell` is what rings for mail; `clock_ns` is moved on by [`Io::wait`].
    pub fn new(seed: u64, weather: Weather, bell: OwnedFd, clock_ns: Rc<Cell<u64>>) -> Self {
        Self {
            random: Random::new(seed),
            weather,
            connections: Vec::new(),
            free: Vec::new(),
            retired: Vec::new(),
            secured: Vec::new(),
            arrivals: VecDeque::new(),
            struck: Struck::default(),
            on_secure: Box::new(|_, _| ()),
            on_dial: Box::new(|_, _| None),
            on_accept: Box::new(|_, _| ()),
            on_send: Box::new(|_, _| ()),
            bell,
            clock_ns,
            trace: 0xcbf2_9ce4_8422_2325,
        }
    }

    pub fn on_dial(&mut self, dial: OnDial) {
        self.on_dial = dial;
    }

    pub fn on_accept(&mut self, accept: Box<dyn FnMut(Conn, SocketAddr)>) {
        self.on_accept = accept;
    }

    pub fn on_send(&mut self, send: OnSend) {
        self.on_send = send;
    }

    pub fn on_secure(&mut self, secure: OnSecure) {
        self.on_secure = secure;
    }

    /// A client connects; arrivals are added in order.
    pub fn arrive(&mut self, arrival: Arrival) {
        self.arrivals.push_back(arrival);
    }

    /// A hash over everything that was delivered to the shard and everything that it sent.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Connections that are not yet closed.
    pub fn open(&self) -> usize {
        self.connections.iter().flatten().count() + self.arrivals.len()
    }

    /// Ends the world: every peer is gone at once.
    pub fn reset_all(&mut self) {
        self.arrivals.clear();
        for connection in self.connections.iter_mut().flatten() {
            connection.peer.faulted();
            connection.reset = true;
        }
    }

    /// The shard is gone, and all its connections with it. Who is still to come may come to its successor.
    pub fn abandon(&mut self) -> impl Iterator<Item = Arrival> {
        for connection in self.connections.iter_mut().filter_map(Option::take) {
            let Connection { mut peer, .. } = connection;
            peer.faulted();
            peer.closed();
        }
        std::mem::take(&mut self.arrivals).into_iter()
    }

    fn fold(&mut self, tag: u8, conn: Conn, bytes: &[u8]) {
        let head = [tag, conn.0 as u8, bytes.len() as u8, (bytes.len() >> 8) as u8];
        for byte in head.iter().chain(bytes) {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn adopt(&mut self, peer: Box<dyn Peer>, connecting: bool) -> Conn {
        let connection = Connection {
            peer,
            inbound: VecDeque::new(),
            fin: false,
            reset: false,
            mute: false,
            stalled_until_ns: 0,
            connecting,
            receiving: None,
            sending: None,
            closing: false,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() as u32 - 1
        });
        self.connections[index as usize] = Some(connection);
        Conn(index)
    }

    /// The connection of an operation that is being submitted.
    fn submitting(&mut self, conn: Conn) -> &mut Connection {
        let connection = self.connections[conn.0 as usize].as_mut().expect("an operation on a connection that is gone");
        assert!(!connection.closing, "an operation after close on {conn:?}");
        assert!(!connection.connecting, "an operation before Connected on {conn:?}");
        connection
    }

    fn start_receive(&mut self, conn: Conn, target: Target) {
        let connection = self.submitting(conn);
        assert!(connection.receiving.is_none(), "two receives in flight on {conn:?}");
        connection.receiving = Some(target);
    }

    fn accept_arrivals(&mut self, events: &mut Vec<Event>) {
        while let Some((_, peer_address, peer)) = self.arrivals.pop_front_if(|a| a.0 <= self.clock_ns.get()) {
            let conn = self.adopt(peer, false);
            self.fold(b'A', conn, &[]);
            (self.on_accept)(conn, peer_address);
            events.push(Event::Accepted { listener: 0, conn, peer: peer_address.into() });
        }
    }

    fn tick_peers(&mut self) {
        let now_ns = self.clock_ns.get();
        for connection in self.connections.iter_mut().flatten().filter(|c| !c.connecting && !c.closing) {
            connection.with_line(|peer, line| peer.tick(now_ns, line));
        }
    }

    /// Operations that could complete now, in any order.
    fn due(&mut self, slab: &Slab) -> Vec<(u32, Op)> {
        let now_ns = self.clock_ns.get();
        let mut due = Vec::new();
        for (index, connection) in self.connections.iter().enumerate() {
            let Some(c) = connection else { continue };
            let receive = c.receiving.as_ref().is_some_and(|target| {
                let slot = matches!(target, Target::Tail { .. }) || slab.free() > 0;
                c.closing || c.reset || slot && (c.fin || !c.inbound.is_empty())
            });
            let send = c.sending.is_some() && (c.closing || c.reset || c.stalled_until_ns <= now_ns);
            let connect = c.connecting && (c.peer.answers() || c.closing || c.reset);
            let ops = [(connect, Op::Connect), (receive, Op::Receive), (send, Op::Send)];
            due.extend(ops.into_iter().filter(|(is, _)| *is).map(|(_, op)| (index as u32, op)));
        }
        self.random.shuffle(&mut due);
        let (late, all) = (self.weather.late, due.len());
        due.retain(|_| !self.random.per_mille(late));
        self.struck.late += (all - due.len()) as u64;
        due
    }

    fn complete(&mut self, index: u32, op: Op, slab: &mut Slab, events: &mut Vec<Event>) {
        self.strike(index);
        let conn = Conn(index);
        match op {
            Op::Connect => self.complete_connect(conn, events),
            Op::Receive => self.complete_receive(conn, slab, events),
            Op::Send => self.complete_send(conn, slab, events),
        }
    }

    /// Draws the faults of one completion.
    fn strike(&mut self, index: u32) {
        let weather = self.weather;
        let random = &mut self.random;
        let Some(connection) = &mut self.connections[index as usize] else { return };
        if random.per_mille(weather.stall) {
            self.struck.stall += 1;
            connection.stalled_until_ns = self.clock_ns.get() + 1_000 * random.below(300_000) as u64;
        }
        if random.per_mille(weather.reset) {
            self.struck.reset += 1;
            connection.peer.faulted();
            connection.reset = true;
        }
        if random.per_mille(weather.cut) && !connection.fin {
            self.struck.cut += 1;
            connection.peer.faulted();
            let kept = random.below(connection.inbound.len() + 1);
            connection.inbound.truncate(kept);
            (connection.fin, connection.mute) = (true, true);
        }
        if random.per_mille(weather.mute) {
            self.struck.mute += 1;
            connection.peer.faulted();
            connection.mute = true;
        }
    }

    fn complete_connect(&mut self, conn: Conn, events: &mut Vec<Event>) {
        let refused = self.random.per_mille(self.weather.refuse);
        let connection = self.connections[conn.0 as usize].as_mut().expect("it is due");
        connection.connecting = false;
        if connection.closing {
            return;
        }
        self.struck.refuse += u64::from(refused);
        let result = if refused || connection.reset { Err(Errno::CONNREFUSED) } else { Ok(()) };
        if result.is_err() {
            connection.peer.faulted();
        }
        self.fold(b'C', conn, &[u8::from(result.is_ok())]);
        events.push(Event::Connected { conn, result });
    }

    fn complete_receive(&mut self, conn: Conn, slab: &mut Slab, events: &mut Vec<Event>) {
        let limit = self.chunk_bytes();
        let told = self.random.per_mille(500);
        let connection = self.connections[conn.0 as usize].as_mut().expect("it is due");
        let Some(target) = connection.receiving.take() else { return };
        let failed = connection.reset || connection.closing && connection.inbound.is_empty();
        let (slot, index, from) = match target {
            Target::Tail { slot, from } => (None, slot, from),
            Target::Any { .. } if failed => (None, 0, SLOT_BYTES),
            Target::Any { .. } => match slab.take() {
                Some(slot) => (Some(slot), 0, 0),
                // Another receive of this round has taken the last slot: it waits, as it would in the kernel.
                None => return connection.receiving = Some(target),
            },
        };
        let index = slot.as_ref().map_or(index, Slot::index);
        let room = if let Target::Any { bytes_max } = target { bytes_max } else { SLOT_BYTES - from };
        let n = if failed { 0 } else { connection.inbound.len().min(room).min(limit) };
        let bytes: Vec<u8> = connection.inbound.drain(..n).collect();
        // What a closing connection still writes into a lent range is as real as on any other.
        slab.lent_mut(index, from.min(SLOT_BYTES - n)..from.min(SLOT_BYTES - n) + n).copy_from_slice(&bytes);
        let result = if failed { Err(Errno::CONNRESET) } else { Ok(n) };
        let tell = !connection.closing || slot.is_some() || told;
        self.fold(b'R', conn, &bytes);
        if tell {
            events.push(Event::Received { conn, slot, result });
        }
    }

    /// The peer has what was sent; the completion is still to be told.
    fn deliver(&mut self, conn: Conn, slab: &mut Slab) {
        let limit = self.chunk_bytes();
        let connection = self.connections[conn.0 as usize].as_mut().expect("it is due");
        let Some(sending) = connection.sending.as_mut().filter(|s| s.delivered.is_none()) else { return };
        let now = match &sending.source {
            Source::Slot { slot, from, to } => slab.lent_mut(*slot, *from..*to).to_vec(),
            Source::Heap { bytes, from } => bytes[*from..].to_vec(),
        };
        assert_eq!(now, sending.copy, "bytes were changed while they were lent to a send on {conn:?}");
        let n = now.len().min(limit);
        self.struck.short += u64::from(n < now.len());
        let result = if connection.reset { Err(Errno::PIPE) } else { Ok(n) };
        sending.delivered = Some(result);
        if result.is_ok() {
            connection.with_line(|peer, line| peer.received(&now[..n], line));
        }
        self.fold(b'S', conn, if result.is_ok() { &now[..n] } else { &[] });
    }

    fn complete_send(&mut self, conn: Conn, slab: &mut Slab, events: &mut Vec<Event>) {
        self.deliver(conn, slab);
        let told = self.random.per_mille(500);
        let connection = self.connections[conn.0 as usize].as_mut().expect("it is due");
        let Some(Sending { source, delivered: Some(result), .. }) = connection.sending.take() else { return };
        let heap = match source {
            Source::Slot { .. } => None,
            Source::Heap { bytes, .. } => Some(bytes),
        };
        if !connection.closing || told {
            events.push(Event::Sent { conn, result, heap });
        }
    }

    /// A completed send that is told at once: somebody waits for it, or not all was taken.
    fn is_hurried(&self, index: u32) -> bool {
        let told = |s: &Sending| s.hurried || s.delivered.is_some_and(|result| result != Ok(s.copy.len()));
        let connection = self.connections[index as usize].as_ref();
        connection.is_some_and(|c| c.closing || c.sending.as_ref().is_none_or(told))
    }

    fn chunk_bytes(&mut self) -> usize {
        match self.weather.chunk_bytes_max {
            0 => usize::MAX,
            // Mostly small pieces; now and then a large one, so that large frames get through in bounded time.
            max if self.random.per_mille(200) => max.max(SLOT_BYTES),
            max => 1 + self.random.below(max),
        }
    }

    /// The last event of a connection, when nothing of it is in flight any more.
    fn tell_closed(&mut self, events: &mut Vec<Event>) {
        for index in 0..self.connections.len() {
            let quiet = |c: &mut Connection| c.closing && !c.connecting && c.receiving.is_none() && c.sending.is_none();
            if let Some(mut connection) = self.connections[index].take_if(|c| quiet(c)) {
                connection.peer.closed();
                let conn = Conn(index as u32);
                self.fold(b'X', conn, &[]);
                self.retired.push(conn.0);
                events.push(Event::Closed { conn });
            }
        }
    }

    fn listen_to_bell(&mut self, events: &mut Vec<Event>) {
        let mut fds = [rustix::event::PollFd::new(&self.bell, rustix::event::PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) {
            let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
            events.push(Event::Woken);
        }
    }
}

impl Connection {
    /// Lets the peer act, and takes what it says.
    fn with_line(&mut self, act: impl FnOnce(&mut dyn Peer, &mut Line)) {
        let mut line = Line::default();
        act(&mut *self.peer, &mut line);
        if self.mute || self.fin {
            return;
        }
        self.inbound.extend(line.out);
        self.fin |= line.fin;
        self.reset |= line.reset;
    }
}

impl SecureIo for Sim {
    fn secure(&mut self, _slab: &mut Slab, conn: Conn, role: Role, early: &[u8]) {
        (self.on_secure)(conn, &role);
        let connection = self.submitting(conn);
        // What came early stays in front of what is still to come.
        early.iter().rev().for_each(|byte| connection.inbound.push_front(*byte));
        self.secured.push(conn);
    }
}

impl Io for Sim {
    fn receive_at_most(&mut self, conn: Conn, bytes_max: usize) {
        assert!((1..=SLOT_BYTES).contains(&bytes_max), "a receive into no room");
        self.start_receive(conn, Target::Any { bytes_max });
    }

    fn receive_into(&mut self, _slab: &Slab, conn: Conn, slot: &Slot, from: usize) {
        assert!(from < SLOT_BYTES, "a receive into no room");
        self.start_receive(conn, Target::Tail { slot: slot.index(), from });
    }

    fn send(&mut self, slab: &mut Slab, conn: Conn, lent: Lent<'_>) {
        let copy = match &lent {
            Lent::Slot { slot, from, to } => slab.bytes(slot, *from..*to).to_vec(),
            Lent::Heap { bytes, from } => bytes[*from..].to_vec(),
        };
        assert!(!copy.is_empty(), "a send of nothing on {conn:?}");
        (self.on_send)(conn, &copy);
        let connection = self.submitting(conn);
        assert!(connection.sending.is_none(), "two sends in flight on {conn:?}");
        connection.sending = Some(Sending { source: lent.into(), copy, delivered: None, hurried: false });
    }

    fn hurry(&mut self) {
        for sending in self.connections.iter_mut().flatten().filter_map(|c| c.sending.as_mut()) {
            sending.hurried = true;
        }
    }

    fn connect(&mut self, address: &Address) -> Result<Conn, Errno> {
        let next = Conn(self.free.last().copied().unwrap_or(self.connections.len() as u32));
        let peer = (self.on_dial)(next, address).ok_or(Errno::MFILE)?;
        Ok(self.adopt(peer, true))
    }

    fn close(&mut self, conn: Conn, _farewell: &[u8]) {
        let connection = self.connections[conn.0 as usize].as_mut().expect("a close of a connection that is gone");
        connection.closing = true;
    }

    fn wait(&mut self, slab: &mut Slab, timeout: Duration, events: &mut Vec<Event>) {
        self.free.append(&mut self.retired);
        for conn in std::mem::take(&mut self.secured) {
            if self.connections[conn.0 as usize].as_ref().is_some_and(|c| !c.closing) {
                events.push(Event::Secured { conn, result: Ok(Box::default()) });
            }
        }
        self.accept_arrivals(events);
        self.tick_peers();
        let due = self.due(slab);
        let alone = events.is_empty() && due.iter().all(|(_, op)| *op == Op::Send);
        if self.weather.lingering && alone {
            due.iter().for_each(|(index, _)| self.deliver(Conn(*index), slab));
        }
        let lingers = self.weather.lingering && alone && !due.iter().any(|(index, _)| self.is_hurried(*index));
        let (told, lingering) = if lingers { (Vec::new(), due) } else { (due, Vec::new()) };
        for (index, op) in told {
            self.complete(index, op, slab, events);
        }
        self.tell_closed(events);
        self.listen_to_bell(events);
        // A round without events waits until something is due: nothing in the world is quicker than a stall's end, but who comes.
        let comes_in_ns = self.arrivals.front().map_or(u64::MAX, |a| a.0.saturating_sub(self.clock_ns.get()));
        let passed_ns = match events.is_empty() {
            true => (timeout.as_nanos() as u64).min(comes_in_ns).clamp(1_000, 20_000_000),
            false => 1_000 + self.random.below(100_000) as u64,
        };
        self.clock_ns.set(self.clock_ns.get() + passed_ns);
        // What has lingered is told when the wait is over, whatever has ended it.
        for (index, op) in lingering {
            self.complete(index, op, slab, events);
        }
    }
}
