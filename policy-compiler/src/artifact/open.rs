//! The bytes of an artifact → checked tables. Hostile bytes give an [`OpenError`], never a panic.
//!
//! The file is read whole and the tables are copied out of the archive once. Mapping it would save that copy (kilobytes,
//! once per reload) and cost `unsafe`, and a file that shrinks under a mapping kills the process with SIGBUS.

use super::format::{
    ENTRY_BYTES, FIXED_HEADER_BYTES, HASH_BYTES, HEADER_BYTES, MAGIC, SECTION_ALIGN_BYTES, SECTIONS, Scope, Tables,
    VERSION,
};
use crate::detect::Kind;
use crate::policy::{ROLES_MAX, Source};
use crate::statement::EffectSet;
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;
use std::fmt;
use std::path::Path;

/// Why a file is not a usable artifact.
#[derive(Debug)]
pub enum OpenError {
    /// The file cannot be read.
    Read(std::io::Error),
    /// Shorter than a header, or it does not start with the magic: no artifact.
    NotAnArtifact,
    /// Made by another version of the compiler: build it again.
    Version { found: u32, supported: u32 },
    /// The bytes are not those that were written.
    Damaged(&'static str),
}

pub(super) struct Opened {
    pub tables: Tables,
    pub sources: Vec<Source>,
    pub compiler: String,
    pub digest: [u8; 32],
}

/// The largest artifact that is read: a policy is text of people.
const ARTIFACT_BYTES_MAX: u64 = 256 << 20;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    let length = std::fs::metadata(path).map_err(OpenError::Read)?.len();
    if length > ARTIFACT_BYTES_MAX {
        return Err(OpenError::Damaged("it is larger than 256 MiB"));
    }
    std::fs::read(path).map_err(OpenError::Read)
}

pub(super) fn open(bytes: &[u8]) -> Result<Opened, OpenError> {
    let [rules, sources, compiler] = sections(bytes)?;
    let tables = rkyv::from_bytes::<Tables, Error>(&aligned(rules))
        .map_err(|_| OpenError::Damaged("its tables cannot be read"))?;
    check(&tables)?;
    Ok(Opened {
        tables,
        sources: rkyv::from_bytes::<Vec<Source>, Error>(&aligned(sources))
            .map_err(|_| OpenError::Damaged("its sources cannot be read"))?,
        compiler: String::from_utf8(compiler.to_vec()).map_err(|_| OpenError::Damaged("its compiler is no text"))?,
        digest: *blake3::hash(bytes).as_bytes(),
    })
}

/// The archive wants its own alignment, whatever that of the file's buffer is.
fn aligned(section: &[u8]) -> AlignedVec {
    let mut copy = AlignedVec::with_capacity(section.len());
    copy.extend_from_slice(section);
    copy
}

fn sections(bytes: &[u8]) -> Result<[&[u8]; SECTIONS.len()], OpenError> {
    if bytes.len() < HEADER_BYTES || bytes[..MAGIC.len()] != MAGIC {
        return Err(OpenError::NotAnArtifact);
    }
    let version = u32::from_le_bytes(array(bytes, 8));
    if version != VERSION {
        return Err(OpenError::Version { found: version, supported: VERSION });
    }
    let hash_at = HEADER_BYTES - HASH_BYTES;
    if blake3::hash(&bytes[..hash_at]) != array::<HASH_BYTES>(bytes, hash_at) {
        return Err(OpenError::Damaged("its header does not match its hash"));
    }
    if u32::from_le_bytes(array(bytes, 12)) as usize != SECTIONS.len() {
        return Err(OpenError::Damaged("it has another number of sections"));
    }
    if u64::from_le_bytes(array(bytes, 16)) != bytes.len() as u64 {
        return Err(OpenError::Damaged("it has another length than its header says"));
    }
    let mut found = [&[][..]; SECTIONS.len()];
    let mut end = HEADER_BYTES;
    for (index, section) in found.iter_mut().enumerate() {
        (*section, end) = self::section(bytes, index, end)?;
    }
    if end == bytes.len() { Ok(found) } else { Err(OpenError::Damaged("bytes follow its last section")) }
}

/// The section and where it ends. Sections follow each other with nothing but zeros between, so that every byte of the
/// file is under some hash or known.
fn section(bytes: &[u8], index: usize, previous_end: usize) -> Result<(&[u8], usize), OpenError> {
    let entry = FIXED_HEADER_BYTES + index * ENTRY_BYTES;
    if bytes[entry..entry + 8] != SECTIONS[index] {
        return Err(OpenError::Damaged("its sections have other names"));
    }
    let start = previous_end.next_multiple_of(SECTION_ALIGN_BYTES);
    let length = usize::try_from(u64::from_le_bytes(array(bytes, entry + 16))).ok();
    let end = length.and_then(|length| start.checked_add(length)).filter(|end| *end <= bytes.len());
    let Some(end) = end.filter(|_| u64::from_le_bytes(array(bytes, entry + 8)) == start as u64) else {
        return Err(OpenError::Damaged("its sections lie elsewhere than its header says"));
    };
    if bytes[previous_end..start].iter().any(|byte| *byte != 0) {
        return Err(OpenError::Damaged("its padding is not zero"));
    }
    let content = &bytes[start..end];
    if blake3::hash(content) != array::<HASH_BYTES>(bytes, entry + 24) {
        return Err(OpenError::Damaged("a section does not match its hash"));
    }
    Ok((content, end))
}

/// The hash shows damage, not intent: whoever writes a file can hash it. So nothing is taken for granted below it.
fn check(tables: &Tables) -> Result<(), OpenError> {
    let known = 1u128.checked_shl(tables.roles.len() as u32).map_or(u128::MAX, |bit| bit - 1);
    let scope_is_right =
        |scope: &Scope| (scope.to & !known == 0 || scope.to == u128::MAX) && scope.except & !known == 0;
    let scopes = tables.grants.iter().map(|row| &row.scope).chain(tables.rules.iter().map(|row| &row.scope));
    let scopes = scopes.chain(tables.masks.iter().map(|row| &row.scope));
    let mut scopes = scopes.chain(tables.detects.iter().map(|row| &row.scope));
    let effects = tables.grants.iter().map(|row| row.effects);
    let mut effects = effects.chain(tables.rules.iter().filter_map(|row| row.effects));
    let right = tables.roles.len() <= ROLES_MAX
        && scopes.all(scope_is_right)
        && effects.all(|bits| EffectSet::from_bits(bits).bits() == bits)
        && tables.detects.iter().all(|row| row.kinds >> Kind::ALL.len() == 0);
    if right { Ok(()) } else { Err(OpenError::Damaged("its tables contradict each other")) }
}

/// `N` bytes from `at`; the caller has checked that they are within the header.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(e) => write!(f, "cannot be read: {e}; make one with `wireward policy build POLICY -o FILE`"),
            Self::NotAnArtifact => {
                f.write_str("this is no policy artifact; make one with `wireward policy build POLICY -o FILE`")
            }
            Self::Version { found, supported } => write!(
                f,
                "the policy artifact has format {found}, this wireward reads {supported}; \
                 build it again with `wireward policy build`"
            ),
            Self::Damaged(what) => {
                write!(f, "the policy artifact is damaged: {what}; build it again with `wireward policy build`")
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(e) => Some(e),
            _ => None,
        }
    }
}
