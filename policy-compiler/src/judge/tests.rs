use super::*;
use crate::build::compile;
use crate::policy::Source;
use crate::statement::{
    Called, ColumnUse, Copy, CopyDirection, CopyFormat, EffectSet, FunctionUse, Named, NewValue, Output, Places,
    RelationUse, Setting,
};

const POLICY: &str = r#"
[[role]]
name = "analyst"
[[role]]
name = "agent"
[[role]]
name = "dba"
[[role]]
name = "plain"
[[grant]]
to = ["analyst"]
resources = ["shop"]
effects = ["read"]
[[grant]]
to = ["agent"]
resources = ["shop"]
effects = ["read", "insert", "update", "ddl", "notify"]
relations = ["public.*", "orders", "pg_stat_activity"]
[[grant]]
to = ["dba"]
resources = ["*"]
effects = ["*", "opaque"]
[[grant]]
to = ["plain"]
resources = ["shop"]
effects = ["*"]
relations = ["*"]
[[grant]]
to = ["agent"]
resources = ["shop"]
effects = ["call"]
functions = ["public.similarity", "st_*"]
[[rule]]
name = "no-delete"
action = "block"
except = ["dba"]
effects = ["delete"]
hint = "ask a dba"
[[rule]]
name = "no-audit"
action = "block"
to = ["agent"]
effects = ["insert"]
relations = ["audit.*"]
[[rule]]
name = "no-sleep"
action = "block"
functions = ["pg_catalog.pg_sleep"]
[[rule]]
name = "where"
action = "block"
effects = ["update"]
without_where = true
[[mask]]
name = "contact"
columns = ["customers.email", "public.customers.ssn"]
action = "hash"
to = ["analyst", "agent"]
[[mask]]
name = "numbers"
columns = ["customers.ssn"]
action = "last4"
except = ["dba", "plain"]
"#;

fn policy() -> Policy {
    let sources = [Source { name: "p.toml".into(), text: POLICY.into() }];
    Policy::from_bytes(compile(&sources).expect("the policy is right")).expect("opens")
}

/// Three tables in `public`; `v` depends on customers; everything else is unknown, so protected.
struct Shop;

impl Catalogue for Shop {
    fn is_protected(&self, _schema: Option<&str>, name: &str) -> bool {
        !matches!(name, "orders" | "log")
    }

    fn columns(&self, _schema: Option<&str>, name: &str) -> Option<Vec<String>> {
        let columns: &[&str] = match name {
            "customers" => &["id", "email", "ssn", "name"],
            "orders" => &["id", "total"],
            "v" => &["id", "x"],
            _ => return None,
        };
        Some(columns.iter().map(|column| (*column).to_owned()).collect())
    }

    fn has_column(&self, schema: Option<&str>, name: &str, column: &str) -> bool {
        self.columns(schema, name).is_some_and(|columns| columns.iter().any(|c| c == column))
    }

    fn schemas_of_function(&self, name: &str) -> Vec<String> {
        let schemas: &[&str] = match name {
            "similarity" => &["public"],
            "st_x" => &["public", "gis"],
            "twice" => &["public", "somebodys"],
            _ => &[],
        };
        schemas.iter().map(|schema| (*schema).to_owned()).collect()
    }

    fn type_of(&self, schema: Option<&str>, name: &str, column: &str) -> Option<u32> {
        let known = self.has_column(schema, name, column);
        known.then_some(if matches!(column, "id" | "total") { 23 } else { 25 })
    }

    fn schema_of(&self, name: &str) -> Option<String> {
        matches!(name, "customers" | "orders" | "v").then(|| "public".to_owned())
    }
}

fn statement(tag: &str, relations: &[(&str, &[Effect])], more: &[Effect]) -> Statement {
    let relation = |(name, effects): &(&str, &[Effect])| {
        let (schema, name) =
            name.split_once('.').map_or((None, *name), |(schema, name)| (Some(schema.to_owned()), name));
        RelationUse { schema, name: name.to_owned(), effects: EffectSet::of(effects) }
    };
    let relations: Vec<_> = relations.iter().map(relation).collect();
    let effects = relations.iter().fold(EffectSet::of(more), |set, relation| set.union(relation.effects));
    Statement { tag: tag.into(), effects, relations, ..Statement::default() }
}

fn select(relation: &str) -> Statement {
    Statement { output: vec![Output::Unknown], ..statement("SELECT", &[(relation, &[Effect::Read])], &[]) }
}

fn call(name: &str) -> Statement {
    let function = FunctionUse { schema: None, name: name.into(), plain: true };
    Statement { functions: vec![function], output: vec![Output::Unknown], ..statement("SELECT", &[], &[]) }
}

fn unknown(names: &[&str]) -> Statement {
    let called = names.iter().map(|name| {
        let (schema, name) = name.split_once('.').map_or((None, *name), |(schema, name)| (Some(schema), name));
        Called { schema: schema.map(str::to_owned), name: name.to_owned() }
    });
    Statement { called: called.collect(), ..statement("SELECT", &[], &[Effect::Call]) }
}

fn update(without_where: bool) -> Statement {
    Statement { without_where, ..statement("UPDATE", &[("orders", &[Effect::Update])], &[]) }
}

fn with_columns(statement: Statement, columns: &[(Option<&str>, &str)]) -> Statement {
    let column = |(relation, name): &(Option<&str>, &str)| ColumnUse {
        relation: relation.map(str::to_owned),
        name: (*name).to_owned(),
        places: Places::SHOWN,
    };
    Statement { columns: columns.iter().map(column).collect(), ..statement }
}

fn judged(role: &str, statements: Vec<Statement>, catalogue: &dyn Catalogue) -> Judgement {
    let policy = policy();
    let roles = policy.role_named(role).unwrap_or_default();
    judge(&policy, Subject { roles, resource: "shop" }, &Ok(Analysis { statements }), catalogue)
}

#[test]
fn every_verdict_names_what_decided_it() {
    use Action::{Allow, Deny, Mask};
    let opaque = || Statement { opaque: Some("a new statement".into()), ..statement("X", &[], &[Effect::Opaque]) };
    let set_role = || Statement {
        settings: vec![Setting { name: "role".into(), value: NewValue::Is("postgres".into()) }],
        ..statement("SET", &[], &[Effect::Session])
    };
    let execute =
        || Statement { uses: Some(Named::Prepared("p".into())), ..statement("EXECUTE", &[], &[Effect::Read]) };
    let rows = [
        ("analyst", select("customers"), Mask, "contact"),
        ("analyst", select("orders"), Allow, "grant"),
        ("analyst", select("v"), Mask, "contact"),
        ("dba", select("customers"), Allow, "grant"),
        ("plain", select("customers"), Allow, "grant"),
        ("nobody", select("orders"), Deny, "default-deny"),
        ("nobody", statement("BEGIN", &[], &[Effect::Transaction]), Deny, "default-deny"),
        ("agent", statement("BEGIN", &[], &[Effect::Transaction]), Allow, "grant"),
        ("agent", statement("SET", &[], &[Effect::Session]), Allow, "grant"),
        ("dba", set_role(), Deny, "pinned-setting"),
        ("agent", select("orders"), Allow, "grant"),
        ("agent", select("secret.orders"), Allow, "grant"),
        ("agent", select("secret.other"), Deny, "default-deny"),
        ("agent", select("elsewhere"), Deny, "default-deny"),
        ("agent", statement("INSERT", &[("orders", &[Effect::Insert])], &[]), Allow, "grant"),
        ("agent", statement("INSERT", &[("audit.log", &[Effect::Insert])], &[]), Deny, "no-audit"),
        ("agent", statement("INSERT", &[("log", &[Effect::Insert])], &[]), Deny, "no-audit"),
        ("analyst", statement("INSERT", &[("log", &[Effect::Insert])], &[]), Deny, "default-deny"),
        ("analyst", statement("DELETE", &[("orders", &[Effect::Delete])], &[]), Deny, "no-delete"),
        ("dba", statement("DELETE", &[("orders", &[Effect::Delete])], &[]), Allow, "grant"),
        ("agent", update(false), Allow, "grant"),
        ("agent", update(true), Deny, "where"),
        ("dba", update(true), Deny, "where"),
        ("dba", call("pg_sleep"), Deny, "no-sleep"),
        ("agent", call("count"), Allow, "grant"),
        ("analyst", execute(), Mask, "contact"),
        ("dba", execute(), Allow, "grant"),
        // CREATE FUNCTION and its like concern no relation: a grant on certain relations does not carry them.
        ("agent", statement("CREATE FUNCTION", &[], &[Effect::Ddl]), Deny, "default-deny"),
        ("plain", statement("CREATE FUNCTION", &[], &[Effect::Ddl]), Allow, "grant"),
        ("plain", statement("SELECT", &[], &[Effect::Call]), Allow, "grant"),
        ("plain", opaque(), Deny, "opaque"),
        ("dba", opaque(), Allow, "grant"),
        ("analyst", select("pg_class"), Allow, "grant"),
        ("agent", select("information_schema.columns"), Allow, "grant"),
        ("agent", statement("UPDATE", &[("pg_class", &[Effect::Update])], &[]), Deny, "default-deny"),
        ("analyst", select("pg_stats"), Deny, "default-deny"),
        ("plain", select("pg_stats"), Deny, "default-deny"),
        ("dba", select("pg_stats"), Allow, "grant"),
        ("analyst", select("pg_stat_activity"), Deny, "default-deny"),
        ("agent", select("pg_catalog.pg_stat_activity"), Mask, "contact"),
        ("analyst", select("pg_toast.pg_toast_16390"), Deny, "default-deny"),
    ];
    for (role, statement, action, rule) in rows {
        let context = format!("{role}: {statement:?}");
        let judgement = judged(role, vec![statement], &Shop);
        assert_eq!((judgement.action, judgement.rule.as_str()), (action, rule), "{context}");
    }
}

#[test]
fn a_grant_that_names_functions_opens_these_and_no_other_call() {
    use Action::{Allow, Deny};
    let unnamed = |names: &[&str]| Statement { calls_unnamed: true, ..unknown(names) };
    for (role, statement, action) in [
        ("agent", unknown(&["similarity"]), Allow),
        ("agent", unknown(&["public.similarity"]), Allow),
        ("agent", unknown(&["other.similarity"]), Deny),
        ("agent", unknown(&["st_x", "similarity"]), Allow),
        ("agent", unknown(&["st_x", "purge"]), Deny),
        ("agent", unknown(&["twice"]), Deny),
        ("agent", unknown(&[]), Deny),
        ("agent", unnamed(&["similarity"]), Deny),
        ("analyst", unknown(&["similarity"]), Deny),
        ("dba", unnamed(&["purge"]), Allow),
    ] {
        let context = format!("{role}: {:?}", statement.called);
        assert_eq!(judged(role, vec![statement], &Shop).action == Deny, action == Deny, "{context}");
    }
}

#[test]
fn a_text_is_denied_whole_and_says_which_statement_decided() {
    let delete = statement("DELETE", &[("orders", &[Effect::Delete])], &[]);
    let judgement = judged("analyst", vec![select("orders"), delete], &Shop);
    assert_eq!((judgement.action, judgement.statement), (Action::Deny, 1));
    assert_eq!(judged("analyst", Vec::new(), &Shop).action, Action::Allow, "an empty text does nothing");
}

#[test]
fn reasons_are_in_the_users_words() {
    let rows = [
        (
            "analyst",
            statement("INSERT", &[("orders", &[Effect::Insert])], &[]),
            "INSERT on orders is not granted to role analyst",
            None,
        ),
        (
            "analyst",
            statement("DELETE", &[("s.orders", &[Effect::Delete])], &[]),
            "DELETE on s.orders is blocked for role analyst",
            Some("ask a dba"),
        ),
        (
            "analyst",
            statement("DROP TABLE", &[("orders", &[Effect::Ddl])], &[]),
            "DDL (DROP TABLE) on orders is not granted to role analyst",
            None,
        ),
        ("analyst", statement("LISTEN", &[], &[Effect::Listen]), "LISTEN is not granted to role analyst", None),
        (
            "agent",
            unknown(&["similarity", "public.purge"]),
            "CALL (SELECT) of public.purge is not granted to role agent",
            Some(
                "it is not known what public.purge does: a grant with effects = [\"call\"] and functions = \
                 [\"public.purge\"] opens it",
            ),
        ),
        ("analyst", statement("SELECT", &[], &[Effect::Call]), "CALL (SELECT) is not granted to role analyst", None),
        ("agent", update(true), "UPDATE on orders without WHERE is blocked for role agent", None),
        ("dba", call("pg_sleep"), "calling pg_sleep is blocked for role dba", None),
        ("nobody", select("orders"), "resource shop is not granted to anybody without a role", None),
        (
            "agent",
            select("elsewhere"),
            "READ (SELECT) on elsewhere is not granted to role agent",
            Some("write the schema, as in public.elsewhere"),
        ),
        (
            "analyst",
            select("pg_stats"),
            "READ (SELECT) on pg_stats is not granted to role analyst",
            Some("pg_stats shows data of others: only a grant that names it opens it"),
        ),
    ];
    for (role, statement, reason, hint) in rows {
        let judgement = judged(role, vec![statement], &Shop);
        assert_eq!((judgement.reason.as_str(), judgement.hint.as_deref()), (reason, hint));
        assert_eq!(judgement.sqlstate, "42501");
    }
}

#[test]
fn what_cannot_be_analysed_is_denied_even_to_those_who_may_everything() {
    let policy = policy();
    let subject = Subject { roles: policy.role_named("dba").expect("a role"), resource: "shop" };
    for (error, sqlstate, reason) in [
        (
            AnalyseError::Syntax { message: "syntax error at \"x\"".into(), position: Some(1) },
            "42601",
            "syntax error at \"x\"",
        ),
        (AnalyseError::TooLong { bytes: 9, max: 8 }, "54000", "the statement has 9 bytes, at most 8 are judged"),
        (
            AnalyseError::Budget { what: "parts", max: 7 },
            "54000",
            "the statement has too many parts: at most 7 are judged; send it in parts",
        ),
        (AnalyseError::Encoding("a NUL byte"), "22021", "the statement cannot be read: a NUL byte"),
    ] {
        let judgement = judge(&policy, subject, &Err(error), &Shop);
        assert_eq!((judgement.action, judgement.rule.as_str()), (Action::Deny, "unparsable"));
        assert_eq!((judgement.sqlstate, judgement.reason.as_str()), (sqlstate, reason));
    }
}

#[test]
fn a_masked_value_cannot_be_written_to_where_no_mask_is() {
    let source = || statement("INSERT", &[("orders", &[Effect::Insert]), ("customers", &[Effect::Read])], &[]);
    let view = statement("CREATE VIEW", &[("public.w", &[Effect::Ddl]), ("v", &[Effect::Read])], &[]);
    let rows = [
        ("agent", with_columns(source(), &[(Some("customers"), "email")]), false),
        ("agent", with_columns(source(), &[(None, "ssn")]), false),
        ("agent", with_columns(source(), &[(Some("customers"), "*")]), false),
        ("agent", with_columns(source(), &[(None, "c")]), false),
        ("agent", with_columns(source(), &[(Some("customers"), "id"), (None, "name"), (Some("orders"), "ssn")]), true),
        ("agent", source(), true),
        ("agent", view, false),
        (
            "agent",
            with_columns(statement("INSERT", &[("customers", &[Effect::Insert])], &[]), &[(None, "email")]),
            true,
        ),
        (
            "agent",
            with_columns(statement("UPDATE", &[("customers", &[Effect::Update])], &[]), &[(None, "email")]),
            false,
        ),
        ("dba", with_columns(source(), &[(Some("customers"), "email")]), true),
    ];
    for (role, statement, allowed) in rows {
        let context = format!("{role}: {statement:?}");
        let judgement = judged(role, vec![statement], &Shop);
        assert_eq!(judgement.action != Action::Deny, allowed, "{context}");
        assert!(allowed || judgement.rule == "masked-source", "{}", judgement.rule);
    }
}

#[test]
fn columns_without_origin_are_masked_when_the_text_may_read_a_masked_relation() {
    let unknown_function = |mut statement: Statement| {
        statement.functions.push(FunctionUse { schema: None, name: "f".into(), plain: false });
        statement
    };
    let fetch = Statement { uses: Some(Named::Cursor("c".into())), ..statement("FETCH", &[], &[Effect::Read]) };
    for (role, statement, expected) in [
        ("analyst", select("customers"), true),
        ("analyst", select("other.customers"), true),
        ("analyst", select("orders"), false),
        ("analyst", select("pg_class"), false),
        ("analyst", select("v"), true),
        ("analyst", unknown_function(select("orders")), true),
        ("analyst", fetch.clone(), true),
        ("dba", fetch, false),
        ("dba", unknown_function(select("customers")), false),
    ] {
        let judgement = judged(role, vec![statement.clone()], &Shop);
        assert_eq!(judgement.mask_unsourced, expected, "{role}: {statement:?}");
    }
    assert!(judged("analyst", vec![select("customers")], &NoCatalogue).mask_unsourced);
}

#[test]
fn harmless_columns_are_told_only_when_every_place_is_known() {
    let column = || Output::Column { relation: None, name: "id".into() };
    let all = || Output::All { schema: None, relation: "orders".into() };
    for (output, expected) in [
        (vec![Output::Computed(Vec::new())], vec![true]),
        (vec![column(), Output::Computed(Vec::new())], vec![true, true]),
        (vec![Output::Computed(Vec::new()), all()], vec![true, true, true]),
        (vec![Output::Unknown, Output::Computed(Vec::new())], vec![]),
        (vec![Output::Rows, Output::Computed(vec![7])], vec![true, false]),
    ] {
        let statement = Statement { output, ..select("orders") };
        assert_eq!(judged("analyst", vec![statement.clone()], &Shop).unsourced_harmless, expected);
        assert!(judged("analyst", vec![statement, select("orders")], &Shop).unsourced_harmless.is_empty());
    }
}

fn copy(table: Option<&str>, columns: &[&str], output: Vec<Output>) -> Statement {
    let reads = if table == Some("orders") { "orders" } else { "customers" };
    let copy = Copy {
        direction: CopyDirection::ToClient,
        format: CopyFormat::Text,
        table: table.map(|name| (None, name.to_owned())),
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        delimiter: b'\t',
        quote: b'"',
        escape: b'"',
        null: "\\N".into(),
        header: false,
        unmodelled: None,
    };
    let relation = table.unwrap_or(reads);
    Statement { copy: Some(copy), output, ..statement("COPY", &[(relation, &[Effect::Read])], &[]) }
}

#[test]
fn each_field_of_a_copy_gets_its_mask_or_all_get_the_strictest() {
    use CopyMasks::{All, Columns};
    use MaskAction::{Hash, Null};
    let column = |relation: Option<&str>, name: &str| Output::Column {
        relation: relation.map(str::to_owned),
        name: name.to_owned(),
    };
    let star = || Output::All { schema: None, relation: "customers".into() };
    let rows = [
        ("analyst", copy(Some("customers"), &[], vec![]), Some(Columns(vec![None, Some(Hash), Some(Hash), None]))),
        ("analyst", copy(Some("customers"), &["name", "email"], vec![]), Some(Columns(vec![None, Some(Hash)]))),
        ("analyst", copy(Some("orders"), &[], vec![]), None),
        ("analyst", copy(Some("v"), &[], vec![]), Some(Columns(vec![Some(Hash), Some(Hash)]))),
        ("analyst", copy(Some("unknown"), &[], vec![]), Some(All(Null))),
        ("analyst", copy(None, &[], vec![star()]), Some(Columns(vec![None, Some(Hash), Some(Hash), None]))),
        ("analyst", copy(None, &[], vec![column(Some("customers"), "id")]), Some(Columns(vec![None]))),
        ("analyst", copy(None, &[], vec![column(Some("customers"), "ssn")]), Some(Columns(vec![Some(Hash)]))),
        ("analyst", copy(None, &[], vec![column(Some("orders"), "computed")]), Some(Columns(vec![Some(Hash)]))),
        ("analyst", copy(None, &[], vec![column(Some("orders"), "total")]), Some(Columns(vec![None]))),
        ("analyst", copy(None, &[], vec![column(None, "id")]), Some(Columns(vec![None]))),
        ("analyst", copy(None, &[], vec![column(None, "email")]), Some(Columns(vec![Some(Hash)]))),
        ("analyst", copy(None, &[], vec![Output::Computed(Vec::new())]), Some(Columns(vec![None]))),
        ("analyst", copy(None, &[], vec![Output::Computed(Vec::new()), Output::Unknown]), Some(All(Null))),
        ("analyst", copy(None, &[], vec![]), Some(All(Null))),
        ("dba", copy(Some("customers"), &[], vec![]), None),
    ];
    for (role, statement, expected) in rows {
        let context = format!("{role}: {statement:?}");
        assert_eq!(judged(role, vec![statement], &Shop).copy_masks, expected, "{context}");
    }
    let two = vec![copy(Some("customers"), &["id"], vec![]), copy(Some("customers"), &["ssn"], vec![])];
    assert_eq!(judged("analyst", two, &Shop).copy_masks, Some(All(Null)));
    assert_eq!(judged("analyst", vec![copy(Some("customers"), &[], vec![])], &NoCatalogue).copy_masks, Some(All(Null)));
}

#[test]
fn the_types_of_the_fields_of_a_copy_are_those_of_their_columns() {
    let column = |relation: Option<&str>, name: &str| Output::Column {
        relation: relation.map(str::to_owned),
        name: name.to_owned(),
    };
    let star = || Output::All { schema: None, relation: "customers".into() };
    let rows: [(Statement, &[u32]); 7] = [
        (copy(Some("customers"), &[], vec![]), &[23, 25, 25, 25]),
        (copy(Some("orders"), &[], vec![]), &[23, 23]),
        (copy(Some("customers"), &["name", "id", "none"], vec![]), &[25, 23, 0]),
        (copy(Some("unknown"), &[], vec![]), &[]),
        (copy(None, &[], vec![star(), Output::Computed(Vec::new()), column(None, "id")]), &[23, 25, 25, 25, 0, 0]),
        (copy(None, &[], vec![column(Some("orders"), "total"), column(Some("orders"), "computed")]), &[23, 0]),
        (copy(None, &[], vec![column(Some("orders"), "total"), Output::Unknown]), &[]),
    ];
    for (statement, expected) in rows {
        let context = format!("{statement:?}");
        assert_eq!(judged("analyst", vec![statement], &Shop).copy_types, expected, "{context}");
    }
    let two = vec![copy(Some("customers"), &["id"], vec![]), copy(Some("customers"), &["ssn"], vec![])];
    assert_eq!(judged("analyst", two, &Shop).copy_types, [0u32; 0]);
}
