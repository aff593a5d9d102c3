//! The upstream's login with the credential that the client never sees; then the client is let in.

use super::{Session, State};
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::framer::{self, Framed};
use crate::protocol::postgres::handshake::{self, Login, Progress};

impl Session {
    /// The connection stands: our startup message goes first.
    pub(super) fn dialed(&mut self) -> Option<Fault> {
        let State::Dialing(dialing) = &mut self.state else { return None };
        let mut hello = Vec::new();
        let login = Login::start(&dialing.admission, &dialing.startup, &mut hello);
        dialing.login = Some(login);
        self.relay.requests.insert_unrecorded(&hello);
        None
    }

    pub(super) fn log_in(&mut self, cx: &mut Cx<'_>) -> Result<bool, Fault> {
        let State::Dialing(dialing) = &mut self.state else { return Ok(false) };
        let Some(login) = &mut dialing.login else { return Ok(false) };
        let window = self.relay.replies.window(cx.slab);
        let bytes = match framer::next(window) {
            Framed::Frame { bytes, .. } if bytes <= window.len() => bytes,
            Framed::Frame { bytes, .. } if bytes > handshake::LOGIN_MESSAGE_BYTES_MAX => {
                return Err(Fault::Protocol(Side::Upstream, "a message of the upstream's login is too long"));
            }
            Framed::Broken => return Err(Fault::Protocol(Side::Upstream, "the upstream does not speak PostgreSQL")),
            _ if self.relay.replies.ended() => {
                return Err(Fault::Unreachable("the upstream closed the connection during the login"));
            }
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
            Progress::Ready(parameters) => {
                let mut welcome = Vec::new();
                handshake::welcome(&mut welcome, &dialing.startup, &parameters, self.cancel_key);
                self.relay.replies.insert_unrecorded(&welcome);
                self.state = State::Relaying;
            }
        }
        Ok(true)
    }
}
