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
        defers: false,
        ends_others: false,
        leaves_traces: false,
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

pub fn describe_portal(out: &mut Vec<u8>, name: &[u8]) {
    message(out, frontend::DESCRIBE, |out| {
        out.push(b'P');
        put_cstr(out, name);
    });
}
