//! Payment card numbers (PAN): ISO/IEC 7812, 13 to 19 digits with a Luhn check digit.
//!
//! Bare, or in the usual groups with one and the same space or hyphen between them. The first digits must belong to
//! a network and the length must be one that it issues. That leaves 3.3 % of random 16-digit numbers (19 digits: 2.2,
//! 17 and 18: 1.3, 13: 1.0, 14 and 15: 0.4 to 0.6), which nothing in the number itself can tell from a card: exempt
//! such columns by name or type. UATP (1…, 15 digits) is
//! left out, because times in microseconds would match.
//!
//! Neighbours: no digit, no hex digit (`0x…`, hashes) and, for bare numbers, no fraction (`0.4111…`). Other letters
//! may touch it, so `\n4111…` and `PAN4111…` are found.

use super::{Kind, Match, charge};

const DIGITS_MIN: usize = 13;
const DIGITS_MAX: usize = 19;
const GROUPS_MAX: usize = 5;

/// Groups in use, longest number first.
const GROUPINGS: [Grouping; 12] = [
    Grouping::of(&[4, 4, 4, 4, 3]),
    Grouping::of(&[6, 13]),
    Grouping::of(&[4, 4, 4, 4, 2]),
    Grouping::of(&[4, 4, 4, 4, 1]),
    Grouping::of(&[4, 4, 4, 4]),
    Grouping::of(&[8, 8]),
    Grouping::of(&[4, 6, 5]),
    Grouping::of(&[4, 4, 4, 3]),
    Grouping::of(&[4, 6, 4]),
    Grouping::of(&[4, 4, 4, 2]),
    Grouping::of(&[4, 4, 4, 1]),
    Grouping::of(&[4, 3, 3, 3]),
];

/// Networks by their first digits, filled up to six: first, last, and the lengths that they issue.
/// Sources: the networks' published ranges, as collected in "Payment card number" (ISO/IEC 7812 registry is private).
const NETWORKS: [(u32, u32, std::ops::RangeInclusive<usize>); 27] = [
    (220_000, 220_499, 16..=19), // Mir
    (222_100, 272_099, 16..=16), // Mastercard
    (300_000, 305_999, 14..=19), // Diners Club
    (309_500, 309_599, 14..=19),
    (340_000, 349_999, 15..=15), // American Express
    (352_800, 358_999, 16..=19), // JCB
    (360_000, 369_999, 14..=19), // Diners Club
    (370_000, 379_999, 15..=15), // American Express
    (380_000, 399_999, 14..=19), // Diners Club
    (400_000, 499_999, 13..=13), // Visa, in three lengths
    (400_000, 499_999, 16..=16),
    (400_000, 499_999, 19..=19),
    (501_800, 503_899, 13..=19), // Maestro, Dankort
    (504_175, 504_175, 16..=16), // Elo
    (506_099, 506_198, 16..=19), // Verve
    (506_699, 509_999, 16..=19), // Elo, Verve, RuPay
    (510_000, 559_999, 16..=16), // Mastercard
    (560_000, 589_999, 16..=19), // Maestro
    (601_100, 601_199, 16..=19), // Discover
    (606_282, 608_999, 16..=16), // Hipercard, RuPay
    (620_000, 629_999, 16..=19), // UnionPay
    (630_400, 630_499, 13..=19), // Maestro
    (636_000, 639_099, 16..=19), // InterPayment, InstaPayment, Elo, Maestro
    (644_000, 659_999, 16..=19), // Discover, RuPay, Elo
    (675_900, 676_399, 13..=19), // Maestro
    (810_000, 829_999, 16..=19), // UnionPay, RuPay
    (979_200, 979_299, 16..=16), // Troy
];

/// The number whose first digit stands at `at`; the byte before is no digit.
pub(super) fn verify(text: &[u8], at: usize) -> Option<Match> {
    charge(DIGITS_MAX + GROUPS_MAX);
    // No network begins with 0, 1 or 7, and most numbers in tables are small or times.
    if matches!(text[at], b'0' | b'1' | b'7') || touches_on_the_left(text, at) {
        return None;
    }
    let number = Number::read(text, at);
    let bare = number.ends[0] - at >= DIGITS_MIN;
    let end = if bare { number.bare(text, at) } else { number.grouped(text) }?;
    Some(Match { start: at, end, kind: Kind::PaymentCard })
}

/// The first groups of digits from a position on.
struct Number {
    digits: [u8; DIGITS_MAX],
    /// How many digits each group has, four bits a group, the first lowest.
    counts: u32,
    ends: [usize; GROUPS_MAX],
    groups: usize,
}

/// Group sizes in the form of [`Number::counts`].
struct Grouping {
    counts: u32,
    groups: usize,
    digits: usize,
}

impl Grouping {
    const fn of(sizes: &[u32]) -> Grouping {
        let mut grouping = Grouping { counts: 0, groups: sizes.len(), digits: 0 };
        let mut i = 0;
        while i < sizes.len() {
            grouping.counts |= sizes[i] << (4 * i);
            grouping.digits += sizes[i] as usize;
            i += 1;
        }
        grouping
    }
}

impl Number {
    fn read(text: &[u8], at: usize) -> Number {
        let mut number = Number { digits: [0; DIGITS_MAX], counts: 0, ends: [at; GROUPS_MAX], groups: 0 };
        let (mut total, mut from) = (0, at);
        let mut separator = None;
        while number.groups < GROUPS_MAX {
            let Some(group) = number.read_group(&text[from..], total) else { break };
            total += group;
            from += group;
            number.counts |= (group.min(15) as u32) << (4 * number.groups);
            number.ends[number.groups] = from;
            number.groups += 1;
            let next = text.get(from).copied().filter(|b| matches!(b, b' ' | b'-'));
            if next.is_none() || separator.is_some_and(|s| Some(s) != next) {
                break;
            }
            separator = next;
            from += 1;
        }
        number
    }

    /// Copies the digits of a group behind those before it; `None` if there are none, or too many for a card.
    #[inline]
    fn read_group(&mut self, text: &[u8], total: usize) -> Option<usize> {
        let mut count = 0;
        for byte in text.iter().take_while(|b| b.is_ascii_digit()) {
            *self.digits.get_mut(total + count)? = *byte;
            count += 1;
        }
        (count > 0).then_some(count)
    }

    fn bare(&self, text: &[u8], at: usize) -> Option<usize> {
        let end = self.ends[0];
        let digit = |i: usize| text.get(i).is_some_and(u8::is_ascii_digit);
        let fraction = at >= 2 && text[at - 1] == b'.' && digit(at - 2);
        let decimal = text.get(end) == Some(&b'.') && digit(end + 1);
        let fits = !fraction && !decimal && !touches_on_the_right(text, end);
        (fits && is_card(&self.digits[..end - at])).then_some(end)
    }

    fn grouped(&self, text: &[u8]) -> Option<usize> {
        let fits = |grouping: &&Grouping| {
            self.groups >= grouping.groups
                && self.counts & ((1 << (4 * grouping.groups)) - 1) == grouping.counts
                && !touches_on_the_right(text, self.ends[grouping.groups - 1])
                && is_card(&self.digits[..grouping.digits])
        };
        GROUPINGS.iter().find(fits).map(|grouping| self.ends[grouping.groups - 1])
    }
}

/// A digit, or a letter that makes the whole a hexadecimal number.
fn touches_on_the_left(text: &[u8], at: usize) -> bool {
    at > 0 && (text[at - 1].is_ascii_hexdigit() || matches!(text[at - 1], b'x' | b'X'))
}

fn touches_on_the_right(text: &[u8], end: usize) -> bool {
    text.get(end).is_some_and(u8::is_ascii_hexdigit)
}

/// Network, length and check digit, of ASCII digits.
fn is_card(digits: &[u8]) -> bool {
    (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len()) && passes_luhn(digits) && is_issued(digits)
}

fn is_issued(digits: &[u8]) -> bool {
    let lead = digits[..6].iter().fold(0, |sum, b| sum * 10 + u32::from(b - b'0'));
    NETWORKS.iter().any(|(first, last, lengths)| (*first..=*last).contains(&lead) && lengths.contains(&digits.len()))
}

/// ISO/IEC 7812-1, annex B: from the right every second digit counts double, its digits added up.
fn passes_luhn(digits: &[u8]) -> bool {
    const DOUBLED: [u8; 10] = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9];
    let (mut sum, mut double) = (0, false);
    for byte in digits.iter().rev() {
        let digit = byte - b'0';
        sum += if double { DOUBLED[usize::from(digit)] } else { digit };
        double = !double;
    }
    sum % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, tests::assert_rows};
    use super::NETWORKS;

    #[test]
    fn the_networks_test_numbers_are_found_in_any_surroundings() {
        assert_rows(
            Kind::PaymentCard,
            &[
                "«4111111111111111»",
                "«4111 1111 1111 1111»",
                "«4111-1111-1111-1111»",
                "«41111111 11111111»",
                "«4222222222222»",
                "«4222 222 222 222»",
                "«5555555555554444»",
                "«2223003122003222»",
                "«378282246310005»",
                "«3782 822463 10005»",
                "«6011111111111117»",
                "«30569309025904»",
                "«3056 930902 5904»",
                "«3530111333300000»",
                "«6200000000000005»",
                "«6304000000000000»",
                "«2200000000000004»",
                "{\"pan\":\"«4111111111111111»\"}",
                "{\"pan\":«4111111111111111»}",
                "pan=«4111-1111-1111-1111»&cvv=123",
                "(«4111111111111111»),«5555555555554444»,x",
                "a\\n«4111111111111111»\\t«5555555555554444»",
                "PAN«4111111111111111»",
                "«4111 1111 1111 1111» 12/27 123",
                "«4111 1111 1111 1111» «5555 5555 5555 4444»",
                "1234 «4111 1111 1111 1111»",
                "é«4111111111111111»é",
                "card.«4111111111111111».",
            ],
        );
    }

    #[test]
    fn a_wrong_check_digit_network_length_grouping_or_neighbour_is_left() {
        assert_rows(
            Kind::PaymentCard,
            &[
                "4111111111111112",
                "1111111111111117",
                "9999999999999995",
                "41111111111111113",
                "411111111111",
                "41111111111111111111",
                "14111111111111111",
                "0.4111111111111111",
                "4111111111111111.5",
                "a4111111111111111",
                "4111111111111111f",
                "0x4111111111111111",
                "4111.1111.1111.1111",
                "4111 1111-1111 1111",
                "4111  1111 1111 1111",
                "411 1111 1111 11111",
                "4111 1111 1111 1112",
                "1732352871123456",
                "20261123090751",
                "",
            ],
        );
    }

    #[test]
    fn the_table_of_networks_is_ordered_and_within_the_lengths_of_iso_7812() {
        for pair in NETWORKS.windows(2) {
            assert!(pair[0].0 <= pair[1].0 && (pair[0].1 < pair[1].0 || pair[0].0 == pair[1].0), "{pair:?}");
        }
        assert!(NETWORKS.iter().all(|(first, last, lengths)| first <= last && *lengths.start() >= super::DIGITS_MIN));
    }
}
