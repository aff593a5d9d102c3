//! The first messages of a hostile client. The first byte chooses the listener (bits 0-1: in clear; TLS offered; the same,
//! with tokens by SASL; TLS required), whether its handshake agrees on ALPN (bit 2), whether a proxy names the client (bit 3),
//! and how the bytes are cut the second time (bits 4-7). The rest is a stream, see [`input::bursts`].
//!
//! What must hold: without the right token nothing is dialed, and without TLS nothing where it is required; what is said to
//! the upstream is one well-formed startup message, with our own settings first and no name twice.

use std::cell::RefCell;
use std::rc::Rc;

use dataplane::control::credential::Secret;
use dataplane::control::identity::Identity;
use dataplane::datapath::mask::{DetectView, MaskView};
use dataplane::datapath::verdict::{Judge, Judged};
use dataplane::fault::{Fault, Side};
use dataplane::protocol::postgres::wire::{cstr_at, message, untagged};
use dataplane::session::attempts::Target;
use dataplane::session::{Admission, Auth, Encryption, Request, Secured, Upstream};
use policy_compiler::artifact::MaskAction;
use policy_compiler::detect;
use policy_compiler::detect::transform::HashKey;
use policy_compiler::judge::is_ascii_safe;

use super::input::{Input, bursts, contains};
use super::server::PEOPLE;
use super::stage::{Cut, Listener, Outside, Record, Stage};

const TOKEN: &[u8] = b"good";
/// SSLRequest and GSSENCRequest.
const ENCRYPTION_REQUESTS: [[u8; 8]; 2] = [[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], [0, 0, 0, 8, 4, 0xd2, 0x16, 0x30]];
const CREDENTIAL: &[u8] = b"upstream secret";

/// What is hidden from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masks {
    None,
    /// Columns 2 and 3 of [`PEOPLE`].
    Columns,
    /// These, and what the detectors find.
    Content,
}

/// What a client with a good token is let in with.
pub fn admission(masks: Masks) -> Box<Admission> {
    let mut view = MaskView::none();
    if masks != Masks::None {
        view.active = true;
        view.columns.extend([((PEOPLE, 2), MaskAction::Redact), ((PEOPLE, 3), MaskAction::Redact)]);
        view.relations.extend([(16400, 9), (PEOPLE, 9)]);
        view.key = HashKey::new([7; 32]);
    }
    if masks == Masks::Content {
        let actions = [MaskAction::Redact; detect::Kind::ALL.len()];
        view.detect = Some(DetectView { kinds: detect::KindSet::ALL, actions });
    }
    Box::new(Admission {
        identity: Identity {
            subject: "ada".into(),
            name: "ada".into(),
            expires_unix_s: u64::MAX,
            ..Identity::default()
        },
        role_names: vec!["analyst".into()],
        resource: "shop".into(),
        upstream: Upstream {
            database: "shop".into(),
            user: "gateway".into(),
            credential: Secret::new(CREDENTIAL),
            allow_md5: false,
            allow_cleartext: false,
            role: Some("reader".into()),
            application_name: Default::default(),
            target: Target::Any,
            tls: vec![false],
            order: vec![0],
        },
        masks: Rc::new(view),
        epoch: [0; 8],
        epoch_name: "00".into(),
    })
}

/// Logs a client in whole, and forgets what was said for it.
pub fn log_in(stage: &mut Stage<'_>) {
    stage.say(Side::Client, &credentials());
    stage.say(Side::Upstream, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    assert!(stage.session.is_relaying(), "the login of every run");
    stage.left = Default::default();
}

/// A startup message, and the token.
pub fn credentials() -> Vec<u8> {
    let mut bytes = Vec::new();
    untagged(&mut bytes, |out| out.extend_from_slice(b"\0\x03\0\0user\0ada\0database\0shop\0\0"));
    message(&mut bytes, b'p', |out| out.extend_from_slice(&[TOKEN, b"\0"].concat()));
    bytes
}

/// No statement is judged in a login.
pub struct NoJudge;

impl Judge for NoJudge {
    fn judge(&mut self, _: &[u8]) -> Judged {
        panic!("a text is judged in a login")
    }

    fn view(&self) -> u64 {
        0
    }
}

/// What the session has asked of the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// A handshake with the client.
    secured: bool,
    admitted: bool,
    dialed: bool,
}

struct Gate {
    asked: Rc<RefCell<Asked>>,
    has_protocol: bool,
}

impl Outside for Gate {
    fn admit(&mut self, request: &Request) -> Result<Box<Admission>, Fault> {
        assert!(!request.user.is_empty() && !request.database.is_empty(), "a login without a name");
        if request.token.reveal() != TOKEN {
            return Err(Fault::NotAdmitted("the token's signature is wrong"));
        }
        self.asked.borrow_mut().admitted = true;
        Ok(admission(Masks::None))
    }

    fn secure(&mut self, side: Side) -> Secured {
        assert_eq!(side, Side::Client, "the upstream is reached in clear here");
        self.asked.borrow_mut().secured = true;
        Secured { has_protocol: self.has_protocol, peer_certificate: None }
    }

    fn dialed(&mut self) {
        self.asked.borrow_mut().dialed = true;
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Ran {
    asked: Asked,
    /// The client is of the gateway's own machine, as far as anybody says.
    is_near: bool,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
    record: Record,
    fault: Option<Fault>,
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let encryption =
        [Encryption::None, Encryption::Offered, Encryption::Offered, Encryption::Required][usize::from(flags & 3)];
    let auth = if flags & 3 == 2 { Auth::Oauth } else { Auth::Password };
    let listener = Listener { auth, encryption, proxied: flags & 8 != 0 };
    let bursts = bursts(input.0);
    let whole = play(&bursts, listener, flags, None);
    let sent = bursts.concat();
    check(&whole, listener, &sent);
    // What came in clear together with the request must not be read after its answer (CVE-2021-23214).
    let too_early = bursts[0].len() > 8 && ENCRYPTION_REQUESTS.iter().any(|request| bursts[0].starts_with(request));
    assert!(!too_early || whole.asked == Asked::default(), "bytes behind an encryption request are taken");
    let cut = play(&bursts, listener, flags, Some(1 + usize::from(flags >> 4)));
    check(&cut, listener, &sent);
    // What stands behind an encryption request in the same burst is refused; in the next one it may be TLS.
    let negotiates =
        |ran: &Ran| ran.asked.secured || ran.to_client.starts_with(b"N") || ran.to_client.starts_with(b"S");
    if !negotiates(&whole) && !negotiates(&cut) {
        assert_eq!(whole, cut, "the bytes were cut otherwise, and something else came of it");
    }
}

fn play(bursts: &[Vec<u8>], listener: Listener, flags: u8, cut: Cut) -> Ran {
    let asked = Rc::new(RefCell::new(Asked::default()));
    let gate = Gate { asked: asked.clone(), has_protocol: flags & 4 != 0 };
    let mut stage = Stage::new(listener, Box::new(NoJudge), Box::new(gate));
    stage.cut(cut);
    bursts.iter().for_each(|burst| stage.say(Side::Client, burst));
    assert!(!stage.session.is_relaying(), "a session without an upstream");
    stage.end(Side::Client);
    let [to_client, to_upstream] = std::mem::take(&mut stage.left);
    let asked = *asked.borrow();
    let is_near = stage.session.peer().is_local();
    let ran = Ran { is_near, asked, to_client, to_upstream, record: stage.record().clone(), fault: stage.fault };
    stage.finish();
    ran
}

fn check(ran: &Ran, listener: Listener, sent: &[u8]) {
    let Asked { secured, admitted, dialed } = ran.asked;
    let encryption = listener.encryption;
    assert!(!listener.proxied || !admitted || sent.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "a proxy has said nothing");
    assert!(ran.is_near || listener.proxied, "a client has moved away");
    assert!(ran.is_near || !admitted || secured, "a token has crossed a network in clear");
    assert_eq!(admitted, dialed, "an upstream is dialed without a token, or not with one");
    assert!(!admitted || secured || encryption != Encryption::Required, "a client is let in without TLS");
    assert!(!secured || encryption != Encryption::None, "TLS without a certificate");
    for bytes in [&ran.to_client, &ran.to_upstream, &ran.record.requests] {
        assert!(!contains(bytes, CREDENTIAL), "the credential is shown");
    }
    assert!(ran.record.requests.is_empty() && ran.record.responses.is_empty(), "a login is recorded as traffic");
    match dialed {
        true => check_startup(&ran.to_upstream),
        false => assert!(ran.to_upstream.is_empty(), "bytes went up without an upstream"),
    }
}

/// What we say to the upstream first: read here as its server reads it, where of two values the later one counts.
fn check_startup(bytes: &[u8]) {
    let length = u32::from_be_bytes(bytes[..4].try_into().expect("a length")) as usize;
    assert!(length == bytes.len() && bytes[4..8] == [0, 3, 0, 0], "not one startup message of version 3.0");
    let mut names: Vec<String> = Vec::new();
    let mut at = 8;
    loop {
        let (name, next) = cstr_at(bytes, at).expect("a name");
        if name.is_empty() {
            assert_eq!(next, bytes.len(), "bytes follow the startup message");
            break;
        }
        let (value, next) = cstr_at(bytes, next).expect("a value");
        let name = String::from_utf8(name.to_ascii_lowercase()).expect("a name that the client may give");
        let ours: &[(&str, &[u8])] =
            &[("user", b"gateway"), ("database", b"shop"), ("standard_conforming_strings", b"on"), ("role", b"reader")];
        let ours = ours.iter().find(|(known, _)| *known == name);
        assert!(ours.is_none_or(|(_, wanted)| *wanted == value), "the client has set {name}");
        assert!(
            !["options", "replication"].contains(&&name[..]) && !name.starts_with("_pq_."),
            "the client has set {name}"
        );
        let is_safe = std::str::from_utf8(value).is_ok_and(is_ascii_safe);
        assert!(is_safe || name != "client_encoding", "the client has set an encoding that is not safe");
        let is_once = ours.is_some() || ["application_name", "client_encoding"].contains(&&name[..]);
        assert!(!is_once || !names.contains(&name), "{name} stands twice in the startup message");
        names.push(name);
        at = next;
    }
    assert!(names.len() >= 6, "settings of ours are missing: {names:?}");
}
