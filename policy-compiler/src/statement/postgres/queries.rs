//! SELECT, VALUES, INSERT, UPDATE, DELETE, MERGE: scopes, effects and the columns of their results.

use std::rc::Rc;

use pg_query::protobuf::{CmdType, OnConflictAction, SetOperation};

use super::super::{Effect, Output};
use super::lineage::{self, Column, Rows, Scope, Source};
use super::tree::Node;
use super::walk::Walk;
use super::{names, settings};

/// More CTEs in reach than this are not followed.
const CTES_MAX: usize = 1000;

pub fn is_query(node: &Node) -> bool {
    matches!(node.kind, "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt")
}

/// The value of a sub-query used as an expression.
pub fn scalar(columns: &[Column]) -> Output {
    match columns {
        [Column { open: false, output, .. }] => output.clone(),
        _ => Output::Unknown,
    }
}

impl Walk {
    pub fn query(&mut self, node: &Node) -> Vec<Column> {
        let ctes = self.ctes.len();
        if let Some(with) = node.node("with_clause") {
            self.with_clause(with);
        }
        let columns = match node.kind {
            "InsertStmt" => self.insert(node),
            "UpdateStmt" => self.update(node),
            "DeleteStmt" => self.delete(node),
            "MergeStmt" => self.merge(node),
            _ => self.select(node),
        };
        self.ctes.truncate(ctes);
        lineage::bounded(columns)
    }

    /// With RECURSIVE every name is in reach of every member, before its columns are known; else of later ones only.
    fn with_clause(&mut self, with: &Node) {
        let recursive = with.flag("recursive");
        let first = self.ctes.len();
        if first + with.list("ctes").count() > CTES_MAX {
            self.opaque("too many common table expressions; use fewer than 1000");
            return;
        }
        if recursive {
            let unknown: Rc<[Column]> = Rc::new([Column::unknown_star()]);
            self.ctes.extend(with.list("ctes").map(|c| (c.text("ctename").to_owned(), Rc::clone(&unknown))));
        }
        for (at, cte) in with.list("ctes").enumerate() {
            let columns = self.cte(cte).into();
            if recursive {
                self.ctes[first + at].1 = columns;
            } else {
                self.ctes.push((cte.text("ctename").to_owned(), columns));
            }
        }
    }

    /// SEARCH and CYCLE add columns of their own, so the list stands open then.
    fn cte(&mut self, cte: &Node) -> Vec<Column> {
        let columns = cte.node("ctequery").map_or_else(Vec::new, |query| self.run(query));
        self.maybe(cte.node("cycle_clause"));
        if cte.has("search_clause") || cte.has("cycle_clause") {
            return vec![Column::unknown_star()];
        }
        lineage::rename(columns, &cte.name_parts("aliascolnames"))
    }

    fn select(&mut self, node: &Node) -> Vec<Column> {
        if let Some(into) = node.node("into_clause") {
            self.into(into);
        }
        if node.int("op") > SetOperation::SetopNone as i64 {
            return self.set_operation(node);
        }
        self.scopes.push(Scope::default());
        self.with_literals(true, |w| w.scan_list(node.list("from_clause")));
        let outer = std::mem::replace(&mut self.pg_settings_row, settings::pg_settings_row(node));
        let columns = if node.has("values_lists") { self.values(node) } else { self.targets(node.list("target_list")) };
        self.pg_settings_row = outer;
        self.with_literals(true, |w| {
            w.maybe(node.node("where_clause"));
            w.maybe(node.node("having_clause"));
        });
        self.all(node.list("window_clause"));
        self.tail(node);
        self.scopes.pop();
        columns
    }

    fn set_operation(&mut self, node: &Node) -> Vec<Column> {
        let left = node.node("larg").map_or_else(Vec::new, |n| self.query(n));
        let right = node.node("rarg").map_or_else(Vec::new, |n| self.query(n));
        self.scopes.push(Scope::default());
        self.tail(node);
        self.scopes.pop();
        lineage::set_operation(left, &right)
    }

    /// `ORDER BY 1` names a column by a constant, so constants there are not plain; LIMIT's are.
    fn tail(&mut self, node: &Node) {
        self.with_literals(false, |w| {
            w.all(node.list("distinct_clause"));
            w.all(node.list("group_clause"));
            w.all(node.list("sort_clause"));
        });
        self.with_literals(true, |w| {
            w.maybe(node.node("limit_offset"));
            w.maybe(node.node("limit_count"));
        });
        for clause in node.list("locking_clause") {
            self.locking(clause);
        }
    }

    /// `FOR UPDATE OF x` names an alias; without OF all relations of the FROM clause are meant.
    fn locking(&mut self, clause: &Node) {
        self.effect(Effect::Lock);
        let of: Vec<&str> = clause.list("locked_rels").map(|r| r.text("relname")).collect();
        let sources = self.scopes.last().map_or_else(Vec::new, |s| s.sources.clone());
        for source in sources {
            let meant = of.is_empty() || source.alias.as_deref().is_some_and(|a| of.contains(&a));
            if let Rows::Relation { schema, name } = source.rows
                && meant
            {
                self.relation_named(schema, name, Effect::Lock);
            }
        }
    }

    /// The new table of SELECT INTO and CREATE TABLE AS.
    pub fn into(&mut self, into: &Node) {
        self.effect(Effect::Ddl);
        if let Some(relation) = into.node("rel") {
            self.relation(relation, Effect::Ddl);
        }
        self.with_literals(false, |w| w.all(into.list("options")));
    }

    fn values(&mut self, node: &Node) -> Vec<Column> {
        let mut outputs: Option<Vec<Output>> = None;
        for row in node.list("values_lists") {
            let row: Vec<Output> = self.with_literals(true, |w| row.list("items").map(|v| w.visit(v)).collect());
            outputs = Some(match outputs {
                None => row,
                Some(above) => above.iter().zip(&row).map(|(a, b)| lineage::merge(a, b)).collect(),
            });
        }
        let named = |(at, output)| Column { name: Some(format!("column{}", at + 1)), output, open: false };
        outputs.unwrap_or_default().into_iter().enumerate().map(named).collect()
    }

    fn targets<'n>(&mut self, targets: impl Iterator<Item = &'n Node>) -> Vec<Column> {
        let mut columns = Vec::new();
        for target in targets {
            let value = target.node("val");
            match value.and_then(|v| self.star(v)) {
                Some(star) => columns.extend(star),
                None => {
                    let output = self.with_literals(true, |w| w.maybe(value));
                    columns.push(Column { name: names::of_target(target), output, open: false });
                }
            }
            columns = lineage::bounded(columns);
        }
        columns
    }

    /// The columns of `*`, `t.*` or `(expression).*`; `None` for anything else.
    fn star(&mut self, value: &Node) -> Option<Vec<Column>> {
        let ends_in_star = |field| value.list(field).last().is_some_and(|n| n.kind == "AStar");
        match value.kind {
            "ColumnRef" if ends_in_star("fields") => {
                self.visit(value);
                Some(match value.name_parts("fields").as_slice() {
                    [] => lineage::star(self.scopes.last()),
                    [table] => lineage::qualified_star(&self.scopes, None, table),
                    [schema, table] => lineage::qualified_star(&self.scopes, Some(schema), table),
                    _ => vec![Column::unknown_star()],
                })
            }
            "AIndirection" if ends_in_star("indirection") => {
                self.visit(value);
                Some(vec![Column::unknown_star()])
            }
            _ => None,
        }
    }

    /// RETURNING reads rows of the target. `old` and `new`, or the names given to them, are its rows too.
    fn returning(&mut self, node: &Node, target: &Source) -> Vec<Column> {
        let Some(clause) = node.node("returning_clause") else { return Vec::new() };
        if let Rows::Relation { schema, name } = &target.rows {
            self.relation_named(schema.clone(), name.clone(), Effect::Read);
        }
        let given = clause.list("options").map(|o| o.text("value"));
        let hidden: Vec<Source> = given.chain(["old", "new"]).map(|alias| same_rows(target, alias)).collect();
        if let Some(scope) = self.scopes.last_mut() {
            scope.hidden = hidden;
        }
        self.targets(clause.list("exprs"))
    }

    fn insert(&mut self, node: &Node) -> Vec<Column> {
        let Some(target) = self.target(node, &[Effect::Insert]) else { return Vec::new() };
        self.assigned(&target, node.list("cols"));
        self.with_literals(true, |w| {
            if let Some(rows) = node.node("select_stmt") {
                w.run(rows);
            }
        });
        self.scopes.push(Scope { sources: vec![target.clone()], ..Scope::default() });
        if let Some(conflict) = node.node("on_conflict_clause") {
            self.on_conflict(conflict, &target);
        }
        let columns = self.returning(node, &target);
        self.scopes.pop();
        columns
    }

    fn on_conflict(&mut self, conflict: &Node, target: &Source) {
        if conflict.int("action") != OnConflictAction::OnconflictNothing as i64 {
            self.on_target(target, Effect::Update);
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.hidden = vec![same_rows(target, "excluded")];
        }
        self.maybe(conflict.node("infer"));
        self.assign(target, conflict.list("target_list"));
        self.with_literals(true, |w| w.maybe(conflict.node("where_clause")));
    }

    fn update(&mut self, node: &Node) -> Vec<Column> {
        let Some(target) = self.target(node, &[Effect::Update]) else { return Vec::new() };
        self.out.without_where |= !picks_rows(node.node("where_clause"));
        self.scopes.push(Scope { sources: vec![target.clone()], ..Scope::default() });
        self.with_literals(true, |w| {
            w.scan_list(node.list("from_clause"));
            w.maybe(node.node("where_clause"));
        });
        self.assign(&target, node.list("target_list"));
        let columns = self.returning(node, &target);
        self.scopes.pop();
        columns
    }

    fn delete(&mut self, node: &Node) -> Vec<Column> {
        let Some(target) = self.target(node, &[Effect::Delete]) else { return Vec::new() };
        self.out.without_where |= !picks_rows(node.node("where_clause"));
        self.scopes.push(Scope { sources: vec![target.clone()], ..Scope::default() });
        self.with_literals(true, |w| {
            w.scan_list(node.list("using_clause"));
            w.maybe(node.node("where_clause"));
        });
        let columns = self.returning(node, &target);
        self.scopes.pop();
        columns
    }

    /// The source's columns come before the target's in `RETURNING *`.
    fn merge(&mut self, node: &Node) -> Vec<Column> {
        let actions: Vec<Effect> = node.list("merge_when_clauses").filter_map(action).collect();
        let Some(target) = self.target(node, &actions) else { return Vec::new() };
        self.scopes.push(Scope::default());
        self.with_literals(true, |w| {
            w.scan_list(node.node("source_relation").into_iter());
            if let Some(scope) = w.scopes.last_mut() {
                scope.sources.push(target.clone());
            }
            w.maybe(node.node("join_condition"));
        });
        let joined = picks_rows(node.node("join_condition"));
        for when in node.list("merge_when_clauses") {
            let changes = matches!(action(when), Some(Effect::Update | Effect::Delete));
            self.out.without_where |= changes && !joined && !picks_rows(when.node("condition"));
            self.with_literals(true, |w| {
                w.maybe(when.node("condition"));
                w.all(when.list("values"));
            });
            self.assign(&target, when.list("target_list"));
        }
        let columns = self.returning(node, &target);
        self.scopes.pop();
        columns
    }

    /// The relation that is written: never a CTE, on the server neither.
    fn target(&mut self, node: &Node, effects: &[Effect]) -> Option<Source> {
        let Some(relation) = node.node("relation") else {
            self.opaque("a statement that writes names no table");
            return None;
        };
        let (schema, name) = names::relation(relation);
        let alias = names::alias(relation).0.unwrap_or_else(|| name.clone());
        for effect in effects {
            self.relation_named(schema.clone(), name.clone(), *effect);
        }
        if effects.is_empty() {
            self.relation_named(schema.clone(), name.clone(), Effect::Read);
        }
        Some(Source { alias: Some(alias), rows: Rows::Relation { schema, name } })
    }

    fn on_target(&mut self, target: &Source, effect: Effect) {
        if let Rows::Relation { schema, name } = &target.rows {
            self.relation_named(schema.clone(), name.clone(), effect);
        }
    }

    /// `SET a = …` and the columns of an INSERT in MERGE.
    fn assign<'n>(&mut self, target: &Source, targets: impl Iterator<Item = &'n Node> + Clone) {
        self.assigned(target, targets.clone());
        self.with_literals(true, |w| {
            for assignment in targets {
                w.maybe(assignment.node("val"));
            }
        });
    }

    fn assigned<'n>(&mut self, target: &Source, targets: impl Iterator<Item = &'n Node>) {
        let Rows::Relation { name, .. } = &target.rows else { return };
        for column in targets {
            self.column(Some(name.clone()), column.text("name"));
            self.with_literals(false, |w| w.all(column.list("indirection")));
        }
    }
}

/// `WHERE true` picks as little as no WHERE at all: only what looks at the row picks.
fn picks_rows(condition: Option<&Node>) -> bool {
    condition.is_some_and(|c| {
        matches!(c.kind, "ColumnRef" | "CurrentOfExpr") || c.children().any(|child| picks_rows(Some(child)))
    })
}

fn same_rows(target: &Source, alias: &str) -> Source {
    Source { alias: Some(alias.to_owned()), rows: target.rows.clone() }
}

fn action(when: &Node) -> Option<Effect> {
    match CmdType::try_from(i32::try_from(when.int("command_type")).ok()?) {
        Ok(CmdType::CmdInsert) => Some(Effect::Insert),
        Ok(CmdType::CmdUpdate) => Some(Effect::Update),
        Ok(CmdType::CmdDelete) => Some(Effect::Delete),
        Ok(CmdType::CmdNothing) => None,
        _ => Some(Effect::Opaque),
    }
}
