//! The bytes of a segment: head, blocks, footer. Encoding and decoding only; no file is touched here.

use crate::chain::Hash;

/// Everything in a segment starts at a multiple of this many bytes and is padded with zeros to the next.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a block's or footer's fixed head; the index follows.
pub const BLOCK_HEAD_BYTES: usize = 120;
/// A record in a block is preceded by its ring's id.
pub const RING_ID_BYTES: usize = 8;
/// Most bytes that a block's records may have before compression; readers refuse more before they allocate.
pub const RAW_BYTES_MAX: usize = 40 << 20;
/// Most index entries of one kind in a block or footer; readers refuse more before they allocate.
pub const INDEX_ENTRIES_MAX: usize = 1 << 20;

const SEGMENT_MAGIC: [u8; 8] = *b"WWSEGM01";
const BLOCK_MAGIC: [u8; 8] = *b"WWBLOCK1";
const FOOTER_MAGIC: [u8; 8] = *b"WWFOOT01";
const VERSION: u32 = 1;
const SEGMENT_HASHED_BYTES: usize = 72;
const BLOCK_HASHED_BYTES: usize = 88;
const RING_SPAN_BYTES: usize = 24;
const SESSION_SPAN_BYTES: usize = 32;

/// The first page of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// From 1, without gaps; also the file's name.
    pub number: u64,
    /// When it was begun, nanoseconds since 1970.
    pub created_unix_ns: u64,
    /// Which run of the recorder wrote it: random at each start.
    pub recorder_id: u64,
    /// Hash at the end of the chain of the segment before; zero in the first.
    pub previous: Hash,
}

/// What stands at the start of a block or footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// Block or footer.
    pub part: Part,
    /// From 1 in its segment; the footer has the number after the last block.
    pub number: u64,
    /// Hash of the block before, or of the segment's head.
    pub previous: Hash,
    /// Bytes of the records before compression; 0 in a footer.
    pub raw_bytes: u32,
    /// Bytes of the records as stored; 0 in a footer.
    pub stored_bytes: u32,
    /// Records in the block, or in all blocks of the segment.
    pub records: u32,
    /// Lowest time of a record, nanoseconds since 1970.
    pub first_unix_ns: u64,
    /// Highest time of a record.
    pub last_unix_ns: u64,
    /// Entries in the index, by ring.
    pub rings: u32,
    /// Entries in the index, by session.
    pub sessions: u32,
    /// blake3 over bytes 0..88 of the head, the index and the stored records.
    pub hash: Hash,
}

/// Which of the two a head belongs to, with the field that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A block of records.
    Block(Codec),
    /// The end of a segment.
    Footer(End),
}

/// How a block's records are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    None = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// Why a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was large or old enough.
    Rolled = 0,
    /// The recorder was told to stop.
    Stopped = 1,
    /// A recorder died; the next one found the last whole block and closed it.
    Recovered = 2,
}

/// Which records of a ring lie in a block or segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSpan {
    /// The ring's id, or the recorder's for records of its own.
    pub ring: u64,
    /// Lowest sequence number.
    pub first_seq: u64,
    /// Highest sequence number.
    pub last_seq: u64,
}

/// Which records of a session lie in a block or segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSpan {
    /// The session.
    pub session: u64,
    /// The ring of its first record here.
    pub ring: u64,
    /// The sequence number of that record.
    pub first_seq: u64,
    /// Records of the session here.
    pub records: u32,
    /// Bit n is set if a record of kind n is among them.
    pub kinds: u32,
}

/// What a block or segment contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// One entry a ring, in order of appearance.
    pub rings: Vec<RingSpan>,
    /// One entry a session, in order of appearance.
    pub sessions: Vec<SessionSpan>,
}

impl SegmentHead {
    /// The page as written, and its hash: where the segment's chain begins.
    pub fn encode(&self) -> (Vec<u8>, Hash) {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        page.extend_from_slice(&SEGMENT_MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
        for value in [self.number, self.created_unix_ns, self.recorder_id] {
            page.extend_from_slice(&value.to_le_bytes());
        }
        page.extend_from_slice(&self.previous.0);
        let hash = Hash::of(&[&page]);
        page.extend_from_slice(&hash.0);
        page.resize(PAGE_BYTES, 0);
        (page, hash)
    }

    /// Reads a segment's first page.
    pub fn decode(page: &[u8]) -> Result<(SegmentHead, Hash), &'static str> {
        let mut fields = Fields(page);
        if fields.array()? != SEGMENT_MAGIC {
            return Err("the file does not start like a segment");
        }
        if fields.u32()? != VERSION || fields.u32()? as usize != PAGE_BYTES {
            return Err("the segment has another version");
        }
        let (number, created_unix_ns, recorder_id) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (previous, hash) = (Hash(fields.array()?), Hash(fields.array()?));
        if Hash::of(&[&page[..SEGMENT_HASHED_BYTES]]) != hash {
            return Err("the segment's head does not have its hash");
        }
        if !fields.only_zeros() {
            return Err("the padding after the segment's head is not zero");
        }
        Ok((SegmentHead { number, created_unix_ns, recorder_id, previous }, hash))
    }
}

impl BlockHead {
    /// Writes head, index, stored records and padding to the end of `out`; fills in counts and hash.
    pub fn encode(mut self, index: &Index, stored: &[u8], out: &mut Vec<u8>) -> Hash {
        self.rings = index.rings.len() as u32;
        self.sessions = index.sessions.len() as u32;
        let start = out.len();
        self.put_hashed_fields(out);
        let mut spans = Vec::with_capacity(self.index_bytes());
        index.encode(&mut spans);
        let hash = Hash::of(&[&out[start..], &spans, stored]);
        out.extend_from_slice(&hash.0);
        out.extend_from_slice(&spans);
        out.extend_from_slice(stored);
        out.resize(start + self.total_bytes(), 0);
        if let Part::Footer(_) = self.part {
            let trailer = out.len() - 8;
            out[trailer..].copy_from_slice(&(self.total_bytes() as u64).to_le_bytes());
        }
        hash
    }

    fn put_hashed_fields(&self, out: &mut Vec<u8>) {
        let (magic, variant) = match self.part {
            Part::Block(codec) => (BLOCK_MAGIC, codec as u32),
            Part::Footer(end) => (FOOTER_MAGIC, end as u32),
        };
        out.extend_from_slice(&magic);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.previous.0);
        for value in [variant, self.raw_bytes, self.stored_bytes, self.records] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.extend_from_slice(&self.first_unix_ns.to_le_bytes());
        out.extend_from_slice(&self.last_unix_ns.to_le_bytes());
        out.extend_from_slice(&self.rings.to_le_bytes());
        out.extend_from_slice(&self.sessions.to_le_bytes());
    }

    /// Reads the fixed head and checks that its sizes are within bounds. The hash is not yet checked.
    pub fn decode(bytes: &[u8]) -> Result<BlockHead, &'static str> {
        let mut fields = Fields(bytes);
        let magic: [u8; 8] = fields.array()?;
        let (number, previous, variant) = (fields.u64()?, Hash(fields.array()?), fields.u32()?);
        let part = match (magic, variant) {
            (BLOCK_MAGIC, 0) => Part::Block(Codec::None),
            (BLOCK_MAGIC, 1) => Part::Block(Codec::Zstd),
            (FOOTER_MAGIC, 0) => Part::Footer(End::Rolled),
            (FOOTER_MAGIC, 1) => Part::Footer(End::Stopped),
            (FOOTER_MAGIC, 2) => Part::Footer(End::Recovered),
            (BLOCK_MAGIC | FOOTER_MAGIC, _) => return Err("the codec or the reason of the end is unknown"),
            _ => return Err("no block starts here"),
        };
        let (raw_bytes, stored_bytes, records) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (first_unix_ns, last_unix_ns) = (fields.u64()?, fields.u64()?);
        let (rings, sessions) = (fields.u32()?, fields.u32()?);
        let hash = Hash(fields.array()?);
        let head = BlockHead {
            part,
            number,
            previous,
            raw_bytes,
            stored_bytes,
            records,
            first_unix_ns,
            last_unix_ns,
            rings,
            sessions,
            hash,
        };
        head.check_bounds().map(|()| head)
    }

    fn check_bounds(&self) -> Result<(), &'static str> {
        let entries = self.rings.max(self.sessions) as usize;
        // A compressor may add a little to what it cannot compress.
        let bytes = self.raw_bytes.max(self.stored_bytes.saturating_sub(1 << 20)) as usize;
        let footer_with_body = matches!(self.part, Part::Footer(_)) && (self.raw_bytes | self.stored_bytes) != 0;
        if entries > INDEX_ENTRIES_MAX || bytes > RAW_BYTES_MAX || footer_with_body {
            return Err("the block's sizes are out of bounds");
        }
        Ok(())
    }

    /// Whether head, index and stored records have the head's hash. `bytes` is the whole block.
    pub fn has_its_hash(&self, bytes: &[u8]) -> bool {
        let body = BLOCK_HEAD_BYTES..BLOCK_HEAD_BYTES + self.index_bytes() + self.stored_bytes as usize;
        match (bytes.get(..BLOCK_HASHED_BYTES), bytes.get(body)) {
            (Some(fields), Some(body)) => Hash::of(&[fields, body]) == self.hash,
            _ => false,
        }
    }

    /// Whether the padding is as written: zeros, and in a footer its size in the last 8 bytes.
    pub fn has_its_padding(&self, bytes: &[u8]) -> bool {
        let used = BLOCK_HEAD_BYTES + self.index_bytes() + self.stored_bytes as usize;
        let Some(padding) = bytes.get(used..self.total_bytes()) else { return false };
        let (zeros, trailer) = match self.part {
            Part::Block(_) => (padding, None),
            Part::Footer(_) => (&padding[..padding.len() - 8], padding.last_chunk::<8>()),
        };
        zeros.iter().all(|byte| *byte == 0)
            && trailer.is_none_or(|trailer| u64::from_le_bytes(*trailer) == self.total_bytes() as u64)
    }

    /// Bytes of the index.
    pub fn index_bytes(&self) -> usize {
        self.rings as usize * RING_SPAN_BYTES + self.sessions as usize * SESSION_SPAN_BYTES
    }

    /// Bytes of the whole block with padding.
    pub fn total_bytes(&self) -> usize {
        let trailer = if matches!(self.part, Part::Footer(_)) { 8 } else { 0 };
        (BLOCK_HEAD_BYTES + self.index_bytes() + self.stored_bytes as usize + trailer).next_multiple_of(PAGE_BYTES)
    }
}

impl Index {
    /// Reads the index that follows a head.
    pub fn decode(head: &BlockHead, bytes: &[u8]) -> Result<Index, &'static str> {
        let mut fields = Fields(bytes);
        let mut index = Index::default();
        for _ in 0..head.rings {
            let (ring, first_seq, last_seq) = (fields.u64()?, fields.u64()?, fields.u64()?);
            index.rings.push(RingSpan { ring, first_seq, last_seq });
        }
        for _ in 0..head.sessions {
            let (session, ring, first_seq) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let (records, kinds) = (fields.u32()?, fields.u32()?);
            index.sessions.push(SessionSpan { session, ring, first_seq, records, kinds });
        }
        Ok(index)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for span in &self.rings {
            for value in [span.ring, span.first_seq, span.last_seq] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        for span in &self.sessions {
            for value in [span.session, span.ring, span.first_seq] {
                out.extend_from_slice(&value.to_le_bytes());
            }
            out.extend_from_slice(&span.records.to_le_bytes());
            out.extend_from_slice(&span.kinds.to_le_bytes());
        }
    }
}

/// Little-endian fields, one after the other.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or("the file ends in a head")?;
        self.0 = rest;
        Ok(*array)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, &'static str> {
        self.array().map(u64::from_le_bytes)
    }

    fn only_zeros(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}
