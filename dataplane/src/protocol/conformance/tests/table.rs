//! Judges by words in the text: what holds for every golden exchange.

use std::rc::Rc;

use policy_compiler::artifact::MaskAction;
use policy_compiler::judge::CopyMasks;

use crate::datapath::verdict::{CopyPlan, Judge, Judged, Plan, Verdict};
use crate::protocol::postgres::responder::Report;

pub struct Table {
    /// The analysis is under way.
    pub waits: bool,
    /// Counts policies.
    pub view: u64,
}

impl Judge for Table {
    fn judge(&mut self, text: &[u8]) -> Judged {
        if self.waits {
            return Judged::Wait;
        }
        let text = String::from_utf8_lossy(text);
        let denied = text.contains("forbidden");
        let unsourced = text.contains("||") || text.contains("loread");
        let copied = text.contains("copy people");
        let listed = text.contains("copy items");
        let mut refusal = Vec::new();
        Report::error("42501", "wireward: blocked by rule no-forbidden").write(&mut refusal);
        let masks = copied.then(|| CopyMasks::Columns(vec![None, Some(MaskAction::Redact)]));
        let copy = CopyPlan { masks, types: [25, 25].into(), ..CopyPlan::text() };
        Judged::Plan(Rc::new(Plan {
            view: self.view,
            text: None,
            verdict: if denied { Verdict::Deny } else { Verdict::Allow },
            rule: if denied { "no-forbidden" } else { "grants" }.into(),
            refusal: denied.then(|| refusal.into()),
            mask_unsourced: unsourced || copied,
            harmless: Box::default(),
            touches: Box::default(),
            is_unknown: text.contains("unknown"),
            transacts: false,
            defers: false,
            ends_others: false,
            leaves_traces: false,
            leaves_utf8: false,
            copy: (copied || listed).then_some(copy),
        }))
    }

    fn view(&self) -> u64 {
        self.view
    }
}
