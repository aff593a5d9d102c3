//! What the rings hold, read as soon as it is committed: who has sent and seen what, under which law, and how it ended.
//!
//! It is the recorder's end of the rings in worlds whose recorder is a model. Where the recorder is the real one, it is a
//! witness beside it that leaves no trace in the ring's words.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::record::Header;
use ring::{Consumer, Flags, Kind, Memory, Producer, Words};

use super::law::Court;

pub type Shared = Words<Arc<[AtomicU64]>>;

/// The recorder counts as gone after this; one more turn may pass before a shard looks.
const ABSENT_NS: u64 = 1_000_000_000;
/// Where the recorder's heartbeat stands in a ring's control page (RECORD.md), in words.
const HEARTBEAT_WORD: usize = 640 / 8;
pub const RING_BYTES: usize = 1 << 20;

#[derive(Default)]
pub struct Evidence {
    pub session: u64,
    pub requests: Vec<u8>,
    pub responses: Vec<u8>,
    pub close: Option<String>,
    pub closes: u32,
    pub verdicts: u64,
    /// Wall-clock times of the Open, of the last request, and of the Close.
    pub opened_ns: u64,
    pub last_request_ns: u64,
    /// When its end began.
    pub closed_ns: Option<u64>,
    /// A reload has ended it.
    pub barred: bool,
    /// Its shard has panicked: whoever reads the ring ends it.
    pub lost: bool,
}

/// A ring's memory for one reader; a witness stores nothing, and sees its own epoch.
pub struct View {
    words: Shared,
    witness: bool,
    epoch_word: Cell<Option<usize>>,
}

impl Memory for View {
    fn words(&self) -> usize {
        self.words.words()
    }
    fn load(&self, index: usize, order: Ordering) -> u64 {
        if self.epoch_word.get() == Some(index) { 1 } else { self.words.load(index, order) }
    }
    fn store(&self, index: usize, value: u64, order: Ordering) {
        if !self.witness {
            self.words.store(index, value, order);
        }
    }
    fn increment(&self, index: usize) -> u64 {
        if !self.witness {
            return self.words.increment(index);
        }
        self.epoch_word.set(Some(index));
        1
    }
    fn load_bytes(&self, index: usize, count: usize, into: &mut Vec<u8>) {
        self.words.load_bytes(index, count, into);
    }
}

struct Reader {
    consumer: Consumer<View>,
    last: (u64, u64),
    /// A hash of every record, by sequence number from 1, where somebody will ask.
    seen: Vec<u64>,
}

pub struct Ledger {
    readers: Vec<Reader>,
    rings: Vec<Shared>,
    court: Rc<Court>,
    witness: bool,
    buffer: Vec<u8>,
    sessions: HashMap<u64, u32>,
    pub evidence: HashMap<u32, Evidence>,
    /// Shards that were told to stop and have had a turn since.
    pub stopped: Vec<bool>,
    /// Sessions that lost their shard.
    pub lost: Vec<u64>,
}

/// What a record is known by.
pub fn hash(header: &Header, payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&header.to_bytes());
    hasher.write(payload);
    hasher.finish()
}

impl Ledger {
    /// Attaches to fresh rings on the heap, one a shard.
    pub fn new(shards: usize, witness: bool, court: Rc<Court>) -> Self {
        let ring = |shard| Words(Words::heap(RING_BYTES, 1 + shard as u64).0.into());
        let rings: Vec<Shared> = (0..shards).map(ring).collect();
        let reader = |ring: &Shared| {
            let view = View { words: Words(ring.0.clone()), witness, epoch_word: Cell::new(None) };
            Reader { consumer: Consumer::attach(view).expect("a fresh ring"), last: (0, 0), seen: Vec::new() }
        };
        Self {
            readers: rings.iter().map(reader).collect(),
            rings,
            court,
            witness,
            buffer: Vec::new(),
            sessions: HashMap::new(),
            evidence: HashMap::new(),
            stopped: vec![false; shards],
            lost: Vec::new(),
        }
    }

    pub fn ring(&self, shard: usize) -> Shared {
        Words(self.rings[shard].0.clone())
    }

    /// The writing end, for a shard that starts.
    pub fn producer(&self, shard: usize) -> Producer<Shared> {
        Producer::attach(self.ring(shard)).expect("a sound ring")
    }

    /// Shows the shards that recording works.
    pub fn beat(&self, now_unix_ns: u64) {
        self.readers.iter().for_each(|reader| reader.consumer.beat(now_unix_ns));
    }

    /// Everything read so far is on disk.
    pub fn release(&mut self) {
        self.readers.iter_mut().for_each(Reader::release);
    }

    /// How many records have been committed, where somebody asks.
    pub fn records(&self) -> usize {
        self.readers.iter().map(|reader| reader.seen.len()).sum()
    }

    /// Hashes of the records of a shard's ring.
    pub fn seen(&self, shard: usize) -> &[u64] {
        &self.readers[shard].seen
    }

    /// Takes in what was committed since the last call.
    pub fn read(&mut self) {
        for shard in 0..self.readers.len() {
            self.read_ring(shard);
        }
    }

    /// A shard is gone: what it had committed is read, and nothing more will come of its sessions.
    pub fn lose(&mut self, shard: usize, of_shard: impl Fn(u32) -> bool) {
        self.read_ring(shard);
        for (_, evidence) in self.evidence.iter_mut().filter(|(client, e)| of_shard(**client) && e.closes == 0) {
            if !std::mem::replace(&mut evidence.lost, true) {
                self.lost.push(evidence.session);
            }
        }
    }

    /// (h) A reload does not let these in any more: from now on nothing of them may be taken.
    pub fn bar(&mut self, of: impl Fn(u32) -> bool) {
        self.evidence.iter_mut().filter(|(client, _)| of(**client)).for_each(|(_, evidence)| evidence.barred = true);
    }

    fn read_ring(&mut self, shard: usize) {
        loop {
            self.buffer.clear();
            let reader = &mut self.readers[shard];
            let Some(record) = reader.consumer.poll(&mut self.buffer).expect("a sound ring") else { break };
            reader.last = (record.end_position, record.header.seq);
            let payload = self.buffer[32..].to_vec();
            if self.witness {
                reader.seen.push(hash(&record.header, &payload));
            }
            self.take(shard, record.header, payload);
        }
        if self.witness {
            self.readers[shard].release();
        }
    }

    fn take(&mut self, shard: usize, header: Header, payload: Vec<u8>) {
        if matches!(header.kind, Kind::Request | Kind::Verdict) {
            self.check_heartbeat(shard, &header);
        }
        match header.kind {
            Kind::Open => return self.open(shard, &header, &payload),
            Kind::Note => return self.refused(header.session, &payload),
            _ => {}
        }
        let client = self.sessions.get(&header.session).copied().expect("a record of a session without an Open");
        let evidence = self.evidence.get_mut(&client).expect("it is open");
        assert!(evidence.closes == 0 && !evidence.lost, "a record after the end of client {client}");
        match header.kind {
            Kind::Request => {
                assert!(header.flags.contains(Flags::CLIENT));
                assert!(!evidence.barred, "client {client} goes on after its role has lost the database");
                let late = header.time_unix_ns > self.court.ends_ns(client);
                assert!(!late, "client {client} goes on when its token and all grace are over");
                evidence.requests.extend(payload);
                evidence.last_request_ns = header.time_unix_ns;
            }
            Kind::Verdict => {
                evidence.verdicts += 1;
                // An Execute that has to wait for a Describe of ours may be judged once more by each reload meanwhile.
                let again = self.court.generations.len() as u64 - 1;
                let texts = count(&evidence.requests, b"QPBE").0 + again;
                assert!(texts >= evidence.verdicts, "a verdict stands before its statement");
                self.check_epoch(shard, &payload);
            }
            Kind::Response => evidence.responses.extend(payload),
            Kind::Close => {
                check_counts(&payload, &evidence.requests);
                evidence.close = Some(String::from_utf8(payload).expect("JSON"));
                evidence.closes += 1;
                evidence.closed_ns = Some(header.time_unix_ns);
            }
            other => panic!("a record of kind {other:?}"),
        }
    }

    fn check_heartbeat(&self, shard: usize, header: &Header) {
        let beat_ns = self.rings[shard].load(HEARTBEAT_WORD, Ordering::Relaxed);
        let age_ns = header.time_unix_ns.saturating_sub(beat_ns);
        assert!(age_ns <= ABSENT_NS, "a {:?} was taken {age_ns} ns after the recorder's last beat", header.kind);
    }

    /// (h) A verdict is given under one policy, and it is one that is in force.
    fn check_epoch(&self, shard: usize, verdict: &[u8]) {
        let epoch = &verdict[4..12];
        let known = self.court.now(shard, |generation| generation.rule.epoch() == epoch);
        assert!(known, "a verdict was given under a policy that is not in force: {:?}", self.court.law(shard));
    }

    /// The one note that the gateway writes here: a stranger was not let in.
    fn refused(&mut self, session: u64, payload: &[u8]) {
        let note: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        assert_eq!(note["event"], "login refused");
        assert!(!self.sessions.contains_key(&session), "a session that was let in is called refused");
        assert!(!String::from_utf8_lossy(payload).contains("token-of-a-stranger"), "a token is recorded: {note}");
    }

    fn open(&mut self, shard: usize, header: &Header, payload: &[u8]) {
        let open: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        let port = open["client"].as_str().and_then(|c| c.rsplit(':').next()?.parse::<u32>().ok()).expect("an address");
        let client = port - super::world::FIRST_PORT;
        assert_eq!(open["subject"], format!("c{client}"), "an Open names another subject");
        // (k) Who stops lets nobody in.
        assert!(!self.stopped[shard], "client {client} was let in after its shard was told to stop");
        let new = self.sessions.insert(header.session, client).is_none();
        assert!(new, "two Opens of session {}", header.session);
        let live = 1 + self.evidence.values().filter(|e| e.closes == 0 && !e.lost).count();
        let known = self.court.since(client, |generation| live <= generation.clients_max as usize);
        assert!(known, "client {client} is let in as number {live}, above max_client_conn");
        let (session, opened_ns) = (header.session, header.time_unix_ns);
        self.evidence.insert(client, Evidence { session, opened_ns, ..Evidence::default() });
    }
}

impl Reader {
    fn release(&mut self) {
        self.consumer.release(self.last.0, self.last.1).expect("one recorder");
    }
}

/// Messages of these kinds: whole ones, and whether one is cut off at the end.
fn count(requests: &[u8], kinds: &[u8]) -> (u64, u64) {
    let (mut whole, mut rest) = (0, requests);
    while let Some((kind, tail)) = rest.split_first() {
        let counts = u64::from(kinds.contains(kind));
        let length = tail.first_chunk().map_or(usize::MAX, |length| u32::from_be_bytes(*length) as usize);
        match tail.get(length..) {
            Some(next) => (whole, rest) = (whole + counts, next),
            None => return (whole, counts),
        }
    }
    (whole, 0)
}

/// What a Close counts is what the record holds; a malformed last message may be recorded and not counted.
fn check_counts(close: &[u8], requests: &[u8]) {
    let close: serde_json::Value = serde_json::from_slice(close).expect("JSON");
    let (whole, cut) = count(requests, b"QE");
    let said = close["statements"].as_u64().expect("a number");
    assert!(said + 1 >= whole && said <= whole + cut, "{whole} executions are recorded, the Close says {said}");
}
