//! Statements in, predictions out: each line of the input is `{"sql": …, "added": …}`, each line of the output says what the
//! analysis expects of it. The first argument is the server's major version. For `tests/e2e/truth/`.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};

use policy_compiler::statement::Budget;
use policy_compiler::statement::postgres::analyse_for;
use policy_compiler::statement::postgres::server::{Additions, Server, Untouched, Version};
use policy_compiler::statement::{Effect, EffectSet, RelationUse, Statement};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Line {
    sql: String,
    /// Without it nobody has added anything to the server.
    added: Option<Added>,
}

/// What users have added to the server, as the script has read it there.
#[derive(Deserialize)]
struct Added {
    functions: BTreeSet<String>,
    operators: BTreeSet<String>,
    casts: BTreeSet<String>,
    unwritten_casts: bool,
    /// Types that may run something of a user's.
    lively_types: BTreeSet<String>,
    /// `relation.column`.
    columns: BTreeSet<String>,
}

impl Additions for Added {
    fn has_function(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    fn has_operator(&self, name: &str) -> bool {
        self.operators.contains(name)
    }

    fn has_cast_to(&self, type_name: &str) -> bool {
        self.casts.contains(type_name)
    }

    fn has_unwritten_casts(&self) -> bool {
        self.unwritten_casts
    }

    fn is_inert_type(&self, name: &str) -> bool {
        !self.lively_types.contains(name)
    }

    fn has_column(&self, _schema: Option<&str>, relation: &str, column: &str) -> bool {
        self.columns.contains(&format!("{relation}.{column}"))
    }
}

fn main() {
    let major = std::env::args().nth(1).and_then(|given| given.parse().ok()).expect("a major version");
    let version = Version::of_major(major).expect("a version that can be judged");
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in input.lines() {
        let line: Line = serde_json::from_str(&line.expect("the input is readable")).expect("a statement a line");
        writeln!(output, "{}", predicted(&line, version)).expect("the output is writable");
        output.flush().expect("the output is writable");
    }
}

fn predicted(line: &Line, version: Version) -> Value {
    let additions: &dyn Additions = line.added.as_ref().map_or(&Untouched, |added| added);
    match analyse_for(&line.sql, Server { version, additions }, Budget::ANALYSER) {
        Ok(analysis) => analysis.statements.iter().map(statement).collect(),
        Err(why) => json!({ "error": format!("{why:?}") }),
    }
}

fn statement(statement: &Statement) -> Value {
    let relation = |of: &RelationUse| json!({ "schema": of.schema, "name": of.name, "effects": names(of.effects) });
    json!({
        "tag": statement.tag,
        "effects": names(statement.effects),
        "relations": statement.relations.iter().map(relation).collect::<Vec<_>>(),
        "defines": statement.defines.as_ref().map(|named| format!("{named:?}")),
        "uses": statement.uses.as_ref().map(|named| format!("{named:?}")),
    })
}

fn names(effects: EffectSet) -> Vec<&'static str> {
    effects.iter().map(Effect::name).collect()
}
