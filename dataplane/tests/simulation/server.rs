//! A model of a PostgreSQL server: as much of one as a gateway can tell apart. Its answers depend on nothing but the bytes
//! that it is given, so the same script asked directly and through the gateway must give the same answers.

use std::collections::{BTreeSet, HashMap};

use dataplane::datapath::verdict::TEXT_KEPT_BYTES_MAX;
use dataplane::protocol::postgres::wire::{cstr_at, message, put_cstr, u32_at};

use super::client::split;
use super::tables::{Column, ID, TABLES, big_note, columns, number, row_description};
use super::upstream::must_arrive;
use super::words::{ASKS, CALLS, STAND_IN, is_of_name, is_question, no_portal, no_statement};

/// Whom the server speaks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The gateway. A forbidden text here is the gateway's failure.
    Upstream,
    /// The client, as if there were no gateway but its policy: it refuses, and masks if asked to.
    Direct { masked: bool },
}

/// What the gateway may do with a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Must,
    /// The server would ignore it, so it may be passed or not.
    May,
    /// Refused: never.
    Drop,
}

/// Marks the refusals of [`Mode::Direct`]; the gateway's own have its words in their place.
pub const REFUSED: &[u8] = b"C42501\0";

/// What a slow statement says that was cancelled: as many messages as if it was not, so that the client need not know.
pub const CANCELLED: &str = "INSERT 0 0";
/// Another session than any of ours.
const NOTIFIER_PID: u32 = 1 << 30;
/// The length of a value that is NULL.
pub const NULL: [u8; 4] = [0xff; 4];
/// Stands in every value of the vault.
pub const VAULTED: &str = "VAULT-";

struct Portal {
    text: String,
    next: usize,
}

pub struct Server {
    pub client: u32,
    mode: Mode,
    pending: Vec<u8>,
    status: u8,
    pub skipping: bool,
    /// Messages have come since the last Sync.
    pipeline_open: bool,
    /// The error that it skips after was a refusal, or said that there is no such name: the gateway may have given it alone.
    skipping_refusal: bool,
    copying_extended: Option<bool>,
    copied: usize,
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, Portal>,
    /// Of each message, where it ends in the stream, and its class.
    pub classes: Vec<(usize, Class)>,
    consumed: usize,
    pub terminated: bool,
    /// After a lie of its own a server may be asked anything; then it hangs up.
    pub lenient: bool,
    /// What is known of the vault's statements that are fed now.
    pub vault: Vault,
    /// The gateway may refuse alone what the server would fail for the want of a name.
    pub reloads: bool,
    /// Messages, by number, that the gateway has refused because the policy has changed since their statement was prepared.
    pub outdated: BTreeSet<usize>,
    /// Of each message, where its answer ends in all that it was answered.
    pub answers: Vec<usize>,
    /// A slow statement is under way: nothing is read before [`Server::wake`].
    pub sleeping: bool,
    woken: bool,
    /// The slow statement was cancelled.
    cancelled: bool,
    /// Answers to the gateway's own questions, which no client sees.
    pub hidden: usize,
    /// What nobody knows was called, and the gateway has not asked since what holds.
    unsure: bool,
}

/// How a gateway treats statements that read the vault: in [`Mode::Direct`] the client tells, when it has seen it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vault {
    /// The kind of message that was refused.
    pub refused_at: Option<u8>,
    pub starred: bool,
    /// Nobody knows: the answer was never seen.
    pub unknown: bool,
}

impl Server {
    pub fn new(client: u32, mode: Mode) -> Self {
        Self {
            client,
            mode,
            pending: Vec::new(),
            status: b'I',
            skipping: false,
            pipeline_open: false,
            skipping_refusal: false,
            copying_extended: None,
            copied: 0,
            statements: HashMap::new(),
            portals: HashMap::new(),
            classes: Vec::new(),
            consumed: 0,
            terminated: false,
            lenient: false,
            vault: Vault::default(),
            reloads: false,
            outdated: BTreeSet::new(),
            answers: Vec::new(),
            sleeping: false,
            woken: false,
            cancelled: false,
            hidden: 0,
            unsure: false,
        }
    }

    /// The server forgets the unnamed statement before it looks at what is asked, whatever comes of it.
    fn drop_unnamed(&mut self, tag: u8, body: &[u8]) {
        if tag == b'Q' || tag == b'P' && body.starts_with(&[0]) {
            self.statements.remove(b"".as_slice());
        }
    }

    /// An error of the server's that the gateway may have given in its own words.
    pub fn may_be_outdated(&self, error: &[u8]) -> bool {
        let unknown = |sqlstate: &[u8]| error.windows(sqlstate.len()).any(|w| w == sqlstate);
        self.reloads && error[0] == b'E' && (unknown(b"C26000\0") || unknown(REFUSED))
    }

    /// No transaction and no pipeline is open.
    pub fn is_idle(&self) -> bool {
        self.status == b'I' && !self.pipeline_open && !self.is_copying()
    }

    /// COPY data is awaited.
    pub fn is_copying(&self) -> bool {
        self.copying_extended.is_some()
    }

    /// The slow statement is done, or was cancelled.
    pub fn wake(&mut self, cancelled: bool, out: &mut Vec<u8>) {
        (self.sleeping, self.woken, self.cancelled) = (false, true, cancelled);
        self.feed(&[], out);
    }

    /// The next message runs a slow statement, and the client is not the one who asks.
    fn is_slow(&self) -> bool {
        if self.mode != Mode::Upstream || self.woken || self.skipping || self.copying_extended.is_some() {
            return false;
        }
        let (tag, body) = (self.pending[0], &self.pending[5..]);
        let text = match tag {
            b'Q' => Some(text_at(body, 0).0),
            b'E' => self.portals.get(cstr_at(body, 0).map_or(&[][..], |(name, _)| name)).map(|p| p.text.clone()),
            _ => None,
        };
        self.status != b'E' && text.is_some_and(|text| text.contains("'slow'"))
    }

    /// Takes bytes after the login, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.pending.extend_from_slice(bytes);
        while let Some(length) = u32_at(&self.pending, 1) {
            let total = length as usize + 1;
            if self.pending.len() < total || self.terminated || self.sleeping {
                return;
            }
            self.sleeping = self.is_slow();
            if self.sleeping {
                return;
            }
            let frame: Vec<u8> = self.pending.drain(..total).collect();
            self.expect_question(&frame);
            let from = out.len();
            let class = match self.vault.unknown {
                true => Class::May,
                false => self.take(frame[0], &frame[5..], out),
            };
            if is_question(&frame) {
                self.hidden +=
                    split(&out[from..]).0.iter().filter(|answer| answer[0] != b'E' && must_arrive(answer)).count();
            }
            (self.woken, self.cancelled) = (false, false);
            self.consumed += total;
            self.classes.push((self.consumed, class));
            self.answers.push(out.len());
        }
    }

    /// Behind what nobody knows nothing runs before the gateway has asked what holds. A failed transaction has undone it.
    fn expect_question(&mut self, frame: &[u8]) {
        let runs = b"QPBE".contains(&frame[0]) && !frame[5..].starts_with(STAND_IN) && !is_question(frame);
        if self.mode == Mode::Upstream && runs && !self.skipping && !self.is_copying() {
            let must_ask = std::mem::take(&mut self.unsure) && self.status != b'E' && !self.lenient;
            assert!(!must_ask, "nobody has asked what holds before {}", frame.escape_ascii());
        }
    }

    /// A Bind or an Execute of a text that is too long to be kept, and so to be judged again.
    fn is_of_long_text(&self, tag: u8, body: &[u8]) -> bool {
        let Some((first, at)) = cstr_at(body, 0) else { return false };
        let text = match tag {
            b'B' => cstr_at(body, at).and_then(|(name, _)| self.statements.get(name)),
            b'E' => self.portals.get(first).map(|portal| &portal.text),
            _ => None,
        };
        text.is_some_and(|text| text.len() > TEXT_KEPT_BYTES_MAX)
    }

    fn take(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Class {
        self.pipeline_open = match tag {
            b'P' | b'B' | b'D' | b'E' | b'C' => true,
            b'S' if !self.is_copying() => false,
            b'Q' if !self.is_copying() && !self.skipping => false,
            _ => self.pipeline_open,
        };
        if let Some(extended) = self.copying_extended {
            return self.take_copy(tag, extended, out);
        }
        if self.skipping && !matches!(tag, b'S' | b'X') {
            return Class::May;
        }
        let text = match tag {
            b'Q' => text_at(body, 0).0,
            b'P' => text_at(body, text_at(body, 0).1).0,
            _ => String::new(),
        };
        self.drop_unnamed(tag, body);
        let refused = text.contains("forbidden") || self.vault.refused_at == Some(tag);
        assert!(!(refused && self.mode == Mode::Upstream), "a refused statement has reached the upstream: {text}");
        let outdated = self.outdated.contains(&self.classes.len());
        assert!(!outdated || self.is_of_long_text(tag, body), "what can be judged again was refused for a reload");
        match tag {
            _ if outdated => {
                self.fail("0A000", "the policy has changed", true, out);
                self.skipping_refusal = true;
                return Class::Drop;
            }
            _ if refused => {
                self.fail("42501", "refused", tag != b'Q', out);
                self.skipping_refusal = tag != b'Q';
                if tag == b'Q' {
                    self.ready(out);
                }
                return Class::Drop;
            }
            b'Q' => self.query(&text, out),
            b'P' => self.parse(body, text, out),
            b'B' => {
                self.bind(body, out);
                self.skipping_refusal |= self.reloads && self.skipping;
            }
            b'D' => self.describe(body, out),
            b'E' => self.execute(body, out),
            b'C' => self.close(body, out),
            b'S' => return self.sync(out),
            b'X' => self.terminated = true,
            b'H' => {}
            // Stray COPY messages are ignored.
            b'd' | b'c' | b'f' => return Class::May,
            other => panic!("the model server was sent a message {:?}", other as char),
        }
        if self.skipping_refusal { Class::May } else { Class::Must }
    }

    fn take_copy(&mut self, tag: u8, extended: bool, out: &mut Vec<u8>) -> Class {
        match tag {
            b'd' => self.copied += 1,
            // It would be ignored: the gateway may keep it.
            b'S' => return Class::May,
            b'H' => {}
            b'c' => {
                self.copying_extended = None;
                complete(&format!("COPY {}", self.copied), out);
                if !extended {
                    self.ready(out);
                }
            }
            b'f' => {
                self.copying_extended = None;
                self.fail("57014", "COPY from stdin failed", extended, out);
                if !extended {
                    self.ready(out);
                }
            }
            b'X' => self.terminated = true,
            _ if self.lenient => self.terminated = true,
            other => panic!("a message {:?} in a COPY", other as char),
        }
        Class::Must
    }

    fn ready(&mut self, out: &mut Vec<u8>) {
        if self.status == b'I' {
            self.portals.clear();
        }
        message(out, b'Z', |out| out.push(self.status));
    }

    fn sync(&mut self, out: &mut Vec<u8>) -> Class {
        let class = if self.skipping_refusal { Class::May } else { Class::Must };
        (self.skipping, self.skipping_refusal) = (false, false);
        self.ready(out);
        class
    }

    fn fail(&mut self, sqlstate: &str, text: &str, extended: bool, out: &mut Vec<u8>) {
        message(out, b'E', |out| {
            for (code, value) in [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', sqlstate), (b'M', text)] {
                out.push(code);
                put_cstr(out, value.as_bytes());
            }
            out.push(0);
        });
        if self.status == b'T' {
            self.status = b'E';
        }
        self.skipping = extended;
        self.skipping_refusal = extended && is_of_name(sqlstate);
    }

    fn query(&mut self, text: &str, out: &mut Vec<u8>) {
        self.portals.remove(b"".as_slice());
        for part in text.split(';').map(str::trim) {
            if part.is_empty() {
                message(out, b'I', |_| ());
                continue;
            }
            if let Err((sqlstate, text)) = self.allowed(part) {
                self.fail(sqlstate, text, false, out);
                break;
            }
            if let Some(columns) = columns(part) {
                row_description(columns, out);
            }
            if !self.run(part, None, usize::MAX, false, out) {
                break;
            }
        }
        if self.copying_extended.is_none() {
            self.ready(out);
        }
        // Nobody has asked for it, and it is larger than what one record holds of a gathered message.
        if text.contains("huge") {
            message(out, b'N', |out| {
                out.extend_from_slice(b"SNOTICE\0VNOTICE\0C00000\0M");
                out.extend(std::iter::repeat_n(b'n', 150_000));
                out.extend_from_slice(b"\0\0");
            });
        }
    }

    fn allowed(&self, text: &str) -> Result<(), (&'static str, &'static str)> {
        match self.status == b'E' && !text.starts_with("ROLLBACK") && !text.starts_with("COMMIT") {
            true => Err(("25P02", "current transaction is aborted")),
            false => Ok(()),
        }
    }

    fn parse(&mut self, body: &[u8], text: String, out: &mut Vec<u8>) {
        let name = cstr_at(body, 0).expect("a name").0.to_vec();
        if let Err((sqlstate, why)) = self.allowed(&text) {
            return self.fail(sqlstate, why, true, out);
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            return self.fail("42P05", "prepared statement exists", true, out);
        }
        self.statements.insert(name, text);
        message(out, b'1', |_| ());
    }

    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let (portal, at) = cstr_at(body, 0).expect("a portal");
        let (name, _) = cstr_at(body, at).expect("a statement");
        let Some(text) = self.statements.get(name).cloned() else {
            return self.fail("26000", &no_statement(name), true, out);
        };
        if let Err((sqlstate, why)) = self.allowed(&text) {
            return self.fail(sqlstate, why, true, out);
        }
        self.portals.insert(portal.to_vec(), Portal { text, next: 0 });
        message(out, b'2', |_| ());
    }

    fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let name = cstr_at(body, 1).expect("a name").0;
        let found = match body[0] {
            b'S' => self.statements.get(name).cloned().ok_or_else(|| ("26000", no_statement(name))),
            _ => self.portals.get(name).map(|p| p.text.clone()).ok_or_else(|| ("34000", no_portal(name))),
        };
        let aborted = |(sqlstate, why): (&'static str, &str)| (sqlstate, why.to_owned());
        match found.and_then(|text| self.allowed(&text).map(|()| text).map_err(aborted)) {
            Err((sqlstate, why)) => self.fail(sqlstate, &why, true, out),
            Ok(text) => {
                if body[0] == b'S' {
                    message(out, b't', |out| out.extend_from_slice(&[0, 0]));
                }
                match columns(&text) {
                    Some(columns) => row_description(columns, out),
                    None => message(out, b'n', |_| ()),
                }
            }
        }
    }

    fn execute(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let (name, at) = cstr_at(body, 0).expect("a portal");
        let rows_max = u32_at(body, at).filter(|n| *n > 0).map_or(usize::MAX, |n| n as usize);
        let name = name.to_vec();
        let Some(portal) = self.portals.get(&name) else {
            return self.fail("34000", &no_portal(&name), true, out);
        };
        let text = portal.text.clone();
        match self.allowed(&text) {
            Err((sqlstate, why)) => self.fail(sqlstate, why, true, out),
            Ok(()) if text.is_empty() => message(out, b'I', |_| ()),
            Ok(()) => drop(self.run(&text, Some(&name), rows_max, true, out)),
        }
    }

    fn close(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let name = cstr_at(body, 1).expect("a name").0;
        match body[0] {
            b'S' => drop(self.statements.remove(name)),
            _ => drop(self.portals.remove(name)),
        }
        message(out, b'3', |_| ());
    }

    /// Runs one statement; false if it failed.
    fn run(&mut self, text: &str, portal: Option<&[u8]>, rows_max: usize, extended: bool, out: &mut Vec<u8>) -> bool {
        self.asides(text, out);
        self.unsure |= text.contains(CALLS);
        match text {
            _ if text.starts_with("BEGIN") => self.status = b'T',
            _ if text.starts_with("COMMIT") || text.starts_with("ROLLBACK") => self.status = b'I',
            _ if text.starts_with("SELECT 1 / 0") => {
                self.fail("22012", "division by zero", extended, out);
                return false;
            }
            _ if text.starts_with(ASKS) => {
                self.unsure = false;
                message(out, b'D', |out| out.extend_from_slice(b"\0\x01\0\0\0\x011"));
                complete("SELECT 1", out);
                return true;
            }
            _ if text.starts_with("SELECT") => return self.select(text, portal, rows_max, out),
            _ if text.contains("FROM STDIN") => {
                self.copying_extended = Some(extended);
                self.copied = 0;
                message(out, b'G', |out| out.extend_from_slice(&[0, 0, 1, 0, 0]));
                return true;
            }
            _ if text.contains("TO STDOUT") => {
                self.copy_out(text, out);
                return true;
            }
            _ => {}
        }
        let tag = match self.cancelled && text.contains("'slow'") {
            true => CANCELLED,
            false if text.starts_with("INSERT") => "INSERT 0 1",
            false => text.split(' ').next().unwrap_or(text),
        };
        complete(tag, out);
        true
    }

    /// What a server says beside its answers.
    fn asides(&self, text: &str, out: &mut Vec<u8>) {
        if text.contains("notice") {
            message(out, b'N', |out| out.extend_from_slice(b"SNOTICE\0VNOTICE\0C00000\0Mby the way\0\0"));
        }
        if text.contains("status") {
            message(out, b'S', |out| out.extend_from_slice(b"application_name\0something else\0"));
        }
        if text.contains("notify") {
            let payload: &[u8] = if self.masks() { b"*******\0" } else { b"payload\0" };
            message(out, b'A', |out| {
                out.extend_from_slice(&NOTIFIER_PID.to_be_bytes());
                put_cstr(out, b"channel");
                out.extend_from_slice(payload);
            });
        }
    }

    fn select(&mut self, text: &str, portal: Option<&[u8]>, rows_max: usize, out: &mut Vec<u8>) -> bool {
        let columns = columns(text).unwrap_or(&[]);
        let rows = number(text) % 5 + 1;
        let from = portal.and_then(|p| self.portals.get(p)).map_or(0, |p| p.next);
        let to = rows.min(from.saturating_add(rows_max));
        for row in from..to {
            message(out, b'D', |out| {
                out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
                for column in columns {
                    if column.relation == 0 && self.masks() {
                        out.extend_from_slice(&NULL);
                        continue;
                    }
                    let value = self.value(column, text, row);
                    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    out.extend_from_slice(&value);
                }
            });
        }
        if let Some(portal) = portal.and_then(|p| self.portals.get_mut(p)) {
            portal.next = to;
        }
        match to < rows || rows_max != usize::MAX && to - from == rows_max {
            true => message(out, b's', |_| ()),
            false => complete(&format!("SELECT {}", to - from), out),
        }
        true
    }

    fn masks(&self) -> bool {
        matches!(self.mode, Mode::Direct { masked: true })
    }

    /// A value carries client, statement and row, so that one that strays is known.
    fn value(&self, column: &Column, text: &str, row: usize) -> Vec<u8> {
        let place = format!("c{}-s{}-r{row}", self.client, number(text));
        let masked = self.masks();
        match column.name {
            "id" => row.to_string().into_bytes(),
            _ if column.relation == 16402 => {
                let value = format!("{VAULTED}tok-{place}-").into_bytes();
                if self.vault.starred { vec![b'*'; value.len()] } else { value }
            }
            "ssn" if masked => vec![b'*'; format!("CANARY-{place}-").len()],
            "ssn" | "?column?" => format!("CANARY-{place}-").into_bytes(),
            _ if text.contains("big") && row == 0 && column.name == "note" => {
                let length = 20_000 + number(text) * 7919 % 60_000;
                big_note(&format!("tok-{place}-"), length, masked)
            }
            _ => format!("tok-{place}-").into_bytes(),
        }
    }

    fn copy_out(&mut self, text: &str, out: &mut Vec<u8>) {
        let table = &TABLES[usize::from(text.contains("people"))];
        message(out, b'H', |out| {
            out.extend_from_slice(&[0, 0, table.2.len() as u8]);
            (0..table.2.len()).for_each(|_| out.extend_from_slice(&[0, 0]));
        });
        let rows = number(text) % 4;
        for row in 0..rows {
            let values = table.2.iter().map(|name| self.value(&Column { name, ..ID }, text, row));
            let mut line = values.collect::<Vec<_>>().join(&b'\t');
            line.push(b'\n');
            message(out, b'd', |out| out.extend_from_slice(&line));
        }
        message(out, b'c', |_| ());
        complete(&format!("COPY {rows}"), out);
    }
}

fn text_at(body: &[u8], at: usize) -> (String, usize) {
    let (text, next) = cstr_at(body, at).expect("a text");
    (String::from_utf8_lossy(text).into_owned(), next)
}

fn complete(tag: &str, out: &mut Vec<u8>) {
    message(out, b'C', |out| put_cstr(out, tag.as_bytes()));
}
