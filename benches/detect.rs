//! Throughput of the PII scanner on one core, all five kinds on. Each definition says what the input is and how many
//! matches it must give, so that a fast wrong answer is no result.
//!
//! `cargo bench -p benches --bench detect`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use policy_compiler::detect::{KindSet, may_contain, scan};

const INPUT_BYTES: usize = 4 << 20;

/// One input, and how many matches a scan of the whole finds in each of its lines.
struct Definition {
    name: &'static str,
    line: fn(u64) -> String,
    matches_in: fn(u64) -> usize,
}

const DEFINITIONS: [Definition; 7] = [
    // Free text: hardly any digit, so blocks end at the first test.
    Definition {
        name: "none-prose",
        line: |_| "the customer asked for delivery to the side door and paid\n".into(),
        matches_in: |_| 0,
    },
    // Rows of an order table: ids, times, amounts, a name.
    Definition { name: "none-rows", line: order, matches_in: |_| 0 },
    // Half of each row is a UUID: hex digits are the prefilter's worst honest input.
    Definition {
        name: "none-uuid",
        line: |n| {
            format!(
                "{n}\t{:08x}-{:04x}-4{:03x}-9{:03x}-{:012x}\n",
                mix(n) as u32,
                mix(n) >> 48,
                mix(n) >> 8 & 0xFFF,
                mix(n) >> 20 & 0xFFF,
                mix(n + 1) >> 16 | 0xF << 44
            )
        },
        matches_in: |_| 0,
    },
    // One row in a hundred has personal data: the case of `performance.md`.
    Definition {
        name: "sparse",
        line: |n| if n % 100 == 0 { personal(n) } else { order(n) },
        matches_in: |n| if n % 100 == 0 { 5 } else { 0 },
    },
    Definition { name: "dense", line: personal, matches_in: |_| 5 },
    // Every group may begin a card, none does.
    Definition { name: "adversarial-groups", line: |_| "4444 ".into(), matches_in: |_| 0 },
    Definition { name: "adversarial-at", line: |_| "a@".into(), matches_in: |_| 0 },
];

/// splitmix64: spreads a line number over 64 bits.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    n ^ (n >> 27)
}

fn order(n: u64) -> String {
    let r = mix(n);
    format!(
        "{n}\t2026-11-{:02} 09:{:02}:51.{:06}+00\t{}.{:02}\tshipped\tBerlin Mitte, 2nd floor\n",
        r % 28 + 1,
        r % 60,
        r % 1_000_000,
        r % 9999,
        r % 100
    )
}

fn personal(n: u64) -> String {
    let r = mix(n);
    format!(
        "ada{}@example.com\t4111 1111 1111 1111\t{:03}-{:02}-{:04}\t+4420794{:05}\tDE89370400440532013000\n",
        r % 10_000,
        r % 600 + 1,
        r % 98 + 1,
        r % 9998 + 1,
        r % 100_000
    )
}

/// The text of a definition and the matches that it must give.
fn input(definition: &Definition) -> (String, usize) {
    let (mut text, mut expected, mut n) = (String::new(), 0, 0);
    while text.len() < INPUT_BYTES {
        text += &(definition.line)(n);
        expected += (definition.matches_in)(n);
        n += 1;
    }
    (text, expected)
}

fn count(text: &[u8], cell_bytes: usize) -> usize {
    let mut found = 0;
    for cell in text.chunks(cell_bytes) {
        scan(black_box(cell), KindSet::ALL, |_| found += 1);
    }
    found
}

fn detect(c: &mut Criterion) {
    let mut group = c.benchmark_group("detect");
    group
        .sample_size(20)
        .measurement_time(std::time::Duration::from_secs(1))
        .warm_up_time(std::time::Duration::from_millis(200));
    for definition in &DEFINITIONS {
        let (text, expected) = input(definition);
        let text = text.as_bytes();
        assert_eq!(count(text, text.len()), expected, "{}", definition.name);
        group.throughput(Throughput::Bytes(text.len() as u64));
        for (how, cell_bytes) in [("whole", text.len()), ("cells-of-32", 32)] {
            group.bench_function(BenchmarkId::new(definition.name, how), |b| b.iter(|| count(text, cell_bytes)));
        }
        group.bench_function(BenchmarkId::new(definition.name, "prefilter"), |b| {
            b.iter(|| text.chunks(1024).filter(|row| may_contain(black_box(row), KindSet::ALL)).count())
        });
    }
    group.finish();
}

criterion_group!(benches, detect);
criterion_main!(benches);
