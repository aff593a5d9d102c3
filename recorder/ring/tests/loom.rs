//! Every interleaving of one producer and one consumer around the end of the ring, on loom's memory model.
//! Run with `cargo test -p ring --features loom --test loom`.

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use ring::layout::{CONTROL_BYTES, Memory};
use ring::{Consumer, Flags, Kind, Producer};
use std::sync::atomic::Ordering;

const CAPACITY_BYTES: usize = 256;

/// Cells for the data and for one control word in eight; the words that nobody changes are constants.
struct Cells {
    control: Vec<AtomicU64>,
    data: Vec<AtomicU64>,
}

impl Cells {
    fn new() -> Self {
        let cells = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Cells { control: cells(20), data: cells(CAPACITY_BYTES / 8) }
    }

    fn cell(&self, index: usize) -> &AtomicU64 {
        match index.checked_sub(CONTROL_BYTES / 8) {
            Some(index) => &self.data[index],
            None => &self.control[index / 8 + index % 8],
        }
    }
}

impl Memory for Cells {
    fn words(&self) -> usize {
        (CONTROL_BYTES + CAPACITY_BYTES) / 8
    }

    fn load(&self, index: usize, order: Ordering) -> u64 {
        match index {
            0 => ring::layout::MAGIC,
            1 => ring::layout::VERSION,
            2 => CAPACITY_BYTES as u64,
            3 => 1,
            _ => self.cell(index).load(order),
        }
    }

    fn store(&self, index: usize, value: u64, order: Ordering) {
        self.cell(index).store(value, order);
    }

    fn increment(&self, index: usize) -> u64 {
        self.cell(index).fetch_add(1, Ordering::SeqCst) + 1
    }
}

fn put(producer: &mut Producer<&Cells>, payload: [u8; 8]) -> bool {
    let Ok(mut claim) = producer.try_claim(8) else { return false };
    claim.write(&payload).unwrap();
    let _ = claim.commit(Kind::Note, Flags::WHOLE, 3, 4);
    true
}

fn take(consumer: &mut Consumer<&Cells>) -> Option<(u64, u8)> {
    let mut bytes = Vec::new();
    let record = consumer.poll(&mut bytes).expect("an honest producer never poisons")?;
    assert!(bytes[32..].iter().all(|byte| *byte == bytes[32]), "a record was seen before it was whole");
    consumer.release(record.end_position, record.header.seq).unwrap();
    Some((record.header.seq, bytes[32]))
}

#[test]
fn no_interleaving_shows_half_a_record_or_overwrites_an_unreleased_one() {
    let model = loom::model::Builder::new();
    model.check(|| {
        let cells = Arc::new(Cells::new());
        let mut consumer_cells = Consumer::attach(&*cells).unwrap();
        let mut first = Producer::attach(&*cells).unwrap();
        // Four records of 40 bytes are released and two are left: the next one wraps, and fits only after a release.
        for n in 0..6 {
            assert!(put(&mut first, [n; 8]));
        }
        (0..4).for_each(|_| assert!(take(&mut consumer_cells).is_some()));
        drop((first, consumer_cells));

        let shared = cells.clone();
        let writer = loom::thread::spawn(move || {
            let mut producer = Producer::attach(&*shared).unwrap();
            (6..8).filter(|n| put(&mut producer, [*n; 8])).count() as u64
        });
        let mut consumer = Consumer::attach(&*cells).unwrap();
        let mut last = 4;
        let mut check = |taken: Option<(u64, u8)>| {
            if let Some((seq, byte)) = taken {
                assert_eq!((seq, u64::from(byte)), (last + 1, last));
                last = seq;
            }
        };
        (0..3).for_each(|_| check(take(&mut consumer)));
        let written = writer.join().unwrap();
        (0..3).for_each(|_| check(take(&mut consumer)));
        assert_eq!(last, 6 + written);
    });
}
