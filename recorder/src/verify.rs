//! Checks a recordings directory: every hash, every link, every sequence number, every signature.
//!
//! What it cannot see: blocks after the newest checkpoint that were cut off together with that knowledge, and a
//! directory that was set back to an earlier state as a whole. Keep checkpoints elsewhere to see these too.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use serde::Serialize;

use crate::chain::Hash;
use crate::checkpoint::{Checkpoint, FILE_NAME};
use crate::segment;
use crate::segment::format::Part;
use crate::segment::reader::{Block, Broken, Reader};
use crate::segment::writer::Tally;

/// What was checked, and what is wrong.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Segments read.
    pub segments: u64,
    /// Blocks whose hash and link are right, footers included.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// Checkpoints whose signature is right and whose block is there.
    pub checkpoints: u64,
    /// What is wrong; empty if nothing.
    pub problems: Vec<Problem>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// In which file.
    pub file: String,
    /// In which block, from 1; 0 is the head.
    pub block: u64,
    /// Where the block starts, in bytes.
    pub offset: u64,
    /// What it is.
    pub what: String,
}

/// Checks the directory with this public key.
pub fn verify(directory: &Path, key: &VerifyingKey) -> io::Result<Outcome> {
    let mut verifier = Verifier {
        directory,
        outcome: Outcome::default(),
        hashes: HashMap::new(),
        seqs: BTreeMap::new(),
        stopped: BTreeMap::new(),
    };
    let numbers = segment::list(directory)?;
    verifier.check_numbers(&numbers);
    let mut previous = Some(Hash::ZERO);
    for (place, number) in numbers.iter().enumerate() {
        let follower = numbers.get(place + 1).map(|next| segment::path(directory, *next));
        previous = verifier.check_segment(*number, previous, follower.as_deref());
    }
    verifier.check_checkpoints(key)?;
    Ok(verifier.outcome)
}

struct Verifier<'d> {
    directory: &'d Path,
    outcome: Outcome,
    /// Hash of each good block, by segment and number.
    hashes: HashMap<(u64, u64), Hash>,
    /// Last sequence number of each ring.
    seqs: BTreeMap<u64, u64>,
    /// In which block each damaged segment could not be read on.
    stopped: BTreeMap<u64, Stopped>,
}

struct Stopped {
    block: u64,
    /// Signed blocks from there on.
    signed: u64,
}

impl Verifier<'_> {
    fn check_numbers(&mut self, numbers: &[u64]) {
        let mut expected = 1;
        for number in numbers {
            if *number > expected {
                let what = match number - expected {
                    1 => "this segment is missing".to_owned(),
                    count => format!("this segment and the {} after it are missing", count - 1),
                };
                self.problem(&segment::path(self.directory, expected), 0, 0, what);
            }
            expected = number + 1;
        }
    }

    /// Checks one segment; gives the hash that the next one must name, or `None` if that cannot be known.
    fn check_segment(&mut self, number: u64, previous: Option<Hash>, follower: Option<&Path>) -> Option<Hash> {
        let path = segment::path(self.directory, number);
        let mut reader = match Reader::open(&path) {
            Ok(reader) => reader,
            Err(broken) => return self.broken(number, broken),
        };
        self.outcome.segments += 1;
        if reader.head().number != number {
            self.problem(&path, 0, 0, format!("the file holds segment {}", reader.head().number));
        }
        if previous.is_some_and(|previous| previous != reader.head().previous) {
            self.problem(&path, 0, 0, "the segment does not follow the one before it: the chain is broken".into());
        }
        self.hashes.insert((number, 0), reader.head_hash());
        // After a failed flush the next segment is linked to the last good one: what stands behind that does not count.
        let named = follower.and_then(|path| Reader::open(path).ok()).map(|next| next.head().previous);
        match self.check_blocks(&mut reader, number, named) {
            Ok(()) => Some(self.check_end(&reader, &path, named)),
            Err(broken) => self.broken(number, broken),
        }
    }

    fn check_blocks(&mut self, reader: &mut Reader, number: u64, named: Option<Hash>) -> Result<(), Broken> {
        let mut tally = Tally::default();
        while named.is_none_or(|named| named != reader.tip()) {
            let Some(block) = reader.next_block()? else { break };
            self.outcome.blocks += 1;
            self.hashes.insert((number, block.head.number), block.head.hash);
            match block.head.part {
                Part::Footer(_) => self.check_footer(&tally, &block, number),
                Part::Block(_) => {
                    tally.merge_block(&block.head, &block.index);
                    self.check_records(block, number)?;
                }
            }
        }
        Ok(())
    }

    fn check_records(&mut self, block: Block, segment_number: u64) -> Result<(), Broken> {
        let path = segment::path(self.directory, segment_number);
        let (number, offset, index) = (block.head.number, block.offset, block.index.clone());
        let mut tally = Tally::default();
        for entry in block.records()?.iter() {
            let (ring, seq) = (entry.ring, entry.header.seq);
            tally.add(ring, &entry.header);
            self.outcome.records += 1;
            let last = self.seqs.insert(ring, seq).unwrap_or(0);
            if last.checked_add(1) != Some(seq) {
                let what = format!("ring {ring:016x}: record {seq} follows record {last}");
                self.problem(&path, number, offset, what);
            }
        }
        if *tally.index() != index {
            self.problem(&path, number, offset, "the index does not list the records of the block".into());
        }
        Ok(())
    }

    fn check_footer(&mut self, tally: &Tally, footer: &Block, number: u64) {
        if *tally.index() != footer.index || tally.records() != footer.head.records {
            let path = segment::path(self.directory, number);
            let what = "the footer does not list the blocks of the segment".into();
            self.problem(&path, footer.head.number, footer.offset, what);
        }
    }

    fn check_end(&mut self, reader: &Reader, path: &Path, named: Option<Hash>) -> Hash {
        let rest = reader.file_bytes() - reader.offset();
        if reader.ended() && rest > 0 {
            self.problem(path, reader.next_number(), reader.offset(), "something follows the footer".into());
        }
        if !reader.ended() && named.is_some() {
            if named == Some(reader.tip()) {
                self.outcome.notes.push(format!(
                    "{}: no footer: a flush failed after block {}; {rest} bytes behind it do not count",
                    path.display(),
                    reader.next_number() - 1
                ));
            } else {
                let what = "the segment ends here without footer".into();
                self.problem(path, reader.next_number(), reader.offset(), what);
            }
        } else if !reader.ended() {
            self.outcome
                .notes
                .push(format!("{}: no footer: it is being written, or its recorder died", path.display()));
        }
        reader.tip()
    }

    fn check_checkpoints(&mut self, key: &VerifyingKey) -> io::Result<()> {
        let path = self.directory.join(FILE_NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut offset = 0;
        for (place, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if let Err(what) = self.check_checkpoint(line, key) {
                self.problem(&path, place as u64 + 1, offset, what);
            }
            offset += line.len() as u64;
        }
        self.note_unchecked();
        if bytes.is_empty() && self.outcome.blocks > 0 {
            self.problem(&path, 0, 0, "there is no checkpoint, so a cut tail could not be seen".into());
        }
        Ok(())
    }

    fn check_checkpoint(&mut self, line: &[u8], key: &VerifyingKey) -> Result<(), String> {
        let unreadable = |_| "this line is no checkpoint".to_owned();
        let checkpoint: Checkpoint = serde_json::from_slice(line).map_err(unreadable)?;
        if !checkpoint.is_signed_by(key) {
            return Err("the signature is not of this key".into());
        }
        let Checkpoint { segment, block, .. } = checkpoint;
        match self.hashes.get(&(segment, block)) {
            Some(hash) if Some(*hash) == checkpoint.hash() => {
                self.outcome.checkpoints += 1;
                Ok(())
            }
            Some(_) => Err(format!("block {block} of segment {segment} has another hash than was signed")),
            None => match self.stopped.get_mut(&segment).filter(|stopped| stopped.block <= block) {
                Some(stopped) => {
                    stopped.signed += 1;
                    Ok(())
                }
                None => Err(format!("block {block} of segment {segment} was signed and is missing")),
            },
        }
    }

    /// Once for each damaged segment: its damage is told already.
    fn note_unchecked(&mut self) {
        for (segment, Stopped { block, signed }) in self.stopped.iter().filter(|(_, stopped)| stopped.signed > 0) {
            self.outcome.notes.push(format!(
                "not checked: what stands behind block {block} of segment {segment}; signed checkpoints there: {signed}"
            ));
        }
    }

    fn broken(&mut self, segment: u64, broken: Broken) -> Option<Hash> {
        self.stopped.insert(segment, Stopped { block: broken.block, signed: 0 });
        self.problem(&broken.path, broken.block, broken.offset, broken.what);
        None
    }

    fn problem(&mut self, path: &Path, block: u64, offset: u64, what: String) {
        let file = path.file_name().map_or_else(|| path.into(), PathBuf::from).display().to_string();
        self.outcome.problems.push(Problem { file, block, offset, what });
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, block {}, offset {}: {}", self.file, self.block, self.offset, self.what)
    }
}
