//! Messages of the client: the closed table, the state machine of the extended protocol, and refusals in their right place.
//! Source: <https://www.postgresql.org/docs/18/protocol-flow.html>.

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::rc::Rc;

use policy_compiler::statement::postgres::foreign;

use super::dissector::{CopyIn, Dissector, GuardDue, Skip};
use super::function_call;
use super::names::{Known, Made, NameId};
use super::responder;
use super::running::Run;
use super::wire::{HEAD_BYTES, cstr_at, frontend, u16_at, u32_at};
use crate::datapath::replies::{Ask, Owed, Owner};
use crate::datapath::verdict::{Judge, Judged, Plan, Touch, Verdict};
use crate::fault::{Fault, Side};
use crate::protocol::{Large, Scratch, Step};

const TOO_MUCH: Step = Step::End(Fault::Limit(
    "the session's prepared statements and portals hold more than limits.prepared_bytes_max; close some (DEALLOCATE), or ask \
     the operator to raise it",
));
const MALFORMED: Step = Step::End(Fault::Protocol(Side::Client, "a message of the client is malformed"));
/// A server that waits for COPY data throws any other message away and fails the COPY: to that message no answer ever comes,
/// and all that come would be matched with the plans of others.
pub(super) const COPY_DISTURBED: Step = Step::End(COPY_DISTURBED_FAULT);
const COPY_DISTURBED_FAULT: Fault =
    Fault::Protocol(Side::Client, "a message came that is no COPY data, while the server waits for some");
const UNKNOWN: &str = "a message of an unknown kind came from the client";
/// A message of the client for which a text is judged.
#[derive(Clone, Copy)]
pub(super) struct Asking {
    pub(super) ask: Ask,
    /// See [`Owed::drops_unnamed`].
    pub(super) drops_unnamed: bool,
}

impl Asking {
    pub(super) fn of(ask: Ask) -> Self {
        Self { ask, drops_unnamed: ask == Ask::Query }
    }
}

pub(super) fn is_executable(tag: u8) -> bool {
    use frontend::{BIND, EXECUTE, FUNCTION_CALL, PARSE, QUERY};
    matches!(tag, BIND | EXECUTE | FUNCTION_CALL | PARSE | QUERY)
}

fn is_of_copy(tag: u8) -> bool {
    use frontend::{COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH, SYNC, TERMINATE};
    matches!(tag, COPY_DATA | COPY_DONE | COPY_FAIL | FLUSH | SYNC | TERMINATE)
}

/// A name in the message has letters outside ASCII.
fn has_foreign_name(tag: u8, body: &[u8]) -> bool {
    let first = |at| cstr_at(body, at).filter(|_| at <= body.len());
    let names = match tag {
        frontend::PARSE | frontend::EXECUTE => [first(0), None],
        frontend::BIND => [first(0), first(0).and_then(|(_, at)| first(at))],
        frontend::DESCRIBE | frontend::CLOSE => [first(1), None],
        _ => [None, None],
    };
    names.into_iter().flatten().any(|(name, _)| !name.is_ascii())
}

impl Dissector {
    pub(super) fn on_request(&mut self, frame: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let verdicts = scratch.verdicts.len();
        let step = self.request_step(frame, judge, scratch);
        if step == Step::Wait {
            // It is judged again when it is looked at again.
            scratch.verdicts.truncate(verdicts);
        }
        step
    }

    fn request_step(&mut self, frame: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let body = &frame[HEAD_BYTES..];
        if self.skip != Skip::No {
            return self.skipping(frame[0], scratch);
        }
        if !self.is_utf8 && has_foreign_name(frame[0], body) {
            let plan = Rc::new(responder::foreign_name(judge.view()));
            return self.refuse(plan, Asking::of(Ask::Execute), scratch);
        }
        if self.copy_in == CopyIn::Open && !is_of_copy(frame[0]) {
            return COPY_DISTURBED;
        }
        if self.replies.is_full() && !matches!(frame[0], frontend::COPY_DATA | frontend::TERMINATE) {
            return Step::Wait;
        }
        if is_executable(frame[0]) && self.wall.is_some_and(|at| !self.names.is_of_this_pipeline(at)) {
            return Step::Wait;
        }
        if self.guard_due != GuardDue::No && self.must_ask(frame[0]) {
            return self.guard(scratch);
        }
        match frame[0] {
            frontend::QUERY => self.query(body, judge, scratch),
            frontend::PARSE => self.parse(body, judge, scratch),
            frontend::BIND => self.bind(body, judge, scratch),
            frontend::DESCRIBE => self.describe(body, judge, scratch),
            frontend::EXECUTE => self.execute(body, judge, scratch),
            frontend::CLOSE => self.close(body),
            frontend::SYNC => self.sync(),
            frontend::FLUSH => Step::Pass,
            frontend::COPY_DATA => self.copy_data(),
            frontend::COPY_DONE | frontend::COPY_FAIL => self.copy_end(),
            frontend::TERMINATE => Step::End(Fault::Gone(Side::Client)),
            frontend::FUNCTION_CALL => self.function_call(body, judge, scratch),
            _ => Step::End(Fault::Protocol(Side::Client, UNKNOWN)),
        }
    }

    pub(super) fn on_large_request(&mut self, tag: u8, bytes: usize) -> Large {
        let limited = |max, name| if bytes > max { Large::End(Fault::Limit(name)) } else { Large::Collect };
        if self.skip != Skip::No && !matches!(tag, frontend::SYNC | frontend::TERMINATE) {
            return Large::Discard;
        }
        match tag {
            frontend::QUERY | frontend::PARSE if bytes > self.shared.limits.statement_bytes_max => {
                self.too_long(tag, bytes)
            }
            frontend::QUERY | frontend::PARSE => Large::Collect,
            frontend::BIND | frontend::FUNCTION_CALL => {
                limited(self.shared.limits.bind_bytes_max, "the parameters are longer than bind_bytes_max")
            }
            frontend::COPY_DATA => match self.copy_data() {
                Step::Pass => Large::Stream,
                Step::Drop => Large::Discard,
                _ => Large::Wait,
            },
            frontend::DESCRIBE | frontend::EXECUTE | frontend::CLOSE | frontend::COPY_FAIL => {
                limited(self.shared.limits.statement_bytes_max, "a name is longer than statement_bytes_max")
            }
            _ => Large::End(Fault::Protocol(Side::Client, UNKNOWN)),
        }
    }

    /// A statement that is not judged for its length is refused when all of it has come.
    fn too_long(&mut self, tag: u8, bytes: usize) -> Large {
        if self.copy_in == CopyIn::Open {
            return Large::End(COPY_DISTURBED_FAULT);
        }
        if self.replies.is_full() {
            return Large::Wait;
        }
        self.discarding = Some((tag, u32::try_from(bytes).unwrap_or(u32::MAX)));
        Large::Discard
    }

    /// A message that was thrown away has come to its end.
    pub(super) fn on_discarded(&mut self, view: u64, scratch: &mut Scratch) {
        let Some((tag, bytes)) = self.discarding.take() else { return };
        let plan = Rc::new(responder::too_long(bytes as usize, self.shared.limits.statement_bytes_max, view));
        scratch.verdicts.push(plan.clone());
        // Which name a Parse was to give nobody has read: the unnamed one counts as dropped.
        let ask = if tag == frontend::QUERY { Ask::Query } else { Ask::Parse };
        self.refuse(plan, Asking { ask, drops_unnamed: true }, scratch);
    }

    /// A refused pipeline: its members are thrown away up to Sync, as the server does after an error.
    fn skipping(&mut self, tag: u8, scratch: &mut Scratch) -> Step {
        match (tag, self.skip) {
            (frontend::TERMINATE, _) => Step::End(Fault::Gone(Side::Client)),
            (frontend::SYNC, Skip::ToOwnSync) => {
                self.skip = Skip::No;
                responder::ready_for_query(&mut scratch.back, self.status);
                Step::Drop
            }
            (frontend::SYNC, _) => {
                self.skip = Skip::No;
                self.sync()
            }
            _ => Step::Drop,
        }
    }

    fn query(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some((text, end)) = cstr_at(body, 0) else { return MALFORMED };
        if end != body.len() {
            return Step::End(Fault::Protocol(Side::Client, "a Query message has bytes behind its text"));
        }
        let plan = match self.judged(text, Asking::of(Ask::Query), judge, scratch) {
            Ok(plan) => plan,
            Err(step) => return step,
        };
        match self.running(plan, Made::Protocol, Ask::Query, judge, scratch) {
            Ok(run) => self.owe_run(Ask::Query, run),
            Err(step) => return step,
        }
        self.end_pipeline();
        Step::Pass
    }

    /// The fast-path interface, which libpq and pgjdbc use for large objects: judged as the call in SQL, answered as a query.
    fn function_call(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some(oid) = u32_at(body, 0) else { return MALFORMED };
        let plan = match function_call::as_statement(oid) {
            Some(text) => self.judged(text.as_bytes(), Asking::of(Ask::FunctionCall), judge, scratch),
            None => {
                let plan = Rc::new(function_call::refused(judge.view()));
                scratch.verdicts.push(plan.clone());
                Err(self.refuse(plan, Asking::of(Ask::FunctionCall), scratch))
            }
        };
        match plan {
            Ok(plan) => self.owe_run(Ask::FunctionCall, Run::text(plan)),
            Err(step) => return step,
        }
        self.end_pipeline();
        Step::Pass
    }

    /// A simple query and a function call end an extended-protocol pipeline, as Sync does.
    pub(super) fn end_pipeline(&mut self) {
        self.pipeline_open = false;
        self.names.end_pipeline();
    }

    /// The plan of a text that may go upstream, with its verdict noted; else what becomes of its frame.
    fn judged(
        &mut self,
        text: &[u8],
        asking: Asking,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Rc<Plan>, Step> {
        let text = if self.is_utf8 { Cow::Borrowed(text) } else { foreign::letters(text) };
        let Judged::Plan(plan) = judge.judge(&text) else { return Err(Step::Wait) };
        scratch.verdicts.push(plan.clone());
        self.described = None;
        match plan.verdict {
            Verdict::Deny => Err(self.refuse(plan, asking, scratch)),
            _ => {
                self.is_stained |= plan.leaves_traces;
                self.is_utf8 &= !plan.leaves_utf8;
                Ok(plan)
            }
        }
    }

    fn parse(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some((name, at)) = cstr_at(body, 0) else { return MALFORMED };
        let Some((text, at)) = cstr_at(body, at) else { return MALFORMED };
        let types = u16_at(body, at).map(|n| at + 2 + 4 * usize::from(n));
        if types != Some(body.len()) {
            return MALFORMED;
        }
        let asking = Asking { ask: Ask::Parse, drops_unnamed: name.is_empty() };
        let plan = match self.judged(text, asking, judge, scratch) {
            Ok(plan) => plan,
            Err(step) => return step,
        };
        if let Some(full) = self.has_no_room(&plan, &[]) {
            return full;
        }
        let id = self.id(name);
        let name = self.names.parse(id, plan.clone());
        self.pipeline_open = true;
        let owed = self.owed(Ask::Parse, Some(plan));
        self.owe_owed(Owed { name, drops_unnamed: asking.drops_unnamed, ..owed });
        Step::Pass
    }

    /// What names keep is bounded, in bytes too: each may stand for a text of some kilobytes.
    pub(super) fn has_no_room(&self, more: &Plan, touches: &[Touch]) -> Option<Step> {
        let names = touches.iter().filter(|t| matches!(t, Touch::Prepares(_) | Touch::Declares { .. })).count();
        let names_max = self.shared.limits.prepared_statements_max.saturating_sub(names);
        let bytes = more.bytes() as usize * names.max(1);
        if names == 0 && !touches.is_empty() {
            None
        } else if self.names.statements.len() >= names_max {
            Some(Step::End(Fault::Limit("the session has more prepared statements than prepared_statements_max")))
        } else if self.names.portals.len() > names_max {
            Some(Step::End(Fault::Limit("the session has more portals than prepared_statements_max")))
        } else {
            (self.names.bytes() + bytes > self.shared.limits.prepared_bytes_max).then_some(TOO_MUCH)
        }
    }

    /// A plan that was made under another policy or catalogue is made again before anything runs by it.
    pub(super) fn judged_again(
        &mut self,
        plan: Rc<Plan>,
        ask: Ask,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Rc<Plan>, Step> {
        match &plan.text {
            _ if plan.view == judge.view() => Ok(plan),
            Some(text) => self.judged(text, Asking::of(ask), judge, scratch),
            None => Err(self.refuse(Rc::new(responder::outdated(judge.view())), Asking::of(ask), scratch)),
        }
    }

    fn bind(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some((portal, at)) = cstr_at(body, 0) else { return MALFORMED };
        let Some((statement, _)) = cstr_at(body, at) else { return MALFORMED };
        if [responder::REFUSED_PORTAL, responder::GUARD].contains(&portal) {
            return Step::End(Fault::Protocol(Side::Client, "this portal name is reserved"));
        }
        self.described = None;
        let held = match self.statement_to_bind(statement, judge, scratch) {
            Ok(held) => held,
            Err(step) => return step,
        };
        // A suspended portal of a text has no name to keep when the unnamed one takes its place.
        if self.names.portals.len() >= self.shared.limits.prepared_statements_max && !portal.is_empty() {
            return Step::End(Fault::Limit("the session has more portals than prepared_statements_max"));
        }
        if self.names.bytes() + held.plan.bytes() as usize > self.shared.limits.prepared_bytes_max {
            return TOO_MUCH;
        }
        self.pipeline_open = true;
        let (portal, is_text, is_unknown) = (self.id(portal), held.made() == Made::Protocol, held.plan.is_unknown);
        let name = self.names.bind(portal, held.plan.clone(), held.made());
        let owed = self.owed(Ask::Bind, Some(held.plan));
        self.owe_owed(Owed { name, is_text, is_unknown, ..owed });
        Step::Pass
    }

    fn describe(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some((name, end)) = cstr_at(body, 1) else { return MALFORMED };
        match body[0] {
            _ if end != body.len() => MALFORMED,
            b'S' => self.describe_statement(name, judge, scratch),
            b'P' => match self.portal(name, judge, scratch) {
                Ok(held) => {
                    let Some(plan) = self.shown(held) else { return Step::Wait };
                    self.described = Some(self.id(name));
                    self.owe(Ask::DescribePortal, plan)
                }
                Err(step) => step,
            },
            _ => MALFORMED,
        }
    }

    /// A name that is lost shows its columns' names and types at most.
    fn describe_statement(&mut self, name: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let plan = match self.names.statement(self.id(name)) {
            Known::Held(held) => Some(held.plan),
            Known::Lost(_) => None,
            Known::Soon => return Step::Wait,
            Known::Absent => {
                let refusal = responder::no_statement(name, judge.view());
                return self.refuse(Rc::new(refusal), Asking::of(Ask::DescribeStatement), scratch);
            }
        };
        self.described = None;
        self.owe(Ask::DescribeStatement, plan)
    }

    /// No row passes without a RowDescription of its own execution: if the client has not asked for it, we do.
    fn execute(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some((name, at)) = cstr_at(body, 0) else { return MALFORMED };
        if at + 4 != body.len() {
            return MALFORMED;
        }
        let id = self.id(name);
        let described = self.described;
        let run = match self.portal(name, judge, scratch) {
            Ok(Some(held)) => match self.running_portal(id, held, judge, scratch) {
                Ok(run) => Some(run),
                Err(step) => return step,
            },
            Ok(None) => None,
            Err(step) => return step,
        };
        self.described = described;
        if self.masks.active && self.described != Some(id) {
            responder::describe_portal(&mut scratch.before, name);
            let plan = run.map(|run| run.plan);
            let owed = self.owed(Ask::DescribePortal, plan);
            self.owe_owed(Owed { owner: Owner::Ours, ..owed });
            self.pipeline_open = true;
            self.described = Some(id);
            return Step::After;
        }
        // A second Execute of a suspended portal is an execution of its own.
        self.described = None;
        self.pipeline_open = true;
        match run {
            Some(run) => self.owe_run(Ask::Execute, run),
            None => _ = self.owe(Ask::Execute, None),
        }
        Step::Pass
    }

    fn close(&mut self, body: &[u8]) -> Step {
        let Some((name, end)) = cstr_at(body, 1) else { return MALFORMED };
        let ask = match body[0] {
            _ if end != body.len() => return MALFORMED,
            b'S' => Ask::CloseStatement,
            b'P' => Ask::ClosePortal,
            _ => return MALFORMED,
        };
        self.described = None;
        self.pipeline_open = true;
        let name = self.names.next(self.id(name));
        let owed = self.owed(ask, None);
        self.owe_owed(Owed { name, ..owed });
        Step::Pass
    }

    fn sync(&mut self) -> Step {
        self.described = None;
        if self.copy_in == CopyIn::Open {
            // A server that reads COPY data ignores it; one that has just failed the COPY answers it, and which of both it does
            // nobody here can tell. So it stays here.
            return Step::Drop;
        }
        self.end_pipeline();
        self.owe_to(Ask::Sync, Owner::Client, None);
        Step::Pass
    }

    pub(super) fn owed(&mut self, ask: Ask, plan: Option<Rc<Plan>>) -> Owed {
        let masks = self.masks.clone();
        let name = self.names.next(NameId::UNNAMED);
        Owed { ask, owner: Owner::Client, plan, masks, name, is_text: false, is_unknown: false, drops_unnamed: false }
    }

    pub(super) fn owe_owed(&mut self, owed: Owed) {
        if owed.is_unknown {
            self.names.losing(owed.name.at);
            self.guard_due = match owed.ask {
                Ask::Bind => self.guard_due.max(GuardDue::BehindExecute),
                _ => GuardDue::Now,
            };
            self.wall = NonZeroU64::new(owed.name.at);
        }
        self.replies.owe(owed);
    }

    pub(super) fn owe_to(&mut self, ask: Ask, owner: Owner, plan: Option<Rc<Plan>>) {
        let owed = self.owed(ask, plan);
        self.owe_owed(Owed { owner, ..owed });
    }

    fn owe(&mut self, ask: Ask, plan: Option<Rc<Plan>>) -> Step {
        self.pipeline_open = true;
        self.owe_to(ask, Owner::Client, plan);
        Step::Pass
    }

    fn owe_run(&mut self, ask: Ask, run: Run) {
        let Run { plan, is_text, is_unknown } = run;
        let owed = self.owed(ask, Some(plan.clone()));
        if is_text {
            self.names.run(&self.shared.name_key, &plan, owed.name.at);
        }
        self.owe_owed(Owed { is_text, is_unknown, drops_unnamed: ask == Ask::Query, ..owed });
    }

    /// COPY data belongs to a COPY that the upstream has confirmed. Stray data of a failed COPY the server would ignore; while
    /// an answer is due that may yet open one, it waits.
    fn copy_data(&mut self) -> Step {
        match (self.copy_in, self.replies.may_open_copy()) {
            (CopyIn::Open, _) => Step::Pass,
            (CopyIn::No, false) => Step::Drop,
            (CopyIn::No, true) => Step::Wait,
        }
    }

    fn copy_end(&mut self) -> Step {
        let step = self.copy_data();
        if step == Step::Pass {
            self.copy_in = CopyIn::No;
        }
        step
    }

    /// Of a refused statement no byte goes upstream. If nothing of this transaction has gone there, the refusal is ours alone.
    /// Else a statement that must fail takes its place, so that the server aborts the transaction and skips just as for an
    /// error of its own; its error is replaced by the refusal on the way back.
    pub(super) fn refuse(&mut self, plan: Rc<Plan>, asking: Asking, scratch: &mut Scratch) -> Step {
        let simple = matches!(asking.ask, Ask::Query | Ask::FunctionCall);
        if self.is_idle() {
            scratch.back.extend_from_slice(plan.refusal.as_deref().unwrap_or_default());
            if asking.drops_unnamed {
                self.names.statements.drop_name(NameId::UNNAMED);
            }
            match simple {
                true => responder::ready_for_query(&mut scratch.back, self.status),
                false => self.skip = Skip::ToOwnSync,
            }
            return Step::Drop;
        }
        responder::execute_refused(&mut scratch.before);
        if asking.drops_unnamed {
            self.names.refusing += 1;
        }
        let owed = self.owed(Ask::Execute, Some(plan));
        self.owe_owed(Owed { owner: Owner::Refused, drops_unnamed: asking.drops_unnamed, ..owed });
        self.pipeline_open = true;
        if simple {
            responder::sync(&mut scratch.before);
            self.owe_to(Ask::Sync, Owner::Client, None);
            self.end_pipeline();
        } else {
            self.skip = Skip::ToUpstreamSync;
        }
        Step::Drop
    }
}
