//! How a shard judges: plans from its cache, short texts at once, what would hold it up by the analyser threads.
//!
//! In one turn a shard analyses as much as takes few milliseconds at the worst. The rest goes to the threads too, where
//! identities take turns: nobody's texts, however many, keep others from being looked at.

use std::rc::Rc;
use std::sync::Arc;

use policy_compiler::artifact::RoleSet;

use super::mailbox::{Mail, Postbox, Reload};
use super::{Entry, Shard};
use crate::control::analyser::{Analyser, Decided, INLINE_BYTES_MAX, Job};
use crate::control::policy::{self, Subject};
use crate::datapath::counters::Counters;
use crate::datapath::mask::MaskView;
use crate::datapath::plan_cache::PlanCache;
use crate::datapath::shape::shape;
use crate::datapath::verdict::{Judge, Judged};
use crate::fault::Fault;
use crate::io::tls::SecureIo;
use crate::log;
use crate::protocol::postgres::dissector::NameKey;
use crate::session::Input;

/// Bytes of texts that a shard analyses in a turn: one of the longest, or some of usual size.
pub(super) const TURN_BYTES_MAX: usize = INLINE_BYTES_MAX + TEXT_BYTES;
/// What a text costs beside its bytes.
const TEXT_BYTES: usize = 128;

/// What one subject may do and see of one resource, as a shard shares it among its sessions.
pub struct View {
    pub subject: Subject,
    pub masks: Rc<MaskView>,
    /// A new number with every new view: part of every plan's key, so that no plan outlives its policy or catalogue.
    pub number: u64,
}

/// Judges for one session.
pub(super) struct SessionJudge<'a> {
    pub plans: &'a mut PlanCache,
    pub counters: &'a Counters,
    pub view: Option<&'a Rc<View>>,
    pub pending: &'a mut Option<Arc<u128>>,
    pub key: NameKey,
    pub analyser: &'a Analyser,
    pub postbox: &'a Postbox,
    pub session: u64,
    pub index: u32,
    /// Whose line it stands in at the analyser.
    pub who: u64,
    /// Bytes that may yet be analysed in this turn.
    pub turn_bytes: &'a mut usize,
}

impl Judge for SessionJudge<'_> {
    fn judge(&mut self, text: &[u8]) -> Judged {
        // No text is asked about before a session is admitted.
        let Some(view) = self.view else { return Judged::Wait };
        // One at a time, and its text may be long: it is not looked at again before its answer is here.
        if self.pending.is_some() {
            return Judged::Wait;
        }
        let key = self.key.hash(&[&view.number.to_le_bytes(), text]);
        if let Some(plan) = self.plans.get(key) {
            self.counters.plan_hits.add(1);
            return Judged::Plan(plan);
        }
        if text.len() > INLINE_BYTES_MAX {
            return self.ask_analyser(view, key, text);
        }
        let shape = shape(self.key, view.number, text);
        if let Some(plan) = shape.and_then(|(shape, _)| self.plans.get(shape)) {
            self.counters.plan_hits.add(1);
            return Judged::Plan(plan);
        }
        let Some(left) = self.turn_bytes.checked_sub(text.len() + TEXT_BYTES) else {
            return self.ask_analyser(view, key, text);
        };
        *self.turn_bytes = left;
        let Some(decision) = view.subject.decide_soon(text) else { return self.ask_analyser(view, key, text) };
        self.counters.plan_misses.add(1);
        // A text without literals is the only one of its shape, and sooner found by its bytes.
        let proved = shape.filter(|(_, literals)| *literals > 0 && decision.literals_are_plain);
        let plan = Rc::new(decision.into_plan(&view.subject.policy, view.number, text));
        // The shape's plan serves this text too: texts that differ in literals alone must not push others out.
        self.plans.insert(proved.map_or(key, |(shape, _)| shape), plan.clone());
        Judged::Plan(plan)
    }

    fn view(&self) -> u64 {
        self.view.map_or(0, |view| view.number)
    }
}

impl SessionJudge<'_> {
    fn ask_analyser(&mut self, view: &View, key: u128, text: &[u8]) -> Judged {
        let (postbox, key) = (self.postbox.clone(), Arc::new(key));
        self.analyser.submit(Job {
            who: self.who,
            session: self.session,
            index: self.index,
            key: Arc::downgrade(&key),
            subject: view.subject.clone(),
            text: text.into(),
            deliver: Arc::new(move |decided| postbox.send(Mail::Decided(decided))),
        });
        self.counters.plan_misses.add(1);
        *self.pending = Some(key);
        Judged::Wait
    }
}

impl<I: SecureIo> Shard<I> {
    pub(super) fn decided(&mut self, decided: Decided) {
        let Some(entry) = self.entries.get_mut(decided.index as usize).and_then(Option::as_mut) else { return };
        if entry.session.id() != decided.session {
            return;
        }
        let Entry { pending, view, .. } = &mut **entry;
        // It may have asked for something else since, or by another view.
        let is_awaited = pending.as_deref() == Some(&decided.key);
        let (Some(view), true) = (view, is_awaited) else { return };
        *pending = None;
        let plan = Rc::new(decided.decision.into_plan(&view.subject.policy, view.number, &decided.text));
        self.plans.insert(decided.key, plan);
        self.feed(decided.index, Input::Again);
    }

    /// The view of (roles, resource), made once.
    pub(super) fn view(&mut self, subject: impl FnOnce() -> Subject, key: (RoleSet, usize)) -> Rc<View> {
        if let Some(view) = self.views.get(&key) {
            return view.clone();
        }
        let subject = subject();
        for mask in &subject.protected.unresolved {
            let message = format!("mask {mask} of resource {} resolves to no column", subject.resource);
            let values = [subject.resource.to_string().into(), mask.to_string().into()];
            log::tell(&log::MASK_WITHOUT_COLUMN, &values, message);
        }
        self.views_made += 1;
        let masks = Rc::new(subject.mask_view(self.control.hash_key()));
        let view = Rc::new(View { masks, subject, number: self.views_made });
        self.views.insert(key, view.clone());
        view
    }

    /// Another configuration is in force: its policy, credentials, certificates and limits. Sessions that it does not let in
    /// any more end.
    pub(super) fn reload(&mut self, reload: Reload) {
        self.control = reload.control;
        self.shared = super::shared(&reload.limits, &self.control, self.shared.name_key);
        self.plans = PlanCache::new(reload.limits.plans_max);
        self.limits = reload.limits;
        self.doors = reload.doors;
        self.close_spares();
        self.renew_views();
    }

    /// The policy or a catalogue has changed: every session is judged and masked anew, between two frames.
    pub(super) fn renew_views(&mut self) {
        self.views.clear();
        self.plans.clear();
        for index in 0..self.entries.len() as u32 {
            let entry = self.entries[index as usize].as_ref();
            let Some(old) = entry.and_then(|e| e.view.as_ref().map(|view| view.subject.clone())) else { continue };
            match self.control.readmit(&old.policy.role_names(old.roles), &old.resource) {
                Some(key) => self.renew_view(index, key),
                None => self.feed(index, Input::End(Fault::NoLongerAdmitted)),
            }
        }
    }

    fn renew_view(&mut self, index: u32, key: (RoleSet, usize)) {
        let control = self.control.clone();
        let view = self.view(|| control.subject(key.0, key.1), key);
        let (masks, epoch) = (view.masks.clone(), policy::epoch(&view.subject.policy));
        if let Some(entry) = self.entries[index as usize].as_mut() {
            entry.view = Some(view);
            entry.pending = None;
        }
        self.feed(index, Input::Policy { masks, epoch });
    }
}
