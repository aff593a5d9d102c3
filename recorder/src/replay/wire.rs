//! Messages of the PostgreSQL protocol out of records, and their fields.

use std::collections::HashMap;

use super::event::Event;
use super::text;

/// Longest message that is decoded whole, in bytes. Of a longer one the beginning is.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of that beginning.
const BEGINNING_BYTES: usize = 4096;

/// Most bytes that are shown of what makes no sense.
const SENSELESS_BYTES_SHOWN_MAX: usize = 1024;

/// One message of the protocol.
pub enum Message {
    Whole {
        kind: u8,
        body: Vec<u8>,
    },
    /// The beginning of a message that has `bytes` in all.
    TooLong {
        kind: u8,
        beginning: Vec<u8>,
        bytes: usize,
    },
    /// A length below four: where the next message begins is not known.
    Impossible {
        bytes: Vec<u8>,
    },
}

impl Message {
    pub fn describe(&self) -> String {
        match self {
            Message::Whole { kind, body } => {
                format!("message {:?} cannot be read: {}", char::from(*kind), beginning(body))
            }
            Message::TooLong { kind, bytes, .. } => format!("message {:?} of {bytes} bytes", char::from(*kind)),
            Message::Impossible { bytes } => format!("a message of an impossible length: {}", beginning(bytes)),
        }
    }
}

/// What is shown of bytes that make no sense.
pub fn beginning(bytes: &[u8]) -> String {
    text::bytes(&bytes[..bytes.len().min(SENSELESS_BYTES_SHOWN_MAX)])
}

/// Puts messages together from records.
#[derive(Default)]
pub struct Frames {
    held: Vec<u8>,
    /// Bytes of a message that is too long, still to come.
    skip: usize,
}

impl Frames {
    /// Adds a record's bytes; gives the number of bytes that were waiting for an end which did not come.
    pub fn push(&mut self, begins: bool, bytes: &[u8], messages: &mut Vec<Message>) -> Option<usize> {
        let lost = Some(self.held.len()).filter(|held| begins && *held > 0);
        if begins {
            self.held.clear();
            self.skip = 0;
        }
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.held.extend_from_slice(&bytes[skipped..]);
        let mut used = 0;
        while let Some(bytes) = self.take_message(used, messages) {
            used += bytes;
        }
        self.held.drain(..used.min(self.held.len()));
        lost
    }

    /// What came of a message whose end did not.
    pub fn unfinished(&self) -> &[u8] {
        &self.held
    }

    /// Decodes the message at `at`; gives its size if it is whole or too long.
    fn take_message(&mut self, at: usize, messages: &mut Vec<Message>) -> Option<usize> {
        let held = self.held.get(at..)?;
        let (kind, rest) = held.split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        if length < 4 {
            messages.push(Message::Impossible { bytes: held.to_vec() });
            return Some(held.len());
        }
        let total = 1 + length;
        if total > MESSAGE_BYTES_MAX {
            let beginning = held.get(5..BEGINNING_BYTES)?.to_vec();
            messages.push(Message::TooLong { kind: *kind, beginning, bytes: total });
            self.skip = total.saturating_sub(held.len());
            return Some(total.min(held.len()));
        }
        let body = held.get(5..total)?;
        messages.push(Message::Whole { kind: *kind, body: body.to_vec() });
        Some(total)
    }
}

/// A message's fields, one after the other; `None` when they run out.
pub struct Body<'b>(pub &'b [u8]);

impl<'b> Body<'b> {
    pub fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn count(&mut self) -> Option<usize> {
        self.u16().map(usize::from)
    }

    /// A zero-terminated string; what is not UTF-8 is replaced.
    pub fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let bytes = self.take(end)?;
        self.take(1)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    pub fn formats(&mut self) -> Option<Vec<i16>> {
        let count = self.count()?;
        (0..count).map(|_| self.u16().map(|format| format as i16)).collect()
    }

    /// A value with its length; the inner `None` is NULL.
    pub fn value(&mut self) -> Option<Option<&'b [u8]>> {
        match self.u32()? {
            u32::MAX => Some(None),
            length => self.take(length as usize).map(Some),
        }
    }

    pub fn message(&mut self, is_error: bool) -> Option<Event> {
        let mut fields = HashMap::new();
        loop {
            match self.u8()? {
                0 => break,
                field => fields.insert(field, self.text()?),
            };
        }
        let mut field = |name: u8| fields.remove(&name).unwrap_or_default();
        Some(Event::Message { is_error, severity: field(b'S'), code: field(b'C'), message: field(b'M') })
    }
}
