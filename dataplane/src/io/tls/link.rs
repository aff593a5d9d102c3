//! One connection's TLS: the engine, the ciphertext at hand, and what is owed to the shell. Knows no driver.

use rustix::io::Errno;
use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};

use super::Role;
use crate::buffer::{SLOT_BYTES, Slab, Slot};
use crate::io::Target;
use crate::session::Secured;

/// What a record adds to its plaintext, at most: head, nonce or content type, and tag.
const RECORD_OVERHEAD_BYTES: usize = 64;
const RECORD_BYTES: usize = 16 * 1024;

/// Ciphertext that is still to be decrypted: `start..filled` of a slot.
#[derive(Debug)]
pub struct Cipher {
    pub slot: Slot,
    pub start: usize,
    pub filled: usize,
}

pub enum Engine {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

pub struct Link {
    pub engine: Engine,
    /// The handshake is over, one way or the other, and the shell has been told.
    pub told: bool,
    pub failed: bool,
    pub why: Option<rustls::Error>,
    pub ended: bool,
    /// The shell has closed it: what still comes is of no interest.
    pub closing: bool,
    pub cipher: Option<Cipher>,
    /// The beginning of a record that was to keep no slot: it comes before all that is still to be received.
    pub parked: Box<[u8]>,
    /// A receive of ciphertext is in flight.
    pub receiving: bool,
    /// The receive that the shell has started.
    pub target: Option<Target>,
    /// Plaintext that the last target had no room for.
    pub surplus: Vec<u8>,
    /// Ciphertext that waits for the send in flight.
    pub outbound: Vec<u8>,
    pub sending: bool,
    /// The shell's send: its plaintext bytes, and the buffer that it lent.
    pub owed: Option<(usize, Option<Vec<u8>>)>,
}

/// Why a turn of the engine has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Again,
    NeedMore,
    Closed,
    Failed,
}

/// Where a turn's products go, and what it shall send.
struct Sink<'a> {
    room: &'a mut [u8],
    filled: usize,
    surplus: &'a mut Vec<u8>,
    outbound: &'a mut Vec<u8>,
    /// Plaintext to encrypt as soon as the engine can.
    plain: Option<&'a [u8]>,
    why: Option<rustls::Error>,
}

impl Sink<'_> {
    fn decrypted(&mut self, bytes: &[u8]) {
        let fits = if self.surplus.is_empty() { bytes.len().min(self.room.len() - self.filled) } else { 0 };
        self.room[self.filled..self.filled + fits].copy_from_slice(&bytes[..fits]);
        self.filled += fits;
        self.surplus.extend_from_slice(&bytes[fits..]);
    }
}

impl Engine {
    pub fn new(role: Role) -> Result<Self, rustls::Error> {
        Ok(match role {
            Role::Server(config) => Self::Server(UnbufferedServerConnection::new(config)?),
            Role::Client(config, name) => Self::Client(UnbufferedClientConnection::new(config, name)?),
        })
    }

    pub fn state(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }

    /// Works until it needs more ciphertext; returns how many bytes of `incoming` are done with.
    fn run(&mut self, incoming: &mut [u8], sink: &mut Sink<'_>) -> (usize, Turn) {
        let mut at = 0;
        loop {
            let (done, turn) = match self {
                Self::Server(connection) => take(connection.process_tls_records(&mut incoming[at..]), sink),
                Self::Client(connection) => take(connection.process_tls_records(&mut incoming[at..]), sink),
            };
            at += done;
            if turn != Turn::Again {
                return (at, turn);
            }
        }
    }

    /// The alert that ends a connection which is open.
    pub fn goodbye(&mut self) -> Vec<u8> {
        let mut out = vec![0; 2 * RECORD_OVERHEAD_BYTES];
        let written = match self {
            Self::Server(connection) => close_notify(connection.process_tls_records(&mut []), &mut out),
            Self::Client(connection) => close_notify(connection.process_tls_records(&mut []), &mut out),
        };
        out.truncate(written);
        out
    }
}

fn close_notify<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out).unwrap_or(0),
        _ => 0,
    }
}

fn take<Data>(status: UnbufferedStatus<'_, '_, Data>, sink: &mut Sink<'_>) -> (usize, Turn) {
    let turn = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => sink.decrypted(record.payload),
                Some(Err(_)) => break Turn::Failed,
                None => break Turn::Again,
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let at = sink.outbound.len();
            let mut written = data.encode(&mut []);
            if let Err(EncodeError::InsufficientSize(short)) = written {
                sink.outbound.resize(at + short.required_size, 0);
                written = data.encode(&mut sink.outbound[at..]);
            }
            if written.is_ok() { Turn::Again } else { Turn::Failed }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Turn::Again
        }
        Ok(ConnectionState::WriteTraffic(traffic)) => match sink.plain.take() {
            Some(plain) if !encrypt(traffic, plain, sink.outbound) => Turn::Failed,
            _ => Turn::NeedMore,
        },
        Ok(ConnectionState::BlockedHandshake) => Turn::NeedMore,
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Turn::Closed,
        // Early data is never accepted.
        Ok(_) => Turn::Failed,
        Err(error) => {
            sink.why = Some(error);
            Turn::Failed
        }
    };
    (status.discard, turn)
}

fn encrypt<Data>(mut traffic: WriteTraffic<'_, Data>, plain: &[u8], out: &mut Vec<u8>) -> bool {
    let at = out.len();
    out.resize(at + plain.len() + (plain.len() / RECORD_BYTES + 1) * RECORD_OVERHEAD_BYTES, 0);
    let mut written = traffic.encrypt(plain, &mut out[at..]);
    if let Err(EncryptError::InsufficientSize(short)) = written {
        out.resize(at + short.required_size, 0);
        written = traffic.encrypt(plain, &mut out[at..]);
    }
    out.truncate(at + written.as_ref().copied().unwrap_or(0));
    written.is_ok()
}

impl Link {
    /// # Errors
    /// There is no slot for `early`.
    pub fn new(engine: Engine, slab: &mut Slab, early: &[u8]) -> Result<Self, String> {
        let mut cipher = None;
        if !early.is_empty() {
            let slot = slab.take().ok_or("no slot is free for the handshake")?;
            slab.bytes_mut(&slot, 0..early.len()).copy_from_slice(early);
            cipher = Some(Cipher { slot, start: 0, filled: early.len() });
        }
        Ok(Self {
            engine,
            told: false,
            failed: false,
            why: None,
            ended: false,
            closing: false,
            cipher,
            parked: Box::default(),
            receiving: false,
            target: None,
            surplus: Vec::new(),
            outbound: Vec::new(),
            sending: false,
            owed: None,
        })
    }

    pub fn received(&mut self, slab: &mut Slab, slot: Option<Slot>, result: Result<usize, Errno>) {
        self.receiving = false;
        let bytes = result.unwrap_or(0);
        self.ended |= bytes == 0;
        match (slot, &mut self.cipher) {
            (Some(mut slot), None) if bytes > 0 => {
                slab.touch(&mut slot);
                let parked = std::mem::take(&mut self.parked);
                slab.prepend(&slot, &parked, bytes);
                self.cipher = Some(Cipher { slot, start: 0, filled: parked.len() + bytes });
            }
            // A slot of the driver's choice is asked for only while there is none.
            (Some(slot), _) => slab.give(slot),
            (None, Some(cipher)) => cipher.filled += bytes,
            (None, None) => {}
        }
    }

    /// Decrypts all whole records at hand. Plaintext goes to the target; `Some` is what it has got.
    pub fn decrypt(&mut self, slab: &mut Slab) -> Option<(Option<Slot>, usize)> {
        let fresh = match self.target {
            Some(Target::Any { .. }) if self.has_cipher() => Some(slab.take()?),
            _ => None,
        };
        let place = match (&fresh, &self.target) {
            (Some(slot), Some(Target::Any { bytes_max })) => Some((slot.index(), 0..*bytes_max)),
            (None, Some(Target::Tail { slot, from })) => Some((*slot, *from..SLOT_BYTES)),
            _ => None,
        };
        let (incoming, room): (&mut [u8], &mut [u8]) = match (&self.cipher, place) {
            (Some(c), Some(place)) => slab.two_mut((c.slot.index(), c.start..c.filled), place),
            (Some(c), None) => (slab.bytes_mut(&c.slot, c.start..c.filled), &mut []),
            (None, _) => (&mut [], &mut []),
        };
        let Self { surplus, outbound, .. } = self;
        let mut sink = Sink { room, filled: 0, surplus, outbound, plain: None, why: None };
        let (done, turn) = self.engine.run(incoming, &mut sink);
        let Sink { filled, why, .. } = sink;
        if let Some(cipher) = &mut self.cipher {
            cipher.start += done;
        }
        self.stopped(turn, why);
        if filled == 0 {
            fresh.into_iter().for_each(|s| slab.give(s));
            return None;
        }
        Some((fresh, filled))
    }

    fn stopped(&mut self, turn: Turn, why: Option<rustls::Error>) {
        self.ended |= turn == Turn::Closed;
        if turn == Turn::Failed && !std::mem::replace(&mut self.failed, true) {
            self.why = why;
            // The alert that says why is the last thing to leave.
            let (surplus, outbound) = (&mut Vec::new(), &mut self.outbound);
            self.engine.run(&mut [], &mut Sink { room: &mut [], filled: 0, surplus, outbound, plain: None, why: None });
        }
    }

    /// Encrypts what the shell sends. The engine looks at the ciphertext at hand on every call: `incoming` is that, or mostly
    /// nothing.
    pub fn encrypt(&mut self, incoming: &mut Vec<u8>, plain: &[u8]) {
        // A failed engine must not be asked again; the shell is about to be told.
        if self.failed {
            return;
        }
        let Self { surplus, outbound, .. } = self;
        let mut sink = Sink { room: &mut [], filled: 0, surplus, outbound, plain: Some(plain), why: None };
        let (mut done, mut turn) = self.engine.run(incoming, &mut sink);
        if turn == Turn::Closed {
            // The peer says no more; it may still listen.
            self.ended = true;
            let (more, then) = self.engine.run(&mut incoming[done..], &mut sink);
            (done, turn) = (done + more, then);
        }
        if sink.plain.is_some() {
            turn = Turn::Failed;
        }
        let why = sink.why;
        match &mut self.cipher {
            Some(cipher) => cipher.start += done,
            None => drop(incoming.drain(..done)),
        }
        self.stopped(turn, why);
    }

    /// Gives plaintext that was left over to the target.
    pub fn deliver_surplus(&mut self, slab: &mut Slab) -> Option<(Option<Slot>, usize)> {
        let (fresh, index, from, room) = match self.target.as_ref()? {
            Target::Any { bytes_max } => {
                let slot = slab.take()?;
                let index = slot.index();
                (Some(slot), index, 0, *bytes_max)
            }
            Target::Tail { slot, from } => (None, *slot, *from, SLOT_BYTES - from),
        };
        let bytes = self.surplus.len().min(room);
        slab.lent_mut(index, from..from + bytes).copy_from_slice(&self.surplus[..bytes]);
        self.surplus.drain(..bytes);
        self.surplus.shrink_to(0);
        Some((fresh, bytes))
    }

    /// Nothing is at hand and nothing on its way: the next thing to do is to receive.
    pub fn is_quiet(&self) -> bool {
        self.told
            && !self.failed
            && !self.ended
            && !self.receiving
            && self.has_nothing_at_hand()
            && self.surplus.is_empty()
    }

    /// No ciphertext is here, not even a part of a record.
    pub fn has_nothing_at_hand(&self) -> bool {
        self.cipher.is_none() && self.parked.is_empty()
    }

    /// Frees the slot of a record that is not whole, if its beginning has no more than `bytes_max`. All whole ones have been
    /// decrypted. Returns how many bytes are parked now.
    pub fn park(&mut self, slab: &mut Slab, bytes_max: usize) -> usize {
        let is_partial = !self.receiving && !self.failed && (!self.told || self.target.is_some());
        if !is_partial || !self.surplus.is_empty() {
            return 0;
        }
        let Some(cipher) = self.cipher.take_if(|c| c.filled - c.start <= bytes_max) else { return 0 };
        self.parked = (&*slab.bytes(&cipher.slot, cipher.start..cipher.filled)).into();
        slab.give(cipher.slot);
        self.parked.len()
    }

    pub fn has_cipher(&self) -> bool {
        self.cipher.as_ref().is_some_and(|c| c.start < c.filled)
    }

    /// Makes room for more ciphertext: an empty slot goes back, a fragment moves to its slot's head.
    pub fn compact(&mut self, slab: &mut Slab) {
        // The kernel may be writing behind a fragment.
        if self.receiving {
            return;
        }
        let Some(cipher) = &mut self.cipher else { return };
        if cipher.start == cipher.filled {
            slab.give(self.cipher.take().expect("checked").slot);
        } else if cipher.start > 0 {
            slab.bytes_mut(&cipher.slot, 0..cipher.filled).copy_within(cipher.start.., 0);
            (cipher.start, cipher.filled) = (0, cipher.filled - cipher.start);
            slab.touch(&mut cipher.slot);
        }
    }

    /// Takes what was parked into a slot again. False if none is free.
    pub fn unpark(&mut self, slab: &mut Slab) -> bool {
        if self.parked.is_empty() || self.receiving {
            return true;
        }
        let Some(slot) = slab.take() else { return false };
        let parked = std::mem::take(&mut self.parked);
        slab.prepend(&slot, &parked, 0);
        self.cipher = Some(Cipher { slot, start: 0, filled: parked.len() });
        true
    }

    pub fn secured(&self) -> Secured {
        let state = self.engine.state();
        let certificate = state.peer_certificates().and_then(|chain| chain.first());
        Secured {
            has_protocol: state.alpn_protocol().is_some(),
            peer_certificate: certificate.map(|c| c.as_ref().to_vec()),
        }
    }
}
