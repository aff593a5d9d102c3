//! The labelled corpus: a deterministic generator that knows the formats in its own words (not the detectors'), and
//! the measures of recall and false positives that are taken with it.
//!
//! `tests/corpus/detect/` keeps a part of it for people and other tools. After a change of the generator:
//! `cargo test -p policy-compiler detect::corpus::write -- --ignored`.

use super::tests::{matches, only, unmarked};
use super::{Kind, KindSet};

const POSITIVE_CELLS: usize = 100_000;
const NEGATIVE_CELLS: usize = 1_000_000;
const COMMITTED_CELLS: usize = 1_500;

/// xorshift64*: the same cells on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed * 2 + 1)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn string(&mut self, alphabet: &str, length: u64) -> String {
        (0..length).map(|_| char::from(self.pick(alphabet.as_bytes()))).collect()
    }

    fn digits(&mut self, length: u64) -> String {
        self.string("0123456789", length)
    }
}

/// A synthetic value of a kind, valid by its own rules.
pub(super) fn value(random: &mut Random, kind: Kind) -> String {
    match kind {
        Kind::PaymentCard => card(random),
        Kind::UsSsn => ssn(random),
        Kind::Email => email(random),
        Kind::Phone => phone(random),
        Kind::Iban => iban(random),
    }
}

fn card(random: &mut Random) -> String {
    let (prefix, length, groups) = random.pick(&[
        ("4", 16, &[4, 4, 4, 4][..]),
        ("4", 13, &[4, 3, 3, 3]),
        ("4", 19, &[4, 4, 4, 4, 3]),
        ("51", 16, &[4, 4, 4, 4]),
        ("55", 16, &[4, 4, 4, 4]),
        ("2221", 16, &[4, 4, 4, 4]),
        ("2720", 16, &[4, 4, 4, 4]),
        ("34", 15, &[4, 6, 5]),
        ("37", 15, &[4, 6, 5]),
        ("6011", 16, &[4, 4, 4, 4]),
        ("65", 16, &[8, 8]),
        ("36", 14, &[4, 6, 4]),
        ("3530", 16, &[4, 4, 4, 4]),
        ("62", 16, &[4, 4, 4, 4]),
        ("62", 19, &[6, 13]),
        ("2202", 16, &[4, 4, 4, 4]),
    ]);
    let mut digits = format!("{prefix}{}", random.digits(length - 1 - prefix.len() as u64));
    let check = ('0'..='9').find(|c| luhn_sum(&format!("{digits}{c}")) % 10 == 0);
    digits.push(check.expect("one of ten digits makes the sum a multiple of ten"));
    match random.below(3) {
        0 => digits,
        1 => grouped(&digits, groups, ' '),
        _ => grouped(&digits, groups, '-'),
    }
}

fn luhn_sum(digits: &str) -> u32 {
    let value = |c: char| c as u32 - '0' as u32;
    digits
        .chars()
        .rev()
        .enumerate()
        .map(|(i, c)| if i % 2 == 0 { value(c) } else { value(c) * 2 / 10 + value(c) * 2 % 10 })
        .sum()
}

fn grouped(digits: &str, groups: &[usize], separator: char) -> String {
    let (mut text, mut at) = (String::new(), 0);
    for group in groups {
        if at > 0 {
            text.push(separator);
        }
        text.push_str(&digits[at..at + group]);
        at += group;
    }
    text
}

fn ssn(random: &mut Random) -> String {
    let area = loop {
        let area = 1 + random.below(899);
        if area != 666 {
            break area;
        }
    };
    let separator = random.pick(&['-', '-', '-', ' ']);
    format!("{area:03}{separator}{:02}{separator}{:04}", 1 + random.below(99), 1 + random.below(9999))
}

fn email(random: &mut Random) -> String {
    let local =
        random.pick(&["ada", "ada.lovelace", "a", "j_doe-3", "info+tag", "müller", "x1", "o'brien", "%relay", "ΑΒ"]);
    let host = random.pick(&["example", "mail.example", "exämple", "a-b.c", "x1.y2", "xn--exmple-cua"]);
    let top = random.pick(&["com", "org", "co.uk", "museum", "xn--p1ai", "рф", "io"]);
    format!("{local}{}@{host}.{top}", random.below(1000))
}

fn phone(random: &mut Random) -> String {
    let (a, b, c, d) = (2 + random.below(8), random.digits(2), random.digits(3), random.digits(4));
    match random.below(7) {
        0 => format!("+1{a}{b}{c}{d}"),
        1 => format!("+1 ({a}{b}) {c}-{d}"),
        2 => format!("+1-{a}{b}-{c}-{d}"),
        3 => format!("+44 20 {d} {}", random.digits(4)),
        4 => format!("+49{a}{b}{c}{}", random.digits(2)),
        5 => format!("+353.{a}{b}{d}"),
        _ => format!("+{}{a}{b}{c}{d}", random.pick(&["33", "380", "971", "86", "55", "852"])),
    }
}

fn iban(random: &mut Random) -> String {
    const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let (country, bban) = match random.below(7) {
        0 => ("DE", random.digits(18)),
        1 => ("GB", random.string(UPPER, 4) + &random.digits(14)),
        2 => ("FR", random.digits(10) + &random.string("0123456789ABC", 11) + &random.digits(2)),
        3 => ("NO", random.digits(11)),
        4 => ("MT", random.string(UPPER, 4) + &random.digits(5) + &random.string("0123456789XYZ", 18)),
        5 => ("NL", random.string(UPPER, 4) + &random.digits(10)),
        _ => ("BE", random.digits(12)),
    };
    // ISO 13616: with 00 in its place, what is missing to 98 is the check number.
    let decimal = format!("{bban}{country}00").chars().fold(0, |rest, c| match c.to_digit(36) {
        Some(value @ 10..) => (rest * 100 + value) % 97,
        Some(digit) => (rest * 10 + digit) % 97,
        None => rest,
    });
    let check = 98 - decimal;
    let compact = format!("{country}{check:02}{bban}");
    let fours = [4; 8].into_iter().take(compact.len() / 4).chain([compact.len() % 4]).filter(|n| *n > 0);
    match random.below(3) {
        0 => compact,
        1 => compact.to_lowercase(),
        _ => grouped(&compact, &fours.collect::<Vec<_>>(), ' '),
    }
}

/// A row with one value marked «…», in one of the surroundings that results have.
pub(super) fn positive(random: &mut Random, kind: Kind) -> String {
    const AROUND: [(&str, &str); 20] = [
        ("", ""),
        ("{\"v\":\"", "\"}"),
        ("{\"v\": [\"a\", \"", "\"], \"n\": 1}"),
        ("id=7;v=", ";w=1"),
        ("v='", "'"),
        ("INSERT INTO t VALUES ('", "', 1)"),
        ("(", ")"),
        ("{", ",b}"),
        ("7,", ",x"),
        ("7\t", "\t2026-11-23"),
        ("a|", "|b"),
        ("see ", " for more"),
        ("see ", "."),
        ("first line\\n", "\\nlast line"),
        ("first line\n", "\nlast line"),
        ("<v>", "</v>"),
        ("[", "]"),
        ("v:", ", w"),
        ("“", "” said"),
        ("\"", "\",\"2\""),
    ];
    let (before, after) = random.pick(&AROUND);
    format!("{before}«{}»{after}", value(random, kind))
}

const CLASSES: u64 = 22;

/// A cell without personal data, of one of the classes that databases are full of.
pub(super) fn negative(random: &mut Random, class: u64) -> String {
    const HEX: &str = "0123456789abcdef";
    let n = random.below(1 << 40);
    let (a, b, c) = (random.below(10_000), random.below(100), random.below(60));
    match class {
        0 => format!(
            "{}-{}-4{}-8{}-{}",
            random.string(HEX, 8),
            random.string(HEX, 4),
            random.string(HEX, 3),
            random.string(HEX, 3),
            random.string(HEX, 12)
        ),
        1 => format!(
            "20{:02}-{:02}-{:02} {:02}:{c:02}:{:02}.{:06}+0{}:00",
            b,
            1 + n % 12,
            1 + n % 28,
            n % 24,
            a % 60,
            n % 1_000_000,
            n % 10
        ),
        2 => format!("20{b:02}{:02}{:02}{:02}{c:02}{:02}", 1 + n % 12, 1 + n % 28, n % 24, a % 60),
        3 => random.string(HEX, 32),
        4 => random.string(HEX, 40),
        5 => random.string(HEX, 64).to_uppercase(),
        6 => random.string(HEX, 7),
        7 => format!("{}.{}", a, random.digits(2)),
        8 => format!("0.{}", random.digits(16 + n % 2)),
        9 => format!("-{}.{}e-{b:02}", n % 10, random.digits(15)),
        10 => format!("v{}.{b}.{c}-rc.{}+build.{a}", n % 10, n % 7),
        11 => format!("lodash@{}.{b}.{c}", n % 10),
        12 => format!("@user{a} thanks @team_{b}!"),
        13 => format!("ORD-20{b:02}-{:06}", n % 1_000_000),
        14 => format!("{}.{}.{}.{}:{a}", n % 256, a % 256, b, c),
        15 => format!("{}:{}::{}", random.string(HEX, 4), random.string(HEX, 4), random.string(HEX, 4)),
        16 => format!("EUR {}.{}.{:03},{b:02}", n % 100, 100 + a % 900, n % 1000),
        17 => format!("{n}+{} = {a} + {b}", n % 1_000_000_007),
        18 => format!("17{}", random.digits(11 + 3 * (n % 2))),
        19 => format!("\\x{}", random.string(HEX, 48)),
        20 => random.string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 44),
        _ => format!("{}/{} {}-{}-{}", n % 1_000_000, a, random.digits(3), random.digits(3), b),
    }
}

#[test]
fn recall_is_at_least_999_in_1000_for_every_kind() {
    for kind in Kind::ALL {
        let mut random = Random::new(kind as u64);
        let mut missed = Vec::new();
        for _ in 0..POSITIVE_CELLS {
            let row = positive(&mut random, kind);
            let (text, ranges) = unmarked(&row);
            let (start, end) = ranges[0];
            let hits = matches(text.as_bytes(), only(kind));
            if !hits.iter().any(|m| m.start <= start && m.end >= end) {
                missed.push(row);
            }
        }
        println!("{}: {} of {POSITIVE_CELLS} missed", kind.name(), missed.len());
        assert!(
            missed.len() * 1000 <= POSITIVE_CELLS,
            "{kind:?}: {} missed, such as {:?}",
            missed.len(),
            missed.first()
        );
    }
}

#[test]
fn at_most_one_cell_in_100_000_without_personal_data_is_marked() {
    let mut random = Random::new(99);
    let mut wrong = Vec::new();
    for i in 0..NEGATIVE_CELLS as u64 {
        let cell = negative(&mut random, i % CLASSES);
        if !matches(cell.as_bytes(), KindSet::ALL).is_empty() {
            wrong.push(cell);
        }
    }
    println!("{} of {NEGATIVE_CELLS} marked: {wrong:?}", wrong.len());
    assert!(wrong.len() * 100_000 <= NEGATIVE_CELLS, "{} marked, such as {:?}", wrong.len(), wrong.first());
}

/// Nothing in such a number tells it from a card, so the rate is stated, not hidden: see the families' docs.
#[test]
fn random_digits_are_taken_for_cards_at_the_documented_rate() {
    for (length, expected) in
        [(13, 0.010), (14, 0.004), (15, 0.006), (16, 0.033), (17, 0.013), (18, 0.013), (19, 0.022)]
    {
        let mut random = Random::new(length);
        let count = 100_000;
        let marked = (0..count).filter(|_| !matches(random.digits(length).as_bytes(), KindSet::ALL).is_empty()).count();
        let rate = marked as f64 / f64::from(count);
        println!("{length} random digits: {rate:.4}");
        assert!((rate - expected).abs() < expected * 0.2, "{length} digits: {rate} instead of {expected}");
    }
}

fn committed() -> [(&'static str, String); 2] {
    let mut random = Random::new(2026);
    let mut positives = String::from("# kind, then a row (JSON-escaped) with its value marked «…»\n");
    let mut negatives = String::from("# one cell a line (JSON-escaped), nothing to be found\n");
    for i in 0..COMMITTED_CELLS {
        let kind = Kind::ALL[i % Kind::ALL.len()];
        let row = serde_json::to_string(&positive(&mut random, kind)).expect("a string has a JSON form");
        positives += &format!("{}\t{row}\n", kind.name());
        let cell = negative(&mut random, i as u64 % CLASSES);
        negatives += &(serde_json::to_string(&cell).expect("a string has a JSON form") + "\n");
    }
    [("positive.txt", positives), ("negative.txt", negatives)]
}

fn folder() -> std::path::PathBuf {
    std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
        .join("../tests/corpus/detect")
}

#[test]
fn the_committed_corpus_is_what_the_generator_writes() {
    for (name, text) in committed() {
        let stored = std::fs::read_to_string(folder().join(name)).unwrap_or_default();
        assert!(stored == text, "{name} differs: see the head of corpus.rs for how to write it anew");
    }
}

#[test]
#[ignore = "writes the corpus into the source tree"]
fn write() {
    std::fs::create_dir_all(folder()).expect("tests/corpus/detect can be made");
    for (name, text) in committed() {
        std::fs::write(folder().join(name), text).expect("the corpus can be written");
    }
}
