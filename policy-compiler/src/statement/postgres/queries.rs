//! SELECT, VALUES, INSERT, UPDATE, DELETE, MERGE: scopes, effects and the columns of their results.

use std::rc::Rc;

use pg_query::protobuf::{BoolExprType, CmdType, OnConflictAction, SetOperation};

use super::super::{Effect, Output, Places};
use super::guards::{self, Written};
use super::lineage::{self, Column, Rows, Scope, Source};
use super::tree::Node;
use super::walk::{Cte, Walk};
use super::{names, settings};

/// More CTEs in reach than this are not followed.
const CTES_MAX: usize = 1000;

/// A recursive CTE is walked so often until what flows into its columns stays the same; then it is unknown.
const ROUNDS_MAX: usize = 4;

pub fn is_query(node: &Node) -> bool {
    matches!(node.kind, "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt")
}

impl Walk<'_> {
    pub fn query(&mut self, node: &Node) -> Vec<Column> {
        if !self.step(1) {
            return Vec::new();
        }
        self.levels += 1;
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
            let columns: Rc<[Column]> = Rc::new([Column::unknown_star()]);
            let unknown = |cte: &Node| Cte {
                name: cte.text("ctename").to_owned(),
                columns: Rc::clone(&columns),
                picked: Rc::new([]),
            };
            self.ctes.extend(with.list("ctes").map(unknown));
        }
        for (at, cte) in with.list("ctes").enumerate() {
            let mark = self.picked_mark();
            if recursive {
                self.recursive_cte(cte, first + at);
                self.ctes[first + at].picked = self.picked_since(mark).into();
            } else {
                let columns = self.cte(cte).into();
                let picked = self.picked_since(mark).into();
                self.ctes.push(Cte { name: cte.text("ctename").to_owned(), columns, picked });
            }
        }
    }

    /// Into a recursive CTE flows what its first part gives, and what its second makes of that, again and again.
    fn recursive_cte(&mut self, cte: &Node, at: usize) {
        let query = cte.node("ctequery");
        let seed = query.filter(|q| q.kind == "SelectStmt" && !q.has("with_clause")).and_then(|q| q.node("larg"));
        if let Some(seed) = seed {
            let columns = self.apart(|w| w.query(seed));
            self.ctes[at].columns = lineage::rename(columns, &cte.name_parts("aliascolnames")).into();
        }
        for _ in 0..ROUNDS_MAX {
            let columns = self.cte(cte);
            let same = |(a, b): (&Column, &Column)| (&a.output, a.open, &a.name) == (&b.output, b.open, &b.name);
            let settled =
                columns.len() == self.ctes[at].columns.len() && columns.iter().zip(&*self.ctes[at].columns).all(same);
            self.ctes[at].columns = columns.into();
            if settled || seed.is_none() {
                return;
            }
        }
        self.ctes[at].columns = Rc::new([Column::unknown_star()]);
        // What was walked last has looked at columns that were not yet all.
        let columns = self.cte(cte);
        self.ctes[at].columns =
            if columns.iter().any(Column::is_open) { columns.into() } else { Rc::new([Column::unknown_star()]) };
    }

    /// SEARCH and CYCLE add columns of their own, so the list stands open then.
    fn cte(&mut self, cte: &Node) -> Vec<Column> {
        let columns = cte.node("ctequery").map_or_else(Vec::new, |query| self.apart(|w| w.run(query)));
        self.maybe(cte.node("cycle_clause"));
        if cte.has("search_clause") || cte.has("cycle_clause") {
            return vec![Column::unknown_star()];
        }
        lineage::rename(columns, &cte.name_parts("aliascolnames"))
    }

    /// A query whose rows are a source, no value: what it shows flows on by its columns alone.
    pub fn apart<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let mark = self.mark();
        let result = body(self);
        self.forget_since(mark);
        result
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
        if self.levels == 1 {
            self.pg_settings_row = settings::pg_settings_row(self, node);
        }
        self.with_literals(true, |w| w.conditions(node.node("where_clause")));
        self.windows(node);
        let columns = if node.has("values_lists") { self.values(node) } else { self.targets(node.list("target_list")) };
        self.with_literals(true, |w| w.conditions(node.node("having_clause")));
        self.tail(node, &columns);
        self.scopes.pop();
        columns
    }

    /// Each part of a condition that must hold, by itself.
    pub fn conditions(&mut self, condition: Option<&Node>) {
        let Some(condition) = condition else { return };
        if condition.kind == "BoolExpr" && condition.int("boolop") == BoolExprType::AndExpr as i64 {
            for part in condition.list("args") {
                if self.step(1) {
                    self.conditions(Some(part));
                }
            }
            return;
        }
        self.is_condition = false;
        self.decided(|w| w.condition_on_query(condition));
    }

    /// A condition that sets a value against a query by itself, not in a choice between several: `IN`, `= (select …)`.
    fn condition_on_query(&mut self, condition: &Node) {
        let sides = ["lexpr", "rexpr"].into_iter().filter_map(|side| condition.node_if(side));
        let query = match condition.kind {
            "SubLink" => Some(condition),
            "AExpr" => sides.into_iter().find(|side| side.kind == "SubLink"),
            _ => None,
        };
        let select = query.and_then(|query| query.node("subselect")).filter(|select| select.kind == "SelectStmt");
        self.is_condition = select
            .is_some_and(|select| select.int("op") <= SetOperation::SetopNone as i64 && !select.has("values_lists"));
        self.visit(condition);
        self.is_condition = false;
    }

    /// Visits what picks, groups or orders rows, and places it so.
    fn decided<T>(&mut self, body: impl FnOnce(&mut Self) -> T) {
        let mark = self.mark();
        self.acting(body);
        self.place_condition(mark);
        self.forget_since(mark);
    }

    /// A function that does something, and stands among values, does it by them.
    fn acting<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let mark = self.mark();
        let before = std::mem::take(&mut self.out.acts);
        let result = body(self);
        if self.out.acts {
            self.place(mark, Places::KEPT);
        }
        self.out.acts |= before;
        result
    }

    /// LIMIT, OFFSET, arguments of what returns rows: how many rows come tells the value.
    pub fn shaping<T>(&mut self, body: impl FnOnce(&mut Self) -> T) {
        let mark = self.mark();
        self.acting(body);
        self.place(mark, Places::SHAPES);
        self.forget_since(mark);
    }

    fn windows(&mut self, node: &Node) {
        let mark = self.mark();
        self.all(node.list("window_clause"));
        let windows = self.copy_since(mark);
        self.forget_since(mark);
        if let Some(scope) = self.scopes.last_mut() {
            scope.windows = windows;
        }
    }

    /// All but UNION ALL compare the rows of both sides: which rows come tells of one side's values by the other's.
    fn set_operation(&mut self, node: &Node) -> Vec<Column> {
        self.derives = true;
        let mark = self.picked_mark();
        let left = node.node("larg").map_or_else(Vec::new, |n| self.apart(|w| w.query(n)));
        let right = node.node("rarg").map_or_else(Vec::new, |n| self.apart(|w| w.query(n)));
        let is_union_all = node.int("op") == SetOperation::SetopUnion as i64 && node.flag("all");
        if !is_union_all {
            for column in left.iter().chain(&right) {
                self.place_output(&column.output, Places::SHAPES);
            }
            self.note_operator(&["="]);
        }
        let columns = self.set_operation_columns(left, &right);
        let columns = self.told_by_sides(columns, mark);
        self.scopes.push(Scope::default());
        self.tail(node, &columns);
        self.scopes.pop();
        columns
    }

    /// From which side a row comes is told by its values, and what has picked the sides' rows by that.
    fn told_by_sides(&mut self, columns: Vec<Column>, mark: usize) -> Vec<Column> {
        let picked = self.picked_since(mark);
        if picked.is_empty() {
            return columns;
        }
        if columns.iter().any(Column::is_open) {
            return vec![Column::unknown_star()];
        }
        let picked = Output::Computed(picked);
        let told = |column: Column| Column { output: self.flow_together(&column.output, &picked), ..column };
        columns.into_iter().map(told).collect()
    }

    /// `ORDER BY 1` names a column by a constant, so constants there are not plain; LIMIT's are.
    fn tail(&mut self, node: &Node, columns: &[Column]) {
        self.distinct(node, columns);
        for key in node.list("group_clause") {
            self.with_literals(false, |w| w.group_key(key, columns));
        }
        for key in node.list("sort_clause") {
            self.with_literals(false, |w| w.sort_clause(key, columns));
        }
        self.with_literals(true, |w| {
            w.shaping(|w| w.maybe(node.node("limit_offset")));
            w.shaping(|w| w.maybe(node.node("limit_count")));
        });
        for clause in node.list("locking_clause") {
            self.locking(clause);
        }
    }

    /// DISTINCT picks by all columns; DISTINCT ON by its keys.
    fn distinct(&mut self, node: &Node, columns: &[Column]) {
        if !node.has("distinct_clause") {
            return;
        }
        let keys: Vec<&Node> = node.list("distinct_clause").collect();
        for column in columns.iter().filter(|_| keys.is_empty()) {
            self.place_output(&column.output, Places::PICKS);
        }
        for key in keys {
            self.with_literals(false, |w| w.group_key(key, columns));
        }
    }

    /// A name is a column of FROM before it is one of the result.
    fn group_key(&mut self, key: &Node, columns: &[Column]) {
        if self.is_of_result(key, columns, false) {
            return;
        }
        match key.kind {
            "GroupingSet" => key.list("content").for_each(|part| self.group_key(part, columns)),
            _ => self.decided(|w| w.visit(key)),
        }
    }

    /// A name is a column of the result before it is one of FROM.
    fn sort_clause(&mut self, clause: &Node, columns: &[Column]) {
        let is_of_result = clause.node("node").is_some_and(|key| self.is_of_result(key, columns, true));
        if !is_of_result {
            self.decided(|w| w.visit(clause));
        }
        let operator = clause.name_parts("use_op");
        if is_of_result && !operator.is_empty() {
            self.apart(|w| w.note_operator(&operator));
        }
    }

    /// The key names a column of the result, by its place or its name, which then picks, groups or orders.
    fn is_of_result(&mut self, key: &Node, columns: &[Column], by_name_first: bool) -> bool {
        self.step(columns.len());
        let chosen: Vec<&Column> = match (key.kind, key.name_parts_if("fields").as_slice()) {
            ("AConst", _) => match self.literal_integer(key).and_then(|n| usize::try_from(n - 1).ok()) {
                // Behind a star the place is not known.
                Some(_) if columns.iter().any(Column::is_open) => columns.iter().collect(),
                Some(place) => columns.get(place).into_iter().collect(),
                None => return false,
            },
            ("ColumnRef", [name]) if by_name_first || self.bare(name).output == Output::Unknown => {
                columns.iter().filter(|column| column.name.as_deref() == Some(name)).collect()
            }
            _ => return false,
        };
        for column in &chosen {
            self.place_output(&column.output, Places::PICKS);
        }
        !chosen.is_empty()
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
        self.derives = true;
        let mut columns: Option<Vec<Column>> = None;
        for row in node.list("values_lists") {
            let mut outputs: Vec<Column> = Vec::new();
            for value in row.list("items") {
                let name = Some(format!("column{}", outputs.len() + 1));
                outputs.push(self.with_literals(true, |w| w.target(Some(value), name)));
            }
            columns = Some(match columns {
                None => outputs,
                Some(above) if above.len() == outputs.len() => {
                    above.into_iter().zip(&outputs).map(|(a, b)| self.merged(a, b)).collect()
                }
                Some(above) => above,
            });
        }
        columns.unwrap_or_default()
    }

    fn targets<'n>(&mut self, targets: impl Iterator<Item = &'n Node>) -> Vec<Column> {
        let mut columns = Vec::new();
        for target in targets {
            let value = target.node("val");
            match value.and_then(|v| self.star_target(v)) {
                Some(star) => columns.extend(star),
                None => {
                    let name = names::of_target(target);
                    columns.push(self.with_literals(true, |w| w.target(value, name)));
                }
            }
            columns = lineage::bounded(columns);
        }
        columns
    }

    /// One column of a result, with what flows into it.
    fn target(&mut self, value: Option<&Node>, name: Option<String>) -> Column {
        let mark = self.mark();
        let shown = self.acting(|w| w.maybe(value));
        self.place_value(mark);
        let row = self.row_since(mark);
        let output = match shown {
            Some(output @ (Output::Column { .. } | Output::Rows)) => output,
            _ => Output::Computed(self.flows_since(mark)),
        };
        self.forget_since(mark);
        Column { name, output, open: false, row }
    }

    /// The columns of `*`, `t.*` or `(expression).*`; `None` for anything else.
    fn star_target(&mut self, value: &Node) -> Option<Vec<Column>> {
        let ends_in_star = |field| value.list(field).last().is_some_and(|n| n.kind == "AStar");
        match value.kind {
            "ColumnRef" if ends_in_star("fields") => {
                self.apart(|w| w.visit(value));
                Some(match value.name_parts("fields").as_slice() {
                    [] => self.star(),
                    [table] => self.qualified_star(None, table),
                    [.., schema, table] => self.qualified_star(Some(schema), table),
                })
            }
            "AIndirection" if ends_in_star("indirection") => {
                let mark = self.mark();
                self.acting(|w| w.visit(value));
                self.place_value(mark);
                let output = Output::Computed(self.flows_since(mark));
                let row = self.row_since(mark);
                self.forget_since(mark);
                Some(vec![Column { name: None, output, open: true, row }])
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
        for option in clause.list("options") {
            self.check_form(option);
        }
        let hidden: Vec<Source> = given.chain(["old", "new"]).map(|alias| self.same_rows(target, alias)).collect();
        if let Some(scope) = self.scopes.last_mut() {
            scope.hidden = hidden;
        }
        self.targets(clause.list("exprs"))
    }

    fn insert(&mut self, node: &Node) -> Vec<Column> {
        let Some(target) = self.target_of(node, &[Effect::Insert]) else { return Vec::new() };
        self.assigned(&target, node.list("cols"));
        self.with_literals(true, |w| {
            if let Some(rows) = node.node("select_stmt") {
                w.apart(|w| w.run(rows));
            }
        });
        self.scopes.push(Scope { sources: vec![target.clone()], ..Scope::default() });
        if let Some(conflict) = node.node("on_conflict_clause") {
            self.on_conflict(node, conflict, &target);
        }
        let columns = self.returning(node, &target);
        self.scopes.pop();
        columns
    }

    fn on_conflict(&mut self, insert: &Node, conflict: &Node, target: &Source) {
        if conflict.int("action") != OnConflictAction::OnconflictNothing as i64 {
            self.on_target(target, Effect::Update);
            self.out.without_where |= guards::updates_whatever_conflicts(insert, conflict);
        }
        let excluded = self.same_rows(target, "excluded");
        if let Some(scope) = self.scopes.last_mut() {
            scope.hidden = vec![excluded];
        }
        self.apart(|w| w.maybe(conflict.node("infer")));
        self.assign(target, conflict.list("target_list"));
        self.with_literals(true, |w| w.conditions(conflict.node("where_clause")));
    }

    fn update(&mut self, node: &Node) -> Vec<Column> {
        self.change(node, Effect::Update, "from_clause")
    }

    fn delete(&mut self, node: &Node) -> Vec<Column> {
        self.change(node, Effect::Delete, "using_clause")
    }

    fn change(&mut self, node: &Node, effect: Effect, sources: &str) -> Vec<Column> {
        let Some(target) = self.target_of(node, &[effect]) else { return Vec::new() };
        let written = Written { target: &target, sources: node.list(sources).collect() };
        self.out.without_where |= !written.is_picked_by(node.node("where_clause"));
        self.scopes.push(Scope { sources: vec![target.clone()], ..Scope::default() });
        self.with_literals(true, |w| {
            w.scan_list(node.list(sources));
            w.conditions(node.node("where_clause"));
        });
        if effect == Effect::Update {
            self.assign(&target, node.list("target_list"));
        }
        let columns = self.returning(node, &target);
        self.scopes.pop();
        columns
    }

    /// The source's columns come before the target's in `RETURNING *`.
    fn merge(&mut self, node: &Node) -> Vec<Column> {
        let actions: Vec<Effect> = node.list("merge_when_clauses").filter_map(action).collect();
        let Some(target) = self.target_of(node, &actions) else { return Vec::new() };
        self.scopes.push(Scope::default());
        self.with_literals(true, |w| {
            w.scan_list(node.node("source_relation").into_iter());
            if let Some(scope) = w.scopes.last_mut() {
                scope.sources.push(target.clone());
            }
            w.conditions(node.node("join_condition"));
        });
        let written = Written { target: &target, sources: node.node("source_relation").into_iter().collect() };
        let joined = written.is_picked_by(node.node("join_condition"));
        for when in node.list("merge_when_clauses") {
            let changes = matches!(action(when), Some(Effect::Update | Effect::Delete));
            self.out.without_where |= changes && !joined && !written.is_picked_by(when.node("condition"));
            self.with_literals(true, |w| {
                w.conditions(when.node("condition"));
                w.apart(|w| w.all(when.list("values")));
            });
            self.assign(&target, when.list("target_list"));
        }
        let columns = self.returning(node, &target);
        self.scopes.pop();
        columns
    }

    /// The relation that is written: never a CTE, on the server neither.
    fn target_of(&mut self, node: &Node, effects: &[Effect]) -> Option<Source> {
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
        let row = self.new_row();
        Some(Source { alias: Some(alias), rows: Rows::Relation { schema, name }, row })
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
                w.apart(|w| w.acting(|w| w.maybe(assignment.node("val"))));
            }
        });
    }

    fn assigned<'n>(&mut self, target: &Source, targets: impl Iterator<Item = &'n Node>) {
        let Rows::Relation { name, .. } = &target.rows else { return };
        for column in targets {
            self.column(Some(name.clone()), column.text("name"));
            self.apart(|w| w.with_literals(false, |w| w.all(column.list("indirection"))));
        }
    }

    /// The rows of a relation under another name: rows of their own.
    fn same_rows(&mut self, target: &Source, alias: &str) -> Source {
        Source { alias: Some(alias.to_owned()), rows: target.rows.clone(), row: self.new_row() }
    }
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
