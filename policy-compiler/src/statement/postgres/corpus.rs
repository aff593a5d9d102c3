//! One row a statement: `sql ;; effects ;; relations ;; output ;; extras`, see `corpus.txt`.

use super::super::{Dropped, EffectSet, Named, NewValue, Output, Places, Statement, UNKNOWN_COLUMN};
use super::analyse;

const ROWS: &str = include_str!("corpus.txt");

fn effects(set: EffectSet) -> String {
    set.iter().map(|e| e.name()).collect::<Vec<_>>().join("+")
}

fn dotted(schema: Option<&str>, name: &str) -> String {
    schema.map_or_else(|| name.to_owned(), |schema| format!("{schema}.{name}"))
}

fn relations(statement: &Statement) -> String {
    let shown =
        |r: &super::super::RelationUse| format!("{}:{}", dotted(r.schema.as_deref(), &r.name), effects(r.effects));
    statement.relations.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn column(statement: &Statement, at: u32) -> String {
    let used = &statement.columns[at as usize];
    match used.name.as_str() {
        UNKNOWN_COLUMN => "?".to_owned(),
        name => format!("{}.{name}", used.relation.as_deref().unwrap_or("?")),
    }
}

/// `-` shows nothing, `#` a number of rows, `(t.c u.d)` an expression by what flows into it, `?` unknown, `t.*` all of a
/// relation, `t.c` a column, `?.c` a column of one of several.
fn output(statement: &Statement) -> String {
    let shown = |o: &Output| match o {
        Output::All { schema, relation } => format!("{}.*", dotted(schema.as_deref(), relation)),
        Output::Column { relation, name } => format!("{}.{name}", relation.as_deref().unwrap_or("?")),
        Output::Rows => "#".to_owned(),
        Output::Computed(flows) if flows.is_empty() => "-".to_owned(),
        Output::Computed(flows) => {
            format!("({})", flows.iter().map(|at| column(statement, *at)).collect::<Vec<_>>().join(" "))
        }
        Output::Unknown => "?".to_owned(),
    };
    statement.output.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// What stands only in some rows: other tags than the SQL begins with, settings, names, functions that are not plain.
fn extras(statement: &Statement) -> String {
    let mut parts = vec![statement.tag.clone()];
    parts.extend(statement.without_where.then(|| "no-where".to_owned()));
    parts.extend(statement.literals_are_plain.then(|| "plain".to_owned()));
    let value = |value: &NewValue| match value {
        NewValue::Default => "<default>".to_owned(),
        NewValue::Any => "<any>".to_owned(),
        NewValue::Is(value) => value.clone(),
    };
    parts.extend(statement.settings.iter().map(|s| format!("{}={}", s.name, value(&s.value))));
    let placed = |places: Places| {
        let columns = statement.columns.iter().enumerate().filter(move |(_, used)| used.places.has_any(places));
        columns.map(|(at, _)| column(statement, at as u32)).collect::<Vec<_>>().join(" ")
    };
    for (word, places) in [("picks", Places::PICKS), ("shapes", Places::SHAPES), ("kept", Places::KEPT)] {
        let columns = placed(places);
        parts.extend((!columns.is_empty()).then(|| format!("{word} {columns}")));
    }
    parts.extend(statement.acts.then(|| "acts".to_owned()));
    let named = |verb: &str, named: &Option<Named>| {
        named.as_ref().map(|n| match n {
            Named::Prepared(name) => format!("{verb} prepared {name}"),
            Named::Cursor(name) => format!("{verb} cursor {name}"),
        })
    };
    parts.extend(named("defines", &statement.defines));
    parts.extend(statement.holds.then(|| "holds".to_owned()));
    parts.extend(named("uses", &statement.uses));
    parts.extend(statement.drops.as_ref().map(dropped));
    let foreign = statement.functions.iter().filter(|f| !f.plain);
    parts.extend(foreign.map(|f| format!("calls {}", dotted(f.schema.as_deref(), &f.name))));
    parts.join(" / ")
}

fn dropped(drops: &Dropped) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "*".to_owned());
    match drops {
        Dropped::Prepared(which) => format!("drops prepared {}", name(which)),
        Dropped::Cursor(which) => format!("drops cursor {}", name(which)),
        Dropped::Everything => "drops everything".to_owned(),
    }
}

fn row(sql: &str) -> String {
    let analysis = match analyse(sql) {
        Ok(analysis) => analysis,
        Err(why) => return format!("{sql} ;; {why:?}"),
    };
    let fields = |s: &Statement| [effects(s.effects), relations(s), output(s), extras(s)].join(" ;; ");
    let statements: Vec<String> = analysis.statements.iter().map(fields).collect();
    format!("{sql} ;; {}", statements.join(" ;; then ;; "))
}

fn rows() -> impl Iterator<Item = &'static str> {
    ROWS.lines().filter(|l| !l.is_empty() && !l.starts_with('#'))
}

/// The SQL of a row; `\n` and `\\` in it are escapes of the file.
pub fn statements() -> impl Iterator<Item = &'static str> {
    rows().filter_map(|row| row.split_once(" ;; ")).map(|(sql, _)| sql)
}

#[test]
fn every_statement_of_the_corpus_has_its_effects_relations_and_output() {
    assert!(rows().count() >= 250, "{} rows", rows().count());
    let wrong: Vec<String> = rows()
        .filter_map(|expected| {
            let found = row(expected.split_once(" ;; ").map_or(expected, |(sql, _)| sql));
            (found != expected).then(|| format!("expected {expected}\nfound    {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Writes the file anew from its statements, for a reviewed change of the analysis: `cargo test -- --ignored rewrite`.
#[test]
#[ignore = "prints the corpus as the analysis sees it"]
fn rewrite_the_corpus() {
    for line in ROWS.lines() {
        let sql = line.split_once(" ;; ").map_or(line, |(sql, _)| sql);
        println!("ROW {}", if line.is_empty() || line.starts_with('#') { line.to_owned() } else { row(sql) });
    }
}
