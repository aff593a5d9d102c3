//! An honest upstream: as much of a PostgreSQL server as a gateway can tell apart. It answers whatever it is asked, well
//! formed and in order, so that a session which blames it is wrong.
//! Source: <https://www.postgresql.org/docs/18/protocol-flow.html>.

use std::collections::HashMap;

use dataplane::protocol::postgres::wire::{cstr_at, message, put_cstr};

use super::input::{contains, messages};

/// Stands in a column that [`super::stage`]'s masked logins must not see.
pub const CANARY: &[u8] = b"CANARY";
/// A text with this word gives what [`PEOPLE`] holds, computed: such columns are masked by the text's plan alone.
pub const COMPUTED: &[u8] = b"computed";
/// The relation of every other result: its columns 2 and 3 are masked.
pub const PEOPLE: u32 = 16401;
pub const NO_STATEMENT: &str = "26000";
pub const NO_PORTAL: &str = "34000";

#[derive(Default)]
pub struct Server {
    answered: usize,
    status: u8,
    skipping: bool,
    /// A COPY FROM STDIN is open; whether by the extended protocol.
    copying: Option<bool>,
    statements: HashMap<Vec<u8>, Vec<u8>>,
    portals: HashMap<Vec<u8>, Vec<u8>>,
}

impl Server {
    pub fn new() -> Self {
        Self { status: b'I', ..Self::default() }
    }

    /// Answers what has come since the last call. `stream` is all that came, from the first message behind the login.
    pub fn answer(&mut self, stream: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let (whole, rest) = messages(&stream[self.answered..]);
        whole.iter().for_each(|message| self.step(message[0], &message[5..], &mut out));
        self.answered = stream.len() - rest.len();
        out
    }

    fn step(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        if let Some(extended) = self.copying {
            return self.copy(tag, extended, out);
        }
        match tag {
            b'S' => {
                self.skipping = false;
                self.ready(out);
            }
            // Until Sync even a simple query is ignored (`ignore_till_sync` of the server's postgres.c).
            _ if self.skipping => {}
            b'Q' => self.query(text(body), out),
            b'P' => self.parse(body, out),
            b'B' => self.bind(body, out),
            b'D' => self.describe(body, out),
            b'E' => self.execute(text(body), out),
            b'C' => self.close(body, out),
            b'F' => self.call(out),
            // Flush, Terminate, and what a failed COPY has left.
            _ => {}
        }
    }

    fn ready(&mut self, out: &mut Vec<u8>) {
        if self.status == b'I' {
            self.portals.clear();
        }
        message(out, b'Z', |out| out.push(self.status));
    }

    fn fail(&mut self, extended: bool, out: &mut Vec<u8>) {
        self.fail_with("42601", "no", extended, out);
    }

    /// The gateway may know that there is no such name, and says so in these words.
    fn no_statement(&mut self, name: &[u8], out: &mut Vec<u8>) {
        let text = match name {
            b"" => "unnamed prepared statement does not exist".to_owned(),
            _ => format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name)),
        };
        self.fail_with(NO_STATEMENT, &text, true, out);
    }

    fn no_portal(&mut self, name: &[u8], out: &mut Vec<u8>) {
        let text = format!("portal \"{}\" does not exist", String::from_utf8_lossy(name));
        self.fail_with(NO_PORTAL, &text, true, out);
    }

    fn fail_with(&mut self, sqlstate: &str, text: &str, extended: bool, out: &mut Vec<u8>) {
        message(out, b'E', |out| {
            for field in ["SERROR", "VERROR", &format!("C{sqlstate}"), &format!("M{text}")] {
                put_cstr(out, field.as_bytes());
            }
            out.push(0);
        });
        self.skipping = extended;
        if self.status == b'T' {
            self.status = b'E';
        }
    }

    fn copy(&mut self, tag: u8, extended: bool, out: &mut Vec<u8>) {
        match tag {
            b'd' | b'H' | b'S' => return,
            b'c' => complete(b"COPY 1", out),
            _ => self.fail(extended, out),
        }
        self.copying = None;
        if !extended {
            self.ready(out);
        }
    }

    /// A text that cannot run; an aborted transaction takes only its end.
    fn refuses(&self, text: &[u8]) -> bool {
        contains(text, b"fail") || self.status == b'E' && !text.starts_with(b"rollback")
    }

    fn query(&mut self, text: &[u8], out: &mut Vec<u8>) {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        match self.refuses(text) {
            true => self.fail(false, out),
            false => self.run(text, false, out),
        }
        if self.copying.is_none() {
            self.ready(out);
        }
    }

    fn run(&mut self, text: &[u8], extended: bool, out: &mut Vec<u8>) {
        if text.is_empty() {
            return message(out, b'I', |_| ());
        }
        if text.starts_with(b"copy in") {
            message(out, b'G', |out| out.extend_from_slice(&[0, 0, 1, 0, 0]));
            self.copying = Some(extended);
            return;
        }
        if text.starts_with(b"copy out") {
            message(out, b'H', |out| out.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0]));
            message(out, b'd', |out| out.extend_from_slice(b"1\tx\n"));
            message(out, b'c', |_| ());
            return complete(b"COPY 1", out);
        }
        match text {
            b"begin" => self.status = b'T',
            b"rollback" => self.status = b'I',
            _ if text.starts_with(b"select") => {
                if !extended {
                    described(text, out);
                }
                row(out);
            }
            _ => {}
        }
        complete(b"OK", out);
    }

    fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let Some((name, at)) = cstr_at(body, 0) else { return };
        let text = text(&body[at..]);
        if self.refuses(text) || !name.is_empty() && self.statements.contains_key(name) {
            return self.fail(true, out);
        }
        self.statements.insert(name.to_vec(), text.to_vec());
        message(out, b'1', |_| ());
    }

    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let Some((portal, at)) = cstr_at(body, 0) else { return };
        let name = text(&body[at..]);
        match self.statements.get(name).cloned() {
            None => self.no_statement(name, out),
            Some(s) if self.refuses(&s) || !portal.is_empty() && self.portals.contains_key(portal) => {
                self.fail(true, out);
            }
            Some(statement) => {
                self.portals.insert(portal.to_vec(), statement);
                message(out, b'2', |_| ());
            }
        }
    }

    fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let Some((kind, name)) = body.split_first() else { return };
        let known = if *kind == b'S' { &self.statements } else { &self.portals };
        let Some(statement) = known.get(text(name)) else {
            return match kind {
                b'S' => self.no_statement(text(name), out),
                _ => self.no_portal(text(name), out),
            };
        };
        if *kind == b'S' {
            message(out, b't', |out| out.extend_from_slice(&[0, 0]));
        }
        match statement.starts_with(b"select") {
            true => described(statement, out),
            false => message(out, b'n', |_| ()),
        }
    }

    fn execute(&mut self, portal: &[u8], out: &mut Vec<u8>) {
        match self.portals.get(portal).cloned() {
            None => self.no_portal(portal, out),
            Some(text) if !self.refuses(&text) => self.run(&text, true, out),
            Some(_) => self.fail(true, out),
        }
    }

    /// A function call returns null, and is answered as a query.
    fn call(&mut self, out: &mut Vec<u8>) {
        match self.refuses(b"") {
            true => self.fail(false, out),
            false => message(out, b'V', |out| out.extend_from_slice(&[0xff; 4])),
        }
        self.ready(out);
    }

    fn close(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let Some((kind, name)) = body.split_first() else { return };
        let known = if *kind == b'S' { &mut self.statements } else { &mut self.portals };
        known.remove(text(name));
        message(out, b'3', |_| ());
    }
}

fn text(body: &[u8]) -> &[u8] {
    cstr_at(body, 0).map_or(body, |(text, _)| text)
}

fn complete(tag: &[u8], out: &mut Vec<u8>) {
    message(out, b'C', |out| put_cstr(out, tag));
}

/// Of a result that is computed no column has an origin: only the plan of its own text says that it must be masked.
fn described(text: &[u8], out: &mut Vec<u8>) {
    columns_of(if contains(text, COMPUTED) { 0 } else { PEOPLE }, out);
}

/// Three columns of text of [`PEOPLE`].
pub fn row_description(out: &mut Vec<u8>) {
    columns_of(PEOPLE, out);
}

fn columns_of(relation: u32, out: &mut Vec<u8>) {
    message(out, b'T', |out| {
        out.extend_from_slice(&3u16.to_be_bytes());
        for (number, name) in [(1u16, "id"), (2, "name"), (3, "ssn")] {
            put_cstr(out, name.as_bytes());
            out.extend_from_slice(&relation.to_be_bytes());
            out.extend_from_slice(&if relation == 0 { 0 } else { number }.to_be_bytes());
            out.extend_from_slice(&25u32.to_be_bytes());
            out.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        }
    });
}

fn row(out: &mut Vec<u8>) {
    message(out, b'D', |out| {
        out.extend_from_slice(&3u16.to_be_bytes());
        for value in [b"1", CANARY, CANARY] {
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(value);
        }
    });
}
