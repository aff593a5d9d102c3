//! The shape of a statement: its text with the literals left out, as a keyed hash.
//!
//! Two texts of one shape share a plan, if the analysis has proved that no literal matters to verdict or masks (decision 7).
//! This lexer reads only what it is sure of; on anything unusual (comments, dollar quotes, escape strings, non-ASCII bytes,
//! odd numbers) it gives up, and the exact text decides. It is held against the server's own scanner by the tests.
//! Source: <https://www.postgresql.org/docs/18/sql-syntax-lexical.html>, with standard_conforming_strings on, as we pin it.

use crate::protocol::postgres::dissector::{KeyedHasher, NameKey};

/// Stands for a number or a string; NUL cannot occur in a statement.
const NUMBER: &[u8] = b"\0n";
const STRING: &[u8] = b"\0s";

/// The hash of a text's shape under `subject`, and how many literals were left out. `None`: nothing is sure.
pub fn shape(key: NameKey, subject: u64, text: &[u8]) -> Option<(u128, usize)> {
    let mut hasher = key.hasher();
    // Its first byte keeps it apart from the hash of an exact text.
    hasher.write(b"\x01shape");
    hasher.write(&subject.to_le_bytes());
    let literals = walk(text, &mut hasher)?;
    Some((hasher.finish(), literals))
}

fn walk(text: &[u8], hasher: &mut KeyedHasher) -> Option<usize> {
    let mut literals = 0;
    let mut at = 0;
    // Everything from `kept` to `at` is part of the shape and not yet hashed.
    let mut kept = 0;
    while let Some(byte) = text.get(at) {
        let next = text.get(at + 1).copied().unwrap_or(b' ');
        let literal = match *byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                at = word_end(text, at)?;
                continue;
            }
            b'0'..=b'9' => Some((NUMBER, number_end(text, at)?)),
            b'\'' => Some((STRING, string_end(text, at)?)),
            b'"' => {
                at = quoted_end(text, at)?;
                continue;
            }
            b'$' if next.is_ascii_digit() => {
                at = parameter_end(text, at)?;
                continue;
            }
            b'-' if next == b'-' => return None,
            b'/' if next == b'*' => return None,
            b'.' if next.is_ascii_digit() => return None,
            b'$' | b'\\' | b'&' | 0 | 0x80.. => return None,
            _ => None,
        };
        let Some((mark, end)) = literal else {
            at += 1;
            continue;
        };
        hasher.write(&text[kept..at]);
        hasher.write(mark);
        literals += 1;
        at = end;
        kept = end;
    }
    hasher.write(&text[kept..]);
    Some(literals)
}

/// An identifier or keyword. A quote right behind it would make it a prefix (`E'…'`, `X'…'`).
fn word_end(text: &[u8], from: usize) -> Option<usize> {
    let end = text[from..].iter().position(|b| !matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    let end = end.map_or(text.len(), |n| from + n);
    match text.get(end) {
        Some(b'\'' | b'$' | 0x80..) => None,
        _ => Some(end),
    }
}

/// Digits, with digits behind one point at most. Whatever else a number may be (`1e5`, `0x1f`, `1_000`, `1.`) is not sure.
fn number_end(text: &[u8], from: usize) -> Option<usize> {
    let digits = |at: usize| text[at..].iter().position(|b| !b.is_ascii_digit()).map_or(text.len(), |n| at + n);
    let mut end = digits(from);
    if text.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == end + 1 {
            return None;
        }
        end = fraction;
    }
    match text.get(end) {
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.' | b'\'' | b'"' | b'$' | 0x80..) => None,
        _ => Some(end),
    }
}

/// `'…'` with doubled quotes inside. A backslash is an ordinary character in it, as long as the setting is on; be sure.
fn string_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        at += memchr::memchr3(b'\'', b'\\', 0, &text[at..])?;
        match (text[at], text.get(at + 1)) {
            (b'\'', Some(b'\'')) => at += 2,
            (b'\'', Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'"' | b'$' | 0x80..)) => return None,
            // Strings on two lines are one: not sure.
            (b'\'', _) if text[at + 1..].trim_ascii_start().first() == Some(&b'\'') => return None,
            (b'\'', _) => return Some(at + 1),
            _ => return None,
        }
    }
}

/// `"…"`, part of the shape.
fn quoted_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    loop {
        at += memchr::memchr2(b'"', 0, &text[at..])?;
        match (text[at], text.get(at + 1)) {
            (b'"', Some(b'"')) => at += 2,
            (b'"', _) => return Some(at + 1),
            _ => return None,
        }
    }
}

fn parameter_end(text: &[u8], from: usize) -> Option<usize> {
    let end = text[from + 1..].iter().position(|b| !b.is_ascii_digit()).map_or(text.len(), |n| from + 1 + n);
    match text.get(end) {
        Some(b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'\'' | 0x80..) => None,
        _ => Some(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_query::protobuf::Token;

    const KEY: NameKey = NameKey([3; 16]);

    fn corpus() -> impl Iterator<Item = &'static str> {
        let queries = include_str!("../../../tests/corpus/queries.sql").lines();
        let dump = include_str!("../../../tests/corpus/postgres/pg_dump15.sql").split("--;");
        let drivers = include_str!("../../../tests/corpus/postgres/drivers.sql").split("--;");
        queries.chain(dump).chain(drivers).map(str::trim).filter(|text| !text.is_empty())
    }

    fn literals_of_the_server(text: &str) -> usize {
        let Ok(scan) = pg_query::scan(text) else { return usize::MAX };
        let is_literal = |t: Token| matches!(t, Token::Iconst | Token::Fconst | Token::Sconst);
        scan.tokens.iter().filter(|t| is_literal(t.token())).count()
    }

    #[test]
    fn where_a_shape_is_given_the_servers_scanner_sees_the_same_literals() {
        let mut given = 0;
        for text in corpus() {
            if let Some((_, literals)) = shape(KEY, 1, text.as_bytes()) {
                given += 1;
                assert_eq!(literals, literals_of_the_server(text), "{text}");
            }
        }
        assert!(given > 50, "the lexer gives up on nearly everything: {given}");
    }

    #[test]
    fn random_texts_of_risky_tokens_never_fool_the_lexer() {
        let parts = [
            "select", " ", "1", "'a'", "''", "'", "\"x\"", "E", "e'", "$1", "$$", "--", "/*", "*/", "\n", ".", "2.5",
            "1e5", "0x1f", "_", "x", "U&", "b'1'", "::", "-", ",", "(", ")", "\\", "ü", "1_000", ";", "'it''s'", "n'",
        ];
        let mut seed = 7u64;
        for _ in 0..200_000 {
            let mut text = String::new();
            for _ in 0..seed % 9 + 1 {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push_str(parts[(seed >> 33) as usize % parts.len()]);
            }
            seed = seed.wrapping_add(1);
            if let Some((_, literals)) = shape(KEY, 1, text.as_bytes()) {
                let server = literals_of_the_server(&text);
                assert!(server == literals || server == usize::MAX, "{text:?}: {literals} and {server}");
            }
        }
    }

    #[test]
    fn only_literals_are_left_out() {
        let same = |a: &str, b: &str| shape(KEY, 1, a.as_bytes()).unwrap().0 == shape(KEY, 1, b.as_bytes()).unwrap().0;
        assert!(same("select a from t where b = 1", "select a from t where b = 2345.5"));
        assert!(same("select a from t where b = 'x'", "select a from t where b = 'it''s'"));
        assert!(!same("select a from t where b = 1", "select a from t where b = '1'"));
        assert!(!same("select a from t", "select a from t2"));
        assert!(!same("select $1", "select $2"));
        assert!(!same("select 1, 2", "select 1"));
        assert!(!same("select \"1\"", "select \"2\""));
        assert_ne!(shape(KEY, 1, b"select 1"), shape(KEY, 2, b"select 1"));
    }
}
