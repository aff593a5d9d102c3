//! An io driver without a kernel: the test says what comes, it notes what leaves, and it allocates nothing of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use dataplane::address::Address;
use dataplane::buffer::{SLOT_BYTES, Slab, Slot};
use dataplane::io::tls::{Role, SecureIo};
use dataplane::io::{Conn, Event, Io, Lent};
use rustix::io::Errno;

/// Room made beforehand, so that nothing grows while allocations are counted.
const NOTES_MAX: usize = 1 << 12;
const CONNECTIONS_MAX: usize = 1 << 13;

/// A send as the shard asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    pub conn: Conn,
    /// The slot that the bytes lie in; `None` for bytes of the gateway's own.
    pub slot: Option<u32>,
    pub bytes: usize,
}

pub struct Desk {
    due: VecDeque<Due>,
    /// Whether a receive waits on the connection.
    receiving: Vec<bool>,
    connections: u32,
    /// Waits that found something to do. io_uring tells of a completed send together with the next message, so half of them
    /// are no system call there.
    pub turns: usize,
    pub sent: Vec<Sent>,
    /// Slots that received bytes were given to the shard in.
    pub filled: Vec<u32>,
    /// What was sent, in order, while it was wanted.
    pub output: Vec<u8>,
}

enum Due {
    Event(Event),
    Bytes(Conn, [u8; 1024], usize),
}

impl Desk {
    pub fn new() -> Desk {
        Desk {
            due: VecDeque::with_capacity(16),
            receiving: Vec::with_capacity(CONNECTIONS_MAX),
            connections: 0,
            turns: 0,
            sent: Vec::with_capacity(NOTES_MAX),
            filled: Vec::with_capacity(NOTES_MAX),
            output: Vec::with_capacity(1 << 20),
        }
    }

    /// A client connects.
    pub fn accept(&mut self) -> Conn {
        let conn = self.open();
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        self.due.push_back(Due::Event(Event::Accepted { listener: 0, conn, peer: peer.into() }));
        conn
    }

    /// Bytes arrive for the gateway.
    pub fn arrive(&mut self, conn: Conn, bytes: &[u8]) {
        let mut held = [0; 1024];
        held[..bytes.len()].copy_from_slice(bytes);
        self.due.push_back(Due::Bytes(conn, held, bytes.len()));
    }

    pub fn is_quiet(&self) -> bool {
        self.due.is_empty()
    }

    pub fn forget(&mut self) {
        self.turns = 0;
        self.sent.clear();
        self.filled.clear();
        self.output.clear();
    }

    fn open(&mut self) -> Conn {
        let conn = Conn(self.connections);
        self.connections += 1;
        self.receiving.push(false);
        conn
    }

    fn receiving(&mut self, conn: Conn) -> &mut bool {
        &mut self.receiving[conn.0 as usize]
    }
}

impl SecureIo for Desk {
    fn secure(&mut self, _slab: &mut Slab, conn: Conn, _role: Role, _early: &[u8]) {
        panic!("TLS was not asked for on {conn:?}");
    }
}

impl Io for Desk {
    fn receive_at_most(&mut self, conn: Conn, _: usize) {
        assert!(!std::mem::replace(self.receiving(conn), true), "two receives at once on {conn:?}");
    }

    fn receive_into(&mut self, _: &Slab, conn: Conn, slot: &Slot, from: usize) {
        panic!("{conn:?} waits in slot {} from byte {from} on: an idle connection must own no slot", slot.index());
    }

    fn send(&mut self, slab: &mut Slab, conn: Conn, lent: Lent<'_>) {
        let (slot, bytes, heap) = match lent {
            Lent::Slot { slot, from, to } => {
                self.output.extend_from_slice(slab.bytes(slot, from..to));
                (Some(slot.index()), to - from, None)
            }
            Lent::Heap { bytes, from } => {
                self.output.extend_from_slice(&bytes[from..]);
                (None, bytes.len() - from, Some(bytes))
            }
        };
        self.sent.push(Sent { conn, slot, bytes });
        self.due.push_back(Due::Event(Event::Sent { conn, result: Ok(bytes), heap }));
    }

    fn connect(&mut self, _: &Address) -> Result<Conn, Errno> {
        let conn = self.open();
        self.due.push_back(Due::Event(Event::Connected { conn, result: Ok(()) }));
        Ok(conn)
    }

    fn close(&mut self, conn: Conn, _farewell: &[u8]) {
        panic!("the gateway closes {conn:?} after {:?}", String::from_utf8_lossy(&self.output));
    }

    fn wait(&mut self, slab: &mut Slab, _: Duration, events: &mut Vec<Event>) {
        self.turns += 1;
        events.extend(match self.due.pop_front() {
            None => None,
            Some(Due::Event(event)) => Some(event),
            Some(Due::Bytes(conn, held, bytes)) => {
                assert!(std::mem::replace(self.receiving(conn), false), "no receive waits on {conn:?}");
                let slot = slab.take().expect("the slab has a free slot");
                slab.bytes_mut(&slot, 0..SLOT_BYTES.min(bytes)).copy_from_slice(&held[..bytes]);
                self.filled.push(slot.index());
                Some(Event::Received { conn, slot: Some(slot), result: Ok(bytes) })
            }
        });
    }
}
