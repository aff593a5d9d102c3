//! What we say to a client in PostgreSQL's own words.

use super::wire::{backend, frontend, message, put_cstr};
use crate::datapath::verdict::{Plan, Verdict};

/// An error as a client sees it. Fields as in <https://www.postgresql.org/docs/18/protocol-error-fields.html>.
pub struct Report<'a> {
    pub severity: &'static str,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: Option<&'a str>,
    pub hint: Option<&'a str>,
    /// Where in the statement, in characters from 1.
    pub position: Option<usize>,
    /// The server's function that says so: drivers go by it.
    pub routine: Option<&'a str>,
}

impl<'a> Report<'a> {
    pub fn error(sqlstate: &'a str, message: &'a str) -> Self {
        Self { severity: "ERROR", sqlstate, message, detail: None, hint: None, position: None, routine: None }
    }

    pub fn fatal(sqlstate: &'a str, message: &'a str) -> Self {
        Self { severity: "FATAL", ..Self::error(sqlstate, message) }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        message(out, backend::ERROR, |out| {
            let position = self.position.map(|p| p.to_string());
            let fields = [
                (b'S', Some(self.severity)),
                (b'V', Some(self.severity)),
                (b'C', Some(self.sqlstate)),
                (b'M', Some(self.message)),
                (b'D', self.detail),
                (b'H', self.hint),
                (b'P', position.as_deref()),
                (b'R', self.routine),
            ];
            for (code, text) in fields {
                let Some(text) = text else { continue };
                out.push(code);
                put_cstr(out, text.as_bytes());
            }
            out.push(0);
        });
    }
}

/// The refusal of a prepared statement of which nobody can say any more what it is, or whether it is still allowed. Drivers know
/// the server's words for this, by text or routine, and prepare it again.
fn stale(rule: &str, why: &str, view: u64) -> Plan {
    const TEXT: &str = "cached plan must not change result type";
    let hint = Some("prepare it again");
    let report =
        Report { detail: Some(why), hint, routine: Some("RevalidateCachedQuery"), ..Report::error("0A000", TEXT) };
    denied(rule, report, view)
}

/// Its text is too long to be kept, and cannot be judged under a new policy.
pub fn outdated(view: u64) -> Plan {
    stale("policy-changed", "wireward: the policy or the catalogue has changed since the statement was prepared", view)
}

/// What stands under a name may have been changed by what was called.
pub fn lost_statement(view: u64) -> Plan {
    const WHY: &str =
        "wireward: a function or DO block that was run since may have prepared another statement of this name";
    stale("name-lost", WHY, view)
}

pub fn lost_portal(view: u64) -> Plan {
    let detail =
        Some("wireward: a function or DO block that was run since may have opened another cursor of this name");
    let report = Report { detail, hint: Some("bind it again"), ..Report::error("34000", "the portal is lost") };
    denied("name-lost", report, view)
}

/// The server ends the session at it, and a backend of 15 was seen to crash near it, which ends all sessions.
pub fn transaction_by_execute(view: u64) -> Plan {
    const TEXT: &str = "wireward: EXECUTE of a prepared transaction statement ends the server's session";
    let hint = Some("send BEGIN, COMMIT and their like by themselves");
    denied("execute-of-transaction", Report { hint, ..Report::error("0A000", TEXT) }, view)
}

/// The server cuts names at 63 bytes of its own encoding: two that are two here may be one there.
pub fn foreign_name(view: u64) -> Plan {
    const TEXT: &str = "wireward: a name of a statement or portal has letters outside ASCII";
    let hint = Some("set client_encoding to UTF8, or name it in ASCII");
    denied("foreign-name", Report { hint, ..Report::error("0A000", TEXT) }, view)
}

/// A statement of which nothing was read but its length.
pub fn too_long(bytes: usize, bytes_max: usize, view: u64) -> Plan {
    let text = format!(
        "wireward: the statement has {bytes} bytes, at most {bytes_max} are judged (limits.statement_bytes_max)"
    );
    let hint = Some("send long values as parameters or by COPY, or ask the operator to raise the limit");
    denied("statement-too-long", Report { hint, ..Report::error("54000", &text) }, view)
}

/// The server would say so too; it may hold something that it would have dropped, had it heard what we have refused.
pub fn no_statement(name: &[u8], view: u64) -> Plan {
    let text = match name {
        b"" => "unnamed prepared statement does not exist".to_owned(),
        _ => format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name)),
    };
    denied("no-such-name", Report::error("26000", &text), view)
}

pub fn no_portal(name: &[u8], view: u64) -> Plan {
    let text = format!("portal \"{}\" does not exist", String::from_utf8_lossy(name));
    denied("no-such-name", Report::error("34000", &text), view)
}

/// The plan of something that nobody has looked at: for who may run what is not known, and has nothing to hide from.
pub fn unknown(view: u64) -> Plan {
    Plan { verdict: Verdict::Allow, refusal: None, is_unknown: true, ..denied("unknown", Report::error("", ""), view) }
}

/// A refusal that no text was judged for.
pub fn denied(rule: &str, report: Report<'_>, view: u64) -> Plan {
    let mut refusal = Vec::new();
    report.write(&mut refusal);
    Plan {
        verdict: Verdict::Deny,
        rule: rule.into(),
        refusal: Some(refusal.into()),
        mask_unsourced: true,
        harmless: Box::default(),
        touches: Box::default(),
        is_unknown: false,
        transacts: false,
        defers: false,
        ends_others: false,
        leaves_traces: false,
        leaves_utf8: false,
        copy: None,
        view,
        text: None,
    }
}

pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    message(out, backend::READY_FOR_QUERY, |out| out.push(status));
}

/// The portal that stands for a refused statement. No client can create it: we refuse the name.
pub const REFUSED_PORTAL: &[u8] = b"blocked by wireward";

/// An Execute that fails in the server exactly as the refused statement would have.
pub fn execute_refused(out: &mut Vec<u8>) {
    message(out, frontend::EXECUTE, |out| {
        put_cstr(out, REFUSED_PORTAL);
        out.extend_from_slice(&[0; 4]);
    });
}

pub fn sync(out: &mut Vec<u8>) {
    message(out, frontend::SYNC, |_| ());
}

/// The name of our own questions' statement and portal. SQL of a client may not say it.
pub const GUARD: &[u8] = b"asked by wireward";
/// What a question says when it is answered with no: division by zero.
pub const GUARD_FAILS: &[u8] = b"22012";

/// Fails if a setting by which texts are judged is another than the one that was pinned; `$1` is the role, if one is pinned. The
/// path of a session may leave pg_catalog to the server, who then searches it first, or name it first.
pub const SETTINGS_HOLD: &str = "select 1 operator(pg_catalog./) (case when \
    pg_catalog.current_setting('standard_conforming_strings') operator(pg_catalog.=) 'on' \
    and pg_catalog.current_setting('client_encoding') operator(pg_catalog.<>) \
    all (array['BIG5', 'GB18030', 'GBK', 'JOHAB', 'SHIFT_JIS_2004', 'SJIS', 'UHC']) \
    and ($1 is null or pg_catalog.current_setting('role') operator(pg_catalog.=) $1) \
    and 'pg_catalog' operator(pg_catalog.=) (select s.s from pg_catalog.unnest(pg_catalog.current_schemas(true)) s \
    where not s.s operator(pg_catalog.~) '^pg_temp_' limit 1) then 1 else 0 end)";

/// Fails if SQL has made a statement of the name `$1`: then it is not the one that the client has parsed.
pub const STATEMENT_HOLDS: &str = "select 1 operator(pg_catalog./) (case when exists (select from \
    pg_catalog.pg_prepared_statements s where s.from_sql and s.name operator(pg_catalog.=) $1) then 0 else 1 end)";

/// Asks a question of one parameter. If the answer is no, the server fails, and skips what is behind it up to the next Sync.
pub fn guard(out: &mut Vec<u8>, question: &str, about: Option<&[u8]>) {
    const TEXT_OID: [u8; 4] = [0, 0, 0, 25];
    for kind in [b'P', b'S'] {
        message(out, frontend::CLOSE, |out| {
            out.push(kind);
            put_cstr(out, GUARD);
        });
    }
    message(out, frontend::PARSE, |out| {
        put_cstr(out, GUARD);
        put_cstr(out, question.as_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&TEXT_OID);
    });
    message(out, frontend::BIND, |out| {
        put_cstr(out, GUARD);
        put_cstr(out, GUARD);
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(&about.map_or(u32::MAX, |about| about.len() as u32).to_be_bytes());
        out.extend_from_slice(about.unwrap_or_default());
        out.extend_from_slice(&[0, 0]);
    });
    message(out, frontend::EXECUTE, |out| {
        put_cstr(out, GUARD);
        out.extend_from_slice(&[0; 4]);
    });
    // An open portal holds a snapshot: COPY … FREEZE and its like would fail behind it.
    message(out, frontend::CLOSE, |out| {
        out.push(b'P');
        put_cstr(out, GUARD);
    });
}

pub fn describe_portal(out: &mut Vec<u8>, name: &[u8]) {
    message(out, frontend::DESCRIBE, |out| {
        out.push(b'P');
        put_cstr(out, name);
    });
}
