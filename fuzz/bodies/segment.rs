//! Recordings. The first byte says what follows: 0 a segment file; 1 changes (place, byte: 3 bytes each) of a good one; 2 records
//! for a good segment (kind, flags, session, length, payload), which a hostile dataplane has chosen; 3 the fields of a block's
//! head, and stored bytes, under a right hash.
//!
//! What must hold: a changed byte is found; what the recorder wrote is whole, and is shown; what is shown holds nothing that a terminal
//! obeys.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use recorder::catalog::catalog;
use recorder::chain::Hash;
use recorder::checkpoint::{Checkpoints, PUBLIC_KEY_FILE_NAME, VerifyingKey, read_public_key};
use recorder::compress::{Compressor, Effort};
use recorder::recover::recover;
use recorder::replay::{Options, replay};
use recorder::segment;
use recorder::segment::format::{BlockHead, Codec, End, Index, PAGE_BYTES, Part, RingSpan, SegmentHead, SessionSpan};
use recorder::segment::reader::Reader;
use recorder::segment::writer::{Limits, Now, Tally, Tip, Writer};
use recorder::session::SessionId;
use recorder::verify::{Outcome, verify};
use ring::record::HEADER_BYTES;
use ring::{Flags, Header, Kind};

use super::identity::folder;
use super::input::Input;

const RING: u64 = 5;
const NOW: Now = Now { unix_ns: 1_700_000_000_000_000_000, monotonic_ms: 1000 };
const RECORDS_MAX: usize = 64;
const SESSIONS: u64 = 3;

/// A recordings folder that is used again and again, with the good segment and its key beside it.
struct Place {
    base: PathBuf,
    recordings: PathBuf,
    good: Vec<u8>,
    key: VerifyingKey,
}

thread_local! {
    static PLACE: Place = Place::new();
    /// Its tables are larger than all else that a run needs.
    static COMPRESSOR: RefCell<Compressor> = RefCell::new(Compressor::new().expect("a compressor"));
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

impl Place {
    fn new() -> Self {
        let base = folder();
        let recordings = base.join("recordings");
        fs::create_dir_all(&recordings).expect("a folder");
        let conversation: [(Kind, &[u8]); 5] = [
            (Kind::Open, br#"{"session":"s_1","subject":"ann"}"#),
            (Kind::Request, b"Q\0\0\0\x0dselect 1\0"),
            (Kind::Verdict, b"\0\0\0\0policyidgrant"),
            (Kind::Response, b"D\0\0\0\x0b\0\x01\0\0\0\x011C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I"),
            (Kind::Close, br#"{"reason":"client closed"}"#),
        ];
        let records =
            conversation.iter().enumerate().map(|(n, (kind, payload))| record(n as u64 + 1, *kind, 3, 1, payload));
        let (good, tip) = write(&records.collect::<Vec<_>>());
        let mut checkpoints = Checkpoints::open(&recordings, &base.join("key.pem")).expect("a key");
        checkpoints.note(tip, NOW, true).expect("a checkpoint");
        let key = read_public_key(&recordings.join(PUBLIC_KEY_FILE_NAME)).expect("a key");
        let place = Self { base, recordings, good, key };
        assert_eq!(place.verify(&place.good).problems, [], "the good segment");
        place
    }

    fn put(&self, file: &[u8]) {
        fs::write(segment::path(&self.recordings, 1), file).expect("a file");
    }

    fn verify(&self, file: &[u8]) -> Outcome {
        self.put(file);
        verify(&self.recordings, &self.key).expect("a readable folder")
    }
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    PLACE.with(|place| match input.byte() {
        0 => hostile_file(place, input.0),
        1 => changed(place, input),
        2 => chosen_records(place, input),
        _ => hostile_head(place, input),
    });
}

/// Every reader on bytes that nobody vouches for.
fn hostile_file(place: &Place, file: &[u8]) {
    let outcome = place.verify(file);
    let is_good = file == place.good;
    assert_eq!(outcome.problems.is_empty(), is_good, "a file that the recorder did not write is whole");
    show(&place.recordings);
    let path = segment::path(&place.recordings, 1);
    if let Ok(mut reader) = Reader::open(&path) {
        let _ = reader.footer();
        while let Ok(Some(_)) = reader.next_index() {}
    }
    // Recovery works on a copy of its own: it moves what it does not believe.
    let copy = place.base.join("copy");
    fs::create_dir_all(&copy).expect("a folder");
    fs::write(segment::path(&copy, 1), file).expect("a file");
    let recovered = recover(&copy);
    fs::remove_dir_all(&copy).expect("our own folder");
    assert!(recovered.is_ok(), "a recorder cannot start over these bytes: {:?}", recovered.err());
}

fn changed(place: &Place, mut input: Input<'_>) {
    let mut file = place.good.clone();
    while !input.is_empty() {
        let at = usize::from(input.u16()) % file.len();
        file[at] = input.byte();
    }
    let problems = place.verify(&file).problems;
    assert_eq!(problems.is_empty(), file == place.good, "a changed byte is not found");
    show(&place.recordings);
}

/// What the recorder writes of records with any content is whole, and is shown to the last record.
fn chosen_records(place: &Place, mut input: Input<'_>) {
    let mut records = Vec::new();
    while !input.is_empty() && records.len() < RECORDS_MAX {
        let kind = Kind::from_u8(input.byte() % 7 + 1).expect("seven kinds");
        let (flags, session, length) = (input.byte() & 7, u64::from(input.byte()) % SESSIONS + 1, input.byte());
        let payload = input.bytes(length.into());
        records.push(record(records.len() as u64 + 1, kind, flags, session, payload));
    }
    if records.is_empty() {
        return;
    }
    let (file, _) = write(&records);
    // Signed is the good segment, not this one.
    let problems = place.verify(&file).problems;
    assert!(problems.iter().all(|p| p.file == "checkpoints"), "what the recorder wrote is not whole: {problems:?}");
    assert_eq!(show(&place.recordings), records.len() as u64, "not every record is shown");
}

/// A block whose hash is right and whose head says anything.
fn hostile_head(place: &Place, mut input: Input<'_>) {
    let (page, hash) = SegmentHead { number: 1, created_unix_ns: 0, recorder_id: 1, previous: Hash::ZERO }.encode();
    assert_eq!(page.len(), PAGE_BYTES);
    let mut file = page;
    let part = match input.byte() % 5 {
        0 => Part::Block(Codec::None),
        1 | 2 => Part::Block(Codec::Zstd),
        3 => Part::Footer(End::Rolled),
        _ => Part::Footer(End::Recovered),
    };
    let (raw_bytes, stored_bytes, records) = (input.u64() as u32, input.u64() as u32, u32::from(input.byte()));
    let mut index = Index::default();
    for _ in 0..input.byte() % 4 {
        index.rings.push(RingSpan { ring: input.u64(), first_seq: input.u64(), last_seq: input.u64() });
        let (session, records) = (input.u64(), u32::from(input.byte()));
        index.sessions.push(SessionSpan { session, ring: RING, first_seq: 1, records, kinds: 3 });
    }
    let stored = input.0;
    // Half of the time the head tells the stored length as it is, or nothing behind it is ever reached.
    let stored_bytes = if stored_bytes & 1 == 0 { stored.len() as u32 } else { stored_bytes };
    let head = BlockHead {
        part,
        number: 1,
        previous: hash,
        raw_bytes,
        stored_bytes,
        records,
        first_unix_ns: 0,
        last_unix_ns: u64::MAX,
        rings: 0,
        sessions: 0,
        hash: Hash::ZERO,
    };
    // A head that announces more than the page can hold is not written out: a reader sees a file that ends too soon.
    if stored_bytes as usize <= 1 << 16 {
        head.encode(&index, stored, &mut file);
    }
    place.verify(&file);
    show(&place.recordings);
}

/// A record as it lies in a block.
fn record(seq: u64, kind: Kind, flags: u8, session: u64, payload: &[u8]) -> (Header, Vec<u8>) {
    let flags = Flags::from_bits(flags).unwrap_or(Flags::NONE);
    let length = (HEADER_BYTES + payload.len()) as u32;
    let header = Header { length, kind, flags, session, seq, time_unix_ns: NOW.unix_ns + seq };
    (header, [&RING.to_le_bytes()[..], &header.to_bytes(), payload].concat())
}

/// One segment of two blocks and a footer, as the recorder's writer lays it out.
fn write(records: &[(Header, Vec<u8>)]) -> (Vec<u8>, Tip) {
    let mut writer = Writer::new(1, Limits::default(), Tip { segment: 0, block: 0, hash: Hash::ZERO });
    let mut file = Vec::new();
    for block in records.chunks(records.len().div_ceil(2)) {
        let mut tally = Tally::default();
        block.iter().for_each(|(header, _)| tally.add(RING, header));
        let raw: Vec<u8> = block.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        COMPRESSOR.with_borrow_mut(|compressor| {
            let stored = compressor.compress(&raw, Effort::Normal);
            file.extend(writer.block(stored, raw.len(), &tally, NOW).bytes);
        });
    }
    file.extend(writer.end(End::Stopped).expect("a segment is open").bytes);
    writer.flushed();
    (file, writer.durable())
}

/// Lists the sessions and shows each in both forms; how many records were shown.
fn show(recordings: &Path) -> u64 {
    let found = catalog(recordings).expect("a readable folder");
    let mut records = 0;
    for session in found.sessions.iter().map(|s| SessionId::parse(&s.session).expect("as it writes them")) {
        for json in [false, true] {
            let mut out = Vec::new();
            let shown = replay(recordings, session, Options { json, all: true }, &mut out).expect("memory takes all");
            let text = String::from_utf8(out).expect("what is shown is text");
            let obeyed = text.chars().find(|c| c.is_control() && *c != '\n');
            assert!(obeyed.is_none(), "a terminal would obey {obeyed:?} in {text:?}");
            for line in text.lines().filter(|_| json) {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "not a JSON object a line: {line}");
            }
            records += u64::from(json) * shown.records;
        }
    }
    records
}
