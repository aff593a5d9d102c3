//! Messages of a hostile client, behind its login, before an honest upstream. The first byte chooses judge (bits 0-1), masks
//! (2-3) and how the bytes are cut the second time (4-7); the rest is a stream, see [`input::bursts`].
//!
//! What must hold: nothing refused goes up; what goes up are the client's whole messages in order, and few of our own; each
//! is recorded; nothing masked comes down; the honest upstream is never blamed; however the bytes are cut, all of it is the
//! same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use dataplane::control::catalogue::Snapshot;
use dataplane::control::policy::Subject;
use dataplane::datapath::verdict::{Judge, Judged, Plan, Verdict};
use dataplane::fault::{Fault, Side};
use dataplane::protocol::postgres::responder::Report;
use dataplane::protocol::postgres::wire::cstr_at;
use dataplane::session::{Admission, Request, Secured};
use policy_compiler::artifact::{Policy, RoleSet};
use policy_compiler::policy::Source;

use super::input::{Input, bursts, contains, messages};
use super::server::{CANARY, COMPUTED, NO_PORTAL, NO_STATEMENT, PEOPLE, Server};
use super::stage::{Cut, Outside, PLAIN, Ran, Stage};
use super::startup::{Masks, admission, log_in};

/// Grants nothing that a session could ask for.
const DENY_ALL: &str = "[[role]]\nname = \"r\"\n[[grant]]\nto = [\"r\"]\nresources = [\"shop\"]\neffects = [\"read\"]\n\
    relations = [\"nothing.nowhere\"]\n[[rule]]\nname = \"no\"\naction = \"block\"\n";

/// Who judges the client's texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bench {
    DenyAll,
    /// The product's judge under a policy that blocks every effect.
    DenyAllPolicy,
    /// Texts with `forbidden` in them are denied.
    ByWord,
    AllowAll,
}

impl Bench {
    fn plan(self, text: &[u8]) -> Plan {
        let denied = match self {
            Self::DenyAllPolicy => return subject().decide(text).into_plan(&subject().policy, 0, text),
            Self::DenyAll => true,
            Self::ByWord => contains(text, b"forbidden"),
            Self::AllowAll => false,
        };
        let mut refusal = Vec::new();
        Report::error("42501", "wireward: blocked by rule no-forbidden").write(&mut refusal);
        Plan {
            view: 0,
            text: None,
            verdict: if denied { Verdict::Deny } else { Verdict::Allow },
            rule: "rule".into(),
            refusal: denied.then(|| refusal.into()),
            mask_unsourced: contains(text, COMPUTED),
            harmless: Box::default(),
            touches: Box::default(),
            is_unknown: false,
            transacts: false,
            defers: false,
            ends_others: false,
            leaves_traces: false,
            leaves_utf8: false,
            copy: None,
        }
    }
}

impl Judge for Bench {
    fn judge(&mut self, text: &[u8]) -> Judged {
        Judged::Plan(match self {
            Self::DenyAllPolicy => remembered(text, || self.plan(text)),
            _ => Rc::new(self.plan(text)),
        })
    }

    fn view(&self) -> u64 {
        0
    }
}

/// Texts whose plans a thread remembers: most of an input's are its parent's, and parsing them anew is most of its time.
const PLANS_MAX: usize = 4096;

thread_local! {
    static PLANS: RefCell<HashMap<Vec<u8>, Rc<Plan>>> = RefCell::default();
}

/// The plan of a text, made once. Nobody but the text has a say in it.
fn remembered(text: &[u8], plan: impl FnOnce() -> Plan) -> Rc<Plan> {
    PLANS.with_borrow_mut(|plans| {
        if let Some(plan) = plans.get(text) {
            return plan.clone();
        }
        if plans.len() == PLANS_MAX {
            plans.clear();
        }
        let plan = Rc::new(plan());
        plans.insert(text.to_vec(), plan.clone());
        plan
    })
}

fn subject() -> &'static Subject {
    static SUBJECT: OnceLock<Subject> = OnceLock::new();
    SUBJECT.get_or_init(|| {
        let source = Source { name: "deny.toml".into(), text: DENY_ALL.into() };
        let bytes = policy_compiler::build::compile(&[source]).expect("a sound policy");
        let policy = Policy::from_bytes(bytes).expect("a sound artifact");
        let roles = policy.role_named("r").unwrap_or_else(RoleSet::default);
        let tables = Snapshot::of(&[(PEOPLE, "people", &["id", "name", "ssn"])]);
        Subject::new(policy, roles, "shop".into(), Arc::new(tables))
    })
}

struct Gate(Masks);

impl Outside for Gate {
    fn admit(&mut self, _: &Request) -> Result<Box<Admission>, Fault> {
        Ok(admission(self.0))
    }

    fn secure(&mut self, side: Side) -> Secured {
        panic!("TLS was asked for on the {side:?} side")
    }
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let bench = [Bench::DenyAll, Bench::DenyAllPolicy, Bench::ByWord, Bench::AllowAll][usize::from(flags & 3)];
    let masks = [Masks::None, Masks::None, Masks::Columns, Masks::Content][usize::from(flags >> 2 & 3)];
    let bursts = bursts(input.0);
    let whole = play(&bursts, bench, masks, None);
    check(&whole, &bursts, bench, masks);
    let cut = play(&bursts, bench, masks, Some(1 + usize::from(flags >> 4)));
    check(&cut, &bursts, bench, masks);
    same(whole, cut);
}

fn play(bursts: &[Vec<u8>], bench: Bench, masks: Masks, cut: Cut) -> Ran {
    let mut stage = Stage::new(PLAIN, Box::new(bench), Box::new(Gate(masks)));
    log_in(&mut stage);
    stage.cut(cut);
    let mut server = Server::new();
    for burst in bursts {
        stage.say(Side::Client, burst);
        // Answers may let go on what waited for them.
        loop {
            let answers = server.answer(&stage.left[Side::Upstream as usize]);
            if answers.is_empty() || stage.closed {
                break;
            }
            stage.say(Side::Upstream, &answers);
        }
    }
    stage.end(Side::Client);
    stage.ran()
}

fn check(ran: &Ran, bursts: &[Vec<u8>], bench: Bench, masks: Masks) {
    let sent = bursts.concat();
    assert!(sent.starts_with(&ran.record.requests), "the record holds what the client has not sent");
    let told = ran.closed.as_deref().unwrap_or("an end without a Close record");
    assert!(!told.contains("upstream") && !told.contains("without"), "an honest upstream is blamed: {told}");
    let (went, rest) = messages(&ran.to_upstream);
    let streams = rest.first() == Some(&b'd');
    assert!(rest.is_empty() || streams, "part of a message went up: {}", rest.escape_ascii());
    if matches!(bench, Bench::DenyAll | Bench::DenyAllPolicy) {
        let says_nothing = |m: &[u8]| bench == Bench::DenyAllPolicy && text(m).is_some_and(is_blank);
        let statement = went.iter().find(|m| matches!(m[0], b'Q' | b'P' | b'F' | b'd') && !says_nothing(m));
        assert!(statement.is_none() && !streams, "a statement went up under a policy that denies all: {statement:?}");
    }
    if bench == Bench::ByWord {
        let refused = went.iter().find(|m| text(m).is_some_and(|text| contains(text, b"forbidden")));
        assert!(refused.is_none(), "a refused text went up: {refused:?}");
    }
    let mut said = messages(&sent).0.into_iter();
    for message in &went {
        let known = is_ours(message) || said.any(|m| m == *message);
        assert!(known, "what went up is not the client's, or out of order: {}", message.escape_ascii());
    }
    if masks != Masks::None {
        assert!(!contains(&ran.to_client, CANARY), "a masked value came down");
        assert!(!contains(&ran.record.responses, CANARY), "a masked value is in the record");
    }
    let farewell = ran.to_client.strip_prefix(&ran.record.responses[..]);
    assert!(farewell.is_some(), "what came down is not what was recorded");
}

/// The text of a Query or Parse message.
fn text(message: &[u8]) -> Option<&[u8]> {
    let at = match message[0] {
        b'Q' => 5,
        b'P' => cstr_at(message, 5)?.1,
        _ => return None,
    };
    Some(cstr_at(message, at)?.0)
}

/// Whether there is no statement in a text: so drivers ask whether the server lives, and rules have nothing to judge.
fn is_blank(mut text: &[u8]) -> bool {
    loop {
        text = match text {
            [] => return true,
            [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | b';', rest @ ..] => rest,
            [b'-', b'-', rest @ ..] => match rest.iter().position(|byte| b"\n\r".contains(byte)) {
                Some(end) => &rest[end..],
                None => &[],
            },
            [b'/', b'*', rest @ ..] => behind_comment(rest),
            _ => return false,
        };
    }
}

/// Comments nest. One that has no end is an error, and goes nowhere.
fn behind_comment(mut text: &[u8]) -> &[u8] {
    let mut depth = 1;
    while depth > 0 {
        text = match text {
            [] => return &[],
            [b'/', b'*', rest @ ..] => {
                depth += 1;
                rest
            }
            [b'*', b'/', rest @ ..] => {
                depth -= 1;
                rest
            }
            [_, rest @ ..] => rest,
        };
    }
    text
}

/// Messages that the gateway says itself: Describe of a portal, the Execute that stands for a refusal, Sync, Terminate.
fn is_ours(message: &[u8]) -> bool {
    match message[0] {
        b'D' => message[5] == b'P',
        b'E' => message[5..].starts_with(b"blocked by wireward\0"),
        b'S' | b'X' => message.len() == 5,
        _ => false,
    }
}

/// What went up, but for what the server has failed for the want of a name, and all that it skipped for that. By the answers that
/// have come until then the gateway knows, or does not, that there is no such name; what it says itself is the same.
fn without_vain(stream: &[u8]) -> Vec<u8> {
    let (mut server, mut kept) = (Server::new(), Vec::new());
    let (whole, rest) = messages(stream);
    let (mut end, mut is_vain) = (0, false);
    for message in whole {
        end += message.len();
        let answer = server.answer(&stream[..end]);
        let is_last = is_vain && message[0] == b'S';
        is_vain |= [NO_STATEMENT, NO_PORTAL].iter().any(|code| contains(&answer, format!("\0C{code}\0").as_bytes()));
        kept.extend_from_slice(if is_vain { &[] } else { message });
        is_vain &= !is_last;
    }
    [kept, rest.to_vec()].concat()
}

/// Of a message that ends the session before it is whole, the record has what had come.
///
/// COPY data waits for what the server says, and all that follows it waits too: what becomes of it, and when a session ends by
/// it, hangs on how much of that has come. Both runs keep their promises by themselves; they need not be the same.
fn same(mut whole: Ran, mut cut: Ran) {
    let is_data = |m: &[u8]| matches!(m[0], b'd' | b'c' | b'f');
    let copies = |ran: &Ran| {
        let (went, rest) = messages(&ran.record.requests);
        went.into_iter().any(is_data) || rest.first() == Some(&b'd')
    };
    if copies(&whole) || copies(&cut) {
        return;
    }
    let (a, b) = (&mut whole.record.requests, &mut cut.record.requests);
    let common = a.len().min(b.len());
    if whole.closed.as_deref() != Some("client closed") {
        a.truncate(common);
        b.truncate(common);
    }
    for ran in [&mut whole, &mut cut] {
        ran.to_upstream = without_vain(&ran.to_upstream);
    }
    assert_eq!(whole, cut, "the bytes were cut otherwise, and something else came of it");
}
