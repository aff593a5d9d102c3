//! The relay on the product's own drivers, through their public trait.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::buffer::{Slab, Slot};
use dataplane::io::driver::{Driver, Kind};
use dataplane::io::{Conn, Event, Io, Lent};
use dataplane::shard::listen::listen;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

const SLOTS: u32 = 1024;
const TIMEOUT: Duration = Duration::from_secs(1);

/// One side of a pair, and the bytes on their way to it.
#[derive(Default)]
struct Side {
    peer: Option<Conn>,
    /// In the send that is in flight: the slot, from where, to where.
    sending: Option<(Slot, usize, usize)>,
    /// Came in meanwhile.
    waiting: Option<(Slot, usize)>,
}

struct Relay {
    io: Driver,
    slab: Slab,
    sides: Vec<Side>,
    upstream: SocketAddr,
}

pub fn run(kind: Kind, address: SocketAddr, upstream: SocketAddr) {
    let mut slab = Slab::new(SLOTS).expect("memory");
    let bell = eventfd(0, EventfdFlags::CLOEXEC).expect("an event descriptor");
    let listeners = vec![listen(address).expect("the port is free")];
    let io = Driver::new(kind, &mut slab, listeners, bell).expect("the driver can be had");
    let mut relay = Relay { io, slab, sides: Vec::new(), upstream };
    let mut events = Vec::new();
    loop {
        relay.io.wait(&mut relay.slab, TIMEOUT, &mut events);
        events.drain(..).for_each(|event| relay.on(event));
    }
}

impl Relay {
    fn on(&mut self, event: Event) {
        match event {
            Event::Accepted { conn, .. } => self.pair(conn),
            Event::Connected { conn, result: Ok(()) } => {
                self.io.receive(conn);
                if let Some(peer) = self.side(conn).peer {
                    self.io.receive(peer);
                }
            }
            Event::Connected { conn, result: Err(_) } => self.end(conn),
            Event::Received { conn, slot: Some(slot), result: Ok(bytes) } if bytes > 0 => self.pass(conn, slot, bytes),
            Event::Received { conn, slot, .. } => {
                slot.into_iter().for_each(|slot| self.slab.give(slot));
                self.end(conn);
            }
            Event::Sent { conn, result, .. } => self.sent(conn, result),
            Event::Closed { conn } => {
                let side = std::mem::take(self.side(conn));
                let slots = side.sending.map(|(slot, ..)| slot).into_iter().chain(side.waiting.map(|(slot, _)| slot));
                slots.for_each(|slot| self.slab.give(slot));
            }
            Event::AcceptFailed { .. } | Event::Secured { .. } | Event::Woken => {}
        }
    }

    fn side(&mut self, conn: Conn) -> &mut Side {
        let at = conn.0 as usize;
        if self.sides.len() <= at {
            self.sides.resize_with(at + 1, Side::default);
        }
        &mut self.sides[at]
    }

    fn pair(&mut self, client: Conn) {
        match self.io.connect(&self.upstream.into()) {
            Ok(upstream) => {
                self.side(client).peer = Some(upstream);
                self.side(upstream).peer = Some(client);
            }
            Err(_) => self.io.close(client, b""),
        }
    }

    fn end(&mut self, conn: Conn) {
        if let Some(peer) = self.side(conn).peer.take() {
            self.side(peer).peer = None;
            self.io.close(peer, b"");
        }
        self.io.close(conn, b"");
    }

    /// To the peer; the next receive is armed at once, as there is a second slot.
    fn pass(&mut self, from: Conn, slot: Slot, bytes: usize) {
        let Some(to) = self.side(from).peer else { return self.slab.give(slot) };
        if self.side(to).sending.is_some() {
            self.side(to).waiting = Some((slot, bytes));
            return self.io.hurry();
        }
        self.send(to, slot, 0, bytes);
        self.io.receive(from);
    }

    fn send(&mut self, conn: Conn, slot: Slot, from: usize, to: usize) {
        self.io.send(&mut self.slab, conn, Lent::Slot { slot: &slot, from, to });
        self.side(conn).sending = Some((slot, from, to));
    }

    fn sent(&mut self, conn: Conn, result: Result<usize, Errno>) {
        let Some((slot, from, to)) = self.side(conn).sending.take() else { return };
        let Ok(bytes) = result else {
            self.slab.give(slot);
            return self.end(conn);
        };
        if from + bytes < to {
            return self.send(conn, slot, from + bytes, to);
        }
        self.slab.give(slot);
        let Some((slot, bytes)) = self.side(conn).waiting.take() else { return };
        self.send(conn, slot, 0, bytes);
        if let Some(peer) = self.side(conn).peer {
            self.io.receive(peer);
        }
    }
}
