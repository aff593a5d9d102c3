//! Frames larger than a slot: passed on, or thrown away, as they come, or gathered whole outside the slots.

use ring::Receipt;

use super::Lane;
use crate::buffer::{Share, Slab};

/// A frame that is larger than a slot, gathered whole to be judged or masked.
#[derive(Debug)]
pub struct Collected {
    pub bytes: Vec<u8>,
    need: usize,
    share: Share,
}

/// How a frame passes that is not held whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passage {
    #[default]
    AsItIs,
    Masked,
    Discarded,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streaming {
    left: u32,
    begun: bool,
    passage: Passage,
}

impl Lane {
    /// Bytes still to come of a frame that is passed on without being held.
    pub fn streaming(&self) -> usize {
        self.streaming.left as usize
    }

    pub fn passage(&self) -> Passage {
        self.streaming.passage
    }

    /// Some bytes of a streamed frame have been passed on, and some are still to come.
    pub fn is_amid_frame(&self) -> bool {
        self.streaming.left > 0 && self.streaming.begun && self.streaming.passage != Passage::Discarded
    }

    pub fn streaming_begun(&self) -> bool {
        self.streaming.begun
    }

    pub fn stream(&mut self, bytes: usize, passage: Passage) {
        // A frame has less than 1 GiB.
        self.streaming = Streaming { left: bytes as u32, begun: false, passage };
    }

    /// The next `n` bytes of the streamed frame are recorded.
    pub fn streamed(&mut self, slab: &mut Slab, n: usize, recorded: Receipt) {
        self.streaming.left -= n as u32;
        self.streaming.begun = true;
        match self.streaming.passage {
            Passage::Discarded => self.drop_bytes(n),
            Passage::AsItIs | Passage::Masked => self.clear(slab, n, recorded),
        }
    }

    /// Starts to gather a frame of `need` bytes; `share` grows with it.
    pub fn collect(&mut self, need: usize, share: Share) {
        debug_assert!(self.collected.is_none());
        self.collected = Some(Box::new(Collected { bytes: Vec::new(), need, share }));
    }

    pub fn collecting(&self) -> bool {
        self.collected.is_some()
    }

    /// Whether some of the gathered frame is here, and how many bytes of it are still to come.
    pub fn collected_of(&self) -> Option<(bool, usize)> {
        self.collected.as_ref().map(|c| (!c.bytes.is_empty(), c.need - c.bytes.len()))
    }

    /// The gathered frame is whole and waits for its verdict.
    pub fn is_collected(&self) -> bool {
        self.collected.as_ref().is_some_and(|c| c.bytes.len() == c.need)
    }

    /// A frame is under way that is recorded as it comes.
    pub fn is_held(&self) -> bool {
        self.collecting() || self.streaming() > 0
    }

    /// Takes room for what has come. False while there is none: then nothing may be moved.
    pub fn has_room_to_gather(&mut self) -> bool {
        let Some(collected) = self.collected.as_mut() else { return true };
        let come = self.fill.as_ref().map_or(0, |seg| seg.fragment());
        collected.grow(come.min(collected.need - collected.bytes.len()))
    }

    /// When the room was last moved in that its frame takes of the budget, in the budget's seconds.
    pub fn oldest_share_s(&self) -> Option<u32> {
        let collected = self.collected.as_ref().map(|collected| &collected.share);
        collected.into_iter().chain(&self.aside_share).map(Share::moved_s).min()
    }

    /// Moves what has come, and has room, into the gathered frame; returns the frame when it is whole.
    pub fn gather(&mut self, slab: &mut Slab) -> Option<Box<Collected>> {
        let collected = self.collected.as_mut()?;
        if let Some(seg) = &self.fill {
            let n = (collected.need - collected.bytes.len()).min(seg.fragment());
            collected.bytes.extend_from_slice(slab.bytes(&seg.slot, seg.framed.at()..seg.framed.at() + n));
            self.drop_bytes(n);
        }
        if self.is_collected() { self.collected.take() } else { None }
    }

    /// The gathered frame must wait: it is looked at again later.
    pub fn ungather(&mut self, collected: Box<Collected>) {
        self.collected = Some(collected);
    }

    pub fn sends_gathered(&self) -> bool {
        self.aside_share.is_some()
    }

    /// A gathered request, recorded as it came, leaves whole.
    pub fn insert_judged(&mut self, collected: Collected) {
        match self.aside.is_empty() {
            // It may have megabytes.
            true => self.aside = collected.bytes,
            false => self.append_aside(&collected.bytes),
        }
        self.aside_share = Some(collected.share);
    }
}

impl Collected {
    /// Doubles as it fills, where the budget allows that: an announced length alone takes nothing.
    fn grow(&mut self, n: usize) -> bool {
        let held = self.bytes.len();
        if self.share.bytes() >= held + n {
            self.share.touch();
            return true;
        }
        let wish = n.max(held).min(self.need - held);
        let has_room = [wish, n].iter().any(|more| self.share.grow(held + more - self.share.bytes()));
        if has_room {
            self.bytes.reserve_exact(self.share.bytes() - held);
        }
        has_room
    }

    /// Some of it has left.
    pub fn touch(&mut self) {
        self.share.touch();
    }

    pub fn moved_s(&self) -> u32 {
        self.share.moved_s()
    }
}
