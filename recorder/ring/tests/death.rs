//! A side dies at its n-th access to memory, for every n: nothing acknowledged is lost, nothing half is shown.

use ring::{Consumer, Flags, Kind, Memory, Producer, Words};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

type Heap = Words<Vec<AtomicU64>>;

/// Memory that no longer changes after `steps` accesses: what a process leaves when it is killed.
struct Mortal<'m> {
    memory: &'m Heap,
    steps: Cell<usize>,
}

impl Mortal<'_> {
    fn alive(&self) -> bool {
        self.steps.get() > 0
    }

    fn step(&self) -> bool {
        let alive = self.alive();
        self.steps.set(self.steps.get().saturating_sub(1));
        alive
    }
}

impl Memory for Mortal<'_> {
    fn words(&self) -> usize {
        self.memory.words()
    }
    fn load(&self, index: usize, order: Ordering) -> u64 {
        self.step();
        self.memory.load(index, order)
    }
    fn store(&self, index: usize, value: u64, order: Ordering) {
        if self.step() {
            self.memory.store(index, value, order);
        }
    }
    fn increment(&self, index: usize) -> u64 {
        if self.step() { self.memory.increment(index) } else { self.memory.load(index, Ordering::SeqCst) }
    }
}

/// What a record of this tag must carry: its length and every byte follow from the tag.
fn payload(tag: u8) -> Vec<u8> {
    vec![tag; 1 + usize::from(tag) * 7 % 31]
}

/// Commits one record, sometimes from a larger claim and in two parts.
fn put<M: Memory>(producer: &mut Producer<M>, tag: u8) -> Option<u64> {
    let payload = payload(tag);
    let claimed = if tag.is_multiple_of(3) { 32 } else { payload.len() };
    let mut claim = producer.try_claim(claimed).ok()?;
    let (head, tail) = payload.split_at(payload.len() / 2);
    claim.write(head).unwrap();
    claim.write(tail).unwrap();
    Some(claim.commit(Kind::Response, Flags::WHOLE, 5, 6).seq)
}

/// Reads all there is into `disk`, dropping what is there already, as the recorder does.
fn drain<M: Memory>(consumer: &mut Consumer<M>, disk: &mut BTreeMap<u64, u8>, alive: impl Fn(&M) -> bool) {
    let mut bytes = Vec::new();
    while let Some(record) = consumer.poll(&mut bytes).expect("an honest producer never poisons") {
        if !alive(consumer.memory()) {
            return;
        }
        let tag = bytes[32];
        assert_eq!(bytes[32..], payload(tag), "record {} is not whole", record.header.seq);
        let known = disk.insert(record.header.seq, tag);
        assert!(known.is_none_or(|known| known == tag), "record {} changed", record.header.seq);
        consumer.release(record.end_position, record.header.seq).unwrap();
        bytes.clear();
    }
}

fn assert_no_hole(disk: &BTreeMap<u64, u8>) {
    assert!(disk.keys().copied().eq(1..=disk.len() as u64), "sequence has a hole: {:?}", disk.keys());
}

/// One producer life of up to `steps` accesses; what it acknowledged goes into `ledger`.
fn producer_life(memory: &Heap, steps: usize, tags: std::ops::Range<u8>, ledger: &mut BTreeMap<u64, u8>) -> bool {
    let mortal = Mortal { memory, steps: Cell::new(steps) };
    let Ok(mut producer) = Producer::attach(&mortal) else { panic!("a killed peer never corrupts the ring") };
    for tag in tags {
        if tag % 4 == 1 && producer.try_claim(9).is_ok_and(|mut claim| claim.write(b"abort").is_err()) {
            panic!("five bytes fit nine");
        }
        let receipt = put(&mut producer, tag);
        if !mortal.alive() {
            return false;
        }
        ledger.extend(receipt.map(|seq| (seq, tag)));
    }
    true
}

#[test]
fn a_producer_that_dies_at_any_step_loses_nothing_it_acknowledged() {
    for first in 0.. {
        let mut finished = false;
        for second in [1, 2, 3, 5, 8, 13, 21, 34, usize::MAX] {
            let memory = Heap::heap(512, 1);
            let (mut ledger, mut disk) = (BTreeMap::new(), BTreeMap::new());
            let mut consumer = Consumer::attach(&memory).unwrap();
            // Move the positions on, so that the lives below cross the end of the ring.
            producer_life(&memory, usize::MAX, 1..7, &mut ledger);
            drain(&mut consumer, &mut disk, |_| true);
            finished = producer_life(&memory, first, 5..11, &mut ledger);
            drain(&mut consumer, &mut disk, |_| true);
            producer_life(&memory, second, 11..14, &mut ledger);
            drain(&mut consumer, &mut disk, |_| true);
            assert!(producer_life(&memory, usize::MAX, 14..18, &mut ledger));
            drain(&mut consumer, &mut disk, |_| true);
            assert_no_hole(&disk);
            for (seq, tag) in &ledger {
                assert_eq!(disk.get(seq), Some(tag), "record {seq} was acknowledged, first life {first} steps");
            }
        }
        if finished {
            assert!(first > 50, "the script takes more than fifty steps");
            return;
        }
    }
}

#[test]
fn a_recorder_that_dies_at_any_step_loses_nothing_and_repeats_only_what_it_can_drop() {
    for steps in 0.. {
        let memory = Heap::heap(256, 1);
        let (mut ledger, mut disk) = (BTreeMap::new(), BTreeMap::new());
        let mut producer = Producer::attach(&memory).unwrap();
        let mut put_all = |tags: std::ops::Range<u8>| {
            for tag in tags {
                ledger.extend(put(&mut producer, tag).map(|seq| (seq, tag)));
            }
        };
        put_all(0..4);
        let mortal = Mortal { memory: &memory, steps: Cell::new(steps) };
        let mut consumer = Consumer::attach(&mortal).unwrap();
        drain(&mut consumer, &mut disk, |mortal| mortal.alive());
        put_all(4..9);
        drain(&mut consumer, &mut disk, |mortal| mortal.alive());
        let finished = mortal.alive();
        let mut successor = Consumer::attach(&memory).unwrap();
        assert!(!finished || consumer.release(0, 0).is_err(), "the old recorder is fenced");
        drain(&mut successor, &mut disk, |_| true);
        put_all(9..12);
        drain(&mut successor, &mut disk, |_| true);
        assert_no_hole(&disk);
        assert_eq!(disk, ledger, "after {steps} steps");
        if finished {
            assert!(steps > 50);
            return;
        }
    }
}

#[test]
fn a_record_that_was_claimed_and_not_committed_becomes_padding() {
    let memory = Heap::heap(256, 1);
    let mut producer = Producer::attach(&memory).unwrap();
    assert_eq!(put(&mut producer, 1), Some(1));
    std::mem::forget(producer.try_claim(8).unwrap());
    let mut consumer = Consumer::attach(&memory).unwrap();
    let mut bytes = Vec::new();
    assert!(consumer.poll(&mut bytes).unwrap().is_some());
    assert_eq!(consumer.poll(&mut bytes), Ok(None));
    let mut successor = Producer::attach(&memory).unwrap();
    assert_eq!(producer.try_claim(1).err(), Some(ring::ClaimError::Fenced));
    assert_eq!(put(&mut successor, 2), Some(2));
    assert_eq!(consumer.poll(&mut bytes).unwrap().map(|record| record.header.seq), Some(2));
    assert_eq!(consumer.producer_first_seq(), 2);
}
