//! International bank account numbers: ISO 13616, the SWIFT registry's structures, ISO 7064 MOD 97-10.
//!
//! Upper, lower or mixed case; compact, or in groups of four with single spaces. The length is exact for the country
//! and every place holds what the registry says (digit, letter, either), which with the checksum leaves about one
//! random string of hex digits in 10^8. So text may touch the number on the left (`IBANDE89…`, `\nDE89…`); on the
//! right no letter or digit may follow, because the end is known.

use super::{Kind, Match, charge};

/// Country and structure of what follows the two check digits: runs of n digits, a letters, c either.
/// SWIFT IBAN registry; Honduras and Yemen from release 99 on.
#[rustfmt::skip]
const COUNTRIES: [(&str, &str); 89] = [
    ("AD", "8n12c"), ("AE", "19n"), ("AL", "8n16c"), ("AT", "16n"), ("AZ", "4a20c"), ("BA", "16n"), ("BE", "12n"),
    ("BG", "4a6n8c"), ("BH", "4a14c"), ("BI", "23n"), ("BR", "23n1a1c"), ("BY", "4c4n16c"), ("CH", "5n12c"),
    ("CR", "18n"), ("CY", "8n16c"), ("CZ", "20n"), ("DE", "18n"), ("DJ", "23n"), ("DK", "14n"), ("DO", "4c20n"),
    ("EE", "16n"), ("EG", "25n"), ("ES", "20n"), ("FI", "14n"), ("FK", "2a12n"), ("FO", "14n"), ("FR", "10n11c2n"),
    ("GB", "4a14n"), ("GE", "2a16n"), ("GI", "4a15c"), ("GL", "14n"), ("GR", "7n16c"), ("GT", "24c"),
    ("HN", "4a20n"), ("HR", "17n"), ("HU", "24n"), ("IE", "4a14n"), ("IL", "19n"), ("IQ", "4a15n"), ("IS", "22n"),
    ("IT", "1a10n12c"), ("JO", "4a4n18c"), ("KW", "4a22c"), ("KZ", "3n13c"), ("LB", "4n20c"), ("LC", "4a24c"),
    ("LI", "5n12c"), ("LT", "16n"), ("LU", "3n13c"), ("LV", "4a13c"), ("LY", "21n"), ("MC", "10n11c2n"),
    ("MD", "20c"), ("ME", "18n"), ("MK", "3n10c2n"), ("MN", "16n"), ("MR", "23n"), ("MT", "4a5n18c"),
    ("MU", "4a19n3a"), ("NI", "4a20n"), ("NL", "4a10n"), ("NO", "11n"), ("OM", "3n16c"), ("PK", "4a16c"),
    ("PL", "24n"), ("PS", "4a21c"), ("PT", "21n"), ("QA", "4a21c"), ("RO", "4a16c"), ("RS", "18n"), ("RU", "14n15c"),
    ("SA", "2n18c"), ("SC", "4a20n3a"), ("SD", "14n"), ("SE", "20n"), ("SI", "15n"), ("SK", "20n"),
    ("SM", "1a10n12c"), ("SO", "19n"), ("ST", "21n"), ("SV", "4a20n"), ("TL", "19n"), ("TN", "20n"), ("TR", "6n16c"),
    ("UA", "6n19c"), ("VA", "18n"), ("VG", "4a16n"), ("XK", "16n"), ("YE", "4a4n18c"),
];

/// Characters of the longest number that ISO 13616 allows, without country and check digits.
const BBAN_MAX: usize = 30;

/// Index into [`COUNTRIES`] plus one by the two letters, 0 for none: most candidates end here.
const BY_LETTERS: [[u8; 26]; 26] = by_letters();

/// The number whose check digits begin at `at`; two letters stand before them.
pub(super) fn verify(text: &[u8], at: usize) -> Option<Match> {
    let start = at.checked_sub(2)?;
    let letter = |i: usize| (text[i] | 0x20).wrapping_sub(b'a') as usize;
    let country = *BY_LETTERS.get(letter(start))?.get(letter(start + 1))?;
    let places = &PLACES[usize::from(country).checked_sub(1)?];
    let mut reader = Reader { text, at, taken: 2, spaced: text.get(at + 2) == Some(&b' '), rest: 0 };
    let check = [reader.take(b'n')?, reader.take(b'n')?];
    reader.rest = 0;
    let whole = places.iter().take_while(|class| **class != 0).all(|class| reader.take(*class).is_some());
    charge(reader.at - start);
    let head = [text[start], text[start + 1], check[0], check[1]];
    let rest = head.into_iter().fold(reader.rest, remainder);
    let alone = !text.get(reader.at).is_some_and(u8::is_ascii_alphanumeric);
    (whole && rest == 1 && alone).then_some(Match { start, end: reader.at, kind: Kind::Iban })
}

/// What stands at each place after the check digits; 0 where the number has ended.
type Places = [u8; BBAN_MAX];

const PLACES: [Places; COUNTRIES.len()] = places();

/// Walks a number character by character, over its spaces, and keeps the remainder.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// Characters of the number so far; every fourth is followed by a space where the number is spaced.
    taken: usize,
    spaced: bool,
    rest: u32,
}

impl Reader<'_> {
    #[inline]
    fn take(&mut self, class: u8) -> Option<u8> {
        if self.spaced && self.taken % 4 == 0 {
            (self.text.get(self.at) == Some(&b' ')).then_some(())?;
            self.at += 1;
        }
        let byte = *self.text.get(self.at)?;
        let fits = match class {
            b'n' => byte.is_ascii_digit(),
            b'a' => byte.is_ascii_alphabetic(),
            _ => byte.is_ascii_alphanumeric(),
        };
        fits.then_some(())?;
        self.at += 1;
        self.taken += 1;
        self.rest = remainder(self.rest, byte);
        Some(byte)
    }
}

/// ISO 7064: a digit appends itself, a letter the two digits 10 to 35.
fn remainder(rest: u32, byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from((byte | 0x20) - b'a') + 10) % 97,
    }
}

const fn places() -> [Places; COUNTRIES.len()] {
    let mut all = [[0; BBAN_MAX]; COUNTRIES.len()];
    let mut i = 0;
    while i < all.len() {
        let structure = COUNTRIES[i].1.as_bytes();
        let (mut at, mut place, mut count) = (0, 0, 0);
        while at < structure.len() {
            if structure[at].is_ascii_digit() {
                count = count * 10 + (structure[at] - b'0');
            } else {
                while count > 0 {
                    all[i][place] = structure[at];
                    place += 1;
                    count -= 1;
                }
            }
            at += 1;
        }
        i += 1;
    }
    all
}

const fn by_letters() -> [[u8; 26]; 26] {
    let mut table = [[0; 26]; 26];
    let mut i = 0;
    while i < COUNTRIES.len() {
        let code = COUNTRIES[i].0.as_bytes();
        table[(code[0] - b'A') as usize][(code[1] - b'A') as usize] = i as u8 + 1;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, tests::assert_rows};
    use super::{COUNTRIES, PLACES};

    #[test]
    fn the_published_examples_are_found_in_any_surroundings() {
        assert_rows(
            Kind::Iban,
            &[
                "«GB82WEST12345698765432»",
                "«GB82 WEST 1234 5698 7654 32»",
                "«DE89370400440532013000»",
                "«de89 3704 0044 0532 0130 00» and more",
                "«FR1420041010050500013M02606»",
                "«NL91ABNA0417164300»",
                "«BE68539007547034»",
                "«CH9300762011623852957»",
                "«NO9386011117947»",
                "«MT84MALT011000012345MTLCAST001S»",
                "«LC14BOSL123456789012345678901234»",
                "«SA0380000000608010167519»",
                "{\"iban\":\"«DE89370400440532013000»\"}",
                "iban=«DE89370400440532013000»;",
                "(«DE89370400440532013000»),«BE68 5390 0754 7034»,x",
                "IBAN«DE89370400440532013000»",
                "x\\n«DE89370400440532013000»\\n",
                "é«DE89370400440532013000»é",
            ],
        );
    }

    #[test]
    fn a_wrong_checksum_length_structure_or_country_is_left() {
        assert_rows(
            Kind::Iban,
            &[
                "GB82WEST12345698765433",
                "DE88370400440532013000",
                "DE8937040044053201300",
                "DE893704004405320130000",
                "DE89370400440532013000x",
                "GB821234WEST5698765432",
                "ZZ89370400440532013000",
                "DE89 37040044 0532013000",
                "DE89  3704 0044 0532 0130 00",
                "DE89-3704-0044-0532-0130-00",
                "DE89",
                "D 89370400440532013000",
            ],
        );
    }

    #[test]
    fn every_structure_is_ordered_and_within_the_34_characters_of_iso_13616() {
        for pair in COUNTRIES.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].0, pair[1].0);
        }
        for ((country, _), places) in COUNTRIES.iter().zip(PLACES) {
            let length = 4 + places.iter().filter(|class| b"nac".contains(class)).count();
            assert!((15..=34).contains(&length), "{country}: {length}");
        }
    }
}
