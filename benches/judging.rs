//! What it costs to know what a text may do: known by its bytes, known by its shape, or new.
//!
//! `cargo bench -p benches --bench judging`

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use benches::policy;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::control::catalogue::Snapshot;
use dataplane::control::policy::Subject;
use dataplane::datapath::plan_cache::PlanCache;
use dataplane::datapath::shape::shape;
use dataplane::datapath::verdict::Verdict;
use dataplane::protocol::postgres::dissector::NameKey;

const KEY: NameKey = NameKey([9; 16]);
const VIEW: u64 = 1;
/// As the product's default.
const PLANS_MAX: usize = 16_384;

/// Texts from the shortest to a report, and whether an analyst may run them.
const TEXTS: [(&str, &str, bool); 4] = [
    ("select-1", "SELECT 1", true),
    ("pgbench", "SELECT abalance FROM pgbench_accounts WHERE aid = 4242;", true),
    ("refused", "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = 4242;", false),
    (
        "report",
        "SELECT b.bid, count(*) AS n, sum(a.abalance) FILTER (WHERE a.abalance > 0) AS owed FROM pgbench_accounts a JOIN \
         pgbench_branches b ON b.bid = a.bid LEFT JOIN pgbench_tellers t ON t.bid = b.bid WHERE a.aid BETWEEN 10 AND 4242 \
         AND b.bid IN (1, 2, 3, 5, 8) GROUP BY b.bid HAVING count(*) > 7 ORDER BY owed DESC NULLS LAST LIMIT 20",
        true,
    ),
];

fn analyst() -> Subject {
    let policy = policy();
    let roles = policy.roles_for(["analyst"].into_iter());
    Subject::new(policy, roles, "shop".into(), Arc::new(Snapshot::default()))
}

fn exact(text: &str) -> u128 {
    KEY.hash(&[&VIEW.to_le_bytes(), text.as_bytes()])
}

/// A cache that is half full of other texts.
fn cache() -> PlanCache {
    let subject = analyst();
    let other = Rc::new(subject.decide(b"SELECT 2").into_plan(&subject.policy, 1, b"SELECT 2"));
    let mut cache = PlanCache::new(PLANS_MAX);
    (0..PLANS_MAX / 2).for_each(|n| cache.insert(exact(&n.to_string()), other.clone()));
    cache
}

fn judging(c: &mut Criterion) {
    let subject = analyst();
    let mut cache = cache();
    let mut group = c.benchmark_group("judging");
    for (name, text, allowed) in TEXTS {
        let plan = Rc::new(subject.decide(text.as_bytes()).into_plan(&subject.policy, 1, text.as_bytes()));
        assert_eq!(plan.verdict != Verdict::Deny, allowed, "{name}");
        let (shape_key, _) = shape(KEY, VIEW, text.as_bytes()).expect("a plain text has a shape");
        cache.insert(exact(text), plan.clone());
        cache.insert(shape_key, plan);
        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: text.len() as u64 });
        group.bench_function(BenchmarkId::new("hit-by-text", name), |b| {
            b.iter(|| cache.get(exact(black_box(text))).expect("it is there"));
        });
        group.bench_function(BenchmarkId::new("hit-by-shape", name), |b| {
            b.iter(|| {
                let (key, _) = shape(KEY, VIEW, black_box(text).as_bytes()).expect("a shape");
                cache.get(key).expect("it is there")
            });
        });
        group.bench_function(BenchmarkId::new("analyse-and-judge", name), |b| {
            b.iter(|| {
                subject.decide(black_box(text).as_bytes()).into_plan(&subject.policy, 1, black_box(text).as_bytes())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, judging);
criterion_main!(benches);
