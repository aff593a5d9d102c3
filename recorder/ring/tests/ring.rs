//! The ring against a plain queue, and against a producer that lies.

use ring::layout::CONTROL_BYTES;
use ring::{AttachError, ClaimError, Consumer, Flags, Gap, Kind, Level, Memory, Poisoned, Producer, Words};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

type Heap = Words<Vec<AtomicU64>>;

/// SplitMix64: enough randomness for a test, the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB) >> 7
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[test]
fn records_of_any_size_come_out_as_they_went_in_across_the_end() {
    let memory = Heap::heap(4096, 1);
    let (mut producer, mut consumer) = (Producer::attach(&memory).unwrap(), Consumer::attach(&memory).unwrap());
    let (mut random, mut queue, mut seq, mut full) = (Random(1), VecDeque::new(), 0, 0);
    for _ in 0..100_000 {
        if random.below(2) == 0 {
            let payload: Vec<u8> = (0..random.below(513)).map(|n| (n * 7 + seq) as u8).collect();
            match producer.try_claim(payload.len() + random.below(513 - payload.len() as u64) as usize) {
                Ok(mut claim) => {
                    let mut rest = &payload[..];
                    while !rest.is_empty() {
                        let (part, after) = rest.split_at(1 + random.below(rest.len() as u64) as usize);
                        claim.write(part).unwrap();
                        rest = after;
                    }
                    if random.below(8) > 0 {
                        seq += 1;
                        assert_eq!(claim.commit(Kind::Request, Flags::CLIENT, seq * 3, seq * 5).seq, seq);
                        queue.push_back((seq, payload));
                    }
                }
                Err(ClaimError::Full) => full += 1,
                Err(other) => panic!("{other}"),
            }
        } else {
            let mut bytes = Vec::new();
            let Some(record) = consumer.poll(&mut bytes).unwrap() else {
                assert!(queue.is_empty());
                continue;
            };
            let (seq, payload) = queue.pop_front().unwrap();
            let header = record.header;
            assert_eq!((header.seq, header.session, header.time_unix_ns), (seq, seq * 3, seq * 5));
            assert_eq!((header.kind, header.flags, &bytes[32..]), (Kind::Request, Flags::CLIENT, &payload[..]));
            consumer.release(record.end_position, seq).unwrap();
            assert_eq!(producer.durable_seq(), seq);
        }
    }
    assert!(full > 1000 && seq > 10_000, "full {full}, records {seq}");
}

#[test]
fn a_full_ring_refuses_until_the_recorder_has_flushed() {
    let memory = Heap::heap(1024, 1);
    let (mut producer, mut consumer) = (Producer::attach(&memory).unwrap(), Consumer::attach(&memory).unwrap());
    let mut last = None;
    while let Ok(claim) = producer.try_claim(96) {
        last = Some(claim.commit(Kind::Note, Flags::WHOLE, 0, 0));
    }
    assert_eq!(producer.try_claim(129).err(), Some(ClaimError::TooLarge));
    assert!(producer.used_fraction() > 0.9 && producer.free_bytes() < 128);
    assert_eq!(producer.skip().level, Level::L0);
    let _ = producer.skip();
    assert_eq!(producer.take_gap(), Some(Gap { first_seq: last.unwrap().seq + 1, count: 2 }));
    let mut bytes = Vec::new();
    while consumer.poll(&mut bytes).unwrap().is_some() {}
    assert_eq!(producer.try_claim(96).err(), Some(ClaimError::Full), "reading alone frees nothing");
    assert_eq!(producer.confirm(last.unwrap()), None);
    consumer.release(consumer.position(), last.unwrap().seq).unwrap();
    assert!(producer.try_claim(96).is_ok());
    assert_eq!(producer.confirm(last.unwrap()).unwrap().level, Level::L2);
}

/// Words of the control page that a hostile producer may write, and the first words of data.
const TARGETS: [usize; 8] = [16, 16, 16, 32, 48, 113, CONTROL_BYTES / 8, CONTROL_BYTES / 8 + 5];

#[test]
fn a_million_polls_of_a_lying_producer_never_panic_and_never_show_a_bad_record() {
    let mut random = Random(2);
    let (mut polls, mut shown, mut poisoned) = (0_u32, 0_u32, 0_u32);
    let mut bytes = Vec::new();
    while polls < 1_000_000 {
        let memory = Heap::heap(1024, 1);
        let mut consumer = Consumer::attach(&memory).unwrap();
        let mut producer = Producer::attach(&memory).unwrap();
        for _ in 0..20 {
            if let Ok(mut claim) = producer.try_claim(random.below(129) as usize) {
                claim.write(&[1; 8][..claim.room_bytes().min(8)]).unwrap();
                let _ = claim.commit(Kind::Note, Flags::NONE, 1, 1);
            }
            lie(&memory, &mut random);
            bytes.clear();
            polls += 1;
            match consumer.poll(&mut bytes) {
                Ok(Some(record)) => {
                    shown += 1;
                    assert_eq!(bytes.len(), record.header.length as usize);
                    assert!(record.header.payload_bytes() <= 128 && record.end_position == consumer.position());
                    consumer.release(record.end_position, record.header.seq).unwrap();
                }
                Ok(None) => assert!(bytes.is_empty()),
                Err(_) => {
                    poisoned += 1;
                    assert!(bytes.is_empty() && consumer.poll(&mut bytes).is_err(), "poison stays");
                    break;
                }
            }
        }
    }
    assert!(shown > 10_000 && poisoned > 10_000, "shown {shown}, poisoned {poisoned}");
}

fn lie(memory: &Heap, random: &mut Random) {
    for _ in 0..random.below(3) {
        let index = match random.below(2) {
            0 => TARGETS[random.below(8) as usize],
            _ => CONTROL_BYTES / 8 + random.below(128) as usize,
        };
        let value = match random.below(4) {
            0 => random.next() << 7,
            1 => random.below(2048),
            2 => memory.load(index, Ordering::Relaxed).wrapping_add(random.below(64)).wrapping_sub(24),
            _ => random.below(200) | random.below(9) << 32,
        };
        memory.store(index, value, Ordering::Relaxed);
    }
}

#[test]
fn each_lie_is_named() {
    let data = CONTROL_BYTES / 8;
    let rows: [(usize, u64, Poisoned); 8] = [
        (16, 7, Poisoned::Position),
        (16, 1 << 40, Poisoned::Position),
        (data, 0, Poisoned::Length),
        (data, 31 | 7 << 32, Poisoned::Length),
        (data, 2000 | 7 << 32, Poisoned::Length),
        (data, 40 | 8 << 32, Poisoned::Header),
        (data, 40 | 7 << 32 | 1 << 63, Poisoned::Header),
        (data + 2, 9, Poisoned::Sequence { expected: 1, found: 9 }),
    ];
    for (index, value, why) in rows {
        let memory = Heap::heap(1024, 1);
        let mut producer = Producer::attach(&memory).unwrap();
        let mut consumer = Consumer::attach(&memory).unwrap();
        let _ = producer.try_claim(8).unwrap().commit(Kind::Note, Flags::NONE, 1, 1);
        memory.store(index, value, Ordering::Relaxed);
        assert_eq!(consumer.poll(&mut Vec::new()), Err(why));
    }
}

#[test]
fn a_recorder_that_lies_about_its_position_only_stops_the_producer() {
    for lie in [u64::MAX, 8, 1 << 20] {
        let memory = Heap::heap(1024, 1);
        let mut producer = Producer::attach(&memory).unwrap();
        while let Ok(claim) = producer.try_claim(1) {
            let _ = claim.commit(Kind::Note, Flags::NONE, 1, 1);
        }
        memory.store(32, lie, Ordering::Relaxed);
        assert_eq!(producer.try_claim(100).err(), Some(ClaimError::Full), "position {lie}");
        assert!(producer.free_bytes() <= 1024);
    }
}

/// Past the end of the numbers a record would have number 0, which counts as durable from the start.
#[test]
fn a_ring_whose_numbers_are_at_their_end_is_refused() {
    const DURABLE_SEQ: usize = 48;
    for (durable_seq, counts) in
        [(0, true), (1 << 63, true), ((1 << 63) + 1, false), (u64::MAX - 1, false), (u64::MAX, false)]
    {
        let memory = Heap::heap(4096, 1);
        memory.store(DURABLE_SEQ, durable_seq, Ordering::Relaxed);
        let attached = Producer::attach(&memory).map(|mut producer| {
            let claim = producer.try_claim(8).unwrap();
            claim.commit(Kind::Note, Flags::WHOLE, 1, 2).seq
        });
        assert_eq!(attached, if counts { Ok(durable_seq + 1) } else { Err(AttachError::Corrupt) });
    }
}
