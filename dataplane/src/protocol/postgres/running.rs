//! What a message of the client runs in the end, by whatever names; and the questions that the server is asked before it does.

use std::num::NonZeroU64;
use std::rc::Rc;

use super::dissector::{CopyIn, Dissector, GuardDue};
use super::names::{self, Held, Known, Made, NameId, NameUse};
use super::request::{Asking, is_executable};
use super::responder;
use super::wire::frontend;
use crate::datapath::replies::{Ask, Owed, Owner};
use crate::datapath::verdict::{Judge, Plan, Touch};
use crate::protocol::{Scratch, Step};

/// EXECUTE of what is an EXECUTE itself: the protocol lets a client prepare such.
const CHAIN_MAX: usize = 4;

/// What an execution comes down to.
pub(super) struct Run {
    /// Of the statement that runs in the end: its rows are masked by it.
    pub(super) plan: Rc<Plan>,
    pub(super) is_text: bool,
    pub(super) is_unknown: bool,
}

impl Run {
    pub(super) fn text(plan: Rc<Plan>) -> Self {
        let is_unknown = plan.is_unknown;
        Self { plan, is_text: true, is_unknown }
    }
}

/// EXECUTE of what only the protocol can prepare. (`Touch::Executes` of EXPLAIN runs nothing.)
fn runs_transaction(touch: &Touch, held: &Held) -> bool {
    matches!(touch, Touch::Executes { shows: true, .. }) && held.made() == Made::Protocol && held.plan.transacts
}

impl Dissector {
    /// A Sync comes before the answers to its pipeline; what can be run waits for those to the pipelines before it, and knows
    /// whether a transaction has failed. That has undone what was set in it, and runs nothing but its end.
    pub(super) fn must_ask(&mut self, tag: u8) -> bool {
        let has_run_here = self.wall.is_some_and(|at| self.names.is_of_this_pipeline(at));
        if tag == frontend::SYNC {
            return has_run_here && self.copy_in == CopyIn::No;
        }
        if !is_executable(tag) || (self.guard_due, tag) == (GuardDue::BehindExecute, frontend::EXECUTE) {
            return false;
        }
        if self.status == b'E' && !has_run_here {
            self.guard_due = GuardDue::No;
        }
        self.guard_due != GuardDue::No
    }

    /// Asks whether what was pinned still is: within the client's own pipeline, which goes on only if so; else in a pipeline of
    /// its own, for whose end the client's message waits.
    pub(super) fn guard(&mut self, scratch: &mut Scratch) -> Step {
        self.guard_due = GuardDue::No;
        self.described = None;
        let role = self.pinned_role.as_ref().map(|role| role.as_bytes());
        responder::guard(&mut scratch.before, responder::SETTINGS_HOLD, role);
        let name = self.names.next(NameId::UNNAMED);
        self.owe_guard(name, None);
        if !std::mem::replace(&mut self.pipeline_open, true) {
            responder::sync(&mut scratch.before);
            self.owe_to(Ask::Sync, Owner::Ours, None);
            self.wall = NonZeroU64::new(name.at);
            self.end_pipeline();
        }
        Step::After
    }

    pub(super) fn owe_guard(&mut self, name: NameUse, refusal: Option<Rc<Plan>>) {
        for ask in [Ask::ClosePortal, Ask::CloseStatement, Ask::Parse, Ask::Bind, Ask::Execute, Ask::ClosePortal] {
            let owed = self.owed(ask, refusal.clone());
            self.replies.owe(Owed { owner: Owner::Guard, name, ..owed });
        }
    }

    /// What a text or a portal runs. By EXECUTE and FETCH that is what stands under another name, in its own words: judged again
    /// if it is of another policy, and masked by its own plan.
    pub(super) fn running(
        &mut self,
        mut plan: Rc<Plan>,
        mut made: Made,
        ask: Ask,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Run, Step> {
        for _ in 0..CHAIN_MAX {
            let [touch @ (Touch::Executes { shows: true, .. } | Touch::Fetches { shows: true, .. })] = &*plan.touches
            else {
                return self.running_text(plan, made, ask, judge, scratch);
            };
            if made != Made::Protocol {
                break;
            }
            let Some(held) = self.used(touch, ask, judge, scratch)? else { break };
            (made, plan) = (held.made(), held.plan);
        }
        let is_unknown = plan.is_unknown || self.has_lost(&plan);
        Ok(Run { plan, is_text: made == Made::Protocol, is_unknown })
    }

    /// As [`Self::running`], of what is no single EXECUTE or FETCH: what it runs by name has to be allowed still.
    pub(super) fn running_text(
        &mut self,
        plan: Rc<Plan>,
        made: Made,
        ask: Ask,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Run, Step> {
        if made != Made::Protocol {
            let is_unknown = plan.is_unknown;
            return Ok(Run { plan, is_text: false, is_unknown });
        }
        if let Some(full) = self.has_no_room(&plan, &plan.touches) {
            return Err(full);
        }
        let mut is_unknown = plan.is_unknown;
        for touch in &plan.touches {
            // What stands under the name may do anything to names, and it is not followed further.
            is_unknown |= match self.used(touch, ask, judge, scratch)? {
                Some(held) => held.plan.is_unknown || !held.plan.touches.is_empty() && held.made() == Made::Protocol,
                None => self.has_lost_name(touch),
            };
        }
        Ok(Run { plan, is_text: true, is_unknown })
    }

    pub(super) fn used_name(&self, touch: &Touch) -> Option<(Known, NameId)> {
        let key = &self.shared.name_key;
        match touch {
            Touch::Executes { name, .. } => {
                let id = NameId::of_sql(key, name);
                Some((self.names.statement(id), id))
            }
            Touch::Fetches { name, .. } => {
                let id = NameId::of_sql(key, name);
                Some((self.names.portal(id), id))
            }
            _ => None,
        }
    }

    pub(super) fn has_lost_name(&self, touch: &Touch) -> bool {
        matches!(self.used_name(touch), Some((Known::Lost(_), _)))
    }

    pub(super) fn has_lost(&self, plan: &Plan) -> bool {
        plan.touches.iter().any(|touch| self.has_lost_name(touch))
    }

    /// What stands under the name that a statement uses, if it is known. If nothing does, the server will say so; what is lost is
    /// refused where it could show what it should not.
    pub(super) fn used(
        &mut self,
        touch: &Touch,
        ask: Ask,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Option<Held>, Step> {
        let is_statement = matches!(touch, Touch::Executes { .. });
        match self.used_name(touch) {
            Some((Known::Held(held), _)) if runs_transaction(touch, &held) => {
                Err(self.refuse(Rc::new(responder::transaction_by_execute(judge.view())), Asking::of(ask), scratch))
            }
            Some((Known::Held(mut held), id)) => {
                held.plan = self.judged_again(held.plan, ask, judge, scratch)?;
                let table = if is_statement { &mut self.names.statements } else { &mut self.names.portals };
                table.renew(id, &held.plan);
                Ok(Some(held))
            }
            Some((Known::Soon, _)) => Err(Step::Wait),
            // A cursor that a function has opened shows its columns by their origin, and nothing else.
            Some((Known::Lost(_), _)) if self.masks.active && !is_statement && !self.renewed => Ok(None),
            Some((Known::Lost(held), _)) if self.may_run_lost(held.as_ref(), ask, judge, scratch)? => Ok(None),
            Some((Known::Lost(held), _)) => {
                let (Touch::Executes { name, .. } | Touch::Fetches { name, .. }) = touch else { return Ok(None) };
                let refusal = match held {
                    Some(_) if is_statement => responder::lost_statement(judge.view()),
                    None if is_statement => responder::no_statement(name.as_bytes(), judge.view()),
                    _ => responder::lost_portal(judge.view()),
                };
                Err(self.refuse(Rc::new(refusal), Asking::of(ask), scratch))
            }
            _ => Ok(None),
        }
    }

    /// Whether what stands under a lost name may run, and nobody knows what it is: for who has nothing hidden from him, if what
    /// is remembered of it is still allowed.
    pub(super) fn may_run_lost(
        &mut self,
        held: Option<&Held>,
        ask: Ask,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<bool, Step> {
        match held {
            _ if self.masks.active => Ok(false),
            Some(held) => self.judged_again(held.plan.clone(), ask, judge, scratch).map(|_| true),
            None => Ok(!self.renewed),
        }
    }

    pub(super) fn statement_to_bind(
        &mut self,
        name: &[u8],
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Held, Step> {
        let id = self.id(name);
        let refusal = match self.names.statement(id) {
            Known::Held(mut held) => {
                held.plan = self.judged_again(held.plan, Ask::Bind, judge, scratch)?;
                self.names.statements.renew(id, &held.plan);
                return Ok(held);
            }
            Known::Soon => return Err(Step::Wait),
            // Whether the transaction has failed is known when what came before is answered.
            Known::Lost(Some(_)) if self.status == b'E' && !self.pipeline_open && !self.replies.is_empty() => {
                return Err(Step::Wait);
            }
            // A failed one takes no question, and runs nothing but its end, which SQL cannot prepare.
            Known::Lost(Some(mut held))
                if self.status == b'E' && self.replies.is_empty() && held.made() == Made::Protocol =>
            {
                held.plan = self.judged_again(held.plan, Ask::Bind, judge, scratch)?;
                return Ok(held);
            }
            Known::Lost(Some(held))
                if held.made() == Made::Protocol && std::str::from_utf8(names::cut(name)).is_ok() =>
            {
                return Err(self.find(id, held, names::cut(name), judge, scratch));
            }
            Known::Lost(held) if self.may_run_lost(held.as_ref(), Ask::Bind, judge, scratch)? => {
                return Ok(Held::unknown(responder::unknown(judge.view())));
            }
            Known::Lost(Some(_)) => responder::lost_statement(judge.view()),
            Known::Absent | Known::Lost(None) => responder::no_statement(name, judge.view()),
        };
        Err(self.refuse(Rc::new(refusal), Asking::of(Ask::Bind), scratch))
    }

    /// What SQL can do to a statement that was parsed is to put another in its place.
    pub(super) fn find(
        &mut self,
        id: NameId,
        held: Held,
        name: &[u8],
        judge: &dyn Judge,
        scratch: &mut Scratch,
    ) -> Step {
        responder::guard(&mut scratch.before, responder::STATEMENT_HOLDS, Some(name));
        let name = self.names.find(id, &held);
        self.owe_guard(name, Some(Rc::new(responder::lost_statement(judge.view()))));
        self.pipeline_open = true;
        Step::After
    }

    /// What stands under a portal's name. In a failed transaction the server alone knows which it has marked as failed and which
    /// it has dropped; none of them shows anything.
    pub(super) fn portal(
        &mut self,
        name: &[u8],
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Option<Held>, Step> {
        let refusal = match self.names.portal(self.id(name)) {
            Known::Held(held) => return Ok(Some(held)),
            Known::Soon => return Err(Step::Wait),
            // Whether one has failed is not known while answers are due; the server alone says it in its words then.
            Known::Absent if self.status == b'E' || !self.replies.is_empty() => return Ok(None),
            Known::Lost(held) if self.may_run_lost(held.as_ref(), Ask::Execute, judge, scratch)? => {
                return Ok(Some(Held::unknown(responder::unknown(judge.view()))));
            }
            Known::Lost(_) => responder::lost_portal(judge.view()),
            Known::Absent => responder::no_portal(name, judge.view()),
        };
        Err(self.refuse(Rc::new(refusal), Asking::of(Ask::Execute), scratch))
    }

    /// By whose plan the rows of a portal are masked, `Some(None)` if it is not known; `None` if it will be soon.
    #[expect(clippy::option_option, reason = "not known yet, and never to be known, are not the same")]
    pub(super) fn shown(&self, held: Option<Held>) -> Option<Option<Rc<Plan>>> {
        let Some(held) = held else { return Some(None) };
        let (mut made, mut plan) = (held.made(), held.plan);
        for _ in 0..CHAIN_MAX {
            let [touch @ (Touch::Executes { shows: true, .. } | Touch::Fetches { shows: true, .. })] = &*plan.touches
            else {
                break;
            };
            match self.used_name(touch) {
                _ if made != Made::Protocol => break,
                Some((Known::Held(held), _)) => (made, plan) = (held.made(), held.plan),
                Some((Known::Soon, _)) => return None,
                _ => break,
            }
        }
        Some(Some(plan))
    }

    pub(super) fn running_portal(
        &mut self,
        id: NameId,
        held: Held,
        judge: &mut dyn Judge,
        scratch: &mut Scratch,
    ) -> Result<Run, Step> {
        let made = held.made();
        let plan = self.judged_again(held.plan, Ask::Execute, judge, scratch)?;
        self.names.portals.renew(id, &plan);
        self.running(plan, made, Ask::Execute, judge, scratch)
    }
}
