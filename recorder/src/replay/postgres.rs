//! Reads a recorded PostgreSQL conversation (protocol 3.0 and 3.2, chapter "Message Formats" of the manual).
//!
//! The bytes are evidence, not instructions: whatever they are, this gives events and never fails. Memory is bounded: a
//! message beyond [`super::wire::MESSAGE_BYTES_MAX`] is counted and not shown, and at most [`NAMES_MAX`] names are remembered.

use std::collections::{HashMap, VecDeque};

use super::event::{Event, Side};
use super::wire::{Body, Frames, Message, beginning};
use super::{ROWS_SHOWN_MAX, text};

/// Most prepared statements, portals, and replies due that are remembered.
pub const NAMES_MAX: usize = 65_536;

/// Both directions of a session.
pub struct Conversation {
    all_rows: bool,
    client: Frames,
    server: Frames,
    statements: HashMap<String, Prepared>,
    portals: HashMap<String, Portal>,
    due: VecDeque<Due>,
    columns: Vec<Column>,
    rows: u64,
}

#[derive(Clone, Default)]
struct Prepared {
    sql: String,
    param_oids: Vec<u32>,
    columns: Vec<Column>,
}

#[derive(Clone, Default)]
struct Portal {
    statement: String,
    params: Vec<Option<String>>,
    result_formats: Vec<i16>,
}

#[derive(Clone, Default, Debug)]
struct Column {
    name: String,
    oid: u32,
    is_binary: bool,
}

/// What the server still has to answer, oldest first.
enum Due {
    Describe { statement: String },
    Execute { statement: String, formats: Vec<i16> },
    Query,
    Sync,
}

impl Conversation {
    /// A conversation that has not begun. `all_rows`: show every row.
    pub fn new(all_rows: bool) -> Self {
        Conversation {
            all_rows,
            client: Frames::default(),
            server: Frames::default(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            due: VecDeque::new(),
            columns: Vec::new(),
            rows: 0,
        }
    }

    /// Takes the payload of one record. `begins`: it starts with the start of a message.
    pub fn feed(&mut self, side: Side, begins: bool, bytes: &[u8], events: &mut Vec<Event>) {
        let frames = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        let mut messages = Vec::new();
        let lost = frames.push(begins, bytes, &mut messages);
        events.extend(lost.map(|bytes| Event::Malformed(format!("{bytes} bytes of an unfinished message"))));
        for message in messages {
            let before = events.len();
            let decoded = match (side, &message) {
                (Side::Server, Message::TooLong { kind: b'D', beginning, .. }) => {
                    self.row(Body(beginning), true, events)
                }
                (_, Message::TooLong { kind, bytes, .. }) => {
                    let what =
                        format!("message {} of {bytes} bytes, too long to show", char::from(*kind).escape_debug());
                    events.push(Event::Other { what });
                    Some(())
                }
                (_, Message::Impossible { .. }) => None,
                (Side::Client, Message::Whole { kind, body }) => self.client_message(*kind, Body(body), events),
                (Side::Server, Message::Whole { kind, body }) => self.server_message(*kind, Body(body), events),
            };
            if decoded.is_none() {
                events.truncate(before);
                events.push(Event::Malformed(message.describe()));
            }
        }
    }

    /// The session is over: what is left of the client's last message, if it did not come whole.
    pub fn end(&mut self, events: &mut Vec<Event>) {
        let left = self.client.unfinished();
        if !left.is_empty() {
            let what = format!("{} bytes of an unfinished message: {}", left.len(), beginning(left));
            events.push(Event::Malformed(what));
        }
    }

    fn client_message(&mut self, kind: u8, mut body: Body<'_>, events: &mut Vec<Event>) -> Option<()> {
        match kind {
            b'Q' => {
                let sql = body.text()?;
                self.owe(Due::Query);
                events.push(Event::Statement { sql, params: Vec::new() });
                if !body.0.is_empty() {
                    events.push(Event::Malformed(format!("behind the text: {}", beginning(body.0))));
                }
            }
            b'P' => self.parse(body, events)?,
            b'B' => self.bind(body)?,
            b'D' => self.describe(body)?,
            b'E' => self.execute(body, events)?,
            b'C' => self.close(body)?,
            b'S' => self.owe(Due::Sync),
            b'd' => events.push(Event::Copy { from: Side::Client, data: text::bytes(body.0) }),
            b'c' => events.push(Event::Other { what: "end of COPY data".into() }),
            b'f' => events.push(Event::Other { what: format!("COPY given up: {}", body.text()?) }),
            b'F' => self.function_call(body, events)?,
            // A password message: not even its length is shown.
            b'p' => events.push(Event::Other { what: "authentication message".into() }),
            b'X' => events.push(Event::Other { what: "terminate".into() }),
            b'H' => {}
            _ => return None,
        }
        Some(())
    }

    fn parse(&mut self, mut body: Body<'_>, events: &mut Vec<Event>) -> Option<()> {
        let (name, sql) = (body.text()?, body.text()?);
        let count = body.count()?;
        let param_oids = (0..count).map(|_| body.u32()).collect::<Option<_>>()?;
        if !name.is_empty() {
            events.push(Event::Prepare { name: name.clone(), sql: sql.clone() });
        }
        remember(&mut self.statements, name, Prepared { sql, param_oids, columns: Vec::new() });
        Some(())
    }

    fn bind(&mut self, mut body: Body<'_>) -> Option<()> {
        let (portal, statement) = (body.text()?, body.text()?);
        let formats = body.formats()?;
        let oids = self.statements.get(&statement).map(|known| known.param_oids.clone()).unwrap_or_default();
        let count = body.count()?;
        let mut params = Vec::new();
        for place in 0..count {
            let oid = oids.get(place).copied().unwrap_or(0);
            let value = body.value()?;
            params.push(value.map(|value| show_value(value, is_binary(&formats, place), oid)));
        }
        let result_formats = body.formats()?;
        remember(&mut self.portals, portal, Portal { statement, params, result_formats });
        Some(())
    }

    fn describe(&mut self, mut body: Body<'_>) -> Option<()> {
        let (kind, name) = (body.u8()?, body.text()?);
        let statement = match kind {
            b'S' => name,
            b'P' => self.portals.get(&name).map(|portal| portal.statement.clone()).unwrap_or_default(),
            _ => return None,
        };
        self.owe(Due::Describe { statement });
        Some(())
    }

    fn execute(&mut self, mut body: Body<'_>, events: &mut Vec<Event>) -> Option<()> {
        let name = body.text()?;
        body.u32()?;
        let portal = self.portals.get(&name).cloned().unwrap_or_default();
        let known = self.statements.get(&portal.statement);
        let sql = known.map_or_else(|| format!("(unknown portal {name:?})"), |known| known.sql.clone());
        self.owe(Due::Execute { statement: portal.statement, formats: portal.result_formats });
        events.push(Event::Statement { sql, params: portal.params });
        Some(())
    }

    /// A function called by its OID: a statement without a text.
    fn function_call(&mut self, mut body: Body<'_>, events: &mut Vec<Event>) -> Option<()> {
        let oid = body.u32()?;
        let formats = body.formats()?;
        let count = body.count()?;
        let values = (0..count).map(|_| body.value()).collect::<Option<Vec<_>>>()?;
        let shown =
            |(place, value): (usize, Option<&[u8]>)| value.map(|v| show_value(v, is_binary(&formats, place), 0));
        let params = values.into_iter().enumerate().map(shown).collect();
        self.owe(Due::Query);
        events.push(Event::Statement { sql: format!("(function call) {}", function(oid)), params });
        Some(())
    }

    fn close(&mut self, mut body: Body<'_>) -> Option<()> {
        let (kind, name) = (body.u8()?, body.text()?);
        match kind {
            b'S' => drop(self.statements.remove(&name)),
            b'P' => drop(self.portals.remove(&name)),
            _ => return None,
        }
        Some(())
    }

    fn server_message(&mut self, kind: u8, mut body: Body<'_>, events: &mut Vec<Event>) -> Option<()> {
        match kind {
            b'T' => self.row_description(body)?,
            b'D' => self.row(body, false, events)?,
            b'n' => self.described(Vec::new()),
            b'C' | b'I' | b's' => {
                self.end_rows(events);
                let tag = if kind == b'C' { body.text()? } else { String::new() };
                events.push(Event::Complete { tag });
                if matches!(self.due.front(), Some(Due::Execute { .. })) {
                    self.due.pop_front();
                }
            }
            b'E' | b'N' => {
                events.push(body.message(kind == b'E')?);
                if kind == b'E' {
                    self.end_rows(events);
                    self.skip_to_sync();
                }
            }
            b'Z' => self.ready(),
            b'd' => self.copy_row(body, events),
            b'A' => {
                body.u32()?;
                let what = format!("notification on {:?}: {}", body.text()?, body.text()?);
                events.push(Event::Other { what });
            }
            b'G' | b'H' | b'W' => events.push(Event::Other { what: "COPY begins".into() }),
            b'c' => self.end_rows(events),
            b'V' => {
                let value = body.value()?.map(text::bytes);
                events.push(Event::Row { columns: vec!["result".into()], values: vec![value] });
            }
            b'1' | b'2' | b'3' | b't' | b'R' | b'S' | b'K' | b'v' => {}
            _ => return None,
        }
        Some(())
    }

    fn row_description(&mut self, mut body: Body<'_>) -> Option<()> {
        let count = body.count()?;
        let mut columns = Vec::new();
        for _ in 0..count {
            let name = body.text()?;
            body.take(6)?;
            let oid = body.u32()?;
            body.take(6)?;
            columns.push(Column { name, oid, is_binary: body.u16()? == 1 });
        }
        self.described(columns);
        Some(())
    }

    fn described(&mut self, columns: Vec<Column>) {
        if let Some(Due::Describe { statement }) = self.due.front() {
            if let Some(known) = self.statements.get_mut(statement) {
                known.columns = columns;
            }
            self.due.pop_front();
        } else {
            self.columns = columns;
        }
    }

    /// `is_cut`: it is too long to be shown whole, so its values are shown up to where it is cut.
    fn row(&mut self, mut body: Body<'_>, is_cut: bool, events: &mut Vec<Event>) -> Option<()> {
        self.rows += 1;
        if self.rows > ROWS_SHOWN_MAX && !self.all_rows {
            return Some(());
        }
        let columns = self.columns_of_reply();
        let count = body.count()?;
        let mut values = Vec::new();
        for place in 0..count {
            let column = columns.get(place).cloned().unwrap_or_default();
            let mut rest = Body(body.0);
            match body.value() {
                Some(value) => values.push(value.map(|value| show_value(value, column.is_binary, column.oid))),
                None if is_cut => {
                    if let Some(bytes) = rest.u32() {
                        values.push(Some(format!("{}… ({bytes} bytes)", text::bytes(whole_characters(rest.0)))));
                    }
                    break;
                }
                None => return None,
            }
        }
        events.push(Event::Row { columns: columns.into_iter().map(|column| column.name).collect(), values });
        Some(())
    }

    /// The columns of the rows that come now, with the formats that Bind asked for.
    fn columns_of_reply(&self) -> Vec<Column> {
        let Some(Due::Execute { statement, formats }) = self.due.front() else { return self.columns.clone() };
        let mut columns = self.statements.get(statement).map(|known| known.columns.clone()).unwrap_or_default();
        for (place, column) in columns.iter_mut().enumerate() {
            column.is_binary = is_binary(formats, place);
        }
        columns
    }

    fn copy_row(&mut self, body: Body<'_>, events: &mut Vec<Event>) {
        self.rows += 1;
        if self.rows <= ROWS_SHOWN_MAX || self.all_rows {
            events.push(Event::Copy { from: Side::Server, data: text::bytes(body.0) });
        }
    }

    fn end_rows(&mut self, events: &mut Vec<Event>) {
        let rows = std::mem::take(&mut self.rows);
        if rows > ROWS_SHOWN_MAX && !self.all_rows {
            events.push(Event::MoreRows { rows: rows - ROWS_SHOWN_MAX });
        }
    }

    /// After an error the server answers nothing before the Sync.
    fn skip_to_sync(&mut self) {
        while !matches!(self.due.front(), None | Some(Due::Sync | Due::Query)) {
            self.due.pop_front();
        }
    }

    fn ready(&mut self) {
        self.skip_to_sync();
        self.due.pop_front();
        self.columns.clear();
    }

    fn owe(&mut self, due: Due) {
        if self.due.len() < NAMES_MAX {
            self.due.push_back(due);
        }
    }
}

fn remember<T>(names: &mut HashMap<String, T>, name: String, value: T) {
    if names.len() < NAMES_MAX || names.contains_key(&name) {
        names.insert(name, value);
    }
}

/// The format of a value: none given means text, one given means it for all.
fn is_binary(formats: &[i16], place: usize) -> bool {
    let format = if formats.len() == 1 { formats.first() } else { formats.get(place) };
    format == Some(&1)
}

/// Without a character that is cut at the end.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(cut) if cut.error_len().is_none() => &bytes[..cut.valid_up_to()],
        _ => bytes,
    }
}

/// The functions that are called by message have fixed OIDs (PostgreSQL, `pg_proc.dat`).
fn function(oid: u32) -> String {
    const LARGE_OBJECTS: [(u32, &str); 13] = [
        (715, "lo_create"),
        (952, "lo_open"),
        (953, "lo_close"),
        (954, "loread"),
        (955, "lowrite"),
        (956, "lo_lseek"),
        (957, "lo_creat"),
        (958, "lo_tell"),
        (964, "lo_unlink"),
        (1004, "lo_truncate"),
        (3170, "lo_lseek64"),
        (3171, "lo_tell64"),
        (3172, "lo_truncate64"),
    ];
    let known = LARGE_OBJECTS.iter().find(|(known, _)| *known == oid);
    known.map_or_else(|| format!("oid {oid}"), |(_, name)| (*name).to_owned())
}

fn show_value(value: &[u8], is_binary: bool, oid: u32) -> String {
    match is_binary {
        true => text::binary(oid, value),
        false => text::bytes(value),
    }
}
