//! Texts in other encodings than UTF-8, as long as no byte of a character outside ASCII looks like ASCII
//! ([`crate::judge::is_ascii_safe`]): such a text has the same words in each of them, and is judged without knowing in which one it
//! is. Each byte outside ASCII becomes a letter that nobody uses. A text is analysed with two sets of such letters: if the
//! outcome is the same, nothing that is judged hangs on them. If not (a table's name has them, or a setting's value), what
//! they stand for is not known, and the text is refused.

use std::borrow::Cow;
use std::panic::catch_unwind;

use pg_query::protobuf::Token;

use super::super::{AnalyseError, Analysis};

/// The longest word outside constants that may hold a letter, bytes: what the server reads is not longer, and it cuts none.
const NAME_BYTES_MAX: usize = 63;

/// The UTF-8 of the letter of a byte outside ASCII: from U+10FE80 on, in the second private plane.
fn letter(byte: u8) -> [u8; 4] {
    [0xF4, 0x8F, 0xB8 + (byte >> 6), 0x80 | byte & 0x3F]
}

fn begins_with_letter(text: &[u8]) -> bool {
    matches!(text, [0xF4, 0x8F, 0xBA | 0xBB, 0x80..=0xBF, ..])
}

/// The same text with letters of the second set: from U+10FF00 on.
fn with_other_letters(text: &str) -> String {
    let other = |c: char| match c {
        '\u{10FE80}'..='\u{10FEFF}' => char::from_u32(u32::from(c) + 0x80).unwrap_or(c),
        _ => c,
    };
    text.chars().map(other).collect()
}

/// The text as it is judged. One that has been made so already stays as it is.
pub fn letters(text: &[u8]) -> Cow<'_, [u8]> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut judged = Vec::with_capacity(2 * text.len());
    let mut rest = text;
    while let Some(byte) = rest.first() {
        let taken = if begins_with_letter(rest) { 4 } else { 1 };
        match (taken, byte.is_ascii()) {
            (1, false) => judged.extend_from_slice(&letter(*byte)),
            _ => judged.extend_from_slice(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    Cow::Owned(judged)
}

/// Refuses what hangs on such letters. `analyse` has given `analysis` for the text.
pub(super) fn guarded(
    text: &str,
    analysis: Result<Analysis, AnalyseError>,
    analyse: impl Fn(&str) -> Result<Analysis, AnalyseError>,
) -> Result<Analysis, AnalyseError> {
    const UNKNOWN: AnalyseError = AnalyseError::Encoding(
        "letters outside ASCII stand where they may change what the statement does, as in a table's name or a setting's \
         value; set client_encoding to UTF8 for it",
    );
    if !(0..text.len()).any(|at| begins_with_letter(&text.as_bytes()[at..])) {
        return analysis;
    }
    let analysis = analysis?;
    match !has_long_name(text) && analyse(&with_other_letters(text)).as_ref() == Ok(&analysis) {
        true => Ok(analysis),
        false => Err(UNKNOWN),
    }
}

/// Some word beside constants and comments holds such letters and may be too long for a name, as the server's own scanner
/// divides the text.
fn has_long_name(text: &str) -> bool {
    let Ok(Ok(scanned)) = catch_unwind(|| pg_query::scan(text)) else { return true };
    let is_long = |from: i32, to: i32| {
        let word = text.as_bytes().get(from as usize..to as usize);
        word.is_none_or(|word| !word.is_ascii() && word.len() > NAME_BYTES_MAX)
    };
    let is_quoted = |token| matches!(token, Token::Sconst | Token::Usconst | Token::CComment | Token::SqlComment);
    scanned.tokens.iter().any(|token| !is_quoted(token.token()) && is_long(token.start, token.end))
}

#[cfg(test)]
mod tests {
    use super::super::analyse_bytes;
    use super::super::server::Server;
    use super::*;
    use crate::statement::Budget;

    #[test]
    fn a_text_in_a_foreign_encoding_is_judged_where_nothing_hangs_on_its_letters() {
        for (text, judged) in [
            (&b"select 1"[..], true),
            (b"select 'M\xfcller'", true),
            (b"select * from t where name = 'M\xfcller' -- M\xfcller", true),
            (b"select /* \xa4\xa2 */ E'\xa4\xa2\\n', $x$\xa4\xa2$x$", true),
            (b"insert into t values ('\x80\xff')", true),
            (b"select 1 as \"gr\xf6\xdfe\"", true),
            (b"comment on table t is '\xe4'", true),
            (b"declare c cursor for select * from t where name = '\xe4'", true),
            (b"with \xe4 as (select 1) select * from \xe4", true),
            (b"with \xe4 as (select 1) select * from \xf6", false),
            (b"select * from k\xfcche", false),
            (b"select gr\xf6\xdfe from t", false),
            (b"select U&\"\\00fc\", 'x' as \xe4", true),
            (b"select f\xe4(1)", false),
            (b"select set_config('app.x', '\xe4', false)", false),
            (b"set search_path = '\xe4'", false),
            (b"select '\xe4' from t; drop table \"\xe4\"", false),
            (b"copy t to stdout (null '\xe4')", false),
            (
                b"with aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xe4\xe4\xe4 as (select 1) select 1",
                false,
            ),
            (b"select 'M\xfcller", false),
        ] {
            let shown = String::from_utf8_lossy(text);
            assert_eq!(analyse_bytes(&letters(text), Server::NEWEST, Budget::ANALYSER).is_ok(), judged, "{shown}");
            let twice = letters(text).into_owned();
            assert_eq!(letters(&twice), twice, "{shown} judged once more");
        }
    }

    #[test]
    fn each_byte_outside_ascii_is_one_letter() {
        let text: Vec<u8> = (0..=255).collect();
        let judged = String::from_utf8(letters(&text).into_owned()).expect("UTF-8");
        assert_eq!(judged.chars().count(), 256);
        assert_eq!(&judged.as_bytes()[..128], &text[..128]);
        assert!(judged.chars().skip(128).zip(0x10_FE80..).all(|(letter, wanted)| letter as u32 == wanted));
    }

    #[test]
    fn a_text_in_utf8_is_judged_by_its_names() {
        for text in ["select * from küche", "select 'Müller' as größe", "comment on table t is 'ä'"] {
            assert!(analyse_bytes(text.as_bytes(), Server::NEWEST, Budget::ANALYSER).is_ok(), "{text}");
        }
    }
}
