//! Policy × subject × analysis → [`Judgement`]: strictest action wins, the order of rules is irrelevant, default deny.
//!
//! A text is judged as a whole: if one of its statements is denied, none may run. The cost of a verdict follows the
//! statement, not the number of rules (`artifact/index.rs`).

mod grants;
mod masking;
mod rules;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::{hides_catalog, is_ascii_safe, is_utf8, may_take_any_value, refusal};

use crate::artifact::{MaskAction, Policy, RoleSet};
use crate::policy::catalogs::{Name, is_catalog_name};
use crate::statement::postgres::complaint;
use crate::statement::{AnalyseError, Analysis, Effect, Statement};

/// What is known of names beyond the text.
pub trait Catalogue {
    /// Whether a relation of this name, in this schema or (`None`) in any, is or depends on a masked table, or is unknown.
    fn is_protected(&self, schema: Option<&str>, name: &str) -> bool;

    /// Column names of the relation in the order of their numbers, dropped ones left out; `None` unless unambiguous.
    fn columns(&self, schema: Option<&str>, name: &str) -> Option<Vec<String>>;

    /// As [`Catalogue::columns`], for COPY of the table itself, which leaves generated columns out.
    fn copied_columns(&self, schema: Option<&str>, name: &str) -> Option<Vec<String>> {
        self.columns(schema, name)
    }

    /// Whether each relation that may be meant has the column. `c.f` is `f(c)` to the server when it has none.
    fn has_column(&self, _schema: Option<&str>, _name: &str, _column: &str) -> bool {
        true
    }

    /// What is done to the column by the masks of the subject, over all relations that may be meant: `Some(None)` is shown.
    /// `None` if the catalogue cannot say; then the policy's own names decide.
    fn column_mask(&self, _schema: Option<&str>, _name: &str, _column: &str) -> Option<Option<MaskAction>> {
        None
    }
    /// Whether a masked value decides how many rows the relation has, or which: a view that joins by one.
    fn is_shaped(&self, _schema: Option<&str>, _name: &str) -> bool {
        false
    }
    /// Whether writing to the relation sets settings: pg_settings, and views that lead to it.
    fn leads_to_settings(&self, _schema: Option<&str>, name: &str) -> bool {
        name == SETTINGS_VIEW
    }
    /// The mask of a generated column that is computed from masked ones, strictest over all relations that may be meant.
    fn generated_mask(&self, _schema: Option<&str>, _name: &str, _column: &str) -> Option<MaskAction> {
        None
    }

    /// The schemas in which somebody has put a function of this name; empty if that is not known.
    fn schemas_of_function(&self, _name: &str) -> Vec<String> {
        Vec::new()
    }

    /// The type of a column, if each relation that may be meant has it and all agree; of a domain the type beneath.
    fn type_of(&self, _schema: Option<&str>, _name: &str, _column: &str) -> Option<u32> {
        None
    }

    /// The schema in which the session's search_path finds an unqualified relation, if that is known for sure.
    ///
    /// While it is `None`, a rule for `audit.log` concerns every unqualified `log`, and a grant on `public.*` none.
    fn schema_of(&self, _name: &str) -> Option<String> {
        None
    }
}

/// The view whose rules make an UPDATE of it a SET.
pub const SETTINGS_VIEW: &str = "pg_settings";

/// Nothing is known but the text and the policy: only relations that a mask names count as protected.
pub struct NoCatalogue;

impl Catalogue for NoCatalogue {
    fn is_protected(&self, _schema: Option<&str>, _name: &str) -> bool {
        false
    }

    fn columns(&self, _schema: Option<&str>, _name: &str) -> Option<Vec<String>> {
        None
    }
}

/// Who asks, and where.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The roles of the session, of the same policy.
    pub roles: RoleSet,
    pub resource: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Allow,
    /// It may run, and something of what it returns may have to be masked.
    Mask,
    Hold,
    Deny,
}

/// The verdict on one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub action: Action,
    /// The deciding rule's name. Without a rule: `grant` for what is allowed; `default-deny`, `unparsable`,
    /// `pinned-setting`, `opaque`, `masked-source`, `masked-shape`, `copy-option` or `binary-copy` for what is denied.
    pub rule: String,
    /// In the user's words: `DELETE on customers is not granted to role analyst`.
    pub reason: String,
    pub hint: Option<String>,
    /// For denials the SQLSTATE to answer: `42501`, or what the server would say of a text that it refuses too.
    pub sqlstate: &'static str,
    /// Which statement of the text decided, from 0.
    pub statement: usize,
    /// Result columns without an origin must be masked whole: the text reads a protected relation, or calls what may.
    pub mask_unsourced: bool,
    /// For each column of the result whether it shows nothing of a masked value: none flows into it, and none picks the
    /// rows. Empty unless the text is one statement whose columns are all known.
    pub unsourced_harmless: Vec<bool>,
    /// Only if some statement copies out what may be masked for the subject.
    pub copy_masks: Option<CopyMasks>,
    /// The type OID of each field that a COPY … TO STDOUT sends, 0 where it is not known. Empty if the text does not tell
    /// how many there are, or copies twice.
    pub copy_types: Vec<u32>,
}

/// What to do with the fields of COPY … TO STDOUT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyMasks {
    /// Every field: it cannot be shown which of them are harmless.
    All(MaskAction),
    /// One entry for each field of a line, in order.
    Columns(Vec<Option<MaskAction>>),
}

/// Judges what a text would do. Whatever could not be analysed is denied.
pub fn judge(
    policy: &Policy,
    subject: Subject<'_>,
    analysis: &Result<Analysis, AnalyseError>,
    catalogue: &dyn Catalogue,
) -> Judgement {
    let case = Case { policy, subject, catalogue };
    let analysis = match analysis {
        Ok(analysis) => analysis,
        Err(error) => return Denial::unparsable(error).into_judgement(0),
    };
    if !policy.may_reach(subject.roles, subject.resource) {
        return case.unreachable().into_judgement(0);
    }
    for (number, statement) in analysis.statements.iter().enumerate() {
        if let Some(denial) = case.denial(statement) {
            return denial.into_judgement(number);
        }
    }
    case.allowance(analysis)
}

/// One judgement under way.
struct Case<'a> {
    policy: &'a Policy,
    subject: Subject<'a>,
    catalogue: &'a dyn Catalogue,
}

/// Why a statement may not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub rule: String,
    pub reason: String,
    pub hint: Option<String>,
    pub sqlstate: &'static str,
}

/// A relation with the schema in which it is found, if that is known.
pub(crate) struct Resolved<'a> {
    schema: Option<std::borrow::Cow<'a, str>>,
    name: &'a str,
}

impl Case<'_> {
    /// In the order in which a user is best told: what can never be, what somebody forbade by name, what nobody granted.
    fn denial(&self, statement: &Statement) -> Option<Denial> {
        settings::pinned(statement)
            .or_else(|| self.writes_settings(statement))
            .or_else(|| self.blocked(statement))
            .or_else(|| self.ungranted(statement))
            .or_else(|| self.lets_masked_values_act(statement))
            .or_else(|| self.copies_masked_values(statement))
            .or_else(|| self.copies_out_unmasked(statement))
    }

    fn unreachable(&self) -> Denial {
        let roles = role_phrase(&self.policy.role_names(self.subject.roles));
        Denial::new("default-deny", format!("resource {} is not granted to {roles}", self.subject.resource))
    }

    fn allowance(&self, analysis: &Analysis) -> Judgement {
        let mask = self.deciding_mask(analysis);
        Judgement {
            action: if mask.is_some() { Action::Mask } else { Action::Allow },
            rule: mask.unwrap_or("grant").to_owned(),
            reason: String::new(),
            hint: None,
            sqlstate: INSUFFICIENT_PRIVILEGE,
            statement: 0,
            mask_unsourced: analysis.statements.iter().any(|statement| self.masks_unsourced(statement)),
            unsourced_harmless: self.harmless_columns(analysis),
            copy_masks: self.copy_masks(analysis),
            copy_types: self.copy_types(analysis),
        }
    }
}

impl Denial {
    pub fn new(rule: &str, reason: String) -> Self {
        Self { rule: rule.to_owned(), reason, hint: None, sqlstate: INSUFFICIENT_PRIVILEGE }
    }

    pub fn unparsable(error: &AnalyseError) -> Self {
        let (reason, (sqlstate, hint)) = match error {
            AnalyseError::Syntax { message, .. } => (message.clone(), complaint::sqlstate_and_hint(message)),
            AnalyseError::TooLong { bytes, max } => {
                (format!("the statement has {bytes} bytes, at most {max} are judged"), ("54000", None))
            }
            AnalyseError::Budget { what, max } => (
                format!("the statement has too many {what}: at most {max} are judged; send it in parts"),
                ("54000", None),
            ),
            AnalyseError::Encoding(what) => (format!("the statement cannot be read: {what}"), ("22021", None)),
        };
        Self { rule: "unparsable".into(), reason, hint: hint.map(str::to_owned), sqlstate }
    }

    pub fn into_judgement(self, statement: usize) -> Judgement {
        Judgement {
            action: Action::Deny,
            rule: self.rule,
            reason: self.reason,
            hint: self.hint,
            sqlstate: self.sqlstate,
            statement,
            mask_unsourced: false,
            unsourced_harmless: Vec::new(),
            copy_masks: None,
            copy_types: Vec::new(),
        }
    }
}

const INSUFFICIENT_PRIVILEGE: &str = "42501";

impl<'a> Resolved<'a> {
    fn of(catalogue: &dyn Catalogue, schema: Option<&'a str>, name: &'a str) -> Self {
        let schema = match schema {
            Some(schema) => Some(schema.into()),
            // pg_catalog is searched first unless a session puts it elsewhere.
            None if is_catalog_name(name) => Some("pg_catalog".into()),
            None => catalogue.schema_of(name).map(Into::into),
        };
        Self { schema, name }
    }

    fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    fn as_name(&self) -> Name<'_> {
        Name { schema: self.schema(), name: self.name }
    }
}

/// `role analyst`, `roles a and b`, `anybody without a role`.
pub(crate) fn role_phrase(names: &[&str]) -> String {
    match names {
        [] => "anybody without a role".to_owned(),
        [name] => format!("role {name}"),
        [first @ .., last] => format!("roles {} and {last}", first.join(", ")),
    }
}

/// `DELETE on customers`, `LISTEN`; with the statement where that says more.
pub(crate) fn effect_phrase(statement: &Statement, effect: Effect, relation: Option<(Option<&str>, &str)>) -> String {
    let effect = effect.name().to_uppercase();
    let what = if statement.tag.starts_with(&effect) {
        statement.tag.clone()
    } else {
        format!("{effect} ({})", statement.tag)
    };
    match relation {
        Some((Some(schema), name)) => format!("{what} on {schema}.{name}"),
        Some((None, name)) => format!("{what} on {name}"),
        None => what,
    }
}
