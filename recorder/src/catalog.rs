//! The list of sessions, built from the segments alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ring::record::Kind;
use serde::Serialize;
use serde_json::Value;

use crate::evidence::walk;
use crate::segment::reader::{Broken, Entry};
use crate::session::SessionId;

/// Action of a verdict that blocks (`recorder/ring/RECORD.md`).
pub const ACTION_BLOCK: u8 = 3;

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Session {
    /// As people write it.
    pub session: String,
    /// When its first record was made, nanoseconds since 1970.
    pub started_unix_ns: u64,
    /// When its last record was made.
    pub last_unix_ns: u64,
    /// Whose it was, from its Open record; empty if that is missing.
    pub subject: String,
    /// Who acted for the subject, the current actor first; mostly nobody.
    pub actors: Vec<String>,
    /// With which roles.
    pub roles: Vec<String>,
    /// Towards which resource.
    pub resource: String,
    /// In which protocol.
    pub protocol: String,
    /// Statements judged.
    pub statements: u64,
    /// Statements blocked.
    pub blocked: u64,
    /// How it ended; `None` while it is open.
    pub closed: Option<String>,
    /// Its Open record.
    pub open: Value,
}

/// All sessions, and the damage that may hide some.
pub struct Catalog {
    /// In order of their first record.
    pub sessions: Vec<Session>,
    /// Segments that could not be read to their end.
    pub damage: Vec<Broken>,
}

/// Reads the sessions of a recordings directory.
pub fn catalog(directory: &Path) -> io::Result<Catalog> {
    let mut sessions = BTreeMap::new();
    let mut order = Vec::new();
    let damage = walk(
        directory,
        |_| true,
        |entry| {
            let id = entry.header.session;
            // Session 0 is the gateway itself: notes that belong to nobody.
            if id != 0 {
                let session = sessions.entry(id).or_insert_with(|| {
                    order.push(id);
                    Session::new(id, entry.header.time_unix_ns)
                });
                session.follow(&entry);
            }
            Ok(())
        },
    )?;
    let sessions = order.iter().filter_map(|id| sessions.remove(id)).collect();
    Ok(Catalog { sessions, damage })
}

impl Session {
    fn new(id: u64, started_unix_ns: u64) -> Session {
        Session {
            session: SessionId(id).to_string(),
            started_unix_ns,
            last_unix_ns: started_unix_ns,
            subject: String::new(),
            actors: Vec::new(),
            roles: Vec::new(),
            resource: String::new(),
            protocol: String::new(),
            statements: 0,
            blocked: 0,
            closed: None,
            open: Value::Null,
        }
    }

    fn follow(&mut self, entry: &Entry<'_>) {
        self.last_unix_ns = self.last_unix_ns.max(entry.header.time_unix_ns);
        match entry.header.kind {
            Kind::Open => self.opened(entry.payload),
            Kind::Verdict => {
                self.statements += 1;
                self.blocked += u64::from(entry.payload.first() == Some(&ACTION_BLOCK));
            }
            Kind::Close => {
                let close: Value = serde_json::from_slice(entry.payload).unwrap_or_default();
                self.closed = Some(text(&close, "reason"));
            }
            _ => {}
        }
    }

    fn opened(&mut self, payload: &[u8]) {
        self.open = serde_json::from_slice(payload).unwrap_or_default();
        self.subject = text(&self.open, "subject");
        self.resource = text(&self.open, "resource");
        self.protocol = text(&self.open, "protocol");
        let actors = self.open.get("actors").and_then(Value::as_array);
        self.actors = actors.into_iter().flatten().map(|actor| text(actor, "subject")).collect();
        let roles = self.open.get("roles").and_then(Value::as_array);
        self.roles = roles.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    }

    /// From the first record to the last, in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.last_unix_ns - self.started_unix_ns
    }
}

fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
