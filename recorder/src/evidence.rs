//! Walks all records of a directory in the order of writing, each once.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;

use crate::segment;
use crate::segment::format::{BlockHead, Index, Part};
use crate::segment::reader::{Broken, Entry, Reader};

/// A place whose records are not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where, and what is wrong there.
    pub broken: Broken,
    /// All behind it in its segment is not shown either.
    pub ends_segment: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extent = match self.ends_segment {
            true => "this block and all behind it in the segment are not shown",
            false => "this block is not shown, the others are",
        };
        write!(f, "{}; {extent}", self.broken)
    }
}

/// Visits the records of the blocks that `wanted` names by their index. A block without its hash is passed over; a head
/// that cannot be read ends its segment, as nothing says where the next block is. All damage is given back, for a reader
/// of evidence must know that some is missing.
pub fn walk(
    directory: &Path,
    wanted: impl Fn(&Index) -> bool,
    mut visit: impl FnMut(Entry<'_>) -> io::Result<()>,
) -> io::Result<Vec<Damage>> {
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
        walk_segment(&segment::path(directory, number), &wanted, once, &mut damage)?;
    }
    Ok(damage)
}

fn walk_segment(
    path: &Path,
    wanted: &impl Fn(&Index) -> bool,
    mut visit: impl FnMut(Entry<'_>) -> io::Result<()>,
    damage: &mut Vec<Damage>,
) -> io::Result<()> {
    let mut hidden = |broken, ends_segment| damage.push(Damage { broken, ends_segment });
    let mut reader = match Reader::open(path) {
        Ok(reader) => reader,
        Err(broken) => return Ok(hidden(broken, true)),
    };
    loop {
        let (offset, head, index) = match reader.next_index() {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(()),
            Err(broken) => return Ok(hidden(broken, true)),
        };
        if !is_wanted(&head, &index, wanted) {
            continue;
        }
        match reader.block_at(offset, &head).and_then(|block| block.records()) {
            Ok(records) => records.iter().try_for_each(&mut visit)?,
            Err(broken) => hidden(broken, false),
        }
    }
}

fn is_wanted(head: &BlockHead, index: &Index, wanted: &impl Fn(&Index) -> bool) -> bool {
    matches!(head.part, Part::Block(_)) && wanted(index)
}
