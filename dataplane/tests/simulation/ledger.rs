//! The recorder's end of the ring: reads every record as soon as it is committed, releases it when the scenario says so,
//! and knows at each send what was recorded before.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ring::{Consumer, Flags, Kind, Producer, Words};

pub type Memory = Words<Arc<[AtomicU64]>>;

/// The recorder counts as gone after this; one more turn may pass before a shard looks.
const ABSENT_NS: u64 = 1_000_000_000;

#[derive(Default)]
pub struct Evidence {
    pub requests: Vec<u8>,
    pub responses: Vec<u8>,
    pub close: Option<String>,
    pub closes: u32,
    pub verdicts: u64,
    /// Wall-clock times of the Open and of the last request.
    pub opened_ns: u64,
    pub last_request_ns: u64,
}

pub struct Ledger {
    consumer: Consumer<Memory>,
    buffer: Vec<u8>,
    last: (u64, u64),
    beat_ns: u64,
    sessions: HashMap<u64, u32>,
    pub evidence: HashMap<u32, Evidence>,
}

/// A ring of `capacity_bytes` on the heap, both ends attached.
pub fn ring(capacity_bytes: usize) -> (Producer<Memory>, Ledger) {
    let words: Arc<[AtomicU64]> = Words::heap(capacity_bytes, 1).0.into();
    let producer = Producer::attach(Words(words.clone())).expect("a fresh ring");
    let consumer = Consumer::attach(Words(words)).expect("a fresh ring");
    let ledger = Ledger {
        consumer,
        buffer: Vec::new(),
        last: (0, 0),
        beat_ns: 0,
        sessions: HashMap::new(),
        evidence: HashMap::new(),
    };
    (producer, ledger)
}

impl Ledger {
    /// Shows the shard that recording works.
    pub fn beat(&mut self, now_unix_ns: u64) {
        self.read();
        self.beat_ns = now_unix_ns;
        self.consumer.beat(now_unix_ns);
    }

    /// Everything read so far is on disk.
    pub fn release(&mut self) {
        self.read();
        self.consumer.release(self.last.0, self.last.1).expect("one recorder");
    }

    /// Takes in what was committed since the last call.
    pub fn read(&mut self) {
        loop {
            self.buffer.clear();
            let Some(record) = self.consumer.poll(&mut self.buffer).expect("a sound ring") else { return };
            let header = record.header;
            self.last = (record.end_position, header.seq);
            let payload = self.buffer[32..].to_vec();
            if matches!(header.kind, Kind::Request | Kind::Verdict) {
                let age_ns = header.time_unix_ns.saturating_sub(self.beat_ns);
                assert!(
                    age_ns <= ABSENT_NS,
                    "a {:?} was taken {age_ns} ns after the recorder's last beat",
                    header.kind
                );
            }
            if header.kind == Kind::Open {
                self.open(header.session, header.time_unix_ns, &payload);
                continue;
            }
            if header.kind == Kind::Note {
                self.refused(header.session, &payload);
                continue;
            }
            let client = self.sessions.get(&header.session).copied().expect("a record of a session without an Open");
            let evidence = self.evidence.get_mut(&client).expect("it is open");
            assert_eq!(evidence.closes, 0, "a record after the Close of client {client}");
            match header.kind {
                Kind::Request => {
                    assert!(header.flags.contains(Flags::CLIENT));
                    evidence.requests.extend(payload);
                    evidence.last_request_ns = header.time_unix_ns;
                }
                Kind::Verdict => {
                    evidence.verdicts += 1;
                    let texts = count(&evidence.requests, b"QP").0;
                    assert!(texts >= evidence.verdicts, "a verdict stands before its statement");
                }
                Kind::Response => evidence.responses.extend(payload),
                Kind::Close => {
                    check_counts(&payload, &evidence.requests);
                    evidence.close = Some(String::from_utf8(payload).expect("JSON"));
                    evidence.closes += 1;
                }
                other => panic!("a record of kind {other:?}"),
            }
        }
    }

    /// The one note that the gateway writes here: a stranger was not let in.
    fn refused(&mut self, session: u64, payload: &[u8]) {
        let note: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        assert_eq!(note["event"], "login refused");
        assert!(!self.sessions.contains_key(&session), "a session that was let in is called refused");
        assert!(!String::from_utf8_lossy(payload).contains("a wrong token"), "a token is recorded: {note}");
    }

    fn open(&mut self, session: u64, opened_ns: u64, payload: &[u8]) {
        let open: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        let port = open["client"].as_str().and_then(|c| c.rsplit(':').next()?.parse::<u32>().ok()).expect("an address");
        let client = port - super::world::FIRST_PORT;
        assert_eq!(open["subject"], format!("c{client}"), "an Open names another subject");
        let new = self.sessions.insert(session, client).is_none();
        assert!(new, "two Opens of session {session}");
        self.evidence.insert(client, Evidence { opened_ns, ..Evidence::default() });
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
