//! TOML files → [`Checked`] rules. Strict: what is not understood is an error with its place, and all are reported.

pub mod catalogs;
mod check;
mod diagnostic;
pub mod pattern;
mod read;
mod schema;
#[cfg(test)]
mod tests;

pub use check::check;
pub(crate) use diagnostic::did_you_mean;
pub use diagnostic::{At, Diagnostic, Source};
pub use schema::schema;

use crate::detect::Kind;
use crate::statement::EffectSet;
use pattern::{Glob, Pattern};
use std::fs;
use std::path::{Path, PathBuf};

/// The names of the detectors, in the order of the bits of [`Detect::kinds`].
pub fn detect_kinds() -> [&'static str; Kind::ALL.len()] {
    Kind::ALL.map(Kind::name)
}

/// The most roles of one policy: a role is a bit of a `u128`.
pub const ROLES_MAX: usize = 128;

/// The verdict names that no rule may take.
pub const RESERVED_NAMES: [&str; 9] = [
    "grant",
    "default-deny",
    "unparsable",
    "pinned-setting",
    "opaque",
    "masked-source",
    "copy-option",
    "binary-copy",
    "reserved-name",
];

/// A policy whose every name and value has been checked, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub roles: Vec<Role>,
    pub grants: Vec<Grant>,
    pub rules: Vec<Rule>,
    pub masks: Vec<Mask>,
    pub detects: Vec<Detect>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    /// Values of the token's roles claim that give this role.
    pub claims: Vec<String>,
}

/// The file and line (from 1) where a section starts.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Origin {
    pub file: String,
    pub line: u32,
}

/// Whom a rule or mask concerns, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Names of roles; `None` is every role.
    pub to: Option<Vec<String>>,
    pub except: Vec<String>,
    /// Names of resources; `None` is all.
    pub resources: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub to: Vec<String>,
    /// Names of resources; `None` is all.
    pub resources: Option<Vec<String>>,
    pub effects: EffectSet,
    /// Empty: any relation, and effects on none.
    pub relations: Vec<Pattern>,
    /// Not empty: `call` is of these functions only.
    pub functions: Vec<Pattern>,
    pub origin: Origin,
}

/// A rule that blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    pub scope: Scope,
    /// `None` is any effect.
    pub effects: Option<EffectSet>,
    pub relations: Vec<Pattern>,
    pub functions: Vec<Pattern>,
    pub without_where: bool,
    pub hint: Option<String>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    pub name: String,
    pub scope: Scope,
    pub columns: Vec<MaskedColumn>,
    /// Where each of the columns is written.
    pub places: Vec<At>,
    pub action: MaskAction,
    pub origin: Origin,
}

/// `[schema.]relation.column`.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct MaskedColumn {
    /// `None` is any schema.
    pub schema: Option<String>,
    pub relation: String,
    pub column: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detect {
    pub name: String,
    pub scope: Scope,
    /// A bit for each of `detect::Kind::ALL`.
    pub kinds: u16,
    pub action: MaskAction,
    pub origin: Origin,
}

impl MaskedColumn {
    pub fn of(schema: Option<&str>, relation: &str, column: &str) -> Self {
        Self { schema: schema.map(String::from), relation: relation.to_owned(), column: column.to_owned() }
    }
}

/// What is done to a value, laxest first: of several masks on one column the greatest counts.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
)]
pub enum MaskAction {
    /// All but the last four characters is covered.
    Last4,
    /// A keyed digest: equal values stay equal.
    Hash,
    /// Every character is covered.
    Redact,
    /// The value is not there.
    Null,
}

impl MaskAction {
    pub const ALL: [(MaskAction, &'static str); 4] =
        [(Self::Last4, "last4"), (Self::Hash, "hash"), (Self::Redact, "redact"), (Self::Null, "null")];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(action, _)| *action)
    }
}

impl Scope {
    pub fn has_resource(&self, resource: &str) -> bool {
        self.resources.as_ref().is_none_or(|names| names.iter().any(|name| name == resource))
    }
}

impl Grant {
    /// Whether it also carries effects on no relation: CREATE FUNCTION, LISTEN.
    pub fn is_unlimited(&self) -> bool {
        self.relations.is_empty() || self.relations.iter().any(Pattern::is_any)
    }
}

/// Reads one file, or all `*.toml` of a directory in the order of their names.
///
/// # Errors
/// The path cannot be read, is not UTF-8, or the directory has no `*.toml`.
pub fn load(path: &Path) -> Result<Vec<Source>, Vec<Diagnostic>> {
    let files = if path.is_dir() { files_of(path)? } else { vec![path.to_owned()] };
    if files.is_empty() {
        let message = "there is no *.toml in this directory".to_owned();
        return Err(vec![Diagnostic::about_file(&path.display().to_string(), message, None)]);
    }
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    for file in files {
        match fs::read_to_string(&file) {
            Ok(text) => sources.push(Source { name: file.display().to_string(), text }),
            Err(e) => errors.push(unreadable(&file, &e)),
        }
    }
    if errors.is_empty() { Ok(sources) } else { Err(errors) }
}

/// [`load`] and [`check`].
///
/// # Errors
/// All that is wrong with the files.
pub fn load_dir(path: &Path) -> Result<(Vec<Source>, Checked), Vec<Diagnostic>> {
    let sources = load(path)?;
    let checked = check(&sources)?;
    Ok((sources, checked))
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Vec<Diagnostic>> {
    let entries = fs::read_dir(directory).map_err(|e| vec![unreadable(directory, &e)])?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| vec![unreadable(directory, &e)])?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic::about_file(&path.display().to_string(), format!("cannot be read: {error}"), None)
}

/// Whether a pattern stands for this relation. `schema` is `None` when nobody knows in which one it is found.
///
/// An unknown schema counts as a match for what forbids (`strict`), and as none for what allows.
pub(crate) fn pattern_matches(pattern: &Pattern, schema: Option<&str>, name: &str, strict: bool) -> bool {
    let schema_matches = match (&pattern.schema, schema) {
        (None, _) => true,
        (Some(glob), Some(schema)) => glob.matches(schema),
        (Some(glob), None) => strict || Glob::is_any(glob),
    };
    schema_matches && pattern.name.matches(name)
}
