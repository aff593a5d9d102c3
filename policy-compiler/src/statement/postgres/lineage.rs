//! Where columns of results come from: the sources of each FROM clause, and what is known of their columns.
//!
//! Rule of thumb: a flow that is forgotten leaks, one too many only masks too much. Whenever a name could mean two
//! things it is unknown.

use std::rc::Rc;

use super::super::{Output, UNKNOWN_COLUMN};
use super::walk::{Reference, Walk};

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
    /// Whose row the value is of, among the rows of the walk.
    pub row: u32,
}

/// What stands in a FROM clause.
#[derive(Clone, Debug)]
pub struct Source {
    /// The name by which columns are qualified; `None` for what cannot be named.
    pub alias: Option<String>,
    pub rows: Rows,
    /// The number of its row: no other source has it.
    pub row: u32,
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
    /// What the WINDOW clause refers to.
    pub windows: Vec<Reference>,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub output: Output,
    /// Whose row it is of; `None` if several may be meant.
    pub row: Option<u32>,
    /// There is such a column for certain; else the name may be a function's, or nothing's.
    pub is_column: bool,
}

impl Column {
    pub fn unknown_star() -> Self {
        Self { name: None, output: Output::Unknown, open: true, row: 0 }
    }

    /// The column of a statement's result. Of one that stands for any number the places are not known.
    pub fn into_output(self) -> Output {
        match self.output {
            Output::Computed(_) if self.open => Output::Unknown,
            output => output,
        }
    }

    pub fn is_open(&self) -> bool {
        self.open || matches!(self.output, Output::All { .. } | Output::Unknown)
    }
}

impl Found {
    const NOTHING: Self = Self { output: Output::Unknown, row: None, is_column: false };
}

/// Renames columns from the left, as `AS t(a, b)` does. An open column makes positions unknown.
pub fn rename(columns: Vec<Column>, names: &[&str]) -> Vec<Column> {
    if names.is_empty() {
        return columns;
    }
    if columns.iter().any(Column::is_open) || names.len() > columns.len() {
        // What flows into any of them may flow into each.
        return opened(columns);
    }
    let name = |(at, column): (usize, Column)| match names.get(at) {
        Some(name) => Column { name: Some((*name).to_owned()), ..column },
        None => column,
    };
    columns.into_iter().enumerate().map(name).collect()
}

/// One open column in place of a list of which neither number nor names are known.
pub fn opened(columns: Vec<Column>) -> Vec<Column> {
    match <[Column; 1]>::try_from(columns) {
        Ok([Column { output: output @ Output::Computed(_), row, .. }]) => {
            vec![Column { name: None, output, open: true, row }]
        }
        _ => vec![Column::unknown_star()],
    }
}

/// The list itself, or an open unknown one when it is longer than the server allows.
pub fn bounded(columns: Vec<Column>) -> Vec<Column> {
    if columns.len() > COLUMNS_MAX { vec![Column::unknown_star()] } else { columns }
}

/// The relation that a name in a clause belongs to, for `ColumnUse`.
pub fn relation_of(output: &Output) -> Option<String> {
    match output {
        Output::Column { relation, .. } => relation.clone(),
        _ => None,
    }
}

/// A column of a source that a name may mean.
struct Candidate {
    output: Output,
    row: u32,
    /// It is there for certain.
    is_sure: bool,
    is_relation: bool,
}

impl Walk<'_> {
    /// What a bare column name means, looked up from the innermost scope outwards as the server does.
    pub fn bare(&mut self, name: &str) -> Found {
        let sources: usize = self.scopes.iter().map(|s| s.sources.len()).sum();
        if !self.step(sources) || sources > SOURCES_MAX || self.whole_row(name).is_some() {
            return Found::NOTHING;
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        for level in (0..self.scopes.len()).rev() {
            for at in 0..self.scopes[level].sources.len() {
                let source = self.scopes[level].sources[at].clone();
                candidates.extend(self.candidate(&source, name));
            }
            match candidates.as_slice() {
                [] => {}
                // It may be an outer one's, if this one has no such column after all.
                [one] if !one.is_sure => {}
                _ => break,
            }
        }
        match candidates.pop() {
            None => Found::NOTHING,
            Some(one) if candidates.is_empty() => {
                Found { output: one.output, row: Some(one.row), is_column: one.is_sure }
            }
            Some(last) if last.is_relation && candidates.iter().all(|c| c.is_relation) => {
                let output = Output::Column { relation: None, name: name.to_owned() };
                Found { output, row: None, is_column: true }
            }
            Some(_) => Found::NOTHING,
        }
    }

    /// The column of a source that a name may mean, and whose row it is of.
    pub fn possible_column(&mut self, source: &Source, name: &str) -> Option<(Output, u32)> {
        self.candidate(source, name).map(|candidate| (candidate.output, candidate.row))
    }

    fn candidate(&mut self, source: &Source, name: &str) -> Option<Candidate> {
        match &source.rows {
            Rows::Relation { schema, name: relation } => {
                let additions = self.server.additions;
                if additions.lacks_column(schema.as_deref(), relation, name) {
                    return None;
                }
                Some(Candidate {
                    output: Output::Column { relation: Some(relation.clone()), name: name.to_owned() },
                    row: source.row,
                    is_sure: additions.has_column(schema.as_deref(), relation, name),
                    is_relation: true,
                })
            }
            Rows::Derived(columns) => {
                let found = self.column_of(columns, name)?;
                let row = self.row_through(source.row, found.row.unwrap_or(0));
                Some(Candidate { output: found.output, row, is_sure: found.is_column, is_relation: false })
            }
        }
    }

    /// The source that a bare name may stand for as a whole row: `SELECT c FROM customers c`.
    pub fn whole_row(&self, name: &str) -> Option<&Source> {
        let sources = self.scopes.iter().rev().flat_map(|s| s.sources.iter().chain(&s.hidden));
        sources.take(SOURCES_MAX).find(|s| s.alias.as_deref() == Some(name))
    }

    /// What `qualifier.name` means.
    pub fn qualified(&mut self, schema: Option<&str>, qualifier: &str, name: &str) -> Found {
        let Some(source) = self.source(schema, qualifier).cloned() else { return Found::NOTHING };
        match &source.rows {
            Rows::Relation { schema, name: relation } => Found {
                output: Output::Column { relation: Some(relation.clone()), name: name.to_owned() },
                row: Some(source.row),
                is_column: self.server.additions.has_column(schema.as_deref(), relation, name),
            },
            Rows::Derived(columns) => match self.column_of(columns, name) {
                Some(found) => {
                    let row = self.row_through(source.row, found.row.unwrap_or(0));
                    Found { row: Some(row), ..found }
                }
                None => Found::NOTHING,
            },
        }
    }

    /// `None`: certainly no such column. The row is among those of the sub-query.
    fn column_of(&mut self, columns: &[Column], name: &str) -> Option<Found> {
        self.step(columns.len());
        let found = |column: &Column, is_column| Found {
            output: match &column.output {
                Output::All { relation, .. } => {
                    Output::Column { relation: Some(relation.clone()), name: name.to_owned() }
                }
                output => output.clone(),
            },
            row: Some(column.row),
            is_column,
        };
        let mut named = columns.iter().filter(|c| !c.is_open() && c.name.as_deref() == Some(name));
        let mut open = columns.iter().filter(|c| c.is_open());
        let unnamed = columns.iter().any(|c| !c.is_open() && c.name.is_none());
        match (named.next(), named.next(), open.next(), open.next()) {
            (None, _, None, _) if !unnamed => None,
            (Some(one), None, None, _) => Some(found(one, true)),
            (None, _, Some(open), None) if !unnamed => Some(found(open, false)),
            _ => Some(Found { output: Output::Unknown, row: Some(0), is_column: false }),
        }
    }

    /// The columns of `*` at the innermost level.
    pub fn star(&mut self) -> Vec<Column> {
        match self.scopes.last() {
            Some(scope) if !scope.merged => {
                let sources = scope.sources.clone();
                let mut columns = Vec::new();
                for source in &sources {
                    columns.extend(self.expand(source));
                    if columns.len() > COLUMNS_MAX {
                        break;
                    }
                }
                bounded(columns)
            }
            _ => vec![Column::unknown_star()],
        }
    }

    /// The columns of `qualifier.*`.
    pub fn qualified_star(&mut self, schema: Option<&str>, qualifier: &str) -> Vec<Column> {
        match self.source(schema, qualifier).cloned() {
            Some(source) => self.expand(&source),
            None => vec![Column::unknown_star()],
        }
    }

    fn expand(&mut self, source: &Source) -> Vec<Column> {
        match &source.rows {
            Rows::Relation { schema, name } => {
                let output = Output::All { schema: schema.clone(), relation: name.clone() };
                vec![Column { name: None, output, open: true, row: source.row }]
            }
            Rows::Derived(columns) => {
                self.step(columns.len());
                let through = |column: &Column| {
                    let row = self.row_through(source.row, column.row);
                    Column { row, ..column.clone() }
                };
                columns.iter().map(through).collect()
            }
        }
    }

    /// Two sources of one name in different scopes: the inner one hides the outer, as on the server.
    fn source(&self, schema: Option<&str>, qualifier: &str) -> Option<&Source> {
        let fits = |s: &&Source| match (&s.rows, schema) {
            (Rows::Relation { schema: Some(own), name }, Some(schema)) => {
                own == schema && name == qualifier && s.alias.as_deref() == Some(qualifier)
            }
            (_, Some(_)) => false,
            (_, None) => s.alias.as_deref() == Some(qualifier),
        };
        for scope in self.scopes.iter().rev() {
            let mut fitting = scope.sources.iter().chain(&scope.hidden).take(SOURCES_MAX).filter(fits);
            match (fitting.next(), fitting.next()) {
                (None, _) => {}
                (only, None) => return only,
                _ => return None,
            }
        }
        None
    }

    /// UNION, INTERSECT, EXCEPT: by position; the left side gives the names.
    pub fn set_operation_columns(&mut self, left: Vec<Column>, right: &[Column]) -> Vec<Column> {
        let is_open = left.iter().chain(right).any(Column::is_open);
        let same = |l: &Column, r: &Column| l.output == r.output && l.open == r.open;
        if left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r)) {
            return left;
        }
        if left.len() != right.len() || is_open {
            return vec![Column::unknown_star()];
        }
        left.into_iter().zip(right).map(|(l, r)| self.merged(l, r)).collect()
    }

    /// Into the column flows what flows into either.
    pub fn merged(&mut self, left: Column, right: &Column) -> Column {
        let row = self.row_through(left.row, right.row);
        let output = match left.output == right.output {
            true => left.output,
            false => self.flow_together(&left.output, &right.output),
        };
        Column { output, row, ..left }
    }

    /// A value that is one or the other.
    pub fn flow_together(&mut self, left: &Output, right: &Output) -> Output {
        let mut flows = self.flows_of(left);
        flows.extend(self.flows_of(right));
        flows.sort_unstable();
        flows.dedup();
        Output::Computed(self.bounded(flows))
    }

    /// Puts a found column into the log and on the statement's list.
    pub fn refer_to_found(&mut self, found: &Found, name: &str) {
        match (&found.output, found.row) {
            (Output::Unknown, _) => self.refer_to_unknown_named(name),
            (output, Some(row)) => self.refer_to(output, row),
            // One of several: the same name is the same column each time.
            (output, None) => {
                let column = self.column(relation_of(output), name);
                let row = self.row_through(u32::MAX, column);
                self.refer(Some(column), row);
            }
        }
    }

    fn refer_to_unknown_named(&mut self, name: &str) {
        self.column(None, name);
        let column = self.column(None, UNKNOWN_COLUMN);
        let row = self.new_row();
        self.refer(Some(column), row);
    }
}
