//! The walk over one statement: collects effects, relations, columns and functions, and hands back lineage.
//!
//! Every reference to a column is put down in one log as it is met. What an expression shows, and what a condition sets
//! against what, is read off the stretch of the log that its visit has written: nothing that was visited can be forgotten.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::super::{
    Called, ColumnUse, Effect, EffectSet, FunctionUse, Output, Places, RelationUse, Statement, UNKNOWN_COLUMN,
};
use super::lineage::{Column, Scope};
use super::server::Server;
use super::tree::Node;
use super::{names, queries, utility};
use crate::policy::catalogs;

/// More columns than this are not told apart where they flow into one value: it is unknown then.
const FLOWS_MAX: usize = 256;

/// Analyses one statement's tree; `None` if it takes more than `steps` steps, which are taken off.
pub fn statement(tree: &Node, server: Server<'_>, steps: &mut u32) -> Option<Statement> {
    let mut walk = Walk::new(server, *steps);
    walk.out.tag = utility::tag(tree);
    let columns = walk.run(tree);
    let rows = walk.out.tag != "SELECT INTO";
    walk.out.output = columns.into_iter().filter(|_| rows).map(Column::into_output).collect();
    walk.out.literals_are_plain = queries::is_query(tree) && !walk.literal_matters;
    walk.out.is_flat = walk.levels == 1 && !walk.derives;
    walk.note_unwritten_casts();
    *steps = walk.steps;
    (*steps > 0).then_some(walk.out)
}

/// A common table expression in reach.
#[derive(Clone)]
pub struct Cte {
    pub name: String,
    pub columns: Rc<[Column]>,
    /// What picks its rows.
    pub picked: Rc<[u32]>,
}

/// One reference in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Place in [`Statement::columns`]; `None` for a value into which no column flows, like a number of rows.
    pub column: Option<u32>,
    /// Whose row it is of. Two references with the same are of one row.
    pub row: u32,
}

pub struct Walk<'s> {
    pub out: Statement,
    pub server: Server<'s>,
    /// CTEs in reach, innermost last.
    pub ctes: Vec<Cte>,
    /// FROM clauses in reach, innermost last.
    pub scopes: Vec<Scope>,
    /// What a relation named outside FROM suffers: set by utility statements.
    pub on_relations: Option<Effect>,
    /// A constant here cannot change the verdict.
    pub literals: bool,
    /// Some constant stood where it can.
    pub literal_matters: bool,
    /// The one setting whose row of pg_settings the statement picks, if it is of the form that pg_dump sends.
    pub pg_settings_row: Option<String>,
    /// Query levels met.
    pub levels: u32,
    /// Rows come from something else than a relation: a function, VALUES, a set operation.
    pub derives: bool,
    /// The sub-query that is visited next picks rows by a condition of its own: see [`Walk::condition_on_query`].
    pub is_condition: bool,
    /// References of what is being visited: see [`Walk::flows_since`].
    log: Vec<Reference>,
    /// Columns that pick rows, as they were met: whether a row is there tells of them.
    picked: Vec<u32>,
    /// Left of the budget; 0 when it is used up, and then nothing more is visited.
    steps: u32,
    rows_made: u32,
    rows_of: HashMap<(u32, u32), u32>,
    relation_index: HashMap<(Option<String>, String), usize>,
    columns_seen: HashMap<(Option<String>, String), u32>,
    functions_seen: HashSet<(Option<String>, String)>,
    called_seen: HashSet<(Option<String>, String)>,
}

impl<'s> Walk<'s> {
    fn new(server: Server<'s>, steps: u32) -> Self {
        Self {
            out: Statement::default(),
            server,
            ctes: Vec::new(),
            scopes: Vec::new(),
            on_relations: None,
            literals: false,
            literal_matters: false,
            pg_settings_row: None,
            levels: 0,
            derives: false,
            is_condition: false,
            log: Vec::new(),
            picked: Vec::new(),
            steps,
            rows_made: 0,
            rows_of: HashMap::new(),
            relation_index: HashMap::new(),
            columns_seen: HashMap::new(),
            functions_seen: HashSet::new(),
            called_seen: HashSet::new(),
        }
    }

    /// A statement of any kind; the columns of its result.
    pub fn run(&mut self, node: &Node) -> Vec<Column> {
        if queries::is_query(node) { self.query(node) } else { self.utility(node) }
    }

    /// Takes steps off the budget. False when it is used up: whoever loops or descends then stops.
    pub fn step(&mut self, steps: usize) -> bool {
        self.steps = self.steps.saturating_sub(u32::try_from(steps).unwrap_or(u32::MAX));
        self.steps > 0
    }

    /// [`Effect::Call`] of a function has [`Walk::calls`]: without a name, only a grant of every call carries it.
    pub fn effect(&mut self, effect: Effect) {
        self.out.effects = self.out.effects.with(effect);
        self.out.calls_unnamed |= effect == Effect::Call;
    }

    /// A function is called of which nobody knows what it does.
    pub fn calls(&mut self, schema: Option<String>, name: String) {
        self.out.effects = self.out.effects.with(Effect::Call);
        if self.called_seen.insert((schema.clone(), name.clone())) {
            self.out.called.push(Called { schema, name });
        }
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

    /// A relation's effect; who writes to the server's own relations administers it.
    pub fn relation_named(&mut self, schema: Option<String>, name: String, effect: Effect) {
        use Effect::{Admin, Ddl, Delete, Insert, Truncate, Update};
        let writes = matches!(effect, Insert | Update | Delete | Truncate | Ddl);
        if writes && catalogs::is_of_system(schema.as_deref(), &name) {
            self.relation_effect(schema.clone(), name.clone(), Admin);
        }
        self.relation_effect(schema, name, effect);
    }

    pub fn relation_effect(&mut self, schema: Option<String>, name: String, effect: Effect) {
        self.effect(effect);
        let relations = &mut self.out.relations;
        let at = *self.relation_index.entry((schema.clone(), name.clone())).or_insert_with(|| {
            relations.push(RelationUse { schema, name, effects: EffectSet::EMPTY });
            relations.len() - 1
        });
        relations[at].effects = relations[at].effects.with(effect);
    }

    /// Notes that a column is named; its place in the statement's list.
    pub fn column(&mut self, relation: Option<String>, name: &str) -> u32 {
        let columns = &mut self.out.columns;
        *self.columns_seen.entry((relation, name.to_owned())).or_insert_with_key(|(relation, name)| {
            let (relation, name) = (relation.clone(), name.clone());
            columns.push(ColumnUse { relation, name, places: Places::SHOWN });
            u32::try_from(columns.len() - 1).unwrap_or(u32::MAX)
        })
    }

    /// A function that may do or show anything; returns nothing that is known.
    pub fn foreign_call(&mut self, schema: Option<String>, name: String) {
        self.calls(schema.clone(), name.clone());
        self.function(schema, name, false);
        self.refer_to_unknown();
    }

    /// As [`Walk::foreign_call`], for what has no name that a grant could give: an operator, a cast.
    pub fn foreign_form(&mut self, schema: Option<String>, name: String) {
        self.effect(Effect::Call);
        self.function(schema, name, false);
        self.refer_to_unknown();
    }

    pub fn function(&mut self, schema: Option<String>, name: String, plain: bool) {
        let functions = &mut self.out.functions;
        if self.functions_seen.insert((schema.clone(), name.clone())) {
            functions.push(FunctionUse { schema, name, plain });
        } else if !plain {
            // The same name may be a user's function here and a plain one there.
            functions.iter_mut().filter(|f| f.schema == schema && f.name == name).for_each(|f| f.plain = false);
        }
    }

    /// A cast that nobody has written can stand between any two types: where a user's function may be behind one, any
    /// statement may call it.
    fn note_unwritten_casts(&mut self) {
        if self.server.additions.has_unwritten_casts() && !self.out.relations.is_empty() {
            self.foreign_form(None, "cast".to_owned());
        }
    }

    /// Runs `body` where constants count as plain or not.
    pub fn with_literals<T>(&mut self, plain: bool, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.literals, plain);
        let result = body(self);
        self.literals = outer;
        result
    }

    /// The text of a string constant, also with a cast to text. Whoever reads it makes it matter: this is the only way.
    pub fn literal<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        self.literal_matters = true;
        let value = match node.kind {
            "TypeCast" => {
                let parts = node.node("type_name").map(|t| t.name_parts("names")).unwrap_or_default();
                let text = matches!(parts.as_slice(), ["text"] | ["pg_catalog", "text"]);
                node.node("arg").filter(|_| text)?.constant()?
            }
            _ => node.constant()?,
        };
        (value.kind == "String").then(|| value.text("sval"))
    }

    /// The number of an integer constant, which then matters.
    pub fn literal_integer(&mut self, node: &Node) -> Option<i64> {
        let value = node.constant()?;
        self.literal_matters = true;
        (value.kind == "Integer").then(|| value.int("ival"))
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
    pub fn maybe(&mut self, node: Option<&Node>) -> Option<Output> {
        node.and_then(|n| self.visit(n))
    }
}

/// The log of references.
impl Walk<'_> {
    /// A place in the log, for what follows.
    pub fn mark(&self) -> usize {
        self.log.len()
    }

    /// A row that nothing else is of.
    pub fn new_row(&mut self) -> u32 {
        self.rows_made += 1;
        self.rows_made
    }

    /// The row that `row` of a sub-query's sources is to whoever reads the sub-query as source `source`.
    pub fn row_through(&mut self, source: u32, row: u32) -> u32 {
        let made = &mut self.rows_made;
        *self.rows_of.entry((source, row)).or_insert_with(|| {
            *made += 1;
            *made
        })
    }

    pub fn refer(&mut self, column: Option<u32>, row: u32) {
        if self.step(1) {
            self.log.push(Reference { column, row });
        }
    }

    /// A value comes in of which nothing is known.
    pub fn refer_to_unknown(&mut self) {
        let (column, row) = (self.column(None, UNKNOWN_COLUMN), self.new_row());
        self.refer(Some(column), row);
    }

    /// A value comes in that is the same for no two rows, though no column flows into it: a number of rows, say.
    pub fn refer_to_nothing(&mut self) {
        let row = self.new_row();
        self.refer(None, row);
    }

    /// Refers to all that flows into an output.
    pub fn refer_to(&mut self, output: &Output, row: u32) {
        match self.flows_of(output) {
            flows if flows.is_empty() => self.refer(None, row),
            flows => flows.into_iter().for_each(|column| self.refer(Some(column), row)),
        }
    }

    /// The columns that flow into an output.
    pub fn flows_of(&mut self, output: &Output) -> Vec<u32> {
        match output {
            Output::All { relation, .. } => vec![self.column(Some(relation.clone()), "*")],
            Output::Column { relation, name } => vec![self.column(relation.clone(), name)],
            Output::Rows => Vec::new(),
            Output::Computed(flows) => {
                self.step(flows.len());
                flows.clone()
            }
            Output::Unknown => vec![self.column(None, UNKNOWN_COLUMN)],
        }
    }

    /// The columns that were referred to since `mark`, in order, each once.
    pub fn flows_since(&mut self, mark: usize) -> Vec<u32> {
        self.step(self.log.len() - mark);
        let mut flows: Vec<u32> = self.log[mark..].iter().filter_map(|reference| reference.column).collect();
        flows.sort_unstable();
        flows.dedup();
        self.bounded(flows)
    }

    pub fn bounded(&mut self, flows: Vec<u32>) -> Vec<u32> {
        if flows.len() > FLOWS_MAX { vec![self.column(None, UNKNOWN_COLUMN)] } else { flows }
    }

    /// What was referred to since `mark` stands at a place.
    pub fn place(&mut self, mark: usize, place: Places) {
        self.step(self.log.len() - mark);
        for reference in &self.log[mark..] {
            if let Some(column) = reference.column.and_then(|c| self.out.columns.get_mut(c as usize)) {
                column.places = column.places.with(place);
            }
        }
    }

    /// As [`Walk::place`], for the columns that flow into an output.
    pub fn place_output(&mut self, output: &Output, place: Places) {
        let columns = self.flows_of(output);
        self.place_columns(&columns, place);
        self.pick_by(&columns);
    }

    /// A condition, or an expression that groups or orders, was visited since `mark`: if all of it is of one row, it asks a
    /// question of each; else the rows that come tell of one value by another.
    pub fn place_condition(&mut self, mark: usize) {
        let first = self.log.get(mark).map(|reference| reference.row);
        let one_row = self.log[mark..].iter().all(|reference| Some(reference.row) == first);
        self.place(mark, if one_row { Places::PICKS } else { Places::SHAPES });
        let columns = self.flows_since(mark);
        self.picked.extend(columns);
    }

    /// A place among the columns that pick rows, for what follows.
    pub fn picked_mark(&self) -> usize {
        self.picked.len()
    }

    /// The columns that have picked rows since then, each once.
    pub fn picked_since(&mut self, mark: usize) -> Vec<u32> {
        self.step(self.picked.len() - mark);
        let mut columns = self.picked[mark..].to_vec();
        columns.sort_unstable();
        columns.dedup();
        self.bounded(columns)
    }

    /// What picks the rows of a source picks those of whoever reads it.
    pub fn pick_by(&mut self, columns: &[u32]) {
        if self.step(columns.len()) {
            self.picked.extend_from_slice(columns);
        }
    }

    pub fn place_columns(&mut self, columns: &[u32], place: Places) {
        for column in columns {
            if let Some(column) = self.out.columns.get_mut(*column as usize) {
                column.places = column.places.with(place);
            }
        }
    }

    /// A value was visited since `mark`: one computed from several rows tells of one by another, if by no more than the row at
    /// which it fails.
    pub fn place_value(&mut self, mark: usize) {
        let mut rows = self.log[mark..].iter().filter(|r| r.column.is_some()).map(|r| r.row);
        let first = rows.next();
        if rows.any(|row| Some(row) != first) {
            self.place(mark, Places::SHAPES);
        }
    }

    /// The row that all references since `mark` are of; a new one if they are of several, or of none.
    pub fn row_since(&mut self, mark: usize) -> u32 {
        match &self.log[mark..] {
            [first, rest @ ..] if rest.iter().all(|reference| reference.row == first.row) => first.row,
            _ => self.new_row(),
        }
    }

    /// Takes back what was written since `mark`: its own level has placed it.
    pub fn forget_since(&mut self, mark: usize) {
        self.log.truncate(mark);
    }

    /// The references since `mark` once more, for a clause that is used in several places.
    pub fn copy_since(&self, mark: usize) -> Vec<Reference> {
        self.log[mark..].to_vec()
    }

    pub fn refer_again(&mut self, references: &[Reference]) {
        if self.step(references.len()) {
            self.log.extend_from_slice(references);
        }
    }
}
