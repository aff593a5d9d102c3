//! Lays records out as blocks of a segment, and says what to write where. It touches no file.

use std::collections::HashMap;

use ring::record::Header;

use super::format::{BlockHead, Codec, End, Index, Part, RingSpan, SegmentHead, SessionSpan};
use crate::chain::Hash;

/// When a segment is ended.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size from which a segment is ended, in bytes.
    pub segment_bytes_max: u64,
    /// Age from which a segment is ended, in milliseconds.
    pub segment_age_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { segment_bytes_max: 256 << 20, segment_age_ms_max: 3_600_000 }
    }
}

/// Bytes for one place in one segment. They count as written only after a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The segment's number.
    pub segment: u64,
    /// The segment does not exist yet.
    pub create: bool,
    /// Where the bytes go, a multiple of 4096.
    pub offset: u64,
    /// A multiple of 4096 bytes.
    pub bytes: Vec<u8>,
    /// Nothing will follow in this segment.
    pub finish: bool,
}

/// The last block that is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Its segment; 0 before the first.
    pub segment: u64,
    /// Its number in the segment; 0 is the head, the footer counts.
    pub block: u64,
    /// Its hash.
    pub hash: Hash,
}

/// Counts what goes into a block or segment.
#[derive(Default)]
pub struct Tally {
    index: Index,
    ring_places: HashMap<u64, usize>,
    session_places: HashMap<u64, usize>,
    records: u32,
    first_unix_ns: u64,
    last_unix_ns: u64,
}

impl Tally {
    /// Counts one record.
    pub fn add(&mut self, ring: u64, header: &Header) {
        let (session, seq) = (header.session, header.seq);
        self.add_ring(RingSpan { ring, first_seq: seq, last_seq: seq });
        self.add_session(SessionSpan { session, ring, first_seq: seq, records: 1, kinds: 1 << header.kind as u32 });
        self.add_times(1, header.time_unix_ns, header.time_unix_ns);
    }

    /// Counts a whole block.
    pub fn merge(&mut self, other: &Tally) {
        other.index.rings.iter().for_each(|span| self.add_ring(*span));
        other.index.sessions.iter().for_each(|span| self.add_session(*span));
        self.add_times(other.records, other.first_unix_ns, other.last_unix_ns);
    }

    /// Counts a block that was read back.
    pub fn merge_block(&mut self, head: &BlockHead, index: &Index) {
        index.rings.iter().for_each(|span| self.add_ring(*span));
        index.sessions.iter().for_each(|span| self.add_session(*span));
        self.add_times(head.records, head.first_unix_ns, head.last_unix_ns);
    }

    /// What was counted, by ring and by session.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Records counted so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    fn add_times(&mut self, records: u32, first: u64, last: u64) {
        if self.records == 0 {
            (self.first_unix_ns, self.last_unix_ns) = (first, last);
        }
        self.first_unix_ns = self.first_unix_ns.min(first);
        self.last_unix_ns = self.last_unix_ns.max(last);
        self.records = self.records.saturating_add(records);
    }

    fn add_ring(&mut self, span: RingSpan) {
        let last = self.index.rings.len();
        // Records come in runs of one ring; a hostile index names a million, so they are not searched one by one.
        let place = match self.index.rings.last() {
            Some(latest) if latest.ring == span.ring => last - 1,
            _ => *self.ring_places.entry(span.ring).or_insert(last),
        };
        match self.index.rings.get_mut(place) {
            Some(known) => known.last_seq = known.last_seq.max(span.last_seq),
            None => self.index.rings.push(span),
        }
    }

    fn add_session(&mut self, span: SessionSpan) {
        let last = self.index.sessions.len();
        // Records come in runs of one session: look at the latest entry before the map.
        let place = match self.index.sessions.last() {
            Some(latest) if latest.session == span.session => last - 1,
            _ => *self.session_places.entry(span.session).or_insert(last),
        };
        match self.index.sessions.get_mut(place) {
            Some(known) => {
                known.records = known.records.saturating_add(span.records);
                known.kinds |= span.kinds;
            }
            None => self.index.sessions.push(span),
        }
    }

    fn head(&self, part: Part, number: u64, previous: Hash, raw_bytes: usize, stored_bytes: usize) -> BlockHead {
        BlockHead {
            part,
            number,
            previous,
            raw_bytes: raw_bytes as u32,
            stored_bytes: stored_bytes as u32,
            records: self.records,
            first_unix_ns: self.first_unix_ns,
            last_unix_ns: self.last_unix_ns,
            rings: 0,
            sessions: 0,
            hash: Hash::ZERO,
        }
    }
}

/// The segment being written.
pub struct Writer {
    recorder_id: u64,
    limits: Limits,
    tip: Tip,
    durable: Tip,
    open: Option<Open>,
}

struct Open {
    began_ms: u64,
    offset: u64,
    tally: Tally,
}

impl Writer {
    /// Goes on after `tip` in a new segment, begun with the first block.
    pub fn new(recorder_id: u64, limits: Limits, tip: Tip) -> Self {
        Writer { recorder_id, limits, tip, durable: tip, open: None }
    }

    /// Lays out one block. The segment is begun if there is none, and ended if it is then large or old enough.
    pub fn block(&mut self, stored: (Codec, &[u8]), raw_bytes: usize, tally: &Tally, now: Now) -> Batch {
        let mut batch = self.begin(now);
        let (codec, bytes) = stored;
        self.put(&mut batch, Part::Block(codec), tally, raw_bytes, bytes);
        if let Some(open) = &mut self.open {
            open.tally.merge(tally);
        }
        let is_large = self.open.as_ref().is_some_and(|open| open.offset >= self.limits.segment_bytes_max);
        if is_large || self.is_old(now) {
            self.footer(&mut batch, End::Rolled);
        }
        batch
    }

    /// Ends the segment; `None` if none is open.
    pub fn end(&mut self, why: End) -> Option<Batch> {
        let offset = self.open.as_ref()?.offset;
        let mut batch = Batch { segment: self.tip.segment, create: false, offset, bytes: Vec::new(), finish: false };
        self.footer(&mut batch, why);
        Some(batch)
    }

    /// Whether the open segment is old enough to end.
    pub fn is_old(&self, now: Now) -> bool {
        self.open.as_ref().is_some_and(|open| now.monotonic_ms - open.began_ms >= self.limits.segment_age_ms_max)
    }

    /// Everything laid out so far is on disk.
    pub fn flushed(&mut self) {
        self.durable = self.tip;
    }

    /// The segment is not to be trusted beyond the last flush: the next block begins a new one, linked to that flush.
    pub fn abandon(&mut self) {
        self.tip = self.durable;
        self.open = None;
    }

    /// The last block on disk.
    pub fn durable(&self) -> Tip {
        self.durable
    }

    fn begin(&mut self, now: Now) -> Batch {
        if let Some(open) = &self.open {
            let (segment, offset) = (self.tip.segment, open.offset);
            return Batch { segment, create: false, offset, bytes: Vec::new(), finish: false };
        }
        let segment = self.tip.segment + 1;
        let (created_unix_ns, recorder_id, previous) = (now.unix_ns, self.recorder_id, self.tip.hash);
        let (page, hash) = SegmentHead { number: segment, created_unix_ns, recorder_id, previous }.encode();
        self.tip = Tip { segment, block: 0, hash };
        self.open = Some(Open { began_ms: now.monotonic_ms, offset: page.len() as u64, tally: Tally::default() });
        Batch { segment, create: true, offset: 0, bytes: page, finish: false }
    }

    fn footer(&mut self, batch: &mut Batch, why: End) {
        if let Some(open) = self.open.take() {
            self.put(batch, Part::Footer(why), &open.tally, 0, &[]);
            batch.finish = true;
        }
    }

    fn put(&mut self, batch: &mut Batch, part: Part, tally: &Tally, raw_bytes: usize, stored: &[u8]) {
        let before = batch.bytes.len();
        let number = self.tip.block + 1;
        let head = tally.head(part, number, self.tip.hash, raw_bytes, stored.len());
        let hash = head.encode(&tally.index, stored, &mut batch.bytes);
        self.tip = Tip { segment: self.tip.segment, block: number, hash };
        if let Some(open) = &mut self.open {
            open.offset += (batch.bytes.len() - before) as u64;
        }
    }
}

/// Lays out the footer that closes a segment whose recorder died after `tip`.
pub fn closing_footer(tip: Tip, tally: &Tally) -> (Vec<u8>, Tip) {
    let mut bytes = Vec::new();
    let head = tally.head(Part::Footer(End::Recovered), tip.block + 1, tip.hash, 0, 0);
    let hash = head.encode(&tally.index, &[], &mut bytes);
    (bytes, Tip { segment: tip.segment, block: tip.block + 1, hash })
}

/// Both clocks, read by the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, nanoseconds since 1970; it may step.
    pub unix_ns: u64,
    /// A clock that never goes back, in milliseconds.
    pub monotonic_ms: u64,
}
