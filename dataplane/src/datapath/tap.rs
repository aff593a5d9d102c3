//! The tap: what passes is copied once, into the shard's ring, before it may leave.

use ring::{Flags, Kind, Memory, Producer, Receipt};

/// Where evidence goes. The product's is the shard's [`Producer`]; tests bring one over plain memory.
pub trait Evidence {
    /// Payload bytes that can surely be recorded now, headers of a burst included. Grows only by the recorder's work.
    fn room_bytes(&self) -> usize;
    /// Records `parts` as one record, or nothing if there is no room.
    fn record(&mut self, note: Note, parts: &[&[u8]]) -> Option<Receipt>;
}

/// The head of a record, as far as the session knows it.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    pub kind: Kind,
    pub flags: Flags,
    pub session: u64,
    pub now_unix_ns: u64,
}

/// Kept free for what a session must still say when the ring is full: its verdicts and its end.
pub const RESERVE_BYTES: usize = 256 * 1024;

impl<M: Memory> Evidence for Producer<M> {
    fn room_bytes(&self) -> usize {
        // A record that does not fit before the wrap costs its length again as padding.
        (self.free_bytes() / 2).saturating_sub(RESERVE_BYTES)
    }

    fn record(&mut self, note: Note, parts: &[&[u8]]) -> Option<Receipt> {
        let bytes = parts.iter().map(|p| p.len()).sum();
        let mut claim = self.try_claim(bytes).ok()?;
        for part in parts {
            claim.write(part).ok()?;
        }
        Some(claim.commit(note.kind, note.flags, note.session, note.now_unix_ns))
    }
}
