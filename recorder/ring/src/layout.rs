//! Where things lie in the shared pages, and what the algorithm needs of its memory.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes before the data: one page of control words.
pub const CONTROL_BYTES: usize = 4096;
/// `WWRING01` read as a little-endian u64.
pub const MAGIC: u64 = u64::from_le_bytes(*b"WWRING01");
/// Version of layout and record header.
pub const VERSION: u64 = 1;
/// Smallest capacity, in bytes: a few records of the largest size fit.
pub const CAPACITY_BYTES_MIN: usize = 256;
/// Positions end here, after 290 years at 1 GB/s, so that adding to one never overflows.
const POSITION_MAX: u64 = 1 << 63;
/// Sequence numbers that a producer goes on from end here, so that counting on never overflows.
pub(crate) const SEQ_MAX: u64 = 1 << 63;
/// Largest capacity, in bytes: with records of at most an eighth of it, a reader of segments can bound its memory.
pub const CAPACITY_BYTES_MAX: usize = 256 << 20;

// Indexes of control words. Words that different sides write lie 128 bytes apart: two cache lines, because the
// adjacent-line prefetcher pulls pairs.
pub(crate) const WORD_MAGIC: usize = 0;
pub(crate) const WORD_VERSION: usize = 1;
pub(crate) const WORD_CAPACITY: usize = 2;
pub(crate) const WORD_RING_ID: usize = 3;
pub(crate) const WORD_PRODUCER_POSITION: usize = 16;
pub(crate) const WORD_CONSUMER_POSITION: usize = 32;
pub(crate) const WORD_DURABLE_SEQ: usize = 48;
pub(crate) const WORD_PRODUCER_HEARTBEAT: usize = 64;
pub(crate) const WORD_RECORDER_HEARTBEAT: usize = 80;
pub(crate) const WORD_WAITING: usize = 96;
pub(crate) const WORD_PRODUCER_EPOCH: usize = 112;
pub(crate) const WORD_PRODUCER_FIRST_SEQ: usize = 113;
pub(crate) const WORD_RECORDER_EPOCH: usize = 128;
pub(crate) const WORD_DATA: usize = CONTROL_BYTES / 8;

/// Shared memory as 64-bit words. Both sides may change any word at any time; implementations never panic on an index
/// below [`Memory::words`].
pub trait Memory {
    /// How many words there are: control page and data.
    fn words(&self) -> usize;
    /// Loads one word.
    fn load(&self, index: usize, order: Ordering) -> u64;
    /// Stores one word.
    fn store(&self, index: usize, value: u64, order: Ordering);
    /// Adds one, sequentially consistent, and gives the new value.
    fn increment(&self, index: usize) -> u64;

    /// Stores whole words from bytes, relaxed; bytes beyond a multiple of 8 are not stored.
    fn store_bytes(&self, index: usize, bytes: &[u8]) {
        for (n, chunk) in bytes.chunks_exact(8).enumerate() {
            self.store(index + n, le_word(chunk), Ordering::Relaxed);
        }
    }

    /// Appends `count` words to `into`, each loaded once, relaxed.
    fn load_bytes(&self, index: usize, count: usize, into: &mut Vec<u8>) {
        for n in index..index + count {
            into.extend_from_slice(&self.load(n, Ordering::Relaxed).to_le_bytes());
        }
    }
}

/// Memory that is a slice of atomic words: mapped pages, or a vector in tests. Shared as `Arc<Words<_>>` or by reference.
pub struct Words<T>(pub T);

impl<T: AsRef<[AtomicU64]>> Memory for Words<T> {
    fn words(&self) -> usize {
        self.0.as_ref().len()
    }

    fn load(&self, index: usize, order: Ordering) -> u64 {
        self.0.as_ref()[index].load(order)
    }

    fn store(&self, index: usize, value: u64, order: Ordering) {
        self.0.as_ref()[index].store(value, order);
    }

    fn increment(&self, index: usize) -> u64 {
        self.0.as_ref()[index].fetch_add(1, Ordering::SeqCst).wrapping_add(1)
    }

    fn store_bytes(&self, index: usize, bytes: &[u8]) {
        let places = self.0.as_ref().get(index..).unwrap_or_default();
        for (place, chunk) in places.iter().zip(bytes.chunks_exact(8)) {
            place.store(le_word(chunk), Ordering::Relaxed);
        }
    }

    fn load_bytes(&self, index: usize, count: usize, into: &mut Vec<u8>) {
        let start = into.len();
        into.resize(start + count * 8, 0);
        let words = self.0.as_ref().get(index..).unwrap_or_default();
        for (place, word) in into[start..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn words(&self) -> usize {
        (**self).words()
    }
    fn load(&self, index: usize, order: Ordering) -> u64 {
        (**self).load(index, order)
    }
    fn store(&self, index: usize, value: u64, order: Ordering) {
        (**self).store(index, value, order);
    }
    fn increment(&self, index: usize) -> u64 {
        (**self).increment(index)
    }
    fn store_bytes(&self, index: usize, bytes: &[u8]) {
        (**self).store_bytes(index, bytes);
    }
    fn load_bytes(&self, index: usize, count: usize, into: &mut Vec<u8>) {
        (**self).load_bytes(index, count, into);
    }
}

impl Words<Vec<AtomicU64>> {
    /// A formatted ring on the heap, for tests and simulation. `capacity_bytes` must be a power of two in range.
    pub fn heap(capacity_bytes: usize, ring_id: u64) -> Self {
        let words = (CONTROL_BYTES + capacity_bytes) / 8;
        let memory = Words((0..words).map(|_| AtomicU64::new(0)).collect());
        format(&memory, capacity_bytes, ring_id);
        memory
    }
}

/// Why a side could not attach to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The pages do not start with the magic number.
    NotARing,
    /// Another version of the layout wrote it.
    Version(u64),
    /// The capacity is out of range, no power of two, or not that of the pages.
    Capacity(u64),
    /// Positions or records contradict each other; the ring must be drained and replaced.
    Corrupt,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::NotARing => f.write_str("these pages are no ring: the magic number is missing"),
            AttachError::Version(v) => write!(f, "the ring has layout version {v}, this program knows {VERSION}"),
            AttachError::Capacity(c) => write!(f, "the ring's capacity of {c} bytes does not fit its pages"),
            AttachError::Corrupt => f.write_str("the ring's positions or records contradict each other"),
        }
    }
}

impl std::error::Error for AttachError {}

/// Whether a ring may have this capacity: a power of two in range.
pub const fn capacity_is_valid(bytes: usize) -> bool {
    bytes.is_power_of_two() && bytes >= CAPACITY_BYTES_MIN && bytes <= CAPACITY_BYTES_MAX
}

/// Writes the control page of an empty ring into zeroed memory. The magic number goes last.
pub fn format<M: Memory>(memory: &M, capacity_bytes: usize, ring_id: u64) {
    memory.store(WORD_VERSION, VERSION, Ordering::Relaxed);
    memory.store(WORD_CAPACITY, capacity_bytes as u64, Ordering::Relaxed);
    memory.store(WORD_RING_ID, ring_id, Ordering::Relaxed);
    memory.store(WORD_MAGIC, MAGIC, Ordering::Release);
}

/// What both sides learn once, at attach, and never read again: the other side may change it later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub capacity_bytes: usize,
    pub ring_id: u64,
}

impl Geometry {
    pub(crate) fn read<M: Memory>(memory: &M) -> Result<Geometry, AttachError> {
        if memory.words() < WORD_DATA || memory.load(WORD_MAGIC, Ordering::Acquire) != MAGIC {
            return Err(AttachError::NotARing);
        }
        let version = memory.load(WORD_VERSION, Ordering::Relaxed);
        if version != VERSION {
            return Err(AttachError::Version(version));
        }
        let claimed = memory.load(WORD_CAPACITY, Ordering::Relaxed);
        let capacity_bytes = (memory.words() - WORD_DATA) * 8;
        if claimed != capacity_bytes as u64 || !capacity_is_valid(capacity_bytes) {
            return Err(AttachError::Capacity(claimed));
        }
        Ok(Geometry { capacity_bytes, ring_id: memory.load(WORD_RING_ID, Ordering::Relaxed) })
    }

    /// Offset in the data of a position, in bytes.
    pub(crate) const fn offset(&self, position: u64) -> usize {
        position as usize & (self.capacity_bytes - 1)
    }

    /// Index of the word at a position.
    pub(crate) const fn word(&self, position: u64) -> usize {
        WORD_DATA + self.offset(position) / 8
    }

    /// Largest payload of one record: an eighth of the ring, so that one record never starves the rest.
    pub(crate) const fn payload_bytes_max(&self) -> usize {
        self.capacity_bytes / 8
    }

    /// Whether `producer - consumer` is a possible fill of this ring.
    pub(crate) const fn positions_agree(&self, consumer: u64, producer: u64) -> bool {
        consumer <= producer
            && producer <= POSITION_MAX
            && producer - consumer <= self.capacity_bytes as u64
            && consumer.is_multiple_of(8)
            && producer.is_multiple_of(8)
    }
}

/// A little-endian word from a chunk of exactly 8 bytes; shorter chunks count as zero.
fn le_word(chunk: &[u8]) -> u64 {
    <[u8; 8]>::try_from(chunk).map_or(0, u64::from_le_bytes)
}
