//! The notation of the golden files: from text to bytes, and back.

use std::fmt::Write as _;

use crate::protocol::postgres::wire::{message, u32_at, untagged};

/// `Q "select 1\0" | S` as bytes.
pub fn parse(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, body) in messages(line) {
        match tag {
            '!' => bytes.extend(body),
            '-' => untagged(&mut bytes, |out| out.extend(body)),
            tag => message(&mut bytes, tag as u8, |out| out.extend(body)),
        }
    }
    bytes
}

fn messages(line: &str) -> Vec<(char, Vec<u8>)> {
    let mut found: Vec<(char, Vec<u8>)> = Vec::new();
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '|' => {}
            '"' => {
                let mut text = String::new();
                while let Some(c) = rest.next_if(|c| *c != '"') {
                    text.push(c);
                    text.extend((c == '\\').then(|| rest.next()).flatten());
                }
                rest.next();
                let times: String = match rest.next_if_eq(&'*') {
                    Some(_) => std::iter::from_fn(|| rest.next_if(char::is_ascii_digit)).collect(),
                    None => "1".to_owned(),
                };
                let body = &mut found.last_mut().unwrap_or_else(|| panic!("no tag before a body: {line}")).1;
                (0..times.parse().expect("a number")).for_each(|_| body.extend(unescape(&text)));
            }
            tag => found.push((tag, Vec::new())),
        }
    }
    found
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        let escaped = if b == b'\\' { rest.next() } else { None };
        bytes.push(match escaped {
            None => b,
            Some(b'0') => 0,
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'x') => {
                let digits = [rest.next(), rest.next()].map(|d| (d.expect("two digits") as char).to_digit(16));
                digits.into_iter().fold(0, |n, d| n << 4 | d.expect("hexadecimal") as u8)
            }
            Some(other) => other,
        });
    }
    bytes
}

/// Writes messages, a line each. Before the greeting is over there are some without a tag.
pub fn show(out: &mut String, title: &str, bytes: &[u8], greeting: bool) {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word = |from| u32_at(rest, from).map_or(usize::MAX, |n| n as usize);
        let (tag, head, length) = match rest[0] {
            b'N' if greeting => ('!', 0, 1),
            0 if greeting => ('-', 4, word(0)),
            tag => (tag as char, 5, word(1).saturating_add(1)),
        };
        let whole = (head..=rest.len()).contains(&length);
        let (tag, body) = if whole { (tag, &rest[head..length]) } else { ('!', rest) };
        at += if whole { length } else { rest.len() };
        let _ = writeln!(out, "{title} {tag}{}", quote(body));
    }
}

/// A body in the notation of the files; long runs of one byte are counted.
fn quote(body: &[u8]) -> String {
    let (mut out, mut open) = (String::new(), false);
    for run in body.chunk_by(|a, b| a == b) {
        let byte = match run[0] {
            0 => "\\0".to_owned(),
            byte => byte.escape_ascii().to_string(),
        };
        if run.len() >= 64 {
            out.push_str(if open { "\"" } else { "" });
            let _ = write!(out, " \"{byte}\"*{}", run.len());
            open = false;
            continue;
        }
        out.push_str(if open { "" } else { " \"" });
        out.push_str(&byte.repeat(run.len()));
        open = true;
    }
    out.push_str(if open { "\"" } else { "" });
    out
}
