//! Who must go when there is no more room: strangers that say nothing, and sessions that keep slots or room of the budget and
//! do not move.
//!
//! They are looked for only when something has run out, so nobody pays for it before.

use super::timers::{Kind, Waiting};
use super::{Entry, Shard};
use crate::fault::Fault;
use crate::io::tls::SecureIo;
use crate::log;
use crate::session::{Input, Shortage};

/// Once the slab is nearly empty, nobody keeps a slot for longer without moving.
const SLOT_KEPT_MAX_S: u32 = 10;
/// While others wait for room of the budget of gathered bytes, nobody keeps some for longer without moving.
const ROOM_KEPT_MAX_S: u32 = 10;
/// When all places are taken, a client that has not said who it is keeps its own no longer.
const STRANGER_MAX_NS: u64 = 1_000_000_000;

const KEPT: Fault = Fault::Limit(
    "the session has kept a buffer for 10 s without moving, by a message that was not finished or not read, while others \
     waited for one; the operator can raise limits.active_sessions_max",
);

const ROOM_KEPT: Fault = Fault::Limit(
    "the session has kept room for a message above 32 KiB for 10 s without moving, by one that was not finished or not read, while \
     others waited for it; the operator can raise limits.gathered_bytes_max",
);

impl<I: SecureIo> Shard<I> {
    /// Ends those that keep room and do not move while others wait for it, looking once a second at most.
    pub(super) fn end_idle_holders(&mut self) {
        let now_s = (self.now.monotonic_ns / 1_000_000_000) as u32;
        let waits = |e: &Entry| e.shortage == Some(Shortage::GatheredBytes);
        let is_awaited = self.stalled.iter().any(|at| self.entries[*at as usize].as_deref().is_some_and(waits));
        if !is_awaited || now_s == self.holders_seen_s {
            return;
        }
        self.holders_seen_s = now_s;
        let holders = self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let entry = entry.as_deref().filter(|e| !e.closing && !e.session.is_draining() && e.pending.is_none())?;
            let moved_s = entry.session.oldest_share_s()?;
            (now_s.saturating_sub(moved_s) > ROOM_KEPT_MAX_S).then_some((waits(entry), moved_s, index as u32))
        });
        let mut holders: Vec<(bool, u32, u32)> = holders.collect();
        holders.sort_unstable();
        // Of those that wait for each other one goes at a time: the others may go on then.
        let idle = holders.iter().take_while(|(waits, ..)| !waits).count();
        holders.truncate(idle.max(1));
        for (_, _, index) in holders {
            self.feed(index, Input::End(ROOM_KEPT));
        }
    }

    /// Ends those that have kept a slot for longest, looking once a second at most, while the slab is nearly empty.
    pub(super) fn evict(&mut self) {
        let now_s = (self.now.monotonic_ns / 1_000_000_000) as u32;
        if !self.slab.is_out() || now_s == self.evicted_s {
            return;
        }
        self.evicted_s = now_s;
        let mut keepers: Vec<(u32, u32)> = (0..self.entries.len() as u32)
            .filter_map(|index| Some((now_s.saturating_sub(self.oldest_slot_s(index)?), index)))
            .filter(|(kept_s, _)| *kept_s > SLOT_KEPT_MAX_S)
            .collect();
        keepers.sort_unstable_by(|a, b| b.cmp(a));
        keepers.truncate(self.slab.slots() as usize / 8);
        if keepers.is_empty() {
            return;
        }
        self.counters.sessions_evicted.add(keepers.len() as u64);
        let message = format!("{} sessions that kept buffers without moving were ended: none was free", keepers.len());
        log::tell(&log::SESSIONS_EVICTED, &[self.number.into(), keepers.len().into()], message);
        for (_, index) in keepers {
            self.feed(index, Input::End(KEPT));
        }
    }

    fn oldest_slot_s(&self, index: u32) -> Option<u32> {
        let entry = self.entries[index as usize].as_ref().filter(|e| !e.closing && !e.session.is_draining())?;
        let ciphertext = [Some(entry.client), entry.upstream].into_iter().flatten();
        ciphertext.filter_map(|conn| self.io.oldest_slot_s(conn)).chain(entry.session.oldest_slot_s()).min()
    }

    /// The client that has waited longest without a word gives its place to a new one. False if there is none.
    pub(super) fn make_place(&mut self) -> bool {
        let (entries, now_ns) = (&self.entries, self.now.monotonic_ns);
        let since_max_ns = now_ns.saturating_sub(STRANGER_MAX_NS);
        let timeout_ns = self.limits.login_timeout.as_nanos() as u64;
        let until_ns = since_max_ns.saturating_add(timeout_ns);
        let stranger = self.timers.oldest_login(until_ns, |index, id| waiting(entries, index, id));
        let Some(index) = stranger else { return false };
        self.counters.refused_max_client_conn.add(1);
        self.feed(index, Input::End(Fault::TooManyClients));
        true
    }

    /// The time that this login may take begins.
    pub(super) fn await_login(&mut self, index: u32, id: u64) {
        let entries = &self.entries;
        self.timers.forget_logins(|index, id| waiting(entries, index, id));
        self.timer(Kind::Login, self.limits.login_timeout, index, id);
    }
}

fn waiting(entries: &[Option<Box<Entry>>], index: u32, id: u64) -> Waiting {
    let entry = entries[index as usize].as_ref().filter(|e| e.session.id() == id && !e.closing);
    match entry.map(|e| &e.session) {
        Some(session) if session.is_stranger() => Waiting::Stranger,
        Some(session) if !session.is_relaying() => Waiting::Known,
        _ => Waiting::Over,
    }
}
