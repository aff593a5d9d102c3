//! Expressions: effects of what is called in them, and what their value shows.

use pg_query::protobuf::SubLinkType;

use super::super::{Effect, Output};
use super::functions::{self, Class};
use super::lineage::{self, Rows};
use super::names;
use super::queries;
use super::tree::Node;
use super::walk::Walk;

impl Walk {
    /// Any node below a statement. Kinds that are not named here are descended into, and their value is unknown.
    pub fn visit(&mut self, node: &Node) -> Output {
        match node.kind {
            "AConst" => self.constant(node),
            "ColumnRef" => self.column_reference(node),
            "FuncCall" => self.call(node),
            "SubLink" => self.sub_query(node),
            "TypeCast" => self.cast(node),
            "AExpr" => self.operator(node),
            "RangeVar" => self.named_relation(node),
            "ParamRef" | "SqlValueFunction" | "MergeSupportFunc" | "SetToDefault" | "AStar" => Output::Harmless,
            "NullTest" | "GroupingFunc" => {
                self.children(node);
                Output::Harmless
            }
            "BoolExpr" | "BooleanTest" | "CaseExpr" | "CaseWhen" | "CoalesceExpr" | "MinMaxExpr" | "RowExpr"
            | "AArrayExpr" | "List" | "CollateClause" => self.combined(node),
            "AIndirection" => self.indirection(node),
            "IndexElem" => self.index_element(node),
            "ResTarget" | "MultiAssignRef" | "AIndices" | "NamedArgExpr" => {
                self.children(node);
                Output::Unknown
            }
            kind if kind.ends_with("Stmt") => {
                let columns = self.run(node);
                queries::scalar(&columns)
            }
            _ => {
                self.with_literals(false, |w| w.children(node));
                Output::Unknown
            }
        }
    }

    fn constant(&mut self, node: &Node) -> Output {
        self.literal_matters |= !self.literals && !node.flag("isnull");
        Output::Harmless
    }

    /// Harmless if all its parts are: whatever is computed from nothing shows nothing.
    fn combined(&mut self, node: &Node) -> Output {
        let mut harmless = true;
        for child in node.children() {
            harmless &= self.visit(child) == Output::Harmless;
        }
        if harmless { Output::Harmless } else { Output::Unknown }
    }

    /// An operator of a schema of its own is a function of somebody's.
    fn operator(&mut self, node: &Node) -> Output {
        let name = node.name_parts("name");
        let foreign = name.len() > 1 && name.first() != Some(&"pg_catalog");
        if let (true, Some((schema, name))) = (foreign, names::schema_and_name(&name)) {
            self.effect(Effect::Call);
            self.function(schema, name, false);
        }
        let (left, right) = self
            .with_literals(self.literals && !foreign, |w| (w.maybe(node.node("lexpr")), w.maybe(node.node("rexpr"))));
        if left == Output::Harmless && right == Output::Harmless { Output::Harmless } else { Output::Unknown }
    }

    /// A constant cast to `regclass` and its like is a name; one cast to an unknown type may be anything.
    fn cast(&mut self, node: &Node) -> Output {
        let type_name = node.node("type_name");
        let plain = type_name.is_some_and(|t| functions::type_is_plain(&t.name_parts("names")));
        let output = self.with_literals(self.literals && plain, |w| w.maybe(node.node("arg")));
        self.with_literals(false, |w| w.maybe(type_name));
        if output == Output::Harmless { Output::Harmless } else { Output::Unknown }
    }

    fn indirection(&mut self, node: &Node) -> Output {
        self.maybe(node.node("arg"));
        for part in node.list("indirection") {
            match part.kind {
                "String" => self.column(None, part.text("sval")),
                _ => drop(self.visit(part)),
            }
        }
        Output::Unknown
    }

    /// A column of an index or of ON CONFLICT is a mere name, unless it is an expression.
    fn index_element(&mut self, node: &Node) -> Output {
        let name = node.text("name");
        if !name.is_empty() {
            let relation = lineage::relation_of(&lineage::bare(&self.scopes, name));
            self.column(relation, name);
        }
        self.with_literals(false, |w| w.children(node));
        Output::Unknown
    }

    fn named_relation(&mut self, node: &Node) -> Output {
        let effect = self.on_relations.unwrap_or(Effect::Read);
        self.relation(node, effect);
        Output::Unknown
    }

    fn sub_query(&mut self, node: &Node) -> Output {
        self.maybe(node.node("testexpr"));
        let columns = node.node("subselect").map_or_else(Vec::new, |query| self.run(query));
        match SubLinkType::try_from(i32::try_from(node.int("sub_link_type")).unwrap_or(0)) {
            Ok(SubLinkType::ExistsSublink) => Output::Harmless,
            Ok(SubLinkType::ExprSublink) => queries::scalar(&columns),
            _ => Output::Unknown,
        }
    }

    fn column_reference(&mut self, node: &Node) -> Output {
        let parts = node.name_parts("fields");
        if node.list("fields").any(|n| n.kind == "AStar") {
            self.star_reference(&parts);
            return Output::Unknown;
        }
        let (qualifier, output) = match parts.as_slice() {
            [name] => (None, lineage::bare(&self.scopes, name)),
            [table, name] => (Some(*table), lineage::qualified(&self.scopes, None, table, name)),
            [schema, table, name] => (Some(*table), lineage::qualified(&self.scopes, Some(schema), table, name)),
            _ => (None, Output::Unknown),
        };
        let Some(name) = parts.last() else { return Output::Unknown };
        self.column(lineage::relation_of(&output), name);
        match qualifier {
            None if lineage::whole_row(&self.scopes, name).is_some() => self.star_reference(&[name]),
            // `c.row_to_json` is `row_to_json(c)` to the server when there is no such column.
            Some(table) if functions::takes_row(name) => {
                self.star_reference(&[table]);
                return Output::Unknown;
            }
            _ => {}
        }
        output
    }

    /// Notes `*` for each relation that the star covers.
    fn star_reference(&mut self, parts: &[&str]) {
        let mut relations: Vec<Option<String>> = Vec::new();
        let covered = self.scopes.iter().rev().take(if parts.is_empty() { 1 } else { usize::MAX });
        for source in covered.flat_map(|s| s.sources.iter().chain(&s.hidden)) {
            let meant = parts.last().is_none_or(|alias| source.alias.as_deref() == Some(alias));
            if let Rows::Relation { name, .. } = &source.rows
                && meant
            {
                relations.push(Some(name.clone()));
            }
        }
        if relations.is_empty() {
            relations.push(None);
        }
        for relation in relations {
            self.column(relation, "*");
        }
    }

    fn call(&mut self, node: &Node) -> Output {
        let Some((schema, name)) = names::schema_and_name(&node.name_parts("funcname")) else {
            self.opaque("a function call without a name");
            return Output::Unknown;
        };
        let class = functions::classify(schema.as_deref(), &name);
        self.function(schema, name.clone(), matches!(class, Class::Plain | Class::NamesThings));
        match class {
            Class::Plain | Class::NamesThings => {}
            Class::SetConfig => self.set_config(node),
            Class::Has(effect) => self.effect(effect),
            Class::Unknown => self.effect(Effect::Call),
        }
        let plain = matches!(class, Class::Plain);
        let arguments = self.with_literals(self.literals && plain, |w| w.arguments(node));
        self.with_literals(false, |w| {
            w.all(node.list("agg_order"));
            w.maybe(node.node("over"));
        });
        self.with_literals(self.literals, |w| w.maybe(node.node("agg_filter")));
        match class {
            Class::Plain if name == "count" => Output::Harmless,
            Class::Plain | Class::NamesThings => arguments,
            _ => Output::Unknown,
        }
    }

    fn arguments(&mut self, node: &Node) -> Output {
        let mut harmless = true;
        for argument in node.list("args") {
            harmless &= self.visit(argument) == Output::Harmless;
        }
        if harmless { Output::Harmless } else { Output::Unknown }
    }
}
