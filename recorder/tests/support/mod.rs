//! A recorder whose disk and clock the test holds: real files, real rings on the heap, no thread.
#![allow(dead_code, reason = "each test file uses a part")]

use recorder::RunConfig;
use recorder::checkpoint::Checkpoints;
use recorder::core::{Core, Failure, Resume, Step};
use recorder::recover::recover;
use recorder::segment;
use recorder::segment::writer::{Batch, Limits, Now};
use recorder::shell::choice::Choice;
use ring::{Consumer, Flags, Kind, Producer, Words};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub type Heap = Words<Vec<AtomicU64>>;

/// A directory that is removed at the end of the test.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wireward-recorder-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Not in /tmp, which may be in memory: there is no direct I/O.
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(path.join("recordings")).unwrap();
        Directory(path)
    }

    pub fn recordings(&self) -> PathBuf {
        self.0.join("recordings")
    }

    pub fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    /// For a recorder of one ring that writes here, through this shell and no other.
    pub fn config(&self, ring: &OwnedFd, shell: Choice) -> RunConfig {
        RunConfig {
            rings: vec![ring.try_clone().unwrap()],
            directory: self.recordings(),
            key_path: self.key(),
            limits: Limits::default(),
            shell,
            settled: |_, why| assert_eq!(why, None),
            report: |_| {},
        }
    }

    /// Another directory with the same files.
    pub fn copy(&self) -> Directory {
        let copy = Directory::new();
        for entry in std::fs::read_dir(self.recordings()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.recordings().join(path.file_name().unwrap())).unwrap();
        }
        copy
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 7) % bound
    }
}

pub fn heap(capacity_bytes: usize, id: u64) -> &'static Heap {
    Box::leak(Box::new(Heap::heap(capacity_bytes, id)))
}

/// Commits one record; its sequence number.
pub fn put(producer: &mut Producer<&'static Heap>, kind: Kind, session: u64, payload: &[u8]) -> u64 {
    let mut claim = producer.try_claim(payload.len()).unwrap();
    claim.write(payload).unwrap();
    claim.commit(kind, Flags::WHOLE, session, 1_000_000 * session).seq
}

/// What the record with this number carries in tests.
pub fn payload(seq: u64) -> Vec<u8> {
    let mut random = Random(seq);
    let bytes = random.below(900);
    (0..bytes).map(|_| random.below(17) as u8).collect()
}

/// Commits `count` records of session 1 whose payload follows from their number.
pub fn put_many(producer: &mut Producer<&'static Heap>, count: u64, next: &mut u64) {
    for _ in 0..count {
        assert_eq!(put(producer, Kind::Request, 1, &payload(*next)), *next);
        *next += 1;
    }
}

pub struct Bench {
    pub core: Core<&'static Heap>,
    pub now: Now,
}

impl Bench {
    pub fn new(rings: &[&'static Heap], limits: Limits, resume: Resume) -> Bench {
        let consumers = rings.iter().map(|ring| Consumer::attach(*ring).unwrap()).collect();
        let now = Now { unix_ns: 1_700_000_000_000_000_000, monotonic_ms: 1000 };
        let id =
            0xfeed_0000 + u64::from(std::process::id()) + resume.tip.map_or(0, |tip| tip.segment << 32 | tip.block);
        Bench { core: Core::new(consumers, id, limits, resume).unwrap(), now }
    }

    /// A recorder that recovers the directory first, as the shell does.
    pub fn recovered(rings: &[&'static Heap], limits: Limits, directory: &Path) -> Bench {
        Bench::new(rings, limits, recover(directory).unwrap().resume)
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.unix_ns += ms * 1_000_000;
    }

    /// The next batch, after the time that a block may wait; not written yet.
    pub fn next_batch(&mut self) -> Option<Batch> {
        if self.core.step(self.now) == Step::Write {
            return self.core.batch().cloned();
        }
        self.pass(recorder::core::BLOCK_AGE_MS_MAX);
        (self.core.step(self.now) == Step::Write).then(|| self.core.batch().cloned().unwrap())
    }

    pub fn fail(&mut self, failure: Failure) {
        self.core.done(Err(failure), self.now);
    }

    /// Writes all there is; how many batches.
    pub fn write_all(&mut self, directory: &Path) -> u32 {
        let mut batches = 0;
        while let Some(batch) = self.next_batch() {
            write(directory, &batch);
            self.core.done(Ok(()), self.now);
            batches += 1;
        }
        batches
    }

    pub fn finish(&mut self, directory: &Path) {
        self.write_all(directory);
        while let Some(batch) = self.core.finish(self.now).cloned() {
            write(directory, &batch);
            self.core.done(Ok(()), self.now);
        }
    }

    pub fn checkpoint(&self, directory: &Directory) {
        let mut checkpoints = Checkpoints::open(&directory.recordings(), &directory.key()).unwrap();
        checkpoints.note(self.core.durable(), self.now, true).unwrap();
    }
}

pub fn write(directory: &Path, batch: &Batch) {
    let path = segment::path(directory, batch.segment);
    let file = OpenOptions::new().write(true).create_new(batch.create).open(path).unwrap();
    file.write_all_at(&batch.bytes, batch.offset).unwrap();
}

/// All records of a directory, by ring and number. Asserts that nothing is damaged.
pub fn read_all(directory: &Path) -> BTreeMap<(u64, u64), (Kind, u64, Vec<u8>)> {
    let mut records = BTreeMap::new();
    let damage = recorder::evidence::walk(
        directory,
        |_| true,
        |entry| {
            let header = entry.header;
            records.insert((entry.ring, header.seq), (header.kind, header.session, entry.payload.to_vec()));
            Ok(())
        },
    );
    assert_eq!(damage.unwrap(), []);
    records
}

/// Asserts that ring 1 has records 1..=last and each is what was put.
pub fn assert_complete(directory: &Path, last: u64) {
    let records = read_all(directory);
    let seqs = records.keys().filter(|(ring, _)| *ring == 1).map(|(_, seq)| *seq);
    assert!(seqs.eq(1..=last), "ring 1 has a hole or too many records");
    for seq in 1..=last {
        assert_eq!(records[&(1, seq)].2, payload(seq), "record {seq}");
    }
}

/// The problems that `verify` finds, apart from a missing file of checkpoints.
pub fn problems(directory: &Directory) -> Vec<recorder::verify::Problem> {
    let checkpoints = Checkpoints::open(&directory.recordings(), &directory.key());
    drop(checkpoints.unwrap());
    let key = directory.recordings().join(recorder::checkpoint::PUBLIC_KEY_FILE_NAME);
    let key = recorder::checkpoint::read_public_key(&key).unwrap();
    let outcome = recorder::verify::verify(&directory.recordings(), &key).unwrap();
    outcome.problems.into_iter().filter(|problem| !problem.what.contains("there is no checkpoint")).collect()
}
