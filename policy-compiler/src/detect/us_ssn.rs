//! United States social security numbers: `ddd-dd-dddd`, with hyphens or single spaces.
//!
//! There is no checksum. What was never issued is refused (SSA, "SSN randomization", 2011): area 000, 666 and 900 to
//! 999 (the last also keeps out ITINs), group 00, serial 0000. Nine bare digits are *not* taken: 89 % of all
//! nine-digit numbers would match, so order numbers and routing numbers would be masked everywhere. Letters may touch
//! the number (`\n123-45-6789`, `SSN123-45-6789`), digits may not.

use super::{Kind, Match, charge};

const WIDTH_BYTES: usize = 11;

/// The number whose first digit stands at `at`; the byte before is no digit.
pub(super) fn verify(text: &[u8], at: usize) -> Option<Match> {
    charge(WIDTH_BYTES + 1);
    let number: &[u8; WIDTH_BYTES] = text.get(at..)?.first_chunk()?;
    let separator = number[3];
    let shaped = matches!(separator, b'-' | b' ') && number[6] == separator;
    let value = |from: usize, to: usize| {
        number[from..to].iter().try_fold(0u32, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u32::from(b - b'0')))
    };
    let (area, group, serial) = (value(0, 3)?, value(4, 6)?, value(7, 11)?);
    let issued = area != 0 && area != 666 && area < 900 && group != 0 && serial != 0;
    let end = at + WIDTH_BYTES;
    let alone = !text.get(end).is_some_and(u8::is_ascii_digit);
    (shaped && issued && alone).then_some(Match { start: at, end, kind: Kind::UsSsn })
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, tests::assert_rows};

    #[test]
    fn an_issued_number_is_found_in_any_surroundings() {
        assert_rows(
            Kind::UsSsn,
            &[
                "«123-45-6789»",
                "«123 45 6789»",
                "{\"ssn\":\"«123-45-6789»\"}",
                "ssn=«001-01-0001»;next",
                "(«899-99-9999»),«665-12-3456»",
                "SSN«123-45-6789»x",
                "line\\n«123-45-6789»\\n",
                "«123-45-6789» «234-56-7890»",
                "1-«123-45-6789»-1",
                "“«123-45-6789»”",
            ],
        );
    }

    #[test]
    fn what_was_never_issued_or_has_another_shape_is_left() {
        assert_rows(
            Kind::UsSsn,
            &[
                "000-12-3456",
                "666-12-3456",
                "900-12-3456",
                "987-65-4320",
                "123-00-4567",
                "123-45-0000",
                "123456789",
                "123-45 6789",
                "123.45.6789",
                "1123-45-6789",
                "123-45-67890",
                "123-456-7890",
                "12-345-6789",
                "123--45-6789",
                "123-45-678",
                "",
            ],
        );
    }
}
