//! TLS over any driver: above it everything is plaintext.
//!
//! Ciphertext is received into a slot of its own and decrypted there; plaintext is copied once, into the slot that the
//! session asked for. What is sent is encrypted at once into a buffer that travels with the send. rustls allocates once a
//! record and direction. A connection that is not secured passes through untouched.
//! Source: RFC 8446, RFC 5246; <https://docs.rs/rustls/0.23/rustls/unbuffered/index.html>.

mod link;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use link::{Engine, Link};

use super::{Conn, Event, Io, Lent, Target};
use crate::address::Address;
use crate::buffer::{SLOT_BYTES, Slab, Slot};

/// Most plaintext that one send encrypts. A longer one is a short send.
const SEND_BYTES_MAX: usize = 2 * SLOT_BYTES;
/// Handshakes that one wait moves on: a signature takes up to a millisecond, and sessions that are in must not wait for many.
const HANDSHAKES_A_WAIT: usize = 1;
/// Beginnings of records that a shard's connections may hold together outside slots.
const PARKED_BYTES_MAX: usize = 32 << 20;
/// Buffers for ciphertext that are kept for the next send.
const SPARE_MAX: usize = 64;

/// Which end of the handshake we are.
#[derive(Clone, Debug)]
pub enum Role {
    Server(Arc<ServerConfig>),
    Client(Arc<ClientConfig>, ServerName<'static>),
}

/// A driver whose connections can be secured.
pub trait SecureIo: Io {
    /// From here on the connection's bytes are TLS; [`Event::Secured`] follows. `early` are bytes of the peer's handshake that
    /// have been received already. No operation is in flight.
    fn secure(&mut self, slab: &mut Slab, conn: Conn, role: Role, early: &[u8]);

    /// When the slot was taken that ciphertext of the connection is in, in the slab's seconds.
    fn oldest_slot_s(&self, _conn: Conn) -> Option<u32> {
        None
    }
}

pub struct Tls<I> {
    inner: I,
    /// By connection.
    links: Vec<Option<Box<Link>>>,
    secured: usize,
    /// What the links' `parked` have together.
    parked_bytes: usize,
    /// Connections that may have something to deliver without anything new from the driver.
    ready: Vec<Conn>,
    /// Connections whose peer has said something in the handshake.
    greeted: VecDeque<Conn>,
    spare: Vec<Vec<u8>>,
    inbox: Vec<Event>,
    /// Handshakes that could not even begin, to be told at the next wait.
    stillborn: Vec<Event>,
}

fn linked(links: &mut [Option<Box<Link>>], conn: Conn) -> Option<&mut Link> {
    links.get_mut(conn.0 as usize)?.as_deref_mut()
}

/// No more plaintext will come: whatever the shell waits for is answered with that.
fn tell_the_end(link: &mut Link, conn: Conn, events: &mut Vec<Event>) {
    if !std::mem::replace(&mut link.told, true) {
        let why = link.why.as_ref().map_or("the connection was closed in the handshake".into(), ToString::to_string);
        events.push(Event::Secured { conn, result: Err(why) });
    } else if link.target.take().is_some() {
        let result = if link.failed { Err(Errno::PROTO) } else { Ok(0) };
        events.push(Event::Received { conn, slot: None, result });
    }
    if link.failed {
        let owed = link.owed.take();
        events.extend(owed.map(|(_, heap)| Event::Sent { conn, result: Err(Errno::PIPE), heap }));
    }
}

impl<I: Io> Tls<I> {
    pub fn new(inner: I) -> Self {
        let (links, ready, spare) = (Vec::new(), Vec::new(), Vec::new());
        let (inbox, stillborn, greeted) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { inner, links, secured: 0, parked_bytes: 0, ready, greeted, spare, inbox, stillborn }
    }

    pub fn inner(&mut self) -> &mut I {
        &mut self.inner
    }

    /// Moves a connection on: decrypts, delivers, tells of the handshake's end, sends what the engine has to say.
    fn progress(&mut self, conn: Conn, slab: &mut Slab, events: &mut Vec<Event>) {
        let Some(link) = linked(&mut self.links, conn).filter(|l| !l.closing) else { return };
        let slotless = matches!(link.target, Some(Target::Any { .. })) && slab.free() == 0;
        let given = match link.surplus.is_empty() {
            false => link.deliver_surplus(slab),
            true if link.failed || link.told && (link.target.is_none() || !link.has_cipher()) => None,
            true => link.decrypt(slab),
        };
        if !link.told && !link.failed && !link.engine.state().is_handshaking() {
            link.told = true;
            events.push(Event::Secured { conn, result: Ok(Box::new(link.secured())) });
        }
        let delivered = given.is_some();
        if let Some((slot, bytes)) = given {
            link.target = None;
            events.push(Event::Received { conn, slot, result: Ok(bytes) });
        }
        link.compact(slab);
        if link.failed && (link.sending || !link.outbound.is_empty()) {
            // The shell closes as soon as it is told, and the alert would not leave.
            self.fly(conn, slab);
            return self.inner.hurry();
        }
        if link.failed || link.ended && link.surplus.is_empty() && !delivered {
            tell_the_end(link, conn, events);
        }
        if slotless && (link.has_cipher() || !link.surplus.is_empty()) {
            self.ready.push(conn);
        }
        if !slotless && slab.is_short() {
            self.parked_bytes += link.park(slab, PARKED_BYTES_MAX - self.parked_bytes);
        }
        self.fly(conn, slab);
        self.listen(conn, slab);
    }

    /// A peer has said something in its handshake, which waits for its turn.
    fn greet(&mut self, conn: Conn, slab: &mut Slab) {
        let Some(link) = linked(&mut self.links, conn) else { return };
        if slab.is_short() {
            self.parked_bytes += link.park(slab, PARKED_BYTES_MAX - self.parked_bytes);
        }
        self.greeted.push_back(conn);
    }

    fn shake_hands(&mut self, slab: &mut Slab, events: &mut Vec<Event>) {
        for _ in 0..HANDSHAKES_A_WAIT {
            let Some(conn) = self.greeted.pop_front() else { return };
            let Some(link) = linked(&mut self.links, conn).filter(|l| !l.receiving) else { continue };
            self.parked_bytes -= link.parked.len();
            let has_slot = link.unpark(slab);
            self.parked_bytes += link.parked.len();
            match has_slot {
                true => self.progress(conn, slab, events),
                false => return self.greeted.push_back(conn),
            }
        }
    }

    /// Starts a receive of ciphertext, if anybody waits for what it brings.
    fn listen(&mut self, conn: Conn, slab: &Slab) {
        let Some(link) = linked(&mut self.links, conn) else { return };
        let wanted = !link.told || link.target.is_some();
        if link.receiving || link.ended || link.failed || !wanted || !link.surplus.is_empty() {
            return;
        }
        match &link.cipher {
            None => self.inner.receive_at_most(conn, SLOT_BYTES - link.parked.len()),
            Some(c) if c.filled < SLOT_BYTES => self.inner.receive_into(slab, conn, &c.slot, c.filled),
            // Only while no slot is free for its plaintext: it is looked at again.
            Some(_) => return,
        }
        link.receiving = true;
    }

    /// Sends the ciphertext that waits.
    fn fly(&mut self, conn: Conn, slab: &mut Slab) {
        let Some(link) = linked(&mut self.links, conn) else { return };
        if link.outbound.is_empty() {
            return;
        }
        if std::mem::replace(&mut link.sending, true) {
            // The next buffer can leave only when this one has.
            return self.inner.hurry();
        }
        let bytes = std::mem::take(&mut link.outbound);
        let unasked = link.owed.is_none();
        self.inner.send(slab, conn, Lent::Heap { bytes, from: 0 });
        if unasked {
            // The shell knows nothing of this send; the rest of a short one must not wait for another event.
            self.inner.hurry();
        }
    }

    fn sent(
        &mut self,
        conn: Conn,
        result: Result<usize, Errno>,
        heap: Option<Vec<u8>>,
        slab: &mut Slab,
        events: &mut Vec<Event>,
    ) {
        let Some(link) = linked(&mut self.links, conn) else { return };
        link.sending = false;
        let mut bytes = heap.unwrap_or_default();
        bytes.drain(..result.unwrap_or(bytes.len()).min(bytes.len()));
        if !bytes.is_empty() {
            bytes.append(&mut link.outbound);
            link.outbound = bytes;
        } else if self.spare.len() < SPARE_MAX {
            self.spare.push(bytes);
        }
        if (link.outbound.is_empty() || result.is_err())
            && let Some((plain, heap)) = link.owed.take()
        {
            events.push(Event::Sent { conn, result: result.map(|_| plain), heap });
        }
        if result.is_err() {
            link.outbound.clear();
        }
        if link.failed {
            return self.progress(conn, slab, events);
        }
        if !link.outbound.is_empty() {
            // The shell's hurry, if it was in one, was for the part that has left.
            self.fly(conn, slab);
            self.inner.hurry();
        }
    }

    /// An event of the driver, as the shell shall see it.
    fn translate(&mut self, event: Event, slab: &mut Slab, events: &mut Vec<Event>) {
        let conn = match &event {
            Event::Received { conn, .. } | Event::Sent { conn, .. } | Event::Closed { conn } => *conn,
            _ => return events.push(event),
        };
        let Some(link) = linked(&mut self.links, conn) else { return events.push(event) };
        match event {
            Event::Received { slot, .. } if link.closing => slot.into_iter().for_each(|s| slab.give(s)),
            Event::Sent { .. } if link.closing => {}
            Event::Received { slot, result, .. } => {
                self.parked_bytes -= link.parked.len();
                link.received(slab, slot, result);
                self.parked_bytes += link.parked.len();
                match link.told {
                    true => self.progress(conn, slab, events),
                    false => self.greet(conn, slab),
                }
            }
            Event::Sent { result, heap, .. } => self.sent(conn, result, heap, slab, events),
            _ => {
                if let Some(link) = self.links[conn.0 as usize].take() {
                    self.parked_bytes -= link.parked.len();
                    link.cipher.into_iter().for_each(|cipher| slab.give(cipher.slot));
                }
                self.secured -= 1;
                events.push(event);
            }
        }
    }
}

impl<I: Io> SecureIo for Tls<I> {
    fn secure(&mut self, slab: &mut Slab, conn: Conn, role: Role, early: &[u8]) {
        let begun = Engine::new(role).map_err(|e| e.to_string()).and_then(|engine| Link::new(engine, slab, early));
        let link = match begun {
            Ok(link) => link,
            Err(why) => return self.stillborn.push(Event::Secured { conn, result: Err(why) }),
        };
        if self.links.len() <= conn.0 as usize {
            self.links.resize_with(conn.0 as usize + 1, || None);
        }
        self.links[conn.0 as usize] = Some(Box::new(link));
        self.secured += 1;
        self.ready.push(conn);
    }

    fn oldest_slot_s(&self, conn: Conn) -> Option<u32> {
        let link = self.links.get(conn.0 as usize)?.as_ref()?;
        link.cipher.as_ref().map(|cipher| cipher.slot.since_s())
    }
}

impl<I: Io> Io for Tls<I> {
    fn receive_at_most(&mut self, conn: Conn, bytes_max: usize) {
        match linked(&mut self.links, conn) {
            None => self.inner.receive_at_most(conn, bytes_max),
            Some(link) => {
                link.target = Some(Target::Any { bytes_max });
                match link.is_quiet() {
                    true => {
                        link.receiving = true;
                        self.inner.receive(conn);
                    }
                    false => self.ready.push(conn),
                }
            }
        }
    }

    fn receive_into(&mut self, slab: &Slab, conn: Conn, slot: &Slot, from: usize) {
        match linked(&mut self.links, conn) {
            None => self.inner.receive_into(slab, conn, slot, from),
            Some(link) => {
                link.target = Some(Target::Tail { slot: slot.index(), from });
                self.ready.push(conn);
            }
        }
    }

    fn send(&mut self, slab: &mut Slab, conn: Conn, lent: Lent<'_>) {
        let Some(link) = linked(&mut self.links, conn) else {
            return self.inner.send(slab, conn, lent);
        };
        if link.outbound.capacity() == 0 {
            link.outbound = self.spare.pop().unwrap_or_default();
        }
        let mut incoming = match &link.cipher {
            Some(cipher) => slab.bytes(&cipher.slot, cipher.start..cipher.filled).to_vec(),
            None => link.parked.to_vec(),
        };
        let at = link.cipher.as_ref().map_or(0, |c| c.start);
        let (bytes, heap) = match lent {
            Lent::Slot { slot, from, to } => {
                let to = to.min(from + SEND_BYTES_MAX);
                link.encrypt(&mut incoming, slab.bytes(slot, from..to));
                (to - from, None)
            }
            Lent::Heap { bytes, from } => {
                let to = bytes.len().min(from + SEND_BYTES_MAX);
                link.encrypt(&mut incoming, &bytes[from..to]);
                (to - from, Some(bytes))
            }
        };
        if let Some(cipher) = &link.cipher {
            slab.bytes_mut(&cipher.slot, at..at + incoming.len()).copy_from_slice(&incoming);
        } else {
            self.parked_bytes -= link.parked.len() - incoming.len();
            link.parked = incoming.into();
        }
        link.owed = Some((bytes, heap));
        if link.failed {
            self.ready.push(conn);
        }
        self.fly(conn, slab);
    }

    fn hurry(&mut self) {
        self.inner.hurry();
    }

    fn connect(&mut self, address: &Address) -> Result<Conn, Errno> {
        self.inner.connect(address)
    }

    fn close(&mut self, conn: Conn, farewell: &[u8]) {
        match linked(&mut self.links, conn) {
            None => self.inner.close(conn, farewell),
            Some(link) => {
                link.closing = true;
                let can_say_it = link.told && !link.failed && !link.sending && link.has_nothing_at_hand();
                let goodbye = if can_say_it { link.engine.goodbye() } else { Vec::new() };
                self.inner.close(conn, &goodbye);
            }
        }
    }

    fn wait(&mut self, slab: &mut Slab, timeout: Duration, events: &mut Vec<Event>) {
        events.append(&mut self.stillborn);
        for conn in std::mem::take(&mut self.ready) {
            match linked(&mut self.links, conn) {
                Some(link) if !link.told && link.has_cipher() => self.greet(conn, slab),
                _ => self.progress(conn, slab, events),
            }
        }
        if self.secured == 0 {
            return self.inner.wait(slab, timeout, events);
        }
        let timeout = if events.is_empty() && self.greeted.is_empty() { timeout } else { Duration::ZERO };
        let mut inbox = std::mem::take(&mut self.inbox);
        self.inner.wait(slab, timeout, &mut inbox);
        for event in inbox.drain(..) {
            self.translate(event, slab, events);
        }
        self.inbox = inbox;
        self.shake_hands(slab, events);
    }
}
