//! The wide end of the funnel: a block of text becomes bit masks, the masks become candidates.
//!
//! A block is 64 bytes, of which the middle [`CORE_BYTES`] are its own; the rest is context, so that a whole shape
//! (`ddd-dd-dddd`, thirteen digits on end, two letters before two digits) is one expression over shifted masks and
//! nothing is carried from block to block. What the masks let through is a superset of what the families accept.

use wide::u8x16;

use super::{Kind, KindSet};

/// Positions that one block decides.
pub(super) const CORE_BYTES: usize = 48;
/// Context before the core: the two letters before an IBAN's check digits.
const LEAD_BYTES: usize = 2;
const BLOCK_BYTES: usize = 64;
const CORE: u64 = ((1 << CORE_BYTES) - 1) << LEAD_BYTES;

/// Why a position is worth a closer look: it holds `@`, or `+`, or the first digit of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    At,
    Plus,
    Iban,
    UsSsn,
    PaymentCard,
}

/// The candidates of one block: bit i is the byte `base - LEAD_BYTES + i`.
#[derive(Default)]
pub(super) struct Block {
    at: u64,
    plus: u64,
    iban: u64,
    us_ssn: u64,
    payment_card: u64,
}

impl Block {
    /// Reads the block whose core begins at `base`; beyond the ends of the text stands NUL.
    #[inline]
    pub(super) fn read(text: &[u8], base: usize, kinds: KindSet) -> Block {
        let whole = base.checked_sub(LEAD_BYTES).and_then(|from| text.get(from..)).and_then(|t| t.first_chunk());
        match whole {
            Some(bytes) => Block::of(bytes, kinds),
            None => Block::of(&padded(text, base), kinds),
        }
    }

    #[inline]
    fn of(bytes: &[u8; BLOCK_BYTES], kinds: KindSet) -> Block {
        let classes = Classes::of(bytes);
        let mut block = Block::default();
        if kinds.has(Kind::Email) {
            block.at = classes.mask(AT) & CORE;
        }
        let digits = classes.mask(DIGIT);
        if digits != 0 {
            block.digit_shapes(&classes, digits, kinds);
        }
        block
    }

    /// Everything that has a digit in it. Each mask is made only when those before it leave a reason to.
    #[inline]
    fn digit_shapes(&mut self, classes: &Classes, digits: u64, kinds: KindSet) {
        if kinds.has(Kind::Phone) {
            self.plus = classes.mask(PLUS) & !(digits << 1) & ((digits >> 1) | (digits >> 2)) & CORE;
        }
        let two = digits & (digits >> 1);
        let starts = two & !(digits << 1) & CORE;
        if starts != 0 && kinds.has(Kind::Iban) {
            let letters = classes.mask(LETTER);
            self.iban = starts & (letters << 1) & (letters << 2);
        }
        let starts = starts & (digits >> 2);
        if starts == 0 || !(kinds.has(Kind::UsSsn) || kinds.has(Kind::PaymentCard)) {
            return;
        }
        let four = two & (two >> 2);
        let separators = classes.mask(SEPARATOR);
        if kinds.has(Kind::UsSsn) {
            self.us_ssn = starts & (separators >> 3) & (two >> 4) & (separators >> 6) & (four >> 7);
        }
        if kinds.has(Kind::PaymentCard) {
            self.payment_card = starts & card_shapes(digits, two, four, separators);
        }
    }

    /// Calls `visit` for each candidate in order of position; stops, and is false, when it says false.
    #[inline]
    pub(super) fn each(&self, base: usize, visit: &mut impl FnMut(Trigger, usize) -> bool) -> bool {
        let mut left = self.at | self.plus | self.iban | self.us_ssn | self.payment_card;
        while left != 0 {
            let bit = left & left.wrapping_neg();
            let at = base + bit.trailing_zeros() as usize - LEAD_BYTES;
            // An IBAN begins before its digits, so it goes before what begins with them.
            let go_on = (self.at & bit == 0 || visit(Trigger::At, at))
                && (self.plus & bit == 0 || visit(Trigger::Plus, at))
                && (self.iban & bit == 0 || visit(Trigger::Iban, at))
                && (self.us_ssn & bit == 0 || visit(Trigger::UsSsn, at))
                && (self.payment_card & bit == 0 || visit(Trigger::PaymentCard, at));
            if !go_on {
                return false;
            }
            left ^= bit;
        }
        true
    }
}

/// Where thirteen digits stand on end, or a first group of 4, 6 or 8 digits is followed by the next one.
#[inline]
fn card_shapes(digits: u64, two: u64, four: u64, separators: u64) -> u64 {
    let eight = four & (four >> 4);
    let thirteen = eight & (eight >> 5);
    let next_three = separators & (two >> 1) & (digits >> 3);
    let grouped = (four & (next_three >> 4)) | (four & (two >> 4) & (next_three >> 6)) | (eight & (next_three >> 8));
    thirteen | grouped
}

#[inline(never)]
fn padded(text: &[u8], base: usize) -> [u8; BLOCK_BYTES] {
    let mut bytes = [0; BLOCK_BYTES];
    let from = base.saturating_sub(LEAD_BYTES);
    let skip = LEAD_BYTES - (base - from);
    let part = &text[from..text.len().min(base + BLOCK_BYTES - LEAD_BYTES)];
    bytes[skip..skip + part.len()].copy_from_slice(part);
    bytes
}

const DIGIT: u8 = 1;
const AT: u8 = 2;
const PLUS: u8 = 4;
const SEPARATOR: u8 = 8;
const LETTER: u8 = 16;

/// The bytes of a block in vectors; a mask is a few comparisons and the vectors' sign bits.
struct Classes([u8x16; 4]);

impl Classes {
    #[inline]
    fn of(bytes: &[u8; BLOCK_BYTES]) -> Classes {
        let (lanes, _) = bytes.as_chunks::<16>();
        Classes(std::array::from_fn(|i| u8x16::new(lanes[i])))
    }

    /// One bit a byte.
    #[inline]
    fn mask(&self, class: u8) -> u64 {
        let is = |lane: u8x16, byte: u8| lane.simd_eq(u8x16::splat(byte));
        match class {
            DIGIT => self.bits(|lane| within(lane, b'0', 10)),
            AT => self.bits(|lane| is(lane, b'@')),
            PLUS => self.bits(|lane| is(lane, b'+')),
            SEPARATOR => self.bits(|lane| is(lane, b' ') | is(lane, b'-')),
            _ => self.bits(|lane| within(lane | u8x16::splat(0x20), b'a', 26)),
        }
    }

    #[inline]
    fn bits(&self, test: impl Fn(u8x16) -> u8x16) -> u64 {
        let lane = |i: usize| u64::from(test(self.0[i]).to_bitmask() as u16) << (16 * i);
        lane(0) | lane(1) | lane(2) | lane(3)
    }
}

/// Bytes among the `count` from `first` on.
#[inline]
fn within(lane: u8x16, first: u8, count: u8) -> u8x16 {
    let offset = lane - u8x16::splat(first);
    offset.min(u8x16::splat(count - 1)).simd_eq(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_the_bit_of_every_byte_of_its_class_and_no_other() {
        let classes: [(u8, fn(u8) -> bool); 5] = [
            (DIGIT, |b| b.is_ascii_digit()),
            (AT, |b| b == b'@'),
            (PLUS, |b| b == b'+'),
            (SEPARATOR, |b| b == b' ' || b == b'-'),
            (LETTER, |b| b.is_ascii_alphabetic()),
        ];
        for byte in 0..=255u8 {
            let bytes: [u8; 64] = std::array::from_fn(|i| byte.wrapping_add((i * i * 7) as u8));
            for (class, belongs) in classes {
                let expected = (0..64).filter(|i| belongs(bytes[*i])).fold(0, |bits, i| bits | 1u64 << i);
                assert_eq!(Classes::of(&bytes).mask(class), expected, "class {class}, {byte}");
            }
        }
    }

    #[test]
    fn a_shape_is_seen_wherever_it_lies_between_two_blocks() {
        let rows: [(&[u8], Trigger, usize); 5] = [
            (b"a@", Trigger::At, 1),
            (b"+49", Trigger::Plus, 0),
            (b"DE89", Trigger::Iban, 2),
            (b"123-45-6789", Trigger::UsSsn, 0),
            (b"4111111111111", Trigger::PaymentCard, 0),
        ];
        for (shape, trigger, offset) in rows {
            for place in 0..200 {
                let mut text = vec![b'.'; 200];
                text.splice(place..place, shape.iter().copied());
                let mut seen = Vec::new();
                for base in (0..text.len()).step_by(CORE_BYTES) {
                    Block::read(&text, base, KindSet::ALL).each(base, &mut |t, at| {
                        seen.push((t, at));
                        true
                    });
                }
                assert_eq!(seen, [(trigger, place + offset)], "{trigger:?} at {place}");
            }
        }
    }
}
