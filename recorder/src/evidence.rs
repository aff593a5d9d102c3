//! Walks all records of a directory in the order of writing, each once.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::segment;
use crate::segment::format::{BlockHead, Index, Part};
use crate::segment::reader::{Broken, Entry, Reader};

/// Visits the records of the blocks that `wanted` names by their index. Damage ends the segment in which it lies: what
/// was read before it is shown, and the damage is given back, for a reader of evidence must know that some is missing.
pub fn walk(
    directory: &Path,
    wanted: impl Fn(&Index) -> bool,
    mut visit: impl FnMut(Entry<'_>) -> io::Result<()>,
) -> io::Result<Vec<Broken>> {
    let mut damage = Vec::new();
    let mut last_seqs = HashMap::new();
    for number in segment::list(directory)? {
        let once = |entry: Entry<'_>| {
            // A block whose flush failed was written again into the next segment.
            let last = last_seqs.entry(entry.ring).or_insert(0);
            let new = entry.header.seq > *last;
            *last = entry.header.seq.max(*last);
            if new { visit(entry) } else { Ok(()) }
        };
        match walk_segment(&segment::path(directory, number), &wanted, once) {
            Ok(()) => {}
            Err(Stop::Broken(broken)) => damage.push(broken),
            Err(Stop::Io(error)) => return Err(error),
        }
    }
    Ok(damage)
}

enum Stop {
    Broken(Broken),
    Io(io::Error),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Stop {
        Stop::Broken(broken)
    }
}

fn walk_segment(
    path: &Path,
    wanted: &impl Fn(&Index) -> bool,
    mut visit: impl FnMut(Entry<'_>) -> io::Result<()>,
) -> Result<(), Stop> {
    let mut reader = Reader::open(path)?;
    while let Some((offset, head, index)) = reader.next_index()? {
        if is_wanted(&head, &index, wanted) {
            let records = reader.block_at(offset, &head)?.records()?;
            records.iter().try_for_each(&mut visit).map_err(Stop::Io)?;
        }
    }
    Ok(())
}

fn is_wanted(head: &BlockHead, index: &Index, wanted: &impl Fn(&Index) -> bool) -> bool {
    matches!(head.part, Part::Block(_)) && wanted(index)
}
