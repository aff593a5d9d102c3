//! The answer of `policy explain`, as a table and as JSON.

use super::upstream::Names;
use crate::artifact::{Detect, MaskAction, Masks};
use crate::detect::Kind;
use crate::explain::{Carrier, Explanation, Need, Who};
use crate::judge::{Action, CopyMasks, Judgement};
use crate::policy::{MaskedColumn, Origin};
use crate::statement::{Analysis, ColumnUse, Output, Statement, UNKNOWN_COLUMN};
use serde_json::{Value, json};
use std::fmt;

const OFFLINE: &str = "not asked: views, partitions and search_path are taken as written; --config FILE asks";
/// Views on views that are followed to a masked column.
const VIEWS_MAX: usize = 64;

pub(super) struct Report {
    policy: String,
    roles: Vec<String>,
    /// Where somebody's roles are known from, in words; nothing if roles were asked for.
    known_from: Option<String>,
    resource: String,
    judgement: Judgement,
    /// Where the deciding rule or mask stands.
    origin: Option<Origin>,
    statements: Vec<StatementReport>,
    detect: Vec<String>,
    asked: bool,
}

/// What the subject does not see, and the catalogue if it was asked.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub masks: &'a Masks,
    pub names: Option<&'a dyn Names>,
}

struct StatementReport {
    tag: String,
    needs: Vec<Need>,
    columns: Vec<ColumnReport>,
}

struct ColumnReport {
    name: String,
    mask: String,
}

impl Report {
    pub fn new(
        policy: &str,
        (who, known_from): (Who<'_>, Option<String>),
        analysis: &Analysis,
        judgement: Judgement,
        explanation: &Explanation,
        seen: Seen<'_>,
    ) -> Self {
        let statements = analysis.statements.iter().enumerate().map(|(number, statement)| StatementReport {
            tag: statement.tag.clone(),
            needs: explanation.needs.iter().filter(|need| need.statement == number).cloned().collect(),
            columns: statement.output.iter().flat_map(|output| seen.columns(output, statement, &judgement)).collect(),
        });
        Self {
            policy: policy.to_owned(),
            roles: who.roles.iter().map(|role| (*role).to_owned()).collect(),
            known_from,
            resource: who.resource.to_owned(),
            statements: statements.collect(),
            origin: explanation.origin.clone().filter(|_| explanation.rule == judgement.rule),
            judgement,
            detect: seen.masks.detect.iter().map(detected).collect(),
            asked: seen.names.is_some(),
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "verdict": verdict(self.judgement.action),
            "rule": self.judgement.rule,
            "at": self.origin.as_ref().map(place),
            "why": self.why(),
            "hint": self.judgement.hint,
            "sqlstate": self.sqlstate(),
            "policy": self.policy,
            "roles": self.roles,
            "roles_from": self.known_from,
            "resource": self.resource,
            "catalogue": if self.asked { "asked" } else { "not asked" },
            "statement": self.judgement.statement + 1,
            "statements": self.statements.iter().map(StatementReport::to_json).collect::<Vec<_>>(),
            "mask_unsourced": self.judgement.mask_unsourced,
            "detect": self.detect,
            "copy": self.judgement.copy_masks.as_ref().map(copied),
        })
    }

    fn why(&self) -> String {
        match self.judgement.action {
            Action::Allow => "every effect is granted and no rule blocks it".to_owned(),
            Action::Mask => "every effect is granted, no rule blocks it, and a mask may apply".to_owned(),
            Action::Hold | Action::Deny => self.judgement.reason.clone(),
        }
    }

    fn sqlstate(&self) -> Option<&'static str> {
        (self.judgement.action == Action::Deny).then_some(self.judgement.sqlstate)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.origin.as_ref().map(|origin| format!(" ({})", place(origin))).unwrap_or_default();
        row(f, "verdict", &format!("{} by {}{at}", verdict(self.judgement.action), self.judgement.rule))?;
        row(f, "why", &self.why())?;
        if let Some(sqlstate) = self.sqlstate() {
            row(f, "sqlstate", sqlstate)?;
        }
        if let Some(hint) = &self.judgement.hint {
            row(f, "hint", hint)?;
        }
        row(f, "policy", &self.policy)?;
        let from = self.known_from.as_ref().map(|from| format!(" ({from})")).unwrap_or_default();
        row(f, "roles", &format!("{}{from}", self.roles.join(", ")))?;
        row(f, "resource", &self.resource)?;
        row(f, "catalogue", if self.asked { "asked" } else { OFFLINE })?;
        for (number, statement) in self.statements.iter().enumerate() {
            statement.show(f, number + 1)?;
        }
        self.show_masks(f)
    }
}

impl Report {
    fn show_masks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.judgement.action != Action::Mask {
            return Ok(());
        }
        for detect in &self.detect {
            row(f, "detect", detect)?;
        }
        match &self.judgement.copy_masks {
            Some(copy) => row(f, "copy", &copied(copy)),
            None => Ok(()),
        }
    }
}

impl StatementReport {
    fn to_json(&self) -> Value {
        let needs = self.needs.iter().map(|need| {
            json!({ "effect": need.effect.name(), "relation": need.relation, "granted": granted(&need.carried_by) })
        });
        let columns = self.columns.iter().map(|column| json!({ "column": column.name, "mask": column.mask }));
        json!({ "tag": self.tag, "effects": needs.collect::<Vec<_>>(), "columns": columns.collect::<Vec<_>>() })
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, number: usize) -> fmt::Result {
        row(f, &format!("{number}"), &self.tag)?;
        for need in &self.needs {
            let relation = need.relation.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
            let what = format!("{}{relation}", need.effect.name());
            row(f, "", &format!("{what:<28} {}", granted(&need.carried_by)))?;
        }
        for (place, column) in self.columns.iter().enumerate() {
            row(f, "", &format!("{:<28} {}", format!("column {}: {}", place + 1, column.name), column.mask))?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "{name:<10} {text}")
}

fn verdict(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Mask => "mask",
        Action::Hold => "hold",
        Action::Deny => "deny",
    }
}

fn place(origin: &Origin) -> String {
    format!("{}:{}", origin.file, origin.line)
}

fn granted(carrier: &Carrier) -> String {
    match carrier {
        Carrier::Grant(origin) => format!("granted at {}", place(origin)),
        Carrier::AnyGrant => "comes with any grant".to_owned(),
        Carrier::Nothing => "not granted".to_owned(),
    }
}

fn copied(copy: &CopyMasks) -> String {
    match copy {
        CopyMasks::All(action) => format!("every field: {}", action.name()),
        CopyMasks::Columns(fields) => {
            let names = fields.iter().map(|mask| mask.map_or("as it is", |action| action.name()));
            names.collect::<Vec<_>>().join(", ")
        }
    }
}

fn detected(detect: &Detect) -> String {
    let kinds = Kind::ALL.iter().filter(|kind| detect.kinds >> **kind as u16 & 1 != 0).map(|kind| kind.name());
    format!("{} by {}: {}", detect.action.name(), detect.rule, kinds.collect::<Vec<_>>().join(", "))
}

impl Seen<'_> {
    /// The columns of a result that an entry of the analysis stands for.
    fn columns(&self, output: &Output, statement: &Statement, judgement: &Judgement) -> Vec<ColumnReport> {
        let (name, mask) = match output {
            Output::Rows => ("a number of rows".to_owned(), None),
            Output::Computed(flows) if flows.is_empty() => ("shows no value".to_owned(), None),
            Output::Computed(flows) => (computed(flows, statement), None),
            Output::Unknown if judgement.mask_unsourced => {
                ("an expression".to_owned(), Some("masked whole unless the server tells its column".to_owned()))
            }
            Output::Unknown => ("an expression".to_owned(), None),
            Output::All { schema, relation } => return self.all(schema.as_deref(), relation),
            Output::Column { relation: Some(relation), name } => {
                let schema = statement.relations.iter().find(|r| r.name == *relation).and_then(|r| r.schema.as_deref());
                (format!("{relation}.{name}"), self.mask(schema, relation, name))
            }
            Output::Column { relation: None, name } => {
                let relations = statement.relations.iter();
                let has = |schema: Option<&str>, relation: &str| {
                    let columns = self.names.and_then(|names| names.columns(schema, relation));
                    columns.is_none_or(|columns| columns.contains(name))
                };
                let mut found = relations
                    .filter(|r| has(r.schema.as_deref(), &r.name))
                    .filter_map(|r| self.mask(r.schema.as_deref(), &r.name, name));
                (name.clone(), found.next())
            }
        };
        vec![ColumnReport::new(name, mask)]
    }

    /// A star is as many columns as the catalogue says; without it, one line that lists the masks.
    fn all(&self, schema: Option<&str>, relation: &str) -> Vec<ColumnReport> {
        let known = self.names.and_then(|names| names.columns(schema, relation));
        let Some(columns) = known else {
            return vec![ColumnReport::new(format!("{relation}.*"), masked_columns(self.masks, schema, relation))];
        };
        let report = |name: &String| ColumnReport::new(format!("{relation}.{name}"), self.mask(schema, relation, name));
        columns.iter().map(report).collect()
    }

    fn mask(&self, schema: Option<&str>, relation: &str, column: &str) -> Option<String> {
        let Some(names) = self.names else { return masked_column(self.masks, schema, relation, column) };
        let action = names.mask_of(schema, relation, column)?;
        Some(self.reason(names, action, MaskedColumn::of(schema, relation, column)))
    }

    /// Follows views and partitions to the column that the policy names.
    fn reason(&self, names: &dyn Names, action: MaskAction, from: MaskedColumn) -> String {
        let mut at = from.clone();
        for _ in 0..VIEWS_MAX {
            if let Some(mask) = self.masks.column(at.schema.as_deref(), &at.relation, &at.column) {
                let by = format!("{} by {}", action.name(), mask.rule);
                return if at == from { by } else { format!("{by}, shows {}.{}", at.relation, at.column) };
            }
            match names.shows(at.schema.as_deref(), &at.relation, &at.column) {
                Some(shown) => at = shown,
                None => break,
            }
        }
        format!("{}: it may show a masked value", action.name())
    }
}

/// An expression, by what flows into it.
fn computed(flows: &[u32], statement: &Statement) -> String {
    let columns = flows.iter().filter_map(|column| statement.columns.get(*column as usize));
    let name = |used: &ColumnUse| match (&used.relation, used.name.as_str()) {
        (_, UNKNOWN_COLUMN) => "what is not known".to_owned(),
        (Some(relation), name) => format!("{relation}.{name}"),
        (None, name) => name.to_owned(),
    };
    format!("computed from {}", columns.map(name).collect::<Vec<_>>().join(", "))
}

impl ColumnReport {
    fn new(name: String, mask: Option<String>) -> Self {
        Self { name, mask: mask.unwrap_or_else(|| "as it is".to_owned()) }
    }
}

fn masked_column(masks: &Masks, schema: Option<&str>, relation: &str, column: &str) -> Option<String> {
    masks.column(schema, relation, column).map(|mask| format!("{} by {}", mask.action.name(), mask.rule))
}

fn masked_columns(masks: &Masks, schema: Option<&str>, relation: &str) -> Option<String> {
    let mut names: Vec<&str> =
        masks.columns.iter().filter(|m| m.relation == relation).map(|m| m.column.as_str()).collect();
    names.dedup();
    let listed: Vec<String> = names
        .into_iter()
        .filter_map(|name| masked_column(masks, schema, relation, name).map(|mask| format!("{name}: {mask}")))
        .collect();
    (!listed.is_empty()).then(|| listed.join(", "))
}
