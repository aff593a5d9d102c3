//! What a shard counts: plain cells with one writer, the shard, on cache lines of their own. The control thread reads them for
//! `/metrics`; `dataplane/METRICS.md` says what each means.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::verdict::Verdict;
use crate::fault::{Fault, Side};

/// One cell. Only the shard that owns it may write, so a load and a store are enough.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// All that one shard counts. It outlives a shard that panics, so counts never go back while the process lives.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// When the shard last began a turn, on the monotonic clock; 0 before the first.
    pub turned_monotonic_ns: Counter,
    /// The recorder's heartbeat as the shard last saw it, nanoseconds since 1970; 0 before the first.
    pub recorder_heartbeat_unix_ns: Counter,
    pub ring_used_bytes: Counter,
    pub ring_capacity_bytes: Counter,
    pub sessions_open: Counter,
    pub sessions_stalled: Counter,
    pub tls_sessions_open: Counter,
    pub slots_free: Counter,

    pub connections_accepted: Counter,
    pub refused_max_client_conn: Counter,
    pub refused_shutting_down: Counter,
    pub refused_not_a_proxy: Counter,
    pub proxied_named: Counter,
    pub proxied_unnamed: Counter,
    pub proxy_headers_refused: Counter,
    pub sessions_evicted: Counter,
    pub accept_failures: Counter,
    pub logins: Logins,
    pub statements_allowed: Counter,
    pub statements_masked: Counter,
    pub statements_blocked: Counter,
    pub executions: Counter,
    pub rows_masked: Counter,
    pub rows_scanned: Counter,
    pub client_bytes: Counter,
    pub upstream_bytes: Counter,
    pub plan_hits: Counter,
    pub plan_misses: Counter,
    pub client_tls_done: Counter,
    pub client_tls_failed: Counter,
    pub upstream_tls_done: Counter,
    pub upstream_tls_failed: Counter,
    /// Logins to upstreams, and sessions that were lent a connection instead.
    pub upstream_logins: Counter,
    pub upstream_leases: Counter,
    pub upstreams_kept: Counter,
    pub cancels_granted: Counter,
    pub cancels_denied: Counter,
}

/// Logins by how they ended.
#[derive(Debug, Default)]
pub struct Logins {
    pub admitted: Counter,
    pub not_admitted: Counter,
    pub protocol: Counter,
    pub limit: Counter,
    pub unreachable: Counter,
    pub timeout: Counter,
    pub too_many_clients: Counter,
    pub not_recorded: Counter,
}

impl Logins {
    /// A client that goes away by itself has not failed, nor has one that only asks where tokens come from, nor one that we
    /// send away because we stop.
    pub fn failed(&self, fault: Fault) {
        let counter = match fault {
            Fault::Gone(Side::Client | Side::Wireward) | Fault::NoToken | Fault::ShuttingDown => return,
            Fault::Gone(Side::Upstream) | Fault::Unreachable(_) => &self.unreachable,
            Fault::Protocol(..) => &self.protocol,
            Fault::Limit(_) => &self.limit,
            Fault::NotAdmitted(_) | Fault::TokenExpired | Fault::NoLongerAdmitted => &self.not_admitted,
            Fault::NotRecorded => &self.not_recorded,
            Fault::LoginTimeout => &self.timeout,
            Fault::TooManyClients | Fault::TooManyOfSubject => &self.too_many_clients,
        };
        counter.add(1);
    }
}

impl Counters {
    /// A text was judged.
    pub fn judged(&self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Allow => &self.statements_allowed,
            Verdict::Mask => &self.statements_masked,
            Verdict::Deny => &self.statements_blocked,
        };
        counter.add(1);
    }

    pub fn received(&self, side: Side, bytes: usize) {
        let counter = if side == Side::Client { &self.client_bytes } else { &self.upstream_bytes };
        counter.add(bytes as u64);
    }

    /// A TLS handshake has ended.
    pub fn secured(&self, side: Side, done: bool) {
        let counter = match (side, done) {
            (Side::Client, true) => &self.client_tls_done,
            (Side::Client, false) => &self.client_tls_failed,
            (_, true) => &self.upstream_tls_done,
            (_, false) => &self.upstream_tls_failed,
        };
        counter.add(1);
    }
}
