//! Two lanes and the pump: frame → dissect (judge, mask) → record → clear.
//!
//! Both directions run the same loop. Frames that leave as they are gather into a run, which is recorded and cleared as one:
//! one copy into the ring, one send. Whatever else the dissector says ends the run first, so order is kept.

mod large;

use ring::{Flags, Kind, Receipt};

use super::counters::Counters;
use super::lane::Lane;
use super::tap::{Evidence, Note};
use super::verdict::{Judge, Plan};
use crate::buffer::{Gathered, Slab};
use crate::fault::{Fault, Side};
use crate::protocol::postgres::framer::Framed;
use crate::protocol::postgres::redact;
use crate::protocol::postgres::wire::frontend::PASSWORD;
use crate::protocol::{Dissector, Scratch, Step};
use large::{Pieces, Recording};

/// Frames that one pump handles before it records what it has, so that a burst's verdicts stay within the ring's reserve.
const RUN_FRAMES_MAX: usize = 256;

/// Bytes that are recorded of a message which ends the session and is larger than a slot, or has no possible length.
const LAST_WORDS_BYTES_MAX: usize = 4096;

/// What the pump may use of its shard.
pub struct Cx<'a> {
    pub slab: &'a mut Slab,
    pub tap: &'a mut dyn Evidence,
    pub judge: &'a mut dyn Judge,
    pub scratch: &'a mut Scratch,
    /// What the shard's sessions may still hold outside slots.
    pub gathered: &'a Gathered,
    pub counters: &'a Counters,
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
    /// Other sessions' gathered frames leave no room for one of this session.
    NothingToGatherIn,
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
    /// A request that is recorded in pieces.
    pieces: Option<Box<Pieces>>,
    /// A request had a secret, and not all is answered: errors may quote it.
    has_asked_secret: bool,
    /// The policy's identity, first 8 bytes: stands in every verdict record.
    pub epoch: [u8; 8],
    /// Executions that the client has asked for: what an auditor counts.
    pub statements: u64,
    /// Texts that policy has refused.
    pub refused: u64,
}

impl<D: Dissector> Relay<D> {
    pub fn new(session: u64, requests: Lane, replies: Lane, dissector: D, epoch: [u8; 8]) -> Self {
        Self {
            session,
            requests,
            replies,
            dissector,
            recording: None,
            pieces: None,
            has_asked_secret: false,
            epoch,
            statements: 0,
            refused: 0,
        }
    }

    /// Moves everything that can be moved, in both directions.
    pub fn pump(&mut self, cx: &mut Cx<'_>) -> Flow {
        let flow = self.pump_both(cx);
        self.has_asked_secret &= self.dissector.is_owing() || self.requests.is_held();
        self.requests.settle(cx.slab);
        self.replies.settle(cx.slab);
        flow
    }

    fn pump_both(&mut self, cx: &mut Cx<'_>) -> Flow {
        let mut flow = Flow::Idle;
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
                // The other direction may be what gives room.
                Flow::NothingToGatherIn => flow = Flow::NothingToGatherIn,
                stopped => return stopped,
            }
        }
        flow
    }

    fn pump_one(&mut self, direction: Direction, cx: &mut Cx<'_>) -> Flow {
        self.lane(direction).hold(false);
        loop {
            if self.lane(direction).inserting() && self.recording.is_none() {
                // Nobody looks at what is here before our own bytes have left.
                self.lane(direction).hold(true);
                return Flow::Idle;
            }
            let flow = match direction {
                Direction::ToClient if self.recording.is_some() => self.record_gathered(cx),
                _ if self.lane(direction).streaming() > 0 => self.stream(direction, cx),
                _ if self.lane(direction).collecting() => self.gather(direction, cx),
                _ => self.run(direction, cx),
            };
            let Some(flow) = flow else { continue };
            if flow != Flow::Idle {
                self.lane(direction).hold(true);
            }
            return flow;
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
            self.count(direction, tag, step, cx.counters);
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
            Outcome::Partial { tag, bytes } => self.partial(direction, tag, bytes, cx),
            Outcome::Step { step, bytes } => self.step(direction, step, bytes, cx),
        }
    }

    /// An execution counts once: when its message no longer waits.
    fn count(&mut self, direction: Direction, tag: u8, step: Step, counters: &Counters) {
        let is_settled = !matches!(step, Step::Wait | Step::After | Step::End(_));
        let is_asked = direction == Direction::ToUpstream && D::is_execution(tag);
        let executions = u64::from(is_settled && is_asked);
        self.statements += executions;
        counters.executions.add(executions);
    }

    /// Records and clears the first `run` bytes of the window, then the first `verdicts` of those given on the way.
    fn finish_run(&mut self, direction: Direction, run: usize, verdicts: usize, cx: &mut Cx<'_>) -> Option<Flow> {
        cx.counters.rows_masked.add(std::mem::take(&mut cx.scratch.masked_rows));
        cx.counters.rows_scanned.add(std::mem::take(&mut cx.scratch.scanned_rows));
        if run > 0 {
            let note = self.note(direction, Flags::WHOLE, cx);
            let mut has_secret = self.has_asked_secret;
            let lane = self.lane(direction);
            let window = &lane.window(cx.slab)[..run];
            let recorded = match direction {
                Direction::ToUpstream => record_asked(cx.tap, cx.scratch, note, window, &mut has_secret),
                Direction::ToClient => record_answered(cx.tap, &mut cx.scratch.recorded, note, window, has_secret),
            };
            let Some(receipt) = recorded else {
                return not_recorded(cx);
            };
            lane.clear(cx.slab, run, receipt);
            self.has_asked_secret = has_secret;
        }
        self.record_verdicts(verdicts, cx)
    }

    fn record_verdicts(&mut self, count: usize, cx: &mut Cx<'_>) -> Option<Flow> {
        let recorded = cx.scratch.verdicts.drain(..count).all(|plan| {
            self.refused += u64::from(plan.refusal.is_some());
            cx.counters.judged(plan.verdict);
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
            Step::End(fault) => return Some(self.last_words(direction, fault, bytes, cx)),
        };
        // What a client typed is evidence even when it goes nowhere.
        if direction == Direction::ToUpstream && dropped > 0 {
            let note = self.note(direction, Flags::WHOLE, cx);
            let frame = &self.requests.window(cx.slab)[..bytes];
            if record_asked(cx.tap, cx.scratch, note, frame, &mut self.has_asked_secret).is_none() {
                return not_recorded(cx);
            }
        }
        if let Some(stopped) = self.finish_run(direction, kept, cx.scratch.verdicts.len(), cx) {
            return Some(stopped);
        }
        self.lane(direction).drop_bytes(dropped);
        self.speak(direction, cx)
    }

    /// What a client typed is evidence also when it ends the session: the frame, or the beginning of one that has no end
    /// here (`bytes` 0). A farewell says nothing, and a password that comes now must leave no trace.
    fn last_words(&mut self, direction: Direction, fault: Fault, bytes: usize, cx: &mut Cx<'_>) -> Flow {
        if direction == Direction::ToClient || matches!(fault, Fault::Gone(_)) {
            return Flow::End(fault);
        }
        let (flags, length) = match bytes {
            0 => (Flags::BEGIN, self.requests.window_bytes().min(LAST_WORDS_BYTES_MAX)),
            whole => (Flags::WHOLE, whole),
        };
        let note = self.note(direction, flags, cx);
        let window = self.requests.window(cx.slab);
        let kept = match window.first() {
            Some(&PASSWORD) => 1,
            _ => length,
        };
        let recorded = match bytes {
            0 => self.pieces.get_or_insert_default().record(cx.tap, cx.scratch, note, &window[..kept]),
            _ => record_asked(cx.tap, cx.scratch, note, &window[..kept], &mut self.has_asked_secret),
        };
        let stopped = match recorded.is_some() {
            true => self.record_verdicts(cx.scratch.verdicts.len(), cx),
            false => not_recorded(cx),
        };
        stopped.unwrap_or(Flow::End(fault))
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
            let has_secret = self.has_asked_secret;
            let Some(receipt) = record_answered(cx.tap, &mut cx.scratch.recorded, note, to_client, has_secret) else {
                return Some(Flow::End(Fault::NotRecorded));
            };
            self.replies.insert(to_client, receipt);
            to_client.clear();
        }
        None
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

/// Records whole messages of the client, their secrets starred.
fn record_asked(
    tap: &mut dyn Evidence,
    scratch: &mut Scratch,
    note: Note,
    messages: &[u8],
    has_secret: &mut bool,
) -> Option<Receipt> {
    if !redact::may_hold_secret(messages) {
        return tap.record(note, &[messages]);
    }
    scratch.recorded.clear();
    scratch.recorded.extend_from_slice(messages);
    redact::run(&mut scratch.recorded);
    *has_secret |= scratch.recorded != messages;
    tap.record(note, &[&scratch.recorded])
}

/// Records whole messages to the client; errors without what they may quote, where a secret was asked.
fn record_answered(
    tap: &mut dyn Evidence,
    recorded: &mut Vec<u8>,
    note: Note,
    messages: &[u8],
    has_secret: bool,
) -> Option<Receipt> {
    if !has_secret {
        return tap.record(note, &[messages]);
    }
    recorded.clear();
    recorded.extend_from_slice(messages);
    redact::reports(recorded);
    tap.record(note, &[recorded])
}

/// The session ends; its verdicts must not stand in the record of the next one.
fn not_recorded(cx: &mut Cx<'_>) -> Option<Flow> {
    cx.scratch.verdicts.clear();
    Some(Flow::End(Fault::NotRecorded))
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
