//! One folder per wire protocol, the same file names in each.

mod conformance;
pub mod postgres;

use crate::datapath::verdict::{Judge, Plan};
use crate::fault::Fault;
use std::rc::Rc;

/// What shall become of one frame. Given once per frame, never revised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It leaves as it is (masked in place where it must be).
    Pass,
    /// Its first `n` bytes leave: a mask has made it shorter, in place.
    Shrink(usize),
    /// It does not leave.
    Drop,
    /// It stays: what is in [`Scratch::before`] must leave first, then it is looked at again.
    After,
    /// It stays until something else has happened: an answer of the upstream, or the end of an analysis.
    Wait,
    End(Fault),
}

/// What shall become of a frame that is larger than a slot, from its head alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Large {
    /// Gather it whole, then ask for its [`Step`].
    Collect,
    /// Nothing in it is to be judged or masked: pass it on as it comes.
    Stream,
    /// Pass it on as [`Dissector::response_piece`] masks it.
    Mask,
    /// Throw it away as it comes.
    Discard,
    Wait,
    End(Fault),
}

/// What a dissector has to say besides the step: reused for every frame, so that the hot path allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Bytes of our own that leave in the frame's direction, before or instead of it.
    pub before: Vec<u8>,
    /// Bytes of our own that leave in the other direction.
    pub back: Vec<u8>,
    /// Messages as they are recorded, where that is not how they came.
    pub recorded: Vec<u8>,
    /// Verdicts given on the way, for the record.
    pub verdicts: Vec<Rc<Plan>>,
    /// Rows that went through masks, to be counted, and those that only detectors looked through.
    pub masked_rows: u64,
    pub scanned_rows: u64,
}

/// Rows up to a slot leave the scratch as large as it is.
const SCRATCH_KEPT_BYTES_MAX: usize = 256 * 1024;

impl Scratch {
    /// What one large row took is not kept.
    pub fn shrink(&mut self) {
        if self.before.is_empty() && self.before.capacity() > SCRATCH_KEPT_BYTES_MAX {
            self.before = Vec::new();
        }
    }

    /// A row is looked at, by detectors alone or under masks.
    pub fn count_row(&mut self, detectors_alone: bool) {
        *if detectors_alone { &mut self.scanned_rows } else { &mut self.masked_rows } += 1;
    }
}

/// What a session's messages mean, in both directions. The relay moves the bytes; this decides about them.
pub trait Dissector {
    fn frame(&self, window: &[u8]) -> postgres::framer::Framed;
    /// Whether a message of the client with this tag asks for something to be run.
    fn is_execution(tag: u8) -> bool;
    /// Whether answers of the upstream are due.
    fn is_owing(&self) -> bool;
    /// A whole frame from the client.
    fn request(&mut self, frame: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step;
    /// The head of a frame from the client that is larger than a slot.
    fn large_request(&mut self, tag: u8, bytes: usize) -> Large;
    /// A frame from the client that was thrown away has come to its end.
    fn discarded(&mut self, judge: &dyn Judge, scratch: &mut Scratch);
    /// A whole frame from the upstream. Masks are applied in place.
    fn response(&mut self, frame: &mut [u8], scratch: &mut Scratch) -> Step;
    fn large_response(&mut self, tag: u8, bytes: usize) -> Large;
    /// Bytes of a frame that is masked while it passes, from the first that may not leave yet, masked in place. How many of
    /// them may leave now, perhaps none: then more must have come before it is asked again.
    fn response_piece(&mut self, piece: &mut [u8]) -> Result<usize, Fault>;
}
