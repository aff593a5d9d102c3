//! A cancel request finds its session, on this shard or another one.
//!
//! The key is the only authority (it comes without identity, in clear). It reaches the upstream only while its session has a
//! statement running there, and one request at a time, so a flood of them opens no flood of connections. It is compared before
//! anything is counted: whoever has it is heard, whatever others of the same address send. Who guesses is told to the operator;
//! a connection for every guess at one of 2^32 (protocol 3.0) or 2^256 secrets is what slows them down (threats DS-05).

use std::hash::{BuildHasher, RandomState};

use super::mailbox::{Ask, Leave, Mail};
use super::{Now, Shard};
use crate::address::Origin;
use crate::io::tls::SecureIo;
use crate::log;
use crate::protocol::postgres::handshake::CancelRequest;
use crate::session::Input;
use crate::session::cancel::Grant;

/// Wrong keys of an address in a second above which it is told. A client that cancels what is over already sends a few.
const GUESSES_TOLD: u8 = 10;
const BUCKETS: usize = 256;
/// How long a session is not cancelled again.
const PAUSE_MS: u32 = 100;

/// Wrong keys of this second, by a hash of the address.
pub struct Guesses {
    second: u64,
    counts: [u8; BUCKETS],
    /// In this second somebody was told of already.
    is_told: bool,
    hasher: RandomState,
}

impl Default for Guesses {
    fn default() -> Self {
        Self { second: 0, counts: [0; BUCKETS], is_told: false, hasher: RandomState::new() }
    }
}

impl Guesses {
    /// One more; true if it is time to tell of it.
    fn add(&mut self, peer: Origin, now: Now) -> bool {
        let second = now.monotonic_ns / 1_000_000_000;
        if self.second != second {
            (self.second, self.counts, self.is_told) = (second, [0; BUCKETS], false);
        }
        let count = &mut self.counts[self.hasher.hash_one(peer) as usize % BUCKETS];
        *count = count.saturating_add(1);
        *count >= GUESSES_TOLD && !std::mem::replace(&mut self.is_told, true)
    }
}

impl<I: SecureIo> Shard<I> {
    /// The bits of a secret's first byte that name a shard: no more of them than there are shards to be named, so that of the 32
    /// that protocol 3.0 has at least 25 are random.
    pub(super) fn shard_bits(&self) -> u8 {
        (self.siblings.len().next_power_of_two() - 1) as u8
    }

    /// A client of ours wants somebody cancelled: asks the shard that the secret names.
    pub(super) fn want_cancel(&mut self, index: u32, request: CancelRequest) {
        let Some(entry) = self.entries[index as usize].as_ref() else { return };
        let (session, peer, shard) = (entry.session.id(), entry.session.peer().origin(), self.number);
        let target = request.secret.first().map_or(self.number, |first| first & self.shard_bits());
        let ask = Ask { request, peer, shard, session, index };
        if target == self.number {
            let leave = self.leave(&ask);
            self.may_cancel(session, index, leave);
        } else if let Some(postbox) = self.siblings.get(usize::from(target)) {
            postbox.send(Mail::Cancel(Box::new(ask)));
        } else {
            self.may_cancel(session, index, None);
        }
    }

    pub(super) fn asked(&mut self, ask: &Ask) {
        let leave = self.leave(ask);
        if let Some(postbox) = self.siblings.get(usize::from(ask.shard)) {
            postbox.send(Mail::MayCancel { session: ask.session, index: ask.index, leave });
        }
    }

    pub(super) fn may_cancel(&mut self, session: u64, index: u32, leave: Option<Leave>) {
        let entry = self.entries.get_mut(index as usize).and_then(Option::as_deref_mut);
        let Some(entry) = entry.filter(|e| e.session.id() == session) else { return };
        let grant = leave.as_ref().map(|leave| leave.grant);
        entry.endpoint = leave.map(|leave| leave.endpoint);
        let count = if grant.is_some() { &self.counters.cancels_granted } else { &self.counters.cancels_denied };
        count.add(1);
        self.feed(index, Input::MayCancel(grant));
    }

    /// The place of the session that was given this key. Servers apart may give the same process id: the secret decides.
    fn named(&self, request: &CancelRequest) -> Option<usize> {
        let places = self.backends.range((request.process_id, 0)..=(request.process_id, u32::MAX));
        let is_named = |index: &usize| {
            let entry = self.entries.get(*index).and_then(Option::as_deref);
            entry.is_some_and(|entry| request.names(entry.session.cancel_key()))
        };
        places.map(|(_, index)| *index as usize).find(is_named)
    }

    fn guessed(&mut self, peer: Origin) {
        if self.guesses.add(peer, self.now) {
            let message =
                format!("{peer} sends many cancel requests with wrong keys; right ones are heard all the same");
            log::tell(&log::CANCEL_GUESSED, &[self.number.into(), peer.to_string().into()], message);
        }
    }

    fn leave(&mut self, ask: &Ask) -> Option<Leave> {
        let index = self.named(&ask.request);
        let Some(entry) = index.and_then(|index| self.entries[index].as_deref_mut()) else {
            self.guessed(ask.peer);
            return None;
        };
        let now = self.now;
        let key = entry.session.running()?;
        let endpoint = entry.endpoint.clone()?;
        if entry.was_cancelled && now.monotonic_ms().wrapping_sub(entry.cancelled_ms) < PAUSE_MS {
            return None;
        }
        (entry.was_cancelled, entry.cancelled_ms) = (true, now.monotonic_ms());
        let address = entry.address;
        let tls = endpoint.ways.get(usize::from(address))?.tls.is_some();
        Some(Leave { grant: Grant { key, address, tls }, endpoint })
    }
}
