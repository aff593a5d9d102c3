//! The ring, while its other side writes what it wants. The first byte says whether the memory is mapped (bit 0), the second
//! how many honest records stand in it; then come commands of one byte with their arguments, see [`step`].
//!
//! What must hold: neither side panics, or reads outside; a record is as long as its header says and no longer than the format allows,
//! comes in its turn, and not more comes between two releases than the ring can hold; an error lasts.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use ring::record::HEADER_BYTES;
use ring::{Consumer, Flags, Header, Kind, Mapped, Memory, Poisoned, Producer, Words, layout, shm};

use super::input::Input;

const CAPACITY_BYTES: usize = 4096;
/// An eighth of the capacity: the format's limit.
const PAYLOAD_BYTES_MAX: usize = CAPACITY_BYTES / 8;
const WORDS: usize = (layout::CONTROL_BYTES + CAPACITY_BYTES) / 8;
/// Words of the control page that have a meaning; `RECORD.md`.
const CONTROL: [usize; 13] = [0, 1, 2, 3, 16, 32, 48, 64, 80, 96, 112, 113, 128];
const PRODUCER_POSITION: usize = 16;

struct Rings {
    heap: Words<Vec<AtomicU64>>,
    mapped: Mapped,
}

thread_local! {
    static RINGS: Rings = Rings {
        heap: Words::heap(CAPACITY_BYTES, 1),
        mapped: shm::map(shm::create(CAPACITY_BYTES).expect("a memfd")).expect("a mapping"),
    };
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mapped = input.byte() & 1 != 0;
    RINGS.with(|rings| match mapped {
        true => play(&rings.mapped, input),
        false => play(&rings.heap, input),
    });
}

fn play<M: Memory>(memory: &M, mut input: Input<'_>) {
    (0..WORDS).for_each(|word| memory.store(word, 0, Relaxed));
    layout::format(memory, CAPACITY_BYTES, 7);
    let mut sides = Sides {
        memory,
        producer: Producer::attach(memory).ok(),
        consumer: None,
        last: None,
        unreleased: 0,
        committed: 0,
        poisoned: None,
    };
    (0..input.byte() % 16).for_each(|n| sides.put(usize::from(n) * 40));
    while !input.is_empty() {
        sides.step(&mut input);
    }
    // Whatever was done to it, reading ends: no record is shorter than its header.
    let came = (0..=CAPACITY_BYTES / HEADER_BYTES).take_while(|_| sides.poll()).count();
    assert!(came <= CAPACITY_BYTES / HEADER_BYTES, "reading does not end");
}

struct Sides<'m, M: Memory> {
    memory: &'m M,
    producer: Option<Producer<&'m M>>,
    consumer: Option<Consumer<&'m M>>,
    last: Option<Last>,
    /// Bytes that were read since the last release.
    unreleased: u64,
    /// The highest position up to which the producer's side has ever said that it wrote.
    committed: u64,
    /// The error that was given: nothing that is written later heals it.
    poisoned: Option<Poisoned>,
}

#[derive(Clone, Copy)]
struct Last {
    seq: u64,
    end_position: u64,
}

impl<'m, M: Memory> Sides<'m, M> {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 12 {
            0 => drop(self.poll()),
            1 => self.release(),
            2 => self.put(input.byte().into()),
            3 => self.memory.store(CONTROL[usize::from(input.byte()) % CONTROL.len()], input.u64(), Relaxed),
            4 => self.memory.store(usize::from(input.u16()) % WORDS, input.u64(), Relaxed),
            5 => self.forge(input),
            6 => {
                let position = self.memory.load(PRODUCER_POSITION, Relaxed);
                self.memory.store(PRODUCER_POSITION, position.wrapping_add(u64::from(input.byte()) * 8), Relaxed);
            }
            7 => {
                self.look();
                self.consumer = Consumer::attach(self.memory).ok();
                (self.last, self.unreleased, self.poisoned) = (None, 0, None);
            }
            8 => self.producer = Producer::attach(self.memory).ok(),
            9 => {
                if let Some(consumer) = &mut self.consumer {
                    consumer.rewind();
                    (self.last, self.unreleased) = (None, 0);
                }
            }
            10 => {
                let Some(consumer) = &self.consumer else { return };
                consumer.beat(input.u64());
                consumer.take_wake();
                assert!(consumer.used_bytes() <= CAPACITY_BYTES && consumer.capacity_bytes() == CAPACITY_BYTES);
            }
            _ => {
                let Some(producer) = &self.producer else { return };
                assert!(producer.free_bytes() <= CAPACITY_BYTES, "more room than the ring has");
            }
        }
    }

    /// The dataplane's side records something.
    fn put(&mut self, bytes: usize) {
        let Some(producer) = &mut self.producer else { return };
        let Ok(mut claim) = producer.try_claim(bytes) else { return };
        assert!(claim.write(&vec![7; bytes]).is_ok(), "a claim takes what it was made for");
        let _ = claim.commit(Kind::Request, Flags::WHOLE, 1, 2);
    }

    /// A record that may be right, where the recorder reads next.
    fn forge(&mut self, input: &mut Input<'_>) {
        let Some(consumer) = &self.consumer else { return };
        let (length, kind, flags, ahead) = (input.u16(), input.byte(), input.byte(), input.byte());
        let seq = self.last.map_or(consumer.durable_seq(), |last| last.seq).wrapping_add(1 + u64::from(ahead % 4 == 3));
        let header = Header {
            length: length.into(),
            kind: Kind::from_u8(kind).unwrap_or(Kind::Pad),
            flags: Flags::from_bits(flags).unwrap_or(Flags::NONE),
            session: 1,
            seq,
            time_unix_ns: 1,
        };
        let word = layout::CONTROL_BYTES / 8 + consumer.position() as usize % CAPACITY_BYTES / 8;
        for (n, bytes) in header.to_bytes().chunks_exact(8).enumerate() {
            self.memory.store(
                word + n.min(WORDS - 1 - word),
                u64::from_le_bytes(bytes.try_into().expect("eight")),
                Relaxed,
            );
        }
    }

    fn look(&mut self) {
        self.committed = self.committed.max(self.memory.load(PRODUCER_POSITION, Relaxed));
    }

    /// Whether a record came.
    fn poll(&mut self) -> bool {
        self.look();
        let Some(consumer) = &mut self.consumer else { return false };
        let mut bytes = b"before".to_vec();
        let from = consumer.position();
        match consumer.poll(&mut bytes) {
            Ok(Some(record)) => {
                let (header, end) = (record.header, record.end_position);
                check_copy(&bytes, &header);
                assert!(end > from && end == consumer.position(), "the position did not move with the record");
                assert!(end <= self.committed, "a record that ends behind what was written");
                self.unreleased += end - from;
                assert!(self.unreleased <= CAPACITY_BYTES as u64, "more was read than the ring can hold");
                let in_turn = self.last.is_none_or(|last| last.seq.checked_add(1) == Some(header.seq));
                assert!(in_turn && header.seq > 0, "record {} came out of turn", header.seq);
                self.last = Some(Last { seq: header.seq, end_position: end });
                assert_eq!(self.poisoned, None, "a poisoned ring has healed");
                return true;
            }
            Ok(None) => {
                assert_eq!(bytes, b"before", "nothing came, and the buffer has changed");
                self.unreleased += consumer.position() - from;
                assert!(self.unreleased <= CAPACITY_BYTES as u64, "more was skipped than the ring can hold");
            }
            Err(why) => {
                assert_eq!(bytes, b"before", "an error, and the buffer has changed");
                assert!(self.poisoned.is_none_or(|before| before == why), "a poisoned ring is so for another reason");
                self.poisoned = Some(why);
                return false;
            }
        }
        assert_eq!(self.poisoned, None, "a poisoned ring has healed");
        false
    }

    fn release(&mut self) {
        let (Some(consumer), Some(last)) = (&mut self.consumer, self.last) else { return };
        match consumer.release(last.end_position, last.seq) {
            // Padding that was skipped behind the record is not released with it.
            Ok(()) => self.unreleased = consumer.position() - last.end_position,
            Err(fenced) => self.poisoned = Some(fenced),
        }
    }
}

/// What stands behind `before` in the buffer is the record of this header.
fn check_copy(bytes: &[u8], header: &Header) {
    assert_eq!(bytes.len(), 6 + header.length as usize, "the buffer has another length than the header says");
    assert!(header.payload_bytes() <= PAYLOAD_BYTES_MAX, "a record longer than the format allows");
    let copied = bytes[6..].first_chunk::<HEADER_BYTES>().and_then(Header::from_bytes);
    assert_eq!(copied, Some(*header), "the header is not the one that was copied");
}
