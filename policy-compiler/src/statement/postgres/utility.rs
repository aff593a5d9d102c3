//! Statements other than queries: effects by the table of kinds, plus what their content adds.

use pg_query::protobuf::{AlterTableType, ObjectType};

use super::super::{Dropped, Effect, EffectSet, Named, Output};
use super::copy::{argument, is_on};
use super::kinds;
use super::lineage::{Column, Rows, Scope, Source};
use super::names;
use super::tree::Node;
use super::walk::Walk;

pub use super::kinds::tag;

/// Effects that plain EXPLAIN does not have, because nothing runs. Functions may: the planner folds constants.
const NOT_RUN: [Effect; 6] =
    [Effect::Insert, Effect::Update, Effect::Delete, Effect::Truncate, Effect::Ddl, Effect::Lock];

/// The server's `CURSOR_OPT_HOLD` (nodes/parsenodes.h).
const CURSOR_OPT_HOLD: i64 = 0x20;

impl Walk<'_> {
    /// Any statement that is no query; the columns of its result.
    pub fn utility(&mut self, node: &Node) -> Vec<Column> {
        let Some((_, effects)) = kinds::fixed(node.kind) else {
            self.opaque(&format!("the statement kind {}", node.kind));
            return Vec::new();
        };
        if node.kind == "VariableSetStmt" && self.on_relations.is_some() {
            // The SET clause of a function: it holds while the function runs.
            return Vec::new();
        }
        for effect in effects {
            self.effect(*effect);
        }
        let outer = std::mem::replace(&mut self.on_relations, effects.first().copied());
        let literals = std::mem::replace(&mut self.literals, false);
        let columns = self.special(node);
        self.literals = literals;
        self.on_relations = outer;
        columns
    }

    fn special(&mut self, node: &Node) -> Vec<Column> {
        match node.kind {
            "CopyStmt" => return self.copy(node),
            "VariableSetStmt" => self.variable_set(node),
            "DiscardStmt" => self.discard(node),
            // A prepared transaction belongs to nobody: any session of the upstream's role could end another's.
            "TransactionStmt" if tag(node).contains("PREPARE") => self.effect(Effect::Admin),
            // `UNLISTEN *` is part of what drivers do to reset a session.
            "UnlistenStmt" => {
                self.effect(if node.has("conditionname") { Effect::Listen } else { Effect::Session });
            }
            "VariableShowStmt" => return shown(node),
            "ExplainStmt" => return self.explain(node),
            "PrepareStmt" => return self.prepare(node),
            "DeclareCursorStmt" => return self.declare(node),
            "CreateTableAsStmt" => self.create_table_as(node),
            "DeallocateStmt" => self.out.drops = Some(Dropped::Prepared(name_or_all(node, "name"))),
            "ClosePortalStmt" => self.out.drops = Some(Dropped::Cursor(name_or_all(node, "portalname"))),
            "ExecuteStmt" => {
                self.out.uses = Some(Named::Prepared(node.text("name").to_owned()));
                self.children(node);
                return vec![Column::unknown_star()];
            }
            "FetchStmt" => {
                self.out.uses = Some(Named::Cursor(node.text("portalname").to_owned()));
                return if node.flag("ismove") { Vec::new() } else { vec![Column::unknown_star()] };
            }
            "CallStmt" => {
                self.children(node);
                return vec![Column::unknown_star()];
            }
            "AlterRoleSetStmt" | "AlterDatabaseSetStmt" | "AlterSystemStmt" => self.set_for_later(node.node("setstmt")),
            "DropStmt" => self.drop_objects(node),
            "RenameStmt" => {
                self.of_object(node, "rename_type");
                self.on_own_relation(node);
            }
            "AlterOwnerStmt" | "AlterObjectSchemaStmt" => {
                self.of_object(node, "object_type");
                self.on_own_relation(node);
            }
            "CommentStmt" | "SecLabelStmt" => self.labelled(node),
            "AlterTableStmt" => self.alter_table(node),
            "CreateFunctionStmt" => self.create_function(node),
            "CreateTrigStmt" => self.trigger(node),
            _ => self.on_own_relation(node),
        }
        Vec::new()
    }

    /// Visits everything below, with the statement's own relation as the scope of its expressions.
    fn on_own_relation(&mut self, node: &Node) {
        let mut scope = Scope::default();
        for field in ["relation", "table"] {
            if let Some(relation) = node.node_if(field).filter(|r| r.kind == "RangeVar") {
                let (schema, name) = names::relation(relation);
                let row = self.new_row();
                scope.sources.push(Source { alias: Some(name.clone()), rows: Rows::Relation { schema, name }, row });
            }
        }
        self.scopes.push(scope);
        self.children(node);
        self.scopes.pop();
    }

    /// Without ANALYZE the statement is planned, not run: its relations count as read.
    fn explain(&mut self, node: &Node) -> Vec<Column> {
        let on = |name: &str| node.list("options").any(|o| o.text("defname") == name && is_on(o));
        let (runs, verbose) = (on("analyze"), on("verbose"));
        if let Some(query) = node.node("query") {
            self.run(query);
        }
        // Of EXPLAIN DECLARE no cursor comes about.
        (self.out.defines, self.out.holds) = (None, false);
        if !runs {
            self.as_read();
        }
        let output = if runs || verbose { Output::Unknown } else { Output::Computed(Vec::new()) };
        vec![Column { name: Some("QUERY PLAN".to_owned()), output, open: false, row: 0 }]
    }

    fn as_read(&mut self) {
        let not_run = EffectSet::of(&NOT_RUN);
        let read = |set: EffectSet| {
            if set.intersection(not_run).is_empty() { set } else { set.minus(not_run).with(Effect::Read) }
        };
        self.out.effects = read(self.out.effects);
        for relation in &mut self.out.relations {
            relation.effects = read(relation.effects);
        }
        self.out.without_where = false;
    }

    /// The result is that of a later EXECUTE, which masks need.
    fn prepare(&mut self, node: &Node) -> Vec<Column> {
        self.out.defines = Some(Named::Prepared(node.text("name").to_owned()));
        node.node("query").map_or_else(Vec::new, |query| self.run(query))
    }

    /// The result is that of a later FETCH.
    fn declare(&mut self, node: &Node) -> Vec<Column> {
        self.out.defines = Some(Named::Cursor(node.text("portalname").to_owned()));
        self.out.holds = node.int("options") & CURSOR_OPT_HOLD != 0;
        node.node("query").map_or_else(Vec::new, |query| self.run(query))
    }

    fn create_table_as(&mut self, node: &Node) {
        if let Some(query) = node.node("query") {
            self.run(query);
        }
        if let Some(into) = node.node("into") {
            self.into(into);
        }
    }

    /// Relations stand as dotted names; a rule, trigger or policy ends with its own name.
    fn drop_objects(&mut self, node: &Node) {
        let object = ObjectType::try_from(i32::try_from(node.int("remove_type")).unwrap_or(0));
        for name in node.list("objects").filter(|n| n.kind == "List") {
            let parts = name.name_parts("items");
            if let Some((schema, name)) = relation_in(object.ok(), &parts) {
                self.relation_named(schema, name, Effect::Ddl);
            }
        }
        self.of_object(node, "remove_type");
    }

    /// Some types of objects are matters of rights, or of the whole server.
    fn of_object(&mut self, node: &Node, field: &str) {
        use ObjectType as O;
        match ObjectType::try_from(i32::try_from(node.int(field)).unwrap_or(0)) {
            Ok(O::ObjectPolicy | O::ObjectRole) => self.effect(Effect::Dcl),
            Ok(O::ObjectDatabase | O::ObjectTablespace | O::ObjectExtension | O::ObjectLanguage) => {
                self.effect(Effect::Admin);
            }
            Ok(O::ObjectFdw | O::ObjectForeignServer | O::ObjectAccessMethod | O::ObjectEventTrigger) => {
                self.effect(Effect::Admin);
            }
            Ok(O::ObjectPublication | O::ObjectSubscription) => self.effect(Effect::Admin),
            _ => {}
        }
    }

    fn labelled(&mut self, node: &Node) {
        let object = ObjectType::try_from(i32::try_from(node.int("objtype")).unwrap_or(0)).ok();
        let parts = node.node("object").filter(|n| n.kind == "List").map(|n| n.name_parts("items"));
        let effect = self.on_relations.unwrap_or(Effect::Ddl);
        if let Some((schema, name)) = parts.and_then(|parts| relation_in(object, &parts)) {
            self.relation_named(schema, name, effect);
        }
    }

    /// Owners, row security and triggers that guard rows are matters of rights.
    fn alter_table(&mut self, node: &Node) {
        use AlterTableType as A;
        for command in node.list("cmds") {
            match A::try_from(i32::try_from(command.int("subtype")).unwrap_or(0)) {
                Ok(A::AtChangeOwner | A::AtEnableRowSecurity | A::AtDisableRowSecurity) => self.effect(Effect::Dcl),
                Ok(A::AtForceRowSecurity | A::AtNoForceRowSecurity) => self.effect(Effect::Dcl),
                Ok(A::Undefined) | Err(_) => self.opaque("this form of ALTER TABLE"),
                Ok(_) => {}
            }
        }
        self.on_own_relation(node);
    }

    /// A body in C is a library of the server; a body in BEGIN ATOMIC is analysed; any other is text.
    fn create_function(&mut self, node: &Node) {
        for option in node.list("options").filter(|o| o.text("defname") == "language") {
            if matches!(argument(option).to_ascii_lowercase().as_str(), "c" | "internal") {
                self.effect(Effect::File);
            }
        }
        self.children(node);
    }

    /// The function runs later, for whoever writes the table.
    fn trigger(&mut self, node: &Node) {
        if let Some((schema, name)) = names::schema_and_name(&node.name_parts("funcname")) {
            self.function(schema, name, false);
        }
        self.on_own_relation(node);
    }
}

/// Without a name it is ALL.
fn name_or_all(node: &Node, field: &str) -> Option<String> {
    Some(node.text(field)).filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The relation among the parts of an object's name, if it has one.
fn relation_in(object: Option<ObjectType>, parts: &[&str]) -> Option<(Option<String>, String)> {
    use ObjectType as O;
    match object? {
        O::ObjectTable | O::ObjectView | O::ObjectMatview | O::ObjectForeignTable => names::schema_and_name(parts),
        O::ObjectSequence | O::ObjectIndex => names::schema_and_name(parts),
        O::ObjectColumn | O::ObjectRule | O::ObjectTrigger | O::ObjectPolicy | O::ObjectTabconstraint => {
            parts.split_last().and_then(|(_, relation)| names::schema_and_name(relation))
        }
        _ => None,
    }
}

/// `SHOW ALL` has three columns. A setting's value is the server's or the session's own.
fn shown(node: &Node) -> Vec<Column> {
    let names: &[&str] = if node.text("name") == "all" { &["name", "setting", "description"] } else { &["setting"] };
    let column = |name: &&str| {
        let name = Some((*name).to_owned());
        Column { name, output: Output::Computed(Vec::new()), open: false, row: 0 }
    };
    names.iter().map(column).collect()
}
