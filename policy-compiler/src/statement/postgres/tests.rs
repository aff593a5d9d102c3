//! Properties of the analysis that are no single row of the corpus.

use std::collections::HashSet;

use super::super::{
    AnalyseError, Analysis, Budget, Copy, CopyDirection, CopyFormat, Effect, EffectSet, Output, Statement, Unmodelled,
};
use super::server::{Server, Version};
use super::{TEXT_BYTES_MAX, analyse, analyse_bytes, analyse_for, corpus, depth, keywords, kinds, tree, weight};

const PSQL: &str = include_str!("../../../../tests/corpus/postgres/psql15.sql");
const PG_DUMP: &str = include_str!("../../../../tests/corpus/postgres/pg_dump15.sql");
const DRIVERS: &str = include_str!("../../../../tests/corpus/postgres/drivers.sql");

fn one(sql: &str) -> Statement {
    let mut statements = analyse(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}")).statements;
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

/// What must not depend on spelling.
fn essence(analysis: &Analysis) -> Vec<(EffectSet, String, String, String)> {
    let part = |s: &Statement| {
        (s.effects, format!("{:?}", s.relations), format!("{:?}", s.columns), format!("{:?}", s.output))
    };
    analysis.statements.iter().map(part).collect()
}

fn introspection(corpus: &str, allowed: &[Effect]) {
    let allowed = EffectSet::of(allowed);
    let (mut count, mut wrong) = (0, Vec::new());
    for sql in corpus.split("\n--;\n").filter(|s| !s.trim().is_empty()) {
        count += 1;
        match analyse(sql) {
            Ok(analysis) => wrong.extend(analysis.statements.iter().filter_map(|s| {
                let beyond = s.effects.minus(allowed);
                (!beyond.is_empty()).then(|| format!("{beyond:?} {:?}: {sql}", s.functions))
            })),
            Err(why) => wrong.push(format!("{why:?}: {sql}")),
        }
    }
    assert!(count > 20 && wrong.is_empty(), "{count} statements, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_queries_of_psql_only_read() {
    introspection(PSQL, &[Effect::Read]);
}

#[test]
fn the_queries_of_pg_dump_only_read_lock_and_set_their_session() {
    introspection(PG_DUMP, &[Effect::Read, Effect::Lock, Effect::Session, Effect::Transaction]);
}

#[test]
fn the_queries_of_drivers_only_read_and_set_their_session() {
    introspection(DRIVERS, &[Effect::Read, Effect::Session, Effect::Transaction]);
}

#[test]
fn comments_case_and_parentheses_do_not_change_what_a_statement_does() {
    let mut compared = 0;
    for sql in corpus::statements().filter(|sql| !sql.contains(['\'', '$', '"', '\\'])) {
        let Ok(plain) = analyse(sql) else { continue };
        let spaced = sql.replace(' ', " /* x /* y */ ; drop table z */\n\t-- ; delete from w\n ");
        for other in [spaced, sql.to_uppercase(), format!("/* a */{sql}; -- b")] {
            let found = analyse(&other).unwrap_or_else(|e| panic!("{other}: {e:?}"));
            assert_eq!(essence(&plain), essence(&found), "{sql}\n{other}");
            compared += 1;
        }
    }
    assert!(compared > 900, "{compared}");
}

#[test]
fn the_ways_to_write_a_name_are_one_name() {
    for table in ["customers", "CUSTOMERS", "\"customers\"", "U&\"\\0063ustomers\"", "u&\"!0063ustomers\" uescape '!'"]
    {
        let found = one(&format!("delete from only {table} where id = 1"));
        assert_eq!(found.relations, one("delete from customers where id = 1").relations, "{table}");
    }
    for select in ["select ssn from customers", "(select ssn from customers)", "((select \"ssn\" from (customers)))"] {
        let Ok(found) = analyse(select) else { continue };
        assert_eq!(found.statements[0].output, one("select ssn from customers").output, "{select}");
    }
}

#[test]
fn every_kind_of_the_table_is_met_by_the_corpus_and_every_statement_met_is_in_it() {
    let mut met = HashSet::new();
    for sql in corpus::statements() {
        let Ok(parsed) = pg_query::parse(sql, 0) else { continue };
        for statement in parsed.protobuf.stmts.iter().filter_map(|s| s.stmt.as_deref()) {
            collect_kinds(&tree::build(statement).expect("a shallow tree"), &mut met);
        }
    }
    let missing: Vec<&str> = kinds::FIXED.iter().map(|(kind, _, _)| *kind).filter(|k| !met.contains(k)).collect();
    assert!(missing.is_empty(), "no example of {missing:?}");
    let unmapped: Vec<_> = met
        .iter()
        .filter(|k| k.ends_with("Stmt") && kinds::fixed(k).is_none())
        .filter(|k| !matches!(**k, "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt"))
        .collect();
    assert!(unmapped.is_empty(), "{unmapped:?} have no effect");
}

fn collect_kinds(node: &tree::Node, met: &mut HashSet<&'static str>) {
    met.insert(node.kind);
    node.children().for_each(|child| collect_kinds(child, met));
}

#[test]
fn opaque_is_said_in_words_and_only_then() {
    for sql in corpus::statements() {
        for statement in analyse(sql).map(|a| a.statements).unwrap_or_default() {
            assert_eq!(statement.effects.has(Effect::Opaque), statement.opaque.is_some(), "{sql}");
        }
    }
}

#[test]
fn an_effect_on_a_relation_is_an_effect_of_the_statement() {
    for sql in corpus::statements() {
        for statement in analyse(sql).map(|a| a.statements).unwrap_or_default() {
            let on_relations = statement.relations.iter().fold(EffectSet::EMPTY, |set, r| set.union(r.effects));
            assert!(on_relations.minus(statement.effects).is_empty(), "{sql}");
        }
    }
}

#[test]
fn copy_options_are_taken_over_as_the_server_reads_them() {
    let text = Copy {
        direction: CopyDirection::ToClient,
        format: CopyFormat::Text,
        table: Some((Some("public".to_owned()), "customers".to_owned())),
        columns: Vec::new(),
        delimiter: b'\t',
        quote: b'"',
        escape: b'"',
        null: "\\N".to_owned(),
        header: false,
        unmodelled: None,
    };
    assert_eq!(one("copy public.customers to stdout").copy, Some(text.clone()));
    let csv = Copy { format: CopyFormat::Csv, delimiter: b',', null: String::new(), ..text.clone() };
    assert_eq!(one("copy public.customers to stdout csv").copy, Some(csv.clone()));
    let written = "copy public.customers (id, ssn) from stdin with (format csv, header match, delimiter ';', quote '''', \
                   escape '\\', null 'NULL')";
    let odd = Copy {
        direction: CopyDirection::FromClient,
        columns: vec!["id".to_owned(), "ssn".to_owned()],
        delimiter: b';',
        quote: b'\'',
        escape: b'\\',
        null: "NULL".to_owned(),
        header: true,
        unmodelled: Some(Unmodelled { what: "HEADER match".to_owned(), remedy: "use on or off".to_owned() }),
        ..csv
    };
    assert_eq!(one(written).copy, Some(odd));
    let query = Copy { table: None, format: CopyFormat::Binary, ..text };
    assert_eq!(one("copy (select 1) to stdout (format binary)").copy, Some(query));
    assert_eq!(one("copy customers to '/tmp/x'").copy, None);
    assert!(!one("copy customers to stdout (header false)").copy.expect("a copy").header);
}

/// Options after `copy customers to stdout`, and what masking says of them.
const COPY_OPTIONS: &[(&str, Option<&str>)] = &[
    ("", None),
    ("csv", None),
    ("csv header", None),
    ("with csv header force quote *", None),
    ("with delimiter '|'", None),
    ("using delimiters ';'", None),
    ("null ''", None),
    ("with null as 'NULL'", None),
    (
        "(format csv, delimiter ';', quote '''', escape '!', null 'NA', header, force_quote (ssn), encoding 'UTF-8')",
        None,
    ),
    ("(format csv, header off, freeze)", None),
    ("(delimiter '\\t')", Some("DELIMITER")),
    ("(delimiter E'\\t')", None),
    ("(null '\\')", Some("NULL")),
    ("(null '\\\\N')", Some("NULL")),
    ("(null '\\N')", None),
    ("(null 'a\\')", Some("NULL")),
    ("null '\\'", Some("NULL")),
    ("(delimiter ',', null 'a,b')", Some("NULL")),
    ("(null E'a\\nb')", Some("NULL")),
    ("(null E'\\r')", Some("NULL")),
    ("(format csv, null '\"')", Some("NULL")),
    ("(format csv, escape '!', null 'no!')", Some("NULL")),
    ("(format csv, null 'a,b')", Some("NULL")),
    ("(null '0123456789012345678901234567890123456789012345678901234567890123456789')", Some("NULL")),
    ("(null (a, b))", Some("NULL")),
    ("(delimiter *)", Some("DELIMITER '*'")),
    ("(format csv, quote *)", Some("QUOTE '*'")),
    ("(delimiter '@')", Some("DELIMITER '@'")),
    ("delimiter '@'", Some("DELIMITER '@'")),
    ("(delimiter '-')", Some("DELIMITER '-'")),
    ("(delimiter '+')", Some("DELIMITER '+'")),
    ("(delimiter ' ')", Some("DELIMITER ' '")),
    ("(delimiter '.')", Some("DELIMITER '.'")),
    ("(delimiter 'A')", Some("DELIMITER 'A'")),
    ("(delimiter 7)", Some("DELIMITER '7'")),
    ("(delimiter '\\')", Some("DELIMITER")),
    ("(delimiter '||')", Some("DELIMITER")),
    ("(format csv, quote '@')", Some("QUOTE '@'")),
    ("(format csv, quote E'\\n')", Some("QUOTE")),
    ("csv quote '@'", Some("QUOTE '@'")),
    ("(format csv, escape '1')", Some("ESCAPE '1'")),
    ("(format csv, escape '-')", Some("ESCAPE '-'")),
    ("(format csv, escape '\\')", None),
    ("(format csv, quote '\\')", Some("QUOTE")),
    ("(format csv, quote ',')", Some("a DELIMITER that is")),
    ("(format csv, escape ',')", Some("a DELIMITER that is")),
    ("(delimiter ',', delimiter '@')", Some("DELIMITER given twice")),
    ("(format csv, format text)", Some("FORMAT given twice")),
    ("(format 'json')", Some("FORMAT json")),
    ("(format 'CSV')", Some("FORMAT CSV")),
    ("(\"FORMAT\" csv)", Some("the option FORMAT")),
    ("(encoding 'LATIN1')", Some("ENCODING LATIN1")),
    ("(header match)", Some("HEADER match")),
    ("(header 2)", Some("HEADER 2")),
    ("(default 'x')", Some("the option default")),
    ("(on_error ignore)", Some("the option on_error")),
    ("(log_verbosity verbose)", Some("the option log_verbosity")),
    ("(reject_limit 3)", Some("the option reject_limit")),
    ("(format csv, force_null (ssn))", Some("the option force_null")),
    ("(format csv, force_not_null *)", Some("the option force_not_null")),
    ("(convert_selectively (ssn))", Some("the option convert_selectively")),
    ("(some_option_of_tomorrow)", Some("the option some_option_of_tomorrow")),
];

#[test]
fn each_option_of_copy_is_modelled_or_said_not_to_be() {
    for (options, says) in COPY_OPTIONS {
        let text = format!("copy customers to stdout {options}");
        let unmodelled = one(&text).copy.expect("a copy").unmodelled;
        let said = unmodelled.as_ref().map(|found| found.what.as_str());
        match says {
            Some(says) => assert!(said.is_some_and(|said| said.starts_with(says)), "{text}: {said:?}"),
            None => assert_eq!(said, None, "{text}"),
        }
        assert!(unmodelled.is_none_or(|found| !found.remedy.is_empty()), "{text}");
        assert!(one(&text).opaque.is_none(), "{text}: who sees everything may run it");
    }
}

#[test]
fn columns_are_noted_in_every_clause_with_their_relation() {
    let named = |sql: &str| {
        let columns = one(sql).columns;
        columns
            .iter()
            .map(|c| format!("{}.{}", c.relation.as_deref().unwrap_or("?"), c.name))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(named("select a from t where b = 1 group by c having max(d) > 1 order by e"), "t.b t.a t.d t.c t.e");
    assert_eq!(named("select count(*) filter (where a = 1) over (partition by b order by c) from t"), "t.b t.c t.a");
    assert_eq!(named("update t set a = b from u x where x.c = t.d"), "u.c t.d t.a ?.b");
    assert_eq!(named("insert into t (a) values (1) on conflict (b) do update set c = excluded.d"), "t.a t.b t.c t.d");
    assert_eq!(named("select c from customers c"), "?.c customers.*");
    assert_eq!(named("select * from a, b x"), "a.* b.*");
    assert_eq!(named("select x.* from a, b x"), "b.*");
    assert_eq!(named("select 1 from a join b using (id)"), "?.id a.id b.id");
    assert_eq!(named("select (c).ssn from customers c"), "?.c customers.* ?.ssn");
    assert_eq!(named("select c.name from customers as c (id, name)"), "customers.* ?.name");
    assert_eq!(named("select name from (customers c join t on true) as j (id, name)"), "customers.* t.* ?.name");
    assert_eq!(named("copy t (a) to stdout"), "t.a");
}

#[test]
fn null_bytes_foreign_encodings_and_long_texts_are_refused() {
    assert!(matches!(analyse("select 1\0; drop table customers"), Err(AnalyseError::Encoding(_))));
    let of_bytes = |text: &[u8]| analyse_bytes(text, Server::NEWEST, Budget::ANALYSER);
    assert!(matches!(of_bytes(b"select 1\0; drop table customers\0"), Err(AnalyseError::Encoding(_))));
    assert!(matches!(of_bytes(b"select E'\x95\x5c', 1"), Err(AnalyseError::Encoding(_))));
    assert_eq!(of_bytes("select 'é'".as_bytes()), analyse("select 'é'"));
    let long = format!("{}drop table t", " ".repeat(TEXT_BYTES_MAX));
    assert_eq!(analyse(&long), Err(AnalyseError::TooLong { bytes: long.len(), max: TEXT_BYTES_MAX }));
    let padded = format!("{}drop table t", " ".repeat(TEXT_BYTES_MAX - 12));
    assert_eq!(one(&padded).tag, "DROP TABLE");
    assert_eq!(analyse(" -- nothing\n/* at all */ ;"), Ok(Analysis::default()));
}

/// What the newest grammar takes for more than a name, and the server for a name: a column, or somebody's function.
#[test]
fn a_word_that_the_server_reads_otherwise_is_not_judged_as_the_newest_grammar_reads_it() {
    let mut compared = 0;
    for version in Version::ALL {
        let server = Server { version, ..Server::NEWEST };
        for word in keywords::words().filter(|word| keywords::differs(version, word)) {
            for form in ["", "()", "(a)", "(a, b)", "(a absent on null)", "('{}' returning text)", "('{}', '$')"] {
                let text = format!("select {word}{form} from t");
                let Ok(analysis) = analyse_for(&text, server, Budget::ANALYSER) else { continue };
                let statement = &analysis.statements[0];
                let is_column = matches!(statement.output[..], [Output::Column { .. }]);
                let is_call = statement.effects.has(Effect::Call) || statement.effects.has(Effect::Opaque);
                let is_old_call = word == "json_object" && statement.functions.iter().any(|f| f.name == word);
                assert!(is_column || is_call || is_old_call, "{version:?}: {text}: {statement:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 30, "{compared}");
}

/// Every way to nest that the grammar has, `n` deep.
fn nested(n: usize) -> Vec<(&'static str, String)> {
    let both = |before: &str, inner: &str, after: &str| format!("{}{inner}{}", before.repeat(n), after.repeat(n));
    vec![
        ("parentheses", format!("select {}", both("(", "1", ")"))),
        ("sum", format!("select 1{}", "+1".repeat(n))),
        ("signs", format!("select {}", both("- ", "a", ""))),
        ("at signs", format!("select {}", both("@ ", "a", ""))),
        ("arrays", format!("select array{}", both("[", "", "]"))),
        ("calls", format!("select {}", both("f(", "1", ")"))),
        ("rows", format!("select {}", both("(1,", "1", ")"))),
        ("scalar queries", both("select(", "1", ")")),
        ("from queries", format!("select 1 from {}", both("(select 1 from ", "t", ")"))),
        ("exists", format!("select {}", both("exists(select ", "1", ")"))),
        ("with", both("with a as (", "select 1", ") select 1")),
        ("not", format!("select {}", both("not ", "a", ""))),
        ("casts", format!("select 1{}", "::a".repeat(n))),
        ("case", format!("select {}", both("case when ", "a", " then 1 end"))),
        ("else", format!("select {}", both("case when a then 1 else ", "a", " end"))),
        ("is null", format!("select a{}", " is null".repeat(n))),
        ("isnull", format!("select a{}", " isnull".repeat(n))),
        ("collate", format!("select a{}", " collate b".repeat(n))),
        ("at time zone", format!("select a{}", " at time zone b".repeat(n))),
        ("in lists", format!("select {}", both("a in (", "1", ")"))),
        ("between", format!("select {}", both("a between 1 and (", "1", ")"))),
        ("like", format!("select {}", both("a like (", "1", ")"))),
        ("unions", format!("select 1{}", " union select 1".repeat(n))),
        ("nested unions", both("(select 1 union ", "select 1", ")")),
        ("joins", format!("select 1 from t{}", " cross join t".repeat(n))),
        ("nested joins", format!("select 1 from {}", both("(t cross join ", "t", ")"))),
        ("subscripts", format!("select {}", both("a[", "1", "]"))),
        ("ands", format!("select a{}", " and a".repeat(n))),
        ("nested ands", format!("select {}", both("a and (", "a", ")"))),
        ("or and and", format!("select a{}", " or b and c".repeat(n))),
        ("rules", both("create rule r as on insert to t do (", "select 1", ")")),
        ("schemas", format!("create schema s {}", "create view v as select 1 ".repeat(n))),
    ]
}

fn on_small_stack(job: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(job).expect("a thread");
    thread.join().expect("the analysis ends by itself");
}

#[test]
fn no_text_overflows_a_stack_of_two_mib() {
    on_small_stack(|| {
        for n in [10, 79, 159, 300, 1000, 4000, 20_000] {
            for (what, sql) in nested(n) {
                let result = analyse(&sql);
                assert!(!matches!(result, Err(AnalyseError::Encoding(_))), "{what}");
            }
        }
    });
}

#[test]
fn honest_depth_is_analysed() {
    on_small_stack(|| {
        for (what, sql) in nested(1000).into_iter().filter(|(w, _)| !matches!(*w, "rules" | "between")) {
            let result = analyse(&sql);
            assert!(result.is_ok(), "{what}: {result:?}");
        }
        assert_eq!(
            one(&format!("select {}f(1){}", "(1+".repeat(900), ")".repeat(900))).effects,
            EffectSet::of(&[Effect::Call])
        );
    });
}

#[test]
fn the_bound_of_depth_is_not_below_the_trees_depth() {
    fn levels(node: &tree::Node) -> usize {
        1 + node.children().map(levels).max().unwrap_or(0)
    }
    let corpora = [PSQL, PG_DUMP, DRIVERS].into_iter().flat_map(|c| c.split("\n--;\n")).map(str::to_owned);
    let shapes = nested(60).into_iter().map(|(_, sql)| sql);
    for sql in corpora.chain(corpus::statements().map(str::to_owned)).chain(shapes) {
        let Ok(parsed) = pg_query::parse(&sql, 0) else { continue };
        for statement in parsed.protobuf.stmts.iter().filter_map(|s| s.stmt.as_deref()) {
            let levels = levels(&tree::build(statement).expect("a shallow tree"));
            assert!(levels <= 12 + 3 * depth::bound(&sql), "{levels} levels, bound {}: {sql}", depth::bound(&sql));
        }
    }
}

#[test]
fn wide_statements_are_analysed_in_time() {
    let started = std::time::Instant::now();
    on_small_stack(|| {
        let list = one(&format!("select 1 from t where a in (1{})", ",1".repeat(200_000)));
        assert_eq!(list.effects, EffectSet::of(&[Effect::Read]));
        let chain = one(&format!("select 1 from t where a = 1{}", " or a = 1".repeat(5_000)));
        assert!(chain.literals_are_plain);
        assert_eq!(one(&format!("select a{} from t", ",a".repeat(14_000))).columns.len(), 1);
        let tables: String = (0..12_000).map(|n| format!("t{n},")).collect();
        assert_eq!(one(&format!("select a, b, c from {tables}z")).relations.len(), 12_001);
        let doubled = (0..40).fold("select 1".to_owned(), |inner, _| format!("select x.*, x.* from ({inner}) x"));
        assert!(one(&doubled).output.len() <= 1664);
        let ctes: String = (0..2000).map(|n| format!("c{n} as (select 1),")).collect();
        assert!(one(&format!("with {ctes} z as (select 1) select 1")).opaque.is_some());
    });
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

#[test]
fn what_its_tree_would_take_is_bounded_and_lists_of_constants_are_not() {
    let parts = |analysed| match analysed {
        Err(AnalyseError::Budget { what, max }) => (what, max),
        other => panic!("{other:?}"),
    };
    let max = weight::parts(Budget::ANALYSER.tree_bytes);
    for text in [
        format!("select array[a{}]", ",a".repeat(30_000)),
        format!("select 1 from t where a = 1{}", " or a = 1".repeat(30_000)),
        format!("select 1{}", ",x'1'".repeat(200_000)),
        // Its list is judged by its length, so it cannot be shortened.
        format!("set search_path = 'a'{}", ",'a'".repeat(200_000)),
    ] {
        assert_eq!(parts(analyse(&text)), (weight::PARTS, max), "{}", &text[..40]);
    }
    let row = "(1, 'it''s', -2.5, null, default)";
    for (text, tag) in [
        (format!("select 1 from t where a in (1{})", ",100000".repeat(100_000)), "SELECT"),
        (format!("insert into t values {row}{},{row} returning a", format!(",{row}").repeat(30_000)), "INSERT"),
        (format!("update t set a = 1 where b = any(array['x'{}])", ",'y'".repeat(200_000)), "UPDATE"),
        (format!("select '{}'", "a word, ".repeat(100_000)), "SELECT"),
        (format!("insert into t values {row}{};", format!(",{row}").repeat(30_000)), "INSERT"),
    ] {
        let statement = one(&text);
        assert_eq!((statement.tag.as_str(), statement.opaque), (tag, None));
    }
    let migration = analyse(&"insert into t (a, b) values (1, 'x');\n".repeat(20_000)).map(|a| a.statements.len());
    assert_eq!(migration, Ok(20_000));
    let broken = analyse(&format!("select 1 from t where a in (1{}) from", ",1".repeat(200_000)));
    assert!(matches!(&broken, Err(AnalyseError::Syntax { position: None, .. })), "{broken:?}");
    let inline = |text: &str| analyse_for(text, Server::NEWEST, Budget::INLINE);
    assert!(matches!(inline(&format!("select {}", "- ".repeat(500) + "a")), Err(AnalyseError::Budget { .. })));
    assert!(matches!(inline(&format!("select a{}", ",a".repeat(1_000))), Err(AnalyseError::Budget { .. })));
    assert!(inline("select a, b from t where c = 1").is_ok());
}

#[test]
#[ignore = "prints times"]
fn time_of_one_analysis() {
    let short = "select abalance from pgbench_accounts where aid = 1";
    let long = format!(
        "select {} from customers c join notes n on n.id = c.id where c.id = 1",
        "c.name, n.note, ".repeat(58) + "1"
    );
    for sql in [short, long.as_str()] {
        let started = std::time::Instant::now();
        for _ in 0..2000 {
            assert!(analyse(sql).is_ok());
        }
        println!("{} bytes: {:?} an analysis, bound {}", sql.len(), started.elapsed() / 2000, depth::bound(sql));
    }
}

#[test]
fn what_is_called_is_named_unless_it_has_no_name() {
    for (sql, called, unnamed) in [
        (
            "select similarity(a, 'b'), public.purge(1), similarity('c', 'd') from t",
            &["similarity", "public.purge"][..],
            false,
        ),
        ("select lower(a), nextval('s'), pg_notify('a', 'b') from t", &[], false),
        ("select similarity(a, 'b') from t where a operator(public.%) 'b'", &["similarity"], true),
        ("select * from t tablesample public.mine (1)", &[], true),
        ("insert into t select f(1)", &["f"], false),
    ] {
        let statement = one(sql);
        let names = statement.called.iter().map(|called| match &called.schema {
            Some(schema) => format!("{schema}.{}", called.name),
            None => called.name.clone(),
        });
        assert_eq!(
            (names.collect::<Vec<_>>(), statement.calls_unnamed),
            (called.iter().map(|c| (*c).to_owned()).collect(), unnamed),
            "{sql}"
        );
        assert_eq!(statement.effects.has(Effect::Call), unnamed || !called.is_empty(), "{sql}");
    }
}
