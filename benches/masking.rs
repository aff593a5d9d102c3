//! Masking rows in place: by column, by content, and lines of COPY. Each pass masks a fresh copy of the rows, since masked
//! rows hold nothing to mask; `copy-alone` is what the copying costs.
//!
//! `cargo bench -p benches --bench masking`

use std::hint::black_box;

use benches::{customer, data_row};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::datapath::copy_text::Fields;
use dataplane::datapath::mask::{Column, DetectView, MaskView, RowPlan};
use dataplane::datapath::verdict::CopyPlan;
use policy_compiler::artifact::MaskAction;
use policy_compiler::detect::{Kind, KindSet};
use policy_compiler::judge::CopyMasks;

const ROWS: u64 = 1000;
const CUSTOMERS: u32 = 16384;
const INT4: u32 = 23;
const TEXT: u32 = 25;

/// Rows one behind the other, and where each ends.
struct Rows {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows {
    /// `personal`: whether the n-th row holds what detectors look for.
    fn new(personal: fn(u64) -> bool, encode: fn(&[&str]) -> Vec<u8>) -> Rows {
        let mut rows = Rows { bytes: Vec::new(), ends: Vec::new() };
        for n in 0..ROWS {
            let values = customer(n, personal(n));
            rows.bytes.extend(encode(&values.each_ref().map(String::as_str)));
            rows.ends.push(rows.bytes.len());
        }
        rows
    }

    /// Copies the rows to `scratch` and masks each there; the bytes that are left of them.
    fn each(&self, scratch: &mut [u8], mut mask: impl FnMut(&mut [u8]) -> usize) -> usize {
        scratch.copy_from_slice(&self.bytes);
        let (mut from, mut left) = (0, 0);
        for to in &self.ends {
            left += mask(&mut scratch[from..*to]);
            from = *to;
        }
        left
    }
}

fn view(detect: bool, columns: &[(u16, MaskAction)]) -> MaskView {
    let mut view = MaskView::none();
    view.active = true;
    view.relations.insert(CUSTOMERS, 4);
    view.columns.extend(columns.iter().map(|(number, action)| ((CUSTOMERS, *number), *action)));
    view.detect = detect.then(|| DetectView { kinds: KindSet::ALL, actions: [MaskAction::Redact; Kind::ALL.len()] });
    view
}

fn plan(view: &MaskView) -> RowPlan {
    let column =
        |number| Column { relation: CUSTOMERS, number, type_oid: if number == 1 { INT4 } else { TEXT }, binary: false };
    let mut plan = RowPlan::default();
    plan.fill(view, None, &mut (1..=4).map(column));
    plan
}

fn copy_line(values: &[&str]) -> Vec<u8> {
    format!("{}\n", values.join("\t")).into_bytes()
}

fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("masking");
    let by_column = [(2, MaskAction::Redact), (4, MaskAction::Last4)];
    let cases: [(&str, MaskView, fn(u64) -> bool, bool); 5] = [
        ("columns", view(false, &by_column), |_| true, true),
        ("detect-none", view(true, &[]), |_| false, false),
        ("detect-sparse", view(true, &[]), |n| n % 100 == 0, true),
        ("detect-dense", view(true, &[]), |_| true, true),
        ("columns-and-detect", view(true, &by_column), |_| true, true),
    ];
    for (name, view, personal, changes) in &cases {
        let rows = Rows::new(*personal, data_row);
        let plan = plan(view);
        let mask = |row: &mut [u8]| plan.mask(view, row).expect("the row is well formed");
        let mut scratch = rows.bytes.clone();
        rows.each(&mut scratch, mask);
        assert_eq!(scratch != rows.bytes, *changes, "{name}");
        group.throughput(Throughput::ElementsAndBytes { elements: ROWS, bytes: rows.bytes.len() as u64 });
        group.bench_function(*name, |b| b.iter(|| rows.each(black_box(&mut scratch), mask)));
    }
    let rows = Rows::new(|_| true, data_row);
    let mut scratch = rows.bytes.clone();
    group.bench_function("copy-alone", |b| b.iter(|| rows.each(black_box(&mut scratch), |row| row.len())));
    group.finish();
}

fn copy(c: &mut Criterion) {
    let mut group = c.benchmark_group("masking-copy");
    let view = view(true, &[]);
    let masks = CopyMasks::Columns(vec![None, Some(MaskAction::Redact), None, None]);
    let plan = CopyPlan { masks: Some(masks), types: [25; 4].into(), ..CopyPlan::text() };
    let mut aside = Vec::new();
    let cases: [(&str, fn(u64) -> bool); 2] = [("sparse", |n| n % 100 == 0), ("dense", |_| true)];
    for (name, personal) in cases {
        let rows = Rows::new(personal, copy_line);
        let mut mask = |row: &mut [u8]| {
            aside.clear();
            Fields { view: &view, copy: &plan, is_header: false }.write(row, &mut aside);
            row[..aside.len()].copy_from_slice(&aside);
            aside.len()
        };
        let mut scratch = rows.bytes.clone();
        rows.each(&mut scratch, &mut mask);
        let shown = String::from_utf8_lossy(&scratch);
        assert!(!shown.contains("Byron") && !shown.contains("@example.com"), "{name}");
        group.throughput(Throughput::ElementsAndBytes { elements: ROWS, bytes: rows.bytes.len() as u64 });
        group.bench_function(name, |b| b.iter(|| rows.each(black_box(&mut scratch), &mut mask)));
    }
    group.finish();
}

criterion_group!(benches, rows, copy);
criterion_main!(benches);
