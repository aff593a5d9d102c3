//! Messages of the client: the closed table, the state machine of the extended protocol, and refusals in their right place.
//! Source: <https://www.postgresql.org/docs/18/protocol-flow.html>.

use std::borrow::Cow;
use std::rc::Rc;

use policy_compiler::statement::postgres::foreign;

use super::dissector::{CopyIn, Dissector, NameUse, Skip};
use super::function_call;
use super::responder;
use super::wire::{HEAD_BYTES, cstr_at, frontend, u16_at, u32_at};
use crate::datapath::replies::{Ask, Owed, Owner};
use crate::datapath::verdict::{Judge, Judged, Plan, Verdict};
use crate::fault::{Fault, Side};
use crate::protocol::{Large, Scratch, Step};

const TOO_MUCH: Step = Step::End(Fault::Limit(
    "the session's prepared statements and portals hold more than limits.prepared_bytes_max; close some (DEALLOCATE), or ask \
     the operator to raise it",
));
const MALFORMED: Step = Step::End(Fault::Protocol(Side::Client, "a message of the client is malformed"));
/// A server that waits for COPY data throws any other message away and fails the COPY: to that message no answer ever comes,
/// and all that come would be matched with the plans of others.
pub(super) const COPY_DISTURBED: Step =
    Step::End(Fault::Protocol(Side::Client, "a message came that is no COPY data, while the server waits for some"));
const UNKNOWN: &str = "a message of an unknown kind came from the client";

fn is_of_copy(tag: u8) -> bool {
    use frontend::{COPY_DATA, COPY_DONE, COPY_FAIL, FLUSH, SYNC, TERMINATE};
    matches!(tag, COPY_DATA | COPY_DONE | COPY_FAIL | FLUSH | SYNC | TERMINATE)
}

impl Dissector {
    pub(super) fn on_request(&mut self, frame: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let body = &frame[HEAD_BYTES..];
        if self.skip != Skip::No {
            return self.skipping(frame[0], scratch);
        }
        if self.copy_in == CopyIn::Open && !is_of_copy(frame[0]) {
            return COPY_DISTURBED;
        }
        if self.replies.is_full() && !matches!(frame[0], frontend::COPY_DATA | frontend::TERMINATE) {
            return Step::Wait;
        }
        match frame[0] {
            frontend::QUERY => self.query(body, judge, scratch),
            frontend::PARSE => self.parse(body, judge, scratch),
            frontend::BIND => self.bind(body, judge, scratch),
            frontend::DESCRIBE => self.describe(body),
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
            frontend::QUERY | frontend::PARSE => {
                limited(self.shared.limits.statement_bytes_max, "the statement is longer than statement_bytes_max")
            }
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
        let plan = match self.judged(text, Ask::Query, judge, scratch) {
            Ok(plan) => plan,
            Err(step) => return step,
        };
        // A simple query drops the unnamed statement and portal.
        let unnamed = self.id(b"");
        self.statements.remove(unnamed);
        self.portals.remove(unnamed);
        self.forget_names(&plan);
        self.owe_to(Ask::Query, Owner::Client, Some(plan));
        self.end_pipeline();
        Step::Pass
    }

    /// The fast-path interface, which libpq and pgjdbc use for large objects: judged as the call in SQL, answered as a query.
    fn function_call(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some(oid) = u32_at(body, 0) else { return MALFORMED };
        let plan = match function_call::as_statement(oid) {
            Some(text) => self.judged(text.as_bytes(), Ask::FunctionCall, judge, scratch),
            None => {
                let plan = Rc::new(function_call::refused(judge.view()));
                scratch.verdicts.push(plan.clone());
                Err(self.refuse(plan, Ask::FunctionCall, scratch))
            }
        };
        match plan {
            Ok(plan) => self.owe_to(Ask::FunctionCall, Owner::Client, Some(plan)),
            Err(step) => return step,
        }
        self.end_pipeline();
        Step::Pass
    }

    /// A simple query and a function call end an extended-protocol pipeline, as Sync does.
    fn end_pipeline(&mut self) {
        self.pipeline_open = false;
        self.pipeline = self.pipeline.wrapping_add(1);
    }

    /// The plan of a text that may go upstream, with its verdict noted; else what becomes of its frame.
    fn judged(
        &mut self,
        text: &[u8],
        ask: Ask,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Rc<Plan>, Step> {
        let text = if self.is_utf8 { Cow::Borrowed(text) } else { foreign::letters(text) };
        let Judged::Plan(plan) = judge.judge(&text) else { return Err(Step::Wait) };
        scratch.verdicts.push(plan.clone());
        self.described = None;
        match plan.verdict {
            Verdict::Deny => Err(self.refuse(plan, ask, scratch)),
            _ => {
                self.is_stained |= plan.leaves_traces;
                self.is_utf8 &= !plan.leaves_utf8;
                Ok(plan)
            }
        }
    }

    /// SQL can change what a name stands for behind the protocol's back.
    fn forget_names(&mut self, plan: &Plan) {
        if plan.touches_names {
            self.statements.clear();
            self.portals.clear();
        }
    }

    fn parse(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some((name, at)) = cstr_at(body, 0) else { return MALFORMED };
        let Some((text, at)) = cstr_at(body, at) else { return MALFORMED };
        let types = u16_at(body, at).map(|n| at + 2 + 4 * usize::from(n));
        if types != Some(body.len()) {
            return MALFORMED;
        }
        let plan = match self.judged(text, Ask::Parse, judge, scratch) {
            Ok(plan) => plan,
            Err(step) => return step,
        };
        if self.statements.len() >= self.shared.limits.prepared_statements_max {
            return Step::End(Fault::Limit("the session has more prepared statements than prepared_statements_max"));
        }
        if self.holds_too_much(&plan) {
            return TOO_MUCH;
        }
        let id = self.id(name);
        let name = self.statements.set(id, plan, self.pipeline);
        self.pipeline_open = true;
        self.owe_name(Ask::Parse, name);
        Step::Pass
    }

    /// What names keep is bounded in bytes too: each may stand for a text of some kilobytes.
    fn holds_too_much(&self, more: &Plan) -> bool {
        let held_bytes = self.statements.bytes() + self.portals.bytes();
        held_bytes + more.bytes() as usize > self.shared.limits.prepared_bytes_max
    }

    /// A plan that was made under another policy or catalogue is made again before anything runs by it.
    fn judged_again(
        &mut self,
        plan: Rc<Plan>,
        ask: Ask,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Rc<Plan>, Step> {
        match &plan.text {
            _ if plan.view == judge.view() => Ok(plan),
            Some(text) => self.judged(text, ask, judge, scratch),
            None => Err(self.refuse(Rc::new(responder::outdated(judge.view())), ask, scratch)),
        }
    }

    /// The server may hold something under a name that we have forgotten, and that another policy has let through.
    fn may_be_outdated(&self, plan: Option<&Rc<Plan>>) -> bool {
        plan.is_none() && self.renewed
    }

    fn bind(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some((portal, at)) = cstr_at(body, 0) else { return MALFORMED };
        let Some((statement, _)) = cstr_at(body, at) else { return MALFORMED };
        if portal == responder::REFUSED_PORTAL {
            return Step::End(Fault::Protocol(Side::Client, "this portal name is reserved"));
        }
        self.described = None;
        let (portal, statement) = (self.id(portal), self.id(statement));
        let plan = self.statements.get(statement, self.pipeline);
        if self.may_be_outdated(plan.as_ref()) {
            return self.refuse(Rc::new(responder::outdated(judge.view())), Ask::Bind, scratch);
        }
        let plan = match plan.map(|plan| self.judged_again(plan, Ask::Bind, judge, scratch)).transpose() {
            Ok(plan) => plan,
            Err(step) => return step,
        };
        self.pipeline_open = true;
        match plan {
            Some(plan) if self.holds_too_much(&plan) => return TOO_MUCH,
            Some(plan) => {
                self.statements.renew(statement, plan.clone());
                let name = self.portals.set(portal, plan, self.pipeline);
                self.owe_name(Ask::Bind, name);
            }
            // The server will say that there is no such statement, or it holds one that we are not sure of.
            None => {
                self.portals.remove(portal);
                self.owe_to(Ask::Bind, Owner::Client, None);
            }
        }
        if self.portals.len() > self.shared.limits.prepared_statements_max {
            return Step::End(Fault::Limit("the session has more portals than prepared_statements_max"));
        }
        Step::Pass
    }

    fn describe(&mut self, body: &[u8]) -> Step {
        let Some((name, end)) = cstr_at(body, 1) else { return MALFORMED };
        match body[0] {
            _ if end != body.len() => MALFORMED,
            b'S' => {
                self.described = None;
                let id = self.id(name);
                let plan = self.statements.get(id, self.pipeline);
                self.owe(Ask::DescribeStatement, plan)
            }
            b'P' => {
                let id = self.id(name);
                self.described = Some(id);
                let plan = self.portals.get(id, self.pipeline);
                self.owe(Ask::DescribePortal, plan)
            }
            _ => MALFORMED,
        }
    }

    /// No row passes without a RowDescription of its own execution: if the client has not asked for it, we do.
    fn execute(&mut self, body: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        let Some((name, at)) = cstr_at(body, 0) else { return MALFORMED };
        if at + 4 != body.len() {
            return MALFORMED;
        }
        let id = self.id(name);
        let plan = self.portals.get(id, self.pipeline);
        if self.may_be_outdated(plan.as_ref()) {
            return self.refuse(Rc::new(responder::outdated(judge.view())), Ask::Execute, scratch);
        }
        let described = self.described;
        let plan = match plan.map(|plan| self.judged_again(plan, Ask::Execute, judge, scratch)).transpose() {
            Ok(plan) => plan,
            Err(step) => return step,
        };
        if let Some(plan) = &plan {
            self.portals.renew(id, plan.clone());
        }
        self.described = described;
        if self.masks.active && self.described != Some(id) {
            responder::describe_portal(&mut scratch.before, name);
            self.owe_to(Ask::DescribePortal, Owner::Ours, plan);
            self.pipeline_open = true;
            self.described = Some(id);
            return Step::After;
        }
        // A second Execute of a suspended portal is an execution of its own.
        self.described = None;
        if let Some(plan) = &plan {
            self.forget_names(&plan.clone());
        }
        self.owe(Ask::Execute, plan)
    }

    fn close(&mut self, body: &[u8]) -> Step {
        let Some((name, end)) = cstr_at(body, 1) else { return MALFORMED };
        let id = self.id(name);
        match body[0] {
            _ if end != body.len() => return MALFORMED,
            b'S' => self.statements.remove(id),
            b'P' => self.portals.remove(id),
            _ => return MALFORMED,
        }
        self.described = None;
        self.owe(Ask::Close, None)
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

    fn owe_to(&mut self, ask: Ask, owner: Owner, plan: Option<Rc<Plan>>) {
        self.replies.owe(Owed { ask, owner, plan, masks: self.masks.clone(), name: None });
    }

    fn owe_name(&mut self, ask: Ask, name: NameUse) {
        let masks = self.masks.clone();
        self.replies.owe(Owed { ask, owner: Owner::Client, plan: None, masks, name: Some(name) });
    }

    fn owe(&mut self, ask: Ask, plan: Option<Rc<Plan>>) -> Step {
        self.pipeline_open = true;
        self.owe_to(ask, Owner::Client, plan);
        Step::Pass
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
    fn refuse(&mut self, plan: Rc<Plan>, ask: Ask, scratch: &mut Scratch) -> Step {
        let simple = matches!(ask, Ask::Query | Ask::FunctionCall);
        if self.is_idle() {
            scratch.back.extend_from_slice(plan.refusal.as_deref().unwrap_or_default());
            match simple {
                true => responder::ready_for_query(&mut scratch.back, self.status),
                false => self.skip = Skip::ToOwnSync,
            }
            return Step::Drop;
        }
        responder::execute_refused(&mut scratch.before);
        self.owe_to(Ask::Execute, Owner::Refused, Some(plan));
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
