//! The mask transforms: a value is overwritten where it stands, in as many bytes as it had (decision 13).
//!
//! Valid UTF-8 stays valid, whatever is in it. Null is not here: it changes the frame, so framing does it.

/// What is left of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transform {
    /// `*` for every byte.
    Redact,
    /// `*` for every byte but spaces, hyphens and the last four other characters. A value with fewer than eight
    /// letters and digits is redacted whole: four of seven would be most of it.
    Last4,
    /// A pseudonym: the same value under the same key gives the same text, so that joins and counts still work.
    ///
    /// Lower-case base32 (RFC 4648's alphabet) of a keyed BLAKE3 digest, cut to the value's length in bytes; beyond
    /// 52 characters stand `*`. Each character carries 5 bits, so **short values get weak pseudonyms**: 4 bytes have
    /// 20 bits, about 1,200 different values are likely to meet once. Who can choose values and see pseudonyms can
    /// recognise values by comparing: a pseudonym is no encryption.
    Hash,
}

/// The secret of [`Transform::Hash`]. Its `Debug` prints no key.
#[derive(Clone)]
pub struct HashKey([u8; 32]);

/// Letters and digits below which [`Transform::Last4`] keeps nothing.
const LAST4_ALPHANUMERICS_MIN: usize = 8;
const KEPT_CHARACTERS: usize = 4;
const DIGEST_CHARACTERS: usize = 52;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Overwrites `value` in place. Allocates nothing, never panics; `key` is used by [`Transform::Hash`] alone.
pub fn apply(transform: Transform, key: &HashKey, value: &mut [u8]) {
    match transform {
        Transform::Redact => value.fill(b'*'),
        Transform::Last4 => keep_last4(value),
        Transform::Hash => pseudonym(key, value),
    }
}

impl Transform {
    pub const ALL: [Transform; 3] = [Transform::Redact, Transform::Last4, Transform::Hash];

    /// The name that policies use.
    pub fn name(self) -> &'static str {
        match self {
            Transform::Redact => "redact",
            Transform::Last4 => "last4",
            Transform::Hash => "hash",
        }
    }

    /// The transform of that exact name.
    pub fn parse(name: &str) -> Option<Transform> {
        Self::ALL.into_iter().find(|transform| transform.name() == name)
    }
}

impl HashKey {
    /// 32 bytes from a cryptographic source. Change them and every pseudonym changes.
    pub const fn new(key: [u8; 32]) -> HashKey {
        HashKey(key)
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(…)")
    }
}

fn keep_last4(value: &mut [u8]) {
    let alphanumerics = value.iter().filter(|b| b.is_ascii_alphanumeric() || **b >= 0xC0).count();
    if alphanumerics < LAST4_ALPHANUMERICS_MIN {
        return value.fill(b'*');
    }
    let masked = kept_from(value);
    for byte in value[..masked].iter_mut().filter(|b| !is_separator(**b)) {
        *byte = b'*';
    }
}

/// Where the last four characters that are no separators begin. Where it is not known what a character is, none is kept that
/// has a byte outside ASCII, nor what is before it.
fn kept_from(value: &[u8]) -> usize {
    let begins = |b: &u8| !is_separator(*b) && b & 0xC0 != 0x80;
    let mut first_bytes = value.iter().enumerate().rev().filter(|(_, b)| begins(b)).map(|(at, _)| at);
    let from = first_bytes.nth(KEPT_CHARACTERS - 1).unwrap_or(value.len());
    match std::str::from_utf8(value) {
        Ok(_) => from,
        Err(_) => from.max(value.iter().rposition(|b| !b.is_ascii()).map_or(0, |at| at + 1)),
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'-')
}

fn pseudonym(key: &HashKey, value: &mut [u8]) {
    let digest = blake3::keyed_hash(&key.0, value);
    let text = base32(digest.as_bytes());
    let length = value.len().min(DIGEST_CHARACTERS);
    let (head, tail) = value.split_at_mut(length);
    head.copy_from_slice(&text[..length]);
    tail.fill(b'*');
}

/// 256 bits, five at a time; the last character carries one.
fn base32(digest: &[u8; 32]) -> [u8; DIGEST_CHARACTERS] {
    std::array::from_fn(|i| {
        let bit = i * 5;
        let byte = |at: usize| u16::from(digest.get(at).copied().unwrap_or(0));
        let pair = byte(bit / 8) << 8 | byte(bit / 8 + 1);
        BASE32[usize::from(pair >> (11 - bit % 8) & 31)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey::new([7; 32]);

    fn applied(transform: Transform, key: &HashKey, value: &str) -> String {
        let mut bytes = value.as_bytes().to_vec();
        apply(transform, key, &mut bytes);
        assert_eq!(bytes.len(), value.len(), "{value}");
        String::from_utf8(bytes).unwrap_or_else(|_| panic!("{transform:?} of {value} is no UTF-8"))
    }

    #[test]
    fn last4_keeps_no_character_whose_end_is_not_known() {
        for (value, expected) in [
            (&b"M\xfcllermeister"[..], &b"*********ster"[..]),
            (b"meister M\xfcller", b"******* **ller"),
            (b"meister Str\xe4h", b"******* ****h"),
            (b"gro\xdfmeister\xe4\xf6", b"*************"),
            (b"abcdefgh\xa4\xa2\xa4\xa4", b"************"),
        ] {
            let mut bytes = value.to_vec();
            apply(Transform::Last4, &KEY, &mut bytes);
            assert_eq!(bytes, expected, "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn last4_keeps_four_characters_and_the_separators_of_long_values_only() {
        let rows = [
            ("4111-1111-1111-1234", "****-****-****-1234"),
            ("4111 1111 1111 123-4", "**** **** **** 123-4"),
            ("123-45-6789", "***-**-6789"),
            ("4111111111111111", "************1111"),
            ("ada@example.com", "***********.com"),
            ("1234567", "*******"),
            ("12-34-567", "*********"),
            ("12345678", "****5678"),
            ("straßeäöüß", "*******äöüß"),
            ("@@@@@@@@@@", "**********"),
            ("", ""),
        ];
        for (value, expected) in rows {
            assert_eq!(applied(Transform::Last4, &KEY, value), expected, "{value}");
        }
    }

    #[test]
    fn redact_leaves_the_length_alone() {
        for (value, expected) in [("123-45-6789", "***********"), ("é€", "*****"), ("", "")] {
            assert_eq!(applied(Transform::Redact, &KEY, value), expected);
        }
    }

    #[test]
    fn a_pseudonym_depends_on_the_value_and_the_key_and_nothing_else() {
        let once = applied(Transform::Hash, &KEY, "ada@example.com");
        assert_eq!(once, applied(Transform::Hash, &KEY, "ada@example.com"));
        assert_ne!(once, applied(Transform::Hash, &KEY, "ada@example.con"));
        assert_ne!(once, applied(Transform::Hash, &HashKey::new([8; 32]), "ada@example.com"));
        assert!(once.bytes().all(|b| BASE32.contains(&b)), "{once}");
    }

    #[test]
    fn a_long_value_has_one_whole_digest_and_then_stars() {
        let long = applied(Transform::Hash, &KEY, &"é".repeat(40));
        assert!(long[..52].bytes().all(|b| BASE32.contains(&b)) && long[52..] == *"*".repeat(28), "{long}");
    }

    #[test]
    fn base32_is_that_of_rfc_4648() {
        let mut digest = [0; 32];
        digest[..10].copy_from_slice(b"foobarfoob");
        assert_eq!(&base32(&digest)[..16], b"mzxw6ytbojtg633c");
    }

    #[test]
    fn no_transform_panics_on_bytes_that_are_no_text() {
        for transform in Transform::ALL {
            for byte in 0..=255 {
                for length in [0, 1, 3, 4, 7, 8, 52, 53] {
                    let mut value = vec![byte; length];
                    apply(transform, &KEY, &mut value);
                    assert_eq!(value.len(), length);
                }
            }
        }
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", HashKey::new([0xAB; 32])), "HashKey(…)");
    }
}
