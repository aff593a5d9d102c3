//! One connection, from hello to goodbye. Pure: no socket, no clock, no thread.
//!
//! | state     | waits for                         | then                                             |
//! |-----------|-----------------------------------|--------------------------------------------------|
//! | Greeting  | a startup message ([`greet`])     | asks for a token → Admitting                     |
//! | Admitting | the token ([`admit`])             | [`Output::Admit`]; `Input::Admitted` → Dialing   |
//! | Dialing   | the upstream's login ([`dial`])   | both sides are ready → Relaying                  |
//! | Relaying  | bytes, answers, plans             | [`crate::datapath::relay`] moves everything      |
//! | Draining  | what must still leave ([`close`]) | [`Output::Close`]                                |
//!
//! Any fault, in any state, leads to Draining. LIFECYCLE.md tells the same as a picture.

pub mod admit;
pub mod close;
pub mod dial;
pub mod greet;

use std::rc::Rc;
use std::sync::Arc;

use ring::Kind;

use crate::buffer::Slot;
use crate::control::credential::Secret;
use crate::control::identity::Identity;
use crate::datapath::lane::Lane;
use crate::datapath::mask::MaskView;
use crate::datapath::relay::{Cx, Flow, Relay};
use crate::datapath::tap::Note;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::dissector::{Dissector, Limits, NameKey};
use crate::protocol::postgres::handshake::{Login, Startup};

/// Everything that can happen to a session.
#[derive(Debug)]
pub enum Input {
    Received {
        side: Side,
        slot: Option<Slot>,
        bytes: usize,
    },
    ReceiveFailed {
        side: Side,
        slot: Option<Slot>,
    },
    Sent {
        side: Side,
        bytes: usize,
        heap: Option<Vec<u8>>,
    },
    SendFailed {
        side: Side,
    },
    /// The answer to [`Output::Admit`].
    Admitted(Result<Box<Admission>, Fault>),
    /// The answer to [`Output::Dial`].
    Dialed(Result<(), Fault>),
    /// The answer to [`Output::Secure`].
    Secured {
        side: Side,
        result: Result<Box<Secured>, Fault>,
    },
    /// A plan has come, or the ring has room again: look at the lanes once more.
    Again,
    /// What the subject does not see has changed.
    Masks(Rc<MaskView>),
    /// A limit of time was passed, or the process is to end.
    End(Fault),
}

/// Everything that a session can ask of its shell.
#[derive(Debug)]
pub enum Output {
    /// Check the token and the names.
    Admit(Box<Request>),
    /// Connect to the upstream of the admission.
    Dial,
    /// Begin TLS on a side's connection; `early` are bytes of its handshake that are here already.
    Secure { side: Side, early: Vec<u8> },
    /// Close both connections. The last output.
    Close,
}

/// What a client asks to be let in with.
#[derive(Debug)]
pub struct Request {
    pub user: String,
    pub database: String,
    pub token: Secret,
}

/// A client that is let in.
#[derive(Debug)]
pub struct Admission {
    pub identity: Identity,
    pub role_names: Vec<String>,
    pub resource: Arc<str>,
    pub upstream: Upstream,
    pub masks: Rc<MaskView>,
    /// First 8 bytes of the policy's digest, and its name.
    pub epoch: [u8; 8],
    pub epoch_name: String,
}

/// What the login to the upstream needs.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub database: String,
    pub user: String,
    pub credential: Secret,
    pub allow_md5: bool,
    pub allow_cleartext: bool,
    pub role: Option<String>,
    /// It is reached by TLS only.
    pub tls: bool,
}

/// What a session is made of.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub limits: Limits,
    pub name_key: NameKey,
    pub token_bytes_max: usize,
    pub encryption: Encryption,
}

/// What a listener does about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// It has no certificate.
    None,
    Offered,
    /// Nothing is served in clear.
    Required,
}

enum State {
    Greeting {
        negotiations: u8,
    },
    /// TLS with the client is about to begin, or under way.
    Securing(Securing),
    Admitting {
        asked: bool,
    },
    Dialing(Box<Dialing>),
    Relaying,
    Draining {
        said_close: bool,
    },
}

/// What a handshake has found out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// Both sides have agreed on a protocol by name (ALPN).
    pub has_protocol: bool,
    /// The peer's certificate, DER.
    pub peer_certificate: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Securing {
    /// Our `S` has to leave first.
    Answering,
    Requested,
    /// Without a request: the handshake must name the protocol.
    Direct,
}

struct Dialing {
    startup: Startup,
    admission: Admission,
    step: DialStep,
}

enum DialStep {
    Connecting,
    /// We have asked for TLS.
    AskedTls,
    Handshake,
    Login(Box<Login>),
}

pub struct Session {
    state: State,
    relay: Relay<Dissector>,
    token_bytes_max: usize,
    encryption: Encryption,
    /// What the client's handshake has found out, once it is done.
    secured: Option<Box<Secured>>,
    peer: std::net::SocketAddr,
    /// The process id and secret that the client is given for cancelling.
    cancel_key: CancelKey,
    /// The startup message, while the control side checks the token. Boxed: an idle session pays for its place only.
    pending_startup: Option<Box<Startup>>,
    /// The record has an Open for this session.
    opened: bool,
    started_unix_ns: u64,
}

/// Authority to cancel what a session runs: minted by us, no number of the upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelKey {
    pub process_id: u32,
    /// The first 4 bytes on protocol 3.0, all on 3.2.
    pub secret: [u8; 32],
}

impl Session {
    pub fn new(
        id: u64,
        settings: Settings,
        peer: std::net::SocketAddr,
        cancel_key: CancelKey,
        now_unix_ns: u64,
    ) -> Self {
        let dissector = Dissector::new(settings.limits, settings.name_key, Rc::new(MaskView::none()));
        Self {
            state: State::Greeting { negotiations: 0 },
            relay: Relay::new(id, Lane::default(), Lane::default(), dissector, [0; 8]),
            token_bytes_max: settings.token_bytes_max,
            encryption: settings.encryption,
            secured: None,
            peer,
            cancel_key,
            pending_startup: None,
            opened: false,
            started_unix_ns: now_unix_ns,
        }
    }

    pub fn id(&self) -> u64 {
        self.relay.session
    }

    /// The lane that a side's bytes arrive in.
    pub fn incoming(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.relay.requests,
            _ => &mut self.relay.replies,
        }
    }

    /// The lane that leaves towards a side.
    pub fn outgoing(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.relay.replies,
            _ => &mut self.relay.requests,
        }
    }

    /// Whether bytes of this side are awaited now. While we are dialing, a client's wait in its socket.
    pub fn listens_to(&self, side: Side) -> bool {
        match (&self.state, side) {
            (State::Draining { .. }, _) | (State::Securing(Securing::Requested | Securing::Direct), _) => false,
            (State::Relaying, _) => true,
            (State::Dialing(_), Side::Client) | (State::Admitting { asked: true }, _) => false,
            // A connection that does not stand yet has nothing to say.
            (State::Dialing(dialing), _) => matches!(dialing.step, DialStep::AskedTls | DialStep::Login(_)),
            _ => true,
        }
    }

    /// Whether a completed send moves the session on. Where both receives are armed it only gives a slot back.
    pub fn awaits_sent(&self) -> bool {
        let lanes = [&self.relay.requests, &self.relay.replies];
        lanes.iter().any(|l| l.is_sending()) && !(self.is_relaying() && lanes.iter().all(|l| l.is_receiving()))
    }

    pub fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    pub fn is_relaying(&self) -> bool {
        matches!(self.state, State::Relaying)
    }

    /// Everything that can happen, in one place. True if the ring was full: the shell comes back with [`Input::Again`].
    pub fn handle(&mut self, input: Input, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> bool {
        if let Some(fault) = self.absorb(input, cx, outputs) {
            self.end(fault, cx);
        }
        self.advance(cx, outputs)
    }

    /// Takes an input into the state; a fault ends the session.
    fn absorb(&mut self, input: Input, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Option<Fault> {
        match input {
            Input::Received { side, slot, bytes } => self.incoming(side).received(cx.slab, slot, bytes),
            Input::ReceiveFailed { side, slot } => self.incoming(side).received(cx.slab, slot, 0),
            Input::Sent { side, bytes, heap } => self.outgoing(side).sent(cx.slab, bytes, heap),
            Input::SendFailed { side } => {
                self.outgoing(side).send_failed();
                return Some(Fault::Gone(side));
            }
            Input::Admitted(Ok(admission)) => return self.admitted(*admission, cx, outputs),
            Input::Admitted(Err(fault)) => return Some(fault),
            Input::Dialed(Ok(())) => return self.dialed(),
            Input::Secured { side, result: Ok(secured) } => return self.secured(side, secured),
            Input::Dialed(Err(fault)) | Input::End(fault) | Input::Secured { result: Err(fault), .. } => {
                return Some(fault);
            }
            Input::Masks(masks) => self.relay.dissector.set_masks(masks),
            Input::Again => {}
        }
        None
    }

    fn secured(&mut self, side: Side, secured: Box<Secured>) -> Option<Fault> {
        match (&self.state, side) {
            (State::Securing(Securing::Direct), Side::Client) if !secured.has_protocol => {
                return Some(Fault::Protocol(Side::Client, "direct TLS needs ALPN with the protocol name postgresql"));
            }
            (State::Securing(_), Side::Client) => {
                self.secured = Some(secured);
                self.state = State::Greeting { negotiations: greet::NEGOTIATIONS_MAX };
            }
            _ => self.start_login(Some(&secured)),
        }
        None
    }

    /// Moves on as far as the bytes at hand allow.
    fn advance(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> bool {
        loop {
            let moved = match &mut self.state {
                State::Greeting { .. } => self.greet(cx, outputs),
                State::Securing(_) => Ok(self.begin_tls(cx, outputs)),
                State::Admitting { asked: false } => self.read_token(cx, outputs),
                State::Admitting { asked: true } => Ok(false),
                State::Dialing(_) => self.log_in(cx, outputs),
                State::Relaying => return self.relay(cx, outputs),
                State::Draining { .. } => {
                    self.drain(outputs);
                    return false;
                }
            };
            match moved {
                Ok(true) => continue,
                Ok(false) => break,
                Err(fault) => self.end(fault, cx),
            }
        }
        self.relay.requests.settle(cx.slab);
        self.relay.replies.settle(cx.slab);
        false
    }

    fn relay(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> bool {
        let fault = match self.relay.pump(cx) {
            Flow::RingFull => return true,
            Flow::End(fault) => fault,
            Flow::Idle if self.relay.replies.ended() => Fault::Gone(Side::Upstream),
            Flow::Idle if self.relay.requests.ended() => Fault::Gone(Side::Client),
            Flow::Idle => return false,
        };
        self.end(fault, cx);
        self.drain(outputs);
        false
    }

    /// Records an event of the session itself. The ring keeps a reserve for these.
    fn record(&self, kind: Kind, json: &serde_json::Value, cx: &mut Cx<'_>) -> bool {
        let note = Note { kind, flags: ring::Flags::WHOLE, session: self.id(), now_unix_ns: cx.now_unix_ns };
        cx.tap.record(note, &[json.to_string().as_bytes()]).is_some()
    }
}
