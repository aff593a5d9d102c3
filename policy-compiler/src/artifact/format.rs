//! What stands in an artifact, byte for byte: see FORMAT.md.

use crate::policy::pattern::Pattern;
use crate::policy::{MaskAction, MaskedColumn, Origin};
use rkyv::{Archive, Deserialize, Serialize};

pub(super) const MAGIC: [u8; 8] = *b"WWPOLICY";
/// Raised with every change of the layout or of [`Tables`]: an older reader must refuse what it would misread.
pub(super) const VERSION: u32 = 2;
pub(super) const SECTION_ALIGN_BYTES: usize = 16;
/// Magic, version, count of sections, length of the file.
pub(super) const FIXED_HEADER_BYTES: usize = 8 + 4 + 4 + 8;
/// Name, offset, length, blake3.
pub(super) const ENTRY_BYTES: usize = 8 + 8 + 8 + 32;
pub(super) const HASH_BYTES: usize = 32;

/// The sections, all required, in this order.
pub(super) const SECTIONS: [[u8; 8]; 3] = [*b"rules\0\0\0", *b"sources\0", *b"compiler"];

/// Magic to the end of the header's own hash.
pub(super) const HEADER_BYTES: usize = FIXED_HEADER_BYTES + SECTIONS.len() * ENTRY_BYTES + HASH_BYTES;

/// The decision tables. Roles are bits in the order of `roles`; an id is a place in its table.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// At most 128.
    pub roles: Vec<Role>,
    pub grants: Vec<Grant>,
    pub rules: Vec<Rule>,
    pub masks: Vec<Mask>,
    pub detects: Vec<Detect>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    pub claims: Vec<String>,
}

/// Whom a row concerns, and where.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// A bit for each role; all 128 bits for every role.
    pub to: u128,
    pub except: u128,
    /// `None` is all.
    pub resources: Option<Vec<String>>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub scope: Scope,
    /// Bits of `EffectSet`.
    pub effects: u32,
    /// Empty: any relation, and effects on none.
    pub relations: Vec<Pattern>,
    /// Not empty: `call` is of these functions only.
    pub functions: Vec<Pattern>,
    pub origin: Origin,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    pub scope: Scope,
    /// `None` is any effect.
    pub effects: Option<u32>,
    pub relations: Vec<Pattern>,
    pub functions: Vec<Pattern>,
    pub without_where: bool,
    pub hint: Option<String>,
    pub origin: Origin,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    pub name: String,
    pub scope: Scope,
    pub columns: Vec<MaskedColumn>,
    pub action: MaskAction,
    pub origin: Origin,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Detect {
    pub name: String,
    pub scope: Scope,
    pub kinds: u16,
    pub action: MaskAction,
    pub origin: Origin,
}

impl Scope {
    pub fn applies(&self, roles: u128, resource: &str) -> bool {
        self.to & roles != 0
            && self.except & roles == 0
            && self.resources.as_ref().is_none_or(|names| names.iter().any(|name| name == resource))
    }
}
