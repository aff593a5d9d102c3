//! What a recorder does before it writes: find the last whole block, put the torn tail aside, learn where to go on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint;
use crate::core::Resume;
use crate::segment;
use crate::segment::format::Index;
use crate::segment::reader::{Broken, Reader};
use crate::segment::writer::{Tally, Tip, closing_footer};

/// What recovery found and did.
pub struct Recovered {
    /// Where the recorder goes on.
    pub resume: Resume,
    /// What was put aside, for the operator.
    pub torn: Vec<Torn>,
}

/// A tail that was moved out of a file. The bytes are kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file that was cut.
    pub path: PathBuf,
    /// Where it was cut, in bytes.
    pub offset: u64,
    /// How many bytes were put aside.
    pub bytes: u64,
    /// Where they are now.
    pub kept_in: PathBuf,
    /// Why they are no block.
    pub why: String,
}

/// Brings a recordings directory into order. Call it with the lock held; it is safe to be killed and to run again.
pub fn recover(directory: &Path) -> io::Result<Recovered> {
    let mut recovered = Recovered { resume: Resume::default(), torn: Vec::new() };
    recovered.torn.extend(mend_checkpoints(directory)?);
    let numbers = segment::list(directory)?;
    let (last, earlier) = match numbers.split_last() {
        Some((last, earlier)) => (*last, earlier),
        None => return Ok(recovered),
    };
    for number in earlier {
        learn(&segment::path(directory, *number), &mut recovered.resume);
    }
    mend_last(directory, last, &mut recovered)?;
    Ok(recovered)
}

/// Follows a finished segment. Damage in it is the verifier's business: it must not stop recording.
fn learn(path: &Path, resume: &mut Resume) {
    let Ok(mut reader) = Reader::open(path) else { return };
    let mut tip = Tip { segment: reader.head().number, block: 0, hash: reader.head_hash() };
    match reader.footer() {
        Some((head, index)) => {
            resume.follow(&index);
            tip = Tip { block: head.number, hash: head.hash, ..tip };
        }
        None => {
            while let Ok(Some((_, head, index))) = reader.next_index() {
                resume.follow(&index);
                tip = Tip { block: head.number, hash: head.hash, ..tip };
            }
        }
    }
    resume.tip = Some(tip);
}

/// Checks the last segment block by block, cuts what is torn, and closes it.
fn mend_last(directory: &Path, number: u64, recovered: &mut Recovered) -> io::Result<()> {
    let path = segment::path(directory, number);
    let mut reader = match Reader::open(&path) {
        Ok(reader) => reader,
        Err(broken) if broken.is_content => {
            recovered.torn.push(set_aside(&path, &broken)?);
            return sync_directory(directory);
        }
        Err(broken) => return Err(io::Error::other(broken.to_string())),
    };
    let mut tip = Tip { segment: number, block: 0, hash: reader.head_hash() };
    let mut tally = Tally::default();
    loop {
        match reader.next_block() {
            Ok(Some(block)) => {
                tally.merge_block(&block.head, &block.index);
                if !reader.ended() {
                    recovered.resume.follow(&block.index);
                }
                tip = Tip { block: block.head.number, hash: block.head.hash, ..tip };
            }
            Ok(None) => break,
            Err(broken) if broken.is_content => {
                recovered.torn.push(cut(&path, &broken, reader.file_bytes())?);
                break;
            }
            // A disk that cannot be read is no torn tail: cutting here would destroy evidence.
            Err(broken) => return Err(io::Error::other(broken.to_string())),
        }
    }
    if !reader.ended() {
        tip = append_footer(&path, reader.offset(), tip, &tally)?;
    }
    recovered.resume.tip = Some(tip);
    sync_directory(directory)
}

fn append_footer(path: &Path, offset: u64, tip: Tip, tally: &Tally) -> io::Result<Tip> {
    let (bytes, tip) = closing_footer(tip, tally);
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&bytes)?;
    // The blocks before the footer may still be in the page cache only: nothing was acknowledged by their flush.
    file.sync_all()?;
    Ok(tip)
}

/// A file of which not even the head is whole.
fn set_aside(path: &Path, broken: &Broken) -> io::Result<Torn> {
    let bytes = std::fs::metadata(path)?.len();
    let kept_in = free_name(path);
    std::fs::rename(path, &kept_in)?;
    Ok(Torn { path: path.to_owned(), offset: 0, bytes, kept_in, why: broken.what.clone() })
}

fn cut(path: &Path, broken: &Broken, file_bytes: u64) -> io::Result<Torn> {
    let kept_in = copy_tail(path, broken.offset)?;
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(broken.offset)?;
    file.sync_all()?;
    let (offset, bytes) = (broken.offset, file_bytes - broken.offset);
    Ok(Torn { path: path.to_owned(), offset, bytes, kept_in, why: broken.what.clone() })
}

fn copy_tail(path: &Path, offset: u64) -> io::Result<PathBuf> {
    let kept_in = free_name(path);
    let mut from = File::open(path)?;
    from.seek(SeekFrom::Start(offset))?;
    let mut to = OpenOptions::new().write(true).create_new(true).open(&kept_in)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    Ok(kept_in)
}

/// A checkpoint that was half written when its recorder died.
fn mend_checkpoints(directory: &Path) -> io::Result<Option<Torn>> {
    let path = directory.join(checkpoint::FILE_NAME);
    let mut text = Vec::new();
    match File::open(&path) {
        Ok(mut file) => file.read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) as u64;
    if whole == text.len() as u64 {
        return Ok(None);
    }
    let broken = Broken::content(&path, 0, whole, "the last checkpoint is not whole");
    cut(&path, &broken, text.len() as u64).map(Some)
}

/// The first free name of the form `<path>.torn`, `<path>.torn2`, …: nothing that was put aside is ever overwritten.
pub(crate) fn free_name(path: &Path) -> PathBuf {
    let name = |suffix: String| PathBuf::from(format!("{}.torn{suffix}", path.display()));
    let first = name(String::new());
    if !first.exists() {
        return first;
    }
    (2_u32..).map(|n| name(n.to_string())).find(|path| !path.exists()).unwrap_or(first)
}

/// Flushes the names in a directory.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

impl Resume {
    fn follow(&mut self, index: &Index) {
        self.sessions.follow_index(index);
        for span in &index.rings {
            let seq = self.last_seqs.entry(span.ring).or_insert(0);
            *seq = span.last_seq.max(*seq);
        }
    }
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Torn { path, offset, bytes, kept_in, why } = self;
        write!(f, "{}: cut at offset {offset}: {why}; {bytes} bytes kept in {}", path.display(), kept_in.display())
    }
}
