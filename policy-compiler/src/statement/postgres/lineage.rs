//! Where columns of results come from: the sources of each FROM clause, and what is known of their columns.
//!
//! Rule of thumb: a wrong "harmless" leaks, a wrong "unknown" only masks too much. Whenever a name could mean two
//! things it is unknown.

use std::rc::Rc;

use super::super::Output;

/// Most columns that a result of the server may have; longer lists (`a.*, a.*, …`) are not spelled out.
const COLUMNS_MAX: usize = 1664;

/// Most sources among which a bare name is looked up; with more it is unknown.
const SOURCES_MAX: usize = 256;

/// One column of a result. `open` means "this entry may stand for any number of columns".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Option<String>,
    pub output: Output,
    pub open: bool,
}

/// What stands in a FROM clause.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name by which columns are qualified; `None` for what cannot be named.
    pub alias: Option<String>,
    pub rows: Rows,
}

#[derive(Clone, Debug)]
pub enum Rows {
    /// A table or view whose columns only the catalogue knows.
    Relation { schema: Option<String>, name: String },
    /// A sub-query, CTE or function.
    Derived(Rc<[Column]>),
}

/// The sources of one query level.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub sources: Vec<Source>,
    /// JOIN … USING or NATURAL merged columns: `*` is no longer the sources in a row.
    pub merged: bool,
    /// Found by qualifier only: `excluded`, and `old` and `new` of RETURNING.
    pub hidden: Vec<Source>,
}

impl Column {
    pub fn unknown_star() -> Self {
        Self { name: None, output: Output::Unknown, open: true }
    }

    fn is_open(&self) -> bool {
        self.open || matches!(self.output, Output::All { .. })
    }
}

/// Combines two values that may both show: nothing is as harmless as the worse of the two.
pub fn merge(a: &Output, b: &Output) -> Output {
    match (a, b) {
        (Output::Harmless, other) | (other, Output::Harmless) => other.clone(),
        (a, b) if a == b => a.clone(),
        _ => Output::Unknown,
    }
}

/// UNION, INTERSECT, EXCEPT: by position; the left side gives the names.
pub fn set_operation(left: Vec<Column>, right: &[Column]) -> Vec<Column> {
    let same =
        left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l.output == r.output && l.open == r.open);
    if same {
        return left;
    }
    if left.len() != right.len() || left.iter().chain(right).any(Column::is_open) {
        return vec![Column::unknown_star()];
    }
    let merged = |(l, r): (Column, &Column)| Column { output: merge(&l.output, &r.output), ..l };
    left.into_iter().zip(right).map(merged).collect()
}

/// Renames columns from the left, as `AS t(a, b)` does. An open column makes positions unknown.
pub fn rename(columns: Vec<Column>, names: &[&str]) -> Vec<Column> {
    if names.is_empty() {
        return columns;
    }
    if columns.iter().any(Column::is_open) || names.len() > columns.len() {
        return vec![Column::unknown_star()];
    }
    let name = |(at, column): (usize, Column)| match names.get(at) {
        Some(name) => Column { name: Some((*name).to_owned()), ..column },
        None => column,
    };
    columns.into_iter().enumerate().map(name).collect()
}

/// What a bare column name means, looked up from the innermost scope (last) outwards.
pub fn bare(scopes: &[Scope], name: &str) -> Output {
    if scopes.iter().map(|s| s.sources.len()).sum::<usize>() > SOURCES_MAX || whole_row(scopes, name).is_some() {
        return Output::Unknown;
    }
    let mut relations: Vec<&str> = Vec::new();
    for scope in scopes.iter().rev() {
        let mut derived: Vec<Option<Output>> = Vec::new();
        for source in &scope.sources {
            match &source.rows {
                Rows::Relation { name, .. } => relations.push(name),
                Rows::Derived(columns) => derived.push(column_of(columns, name)),
            }
        }
        derived.retain(|found| found.is_some());
        match derived.as_slice() {
            [] => {}
            [Some(found)] if relations.is_empty() => return found.clone(),
            _ => return Output::Unknown,
        }
    }
    match relations.as_slice() {
        [] => Output::Unknown,
        [only] => Output::Column { relation: Some((*only).to_owned()), name: name.to_owned() },
        _ => Output::Column { relation: None, name: name.to_owned() },
    }
}

/// The source that a bare name may stand for as a whole row: `SELECT c FROM customers c`.
pub fn whole_row<'s>(scopes: &'s [Scope], name: &str) -> Option<&'s Source> {
    let sources = scopes.iter().rev().flat_map(|s| s.sources.iter().chain(&s.hidden));
    sources.take(SOURCES_MAX).find(|s| s.alias.as_deref() == Some(name))
}

/// What `qualifier.name` means.
pub fn qualified(scopes: &[Scope], schema: Option<&str>, qualifier: &str, name: &str) -> Output {
    match source(scopes, schema, qualifier).map(|s| &s.rows) {
        Some(Rows::Relation { name: relation, .. }) => {
            Output::Column { relation: Some(relation.clone()), name: name.to_owned() }
        }
        Some(Rows::Derived(columns)) => column_of(columns, name).unwrap_or(Output::Unknown),
        None => Output::Unknown,
    }
}

/// The columns of `*` at the innermost level.
pub fn star(scope: Option<&Scope>) -> Vec<Column> {
    match scope {
        Some(scope) if !scope.merged => {
            bounded(scope.sources.iter().flat_map(|s| expand(&s.rows)).take(COLUMNS_MAX + 1).collect())
        }
        _ => vec![Column::unknown_star()],
    }
}

/// The list itself, or an open unknown one when it is longer than the server allows.
pub fn bounded(columns: Vec<Column>) -> Vec<Column> {
    if columns.len() > COLUMNS_MAX { vec![Column::unknown_star()] } else { columns }
}

/// The columns of `qualifier.*`.
pub fn qualified_star(scopes: &[Scope], schema: Option<&str>, qualifier: &str) -> Vec<Column> {
    source(scopes, schema, qualifier).map_or_else(|| vec![Column::unknown_star()], |s| expand(&s.rows))
}

/// The relation that a name in a clause belongs to, for `ColumnUse`.
pub fn relation_of(output: &Output) -> Option<String> {
    match output {
        Output::Column { relation, .. } => relation.clone(),
        _ => None,
    }
}

/// Two sources of one name in different scopes: the inner one hides the outer, as on the server.
fn source<'s>(scopes: &'s [Scope], schema: Option<&str>, qualifier: &str) -> Option<&'s Source> {
    let fits = |s: &&Source| match (&s.rows, schema) {
        (Rows::Relation { schema: Some(own), name }, Some(schema)) => {
            own == schema && name == qualifier && s.alias.as_deref() == Some(qualifier)
        }
        (_, Some(_)) => false,
        (_, None) => s.alias.as_deref() == Some(qualifier),
    };
    for scope in scopes.iter().rev() {
        let mut fitting = scope.sources.iter().chain(&scope.hidden).take(SOURCES_MAX).filter(fits);
        match (fitting.next(), fitting.next()) {
            (None, _) => {}
            (only, None) => return only,
            _ => return None,
        }
    }
    None
}

fn expand(rows: &Rows) -> Vec<Column> {
    match rows {
        Rows::Relation { schema, name } => {
            let output = Output::All { schema: schema.clone(), relation: name.clone() };
            vec![Column { name: None, output, open: true }]
        }
        Rows::Derived(columns) => columns.to_vec(),
    }
}

/// `None`: certainly no such column.
fn column_of(columns: &[Column], name: &str) -> Option<Output> {
    let mut named = columns.iter().filter(|c| !c.is_open() && c.name.as_deref() == Some(name));
    let mut open = columns.iter().filter(|c| c.is_open());
    let unnamed = columns.iter().any(|c| !c.is_open() && c.name.is_none());
    match (named.next(), named.next(), open.next(), open.next()) {
        (None, _, None, _) if !unnamed => None,
        (Some(one), None, None, _) => Some(one.output.clone()),
        (None, _, Some(Column { output: Output::All { relation, .. }, .. }), None) if !unnamed => {
            Some(Output::Column { relation: Some(relation.clone()), name: name.to_owned() })
        }
        _ => Some(Output::Unknown),
    }
}
