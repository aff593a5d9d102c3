//! What the server adds to a complaint of its grammar. The library keeps only the message; SQLSTATE and hint are told from it.
//! Source: every `ereport` of PostgreSQL 18's `gram.y` and `scan.l` that is no plain syntax error.

/// Beginning and end of a message, its SQLSTATE, and its hint.
type Row = (&'static str, &'static str, &'static str, Option<&'static str>);

const SYNTAX_ERROR: &str = "42601";
const NOT_SUPPORTED: &str = "0A000";
const INVALID_PARAMETER: &str = "22023";
const DUPLICATE_OBJECT: &str = "42710";
const WINDOWING: &str = "42P20";
const RESERVED_NAME: &str = "42939";
const NONSTANDARD_ESCAPE: &str = "22P06";

#[rustfmt::skip]
const KNOWN: &[Row] = &[
    ("UNENCRYPTED PASSWORD is no longer supported", "", NOT_SUPPORTED, Some("Remove UNENCRYPTED to store the password in encrypted form instead.")),
    ("CREATE SCHEMA IF NOT EXISTS cannot include", "", NOT_SUPPORTED, None),
    ("current database cannot be changed", "", NOT_SUPPORTED, None),
    ("column number must be in range", "", INVALID_PARAMETER, None),
    ("constraints cannot be altered to be ", "", NOT_SUPPORTED, None),
    ("modulus for hash partition provided more than once", "", DUPLICATE_OBJECT, None),
    ("remainder for hash partition provided more than once", "", DUPLICATE_OBJECT, None),
    ("MATCH PARTIAL not yet implemented", "", NOT_SUPPORTED, None),
    ("a column list with ", " is only supported for ON DELETE actions", NOT_SUPPORTED, None),
    ("CREATE EXTENSION ... FROM is no longer supported", "", NOT_SUPPORTED, None),
    ("unrecognized row security option ", "", SYNTAX_ERROR, Some("Only PERMISSIVE or RESTRICTIVE policies are supported currently.")),
    ("CREATE OR REPLACE CONSTRAINT TRIGGER is not supported", "", NOT_SUPPORTED, None),
    ("CREATE ASSERTION is not yet implemented", "", NOT_SUPPORTED, None),
    ("dropping an enum value is not implemented", "", NOT_SUPPORTED, None),
    ("aggregates cannot have output arguments", "", NOT_SUPPORTED, None),
    ("missing argument", "", SYNTAX_ERROR, Some("Use NONE to denote the missing argument of a unary operator.")),
    ("WITH CHECK OPTION not supported on recursive views", "", NOT_SUPPORTED, None),
    ("LIMIT #,# syntax is not supported", "", SYNTAX_ERROR, Some("Use separate LIMIT and OFFSET clauses.")),
    ("only string constants are supported in JSON_TABLE path", "", NOT_SUPPORTED, None),
    ("precision for type float must be ", "", INVALID_PARAMETER, None),
    ("UNIQUE predicate is not yet implemented", "", NOT_SUPPORTED, None),
    ("frame start", "", WINDOWING, None),
    ("frame end cannot be UNBOUNDED PRECEDING", "", WINDOWING, None),
    ("unrecognized JSON encoding: ", "", INVALID_PARAMETER, None),
    ("role name \"", "\" is reserved", RESERVED_NAME, None),
    ("", " cannot be used as a role name here", RESERVED_NAME, None),
    ("an ordered-set aggregate with a VARIADIC", "", NOT_SUPPORTED, None),
    ("", " constraints cannot be marked DEFERRABLE", NOT_SUPPORTED, None),
    ("", " constraints cannot be marked NOT VALID", NOT_SUPPORTED, None),
    ("", " constraints cannot be marked NO INHERIT", NOT_SUPPORTED, None),
    ("", " constraints cannot be marked NOT ENFORCED", NOT_SUPPORTED, None),
    ("", " constraints cannot be marked ENFORCED", NOT_SUPPORTED, None),
    ("unrecognized partitioning strategy ", "", INVALID_PARAMETER, None),
    ("unsafe use of \\' in a string literal", "", NONSTANDARD_ESCAPE, Some("Use '' to write quotes in strings. \\' is insecure in client-only encodings.")),
];

/// SQLSTATE and hint of a message. What is not in the table is a plain syntax error.
pub fn sqlstate_and_hint(message: &str) -> (&'static str, Option<&'static str>) {
    let fits = |row: &&Row| message.starts_with(row.0) && message.ends_with(row.1);
    KNOWN.iter().find(fits).map_or((SYNTAX_ERROR, None), |(_, _, sqlstate, hint)| (sqlstate, *hint))
}

#[cfg(test)]
mod tests {
    use super::super::{AnalyseError, analyse};
    use super::*;

    #[test]
    fn a_complaint_has_the_sqlstate_and_the_hint_of_the_server() {
        for (text, sqlstate, hint) in [
            ("selec 1", "42601", ""),
            ("select 'a", "42601", ""),
            ("alter table t alter constraint c not valid", "0A000", ""),
            ("create table t (a int, foreign key (a) references u match partial)", "0A000", ""),
            ("create table t (a float(54))", "22023", ""),
            ("alter index i alter column 0 set statistics 1", "22023", ""),
            ("select sum(1) over (rows between unbounded following and current row)", "42P20", ""),
            ("select sum(1) over (rows between 1 following and 1 preceding)", "42P20", ""),
            ("create role public", "42939", ""),
            ("select 1; create role current_user", "42939", ""),
            ("create table t (a int, check (a > 0) deferrable)", "0A000", ""),
            ("create policy p on t as ugly", "42601", "Only PERMISSIVE"),
            ("drop operator = (int)", "42601", "Use NONE"),
            ("select 1 limit 1, 2", "42601", "Use separate LIMIT"),
        ] {
            let Err(AnalyseError::Syntax { message, .. }) = analyse(text) else { panic!("{text} is understood") };
            let (found, said) = sqlstate_and_hint(&message);
            assert_eq!(found, sqlstate, "{text}: {message}");
            assert!(
                said.unwrap_or_default().starts_with(hint) && said.is_some() != hint.is_empty(),
                "{text}: {said:?}"
            );
        }
    }
}
