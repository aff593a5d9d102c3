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
}

impl<'a> Report<'a> {
    pub fn error(sqlstate: &'a str, message: &'a str) -> Self {
        Self { severity: "ERROR", sqlstate, message, detail: None, hint: None, position: None }
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

/// The refusal of a long prepared statement whose text is not at hand to be judged under a new policy. Drivers know the
/// server's words for this, and prepare it again.
pub fn outdated(view: u64) -> Plan {
    const TEXT: &str = "cached plan must not change result type";
    let detail = Some("wireward: the policy or the catalogue has changed since the statement was prepared");
    let report = Report { detail, hint: Some("prepare it again"), ..Report::error("0A000", TEXT) };
    denied("policy-changed", report, view)
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
        touches_names: false,
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

pub fn describe_portal(out: &mut Vec<u8>, name: &[u8]) {
    message(out, frontend::DESCRIBE, |out| {
        out.push(b'P');
        put_cstr(out, name);
    });
}
