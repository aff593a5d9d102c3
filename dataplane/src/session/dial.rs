//! The upstream's login with the credential that the client never sees; then the client is let in.

use super::{DialStep, Output, Secured, Session, State};
use crate::control::certificate;
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::framer::{self, Framed};
use crate::protocol::postgres::handshake::{self, Login, Progress, Ready};

const CLOSED: Fault = Fault::Unreachable("the upstream closed the connection during the login");

impl Session {
    /// The connection stands: TLS comes first, where it is asked for.
    pub(super) fn dialed(&mut self) -> Option<Fault> {
        let State::Dialing(dialing) = &mut self.state else {
            self.cancel_dialed();
            return None;
        };
        if !dialing.admission.upstream.tls {
            self.start_login(None);
            return None;
        }
        dialing.step = DialStep::AskedTls;
        let mut request = Vec::new();
        handshake::ask_tls(&mut request);
        self.relay.requests.insert_unrecorded(&request);
        None
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
        match &dialing.step {
            DialStep::Connecting | DialStep::Handshake => Ok(false),
            DialStep::AskedTls => self.read_tls_answer(cx, outputs),
            DialStep::Login(_) => self.step_login(cx),
        }
    }

    /// One byte, and nothing behind it: what came in clear must not be read as TLS.
    fn read_tls_answer(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Fault> {
        if self.tls_answered(cx)? {
            let State::Dialing(dialing) = &mut self.state else { return Ok(false) };
            dialing.step = DialStep::Handshake;
            outputs.push(Output::Secure { side: Side::Upstream, early: Vec::new() });
        }
        Ok(false)
    }

    /// True when the upstream has said yes.
    pub(super) fn tls_answered(&mut self, cx: &mut Cx<'_>) -> Result<bool, Fault> {
        match &*self.relay.replies.window(cx.slab) {
            [] if self.relay.replies.ended() => return Err(CLOSED),
            [] => return Ok(false),
            [b'S'] => {}
            [b'N'] => {
                return Err(Fault::Unreachable("the upstream does not offer TLS, and the resource asks for it"));
            }
            _ => return Err(Fault::Protocol(Side::Upstream, "the upstream's answer to a TLS request is malformed")),
        }
        self.relay.replies.drop_bytes(1);
        Ok(true)
    }

    fn step_login(&mut self, cx: &mut Cx<'_>) -> Result<bool, Fault> {
        let State::Dialing(dialing) = &mut self.state else { return Ok(false) };
        let DialStep::Login(login) = &mut dialing.step else { return Ok(false) };
        let window = self.relay.replies.window(cx.slab);
        let bytes = match framer::next(window) {
            Framed::Frame { bytes, .. } if bytes <= window.len() => bytes,
            Framed::Frame { bytes, .. } if bytes > handshake::LOGIN_MESSAGE_BYTES_MAX => {
                return Err(Fault::Protocol(Side::Upstream, "a message of the upstream's login is too long"));
            }
            Framed::Broken => return Err(Fault::Protocol(Side::Upstream, "the upstream does not speak PostgreSQL")),
            _ if self.relay.replies.ended() => return Err(CLOSED),
            _ => return Ok(false),
        };
        let mut answer = Vec::new();
        let progress = login.step(&window[..bytes], &mut answer);
        self.relay.replies.drop_bytes(bytes);
        self.relay.requests.insert_unrecorded(&answer);
        match progress? {
            Progress::More => {}
            Progress::Refused(report) => {
                self.relay.replies.insert_unrecorded(&report);
                self.relay.dissector.say_farewell();
                return Err(Fault::Unreachable("the upstream refused the login"));
            }
            Progress::Ready(Ready { parameters, cancel_key }) => {
                self.upstream_key = cancel_key;
                let mut welcome = Vec::new();
                handshake::welcome(&mut welcome, &dialing.startup, &parameters, self.cancel_key);
                self.relay.replies.insert_unrecorded(&welcome);
                self.state = State::Relaying;
                cx.counters.logins.admitted.add(1);
            }
        }
        Ok(true)
    }
}
