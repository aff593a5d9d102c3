//! The recorder without files or clocks: `step(rings, now)` says what to write; `done` hears how it went.
//!
//! One write is under way at a time. While it is flushed the rings fill, so the next block is the larger: group commit.
//! A record leaves its ring only when the block with it is on disk; so a failed flush costs nothing but time, and the
//! death of this process costs nothing at all.

use std::collections::HashMap;
use std::fmt;

use ring::layout::Memory;
use ring::record::{Flags, HEADER_BYTES, Header, Kind};
use ring::{Consumer, Poisoned};

use crate::compress::{Compressor, Effort};
use crate::segment::format::{End, RING_ID_BYTES};
use crate::segment::writer::{Batch, Limits, Now, Tally, Tip, Writer};
use crate::session::OpenSessions;

/// A block is written when its records have this many bytes...
pub const BLOCK_RAW_BYTES: usize = 1 << 20;
/// ...or when its first record has waited this long.
pub const BLOCK_AGE_MS_MAX: u64 = 50;
/// How long recording waits after a failed write before it tries again.
pub const RETRY_MS: u64 = 500;
/// Bytes taken from one ring before the next has its turn.
const TURN_BYTES: usize = 64 << 10;

/// Where the recorder goes on, as recovery found it.
#[derive(Default)]
pub struct Resume {
    /// The last block on disk.
    pub tip: Option<Tip>,
    /// The highest sequence number on disk, by ring.
    pub last_seqs: HashMap<u64, u64>,
    /// Sessions without an end.
    pub sessions: OpenSessions,
}

/// What the shell has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Write [`Core::batch`], flush it, and call [`Core::done`].
    Write,
    /// Nothing to write before this many milliseconds have passed, or a producer asks.
    Wait {
        /// How long, at most.
        ms: u64,
    },
}

/// How a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No room, and nothing was flushed: the same bytes may be written to the same place later.
    NoSpace,
    /// Anything else. After a failed flush the kernel may have dropped the pages: the segment is left as it is.
    Io,
}

/// Something an operator should see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A ring is read no more; its sessions were closed.
    RingPoisoned {
        /// The ring.
        ring: u64,
        /// Why.
        why: String,
    },
    /// Another recorder has taken the rings: this one must stop.
    Fenced,
    /// Recording has stopped; heartbeats are withheld until a write succeeds.
    Stopped(Failure),
    /// Recording goes on.
    Resumed,
    /// Sessions were closed because their producer is gone.
    ProducerDied {
        /// How many.
        sessions: usize,
    },
}

/// The recorder's state.
pub struct Core<M: Memory> {
    rings: Vec<Ring<M>>,
    own: Own,
    sessions: OpenSessions,
    writer: Writer,
    compressor: Compressor,
    block: Gathered,
    batch: Option<Batch>,
    retry_at_ms: Option<u64>,
    stopped: bool,
    reports: Vec<Report>,
}

struct Ring<M: Memory> {
    consumer: Consumer<M>,
    id: u64,
    /// Highest sequence number that is in a segment for certain; what comes again is dropped.
    written_seq: u64,
    read_seq: u64,
    /// Sessions opened before this sequence number have been looked after.
    producer_first_seq: u64,
    poisoned: bool,
}

/// Records that the recorder itself writes, kept until they are on disk.
struct Own {
    id: u64,
    next_seq: u64,
    pending: Vec<(Header, String)>,
    gathered: usize,
}

#[derive(Default)]
struct Gathered {
    raw: Vec<u8>,
    tally: Tally,
    since_ms: u64,
    urgent: bool,
}

impl<M: Memory> Core<M> {
    /// Takes the rings. `recorder_id` is random: it names this run, and is the ring id of the recorder's own records.
    pub fn new(consumers: Vec<Consumer<M>>, recorder_id: u64, limits: Limits, resume: Resume) -> std::io::Result<Self> {
        let tip = resume.tip.unwrap_or(Tip { segment: 0, block: 0, hash: crate::chain::Hash::ZERO });
        let written = |id: u64| resume.last_seqs.get(&id).copied().unwrap_or(0);
        let ring = |consumer: Consumer<M>| {
            let id = consumer.ring_id();
            let written_seq = written(id);
            Ring { consumer, id, written_seq, read_seq: written_seq, producer_first_seq: 0, poisoned: false }
        };
        Ok(Core {
            rings: consumers.into_iter().map(ring).collect(),
            own: Own { id: recorder_id, next_seq: 1, pending: Vec::new(), gathered: 0 },
            sessions: resume.sessions,
            writer: Writer::new(recorder_id, limits, tip),
            compressor: Compressor::new()?,
            block: Gathered::default(),
            batch: None,
            retry_at_ms: None,
            stopped: false,
            reports: Vec::new(),
        })
    }

    /// Reads the rings and says what to do. Shows the producers a heartbeat unless recording has stopped.
    pub fn step(&mut self, now: Now) -> Step {
        if let Some(at) = self.retry_at_ms.filter(|at| now.monotonic_ms < *at) {
            return Step::Wait { ms: at - now.monotonic_ms };
        }
        self.retry_at_ms = None;
        if self.batch.is_some() {
            return Step::Write;
        }
        self.beat(now);
        self.close_orphans(now);
        self.gather(now);
        self.block.urgent &= !self.block.raw.is_empty();
        if self.block_is_due(now) {
            self.seal(now);
        } else if self.writer.is_old(now) && self.block.raw.is_empty() {
            self.batch = self.writer.end(End::Rolled);
        }
        match (&self.batch, self.block.raw.is_empty()) {
            (Some(_), _) => Step::Write,
            (None, true) => Step::Wait { ms: u64::MAX },
            (None, false) => Step::Wait { ms: BLOCK_AGE_MS_MAX.saturating_sub(now.monotonic_ms - self.block.since_ms) },
        }
    }

    /// The bytes to write after [`Step::Write`].
    pub fn batch(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// The batch is on disk, or it failed.
    pub fn done(&mut self, result: Result<(), Failure>, now: Now) {
        match result {
            Ok(()) => self.flushed(now),
            Err(failure) => self.failed(failure, now),
        }
    }

    /// Ends the segment: the last batch before the recorder stops. `None` when nothing is left to write.
    /// Call it after a [`Core::step`] that gave no batch; repeat until `None`.
    pub fn finish(&mut self, now: Now) -> Option<&Batch> {
        if self.batch.is_none() {
            if self.block.raw.is_empty() {
                self.batch = self.writer.end(End::Stopped);
            } else {
                self.seal(now);
            }
        }
        self.batch.as_ref()
    }

    /// The last block on disk.
    pub fn durable(&self) -> Tip {
        self.writer.durable()
    }

    /// What an operator should see since the last call.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// The rings' memories, to wait for a producer.
    pub fn memories(&self) -> impl Iterator<Item = &M> {
        self.rings.iter().map(|ring| ring.consumer.memory())
    }

    fn beat(&self, now: Now) {
        if !self.stopped {
            self.rings.iter().filter(|ring| !ring.poisoned).for_each(|ring| ring.consumer.beat(now.unix_ns));
        }
    }

    /// Closes recovered sessions whose ring is gone: both processes and their parent died.
    fn close_orphans(&mut self, now: Now) {
        let rings: Vec<u64> = self.rings.iter().map(|ring| ring.id).collect();
        let sessions = self.sessions.take_without_ring(&rings);
        self.close(&sessions, "producer died", now);
    }

    /// Fills the block, the rings in turn.
    fn gather(&mut self, now: Now) {
        if self.block.raw.is_empty() {
            self.block.since_ms = now.monotonic_ms;
        }
        loop {
            let before = self.block.raw.len();
            for place in 0..self.rings.len() {
                self.take_turn(place, now);
            }
            self.gather_own();
            if self.block.raw.len() >= BLOCK_RAW_BYTES || self.block.raw.len() == before {
                return;
            }
        }
    }

    fn take_turn(&mut self, place: usize, now: Now) {
        let ring = &mut self.rings[place];
        self.block.urgent |= ring.consumer.take_wake();
        let end = (self.block.raw.len() + TURN_BYTES).min(BLOCK_RAW_BYTES);
        while !self.rings[place].poisoned && self.block.raw.len() < end && self.take_record(place, now) {}
        self.look_after_producer(place, now);
        let ring = &mut self.rings[place];
        // Padding, and records that are on disk already, need no write before they are released.
        if !ring.poisoned && ring.read_seq <= ring.written_seq {
            let (position, seq) = (ring.consumer.position(), ring.written_seq);
            let released = ring.consumer.release(position, seq);
            self.poison_if(place, released.err(), now);
        }
    }

    /// Takes one record into the block; false when there is none.
    fn take_record(&mut self, place: usize, now: Now) -> bool {
        let ring = &mut self.rings[place];
        let start = self.block.raw.len();
        self.block.raw.extend_from_slice(&ring.id.to_le_bytes());
        let header = match ring.consumer.poll(&mut self.block.raw) {
            Ok(Some(record)) => record.header,
            other => {
                self.block.raw.truncate(start);
                self.poison_if(place, other.err(), now);
                return false;
            }
        };
        if header.seq <= ring.written_seq {
            self.block.raw.truncate(start);
            return true;
        }
        let first_of_producer = ring.consumer.producer_first_seq();
        if first_of_producer > ring.producer_first_seq && header.seq >= first_of_producer {
            self.close_of_dead_producer(place, first_of_producer, now);
        }
        let ring = &mut self.rings[place];
        if self.sessions.follow(ring.id, &header).is_err() {
            self.block.raw.truncate(start);
            self.poison(place, "a record names a session of another ring".into(), now);
            return false;
        }
        ring.read_seq = header.seq;
        self.block.tally.add(ring.id, &header);
        true
    }

    /// A producer that has attached anew and written nothing yet: what the dead one left has been read.
    fn look_after_producer(&mut self, place: usize, now: Now) {
        let ring = &self.rings[place];
        let first = ring.consumer.producer_first_seq();
        if !ring.poisoned && first > ring.producer_first_seq && first == ring.read_seq.saturating_add(1) {
            self.close_of_dead_producer(place, first, now);
        }
    }

    fn close_of_dead_producer(&mut self, place: usize, first_seq: u64, now: Now) {
        let ring = &mut self.rings[place];
        ring.producer_first_seq = first_seq;
        let sessions = self.sessions.take_opened_before(ring.id, first_seq);
        self.close(&sessions, "producer died", now);
    }

    fn close(&mut self, sessions: &[u64], reason: &str, now: Now) {
        if sessions.is_empty() {
            return;
        }
        let payload = serde_json::json!({"reason": reason, "closed_by": "recorder"}).to_string();
        for session in sessions {
            self.own.add(Kind::Close, *session, payload.clone(), now);
        }
        self.reports.push(Report::ProducerDied { sessions: sessions.len() });
    }

    fn poison_if(&mut self, place: usize, why: Option<Poisoned>, now: Now) {
        match why {
            Some(Poisoned::Fenced) => {
                self.rings[place].poisoned = true;
                self.reports.push(Report::Fenced);
            }
            Some(why) => self.poison(place, why.to_string(), now),
            None => {}
        }
    }

    /// Reads a ring no more: its producer lies. Without heartbeat its shard starts nothing new.
    fn poison(&mut self, place: usize, why: String, now: Now) {
        let ring = &mut self.rings[place];
        ring.poisoned = true;
        let id = ring.id;
        let note = serde_json::json!({"event": "ring poisoned", "ring": format!("{id:016x}"), "reason": why});
        self.own.add(Kind::Note, 0, note.to_string(), now);
        let sessions = self.sessions.take_opened_before(id, u64::MAX);
        self.close(&sessions, "ring poisoned", now);
        self.reports.push(Report::RingPoisoned { ring: id, why });
    }

    fn gather_own(&mut self) {
        for (header, payload) in &self.own.pending[self.own.gathered..] {
            self.block.raw.reserve(RING_ID_BYTES + header.length as usize);
            self.block.raw.extend_from_slice(&self.own.id.to_le_bytes());
            self.block.raw.extend_from_slice(&header.to_bytes());
            self.block.raw.extend_from_slice(payload.as_bytes());
            self.block.tally.add(self.own.id, header);
        }
        self.own.gathered = self.own.pending.len();
    }

    fn block_is_due(&self, now: Now) -> bool {
        let block = &self.block;
        let age_ms = now.monotonic_ms - block.since_ms;
        !block.raw.is_empty() && (block.raw.len() >= BLOCK_RAW_BYTES || age_ms >= BLOCK_AGE_MS_MAX || block.urgent)
    }

    fn seal(&mut self, now: Now) {
        let fill = |ring: &Ring<M>| Effort::for_fill(ring.consumer.used_bytes(), ring.consumer.capacity_bytes());
        let effort = self.rings.iter().filter(|ring| !ring.poisoned).map(fill).max();
        let stored = self.compressor.compress(&self.block.raw, effort.unwrap_or(Effort::Normal));
        self.batch = Some(self.writer.block(stored, self.block.raw.len(), &self.block.tally, now));
        self.clear_block();
    }

    fn clear_block(&mut self) {
        self.block.raw.clear();
        self.block.tally = Tally::default();
        self.block.urgent = false;
    }

    fn flushed(&mut self, now: Now) {
        self.batch = None;
        self.writer.flushed();
        self.own.pending.drain(..self.own.gathered);
        self.own.gathered = 0;
        for place in 0..self.rings.len() {
            let ring = &mut self.rings[place];
            ring.written_seq = ring.written_seq.max(ring.read_seq);
            let (position, seq) = (ring.consumer.position(), ring.written_seq);
            let released = ring.consumer.release(position, seq);
            if !self.rings[place].poisoned {
                self.poison_if(place, released.err(), now);
            }
        }
        if std::mem::take(&mut self.stopped) {
            self.reports.push(Report::Resumed);
        }
        self.beat(now);
    }

    fn failed(&mut self, failure: Failure, now: Now) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.reports.push(Report::Stopped(failure));
        }
        self.retry_at_ms = Some(now.monotonic_ms + RETRY_MS);
        if failure == Failure::Io {
            self.batch = None;
            self.writer.abandon();
            self.clear_block();
            self.own.gathered = 0;
            for ring in &mut self.rings {
                ring.consumer.rewind();
                ring.read_seq = ring.written_seq;
            }
        }
    }
}

impl Own {
    fn add(&mut self, kind: Kind, session: u64, payload: String, now: Now) {
        let length = (HEADER_BYTES + payload.len()) as u32;
        let header =
            Header { length, kind, flags: Flags::WHOLE, session, seq: self.next_seq, time_unix_ns: now.unix_ns };
        self.next_seq += 1;
        self.pending.push((header, payload));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::RingPoisoned { ring, why } => {
                write!(f, "ring {ring:016x} is read no more: {why}; its sessions were closed; restart the dataplane")
            }
            Report::Fenced => f.write_str("another recorder has taken the rings; this one stops"),
            Report::Stopped(Failure::NoSpace) => f.write_str(
                "recording has stopped: no space in the recordings directory; free some, it goes on by itself",
            ),
            Report::Stopped(Failure::Io) => {
                f.write_str("recording has stopped: the disk failed; the records are kept and go to a new segment")
            }
            Report::Resumed => f.write_str("recording goes on"),
            Report::ProducerDied { sessions } => write!(f, "{sessions} sessions were closed: their producer is gone"),
        }
    }
}
