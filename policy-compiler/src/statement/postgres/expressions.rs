//! Expressions: effects of what is called in them, and which columns flow into their value.

use pg_query::protobuf::{CoercionForm, SubLinkType};

use super::super::{Effect, Output, Places};
use super::functions::{self, Class};
use super::lineage::{self, Rows};
use super::names;
use super::server::Version;
use super::tree::Node;
use super::walk::Walk;

/// What the grammar of 18 reads as a form of its own and an older server as a call of a function, or not at all: since when.
#[rustfmt::skip]
const FORMS: &[(&str, Version, &str)] = &[
    ("JsonArrayAgg", Version::V16, "JSON_ARRAYAGG"),
    ("JsonArrayConstructor", Version::V16, "JSON_ARRAY"),
    ("JsonArrayQueryConstructor", Version::V16, "JSON_ARRAY"),
    ("JsonIsPredicate", Version::V16, "IS JSON"),
    ("JsonObjectAgg", Version::V16, "JSON_OBJECTAGG"),
    ("JsonObjectConstructor", Version::V16, "JSON_OBJECT"),
    ("JsonFuncExpr", Version::V17, "JSON_EXISTS, JSON_QUERY or JSON_VALUE"),
    ("JsonParseExpr", Version::V17, "JSON(…)"),
    ("JsonScalarExpr", Version::V17, "JSON_SCALAR"),
    ("JsonSerializeExpr", Version::V17, "JSON_SERIALIZE"),
    ("JsonTable", Version::V17, "JSON_TABLE"),
    ("MergeSupportFunc", Version::V17, "MERGE_ACTION()"),
    ("ReturningOption", Version::V18, "RETURNING WITH"),
];

impl Walk<'_> {
    /// Any node below a statement. Kinds that are not named here are descended into. What is handed back is the output of a
    /// bare column or a number of rows; `None` is an expression, into which flows what its visit has put into the log.
    pub fn visit(&mut self, node: &Node) -> Option<Output> {
        if !self.step(1) {
            return None;
        }
        self.check_form(node);
        match node.kind {
            "AConst" => self.constant(node),
            "ColumnRef" => return self.column_reference(node),
            "FuncCall" => return self.call(node),
            "SubLink" => self.sub_query(node),
            "TypeCast" => self.cast(node),
            "AExpr" => self.operator(node),
            "CaseExpr" => self.case(node),
            "NullTest" => self.null_test(node),
            "RangeVar" => {
                let effect = self.on_relations.unwrap_or(Effect::Read);
                self.relation(node, effect);
            }
            "ParamRef" | "SqlValueFunction" | "MergeSupportFunc" | "SetToDefault" | "AStar" => {}
            "GroupingFunc" | "BoolExpr" | "BooleanTest" | "CaseWhen" | "CoalesceExpr" | "MinMaxExpr" | "RowExpr"
            | "AArrayExpr" | "List" | "CollateClause" | "ResTarget" | "MultiAssignRef" | "AIndices"
            | "NamedArgExpr" => {
                self.children(node);
            }
            "AIndirection" => self.indirection(node),
            "IndexElem" => self.index_element(node),
            "SortBy" => self.sort_key(node),
            kind if kind.ends_with("Stmt") => self.value_of_query(node),
            _ => self.with_literals(false, |w| w.children(node)),
        }
        None
    }

    /// The analysis reads every text by the newest grammar: what an older server reads otherwise is not judged by it.
    pub fn check_form(&mut self, node: &Node) {
        let form = FORMS.iter().find(|(kind, since, _)| *kind == node.kind && self.server.version < *since);
        if let Some((_, since, form)) = form {
            let (since, own) = (since.major(), self.server.version.major());
            self.opaque(&format!("{form} is of PostgreSQL {since}; the server is {own} and reads it otherwise"));
        }
    }

    fn constant(&mut self, node: &Node) {
        self.literal_matters |= !self.literals && !node.flag("isnull");
    }

    /// `IS NULL` of a bare column tells nothing of its value but that.
    fn null_test(&mut self, node: &Node) {
        let mark = self.mark();
        let output = self.maybe(node.node("arg"));
        if let Some(Output::Column { relation: Some(_), .. }) = output {
            self.forget_since(mark);
        }
    }

    /// An operator may be somebody's: of a schema of its own, or of a name that the system has too.
    fn operator(&mut self, node: &Node) {
        let name = node.name_parts("name");
        let foreign = self.is_foreign_operator(&name);
        self.with_literals(self.literals && !foreign, |w| {
            w.maybe(node.node("lexpr"));
            w.maybe(node.node("rexpr"));
        });
        self.note_operator(&name);
    }

    /// Effects of an operator's function.
    pub fn note_operator(&mut self, name: &[&str]) {
        if self.is_foreign_operator(name)
            && let Some((schema, name)) = names::schema_and_name(name)
        {
            self.foreign_form(schema, name);
        }
    }

    fn is_foreign_operator(&self, name: &[&str]) -> bool {
        match name {
            [] => self.server.additions.has_operator("="),
            // Forms of the grammar that stand for operators of other names.
            [word] if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let additions = self.server.additions;
                ["=", "<>", "<", "<=", ">", ">="].iter().any(|operator| additions.has_operator(operator))
            }
            [name] => self.server.additions.has_operator(name),
            [schema, ..] => *schema != "pg_catalog",
        }
    }

    /// `CASE x WHEN y` compares.
    fn case(&mut self, node: &Node) {
        self.children(node);
        if node.has("arg") {
            self.note_operator(&["="]);
        }
    }

    fn sort_key(&mut self, node: &Node) {
        self.children(node);
        let operator = node.name_parts("use_op");
        if !operator.is_empty() {
            self.note_operator(&operator);
        }
    }

    /// A constant cast to `regclass` and its like is a name; one cast to an unknown type may be anything.
    fn cast(&mut self, node: &Node) {
        let type_name = node.node("type_name");
        let parts = type_name.map(|t| t.name_parts("names")).unwrap_or_default();
        let plain = functions::type_is_plain(&parts);
        self.with_literals(self.literals && plain, |w| w.maybe(node.node("arg")));
        self.with_literals(false, |w| w.maybe(type_name));
        if self.calls_by_cast(&parts) {
            let (schema, name) = names::schema_and_name(&parts).unwrap_or_default();
            self.foreign_form(schema, name);
        }
    }

    /// A type of the server's own is made by the server's own code, unless somebody has added a cast to it.
    fn calls_by_cast(&self, parts: &[&str]) -> bool {
        let additions = self.server.additions;
        match parts {
            [] => false,
            ["pg_catalog", name] => additions.has_cast_to(name),
            [.., name] => {
                let of_system = parts.len() == 1 && functions::type_is_of_system(name);
                additions.has_cast_to(name) || !(of_system || additions.is_inert_type(name))
            }
        }
    }

    fn indirection(&mut self, node: &Node) {
        self.maybe(node.node("arg"));
        for part in node.list("indirection") {
            match part.kind {
                "String" => {
                    self.column(None, part.text("sval"));
                    self.note_function_of_row(part.text("sval"));
                }
                _ => drop(self.visit(part)),
            }
        }
    }

    /// `(o).f` and `o.f` are `f(o)` to the server when there is no such column.
    fn note_function_of_row(&mut self, name: &str) {
        if self.server.additions.has_function(name) {
            self.foreign_call(None, name.to_owned());
        }
    }

    /// A column of an index or of ON CONFLICT is a mere name, unless it is an expression.
    fn index_element(&mut self, node: &Node) {
        let name = node.text("name");
        if !name.is_empty() {
            let relation = lineage::relation_of(&self.bare(name).output);
            self.column(relation, name);
        }
        self.with_literals(false, |w| w.children(node));
    }

    fn sub_query(&mut self, node: &Node) {
        self.maybe(node.node("testexpr"));
        let is_exists = node.int("sub_link_type") == SubLinkType::ExistsSublink as i64;
        match node.node("subselect") {
            Some(query) if is_exists => {
                let (mark, picked) = (self.mark(), self.picked_mark());
                self.run(query);
                self.forget_since(mark);
                let row = self.new_row();
                self.refer_to_picked(picked, row);
            }
            Some(query) => self.value_of_query(query),
            None => {}
        }
        if node.has("testexpr") {
            self.note_operator(&node.name_parts("oper_name"));
        }
    }

    /// A query used as a value: what it shows flows on, and what picks its rows, for whether there is one tells of that.
    fn value_of_query(&mut self, query: &Node) {
        let is_condition = std::mem::take(&mut self.is_condition);
        let (mark, picked) = (self.mark(), self.picked_mark());
        let columns = self.run(query);
        self.forget_since(mark);
        let row = self.new_row();
        self.refer(None, row);
        for column in &columns {
            self.refer_to(&column.output, row);
        }
        // `o.c in (select c.id from c where …)` is a join with a condition of its own: it picks, and says nothing more.
        let is_bare = columns.iter().all(|column| matches!(column.output, Output::Column { .. }));
        if !(is_condition && is_bare) {
            self.refer_to_picked(picked, row);
        }
    }

    /// What has picked rows since then decides a value.
    fn refer_to_picked(&mut self, mark: usize, row: u32) {
        self.refer(None, row);
        for column in self.picked_since(mark) {
            self.refer(Some(column), row);
        }
    }

    fn column_reference(&mut self, node: &Node) -> Option<Output> {
        let parts = node.name_parts("fields");
        if node.list("fields").any(|n| n.kind == "AStar") {
            self.star_reference(&parts);
            return None;
        }
        let name = *parts.last()?;
        let (qualifier, found) = match parts.as_slice() {
            [_] => (None, self.bare(name)),
            [table, _] => (Some(*table), self.qualified(None, table, name)),
            [.., schema, table, _] => (Some(*table), self.qualified(Some(schema), table, name)),
            [] => return None,
        };
        if qualifier.is_none() && self.whole_row(name).is_some() {
            self.column(None, name);
            self.star_reference(&[name]);
            return None;
        }
        let relation = lineage::relation_of(&found.output);
        self.column(relation, name);
        if let Some(table) = qualifier
            && !found.is_column
        {
            self.star_reference(&[table]);
            self.note_function_of_row(name);
        }
        self.refer_to_found(&found, name);
        // `c.row_to_json` is `row_to_json(c)` to the server when there is no such column.
        if let Some(table) = qualifier
            && functions::takes_row(name)
        {
            self.star_reference(&[table]);
            return None;
        }
        let may_be_call = qualifier.is_some() && !found.is_column;
        (matches!(found.output, Output::Column { .. }) && !may_be_call).then_some(found.output)
    }

    /// Notes `*` for each relation that the star covers.
    fn star_reference(&mut self, parts: &[&str]) {
        let mut covered: Vec<(Option<Output>, u32)> = Vec::new();
        let levels = if parts.is_empty() { 1 } else { usize::MAX };
        for source in self.scopes.iter().rev().take(levels).flat_map(|s| s.sources.iter().chain(&s.hidden)) {
            if parts.last().is_some_and(|alias| source.alias.as_deref() != Some(alias)) {
                continue;
            }
            match &source.rows {
                Rows::Relation { schema, name } => {
                    let all = Output::All { schema: schema.clone(), relation: name.clone() };
                    covered.push((Some(all), source.row));
                }
                Rows::Derived(columns) => {
                    covered.extend(columns.iter().map(|column| (Some(column.output.clone()), source.row)));
                }
            }
        }
        if covered.is_empty() {
            covered.push((None, 0));
        }
        self.step(covered.len());
        for (output, row) in covered {
            match output {
                Some(output) => self.refer_to(&output, row),
                None => {
                    self.column(None, "*");
                    self.refer_to_unknown();
                }
            }
        }
    }

    fn call(&mut self, node: &Node) -> Option<Output> {
        let Some((schema, name)) = names::schema_and_name(&node.name_parts("funcname")) else {
            self.opaque("a function call without a name");
            return None;
        };
        let class = self.class_of(node, schema.as_deref(), &name);
        self.function(schema.clone(), name.clone(), matches!(class, Class::Plain | Class::NamesThings));
        let mark = self.mark();
        let bare = self.arguments(node, class);
        if functions::returns_set(&name) || class == Class::Unknown {
            self.place(mark, Places::SHAPES);
            self.derives = true;
        }
        if functions::keeps_arguments(&name) || class.acts() {
            self.place(mark, Places::KEPT);
        }
        self.out.acts |= class.acts();
        self.note_named_type(node, &name);
        self.note_class(node, class, schema, &name);
        self.count(node, class, &name, bare, mark)
    }

    /// An unqualified name may be a user's where the system has it too; so may a name that only the newest grammar takes
    /// for the system's.
    fn class_of(&self, node: &Node, schema: Option<&str>, name: &str) -> Class {
        let by_grammar = node.int("funcformat") == CoercionForm::CoerceSqlSyntax as i64;
        let legacy = name == "json_object" && self.server.version < Version::V16;
        let may_be_foreign = (schema.is_none() || legacy) && !by_grammar;
        match functions::classify(self.server.version, schema, name) {
            Class::Plain | Class::NamesThings | Class::Reads(_) | Class::Writes(_) | Class::SetConfig
                if may_be_foreign && self.server.additions.has_function(name) =>
            {
                Class::Unknown
            }
            class => class,
        }
    }

    /// All that stands in a call. What is handed back is its one argument, if that is a bare column.
    fn arguments(&mut self, node: &Node, class: Class) -> Option<Output> {
        let plain = matches!(class, Class::Plain);
        let mut bare = None;
        self.with_literals(self.literals && plain, |w| {
            for argument in node.list("args") {
                bare = w.visit(argument);
            }
        });
        self.with_literals(false, |w| {
            w.all(node.list("agg_order"));
            w.over(node);
        });
        self.with_literals(self.literals, |w| w.maybe(node.node("agg_filter")));
        bare.filter(|_| node.list("args").count() == 1)
    }

    /// The window of a call; one that is named elsewhere flows in from there.
    fn over(&mut self, node: &Node) {
        let Some(window) = node.node("over") else { return };
        self.visit(window);
        // The place of a row among others is no value of a column.
        self.refer_to_nothing();
        if !window.text("name").is_empty() || !window.text("refname").is_empty() {
            let named = self.scopes.last().map(|scope| scope.windows.clone()).unwrap_or_default();
            self.refer_again(&named);
        }
    }

    /// A text that names a type lets this type's input run.
    fn note_named_type(&mut self, node: &Node, name: &str) {
        if !functions::names_type(name) {
            return;
        }
        let named = node.list("args").last().and_then(|argument| self.literal(argument));
        let parts: Vec<&str> = named.map(|n| n.split('.').collect()).unwrap_or_default();
        if parts.is_empty() || self.calls_by_cast(&parts) {
            self.foreign_form(None, name.to_owned());
        }
    }

    fn note_class(&mut self, node: &Node, class: Class, schema: Option<String>, name: &str) {
        let catalogue = || Some("pg_catalog".to_owned());
        match class {
            Class::Plain | Class::NamesThings => {}
            Class::SetConfig => self.set_config(node),
            Class::Has(effect) => self.effect(effect),
            Class::Reads(relation) => {
                self.relation_named(catalogue(), relation.to_owned(), Effect::Read);
                let all = Output::All { schema: catalogue(), relation: relation.to_owned() };
                let row = self.new_row();
                self.refer_to(&all, row);
            }
            Class::Writes(relation) => self.relation_effect(catalogue(), relation.to_owned(), Effect::Update),
            Class::Unknown => self.foreign_call(schema, name.to_owned()),
        }
        if matches!(class, Class::Has(Effect::Dynamic | Effect::File | Effect::Call | Effect::Opaque)) {
            self.refer_to_unknown();
        }
    }

    /// `count(*)`, and `count(c)` of a bare column: how many rows there are.
    fn count(&mut self, node: &Node, class: Class, name: &str, bare: Option<Output>, mark: usize) -> Option<Output> {
        let is_bare = node.flag("agg_star") || matches!(bare, Some(Output::Column { relation: Some(_), .. }));
        let is_whole = !["over", "agg_filter", "agg_distinct", "agg_order"].iter().any(|field| node.has(field));
        if name != "count" || class != Class::Plain || !is_bare || !is_whole {
            return None;
        }
        self.forget_since(mark);
        self.refer_to_nothing();
        Some(Output::Rows)
    }
}
