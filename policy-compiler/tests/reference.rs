//! POLICY.md says what the compiler takes: its example compiles, and no word of the language is missing in it.

use policy_compiler::policy::{MaskAction, Source, check, detect_kinds, schema};
use policy_compiler::statement::Effect;

const REFERENCE: &str = include_str!("../POLICY.md");

#[test]
fn the_example_is_a_policy() {
    let (_, rest) = REFERENCE.split_once("```toml\n").expect("an example");
    let (text, _) = rest.split_once("```").expect("its end");
    let checked = check(&[Source { name: "POLICY.md".into(), text: text.into() }]);
    let checked = checked.unwrap_or_else(|errors| panic!("{}", errors[0]));
    assert_eq!((checked.grants.len(), checked.rules.len(), checked.masks.len(), checked.detects.len()), (1, 2, 1, 1));
}

#[test]
fn every_key_effect_action_and_kind_is_described() {
    let schema = schema();
    let sections = schema["properties"].as_object().expect("sections");
    let keys = sections.values().flat_map(|s| s["items"]["properties"].as_object().expect("keys").keys());
    let words = sections.keys().chain(keys).map(String::as_str);
    let words = words.chain(Effect::ALL.map(|(_, name)| name)).chain(MaskAction::ALL.map(|(_, name)| name));
    let is_there =
        |word: &&str| REFERENCE.contains(&format!("`{word}`")) || REFERENCE.contains(&format!("`[[{word}]]`"));
    let missing: Vec<_> = words.chain(detect_kinds()).filter(|word| !is_there(word)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
