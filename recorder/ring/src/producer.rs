//! The dataplane's side: claim, write in place, commit. No allocation, no lock, no system call, no panic.

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::layout::{
    AttachError, Geometry, Memory, SEQ_MAX, WORD_CONSUMER_POSITION, WORD_DURABLE_SEQ, WORD_PRODUCER_EPOCH,
    WORD_PRODUCER_FIRST_SEQ, WORD_PRODUCER_HEARTBEAT, WORD_PRODUCER_POSITION, WORD_RECORDER_HEARTBEAT, WORD_WAITING,
};
use crate::record::{Flags, Gap, HEADER_BYTES, Kind, Level, Receipt, align, pack, unpack};

/// The writing end of a ring. There is one a ring: attaching fences the producer before it.
pub struct Producer<M: Memory> {
    memory: M,
    geometry: Geometry,
    epoch: u64,
    next_seq: u64,
    position: u64,
    /// The consumer's position when we last looked: its cache line is read only when this says "full".
    consumer_seen: u64,
    skipped: Option<Gap>,
}

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// No room until the recorder has flushed more: stop reading, try again.
    Full,
    /// More than [`Producer::payload_bytes_max`]: split the payload over records with BEGIN and END.
    TooLarge,
    /// A newer producer has attached to this ring: this one must write no more.
    Fenced,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClaimError::Full => "the ring is full until the recorder has flushed more",
            ClaimError::TooLarge => "the payload is larger than an eighth of the ring; split it",
            ClaimError::Fenced => "a newer producer has attached to this ring",
        })
    }
}

impl std::error::Error for ClaimError {}

/// A part did not fit the claim; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl<M: Memory> Producer<M> {
    /// Takes over the writing end. What a dead producer claimed and did not commit becomes padding; the sequence goes
    /// on after its last committed record.
    pub fn attach(memory: M) -> Result<Self, AttachError> {
        let geometry = Geometry::read(&memory)?;
        let epoch = memory.increment(WORD_PRODUCER_EPOCH);
        let consumer = memory.load(WORD_CONSUMER_POSITION, Acquire);
        let position = memory.load(WORD_PRODUCER_POSITION, Acquire);
        if !geometry.positions_agree(consumer, position) {
            return Err(AttachError::Corrupt);
        }
        let last_seq = unblock(&memory, &geometry, consumer, position)?;
        // Without a record in the ring the recorder has flushed all of them, and says so before it moves its position.
        let last_seq = last_seq.unwrap_or_else(|| memory.load(WORD_DURABLE_SEQ, Acquire));
        if last_seq > SEQ_MAX {
            return Err(AttachError::Corrupt);
        }
        let next_seq = last_seq + 1;
        memory.store(WORD_PRODUCER_FIRST_SEQ, next_seq, Release);
        Ok(Self { memory, geometry, epoch, next_seq, position, consumer_seen: consumer, skipped: None })
    }

    /// Reserves room for a record with at most `payload_bytes` of payload.
    pub fn try_claim(&mut self, payload_bytes: usize) -> Result<Claim<'_, M>, ClaimError> {
        if payload_bytes > self.payload_bytes_max() {
            return Err(ClaimError::TooLarge);
        }
        if self.memory.load(WORD_PRODUCER_EPOCH, Relaxed) != self.epoch {
            return Err(ClaimError::Fenced);
        }
        let length = HEADER_BYTES + payload_bytes;
        let stride = align(length);
        let to_end = self.geometry.capacity_bytes - self.geometry.offset(self.position);
        let filler = if stride > to_end { to_end } else { 0 };
        if !self.has_room(filler + stride) {
            return Err(ClaimError::Full);
        }
        if filler > 0 {
            self.pad(self.position, filler, Relaxed);
            self.position += filler as u64;
        }
        let start = self.position;
        // The mark of an unfinished record is in place before the position makes it visible.
        self.memory.store(self.geometry.word(start), pack(-(length as i32), Kind::Pad, Flags::NONE), Relaxed);
        self.position += stride as u64;
        self.memory.store(WORD_PRODUCER_POSITION, self.position, Release);
        Ok(Claim { producer: self, start, payload_bytes_max: payload_bytes, written: 0, partial: [0; 8], done: false })
    }

    /// Largest payload of one record, in bytes: an eighth of the capacity.
    pub fn payload_bytes_max(&self) -> usize {
        self.geometry.payload_bytes_max()
    }

    /// The ring's identity: random, set when it was created.
    pub fn ring_id(&self) -> u64 {
        self.geometry.ring_id
    }

    /// Size of the data, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.geometry.capacity_bytes
    }

    /// Bytes that the recorder has not yet flushed, as of now.
    pub fn used_bytes(&self) -> usize {
        let used = self.position.wrapping_sub(self.memory.load(WORD_CONSUMER_POSITION, Relaxed));
        used.min(self.geometry.capacity_bytes as u64) as usize
    }

    /// Bytes free, as of now. A claim may need more than its size: a record never wraps around the end.
    pub fn free_bytes(&self) -> usize {
        self.geometry.capacity_bytes - self.used_bytes()
    }

    /// Used part of the ring, 0.0 to 1.0.
    pub fn used_fraction(&self) -> f32 {
        self.used_bytes() as f32 / self.geometry.capacity_bytes as f32
    }

    /// The highest sequence number that the recorder has flushed to disk; 0 before the first.
    pub fn durable_seq(&self) -> u64 {
        self.memory.load(WORD_DURABLE_SEQ, Acquire)
    }

    /// The receipt at level L2, once the record is on disk.
    pub fn confirm(&self, receipt: Receipt) -> Option<Receipt> {
        let durable = receipt.level >= Level::L1 && receipt.seq <= self.durable_seq();
        durable.then_some(Receipt::new(receipt.seq, Level::L2))
    }

    /// Counts one record that level L0 drops, and gives a receipt of that level. The gap must be written as soon as
    /// there is room: see [`Producer::take_gap`].
    pub fn skip(&mut self) -> Receipt {
        let gap = self.skipped.get_or_insert(Gap { first_seq: self.next_seq, count: 0 });
        gap.count = gap.count.saturating_add(1);
        Receipt::new(gap.first_seq, Level::L0)
    }

    /// The records dropped since the last call: payload for a [`Kind::Gap`] record.
    pub fn take_gap(&mut self) -> Option<Gap> {
        self.skipped.take()
    }

    /// When the recorder last showed life, on the recorder's clock (nanoseconds since 1970); 0 before the first time.
    pub fn recorder_heartbeat_ns(&self) -> u64 {
        self.memory.load(WORD_RECORDER_HEARTBEAT, Relaxed)
    }

    /// Shows the recorder that this producer lives.
    pub fn beat(&self, now_unix_ns: u64) {
        self.memory.store(WORD_PRODUCER_HEARTBEAT, now_unix_ns, Relaxed);
    }

    /// Whether [`crate::Mapped::wake`] would make the recorder flush sooner: it sleeps or gathers a block. Worth its system
    /// call only after an L2 record or above half full.
    pub fn wake_needed(&self) -> bool {
        self.memory.load(WORD_WAITING, Acquire) != 0
    }

    /// The memory, to wake the recorder through it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        let capacity = self.geometry.capacity_bytes as u64;
        let fits = |consumer: u64| self.position + bytes as u64 - consumer <= capacity;
        if fits(self.consumer_seen) {
            return true;
        }
        let consumer = self.memory.load(WORD_CONSUMER_POSITION, Acquire);
        // A position that goes back or runs ahead is not believed: the ring then stays full, which stops the sessions.
        if consumer < self.consumer_seen || !self.geometry.positions_agree(consumer, self.position) {
            return false;
        }
        let room = fits(consumer);
        self.consumer_seen = consumer;
        room
    }

    fn pad(&self, position: u64, bytes: usize, order: core::sync::atomic::Ordering) {
        self.memory.store(self.geometry.word(position), pack(bytes as i32, Kind::Pad, Flags::NONE), order);
    }
}

/// Room for one record. Dropped without [`Claim::commit`] it becomes padding and consumes no sequence number.
#[must_use]
pub struct Claim<'p, M: Memory> {
    producer: &'p mut Producer<M>,
    start: u64,
    payload_bytes_max: usize,
    written: usize,
    /// The last word when it is not full: words are stored whole.
    partial: [u8; 8],
    done: bool,
}

impl<M: Memory> Claim<'_, M> {
    /// Appends a part of the payload: the only copy. A part that does not fit is refused whole.
    #[must_use = "a part that did not fit is not recorded"]
    pub fn write(&mut self, part: &[u8]) -> Result<(), TooLong> {
        if part.len() > self.payload_bytes_max - self.written {
            return Err(TooLong);
        }
        let held = self.written % 8;
        let mut rest = part;
        if held > 0 {
            let (head, tail) = part.split_at(part.len().min(8 - held));
            self.partial[held..held + head.len()].copy_from_slice(head);
            rest = tail;
            if held + head.len() < 8 {
                self.written += head.len();
                return Ok(());
            }
            self.producer.memory.store_bytes(self.word_at(self.written - held), &self.partial);
            self.written += head.len();
        }
        let (whole, tail) = rest.split_at(rest.len() & !7);
        self.producer.memory.store_bytes(self.word_at(self.written), whole);
        self.partial = [0; 8];
        self.partial[..tail.len()].copy_from_slice(tail);
        self.written += rest.len();
        Ok(())
    }

    /// Bytes of payload that still fit.
    pub fn room_bytes(&self) -> usize {
        self.payload_bytes_max - self.written
    }

    /// Publishes what was written as one record. The receipt's level is L1: it is in the ring.
    pub fn commit(mut self, kind: Kind, flags: Flags, session: u64, time_unix_ns: u64) -> Receipt {
        if !self.written.is_multiple_of(8) {
            self.producer.memory.store_bytes(self.word_at(self.written & !7), &self.partial);
        }
        let length = HEADER_BYTES + self.written;
        let unused = self.stride_bytes() - align(length);
        if unused > 0 {
            self.producer.pad(self.start + align(length) as u64, unused, Relaxed);
        }
        let seq = self.producer.next_seq;
        let word = self.producer.geometry.word(self.start);
        for (n, value) in [session, seq, time_unix_ns].into_iter().enumerate() {
            self.producer.memory.store(word + 1 + n, value, Relaxed);
        }
        self.producer.memory.store(word, pack(length as i32, kind, flags), Release);
        self.producer.next_seq += 1;
        self.done = true;
        Receipt::new(seq, Level::L1)
    }

    fn stride_bytes(&self) -> usize {
        align(HEADER_BYTES + self.payload_bytes_max)
    }

    fn word_at(&self, payload_offset: usize) -> usize {
        self.producer.geometry.word(self.start) + (HEADER_BYTES + payload_offset) / 8
    }
}

impl<M: Memory> Drop for Claim<'_, M> {
    fn drop(&mut self) {
        if !self.done {
            self.producer.pad(self.start, self.stride_bytes(), Release);
        }
    }
}

/// Walks what is in the ring, turns an unfinished record into padding, and gives the last sequence number found.
fn unblock<M: Memory>(
    memory: &M,
    geometry: &Geometry,
    consumer: u64,
    producer: u64,
) -> Result<Option<u64>, AttachError> {
    let mut last_seq = None;
    let mut position = consumer;
    while position < producer {
        let word = geometry.word(position);
        let (length, kind, _) = unpack(memory.load(word, Acquire)).ok_or(AttachError::Corrupt)?;
        let stride = align(length.unsigned_abs() as usize);
        let fits =
            stride as u64 <= producer - position && geometry.offset(position) + stride <= geometry.capacity_bytes;
        if stride == 0 || !fits {
            return Err(AttachError::Corrupt);
        }
        if length < 0 {
            memory.store(word, pack(stride as i32, Kind::Pad, Flags::NONE), Release);
        } else if kind != Kind::Pad {
            last_seq = Some(memory.load(word + 2, Relaxed));
        }
        position += stride as u64;
    }
    Ok(last_seq)
}
