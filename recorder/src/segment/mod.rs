//! Segments: the files of evidence. `FORMAT.md` beside this file gives every byte.

pub mod format;
pub mod reader;
pub mod writer;

use std::path::{Path, PathBuf};

/// Where segment `number` lies.
pub fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.seg"))
}

/// The numbers of the segments in a directory, ascending. Other files are ignored.
pub fn list(directory: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".seg")).filter(|digits| digits.len() == 10);
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
