//! The server's own relations: which names are catalogs, and which of them show other people's data or secrets.

/// A relation as a statement names it, with its schema if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    pub schema: Option<&'a str>,
    pub name: &'a str,
}

impl Name<'_> {
    /// A part of pg_catalog or information_schema that everybody's driver reads.
    pub fn is_open_catalog(&self) -> bool {
        matches!(self.schema, Some("pg_catalog" | "information_schema")) && !self.is_protected_catalog()
    }

    /// Shows rows, statements or secrets of others: only a grant that names it, or one of everything, opens it.
    ///
    /// By name in any schema: extensions put theirs where the administrator says.
    pub fn is_protected_catalog(&self) -> bool {
        PROTECTED.binary_search(&self.name).is_ok() || self.schema.is_some_and(is_toast)
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
    CATALOGS.binary_search(&name).is_ok()
}

/// TOAST tables hold the long values of tables, masked ones too.
fn is_toast(schema: &str) -> bool {
    schema == "pg_toast" || schema.starts_with("pg_toast_temp_")
}

/// Sorted. Statistics hold values of columns; the rest holds statements, passwords, keys and connection strings.
const PROTECTED: [&str; 18] = [
    "pg_authid",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_largeobject",
    "pg_shadow",
    "pg_stat_activity",
    "pg_stat_statements",
    "pg_stat_wal_receiver",
    "pg_statistic",
    "pg_statistic_ext_data",
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
    "pg_subscription",
    "pg_user_mapping",
    "pg_user_mappings",
    "user_mapping_options",
];

/// Sorted. pg_catalog of servers 15 to 18.
#[rustfmt::skip]
const CATALOGS: [&str; 144] = [
    "pg_aggregate", "pg_aios", "pg_am", "pg_amop", "pg_amproc", "pg_attrdef", "pg_attribute", "pg_auth_members",
    "pg_authid", "pg_available_extension_versions", "pg_available_extensions", "pg_backend_memory_contexts", "pg_cast",
    "pg_class", "pg_collation", "pg_config", "pg_constraint", "pg_conversion", "pg_cursors", "pg_database",
    "pg_db_role_setting", "pg_default_acl", "pg_depend", "pg_description", "pg_enum", "pg_event_trigger",
    "pg_extension", "pg_file_settings", "pg_foreign_data_wrapper", "pg_foreign_server", "pg_foreign_table", "pg_group",
    "pg_hba_file_rules", "pg_ident_file_mappings", "pg_index", "pg_indexes", "pg_inherits", "pg_init_privs",
    "pg_language", "pg_largeobject", "pg_largeobject_metadata", "pg_locks", "pg_matviews", "pg_namespace", "pg_opclass",
    "pg_operator", "pg_opfamily", "pg_parameter_acl", "pg_partitioned_table", "pg_policies", "pg_policy",
    "pg_prepared_statements", "pg_prepared_xacts", "pg_proc", "pg_publication", "pg_publication_namespace",
    "pg_publication_rel", "pg_publication_tables", "pg_range", "pg_replication_origin", "pg_replication_origin_status",
    "pg_replication_slots", "pg_rewrite", "pg_roles", "pg_rules", "pg_seclabel", "pg_seclabels", "pg_sequence",
    "pg_sequences", "pg_settings", "pg_shadow", "pg_shdepend", "pg_shdescription", "pg_shmem_allocations",
    "pg_shmem_allocations_numa", "pg_shseclabel", "pg_stat_activity", "pg_stat_all_indexes", "pg_stat_all_tables",
    "pg_stat_archiver", "pg_stat_bgwriter", "pg_stat_checkpointer", "pg_stat_database", "pg_stat_database_conflicts",
    "pg_stat_gssapi", "pg_stat_io", "pg_stat_progress_analyze", "pg_stat_progress_basebackup",
    "pg_stat_progress_cluster", "pg_stat_progress_copy", "pg_stat_progress_create_index", "pg_stat_progress_vacuum",
    "pg_stat_recovery_prefetch", "pg_stat_replication", "pg_stat_replication_slots", "pg_stat_slru", "pg_stat_ssl",
    "pg_stat_subscription", "pg_stat_subscription_stats", "pg_stat_sys_indexes", "pg_stat_sys_tables",
    "pg_stat_user_functions", "pg_stat_user_indexes", "pg_stat_user_tables", "pg_stat_wal", "pg_stat_wal_receiver",
    "pg_stat_xact_all_tables", "pg_stat_xact_sys_tables", "pg_stat_xact_user_functions", "pg_stat_xact_user_tables",
    "pg_statio_all_indexes", "pg_statio_all_sequences", "pg_statio_all_tables", "pg_statio_sys_indexes",
    "pg_statio_sys_sequences", "pg_statio_sys_tables", "pg_statio_user_indexes", "pg_statio_user_sequences",
    "pg_statio_user_tables", "pg_statistic", "pg_statistic_ext", "pg_statistic_ext_data", "pg_stats", "pg_stats_ext",
    "pg_stats_ext_exprs", "pg_subscription", "pg_subscription_rel", "pg_tables", "pg_tablespace", "pg_timezone_abbrevs",
    "pg_timezone_names", "pg_transform", "pg_trigger", "pg_ts_config", "pg_ts_config_map", "pg_ts_dict", "pg_ts_parser",
    "pg_ts_template", "pg_type", "pg_user", "pg_user_mapping", "pg_user_mappings", "pg_views", "pg_wait_events",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_as_the_search_needs() {
        assert!(CATALOGS.is_sorted());
        assert!(PROTECTED.is_sorted());
    }

    #[test]
    fn catalogs_are_open_but_for_those_that_show_data_of_others() {
        for (schema, name, open, protected) in [
            (Some("pg_catalog"), "pg_class", true, false),
            (Some("pg_catalog"), "pg_settings", true, false),
            (Some("information_schema"), "columns", true, false),
            (Some("information_schema"), "user_mapping_options", false, true),
            (Some("pg_catalog"), "pg_stats", false, true),
            (Some("pg_catalog"), "pg_authid", false, true),
            (Some("public"), "pg_stat_statements", false, true),
            (None, "pg_stat_statements", false, true),
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
}
