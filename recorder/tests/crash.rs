//! The machine or the recorder dies while a block is being written: whatever the disk then holds, nothing acknowledged
//! is lost, nothing half is read, and recording goes on without a hole.

mod support;

use recorder::recover::recover;
use recorder::segment;
use recorder::segment::writer::{Batch, Limits};
use ring::Producer;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use support::{Bench, Directory, Random, assert_complete, heap, problems, put_many, write};

const LIMITS: Limits = Limits { segment_bytes_max: 48 << 10, segment_age_ms_max: 3_600_000 };
const SECTOR_BYTES: usize = 512;

/// What the disk made of the bytes of the last write; `None` if not even the file's size has changed.
type Disk = fn(&Batch, &mut Random) -> Option<Vec<u8>>;

fn nothing(_: &Batch, _: &mut Random) -> Option<Vec<u8>> {
    None
}

fn all(batch: &Batch, _: &mut Random) -> Option<Vec<u8>> {
    Some(batch.bytes.clone())
}

fn prefix(batch: &Batch, random: &mut Random) -> Option<Vec<u8>> {
    Some(batch.bytes[..random.below(batch.bytes.len() as u64) as usize].to_vec())
}

fn zero_tail(batch: &Batch, random: &mut Random) -> Option<Vec<u8>> {
    let mut bytes = batch.bytes.clone();
    let from = random.below(bytes.len() as u64) as usize;
    bytes[from..].fill(0);
    Some(bytes)
}

fn torn_sectors(batch: &Batch, random: &mut Random) -> Option<Vec<u8>> {
    let mut bytes = batch.bytes.clone();
    for sector in bytes.chunks_mut(SECTOR_BYTES) {
        if random.below(3) == 0 {
            sector.fill(if random.below(2) == 0 { 0 } else { 0xa5 });
        }
    }
    Some(bytes)
}

fn flipped_bit(batch: &Batch, random: &mut Random) -> Option<Vec<u8>> {
    let mut bytes = batch.bytes.clone();
    let at = random.below(bytes.len() as u64) as usize;
    bytes[at] ^= 1 << random.below(8);
    Some(bytes)
}

fn crash(directory: &Path, batch: &Batch, bytes: &[u8]) {
    let path = segment::path(directory, batch.segment);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all_at(bytes, batch.offset).unwrap();
}

#[test]
fn recovery_loses_no_acknowledged_record_and_reads_no_garbage() {
    let disks: [(&str, Disk, u64); 6] = [
        ("nothing", nothing, 1),
        ("all", all, 1),
        ("prefix", prefix, 60),
        ("zero tail", zero_tail, 40),
        ("torn sectors", torn_sectors, 40),
        ("flipped bit", flipped_bit, 40),
    ];
    for (name, disk, tries) in disks {
        for seed in 0..tries {
            // The write that the crash hits: the first block with the head, one in the middle, one with the footer.
            for written in [0, 1, 3, 5] {
                one_crash(disk, &mut Random(seed), written, &format!("{name}, seed {seed}, after {written} writes"));
            }
        }
    }
}

fn one_crash(disk: Disk, random: &mut Random, written: u64, what: &str) {
    let directory = Directory::new();
    let path = directory.recordings();
    let ring = heap(256 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let mut bench = Bench::new(&[ring], LIMITS, Default::default());
    let mut next = 1;
    for _ in 0..written {
        put_many(&mut producer, 30, &mut next);
        write(&path, &bench.next_batch().unwrap());
        bench.core.done(Ok(()), bench.now);
    }
    assert_eq!(producer.durable_seq(), next - 1, "{what}");
    put_many(&mut producer, 30, &mut next);
    let batch = bench.next_batch().unwrap();
    if let Some(bytes) = disk(&batch, random) {
        crash(&path, &batch, &bytes);
    }
    drop(bench);
    let mut successor = Bench::recovered(&[ring], LIMITS, &path);
    put_many(&mut producer, 10, &mut next);
    successor.finish(&path);
    assert_eq!(producer.durable_seq(), next - 1, "{what}");
    assert_complete(&path, next - 1);
    assert_eq!(problems(&directory), [], "{what}");
}

#[test]
fn every_page_prefix_of_a_segment_recovers_to_its_whole_blocks() {
    let directory = Directory::new();
    let path = directory.recordings();
    let ring = heap(256 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let mut bench = Bench::new(&[ring], Limits::default(), Default::default());
    let (mut next, mut acknowledged) = (1, Vec::new());
    for _ in 0..5 {
        put_many(&mut producer, 12, &mut next);
        bench.write_all(&path);
        acknowledged.push((std::fs::metadata(segment::path(&path, 1)).unwrap().len(), next - 1));
    }
    let whole = acknowledged.last().unwrap().0;
    for bytes in (0..whole).step_by(SECTOR_BYTES).chain([whole - 1, 1, 4095]) {
        let copy = directory.copy();
        let file = OpenOptions::new().write(true).open(segment::path(&copy.recordings(), 1)).unwrap();
        file.set_len(bytes).unwrap();
        let recovered = recover(&copy.recordings()).unwrap();
        let last = acknowledged.iter().rev().find(|(end, _)| *end <= bytes).map_or(0, |(_, seq)| *seq);
        assert_complete(&copy.recordings(), last);
        let kept: u64 = recovered.torn.iter().map(|torn| std::fs::metadata(&torn.kept_in).unwrap().len()).sum();
        let good = acknowledged.iter().map(|(end, _)| *end).filter(|end| *end <= bytes).max();
        let good = good.unwrap_or(if bytes >= 4096 { 4096 } else { 0 });
        assert_eq!(kept, bytes - good, "at {bytes} bytes the torn tail is kept");
        assert_eq!(recover(&copy.recordings()).unwrap().torn, [], "a second recovery finds order");
    }
}

#[test]
fn a_recorder_that_dies_between_flush_and_release_writes_nothing_twice() {
    let directory = Directory::new();
    let path = directory.recordings();
    let ring = heap(256 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let mut next = 1;
    for _ in 0..4 {
        put_many(&mut producer, 5, &mut next);
        let mut bench = Bench::recovered(&[ring], LIMITS, &path);
        write(&path, &bench.next_batch().unwrap());
    }
    let mut bench = Bench::recovered(&[ring], LIMITS, &path);
    assert_eq!(bench.next_batch(), None);
    assert_eq!(producer.durable_seq(), next - 1);
    assert_eq!(producer.used_bytes(), 0);
    assert_complete(&path, next - 1);
    assert_eq!(problems(&directory), []);
}
