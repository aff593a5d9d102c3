//! Shows one session: statements with parameters, verdicts, and the rows as the client saw them.

mod event;
mod postgres;
pub(crate) mod text;
mod wire;

use std::io::{self, Write};
use std::path::Path;

use ring::record::{Flags, Gap, Kind};
use serde_json::{Value, json};

use crate::evidence::{Damage, walk};
use crate::segment::reader::Entry;
use crate::session::SessionId;
use event::{Event, Side};
use postgres::Conversation;

/// Rows of one statement that are shown unless all are wanted.
pub const ROWS_SHOWN_MAX: u64 = 100;

/// How to show a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// All rows.
    pub all: bool,
}

/// What was shown.
#[derive(Debug, Default)]
pub struct Shown {
    /// Records of the session; 0 means that there is no such session.
    pub records: u64,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// Writes a session's events to `out`, in order, with their time since its first record.
pub fn replay(directory: &Path, id: SessionId, options: Options, out: &mut dyn Write) -> io::Result<Shown> {
    let mut player = Player { options, out, begin_ns: None, records: 0, conversation: Conversation::new(options.all) };
    let contains = |index: &crate::segment::format::Index| index.sessions.iter().any(|span| span.session == id.0);
    let damage = walk(directory, contains, |entry| match entry.header.session == id.0 {
        true => player.play(&entry),
        false => Ok(()),
    })?;
    Ok(Shown { records: player.records, damage })
}

struct Player<'o> {
    options: Options,
    out: &'o mut dyn Write,
    begin_ns: Option<u64>,
    records: u64,
    conversation: Conversation,
}

impl Player<'_> {
    fn play(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.records += 1;
        let begin_ns = *self.begin_ns.get_or_insert(entry.header.time_unix_ns);
        // The wall clock may step back; the order of the records does not.
        let offset_ns = entry.header.time_unix_ns.saturating_sub(begin_ns);
        let mut events = Vec::new();
        match entry.header.kind {
            Kind::Request => self.feed(Side::Client, entry, &mut events),
            Kind::Response => self.feed(Side::Server, entry, &mut events),
            kind => {
                if kind == Kind::Close {
                    self.conversation.end(&mut events);
                }
                events.push(told(kind, entry.payload));
            }
        }
        events.iter().try_for_each(|event| self.show(offset_ns, event))
    }

    fn feed(&mut self, side: Side, entry: &Entry<'_>, events: &mut Vec<Event>) {
        let begins = entry.header.flags.contains(Flags::BEGIN);
        self.conversation.feed(side, begins, entry.payload, events);
    }

    fn show(&mut self, offset_ns: u64, event: &Event) -> io::Result<()> {
        let (name, mut object) = (event.name(), event.object());
        if !self.options.json {
            let ms = offset_ns / 1_000_000;
            return writeln!(self.out, "+{:>4}.{:03}s  {name:<9} {}", ms / 1000, ms % 1000, event.line());
        }
        object["offset_ms"] = json!(offset_ns as f64 / 1e6);
        object["event"] = json!(name);
        // serde_json escapes C0 only; the rest of what a terminal obeys is escaped here.
        writeln!(self.out, "{}", escape_json(&object.to_string()))
    }
}

/// Events that the gateway or the recorder tells.
fn told(kind: Kind, payload: &[u8]) -> Event {
    match kind {
        Kind::Verdict => verdict(payload).unwrap_or_else(|| Event::Malformed("a verdict record".into())),
        Kind::Gap => match Gap::from_bytes(payload) {
            Some(gap) => Event::Gap { records: gap.count },
            None => Event::Malformed("a gap record".into()),
        },
        Kind::Open => Event::Told { name: "open", value: told_json(payload) },
        Kind::Close => Event::Told { name: "close", value: told_json(payload) },
        _ => Event::Told { name: "note", value: told_json(payload) },
    }
}

fn verdict(payload: &[u8]) -> Option<Event> {
    let (head, rule) = payload.split_first_chunk::<12>()?;
    let action = match head[0] {
        0 => "allow",
        1 => "mask",
        2 => "hold",
        3 => "block",
        _ => "unknown",
    };
    // The name that people see: the first 12 hexadecimal digits of the policy's digest.
    let policy = head.get(4..10)?.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Event::Verdict { action, policy, rule: String::from_utf8_lossy(rule).into_owned() })
}

/// What gateway or recorder told. A session's number becomes its name: readers of JSON may round numbers above 2^53.
pub(crate) fn told_json(payload: &[u8]) -> Value {
    let mut value = serde_json::from_slice(payload).unwrap_or_else(|_| json!(String::from_utf8_lossy(payload)));
    if let Some(session) = value.get_mut("session")
        && let Some(number) = session.as_u64()
    {
        *session = json!(SessionId(number).to_string());
    }
    value
}

/// Escapes in JSON text what [`text::escape`] would escape and JSON allows.
pub(crate) fn escape_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        let mut units = [0; 2];
        match text::escape(character.encode_utf8(&mut [0; 4])).len() == character.len_utf8() {
            true => out.push(character),
            false => character.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_output_has_no_character_that_a_terminal_obeys_and_means_the_same() {
        let value = json!({"a": "x\u{9b}\u{7f}\u{202e}\u{1b}\n\u{e0041}é\\"});
        let escaped = escape_json(&value.to_string());
        assert!(escaped.is_ascii() || escaped.chars().all(|c| c == 'é' || c.is_ascii_graphic()), "{escaped}");
        assert!(!escaped.chars().any(char::is_control));
        assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn a_session_is_named_as_the_list_names_it_and_never_rounded() {
        let event = told(Kind::Open, br#"{"session":481959127250108417,"subject":"ann"}"#);
        assert_eq!(event.line(), r#"{"session":"s_6b04345d0000001","subject":"ann"}"#);
        assert_eq!(told(Kind::Note, b"not JSON").line(), "\"not JSON\"");
    }

    #[test]
    fn a_verdict_names_action_and_rule() {
        let mut payload = vec![3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        payload.extend_from_slice(b"no-drop");
        let event = told(Kind::Verdict, &payload);
        assert_eq!(event.line(), "block by no-drop (policy 090000000000)");
        assert_eq!(told(Kind::Verdict, &payload[..11]).name(), "malformed");
    }
}
