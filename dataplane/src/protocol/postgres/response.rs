//! Messages of the upstream: matched against what is owed, masked in place, swallowed where we asked.

use policy_compiler::judge::is_ascii_safe;

use super::dissector::{CopyIn, Dissector, GuardDue, REPLY_BYTES_MAX, Skip};
use super::names::{Made, NameId};
use super::request::COPY_DISTURBED;
use super::responder;
use super::wire::{HEAD_BYTES, backend, cstr_at, fields, u16_at, u32_at};
use crate::datapath::mask::{Column, Copied, CopyOut, LargeCopy, MaskView};
use crate::datapath::replies::{Ask, Owed, Owner};
use crate::datapath::report;
use crate::datapath::stream::StreamedFrame;
use crate::fault::{Fault, Side};
use crate::protocol::{Large, Scratch, Step};

const UNASKED: Step = Step::End(Fault::Protocol(Side::Upstream, "the upstream sent an answer that nobody asked for"));
const MALFORMED_FAULT: Fault = Fault::Protocol(Side::Upstream, "a message of the upstream is malformed");
const MALFORMED: Step = Step::End(MALFORMED_FAULT);
const UNPINNED: Step = Step::End(Fault::Protocol(
    Side::Upstream,
    "the upstream changed a setting that wireward pins (standard_conforming_strings, role, pg_catalog's place in search_path, \
     or client_encoding to one that is not safe)",
));
/// A row leaves whole or not at all where a mask needs all of a value, or makes the row shorter.
const ROW_TOO_LONG: &str = "a row to be masked is longer than limits.row_bytes_max, and a mask of it (null, hash, last4, \
    or any of a column in COPY) needs the row whole; select fewer columns or shorter values, or ask the operator to raise it";
/// What ReadyForQuery answers.
const READY: [Ask; 3] = [Ask::Query, Ask::FunctionCall, Ask::Sync];
const BINARY_COPY: Step =
    Step::End(Fault::Protocol(Side::Wireward, "a binary COPY cannot be masked; use the text or csv format"));

impl Dissector {
    pub(super) fn on_response(&mut self, frame: &mut [u8], scratch: &mut Scratch) -> Step {
        match frame[0] {
            backend::DATA_ROW => self.data_row(frame, scratch),
            backend::COPY_DATA => self.copy_row(frame, scratch),
            backend::BIND_COMPLETE => self.confirmed(Ask::Bind),
            backend::PARSE_COMPLETE => self.confirmed(Ask::Parse),
            backend::CLOSE_COMPLETE => self.closed(),
            backend::COMMAND_COMPLETE => self.result_ended(false),
            backend::EMPTY_QUERY => self.result_ended(true),
            backend::READY_FOR_QUERY => self.ready(frame),
            backend::ROW_DESCRIPTION => self.row_description(frame),
            backend::NO_DATA => self.described(),
            backend::PARAMETER_DESCRIPTION => self.owes(&[Ask::DescribeStatement], Step::Pass),
            backend::PORTAL_SUSPENDED => self.suspended(),
            backend::ERROR => self.error(frame, scratch),
            backend::NOTICE => self.notice(frame),
            backend::FUNCTION_CALL_RESPONSE => self.function_result(frame, scratch),
            backend::NOTIFICATION => self.notification(frame),
            backend::PARAMETER_STATUS => self.parameter_status(frame),
            backend::COPY_IN => self.copy_in_opened(),
            backend::COPY_OUT => self.copy_out_opened(frame),
            backend::COPY_DONE => self.copy_out_ended(),
            _ => UNASKED,
        }
    }

    pub(super) fn on_large_response(&mut self, tag: u8, bytes: usize) -> Large {
        let limited = |max, name| if bytes > max { Large::End(Fault::Limit(name)) } else { Large::Collect };
        let in_result = self.owes(&[Ask::Query, Ask::Execute], Step::Pass) == Step::Pass;
        let masks = self.masks_of_answer();
        let called = self.owes(&[Ask::FunctionCall], Step::Pass) == Step::Pass;
        self.answered |= called && tag == backend::FUNCTION_CALL_RESPONSE;
        match tag {
            backend::DATA_ROW if in_result && (!masks.active || self.rows.passes_all()) => Large::Stream,
            backend::COPY_DATA if self.copying_out.is_some() && !masks.active => Large::Stream,
            backend::DATA_ROW if in_result && self.rows.streams(&masks) => {
                self.streamed = Some(Box::new(StreamedFrame::row(masks, bytes)));
                Large::Mask
            }
            backend::COPY_DATA if let Some(copy) = &self.copying_out => {
                let streamed = match copy.large(&masks) {
                    LargeCopy::Alike(act) => StreamedFrame::copy_data(masks, bytes, act),
                    LargeCopy::Detect(plan) => StreamedFrame::copy_text(masks, bytes, plan),
                    LargeCopy::Whole => return limited(self.shared.limits.row_bytes_max, ROW_TOO_LONG),
                };
                self.streamed = Some(Box::new(streamed));
                Large::Mask
            }
            backend::FUNCTION_CALL_RESPONSE if called && !masks.active => Large::Stream,
            backend::FUNCTION_CALL_RESPONSE if called => limited(self.shared.limits.row_bytes_max, ROW_TOO_LONG),
            backend::DATA_ROW if in_result => limited(self.shared.limits.row_bytes_max, ROW_TOO_LONG),
            backend::DATA_ROW | backend::COPY_DATA => unasked_large(),
            _ => limited(REPLY_BYTES_MAX, "a message of the upstream is longer than 1 MiB"),
        }
    }

    pub(super) fn on_response_piece(&mut self, piece: &mut [u8]) -> Result<usize, Fault> {
        let Some(streamed) = &mut self.streamed else { return Err(MALFORMED_FAULT) };
        let bytes = streamed.mask(&self.rows, piece).ok_or(MALFORMED_FAULT)?;
        if streamed.is_finished() {
            self.streamed = None;
        }
        Ok(bytes)
    }

    /// `step` if the answer that is due now is to one of `asks`.
    fn owes(&self, asks: &[Ask], step: Step) -> Step {
        match self.replies.front() {
            Some(owed) if asks.contains(&owed.ask) => step,
            _ => UNASKED,
        }
    }

    /// What is due now, if it is the answer to this.
    fn due(&self, ask: Ask) -> Option<Owed> {
        self.replies.front().filter(|owed| owed.ask == ask).cloned()
    }

    /// We asked: the client must not see the answer.
    fn is_ours(&self) -> bool {
        self.replies.front().is_some_and(|owed| matches!(owed.owner, Owner::Ours | Owner::Guard))
    }

    fn closed(&mut self) -> Step {
        let step = if self.is_ours() { Step::Drop } else { Step::Pass };
        if let Some(owed) = self.due(Ask::CloseStatement).filter(|owed| owed.owner == Owner::Client) {
            self.names.statements.drop_name(owed.name.id);
        } else if let Some(owed) = self.due(Ask::ClosePortal).filter(|owed| owed.owner == Owner::Client) {
            self.names.portals.drop_name(owed.name.id);
        } else if self.due(Ask::CloseStatement).or(self.due(Ask::ClosePortal)).is_none() {
            return UNASKED;
        }
        self.replies.paid();
        step
    }

    fn confirmed(&mut self, ask: Ask) -> Step {
        if self.due(ask).is_some_and(|owed| owed.owner == Owner::Guard) {
            self.replies.paid();
            return Step::Drop;
        }
        let Some(Owed { name, plan: Some(plan), is_text, is_unknown, drops_unnamed, .. }) = self.due(ask) else {
            return UNASKED;
        };
        if drops_unnamed {
            self.names.statements.drop_name(NameId::UNNAMED);
        }
        match ask {
            Ask::Parse => self.names.parsed(name, plan),
            _ => self.names.bound(name, plan, if is_text { Made::Protocol } else { Made::Sql }),
        }
        if is_unknown {
            self.names.lost(name.at);
        }
        self.replies.paid();
        Step::Pass
    }

    /// A statement of what is due has run.
    fn has_run(&mut self, owed: &Owed) {
        let at = owed.name.at;
        self.defers |= owed.is_unknown || owed.plan.as_ref().is_none_or(|plan| plan.defers);
        if owed.is_unknown {
            self.names.lost(at);
        }
        if owed.is_text
            && let Some(plan) = &owed.plan
            && let Some(touch) = plan.touches.get(self.ran)
        {
            self.names.has_run(&self.shared.name_key, plan, touch, at);
        }
    }

    /// What is due will not run, or no further: it has failed, or was skipped.
    fn has_not_run(&mut self, owed: &Owed) {
        if owed.owner == Owner::Refused && owed.drops_unnamed {
            self.names.refusing = self.names.refusing.saturating_sub(1);
        }
        if owed.owner == Owner::Guard {
            // Whether it holds is still to be asked.
            match owed.plan {
                Some(_) => self.names.not_parsed(owed.name),
                None => self.guard_due = GuardDue::Now,
            }
            return;
        }
        match (owed.ask, &owed.plan) {
            (Ask::Parse, _) => self.names.not_parsed(owed.name),
            (Ask::Bind, _) => self.names.not_bound(owed.name),
            (_, Some(plan)) if owed.is_text => self.names.will_not_run(&self.shared.name_key, plan, owed.name.at),
            _ => {}
        }
    }

    /// NoData, or the end of a RowDescription: a Describe is answered.
    fn described(&mut self) -> Step {
        let Some(owed) = self.replies.front() else { return UNASKED };
        if !matches!(owed.ask, Ask::DescribeStatement | Ask::DescribePortal) {
            return UNASKED;
        }
        let step = if self.is_ours() { Step::Drop } else { Step::Pass };
        self.replies.paid();
        step
    }

    fn result_ended(&mut self, is_empty: bool) -> Step {
        self.rows.clear();
        if let Some(owed) = self.due(Ask::Query) {
            self.answered = true;
            self.names.statements.drop_name(NameId::UNNAMED);
            if !is_empty {
                self.names.portals.drop_name(NameId::UNNAMED);
                self.has_run(&owed);
                self.ran += 1;
            }
            Step::Pass
        } else if let Some(owed) = self.due(Ask::Execute) {
            self.replies.paid();
            if owed.owner == Owner::Guard {
                self.names.found(owed.name);
                return Step::Drop;
            }
            self.has_run(&owed);
            Step::Pass
        } else {
            UNASKED
        }
    }

    fn suspended(&mut self) -> Step {
        let Some(owed) = self.due(Ask::Execute) else { return UNASKED };
        self.has_run(&owed);
        self.replies.paid();
        Step::Pass
    }

    fn ready(&mut self, frame: &[u8]) -> Step {
        let (true, &[status]) = (self.owes(&READY, Step::Pass) == Step::Pass, &frame[HEAD_BYTES..]) else {
            return UNASKED;
        };
        // Without an answer before it this is not the end of the statement that is due, and what follows would be matched with others.
        if !std::mem::take(&mut self.answered) && self.owes(&[Ask::Sync], Step::Pass) == UNASKED {
            return UNASKED;
        }
        if !matches!(status, b'I' | b'T' | b'E') {
            return MALFORMED;
        }
        self.status = status;
        self.rows.clear();
        self.copying_out = None;
        self.copy_in = CopyIn::No;
        self.ran = 0;
        if let Some(owed) = self.replies.front().cloned() {
            self.settle(&owed);
        }
        let step = if self.is_ours() { Step::Drop } else { Step::Pass };
        self.replies.paid();
        if self.replies.is_empty() {
            self.replies.shrink();
            self.names.settled();
            self.wall = None;
        }
        step
    }

    /// The server is ready: what was asked up to here is over, and without a transaction all that one holds is gone.
    fn settle(&mut self, owed: &Owed) {
        if owed.is_unknown {
            self.names.lost(owed.name.at);
        }
        self.wall.take_if(|at| at.get() <= owed.name.at);
        if self.status == b'I' {
            self.names.transaction_ended();
            self.defers = false;
        }
    }

    fn row_description(&mut self, frame: &mut [u8]) -> Step {
        let Some(owed) = self.replies.front() else { return UNASKED };
        let ask = owed.ask;
        if !matches!(ask, Ask::Query | Ask::DescribeStatement | Ask::DescribePortal) {
            return UNASKED;
        }
        self.rows.clear();
        let (plan, masks) = (owed.plan.clone(), owed.masks.clone());
        // What Describe says of a statement has no formats yet; rows follow only the description of their own execution.
        if masks.active && ask != Ask::DescribeStatement {
            let Some(body) = frame.get(HEAD_BYTES + 2..) else { return MALFORMED };
            let mut columns = Columns { body, left: count(frame) };
            self.rows.fill(&masks, plan.as_deref(), &mut columns);
            if columns.left != 0 || !columns.body.is_empty() {
                return MALFORMED;
            }
        }
        scrub_names(&masks, frame);
        if ask == Ask::Query { Step::Pass } else { self.described() }
    }

    fn data_row(&mut self, frame: &mut [u8], scratch: &mut Scratch) -> Step {
        let step = self.owes(&[Ask::Query, Ask::Execute], Step::Pass);
        if self.is_ours() {
            return if step == Step::Pass { Step::Drop } else { step };
        }
        let masks = self.masks_of_answer();
        if step != Step::Pass || !masks.active {
            return step;
        }
        if !self.rows.is_known() {
            return UNASKED;
        }
        if self.rows.passes_all() {
            return Step::Pass;
        }
        scratch.count_row(self.rows.detects_only());
        match self.rows.mask(&masks, frame) {
            Some(bytes) if bytes == frame.len() => Step::Pass,
            Some(bytes) => Step::Shrink(bytes),
            None => MALFORMED,
        }
    }

    /// A value without a column: what a statement that returns it would have it masked by.
    fn function_result(&mut self, frame: &mut [u8], scratch: &mut Scratch) -> Step {
        self.answered = true;
        let Some(owed) = self.replies.front().filter(|owed| owed.ask == Ask::FunctionCall) else { return UNASKED };
        let Some((length, value)) = frame[HEAD_BYTES..].split_first_chunk_mut::<4>() else { return MALFORMED };
        if !owed.masks.active {
            return Step::Pass;
        }
        let masked = owed.plan.as_ref().is_none_or(|plan| plan.mask_unsourced);
        scratch.count_row(!masked);
        if masked {
            *length = (-1_i32).to_be_bytes();
            return shrunk(frame, HEAD_BYTES + 4);
        }
        owed.masks.scrub(value);
        Step::Pass
    }

    fn copy_in_opened(&mut self) -> Step {
        let step = self.owes(&[Ask::Query, Ask::Execute], Step::Pass);
        if step == Step::Pass {
            self.replies.forget_syncs_behind_front();
            // What is already behind fails the COPY. After an error of the extended protocol all is skipped up to a Sync, and
            // that is answered, so none may be sent as if the COPY ran; a simple query's answers are lost count of.
            if !self.replies.has_behind_front() {
                self.copy_in = CopyIn::Open;
            } else if self.owes(&[Ask::Query], Step::Pass) == Step::Pass {
                return COPY_DISTURBED;
            }
        }
        step
    }

    fn copy_out_opened(&mut self, frame: &[u8]) -> Step {
        let step = self.owes(&[Ask::Query, Ask::Execute], Step::Pass);
        let plan = self.replies.front().and_then(|owed| owed.plan.clone());
        let Some(format) = frame.get(HEAD_BYTES) else { return MALFORMED };
        let fields = u16_at(frame, HEAD_BYTES + 1).map(usize::from);
        let copy = CopyOut::new(plan, fields, *format != 0);
        let masks = self.masks_of_answer();
        if masks.active && !copy.is_understood(&masks) {
            return BINARY_COPY;
        }
        self.copying_out = Some(Box::new(copy));
        step
    }

    fn copy_row(&mut self, frame: &mut [u8], scratch: &mut Scratch) -> Step {
        let masks = self.masks_of_answer();
        let Some(copy) = &mut self.copying_out else { return UNASKED };
        if !masks.active {
            return Step::Pass;
        }
        scratch.count_row(copy.detects_only(&masks));
        let from = scratch.before.len();
        scratch.before.extend_from_slice(&[backend::COPY_DATA, 0, 0, 0, 0]);
        match copy.mask(&masks, &mut frame[HEAD_BYTES..], &mut scratch.before) {
            Copied::Aside => {
                let bytes = scratch.before.len() - from;
                set_length(&mut scratch.before[from..], bytes);
                Step::Drop
            }
            Copied::Malformed => MALFORMED,
            Copied::Here(bytes) => {
                scratch.before.truncate(from);
                if HEAD_BYTES + bytes == frame.len() {
                    return Step::Pass;
                }
                set_length(frame, HEAD_BYTES + bytes);
                Step::Shrink(HEAD_BYTES + bytes)
            }
        }
    }

    fn copy_out_ended(&mut self) -> Step {
        match self.copying_out.take() {
            Some(_) => Step::Pass,
            None => UNASKED,
        }
    }

    fn error(&mut self, frame: &mut [u8], scratch: &mut Scratch) -> Step {
        self.farewell =
            fields(&frame[HEAD_BYTES..]).any(|(code, text)| code == b'V' && matches!(text, b"FATAL" | b"PANIC"));
        self.rows.clear();
        self.copying_out = None;
        self.copy_in = CopyIn::No;
        let Some(owed) = self.replies.front().cloned() else {
            // Unasked errors exist: the server is being shut down, say. They hold no data of a statement.
            return scrub_report(&self.masks, frame, false);
        };
        if owed.drops_unnamed {
            self.names.statements.drop_name(NameId::UNNAMED);
        }
        if owed.is_unknown {
            self.names.lost(owed.name.at);
        }
        self.has_not_run(&owed);
        self.answered = matches!(owed.ask, Ask::Query | Ask::FunctionCall);
        if !self.answered {
            self.skip_behind();
        }
        let has_code = |code: &[u8]| fields(&frame[HEAD_BYTES..]).any(|(field, text)| field == b'C' && text == code);
        let guard_fails = owed.owner == Owner::Guard && has_code(responder::GUARD_FAILS);
        if guard_fails && owed.plan.is_none() {
            return UNPINNED;
        }
        if owed.owner == Owner::Refused || guard_fails {
            scratch.before.extend_from_slice(owed.plan.as_ref().and_then(|p| p.refusal.as_deref()).unwrap_or_default());
            return Step::Drop;
        }
        scrub_report(&owed.masks, frame, self.may_tell(&owed))
    }

    /// What the server passes over after an error.
    fn skip_behind(&mut self) {
        // The first is the one that has failed.
        self.replies.skipped();
        while let Some(skipped) = self.replies.skipped() {
            self.has_not_run(&skipped);
        }
        // No Sync is on its way: the server ignores all until one comes, so nothing more is owed for it either. A simple
        // query that it has ignored has ended no pipeline.
        if self.replies.is_empty() {
            self.skip = Skip::ToUpstreamSync;
            self.pipeline_open = true;
        }
    }

    /// Whether what the server says now may tell a value that is masked. What was put off is said at the transaction's end,
    /// which COMMIT brings, or a Sync, or a simple query without a transaction.
    fn may_tell(&self, owed: &Owed) -> bool {
        let ends_others = READY.contains(&owed.ask) || owed.plan.as_ref().is_some_and(|plan| plan.ends_others);
        match &owed.plan {
            _ if ends_others && self.defers => true,
            Some(plan) => plan.mask_unsourced,
            None => !READY.contains(&owed.ask),
        }
    }

    fn notice(&mut self, frame: &mut [u8]) -> Step {
        let protected = self.replies.front().is_some_and(|owed| self.may_tell(owed));
        scrub_report(&self.masks_of_answer(), frame, protected)
    }

    /// What others say may hold any value that they see: only one's own words are sure to be one's own.
    fn notification(&mut self, frame: &mut [u8]) -> Step {
        let Some(pid) = u32_at(frame, HEAD_BYTES) else { return MALFORMED };
        let Some((_, at)) = cstr_at(frame, HEAD_BYTES + 4) else { return MALFORMED };
        let (channel, payload) = frame.split_at_mut(at);
        if self.masks.active {
            self.masks.scrub(&mut channel[HEAD_BYTES + 4..]);
            let detects_only = self.masks.columns.is_empty() && self.masks.detect.is_some();
            match payload.split_last_mut() {
                Some((0, payload)) if detects_only || self.own_pid == Some(pid) => self.masks.scrub(payload),
                Some((0, payload)) => payload.fill(b'*'),
                _ => return MALFORMED,
            }
        }
        Step::Pass
    }

    fn parameter_status(&mut self, frame: &mut [u8]) -> Step {
        let Some((name, at)) = cstr_at(frame, HEAD_BYTES) else { return MALFORMED };
        let Some((value, end)) = cstr_at(frame, at) else { return MALFORMED };
        // Nobody knows what it was at the login: a reset may not bring it back.
        self.is_stained = true;
        match name {
            b"standard_conforming_strings" if value != b"on" => return UNPINNED,
            b"client_encoding" if value != b"UTF8" => {
                self.is_utf8 = false;
                if !std::str::from_utf8(value).is_ok_and(is_ascii_safe) {
                    return UNPINNED;
                }
            }
            _ => {}
        }
        if self.masks.active {
            self.masks.scrub(&mut frame[at..end - 1]);
        }
        Step::Pass
    }
}

/// Values stand in errors and notices too: detectors go over every field, and where the statement reads what is masked,
/// the quoted parts of the message and the whole of detail, context and query are starred.
fn scrub_report(masks: &MaskView, frame: &mut [u8], protected: bool) -> Step {
    if !masks.active {
        return Step::Pass;
    }
    let bytes = HEAD_BYTES + report::scrub(masks, &mut frame[HEAD_BYTES..], protected);
    shrunk(frame, bytes)
}

/// A frame of which so many bytes stay.
fn shrunk(frame: &mut [u8], bytes: usize) -> Step {
    if bytes == frame.len() {
        return Step::Pass;
    }
    set_length(frame, bytes);
    Step::Shrink(bytes)
}

fn unasked_large() -> Large {
    Large::End(Fault::Protocol(Side::Upstream, "the upstream sent a row that nobody asked for"))
}

/// A column's name can carry a value: `EXECUTE format('… as %I', email)`.
fn scrub_names(masks: &MaskView, frame: &mut [u8]) {
    if !masks.active {
        return;
    }
    let mut at = HEAD_BYTES + 2;
    for _ in 0..count(frame) {
        let Some((_, end)) = cstr_at(frame, at) else { return };
        masks.scrub(&mut frame[at..end - 1]);
        at = end + 18;
    }
}

fn count(frame: &[u8]) -> u16 {
    u16_at(frame, HEAD_BYTES).unwrap_or(0)
}

fn set_length(frame: &mut [u8], bytes: usize) {
    frame[1..HEAD_BYTES].copy_from_slice(&(bytes as u32 - 1).to_be_bytes());
}

/// The columns of a RowDescription.
struct Columns<'a> {
    body: &'a [u8],
    left: u16,
}

impl Iterator for Columns<'_> {
    type Item = Column;
    fn next(&mut self) -> Option<Column> {
        if self.left == 0 {
            return None;
        }
        let (_, at) = cstr_at(self.body, 0)?;
        let column = Column {
            relation: u32_at(self.body, at)?,
            number: u16_at(self.body, at + 4)?,
            type_oid: u32_at(self.body, at + 6)?,
            binary: u16_at(self.body, at + 16)? == 1,
        };
        self.body = &self.body[at + 18..];
        self.left -= 1;
        Some(column)
    }
}
