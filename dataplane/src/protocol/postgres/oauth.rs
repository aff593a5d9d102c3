//! SASL OAUTHBEARER towards clients: the token comes in the mechanism's first message. Pure: bytes in, bytes out.
//!
//! Sources: RFC 7628 (the mechanism), RFC 5801 (its GS2 header), RFC 6750 (`Bearer`), and
//! <https://www.postgresql.org/docs/18/sasl-authentication.html>. There is no channel binding: the mechanism has none.

use super::wire::{backend, cstr_at, message, put_cstr, u32_at};
use crate::fault::{Fault, Side};

const MECHANISM: &[u8] = b"OAUTHBEARER";
/// Parts keys and values; one alone ends a failed exchange.
const KVSEP: u8 = 1;
/// RFC 7628 knows seven keys.
const KEYS_MAX: usize = 8;
/// What a message may hold beside the token: the mechanism's name, the header, other keys. Bytes.
pub const BESIDE_TOKEN_BYTES_MAX: usize = 1024;
/// The longest challenge that libpq reads: it takes no authentication request above 2,000 bytes.
pub const CHALLENGE_BYTES_MAX: usize = 1900;

const MALFORMED: Fault = Fault::Protocol(Side::Client, "the OAUTHBEARER message is malformed");

/// AuthenticationSASL with the one mechanism.
pub fn ask(out: &mut Vec<u8>) {
    message(out, backend::AUTHENTICATION, |out| {
        out.extend_from_slice(&10u32.to_be_bytes());
        put_cstr(out, MECHANISM);
        out.push(0);
    });
}

/// AuthenticationSASLContinue: the error challenge, or nothing where the client's first message is still due.
pub fn proceed(out: &mut Vec<u8>, challenge: &str) {
    message(out, backend::AUTHENTICATION, |out| {
        out.extend_from_slice(&11u32.to_be_bytes());
        out.extend_from_slice(challenge.as_bytes());
    });
}

/// The mechanism's first message out of the body of a SASLInitialResponse; `None` if the client has sent none yet.
///
/// # Errors
/// The message is malformed, or names another mechanism.
pub fn initial(body: &[u8]) -> Result<Option<&[u8]>, Fault> {
    const OTHER: Fault = Fault::Protocol(Side::Client, "the client chose a SASL mechanism that was not offered");
    const ABSENT: u32 = u32::MAX;
    let (mechanism, at) = cstr_at(body, 0).ok_or(MALFORMED)?;
    if mechanism != MECHANISM {
        return Err(OTHER);
    }
    let length = u32_at(body, at).ok_or(MALFORMED)?;
    let first = &body[at + 4..];
    match length {
        ABSENT if first.is_empty() => Ok(None),
        ABSENT => Err(MALFORMED),
        bytes if bytes as usize == first.len() => Ok(Some(first)),
        _ => Err(MALFORMED),
    }
}

/// The token of the mechanism's first message; `None` if the client only asks where tokens come from.
///
/// # Errors
/// The message is malformed, or asks for what is not served.
pub fn token(first: &[u8]) -> Result<Option<&[u8]>, Fault> {
    let mut pairs = pairs(after_header(first)?)?;
    match pairs.find(|(key, _)| *key == b"auth").map(|(_, value)| value) {
        None => Err(Fault::Protocol(Side::Client, "the OAUTHBEARER message has no key auth")),
        Some([]) => Ok(None),
        Some(value) => bearer(value).map(Some),
    }
}

/// What follows the GS2 header and its separator (RFC 5801, section 4).
fn after_header(first: &[u8]) -> Result<&[u8], Fault> {
    const BINDING: Fault =
        Fault::Protocol(Side::Client, "OAUTHBEARER has no channel binding; connect without channel_binding=require");
    const AUTHZID: Fault = Fault::Protocol(Side::Client, "an authorization identity in OAUTHBEARER is not served");
    match first {
        [b'n', b',', b',', KVSEP, rest @ ..] => Ok(rest),
        [b'n', b',', b'a', b'=', ..] => Err(AUTHZID),
        [b'p' | b'y', ..] => Err(BINDING),
        _ => Err(MALFORMED),
    }
}

/// `key=value` pairs, each with a separator behind it, and one more behind the last. No key stands twice: of two values,
/// readers could take either.
fn pairs(list: &[u8]) -> Result<impl Iterator<Item = (&[u8], &[u8])>, Fault> {
    let mut found: [(&[u8], &[u8]); KEYS_MAX] = [(&[], &[]); KEYS_MAX];
    let mut rest = list;
    let mut count = 0;
    while rest != [KVSEP] {
        let end = memchr::memchr(KVSEP, rest).ok_or(MALFORMED)?;
        let (key, value) = pair(&rest[..end]).ok_or(MALFORMED)?;
        if count == KEYS_MAX || found[..count].iter().any(|(known, _)| *known == key) {
            return Err(MALFORMED);
        }
        found[count] = (key, value);
        count += 1;
        rest = &rest[end + 1..];
    }
    Ok(found.into_iter().take(count))
}

/// RFC 7628, section 3.1: letters, then `=`, then visible characters, blanks and line ends.
fn pair(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', bytes)?;
    let (key, value) = (&bytes[..at], &bytes[at + 1..]);
    let is_value = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    let sound = !key.is_empty() && key.iter().all(u8::is_ascii_alphabetic) && value.iter().all(is_value);
    sound.then_some((key, value))
}

/// RFC 6750, section 2.1: the scheme in any case, blanks, and characters that a token may have.
fn bearer(value: &[u8]) -> Result<&[u8], Fault> {
    const SCHEME: Fault = Fault::NotAdmitted("the authorization is not of the form Bearer TOKEN");
    let blank = memchr::memchr(b' ', value).ok_or(SCHEME)?;
    let blanks = value[blank..].iter().take_while(|b| **b == b' ').count();
    let (scheme, token) = (&value[..blank], &value[blank + blanks..]);
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b);
    match scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty() && token.iter().all(is_plain) {
        true => Ok(token),
        false => Err(SCHEME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"n,,\x01auth=Bearer a.b-c_d.e=\x01\x01";

    #[test]
    fn the_token_is_what_stands_behind_bearer() {
        for (first, expected) in [
            (GOOD, Some(&b"a.b-c_d.e="[..])),
            (b"n,,\x01auth=bEARER   t\x01\x01", Some(b"t")),
            (b"n,,\x01host=db.test\x01port=5432\x01auth=Bearer t\x01\x01", Some(b"t")),
            (b"n,,\x01auth=Bearer t\x01host=\x01\x01", Some(b"t")),
            (b"n,,\x01auth=\x01\x01", None),
            (b"n,,\x01auth=\x01mthd=GET\x01\x01", None),
        ] {
            assert_eq!(token(first), Ok(expected), "{}", first.escape_ascii());
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (first, word) in [
            (&b""[..], "malformed"),
            (b"\x01", "malformed"),
            (b"n", "malformed"),
            (b"n,,", "malformed"),
            (b"n,,\x01", "malformed"),
            (b"n,\x01auth=Bearer t\x01\x01", "malformed"),
            (b"N,,\x01auth=Bearer t\x01\x01", "malformed"),
            (b"n,,auth=Bearer t\x01\x01", "malformed"),
            (b"n,,\x01\x01", "no key auth"),
            (b"n,,\x01host=x\x01\x01", "no key auth"),
            (b"n,,\x01Auth=Bearer t\x01\x01", "no key auth"),
            (b"n,,\x01auth=Bearer t\x01", "malformed"),
            (b"n,,\x01auth=Bearer t", "malformed"),
            (b"n,,\x01auth=Bearer t\x01\x01\x01", "malformed"),
            (b"n,,\x01auth=Bearer t\x01\x01x", "malformed"),
            (b"n,,\x01auth=Bearer t\x01\x01\0", "malformed"),
            (b"n,,\x01auth=Bearer t\x01auth=Bearer t\x01\x01", "malformed"),
            (b"n,,\x01auth=Bearer t\x01host=a\x01host=b\x01\x01", "malformed"),
            (b"n,,\x01auth\x01\x01", "malformed"),
            (b"n,,\x01=Bearer t\x01\x01", "malformed"),
            (b"n,,\x01au th=Bearer t\x01\x01", "malformed"),
            (b"n,,\x01auth=Bearer t\0\x01\x01", "malformed"),
            (b"n,,\x01auth=Bearer \xc3\xa4\x01\x01", "malformed"),
            (b"n,,\x01a=\x01b=\x01c=\x01d=\x01e=\x01f=\x01g=\x01h=\x01auth=Bearer t\x01\x01", "malformed"),
            (b"n,a=root,\x01auth=Bearer t\x01\x01", "authorization identity"),
            (b"p=tls-server-end-point,,\x01auth=Bearer t\x01\x01", "channel binding"),
            (b"y,,\x01auth=Bearer t\x01\x01", "channel binding"),
            (b"n,,\x01auth=Basic dDp0\x01\x01", "Bearer TOKEN"),
            (b"n,,\x01auth=Bearer\x01\x01", "Bearer TOKEN"),
            (b"n,,\x01auth=Bearer \x01\x01", "Bearer TOKEN"),
            (b"n,,\x01auth=Bearert\x01\x01", "Bearer TOKEN"),
            (b"n,,\x01auth= Bearer t\x01\x01", "Bearer TOKEN"),
            (b"n,,\x01auth=Bearer t t\x01\x01", "Bearer TOKEN"),
            (b"n,,\x01auth=Bearer t\r\n\x01\x01", "Bearer TOKEN"),
            (b"n,,\x01auth=Bearer \tt\x01\x01", "Bearer TOKEN"),
            (b"n,,\x01auth=Bearer {t}\x01\x01", "Bearer TOKEN"),
        ] {
            let fault = token(first).expect_err("it is refused");
            assert!(fault.text().contains(word), "{}: {}", first.escape_ascii(), fault.text());
        }
    }

    #[test]
    fn the_first_message_has_the_length_that_it_states() {
        let body =
            |mechanism: &[u8], length: u32, first: &[u8]| [mechanism, b"\0", &length.to_be_bytes(), first].concat();
        assert_eq!(initial(&body(b"OAUTHBEARER", 2, b"n,")), Ok(Some(&b"n,"[..])));
        assert_eq!(initial(&body(b"OAUTHBEARER", 0, b"")), Ok(Some(&b""[..])));
        assert_eq!(initial(&body(b"OAUTHBEARER", u32::MAX, b"")), Ok(None));
        for wrong in [
            body(b"OAUTHBEARER", 1, b"n,"),
            body(b"OAUTHBEARER", 3, b"n,"),
            body(b"OAUTHBEARER", u32::MAX, b"n"),
            body(b"OAUTHBEARER", u32::MAX - 1, b""),
            body(b"SCRAM-SHA-256", 2, b"n,"),
            body(b"oauthbearer", 2, b"n,"),
            b"OAUTHBEARER".to_vec(),
            b"OAUTHBEARER\0\0\0".to_vec(),
            Vec::new(),
        ] {
            assert!(initial(&wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    /// What a response means, as RFC 7628's grammar reads it: slow and obvious.
    fn oracle(first: &[u8]) -> Option<Option<Vec<u8>>> {
        let list = first.strip_prefix(b"n,,\x01")?.strip_suffix(b"\x01")?;
        let pairs: Vec<&[u8]> = match list {
            [] => Vec::new(),
            list => list.strip_suffix(b"\x01")?.split(|b| *b == 1).collect(),
        };
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in pairs {
            let (key, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            let plain = value.chars().all(|c| ('!'..='~').contains(&c) || " \t\r\n".contains(c));
            let known = found.iter().any(|(k, _)| k == key);
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphabetic()) || !plain || known {
                return None;
            }
            found.push((key.to_owned(), value.to_owned()));
        }
        let value = found.iter().find(|(key, _)| key == "auth").map(|(_, value)| value)?;
        if found.len() > KEYS_MAX || value.is_empty() {
            return (found.len() <= KEYS_MAX).then_some(None);
        }
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim_start_matches(' ');
        let sound = token.chars().all(|c| c.is_ascii_alphanumeric() || "-._~+/=".contains(c)) && !token.is_empty();
        (scheme.to_lowercase() == "bearer" && sound).then(|| Some(token.as_bytes().to_vec()))
    }

    #[test]
    fn mutated_responses_mean_what_the_grammar_says_or_nothing() {
        const SEEDS: [&[u8]; 4] = [
            GOOD,
            b"n,,\x01auth=\x01\x01",
            b"n,,\x01host=h\x01port=1\x01auth=Bearer tok\x01\x01",
            b"n,a=root,\x01auth=Bearer t\x01\x01",
        ];
        const ALPHABET: &[u8] = b"\x01\x01\x01\0n,=aut h.Bearer-\xff\r\n";
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let (mut tokens, mut refused) = (0, 0);
        for _ in 0..200_000 {
            let mut first = SEEDS[random(SEEDS.len())].to_vec();
            for _ in 0..random(4) {
                let (at, byte) = (random(first.len() + 1), ALPHABET[random(ALPHABET.len())]);
                match random(4) {
                    0 => first.insert(at, byte),
                    1 => first.truncate(at),
                    2 => first.extend_from_within(at..),
                    _ if at < first.len() => first[at] = byte,
                    _ => {}
                }
            }
            let read = token(&first);
            assert_eq!(read.ok().map(|t| t.map(<[u8]>::to_vec)), oracle(&first), "{}", first.escape_ascii());
            *(if read.is_ok() { &mut tokens } else { &mut refused }) += 1;
        }
        assert!(tokens > 20_000 && refused > 20_000, "{tokens} were read, {refused} refused");
    }
}
