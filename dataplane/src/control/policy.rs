//! A subject's view of one resource: what it may do and see, under one policy and one snapshot of the catalogue.

use std::cell::Cell;
use std::collections::HashSet as StdSet;
use std::sync::Arc;

use policy_compiler::artifact::{MaskAction, Masks, Policy, RoleSet};
use policy_compiler::detect::transform::HashKey;
use policy_compiler::detect::{Kind, KindSet};
use policy_compiler::judge::{self, Action, Judgement};
use policy_compiler::statement::{AnalyseError, Analysis, CopyFormat, Effect, Statement, postgres};

use super::catalogue::{Protected, Snapshot};
use crate::datapath::mask::{DetectView, MaskView};
use crate::datapath::verdict::{CopyPlan, Plan, Verdict};
use crate::protocol::postgres::responder::Report;

/// Everything that judging needs, shareable with the analyser thread.
#[derive(Clone)]
pub struct Subject {
    pub policy: Policy,
    pub roles: RoleSet,
    pub resource: Arc<str>,
    pub snapshot: Arc<Snapshot>,
    pub protected: Arc<Protected>,
    /// Whether anything is masked for it.
    pub masked: bool,
}

/// What was decided about a text, before a shard makes it its own.
pub struct Decision {
    judgement: Judgement,
    touches_names: bool,
    /// No literal of the text matters to the verdict or the masks.
    pub literals_are_plain: bool,
    copy: Option<CopyShape>,
    /// Where in the text the server's grammar stumbles, in characters from 1.
    position: Option<usize>,
}

struct CopyShape {
    format: CopyFormat,
    delimiter: u8,
    quote: u8,
    escape: u8,
}

impl Subject {
    pub fn new(policy: Policy, roles: RoleSet, resource: Arc<str>, snapshot: Arc<Snapshot>) -> Self {
        let masks = policy.masks(roles, &resource);
        let protected = Arc::new(Protected::resolve(&snapshot, &masks));
        let masked = !masks.columns.is_empty() || !masks.detect.is_empty();
        Self { policy, roles, resource, snapshot, protected, masked }
    }

    /// What the subject does not see, by OID and column number.
    pub fn mask_view(&self, key: HashKey) -> MaskView {
        let masks = self.policy.masks(self.roles, &self.resource);
        MaskView {
            active: self.masked,
            columns: self.protected.columns.iter().map(|(k, v)| (*k, *v)).collect(),
            relations: self.snapshot.oids().collect(),
            detect: detect_view(&masks),
            key,
            stale: Cell::new(false),
        }
    }

    /// Analyses and judges a text: tens of microseconds, more for a long one.
    pub fn decide(&self, text: &[u8]) -> Decision {
        let analysis = postgres::analyse_bytes(text);
        let subject = judge::Subject { roles: self.roles, resource: &self.resource };
        let names = self.protected.catalogue(&self.snapshot);
        let mut judgement = judge::judge(&self.policy, subject, &analysis, &names);
        let position = match &analysis {
            Err(AnalyseError::Syntax { position, .. }) => *position,
            _ => None,
        };
        let analysis = analysis.unwrap_or_default();
        let copy = self.copy_shape(&analysis);
        if copy.as_ref().is_some_and(|c| c.format == CopyFormat::Binary) && judgement.action != Action::Deny {
            judgement.action = Action::Deny;
            judgement.rule = "binary-copy".into();
            judgement.reason = "a COPY in binary format cannot be masked".into();
            judgement.hint = Some("use COPY … TO STDOUT in text or csv format".into());
            judgement.sqlstate = "42501";
        }
        let statements = &analysis.statements;
        Decision {
            touches_names: statements.iter().any(touches_names),
            literals_are_plain: !statements.is_empty()
                && statements.iter().all(|s| s.literals_are_plain && s.copy.is_none()),
            judgement,
            copy,
            position,
        }
    }

    /// The COPY … TO STDOUT in a text, if masks concern it.
    fn copy_shape(&self, analysis: &Analysis) -> Option<CopyShape> {
        use policy_compiler::statement::CopyDirection::ToClient;
        let copies = analysis.statements.iter().filter_map(|s| s.copy.as_ref());
        let copy = copies.into_iter().find(|c| self.masked && c.direction == ToClient)?;
        let (delimiter, quote, escape) = (copy.delimiter, copy.quote, copy.escape);
        Some(CopyShape { format: copy.format, delimiter, quote, escape })
    }
}

impl Decision {
    pub fn into_plan(self, policy: &Policy) -> Plan {
        let judgement = self.judgement;
        let verdict = match judgement.action {
            Action::Allow => Verdict::Allow,
            Action::Mask => Verdict::Mask,
            Action::Hold | Action::Deny => Verdict::Deny,
        };
        let refusal = (verdict == Verdict::Deny).then(|| refusal(&judgement, self.position, policy).into_boxed_slice());
        let masks = judgement.copy_masks;
        Plan {
            verdict,
            rule: judgement.rule.into(),
            refusal,
            mask_unsourced: judgement.mask_unsourced,
            harmless: judgement.unsourced_harmless.into(),
            touches_names: self.touches_names,
            copy: self.copy.zip(masks).map(|(shape, masks)| CopyPlan {
                masks,
                csv: shape.format == CopyFormat::Csv,
                delimiter: shape.delimiter,
                quote: shape.quote,
                escape: shape.escape,
            }),
        }
    }
}

/// SQL that may change what the names of prepared statements and cursors stand for.
fn touches_names(statement: &Statement) -> bool {
    let unknown = [Effect::Call, Effect::Dynamic, Effect::Opaque];
    let tag = statement.tag.as_str();
    statement.defines.is_some()
        || unknown.iter().any(|e| statement.effects.has(*e))
        || ["DEALLOCATE", "DISCARD", "CLOSE"].iter().any(|t| tag.starts_with(t))
}

/// A text that the server's own grammar refuses is refused in the server's words; all else in ours, with rule and policy.
fn refusal(judgement: &Judgement, position: Option<usize>, policy: &Policy) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ours = judgement.sqlstate == "42501";
    let blocked = format!("wireward: blocked by rule {} (policy {})", judgement.rule, policy.epoch_name());
    Report {
        severity: "ERROR",
        sqlstate: judgement.sqlstate,
        message: if ours { &blocked } else { &judgement.reason },
        detail: ours.then_some(&judgement.reason),
        hint: judgement.hint.as_deref(),
        position,
    }
    .write(&mut bytes);
    bytes
}

fn detect_view(masks: &Masks) -> Option<DetectView> {
    let mut kinds = 0;
    let mut actions = [MaskAction::Redact; Kind::ALL.len()];
    let mut set: StdSet<usize> = StdSet::new();
    for rule in &masks.detect {
        kinds |= rule.kinds;
        for kind in Kind::ALL {
            let i = kind as usize;
            if rule.kinds & 1 << i == 0 {
                continue;
            }
            actions[i] = if set.insert(i) { rule.action } else { actions[i].max(rule.action) };
        }
    }
    (kinds != 0).then(|| DetectView { kinds: KindSet::from_bits(kinds), actions })
}
