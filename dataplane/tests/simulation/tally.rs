//! How often each fault and each of its consequences has really happened: one that never happens is a test that cannot fail.

use std::collections::BTreeMap;

/// All that must have happened over the seeds that CI runs.
pub const WANTED: [&str; 49] = [
    "late completion",
    "short send",
    "question of the gateway's own",
    "stalled peer",
    "reset",
    "cut",
    "silent peer",
    "refused connect",
    "lie of an upstream",
    "long text judged late",
    "stranger",
    "stuck disk",
    "reload",
    "reload under a running statement",
    "reload between a Bind and its Execute",
    "reload in the midst of an answer",
    "statement shown",
    "statement starred",
    "statement refused",
    "session with two outcomes",
    "statement that began under one policy and may have ended under another",
    "session ended by a reload",
    "login refused by a reload",
    "credential exchanged",
    "certificate exchanged",
    "too many clients after a reload",
    "stop",
    "told of the stop",
    "statement finished while stopping",
    "cut off by the end of drain_timeout",
    "turned away while stopping",
    "cancel asked",
    "cancel landed",
    "cancel landed over shards",
    "slow statement cut short",
    "cancel of an idle session",
    "cancel of a session that is gone",
    "cancel with a wrong key",
    "expired: end",
    "expired: finish-statement",
    "expired: finish-transaction",
    "finished after its token had expired",
    "panic in a turn",
    "session lost by a panic",
    "session beside a panic",
    "session after a panic",
    "session after a panic that others were lost by",
    "death of the recorder",
    "record after a restart of the recorder",
];

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub fn add(&mut self, what: &'static str, times: impl TryInto<u64>) {
        debug_assert!(WANTED.contains(&what), "{what} is not in the list");
        *self.0.entry(what).or_default() += times.try_into().unwrap_or_default();
    }

    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, times)| *self.0.entry(what).or_default() += times);
    }

    /// What has never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        WANTED.into_iter().filter(|what| self.times(what) == 0).collect()
    }

    pub fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        WANTED.into_iter().try_for_each(|what| writeln!(f, "{:>10}  {what}", self.times(what)))
    }
}
