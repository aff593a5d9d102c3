//! The suite without what the gateway refuses to everybody: a statement that would set a pinned setting fails on both sides,
//! and all that follows from its failure is the same on both.

use std::fs;
use std::path::Path;

use tests::server::Outcome;

/// Stands for a statement that the gateway refuses.
const REFUSED: &str = "select 'set by nobody'::int;";

/// Rewrites every file of the directory.
pub fn without_pinned_settings(directory: &Path) -> Outcome<()> {
    for entry in fs::read_dir(directory).map_err(|error| error.to_string())?.flatten() {
        let text = fs::read(entry.path()).map_err(|error| error.to_string())?;
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let adapted: Vec<u8> = lines.flat_map(|line| adapted(line).unwrap_or_else(|| line.to_vec())).collect();
        fs::write(entry.path(), adapted).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What stands for a line that is such a statement.
fn adapted(line: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let words = text.to_lowercase();
    let mut words = words.split_whitespace().filter(|word| !["local", "=", "to"].contains(word)).peekable();
    if words.next() != Some("set") {
        return None;
    }
    // SET SESSION ROLE, but also SET SESSION AUTHORIZATION.
    words.next_if_eq(&"session");
    let (name, value) = (words.next()?, words.next()?);
    let pinned = match name {
        "role" => value != "none;",
        "authorization" => value != "default;",
        "standard_conforming_strings" => value == "off;",
        _ => false,
    };
    pinned.then(|| format!("{REFUSED}\n").into_bytes())
}
