//! What a call of a function may do, by its name alone.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::super::Effect;
use super::server::Version;

/// One name a line, see the head of the file.
const PLAIN_LIST: &str = include_str!("functions.txt");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No effect beyond its arguments.
    Plain,
    /// As `Plain`, but a text argument names an object or a setting.
    NamesThings,
    /// `set_config`: depends on its arguments.
    SetConfig,
    /// A known effect.
    Has(Effect),
    /// It shows what a relation of pg_catalog shows.
    Reads(&'static str),
    /// It changes what a relation of pg_catalog holds.
    Writes(&'static str),
    /// Anybody's function.
    Unknown,
}

impl Class {
    /// It does something, whatever it gives back.
    pub fn acts(self) -> bool {
        !matches!(self, Self::Plain | Self::NamesThings | Self::Reads(_) | Self::Unknown | Self::Has(Effect::Read))
    }
}

struct Plain {
    names_things: bool,
    takes_row: bool,
}

static PLAIN: LazyLock<HashMap<&'static str, Plain>> = LazyLock::new(|| {
    let lines = PLAIN_LIST.lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, flags) = line.split_once(' ').unwrap_or((line, ""));
            (!name.is_empty())
                .then_some((name, Plain { names_things: flags.contains('n'), takes_row: flags.contains('r') }))
        })
        .collect()
});

/// Functions with a known effect, also those of common extensions.
#[rustfmt::skip]
const WITH_EFFECT: &[(Effect, &[&str])] = &[
    (Effect::Dynamic, &[
        "query_to_xml", "query_to_xml_and_xmlschema", "query_to_xmlschema", "table_to_xml", "table_to_xml_and_xmlschema",
        "table_to_xmlschema", "cursor_to_xml", "cursor_to_xmlschema", "schema_to_xml", "schema_to_xml_and_xmlschema",
        "schema_to_xmlschema", "database_to_xml", "database_to_xml_and_xmlschema", "database_to_xmlschema", "ts_stat",
        "ts_rewrite", "crosstab", "crosstab2", "crosstab3", "crosstab4", "connectby", "xpath_table",
    ]),
    (Effect::File, &[
        "pg_read_file", "pg_read_file_old", "pg_read_binary_file", "pg_stat_file", "lo_import", "lo_export",
        "pg_hba_file_rules", "pg_ident_file_mappings", "pg_show_all_file_settings", "pg_current_logfile",
        "pg_file_write", "pg_file_read", "pg_file_rename", "pg_file_unlink", "pg_file_sync", "pg_logdir_ls",
    ]),
    (Effect::Admin, &[
        "pg_terminate_backend", "pg_cancel_backend", "pg_reload_conf", "pg_rotate_logfile", "pg_rotate_logfile_old",
        "pg_switch_wal", "pg_create_restore_point", "pg_promote", "pg_backup_start", "pg_backup_stop", "pg_start_backup",
        "pg_stop_backup", "pg_wal_replay_pause", "pg_wal_replay_resume", "pg_import_system_collations", "pg_nextoid",
        "pg_stop_making_pinned_objects", "pg_log_backend_memory_contexts", "pg_log_standby_snapshot",
        "brin_summarize_new_values", "brin_summarize_range", "brin_desummarize_range", "gin_clean_pending_list",
        "pg_sync_replication_slots", "pg_show_replication_origin_status", "pg_get_replication_slots",
        "pg_get_backend_memory_contexts", "pg_get_shmem_allocations",
    ]),
    (Effect::Read, &["lo_get", "loread", "pg_stat_get_activity", "pg_stat_get_backend_activity"]),
    (Effect::Update, &[
        "lo_put", "lowrite", "lo_create", "lo_creat", "lo_from_bytea", "lo_unlink", "lo_truncate", "lo_truncate64",
        "lo_open",
    ]),
    // Letting go of one's own locks is part of what drivers do to reset a session.
    (Effect::Session, &["pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all"]),
    (Effect::Session, &["lo_close", "lo_lseek", "lo_lseek64", "lo_tell", "lo_tell64"]),
    (Effect::Notify, &["pg_notify"]),
    (Effect::Transaction, &["pg_export_snapshot"]),
];

/// Whole families with one effect, by how their names begin.
const FAMILIES: &[(&str, Effect)] = &[
    ("dblink", Effect::Dynamic),
    ("pg_ls_", Effect::File),
    ("pg_advisory_", Effect::Lock),
    ("pg_try_advisory_", Effect::Lock),
    ("binary_upgrade_", Effect::Admin),
    ("pg_stat_reset", Effect::Admin),
    ("pg_replication_", Effect::Admin),
    ("pg_logical_", Effect::Admin),
    ("pg_create_", Effect::Admin),
    ("pg_drop_", Effect::Admin),
    ("pg_copy_", Effect::Admin),
];

/// A name with a schema other than those of the system is never plain. The effects of `dblink` and its like count in
/// any schema, because extensions live where they were put.
pub fn classify(_version: Version, schema: Option<&str>, name: &str) -> Class {
    let listed = WITH_EFFECT.iter().find(|(_, names)| names.contains(&name)).map(|(effect, _)| *effect);
    let family = || FAMILIES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, effect)| *effect);
    if let Some(effect @ (Effect::Dynamic | Effect::File)) = listed.or_else(family) {
        return Class::Has(effect);
    }
    match schema {
        Some("information_schema") if name.starts_with("_pg_") => return Class::Plain,
        None | Some("pg_catalog") => {}
        Some(_) => return Class::Unknown,
    }
    if name == "set_config" {
        return Class::SetConfig;
    }
    match (PLAIN.get(name), listed.or_else(family)) {
        (_, Some(effect)) => Class::Has(effect),
        (Some(plain), None) if plain.names_things => Class::NamesThings,
        (Some(_), None) => Class::Plain,
        (None, None) => Class::Unknown,
    }
}

/// Whether `alias.name` may be a call of this function with the row of `alias`, if the row has no column of that name.
pub fn takes_row(name: &str) -> bool {
    PLAIN.get(name).is_some_and(|p| p.takes_row)
}

/// Whether the function may return any number of rows.
pub fn returns_set(name: &str) -> bool {
    matches!(name, "generate_series" | "unnest" | "regexp_split_to_table" | "string_to_table" | "regexp_matches" | "json_each")
}

/// Whether an argument stays in the session or the server.
pub fn keeps_arguments(name: &str) -> bool {
    matches!(name, "setseed" | "pg_sleep" | "nextval" | "setval")
}

/// Types of pg_catalog, found there before a user's of the same name.
pub fn type_is_of_system(name: &str) -> bool {
    type_is_plain(&[name]) || name.starts_with("reg")
}

/// Types whose constants are data. Those that turn text into a reference (`regclass`) and unknown ones are not here.
pub fn type_is_plain(parts: &[&str]) -> bool {
    const TYPES: &[&str] = &[
        "bit",
        "bool",
        "boolean",
        "box",
        "bpchar",
        "bytea",
        "char",
        "cidr",
        "circle",
        "date",
        "daterange",
        "float4",
        "float8",
        "inet",
        "int2",
        "int4",
        "int4range",
        "int8",
        "int8range",
        "interval",
        "json",
        "jsonb",
        "jsonpath",
        "line",
        "lseg",
        "macaddr",
        "macaddr8",
        "money",
        "name",
        "numeric",
        "numrange",
        "oid",
        "path",
        "pg_lsn",
        "point",
        "polygon",
        "text",
        "tid",
        "time",
        "timestamp",
        "timestamptz",
        "timetz",
        "tsquery",
        "tsrange",
        "tstzrange",
        "tsvector",
        "unknown",
        "uuid",
        "varbit",
        "varchar",
        "xid",
        "xid8",
        "xml",
    ];
    match parts {
        [name] | ["pg_catalog", name] => TYPES.binary_search(name).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_plain_name_has_an_effect_and_none_stands_twice() {
        let names: Vec<&str> = PLAIN_LIST
            .lines()
            .filter(|l| !l.starts_with('#'))
            .map(|l| l.split_once(' ').map_or(l, |(name, _)| name))
            .collect();
        assert!(names.len() > 1800 && names.is_sorted());
        for name in &names {
            assert!(matches!(classify(Version::V18, None, name), Class::Plain | Class::NamesThings), "{name}");
        }
        assert_eq!(PLAIN.len(), names.len());
    }

    #[test]
    fn only_the_systems_own_schemas_have_plain_functions() {
        assert_eq!(classify(Version::V18, None, "lower"), Class::Plain);
        assert_eq!(classify(Version::V18, Some("pg_catalog"), "lower"), Class::Plain);
        assert_eq!(classify(Version::V18, Some("public"), "lower"), Class::Unknown);
        assert_eq!(classify(Version::V18, Some("public"), "dblink_exec"), Class::Has(Effect::Dynamic));
        assert_eq!(classify(Version::V18, None, "to_regclass"), Class::NamesThings);
        assert_eq!(classify(Version::V18, None, "set_config"), Class::SetConfig);
        assert_eq!(classify(Version::V18, Some("public"), "set_config"), Class::Unknown);
    }
}
