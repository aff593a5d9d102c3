//! One connection, from hello to goodbye. Pure: no socket, no clock, no thread.
//!
//! | state     | waits for                         | then                                             |
//! |-----------|-----------------------------------|--------------------------------------------------|
//! | Announcing| a proxy's header ([`proxy`])      | the client's address is known → Greeting         |
//! | Greeting  | a startup message ([`greet`])     | asks for a token → Admitting                     |
//! | Securing  | the end of the client's handshake | Greeting again, over TLS                         |
//! | Admitting | the token ([`admit`])             | [`Output::Admit`]; `Input::Admitted` → Dialing   |
//! |           | or, by SASL and refused           | [`Output::Challenge`], said; heard → Draining    |
//! | Dialing   | the upstream's login ([`dial`])   | both sides are ready → Relaying; or the next address |
//! | Cancelling| leave, then the upstream ([`cancel`]) | said, and closed by the upstream → Draining  |
//! | Relaying  | bytes, answers, plans             | [`crate::datapath::relay`] moves everything      |
//! | Draining  | what must still leave ([`close`]) | [`Output::Close`]                                |
//!
//! Any fault, in any state, leads to Draining. LIFECYCLE.md tells the same as a picture.

pub mod admit;
pub mod attempts;
pub mod cancel;
pub mod close;
pub mod dial;
pub mod greet;
pub mod lease;
mod proxy;

use std::rc::Rc;
use std::sync::Arc;

use ring::Kind;

use crate::address::Peer;
use crate::buffer::Slot;
use crate::config::ApplicationName;
use crate::control::credential::Secret;
use crate::control::identity::Identity;
use crate::datapath::lane::Lane;
use crate::datapath::mask::MaskView;
use crate::datapath::relay::{Cx, Flow, Relay};
use crate::datapath::tap::Note;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::dissector::{Dissector, Shared};
use crate::protocol::postgres::handshake::{CancelRequest, Login, Startup};
use attempts::{Attempts, Miss, Target};
use cancel::{Cancelling, Grant};
use lease::Lease;

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
    /// The answer to [`Output::Challenge`].
    Challenge(Arc<str>),
    /// The answer to [`Output::Dial`].
    Dialed(Result<(), Miss>),
    /// Another answer to it: a connection that was kept of an earlier session, logged in, on which a receive is armed.
    Leased(Box<Lease>),
    /// The dialed address has had its time, its login included.
    DialLate,
    /// The answer to [`Output::Part`].
    Parted,
    /// The answer to [`Output::Secure`].
    Secured {
        side: Side,
        result: Result<Box<Secured>, Fault>,
    },
    /// The answer to [`Output::Cancel`]; `None`: there is nothing to cancel, or no right to.
    MayCancel(Option<Grant>),
    /// A plan has come, or the ring has room again: look at the lanes once more.
    Again,
    /// The policy or the catalogue has changed, and with it what the subject does not see.
    Policy {
        masks: Rc<MaskView>,
        epoch: [u8; 8],
    },
    /// A limit of time was passed, or the process is to end.
    End(Fault),
}

/// Everything that a session can ask of its shell.
#[derive(Debug)]
pub enum Output {
    /// Check the token and the names.
    Admit(Box<Request>),
    /// Connect to this address of the upstream, from 0, or lend a connection there that is kept under this key, if there is one.
    Dial { address: u16, key: Option<u128> },
    /// Close the upstream's connection, to dial another address when its last operation is done.
    Part,
    /// No address of the upstream will do, and why.
    NotReached(Vec<(u16, Miss)>),
    /// The upstream takes no more connections: those that nobody uses are to be closed.
    UpstreamIsFull,
    /// Say where tokens for this database come from, as the JSON of RFC 7628, 3.2.2.
    Challenge { database: String },
    /// Begin TLS on a side's connection; `early` are bytes of its handshake that are here already.
    Secure { side: Side, early: Vec<u8> },
    /// Find the session that a client wants to cancel.
    Cancel(CancelRequest),
    /// Put it into the evidence, or count it: the client was not let in.
    Refused(Box<Refused>),
    /// Close both connections. The last output.
    Close,
}

/// What a session waits for that others use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The recorder, or room in the ring.
    Recorder,
    /// Room in the budget of frames that are held whole.
    GatheredBytes,
}

impl Shortage {
    /// What ends a session that has waited too long.
    pub fn fault(self) -> Fault {
        match self {
            Self::Recorder => Fault::NotRecorded,
            Self::GatheredBytes => Fault::Limit(
                "other sessions hold all of limits.gathered_bytes_max, which messages above 32 KiB need; try again, \
                 or ask the operator to raise it",
            ),
        }
    }
}

/// What a client asks to be let in with.
#[derive(Debug)]
pub struct Request {
    pub user: String,
    pub database: String,
    pub token: Secret,
}

/// A login that failed, by the names that the client claimed: empty if it gave none. Never the token.
#[derive(Debug)]
pub struct Refused {
    pub session: u64,
    pub client: Peer,
    pub user: String,
    pub database: String,
    pub fault: Fault,
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
    pub application_name: ApplicationName,
    pub target: Target,
    /// By address: it is reached by TLS only.
    pub tls: Vec<bool>,
    /// Numbers of the addresses, from 0, in the order in which they are tried.
    pub order: Vec<u16>,
}

/// What a session is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    pub shared: Rc<Shared>,
    pub encryption: Encryption,
    /// A proxy's header comes first.
    pub proxied: bool,
    pub auth: Auth,
    /// It stands above `max_client_conn`, and is here to be told.
    pub surplus: bool,
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

/// How a client gives its token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    #[default]
    Password,
    /// By SASL OAUTHBEARER.
    Oauth,
}

impl Auth {
    /// As it is written in the configuration and in a startup option.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "password" => Some(Self::Password),
            "oauth" => Some(Self::Oauth),
            _ => None,
        }
    }
}

enum State {
    Announcing,
    Greeting {
        negotiations: u8,
    },
    /// TLS with the client is about to begin, or under way.
    Securing(Securing),
    Admitting(Admitting),
    Dialing(Box<Dialing>),
    Cancelling(Cancelling),
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

/// Where the token is. Faults are boxed: an idle session pays for their place only.
enum Admitting {
    /// Its message is awaited: a password, or a SASLInitialResponse.
    Awaited,
    /// The mechanism is agreed on, and its first message is awaited.
    FirstDue,
    /// The control side looks at it.
    Asked,
    /// It does not count, for this; the shell is asked where tokens come from.
    Challenging(Box<Fault>),
    /// The client was told where, and ends the exchange; then it is told why.
    Challenged(Box<Fault>),
}

struct Dialing {
    startup: Startup,
    admission: Admission,
    attempts: Attempts,
    step: DialStep,
    /// What its login is kept under, where logins are kept.
    key: Option<u128>,
    /// An upstream had no room.
    was_full: bool,
}

enum DialStep {
    Connecting,
    /// We have asked for TLS.
    AskedTls,
    Handshake,
    Login(Box<Login>),
    /// The address will not do: its connection is being closed.
    Parting,
}

pub struct Session {
    state: State,
    relay: Relay<Dissector>,
    encryption: Encryption,
    auth: Auth,
    /// The upstream's own process id and secret.
    upstream_key: Option<[u8; 8]>,
    /// Its login, while another session may yet go on with it.
    lease: Option<Box<Lease>>,
    surplus: bool,
    /// What the client's handshake has found out, once it is done.
    secured: Option<Box<Secured>>,
    peer: Peer,
    /// The process id and secret that the client is given for cancelling.
    cancel_key: CancelKey,
    /// The startup message, while the control side checks the token. Boxed: an idle session pays for its place only.
    pending_startup: Option<Box<Startup>>,
    /// The record has an Open for this session.
    opened: bool,
    started_unix_ns: u64,
}

/// Authority to cancel what a session runs. The secret is minted by us: the upstream's own is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelKey {
    /// The upstream's, once it is logged in to; 0 if it has given none.
    pub process_id: u32,
    /// The first 4 bytes on protocol 3.0, all on 3.2.
    pub secret: [u8; 32],
}

impl Session {
    pub fn new(id: u64, settings: Settings, peer: Peer, cancel_key: CancelKey, now_unix_ns: u64) -> Self {
        let dissector = Dissector::new(settings.shared, Rc::new(MaskView::none()));
        Self {
            state: if settings.proxied { State::Announcing } else { State::Greeting { negotiations: 0 } },
            relay: Relay::new(id, Lane::default(), Lane::default(), dissector, [0; 8]),
            encryption: settings.encryption,
            auth: settings.auth,
            upstream_key: None,
            lease: None,
            surplus: settings.surplus,
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
            (State::Draining { .. } | State::Securing(_), _) => false,
            (State::Relaying, _) => true,
            (State::Cancelling(step), side) => {
                side != Side::Client && matches!(step, Cancelling::AskedTls(_) | Cancelling::Said)
            }
            (State::Dialing(_), Side::Client) | (State::Admitting(Admitting::Asked), _) => false,
            // A connection that does not stand yet has nothing to say.
            (State::Dialing(dialing), _) => matches!(dialing.step, DialStep::AskedTls | DialStep::Login(_)),
            _ => true,
        }
    }

    /// Whether a completed send moves a session on.
    pub fn awaits_sent(&self) -> bool {
        (self.relay.requests.is_sending() || self.relay.replies.is_sending()) && !self.is_only_moving()
    }

    /// Where both receives are armed a completed send only gives a slot back, unless a frame that was held whole is leaving:
    /// its next piece, or other sessions, wait for its room.
    pub fn is_only_moving(&self) -> bool {
        let both_receive = self.relay.requests.is_receiving() && self.relay.replies.is_receiving();
        self.is_relaying() && both_receive && !self.relay.sends_gathered()
    }

    /// It has a place among `max_client_conn`, and has not said who it is.
    pub fn is_stranger(&self) -> bool {
        let says_nothing = matches!(
            self.state,
            State::Announcing
                | State::Greeting { .. }
                | State::Securing(_)
                | State::Admitting(Admitting::Awaited | Admitting::FirstDue)
                | State::Cancelling(_)
        );
        says_nothing && !self.surplus
    }

    /// When the oldest slot was taken that it holds, in the slab's seconds.
    pub fn oldest_slot_s(&self) -> Option<u32> {
        self.relay.requests.oldest_slot_s().into_iter().chain(self.relay.replies.oldest_slot_s()).min()
    }

    /// When the room was last moved in that it takes of the shard's budget, in the budget's seconds.
    pub fn oldest_share_s(&self) -> Option<u32> {
        self.relay.oldest_share_s()
    }

    pub fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    /// The client speaks TLS.
    pub fn is_secured(&self) -> bool {
        self.secured.is_some()
    }

    /// No statement runs, and no transaction is open.
    pub fn is_idle(&self) -> bool {
        self.relay.dissector.is_idle()
    }

    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The key that the client was given.
    pub fn cancel_key(&self) -> &CancelKey {
        &self.cancel_key
    }

    /// The upstream's key, while a statement runs there.
    pub fn running(&self) -> Option<[u8; 8]> {
        self.upstream_key.filter(|_| self.is_relaying() && self.relay.dissector.is_owed())
    }

    pub fn is_relaying(&self) -> bool {
        matches!(self.state, State::Relaying)
    }

    /// Everything that can happen, in one place. If it must wait, the shell comes back with [`Input::Again`], or ends it.
    pub fn handle(&mut self, input: Input, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Option<Shortage> {
        if let Some(fault) = self.absorb(input, cx, outputs) {
            self.end(fault, cx, outputs);
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
                return match (side, &self.state) {
                    (Side::Upstream, State::Dialing(_)) => self.missed(Miss::Closed, outputs),
                    _ => Some(Fault::Gone(side)),
                };
            }
            Input::Admitted(Ok(admission)) => return self.admitted(*admission, cx, outputs),
            Input::Dialed(result) => return self.dialed(result, outputs),
            Input::Leased(lease) => return self.leased(lease, cx, outputs),
            Input::DialLate => return self.dial_late(outputs),
            Input::Parted => return self.parted(cx, outputs),
            Input::Admitted(Err(fault)) => return self.not_admitted(fault, outputs),
            Input::Challenge(challenge) => self.challenge(&challenge),
            Input::MayCancel(grant) => return self.may_cancel(grant, outputs),
            Input::Secured { side, result: Ok(secured) } => return self.secured(side, secured),
            Input::Secured { side: Side::Upstream, result: Err(_) } => return self.missed(Miss::TlsFailed, outputs),
            Input::End(fault) | Input::Secured { result: Err(fault), .. } => return Some(fault),
            Input::Policy { masks, epoch } => {
                self.relay.dissector.renew_masks(masks);
                self.relay.epoch = epoch;
            }
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
            (State::Cancelling(_), _) => self.cancel_secured(),
            _ => self.start_login(Some(&secured)),
        }
        None
    }

    /// Moves on as far as the bytes at hand allow.
    fn advance(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Option<Shortage> {
        loop {
            let moved = match &mut self.state {
                State::Announcing => self.read_proxy_header(cx),
                State::Greeting { .. } => self.greet(cx, outputs),
                State::Securing(_) => Ok(self.begin_tls(cx, outputs)),
                State::Admitting(_) => self.admit(cx, outputs),
                State::Dialing(_) => self.log_in(cx, outputs),
                State::Cancelling(_) => self.cancel(cx, outputs),
                State::Relaying => return self.relay(cx, outputs),
                State::Draining { .. } => {
                    self.drain(outputs);
                    return None;
                }
            };
            match moved {
                Ok(true) => continue,
                Ok(false) => break,
                Err(fault) => self.end(fault, cx, outputs),
            }
        }
        for lane in [&mut self.relay.requests, &mut self.relay.replies] {
            lane.hold(false);
            lane.settle(cx.slab);
        }
        None
    }

    fn relay(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Option<Shortage> {
        let fault = match self.relay.pump(cx) {
            Flow::RingFull => return Some(Shortage::Recorder),
            Flow::NothingToGatherIn => return Some(Shortage::GatheredBytes),
            Flow::End(fault) => fault,
            Flow::Idle if self.relay.replies.ended() => Fault::Gone(Side::Upstream),
            Flow::Idle if self.relay.requests.ended() => Fault::Gone(Side::Client),
            Flow::Idle => return None,
        };
        self.end(fault, cx, outputs);
        self.drain(outputs);
        None
    }

    /// Records an event of the session itself. The ring keeps a reserve for these.
    fn record(&self, kind: Kind, json: &serde_json::Value, cx: &mut Cx<'_>) -> bool {
        let note = Note { kind, flags: ring::Flags::WHOLE, session: self.id(), now_unix_ns: cx.now_unix_ns };
        cx.tap.record(note, &[json.to_string().as_bytes()]).is_some()
    }
}
