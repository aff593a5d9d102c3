//! A compiled policy: one file, checked when it is opened, immutable after. The format is in FORMAT.md.

pub mod format;
mod index;
mod open;
#[cfg(test)]
mod tests;
mod write;

pub use open::OpenError;
pub(crate) use write::write;

pub use crate::policy::MaskAction;
use crate::policy::Source;
use format::Tables;
pub(crate) use index::column_matches;
use index::{Index, ScopeIndex};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A compiled policy. Cloning shares it.
#[derive(Clone)]
pub struct Policy(Arc<Inner>);

struct Inner {
    tables: Tables,
    index: Index,
    sources: Vec<Source>,
    compiler: String,
    digest: [u8; 32],
    epoch_name: String,
}

/// A set of roles of one policy: at most 128. Meaningless under another policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RoleSet(u128);

/// What must be masked for a subject. Empty for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// One entry for each column as the policy names it. An entry with a schema has at least the action of an entry for
    /// the same column of any schema; [`Masks::column`] finds the one that counts.
    pub columns: Vec<ColumnMask>,
    pub detect: Vec<Detect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnMask {
    /// The name of the mask in the policy.
    pub rule: String,
    /// `None` is any schema.
    pub schema: Option<String>,
    pub relation: String,
    pub column: String,
    pub action: MaskAction,
}

/// Values that look like one of `kinds` are masked wherever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detect {
    pub rule: String,
    /// A bit for each of `detect::Kind::ALL`: payment-card, us-ssn, email, phone, iban.
    pub kinds: u16,
    pub action: MaskAction,
}

impl RoleSet {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A bit for each role, in the order of the policy's text.
    pub fn bits(self) -> u128 {
        self.0
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Policy {
    /// Reads and checks the artifact file.
    ///
    /// # Errors
    /// The file cannot be read, is no artifact, is of another version, or is damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::from_bytes(open::read(path)?)
    }

    /// # Errors
    /// As [`Policy::open`]. Any bytes whatever are safe to give.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, OpenError> {
        let opened = open::open(&bytes)?;
        let epoch_name = opened.digest[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let index = Index::of(&opened.tables);
        Ok(Self(Arc::new(Inner {
            tables: opened.tables,
            index,
            sources: opened.sources,
            compiler: opened.compiler,
            digest: opened.digest,
            epoch_name,
        })))
    }

    /// blake3 of the artifact: the policy's identity.
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest
    }

    /// The first 12 hex digits of the digest, shown as `policy 3f2a…`.
    pub fn epoch_name(&self) -> &str {
        &self.0.epoch_name
    }

    /// The text that it was compiled from.
    pub fn sources(&self) -> &[Source] {
        &self.0.sources
    }

    /// Name and version of the compiler that made it.
    pub fn compiler(&self) -> &str {
        &self.0.compiler
    }

    /// The roles that these values of the token's roles claim give.
    pub fn roles_for<'a>(&self, claims: impl Iterator<Item = &'a str>) -> RoleSet {
        RoleSet(claims.filter_map(|claim| self.0.index.claims.get(claim)).fold(0, |bits, role| bits | role))
    }

    pub fn role_named(&self, name: &str) -> Option<RoleSet> {
        self.0.tables.roles.iter().position(|role| role.name == name).map(|bit| RoleSet(1 << bit))
    }

    /// In the order of the policy's text.
    pub fn role_names(&self, roles: RoleSet) -> Vec<&str> {
        let all = self.0.tables.roles.iter().enumerate();
        all.filter(|(bit, _)| roles.0 >> bit & 1 != 0).map(|(_, role)| role.name.as_str()).collect()
    }

    /// Every role of the policy.
    pub fn all_role_names(&self) -> Vec<&str> {
        self.0.tables.roles.iter().map(|role| role.name.as_str()).collect()
    }

    /// Whether any grant concerns the resource.
    pub fn may_reach(&self, roles: RoleSet, resource: &str) -> bool {
        self.scopes(roles, resource).any(|scope| scope.grants.iter().any(|id| self.grant_applies(*id, roles, resource)))
    }

    /// The masks for these roles on this resource. Builds them: for the start of a session, not for every statement.
    pub fn masks(&self, roles: RoleSet, resource: &str) -> Masks {
        let tables = self.tables();
        let mut columns: BTreeMap<(&str, &str, Option<&str>), ColumnMask> = BTreeMap::new();
        for mask in tables.masks.iter().filter(|mask| mask.scope.applies(roles.0, resource)) {
            for column in &mask.columns {
                let entry = ColumnMask::of(mask, column);
                let key = (column.relation.as_str(), column.column.as_str(), column.schema.as_deref());
                let kept = columns.entry(key).or_insert_with(|| entry.clone());
                if entry.action > kept.action {
                    *kept = entry;
                }
            }
        }
        let detects = tables.detects.iter().filter(|detect| detect.scope.applies(roles.0, resource));
        Masks { columns: with_any_schema_applied(columns), detect: detects.map(Detect::of).collect() }
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.0.tables
    }

    /// The parts of the index that can hold anything for this subject.
    pub(crate) fn scopes(&self, roles: RoleSet, resource: &str) -> impl Iterator<Item = &ScopeIndex> {
        self.0.index.scopes(roles.0, resource)
    }

    fn grant_applies(&self, id: u32, roles: RoleSet, resource: &str) -> bool {
        self.0.tables.grants[id as usize].scope.applies(roles.0, resource)
    }
}

/// A map is sorted with the entry for any schema first: what it asks for holds for the same column of each schema.
fn with_any_schema_applied(columns: BTreeMap<(&str, &str, Option<&str>), ColumnMask>) -> Vec<ColumnMask> {
    let mut out: Vec<ColumnMask> = Vec::with_capacity(columns.len());
    let mut any: Option<ColumnMask> = None;
    for mut entry in columns.into_values() {
        if entry.schema.is_none() {
            any = Some(entry.clone());
        } else if let Some(any) = &any
            && (&any.relation, &any.column) == (&entry.relation, &entry.column)
            && any.action > entry.action
        {
            entry.action = any.action;
            entry.rule.clone_from(&any.rule);
        }
        out.push(entry);
    }
    out
}

impl Masks {
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.detect.is_empty()
    }

    /// The mask of a column, the strictest of all that name it. `schema` is `None` when it is not known: then any counts.
    pub fn column(&self, schema: Option<&str>, relation: &str, column: &str) -> Option<&ColumnMask> {
        let hits = self.columns.iter().filter(|mask| {
            column_matches(mask.schema.as_deref(), schema) && mask.relation == relation && mask.column == column
        });
        hits.reduce(|best, mask| if mask.action > best.action { mask } else { best })
    }
}

impl ColumnMask {
    fn of(mask: &format::Mask, column: &crate::policy::MaskedColumn) -> Self {
        Self {
            rule: mask.name.clone(),
            schema: column.schema.clone(),
            relation: column.relation.clone(),
            column: column.column.clone(),
            action: mask.action,
        }
    }
}

impl Detect {
    fn of(detect: &format::Detect) -> Self {
        Self { rule: detect.name.clone(), kinds: detect.kinds, action: detect.action }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({})", self.epoch_name())
    }
}
