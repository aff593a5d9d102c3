//! The fast-path interface: a message that calls a function by its OID, without a text that could be judged.
//!
//! Only the large-object functions are served, by which libpq and pgjdbc read and write large objects; their OIDs are fixed in
//! the server's initial catalogue (`pg_proc.dat`). Any other function could run SQL from its arguments (threats PG-07).

use super::responder::{Report, denied};
use crate::datapath::verdict::Plan;

/// OID and the statement that does the same, which is what is judged.
const SERVED: [(u32, &str); 13] = [
    (715, "select pg_catalog.lo_create($1)"),
    (952, "select pg_catalog.lo_open($1, $2)"),
    (953, "select pg_catalog.lo_close($1)"),
    (954, "select pg_catalog.loread($1, $2)"),
    (955, "select pg_catalog.lowrite($1, $2)"),
    (956, "select pg_catalog.lo_lseek($1, $2, $3)"),
    (957, "select pg_catalog.lo_creat($1)"),
    (958, "select pg_catalog.lo_tell($1)"),
    (964, "select pg_catalog.lo_unlink($1)"),
    (1004, "select pg_catalog.lo_truncate($1, $2)"),
    (3170, "select pg_catalog.lo_lseek64($1, $2, $3)"),
    (3171, "select pg_catalog.lo_tell64($1)"),
    (3172, "select pg_catalog.lo_truncate64($1, $2)"),
];

/// What a call of this function is judged as. `None`: it is not served.
pub fn as_statement(oid: u32) -> Option<&'static str> {
    SERVED.iter().find(|(served, _)| *served == oid).map(|(_, text)| *text)
}

/// The refusal of a call that is not served.
pub fn refused(view: u64) -> Plan {
    const TEXT: &str = "wireward: function calls by message are served for large objects only";
    denied(
        "function-call",
        Report { hint: Some("call the function in a SELECT"), ..Report::error("42501", TEXT) },
        view,
    )
}
