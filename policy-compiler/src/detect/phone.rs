//! International telephone numbers: ITU-T E.164, `+` and 8 to 15 digits that begin with an assigned country code.
//!
//! Between groups of digits stand one or two of space, hyphen, dot, slash and parentheses. A dot separates only where
//! the first group is the country code alone (`+44.2079460958`, RFC 5733), so `+491234567.25` is a signed number.
//! Countries 1 and 7 have exactly eleven digits. Groups are taken as long as 15 digits allow, so digits that follow
//! after a space may be covered as well. A digit before the `+` means arithmetic or a time zone. Numbers without `+`
//! are not covered: every order number looks like one.

use super::{Kind, Match, charge};

const DIGITS_MIN: usize = 8;
const DIGITS_MAX: usize = 15;

/// Assigned codes of three digits (ITU-T E.164 list of assigned country codes): first and last of each range.
const CODES_OF_THREE: [(u16, u16); 25] = [
    (211, 213),
    (216, 216),
    (218, 218),
    (220, 269),
    (290, 291),
    (297, 299),
    (350, 359),
    (370, 383),
    (385, 387),
    (389, 389),
    (420, 421),
    (423, 423),
    (500, 509),
    (590, 599),
    (670, 670),
    (672, 683),
    (685, 692),
    (800, 800),
    (808, 808),
    (850, 856),
    (870, 888),
    (960, 968),
    (970, 979),
    (992, 996),
    (998, 998),
];

/// The number whose `+` stands at `at`.
pub(super) fn verify(text: &[u8], at: usize) -> Option<Match> {
    if at > 0 && text[at - 1].is_ascii_digit() {
        return None;
    }
    let number = Number::read(text, at);
    charge(number.stopped - at);
    let code_digits = country_code_digits(number.lead)?;
    let counts = if code_digits == 1 { 11..=11 } else { DIGITS_MIN..=DIGITS_MAX };
    let dots_separate = usize::from(number.ends[0].0) == code_digits;
    let groups = if dots_separate { number.groups } else { number.groups_before_dot };
    let (_, width) = number.ends[..groups].iter().rfind(|(count, _)| counts.contains(&usize::from(*count)))?;
    let end = at + usize::from(*width);
    let fraction = text.get(end) == Some(&b'.') && text.get(end + 1).is_some_and(u8::is_ascii_digit);
    (dots_separate || !fraction).then_some(Match { start: at, end, kind: Kind::Phone })
}

#[derive(Default)]
struct Number {
    /// The first three digits.
    lead: u16,
    /// Digits up to and including each whole group, and how far from the `+` it ends.
    ends: [(u8, u8); DIGITS_MAX],
    groups: usize,
    groups_before_dot: usize,
    /// First byte that was not taken.
    stopped: usize,
}

impl Number {
    /// Reads groups until something else, or a sixteenth digit, comes.
    fn read(text: &[u8], plus: usize) -> Number {
        let from = plus + 1;
        let mut number = Number { stopped: from + usize::from(text.get(from) == Some(&b'(')), ..Number::default() };
        let (mut count, mut dot_seen) = (0, false);
        loop {
            let group = number.read_group(text, count);
            count += group;
            if group == 0 || count > DIGITS_MAX {
                return number;
            }
            number.ends[number.groups] = (count as u8, (number.stopped - plus) as u8);
            number.groups += 1;
            number.groups_before_dot += usize::from(!dot_seen);
            let separator = separator(&text[number.stopped..]);
            dot_seen |= separator.contains(&b'.');
            number.stopped += separator.len();
            if separator.is_empty() {
                return number;
            }
        }
    }

    /// Takes the digits of one group, at most one more than a number may have; how many there were.
    fn read_group(&mut self, text: &[u8], before: usize) -> usize {
        let room = DIGITS_MAX + 1 - before;
        let digits = text[self.stopped..].iter().take(room).take_while(|b| b.is_ascii_digit());
        let mut count = 0;
        for digit in digits {
            if before + count < 3 {
                self.lead = self.lead * 10 + u16::from(digit - b'0');
            }
            count += 1;
        }
        self.stopped += count;
        count
    }
}

/// One or two separators before a digit; empty if there are none or more.
fn separator(rest: &[u8]) -> &[u8] {
    let separates = |i: usize| rest.get(i).is_some_and(|b| b" -./()".contains(b));
    let length = (0..2).take_while(|i| separates(*i)).count();
    if rest.get(length).is_some_and(u8::is_ascii_digit) { &rest[..length] } else { &[] }
}

/// How many digits the country code has, by the first three digits of the number.
fn country_code_digits(lead: u16) -> Option<usize> {
    let of_three = || CODES_OF_THREE.iter().any(|(first, last)| (*first..=*last).contains(&lead)).then_some(3);
    match lead / 10 {
        10..=19 | 70..=79 => Some(1),
        20 | 27 | 30..=34 | 36 | 39..=41 | 43..=49 | 51..=58 | 60..=66 | 81 | 82 | 84 | 86 | 90..=95 | 98 => Some(2),
        _ => of_three(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, tests::assert_rows};

    #[test]
    fn a_number_with_country_code_is_found_however_it_is_grouped() {
        assert_rows(
            Kind::Phone,
            &[
                "«+14155552671»",
                "«+1 415 555 2671»",
                "«+1 (415) 555-2671»",
                "«+1-415-555-2671»",
                "«+1.415.555.2671» ext. 5",
                "«+442079460958»",
                "«+44 20 7946 0958»",
                "«+44 (0)20 7946 0958»",
                "«+44.2079460958»",
                "«+49 30/901820»",
                "«+(49) 30 901820»",
                "«+7 495 123-45-67»",
                "«+35312345678»",
                "«+4981234567»",
                "«+862012345678»",
                "«+998901234567»",
                "{\"tel\":\"«+14155552671»\"}",
                "tel:«+442079460958»,«+14155552671»",
                "phone=«+442079460958»;x",
                "(«+442079460958»)",
                "x\\n«+442079460958»\\n",
                "«+442079460958».",
                "«+1 415 555 2671» 2026",
                "++«+442079460958»",
                "«+49 30 1234567 2026»-11-23",
            ],
        );
    }

    #[test]
    fn arithmetic_zones_and_unassigned_codes_are_left() {
        assert_rows(
            Kind::Phone,
            &[
                "12+34567890",
                "2026-11-23 09:07:51+0100",
                "+01:00",
                "+0530",
                "1e+10",
                "+1234567",
                "+3.14159265358",
                "+491234567.25",
                "+9991234567890",
                "+2101234567",
                "+0012345678",
                "+1234567890123456",
                "+4930123456789012",
                "+141555526711",
                "+1 415 555 267",
                "a + 12345678901",
                "+",
                "+(",
                "+ 14155552671",
                "14155552671",
                "+49-abc",
            ],
        );
    }
}
