//! The client's first messages: encryption requests, then the startup message.

use super::{Session, State};
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::handshake::{self, Hello};

/// SSLRequest and GSSENCRequest together; a third is an attack (threats DS-02).
const NEGOTIATIONS_MAX: u8 = 2;

impl Session {
    /// True if the session has moved on.
    pub(super) fn greet(&mut self, cx: &mut Cx<'_>) -> Result<bool, Fault> {
        let State::Greeting { negotiations } = self.state else { return Ok(false) };
        let window = self.relay.requests.window(cx.slab);
        let window_bytes = window.len();
        let Some((hello, bytes)) = handshake::hello(window)? else {
            return if self.relay.requests.ended() { Err(Fault::Gone(Side::Client)) } else { Ok(false) };
        };
        match hello {
            Hello::Encrypt if negotiations >= NEGOTIATIONS_MAX || bytes < window_bytes => {
                Err(Fault::Protocol(Side::Client, "bytes came before the answer to an encryption request"))
            }
            Hello::Encrypt => {
                self.relay.requests.drop_bytes(bytes);
                self.relay.replies.insert_unrecorded(b"N");
                self.state = State::Greeting { negotiations: negotiations + 1 };
                Ok(false)
            }
            // Cancelling is not served yet; the server, too, answers a cancel request with nothing but the end.
            Hello::Cancel => Err(Fault::Gone(Side::Client)),
            Hello::Startup(startup) => {
                self.relay.requests.drop_bytes(bytes);
                let mut reply = Vec::new();
                startup.negotiate(&mut reply);
                if let Err(refusal) = startup.check() {
                    refusal.write(&mut reply);
                    self.relay.replies.insert_unrecorded(&reply);
                    self.relay.dissector.say_farewell();
                    self.pending_startup = Some(Box::new(startup));
                    return Err(Fault::NotAdmitted("a startup parameter is not allowed"));
                }
                handshake::ask_password(&mut reply);
                self.relay.replies.insert_unrecorded(&reply);
                self.pending_startup = Some(Box::new(startup));
                self.state = State::Admitting { asked: false };
                Ok(true)
            }
        }
    }
}
