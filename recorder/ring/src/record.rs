//! What one record is: header, kinds, flags, and the receipt that a committed record earns.

/// Size of a record's header, in bytes.
pub const HEADER_BYTES: usize = 32;
/// Every record starts at a multiple of this many bytes.
pub const ALIGN_BYTES: usize = 8;

/// What a record carries. The numbers are the format: `RECORD.md` lists the payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Filler, skipped by the consumer: end of the ring, aborted claim, or the claim of a dead producer.
    Pad = 0,
    /// A session begins: one JSON object.
    Open = 1,
    /// Raw protocol bytes of the client, after policy.
    Request = 2,
    /// What policy decided on a statement.
    Verdict = 3,
    /// Raw protocol bytes as the client saw them, after masking.
    Response = 4,
    /// A session ended: one JSON object.
    Close = 5,
    /// Records that level L0 dropped: see [`Gap`].
    Gap = 6,
    /// Anything else worth keeping: one JSON object.
    Note = 7,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Kind> {
        Some(match number {
            0 => Kind::Pad,
            1 => Kind::Open,
            2 => Kind::Request,
            3 => Kind::Verdict,
            4 => Kind::Response,
            5 => Kind::Close,
            6 => Kind::Gap,
            7 => Kind::Note,
            _ => return None,
        })
    }
}

/// Bits of a record's flag byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No bit set.
    pub const NONE: Flags = Flags(0);
    /// First record of a frame or burst.
    pub const BEGIN: Flags = Flags(1);
    /// Last record of a frame or burst.
    pub const END: Flags = Flags(2);
    /// A frame or burst in one record.
    pub const WHOLE: Flags = Flags(3);
    /// The bytes came from the client; without it, from the upstream.
    pub const CLIENT: Flags = Flags(4);

    /// The flags with these bits, if all of them are known.
    pub const fn from_bits(bits: u8) -> Option<Flags> {
        if bits & !7 == 0 { Some(Flags(bits)) } else { None }
    }

    /// The bits as written in the header.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// How safe a record is (design, decision 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// May be dropped under pressure; the gap is recorded.
    L0,
    /// In the ring: survives the death of the dataplane or of the recorder.
    L1,
    /// Flushed to disk by the recorder.
    L2,
}

/// Proof that a record was taken, needed to let its bytes leave the gateway.
///
/// Only [`crate::Claim::commit`], [`crate::Producer::confirm`] and [`crate::Producer::skip`] make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Receipt {
    /// The record's sequence number in its ring, from 1.
    pub seq: u64,
    /// How safe the record was when the receipt was made.
    pub level: Level,
}

impl Receipt {
    pub(crate) const fn new(seq: u64, level: Level) -> Receipt {
        Receipt { seq, level }
    }
}

/// Payload of a [`Kind::Gap`] record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The sequence number that the first dropped record would have had. Dropped records consume none.
    pub first_seq: u64,
    /// How many records were dropped, at least 1.
    pub count: u64,
}

impl Gap {
    /// The payload as written: two little-endian u64.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[8..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }

    /// Reads a payload; `None` unless it has exactly 16 bytes.
    pub fn from_bytes(payload: &[u8]) -> Option<Gap> {
        let (first, count) = payload.split_at_checked(8)?;
        let first_seq = u64::from_le_bytes(first.try_into().ok()?);
        Some(Gap { first_seq, count: u64::from_le_bytes(count.try_into().ok()?) })
    }
}

/// A record's header, as in the ring and in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Header and payload together, without alignment, in bytes.
    pub length: u32,
    /// What the record carries.
    pub kind: Kind,
    /// Begin, end, direction.
    pub flags: Flags,
    /// The session it belongs to, minted by the dataplane.
    pub session: u64,
    /// Position in its ring's sequence, from 1, without gaps.
    pub seq: u64,
    /// The dataplane's wall clock, nanoseconds since 1970. It may step: order by `seq`.
    pub time_unix_ns: u64,
}

impl Header {
    /// The header as 32 little-endian bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let words = [pack(self.length as i32, self.kind, self.flags), self.session, self.seq, self.time_unix_ns];
        let mut bytes = [0; HEADER_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a header; `None` if a field has a value that version 1 does not know, or the length is below 32.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let word = |n: usize| bytes[8 * n..8 * n + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (length, kind, flags) = unpack(word(0))?;
        let length = u32::try_from(length).ok().filter(|length| *length >= HEADER_BYTES as u32)?;
        Some(Header { length, kind, flags, session: word(1), seq: word(2), time_unix_ns: word(3) })
    }

    /// Bytes of payload after the header.
    pub const fn payload_bytes(&self) -> usize {
        self.length as usize - HEADER_BYTES
    }
}

/// The commit word: length (negative while the record is being written), kind, flags, two zero bytes.
pub(crate) const fn pack(length: i32, kind: Kind, flags: Flags) -> u64 {
    length as u32 as u64 | (kind as u64) << 32 | (flags.bits() as u64) << 40
}

/// Splits a commit word; `None` if kind, flags or the reserved bytes are unknown to version 1.
pub(crate) fn unpack(word: u64) -> Option<(i32, Kind, Flags)> {
    let kind = Kind::from_u8((word >> 32) as u8)?;
    let flags = Flags::from_bits((word >> 40) as u8)?;
    if word >> 48 != 0 {
        return None;
    }
    Some((word as u32 as i32, kind, flags))
}

/// Rounds up to the next record boundary.
pub(crate) const fn align(bytes: usize) -> usize {
    (bytes + ALIGN_BYTES - 1) & !(ALIGN_BYTES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes_and_unknown_values_are_refused() {
        let header = Header {
            length: 77,
            kind: Kind::Response,
            flags: Flags::WHOLE,
            session: 7,
            seq: 9,
            time_unix_ns: u64::MAX,
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::from_bytes(&bytes), Some(header));
        assert_eq!(&bytes[..8], [77, 0, 0, 0, 4, 3, 0, 0]);
        for (at, value) in [(0, 31), (3, 0x80), (4, 8), (5, 8), (6, 1), (7, 1)] {
            let mut bad = bytes;
            bad[at] = value;
            assert_eq!(Header::from_bytes(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn a_gap_is_sixteen_bytes() {
        let gap = Gap { first_seq: 5, count: 3 };
        assert_eq!(Gap::from_bytes(&gap.to_bytes()), Some(gap));
        assert_eq!(Gap::from_bytes(&[0; 15]), None);
        assert_eq!(Gap::from_bytes(&[0; 17]), None);
    }
}
