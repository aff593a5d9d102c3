use hashbrown::HashMap;
use policy_compiler::artifact::MaskAction;
use policy_compiler::detect::{Kind, KindSet};

use super::*;
use crate::datapath::mask::Column;
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
