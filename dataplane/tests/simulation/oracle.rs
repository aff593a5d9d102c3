//! What must hold, whatever the seed.

use std::collections::BTreeSet;

use dataplane::protocol::postgres::wire::u32_at;

use super::client::{Account, is_unasked, split};
use super::ledger::Evidence;
use super::server::{CANCELLED, Class, NULL, REFUSED, VAULTED};
use super::upstream::Intake;
use super::words::is_question;

/// A FATAL error in the gateway's own words.
pub fn is_our_fatal(frame: &[u8]) -> bool {
    frame[0] == b'E' && contains(frame, b"VFATAL\0") && contains(frame, b"Mwireward: ")
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    position(bytes, part).is_some()
}

pub fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = memchr::memchr(part[0], &bytes[from..]) {
        if bytes[from + at..].starts_with(part) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// (a) What a client received is what the server would have said, apart from refusals and our own farewell.
/// `may_be_cut`: a session whose recorder was gone for too long, say, may end in the midst of a row. `may_be_starred`: some
/// policy hides something from everybody.
pub fn answers_are_the_servers(account: &Account, may_be_cut: bool, may_be_starred: bool) {
    let (mut got, rest) = split(account.answers());
    let (mut expected, _) = split(&account.expected);
    [&mut got, &mut expected].into_iter().for_each(|frames| frames.retain(|f| !is_unasked(f)));
    let number = account.number;
    assert!(
        rest.is_empty() || account.faulted || may_be_cut || rest[0] == b'N',
        "client {number} was left with part of a message"
    );
    let mut same = 0;
    for (i, frame) in got.iter().enumerate() {
        if is_our_fatal(frame) {
            assert_eq!(i + 1, got.len(), "client {number} was sent something after its FATAL");
            break;
        }
        let alike = expected.get(i).is_some_and(|e| {
            let starred = is_starred(e, frame, account.masked, may_be_starred);
            let refused = is_refusal(e) && is_refusal(frame) || is_outdated(frame) && account.model.may_be_outdated(e);
            let outdated = is_outdated(e) && is_outdated(frame);
            let nameless = (account.masked || may_be_starred) && is_nameless(e, frame);
            e == frame || refused || outdated || starred || nameless || account.cancelled > 0 && is_cut_short(e, frame)
        });
        // A lie, or the server's own farewell, may stand where the model has another answer or none.
        if !alike && (account.lied_to || account.vault_unseen && i >= expected.len()) {
            break;
        }
        assert!(alike, "client {number}, answer {i}: {} where {} was due", show(frame), show_one(expected.get(i)));
        same += 1;
    }
    if account.done && !account.faulted {
        assert_eq!(same, expected.len(), "client {number} said goodbye without its last answers");
    }
}

pub fn is_refusal(frame: &[u8]) -> bool {
    frame[0] == b'E' && contains(frame, REFUSED)
}

/// After a reload the gateway runs nothing under a name that it is not sure of.
pub fn is_outdated(frame: &[u8]) -> bool {
    frame[0] == b'E' && contains(frame, b"C0A000\0")
}

/// Nothing stands under a name of the client's, or under the one that stands for a refusal.
pub fn says_no_name(frame: &[u8]) -> bool {
    frame[0] == b'E' && (contains(frame, b"C26000\0") || contains(frame, b"C34000\0"))
}

/// What the server says of a name that was lost may quote anything, so to who does not see everything its quotes are empty.
fn is_nameless(expected: &[u8], got: &[u8]) -> bool {
    let quotes = |frame: &[u8]| {
        let body = frame.get(5..).filter(|_| says_no_name(frame))?.to_vec();
        let (from, to) = (memchr::memchr(b'"', &body)? + 1, memchr::memrchr(b'"', &body)?);
        (from <= to).then(|| (body[..from].to_vec(), to - from, body[to..].to_vec()))
    };
    let (Some((before, named, behind)), Some((start, 0, end))) = (quotes(expected), quotes(got)) else { return false };
    let is_whole = u32_at(got, 1) == u32_at(expected, 1).map(|length| length - named as u32);
    before == start && behind == end && is_whole
}

/// COPY data and computed values under a name whose statement the gateway is not sure of, and what others notify: the strictest
/// masks hold. The vault is never starred by halves.
fn is_starred(expected: &[u8], got: &[u8], masked: bool, may_be_starred: bool) -> bool {
    let here = got[0] == b'd' && (masked || may_be_starred) || b"DA".contains(&got[0]) && may_be_starred;
    let starred = expected.len() == got.len() && expected.iter().zip(got).all(|(e, g)| e == g || *g == b'*');
    let nulled = got[0] == b'D' && contains(expected, b"CANARY") && got[5..] == [&[0, 1], &NULL[..]].concat();
    here && (starred || nulled) && !contains(expected, VAULTED.as_bytes())
}

/// A slow statement that was cancelled.
fn is_cut_short(expected: &[u8], got: &[u8]) -> bool {
    got[0] == b'C' && contains(got, CANCELLED.as_bytes()) && contains(expected, b"INSERT 0 1")
}

fn show_one(frame: Option<&&[u8]>) -> String {
    frame.map_or("nothing".to_owned(), |f| show(f))
}

pub fn show(frame: &[u8]) -> String {
    format!("{} bytes {}", frame.len(), frame[..frame.len().min(120)].escape_ascii())
}

/// (a), (d) Nothing of another session, and nothing masked, was seen; neither is it in the record of what was seen.
pub fn nothing_strays(account: &Account, evidence: Option<&Evidence>) {
    let recorded = evidence.map_or(&[][..], |e| &e.responses);
    for bytes in [&account.received[..], recorded] {
        for prefix in ["tok-c", "CANARY-c"] {
            let own = format!("{prefix}{}-", account.number);
            let mut from = 0;
            while let Some(at) = position(&bytes[from..], prefix.as_bytes()) {
                let found = &bytes[from + at..];
                // A long value ends anywhere, so only whole names count.
                let digits = found[prefix.len()..].iter().take_while(|b| b.is_ascii_digit()).count();
                let whole = digits > 0 && found.get(prefix.len() + digits) == Some(&b'-');
                assert!(!whole || found.starts_with(own.as_bytes()), "client {} got {}", account.number, show(found));
                from += at + 1;
            }
        }
        assert!(!account.masked || !contains(bytes, b"CANARY"), "client {} saw what is masked", account.number);
    }
}

/// (b) Nothing refused went up; all else did, in order, and nothing more than our own few messages; each after its record.
pub fn requests_are_the_clients(account: &Account, intake: &Intake, evidence: &Evidence) {
    assert!(!contains(&intake.received, b"forbidden"), "bytes of a refused statement went upstream");
    assert!(account.sent.starts_with(&evidence.requests), "the record of client {} differs", account.number);
    let (sent, _) = split(&account.sent);
    let login_end = intake.login_end.unwrap_or(intake.received.len());
    let (went, rest) = split(&intake.received[login_end..]);
    // What the server would ignore may be there or not, and our own messages look like the client's: all readings are kept.
    let mut readings = BTreeSet::from([0]);
    let mut end = login_end;
    for frame in went {
        end += frame.len();
        let before = std::mem::take(&mut readings);
        for next in &before {
            let fits = |n: &usize| class_of(account, *n) != Class::Drop && sent[*n] == frame;
            let found = skippable(account, *next).filter(fits);
            readings.extend(found.map(|n| n + 1));
        }
        match (is_ours(frame), readings.first()) {
            (true, _) => readings.extend(&before),
            (false, Some(next)) => recorded_before(account, intake, *next, end),
            (false, None) => {}
        }
        // After a lie the two no longer agree where they are.
        if readings.is_empty() && account.lied_to {
            return;
        }
        let due = show_one(before.first().and_then(|n| sent.get(*n)));
        assert!(
            !readings.is_empty(),
            "client {}: the upstream got {} where {due} was due",
            account.number,
            show(frame)
        );
    }
    let complete = account.done && !account.faulted;
    assert!(rest.is_empty() || account.faulted || account.closed, "the upstream got part of a message");
    let last = readings.last().copied().unwrap_or(0);
    let missing = (last..sent.len()).filter(|n| class_of(account, *n) == Class::Must && sent[*n][0] != b'X').count();
    assert!(!complete || missing == 0, "{missing} messages of client {} never went upstream", account.number);
}

/// The client's messages from `next` on that can be the next to go upstream.
fn skippable(account: &Account, next: usize) -> impl Iterator<Item = usize> {
    let musts = (next..account.model.classes.len()).position(|n| class_of(account, n) == Class::Must);
    next..musts.map_or(account.model.classes.len(), |n| next + n + 1)
}

fn class_of(account: &Account, n: usize) -> Class {
    account.model.classes[n].1
}

/// (c) The send that brought a request's last byte was submitted after the request was recorded.
fn recorded_before(account: &Account, intake: &Intake, next: usize, end: usize) {
    let (offset, _) = account.model.classes[next - 1];
    let send = intake.sends.iter().find(|(sent, _)| *sent >= end).expect("it was sent");
    assert!(send.1 >= offset, "message {next} of client {} left before its record", account.number);
}

/// Messages that the gateway says itself: its questions, Describe of a portal, the Execute that stands for a refusal, Sync,
/// Terminate.
fn is_ours(frame: &[u8]) -> bool {
    match frame[0] {
        _ if is_question(frame) => true,
        b'D' => frame[5] == b'P',
        b'E' => frame[5..].starts_with(b"blocked by wireward\0"),
        b'S' | b'X' => true,
        _ => false,
    }
}

/// (c) The record of a client's answers is what it received, and its end is told once.
pub fn the_record_is_complete(account: &Account, evidence: &Evidence) {
    let number = account.number;
    let due = u32::from(!evidence.lost);
    assert_eq!(evidence.closes, due, "client {number} has {} Close records", evidence.closes);
    let answers = account.answers();
    let same = answers.iter().zip(&evidence.responses).take_while(|(a, b)| a == b).count();
    let farewell = &answers[same..];
    let ours = farewell.is_empty() || same == evidence.responses.len() && farewell[0] == b'E';
    assert!(ours, "client {number} received at {same} what is not in its record: {}", show(farewell));
}
