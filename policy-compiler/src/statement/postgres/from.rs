//! FROM clauses: what each item brings into scope.

use pg_query::protobuf::JoinType;

use super::super::{Effect, Output, Places};
use super::lineage::{self, Column, Rows, Source};
use super::names;
use super::tree::Node;
use super::walk::Walk;

impl Walk<'_> {
    /// Adds the sources of a FROM list to the innermost scope.
    pub fn scan_list<'n>(&mut self, items: impl Iterator<Item = &'n Node>) {
        for item in items {
            if self.step(1) {
                self.scan_item(item);
            }
        }
    }

    fn scan_item(&mut self, item: &Node) {
        match item.kind {
            "RangeVar" => self.scan_relation(item),
            "RangeSubselect" => self.scan_query(item),
            "JoinExpr" => self.scan_join(item),
            "RangeTableSample" => self.scan_sample(item),
            "RangeFunction" | "RangeTableFunc" | "JsonTable" => {
                let columns = self.rows_of_function(item);
                self.add(names::alias(item).0.or_else(|| function_name(item)), columns);
            }
            _ => {
                self.derives = true;
                self.shaping(|w| w.visit(item));
                self.add(None, vec![Column::unknown_star()]);
            }
        }
    }

    /// What flows into a function's arguments flows into each column of its rows, and decides how many they are.
    fn rows_of_function(&mut self, item: &Node) -> Vec<Column> {
        self.derives = true;
        self.check_form(item);
        let mark = self.mark();
        let mut flows = Vec::new();
        self.shaping(|w| {
            w.children(item);
            flows = w.flows_since(mark);
        });
        let row = self.new_row();
        vec![Column { name: None, output: Output::Computed(flows), open: true, row }]
    }

    fn add(&mut self, alias: Option<String>, columns: Vec<Column>) {
        self.add_rows(alias, Rows::Derived(columns.into()));
    }

    fn add_rows(&mut self, alias: Option<String>, rows: Rows) {
        let row = self.new_row();
        if let Some(scope) = self.scopes.last_mut() {
            scope.sources.push(Source { alias, rows, row });
        }
    }

    /// An unqualified name is a CTE if one of that name is in reach. Renamed columns of a table stand open.
    fn scan_relation(&mut self, item: &Node) {
        let (schema, name) = names::relation(item);
        let (alias, columns) = names::alias(item);
        let alias = alias.or_else(|| Some(name.clone()));
        self.step(self.ctes.len());
        let cte = self.ctes.iter().rev().find(|cte| schema.is_none() && cte.name == name).cloned();
        if let Some(cte) = &cte {
            self.pick_by(&cte.picked);
        }
        match cte.map(|cte| cte.columns) {
            Some(rows) if columns.is_empty() => self.add_rows(alias, Rows::Derived(rows)),
            Some(rows) => self.add(alias, lineage::rename(rows.to_vec(), &columns)),
            None => {
                self.relation_named(schema.clone(), name.clone(), Effect::Read);
                match columns.is_empty() {
                    true => self.add_rows(alias, Rows::Relation { schema, name }),
                    false => {
                        // Under other names any of its columns may be meant.
                        let all = self.column(Some(name), "*");
                        let output = Output::Computed(vec![all]);
                        let row = self.new_row();
                        self.add(alias, vec![Column { name: None, output, open: true, row }]);
                    }
                }
            }
        }
    }

    /// Only a LATERAL sub-query sees its neighbours.
    fn scan_query(&mut self, item: &Node) {
        let hidden = if item.flag("lateral") { None } else { self.scopes.last_mut().map(std::mem::take) };
        let columns = item.node("subquery").map_or_else(Vec::new, |query| self.apart(|w| w.run(query)));
        if let (Some(hidden), Some(scope)) = (hidden, self.scopes.last_mut()) {
            *scope = hidden;
        }
        let (alias, names) = names::alias(item);
        self.add(alias, lineage::rename(columns, &names));
    }

    /// A join with an alias hides its members behind that name.
    fn scan_join(&mut self, item: &Node) {
        let (first, mark) = (self.scopes.last().map_or(0, |s| s.sources.len()), self.picked_mark());
        self.scan_list(item.node("larg").into_iter().chain(item.node("rarg")));
        self.conditions(item.node("quals"));
        if item.int("jointype") != JoinType::JoinInner as i64 {
            // Where no row fits there are NULLs: each outer join answers a question of its own, of each row.
            let picked = self.picked_since(mark);
            self.place_columns(&picked, Places::SHAPES);
        }
        self.scan_merged(item, first);
        let Some(scope) = self.scopes.last_mut() else { return };
        if let (Some(alias), _) = names::alias(item) {
            let members = scope.sources.split_off(first);
            self.add_join(alias, &members);
        }
        if let Some(alias) = item.node("join_using_alias") {
            let members = self.scopes.last().map(|s| s.sources[first.min(s.sources.len())..].to_vec());
            self.add_join(alias.text("aliasname").to_owned(), &members.unwrap_or_default());
        }
    }

    /// USING and NATURAL set columns of both sides against each other; which, only the catalogue knows for NATURAL.
    fn scan_merged(&mut self, item: &Node, first: usize) {
        let columns = item.name_parts("using_clause");
        if columns.is_empty() && !item.flag("is_natural") {
            return;
        }
        self.note_operator_apart();
        let mark = self.mark();
        let members = self.scopes.last().map(|s| s.sources[first.min(s.sources.len())..].to_vec()).unwrap_or_default();
        for name in columns {
            self.column(None, name);
            for member in &members {
                self.refer_to_column_of(member, name);
            }
        }
        for member in members.iter().filter(|_| item.flag("is_natural")) {
            self.refer_to_all_of(member);
        }
        self.place(mark, Places::SHAPES);
        self.forget_since(mark);
        if let Some(scope) = self.scopes.last_mut() {
            scope.merged = true;
        }
    }

    fn note_operator_apart(&mut self) {
        self.apart(|w| w.note_operator(&["="]));
    }

    fn refer_to_column_of(&mut self, source: &Source, name: &str) {
        if let Some((output, row)) = self.possible_column(source, name) {
            self.refer_to(&output, row);
        }
    }

    fn refer_to_all_of(&mut self, source: &Source) {
        match &source.rows {
            Rows::Relation { schema, name } => {
                let all = Output::All { schema: schema.clone(), relation: name.clone() };
                self.refer_to(&all, source.row);
            }
            Rows::Derived(columns) => columns.iter().for_each(|column| self.refer_to(&column.output, source.row)),
        }
    }

    /// Under the name of a join any column of its members may be meant.
    fn add_join(&mut self, alias: String, members: &[Source]) {
        let mark = self.mark();
        for member in members {
            self.refer_to_all_of(member);
        }
        let output = Output::Computed(self.flows_since(mark));
        self.forget_since(mark);
        let row = self.new_row();
        self.add(Some(alias), vec![Column { name: None, output, open: true, row }]);
    }

    /// A sampling method is a function in disguise.
    fn scan_sample(&mut self, item: &Node) {
        self.derives = true;
        self.scan_list(item.node("relation").into_iter());
        let method = item.name_parts("method");
        if !matches!(method.as_slice(), ["system" | "bernoulli"] | ["pg_catalog", "system" | "bernoulli"])
            && let Some((schema, name)) = names::schema_and_name(&method)
        {
            self.apart(|w| w.foreign_form(schema, name));
        }
        self.with_literals(false, |w| {
            w.shaping(|w| {
                w.all(item.list("args"));
                w.maybe(item.node("repeatable"));
            });
        });
    }
}

/// A function without alias goes by its own name.
fn function_name(item: &Node) -> Option<String> {
    if item.kind != "RangeFunction" {
        return None;
    }
    let call = item.list("functions").next()?.list("items").find(|n| n.kind == "FuncCall")?;
    call.name_parts("funcname").last().map(|name| (*name).to_owned())
}
