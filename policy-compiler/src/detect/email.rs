//! E-mail addresses: what RFC 5321 and 6531 allow and people use.
//!
//! Local part: up to 64 bytes of letters, digits, `.!#$%&*+-_^~`, non-ASCII (RFC 6531), and `'` but not in front.
//! The rest of RFC 5322's atext (`=`, `/`, `?`, `{`, `|`, `}`, `` ` ``) ends it instead, because `k=v`, paths, JSON,
//! PostgreSQL arrays and code need it as a delimiter. Domain: labels of up to 63 bytes, 255 in all, at least two; the
//! last begins with two letters, or with a non-ASCII one. What is longer is covered up to these limits, so padding
//! hides nothing. Handles (`@ada`), `a@localhost` and `package@1.2.3` are left.
//!
//! A letter after a backslash is left to its escape (`\nada@…`), unless the backslash is itself escaped.

use super::{Kind, Match, charge};

const LOCAL_BYTES_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 63;
const DOMAIN_BYTES_MAX: usize = 255;

/// The address whose `@` stands at `at`.
pub(super) fn verify(text: &[u8], at: usize) -> Option<Match> {
    let start = local_start(text, at)?;
    let end = domain_end(text, at + 1)?;
    Some(Match { start, end, kind: Kind::Email })
}

/// Whether `hit` lies in the local part of an address.
pub(super) fn covers(text: &[u8], hit: &Match) -> bool {
    let ahead = &text[hit.start..];
    let local = ahead.iter().take(LOCAL_BYTES_MAX + 1).take_while(|b| is_local(**b)).count();
    charge(local);
    ahead.get(local) == Some(&b'@')
        && hit.start + local >= hit.end
        && verify(text, hit.start + local).is_some_and(|address| address.start <= hit.start)
}

/// Where the local part that ends before `at` begins; `None` where there is no letter or digit in it.
fn local_start(text: &[u8], at: usize) -> Option<usize> {
    let floor = at.saturating_sub(LOCAL_BYTES_MAX);
    let taken = text[floor..at].iter().rev().take_while(|b| is_local(**b)).count();
    charge(taken + 1);
    let mut start = at - taken;
    if taken == LOCAL_BYTES_MAX {
        start += text[start..at].iter().take_while(|b| is_continuation(**b)).count();
    }
    start += text[start..at].iter().take_while(|b| matches!(b, b'.' | b'\'')).count();
    let escape = start > 0 && text[start - 1] == b'\\' && (start < 2 || text[start - 2] != b'\\');
    if escape && matches!(text[start], b'b' | b'f' | b'n' | b'r' | b't') {
        start += 1;
    }
    text[start..at].iter().any(|b| b.is_ascii_alphanumeric() || !b.is_ascii()).then_some(start)
}

/// Where the domain that begins at `from` ends: after the last label that can be a top one.
fn domain_end(text: &[u8], from: usize) -> Option<usize> {
    let limit = text.len().min(from + DOMAIN_BYTES_MAX);
    let (mut at, mut end) = (from, None);
    loop {
        let room = LABEL_BYTES_MAX.min(limit - at);
        let label = &text[at..at + room];
        let label = &label[..label.iter().take_while(|b| is_domain(**b)).count()];
        charge(label.len() + 1);
        let label = &label[..whole_characters(text, at, label.len())];
        let kept = label.len() - label.iter().rev().take_while(|b| **b == b'-').count();
        if at > from && is_top(&label[..kept]) {
            end = Some(at + kept);
        }
        at += label.len();
        if kept == 0 || kept < label.len() || label[0] == b'-' || at >= limit || text[at] != b'.' {
            return end;
        }
        at += 1;
    }
}

/// `length`, less what would leave a character half inside.
fn whole_characters(text: &[u8], at: usize, length: usize) -> usize {
    if !text.get(at + length).is_some_and(|b| is_continuation(*b)) {
        return length;
    }
    let half = text[at..at + length].iter().rev().take(3).take_while(|b| is_continuation(**b)).count();
    length.saturating_sub(half + 1)
}

fn is_top(label: &[u8]) -> bool {
    match label {
        [first, ..] if !first.is_ascii() => true,
        [first, second, ..] => first.is_ascii_alphabetic() && second.is_ascii_alphabetic(),
        _ => false,
    }
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b".!#$%&*+-_^~'".contains(&byte)
}

fn is_domain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || byte == b'-'
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, KindSet, scan, tests::assert_rows};

    #[test]
    fn an_address_is_found_in_any_surroundings() {
        assert_rows(
            Kind::Email,
            &[
                "«ada@example.com»",
                "«Ada.Lovelace+news@mail.example.co.uk»",
                "«o'brien@example.ie»",
                "«a_b-c%d@ex-ample.org»",
                "«müller@exämple.de»",
                "«用户@例子.广告»",
                "«ada@xn--exmple-cua.xn--p1ai»",
                "{\"email\":\"«ada@example.com»\"}",
                "{«ada@example.com»,«bob@example.com»}",
                "email=«ada@example.com»&x=1",
                "mailto:«ada@example.com»?subject=x",
                "Ada <«ada@example.com»>, (Bob «bob@example.com»)",
                "'«ada@example.com»','«bob@example.com»'",
                "\"«ada@example.com»\";«bob@example.com»|«eve@example.com»",
                "line\\n«ada@example.com»\\tx",
                "CORP\\\\«nadia@example.com»",
                "write to «ada@example.com».",
                "«ada@example.com»--",
                "«ada@example.com».123",
                "...«ada@example.com»...",
                "«1234567890@example.com»",
                "«4111111111111111@example.com»",
                "«a+14155552671@example.com»",
                "https://user:«secret@example.com»:8080/x",
                "«ada@example.com»«@example.org»",
            ],
        );
    }

    #[test]
    fn handles_versions_and_hosts_without_a_dot_are_left() {
        assert_rows(
            Kind::Email,
            &[
                "@ada",
                "thanks @ada.lovelace!",
                "ada@localhost",
                "lodash@4.17.21",
                "pkg@1.0.0-rc.1",
                "root@10.0.0.1",
                "a@b.c",
                "a@.com",
                "a@-b.com",
                "a b@ c.com",
                "ada@example..com",
                "=@example.com",
                "...@example.com",
                "@@@@",
                "a@",
                "@",
                "",
            ],
        );
    }

    #[test]
    fn padding_beyond_the_limits_hides_nothing_and_splits_no_character() {
        let long = ["x".repeat(500), "é".repeat(300), "€".repeat(200)];
        for pad in &long {
            let text = format!("{pad}ada@example.com{pad}");
            let mut hits = Vec::new();
            scan(text.as_bytes(), KindSet::ALL, |m| hits.push(m));
            let [hit] = hits[..] else { panic!("{hits:?}") };
            assert!(text[hit.start..hit.end].contains("ada@example.com"), "{pad}");
            assert!(hit.end - hit.start <= 320);
        }
    }
}
