//! FROM clauses: what each item brings into scope.

use std::rc::Rc;

use super::super::Effect;
use super::lineage::{self, Column, Rows, Source};
use super::names;
use super::tree::Node;
use super::walk::Walk;

impl Walk {
    /// Adds the sources of a FROM list to the innermost scope.
    pub fn scan_list<'n>(&mut self, items: impl Iterator<Item = &'n Node>) {
        for item in items {
            self.scan_item(item);
        }
    }

    fn scan_item(&mut self, item: &Node) {
        match item.kind {
            "RangeVar" => self.scan_relation(item),
            "RangeSubselect" => self.scan_query(item),
            "JoinExpr" => self.scan_join(item),
            "RangeTableSample" => self.scan_sample(item),
            "RangeFunction" | "RangeTableFunc" | "JsonTable" => {
                self.children(item);
                self.add(names::alias(item).0.or_else(|| function_name(item)), vec![Column::unknown_star()]);
            }
            _ => {
                self.visit(item);
                self.add(None, vec![Column::unknown_star()]);
            }
        }
    }

    fn add(&mut self, alias: Option<String>, columns: Vec<Column>) {
        self.add_source(Source { alias, rows: Rows::Derived(columns.into()) });
    }

    fn add_source(&mut self, source: Source) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.sources.push(source);
        }
    }

    /// An unqualified name is a CTE if one of that name is in reach. Renamed columns of a table stand open.
    fn scan_relation(&mut self, item: &Node) {
        let (schema, name) = names::relation(item);
        let (alias, columns) = names::alias(item);
        let alias = alias.or_else(|| Some(name.clone()));
        let cte = self.ctes.iter().rev().find(|(cte, _)| schema.is_none() && *cte == name).map(|(_, c)| Rc::clone(c));
        match cte {
            Some(rows) if columns.is_empty() => self.add_source(Source { alias, rows: Rows::Derived(rows) }),
            Some(rows) => self.add(alias, lineage::rename(rows.to_vec(), &columns)),
            None => {
                self.relation_named(schema.clone(), name.clone(), Effect::Read);
                match columns.is_empty() {
                    true => self.add_source(Source { alias, rows: Rows::Relation { schema, name } }),
                    false => {
                        // Under other names any of its columns may be meant.
                        self.column(Some(name), "*");
                        self.add(alias, vec![Column::unknown_star()]);
                    }
                }
            }
        }
    }

    /// Only a LATERAL sub-query sees its neighbours.
    fn scan_query(&mut self, item: &Node) {
        let hidden = if item.flag("lateral") { None } else { self.scopes.last_mut().map(std::mem::take) };
        let columns = item.node("subquery").map_or_else(Vec::new, |query| self.run(query));
        if let (Some(hidden), Some(scope)) = (hidden, self.scopes.last_mut()) {
            *scope = hidden;
        }
        let (alias, names) = names::alias(item);
        self.add(alias, lineage::rename(columns, &names));
    }

    /// A join with an alias hides its members behind that name.
    fn scan_join(&mut self, item: &Node) {
        let first = self.scopes.last().map_or(0, |s| s.sources.len());
        self.scan_list(item.node("larg").into_iter().chain(item.node("rarg")));
        self.maybe(item.node("quals"));
        let merges = item.flag("is_natural") || item.has("using_clause");
        for column in item.name_parts("using_clause") {
            self.column(None, column);
        }
        let Some(scope) = self.scopes.last_mut() else { return };
        scope.merged |= merges;
        if let (Some(alias), renamed) = names::alias(item) {
            let members = scope.sources.split_off(first);
            for member in members.into_iter().filter(|_| !renamed.is_empty()) {
                if let Rows::Relation { name, .. } = member.rows {
                    self.column(Some(name), "*");
                }
            }
            self.add(Some(alias), vec![Column::unknown_star()]);
        }
        if let Some(alias) = item.node("join_using_alias") {
            self.add(Some(alias.text("aliasname").to_owned()), vec![Column::unknown_star()]);
        }
    }

    /// A sampling method is a function in disguise.
    fn scan_sample(&mut self, item: &Node) {
        self.scan_list(item.node("relation").into_iter());
        let method = item.name_parts("method");
        if !matches!(method.as_slice(), ["system" | "bernoulli"] | ["pg_catalog", "system" | "bernoulli"])
            && let Some((schema, name)) = names::schema_and_name(&method)
        {
            self.effect(Effect::Call);
            self.function(schema, name, false);
        }
        self.with_literals(false, |w| {
            w.all(item.list("args"));
            w.maybe(item.node("repeatable"));
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
