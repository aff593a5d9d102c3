//! Compression that steps down when the rings fill: evidence that waits in a ring is worse than a larger file.

use std::cell::RefCell;

use crate::segment::format::Codec;

/// How hard to compress a block: the less, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// zstd at level 1: about a fifth of the size on database traffic.
    Normal,
    /// zstd at level -5: less than half the work.
    Fast,
    /// Stored as it is.
    None,
}

impl Effort {
    /// What the fullest ring allows: `used` of `capacity` bytes wait.
    pub fn for_fill(used: usize, capacity: usize) -> Effort {
        match used.saturating_mul(4).checked_div(capacity).unwrap_or(0) {
            0 | 1 => Effort::Normal,
            2 => Effort::Fast,
            _ => Effort::None,
        }
    }
}

/// Compresses blocks; keeps zstd's tables between them.
pub struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    level: i32,
    out: Vec<u8>,
}

impl Compressor {
    /// A compressor at normal effort.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { context: zstd::bulk::Compressor::new(1)?, level: 1, out: Vec::new() })
    }

    /// The block as it will be stored. What does not shrink, or cannot be compressed, is stored as it is.
    pub fn compress<'b>(&'b mut self, raw: &'b [u8], effort: Effort) -> (Codec, &'b [u8]) {
        let level = match effort {
            Effort::Normal => 1,
            Effort::Fast => -5,
            Effort::None => return (Codec::None, raw),
        };
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        if level != self.level && self.context.set_compression_level(level).is_ok() {
            self.level = level;
        }
        match self.context.compress_to_buffer(raw, &mut self.out) {
            Ok(bytes) if bytes < raw.len() => (Codec::Zstd, &self.out),
            _ => (Codec::None, raw),
        }
    }
}

thread_local! {
    /// zstd's tables are kept between blocks here too: making them anew takes longer than a small block.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The records of a block. Never gives more than `raw_bytes`, whatever the stored bytes say.
pub fn decompress(codec: Codec, stored: Vec<u8>, raw_bytes: usize) -> Result<Vec<u8>, &'static str> {
    let raw = match codec {
        Codec::None => stored,
        Codec::Zstd => unfold(&stored, raw_bytes).map_err(|_| "the records cannot be decompressed")?,
    };
    if raw.len() == raw_bytes { Ok(raw) } else { Err("the records have another size than the head says") }
}

fn unfold(stored: &[u8], raw_bytes: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(decompressor) => decompressor.decompress(stored, raw_bytes),
        None => kept.insert(zstd::bulk::Decompressor::new()?).decompress(stored, raw_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effort_steps_down_as_rings_fill() {
        let rows =
            [(0, Effort::Normal), (49, Effort::Normal), (50, Effort::Fast), (74, Effort::Fast), (75, Effort::None)];
        for (used, effort) in rows {
            assert_eq!(Effort::for_fill(used, 100), effort, "{used} %");
        }
        assert_eq!(Effort::for_fill(1, 0), Effort::Normal);
    }

    #[test]
    fn a_bomb_is_refused_before_it_unfolds() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        assert!(bomb.len() < 16 << 10);
        assert!(decompress(Codec::Zstd, bomb, 1 << 20).is_err());
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let mut compressor = Compressor::new().unwrap();
        for (raw, codec) in [(vec![7; 5000], Codec::Zstd), (vec![1, 2, 3], Codec::None)] {
            for effort in [Effort::Normal, Effort::Fast] {
                let (found, stored) = compressor.compress(&raw, effort);
                assert_eq!(found, codec);
                assert_eq!(decompress(found, stored.to_vec(), raw.len()).unwrap(), raw);
            }
        }
    }
}
