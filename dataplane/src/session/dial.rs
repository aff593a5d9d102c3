//! The upstream's login with the credential that the client never sees; then the client is let in. An address that will not
//! do is left for the next ([`super::attempts`]).

use policy_compiler::judge::is_utf8;

use super::attempts::Miss;
use super::lease::Lease;
use super::{DialStep, Output, Secured, Session, State};
use crate::control::certificate;
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::framer::{self, Framed};
use crate::protocol::postgres::handshake::{self, Login, Progress};
use crate::protocol::postgres::responder::Report;
use crate::protocol::postgres::wire::u32_at;

/// Why nothing goes on at an address.
pub(super) enum Stop {
    /// Another may do.
    Miss(Miss),
    /// No other is to be tried.
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl Session {
    /// Has the current address dialed, if there is one.
    pub(super) fn dial(&mut self, outputs: &mut Vec<Output>) -> Option<Fault> {
        let State::Dialing(dialing) = &mut self.state else { return None };
        dialing.step = DialStep::Connecting;
        match dialing.attempts.current() {
            Some(address) => outputs.push(Output::Dial { address, key: dialing.key }),
            None => return Some(self.give_up(outputs)),
        }
        None
    }

    /// What came of the dialing. TLS comes first, where it is asked for.
    pub(super) fn dialed(&mut self, result: Result<(), Miss>, outputs: &mut Vec<Output>) -> Option<Fault> {
        if let Err(miss) = result {
            return self.missed(miss, outputs);
        }
        let State::Dialing(dialing) = &mut self.state else {
            self.cancel_dialed();
            return None;
        };
        let at = dialing.attempts.current().map(usize::from);
        // Without an answer it is TLS: nothing goes out in clear where it might have been promised.
        if at.and_then(|at| dialing.admission.upstream.tls.get(at)) == Some(&false) {
            self.start_login(None);
            return None;
        }
        dialing.step = DialStep::AskedTls;
        let mut request = Vec::new();
        handshake::ask_tls(&mut request);
        self.relay.requests.insert_unrecorded(&request);
        None
    }

    /// The current address has had its time.
    pub(super) fn dial_late(&mut self, outputs: &mut Vec<Output>) -> Option<Fault> {
        match &self.state {
            State::Dialing(dialing) if !matches!(dialing.step, DialStep::Parting) => self.missed(Miss::Late, outputs),
            _ => None,
        }
    }

    /// The current address will not do: its connection is closed, and then the next is dialed.
    pub(super) fn missed(&mut self, miss: Miss, outputs: &mut Vec<Output>) -> Option<Fault> {
        // A cancel request goes where its session is, or nowhere.
        let State::Dialing(dialing) = &mut self.state else { return Some(Fault::Gone(Side::Client)) };
        if dialing.attempts.missed(miss).is_none() {
            return Some(self.give_up(outputs));
        }
        dialing.step = DialStep::Parting;
        outputs.push(Output::Part);
        None
    }

    /// That connection is gone with its last operation. Nothing of what was said on it may reach the next.
    pub(super) fn parted(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Option<Fault> {
        self.relay.requests.send_failed();
        self.relay.replies.forget_received(cx.slab);
        self.dial(outputs)
    }

    fn give_up(&mut self, outputs: &mut Vec<Output>) -> Fault {
        const NONE: Fault = Fault::Unreachable("no address of the upstream can be used; the operator's log says why");
        let State::Dialing(dialing) = &self.state else { return NONE };
        let mut report = Vec::new();
        Report::fatal(NONE.sqlstate(), &format!("wireward: {}", dialing.attempts.report())).write(&mut report);
        outputs.push(Output::NotReached(dialing.attempts.found()));
        self.relay.replies.insert_unrecorded(&report);
        self.relay.dissector.say_farewell();
        NONE
    }

    /// Our startup message goes first.
    pub(super) fn start_login(&mut self, secured: Option<&Secured>) {
        let State::Dialing(dialing) = &mut self.state else { return };
        let certificate = secured.and_then(|s| s.peer_certificate.as_deref());
        let binding = certificate.and_then(certificate::server_end_point);
        let mut hello = Vec::new();
        let login = Login::start(&dialing.admission, &dialing.startup, binding, &mut hello);
        dialing.step = DialStep::Login(Box::new(login));
        self.relay.requests.insert_unrecorded(&hello);
    }

    pub(super) fn log_in(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Fault> {
        let State::Dialing(dialing) = &mut self.state else { return Ok(false) };
        let moved = match &dialing.step {
            DialStep::Connecting | DialStep::Handshake | DialStep::Parting => return Ok(false),
            DialStep::AskedTls => self.read_tls_answer(cx, outputs),
            DialStep::Login(_) => self.step_login(cx, outputs),
        };
        match moved {
            Ok(moved) => Ok(moved),
            Err(Stop::Fault(fault)) => Err(fault),
            Err(Stop::Miss(miss)) => self.missed(miss, outputs).map_or(Ok(false), Err),
        }
    }

    /// One byte, and nothing behind it: what came in clear must not be read as TLS.
    fn read_tls_answer(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Stop> {
        if self.tls_answered(cx)? {
            let State::Dialing(dialing) = &mut self.state else { return Ok(false) };
            dialing.step = DialStep::Handshake;
            outputs.push(Output::Secure { side: Side::Upstream, early: Vec::new() });
        }
        Ok(false)
    }

    /// True when the upstream has said yes.
    pub(super) fn tls_answered(&mut self, cx: &mut Cx<'_>) -> Result<bool, Stop> {
        match &*self.relay.replies.window(cx.slab) {
            [] if self.relay.replies.ended() => return Err(Miss::Closed.into()),
            [] => return Ok(false),
            [b'S'] => {}
            [b'N'] => return Err(Miss::NoTls.into()),
            _ => {
                let malformed = "the upstream's answer to a TLS request is malformed";
                return Err(Fault::Protocol(Side::Upstream, malformed).into());
            }
        }
        self.relay.replies.drop_bytes(1);
        Ok(true)
    }

    /// The next message of the upstream's login, in bytes, when it is whole.
    fn login_message(&mut self, cx: &mut Cx<'_>) -> Result<Option<usize>, Stop> {
        let window = self.relay.replies.window(cx.slab);
        match framer::next(window) {
            Framed::Frame { bytes, .. } if bytes <= window.len() => Ok(Some(bytes)),
            Framed::Frame { bytes, .. } if bytes > handshake::LOGIN_MESSAGE_BYTES_MAX => {
                Err(Fault::Protocol(Side::Upstream, "a message of the upstream's login is too long").into())
            }
            Framed::Broken => Err(Fault::Protocol(Side::Upstream, "the upstream does not speak PostgreSQL").into()),
            _ if self.relay.replies.ended() => Err(Miss::Closed.into()),
            _ => Ok(None),
        }
    }

    fn step_login(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Stop> {
        let Some(bytes) = self.login_message(cx)? else { return Ok(false) };
        let keeps_upstreams = self.relay.dissector.shared().keeps_upstreams;
        let State::Dialing(dialing) = &mut self.state else { return Ok(false) };
        let DialStep::Login(login) = &mut dialing.step else { return Ok(false) };
        let window = self.relay.replies.window(cx.slab);
        let mut answer = Vec::new();
        let progress = login.step(&window[..bytes], &mut answer);
        self.relay.replies.drop_bytes(bytes);
        self.relay.requests.insert_unrecorded(&answer);
        match progress? {
            Progress::More => {}
            Progress::Refused { is_away: true, .. } if dialing.attempts.has_next() => {
                return Err(Miss::StartingUp.into());
            }
            // Connections that are kept there for nobody may be what fills it: they are closed, and it is asked once more.
            Progress::Refused { is_full: true, .. }
                if keeps_upstreams && !std::mem::replace(&mut dialing.was_full, true) =>
            {
                dialing.step = DialStep::Parting;
                outputs.extend([Output::Part, Output::UpstreamIsFull]);
            }
            Progress::Refused { report, .. } => {
                self.relay.replies.insert_unrecorded(&report);
                self.relay.dissector.say_farewell();
                return Err(Fault::Unreachable("the upstream refused the login").into());
            }
            Progress::Ready(ready) => {
                dialing.attempts.judge(ready.traits)?;
                let key = dialing.key.unwrap_or_default();
                self.let_in(Box::new(Lease::new(key, ready, cx.now_unix_ns)), cx);
                cx.counters.upstream_logins.add(1);
            }
        }
        Ok(true)
    }

    pub(super) fn let_in(&mut self, lease: Box<Lease>, cx: &mut Cx<'_>) {
        let State::Dialing(dialing) = &self.state else { return };
        let mut welcome = Vec::new();
        // The server's own number: it stands in pg_stat_activity and in notifications, and clients give it to functions.
        let process_id = lease.cancel_key.and_then(|key| u32_at(&key, 0));
        self.cancel_key.process_id = process_id.unwrap_or_default();
        handshake::welcome(&mut welcome, &dialing.startup, &lease.parameters, self.cancel_key);
        self.relay.replies.insert_unrecorded(&welcome);
        if !dialing.startup.parameter("client_encoding").is_none_or(is_utf8) {
            self.relay.dissector.begin_foreign();
        }
        self.upstream_key = lease.cancel_key;
        let pid = lease.cancel_key.and_then(|key| key.first_chunk().copied()).map(u32::from_be_bytes);
        self.relay.dissector.set_upstream(pid, dialing.admission.upstream.role.as_deref());
        self.lease = dialing.key.map(|_| lease);
        self.state = State::Relaying;
        cx.counters.logins.admitted.add(1);
    }
}
