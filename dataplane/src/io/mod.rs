//! The io trait: completion-shaped. One submits an operation; later its event says n bytes, or why not.
//!
//! Rules that every driver keeps, so that sessions can be tested above any of them:
//! - at most one receive and one send are in flight per connection;
//! - a receive with no range of its own is given a slot by the driver when bytes are there, never before;
//! - after [`Io::close`] the operations in flight still complete, then [`Event::Closed`] is the last event of the connection;
//! - a [`Conn`] is used again only after its `Closed`.

pub mod driver;
pub mod epoll;
pub mod sim;
pub(crate) mod socket;
pub mod tls;
pub mod uring;

use std::time::Duration;

use rustix::io::Errno;

use crate::address::{Address, Peer};
use crate::buffer::{SLOT_BYTES, Slab, Slot};

/// How long drivers accept nothing after a failure (out of descriptors, say): the backlog keeps who comes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection's number in its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conn(pub u32);

/// Bytes lent to a send: a range of a slot that the caller keeps, or a buffer that comes back with the completion.
#[derive(Debug)]
pub enum Lent<'a> {
    Slot { slot: &'a Slot, from: usize, to: usize },
    Heap { bytes: Vec<u8>, from: usize },
}

/// A receive as whoever emulates completions keeps it.
#[derive(Debug)]
enum Target {
    Any { bytes_max: usize },
    Tail { slot: u32, from: usize },
}

/// A send as whoever emulates completions keeps it.
#[derive(Debug)]
enum Source {
    Slot { slot: u32, from: usize, to: usize },
    Heap { bytes: Vec<u8>, from: usize },
}

impl From<Lent<'_>> for Source {
    fn from(lent: Lent<'_>) -> Self {
        match lent {
            Lent::Slot { slot, from, to } => Self::Slot { slot: slot.index(), from, to },
            Lent::Heap { bytes, from } => Self::Heap { bytes, from },
        }
    }
}

#[derive(Debug)]
pub enum Event {
    Accepted {
        listener: usize,
        conn: Conn,
        peer: Peer,
    },
    AcceptFailed {
        listener: usize,
        error: Errno,
    },
    Connected {
        conn: Conn,
        result: Result<(), Errno>,
    },
    /// `slot` is set when the driver chose it. `Ok(0)` is the end of the stream.
    Received {
        conn: Conn,
        slot: Option<Slot>,
        result: Result<usize, Errno>,
    },
    Sent {
        conn: Conn,
        result: Result<usize, Errno>,
        heap: Option<Vec<u8>>,
    },
    /// The handshake that [`tls::SecureIo::secure`] began is over; why it failed is for the log.
    Secured {
        conn: Conn,
        result: Result<Box<crate::session::Secured>, String>,
    },
    Closed {
        conn: Conn,
    },
    /// Somebody wrote to the shard's event descriptor: there is mail.
    Woken,
}

pub trait Io {
    /// Receives into a slot of the driver's choice.
    fn receive(&mut self, conn: Conn) {
        self.receive_at_most(conn, SLOT_BYTES);
    }
    /// As [`Io::receive`], but no more than this, 1 to [`SLOT_BYTES`].
    fn receive_at_most(&mut self, conn: Conn, bytes_max: usize);
    /// Receives into `slot[from..]`, which the caller neither reads nor writes until the event.
    fn receive_into(&mut self, slab: &Slab, conn: Conn, slot: &Slot, from: usize);
    fn send(&mut self, slab: &mut Slab, conn: Conn, lent: Lent<'_>);
    /// Somebody waits for a send to complete. Without it a wait need not end for sends that were taken whole: they are told
    /// when it ends. One that was short, or has failed, ends it.
    fn hurry(&mut self) {}
    /// Opens a connection; its `Connected` follows.
    ///
    /// # Errors
    /// When no socket can be made (out of descriptors).
    fn connect(&mut self, address: &Address) -> Result<Conn, Errno>;
    /// `farewell` are last bytes, sent if the peer takes them at once.
    fn close(&mut self, conn: Conn, farewell: &[u8]);
    /// Performs what was submitted and waits for events, `timeout` at most. Appends them to `events`.
    fn wait(&mut self, slab: &mut Slab, timeout: Duration, events: &mut Vec<Event>);
}
