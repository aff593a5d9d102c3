//! Settings that the gateway pins: with another value the text that was judged is not the text that runs.

use super::{Case, Denial};
use crate::statement::{Effect, EffectSet, NewValue, Setting, Statement};

impl Case<'_> {
    /// UPDATE of pg_settings is SET to the server, whatever the condition picks.
    pub(super) fn writes_settings(&self, statement: &Statement) -> Option<Denial> {
        let writes = EffectSet::of(&[Effect::Insert, Effect::Update, Effect::Delete]);
        let written = statement.relations.iter().find(|relation| {
            let name = self.resolve(relation);
            !relation.effects.intersection(writes).is_empty()
                && self.catalogue.leads_to_settings(name.schema(), name.name)
        })?;
        let mut denial =
            Denial::new("pinned-setting", format!("{} of {} would set settings", statement.tag, written.name));
        denial.hint = Some("use SET name = value".into());
        Some(denial)
    }
}

/// The first setting that the statement may not change.
pub(super) fn pinned(statement: &Statement) -> Option<Denial> {
    statement.settings.iter().find_map(|setting| {
        let what = refusal(setting)?;
        let mut denial = Denial::new("pinned-setting", what);
        denial.hint = Some("RESET brings back the value that wireward gave the session".into());
        Some(denial)
    })
}

/// RESET and DEFAULT are harmless: the pinned values stand in the upstream's startup options, and come back.
fn refusal(setting: &Setting) -> Option<String> {
    let name = setting.name.to_lowercase();
    let value = match &setting.value {
        NewValue::Default => return None,
        NewValue::Is(value) => value,
        NewValue::Any if may_take_any_value(&name) => return None,
        NewValue::Any => {
            return Some(format!("{name} can be set to a constant only: what it becomes may change what texts mean"));
        }
    };
    if name == "search_path" && hides_catalog(value) {
        return Some(
            "search_path cannot name pg_catalog after another schema: names of the catalog would change".into(),
        );
    }
    let allowed = match name.as_str() {
        "role" | "session_authorization" => false,
        "standard_conforming_strings" => is_on(value),
        "client_encoding" => is_utf8(value),
        _ => true,
    };
    (!allowed).then(|| format!("{name} cannot be set to {value}: wireward pins it"))
}

/// Whether a setting, whatever it becomes, changes neither what a text means nor who acts.
pub fn may_take_any_value(name: &str) -> bool {
    const MEANING: [&str; 6] = [
        "client_encoding",
        "role",
        "search_path",
        "session_authorization",
        "session_replication_role",
        "standard_conforming_strings",
    ];
    !MEANING.contains(&name)
}

/// Whether a search_path names pg_catalog after another schema. The server searches it first unless the path names it;
/// analysis and grants rely on that order.
pub fn hides_catalog(path: &str) -> bool {
    let mut schemas = path.split(',').map(|schema| schema.trim().trim_matches('"').to_lowercase());
    schemas.position(|schema| schema == "pg_catalog").is_some_and(|place| place > 0)
}

/// The server takes unique prefixes of these words too; nobody writes them.
fn is_on(value: &str) -> bool {
    ["on", "true", "yes", "1"].iter().any(|on| value.trim().eq_ignore_ascii_case(on))
}

/// The server compares names of encodings by their letters and digits alone.
fn is_utf8(value: &str) -> bool {
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    plain.eq_ignore_ascii_case("utf8") || plain.eq_ignore_ascii_case("unicode")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_settings_keep_their_value() {
        for (name, value, allowed) in [
            ("role", Some("postgres"), false),
            ("ROLE", Some("none"), false),
            ("role", None, true),
            ("session_authorization", Some("postgres"), false),
            ("session_authorization", None, true),
            ("standard_conforming_strings", Some("off"), false),
            ("Standard_Conforming_Strings", Some("OFF"), false),
            ("standard_conforming_strings", Some("on"), true),
            ("standard_conforming_strings", Some("TRUE"), true),
            ("standard_conforming_strings", None, true),
            ("client_encoding", Some("UTF8"), true),
            ("client_encoding", Some("utf-8"), true),
            ("client_encoding", Some("'UTF8'"), true),
            ("client_encoding", Some("Unicode"), true),
            ("client_encoding", Some("SJIS"), false),
            ("client_encoding", Some("utf8x"), false),
            ("client_encoding", Some(""), false),
            ("search_path", Some("public"), true),
            ("search_path", Some(""), true),
            ("search_path", Some("pg_catalog, public"), true),
            ("search_path", Some("public, pg_catalog"), false),
            ("search_path", Some("public,\"pg_catalog\""), false),
            ("search_path", Some("app, PG_CATALOG"), false),
            ("statement_timeout", Some("1s"), true),
        ] {
            let setting = Setting {
                name: name.into(),
                value: value.map_or(NewValue::Default, |value: &str| NewValue::Is(value.into())),
            };
            let statement = Statement { settings: vec![setting], ..Statement::default() };
            assert_eq!(pinned(&statement).is_none(), allowed, "{name} = {value:?}");
        }
    }
}
