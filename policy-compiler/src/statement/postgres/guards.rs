//! `without_where`: whether a condition picks some rows of the table that is written, by its form.
//!
//! It is a guard against slips and easy ways around it, not a bound: `id > 0` picks by its form and may be true of every
//! row. POLICY.md says so.

use pg_query::protobuf::{AExprKind, BoolExprType, NullTestType};

use super::lineage::{Rows, Source};
use super::names;
use super::tree::Node;

/// What is written, and what it may be joined with.
pub struct Written<'a> {
    pub target: &'a Source,
    /// The items of FROM, USING or MERGE's source.
    pub sources: Vec<&'a Node>,
}

impl Written<'_> {
    /// Some part of the condition that must hold sets a column of the target against something else.
    pub fn is_picked_by(&self, condition: Option<&Node>) -> bool {
        let Some(condition) = condition else { return false };
        let parts = || condition.list("args");
        match (condition.kind, BoolExprType::try_from(i32::try_from(condition.int_if("boolop")).unwrap_or(0))) {
            ("BoolExpr", Ok(BoolExprType::AndExpr)) => parts().any(|part| self.is_picked_by(Some(part))),
            ("BoolExpr", Ok(BoolExprType::OrExpr)) => parts().all(|part| self.is_picked_by(Some(part))),
            ("BoolExpr", _) => parts().any(|part| self.is_picked_by(Some(part))),
            ("CurrentOfExpr", _) => true,
            ("AExpr", _) => self.is_comparison(condition),
            ("NullTest", _) => {
                condition.int("nulltesttype") == NullTestType::IsNull as i64 && self.names_own(condition)
            }
            ("SubLink", _) => self.is_picked_by_query(condition),
            _ => self.names_own(condition),
        }
    }

    /// `id = id` sets a column against itself, `a.id = b.id` against all of its own table if `b` is that.
    fn is_comparison(&self, node: &Node) -> bool {
        let side = |field| node.node(field).map(|n| self.own_columns(n)).unwrap_or_default();
        let (left, right) = (side("lexpr"), side("rexpr"));
        if (left.is_empty() && right.is_empty()) || left == right {
            return false;
        }
        let other = if left.is_empty() { node.node("lexpr") } else { node.node("rexpr") };
        let is_equality = node.int("kind") == AExprKind::AexprOp as i64;
        let joins = is_equality && other.is_some_and(|n| n.kind == "ColumnRef");
        !(joins && self.sources.iter().any(|source| self.is_whole_target(source)))
    }

    /// `exists (…)` that does not look at the row picks none; `id in (select id from it)` picks all.
    fn is_picked_by_query(&self, node: &Node) -> bool {
        let Some(query) = node.node("subselect") else { return false };
        if !node.has("testexpr") {
            return self.own_columns(query).iter().any(|name| name.contains('.'));
        }
        let whole = query.kind == "SelectStmt" && query.list("from_clause").any(|f| self.is_whole_target(f));
        self.names_own(node) && (!whole || query.has("where_clause") || query.has("limit_count"))
    }

    /// A source that has all rows of the target.
    fn is_whole_target(&self, source: &Node) -> bool {
        let Rows::Relation { name, .. } = &self.target.rows else { return false };
        match source.kind {
            "RangeVar" => source.text("relname") == name,
            "RangeSubselect" => source.node("subquery").is_some_and(|query| {
                query.kind == "SelectStmt"
                    && !query.has("where_clause")
                    && !query.has("limit_count")
                    && query.list("from_clause").any(|inner| self.is_whole_target(inner))
            }),
            _ => false,
        }
    }

    fn names_own(&self, node: &Node) -> bool {
        !self.own_columns(node).is_empty()
    }

    /// Columns that are the target's or may be, as written, each once.
    fn own_columns(&self, node: &Node) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(node, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn collect(&self, node: &Node, found: &mut Vec<String>) {
        if node.kind == "ColumnRef" {
            match node.name_parts("fields").as_slice() {
                [name] => found.push((*name).to_owned()),
                [.., qualifier, name] if self.target.alias.as_deref() == Some(qualifier) => {
                    // Written with its table and without, it is one column, unless a sub-query may have one of that name.
                    found.push(if self.sources.is_empty() {
                        (*name).to_owned()
                    } else {
                        format!("{qualifier}.{name}")
                    });
                }
                _ => {}
            }
        }
        for child in node.children() {
            self.collect(child, found);
        }
    }
}

/// An INSERT that takes rows of a query and updates those that are there changes as many as the query gives.
pub fn updates_whatever_conflicts(insert: &Node, conflict: &Node) -> bool {
    let rows = insert.node("select_stmt");
    let is_query = rows.is_some_and(|rows| !rows.has("values_lists") && !is_bounded(rows));
    is_query && !conflict.node("where_clause").is_some_and(picks)
}

/// A query that has a condition which picks, a limit, or no table.
fn is_bounded(query: &Node) -> bool {
    query.kind == "SelectStmt"
        && (query.node("where_clause").is_some_and(picks)
            || query.has("limit_count")
            || !query.list("from_clause").any(is_table))
}

/// Some part of a condition that must hold sets a column, of whatever table, against something else.
fn picks(condition: &Node) -> bool {
    let parts = || condition.list("args");
    match (condition.kind, BoolExprType::try_from(i32::try_from(condition.int_if("boolop")).unwrap_or(0))) {
        ("BoolExpr", Ok(BoolExprType::OrExpr)) => parts().all(picks),
        ("BoolExpr", _) => parts().any(picks),
        ("AExpr", _) => {
            let side = |field| condition.node(field).map(columns).unwrap_or_default();
            side("lexpr") != side("rexpr")
        }
        ("NullTest", _) => condition.int("nulltesttype") == NullTestType::IsNull as i64,
        ("SubLink", _) => true,
        _ => !columns(condition).is_empty(),
    }
}

/// The columns that are named below a node, each once.
fn columns(node: &Node) -> Vec<String> {
    let mut found: Vec<String> = match node.kind {
        "ColumnRef" => node.name_parts("fields").last().map(|name| (*name).to_owned()).into_iter().collect(),
        _ => node.children().flat_map(columns).collect(),
    };
    found.sort_unstable();
    found.dedup();
    found
}

fn is_table(item: &Node) -> bool {
    match item.kind {
        "RangeVar" => !names::relation(item).1.is_empty(),
        "JoinExpr" => item.node("larg").into_iter().chain(item.node("rarg")).any(is_table),
        "RangeSubselect" => item.node("subquery").is_some_and(|query| !query.has("values_lists") && !is_bounded(query)),
        _ => false,
    }
}
