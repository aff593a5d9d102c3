//! The tokens of a text, told from its bytes before the grammar's library sees it, so that what its tree will cost is known
//! before there is one.
//!
//! Strings, comments and quoted names end where the server's scanner ends them, with standard_conforming_strings on, as the
//! library has it (<https://www.postgresql.org/docs/18/sql-syntax-lexical.html>). Elsewhere a token of the server may be several
//! here, never the other way round. It is held against the server's own scanner by the tests.

/// What stands for itself in the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Word,
    /// Digits, with digits behind one point at most, and no letter behind them.
    Number,
    /// `'…'` without a prefix.
    String,
    /// `$1`.
    Parameter,
    Comma,
    Open,
    Close,
    /// `+` or `-`.
    Sign,
    /// `.`, `:`, `[` and the like.
    Mark,
    Semicolon,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub from: usize,
    pub to: usize,
}

#[derive(Clone)]
pub struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub fn of(text: &'a str) -> Self {
        Self { text: text.as_bytes(), at: 0 }
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    /// Blanks and comments; those with an end of their own too, or not.
    fn skip_blanks(&mut self, blocks: bool) {
        loop {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, _) => self.at += 1,
                (b'-', b'-') => {
                    let line = self.text[self.at..].iter().position(|b| matches!(b, b'\n' | b'\r'));
                    self.at = line.map_or(self.text.len(), |n| self.at + n);
                }
                (b'/', b'*') if blocks => self.at = self.comment_end(),
                _ => return,
            }
        }
    }

    /// Comments nest.
    fn comment_end(&self) -> usize {
        let (mut at, mut depth) = (self.at, 0);
        while at < self.text.len() {
            match (self.byte(at), self.byte(at + 1)) {
                (b'/', b'*') => (at, depth) = (at + 2, depth + 1),
                (b'*', b'/') => (at, depth) = (at + 2, depth - 1),
                _ => at += 1,
            }
            if depth == 0 {
                return at;
            }
        }
        at
    }

    /// Behind the closing quote of what opens at `from`. One that is doubled, or behind a backslash where that escapes, does
    /// not close it.
    fn quoted_end(&self, from: usize, escapes: bool) -> usize {
        let quote = self.byte(from);
        let mut at = from + 1;
        while at < self.text.len() {
            match (self.byte(at), self.byte(at + 1)) {
                (b'\\', _) if escapes => at += 2,
                (byte, next) if byte == quote && next == quote => at += 2,
                (byte, _) if byte == quote => return at + 1,
                _ => at += 1,
            }
        }
        self.text.len()
    }

    /// `$tag$ … $tag$`, or the parameter `$1`.
    fn dollar(&self, from: usize) -> (Kind, usize) {
        if let Some(end) = self.dollar_end(from) {
            return (Kind::Other, end);
        }
        let end = self.digits_end(from + 1);
        let is_parameter = end > from + 1 && !self.text.get(end).copied().is_some_and(is_of_word);
        (if is_parameter { Kind::Parameter } else { Kind::Other }, end)
    }

    /// Behind `$tag$ … $tag$`; `None` if no such string begins at `from`.
    fn dollar_end(&self, from: usize) -> Option<usize> {
        let tag = self.text[from + 1..].iter().take_while(|b| is_of_word(**b) && **b != b'$').count();
        let tag = self.text.get(from..=from + tag + 1)?;
        if tag.len() > 2 && tag[1].is_ascii_digit() || tag.last() != Some(&b'$') {
            return None;
        }
        let inside = from + tag.len();
        let end = memchr::memmem::find(&self.text[inside..], tag);
        Some(end.map_or(self.text.len(), |n| inside + n + tag.len()))
    }

    fn word_end(&self, from: usize) -> usize {
        self.text[from..].iter().position(|b| !is_of_word(*b)).map_or(self.text.len(), |n| from + n)
    }

    /// A string may follow a word at once: then the word says how the string is read.
    fn word(&self, from: usize) -> (Kind, usize) {
        let end = self.word_end(from);
        match (&self.text[from..end], self.byte(end)) {
            (b"e" | b"E", b'\'') => (Kind::Other, self.parts_end(|at| self.quoted_end(at, true), end)),
            // Of bits and hexadecimal digits: a quote that is doubled is the next string's.
            (b"b" | b"B" | b"x" | b"X", b'\'') => {
                let inside = |at: usize| memchr::memchr(b'\'', &self.text[at + 1..]);
                (Kind::Other, self.parts_end(|at| inside(at).map_or(self.text.len(), |n| at + n + 2), end))
            }
            _ => (Kind::Word, end),
        }
    }

    /// A string goes on, read as it began, where only blanks with a line's end among them are between two quotes.
    fn parts_end(&self, part_end: impl Fn(usize) -> usize, from: usize) -> usize {
        let mut end = part_end(from);
        loop {
            let mut rest = Self { text: self.text, at: end };
            rest.skip_blanks(false);
            let between = &self.text[end..rest.at];
            match rest.byte(rest.at) == b'\'' && between.iter().any(|b| matches!(b, b'\n' | b'\r')) {
                true => end = part_end(rest.at),
                false => return end,
            }
        }
    }

    fn digits_end(&self, from: usize) -> usize {
        self.text[from..].iter().take_while(|b| b.is_ascii_digit()).count() + from
    }

    fn number(&self, from: usize) -> (Kind, usize) {
        let mut end = self.digits_end(from);
        if self.byte(end) == b'.' && self.byte(end + 1).is_ascii_digit() {
            end = self.digits_end(end + 1);
        }
        match self.byte(end) {
            b'.' | b'$' => (Kind::Other, end),
            byte if is_of_word(byte) => (Kind::Other, self.word_end(end)),
            _ => (Kind::Number, end),
        }
    }
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks(true);
        let from = self.at;
        let byte = *self.text.get(from)?;
        let (kind, to) = match byte {
            b'0'..=b'9' => self.number(from),
            b'\'' => (Kind::String, self.quoted_end(from, false)),
            b'"' => (Kind::Word, self.quoted_end(from, false)),
            b'$' => self.dollar(from),
            b';' => (Kind::Semicolon, from + 1),
            b':' | b'[' => (Kind::Mark, from + 1),
            b'.' if self.byte(from + 1) == b'.' => (Kind::Mark, from + 2),
            b'.' => (Kind::Mark, self.digits_end(from + 1)),
            b',' => (Kind::Comma, from + 1),
            b'(' => (Kind::Open, from + 1),
            b')' | b']' => (Kind::Close, from + 1),
            b'-' | b'+' => (Kind::Sign, from + 1),
            _ if is_of_word(byte) => self.word(from),
            _ => (Kind::Other, from + 1),
        };
        self.at = to;
        Some(Token { kind, from, to })
    }
}

#[cfg(test)]
mod tests {
    use pg_query::protobuf;

    use super::*;

    /// Each token of the server but comments: where it begins and ends.
    fn of_the_server(text: &str) -> Option<Vec<(usize, usize, i32)>> {
        let comments = [protobuf::Token::SqlComment as i32, protobuf::Token::CComment as i32];
        let tokens = pg_query::scan(text).ok()?.tokens.into_iter().filter(|t| !comments.contains(&t.token));
        Some(tokens.map(|t| (t.start as usize, t.end as usize, t.token)).collect())
    }

    /// What must be as the server has it; the message says what is not.
    fn hold(text: &str) {
        let Some(server) = of_the_server(text) else { return };
        let ours: Vec<Token> = Tokens::of(text).collect();
        for (from, to, token) in &server {
            let within: Vec<&Token> = ours.iter().filter(|t| t.from < *to && t.to > *from).collect();
            assert!(!within.is_empty(), "{text:?}: a token at {from} is overlooked");
            let alone = within.len() == 1 && within[0].from == *from && within[0].to == *to;
            let kind = within[0].kind;
            if kind == Kind::String || kind == Kind::Number {
                let is_number = *token == protobuf::Token::Iconst as i32 || *token == protobuf::Token::Fconst as i32;
                let is_string = *token == protobuf::Token::Sconst as i32;
                // What has a prefix (`b'1'`), and a string on two lines, are one token there.
                let is_part = within.len() > 1 || within[0].from > *from;
                assert!(
                    is_part || alone && is_number == (kind == Kind::Number) && is_string == (kind == Kind::String),
                    "{text:?}: {from}..{to}"
                );
            }
        }
        for token in &ours {
            let holder = server.iter().filter(|(from, to, _)| token.from < *to && token.to > *from).count();
            assert_eq!(holder, 1, "{text:?}: {token:?} is not within one token of the server");
        }
    }

    #[test]
    fn tokens_are_parts_of_the_servers_tokens_in_every_text_of_the_corpora() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/corpus/");
        for file in ["queries.sql", "postgres/pg_dump15.sql", "postgres/drivers.sql"] {
            let text = std::fs::read_to_string(format!("{root}{file}")).expect("a corpus");
            text.split("--;").chain(text.lines()).for_each(hold);
        }
    }

    #[rustfmt::skip]
    const RISKY: &[&str] = &[
        "select", " ", "1", "'a'", "''", "'", "\"x\"", "\"", "E", "e'", "$1", "$$", "$a$", "--", "/*", "*/",
        "\n", ".", "2.5", "1e5", "0x1f", "_", "x", "U&", "b'1'", "::", "-", "+", ",", "(", ")", "\\",
        "ü", "1_000", ";", "'it''s'", "n'", "\\'", "/", "*", "@-", "x'f'", "u&\"", "$", "..", "1.", "\r", "\u{b}",
        "a$b$", "e'a'", "\n'b\\'c'",
    ];

    #[test]
    fn random_texts_of_risky_parts_never_hide_a_token() {
        let mut seed = 7u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize
        };
        for _ in 0..100_000 {
            let text: String = (0..random() % 9 + 1).map(|_| RISKY[random() % RISKY.len()]).collect();
            hold(&text);
        }
    }
}
