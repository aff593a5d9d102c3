//! The walk over one statement: collects effects, relations, columns and functions, and hands back lineage.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::super::{ColumnUse, Effect, EffectSet, FunctionUse, Output, RelationUse, Statement};
use super::lineage::{Column, Scope};
use super::tree::Node;
use super::{names, queries, utility};

/// Analyses one statement's tree.
pub fn statement(tree: &Node) -> Statement {
    let mut walk = Walk { out: Statement { tag: utility::tag(tree), ..Statement::default() }, ..Walk::default() };
    let columns = walk.run(tree);
    let rows = walk.out.tag != "SELECT INTO";
    walk.out.output = columns.into_iter().filter(|_| rows).map(|c| c.output).collect();
    walk.out.literals_are_plain = queries::is_query(tree) && !walk.literal_matters;
    walk.out
}

#[derive(Default)]
pub struct Walk {
    pub out: Statement,
    /// CTEs in reach, innermost last.
    pub ctes: Vec<(String, Rc<[Column]>)>,
    /// FROM clauses in reach, innermost last.
    pub scopes: Vec<Scope>,
    /// What a relation named outside FROM suffers: set by utility statements.
    pub on_relations: Option<Effect>,
    /// A constant here cannot change the verdict.
    pub literals: bool,
    /// Some constant stood where it can.
    pub literal_matters: bool,
    /// The setting whose row of pg_settings the SELECT at hand picks.
    pub pg_settings_row: Option<String>,
    relation_index: HashMap<(Option<String>, String), usize>,
    columns_seen: HashSet<(Option<String>, String)>,
    functions_seen: HashSet<(Option<String>, String)>,
}

impl Walk {
    /// A statement of any kind; the columns of its result.
    pub fn run(&mut self, node: &Node) -> Vec<Column> {
        if queries::is_query(node) { self.query(node) } else { self.utility(node) }
    }

    pub fn effect(&mut self, effect: Effect) {
        self.out.effects = self.out.effects.with(effect);
    }

    /// Marks the statement as not understood; the first reason is kept.
    pub fn opaque(&mut self, why: &str) {
        self.effect(Effect::Opaque);
        self.out.opaque.get_or_insert_with(|| why.to_owned());
    }

    /// A relation named by a `RangeVar`.
    pub fn relation(&mut self, node: &Node, effect: Effect) {
        let (schema, name) = names::relation(node);
        self.relation_named(schema, name, effect);
    }

    pub fn relation_named(&mut self, schema: Option<String>, name: String, effect: Effect) {
        self.effect(effect);
        let relations = &mut self.out.relations;
        let at = *self.relation_index.entry((schema.clone(), name.clone())).or_insert_with(|| {
            relations.push(RelationUse { schema, name, effects: EffectSet::EMPTY });
            relations.len() - 1
        });
        relations[at].effects = relations[at].effects.with(effect);
    }

    pub fn column(&mut self, relation: Option<String>, name: &str) {
        if self.columns_seen.insert((relation.clone(), name.to_owned())) {
            self.out.columns.push(ColumnUse { relation, name: name.to_owned() });
        }
    }

    pub fn function(&mut self, schema: Option<String>, name: String, plain: bool) {
        if self.functions_seen.insert((schema.clone(), name.clone())) {
            self.out.functions.push(FunctionUse { schema, name, plain });
        }
    }

    /// Runs `body` where constants count as plain or not.
    pub fn with_literals<T>(&mut self, plain: bool, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.literals, plain);
        let result = body(self);
        self.literals = outer;
        result
    }

    /// Visits all children for their effects.
    pub fn children(&mut self, node: &Node) {
        for child in node.children() {
            self.visit(child);
        }
    }

    /// Visits each node of the list.
    pub fn all<'n>(&mut self, nodes: impl Iterator<Item = &'n Node>) {
        for node in nodes {
            self.visit(node);
        }
    }

    /// Visits a node that may be absent.
    pub fn maybe(&mut self, node: Option<&Node>) -> Output {
        node.map_or(Output::Harmless, |n| self.visit(n))
    }
}
