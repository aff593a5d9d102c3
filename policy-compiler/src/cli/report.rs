//! The answer of `policy explain`, as a table and as JSON.

use crate::artifact::{Detect, Masks};
use crate::detect::Kind;
use crate::explain::{Carrier, Explanation, Need, Who};
use crate::judge::{Action, CopyMasks, Judgement};
use crate::policy::Origin;
use crate::statement::{Analysis, Output, Statement};
use serde_json::{Value, json};
use std::fmt;

pub(super) struct Report {
    policy: String,
    roles: Vec<String>,
    resource: String,
    judgement: Judgement,
    /// Where the deciding rule or mask stands.
    origin: Option<Origin>,
    statements: Vec<StatementReport>,
    detect: Vec<String>,
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
        who: Who<'_>,
        analysis: &Analysis,
        judgement: Judgement,
        explanation: &Explanation,
        masks: &Masks,
    ) -> Self {
        let statements = analysis.statements.iter().enumerate().map(|(number, statement)| StatementReport {
            tag: statement.tag.clone(),
            needs: explanation.needs.iter().filter(|need| need.statement == number).cloned().collect(),
            columns: statement.output.iter().map(|output| column(output, statement, masks, &judgement)).collect(),
        });
        Self {
            policy: policy.to_owned(),
            roles: who.roles.iter().map(|role| (*role).to_owned()).collect(),
            resource: who.resource.to_owned(),
            statements: statements.collect(),
            origin: explanation.origin.clone().filter(|_| explanation.rule == judgement.rule),
            judgement,
            detect: masks.detect.iter().map(detected).collect(),
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
            "resource": self.resource,
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
        row(f, "roles", &self.roles.join(", "))?;
        row(f, "resource", &self.resource)?;
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

fn column(output: &Output, statement: &Statement, masks: &Masks, judgement: &Judgement) -> ColumnReport {
    let (name, mask) = match output {
        Output::Harmless => ("shows no value".to_owned(), None),
        Output::Unknown if judgement.mask_unsourced => {
            ("an expression".to_owned(), Some("masked whole unless the server tells its column".to_owned()))
        }
        Output::Unknown => ("an expression".to_owned(), None),
        Output::All { schema, relation } => {
            (format!("{relation}.*"), masked_columns(masks, schema.as_deref(), relation))
        }
        Output::Column { relation: Some(relation), name } => {
            (format!("{relation}.{name}"), masked_column(masks, None, relation, name))
        }
        Output::Column { relation: None, name } => {
            let relations = statement.relations.iter();
            let mut found = relations.filter_map(|r| masked_column(masks, r.schema.as_deref(), &r.name, name));
            (name.clone(), found.next())
        }
    };
    ColumnReport { name, mask: mask.unwrap_or_else(|| "as it is".to_owned()) }
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
