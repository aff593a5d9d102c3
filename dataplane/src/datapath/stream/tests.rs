use hashbrown::HashMap;
use policy_compiler::artifact::MaskAction;
use policy_compiler::detect::transform::{self, Transform};
use policy_compiler::detect::{Kind, KindSet};
use policy_compiler::judge::CopyMasks;

use super::*;
use crate::datapath::copy_text::Fields;
use crate::datapath::mask::{Column, Copied, CopyOut};
use crate::io::sim::Random;

/// What the detectors look for, whole, in part, and touching; and what only looks alike.
const PIECES: [&str; 20] = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "5555-5555-5555-4444",
    "378282246310005",
    "ada@example.com",
    "@example.org",
    "o'brien.with.a.long.local.part.of.many.bytes@mail.department.example.co.uk",
    "+49 30 1234567 2026",
    "+14155552671",
    "123-45-6789",
    "DE89370400440532013000",
    "DE89 3704 0044 0532 0130 00",
    "4",
    " ",
    ".",
    "-",
    "é",
    "\\n",
    "1732352871123456",
    "x",
];
const ACTIONS: [MaskAction; 3] = [MaskAction::Redact, MaskAction::Last4, MaskAction::Hash];
const TEXT: u32 = 25;
const JSON: u32 = 114;
const INT4: u32 = 23;

fn view(action: MaskAction) -> MaskView {
    let detect = DetectView { kinds: KindSet::ALL, actions: [action; Kind::ALL.len()] };
    MaskView {
        active: true,
        columns: HashMap::from_iter([
            ((1, 9), MaskAction::Redact),
            ((1, 10), MaskAction::Null),
            ((1, 11), MaskAction::Hash),
        ]),
        relations: HashMap::from_iter([(1, 20)]),
        detect: Some(detect),
        key: HashKey::new([7; 32]),
        ..MaskView::none()
    }
}

/// Columns 1 to 8 are masked by content, if at all.
fn plan(view: &MaskView, columns: &[(u16, u32)]) -> RowPlan {
    let mut rows = RowPlan::default();
    let columns = columns.iter().map(|(number, type_oid)| Column {
        relation: 1,
        number: *number,
        type_oid: *type_oid,
        binary: false,
    });
    rows.fill(view, None, &mut columns.collect::<Vec<_>>().into_iter());
    rows
}

fn tangle(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < bytes {
        let piece = PIECES[random.below(PIECES.len())];
        let times = if random.per_mille(100) { random.below(120) } else { 1 };
        text.extend(piece.repeat(times).bytes());
        if random.per_mille(300) {
            text.extend(std::iter::repeat_n(b'x', random.below(900)));
        }
    }
    text.truncate(bytes);
    text
}

fn data_row(values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut frame = vec![b'D', 0, 0, 0, 0];
    frame.extend((values.len() as u16).to_be_bytes());
    for value in values {
        frame.extend(value.as_ref().map_or(-1, |v| v.len() as i32).to_be_bytes());
        frame.extend(value.iter().flatten());
    }
    let length = (frame.len() as u32 - 1).to_be_bytes();
    frame[1..5].copy_from_slice(&length);
    frame
}

/// What must come out: one scan over each whole value.
fn masked(view: &MaskView, columns: &[(u16, u32)], values: &[Option<Vec<u8>>]) -> Vec<Option<Vec<u8>>> {
    let detect = view.detect.as_ref().expect("detectors");
    let mut values = values.to_vec();
    for (value, (number, type_oid)) in values.iter_mut().zip(columns) {
        let Some(value) = value else { continue };
        match (*number, *type_oid) {
            (9, _) => value.fill(b'*'),
            (_, INT4) => {}
            _ => {
                let raw = value.clone();
                detect::scan(&raw, detect.kinds, |m| {
                    detect.mask_match(&view.key, &mut value[m.start..m.end], m.kind, *type_oid == JSON);
                });
            }
        }
    }
    values
}

/// Feeds a frame in pieces that `cut` chooses; what is final must never change, what is not must be untouched.
fn streamed(
    mut frame_of: StreamedFrame,
    rows: &RowPlan,
    raw: &[u8],
    mut cut: impl FnMut(usize) -> usize,
) -> Option<(Vec<u8>, usize)> {
    let (mut out, mut come, mut held_max) = (Vec::new(), 0, 0);
    while come < raw.len() {
        come = raw.len().min(come + cut(come).max(1));
        let mut piece = raw[out.len()..come].to_vec();
        let bytes = frame_of.mask(rows, &mut piece)?;
        assert!(piece[bytes..] == raw[out.len() + bytes..come], "bytes that must come again were touched");
        out.extend_from_slice(&piece[..bytes]);
        held_max = held_max.max(come - out.len());
    }
    assert!(frame_of.is_finished() && out.len() == raw.len(), "all that came is final at the end");
    Some((out, held_max))
}

#[test]
fn a_row_streamed_in_any_pieces_is_the_row_masked_whole() {
    let mut random = Random::new(11);
    for round in 0..250 {
        let view = view(ACTIONS[round % 3]);
        let columns: Vec<(u16, u32)> = (0..1 + random.below(5))
            .map(|_| [(1, TEXT), (2, TEXT), (3, JSON), (4, INT4), (9, TEXT)][random.below(5)])
            .collect();
        let values: Vec<Option<Vec<u8>>> = (columns.iter())
            .map(|_| {
                let bytes = [0, 5, 600, 9_000, 40_000][random.below(5)];
                (!random.per_mille(100)).then(|| tangle(&mut random, bytes))
            })
            .collect();
        let rows = plan(&view, &columns);
        assert!(rows.streams(&view));
        let expected = data_row(&masked(&view, &columns, &values));
        let raw = data_row(&values);
        let mut whole = raw.clone();
        assert_eq!(rows.mask(&view, &mut whole), Some(raw.len()));
        assert!(whole == expected, "round {round}: a row held whole is not what one scan of each value gives");
        let cut_max = [1, 7, 300, 1_500, 32_768][random.below(5)];
        if cut_max == 1 && raw.len() > 20_000 {
            continue;
        }
        let frame = StreamedFrame::row(Rc::new(view), raw.len());
        let (out, held) = streamed(frame, &rows, &raw, |_| 1 + random.below(cut_max)).expect("a sound row");
        assert!(out == expected, "round {round}: a streamed row differs from the whole one, pieces up to {cut_max}");
        assert!(held <= WIDTH_BYTES_MAX + 4, "round {round}: {held} bytes were held back");
    }
}

#[test]
fn a_match_is_masked_wherever_a_piece_or_a_window_ends_in_it() {
    let view = Rc::new(view(MaskAction::Redact));
    let rows = plan(&view, &[(1, TEXT)]);
    for at in (0..700).chain(WINDOW_BYTES - 1_100..WINDOW_BYTES + 20) {
        for secret in ["4111111111111111", "ada.lovelace@mail.example.co.uk"] {
            let value = format!("{} {secret} {}", "x".repeat(at), "y".repeat(9_500 - at));
            let raw = data_row(&[Some(value.into_bytes())]);
            let expected = data_row(&masked(&view, &[(1, TEXT)], &[Some(raw[11..].to_vec())]));
            assert!(!String::from_utf8_lossy(&expected).contains(secret));
            for first in [raw.len(), at + 11, at + 20, at + 25] {
                let frame = StreamedFrame::row(view.clone(), raw.len());
                let cut = |come: usize| if come == 0 { first } else { raw.len() };
                let (out, _) = streamed(frame, &rows, &raw, cut).expect("a sound row");
                assert!(out == expected, "{secret} at {at}, first piece of {first}");
            }
        }
    }
}

#[test]
fn copy_data_is_streamed_as_it_is_masked_whole() {
    let mut random = Random::new(12);
    for (round, act) in [Act::Detect { json: false }, Act::Shape, Act::Pass].into_iter().cycle().take(60).enumerate() {
        let view = view(ACTIONS[round % 3]);
        let mut raw = vec![b'd', 0, 0, 0, 0];
        raw.extend(tangle(&mut random, 30_000));
        raw.extend(b"\tand more\n");
        let mut expected = raw.clone();
        match act {
            Act::Shape => redact_all(&mut expected[5..]),
            Act::Detect { .. } => view.scrub(&mut expected[5..]),
            _ => {}
        }
        let frame = StreamedFrame::copy_data(Rc::new(view), raw.len(), act);
        let rows = RowPlan::default();
        let (out, _) = streamed(frame, &rows, &raw, |_| 1 + random.below(9_000)).expect("any data is sound");
        assert!(out == expected, "round {round}");
    }
}

/// Layouts of COPY, of fields of the types of [`COPIED`].
fn layouts() -> [CopyPlan; 5] {
    let text = || CopyPlan { types: COPIED.into(), ..CopyPlan::text() };
    let csv = || CopyPlan { csv: true, delimiter: b',', null: Box::default(), ..text() };
    [
        text(),
        CopyPlan { delimiter: b'|', null: (*b"NULL").into(), ..text() },
        csv(),
        CopyPlan { delimiter: b';', escape: b'\\', null: (*b"\\N").into(), ..csv() },
        CopyPlan { quote: b'\'', escape: b'\'', ..csv() },
    ]
}

const COPIED: [u32; 4] = [TEXT, INT4, 0, JSON];

/// What the server makes of one byte of a value (`CopyAttributeOutText`, `CopyAttributeOutCSV`), written from its source.
fn server_writes(copy: &CopyPlan, byte: u8) -> Vec<u8> {
    match (copy.csv, byte) {
        (true, b) if b == copy.quote || b == copy.escape => vec![copy.escape, b],
        (true, b) => vec![b],
        (false, 8) => b"\\b".to_vec(),
        (false, 9) => b"\\t".to_vec(),
        (false, 10) => b"\\n".to_vec(),
        (false, 11) => b"\\v".to_vec(),
        (false, 12) => b"\\f".to_vec(),
        (false, 13) => b"\\r".to_vec(),
        (false, b) if b == b'\\' || b == copy.delimiter => vec![b'\\', b],
        (false, b) => vec![b],
    }
}

/// One line of the server's, each byte written by `write` (its number in the value, the raw byte). Whether a value is quoted
/// depends on what it is.
fn server_line(copy: &CopyPlan, values: &[Option<Vec<u8>>], write: impl Fn(usize, usize, u8) -> Vec<u8>) -> Vec<u8> {
    let fields = values.iter().enumerate().map(|(field, value)| {
        let Some(value) = value else { return copy.null.to_vec() };
        let special = |b: &u8| [copy.delimiter, copy.quote, b'\n', b'\r'].contains(b);
        let quoted = copy.csv && (*value == *copy.null || value.iter().any(special));
        let written = value.iter().enumerate().flat_map(|(at, byte)| match copy.csv && !quoted {
            true => write(field, at, *byte)[..].iter().rev().take(1).copied().collect(),
            false => write(field, at, *byte),
        });
        let written: Vec<u8> = written.collect();
        if quoted { [&[copy.quote], &written[..], &[copy.quote]].concat() } else { written }
    });
    let mut line = fields.collect::<Vec<_>>().join(&copy.delimiter);
    line.push(b'\n');
    line
}

fn copied_values(random: &mut Random) -> Vec<Option<Vec<u8>>> {
    let odd = [&b"\\"[..], b"\t", b"\n", b"\r", b"|", b",", b";", b"\"", b"'", b"\\N", b"\x08\x0b\x0c", b"", b" "];
    let value = |random: &mut Random| {
        let mut value = Vec::new();
        for _ in 0..random.below(6) {
            value.extend_from_slice(odd[random.below(odd.len())]);
            let bytes = [3, 40, 700, 5_000][random.below(4)];
            value.extend(tangle(random, bytes));
        }
        (!random.per_mille(100)).then_some(value)
    };
    COPIED
        .iter()
        .map(|type_oid| if *type_oid == INT4 { Some(b"4111111111111111".to_vec()) } else { value(random) })
        .collect()
}

#[test]
fn detectors_see_what_a_field_of_copy_means_whole_or_in_pieces() {
    let mut random = Random::new(13);
    let columns = COPIED.map(|type_oid| (1, type_oid));
    for round in 0..200 {
        let view = Rc::new(view(ACTIONS[round % 3]));
        for copy in layouts() {
            let values = copied_values(&mut random);
            let expected = masked(&view, &columns, &values);
            let line = server_line(&copy, &values, |_, _, byte| server_writes(&copy, byte));
            let is = |field: usize, at: usize| expected[field].as_ref().map_or(0, |value| value[at]);
            let whole = server_line(&copy, &values, |field, at, _| server_writes(&copy, is(field, at)));
            let same_size = server_line(&copy, &values, |field, at, was| {
                let mut unit = server_writes(&copy, was);
                if was != is(field, at) {
                    unit.fill(b'*');
                    unit[0] = is(field, at);
                }
                unit
            });
            let mut aside = Vec::new();
            let fields = Fields { view: &view, copy: &copy, is_header: false }.write(&line, &mut aside);
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(fields, COPIED.len(), "round {round}: {}", shown(&line));
            assert!(
                aside == whole,
                "round {round}: {}\n became {}\n not {}",
                shown(&line),
                shown(&aside),
                shown(&whole)
            );
            let raw = [&b"d\0\0\0\0"[..], &line].concat();
            let plan = Rc::new(Plan { copy: Some(copy), ..plan_of_nothing() });
            let frame = StreamedFrame::copy_text(view.clone(), raw.len(), plan);
            let cut_max = [300, 1_500, 9_000][random.below(3)];
            let (out, held) = streamed(frame, &RowPlan::default(), &raw, |_| 1 + random.below(cut_max)).expect("sound");
            assert!(out[5..] == same_size, "round {round}: {}\n streamed as {}", shown(&line), shown(&out[5..]));
            assert!(held <= 2 * WIDTH_BYTES_MAX + 2, "round {round}: {held} bytes were held back");
        }
    }
}

fn plan_of_nothing() -> Plan {
    Plan {
        verdict: crate::datapath::verdict::Verdict::Allow,
        rule: "grant".into(),
        refusal: None,
        mask_unsourced: false,
        harmless: Box::default(),
        touches: Box::default(),
        is_unknown: false,
        transacts: false,
        defers: false,
        ends_others: false,
        leaves_utf8: false,
        leaves_traces: false,
        copy: None,
        view: 0,
        text: None,
    }
}

const DATE: u32 = 1082;
const TEXT_ARRAY: u32 = 1009;

/// Of a field of a layout: its type, its mask, how it comes and what is seen. `#` stands for the pseudonym of `a<tab>b`.
const FIELDS: &[(usize, u32, MaskAction, &str, &str)] = &[
    (0, TEXT, MaskAction::Redact, "a\\tb\\\\", "****"),
    (0, TEXT, MaskAction::Last4, "a\\\\123-45-6789", "*****-**-6789"),
    (0, TEXT, MaskAction::Last4, "1234567\\\\\\t\\n9", "*******\\\\\\t\\n9"),
    (0, TEXT, MaskAction::Hash, "a\\tb", "#"),
    (2, TEXT, MaskAction::Hash, "a\tb", "#"),
    (0, TEXT, MaskAction::Null, "", "\\N"),
    (0, TEXT, MaskAction::Null, "x", "\\N"),
    (0, TEXT, MaskAction::Redact, "\\N", "\\N"),
    (0, TEXT, MaskAction::Redact, "\\\\N", "**"),
    (0, DATE, MaskAction::Last4, "1970-01-01", "\\N"),
    (0, INT4, MaskAction::Last4, "123451007", "\\N"),
    (0, INT4, MaskAction::Redact, "7", "\\N"),
    (0, TEXT_ARRAY, MaskAction::Last4, "{101-11-1007}", "\\N"),
    (0, 0, MaskAction::Redact, "of a type that is not known", "\\N"),
    (1, TEXT, MaskAction::Redact, "a\\|b", "***"),
    (1, INT4, MaskAction::Redact, "7", "NULL"),
    (2, TEXT, MaskAction::Redact, "\"a\"\"b,\nc\"", "\"******\""),
    (2, TEXT, MaskAction::Redact, "", ""),
    (2, TEXT, MaskAction::Redact, "\"\"", "\"\""),
    (2, DATE, MaskAction::Last4, "1970-01-01", ""),
    (2, INT4, MaskAction::Null, "\"7\"", ""),
    (2, TEXT, MaskAction::Last4, "\"12345678\"\"\"", "\"*****678\"\"\""),
    (3, TEXT, MaskAction::Last4, "\"12345678\\\"\"", "\"*****678\\\"\""),
    (3, TEXT, MaskAction::Redact, "a\\b", "***"),
    (3, TEXT, MaskAction::Redact, "\\N", "\\N"),
    (4, TEXT, MaskAction::Redact, "'it''s'", "'****'"),
];

#[test]
fn fields_of_copy_are_masked_by_what_they_mean_and_by_their_type() {
    let view = MaskView { detect: None, ..view(MaskAction::Redact) };
    let mut pseudonym = b"a\tb".to_vec();
    transform::apply(Transform::Hash, &view.key, &mut pseudonym);
    for (layout, type_oid, action, field, seen) in FIELDS {
        let mut copy = layouts().into_iter().nth(*layout).expect("a layout");
        copy.masks = Some(CopyMasks::Columns(vec![None, Some(*action), None]));
        copy.types = [TEXT, *type_oid, TEXT].into();
        let d = char::from(copy.delimiter);
        let line = format!("kept{d}{field}{d}kept\n");
        let mut aside = Vec::new();
        Fields { view: &view, copy: &copy, is_header: false }.write(line.as_bytes(), &mut aside);
        let seen = seen.replace('#', &String::from_utf8_lossy(&pseudonym));
        assert_eq!(String::from_utf8_lossy(&aside), format!("kept{d}{seen}{d}kept\n"), "{action:?} of {line}");
    }
}

#[test]
fn a_row_of_copy_that_is_not_as_announced_is_starred_and_one_that_grows_goes_aside() {
    let view = view(MaskAction::Redact);
    let masks = |masks: &[Option<MaskAction>]| Some(CopyMasks::Columns(masks.to_vec()));
    let null = Some(MaskAction::Null);
    let number = CopyPlan { masks: masks(&[null, None]), types: [INT4, TEXT].into(), ..CopyPlan::text() };
    let headed = CopyPlan { masks: masks(&[null, None]), types: [INT4, TEXT].into(), header: true, ..CopyPlan::text() };
    let detects = CopyPlan { masks: None, types: Box::default(), ..CopyPlan::text() };
    for (copy, fields, rows) in [
        (number, 2, &[("7\tx\n", "\\N\tx\n"), ("77\tx\n", "\\N\tx\n"), ("7\tx\ty\n", "*\t*\t*\n"), ("7\n", "*\n")][..]),
        (headed, 2, &[("id\tname\n", "id\tname\n"), ("id\tname\n", "\\N\tname\n")]),
        (
            detects,
            2,
            &[
                ("7\tann@example.com\n", "7\t***************\n"),
                ("a\\\\\tx\n", "a\\\\\tx\n"),
                ("ann@example.com\n", "***************\n"),
            ],
        ),
    ] {
        let plan = Plan { copy: Some(copy), mask_unsourced: true, ..plan_of_nothing() };
        let mut out = CopyOut::new(Some(Rc::new(plan)), Some(fields), false);
        for (row, seen) in rows {
            let mut row = row.as_bytes().to_vec();
            let mut aside = b"before".to_vec();
            let shown = match out.mask(&view, &mut row, &mut aside) {
                Copied::Here(bytes) => row[..bytes].to_vec(),
                Copied::Aside => aside[6..].to_vec(),
                Copied::Malformed => panic!("{seen} is malformed"),
            };
            assert_eq!(String::from_utf8_lossy(&shown), *seen);
            assert!(aside.starts_with(b"before"));
        }
    }
}

#[test]
fn copy_in_binary_is_looked_through_by_type_or_not_at_all() {
    let head = [&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x02"[..], b"xx"].concat();
    let row = |text: &[u8]| [&b"\0\x02\0\0\0\x08"[..], b"a@bc.net", &(text.len() as u32).to_be_bytes(), text].concat();
    let (raw, starred) = (row(b"to ann@example.com"), row(b"to ***************"));
    let nulled = [&raw[..14], &[255; 4]].concat();
    let joined = |row: &[u8]| [&head[..], row].concat();
    type Messages = Vec<(Vec<u8>, Option<Vec<u8>>)>;
    let rows: [(MaskAction, Messages); 6] = [
        (MaskAction::Redact, vec![(joined(&raw), Some(joined(&starred))), (raw.clone(), Some(starred.clone()))]),
        (MaskAction::Redact, vec![(head.clone(), Some(head.clone())), (vec![255, 255], Some(vec![255, 255]))]),
        (MaskAction::Null, vec![(joined(&raw), Some(joined(&nulled)))]),
        (MaskAction::Redact, vec![(raw.clone(), None)]),
        (MaskAction::Redact, vec![(head.clone(), Some(head.clone())), (raw[..30].to_vec(), None)]),
        (MaskAction::Redact, vec![(head.clone(), Some(head.clone())), (b"\0\x01\0\0\0\0".to_vec(), None)]),
    ];
    for (action, messages) in rows {
        let copy = CopyPlan { types: [20, TEXT].into(), binary: true, ..CopyPlan::text() };
        let plan = Rc::new(Plan { copy: Some(copy), ..plan_of_nothing() });
        let mut out = CopyOut::new(Some(plan.clone()), Some(2), true);
        assert!(out.is_understood(&view(action)));
        for (mut message, seen) in messages {
            let shown = match out.mask(&view(action), &mut message, &mut Vec::new()) {
                Copied::Here(bytes) => Some(message[..bytes].to_vec()),
                _ => None,
            };
            assert_eq!(shown, seen);
        }
        assert!(!CopyOut::new(Some(plan), Some(3), true).is_understood(&view(action)), "other fields");
        assert!(!CopyOut::new(None, Some(2), true).is_understood(&view(action)), "another statement");
        let text = Rc::new(Plan { copy: Some(CopyPlan::text()), ..plan_of_nothing() });
        assert!(!CopyOut::new(Some(text), Some(2), true).is_understood(&view(action)), "another format");
    }
}

#[test]
fn rows_that_contradict_themselves_or_their_description_are_malformed() {
    let view = Rc::new(view(MaskAction::Redact));
    let columns = [(1, TEXT), (2, TEXT)];
    let sound = data_row(&[Some(b"abc".to_vec()), None]);
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = sound.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let rows = [
        (sound.clone(), true),
        (with(5, &[0, 3]), false),
        (with(5, &[0, 1]), false),
        (with(7, &[0, 0, 0, 8]), false),
        (with(7, &[0xff, 0xff, 0xff, 0xfe]), false),
        (with(7, &[0x7f, 0xff, 0xff, 0xff]), false),
        (with(7, &[0, 0, 0, 2]), false),
        (with(14, &[0, 0, 0, 0]), true),
        (data_row(&[Some(b"abc".to_vec())]), false),
        ([sound.clone(), vec![0]].concat(), false),
    ];
    for (frame, is_sound) in rows {
        for piece in [1, 3, 100] {
            let stream = StreamedFrame::row(view.clone(), frame.len());
            let out = streamed(stream, &plan(&view, &columns), &frame, |_| piece);
            assert_eq!(out.is_some(), is_sound, "{frame:?} in pieces of {piece}");
        }
    }
}

#[test]
fn a_mask_that_needs_a_whole_value_or_shortens_a_row_does_not_stream() {
    let redacts = view(MaskAction::Redact);
    let nulls = view(MaskAction::Null);
    let rows: [(&MaskView, &[(u16, u32)], bool); 8] = [
        (&redacts, &[(1, TEXT), (9, TEXT), (4, INT4)], true),
        (&redacts, &[(9, INT4)], false),
        (&redacts, &[(10, TEXT)], false),
        (&redacts, &[(11, TEXT)], false),
        (&redacts, &[(1, TEXT), (11, TEXT)], false),
        (&nulls, &[(1, TEXT)], false),
        (&nulls, &[(1, INT4)], true),
        (&nulls, &[(9, TEXT)], true),
    ];
    for (view, columns, streams) in rows {
        assert_eq!(plan(view, columns).streams(view), streams, "{columns:?}");
    }
    assert!(!RowPlan::default().streams(&redacts), "rows without a description");
}

#[test]
fn text_that_cannot_be_null_is_starred_where_a_match_asks_for_null() {
    let view = view(MaskAction::Null);
    let mut row = b"1\tada@example.com\n".to_vec();
    view.scrub(&mut row);
    assert_eq!(row, b"1\t***************\n");
}
