//! What a call of a function may do, by its name and the server's version.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use super::super::Effect;
use super::server::Version;

/// One name a line, see the head of the file.
const TABLE: &str = include_str!("functions.txt");

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
    /// Shows what this protected relation of pg_catalog shows.
    Reads(&'static str),
    /// Changes this protected relation of pg_catalog.
    Writes(&'static str),
    /// Anybody's function.
    Unknown,
}

impl Class {
    /// It does something by itself, whatever it gives back. What runs SQL or reads files does it under effects of its own.
    pub fn acts(self) -> bool {
        use Effect::{Dynamic, File, Read};
        !matches!(
            self,
            Self::Plain | Self::NamesThings | Self::Reads(_) | Self::Unknown | Self::Has(Dynamic | File | Read)
        )
    }
}

struct Function {
    versions: RangeInclusive<Version>,
    class: Class,
    flags: &'static str,
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| lines().filter_map(parse).collect());

fn lines() -> impl Iterator<Item = &'static str> {
    TABLE.lines().filter(|line| !line.starts_with('#'))
}

fn parse(line: &'static str) -> Option<(&'static str, Function)> {
    let mut words = line.split(' ');
    let (name, versions, class) = (words.next()?, Version::range(words.next()?)?, words.next()?);
    let flags = words.next().unwrap_or_default();
    let class = match class.split_once('=') {
        Some(("reads", relation)) => Class::Reads(relation),
        Some(("writes", relation)) => Class::Writes(relation),
        Some(_) => return None,
        None => match class {
            "plain" if flags.contains('n') => Class::NamesThings,
            "plain" => Class::Plain,
            "internal" => Class::Unknown,
            "set_config" => Class::SetConfig,
            effect => Class::Has(Effect::parse(effect)?),
        },
    };
    Some((name, Function { versions, class, flags }))
}

/// Functions of common extensions, which live in any schema: how their names begin, and what they do.
const EXTENSIONS: &[(&str, Class)] = &[
    ("connectby", Class::Has(Effect::Dynamic)),
    ("crosstab", Class::Has(Effect::Dynamic)),
    ("dblink", Class::Has(Effect::Dynamic)),
    ("pg_buffercache_evict", Class::Has(Effect::Admin)),
    ("pg_buffercache", Class::Reads("pg_buffercache")),
    ("pg_file_", Class::Has(Effect::File)),
    ("pg_logdir_ls", Class::Has(Effect::File)),
    ("pg_qualstats_reset", Class::Has(Effect::Admin)),
    ("pg_qualstats", Class::Reads("pg_qualstats")),
    ("pg_show_plans", Class::Reads("pg_show_plans")),
    ("pg_stat_kcache_reset", Class::Has(Effect::Admin)),
    ("pg_stat_kcache", Class::Reads("pg_stat_kcache")),
    ("pg_stat_monitor_reset", Class::Has(Effect::Admin)),
    ("pg_stat_monitor", Class::Reads("pg_stat_monitor")),
    ("pg_stat_statements_reset", Class::Has(Effect::Admin)),
    ("pg_stat_statements", Class::Reads("pg_stat_statements")),
    ("pg_store_plans_reset", Class::Has(Effect::Admin)),
    ("pg_store_plans", Class::Reads("pg_store_plans")),
    ("pg_tracing", Class::Reads("pg_tracing")),
    ("pg_wait_sampling_reset", Class::Has(Effect::Admin)),
    ("pg_wait_sampling", Class::Reads("pg_wait_sampling")),
    ("xpath_table", Class::Has(Effect::Dynamic)),
];

/// A name with a schema other than those of the system is never plain, nor is one that the version does not have.
pub fn classify(version: Version, schema: Option<&str>, name: &str) -> Class {
    if let Some((_, class)) = EXTENSIONS.iter().find(|(begins, _)| name.starts_with(begins)) {
        return *class;
    }
    match listed(schema, name) {
        Some(function) if function.versions.contains(&version) => function.class,
        _ => Class::Unknown,
    }
}

fn listed(schema: Option<&str>, name: &str) -> Option<&'static Function> {
    match schema {
        None | Some("pg_catalog") => FUNCTIONS.get(name),
        Some(schema @ "information_schema") => FUNCTIONS.get(format!("{schema}.{name}").as_str()),
        Some(_) => None,
    }
}

fn has_flag(name: &str, flag: char) -> bool {
    FUNCTIONS.get(name).is_some_and(|function| function.flags.contains(flag))
}

/// Whether `alias.name` may be a call of this function with the row of `alias`, if the row has no column of that name.
pub fn takes_row(name: &str) -> bool {
    has_flag(name, 'r')
}

/// Whether how many rows it returns depends on its arguments.
pub fn returns_set(name: &str) -> bool {
    has_flag(name, 's') || has_flag(&format!("information_schema.{name}"), 's')
}

/// Whether what its arguments were can be found out later, from the session or the server.
pub fn keeps_arguments(name: &str) -> bool {
    has_flag(name, 'k')
}

/// Whether a text argument names a type, so that this type's input runs.
pub fn names_type(name: &str) -> bool {
    has_flag(name, 't')
}

/// Types of pg_catalog on servers 15 to 18, found there before a user's of the same name.
pub fn type_is_of_system(name: &str) -> bool {
    #[rustfmt::skip]
    const TYPES: &[&str] = &[
        "aclitem", "any", "anyarray", "anycompatible", "anycompatiblearray", "anycompatiblemultirange",
        "anycompatiblenonarray", "anycompatiblerange", "anyelement", "anyenum", "anymultirange", "anynonarray",
        "anyrange", "bit", "bool", "box", "bpchar", "bytea", "char", "cid", "cidr", "circle", "cstring", "date",
        "datemultirange", "daterange", "event_trigger", "fdw_handler", "float4", "float8", "gtsvector",
        "index_am_handler", "inet", "int2", "int2vector", "int4", "int4multirange", "int4range", "int8",
        "int8multirange", "int8range", "internal", "interval", "json", "jsonb", "jsonpath", "language_handler", "line",
        "lseg", "macaddr", "macaddr8", "money", "name", "numeric", "nummultirange", "numrange", "oid", "oidvector",
        "path", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_ddl_command", "pg_dependencies", "pg_lsn",
        "pg_mcv_list", "pg_ndistinct", "pg_node_tree", "pg_snapshot", "point", "polygon", "record", "refcursor",
        "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator", "regproc",
        "regprocedure", "regrole", "regtype", "table_am_handler", "text", "tid", "time", "timestamp", "timestamptz",
        "timetz", "trigger", "tsm_handler", "tsmultirange", "tsquery", "tsrange", "tstzmultirange", "tstzrange",
        "tsvector", "txid_snapshot", "unknown", "uuid", "varbit", "varchar", "void", "xid", "xid8", "xml",
    ];
    TYPES.binary_search(&name.trim_start_matches('_')).is_ok()
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::policy::catalogs::Name;

    /// What the servers say, compared with them by tests/e2e/catalogues.rs.
    const SERVERS: &str = include_str!("../../../../tests/corpus/postgres/pg_proc.txt");

    /// Volatile functions that are plain all the same, as the head of the table says; each was read up.
    #[rustfmt::skip]
    const VOLATILE_AND_PLAIN: &[&str] = &[
        "amvalidate", "array_sample", "array_shuffle", "clock_timestamp", "current_query", "currval",
        "gen_random_uuid", "lastval", "pg_available_wal_summaries", "pg_collation_actual_version",
        "pg_control_checkpoint", "pg_control_init", "pg_control_recovery", "pg_control_system",
        "pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_lsn",
        "pg_database_collation_actual_version", "pg_database_size", "pg_get_loaded_modules",
        "pg_get_multixact_members", "pg_get_sequence_data", "pg_get_wait_events", "pg_get_wal_replay_pause_state",
        "pg_get_wal_resource_managers", "pg_get_wal_summarizer_state", "pg_indexes_size", "pg_is_in_recovery",
        "pg_is_wal_replay_paused", "pg_jit_available", "pg_last_committed_xact", "pg_last_wal_receive_lsn",
        "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp", "pg_notification_queue_usage",
        "pg_partition_ancestors", "pg_partition_tree", "pg_relation_size", "pg_sequence_last_value",
        "pg_show_replication_origin_status", "pg_sleep", "pg_sleep_for", "pg_sleep_until", "pg_stat_get_io",
        "pg_stat_get_recovery_prefetch", "pg_stat_have_stats", "pg_table_size", "pg_tablespace_size",
        "pg_total_relation_size", "pg_xact_commit_timestamp", "pg_xact_commit_timestamp_origin", "pg_xact_status",
        "random", "random_normal", "timeofday", "txid_status", "uuidv4", "uuidv7",
    ];

    fn facts(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect())
    }

    #[test]
    fn the_table_has_every_function_of_the_servers_and_no_other() {
        let of = |text| facts(text).map(|words| (words[0], words[1])).collect::<BTreeSet<_>>();
        let (table, servers) = (of(TABLE), of(SERVERS));
        assert_eq!(table.symmetric_difference(&servers).collect::<Vec<_>>(), <Vec<&(&str, &str)>>::new());
        assert!(table.len() > 2800 && lines().is_sorted_by_key(|line| line.split(' ').next()));
        assert_eq!(FUNCTIONS.len(), table.len(), "some line is not understood, or stands twice");
    }

    #[test]
    fn what_returns_sets_or_is_volatile_on_a_server_is_so_here() {
        let mut plain = Vec::new();
        for words in facts(SERVERS) {
            let (name, flags) = (words[0], words.get(2).copied().unwrap_or_default());
            let function = &FUNCTIONS[name];
            if function.class != Class::Unknown {
                assert_eq!(function.flags.contains('s'), flags.contains('s'), "{name}");
            }
            if flags.contains('v') && matches!(function.class, Class::Plain | Class::NamesThings) {
                plain.push(name);
            }
        }
        assert_eq!(plain, VOLATILE_AND_PLAIN);
    }

    #[test]
    fn what_a_function_reads_or_writes_for_others_is_protected() {
        let classes = FUNCTIONS.values().map(|f| f.class).chain(EXTENSIONS.iter().map(|(_, class)| *class));
        for class in classes {
            if let Class::Reads(name) | Class::Writes(name) = class {
                assert!(Name { schema: Some("pg_catalog"), name }.is_protected_catalog(), "{name}");
            }
        }
    }

    #[test]
    fn what_writes_keeps_its_arguments() {
        let keeps = |class| match class {
            Class::Writes(_) | Class::SetConfig => true,
            Class::Has(effect) => [Effect::Lock, Effect::Notify, Effect::Update, Effect::Admin].contains(&effect),
            _ => false,
        };
        let all = FUNCTIONS.iter().filter(|(_, function)| keeps(function.class));
        assert_eq!(all.filter(|(name, _)| !keeps_arguments(name)).count(), 0);
    }

    #[test]
    fn functions_are_what_the_server_of_the_version_makes_of_them() {
        use Version::{V15, V16, V17, V18};
        for (version, schema, name, class) in [
            (V15, None, "lower", Class::Plain),
            (V18, Some("pg_catalog"), "lower", Class::Plain),
            (V18, Some("public"), "lower", Class::Unknown),
            (V18, None, "to_regclass", Class::NamesThings),
            (V18, None, "set_config", Class::SetConfig),
            (V18, Some("public"), "set_config", Class::Unknown),
            (V15, None, "any_value", Class::Unknown),
            (V16, None, "any_value", Class::Plain),
            (V17, None, "uuidv7", Class::Unknown),
            (V18, None, "uuidv7", Class::Plain),
            (V18, None, "merge_action", Class::Unknown),
            (V17, None, "pg_read_file_old", Class::Unknown),
            (V16, None, "pg_read_file_old", Class::Has(Effect::File)),
            (V18, Some("information_schema"), "_pg_expandarray", Class::Plain),
            (V18, Some("information_schema"), "_pg_no_such_thing", Class::Unknown),
            (V18, Some("information_schema"), "lower", Class::Unknown),
            (V18, None, "_pg_expandarray", Class::Unknown),
            (V18, None, "record_out", Class::Unknown),
            (V18, None, "pg_stat_get_activity", Class::Reads("pg_stat_activity")),
            (V18, None, "pg_stat_get_backend_activity", Class::Reads("pg_stat_activity")),
            (V18, None, "pg_lock_status", Class::Reads("pg_locks")),
            (V18, None, "lo_get", Class::Reads("pg_largeobject")),
            (V18, None, "lo_put", Class::Writes("pg_largeobject")),
            (V18, None, "nextval", Class::Has(Effect::Update)),
            (V18, None, "setval", Class::Has(Effect::Update)),
            (V18, None, "setseed", Class::Has(Effect::Session)),
            (V18, None, "pg_advisory_xact_lock", Class::Has(Effect::Lock)),
            (V18, None, "pg_terminate_backend", Class::Has(Effect::Admin)),
            (V18, None, "query_to_xml", Class::Has(Effect::Dynamic)),
            (V18, Some("public"), "dblink_exec", Class::Has(Effect::Dynamic)),
            (V18, Some("monitor"), "pg_stat_statements", Class::Reads("pg_stat_statements")),
            (V18, Some("monitor"), "pg_stat_statements_reset", Class::Has(Effect::Admin)),
            (V18, None, "pg_qualstats_by_query", Class::Reads("pg_qualstats")),
        ] {
            assert_eq!(classify(version, schema, name), class, "{version:?} {schema:?} {name}");
        }
    }

    #[test]
    fn flags_say_what_arguments_may_do() {
        for (name, row, set, keeps, names_a_type) in [
            ("row_to_json", true, false, false, false),
            ("generate_series", false, true, false, false),
            ("_pg_expandarray", false, true, false, false),
            ("setseed", false, false, true, false),
            ("pg_advisory_unlock", false, false, true, false),
            ("lo_lseek", false, false, true, false),
            ("pg_input_is_valid", false, false, false, true),
            ("lower", false, false, false, false),
            ("somebodys_own", false, false, false, false),
        ] {
            let found = (takes_row(name), returns_set(name), keeps_arguments(name), names_type(name));
            assert_eq!(found, (row, set, keeps, names_a_type), "{name}");
        }
    }
}
