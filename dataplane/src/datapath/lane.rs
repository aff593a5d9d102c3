//! One direction of a session: the only source of sendable bytes.
//!
//! ```text
//! slot  |--- sent ---|--- cleared ---|  dropped  |--- framed … filled ---|   free   |
//!                    ^ lent to a send            ^ window: not yet judged  ^ lent to a receive
//! ```
//! `sent <= cleared <= framed <= filled <= SLOT_BYTES`, asserted by [`Seg::invariants`]. Bytes move past `cleared` only with
//! a [`Receipt`]: what is not recorded cannot leave. Dropped bytes leave a gap that the next cleared bytes close.
//! Bytes of our own go through `aside`: they leave after what was cleared before them, and nothing is cleared meanwhile.

mod large;
mod mark;
mod parked;

use ring::Receipt;

use crate::buffer::{SLOT_BYTES, Share, Slab, Slot};
use crate::io::Lent;
use large::Streaming;
pub use large::{Collected, Passage};
use mark::Mark;
use parked::Parked;

/// Below this much room a slot is not worth another receive: the rest of a frame moves to a fresh slot.
const ROOM_BYTES_MIN: usize = SLOT_BYTES / 4;
/// An idle lane keeps a buffer of this size for bytes of our own: part of the budget of an idle session.
const ASIDE_BYTES_KEPT: usize = 64;

#[derive(Debug)]
struct Seg {
    slot: Slot,
    sent: Mark,
    cleared: Mark,
    framed: Mark,
    filled: Mark,
}

impl Seg {
    fn new(slot: Slot) -> Self {
        let head = Mark::default();
        Self { slot, sent: head, cleared: head, framed: head, filled: head }
    }

    fn invariants(&self) {
        debug_assert!(self.sent <= self.cleared);
        debug_assert!(self.cleared <= self.framed);
        debug_assert!(self.framed <= self.filled);
    }

    /// Bytes that nobody has looked at, or that wait for the rest of their frame.
    fn fragment(&self) -> usize {
        self.filled.at() - self.framed.at()
    }

    fn room(&self) -> usize {
        SLOT_BYTES - self.filled.at()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sending {
    Nothing,
    Drain,
    Fill,
    Aside,
}

/// What a lane wants to receive into.
#[derive(Debug)]
pub enum Want<'a> {
    /// No slot is held: let the driver choose one when there are bytes, for this many at most.
    Any(usize),
    Tail(&'a Slot, usize),
}

#[derive(Debug)]
pub struct Lane {
    fill: Option<Seg>,
    drain: Option<Seg>,
    aside: Vec<u8>,
    aside_sent: usize,
    /// What a gathered frame among the bytes aside takes of the shard's budget.
    aside_share: Option<Share>,
    sending: Sending,
    receiving: bool,
    /// A frame that is passed on, or thrown away, without being held.
    streaming: Streaming,
    collected: Option<Box<Collected>>,
    /// The beginning of a frame that was to keep no slot.
    parked: Option<Box<Parked>>,
    /// The peer will send no more.
    ended: bool,
    /// What is here waits for something else than bytes, or nobody has looked at it yet.
    held: bool,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            fill: None,
            drain: None,
            aside: Vec::new(),
            aside_sent: 0,
            aside_share: None,
            sending: Sending::Nothing,
            receiving: false,
            streaming: Streaming::default(),
            collected: None,
            parked: None,
            ended: false,
            held: false,
        }
    }
}

// Receiving.
impl Lane {
    /// Where the next bytes should go, or `None` while the lane has no room: that is the back-pressure.
    pub fn want(&self) -> Option<Want<'_>> {
        if self.receiving || self.ended || self.held {
            return None;
        }
        match &self.fill {
            None => Some(Want::Any(SLOT_BYTES - self.parked_bytes())),
            // A receive in its tail would hold the slot for as long as the peer is silent. It drains next, or goes on being
            // judged when our own bytes have left.
            Some(seg) if seg.framed == seg.filled || self.inserting() => None,
            Some(seg) if seg.room() > 0 => Some(Want::Tail(&seg.slot, seg.filled.at())),
            Some(_) => None,
        }
    }

    /// Whether what is in the window waits for something else than bytes: then none are asked for, and it keeps its slot.
    /// It does from the moment that it comes, until somebody has looked at it.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    pub fn is_receiving(&self) -> bool {
        self.receiving
    }

    pub fn receive_started(&mut self) {
        debug_assert!(!self.receiving);
        self.receiving = true;
    }

    /// `n` bytes have come, into `slot` if the driver chose one. 0 is the end of the stream.
    pub fn received(&mut self, slab: &mut Slab, slot: Option<Slot>, n: usize) {
        self.receiving = false;
        match slot {
            Some(slot) if n == 0 => slab.give(slot),
            Some(slot) => {
                debug_assert!(self.fill.is_none());
                let filled = Mark::new(self.unpark(slab, &slot, n));
                self.fill = Some(Seg { filled, ..Seg::new(slot) });
            }
            None => {}
        }
        if n == 0 {
            self.ended = true;
        } else if let Some(seg) = &mut self.fill {
            seg.filled += n;
            seg.invariants();
            self.held = true;
        }
    }

    /// All that has come was taken, nothing more will be of this lane's, and a receive that is armed chooses its own slot.
    pub fn has_come(&self) -> bool {
        let is_empty = self.fill.as_ref().is_none_or(|seg| seg.framed == seg.filled && !self.receiving);
        is_empty && self.collected.is_none() && self.parked.is_none() && self.streaming() == 0 && !self.ended
    }

    /// Nothing waits to be sent or is being sent, and what has left are whole frames.
    pub fn has_left(&self) -> bool {
        self.is_flushed() && !self.is_sending() && !self.is_amid_frame()
    }

    /// The connection that it comes from is somebody else's from now on: whether a receive is armed there.
    pub fn let_go(&mut self) -> bool {
        self.ended = true;
        std::mem::take(&mut self.receiving)
    }

    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The connection that it comes from is gone, with its last operation, and another takes its place. Nothing was cleared yet.
    pub fn forget_received(&mut self, slab: &mut Slab) {
        debug_assert!(matches!(self.sending, Sending::Nothing | Sending::Aside));
        for seg in [self.fill.take(), self.drain.take()].into_iter().flatten() {
            slab.give(seg.slot);
        }
        (self.receiving, self.ended, self.held) = (false, false, false);
    }

    /// Gives back what is empty and makes room: to be called after every pump and every completed send.
    pub fn settle(&mut self, slab: &mut Slab) {
        if let Some(seg) = &self.drain
            && seg.sent == seg.cleared
            && self.sending != Sending::Drain
        {
            slab.give(self.drain.take().expect("checked").slot);
        }
        let Some(seg) = &mut self.fill else { return };
        if self.receiving {
            return;
        }
        let fragment = seg.fragment();
        if seg.sent == seg.cleared && self.sending != Sending::Fill {
            if fragment == 0 {
                slab.give(self.fill.take().expect("checked").slot);
            } else if seg.room() < ROOM_BYTES_MIN && seg.framed > Mark::default() {
                slab.bytes_mut(&seg.slot, 0..seg.filled.at()).copy_within(seg.framed.at().., 0);
                let head = Mark::default();
                (seg.sent, seg.cleared, seg.framed, seg.filled) = (head, head, head, Mark::new(fragment));
                slab.touch(&mut seg.slot);
            }
        } else if (fragment == 0 || seg.room() < ROOM_BYTES_MIN) && self.drain.is_none() {
            self.rotate(slab);
        }
    }

    /// The filled slot drains; the fragment of a frame at its end, if any, goes to the head of a fresh slot.
    fn rotate(&mut self, slab: &mut Slab) {
        let Some(seg) = &mut self.fill else { return };
        let (from, to) = (seg.framed.at(), seg.filled.at());
        let mut fresh = None;
        if from < to {
            let Some(slot) = slab.take() else { return };
            slab.copy(&seg.slot, from..to, &slot);
            fresh = Some(Seg { filled: Mark::new(to - from), ..Seg::new(slot) });
        }
        seg.filled = seg.framed;
        if self.sending == Sending::Fill {
            self.sending = Sending::Drain;
        }
        self.drain = std::mem::replace(&mut self.fill, fresh);
    }
}

// Judging.
impl Lane {
    /// The bytes that are not yet judged. Empty while bytes of our own wait to leave: order is kept by standing still.
    pub fn window<'a>(&self, slab: &'a mut Slab) -> &'a mut [u8] {
        match &self.fill {
            Some(seg) if !self.inserting() => slab.bytes_mut(&seg.slot, seg.framed.at()..seg.filled.at()),
            _ => &mut [],
        }
    }

    pub fn window_bytes(&self) -> usize {
        match &self.fill {
            Some(seg) if !self.inserting() => seg.fragment(),
            _ => 0,
        }
    }

    /// The next `n` bytes of the window are judged, masked and recorded: they may leave.
    pub fn clear(&mut self, slab: &mut Slab, n: usize, _recorded: Receipt) {
        let seg = self.fill.as_mut().expect("a window has a slot");
        if seg.cleared != seg.framed {
            let (from, to) = (seg.framed.at(), seg.cleared.at());
            slab.bytes_mut(&seg.slot, 0..seg.filled.at()).copy_within(from..from + n, to);
        }
        seg.cleared += n;
        seg.framed += n;
        seg.invariants();
    }

    /// The next `n` bytes of the window shall never leave.
    pub fn drop_bytes(&mut self, n: usize) {
        let Some(seg) = self.fill.as_mut() else { return };
        seg.framed += n;
        if seg.sent == seg.cleared && self.sending != Sending::Fill {
            (seg.sent, seg.cleared) = (seg.framed, seg.framed);
        }
        seg.invariants();
    }

    /// Bytes of our own, after all that is cleared.
    pub fn insert(&mut self, bytes: &[u8], _recorded: Receipt) {
        self.append_aside(bytes);
    }

    /// As [`Lane::insert`], for what is no data of the session: handshakes, and requests of ours to the upstream.
    pub fn insert_unrecorded(&mut self, bytes: &[u8]) {
        self.append_aside(bytes);
    }

    fn append_aside(&mut self, bytes: &[u8]) {
        self.aside.extend_from_slice(bytes);
    }

    pub fn inserting(&self) -> bool {
        !self.aside.is_empty() || self.sending == Sending::Aside
    }
}

// Sending.
impl Lane {
    /// The next bytes to send, marked as in flight, or `None`.
    pub fn lend(&mut self) -> Option<Lent<'_>> {
        if self.sending != Sending::Nothing {
            return None;
        }
        for (which, seg) in [(Sending::Drain, &self.drain), (Sending::Fill, &self.fill)] {
            if let Some(seg) = seg
                && seg.sent < seg.cleared
            {
                self.sending = which;
                return Some(Lent::Slot { slot: &seg.slot, from: seg.sent.at(), to: seg.cleared.at() });
            }
        }
        if self.aside.is_empty() {
            return None;
        }
        self.sending = Sending::Aside;
        Some(Lent::Heap { bytes: std::mem::take(&mut self.aside), from: self.aside_sent })
    }

    pub fn sent(&mut self, slab: &mut Slab, n: usize, heap: Option<Vec<u8>>) {
        let sending = std::mem::replace(&mut self.sending, Sending::Nothing);
        match (sending, heap) {
            (Sending::Drain, _) => self.drain.as_mut().expect("in flight").sent += n,
            (Sending::Fill, _) => self.fill.as_mut().expect("in flight").sent += n,
            (Sending::Aside, Some(mut bytes)) => {
                self.aside_sent += n;
                self.aside_share.iter_mut().for_each(Share::touch);
                if self.aside_sent == bytes.len() {
                    self.aside_sent = 0;
                    self.aside_share = None;
                    // Room for a Describe is kept for the next time; what a login or a refusal took goes back.
                    bytes.clear();
                    bytes.shrink_to(ASIDE_BYTES_KEPT);
                }
                bytes.append(&mut self.aside);
                self.aside = bytes;
            }
            (Sending::Aside | Sending::Nothing, _) => debug_assert!(false, "a send completed that was not in flight"),
        }
        self.settle(slab);
    }

    /// The peer takes no more: what waits for it is of no use.
    pub fn send_failed(&mut self) {
        self.sending = Sending::Nothing;
        self.aside = Vec::new();
        self.aside_sent = 0;
        self.aside_share = None;
        for seg in [&mut self.drain, &mut self.fill].into_iter().flatten() {
            seg.sent = seg.cleared;
        }
    }

    pub fn is_sending(&self) -> bool {
        self.sending != Sending::Nothing
    }

    /// Nothing waits to be sent.
    pub fn is_flushed(&self) -> bool {
        let held = |seg: &Option<Seg>| seg.as_ref().is_some_and(|s| s.sent < s.cleared);
        !held(&self.fill) && !held(&self.drain) && !self.inserting()
    }

    /// Gives every slot back. Only when no operation is in flight any more.
    pub fn release(&mut self, slab: &mut Slab) {
        for seg in [self.fill.take(), self.drain.take()].into_iter().flatten() {
            slab.give(seg.slot);
        }
        *self = Self { ended: true, ..Self::default() };
    }
}
