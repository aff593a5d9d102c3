//! Finding personal data in text, and overwriting it: decision 12's funnel and the mask transforms.
//!
//! text → [`prefilter`]: 64-byte blocks to bit masks, a few candidates left → one family's `verify` (grouping, prefix,
//! length, checksum, neighbours) → matches in order. No family looks further than [`WIDTH_BYTES_MAX`] from its
//! trigger and no state is kept between candidates. So time is linear, and which bytes are covered depends on the
//! text within [`WIDTH_BYTES_MAX`] of them alone: a window that has that many bytes of context on both sides of its
//! core covers the same bytes of the core as a scan of the whole does.
//!
//! The text may be one value or a window over a row; a match never leaves the text given. Any bytes are accepted; in
//! valid UTF-8 a match begins and ends at a character.
//!
//! Not covered, so never rely on detection alone for a column that is known to be sensitive (name it in a rule):
//! - text that was changed: base64, hex, `bytea`, reversed, rot13, hashes, percent-encoding (`%40`), JSON `\u0040`;
//! - look-alikes: full-width and other non-ASCII digits, zero-width characters inside a value, no-break spaces;
//! - bare nine-digit SSNs, phone numbers without `+`, a card inside a longer run of digits;
//! - quoted local parts of addresses (`"a b"@example.com`), hosts without a dot, address literals (`a@[192.0.2.1]`);
//! - values spread over several columns, and binary formats (the caller decodes those).

mod email;
mod iban;
mod payment_card;
mod phone;
mod prefilter;
pub mod transform;
mod us_ssn;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;

use prefilter::{Block, Trigger};

/// A family of personal data that the scanner knows. The discriminant is the bit in a [`KindSet`] and is stored in
/// artifacts: never renumber.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    PaymentCard = 0,
    UsSsn = 1,
    Email = 2,
    Phone = 3,
    Iban = 4,
}

/// A set of kinds: bit i is the kind with discriminant i. Other bits mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KindSet(u16);

/// No match is wider, and no decision looks further, in bytes (decision 12). The widest is an e-mail address of 320.
pub const WIDTH_BYTES_MAX: usize = 512;

/// One finding: `start..end` are byte offsets into the text that was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
}

/// Calls `found` for each match, leftmost first, never overlapping. Where two overlap the one that begins first is
/// given whole and the other only as far as it goes beyond it, so every byte of every candidate is covered. Such a
/// remainder has the kind of its own candidate. Allocates nothing, never panics, takes linear time.
pub fn scan(text: &[u8], kinds: KindSet, mut found: impl FnMut(Match)) {
    scan_while(text, kinds, |hit| {
        found(hit);
        true
    });
}

/// As [`scan`], until `found` says false: whoever keeps few matches at a time goes on behind the last one, and the whole
/// stays linear.
pub fn scan_while(text: &[u8], kinds: KindSet, mut found: impl FnMut(Match) -> bool) {
    let mut covered = 0;
    each_candidate(text, kinds, |trigger, at| {
        let mut go_on = true;
        verify(text, kinds, trigger, at, |hit| {
            let start = hit.start.max(covered);
            if start < hit.end {
                covered = hit.end;
                go_on = found(Match { start, ..hit });
            }
        });
        go_on
    });
}

/// Whether [`scan`] could find anything: the prefilter alone. False means certainly nothing.
pub fn may_contain(text: &[u8], kinds: KindSet) -> bool {
    !each_candidate(text, kinds, |_, _| false)
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::PaymentCard, Kind::UsSsn, Kind::Email, Kind::Phone, Kind::Iban];

    /// The name that policies use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::PaymentCard => "payment-card",
            Kind::UsSsn => "us-ssn",
            Kind::Email => "email",
            Kind::Phone => "phone",
            Kind::Iban => "iban",
        }
    }

    /// The kind of that exact name.
    pub fn parse(name: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl KindSet {
    pub const ALL: KindSet = KindSet(0b1_1111);

    pub const fn from_bits(bits: u16) -> KindSet {
        KindSet(bits & Self::ALL.0)
    }

    pub const fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Calls `visit` with every candidate in order of position until it says false; false if it did.
#[inline]
fn each_candidate(text: &[u8], kinds: KindSet, mut visit: impl FnMut(Trigger, usize) -> bool) -> bool {
    if kinds.is_empty() {
        return true;
    }
    for base in (0..text.len()).step_by(prefilter::CORE_BYTES) {
        let block = Block::read(text, base, kinds);
        if !block.each(base, &mut visit) {
            return false;
        }
    }
    true
}

/// Runs the families that a trigger may belong to. Starts of what is reported never decrease from call to call.
#[inline(never)]
fn verify(text: &[u8], kinds: KindSet, trigger: Trigger, at: usize, mut report: impl FnMut(Match)) {
    let found = match trigger {
        Trigger::At => email::verify(text, at),
        Trigger::Plus => phone::verify(text, at),
        Trigger::Iban => iban::verify(text, at),
        Trigger::UsSsn => us_ssn::verify(text, at),
        Trigger::PaymentCard => payment_card::verify(text, at),
    };
    let Some(hit) = found else { return };
    // An address begins before its trigger: what lies inside one is left to it, or the order would be lost.
    if trigger == Trigger::At || !kinds.has(Kind::Email) || !email::covers(text, &hit) {
        report(hit);
    }
}

/// Counts bytes looked at, so that tests can hold the whole to linear time without a clock.
#[cfg(test)]
fn charge(bytes: usize) {
    tests::STEPS.with(|steps| steps.set(steps.get() + bytes));
}

#[cfg(not(test))]
#[inline(always)]
fn charge(_bytes: usize) {}
