//! Tables and sources → the bytes of an artifact. The same input gives the same bytes on every machine.

use super::format::{
    FIXED_HEADER_BYTES, HASH_BYTES, HEADER_BYTES, MAGIC, SECTION_ALIGN_BYTES, SECTIONS, Tables, VERSION,
};
use crate::policy::Source;
use rkyv::rancor::Error;

/// Shown by `policy explain` and in the artifact: which compiler made it.
pub(super) const COMPILER: &str = concat!("wireward policy-compiler ", env!("CARGO_PKG_VERSION"));

/// # Errors
/// A table too large for the archive format (2 GiB).
pub(crate) fn write(tables: &Tables, sources: &[Source]) -> Result<Vec<u8>, String> {
    let rules = rkyv::to_bytes::<Error>(tables).map_err(|e| e.to_string())?;
    let sources = rkyv::to_bytes::<Error>(&sources.to_vec()).map_err(|e| e.to_string())?;
    Ok(assemble([rules.as_slice(), sources.as_slice(), COMPILER.as_bytes()]))
}

pub(super) fn assemble(contents: [&[u8]; SECTIONS.len()]) -> Vec<u8> {
    let mut offset = HEADER_BYTES;
    let mut entries = Vec::new();
    let mut body = Vec::new();
    for (name, content) in SECTIONS.iter().zip(contents) {
        let padding = offset.next_multiple_of(SECTION_ALIGN_BYTES) - offset;
        body.resize(body.len() + padding, 0);
        entries.extend_from_slice(name);
        entries.extend_from_slice(&((offset + padding) as u64).to_le_bytes());
        entries.extend_from_slice(&(content.len() as u64).to_le_bytes());
        entries.extend_from_slice(blake3::hash(content).as_bytes());
        body.extend_from_slice(content);
        offset += padding + content.len();
    }
    let mut file = Vec::with_capacity(offset);
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&(SECTIONS.len() as u32).to_le_bytes());
    file.extend_from_slice(&(offset as u64).to_le_bytes());
    debug_assert_eq!(file.len(), FIXED_HEADER_BYTES);
    file.extend_from_slice(&entries);
    let hash = blake3::hash(&file);
    file.extend_from_slice(hash.as_bytes());
    debug_assert_eq!(file.len(), HEADER_BYTES, "the header ends with its {HASH_BYTES} bytes of hash");
    file.extend_from_slice(&body);
    file
}
