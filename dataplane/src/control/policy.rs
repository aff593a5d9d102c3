//! A subject's view of one resource: what it may do and see, under one policy and one snapshot of the catalogue.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use policy_compiler::artifact::{MaskAction, Masks, Policy, RoleSet};
use policy_compiler::detect::transform::HashKey;
use policy_compiler::detect::{Kind, KindSet};
use policy_compiler::judge::{self, Action, CopyMasks, Judgement};
use policy_compiler::statement::{
    AnalyseError, Analysis, Budget, Copy, CopyDirection, CopyFormat, Dropped, Effect, Named, NewValue, Statement,
    postgres,
};

use super::catalogue::Snapshot;
use super::protected::Protected;
use crate::datapath::mask::{DetectView, MaskView};
use crate::datapath::verdict::{CopyPlan, Plan, TEXT_KEPT_BYTES_MAX, Touch, Verdict};
use crate::protocol::postgres::responder::{GUARD, REFUSED_PORTAL, Report};

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
    touches: Vec<Touch>,
    is_unknown: bool,
    transacts: bool,
    defers: bool,
    ends_others: bool,
    leaves_traces: bool,
    leaves_utf8: bool,
    /// No literal of the text matters to the verdict or the masks.
    pub literals_are_plain: bool,
    copy: Option<CopyShape>,
    /// Where in the text the server's grammar stumbles, in characters from 1.
    position: Option<usize>,
}

/// How the rows of a COPY are split into fields.
#[derive(PartialEq)]
struct CopyShape {
    binary: bool,
    csv: bool,
    delimiter: u8,
    quote: u8,
    escape: u8,
    null: Box<[u8]>,
    header: bool,
}

impl CopyShape {
    fn of(copy: &Copy) -> Self {
        let (binary, csv) = (copy.format == CopyFormat::Binary, copy.format == CopyFormat::Csv);
        let null = copy.null.as_bytes().into();
        Self {
            binary,
            csv,
            delimiter: copy.delimiter,
            quote: copy.quote,
            escape: copy.escape,
            null,
            header: copy.header,
        }
    }

    fn plan(self, masks: Option<CopyMasks>, types: Vec<u32>) -> CopyPlan {
        let Self { binary, csv, delimiter, quote, escape, null, header } = self;
        CopyPlan { masks, types: types.into(), binary, csv, delimiter, quote, escape, null, header }
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
        self.judge(self.analyse(text, Budget::ANALYSER))
    }

    /// As [`Subject::decide`], for a thread that others wait for. `None`: the text may take longer than they can.
    pub fn decide_soon(&self, text: &[u8]) -> Option<Decision> {
        match self.analyse(text, Budget::INLINE) {
            Err(AnalyseError::Budget { .. }) => None,
            analysis => Some(self.judge(analysis)),
        }
    }

    /// A text that a bug of ours cannot analyse is refused: it must take nobody's thread with it.
    fn analyse(&self, text: &[u8], budget: Budget) -> Result<Analysis, AnalyseError> {
        let analyse = || postgres::analyse_bytes(text, self.snapshot.server(), budget);
        catch_unwind(AssertUnwindSafe(analyse)).unwrap_or_else(|_| {
            let message = "the statement's analysis has failed; write it another way, and tell the operator".to_owned();
            Err(AnalyseError::Syntax { message, position: None })
        })
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
            judgement.reason = "the gateway needs this name for itself".into();
            judgement.sqlstate = "42501";
        }
        Decision {
            touches: touches(statements),
            is_unknown: statements.iter().any(is_unknown),
            transacts: statements.iter().any(|s| s.effects.has(Effect::Transaction)),
            defers: statements.iter().any(|s| defers(s, judgement.mask_unsourced)),
            ends_others: statements.iter().any(ends_others),
            leaves_traces: statements.iter().any(leaves_traces),
            leaves_utf8: statements.iter().any(leaves_utf8),
            literals_are_plain: !statements.is_empty()
                && statements.iter().all(|s| s.literals_are_plain && s.copy.is_none()),
            judgement,
            // One plan serves the text, and several copies may differ in their fields: then rows are starred whole.
            copy: shared_shape(&copies),
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
        let (masks, types) = (judgement.copy_masks, judgement.copy_types);
        Plan {
            verdict,
            rule: judgement.rule.into(),
            refusal,
            mask_unsourced: judgement.mask_unsourced,
            harmless: judgement.unsourced_harmless.into(),
            touches: self.touches.into(),
            is_unknown: self.is_unknown,
            transacts: self.transacts,
            defers: self.defers,
            ends_others: self.ends_others,
            leaves_traces: self.leaves_traces,
            leaves_utf8: self.leaves_utf8,
            view,
            text: (text.len() <= TEXT_KEPT_BYTES_MAX).then(|| text.into()),
            copy: self.copy.map(|shape| shape.plan(masks, types)),
        }
    }
}

/// The layout of all copies of a text, if they have one.
fn shared_shape(copies: &[&Copy]) -> Option<CopyShape> {
    let mut shapes = copies.iter().map(|copy| CopyShape::of(copy));
    let first = shapes.next()?;
    shapes.all(|shape| shape == first).then_some(first)
}

/// A cursor that would make a refused statement run it instead of failing, or a name of our own questions.
fn takes_reserved_name(statement: &Statement) -> bool {
    match &statement.defines {
        Some(Named::Cursor(name)) => [REFUSED_PORTAL, GUARD].contains(&name.as_bytes()),
        Some(Named::Prepared(name)) => name.as_bytes() == GUARD,
        None => false,
    }
}

/// What each statement does to names; nothing at all if none does anything.
fn touches(statements: &[Statement]) -> Vec<Touch> {
    let touches: Vec<Touch> = statements.iter().map(touch).collect();
    if touches.iter().all(|touch| *touch == Touch::Nothing) { Vec::new() } else { touches }
}

fn touch(statement: &Statement) -> Touch {
    let boxed = |name: &Option<String>| name.as_deref().map(Box::from);
    match (&statement.defines, &statement.uses, &statement.drops) {
        (Some(Named::Prepared(name)), ..) => Touch::Prepares(name.as_str().into()),
        (Some(Named::Cursor(name)), ..) => Touch::Declares { name: name.as_str().into(), holds: statement.holds },
        (_, Some(Named::Prepared(name)), _) => {
            Touch::Executes { name: name.as_str().into(), shows: statement.tag == "EXECUTE" }
        }
        (_, Some(Named::Cursor(name)), _) => {
            Touch::Fetches { name: name.as_str().into(), shows: statement.tag == "FETCH" }
        }
        (.., Some(Dropped::Prepared(name))) => Touch::Deallocates(boxed(name)),
        (.., Some(Dropped::Cursor(name))) => Touch::Closes(boxed(name)),
        (.., Some(Dropped::Everything)) => Touch::DiscardsAll,
        _ => Touch::Nothing,
    }
}

fn is_unknown(statement: &Statement) -> bool {
    [Effect::Call, Effect::Dynamic, Effect::Opaque].iter().any(|effect| statement.effects.has(*effect))
}

/// Holdable cursors are read when their transaction ends; constraints and triggers of what was written may run then.
fn defers(statement: &Statement, mask_unsourced: bool) -> bool {
    use Effect::{Call, Ddl, Delete, Dynamic, Insert, Opaque, Truncate, Update};
    let writes = [Insert, Update, Delete, Truncate, Ddl, Call, Dynamic, Opaque];
    statement.holds && mask_unsourced || writes.iter().any(|effect| statement.effects.has(*effect))
}

fn ends_others(statement: &Statement) -> bool {
    ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION", "SET CONSTRAINTS"].contains(&statement.tag.as_str())
}

/// What it calls or runs is unknown, or reaches the server itself: a connection to elsewhere (dblink), a library (LOAD), a
/// replication slot can stay in the upstream's session.
fn leaves_traces(statement: &Statement) -> bool {
    let deep = [Effect::Call, Effect::Dynamic, Effect::File, Effect::Admin, Effect::Opaque];
    deep.iter().any(|e| statement.effects.has(*e))
}

/// It sets another encoding for what comes behind it.
fn leaves_utf8(statement: &Statement) -> bool {
    let mut encodings =
        statement.settings.iter().filter(|setting| setting.name.eq_ignore_ascii_case("client_encoding"));
    encodings.any(|setting| match &setting.value {
        NewValue::Default => false,
        NewValue::Is(value) => !judge::is_utf8(value),
        NewValue::Any => true,
    })
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
        routine: None,
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
    use crate::datapath::mask::{Copied, CopyOut};

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
        let plan = subject.decide(text.as_bytes()).into_plan(&subject.policy, 0, text.as_bytes());
        let (mut row, mut aside) = (row.as_bytes().to_vec(), Vec::new());
        let view = subject.mask_view(HashKey::new([1; 32]));
        let seen = match CopyOut::new(Some(Rc::new(plan)), fields, false).mask(&view, &mut row, &mut aside) {
            Copied::Here(bytes) => row[..bytes].to_vec(),
            Copied::Aside => aside,
            Copied::Malformed => panic!("{text} is malformed"),
        };
        String::from_utf8(seen).expect("masks keep UTF-8")
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
                "\\N\n",
            ),
            ("copy (select p.computed from people p) to stdout", "Ada\n", "\\N\n"),
            ("copy people to stdout (header)", "id\tname\n", "id\tname\n"),
            ("copy people (name) to stdout (null '', delimiter '|')", "\n", "\n"),
            ("copy people to stdout; copy people to stdout", "7\tAda\n", "7\t\\N\n"),
            ("copy items to stdout", "7\tAda\n", "7\tAda\n"),
            ("copy people to stdout (format csv); copy people to stdout", "7\tAda\n", "*\t***\n"),
            ("copy items to stdout (delimiter '|'); copy people to stdout", "7\tAda\n", "*\t***\n"),
            ("copy items to stdout; copy items to stdout (format csv)", "7,Ada\n", "7,Ada\n"),
        ] {
            assert_eq!(copied(text, row), seen, "{text}");
        }
    }
}
