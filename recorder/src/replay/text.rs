//! Recorded bytes as text that is safe to print: an attacker chose them, and a terminal obeys control characters.

use std::fmt::Write;

/// Whether a character may reach a terminal: no control characters (C0, C1, DEL), no invisible or direction marks.
fn is_safe(character: char) -> bool {
    let hidden = matches!(character,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{61c}' | '\u{180e}' | '\u{e0000}'..='\u{e007f}');
    !character.is_control() && !hidden
}

/// Text with everything that is not safe written as an escape.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if is_safe(character) => out.push(character),
            _ => drop(write!(out, "\\u{{{:x}}}", character as u32)),
        }
    }
    out
}

/// Bytes as escaped text if they are UTF-8, else as hexadecimal with the prefix `\x`.
pub fn bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => escape(text),
        Err(_) => hex(bytes),
    }
}

/// Bytes as hexadecimal with PostgreSQL's prefix `\x`.
pub fn hex(bytes: &[u8]) -> String {
    format!("\\x{}", crate::chain::to_hex(bytes))
}

/// A PostgreSQL value in binary format: the common types as text, the others as hexadecimal.
/// (PostgreSQL 18, catalog `pg_type` for the OIDs, the types' `*_send` functions for the layouts.)
pub fn binary(oid: u32, value: &[u8]) -> String {
    let integer = || value.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    match (oid, value.len()) {
        (16, 1) => (value[0] != 0).to_string(),
        (18 | 19 | 25 | 114 | 705 | 1042 | 1043, _) => bytes(value),
        (3802, 1..) if value[0] == 1 => bytes(&value[1..]),
        (21, 2) => (integer() as i16).to_string(),
        (23, 4) => (integer() as i32).to_string(),
        (20, 8) => (integer() as i64).to_string(),
        (26, 4) => integer().to_string(),
        (700, 4) => f32::from_bits(integer() as u32).to_string(),
        (701, 8) => f64::from_bits(integer()).to_string(),
        (1082, 4) => date(i64::from(integer() as i32)),
        (1114 | 1184, 8) => timestamp(integer() as i64),
        (2950, 16) => uuid(value),
        _ => hex(value),
    }
}

fn uuid(value: &[u8]) -> String {
    let digits = crate::chain::to_hex(value);
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

/// Days since 2000-01-01, as PostgreSQL counts.
fn date(days_since_2000: i64) -> String {
    let (year, month, day) = civil(days_since_2000 + 10_957);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Microseconds since 2000-01-01.
fn timestamp(us_since_2000: i64) -> String {
    let (days, us) = (us_since_2000.div_euclid(86_400_000_000), us_since_2000.rem_euclid(86_400_000_000));
    let (seconds, us) = (us / 1_000_000, us % 1_000_000);
    format!("{} {:02}:{:02}:{:02}.{us:06}", date(days), seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Nanoseconds since 1970 as `2026-01-31 23:59:59Z`.
pub fn utc(unix_ns: u64) -> String {
    let seconds = (unix_ns / 1_000_000_000) as i64;
    let (year, month, day) = civil(seconds / 86_400);
    let rest = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant, `civil_from_days`).
fn civil(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        let rows = [
            ("plain ünïcode ✓", "plain ünïcode ✓"),
            ("a\x1b[31mred", "a\\u{1b}[31mred"),
            ("bell\x07 nul\0 del\x7f", "bell\\u{7} nul\\u{0} del\\u{7f}"),
            ("c1 \u{9b}31m", "c1 \\u{9b}31m"),
            ("osc \x1b]0;title\x07", "osc \\u{1b}]0;title\\u{7}"),
            ("two\nlines\r\t", "two\\nlines\\r\\t"),
            ("bidi \u{202e}evil", "bidi \\u{202e}evil"),
        ];
        for (raw, shown) in rows {
            assert_eq!(escape(raw), shown);
        }
        assert_eq!(bytes(b"\xff\x00"), "\\xff00");
    }

    #[test]
    fn binary_values_of_common_types_are_read() {
        let rows: [(u32, &[u8], &str); 12] = [
            (16, &[1], "true"),
            (21, &[0xff, 0xfe], "-2"),
            (23, &[0, 0, 1, 0], "256"),
            (20, &[0xff; 8], "-1"),
            (26, &[0xff; 4], "4294967295"),
            (701, &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0], "1.5"),
            (25, b"text\x1b", "text\\u{1b}"),
            (1082, &[0, 0, 0x25, 0x9d], "2026-05-13"),
            (1184, &[0, 0, 0, 0, 0, 0, 0, 1], "2000-01-01 00:00:00.000001"),
            (2950, &[0x11; 16], "11111111-1111-1111-1111-111111111111"),
            (17, &[1, 2], "\\x0102"),
            (23, &[1], "\\x01"),
        ];
        for (oid, value, shown) in rows {
            assert_eq!(binary(oid, value), shown, "oid {oid}");
        }
        assert_eq!(utc(1_709_210_096_000_000_000), "2024-02-29 12:34:56Z");
    }
}
