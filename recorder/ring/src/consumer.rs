//! The recorder's side: copy a record out once, validate the copy, release it when it is on disk.
//!
//! The producer is not trusted. Every value is loaded once and checked after; a contradiction poisons the ring for
//! good, and the recorder goes on with the others.

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use crate::layout::{
    AttachError, Geometry, Memory, WORD_CONSUMER_POSITION, WORD_DURABLE_SEQ, WORD_PRODUCER_FIRST_SEQ,
    WORD_PRODUCER_HEARTBEAT, WORD_PRODUCER_POSITION, WORD_RECORDER_EPOCH, WORD_RECORDER_HEARTBEAT, WORD_WAITING,
};
use crate::record::{HEADER_BYTES, Header, Kind, align, unpack};

/// Padding skipped in one call: a producer that writes nothing else must not hold the recorder.
const PADS_A_POLL_MAX: usize = 1024;

/// The reading end of a ring. There is one a ring: attaching fences the consumer before it.
pub struct Consumer<M: Memory> {
    memory: M,
    geometry: Geometry,
    epoch: u64,
    /// What the producer may overwrite up to here; private, because the shared word can be changed by the other side.
    released: u64,
    /// Next record to copy out.
    read: u64,
    producer_seen: u64,
    durable_seq: u64,
    last_seq: Option<u64>,
    poisoned: Option<Poisoned>,
}

/// One record that was copied out; its payload is at the end of the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The checked header.
    pub header: Header,
    /// Position after the record: what [`Consumer::release`] wants when it is on disk.
    pub end_position: u64,
}

/// Why a ring is no longer read. It never heals: replace the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poisoned {
    /// The producer's position went back, ran ahead of the capacity, or is not aligned.
    Position,
    /// A record's length is zero, too small, too large, or crosses the end of the ring or the producer's position.
    Length,
    /// Kind, flags or reserved bytes have values that version 1 does not know.
    Header,
    /// The sequence number is not the one after the last.
    Sequence {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// A newer recorder has attached to this ring.
    Fenced,
}

impl fmt::Display for Poisoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Poisoned::Position => f.write_str("the producer's position is impossible"),
            Poisoned::Length => f.write_str("a record's length is impossible"),
            Poisoned::Header => f.write_str("a record's kind or flags are unknown"),
            Poisoned::Sequence { expected, found } => write!(f, "record {found} came where {expected} was due"),
            Poisoned::Fenced => f.write_str("a newer recorder has attached to this ring"),
        }
    }
}

impl std::error::Error for Poisoned {}

impl<M: Memory> Consumer<M> {
    /// Takes over the reading end, at the first record that was not yet released. Records up to the last durable one may
    /// come again: drop them by (ring id, sequence number).
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let geometry = Geometry::read(&memory)?;
        let epoch = memory.increment(WORD_RECORDER_EPOCH);
        let released = memory.load(WORD_CONSUMER_POSITION, Acquire);
        let producer_seen = memory.load(WORD_PRODUCER_POSITION, Acquire);
        if !geometry.positions_agree(released, producer_seen) {
            return Err(AttachError::Corrupt);
        }
        let durable_seq = memory.load(WORD_DURABLE_SEQ, Acquire);
        memory.store(WORD_WAITING, 1, SeqCst);
        Ok(Self {
            memory,
            geometry,
            epoch,
            released,
            read: released,
            producer_seen,
            durable_seq,
            last_seq: None,
            poisoned: None,
        })
    }

    /// Copies the next committed record to the end of `into`: header (32 bytes) and payload, without alignment.
    /// `None` when there is none yet; then, and on an error, `into` is as it was. Errors repeat for ever.
    pub fn poll(&mut self, into: &mut Vec<u8>) -> Result<Option<Record>, Poisoned> {
        if let Some(why) = self.poisoned {
            return Err(why);
        }
        let before = into.len();
        let polled = self.next(into);
        if !matches!(polled, Ok(Some(_))) {
            into.truncate(before);
        }
        self.poisoned = polled.err();
        polled
    }

    /// Tells the producer that everything before `position` is on disk, `seq` being the last record of it.
    /// Positions behind the last release or ahead of what was read change nothing.
    pub fn release(&mut self, position: u64, seq: u64) -> Result<(), Poisoned> {
        if self.memory.load(WORD_RECORDER_EPOCH, SeqCst) != self.epoch {
            self.poisoned = Some(Poisoned::Fenced);
            return Err(Poisoned::Fenced);
        }
        // The sequence goes first: a producer that finds the ring empty continues after it.
        if seq > self.durable_seq {
            self.durable_seq = seq;
            self.memory.store(WORD_DURABLE_SEQ, seq, Release);
        }
        if position > self.released && position <= self.read {
            self.released = position;
            self.memory.store(WORD_CONSUMER_POSITION, position, Release);
        }
        Ok(())
    }

    /// Goes back to the first record that was not released, to write it again after a failed flush.
    pub fn rewind(&mut self) {
        self.read = self.released;
        self.last_seq = None;
    }

    /// Position after the last record or padding that was read.
    pub fn position(&self) -> u64 {
        self.read
    }

    /// The highest sequence number that was released.
    pub fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// First sequence number of the producer that is attached now; 0 before the first. Sessions that were opened by an
    /// earlier record and not closed before this one have lost their producer.
    pub fn producer_first_seq(&self) -> u64 {
        self.memory.load(WORD_PRODUCER_FIRST_SEQ, Acquire)
    }

    /// When the producer last showed life (nanoseconds since 1970, its clock).
    pub fn producer_heartbeat_ns(&self) -> u64 {
        self.memory.load(WORD_PRODUCER_HEARTBEAT, Relaxed)
    }

    /// Shows the producer that recording works. Withheld when it does not, which stops the sessions.
    pub fn beat(&self, now_unix_ns: u64) {
        self.memory.store(WORD_RECORDER_HEARTBEAT, now_unix_ns, Relaxed);
    }

    /// Whether the producer has asked for a flush since the last call; arms the waiting word again.
    pub fn take_wake(&self) -> bool {
        let woken = self.memory.load(WORD_WAITING, SeqCst) == 0;
        if woken {
            self.memory.store(WORD_WAITING, 1, SeqCst);
        }
        woken
    }

    /// Bytes between what was released and the producer's position; at most the capacity.
    pub fn used_bytes(&self) -> usize {
        let used = self.memory.load(WORD_PRODUCER_POSITION, Relaxed).saturating_sub(self.released);
        used.min(self.geometry.capacity_bytes as u64) as usize
    }

    /// Size of the data, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.geometry.capacity_bytes
    }

    /// The ring's identity: random, set when it was created.
    pub fn ring_id(&self) -> u64 {
        self.geometry.ring_id
    }

    /// The memory, to wait for the producer through it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    fn next(&mut self, into: &mut Vec<u8>) -> Result<Option<Record>, Poisoned> {
        for _ in 0..PADS_A_POLL_MAX {
            if self.read == self.producer_seen && !self.look()? {
                return Ok(None);
            }
            let word = self.memory.load(self.geometry.word(self.read), Acquire);
            let (length, kind, _) = unpack(word).ok_or(Poisoned::Header)?;
            if length < 0 {
                return Ok(None);
            }
            let stride = self.stride(length as usize, kind)?;
            if kind == Kind::Pad {
                self.read += stride as u64;
                continue;
            }
            return self.copy(word, stride, into).map(Some);
        }
        Ok(None)
    }

    /// Loads the producer's position; whether there is something to read.
    fn look(&mut self) -> Result<bool, Poisoned> {
        let producer = self.memory.load(WORD_PRODUCER_POSITION, Acquire);
        if producer < self.producer_seen || !self.geometry.positions_agree(self.released, producer) {
            return Err(Poisoned::Position);
        }
        self.producer_seen = producer;
        Ok(producer > self.read)
    }

    fn stride(&self, length: usize, kind: Kind) -> Result<usize, Poisoned> {
        let stride = align(length);
        let sized = match kind {
            Kind::Pad => length >= 8 && stride == length,
            _ => length >= HEADER_BYTES && length - HEADER_BYTES <= self.geometry.payload_bytes_max(),
        };
        let ends = stride as u64 <= self.producer_seen - self.read
            && self.geometry.offset(self.read) + stride <= self.geometry.capacity_bytes;
        if sized && ends { Ok(stride) } else { Err(Poisoned::Length) }
    }

    fn copy(&mut self, word: u64, stride: usize, into: &mut Vec<u8>) -> Result<Record, Poisoned> {
        let start = into.len();
        // The commit word is the one that was checked, not a second look at it.
        into.extend_from_slice(&word.to_le_bytes());
        self.memory.load_bytes(self.geometry.word(self.read) + 1, stride / 8 - 1, into);
        let bytes = into.get(start..start + HEADER_BYTES).and_then(|bytes| bytes.try_into().ok());
        let header = bytes.and_then(Header::from_bytes).ok_or(Poisoned::Header)?;
        self.check_seq(header.seq)?;
        into.truncate(start + header.length as usize);
        self.read += stride as u64;
        self.last_seq = Some(header.seq);
        Ok(Record { header, end_position: self.read })
    }

    fn check_seq(&self, found: u64) -> Result<(), Poisoned> {
        let expected = self.last_seq.unwrap_or(self.durable_seq).saturating_add(1);
        // The first record after attaching may be durable already: its release was cut short by a death.
        let again = self.last_seq.is_none() && (1..=expected).contains(&found);
        if found == expected || again { Ok(()) } else { Err(Poisoned::Sequence { expected, found }) }
    }
}
