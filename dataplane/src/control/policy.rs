//! A subject's view of one resource: what it may do and see, under one policy and one snapshot of the catalogue.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::sync::Arc;

use policy_compiler::artifact::{MaskAction, Masks, Policy, RoleSet};
use policy_compiler::detect::transform::HashKey;
use policy_compiler::detect::{Kind, KindSet};
use policy_compiler::judge::{self, Action, Judgement};
use policy_compiler::statement::{
    AnalyseError, Analysis, Budget, Copy, CopyDirection, CopyFormat, Effect, Named, Statement, postgres,
};

use super::catalogue::{Protected, Snapshot};
use crate::datapath::mask::{DetectView, MaskView};
use crate::datapath::verdict::{CopyPlan, Plan, TEXT_KEPT_BYTES_MAX, Verdict};
use crate::protocol::postgres::responder::{REFUSED_PORTAL, Report};

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

/// What stands for a policy in every verdict record: the first 8 bytes of its digest.
pub fn epoch(policy: &Policy) -> [u8; 8] {
    let mut epoch = [0; 8];
    epoch.copy_from_slice(&policy.digest()[..8]);
    epoch
}

/// What was decided about a text, before a shard makes it its own.
pub struct Decision {
    judgement: Judgement,
    touches_names: bool,
    leaves_traces: bool,
    /// No literal of the text matters to the verdict or the masks.
    pub literals_are_plain: bool,
    copy: Option<CopyShape>,
    /// Where in the text the server's grammar stumbles, in characters from 1.
    position: Option<usize>,
}

/// How the rows of a COPY are split into fields.
struct CopyShape {
    csv: bool,
    delimiter: u8,
    quote: u8,
    escape: u8,
}

impl CopyShape {
    fn of(copy: &Copy) -> Self {
        let csv = copy.format == CopyFormat::Csv;
        Self { csv, delimiter: copy.delimiter, quote: copy.quote, escape: copy.escape }
    }
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
            relations: self.snapshot.column_maxima().collect(),
            detect: detect_view(&masks),
            key,
            stale: Cell::new(false),
        }
    }

    /// Analyses and judges a text: tens of microseconds, more for a long one.
    pub fn decide(&self, text: &[u8]) -> Decision {
        self.judge(analyse(text, Budget::ANALYSER))
    }

    /// As [`Subject::decide`], for a thread that others wait for. `None`: the text may take longer than they can.
    pub fn decide_soon(&self, text: &[u8]) -> Option<Decision> {
        match analyse(text, Budget::INLINE) {
            Err(AnalyseError::Budget { .. }) => None,
            analysis => Some(self.judge(analysis)),
        }
    }

    fn judge(&self, analysis: Result<Analysis, AnalyseError>) -> Decision {
        let subject = judge::Subject { roles: self.roles, resource: &self.resource };
        let names = self.protected.catalogue(&self.snapshot);
        let mut judgement = judge::judge(&self.policy, subject, &analysis, &names);
        let position = match &analysis {
            Err(AnalyseError::Syntax { position, .. }) => *position,
            _ => None,
        };
        let analysis = analysis.unwrap_or_default();
        let copies = self.copies_to_mask(&analysis);
        let statements = &analysis.statements;
        if judgement.action != Action::Deny && statements.iter().any(takes_reserved_name) {
            judgement.action = Action::Deny;
            judgement.rule = "reserved-name".into();
            judgement.reason = "the gateway needs this cursor name for itself".into();
            judgement.sqlstate = "42501";
        }
        Decision {
            touches_names: statements.iter().any(touches_names),
            leaves_traces: statements.iter().any(leaves_traces),
            literals_are_plain: !statements.is_empty()
                && statements.iter().all(|s| s.literals_are_plain && s.copy.is_none()),
            judgement,
            // One plan serves the text, and several copies may differ in their fields: then rows are starred whole.
            copy: if let [copy] = copies[..] { Some(CopyShape::of(copy)) } else { None },
            position,
        }
    }

    /// Each COPY … TO STDOUT in a text, if masks concern the subject.
    fn copies_to_mask<'a>(&self, analysis: &'a Analysis) -> Vec<&'a Copy> {
        let copies = analysis.statements.iter().filter_map(|s| s.copy.as_ref());
        copies.filter(|c| self.masked && c.direction == CopyDirection::ToClient).collect()
    }
}

impl Decision {
    /// `view` is the number of what it was decided by, `text` what it was decided about.
    pub fn into_plan(self, policy: &Policy, view: u64, text: &[u8]) -> Plan {
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
            leaves_traces: self.leaves_traces,
            view,
            text: (text.len() <= TEXT_KEPT_BYTES_MAX).then(|| text.into()),
            copy: self.copy.zip(masks).map(|(shape, masks)| CopyPlan {
                masks,
                csv: shape.csv,
                delimiter: shape.delimiter,
                quote: shape.quote,
                escape: shape.escape,
            }),
        }
    }
}

/// A text that a bug of ours cannot analyse is refused: it must take nobody's thread with it.
fn analyse(text: &[u8], budget: Budget) -> Result<Analysis, AnalyseError> {
    catch_unwind(|| postgres::analyse_bytes_within(text, budget)).unwrap_or_else(|_| {
        let message = "the statement's analysis has failed; write it another way, and tell the operator".to_owned();
        Err(AnalyseError::Syntax { message, position: None })
    })
}

/// A cursor that would make a refused statement run it instead of failing.
fn takes_reserved_name(statement: &Statement) -> bool {
    matches!(&statement.defines, Some(Named::Cursor(name)) if name.as_bytes() == REFUSED_PORTAL)
}

/// SQL that may change what the names of prepared statements and cursors stand for.
fn touches_names(statement: &Statement) -> bool {
    let unknown = [Effect::Call, Effect::Dynamic, Effect::Opaque];
    let tag = statement.tag.as_str();
    statement.defines.is_some()
        || unknown.iter().any(|e| statement.effects.has(*e))
        || ["DEALLOCATE", "DISCARD", "CLOSE"].iter().any(|t| tag.starts_with(t))
}

/// What it calls or runs is unknown, or reaches the server itself: a connection to elsewhere (dblink), a library (LOAD), a
/// replication slot can stay in the upstream's session.
fn leaves_traces(statement: &Statement) -> bool {
    let deep = [Effect::Call, Effect::Dynamic, Effect::File, Effect::Admin, Effect::Opaque];
    deep.iter().any(|e| statement.effects.has(*e))
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
    for rule in &masks.detect {
        for i in Kind::ALL.map(|kind| kind as usize).into_iter().filter(|i| rule.kinds & 1 << i != 0) {
            let is_first = kinds & 1 << i == 0;
            actions[i] = if is_first { rule.action } else { actions[i].max(rule.action) };
        }
        kinds |= rule.kinds;
    }
    (kinds != 0).then(|| DetectView { kinds: KindSet::from_bits(kinds), actions })
}

#[cfg(test)]
pub(super) mod tests {
    use std::rc::Rc;

    use policy_compiler::build::compile;
    use policy_compiler::policy::Source;

    use super::*;
    use crate::datapath::mask::CopyOut;

    const POLICY: &str = r#"
        [[role]]
        name = "analyst"
        [[grant]]
        to = ["analyst"]
        resources = ["shop"]
        effects = ["read"]
        [[mask]]
        name = "names"
        columns = ["people.name"]
        action = "redact"
    "#;

    /// An analyst of a shop.
    pub(in crate::control) fn subject() -> Subject {
        let source = Source { name: "policy.toml".into(), text: POLICY.into() };
        let policy = Policy::from_bytes(compile(&[source]).expect("the policy compiles")).expect("the artifact opens");
        let snapshot = Arc::new(Snapshot::of(&[(100, "people", &["id", "name"]), (200, "items", &["id", "note"])]));
        let roles = policy.role_named("analyst").expect("the role is there");
        Subject::new(policy, roles, "shop".into(), snapshot)
    }

    /// What the analyst sees of a row of the COPY in `text`.
    fn copied(text: &str, row: &str) -> String {
        let subject = subject();
        let fields = Some(row.split(['\t', ',']).count());
        let copy = CopyOut {
            plan: Some(Rc::new(subject.decide(text.as_bytes()).into_plan(&subject.policy, 0, text.as_bytes()))),
            fields,
        };
        let mut row = row.as_bytes().to_vec();
        let bytes = copy.mask(&subject.mask_view(HashKey::new([1; 32])), &mut row);
        String::from_utf8(row[..bytes].to_vec()).expect("masks keep UTF-8")
    }

    #[test]
    fn a_rename_takes_no_mask_away() {
        let source = Source { name: "policy.toml".into(), text: POLICY.into() };
        let policy = Policy::from_bytes(compile(&[source]).expect("the policy compiles")).expect("the artifact opens");
        let roles = policy.role_named("analyst").expect("the role is there");
        let mut snapshot = Snapshot::of(&[(100, "people", &["id", "name"])]);
        for renamed in [&[(100, "people", &["id", "label"][..])], &[(100, "folk", &["id", "text"][..])]] {
            let older = std::mem::replace(&mut snapshot, Snapshot::of(renamed));
            snapshot.remember(&older);
        }
        let subject = Subject::new(policy, roles, "shop".into(), Arc::new(snapshot));
        assert_eq!(subject.protected.columns.keys().collect::<Vec<_>>(), [&(100, 2)]);
        assert!(subject.protected.unresolved.is_empty());
    }

    #[test]
    fn rows_of_a_copy_never_show_a_masked_field_whatever_else_the_text_copies() {
        for (text, row, seen) in [
            ("copy people to stdout", "7\tAda\n", "7\t***\n"),
            ("copy people to stdout (format csv)", "7,Ada\n", "7,***\n"),
            ("copy people to stdout", "7\tAda\t8\n", "*\t***\t*\n"),
            (
                "copy (select (select note from (select (case when true then note else note end)::text \
                 from (select name as note from people) z) s) from items) to stdout",
                "Ada\n",
                "***\n",
            ),
            ("copy (select p.computed from people p) to stdout", "Ada\n", "***\n"),
            ("copy items to stdout", "7\tAda\n", "7\tAda\n"),
            ("copy people to stdout (format csv); copy people to stdout", "7\tAda\n", "*\t***\n"),
            ("copy items to stdout (delimiter '|'); copy people to stdout", "7\tAda\n", "*\t***\n"),
            ("copy items to stdout; copy items to stdout (format csv)", "7,Ada\n", "7,Ada\n"),
        ] {
            assert_eq!(copied(text, row), seen, "{text}");
        }
    }
}
