//! Passwords in what a client sends: starred, byte for byte, in the copy that is recorded. What goes upstream is never changed.
//!
//! It reads the text by its tokens alone, as texts that nobody can parse are recorded too. In doubt it stars: literals behind a
//! word like `password`, all of a role's, user's, server's or subscription's definition, user and password of a URL, and whatever
//! stands in a literal behind such a word.

use super::wire::{HEAD_BYTES, backend, cstr_at, fields, frontend, u16_at, u32_at};

/// A word that has one of these in it stands before a secret.
const SECRET: [&[u8]; 7] = [b"passw", b"passfile", b"passphrase", b"secret", b"sslkey", b"pwd", b"scram-sha-256$"];

/// Objects whose definition is secret whole: CREATE or ALTER stands right before.
const DEFINED: [&[u8]; 6] = [b"role", b"user", b"group", b"server", b"subscription", b"foreign"];

/// Bodies in bodies that are read; deeper ones are starred.
const BODIES_MAX: usize = 8;

/// Whether [`run`] could find anything: no more than a look at every four bytes.
pub fn may_hold_secret(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|window| {
        let lower = |at: usize| window[at] | 0x20;
        matches!(lower(0), b'p' | b's' | b'a' | b'c' | b'd' | b':')
            && match &[lower(0), lower(1), lower(2), lower(3)] {
                b"pass" | b"secr" | b"sslk" | b"scra" | b"alte" | b"crea" | b"dbli" => true,
                [b'p', b'w', b'd', _] | [b':', b'/', b'/', _] => true,
                _ => false,
            }
    })
}

/// Stars the secrets of whole messages.
pub fn run(messages: &mut [u8]) {
    each(messages, |tag, body| match tag {
        frontend::QUERY => {
            // A NUL amid the text is the client's fault, and no end.
            let end = body.len() - usize::from(body.last() == Some(&0));
            text(&mut body[..end], 0);
        }
        frontend::PARSE => parse(body),
        frontend::BIND => parameters(body),
        frontend::FUNCTION_CALL => arguments(body),
        _ => {}
    });
}

fn parse(body: &mut [u8]) {
    let at = cstr_at(body, 0).map_or(0, |(_, at)| at);
    let end = memchr::memchr(0, &body[at..]).map_or(body.len(), |bytes| at + bytes);
    text(&mut body[at..end], 0);
    let types = u16_at(body, end + 1).map(usize::from);
    if types.is_none_or(|types| end + 3 + 4 * types != body.len()) {
        body[end..].fill(b'*');
    }
}

/// Stars what errors and notices among whole messages of the server may quote of a request that had a secret.
pub fn reports(messages: &mut [u8]) {
    each(messages, |tag, body| {
        if !is_report(tag) {
            return;
        }
        let mut at = 0;
        while let Some((code, said)) = body.get(at..).and_then(|rest| fields(rest).next()) {
            let (from, to) = (at + 1, at + 1 + said.len());
            at = to + 1;
            match code {
                b'M' => quoted(&mut body[from..to]),
                b'D' | b'H' | b'W' | b'q' => body[from..to].fill(b'*'),
                _ => {}
            }
        }
    });
}

/// An error or a notice.
pub fn is_report(tag: u8) -> bool {
    matches!(tag, backend::ERROR | backend::NOTICE)
}

/// From the first quote to the last.
fn quoted(said: &mut [u8]) {
    if let Some(first) = memchr::memchr(b'"', said) {
        let last = memchr::memrchr(b'"', said).filter(|last| *last > first).unwrap_or(said.len());
        said[first + 1..last].fill(b'*');
    }
}

fn each(mut messages: &mut [u8], mut look: impl FnMut(u8, &mut [u8])) {
    while let Some(length) = u32_at(messages, 1) {
        let bytes = (length as usize).saturating_add(1).clamp(HEAD_BYTES, messages.len());
        let (message, rest) = messages.split_at_mut(bytes);
        let (tag, body) = message.split_at_mut(HEAD_BYTES);
        look(tag[0], body);
        messages = rest;
    }
}

fn parameters(body: &mut [u8]) {
    let values = cstr_at(body, 0).and_then(|(_, at)| cstr_at(body, at)).map(|(_, at)| at);
    if values.and_then(|at| self::values(body, at)).is_none() {
        body.fill(b'*');
    }
}

fn arguments(body: &mut [u8]) {
    if values(body, 4).is_none() {
        body.fill(b'*');
    }
}

/// Format codes and values, as Bind and FunctionCall have them from `at` on. `None`: not so.
fn values(body: &mut [u8], at: usize) -> Option<()> {
    let mut at = at + 2 + 2 * usize::from(u16_at(body, at)?);
    let count = u16_at(body, at)?;
    at += 2;
    for _ in 0..count {
        let length = u32_at(body, at)? as i32;
        at += 4;
        let bytes = usize::try_from(length).unwrap_or(0);
        content(body.get_mut(at..at + bytes)?);
        at += bytes;
    }
    Some(())
}

/// What a literal or a parameter says: stars what is behind a word like `password`, and who is named in a URL. Whether there was
/// such a word.
fn content(value: &mut [u8]) -> bool {
    urls(value);
    match secret_word_end(value) {
        Some(end) => {
            value[end..].fill(b'*');
            true
        }
        None => false,
    }
}

/// Behind the first word of [`SECRET`], so that the record says what was starred.
fn secret_word_end(value: &[u8]) -> Option<usize> {
    let ends = SECRET.iter().filter_map(|word| {
        let at = value.windows(word.len()).position(|window| window.eq_ignore_ascii_case(word))?;
        Some(at + word.len())
    });
    let end = ends.min()?;
    Some(end + value[end..].iter().position(|byte| !is_of_word(*byte)).unwrap_or(value.len() - end))
}

/// `postgres://user:password@host`: all between the slashes and the last at sign before the path.
fn urls(value: &mut [u8]) {
    let mut from = 0;
    while let Some((start, end)) = url(value, from) {
        if let Some(people) = memchr::memrchr(b'@', &value[start..end]) {
            value[start..start + people].fill(b'*');
        }
        from = start;
    }
}

/// Where the part of the next URL that may name somebody begins and ends.
fn url(value: &[u8], from: usize) -> Option<(usize, usize)> {
    let start = from + memchr::memmem::find(&value[from..], b"://")? + 3;
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'\'' | b'"' | 0);
    let end = value[start..].iter().position(is_end).map_or(value.len(), |bytes| start + bytes);
    Some((start, end))
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// A text of SQL, as far as secrets go.
fn text(text: &mut [u8], depth: usize) {
    Reading { text, at: 0, depth, state: State::default() }.read();
}

/// What the tokens so far say of those to come, within a statement.
#[derive(Default)]
struct State {
    /// CREATE or ALTER was the last word.
    defines: bool,
    /// All literals are secret.
    all: bool,
    /// A word before a secret was the last.
    word: bool,
    /// And it is compared with, or given, a value.
    value: bool,
    before: Before,
}

/// What the last word says of a dollar-quoted text that comes next.
#[derive(Clone, Copy, Default, PartialEq)]
enum Before {
    #[default]
    Anything,
    Language,
    /// DO, AS, or the name of a language: it is a body of statements.
    Body,
}

struct Reading<'a> {
    text: &'a mut [u8],
    at: usize,
    depth: usize,
    state: State,
}

impl Reading<'_> {
    fn read(&mut self) {
        while let Some(byte) = self.text.get(self.at).copied() {
            let next = self.text.get(self.at + 1).copied().unwrap_or(0);
            match byte {
                b'-' if next == b'-' => self.comment(|rest| memchr::memchr2(b'\n', b'\r', rest)),
                b'/' if next == b'*' => self.block_comment(),
                b'\'' => self.literal(false),
                b'"' => self.identifier(),
                b'$' => self.dollar(),
                _ if is_of_word(byte) => self.word(),
                _ => self.symbol(byte),
            }
        }
    }

    fn symbol(&mut self, byte: u8) {
        self.at += 1;
        if !byte.is_ascii_whitespace() {
            self.state.before = Before::Anything;
        }
        match byte {
            b';' => self.state = State::default(),
            b'=' | b':' | b'>' | b'<' | b'!' | b'~' => self.state.value |= self.state.word,
            b',' | b')' => (self.state.word, self.state.value) = (false, false),
            b'(' | b'.' | b'|' => {}
            _ if byte.is_ascii_whitespace() => {}
            _ => self.state.word = self.state.value,
        }
    }

    fn word(&mut self) {
        let start = self.at;
        let rest = &self.text[start..];
        let bytes = rest.iter().position(|b| !is_of_word(*b) && *b != b'$').unwrap_or(rest.len());
        self.at += bytes;
        let word = &self.text[start..self.at];
        let is = |other: &[u8]| word.eq_ignore_ascii_case(other);
        // `E'…'`: the only prefix that changes where the literal ends.
        if is(b"e") && self.text.get(self.at) == Some(&b'\'') {
            return self.literal(true);
        }
        if is(b"u") && matches!(self.text[self.at..], [b'&', b'\'' | b'"', ..]) {
            self.at += 1;
            return;
        }
        let names_connection = word.len() >= 14 && is_connect(&word[..14]);
        let is_defined = self.state.defines && DEFINED.iter().any(|object| is(object));
        let gives = [&b"to"[..], b"in", b"like", b"ilike"].iter().any(|other| is(other));
        let is_secret = secret_word_end(word).is_some();
        let state = &mut self.state;
        state.all |= names_connection || is_defined;
        state.defines = is(b"create") || is(b"alter");
        state.before = match state.before {
            _ if is(b"do") || is(b"as") => Before::Body,
            _ if is(b"language") => Before::Language,
            Before::Language => Before::Body,
            _ => Before::Anything,
        };
        state.value = !is_secret && (state.value || gives && state.word);
        state.word = is_secret || state.value;
    }

    /// `'…'`, from its first quote on; where `escapes`, a backslash takes the next byte with it.
    fn literal(&mut self, escapes: bool) {
        let start = self.at + 1;
        let mut at = start;
        while let Some(byte) = self.text.get(at) {
            match byte {
                b'\'' if self.text.get(at + 1) != Some(&b'\'') => break,
                b'\'' => at += 1,
                b'\\' if escapes => at += 1,
                _ => {}
            }
            at += 1;
        }
        let end = at.min(self.text.len());
        self.at = (end + 1).min(self.text.len());
        // What is behind escapes cannot be told.
        let has_escapes = escapes || self.is_unicode(start);
        self.star(start, end, has_escapes && memchr::memchr(b'\\', &self.text[start..end]).is_some());
    }

    /// `U&'…'` or `U&"…"`, which begins at `start`.
    fn is_unicode(&self, start: usize) -> bool {
        start >= 3 && self.text[start - 3..start - 1].eq_ignore_ascii_case(b"u&")
    }

    fn star(&mut self, start: usize, end: usize, is_hidden: bool) {
        let value = &mut self.text[start..end];
        if self.state.all || self.state.word || is_hidden {
            value.fill(b'*');
        } else if content(value) {
            // `format('… PASSWORD %L', 'x')`
            self.state.all = true;
        }
        // What goes on behind a literal is its second half, if anything.
        self.state.value = false;
    }

    fn identifier(&mut self) {
        let start = self.at + 1;
        let end = memchr::memchr(b'"', &self.text[start..]).map_or(self.text.len(), |bytes| start + bytes);
        self.at = (end + 1).min(self.text.len());
        // `U&"p\0061ssword"` may be any word.
        let is_hidden = self.is_unicode(start) && memchr::memchr(b'\\', &self.text[start..end]).is_some();
        self.state.word = is_hidden || secret_word_end(&self.text[start..end]).is_some();
        self.state.value = false;
        self.state.defines = false;
    }

    /// `$tag$ … $tag$`, or a parameter.
    fn dollar(&mut self) {
        let rest = &self.text[self.at + 1..];
        let tag = rest.iter().position(|b| !is_of_word(*b)).filter(|bytes| rest[*bytes] == b'$');
        let Some(tag) = tag.filter(|_| !rest[0].is_ascii_digit()) else {
            self.at += 1;
            return;
        };
        let start = self.at + tag + 2;
        let (before, behind) = self.text.split_at(start);
        let end = memchr::memmem::find(behind, &before[self.at..]).map_or(self.text.len(), |bytes| start + bytes);
        self.at = (end + tag + 2).min(self.text.len());
        let is_body = self.state.before == Before::Body && !self.state.all && !self.state.word;
        match is_body && self.depth < BODIES_MAX {
            true => text(&mut self.text[start..end], self.depth + 1),
            false => self.star(start, end, is_body),
        }
    }

    fn comment(&mut self, find_end: impl Fn(&[u8]) -> Option<usize>) {
        let start = self.at + 2;
        let end = find_end(&self.text[start..]).map_or(self.text.len(), |bytes| start + bytes);
        content(&mut self.text[start..end]);
        self.at = end;
    }

    /// Comments nest.
    fn block_comment(&mut self) {
        self.comment(|rest| {
            let (mut depth, mut at) = (1, 0);
            while depth > 0 {
                at += memchr::memchr2(b'/', b'*', &rest[at..])?;
                match (rest[at], rest.get(at + 1)) {
                    (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
                    (b'*', Some(b'/')) => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
            }
            Some(at - 2)
        });
        // The end mark is no symbol.
        self.at = (self.at + 2).min(self.text.len());
    }
}

/// A message that is recorded in pieces as it comes: nobody has it whole, so from the first mark of a secret on all is starred.
#[derive(Debug, Default)]
pub struct Pieces {
    tag: u8,
    is_starred: bool,
    /// The last bytes before the piece: a mark may stand across.
    tail: [u8; TAIL_BYTES],
}

/// Enough for all marks but their last byte.
const TAIL_BYTES: usize = 16;

impl Pieces {
    pub fn is_starred(&self) -> bool {
        self.is_starred
    }

    /// From where on the next piece is starred in the record; its length if nowhere.
    pub fn starred_from(&mut self, piece: &[u8], is_first: bool) -> usize {
        if is_first {
            *self = Self { tag: piece.first().copied().unwrap_or(0), ..Self::default() };
        }
        let may_hold = matches!(self.tag, frontend::QUERY | frontend::PARSE | frontend::BIND | frontend::FUNCTION_CALL);
        if !may_hold || self.is_starred {
            return if self.is_starred { 0 } else { piece.len() };
        }
        let mut joined = [0; 2 * TAIL_BYTES];
        let head = &piece[..piece.len().min(TAIL_BYTES)];
        joined[..TAIL_BYTES].copy_from_slice(&self.tail);
        joined[TAIL_BYTES..TAIL_BYTES + head.len()].copy_from_slice(head);
        let across = mark(&joined[..TAIL_BYTES + head.len()]).map(|at| at.saturating_sub(TAIL_BYTES));
        let found = across.into_iter().chain(mark(piece)).min();
        self.is_starred = found.is_some();
        let last = &joined[head.len()..head.len() + TAIL_BYTES];
        let last = piece.last_chunk().copied().or_else(|| last.try_into().ok());
        self.tail = last.unwrap_or_default();
        // The head of a message says how long it is.
        found.map_or(piece.len(), |at| if is_first { at.max(HEAD_BYTES) } else { at }.min(piece.len()))
    }
}

/// Where the first word of [`SECRET`] ends, or a URL that may name somebody, or a connection by function, begins.
fn mark(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    let mut people = None;
    while let Some((start, end)) = url(bytes, from).filter(|_| people.is_none()) {
        people = (end == bytes.len() || memchr::memchr(b'@', &bytes[start..end]).is_some()).then_some(start);
        from = start;
    }
    let connects = bytes.windows(14).position(is_connect).map(|at| at + 14);
    secret_word_end(bytes).into_iter().chain(people).chain(connects).min()
}

fn is_connect(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"dblink_connect")
}

#[cfg(test)]
mod tests;
