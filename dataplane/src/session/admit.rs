//! The token: read from the password message or from SASL OAUTHBEARER, checked by the control side, never recorded.

use ring::Kind;
use serde_json::json;

use super::attempts::Attempts;
use super::{Admission, Admitting, Auth, DialStep, Dialing, Output, Request, Session, State};
use crate::control::certificate;
use crate::control::credential::Secret;
use crate::control::identity::Actor;
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::framer::{self, Framed};
use crate::protocol::postgres::handshake::Startup;
use crate::protocol::postgres::oauth;
use crate::protocol::postgres::wire::{HEAD_BYTES, cstr_at, frontend};

/// The longest message that is awaited of a client that was told its token does not count, bytes. The mechanism's has 6.
const FAREWELL_BYTES_MAX: usize = 64;

/// What a client has answered.
enum Answer {
    Token(Secret),
    /// It has none, and asks where tokens come from.
    NoToken,
    /// It agrees to the mechanism, and has said no more.
    FirstDue,
}

impl Session {
    /// True if the session has moved on.
    pub(super) fn admit(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Fault> {
        let State::Admitting(step) = &self.state else { return Ok(false) };
        match step {
            Admitting::Awaited => self.read_answer(false, cx, outputs),
            Admitting::FirstDue => self.read_answer(true, cx, outputs),
            Admitting::Asked | Admitting::Challenging(_) => Ok(false),
            Admitting::Challenged(fault) => {
                let fault = **fault;
                self.hear_out(fault, cx)
            }
        }
    }

    /// `is_first`: it is the mechanism's first message alone.
    fn read_answer(&mut self, is_first: bool, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Fault> {
        let auth = self.auth;
        let answer = match self.answer(cx, |frame| read(auth, is_first, frame)) {
            Ok(Some(answer)) => answer,
            Ok(None) if self.relay.requests.ended() => return Err(Fault::Gone(Side::Client)),
            Ok(None) => return Ok(false),
            Err(fault) => return self.not_admitted(fault, outputs).map_or(Ok(false), Err),
        };
        match answer {
            Answer::Token(token) if token.reveal().len() > self.token_bytes_max() => Err(TOO_LONG),
            Answer::Token(token) => {
                let Some(startup) = &self.pending_startup else { return Ok(false) };
                let (user, database) = (startup.user.clone(), startup.database.clone());
                self.state = State::Admitting(Admitting::Asked);
                outputs.push(Output::Admit(Box::new(Request { user, database, token })));
                Ok(false)
            }
            Answer::NoToken => self.not_admitted(Fault::NoToken, outputs).map_or(Ok(false), Err),
            Answer::FirstDue => {
                self.state = State::Admitting(Admitting::FirstDue);
                self.proceed("");
                Ok(true)
            }
        }
    }

    fn token_bytes_max(&self) -> usize {
        self.relay.dissector.shared().token_bytes_max
    }

    /// What `read` finds in the client's answer, when its message is whole. The message leaves no trace in the slot.
    fn answer<T>(&mut self, cx: &mut Cx<'_>, read: impl FnOnce(&[u8]) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
        let bytes_max = HEAD_BYTES + self.token_bytes_max() + oauth::BESIDE_TOKEN_BYTES_MAX;
        let lane = &mut self.relay.requests;
        const NO_ROOM: Fault =
            Fault::Limit("too many logins are held whole for now (half of limits.gathered_bytes_max); try again");
        if lane.collecting() {
            if !lane.has_room_to_gather() {
                return Err(NO_ROOM);
            }
            let mut frame = lane.gather(cx.slab);
            let found = frame.as_ref().map(|frame| read(&frame.bytes)).transpose();
            frame.iter_mut().for_each(|frame| frame.bytes.fill(0));
            return found;
        }
        let window = lane.window(cx.slab);
        let (tag, bytes) = match framer::next(window) {
            Framed::NeedMore => return Ok(None),
            Framed::Broken => return Err(Fault::Protocol(Side::Client, "a message has an impossible length")),
            Framed::Frame { tag, bytes } => (tag, bytes),
        };
        if tag != frontend::PASSWORD {
            return Err(Fault::Protocol(Side::Client, "a message came where the password was expected"));
        }
        if bytes > bytes_max {
            return Err(TOO_LONG);
        }
        if bytes > window.len() {
            lane.collect(bytes, cx.gathered.begin_of_half());
            if !lane.has_room_to_gather() {
                return Err(NO_ROOM);
            }
            let _ = lane.gather(cx.slab);
            return Ok(None);
        }
        let found = read(&window[..bytes]);
        window[..bytes].fill(0);
        lane.drop_bytes(bytes);
        found.map(Some)
    }

    /// By SASL a client is told where tokens come from before it is refused, whatever is wrong with the one that it gave.
    /// Where the fault is not in the token the session ends at once.
    pub(super) fn not_admitted(&mut self, fault: Fault, outputs: &mut Vec<Output>) -> Option<Fault> {
        let is_told = self.auth == Auth::Oauth && matches!(fault, Fault::NotAdmitted(_) | Fault::NoToken);
        let (State::Admitting(_), Some(startup), true) = (&self.state, &self.pending_startup, is_told) else {
            return Some(fault);
        };
        outputs.push(Output::Challenge { database: startup.database.clone() });
        self.state = State::Admitting(Admitting::Challenging(Box::new(fault)));
        None
    }

    pub(super) fn challenge(&mut self, challenge: &str) {
        let State::Admitting(Admitting::Challenging(fault)) = &self.state else { return };
        self.state = State::Admitting(Admitting::Challenged(fault.clone()));
        self.proceed(challenge);
    }

    fn proceed(&mut self, challenge: &str) {
        let mut bytes = Vec::new();
        oauth::proceed(&mut bytes, challenge);
        self.relay.replies.insert_unrecorded(&bytes);
    }

    /// The client ends the exchange (RFC 7628, 3.2.3). Whatever it says, it is not let in.
    fn hear_out(&mut self, fault: Fault, cx: &mut Cx<'_>) -> Result<bool, Fault> {
        let lane = &mut self.relay.requests;
        let window = lane.window(cx.slab);
        match framer::next(window) {
            Framed::Frame { bytes, .. } if bytes <= window.len() => lane.drop_bytes(bytes),
            Framed::Frame { bytes, .. } if bytes <= FAREWELL_BYTES_MAX && !lane.ended() => return Ok(false),
            Framed::NeedMore if !lane.ended() => return Ok(false),
            _ => {}
        }
        Err(fault)
    }

    pub(super) fn admitted(
        &mut self,
        admission: Admission,
        cx: &mut Cx<'_>,
        outputs: &mut Vec<Output>,
    ) -> Option<Fault> {
        let State::Admitting { .. } = self.state else { return None };
        let startup = *self.pending_startup.take()?;
        let open = self.open_record(&admission, &startup, cx.now_unix_ns);
        if !self.record(Kind::Open, &open, cx) {
            return Some(Fault::NotRecorded);
        }
        self.opened = true;
        self.relay.epoch = admission.epoch;
        self.relay.dissector.set_masks(admission.masks.clone());
        let attempts = Attempts::new(admission.upstream.target, admission.upstream.order.clone());
        let step = DialStep::Connecting;
        let mut dialing = Box::new(Dialing { startup, admission, attempts, step, key: None, was_full: false });
        let shared = self.relay.dissector.shared();
        let may_be_kept = shared.keeps_upstreams && dialing.admission.upstream.role.is_none();
        dialing.key = may_be_kept.then(|| dialing.key_under(shared.name_key));
        self.state = State::Dialing(dialing);
        self.dial(outputs)
    }

    /// Who it is and whence, as the evidence has it.
    fn open_record(&self, admission: &Admission, startup: &Startup, now_unix_ns: u64) -> serde_json::Value {
        let mut open = json!({
            "session": self.id(),
            "time_unix_ns": now_unix_ns,
            "protocol": "postgres",
            "subject": admission.identity.subject,
            "name": admission.identity.name,
            "roles": admission.role_names,
            "resource": &*admission.resource,
            "user": startup.user,
            "client": self.peer.to_string(),
            "tls": self.secured.is_some(),
            "client_certificate": self.secured.as_ref().and_then(|s| certificate::subject(s.peer_certificate.as_deref()?)),
            "application_name": startup.parameter("application_name"),
            "policy": admission.epoch_name,
        });
        if !admission.identity.issuer.is_empty() {
            open["issuer"] = admission.identity.issuer.as_str().into();
        }
        if !admission.identity.actors.is_empty() {
            let actor = |a: &Actor| json!({"subject": a.subject, "issuer": a.issuer});
            open["actors"] = admission.identity.actors.iter().map(actor).collect();
        }
        open
    }
}

const TOO_LONG: Fault = Fault::Limit("the token is longer than token_bytes_max");

fn read(auth: Auth, is_first: bool, frame: &[u8]) -> Result<Answer, Fault> {
    let body = &frame[HEAD_BYTES..];
    let first = match auth {
        Auth::Password => return secret(frame).map(Answer::Token),
        Auth::Oauth if is_first => Some(body),
        Auth::Oauth => oauth::initial(body)?,
    };
    let Some(first) = first else { return Ok(Answer::FirstDue) };
    Ok(oauth::token(first)?.map_or(Answer::NoToken, |token| Answer::Token(Secret::new(token))))
}

fn secret(frame: &[u8]) -> Result<Secret, Fault> {
    match cstr_at(frame, HEAD_BYTES) {
        Some((token, end)) if end == frame.len() => Ok(Secret::new(token)),
        _ => Err(Fault::Protocol(Side::Client, "the password message is malformed")),
    }
}
