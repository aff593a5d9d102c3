//! Somebody edits the evidence: each change is found, and the finding names the place.

mod support;

use recorder::segment::format::PAGE_BYTES;
use recorder::segment::path as segment_path;
use recorder::segment::reader::Reader;
use recorder::segment::writer::Limits;
use recorder::verify::Problem;
use ring::Producer;
use std::path::{Path, PathBuf};
use support::{Bench, Directory, heap, problems, put_many};

/// Three segments of four blocks and a footer, a checkpoint after each block.
fn evidence() -> Directory {
    let directory = Directory::new();
    let ring = heap(256 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let limits = Limits { segment_bytes_max: 20 << 10, segment_age_ms_max: 3_600_000 };
    let mut bench = Bench::new(&[ring], limits, Default::default());
    let mut next = 1;
    for _ in 0..12 {
        put_many(&mut producer, 6, &mut next);
        bench.write_all(&directory.recordings());
        bench.checkpoint(&directory);
    }
    bench.finish(&directory.recordings());
    bench.checkpoint(&directory);
    assert_eq!(recorder::segment::list(&directory.recordings()).unwrap(), [1, 2, 3]);
    assert_eq!(problems(&directory), []);
    directory
}

/// Where each block of a segment starts; the first is the head, the last the end of the file.
fn starts(path: &Path) -> Vec<u64> {
    let mut reader = Reader::open(path).unwrap();
    let mut starts = vec![0, PAGE_BYTES as u64];
    while reader.next_block().unwrap().is_some() {
        starts.push(reader.offset());
    }
    starts
}

/// The evidence with one file changed; what is found.
fn tampered(evidence: &Directory, file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<Problem> {
    let copy = evidence.copy();
    std::fs::copy(evidence.key(), copy.key()).unwrap();
    let path = copy.recordings().join(file.file_name().unwrap());
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    problems(&copy)
}

fn segment(evidence: &Directory, number: u64) -> (PathBuf, Vec<u64>) {
    let path = segment_path(&evidence.recordings(), number);
    let starts = starts(&path);
    (path, starts)
}

#[test]
fn a_flipped_byte_anywhere_is_found_in_its_block() {
    let evidence = evidence();
    for number in 1..=3 {
        let (path, starts) = segment(&evidence, number);
        let bytes = *starts.last().unwrap();
        // Every byte of the heads, and one in 61 of the rest.
        let heads = starts.iter().flat_map(|start| *start..(*start + 130).min(bytes));
        for at in heads.chain((0..bytes).step_by(61)).chain([bytes - 1, bytes - 8]) {
            let found = tampered(&evidence, &path, |bytes| bytes[at as usize] ^= 0x41);
            let block = starts.iter().rposition(|start| *start <= at).unwrap() as u64;
            let name = path.file_name().unwrap().to_str().unwrap();
            let located = |p: &Problem| (&p.file[..], p.block, p.offset) == (name, block, starts[block as usize]);
            assert!(found.iter().any(located), "byte {at} of {name}, block {block}: {found:?}");
        }
    }
}

#[test]
fn what_is_whole_is_shown_and_what_is_not_is_named_once() {
    let evidence = evidence();
    let (path, starts) = segment(&evidence, 1);
    let records = |directory: &Directory| {
        let mut records = 0;
        let count = |_: recorder::segment::reader::Entry<'_>| {
            records += 1;
            Ok(())
        };
        let damage = recorder::evidence::walk(&directory.recordings(), |_| true, count).unwrap();
        (records, damage.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (whole, none) = records(&evidence);
    assert_eq!((whole, none.len()), (72, 0));
    // In the stored records of the first block; in its magic, so that nothing says where the next one is.
    for (at, left, says) in [(400, whole - 6, "this block is not shown"), (0, whole - 24, "and all behind it")] {
        let copy = evidence.copy();
        std::fs::copy(evidence.key(), copy.key()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[starts[1] as usize + at] ^= 0x41;
        std::fs::write(copy.recordings().join(path.file_name().unwrap()), bytes).unwrap();
        let (shown, damage) = records(&copy);
        assert_eq!(shown, left, "{damage:?}");
        assert!(damage.len() == 1 && damage[0].contains("block 1") && damage[0].contains(says), "{damage:?}");
        let key = recorder::checkpoint::read_public_key(&evidence.recordings().join("checkpoints.pub")).unwrap();
        let outcome = recorder::verify::verify(&copy.recordings(), &key).unwrap();
        let told: Vec<_> = outcome.notes.iter().filter(|note| note.contains("behind block 1 of segment 1")).collect();
        assert_eq!((told.len(), outcome.problems.iter().any(|p| p.file == "checkpoints")), (1, false), "{outcome:?}");
    }
}

#[test]
fn a_dropped_swapped_repeated_or_added_block_is_found_in_its_place() {
    let evidence = evidence();
    for number in 1..=3 {
        let (path, s) = segment(&evidence, number);
        let at = |n: usize| s[n] as usize;
        type Change<'c> = (&'c str, Box<dyn FnOnce(&mut Vec<u8>) + 'c>, u64);
        let changes: [Change<'_>; 7] = [
            ("drop a block", Box::new(|bytes| drop(bytes.drain(at(2)..at(3)))), 2),
            ("drop the first block", Box::new(|bytes| drop(bytes.drain(at(1)..at(2)))), 1),
            (
                "swap two blocks",
                Box::new(|bytes| {
                    let second = bytes[at(2)..at(3)].to_vec();
                    let first: Vec<u8> = bytes.splice(at(1)..at(3), second).collect();
                    let place = at(1) + (at(3) - at(2));
                    let first = first[..at(2) - at(1)].to_vec();
                    bytes.splice(place..place, first);
                }),
                1,
            ),
            (
                "repeat a block",
                Box::new(|bytes| {
                    let block = bytes[at(1)..at(2)].to_vec();
                    bytes.splice(at(2)..at(2), block);
                }),
                2,
            ),
            ("cut the footer", Box::new(|bytes| bytes.truncate(at(s.len() - 2))), s.len() as u64 - 2),
            ("cut two blocks", Box::new(|bytes| bytes.truncate(at(3))), 3),
            ("add a page", Box::new(|bytes| bytes.extend([0; PAGE_BYTES])), s.len() as u64 - 1),
        ];
        for (what, change, block) in changes {
            let found = tampered(&evidence, &path, change);
            let name = path.file_name().unwrap().to_str().unwrap();
            // A cut tail of the last segment shows as a signed block that is missing.
            let is_cut_end = number == 3 && what.starts_with("cut");
            let located = |p: &Problem| match is_cut_end {
                true => p.file == "checkpoints" && p.what.contains("of segment 3 was signed and is missing"),
                false => p.file == name && p.block == block && p.offset == s[block as usize],
            };
            assert!(found.iter().any(located), "{what} in {name}: {found:?}");
        }
    }
}

#[test]
fn a_removed_or_exchanged_segment_is_found() {
    let evidence = evidence();
    for number in 1..=3 {
        let copy = evidence.copy();
        std::fs::copy(evidence.key(), copy.key()).unwrap();
        std::fs::remove_file(segment_path(&copy.recordings(), number)).unwrap();
        let name = format!("{number:010}.seg");
        let located = |p: &Problem| match number {
            3 => p.file == "checkpoints" && p.what.contains("of segment 3 was signed and is missing"),
            _ => p.file == name && p.what == "this segment is missing",
        };
        let found = problems(&copy);
        assert!(found.iter().any(located), "segment {number} removed: {found:?}");
    }
    let (second, _) = segment(&evidence, 2);
    let third = std::fs::read(segment_path(&evidence.recordings(), 3)).unwrap();
    let found = tampered(&evidence, &second, |bytes| *bytes = third);
    assert!(found.iter().any(|p| p.file == "0000000002.seg" && p.what.contains("holds segment 3")), "{found:?}");
}

#[test]
fn a_changed_checkpoint_or_a_foreign_key_is_found() {
    let evidence = evidence();
    let path = evidence.recordings().join("checkpoints");
    let text = std::fs::read(&path).unwrap();
    let mut line = 1;
    for at in (0..text.len()).step_by(13) {
        line = 1 + text[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
        // Another digit or letter: the line stays readable where it was.
        let found = tampered(&evidence, &path, |bytes| bytes[at] ^= 1);
        let near = |p: &Problem| p.file == "checkpoints" && (p.block == line || p.block == line + 1);
        assert!(found.iter().any(near), "byte {at}, line {line}: {found:?}");
    }
    assert!(line > 10);
    let foreign = Directory::new();
    Bench::new(&[heap(512, 9)], Limits::default(), Default::default()).checkpoint(&foreign);
    let key = recorder::checkpoint::read_public_key(&foreign.recordings().join("checkpoints.pub")).unwrap();
    let outcome = recorder::verify::verify(&evidence.recordings(), &key).unwrap();
    assert!(outcome.checkpoints == 0 && outcome.problems.iter().all(|p| p.what.contains("not of this key")));
}

#[test]
fn a_rewritten_tail_with_right_hashes_is_betrayed_by_the_checkpoints() {
    let evidence = evidence();
    // The forger has no key, but writes a segment 3 that chains perfectly.
    let forged = evidence.copy();
    std::fs::copy(evidence.key(), forged.key()).unwrap();
    std::fs::remove_file(segment_path(&forged.recordings(), 3)).unwrap();
    let ring = heap(256 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    put_many(&mut producer, 72, &mut 1);
    let mut bench = Bench::recovered(&[ring], Limits::default(), &forged.recordings());
    bench.finish(&forged.recordings());
    let found = problems(&forged);
    assert!(!found.is_empty() && found.iter().all(|problem| problem.file == "checkpoints"), "{found:?}");
}
