//! Frames larger than a slot: passed on as they come, masked while they pass, or gathered whole within the shard's budget.

use ring::{Flags, Receipt};

use super::{Cx, Direction, Flow, LAST_WORDS_BYTES_MAX, Relay};
use crate::buffer::SLOT_BYTES;
use crate::datapath::lane::{Collected, Passage};
use crate::datapath::tap::{Evidence, Note};
use crate::fault::Fault;
use crate::protocol::postgres::redact;
use crate::protocol::postgres::wire::HEAD_BYTES;
use crate::protocol::{Dissector, Large, Scratch, Step};

/// Bytes of a gathered frame that one record holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// A gathered reply that is leaving.
#[derive(Debug)]
pub(super) struct Recording {
    frame: Collected,
    recorded: usize,
}

/// A request that is recorded as it comes: from the first mark of a secret on, nothing of it is shown.
#[derive(Debug, Default)]
pub(super) struct Pieces(redact::Pieces);

impl Pieces {
    pub fn has_secret(&self) -> bool {
        self.0.is_starred()
    }

    pub fn record(
        &mut self,
        tap: &mut dyn Evidence,
        scratch: &mut Scratch,
        note: Note,
        piece: &[u8],
    ) -> Option<Receipt> {
        let from = self.0.starred_from(piece, note.flags.contains(Flags::BEGIN));
        if from >= piece.len() {
            return tap.record(note, &[piece]);
        }
        record_starred(tap, scratch, note, piece, from)
    }
}

impl<D: Dissector> Relay<D> {
    /// A large reply is leaving in pieces, and the first has been recorded.
    pub fn is_recording_gathered(&self) -> bool {
        self.recording.as_ref().is_some_and(|r| r.recorded > 0)
    }

    /// When the room was last moved in that this session takes of the shard's budget, in the budget's seconds.
    pub fn oldest_share_s(&self) -> Option<u32> {
        let lanes = [self.requests.oldest_share_s(), self.replies.oldest_share_s()];
        let leaving = self.recording.as_ref().map(|recording| recording.frame.moved_s());
        lanes.into_iter().flatten().chain(leaving).min()
    }

    /// A frame that was held whole is leaving, in either direction.
    pub fn sends_gathered(&self) -> bool {
        self.recording.is_some() || self.requests.sends_gathered()
    }

    /// The window ends inside a frame. One that fits a slot only needs more bytes.
    pub(super) fn partial(&mut self, direction: Direction, tag: u8, bytes: usize, cx: &mut Cx<'_>) -> Option<Flow> {
        if bytes <= SLOT_BYTES {
            return Some(Flow::Idle);
        }
        let large = match direction {
            Direction::ToUpstream => self.dissector.large_request(tag, bytes),
            Direction::ToClient => self.dissector.large_response(tag, bytes),
        };
        let lane = self.lane(direction);
        match large {
            Large::Collect => lane.collect(bytes, cx.gathered.begin()),
            Large::Stream => lane.stream(bytes, Passage::AsItIs),
            Large::Mask => {
                cx.counters.rows_masked.add(1);
                lane.stream(bytes, Passage::Masked);
            }
            Large::Discard => {
                lane.stream(bytes, Passage::Discarded);
                self.count(direction, tag, Step::Drop, cx.counters);
            }
            Large::Wait => return Some(Flow::Idle),
            // Its beginning is evidence, and comes with the next receives.
            Large::End(_) if direction == Direction::ToUpstream && lane.window_bytes() < LAST_WORDS_BYTES_MAX => {
                return Some(Flow::Idle);
            }
            Large::End(fault) => return Some(self.last_words(direction, fault, 0, cx)),
        }
        None
    }

    /// Passes on, or throws away, what has come of a frame that nobody needs whole.
    pub(super) fn stream(&mut self, direction: Direction, cx: &mut Cx<'_>) -> Option<Flow> {
        let lane = self.lane(direction);
        let left = lane.streaming();
        let come = left.min(lane.window_bytes());
        if come == 0 {
            return Some(Flow::Idle);
        }
        if cx.tap.room_bytes() < come {
            return Some(Flow::RingFull);
        }
        let (is_first, passage) = (!lane.streaming_begun(), lane.passage());
        let n = match passage {
            Passage::Masked => match self.mask_piece(come, cx) {
                Ok(0) => return Some(Flow::Idle),
                Ok(n) => n,
                Err(fault) => return Some(Flow::End(fault)),
            },
            Passage::AsItIs | Passage::Discarded => come,
        };
        let note = self.note(direction, piece(is_first, n == left), cx);
        let recorded = match direction {
            Direction::ToUpstream => self.record_piece(n, note, cx),
            Direction::ToClient => cx.tap.record(note, &[&self.replies.window(cx.slab)[..n]]),
        };
        let Some(receipt) = recorded else { return Some(Flow::End(Fault::NotRecorded)) };
        let lane = self.lane(direction);
        lane.streamed(cx.slab, n, receipt);
        if direction == Direction::ToUpstream && passage == Passage::Discarded && n == left {
            self.dissector.discarded(cx.judge, cx.scratch);
            let stopped = self.record_verdicts(cx.scratch.verdicts.len(), cx);
            return stopped.or_else(|| self.speak(direction, cx));
        }
        None
    }

    /// How many of the `come` bytes at hand are masked and may leave.
    fn mask_piece(&mut self, come: usize, cx: &mut Cx<'_>) -> Result<usize, Fault> {
        self.dissector.response_piece(&mut self.replies.window(cx.slab)[..come])
    }

    /// Gathers a large frame; when it is whole, it is treated as any other.
    pub(super) fn gather(&mut self, direction: Direction, cx: &mut Cx<'_>) -> Option<Flow> {
        if !self.lane(direction).has_room_to_gather() {
            return Some(Flow::NothingToGatherIn);
        }
        if direction == Direction::ToUpstream {
            // Recorded as it comes: what a client typed is evidence whatever becomes of it.
            if let Some(stopped) = self.record_typed(cx) {
                return Some(stopped);
            }
        }
        let mut frame = match self.lane(direction) {
            lane if lane.window_bytes() == 0 && !lane.is_collected() => return Some(Flow::Idle),
            lane => lane.gather(cx.slab)?,
        };
        let step = self.look_at(direction, &mut frame, cx);
        if let Some(stopped) = self.record_verdicts(cx.scratch.verdicts.len(), cx) {
            return Some(stopped);
        }
        match step {
            Step::End(fault) => return Some(Flow::End(fault)),
            Step::Wait | Step::After => {
                self.lane(direction).ungather(frame);
                self.lane(direction).hold(true);
                let stopped = self.speak(direction, cx);
                return stopped.or(Some(Flow::Idle));
            }
            // Something of ours leaves instead; it may be as large.
            Step::Drop if direction == Direction::ToClient && !cx.scratch.before.is_empty() => {
                frame.bytes = std::mem::take(&mut cx.scratch.before);
            }
            Step::Drop => return self.speak(direction, cx),
            Step::Shrink(bytes) => frame.bytes.truncate(bytes),
            Step::Pass => {}
        }
        match direction {
            Direction::ToUpstream => self.requests.insert_judged(*frame),
            Direction::ToClient => self.recording = Some(Box::new(Recording { frame: *frame, recorded: 0 })),
        }
        None
    }

    fn look_at(&mut self, direction: Direction, frame: &mut Collected, cx: &mut Cx<'_>) -> Step {
        let step = match direction {
            Direction::ToUpstream => self.dissector.request(&frame.bytes, cx.judge, cx.scratch),
            Direction::ToClient => self.dissector.response(&mut frame.bytes, cx.scratch),
        };
        cx.scratch.shrink();
        self.count(direction, frame.bytes[0], step, cx.counters);
        step
    }

    fn record_typed(&mut self, cx: &mut Cx<'_>) -> Option<Flow> {
        let (begun, left) = self.requests.collected_of()?;
        let n = left.min(self.requests.window_bytes());
        if n == 0 {
            return None;
        }
        if cx.tap.room_bytes() < n {
            return Some(Flow::RingFull);
        }
        let note = self.note(Direction::ToUpstream, piece(!begun, n == left), cx);
        match self.record_piece(n, note, cx) {
            Some(_) => None,
            None => Some(Flow::End(Fault::NotRecorded)),
        }
    }

    fn record_piece(&mut self, n: usize, note: Note, cx: &mut Cx<'_>) -> Option<Receipt> {
        let pieces = self.pieces.get_or_insert_default();
        let recorded = pieces.record(cx.tap, cx.scratch, note, &self.requests.window(cx.slab)[..n]);
        self.has_asked_secret |= pieces.has_secret();
        recorded
    }

    /// A gathered reply leaves in pieces, each after its record.
    pub(super) fn record_gathered(&mut self, cx: &mut Cx<'_>) -> Option<Flow> {
        if self.replies.inserting() {
            return Some(Flow::Idle);
        }
        let recording = self.recording.as_ref()?;
        let (from, whole) = (recording.recorded, recording.frame.bytes.len());
        let to = whole.min(from + CHUNK_BYTES);
        if cx.tap.room_bytes() < to - from {
            return Some(Flow::RingFull);
        }
        let note = self.note(Direction::ToClient, piece(from == 0, to == whole), cx);
        let bytes = &recording.frame.bytes[from..to];
        let quotes_secret = self.has_asked_secret && redact::is_report(recording.frame.bytes[0]);
        let recorded = match (quotes_secret, from) {
            (false, _) => cx.tap.record(note, &[bytes]),
            (true, 0) => record_starred(cx.tap, cx.scratch, note, bytes, HEAD_BYTES),
            (true, _) => record_starred(cx.tap, cx.scratch, note, bytes, 0),
        };
        let Some(receipt) = recorded else { return Some(Flow::End(Fault::NotRecorded)) };
        self.replies.insert(bytes, receipt);
        match &mut self.recording {
            Some(recording) if to < whole => {
                recording.recorded = to;
                recording.frame.touch();
            }
            finished => *finished = None,
        }
        Some(Flow::Idle)
    }
}

/// Ends of texts stay, so that what stands before can be read.
fn record_starred(
    tap: &mut dyn Evidence,
    scratch: &mut Scratch,
    note: Note,
    bytes: &[u8],
    from: usize,
) -> Option<Receipt> {
    scratch.recorded.clear();
    scratch.recorded.extend_from_slice(bytes);
    scratch.recorded.iter_mut().skip(from).filter(|byte| **byte != 0).for_each(|byte| *byte = b'*');
    tap.record(note, &[&scratch.recorded])
}

/// The flags of one record of several that hold a frame.
fn piece(is_first: bool, is_last: bool) -> Flags {
    let begin = if is_first { Flags::BEGIN } else { Flags::NONE };
    begin | if is_last { Flags::END } else { Flags::NONE }
}
