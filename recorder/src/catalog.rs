//! The list of sessions, built from the segments alone.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ring::record::{Flags, Kind};
use serde::Serialize;
use serde_json::Value;

use crate::evidence::{Damage, walk};
use crate::replay;
use crate::segment::reader::Entry;
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
    /// Executions that the client asked for: Query and Execute messages.
    pub statements: u64,
    /// Texts that policy refused.
    pub blocked: u64,
    /// How it ended; `None` while it is open.
    pub closed: Option<String>,
    /// Its Open record.
    pub open: Value,
    /// The Note of a login that was refused; its names are claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Value>,
}

/// All sessions, and the damage that may hide some.
pub struct Catalog {
    /// In order of their first record.
    pub sessions: Vec<Session>,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// Refused logins that were only counted (`recorder/ring/RECORD.md`).
    pub refused_counted: u64,
}

/// Reads the sessions of a recordings directory.
pub fn catalog(directory: &Path) -> io::Result<Catalog> {
    let mut sessions = BTreeMap::new();
    let mut order = Vec::new();
    let mut refused_counted = 0;
    let damage = walk(
        directory,
        |_| true,
        |entry| {
            let id = entry.header.session;
            // Session 0 is the gateway itself: notes that belong to nobody.
            if id == 0 {
                refused_counted += counted(&entry);
            } else {
                let session = sessions.entry(id).or_insert_with(|| {
                    order.push(id);
                    Session::new(id, entry.header.time_unix_ns)
                });
                session.follow(&entry);
            }
            Ok(())
        },
    )?;
    let mut sessions: Vec<Session> = order.iter().filter_map(|id| sessions.remove(id)).collect();
    // Rings are read in turns, so the order of their records says nothing across shards.
    sessions.sort_by_key(|session| session.started_unix_ns);
    Ok(Catalog { sessions, damage, refused_counted })
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
            refused: None,
        }
    }

    fn follow(&mut self, entry: &Entry<'_>) {
        self.last_unix_ns = self.last_unix_ns.max(entry.header.time_unix_ns);
        match entry.header.kind {
            Kind::Open => self.opened(entry.payload),
            Kind::Request => self.statements += executions(&entry),
            Kind::Verdict => self.blocked += u64::from(entry.payload.first() == Some(&ACTION_BLOCK)),
            Kind::Close => {
                let close: Value = serde_json::from_slice(entry.payload).unwrap_or_default();
                self.closed = Some(text(&close, "reason"));
            }
            Kind::Note => self.noted(entry.payload),
            _ => {}
        }
    }

    fn noted(&mut self, payload: &[u8]) {
        let note: Value = serde_json::from_slice(payload).unwrap_or_default();
        if note["event"] == "login refused" {
            self.protocol = text(&note, "protocol");
            self.refused = Some(note);
        }
    }

    fn opened(&mut self, payload: &[u8]) {
        self.open = replay::told_json(payload);
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

/// Refused logins that a note of the gateway tells together.
fn counted(entry: &Entry<'_>) -> u64 {
    let note: Value = match entry.header.kind {
        Kind::Note => serde_json::from_slice(entry.payload).unwrap_or_default(),
        _ => return 0,
    };
    let told = note["count"].as_u64().filter(|_| note["event"] == "logins refused");
    told.unwrap_or(0)
}

/// A record that begins does so with a message: several whole ones, or the first piece of one.
fn executions(entry: &Entry<'_>) -> u64 {
    let (mut count, mut rest) = (0, entry.payload);
    if !entry.header.flags.contains(Flags::BEGIN) {
        return 0;
    }
    while let Some((kind, tail)) = rest.split_first() {
        count += u64::from(matches!(kind, b'Q' | b'E' | b'F'));
        let length = tail.first_chunk().map_or(usize::MAX, |length| u32::from_be_bytes(*length) as usize);
        rest = tail.get(length.max(4)..).unwrap_or_default();
    }
    count
}

pub(crate) fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
