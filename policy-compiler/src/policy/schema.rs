//! The JSON Schema of a policy file, for editors. The check decides; a test holds the two together.

use super::{MaskAction, detect_kinds};
use crate::statement::Effect;
use serde_json::{Value, json};

/// JSON Schema (draft 2020-12) of one policy file.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Wireward policy",
        "description": "Default deny. The strictest action wins: block, mask, allow. The order is irrelevant.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "role": sections(role()),
            "grant": sections(grant()),
            "rule": sections(rule()),
            "mask": sections(mask()),
            "detect": sections(detect()),
        }
    })
}

fn sections(item: Value) -> Value {
    json!({ "type": "array", "items": item })
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties })
}

fn role() -> Value {
    object(
        &["name"],
        json!({
            "name": text("Unique."),
            "claims": roles("Values of the token's roles claim that give it; its own name if left out."),
        }),
    )
}

fn grant() -> Value {
    let mut effects: Vec<&str> = Effect::ALL.iter().map(|(_, name)| *name).collect();
    effects.push("*");
    object(
        &["to", "resources", "effects"],
        json!({
            "to": roles("The roles that may."),
            "resources": resources(),
            "effects": list("`*` is everything but `opaque`, which must be named.", json!({ "enum": effects })),
            "relations": patterns("Only these: `name`, `schema.name`, with `*`. Without it also effects on no relation."),
            "functions": patterns("`call` is of these functions only, whatever the relations."),
        }),
    )
}

fn rule() -> Value {
    let effects: Vec<&str> = Effect::ALL.iter().map(|(_, name)| *name).collect();
    object(
        &["name", "action"],
        with_scope(json!({
            "name": text("Unique among rules, masks and detectors."),
            "action": { "enum": ["block"] },
            "effects": list("Any of these; any effect if left out.", json!({ "enum": effects })),
            "relations": patterns("On any of these; any, and statements without relations, if left out."),
            "functions": patterns("Or calling any of these."),
            "without_where": { "type": "boolean", "description": "Only UPDATE and DELETE without a WHERE that names a column." },
            "hint": text("Shown to the client."),
        })),
    )
}

fn mask() -> Value {
    object(
        &["name", "columns", "action"],
        with_scope(json!({
            "name": text("Unique among rules, masks and detectors."),
            "columns": list("`relation.column` or `schema.relation.column`.", json!({"type": "string"})),
            "action": action(),
        })),
    )
}

fn detect() -> Value {
    let mut kinds = detect_kinds().to_vec();
    kinds.push("*");
    object(
        &["name", "kinds", "action"],
        with_scope(json!({
            "name": text("Unique among rules, masks and detectors."),
            "kinds": list("What is looked for in every value.", json!({ "enum": kinds })),
            "action": action(),
        })),
    )
}

fn with_scope(mut properties: Value) -> Value {
    properties["to"] = roles("Every role if left out.");
    properties["except"] = roles("Applies to no session with one of these roles.");
    properties["resources"] = resources();
    properties
}

fn action() -> Value {
    json!({ "enum": MaskAction::ALL.map(|(_, name)| name) })
}

fn resources() -> Value {
    list("Names of resources of the configuration; `*` alone is all.", json!({"type": "string"}))
}

fn roles(description: &str) -> Value {
    list(description, json!({"type": "string"}))
}

fn patterns(description: &str) -> Value {
    list(description, json!({"type": "string"}))
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn list(description: &str, items: Value) -> Value {
    json!({ "type": "array", "minItems": 1, "items": items, "description": description })
}
