//! Settings that the gateway pins: with another value the text that was judged is not the text that runs.
//!
//! One rule holds for SET, for set_config and for what a client brings when it connects.

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

/// Settings whose value can change what a text means or who runs it, in lower case: one that is given by a parameter, which
/// nobody has read, cannot be let through. All others steer how a text is planned, how long it may take, or how values are
/// printed; masks and detectors see values as they are printed, whatever DateStyle or bytea_output say.
const CHANGE_MEANING: [&str; 14] = [
    // Who runs it.
    "role",
    "session_authorization",
    // What its names stand for.
    "search_path",
    // What its bytes stand for.
    "client_encoding",
    "standard_conforming_strings",
    // `x = NULL` becomes `x IS NULL`, and `NULL = NULL` true.
    "transform_null_equals",
    // Triggers and rules run, or do not.
    "session_replication_role",
    "event_triggers",
    // What the server loads.
    "dynamic_library_path",
    "extension_control_path",
    "local_preload_libraries",
    "session_preload_libraries",
    // What it may write to.
    "allow_system_table_mods",
    "zero_damaged_pages",
];

/// The server takes them at the start of a session alone, so SET of them fails there; what they would load or hold up is no
/// client's business.
const OF_THE_START: [&str; 8] = [
    "ignore_system_indexes",
    "jit_debugging_support",
    "jit_profiling_support",
    "local_preload_libraries",
    "log_connections",
    "log_disconnections",
    "post_auth_delay",
    "session_preload_libraries",
];

/// Encodings of clients in which each byte of a character outside ASCII is 0x80 or more, as the server writes their names
/// (its `pg_encname_tbl`, letters and digits alone). They are those that a database may have: the server asks the same of them.
/// A text has the same words in each of them; BIG5, GBK, GB18030, JOHAB, SJIS, SHIFT_JIS_2004 and UHC are not like that.
const ASCII_SAFE: &str = "abc alt euccn eucjis2004 eucjp euckr euctw iso88591 iso885910 iso885913 iso885914 iso885915 \
    iso885916 iso88592 iso88593 iso88594 iso88595 iso88596 iso88597 iso88598 iso88599 koi8 koi8r koi8u latin1 latin10 latin2 \
    latin3 latin4 latin5 latin6 latin7 latin8 latin9 muleinternal sqlascii tcvn tcvn5712 unicode utf8 vscii win win1250 \
    win1251 win1252 win1253 win1254 win1255 win1256 win1257 win1258 win866 win874 windows1250 windows1251 windows1252 \
    windows1253 windows1254 windows1255 windows1256 windows1257 windows1258 windows866 windows874";

/// The first setting that the statement may not change.
pub(super) fn pinned(statement: &Statement) -> Option<Denial> {
    statement.settings.iter().find_map(|setting| {
        let what = refused(setting)?;
        let mut denial = Denial::new("pinned-setting", what);
        denial.hint = Some("RESET brings back the value that wireward gave the session".into());
        Some(denial)
    })
}

/// RESET and DEFAULT are harmless: the pinned values stand in the upstream's startup options, and come back.
fn refused(setting: &Setting) -> Option<String> {
    match &setting.value {
        NewValue::Default => None,
        NewValue::Is(value) => refusal(&setting.name, value),
        NewValue::Any if may_take_any_value(&setting.name) => None,
        NewValue::Any => {
            let name = &setting.name;
            Some(format!("{name} can be set to a constant only: what it becomes may change what texts mean"))
        }
    }
}

/// Why a setting may not have a value, in the user's words.
pub fn refusal(name: &str, value: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "search_path" if hides_catalog(value, true) => Some(
            "search_path cannot name pg_catalog after another schema: names of the catalog would change".to_owned(),
        ),
        "client_encoding" if !is_ascii_safe(value) => Some(format!(
            "client_encoding cannot be set to {value}: in it a letter may hold a quote or a backslash; use UTF8, or LATIN1 \
             and its like"
        )),
        "role" | "session_authorization" => Some(format!("{name} cannot be set to {value}: wireward pins it")),
        "standard_conforming_strings" if !is_on(value) => {
            Some(format!("{name} cannot be set to {value}: wireward pins it"))
        }
        _ if OF_THE_START.contains(&name.as_str()) => {
            Some(format!("{name} cannot be set by a client: the server reads it once, at the start of a session"))
        }
        _ => None,
    }
}

/// Whether a setting may be given a value that nobody has read, as `set_config('app.tenant', $1, true)` does.
pub fn may_take_any_value(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !CHANGE_MEANING.contains(&name.as_str()) && !OF_THE_START.contains(&name.as_str())
}

/// Whether a search_path names pg_catalog after another schema, and what the catalog's names stand for may change by that. The
/// server searches it first unless the path names it; analysis and grants rely on that order.
///
/// `has_homonyms`: some schema holds a function, operator, type or relation that is called as one of pg_catalog. Without any
/// the order makes no difference.
pub fn hides_catalog(path: &str, has_homonyms: bool) -> bool {
    let mut schemas = path.split(',').map(|schema| schema.trim().trim_matches('"').to_lowercase());
    has_homonyms && schemas.position(|schema| schema == "pg_catalog").is_some_and(|place| place > 0)
}

/// Whether the server takes the value for one of the encodings in which a text has the same words as in UTF-8. It compares
/// their names by letters and digits alone.
pub fn is_ascii_safe(encoding: &str) -> bool {
    let name = encoding_name(encoding);
    ASCII_SAFE.split(' ').any(|safe| safe == name)
}

/// Whether the server takes the value for UTF-8.
pub fn is_utf8(encoding: &str) -> bool {
    ["utf8", "unicode"].contains(&encoding_name(encoding).as_str())
}

fn encoding_name(encoding: &str) -> String {
    encoding.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The server takes unique prefixes of these words too; nobody writes them.
fn is_on(value: &str) -> bool {
    ["on", "true", "yes", "1"].iter().any(|on| value.trim().eq_ignore_ascii_case(on))
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
            ("search_path", Some("public"), true),
            ("search_path", Some(""), true),
            ("search_path", Some("pg_catalog, public"), true),
            ("search_path", Some("public, pg_catalog"), false),
            ("search_path", Some("public,\"pg_catalog\""), false),
            ("search_path", Some("app, PG_CATALOG"), false),
            ("statement_timeout", Some("1s"), true),
            ("app.tenant", Some("7"), true),
            ("session_preload_libraries", Some("x"), false),
            ("post_auth_delay", Some("600"), false),
        ] {
            let setting = Setting {
                name: name.into(),
                value: value.map_or(NewValue::Default, |value: &str| NewValue::Is(value.into())),
            };
            let statement = Statement { settings: vec![setting], ..Statement::default() };
            assert_eq!(pinned(&statement).is_none(), allowed, "{name} = {value:?}");
        }
    }

    #[test]
    fn an_encoding_is_allowed_where_no_letter_holds_a_byte_of_ascii() {
        let safe = [
            "UTF8",
            "utf-8",
            "'UTF8'",
            "Unicode",
            "LATIN1",
            "iso-8859-15",
            "Windows-1258",
            "EUC_JIS_2004",
            "SQL_ASCII",
        ];
        let others = [
            "SJIS",
            "ShiftJIS",
            "SHIFT_JIS_2004",
            "mskanji",
            "windows-932",
            "win949",
            "BIG5",
            "GBK",
            "UHC",
            "GB18030",
            "JOHAB",
            "utf8x",
            "",
        ];
        for (names, allowed) in [(&safe[..], true), (&others, false)] {
            for name in names {
                assert_eq!(refusal("Client_Encoding", name).is_none(), allowed, "{name}");
            }
        }
    }

    #[test]
    fn a_path_hides_the_catalog_only_where_something_is_called_as_in_it() {
        for (path, has_homonyms, hides) in [
            ("public, pg_catalog", true, true),
            ("public, pg_catalog", false, false),
            ("pg_catalog, public", true, false),
            ("public", true, false),
        ] {
            assert_eq!(hides_catalog(path, has_homonyms), hides, "{path} {has_homonyms}");
        }
    }

    #[test]
    fn a_value_that_nobody_has_read_may_not_change_what_a_text_means() {
        for (name, any) in [
            ("app.tenant", true),
            ("request.jwt.claims", true),
            ("jit", true),
            ("work_mem", true),
            ("application_name", true),
            ("TimeZone", true),
            ("DateStyle", true),
            ("bytea_output", true),
            ("client_min_messages", true),
            ("default_transaction_isolation", true),
            ("statement_timeout", true),
            ("row_security", true),
            ("role", false),
            ("ROLE", false),
            ("session_authorization", false),
            ("search_path", false),
            ("Search_Path", false),
            ("client_encoding", false),
            ("standard_conforming_strings", false),
            ("transform_null_equals", false),
            ("session_replication_role", false),
            ("local_preload_libraries", false),
            ("dynamic_library_path", false),
        ] {
            assert_eq!(may_take_any_value(name), any, "{name}");
        }
    }

    #[test]
    fn what_is_pinned_may_not_take_any_value() {
        for name in CHANGE_MEANING.iter().chain(&OF_THE_START) {
            assert!(!may_take_any_value(name), "{name}");
        }
        for (name, value) in [("role", "x"), ("client_encoding", "SJIS"), ("search_path", "a, pg_catalog")] {
            assert!(refusal(name, value).is_some() && !may_take_any_value(name), "{name}");
        }
    }
}
