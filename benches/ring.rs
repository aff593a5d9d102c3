//! The ring on one core: a record written in place and committed; and the same with the recorder's copying out and release.
//!
//! `cargo bench -p benches --bench ring`

use std::hint::black_box;
use std::sync::atomic::AtomicU64;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ring::record::HEADER_BYTES;
use ring::{CAPACITY_BYTES_DEFAULT, Consumer, Flags, Kind, Producer, Words};

type Memory = Words<Vec<AtomicU64>>;

fn record(producer: &mut Producer<&Memory>, payload: &[u8]) {
    let mut claim = producer.try_claim(payload.len()).expect("the ring has room");
    claim.write(payload).expect("it fits what was claimed");
    let _ = black_box(claim.commit(Kind::Request, Flags::WHOLE, 1, 2));
}

fn drain(consumer: &mut Consumer<&Memory>, into: &mut Vec<u8>) -> usize {
    let mut records = 0;
    let mut last = None;
    into.clear();
    while let Some(record) = consumer.poll(into).expect("the ring is sound") {
        records += 1;
        last = Some((record.end_position, record.header.seq));
    }
    if let Some((position, seq)) = last {
        consumer.release(position, seq).expect("one consumer");
    }
    records
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    for bytes in [64, 1024, 16 * 1024] {
        let memory = Memory::heap(CAPACITY_BYTES_DEFAULT, 1);
        let mut producer = Producer::attach(&memory).expect("a fresh ring");
        let mut consumer = Consumer::attach(&memory).expect("a fresh ring");
        let payload = vec![0xa5; bytes];
        // A quarter of the ring at a time, so that it never fills.
        let burst = CAPACITY_BYTES_DEFAULT / 4 / (bytes + HEADER_BYTES);
        let mut copied = Vec::with_capacity(CAPACITY_BYTES_DEFAULT);
        group.throughput(Throughput::ElementsAndBytes { elements: burst as u64, bytes: (burst * bytes) as u64 });
        group.bench_function(BenchmarkId::new("write-and-poll", bytes), |b| {
            b.iter(|| {
                (0..burst).for_each(|_| record(&mut producer, black_box(&payload)));
                assert_eq!(drain(&mut consumer, &mut copied), burst);
            });
        });
        group.bench_function(BenchmarkId::new("write", bytes), |b| {
            let refill = || drain(&mut consumer, &mut copied);
            b.iter_batched(
                refill,
                |_| (0..burst).for_each(|_| record(&mut producer, black_box(&payload))),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, records);
criterion_main!(benches);
