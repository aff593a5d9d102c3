//! Two lanes and the pump: frame → dissect (judge, mask) → record → clear.
//!
//! Both directions run the same loop. Frames that leave as they are gather into a run, which is recorded and cleared as one:
//! one copy into the ring, one send. Whatever else the dissector says ends the run first, so order is kept.

use ring::{Flags, Kind};

use super::lane::Lane;
use super::tap::{Evidence, Note};
use super::verdict::{Judge, Plan};
use crate::buffer::{SLOT_BYTES, Slab};
use crate::fault::{Fault, Side};
use crate::protocol::postgres::framer::Framed;
use crate::protocol::{Dissector, Large, Scratch, Step};

/// Frames that one pump handles before it records what it has, so that a burst's verdicts stay within the ring's reserve.
const RUN_FRAMES_MAX: usize = 256;
/// Bytes of a gathered frame that one record holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// What the pump may use of its shard.
pub struct Cx<'a> {
    pub slab: &'a mut Slab,
    pub tap: &'a mut dyn Evidence,
    pub judge: &'a mut dyn Judge,
    pub scratch: &'a mut Scratch,
    pub now_unix_ns: u64,
    /// Without the recorder no new statement starts (decision 11).
    pub recorder_present: bool,
}

/// Why a pump has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// All that was there is handled; more bytes, or a completed send, will move it on.
    Idle,
    /// The ring is full: try again when the recorder has made room.
    RingFull,
    End(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToUpstream,
    ToClient,
}

/// A relaying connection: `requests` go to the upstream, `replies` to the client.
#[derive(Debug)]
pub struct Relay<D> {
    pub session: u64,
    pub requests: Lane,
    pub replies: Lane,
    pub dissector: D,
    /// A gathered reply that leaves as the ring takes it.
    recording: Option<Box<Recording>>,
    /// The policy's identity, first 8 bytes: stands in every verdict record.
    pub epoch: [u8; 8],
    /// Executions that the client has asked for: what an auditor counts.
    pub statements: u64,
    /// Texts that policy has refused.
    pub refused: u64,
}

#[derive(Debug)]
struct Recording {
    bytes: Vec<u8>,
    recorded: usize,
}

impl<D: Dissector> Relay<D> {
    pub fn new(session: u64, requests: Lane, replies: Lane, dissector: D, epoch: [u8; 8]) -> Self {
        Self { session, requests, replies, dissector, recording: None, epoch, statements: 0, refused: 0 }
    }

    /// A large reply is leaving in pieces, and the first has been recorded.
    pub fn is_recording_gathered(&self) -> bool {
        self.recording.as_ref().is_some_and(|r| r.recorded > 0)
    }

    /// Moves everything that can be moved, in both directions.
    pub fn pump(&mut self, cx: &mut Cx<'_>) -> Flow {
        // Requests may wait for answers, so answers go first.
        for direction in [Direction::ToClient, Direction::ToUpstream] {
            let has_requests = self.requests.window_bytes() > 0 || self.requests.is_collected();
            if direction == Direction::ToUpstream && !cx.recorder_present && has_requests {
                return Flow::RingFull;
            }
            // A refusal of ours must not come between the pieces of a reply.
            if direction == Direction::ToUpstream && self.recording.is_some() {
                continue;
            }
            match self.pump_one(direction, cx) {
                Flow::Idle => {}
                stopped => return stopped,
            }
        }
        self.requests.settle(cx.slab);
        self.replies.settle(cx.slab);
        Flow::Idle
    }

    fn pump_one(&mut self, direction: Direction, cx: &mut Cx<'_>) -> Flow {
        self.lane(direction).hold(false);
        loop {
            if self.lane(direction).inserting() && self.recording.is_none() {
                return Flow::Idle;
            }
            let flow = match direction {
                Direction::ToClient if self.recording.is_some() => self.record_gathered(cx),
                _ if self.lane(direction).streaming() > 0 => self.stream(direction, cx),
                _ if self.lane(direction).collecting() => self.gather(direction, cx),
                _ => self.run(direction, cx),
            };
            match flow {
                Some(flow) => return flow,
                None => continue,
            }
        }
    }

    fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::ToUpstream => &mut self.requests,
            Direction::ToClient => &mut self.replies,
        }
    }

    /// Handles whole frames. `None`: there may be more to do.
    fn run(&mut self, direction: Direction, cx: &mut Cx<'_>) -> Option<Flow> {
        if cx.tap.room_bytes() < self.lane(direction).window_bytes() {
            return Some(Flow::RingFull);
        }
        // Verdicts of the run's frames: one of the frame behind it is recorded with that frame.
        let (mut run, mut frames, mut verdicts) = (0, 0, 0);
        let outcome = loop {
            let lane = match direction {
                Direction::ToUpstream => &self.requests,
                Direction::ToClient => &self.replies,
            };
            let window = &mut lane.window(cx.slab)[run..];
            let bytes = match self.dissector.frame(window) {
                Framed::Frame { bytes, .. } if bytes <= window.len() => bytes,
                Framed::Frame { tag, bytes } => break Outcome::Partial { tag, bytes },
                Framed::NeedMore => break Outcome::Empty,
                Framed::Broken => break Outcome::Step { step: broken(direction), bytes: 0 },
            };
            let (tag, frame) = (window[0], &mut window[..bytes]);
            let step = match direction {
                Direction::ToUpstream => self.dissector.request(frame, cx.judge, cx.scratch),
                Direction::ToClient => self.dissector.response(frame, cx.scratch),
            };
            self.count(direction, tag, step);
            match step {
                Step::Pass if frames < RUN_FRAMES_MAX => {
                    (run, frames, verdicts) = (run + bytes, frames + 1, cx.scratch.verdicts.len());
                }
                step => break Outcome::Step { step, bytes },
            }
        };
        if let Some(stopped) = self.finish_run(direction, run, verdicts, cx) {
            return Some(stopped);
        }
        match outcome {
            Outcome::Empty => Some(Flow::Idle),
            Outcome::Partial { tag, bytes } => self.partial(direction, tag, bytes),
            Outcome::Step { step, bytes } => self.step(direction, step, bytes, cx),
        }
    }

    /// An execution counts once: when its message no longer waits.
    fn count(&mut self, direction: Direction, tag: u8, step: Step) {
        let is_settled = !matches!(step, Step::Wait | Step::After | Step::End(_));
        let is_asked = direction == Direction::ToUpstream && D::is_execution(tag);
        self.statements += u64::from(is_settled && is_asked);
    }

    /// Records and clears the first `run` bytes of the window, then the first `verdicts` of those given on the way.
    fn finish_run(&mut self, direction: Direction, run: usize, verdicts: usize, cx: &mut Cx<'_>) -> Option<Flow> {
        if run > 0 {
            let note = self.note(direction, Flags::WHOLE, cx);
            let lane = self.lane(direction);
            let Some(receipt) = cx.tap.record(note, &[&lane.window(cx.slab)[..run]]) else {
                return not_recorded(cx);
            };
            lane.clear(cx.slab, run, receipt);
        }
        self.record_verdicts(verdicts, cx)
    }

    fn record_verdicts(&mut self, count: usize, cx: &mut Cx<'_>) -> Option<Flow> {
        let recorded = cx.scratch.verdicts.drain(..count).all(|plan| {
            self.refused += u64::from(plan.refusal.is_some());
            let note = Note {
                kind: Kind::Verdict,
                flags: Flags::WHOLE | Flags::CLIENT,
                session: self.session,
                now_unix_ns: cx.now_unix_ns,
            };
            let head = verdict_head(&plan, self.epoch);
            cx.tap.record(note, &[&head, plan.rule.as_bytes()]).is_some()
        });
        if recorded { None } else { not_recorded(cx) }
    }

    fn step(&mut self, direction: Direction, step: Step, bytes: usize, cx: &mut Cx<'_>) -> Option<Flow> {
        let (kept, dropped) = match step {
            Step::Pass => (bytes, 0),
            Step::Shrink(kept) => (kept, bytes - kept),
            Step::Drop => (0, bytes),
            Step::After => (0, 0),
            Step::Wait => {
                self.lane(direction).hold(true);
                return Some(Flow::Idle);
            }
            // A statement that was judged and then ends the session is evidence, a Terminate is not.
            Step::End(fault) if cx.scratch.verdicts.is_empty() => return Some(Flow::End(fault)),
            Step::End(_) => (0, bytes),
        };
        // What a client typed is evidence even when it goes nowhere.
        if direction == Direction::ToUpstream && dropped > 0 {
            let note = self.note(direction, Flags::WHOLE, cx);
            let frame = &self.requests.window(cx.slab)[..bytes];
            if cx.tap.record(note, &[frame]).is_none() {
                return not_recorded(cx);
            }
        }
        if let Some(stopped) = self.finish_run(direction, kept, cx.scratch.verdicts.len(), cx) {
            return Some(stopped);
        }
        if let Step::End(fault) = step {
            return Some(Flow::End(fault));
        }
        self.lane(direction).drop_bytes(dropped);
        self.speak(direction, cx)
    }

    /// Sends what the dissector has to say itself, in either direction.
    fn speak(&mut self, direction: Direction, cx: &mut Cx<'_>) -> Option<Flow> {
        let note = self.note(Direction::ToClient, Flags::WHOLE, cx);
        let (to_upstream, to_client) = match direction {
            Direction::ToUpstream => (&mut cx.scratch.before, &mut cx.scratch.back),
            Direction::ToClient => (&mut cx.scratch.back, &mut cx.scratch.before),
        };
        if !to_upstream.is_empty() {
            self.requests.insert_unrecorded(to_upstream);
            to_upstream.clear();
        }
        if !to_client.is_empty() {
            let Some(receipt) = cx.tap.record(note, &[to_client]) else {
                return Some(Flow::End(Fault::NotRecorded));
            };
            self.replies.insert(to_client, receipt);
            to_client.clear();
        }
        None
    }

    /// The window ends inside a frame. One that fits a slot only needs more bytes.
    fn partial(&mut self, direction: Direction, tag: u8, bytes: usize) -> Option<Flow> {
        if bytes <= SLOT_BYTES {
            return Some(Flow::Idle);
        }
        let large = match direction {
            Direction::ToUpstream => self.dissector.large_request(tag, bytes),
            Direction::ToClient => self.dissector.large_response(tag, bytes),
        };
        let lane = self.lane(direction);
        match large {
            Large::Collect => lane.collect(bytes),
            Large::Stream => lane.set_streaming(bytes),
            Large::Discard => {
                lane.set_discarding(bytes);
                self.count(direction, tag, Step::Drop);
            }
            Large::Wait => return Some(Flow::Idle),
            Large::End(fault) => return Some(Flow::End(fault)),
        }
        None
    }

    /// Passes on, or throws away, what has come of a frame that nobody needs whole.
    fn stream(&mut self, direction: Direction, cx: &mut Cx<'_>) -> Option<Flow> {
        let lane = self.lane(direction);
        let left = lane.streaming();
        let n = left.min(lane.window_bytes());
        if n == 0 {
            return Some(Flow::Idle);
        }
        if cx.tap.room_bytes() < n {
            return Some(Flow::RingFull);
        }
        let flags = piece(!lane.streaming_begun(), n == left);
        let note = self.note(direction, flags, cx);
        let lane = self.lane(direction);
        let Some(receipt) = cx.tap.record(note, &[&lane.window(cx.slab)[..n]]) else {
            return Some(Flow::End(Fault::NotRecorded));
        };
        lane.streamed(cx.slab, n, receipt);
        None
    }

    /// Gathers a large frame; when it is whole, it is treated as any other.
    fn gather(&mut self, direction: Direction, cx: &mut Cx<'_>) -> Option<Flow> {
        if direction == Direction::ToUpstream {
            // Recorded as it comes: what a client typed is evidence whatever becomes of it.
            if let Some(stopped) = self.record_typed(cx) {
                return Some(stopped);
            }
        }
        let lane = self.lane(direction);
        if lane.window_bytes() == 0 && !lane.is_collected() {
            return Some(Flow::Idle);
        }
        let Some(mut frame) = lane.gather(cx.slab) else { return None };
        let step = match direction {
            Direction::ToUpstream => self.dissector.request(&frame, cx.judge, cx.scratch),
            Direction::ToClient => self.dissector.response(&mut frame, cx.scratch),
        };
        self.count(direction, frame[0], step);
        if let Some(stopped) = self.record_verdicts(cx.scratch.verdicts.len(), cx) {
            return Some(stopped);
        }
        match step {
            Step::End(fault) => return Some(Flow::End(fault)),
            Step::Wait | Step::After => {
                self.lane(direction).ungather(frame);
                let stopped = self.speak(direction, cx);
                return stopped.or(Some(Flow::Idle));
            }
            Step::Drop => return self.speak(direction, cx),
            Step::Shrink(bytes) => frame.truncate(bytes),
            Step::Pass => {}
        }
        match direction {
            Direction::ToUpstream => self.requests.insert_judged(frame),
            Direction::ToClient => self.recording = Some(Box::new(Recording { bytes: frame, recorded: 0 })),
        }
        None
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
        match cx.tap.record(note, &[&self.requests.window(cx.slab)[..n]]) {
            Some(_) => None,
            None => Some(Flow::End(Fault::NotRecorded)),
        }
    }

    /// A gathered reply leaves in pieces, each after its record.
    fn record_gathered(&mut self, cx: &mut Cx<'_>) -> Option<Flow> {
        if self.replies.inserting() {
            return Some(Flow::Idle);
        }
        let recording = self.recording.as_ref()?;
        let (from, whole) = (recording.recorded, recording.bytes.len());
        let to = whole.min(from + CHUNK_BYTES);
        if cx.tap.room_bytes() < to - from {
            return Some(Flow::RingFull);
        }
        let note = self.note(Direction::ToClient, piece(from == 0, to == whole), cx);
        let bytes = &recording.bytes[from..to];
        let Some(receipt) = cx.tap.record(note, &[bytes]) else { return Some(Flow::End(Fault::NotRecorded)) };
        self.replies.insert(bytes, receipt);
        match &mut self.recording {
            Some(recording) if to < whole => recording.recorded = to,
            finished => *finished = None,
        }
        Some(Flow::Idle)
    }

    fn note(&self, direction: Direction, flags: Flags, cx: &Cx<'_>) -> Note {
        let (kind, flags) = match direction {
            Direction::ToUpstream => (Kind::Request, flags | Flags::CLIENT),
            Direction::ToClient => (Kind::Response, flags),
        };
        Note { kind, flags, session: self.session, now_unix_ns: cx.now_unix_ns }
    }
}

enum Outcome {
    Empty,
    Partial { tag: u8, bytes: usize },
    Step { step: Step, bytes: usize },
}

/// The session ends; its verdicts must not stand in the record of the next one.
fn not_recorded(cx: &mut Cx<'_>) -> Option<Flow> {
    cx.scratch.verdicts.clear();
    Some(Flow::End(Fault::NotRecorded))
}

/// The flags of one record of several that hold a frame.
fn piece(is_first: bool, is_last: bool) -> Flags {
    let begin = if is_first { Flags::BEGIN } else { Flags::NONE };
    begin | if is_last { Flags::END } else { Flags::NONE }
}

fn broken(direction: Direction) -> Step {
    let side = match direction {
        Direction::ToUpstream => Side::Client,
        Direction::ToClient => Side::Upstream,
    };
    Step::End(Fault::Protocol(side, "a message has an impossible length"))
}

/// Payload head of a verdict record; the rule's name follows. Format: `recorder/ring/RECORD.md`.
fn verdict_head(plan: &Plan, epoch: [u8; 8]) -> [u8; 12] {
    let mut head = [0; 12];
    head[0] = plan.verdict as u8;
    head[4..].copy_from_slice(&epoch);
    head
}
