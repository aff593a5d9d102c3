//! Refused logins as evidence: each has a record of its own while they are few; a flood is only counted.
//!
//! Who may not log in must not be able to fill the disk either. `recorder/ring/RECORD.md` gives the bound.

use ring::{Flags, Kind};
use serde_json::{Value, json};

use super::{Now, Shard};
use crate::address::Origin;
use crate::datapath::tap::Note;
use crate::io::tls::SecureIo;
use crate::session::Refused;

/// Refused logins in a row that each have a record.
const RECORDS_MAX: u64 = 100;
/// After that many, one more for each of these spans.
const RECORD_EVERY_NS: u64 = 10_000_000_000;
/// How often those that were only counted are told.
const SUMMARY_EVERY_NS: u64 = 60_000_000_000;
/// Characters of a claimed name that are recorded.
const NAME_CHARACTERS_MAX: usize = 63;
/// Addresses that a summary names.
const ADDRESSES_MAX: usize = 16;

/// How many more may be recorded, and what was only counted.
#[derive(Debug)]
pub(super) struct Refusals {
    records_left: u64,
    refilled_ns: u64,
    counted: u64,
    /// When the first of the counted came.
    since: Now,
    reasons: Vec<(&'static str, u64)>,
    addresses: Vec<(Origin, u64)>,
}

impl Default for Refusals {
    fn default() -> Self {
        let (reasons, addresses) = (Vec::new(), Vec::new());
        Self { records_left: RECORDS_MAX, refilled_ns: 0, counted: 0, since: Now::default(), reasons, addresses }
    }
}

impl Refusals {
    fn may_record(&mut self, now_ns: u64) -> bool {
        let spans = now_ns.saturating_sub(self.refilled_ns) / RECORD_EVERY_NS;
        self.records_left = RECORDS_MAX.min(self.records_left.saturating_add(spans));
        self.refilled_ns += spans * RECORD_EVERY_NS;
        let may = self.records_left > 0;
        self.records_left -= u64::from(may);
        may
    }

    fn count(&mut self, reason: &'static str, address: Origin, now: Now) {
        if self.counted == 0 {
            self.since = now;
        }
        self.counted += 1;
        // Reasons are texts of this program, so they are few.
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, times)) => *times += 1,
            None => self.reasons.push((reason, 1)),
        }
        let has_room = self.addresses.len() < ADDRESSES_MAX;
        match self.addresses.iter_mut().find(|(known, _)| *known == address) {
            Some((_, times)) => *times += 1,
            None if has_room => self.addresses.push((address, 1)),
            None => {}
        }
    }

    /// What was only counted, if its time has come.
    fn summary(&self, now: Now) -> Option<Value> {
        let due = self.counted > 0 && now.monotonic_ns.saturating_sub(self.since.monotonic_ns) >= SUMMARY_EVERY_NS;
        due.then(|| self.all(now))
    }

    fn all(&self, now: Now) -> Value {
        let named: u64 = self.addresses.iter().map(|(_, times)| times).sum();
        let times_of = |(name, times): (String, u64)| (name, json!(times));
        json!({
            "event": "logins refused",
            "time_unix_ns": now.unix_ns,
            "since_unix_ns": self.since.unix_ns,
            "count": self.counted,
            "reasons": self.reasons.iter().map(|(r, n)| times_of(((*r).to_owned(), *n))).collect::<serde_json::Map<_, _>>(),
            "clients": self.addresses.iter().map(|(a, n)| times_of((a.to_string(), *n))).collect::<serde_json::Map<_, _>>(),
            "from_other_clients": self.counted - named,
        })
    }

    fn told(&mut self) {
        self.counted = 0;
        self.reasons.clear();
        self.addresses.clear();
    }
}

impl<I: SecureIo> Shard<I> {
    /// A login was refused: it is recorded, or counted when they are many or the ring is nearly full.
    pub(super) fn refused(&mut self, refused: &Refused) {
        let note = login_refused(refused, self.now.unix_ns);
        let may = self.refusals.may_record(self.now.monotonic_ns);
        if !(may && self.tell(refused.session, &note)) {
            self.refusals.count(refused.fault.text(), refused.client.origin(), self.now);
        }
    }

    pub(super) fn tell_refusals(&mut self) {
        if let Some(summary) = self.refusals.summary(self.now)
            && self.tell(0, &summary)
        {
            self.refusals.told();
        }
    }

    /// The shard ends: what was counted is told now or never.
    pub(super) fn tell_last_refusals(&mut self) {
        if self.refusals.counted > 0 && self.tell(0, &self.refusals.all(self.now)) {
            self.refusals.told();
        }
    }

    fn tell(&mut self, session: u64, note: &Value) -> bool {
        let text = note.to_string();
        let note = Note { kind: Kind::Note, flags: Flags::WHOLE, session, now_unix_ns: self.now.unix_ns };
        // The ring's reserve is for sessions that were let in.
        self.tap.room_bytes() > text.len() && self.tap.record(note, &[text.as_bytes()]).is_some()
    }
}

fn login_refused(refused: &Refused, now_unix_ns: u64) -> Value {
    let cut = |name: &str| name.chars().take(NAME_CHARACTERS_MAX).collect::<String>();
    json!({
        "event": "login refused",
        "session": refused.session,
        "time_unix_ns": now_unix_ns,
        "protocol": "postgres",
        "client": refused.client.to_string(),
        "user": cut(&refused.user),
        "database": cut(&refused.database),
        "reason": refused.fault.text(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { unix_ns: 1_700_000_000_000_000_000 + seconds * 1_000_000_000, monotonic_ns: seconds * 1_000_000_000 }
    }

    #[test]
    fn a_flood_has_a_hundred_records_then_one_in_ten_seconds() {
        let mut refusals = Refusals::default();
        let mut recorded = |seconds: u64| (0..5_000).filter(|_| refusals.may_record(at(seconds).monotonic_ns)).count();
        let recorded: [usize; 7] = [1_000, 1_000, 1_009, 1_010, 1_025, 2_000, 2_000 + 86_400].map(&mut recorded);
        assert_eq!(recorded, [100, 0, 0, 1, 1, 98, 100], "what is saved up is never more than a hundred");
    }

    #[test]
    fn what_is_only_counted_is_told_once_a_minute_with_reasons_and_addresses() {
        let mut refusals = Refusals::default();
        for n in 0..100u8 {
            let reason = if n % 4 == 0 { "no token" } else { "bad token" };
            refusals.count(reason, Origin::Ip([10, 0, 0, n % 20].into()), at(5));
        }
        assert_eq!(refusals.summary(at(64)), None);
        let told = refusals.summary(at(65)).expect("a minute has passed");
        assert_eq!((&told["count"], &told["reasons"]["bad token"]), (&100.into(), &75.into()));
        assert_eq!(told["clients"].as_object().map(serde_json::Map::len), Some(16));
        assert_eq!((&told["clients"]["10.0.0.0"], &told["from_other_clients"]), (&5.into(), &20.into()));
        refusals.told();
        assert_eq!(refusals.summary(at(200)), None);
    }
}
