//! The rows of COPY … TO STDOUT in text or csv format: taken apart, decoded, masked by field, and put together again.
//! Source: <https://www.postgresql.org/docs/18/sql-copy.html>, "File Formats", and `copyto.c`: what the server writes, not all
//! that it would read.

use policy_compiler::detect;

use super::mask::{Act, MaskView};
use super::verdict::CopyPlan;

/// A reader's place in a row, and where it stands in the format's grammar.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reader {
    pub field: u16,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Place {
    #[default]
    Start,
    Bare,
    Quoted,
}

/// The smallest parts of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// A byte of a value, written as it is or behind an escape.
    Byte(u8),
    /// Where a quoted value begins or ends.
    Quote,
    Delimiter,
}

impl Reader {
    /// The unit that `bytes` begin with and how many they take. `None`: it takes more than are here. Empty is not asked for.
    pub fn next(&mut self, copy: &CopyPlan, bytes: &[u8], is_end: bool) -> Option<(Unit, usize)> {
        let (first, second) = (*bytes.first()?, bytes.get(1));
        let place = std::mem::replace(&mut self.place, Place::Bare);
        match place {
            Place::Quoted => {
                self.place = Place::Quoted;
                return self.quoted(copy, first, second.copied(), is_end);
            }
            Place::Start if copy.csv && first == copy.quote => {
                self.place = Place::Quoted;
                return Some((Unit::Quote, 1));
            }
            _ => {}
        }
        if first == copy.delimiter {
            *self = Self { field: self.field.saturating_add(1), place: Place::Start };
            return Some((Unit::Delimiter, 1));
        }
        match second {
            Some(second) if !copy.csv && first == b'\\' => Some((Unit::Byte(unescaped(*second)), 2)),
            None if !copy.csv && first == b'\\' && !is_end => self.waits(place),
            _ => Some((Unit::Byte(first), 1)),
        }
    }

    fn quoted(&mut self, copy: &CopyPlan, first: u8, second: Option<u8>, is_end: bool) -> Option<(Unit, usize)> {
        let is_special = |byte: u8| byte == copy.quote || byte == copy.escape;
        match second {
            None if is_special(first) && !is_end => return self.waits(Place::Quoted),
            Some(second) if first == copy.escape && is_special(second) => return Some((Unit::Byte(second), 2)),
            _ if first != copy.quote => return Some((Unit::Byte(first), 1)),
            _ => {}
        }
        self.place = Place::Bare;
        Some((Unit::Quote, 1))
    }

    fn waits(&mut self, place: Place) -> Option<(Unit, usize)> {
        self.place = place;
        None
    }
}

/// What the server writes behind a backslash, and what it means.
const ESCAPES: [(u8, u8); 6] = [(b'b', 8), (b't', 9), (b'n', 10), (b'v', 11), (b'f', 12), (b'r', 13)];

fn unescaped(letter: u8) -> u8 {
    ESCAPES.iter().find(|(l, _)| *l == letter).map_or(letter, |(_, byte)| *byte)
}

/// What stands behind the escape for a byte of a value, if it may not stand alone.
fn escaped(copy: &CopyPlan, byte: u8) -> Option<u8> {
    if copy.csv {
        return (byte == copy.quote || byte == copy.escape).then_some(byte);
    }
    let letter = ESCAPES.iter().find(|(_, b)| *b == byte).map(|(letter, _)| *letter);
    letter.or((byte == b'\\' || byte == copy.delimiter).then_some(byte))
}

/// What becomes of the fields of one row.
pub struct Fields<'a> {
    pub view: &'a MaskView,
    pub copy: &'a CopyPlan,
    /// It has the names of the columns.
    pub is_header: bool,
}

impl Fields<'_> {
    fn act(&self, index: usize) -> Act {
        if self.is_header { Act::Detect { json: false } } else { self.view.copied(self.copy, index) }
    }

    /// Writes the row as it may be seen; how many fields it has.
    pub fn write(&self, row: &[u8], out: &mut Vec<u8>) -> usize {
        let end = row.len() - usize::from(row.last() == Some(&b'\n'));
        let (mut from, mut count) = (0, 0);
        loop {
            let to = field_end(self.copy, &row[..end], from);
            self.write_field(self.act(count), &row[from..to], out);
            count += 1;
            if to >= end {
                break;
            }
            out.push(self.copy.delimiter);
            from = to + 1;
        }
        out.extend_from_slice(&row[end..]);
        count
    }

    fn write_field(&self, act: Act, field: &[u8], out: &mut Vec<u8>) {
        let copy = self.copy;
        let quoted = copy.csv && field.len() >= 2 && field.first() == Some(&copy.quote);
        if act == Act::Pass || field == &*copy.null && !self.is_header {
            return out.extend_from_slice(field);
        }
        let start = out.len();
        out.extend_from_slice(if quoted { std::slice::from_ref(&copy.quote) } else { &[] });
        let from = out.len();
        decode(copy, field, out);
        if self.view.cell(act, &mut out[from..]) {
            out.truncate(start);
            return out.extend_from_slice(&copy.null);
        }
        if !copy.csv || quoted {
            encode(copy, out, from);
        }
        out.extend_from_slice(if quoted { std::slice::from_ref(&copy.quote) } else { &[] });
    }
}

/// Whether detectors certainly find nothing in a row: none of its values is written otherwise than it is.
pub fn is_surely_clean(copy: &CopyPlan, kinds: detect::KindSet, row: &[u8]) -> bool {
    let escape = match copy.csv {
        true => memchr::memchr2(copy.quote, copy.escape, row),
        false => memchr::memchr(b'\\', row),
    };
    escape.is_none() && !detect::may_contain(row, kinds)
}

/// Where the field that begins at `from` ends: at a delimiter, or at the row's end.
fn field_end(copy: &CopyPlan, row: &[u8], from: usize) -> usize {
    let mut reader = Reader::default();
    let mut at = from;
    while let Some((unit, bytes)) = reader.next(copy, &row[at..], true) {
        if unit == Unit::Delimiter {
            return at;
        }
        at += bytes;
    }
    row.len()
}

/// Appends the value of a field.
fn decode(copy: &CopyPlan, field: &[u8], out: &mut Vec<u8>) {
    let escape = if copy.csv { copy.quote } else { b'\\' };
    if memchr::memchr(escape, field).is_none() {
        return out.extend_from_slice(field);
    }
    let mut reader = Reader::default();
    let mut at = 0;
    while let Some((unit, bytes)) = reader.next(copy, &field[at..], true) {
        if let Unit::Byte(byte) = unit {
            out.push(byte);
        }
        at += bytes;
    }
}

/// Writes the value at the end of `out` as the format has it, where it lies: from behind, as it only grows.
fn encode(copy: &CopyPlan, out: &mut Vec<u8>, from: usize) {
    let specials = out[from..].iter().filter(|byte| escaped(copy, **byte).is_some()).count();
    let mut read = out.len();
    out.resize(read + specials, 0);
    let mut write = out.len();
    while write > read {
        read -= 1;
        let byte = out[read];
        write -= 1;
        match escaped(copy, byte) {
            Some(letter) => {
                out[write] = letter;
                write -= 1;
                out[write] = if copy.csv { copy.escape } else { b'\\' };
            }
            None => out[write] = byte,
        }
    }
}
