//! The epoll driver, for places where io_uring is forbidden: it emulates completions over non-blocking sockets.
//!
//! Every connection is registered once, edge-triggered, for both directions; what an edge has said is remembered in
//! `readable` and `writable` until a call finds otherwise. So a message costs a wait, a receive and a send, and no
//! registration. A send is tried when it is submitted. A receive is tried in [`Io::wait`], where the slab is at hand, when
//! bytes are known to be there. Who may call: one shard, on one thread. Checked by: `dataplane/tests/drivers.rs`, which holds
//! both drivers to the trait's rules, and `tests/e2e/epoll.rs`.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags};

use super::socket::{dial, dialed, peer};
use super::{ACCEPT_PAUSE, Conn, Event, Io, Lent, Source, Target};
use crate::address::{Address, Peer};
use crate::buffer::{SLOT_BYTES, Slab, Slot};

/// Descriptors that one wait may tell of. More are told by the next.
const TOLD_MAX: usize = 256;
/// Connections that one listener may bring in a round, so that a flood of logins does not hold up who is in.
const ACCEPTS_MAX: usize = 64;

/// What an event is about: a connection's number, or one of these.
const LISTENER: u64 = 1 << 32;
const BELL: u64 = 2 << 32;

struct Connection {
    /// Gone as soon as the connection is closed.
    socket: Option<OwnedFd>,
    connecting: bool,
    readable: bool,
    writable: bool,
    /// The peer has ended or failed: there will be no edge for what is still to be received.
    ended: bool,
    receiving: Option<Target>,
    sending: Option<Source>,
}

struct Listener {
    socket: OwnedFd,
    /// Clients may wait in its backlog.
    ready: bool,
}

pub struct Epoll {
    epoll: OwnedFd,
    listeners: Vec<Listener>,
    bell: OwnedFd,
    connections: Vec<Connection>,
    free: Vec<u32>,
    /// Connections whose `Closed` is due at the next wait.
    closed: Vec<Conn>,
    /// Numbers whose `Closed` is being told: free from the next wait on, when the shell has certainly heard it.
    retired: Vec<u32>,
    /// Connections with a receive in flight and bytes that are already known to be there.
    ready: Vec<Conn>,
    /// Sends that have completed. Whole ones are told with the next event, unless somebody hurries.
    sent: Vec<Event>,
    hurried: bool,
    accept_after: Option<Instant>,
    told: Vec<epoll::Event>,
}

impl Epoll {
    /// # Errors
    /// When the kernel gives no epoll descriptor, or a descriptor cannot be watched.
    pub fn new(listeners: Vec<OwnedFd>, bell: OwnedFd) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        for (number, listener) in listeners.iter().enumerate() {
            // A client that leaves before it is accepted must not block the shard.
            rustix::io::ioctl_fionbio(listener, true)?;
            let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER | number as u64), edge)?;
        }
        Ok(Self {
            epoll,
            listeners: listeners.into_iter().map(|socket| Listener { socket, ready: false }).collect(),
            bell,
            connections: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            retired: Vec::new(),
            ready: Vec::new(),
            sent: Vec::new(),
            hurried: false,
            accept_after: None,
            told: Vec::with_capacity(TOLD_MAX),
        })
    }

    fn adopt(&mut self, socket: OwnedFd, connecting: bool) -> Result<Conn, Errno> {
        use epoll::EventFlags;
        let index = self.free.last().copied().unwrap_or(self.connections.len() as u32);
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index.into()), both)?;
        self.free.pop();
        let connection = Connection {
            socket: Some(socket),
            connecting,
            readable: false,
            writable: !connecting,
            ended: false,
            receiving: None,
            sending: None,
        };
        match self.connections.get_mut(index as usize) {
            Some(place) => *place = connection,
            None => self.connections.push(connection),
        }
        Ok(Conn(index))
    }

    fn accept(&mut self, listener: usize, events: &mut Vec<Event>) {
        for _ in 0..ACCEPTS_MAX {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let accepted = net::accept_with(&self.listeners[listener].socket, flags);
            match accepted.and_then(|socket| self.accepted(socket)) {
                Ok((conn, peer)) => events.push(Event::Accepted { listener, conn, peer }),
                Err(Errno::AGAIN) => {
                    self.listeners[listener].ready = false;
                    return;
                }
                // This client has left already; the next one may be there.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::NOTCONN) => {}
                Err(error) => {
                    events.push(Event::AcceptFailed { listener, error });
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn accepted(&mut self, socket: OwnedFd) -> Result<(Conn, Peer), Errno> {
        let peer = peer(&socket).ok_or(Errno::NOTCONN)?;
        Ok((self.adopt(socket, false)?, peer))
    }

    /// Accepts from listeners that may have somebody, unless a failure is too fresh. Gives what is left of the pause.
    fn accept_ready(&mut self, events: &mut Vec<Event>) -> Option<Duration> {
        if !self.listeners.iter().any(|l| l.ready) {
            return None;
        }
        let left = self.accept_after.map(|after| after.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| !left.is_zero()) {
            return left;
        }
        self.accept_after = None;
        for listener in 0..self.listeners.len() {
            if self.listeners[listener].ready {
                self.accept(listener, events);
            }
        }
        self.accept_after.map(|_| ACCEPT_PAUSE)
    }

    fn receive_ready(&mut self, slab: &mut Slab, events: &mut Vec<Event>) {
        let mut ready = std::mem::take(&mut self.ready);
        for conn in ready.drain(..) {
            self.try_receive(conn, slab, events);
        }
        // Those that found no slot have queued up again.
        ready.append(&mut self.ready);
        self.ready = ready;
    }

    fn try_receive(&mut self, conn: Conn, slab: &mut Slab, events: &mut Vec<Event>) {
        let connection = &mut self.connections[conn.0 as usize];
        let Some(socket) = &connection.socket else { return };
        let Some(target) = connection.receiving.take() else { return };
        let (slot, index, from) = match target {
            Target::Tail { slot, from } => (None, slot, from),
            Target::Any { .. } => {
                let Some(slot) = slab.take() else {
                    connection.receiving = Some(target);
                    return self.ready.push(conn);
                };
                let index = slot.index();
                (Some(slot), index, 0)
            }
        };
        let to = if let Target::Any { bytes_max } = target { bytes_max } else { SLOT_BYTES };
        let room = slab.lent_mut(index, from..to);
        let wanted = room.len();
        let result = retry_on_intr(|| net::recv(socket, &mut *room, RecvFlags::DONTWAIT)).map(|(bytes, _)| bytes);
        if result == Err(Errno::AGAIN) {
            (connection.readable, connection.ended) = (false, false);
            connection.receiving = Some(target);
            return slot.into_iter().for_each(|slot| slab.give(slot));
        }
        // Of a stream, less than was asked for was all; the next byte makes an edge (epoll(7)).
        connection.readable = connection.ended || result.is_ok_and(|bytes| bytes == wanted);
        let (slot, empty) = if result.is_ok_and(|bytes| bytes > 0) { (slot, None) } else { (None, slot) };
        empty.into_iter().for_each(|slot| slab.give(slot));
        events.push(Event::Received { conn, slot, result });
    }

    fn try_send(&mut self, conn: Conn, slab: &mut Slab) {
        let connection = &mut self.connections[conn.0 as usize];
        let Some(socket) = &connection.socket else { return };
        let Some(source) = connection.sending.take() else { return };
        let bytes = match &source {
            Source::Slot { slot, from, to } => &*slab.lent_mut(*slot, *from..*to),
            Source::Heap { bytes, from } => &bytes[*from..],
        };
        let result = retry_on_intr(|| net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL));
        if result == Err(Errno::AGAIN) {
            connection.writable = false;
            connection.sending = Some(source);
            return;
        }
        // What is left over, or an error, is work for the shell now.
        self.hurried |= result != Ok(bytes.len());
        let heap = match source {
            Source::Heap { bytes, .. } => Some(bytes),
            Source::Slot { .. } => None,
        };
        self.sent.push(Event::Sent { conn, result, heap });
    }

    /// An edge of a connection.
    fn happened(&mut self, conn: Conn, flags: epoll::EventFlags, slab: &mut Slab, events: &mut Vec<Event>) {
        use epoll::EventFlags;
        let connection = &mut self.connections[conn.0 as usize];
        let Some(socket) = &connection.socket else { return };
        let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let can_write = failed || flags.contains(EventFlags::OUT);
        if connection.connecting && can_write {
            connection.connecting = false;
            events.push(Event::Connected { conn, result: dialed(socket) });
        }
        connection.writable |= can_write;
        connection.ended |= failed || flags.contains(EventFlags::RDHUP);
        // What was readable before has had its turn, or stands in `ready`.
        let news = !connection.readable && (connection.ended || flags.contains(EventFlags::IN));
        connection.readable |= news;
        if can_write {
            self.try_send(conn, slab);
        }
        if news {
            self.try_receive(conn, slab, events);
        }
    }

    fn poll(&mut self, timeout: Duration, slab: &mut Slab, events: &mut Vec<Event>) {
        let mut told = std::mem::take(&mut self.told);
        let timeout = Timespec::try_from(timeout).ok();
        // EINTR means: nothing yet, come again.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut told), timeout.as_ref());
        for event in told.drain(..) {
            match event.data.u64() {
                BELL => {
                    let _ = rustix::io::read(&self.bell, &mut [0; 8]);
                    events.push(Event::Woken);
                }
                data if data & LISTENER != 0 => self.listeners[data as u32 as usize].ready = true,
                data => self.happened(Conn(data as u32), event.flags, slab, events),
            }
        }
        self.told = told;
    }

    fn submitted(&mut self, conn: Conn) -> &mut Connection {
        let connection = &mut self.connections[conn.0 as usize];
        debug_assert!(connection.socket.is_some(), "an operation on a closed connection");
        connection
    }

    fn receive_to(&mut self, conn: Conn, target: Target) {
        let connection = self.submitted(conn);
        debug_assert!(connection.receiving.is_none(), "two receives in flight");
        connection.receiving = Some(target);
        if connection.readable {
            self.ready.push(conn);
        }
    }
}

impl Io for Epoll {
    fn receive_at_most(&mut self, conn: Conn, bytes_max: usize) {
        self.receive_to(conn, Target::Any { bytes_max });
    }

    fn receive_into(&mut self, _slab: &Slab, conn: Conn, slot: &Slot, from: usize) {
        self.receive_to(conn, Target::Tail { slot: slot.index(), from });
    }

    fn send(&mut self, slab: &mut Slab, conn: Conn, lent: Lent<'_>) {
        let connection = self.submitted(conn);
        debug_assert!(connection.sending.is_none(), "two sends in flight");
        connection.sending = Some(lent.into());
        if connection.writable {
            self.try_send(conn, slab);
        }
    }

    fn hurry(&mut self) {
        self.hurried = true;
    }

    fn connect(&mut self, address: &Address) -> Result<Conn, Errno> {
        self.adopt(dial(address)?, true)
    }

    fn close(&mut self, conn: Conn, farewell: &[u8]) {
        let connection = &mut self.connections[conn.0 as usize];
        let Some(socket) = connection.socket.take() else { return };
        if !farewell.is_empty() {
            let _ = net::send(&socket, farewell, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
        (connection.receiving, connection.sending) = (None, None);
        self.closed.push(conn);
    }

    fn wait(&mut self, slab: &mut Slab, timeout: Duration, events: &mut Vec<Event>) {
        let mut at_once = !events.is_empty() || std::mem::take(&mut self.hurried) && !self.sent.is_empty();
        self.free.append(&mut self.retired);
        events.append(&mut self.sent);
        let lingering = events.len();
        for conn in self.closed.drain(..) {
            self.retired.push(conn.0);
            events.push(Event::Closed { conn });
        }
        self.receive_ready(slab, events);
        let pause = self.accept_ready(events);
        // What has been sent may give back the slots that the others wait for.
        at_once |= events.len() > lingering || lingering > 0 && !self.ready.is_empty();
        let timeout = if at_once { Duration::ZERO } else { pause.map_or(timeout, |pause| pause.min(timeout)) };
        self.poll(timeout, slab, events);
        self.accept_ready(events);
        events.append(&mut self.sent);
    }
}
