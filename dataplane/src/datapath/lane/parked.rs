//! The beginning of a frame that its peer does not finish: while slots are short it waits outside of them.
//!
//! A slot that a receive in its tail waits in is taken for as long as the peer is silent, and a client that sends half a message
//! takes it for ever. So while less than half of the slab is free, the shell parks such a beginning before it receives again, and
//! the slot that the next bytes come in begins with it. Otherwise nothing is copied or allocated.

use super::{Lane, Sending, Want};
use crate::buffer::{Gathered, Share, Slab, Slot};

#[derive(Debug)]
pub(super) struct Parked {
    bytes: Box<[u8]>,
    /// Its part of the shard's budget.
    _share: Share,
}

impl Lane {
    /// Frees the slot of a frame that is not whole. False if bytes before it are still leaving from the same slot: then nothing
    /// is received until they have left. Without room in the budget the slot is kept.
    pub fn park(&mut self, slab: &mut Slab, budget: &Gathered) -> bool {
        if !matches!(self.want(), Some(Want::Tail(..))) {
            return true;
        }
        let Some(seg) = self.fill.take() else { return true };
        let is_leaving = seg.sent < seg.cleared || self.sending == Sending::Fill;
        let share = if is_leaving { None } else { budget.take_of_half(seg.fragment()) };
        match share {
            None => self.fill = Some(seg),
            Some(share) => {
                let bytes = (&*slab.bytes(&seg.slot, seg.framed.at()..seg.filled.at())).into();
                self.parked = Some(Box::new(Parked { bytes, _share: share }));
                slab.give(seg.slot);
            }
        }
        !is_leaving
    }

    pub(super) fn parked_bytes(&self) -> usize {
        self.parked.as_ref().map_or(0, |parked| parked.bytes.len())
    }

    /// Puts what was parked before the `come` bytes that `slot` begins with. Returns how many those are.
    pub(super) fn unpark(&mut self, slab: &mut Slab, slot: &Slot, come: usize) -> usize {
        let Some(parked) = self.parked.take() else { return 0 };
        slab.prepend(slot, &parked.bytes, come);
        parked.bytes.len()
    }

    /// When the oldest slot was taken that it holds, in the slab's seconds.
    pub fn oldest_slot_s(&self) -> Option<u32> {
        [&self.fill, &self.drain].into_iter().flatten().map(|seg| seg.slot.since_s()).min()
    }
}
