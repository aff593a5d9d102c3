//! What `/metrics` shows, in Prometheus' text format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), by the exporter of the `metrics` crate.
//! `dataplane/METRICS.md` explains each family.
//!
//! A shard counts in cells of its own, where nothing is looked up or shared. They are read when somebody asks, into a recorder
//! that lives as long as the answer: what is gone since (a resource, a policy) is gone from the page.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::admin::Admin;
use super::{Control, Tokens};
use crate::datapath::counters::Counters;
use crate::shard::Now;

/// A name with its type, and what it counts.
pub struct Family {
    pub name: &'static str,
    pub kind: &'static str,
    help: &'static str,
    /// Set where another protocol would count apart.
    protocol: Option<&'static str>,
}

impl Family {
    const fn of_postgres(self) -> Self {
        Self { protocol: Some("postgres"), ..self }
    }
}

const fn family(name: &'static str, kind: &'static str, help: &'static str) -> Family {
    Family { name, kind, help, protocol: None }
}

/// A series of a shard: its label beside `shard`, if it has one, and its cell.
type Series = (Option<(&'static str, &'static str)>, fn(&Counters) -> u64);

const SHARDS: [(Family, &[Series]); 23] = [
    (family("wireward_sessions_open", "gauge", "Sessions.").of_postgres(), &[(None, |c| c.sessions_open.get())]),
    (
        family("wireward_sessions_stalled", "gauge", "Sessions that wait for the recorder, the ring or room."),
        &[(None, |c| c.sessions_stalled.get())],
    ),
    (family("wireward_tls_sessions_open", "gauge", "Sessions by TLS."), &[(None, |c| c.tls_sessions_open.get())]),
    (family("wireward_slots_free", "gauge", "Buffers of 32 KiB that nobody holds."), &[(None, |c| c.slots_free.get())]),
    (family("wireward_ring_used_bytes", "gauge", "Bytes not yet on disk."), &[(None, |c| c.ring_used_bytes.get())]),
    (family("wireward_ring_capacity_bytes", "gauge", "Size of the ring."), &[(None, |c| c.ring_capacity_bytes.get())]),
    (
        family("wireward_connections_accepted_total", "counter", "Client connections that were taken."),
        &[(None, |c| c.connections_accepted.get())],
    ),
    (
        family("wireward_connections_refused_total", "counter", "Client connections that were not taken, by reason."),
        &[
            (Some(("reason", "max_client_conn")), |c| c.refused_max_client_conn.get()),
            (Some(("reason", "shutting_down")), |c| c.refused_shutting_down.get()),
            (Some(("reason", "proxy_from")), |c| c.refused_not_a_proxy.get()),
        ],
    ),
    (
        family("wireward_proxy_headers_total", "counter", "PROXY protocol headers, by outcome."),
        &[
            (Some(("outcome", "client")), |c| c.proxied_named.get()),
            (Some(("outcome", "local")), |c| c.proxied_unnamed.get()),
            (Some(("outcome", "refused")), |c| c.proxy_headers_refused.get()),
        ],
    ),
    (
        family(
            "wireward_sessions_evicted_total",
            "counter",
            "Sessions that kept a buffer without moving while none was free.",
        ),
        &[(None, |c| c.sessions_evicted.get())],
    ),
    (
        family("wireward_accept_failures_total", "counter", "Accepts that the kernel failed."),
        &[(None, |c| c.accept_failures.get())],
    ),
    (
        family("wireward_logins_total", "counter", "Logins by outcome.").of_postgres(),
        &[
            (Some(("outcome", "admitted")), |c| c.logins.admitted.get()),
            (Some(("outcome", "not_admitted")), |c| c.logins.not_admitted.get()),
            (Some(("outcome", "protocol")), |c| c.logins.protocol.get()),
            (Some(("outcome", "limit")), |c| c.logins.limit.get()),
            (Some(("outcome", "unreachable")), |c| c.logins.unreachable.get()),
            (Some(("outcome", "timeout")), |c| c.logins.timeout.get()),
            (Some(("outcome", "too_many_clients")), |c| c.logins.too_many_clients.get()),
            (Some(("outcome", "not_recorded")), |c| c.logins.not_recorded.get()),
        ],
    ),
    (
        family("wireward_statements_total", "counter", "Texts that were judged, by verdict.").of_postgres(),
        &[
            (Some(("verdict", "allow")), |c| c.statements_allowed.get()),
            (Some(("verdict", "mask")), |c| c.statements_masked.get()),
            (Some(("verdict", "block")), |c| c.statements_blocked.get()),
        ],
    ),
    (
        family("wireward_executions_total", "counter", "Executions that clients have asked for.").of_postgres(),
        &[(None, |c| c.executions.get())],
    ),
    (
        family("wireward_rows_masked_total", "counter", "Rows that went through masks, or detectors alone.")
            .of_postgres(),
        &[(Some(("by", "mask")), |c| c.rows_masked.get()), (Some(("by", "detectors")), |c| c.rows_scanned.get())],
    ),
    (
        family("wireward_received_bytes_total", "counter", "Bytes received, without TLS, by side.").of_postgres(),
        &[
            (Some(("side", "client")), |c| c.client_bytes.get()),
            (Some(("side", "upstream")), |c| c.upstream_bytes.get()),
        ],
    ),
    (
        family("wireward_plan_cache_hits_total", "counter", "Texts whose plan was there."),
        &[(None, |c| c.plan_hits.get())],
    ),
    (
        family("wireward_plan_cache_misses_total", "counter", "Texts that were judged anew."),
        &[(None, |c| c.plan_misses.get())],
    ),
    (
        family("wireward_client_tls_handshakes_total", "counter", "TLS handshakes with clients by outcome."),
        &[
            (Some(("outcome", "done")), |c| c.client_tls_done.get()),
            (Some(("outcome", "failed")), |c| c.client_tls_failed.get()),
        ],
    ),
    (
        family("wireward_upstream_tls_handshakes_total", "counter", "TLS handshakes with upstreams by outcome."),
        &[
            (Some(("outcome", "done")), |c| c.upstream_tls_done.get()),
            (Some(("outcome", "failed")), |c| c.upstream_tls_failed.get()),
        ],
    ),
    (
        family("wireward_upstream_connections_total", "counter", "Upstream connections of sessions, by origin.")
            .of_postgres(),
        &[
            (Some(("origin", "login")), |c| c.upstream_logins.get()),
            (Some(("origin", "kept")), |c| c.upstream_leases.get()),
        ],
    ),
    (
        family("wireward_upstreams_kept", "gauge", "Upstream connections that no session has."),
        &[(None, |c| c.upstreams_kept.get())],
    ),
    (
        family("wireward_cancel_requests_total", "counter", "Cancel requests by outcome.").of_postgres(),
        &[
            (Some(("outcome", "granted")), |c| c.cancels_granted.get()),
            (Some(("outcome", "denied")), |c| c.cancels_denied.get()),
        ],
    ),
];

const HEARTBEAT: Family =
    family("wireward_recorder_heartbeat_age_seconds", "gauge", "Since the recorder's last sign of life.");
const TURN: Family = family("wireward_shard_turn_age_seconds", "gauge", "Since the shard's last turn.");
const CATALOGUE: Family = family("wireward_catalogue_age_seconds", "gauge", "Since the catalogue was last read.");
const KEYS: Family = family("wireward_issuer_keys_age_seconds", "gauge", "Since the issuer's keys were last read.");
const START: Family = family("process_start_time_seconds", "gauge", "Start of the dataplane process, Unix time.");
const DRIVER: Family = family("wireward_driver_info", "gauge", "The io driver; always 1.");
const POLICY: Family = family("wireward_policy_info", "gauge", "The policy in force; always 1.");
const BUILD: Family = family("wireward_build_info", "gauge", "The version; always 1.");

impl Admin {
    /// The whole exposition.
    pub fn metrics(&self, now: Now) -> String {
        let control = self.control();
        let page = Page(PrometheusBuilder::new().build_recorder());
        for (family, series) in &SHARDS {
            page.describe(family);
            for (shard, counters) in self.counters.iter().enumerate() {
                let of_shard = [Some(Label::new("shard", shard.to_string())), family.protocol.map(protocol)];
                for (label, read) in *series {
                    let own = label.map(|(name, value)| Label::new(name, value));
                    let labels = of_shard.iter().cloned().chain([own]).flatten();
                    page.count(family, labels.collect(), read(counters));
                }
            }
        }
        let heartbeat = |c: &Counters| seconds(since(now.unix_ns, c.recorder_heartbeat_unix_ns.get()));
        let turn = |c: &Counters| seconds(since(now.monotonic_ns, c.turned_monotonic_ns.get()));
        page.ages(&HEARTBEAT, "shard", self.counters.iter().enumerate().map(|(n, c)| (n.to_string(), heartbeat(c))));
        page.ages(&TURN, "shard", self.counters.iter().enumerate().map(|(n, c)| (n.to_string(), turn(c))));
        page.ages(&CATALOGUE, "resource", control.catalogue_ages().map(|(name, age)| (name.into(), seconds(age))));
        let keys = control.keys_ages().into_iter();
        page.ages(&KEYS, "issuer", keys.map(|(name, age)| (name.into(), seconds(age))));
        page.describe(&START);
        page.set(&START, Vec::new(), self.started_unix_s);
        page.ages(&DRIVER, "driver", [(self.driver.to_owned(), 1.0)].into_iter());
        page.ages(&POLICY, "policy", [(control.policy.epoch_name().to_owned(), 1.0)].into_iter());
        page.ages(&BUILD, "version", [(env!("CARGO_PKG_VERSION").to_owned(), 1.0)].into_iter());
        page.written()
    }
}

fn protocol(name: &'static str) -> Label {
    Label::new("protocol", name)
}

impl Control {
    /// Each resource, and how long ago its catalogue was last read, if it ever was.
    fn catalogue_ages(&self) -> impl Iterator<Item = (&str, Option<Duration>)> {
        let age =
            |read: &Mutex<Option<Instant>>| read.lock().unwrap_or_else(PoisonError::into_inner).map(|r| r.elapsed());
        self.resources.iter().map(move |guarded| (&*guarded.name, age(&guarded.read)))
    }

    fn keys_ages(&self) -> Vec<(&str, Option<Duration>)> {
        match &self.tokens {
            Tokens::Issuers(verifier) => verifier.keys_ages(),
            Tokens::Given(_) => Vec::new(),
        }
    }
}

/// How long ago `then` was, on the same clock; 0 stands for never.
pub(super) fn since(now_ns: u64, then_ns: u64) -> Option<Duration> {
    (then_ns > 0).then(|| Duration::from_nanos(now_ns.saturating_sub(then_ns)))
}

/// What has never happened is infinitely long ago.
fn seconds(age: Option<Duration>) -> f64 {
    age.map_or(f64::INFINITY, |age| age.as_secs_f64())
}

struct Page(PrometheusRecorder);

impl Page {
    const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

    fn describe(&self, family: &Family) {
        let name = KeyName::from_const_str(family.name);
        match family.kind {
            "counter" => self.0.describe_counter(name, None, family.help.into()),
            _ => self.0.describe_gauge(name, None, family.help.into()),
        }
    }

    /// A cell that only grows is a counter; others go up and down.
    fn count(&self, family: &Family, labels: Vec<Label>, value: u64) {
        match family.kind {
            "counter" => {
                let key = Key::from_parts(family.name, labels);
                self.0.register_counter(&key, &Self::METADATA).absolute(value);
            }
            _ => self.set(family, labels, value as f64),
        }
    }

    fn set(&self, family: &Family, labels: Vec<Label>, value: f64) {
        let key = Key::from_parts(family.name, labels);
        self.0.register_gauge(&key, &Self::METADATA).set(value);
    }

    /// A family with one label.
    fn ages(&self, family: &Family, label: &'static str, series: impl Iterator<Item = (String, f64)>) {
        self.describe(family);
        for (of, value) in series {
            self.set(family, vec![Label::new(label, of)], value);
        }
    }

    /// The exporter keeps no order: here two pages differ in their values alone. Its infinity is not the format's.
    fn written(&self) -> String {
        let page = self.0.handle().render().replace(" inf\n", " +Inf\n");
        let mut families: Vec<Vec<&str>> = page.split("\n\n").map(|family| family.lines().collect()).collect();
        families.iter_mut().for_each(|lines| lines.sort_by_key(|line| (!line.starts_with('#'), *line)));
        families.sort_unstable();
        families.concat().join("\n") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn page() -> String {
        let counters = vec![Arc::<Counters>::default(), Arc::default()];
        counters[1].judged(crate::datapath::verdict::Verdict::Deny);
        counters[1].turned_monotonic_ns.set(3_000_000_000);
        crate::control::admin::tests::paper(counters).metrics(Now { unix_ns: 5, monotonic_ns: 4_500_000_000 })
    }

    #[test]
    fn counts_and_ages_stand_with_their_shard() {
        let page = page();
        for line in [
            "wireward_statements_total{shard=\"0\",protocol=\"postgres\",verdict=\"block\"} 0",
            "wireward_statements_total{shard=\"1\",protocol=\"postgres\",verdict=\"block\"} 1",
            "wireward_shard_turn_age_seconds{shard=\"0\"} +Inf",
            "wireward_shard_turn_age_seconds{shard=\"1\"} 1.5",
            "wireward_driver_info{driver=\"paper\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in {page}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let page = Page(PrometheusBuilder::new().build_recorder());
        page.ages(&KEYS, "issuer", [("a\"b\\c\nd".to_owned(), 1.0)].into_iter());
        let page = page.written();
        assert!(page.ends_with("{issuer=\"a\\\"b\\\\c\\nd\"} 1\n"), "{page}");
    }

    #[test]
    fn the_document_tells_every_metric_and_no_other() {
        let page = page();
        let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        // The paper has no issuer and no resource.
        let absent = [CATALOGUE, KEYS].map(|family| format!("{} {}", family.name, family.kind));
        let families = families.chain(absent.iter().map(String::as_str));
        let mut shown: Vec<String> = families.map(|line| line.replacen(' ', "` | ", 1)).collect();
        shown.sort_unstable();
        let document = include_str!("../../METRICS.md");
        let (metrics, _) = document.split_once("\n## Log\n").expect("a chapter about the log");
        let rows = metrics.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut told: Vec<String> =
            rows.map(|row| row.splitn(3, " | ").take(2).collect::<Vec<_>>().join(" | ")).collect();
        told.sort_unstable();
        assert_eq!(told, shown);
        let labels = |line: &str| -> Vec<String> {
            let inside = line.split_once('{').map_or("", |(_, rest)| rest);
            inside.split("=\"").filter_map(|part| part.rsplit([',', '{']).next()).map(str::to_owned).collect()
        };
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name");
            let row = metrics.lines().find(|row| row.starts_with(&format!("| `{name}`"))).expect("told");
            for label in labels(line).iter().filter(|l| !l.is_empty() && !l.contains('"')) {
                assert!(row.contains(&format!("`{label}`")), "{name}: the label {label} is not told");
            }
        }
    }
}
