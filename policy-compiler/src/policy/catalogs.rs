//! The server's own relations: which names are catalogs, and which of them show other people's data or secrets.

use std::collections::HashMap;
use std::sync::LazyLock;

/// One relation a line, see the head of the file.
const TABLE: &str = include_str!("catalogs.txt");

/// A relation as a statement names it, with its schema if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    pub schema: Option<&'a str>,
    pub name: &'a str,
}

struct Catalog {
    schema: &'static str,
    /// All servers that can be judged have it.
    everywhere: bool,
    is_open: bool,
}

/// No name stands in both schemas.
static CATALOGS: LazyLock<HashMap<&'static str, Catalog>> = LazyLock::new(|| {
    let own = lines().filter(|words| words[0] != "*");
    own.map(|words| {
        (words[1], Catalog { schema: words[0], everywhere: words[2] == "15-18", is_open: words[3] == "open" })
    })
    .collect()
});

/// How the names of extensions' relations begin.
static EXTENSIONS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| lines().filter(|words| words[0] == "*").map(|words| words[1].trim_end_matches('*')).collect());

fn lines() -> impl Iterator<Item = [&'static str; 4]> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split(' ');
        std::array::from_fn(|_| words.next().unwrap_or_default())
    })
}

impl Name<'_> {
    /// A part of pg_catalog or information_schema that everybody's driver reads.
    pub fn is_open_catalog(&self) -> bool {
        self.schema.is_some_and(is_system) && !self.is_protected_catalog()
    }

    /// Shows rows, statements or secrets of others: only a grant that names it, or one of everything, opens it.
    ///
    /// By name in any schema: extensions put theirs where the administrator says, and views of the server are copied.
    /// What is new in a schema of the server is protected until somebody has looked at it.
    pub fn is_protected_catalog(&self) -> bool {
        if self.schema.is_some_and(is_toast) || EXTENSIONS.iter().any(|begins| self.name.starts_with(begins)) {
            return true;
        }
        match (CATALOGS.get(self.name), self.schema) {
            (Some(catalog), None | Some("pg_catalog")) => !catalog.is_open,
            // The names of information_schema are words that people use for tables of their own.
            (Some(catalog), Some(schema)) => !catalog.is_open && (catalog.schema == schema || is_pg(self.name)),
            (None, schema) => schema.is_some_and(is_system),
        }
    }
}

/// Whether a relation of this name, as written, is of the server's own schemas.
pub fn is_of_system(schema: Option<&str>, name: &str) -> bool {
    match schema {
        Some(schema) => matches!(schema, "pg_catalog" | "information_schema") || is_toast(schema),
        None => is_catalog_name(name),
    }
}

/// Whether the name, written without a schema, is found in pg_catalog before anywhere else.
pub fn is_catalog_name(name: &str) -> bool {
    CATALOGS.get(name).is_some_and(|catalog| catalog.schema == "pg_catalog" && catalog.everywhere)
}

fn is_system(schema: &str) -> bool {
    ["pg_catalog", "information_schema"].contains(&schema)
}

fn is_pg(name: &str) -> bool {
    name.starts_with("pg_") || name.starts_with("_pg_")
}

/// TOAST tables hold the long values of tables, masked ones too.
fn is_toast(schema: &str) -> bool {
    schema == "pg_toast" || schema.starts_with("pg_toast_temp_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the servers say, compared with them by tests/e2e/catalogues.rs.
    const SERVERS: &str = include_str!("../../../tests/corpus/postgres/pg_class.txt");

    #[test]
    fn the_table_has_every_relation_of_the_servers_and_no_other() {
        let own = lines().filter(|words| words[0] != "*").map(|words| words[..3].join(" ")).collect::<BTreeSet<_>>();
        let servers = SERVERS.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        assert_eq!(own.symmetric_difference(&servers).collect::<Vec<_>>(), <Vec<&String>>::new());
        assert_eq!(CATALOGS.len(), own.len(), "a name stands in both schemas");
        assert!(lines().all(|words| ["open", "protected"].contains(&words[3])));
    }

    #[test]
    fn catalogs_are_open_but_for_those_that_show_data_of_others() {
        for (schema, name, open, protected) in [
            (Some("pg_catalog"), "pg_class", true, false),
            (Some("pg_catalog"), "pg_settings", true, false),
            (Some("information_schema"), "columns", true, false),
            (Some("information_schema"), "user_mapping_options", false, true),
            (Some("information_schema"), "_pg_user_mappings", false, true),
            (Some("information_schema"), "_pg_foreign_servers", false, true),
            (Some("information_schema"), "what_is_new_in_19", false, true),
            (Some("pg_catalog"), "pg_stat_what_is_new_in_19", false, true),
            (Some("information_schema"), "column_options", false, true),
            (Some("public"), "column_options", false, false),
            (Some("pg_catalog"), "pg_stats", false, true),
            (Some("audit"), "pg_stats", false, true),
            (Some("pg_catalog"), "pg_authid", false, true),
            (Some("pg_catalog"), "pg_locks", false, true),
            (Some("pg_catalog"), "pg_stat_xact_user_tables", false, true),
            (Some("pg_catalog"), "pg_stat_user_tables", true, false),
            (Some("public"), "pg_stat_statements", false, true),
            (None, "pg_stat_statements", false, true),
            (Some("monitor"), "pg_qualstats_by_query", false, true),
            (None, "pg_store_plans", false, true),
            (None, "pg_wait_sampling_history", false, true),
            (Some("pg_toast"), "pg_toast_16390", false, true),
            (Some("pg_toast_temp_3"), "pg_toast_16390", false, true),
            (Some("public"), "pg_class", false, false),
            (None, "customers", false, false),
        ] {
            let relation = Name { schema, name };
            assert_eq!(relation.is_open_catalog(), open, "{relation:?}");
            assert_eq!(relation.is_protected_catalog(), protected, "{relation:?}");
        }
    }

    #[test]
    fn a_name_without_schema_is_a_catalog_only_where_all_servers_have_it() {
        for (name, found) in
            [("pg_class", true), ("pg_stats", true), ("pg_wait_events", false), ("columns", false), ("orders", false)]
        {
            assert_eq!(is_catalog_name(name), found, "{name}");
        }
    }
}
