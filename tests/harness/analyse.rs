//! Statements in, predictions out: each line of the input is a JSON string, each line of the output says what the analysis
//! expects of it. The first argument is the server's major version. For `tests/e2e/truth/`.

use std::io::{BufRead, Write};

use policy_compiler::statement::{AnalyseError, Analysis, Statement, postgres};
use serde_json::{Value, json};

fn main() {
    let major: u32 = std::env::args().nth(1).and_then(|given| given.parse().ok()).expect("a major version");
    let (input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    for line in input.lines() {
        let text: String = serde_json::from_str(&line.expect("the input is readable")).expect("a JSON string a line");
        let predicted = match analyse(&text, major) {
            Ok(analysis) => analysis.statements.iter().map(predicted).collect(),
            Err(why) => json!({ "error": format!("{why:?}") }),
        };
        writeln!(output, "{predicted}").expect("the output is writable");
        output.flush().expect("the output is writable");
    }
}

/// The one place that says for which server a text is analysed.
fn analyse(text: &str, _major: u32) -> Result<Analysis, AnalyseError> {
    postgres::analyse(text)
}

fn predicted(statement: &Statement) -> Value {
    let relation = |relation: &policy_compiler::statement::RelationUse| {
        let effects: Vec<&str> = relation.effects.iter().map(policy_compiler::statement::Effect::name).collect();
        json!({ "schema": relation.schema, "name": relation.name, "effects": effects })
    };
    let effects: Vec<&str> = statement.effects.iter().map(policy_compiler::statement::Effect::name).collect();
    let functions: Vec<&str> =
        statement.functions.iter().filter(|function| !function.plain).map(|function| function.name.as_str()).collect();
    json!({
        "tag": statement.tag,
        "effects": effects,
        "relations": statement.relations.iter().map(relation).collect::<Vec<_>>(),
        "functions": functions,
        "defines": statement.defines.as_ref().map(|named| format!("{named:?}")),
        "uses": statement.uses.as_ref().map(|named| format!("{named:?}")),
    })
}
