//! The closed table of statements other than queries: what each kind does and what people call it.

use pg_query::protobuf::{ObjectType, TransactionStmtKind};

use super::super::Effect;
use super::tree::Node;

/// Kinds whose effects do not depend on their content: kind, tag, effects. The first effect is also the one on the
/// relations named; an empty tag is made from the object's type.
#[rustfmt::skip]
pub const FIXED: &[(&str, &str, &[Effect])] = {
    use Effect::{Admin, Dcl, Ddl, Dynamic, File, Listen, Lock, Notify, Read, Session, Transaction, Truncate};
    &[
        ("AlterCollationStmt", "ALTER COLLATION", &[Ddl]),
        ("AlterDatabaseRefreshCollStmt", "ALTER DATABASE", &[Ddl, Admin]),
        ("AlterDatabaseSetStmt", "ALTER DATABASE", &[Ddl, Admin]),
        ("AlterDatabaseStmt", "ALTER DATABASE", &[Ddl, Admin]),
        ("AlterDefaultPrivilegesStmt", "ALTER DEFAULT PRIVILEGES", &[Dcl]),
        ("AlterDomainStmt", "ALTER DOMAIN", &[Ddl]),
        ("AlterEnumStmt", "ALTER TYPE", &[Ddl]),
        ("AlterEventTrigStmt", "ALTER EVENT TRIGGER", &[Ddl, Admin]),
        ("AlterExtensionContentsStmt", "ALTER EXTENSION", &[Ddl, Admin]),
        ("AlterExtensionStmt", "ALTER EXTENSION", &[Ddl, Admin]),
        ("AlterFdwStmt", "ALTER FOREIGN DATA WRAPPER", &[Ddl, Admin]),
        ("AlterForeignServerStmt", "ALTER SERVER", &[Ddl, Admin]),
        ("AlterFunctionStmt", "ALTER", &[Ddl]),
        ("AlterObjectDependsStmt", "ALTER", &[Ddl]),
        ("AlterObjectSchemaStmt", "ALTER", &[Ddl]),
        ("AlterOpFamilyStmt", "ALTER OPERATOR FAMILY", &[Ddl]),
        ("AlterOperatorStmt", "ALTER OPERATOR", &[Ddl]),
        ("AlterOwnerStmt", "ALTER", &[Dcl]),
        ("AlterPolicyStmt", "ALTER POLICY", &[Ddl, Dcl]),
        ("AlterPublicationStmt", "ALTER PUBLICATION", &[Ddl, Admin]),
        ("AlterRoleSetStmt", "ALTER ROLE", &[Dcl]),
        ("AlterRoleStmt", "ALTER ROLE", &[Dcl]),
        ("AlterSeqStmt", "ALTER SEQUENCE", &[Ddl]),
        ("AlterStatsStmt", "ALTER STATISTICS", &[Ddl]),
        ("AlterSubscriptionStmt", "ALTER SUBSCRIPTION", &[Ddl, Admin]),
        ("AlterSystemStmt", "ALTER SYSTEM", &[Admin]),
        ("AlterTableMoveAllStmt", "ALTER", &[Ddl, Admin]),
        ("AlterTableSpaceOptionsStmt", "ALTER TABLESPACE", &[Ddl, Admin]),
        ("AlterTsConfigurationStmt", "ALTER TEXT SEARCH CONFIGURATION", &[Ddl]),
        ("AlterTsDictionaryStmt", "ALTER TEXT SEARCH DICTIONARY", &[Ddl]),
        ("AlterTypeStmt", "ALTER TYPE", &[Ddl]),
        ("AlterUserMappingStmt", "ALTER USER MAPPING", &[Ddl, Admin]),
        ("CallStmt", "CALL", &[Dynamic]),
        ("CheckPointStmt", "CHECKPOINT", &[Admin]),
        ("ClosePortalStmt", "CLOSE CURSOR", &[Session]),
        ("ClusterStmt", "CLUSTER", &[Admin]),
        ("CommentStmt", "COMMENT", &[Ddl]),
        ("CompositeTypeStmt", "CREATE TYPE", &[Ddl]),
        ("ConstraintsSetStmt", "SET CONSTRAINTS", &[Transaction]),
        ("CreateAmStmt", "CREATE ACCESS METHOD", &[Ddl, Admin]),
        ("CreateCastStmt", "CREATE CAST", &[Ddl]),
        ("CreateConversionStmt", "CREATE CONVERSION", &[Ddl]),
        ("CreateDomainStmt", "CREATE DOMAIN", &[Ddl]),
        ("CreateEnumStmt", "CREATE TYPE", &[Ddl]),
        ("CreateEventTrigStmt", "CREATE EVENT TRIGGER", &[Ddl, Admin]),
        ("CreateExtensionStmt", "CREATE EXTENSION", &[Ddl, Admin]),
        ("CreateFdwStmt", "CREATE FOREIGN DATA WRAPPER", &[Ddl, Admin]),
        ("CreateForeignServerStmt", "CREATE SERVER", &[Ddl, Admin]),
        ("CreateForeignTableStmt", "CREATE FOREIGN TABLE", &[Ddl, Admin]),
        ("CreateOpClassStmt", "CREATE OPERATOR CLASS", &[Ddl]),
        ("CreateOpFamilyStmt", "CREATE OPERATOR FAMILY", &[Ddl]),
        ("CreatePLangStmt", "CREATE LANGUAGE", &[Ddl, Admin]),
        ("CreatePolicyStmt", "CREATE POLICY", &[Ddl, Dcl]),
        ("CreatePublicationStmt", "CREATE PUBLICATION", &[Ddl, Admin]),
        ("CreateRangeStmt", "CREATE TYPE", &[Ddl]),
        ("CreateRoleStmt", "CREATE ROLE", &[Dcl]),
        ("CreateSchemaStmt", "CREATE SCHEMA", &[Ddl]),
        ("CreateSeqStmt", "CREATE SEQUENCE", &[Ddl]),
        ("CreateStatsStmt", "CREATE STATISTICS", &[Ddl]),
        ("CreateStmt", "CREATE TABLE", &[Ddl]),
        ("CreateSubscriptionStmt", "CREATE SUBSCRIPTION", &[Ddl, Admin]),
        ("CreateTableSpaceStmt", "CREATE TABLESPACE", &[Ddl, Admin, File]),
        ("CreateTransformStmt", "CREATE TRANSFORM", &[Ddl]),
        ("CreateTrigStmt", "CREATE TRIGGER", &[Ddl]),
        ("CreateUserMappingStmt", "CREATE USER MAPPING", &[Ddl, Admin]),
        ("CreatedbStmt", "CREATE DATABASE", &[Ddl, Admin]),
        ("DeallocateStmt", "DEALLOCATE", &[Session]),
        ("DefineStmt", "CREATE", &[Ddl]),
        ("DoStmt", "DO", &[Dynamic]),
        ("DropOwnedStmt", "DROP OWNED", &[Ddl, Dcl]),
        ("DropRoleStmt", "DROP ROLE", &[Dcl]),
        ("DropSubscriptionStmt", "DROP SUBSCRIPTION", &[Ddl, Admin]),
        ("DropTableSpaceStmt", "DROP TABLESPACE", &[Ddl, Admin]),
        ("DropUserMappingStmt", "DROP USER MAPPING", &[Ddl, Admin]),
        ("DropdbStmt", "DROP DATABASE", &[Ddl, Admin]),
        ("GrantRoleStmt", "", &[Dcl]),
        ("GrantStmt", "", &[Dcl]),
        ("ImportForeignSchemaStmt", "IMPORT FOREIGN SCHEMA", &[Ddl, Admin]),
        ("IndexStmt", "CREATE INDEX", &[Ddl]),
        ("ListenStmt", "LISTEN", &[Listen]),
        ("LoadStmt", "LOAD", &[File]),
        ("LockStmt", "LOCK TABLE", &[Lock]),
        ("NotifyStmt", "NOTIFY", &[Notify]),
        ("ReassignOwnedStmt", "REASSIGN OWNED", &[Dcl]),
        ("RefreshMatViewStmt", "REFRESH MATERIALIZED VIEW", &[Ddl]),
        ("ReindexStmt", "REINDEX", &[Ddl]),
        ("RenameStmt", "ALTER", &[Ddl]),
        ("RuleStmt", "CREATE RULE", &[Ddl]),
        ("SecLabelStmt", "SECURITY LABEL", &[Dcl]),
        ("TransactionStmt", "", &[Transaction]),
        ("TruncateStmt", "TRUNCATE TABLE", &[Truncate]),
        ("VacuumStmt", "", &[Admin]),
        // Those below are told apart further in `Walk::special`.
        ("AlterTableStmt", "ALTER", &[Ddl]),
        ("CopyStmt", "COPY", &[]),
        ("CreateFunctionStmt", "CREATE", &[Ddl]),
        ("CreateTableAsStmt", "CREATE", &[Ddl]),
        ("DeclareCursorStmt", "DECLARE CURSOR", &[]),
        ("DiscardStmt", "DISCARD", &[]),
        ("DropStmt", "DROP", &[Ddl]),
        ("ExecuteStmt", "EXECUTE", &[Read]),
        ("ExplainStmt", "EXPLAIN", &[]),
        ("FetchStmt", "FETCH", &[Read]),
        ("PrepareStmt", "PREPARE", &[]),
        ("ReturnStmt", "RETURN", &[Ddl]),
        ("UnlistenStmt", "UNLISTEN", &[]),
        ("VariableSetStmt", "SET", &[]),
        ("VariableShowStmt", "SHOW", &[Session]),
        ("ViewStmt", "CREATE VIEW", &[Ddl]),
    ]
};

/// The row of [`FIXED`] for a kind.
pub fn fixed(kind: &str) -> Option<(&'static str, &'static [Effect])> {
    FIXED.iter().find(|(k, _, _)| *k == kind).map(|(_, tag, effects)| (*tag, *effects))
}

/// What a person calls the statement.
pub fn tag(node: &Node) -> String {
    let simple = |tag: &str| tag.to_owned();
    match node.kind {
        "SelectStmt" if node.has("into_clause") => simple("SELECT INTO"),
        "SelectStmt" => simple("SELECT"),
        "InsertStmt" => simple("INSERT"),
        "UpdateStmt" => simple("UPDATE"),
        "DeleteStmt" => simple("DELETE"),
        "MergeStmt" => simple("MERGE"),
        "CopyStmt" if node.flag("is_from") => simple("COPY FROM"),
        "CopyStmt" => simple("COPY TO"),
        "TransactionStmt" => simple(transaction(node)),
        "VacuumStmt" => simple(if node.flag("is_vacuumcmd") { "VACUUM" } else { "ANALYZE" }),
        "GrantStmt" => simple(if node.flag("is_grant") { "GRANT" } else { "REVOKE" }),
        "GrantRoleStmt" => simple(if node.flag("is_grant") { "GRANT ROLE" } else { "REVOKE ROLE" }),
        "FetchStmt" if node.flag("ismove") => simple("MOVE"),
        "VariableSetStmt" => simple(variable_set(node)),
        "DeallocateStmt" if node.flag("isall") => simple("DEALLOCATE ALL"),
        "CreateTableAsStmt" => format!("CREATE {} AS", object(node.int("objtype"))),
        "CreateFunctionStmt" => simple(if node.flag("is_procedure") { "CREATE PROCEDURE" } else { "CREATE FUNCTION" }),
        "AlterFunctionStmt" | "AlterTableStmt" | "AlterTableMoveAllStmt" => with_object("ALTER", node, "objtype"),
        "RenameStmt" => with_object("ALTER", node, renamed(node)),
        "AlterOwnerStmt" | "AlterObjectSchemaStmt" | "AlterObjectDependsStmt" => {
            with_object("ALTER", node, "object_type")
        }
        "DropStmt" => with_object("DROP", node, "remove_type"),
        "DefineStmt" => with_object("CREATE", node, "kind"),
        kind => simple(fixed(kind).map_or("UNKNOWN", |(tag, _)| tag)),
    }
}

/// A column is renamed on a relation, whose type stands beside.
fn renamed(node: &Node) -> &'static str {
    let part = [ObjectType::ObjectColumn, ObjectType::ObjectAttribute, ObjectType::ObjectTabconstraint];
    if part.iter().any(|p| *p as i64 == node.int("rename_type")) { "relation_type" } else { "rename_type" }
}

fn with_object(verb: &str, node: &Node, field: &str) -> String {
    format!("{verb} {}", object(node.int(field)))
}

/// The SQL words for an object type; most are the constant's own name.
fn object(number: i64) -> String {
    let Ok(object) = ObjectType::try_from(i32::try_from(number).unwrap_or(0)) else { return "OBJECT".to_owned() };
    let words = match object {
        ObjectType::ObjectMatview => "MATERIALIZED VIEW",
        ObjectType::ObjectFdw => "FOREIGN DATA WRAPPER",
        ObjectType::ObjectForeignServer => "SERVER",
        ObjectType::ObjectOpclass => "OPERATOR CLASS",
        ObjectType::ObjectOpfamily => "OPERATOR FAMILY",
        ObjectType::ObjectStatisticExt => "STATISTICS",
        ObjectType::ObjectTsconfiguration => "TEXT SEARCH CONFIGURATION",
        ObjectType::ObjectTsdictionary => "TEXT SEARCH DICTIONARY",
        ObjectType::ObjectTsparser => "TEXT SEARCH PARSER",
        ObjectType::ObjectTstemplate => "TEXT SEARCH TEMPLATE",
        ObjectType::ObjectDomconstraint => "DOMAIN",
        ObjectType::ObjectTabconstraint => "TABLE",
        ObjectType::ObjectLargeobject => "LARGE OBJECT",
        other => return other.as_str_name().trim_start_matches("OBJECT_").replace('_', " "),
    };
    words.to_owned()
}

fn variable_set(node: &Node) -> &'static str {
    use pg_query::protobuf::VariableSetKind::{VarReset, VarResetAll};
    let kind = node.int("kind");
    if kind == VarReset as i64 || kind == VarResetAll as i64 { "RESET" } else { "SET" }
}

fn transaction(node: &Node) -> &'static str {
    use TransactionStmtKind as K;
    match K::try_from(i32::try_from(node.int("kind")).unwrap_or(0)) {
        Ok(K::TransStmtBegin) => "BEGIN",
        Ok(K::TransStmtStart) => "START TRANSACTION",
        Ok(K::TransStmtCommit) => "COMMIT",
        Ok(K::TransStmtRollback | K::TransStmtRollbackTo) => "ROLLBACK",
        Ok(K::TransStmtSavepoint) => "SAVEPOINT",
        Ok(K::TransStmtRelease) => "RELEASE",
        Ok(K::TransStmtPrepare) => "PREPARE TRANSACTION",
        Ok(K::TransStmtCommitPrepared) => "COMMIT PREPARED",
        Ok(K::TransStmtRollbackPrepared) => "ROLLBACK PREPARED",
        _ => "TRANSACTION",
    }
}
