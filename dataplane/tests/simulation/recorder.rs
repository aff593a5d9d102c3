//! The recorder's own core on a disk of its own, which dies at the worst moments and is started again.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use recorder::core::{BLOCK_AGE_MS_MAX, Core, Step};
use recorder::recover::recover;
use recorder::segment;
use recorder::segment::reader::Reader;
use recorder::segment::writer::{Batch, Limits, Now};
use ring::{Consumer, Kind, Words};

use super::ledger::{Ledger, Shared, hash};
use super::scenario::Crash;
use super::world::EPOCH_NS;

/// The recorder is woken as often as its own shell would be.
const STEP_NS: u64 = 1_000_000;

pub struct Recorder {
    directory: PathBuf,
    rings: Vec<Shared>,
    core: Option<Core<Shared>>,
    lives: u64,
    stepped_ns: Option<u64>,
}

impl Recorder {
    pub fn start(ledger: &Ledger, shards: usize, now_ns: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = base.join(format!("wireward-simulation-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let rings = (0..shards).map(|shard| ledger.ring(shard)).collect();
        let mut recorder = Self { directory, rings, core: None, lives: 0, stepped_ns: None };
        recorder.live(now_ns);
        recorder
    }

    /// Starts it, or starts it again: what is on disk is recovered first.
    pub fn live(&mut self, now_ns: u64) {
        if self.core.is_some() {
            return;
        }
        let recovered = recover(&self.directory).expect("the disk can be read");
        let attach = |ring: &Shared| Consumer::attach(Words(ring.0.clone())).expect("a sound ring");
        let consumers = self.rings.iter().map(attach).collect();
        self.lives += 1;
        // Small segments, so that some end in a run.
        let limits = Limits { segment_bytes_max: 64 << 10, ..Limits::default() };
        self.core = Some(Core::new(consumers, 1_000 + self.lives, limits, recovered.resume).expect("memory"));
        self.stepped_ns = None;
        self.step(now_ns);
    }

    pub fn is_alive(&self) -> bool {
        self.core.is_some()
    }

    pub fn step(&mut self, now_ns: u64) {
        if self.stepped_ns.is_some_and(|at| now_ns < at + STEP_NS) {
            return;
        }
        self.stepped_ns = Some(now_ns);
        self.write(now_ns, 0);
    }

    /// Writes what is due after another `age_ms`.
    fn write(&mut self, now_ns: u64, age_ms: u64) {
        let Some(core) = &mut self.core else { return };
        let now = clock(now_ns, age_ms);
        while core.step(now) == Step::Write {
            put(&self.directory, core.batch().expect("there is one"), None);
            core.done(Ok(()), now);
        }
        assert_eq!(
            core.take_reports().iter().find(|r| !matches!(r, recorder::core::Report::ProducerDied { .. })),
            None
        );
    }

    pub fn die(&mut self, crash: Crash, now_ns: u64) {
        let Some(mut core) = self.core.take() else { return };
        if crash == Crash::Idle || core.step(clock(now_ns, BLOCK_AGE_MS_MAX)) != Step::Write {
            return;
        }
        let batch = core.batch().expect("there is one");
        match crash {
            Crash::Torn => put(&self.directory, batch, Some(batch.bytes.len() * 2 / 3)),
            Crash::Unacknowledged => put(&self.directory, batch, None),
            Crash::Idle | Crash::Unwritten => {}
        }
    }

    /// Takes in all that is left, ends, and compares: every record that a shard was given a receipt for is there once, in its
    /// order, as it was; every session has one end, and those that lost their shard have it from the recorder.
    pub fn check(&mut self, ledger: &Ledger, now_ns: u64) {
        self.live(now_ns);
        self.write(now_ns, BLOCK_AGE_MS_MAX);
        self.write(now_ns, 2 * BLOCK_AGE_MS_MAX);
        let mut core = self.core.take().expect("it lives");
        let now = clock(now_ns, 2 * BLOCK_AGE_MS_MAX);
        while let Some(batch) = core.finish(now) {
            put(&self.directory, batch, None);
            core.done(Ok(()), now);
        }
        let mut counted = vec![0; self.rings.len()];
        let (mut opened, mut closed, mut closed_here) = (Vec::new(), Vec::new(), Vec::new());
        self.read(|ring, header, payload| {
            match header.kind {
                Kind::Open => opened.push(header.session),
                Kind::Close => closed.push(header.session),
                _ => {}
            }
            if ring > 1_000 {
                closed_here.extend((header.kind == Kind::Close).then_some(header.session));
                return;
            }
            let shard = ring as usize - 1;
            counted[shard] += 1;
            assert_eq!(header.seq, counted[shard], "ring {ring} has a record twice, or a hole");
            let known = ledger.seen(shard).get(header.seq as usize - 1).copied();
            assert_eq!(known, Some(hash(header, payload)), "record {} of ring {ring} is another", header.seq);
        });
        for (shard, counted) in counted.into_iter().enumerate() {
            assert_eq!(counted, ledger.seen(shard).len() as u64, "acknowledged records of shard {shard} are lost");
        }
        let mut lost = ledger.lost.clone();
        [&mut opened, &mut closed, &mut closed_here, &mut lost].into_iter().for_each(|list| list.sort_unstable());
        assert_eq!(closed, opened, "sessions without an end, or with two");
        assert_eq!(closed_here, lost, "the recorder ends the sessions whose shard has panicked, and no others");
    }

    fn read(&self, mut visit: impl FnMut(u64, &ring::record::Header, &[u8])) {
        for number in segment::list(&self.directory).expect("the disk can be read") {
            let mut reader = Reader::open(&segment::path(&self.directory, number)).expect("a sound segment");
            while let Some(block) = reader.next_block().expect("a sound block") {
                let records = block.records().expect("sound records");
                records.iter().for_each(|entry| visit(entry.ring, &entry.header, entry.payload));
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn clock(now_ns: u64, age_ms: u64) -> Now {
    Now { unix_ns: EPOCH_NS + now_ns, monotonic_ms: 1_000 + now_ns / 1_000_000 + age_ms }
}

/// Writes a batch, or its first bytes.
fn put(directory: &Path, batch: &Batch, bytes: Option<usize>) {
    let path = segment::path(directory, batch.segment);
    let file = OpenOptions::new().write(true).create_new(batch.create).open(path).expect("the disk can be written");
    file.write_all_at(&batch.bytes[..bytes.unwrap_or(batch.bytes.len())], batch.offset).expect("there is room");
}
