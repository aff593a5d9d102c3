//! Where messages end: the PostgreSQL framer over what a busy client sends and over what a bulk result brings.
//!
//! `cargo bench -p benches --bench framing`

use std::hint::black_box;

use benches::{customer, data_row, pgbench_request};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::protocol::postgres::framer::{self, Framed};

const INPUT_BYTES: usize = 1 << 20;

/// Repeats a message until the input is large enough; with the number of messages in it.
fn input(message: impl Fn(u64) -> Vec<u8>, frames_each: usize) -> (Vec<u8>, usize) {
    let (mut stream, mut frames) = (Vec::new(), 0);
    while stream.len() < INPUT_BYTES {
        stream.extend(message(frames as u64));
        frames += frames_each;
    }
    (stream, frames)
}

fn count(stream: &[u8]) -> usize {
    let (mut at, mut frames) = (0, 0);
    while let Framed::Frame { bytes, .. } = framer::next(&stream[at..]) {
        at += bytes;
        frames += 1;
    }
    assert_eq!(at, stream.len(), "the stream is whole");
    frames
}

fn row(n: u64) -> Vec<u8> {
    let values = customer(n, false);
    data_row(&values.each_ref().map(String::as_str))
}

fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    let inputs = [
        ("pgbench-prepared", input(pgbench_request, 4)),
        ("rows-of-100-bytes", input(row, 1)),
        ("rows-of-8-kib", input(|_| data_row(&[&"x".repeat(8192)]), 1)),
    ];
    for (name, (stream, frames)) in &inputs {
        assert_eq!(count(stream), *frames, "{name}");
        group.throughput(Throughput::ElementsAndBytes { elements: *frames as u64, bytes: stream.len() as u64 });
        group.bench_function(*name, |b| b.iter(|| count(black_box(stream))));
    }
    group.finish();
}

criterion_group!(benches, framing);
criterion_main!(benches);
