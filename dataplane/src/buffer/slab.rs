//! The shard's slots: one anonymous mapping, cut into slots of [`SLOT_BYTES`].
//!
//! Invariant owned here: a [`Slot`] is the only key to its bytes. It cannot be cloned or made outside this file, so two
//! owners of one slot cannot exist. What the kernel may write to meanwhile is the tail of a slot that its owner has lent;
//! the owner ([`crate::datapath::lane::Lane`]) never asks for that range until the completion is back, and asserts it.
//! Checked by: the lane's assertions, the tests below, and the seeded simulator, which writes late and short.

use std::ops::Range;
use std::ptr::NonNull;

/// Bytes of one slot. A frame that fits is handled in place; a larger one is collected or streamed.
pub const SLOT_BYTES: usize = 32 * 1024;

/// Bytes from one slot's head to the next one's: five cache lines more than a slot, so that the heads of slots, which is all
/// that short messages touch, do not fall into the same few sets of the cache.
const STRIDE_BYTES: usize = SLOT_BYTES + 5 * 64;

/// The right to one slot's bytes: given back with [`Slab::give`], never cloned.
#[derive(Debug)]
pub struct Slot {
    index: u32,
    since_s: u32,
}

impl Slot {
    /// The slot's number, for drivers that name buffers to the kernel. 0..[`Slab::slots`].
    pub fn index(&self) -> u32 {
        self.index
    }

    /// When it was taken, or touched last, in seconds of [`Slab::tick`].
    pub fn since_s(&self) -> u32 {
        self.since_s
    }
}

/// All slots of one shard. Not `Sync`: a shard never shares it.
pub struct Slab {
    base: NonNull<u8>,
    slots: u32,
    free: Vec<u32>,
    /// Slots that the driver has and no connection yet.
    waiting: u32,
    now_s: u32,
}

impl Slab {
    /// Maps `slots` slots. The pages are touched by use only, so an idle slab costs address space, not memory.
    ///
    /// # Errors
    /// What `mmap` says, typically that memory is out.
    pub fn new(slots: u32) -> std::io::Result<Self> {
        let bytes = slots as usize * STRIDE_BYTES;
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        // SAFETY: a fresh private mapping chosen by the kernel aliases nothing; it is unmapped only in drop.
        let base = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, slots, free: (0..slots).rev().collect(), waiting: 0, now_s: 0 })
    }

    pub fn slots(&self) -> u32 {
        self.slots
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Slots that no connection has; those that wait in the kernel are among them.
    pub fn unused(&self) -> usize {
        self.free.len() + self.waiting as usize
    }

    /// How many of the slots that it has taken the driver keeps for the next receives.
    pub fn set_waiting(&mut self, waiting: usize) {
        self.waiting = waiting as u32;
    }

    /// Half of the slots are in use: what can do without one shall.
    pub fn is_short(&self) -> bool {
        self.unused() < self.slots as usize / 2
    }

    /// So few are left that whoever keeps one without moving must go.
    pub fn is_out(&self) -> bool {
        self.unused() < self.slots as usize / 16
    }

    pub fn take(&mut self) -> Option<Slot> {
        self.free.pop().map(|index| Slot { index, since_s: self.now_s })
    }

    pub fn give(&mut self, slot: Slot) {
        debug_assert!(!self.free.contains(&slot.index), "slot {} given twice", slot.index);
        self.free.push(slot.index);
    }

    /// The slab's clock: whole seconds, of which only differences count.
    pub fn tick(&mut self, now_s: u32) {
        self.now_s = now_s;
    }

    /// The slot counts as taken now: it has waited in the kernel for its first byte, or its bytes have moved on.
    pub fn touch(&self, slot: &mut Slot) {
        slot.since_s = self.now_s;
    }

    /// As [`Slab::touch`].
    pub fn touched(&self, slot: Slot) -> Slot {
        Slot { since_s: self.now_s, ..slot }
    }

    /// # Panics
    /// If the range leaves the slot.
    pub fn bytes(&self, slot: &Slot, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= SLOT_BYTES && slot.index < self.slots);
        // SAFETY: the range is inside the mapping (asserted); the slot's owner calls this, so nobody else holds the bytes.
        unsafe { std::slice::from_raw_parts(self.address(slot).add(range.start), range.len()) }
    }

    /// # Panics
    /// If the range leaves the slot.
    pub fn bytes_mut(&mut self, slot: &Slot, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= SLOT_BYTES && slot.index < self.slots);
        // SAFETY: as in `bytes`; `&mut self` makes this the only slice of the slab that Rust code holds.
        unsafe { std::slice::from_raw_parts_mut(self.address(slot).add(range.start), range.len()) }
    }

    /// A slot's bytes by its number, for drivers that move the bytes themselves where the kernel would.
    ///
    /// # Panics
    /// If the range leaves the slot.
    pub fn lent_mut(&mut self, index: u32, range: Range<usize>) -> &mut [u8] {
        self.bytes_mut(&Slot { index, since_s: 0 }, range)
    }

    /// The bytes of two slots, by number, at once.
    ///
    /// # Panics
    /// If the slots are the same, or a range leaves its slot.
    pub fn two_mut(&mut self, a: (u32, Range<usize>), b: (u32, Range<usize>)) -> (&mut [u8], &mut [u8]) {
        assert!(a.0 != b.0, "two slices of one slot");
        let mut slice = |(index, range): (u32, Range<usize>)| {
            let bytes: *mut [u8] = self.bytes_mut(&Slot { index, since_s: 0 }, range);
            bytes
        };
        let (a, b) = (slice(a), slice(b));
        // SAFETY: both were checked by `bytes_mut`; of two slots, they are apart, and both borrow `self` mutably.
        unsafe { (&mut *a, &mut *b) }
    }

    /// Puts `bytes` before the `come` bytes that the slot begins with.
    ///
    /// # Panics
    /// If both together are more than a slot holds.
    pub fn prepend(&mut self, slot: &Slot, bytes: &[u8], come: usize) {
        let room = self.bytes_mut(slot, 0..bytes.len() + come);
        room.copy_within(0..come, bytes.len());
        room[..bytes.len()].copy_from_slice(bytes);
    }

    /// Copies `source[range]` to the head of `target`, which is another slot.
    pub fn copy(&mut self, source: &Slot, range: Range<usize>, target: &Slot) {
        assert!(range.start <= range.end && range.end <= SLOT_BYTES && source.index != target.index);
        // SAFETY: both ranges are inside the mapping (asserted) and, being of two slots, apart.
        unsafe { self.address(source).add(range.start).copy_to_nonoverlapping(self.address(target), range.len()) }
    }

    /// The slot's first byte, to be named to the kernel. The slab must outlive the operation: drivers drain before it drops.
    pub fn address(&self, slot: &Slot) -> *mut u8 {
        self.base.as_ptr().wrapping_add(slot.index as usize * STRIDE_BYTES)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // A shard that panics leaves operations in flight behind, which may still write here.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: base and length are those of the mapping made in `new`; no slice outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.slots as usize * STRIDE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap_and_come_back() {
        let mut slab = Slab::new(3).unwrap();
        let slots: Vec<Slot> = std::iter::from_fn(|| slab.take()).collect();
        assert_eq!(slots.len(), 3);
        for (i, slot) in slots.iter().enumerate() {
            slab.bytes_mut(slot, 0..SLOT_BYTES).fill(i as u8 + 1);
        }
        for (i, slot) in slots.iter().enumerate() {
            assert!(slab.bytes(slot, 0..SLOT_BYTES).iter().all(|b| *b == i as u8 + 1));
        }
        slots.into_iter().for_each(|s| slab.give(s));
        assert_eq!(slab.free(), 3);
    }

    #[test]
    #[should_panic]
    fn a_range_past_the_slot_is_refused() {
        let mut slab = Slab::new(2).unwrap();
        let slot = slab.take().unwrap();
        slab.bytes(&slot, 0..SLOT_BYTES + 1);
    }
}
