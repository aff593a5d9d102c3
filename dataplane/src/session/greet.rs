//! The client's first messages: encryption requests, TLS, then the startup message.
//!
//! Nothing that came before a handshake is ever read as protocol after it (threats DS-02, CVE-2021-23214).

use super::cancel::Cancelling;
use super::{Admitting, Auth, Encryption, Output, Securing, Session, State};
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::handshake::{self, Hello, Startup};
use crate::protocol::postgres::oauth;

/// SSLRequest and GSSENCRequest together; a third is an attack (threats DS-02).
pub(super) const NEGOTIATIONS_MAX: u8 = 2;

impl Session {
    /// True if the session has moved on.
    pub(super) fn greet(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Fault> {
        const TOO_EARLY: Fault = Fault::Protocol(Side::Client, "bytes came before the answer to an encryption request");
        const TWICE: Fault = Fault::Protocol(Side::Client, "encryption has been negotiated already");
        let State::Greeting { negotiations } = self.state else { return Ok(false) };
        let window = self.relay.requests.window(cx.slab);
        let window_bytes = window.len();
        let Some((hello, bytes)) = handshake::hello(window)? else {
            return if self.relay.requests.ended() { Err(Fault::Gone(Side::Client)) } else { Ok(false) };
        };
        match hello {
            Hello::Tls | Hello::Gss if bytes < window_bytes => Err(TOO_EARLY),
            Hello::Tls | Hello::Gss if negotiations >= NEGOTIATIONS_MAX => Err(TWICE),
            Hello::Tls if self.encryption != Encryption::None => {
                self.relay.requests.drop_bytes(bytes);
                self.relay.replies.insert_unrecorded(b"S");
                self.state = State::Securing(Securing::Answering);
                Ok(true)
            }
            Hello::Tls | Hello::Gss => {
                self.relay.requests.drop_bytes(bytes);
                self.relay.replies.insert_unrecorded(b"N");
                self.state = State::Greeting { negotiations: negotiations + 1 };
                Ok(false)
            }
            Hello::DirectTls if self.encryption != Encryption::None && negotiations == 0 => {
                self.secure_client(Securing::Direct, cx, outputs);
                Ok(false)
            }
            Hello::DirectTls => Err(Fault::Protocol(Side::Client, "TLS is not served here, or not at this point")),
            Hello::Cancel(request) => {
                self.relay.requests.drop_bytes(bytes);
                self.state = State::Cancelling(Cancelling::Asked);
                outputs.push(Output::Cancel(request));
                Ok(false)
            }
            Hello::Startup(startup) => {
                self.relay.requests.drop_bytes(bytes);
                self.start(startup)
            }
        }
    }

    fn start(&mut self, mut startup: Startup) -> Result<bool, Fault> {
        if self.surplus {
            return Err(Fault::TooManyClients);
        }
        if self.encryption == Encryption::Required && self.secured.is_none() {
            return Err(Fault::NotAdmitted("this listener asks for TLS; connect with sslmode=require or better"));
        }
        // Only a proxy can bring somebody from elsewhere to a listener in clear; the token has crossed a network.
        if self.secured.is_none() && !self.peer.is_local() {
            return Err(Fault::NotAdmitted(
                "sessions in clear are served to clients of the gateway's own machine alone, and the proxy names one \
                 elsewhere; connect with sslmode=require or better",
            ));
        }
        startup.ignore(&self.relay.dissector.shared().ignored_startup_parameters);
        let mut reply = Vec::new();
        startup.negotiate(&mut reply);
        if let Err(refusal) = startup.check() {
            refusal.write(&mut reply);
            self.relay.replies.insert_unrecorded(&reply);
            self.relay.dissector.say_farewell();
            self.pending_startup = Some(Box::new(startup));
            return Err(Fault::NotAdmitted("a startup parameter is not allowed"));
        }
        self.auth = startup.auth(self.auth);
        match self.auth {
            Auth::Password => handshake::ask_password(&mut reply),
            Auth::Oauth => oauth::ask(&mut reply),
        }
        self.relay.replies.insert_unrecorded(&reply);
        self.pending_startup = Some(Box::new(startup));
        self.state = State::Admitting(Admitting::Awaited);
        Ok(true)
    }

    /// When our `S` has left, all that comes is TLS.
    pub(super) fn begin_tls(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> bool {
        if matches!(self.state, State::Securing(Securing::Answering)) && self.relay.replies.is_flushed() {
            self.secure_client(Securing::Requested, cx, outputs);
        }
        false
    }

    /// What is here already belongs to the handshake.
    fn secure_client(&mut self, how: Securing, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) {
        let early = self.relay.requests.window(cx.slab).to_vec();
        self.relay.requests.drop_bytes(early.len());
        outputs.push(Output::Secure { side: Side::Client, early });
        self.state = State::Securing(how);
    }
}
