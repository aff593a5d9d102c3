use super::corpus::{Random, negative, positive, value};
use super::*;

thread_local! {
    /// Bytes that the families have looked at, by [`charge`].
    pub(super) static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The text of a row without its marks «…», and the ranges that they mark.
pub(super) fn unmarked(row: &str) -> (String, Vec<(usize, usize)>) {
    let (mut text, mut ranges, mut start) = (String::new(), Vec::new(), 0);
    for c in row.chars() {
        match c {
            '«' => start = text.len(),
            '»' => ranges.push((start, text.len())),
            _ => text.push(c),
        }
    }
    (text, ranges)
}

/// Each row must give exactly its marked ranges: alone, and with every kind switched on where it marks any.
pub(super) fn assert_rows(kind: Kind, rows: &[&str]) {
    for row in rows {
        let (text, expected) = unmarked(row);
        assert_eq!(ranges(text.as_bytes(), only(kind)), expected, "{row}");
        if !expected.is_empty() {
            assert!(may_contain(text.as_bytes(), only(kind)), "{row}");
            assert_eq!(ranges(text.as_bytes(), KindSet::ALL), expected, "with all kinds: {row}");
        }
    }
}

pub(super) fn only(kind: Kind) -> KindSet {
    KindSet::from_bits(1 << kind as u16)
}

pub(super) fn matches(text: &[u8], kinds: KindSet) -> Vec<Match> {
    let mut found = Vec::new();
    scan(text, kinds, |m| found.push(m));
    found
}

fn ranges(text: &[u8], kinds: KindSet) -> Vec<(usize, usize)> {
    matches(text, kinds).iter().map(|m| (m.start, m.end)).collect()
}

/// Text made of what the families look for, so that matches touch, overlap and cross blocks.
fn tangle(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < bytes {
        let kind = random.pick(&Kind::ALL);
        match random.below(8) {
            0..=2 => text += &value(random, kind),
            3 => text += &unmarked(&positive(random, kind)).0,
            4 => {
                let class = random.below(20);
                text += &negative(random, class);
            }
            5 => text += random.pick(&["@", "+", "-", " ", ".", "a", "DE", "4", "é", "\\n", "'", "(", "\u{200b}"]),
            6 => {
                text +=
                    &random.pick(&["4", "1", "a", "a.", "4444 ", "a@b.cc", "+49 "]).repeat(random.below(40) as usize)
            }
            _ => text.push(char::from(random.below(128) as u8)),
        }
    }
    text.into_bytes()
}

fn covered(text: &[u8], kinds: KindSet) -> Vec<bool> {
    let mut bytes = vec![false; text.len()];
    scan(text, kinds, |m| bytes[m.start..m.end].fill(true));
    bytes
}

#[test]
fn matches_come_in_order_apart_within_the_width_and_end_at_characters() {
    let mut random = Random::new(1);
    for round in 0..400 {
        let text = tangle(&mut random, 2000);
        let mut last = 0;
        for hit in matches(&text, KindSet::from_bits(round % 32)) {
            assert!(last <= hit.start && hit.start < hit.end && hit.end <= text.len(), "{hit:?} after {last}");
            assert!(hit.end - hit.start <= WIDTH_BYTES_MAX);
            let word = &text[hit.start..hit.end];
            assert!(std::str::from_utf8(word).is_ok(), "{hit:?}");
            last = hit.end;
        }
    }
}

/// The prefilter against no prefilter: every family is tried at every place, and everything found is covered.
#[test]
fn the_funnel_covers_what_trying_every_place_covers() {
    let mut random = Random::new(2);
    for _ in 0..300 {
        let text = tangle(&mut random, 1500);
        let mut expected = vec![false; text.len()];
        for at in 0..text.len() {
            let digit = text[at].is_ascii_digit();
            let first = digit && !(at > 0 && text[at - 1].is_ascii_digit());
            let letters = at >= 2 && text[at - 2..at].iter().all(u8::is_ascii_alphabetic);
            let found = [
                (text[at] == b'@').then(|| email::verify(&text, at)),
                (text[at] == b'+').then(|| phone::verify(&text, at)),
                (first && letters).then(|| iban::verify(&text, at)),
                first.then(|| us_ssn::verify(&text, at)),
                first.then(|| payment_card::verify(&text, at)),
            ];
            for hit in found.into_iter().flatten().flatten() {
                expected[hit.start..hit.end].fill(true);
            }
        }
        assert!(covered(&text, KindSet::ALL) == expected, "{}", String::from_utf8_lossy(&text));
        assert!(may_contain(&text, KindSet::ALL) || !expected.contains(&true));
    }
}

/// What the module promises to callers that stream: a core with the widest match of context on both sides.
#[test]
fn a_window_with_context_covers_its_core_as_the_whole_text_does() {
    let mut random = Random::new(3);
    for round in 0..60 {
        let text = tangle(&mut random, 8000);
        let whole = covered(&text, KindSet::ALL);
        let core = 1 + random.below(2 * WIDTH_BYTES_MAX as u64) as usize;
        for from in (0..text.len()).step_by(core) {
            let to = text.len().min(from + core);
            let (left, right) = (from.saturating_sub(WIDTH_BYTES_MAX), text.len().min(to + WIDTH_BYTES_MAX));
            let window = covered(&text[left..right], KindSet::ALL);
            assert!(window[from - left..to - left] == whole[from..to], "round {round}, {from}..{to}");
        }
    }
}

#[test]
fn no_text_makes_the_scanner_look_at_a_byte_more_than_24_times() {
    const BYTES: usize = 1 << 20;
    let long = "a".repeat(70);
    let patterns = [
        "@",
        "+",
        "4",
        "1",
        "a@",
        "@a",
        "@a.",
        "a@a.aa",
        "+1",
        "+1 ",
        "+4 ",
        "+49 3",
        "4444 ",
        "4444-",
        "4 ",
        "44444444 ",
        "444444 4444444444444 ",
        "4444 444444 ",
        "DE89",
        "de11 ",
        "AD12",
        "LC14BOSL1234",
        "123-45-6789",
        "123 45 6789 ",
        "4111111111111111 ",
        "+14155552671",
        "+14155552671a",
        "\\n",
        "é",
        "é@é.é",
        "\u{ff}",
        ".",
        "'",
        "a'",
        &long,
        "",
    ];
    for pattern in patterns {
        let text =
            if pattern.is_empty() { vec![0xBF; BYTES] } else { pattern.repeat(BYTES / pattern.len()).into_bytes() };
        STEPS.set(0);
        scan(&text, KindSet::ALL, |_| {});
        let steps = STEPS.get();
        assert!(steps <= 24 * text.len(), "{pattern:?}: {} steps a byte", steps / text.len());
    }
}

#[test]
fn any_bytes_are_accepted() {
    let mut random = Random::new(4);
    for _ in 0..2000 {
        let length = random.below(200);
        let mut text: Vec<u8> =
            (0..length).map(|_| random.pick(b"@@..--  ++a'\\4DE89\x80\xBF\xC3\xE2\xF0\xFF\x00")).collect();
        text.extend(tangle(&mut random, 20));
        let cut = random.below(text.len() as u64) as usize;
        scan(&text[cut..], KindSet::ALL, |m| assert!(m.end <= text.len() - cut));
    }
}

#[test]
fn a_kind_that_is_not_asked_for_is_not_reported() {
    let text = b"ada@example.com 4111111111111111 123-45-6789 +14155552671 DE89370400440532013000";
    assert_eq!(matches(text, KindSet::ALL).len(), 5);
    for kind in Kind::ALL {
        let found = matches(text, only(kind));
        assert!(found.len() == 1 && found[0].kind == kind, "{kind:?}: {found:?}");
        assert!(!may_contain(b"nothing to see", only(kind)));
    }
    assert!(matches(text, KindSet::default()).is_empty() && !may_contain(text, KindSet::default()));
}

#[test]
fn names_and_bits_are_those_that_policies_and_artifacts_hold() {
    let names = ["payment-card", "us-ssn", "email", "phone", "iban"];
    for (bit, (kind, name)) in Kind::ALL.into_iter().zip(names).enumerate() {
        assert_eq!((kind.name(), kind as usize, Kind::parse(name)), (name, bit, Some(kind)));
        assert!(KindSet::from_bits(1 << bit).has(kind) && !KindSet::from_bits(!(1 << bit)).has(kind));
    }
    assert_eq!(Kind::parse("Email"), None);
    assert!(KindSet::from_bits(0xFFE0).is_empty());
}
