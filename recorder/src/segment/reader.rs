//! Reads a segment forwards, block by block, checking the chain as it goes.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ring::record::{HEADER_BYTES, Header};

use super::format::{BLOCK_HEAD_BYTES, BlockHead, Index, PAGE_BYTES, Part, RING_ID_BYTES, SegmentHead};
use crate::chain::Hash;
use crate::compress::decompress;

/// A segment that is being read.
pub struct Reader {
    file: File,
    path: PathBuf,
    file_bytes: u64,
    head: SegmentHead,
    head_hash: Hash,
    offset: u64,
    tip: Hash,
    next_number: u64,
    ended: bool,
}

/// What is wrong in a segment, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The file.
    pub path: PathBuf,
    /// The block, from 1; 0 is the segment's head.
    pub block: u64,
    /// Where the block starts in the file, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// The bytes are wrong; else the file could not be read.
    pub is_content: bool,
}

/// One block or footer whose hash and place in the chain are right.
pub struct Block {
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// Its head.
    pub head: BlockHead,
    /// Which rings and sessions it contains.
    pub index: Index,
    path: PathBuf,
    stored: Vec<u8>,
}

/// One record of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'b> {
    /// The ring that it came from, or the recorder's id.
    pub ring: u64,
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: &'b [u8],
}

/// A block's records, decompressed.
pub struct Records {
    raw: Vec<u8>,
}

impl Reader {
    /// Opens a segment and checks its head.
    pub fn open(path: &Path) -> Result<Reader, Broken> {
        let unreadable = |error| Broken::io(path, 0, 0, &error);
        let file = File::open(path).map_err(unreadable)?;
        let file_bytes = file.metadata().map_err(unreadable)?.len();
        let mut page = [0; PAGE_BYTES];
        file.read_exact_at(&mut page, 0).map_err(unreadable)?;
        let (head, head_hash) = SegmentHead::decode(&page).map_err(|what| Broken::content(path, 0, 0, what))?;
        Ok(Reader {
            file,
            path: path.to_owned(),
            file_bytes,
            head,
            head_hash,
            offset: PAGE_BYTES as u64,
            tip: head_hash,
            next_number: 1,
            ended: false,
        })
    }

    /// The segment's head.
    pub fn head(&self) -> &SegmentHead {
        &self.head
    }

    /// The hash of the segment's head.
    pub fn head_hash(&self) -> Hash {
        self.head_hash
    }

    /// The next block or footer; `None` at the end of the file. After an error nothing more can be read.
    pub fn next_block(&mut self) -> Result<Option<Block>, Broken> {
        if self.offset == self.file_bytes {
            return Ok(None);
        }
        let head = self.read_head()?;
        let mut bytes = vec![0; head.total_bytes()];
        self.read(&mut bytes, self.offset)?;
        self.check(&head, &bytes)?;
        let index = Index::decode(&head, &bytes[BLOCK_HEAD_BYTES..]).map_err(|what| self.broken(what))?;
        let body = BLOCK_HEAD_BYTES + head.index_bytes();
        bytes.truncate(body + head.stored_bytes as usize);
        let block = Block { offset: self.offset, head, index, path: self.path.clone(), stored: bytes.split_off(body) };
        self.step(&head);
        Ok(Some(block))
    }

    /// The next block's head and index, without its records and without checking its hash: for lists.
    pub fn next_index(&mut self) -> Result<Option<(u64, BlockHead, Index)>, Broken> {
        if self.offset == self.file_bytes {
            return Ok(None);
        }
        let (offset, head) = (self.offset, self.read_head()?);
        let mut bytes = vec![0; head.index_bytes()];
        self.read(&mut bytes, offset + BLOCK_HEAD_BYTES as u64)?;
        let index = Index::decode(&head, &bytes).map_err(|what| self.broken(what))?;
        self.step(&head);
        Ok(Some((offset, head, index)))
    }

    /// The footer's head and index, found from the end of the file; `None` unless the segment was ended and the footer has
    /// its hash.
    pub fn footer(&self) -> Option<(BlockHead, Index)> {
        let mut trailer = [0; 8];
        self.file.read_exact_at(&mut trailer, self.file_bytes.checked_sub(8)?).ok()?;
        let offset = self.file_bytes.checked_sub(u64::from_le_bytes(trailer))?;
        let mut bytes = [0; BLOCK_HEAD_BYTES];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        let head = BlockHead::decode(&bytes).ok().filter(|head| matches!(head.part, Part::Footer(_)))?;
        if offset + head.total_bytes() as u64 != self.file_bytes {
            return None;
        }
        let footer = self.block_at(offset, &head).ok()?;
        Some((footer.head, footer.index))
    }

    /// The block at an offset that [`Reader::next_index`] gave, with its hash checked.
    pub fn block_at(&self, offset: u64, head: &BlockHead) -> Result<Block, Broken> {
        let mut reader = Reader {
            file: self.file.try_clone().map_err(|error| Broken::io(&self.path, head.number, offset, &error))?,
            path: self.path.clone(),
            offset,
            tip: head.previous,
            next_number: head.number,
            ended: false,
            ..*self
        };
        reader.next_block()?.ok_or_else(|| self.broken("the file has become shorter"))
    }

    /// Where the next block would start.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Hash of the last block that was read, or of the head.
    pub fn tip(&self) -> Hash {
        self.tip
    }

    /// Number of the next block.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether the footer was read.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Size of the file, in bytes, when it was opened.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    fn read_head(&self) -> Result<BlockHead, Broken> {
        if self.ended {
            return Err(self.broken("something follows the footer"));
        }
        let mut bytes = [0; BLOCK_HEAD_BYTES];
        self.read(&mut bytes, self.offset)?;
        let head = BlockHead::decode(&bytes).map_err(|what| self.broken(what))?;
        if self.offset + head.total_bytes() as u64 > self.file_bytes {
            return Err(self.broken("the file ends in this block"));
        }
        if head.number != self.next_number {
            return Err(self.broken(format!("block {} stands here", head.number)));
        }
        if head.previous != self.tip {
            return Err(self.broken("the block does not follow the one before it: the chain is broken"));
        }
        Ok(head)
    }

    fn check(&self, head: &BlockHead, bytes: &[u8]) -> Result<(), Broken> {
        if !head.has_its_hash(bytes) {
            return Err(self.broken("the block does not have its hash: it was changed or torn"));
        }
        if !head.has_its_padding(bytes) {
            return Err(self.broken("the padding after the block was changed or torn"));
        }
        Ok(())
    }

    fn step(&mut self, head: &BlockHead) {
        self.offset += head.total_bytes() as u64;
        self.tip = head.hash;
        self.next_number += 1;
        self.ended = matches!(head.part, Part::Footer(_));
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), Broken> {
        let unreadable = |error| Broken::io(&self.path, self.next_number, self.offset, &error);
        self.file.read_exact_at(bytes, offset).map_err(unreadable)
    }

    fn broken(&self, what: impl Into<String>) -> Broken {
        Broken::content(&self.path, self.next_number, self.offset, what)
    }
}

impl Block {
    /// Where the block ends in the file.
    pub fn end_offset(&self) -> u64 {
        self.offset + self.head.total_bytes() as u64
    }

    /// Decompresses the records and checks that they are whole. A footer has none.
    pub fn records(self) -> Result<Records, Broken> {
        let (path, block, offset) = (self.path, self.head.number, self.offset);
        let broken = |what: &str| Broken::content(&path, block, offset, what);
        let Part::Block(codec) = self.head.part else { return Ok(Records { raw: Vec::new() }) };
        let raw = decompress(codec, self.stored, self.head.raw_bytes as usize).map_err(broken)?;
        let records = Records { raw };
        let mut rest = &records.raw[..];
        let mut count = 0_u32;
        while !rest.is_empty() {
            rest = split(rest).ok_or_else(|| broken("a record in the block is malformed"))?.1;
            count += 1;
        }
        if count == self.head.records { Ok(records) } else { Err(broken("the block has another number of records")) }
    }
}

impl Records {
    /// The records in order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut rest = &self.raw[..];
        std::iter::from_fn(move || {
            let (entry, after) = split(rest)?;
            rest = after;
            Some(entry)
        })
    }
}

fn split(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (ring, rest) = bytes.split_first_chunk::<RING_ID_BYTES>()?;
    let header = Header::from_bytes(rest.first_chunk::<HEADER_BYTES>()?)?;
    let (record, after) = rest.split_at_checked(header.length as usize)?;
    Some((Entry { ring: u64::from_le_bytes(*ring), header, payload: &record[HEADER_BYTES..] }, after))
}

impl Broken {
    /// Bytes that are no segment.
    pub(crate) fn content(path: &Path, block: u64, offset: u64, what: impl Into<String>) -> Broken {
        Broken { path: path.to_owned(), block, offset, what: what.into(), is_content: true }
    }

    fn io(path: &Path, block: u64, offset: u64, error: &io::Error) -> Broken {
        let is_content = error.kind() == io::ErrorKind::UnexpectedEof;
        let what = if is_content { "the file ends here".into() } else { format!("cannot be read: {error}") };
        Broken { path: path.to_owned(), block, offset, what, is_content }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, block {}, offset {}: {}", self.path.display(), self.block, self.offset, self.what)
    }
}

impl std::error::Error for Broken {}
