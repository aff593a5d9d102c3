//! Messages of a hostile upstream, behind its login. The first byte chooses what the client has asked (bits 0-2), its masks
//! (bit 3), and how the bytes are cut the second time (4-7); the rest is a stream, see [`input::bursts`]; the client asks again
//! between two bursts.
//!
//! What must hold: what comes down was recorded before, but for a farewell of ours; nothing of a masked column comes down in
//! clear; however the bytes are cut, all of it is the same.

use std::rc::Rc;

use dataplane::datapath::verdict::{Judge, Judged, Plan, Verdict};
use dataplane::fault::{Fault, Side};
use dataplane::protocol::postgres::wire::message;
use dataplane::session::{Admission, Request, Secured};

use super::input::{Input, bursts, contains, messages};
use super::server::row_description;
use super::stage::{Cut, Outside, PLAIN, Ran, Stage};
use super::startup::{Masks, admission, log_in};

struct Gate(Masks);

impl Outside for Gate {
    fn admit(&mut self, _: &Request) -> Result<Box<Admission>, Fault> {
        Ok(admission(self.0))
    }

    fn secure(&mut self, side: Side) -> Secured {
        panic!("TLS was asked for on the {side:?} side")
    }
}

/// Allows everything; the strictest masks where a column has no origin.
struct Allows;

impl Judge for Allows {
    fn judge(&mut self, _: &[u8]) -> Judged {
        Judged::Plan(Rc::new(Plan {
            view: 0,
            text: None,
            verdict: Verdict::Allow,
            rule: "grant".into(),
            refusal: None,
            mask_unsourced: true,
            harmless: Box::default(),
            touches: Box::default(),
            is_unknown: false,
            transacts: false,
            defers: false,
            ends_others: false,
            leaves_traces: false,
            leaves_utf8: false,
            copy: None,
        }))
    }

    fn view(&self) -> u64 {
        0
    }
}

/// The client asks for COPY FROM STDIN, and its data waits.
const COPY_IN: u8 = 4;

/// What the client asks before each burst, by the first byte.
fn ask(kind: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |tag, body: &[u8]| message(&mut out, tag, |out| out.extend_from_slice(body));
    match kind & 7 {
        0 | 7 => put(b'Q', b"select * from people\0"),
        1 => {
            put(b'P', b"s\0select 1\0\0\0");
            put(b'B', b"\0s\0\0\0\0\0\0\0");
            put(b'D', b"P\0");
            put(b'E', b"\0\0\0\0\0");
            put(b'S', b"");
        }
        2 => {
            put(b'P', b"\0select 1\0\0\0");
            put(b'D', b"S\0");
            put(b'B', b"p\0\0\0\0\0\0\0\0");
            put(b'E', b"p\0\0\0\0\x05");
            put(b'H', b"");
        }
        3 => put(b'Q', b"copy people to stdout\0"),
        COPY_IN => {
            put(b'Q', b"copy people from stdin\0");
            put(b'd', b"1\t2\n");
            put(b'c', b"");
        }
        5 => {
            put(b'Q', b"select 1\0");
            put(b'Q', b"select 2\0");
            put(b'C', b"Sx\0");
            put(b'S', b"");
        }
        // Nothing is asked: only what comes unasked is due.
        _ => {}
    }
    out
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let masks = if flags & 8 == 0 { Masks::None } else { Masks::Content };
    let bursts = bursts(input.0);
    let whole = play(&bursts, flags, masks, None);
    check(&whole);
    // Rows under the description of their own masked columns: what comes down is read again, naively.
    if flags & 15 == 15 {
        check_rows(&whole.to_client);
    }
    let cut = play(&bursts, flags, masks, Some(1 + usize::from(flags >> 4)));
    check(&cut);
    same(whole, cut, flags & 7 == COPY_IN);
}

fn play(bursts: &[Vec<u8>], flags: u8, masks: Masks, cut: Cut) -> Ran {
    let mut stage = Stage::new(PLAIN, Box::new(Allows), Box::new(Gate(masks)));
    log_in(&mut stage);
    for burst in bursts {
        stage.cut(None);
        stage.say(Side::Client, &ask(flags));
        if flags & 15 == 15 {
            let mut description = Vec::new();
            row_description(&mut description);
            stage.say(Side::Upstream, &description);
        }
        stage.cut(cut);
        stage.say(Side::Upstream, burst);
    }
    stage.end(Side::Upstream);
    stage.ran()
}

fn check(ran: &Ran) {
    let farewell = ran.to_client.strip_prefix(&ran.record.responses[..]);
    let farewell = farewell.expect("what came down was recorded before");
    assert!(
        farewell.is_empty() || farewell[0] == b'E' && contains(farewell, b"wireward: "),
        "what came down is not in the record: {}",
        farewell.escape_ascii()
    );
    assert!(ran.closed.is_some(), "a session that ended has a Close record");
}

/// Columns 2 and 3 of each row are stars, up to the first message that may mean another result.
fn check_rows(to_client: &[u8]) {
    let is_of_result = |m: &&&[u8]| matches!(m[0], b'T' | b'D' | b'N' | b'A' | b'S');
    let (whole, _) = messages(to_client);
    let descriptions = whole.iter().take_while(is_of_result).filter(|m| m[0] == b'T').count();
    for row in whole.iter().take_while(is_of_result).filter(|m| m[0] == b'D' && descriptions == 1) {
        let values = values(&row[5..]).unwrap_or_else(|| panic!("a malformed row came down: {}", row.escape_ascii()));
        assert_eq!(values.len(), 3, "a row with other columns than were described");
        for value in values[1..].iter().flatten() {
            assert!(value.iter().all(|byte| *byte == b'*'), "a masked value came down: {}", value.escape_ascii());
        }
    }
}

fn values(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let (value, tail) = tail.split_at_checked(usize::try_from(length.max(0)).ok()?)?;
        values.push((length >= 0).then_some(value));
        rest = tail;
    }
    rest.is_empty().then_some(values)
}

/// A row that turns out malformed while it streams has partly left, and more or less of it by how it came. What came down is
/// what was recorded, so the record is compared.
///
/// What the client sends behind a COPY waits for leave. Whether it has gone up, and is owed an answer, when the upstream's next
/// message comes hangs on the cuts, and so does what that message is taken for: the runs need not be the same.
fn same(mut whole: Ran, mut cut: Ran, copies_in: bool) {
    if copies_in {
        return;
    }
    let is_amid = |ran: &Ran| !messages(&ran.to_client).1.is_empty();
    if is_amid(&whole) || is_amid(&cut) {
        let common = whole.record.responses.len().min(cut.record.responses.len());
        for ran in [&mut whole, &mut cut] {
            ran.to_client.clear();
            ran.record.responses.truncate(common);
        }
    }
    assert_eq!(whole, cut, "the bytes were cut otherwise, and something else came of it");
}
