//! Values that stand in what the server says of errors and in its notices.

use super::mask::MaskView;
use crate::protocol::postgres::wire::fields;

/// Masks the fields of an ErrorResponse or NoticeResponse in place; the body's new length.
/// `protected`: the statement reads what is masked, so any value in the text may be one. Of such a text the same stays whatever
/// the value: as many stars as it has characters would tell it.
pub fn scrub(view: &MaskView, body: &mut [u8], protected: bool) -> usize {
    let (mut read, mut write) = (0, 0);
    while let Some((code, text)) = body.get(read..).and_then(|rest| fields(rest).next()) {
        let bytes = text.len();
        body.copy_within(read..=read + bytes, write);
        read += bytes + 2;
        let text = &mut body[write + 1..=write + bytes];
        let kept = match code {
            b'M' if protected => without_values(text),
            b'D' | b'W' | b'q' if protected => starred(text),
            _ => bytes,
        };
        if matches!(code, b'M' | b'D' | b'H' | b'W' | b'q' | b't' | b'c' | b'n') {
            view.scrub(&mut text[..kept]);
        }
        body[write + 1 + kept] = 0;
        write += kept + 2;
    }
    // The end of the list, or what is no field.
    let rest = body.len() - read.min(body.len());
    body.copy_within(read.min(body.len()).., write);
    write + rest
}

/// One star for a text, however long.
fn starred(text: &mut [u8]) -> usize {
    let kept = text.len().min(1);
    text[..kept].fill(b'*');
    kept
}

/// Takes out what the server puts into its own words: what stands between the outermost quotes, all words with a digit (`index 7
/// out of valid range`, `0x41`), all behind a colon. Where its words are not English, quotes are not told from words.
fn without_values(text: &mut [u8]) -> usize {
    if !text.is_ascii() {
        return starred(text);
    }
    let (first, last) = (memchr::memchr(b'"', text), memchr::memrchr(b'"', text));
    let quoted = first
        .zip(last)
        .map_or(text.len()..text.len(), |(first, last)| first + 1..if last > first { last } else { text.len() });
    let colon = memchr::memchr(b':', text).map_or(text.len(), |at| at + 1);
    let (mut write, mut word) = (0, 0);
    for read in 0..colon {
        let byte = text[read];
        if quoted.contains(&read) {
            continue;
        }
        match byte {
            b' ' => word = write + 1,
            _ if byte.is_ascii_digit() => {
                // The word shrinks to one star, which what follows of it joins.
                text[word] = b'*';
                write = word;
            }
            // Behind a digit the rest of the word is dropped.
            _ if write == word + 1 && text[word] == b'*' => continue,
            _ => {}
        }
        text[write] = if byte.is_ascii_digit() { b'*' } else { byte };
        write += 1;
    }
    write
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_stands_in_a_servers_message_however_it_is_worded_nor_its_length() {
        for (text, seen) in [
            ("invalid input syntax for type integer: \"ada\"", "invalid input syntax for type integer:"),
            ("requested character too large for encoding: 107171049", "requested character too large for encoding:"),
            ("index 107171049 out of valid range, 0..0", "index * out of valid range, *"),
            ("index 7 out of valid range, 0..10", "index * out of valid range, *"),
            (
                "setseed parameter 1.07e+08 is out of allowed range [-1,1]",
                "setseed parameter * is out of allowed range *",
            ),
            ("invalid byte sequence for encoding \"UTF8\": 0xf7 0x67", "invalid byte sequence for encoding \"\":"),
            ("duplicate JSON object key value: ada@example.com", "duplicate JSON object key value:"),
            ("column \"x y\" of relation \"z\" does not exist", "column \"\" does not exist"),
            ("ungültig: »ada«", "*"),
            ("unterminated \"ada", "unterminated \""),
            ("division by zero", "division by zero"),
            ("", ""),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            let kept = without_values(&mut bytes);
            assert_eq!(String::from_utf8_lossy(&bytes[..kept]), seen, "{text}");
        }
    }
}
