//! A connection that came only to cancel: it reaches the upstream's own cancel door, says one message, and ends when the
//! upstream has closed. Its client is told nothing, as the server itself does it.

use super::{Output, Session, State};
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::handshake;

/// Leave to cancel what a session runs, given by the shard that the session lives on.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// The upstream's own key.
    pub key: [u8; 8],
    /// Which of the upstream's addresses the session is at.
    pub address: u16,
    pub tls: bool,
}

#[derive(Debug)]
pub(super) enum Cancelling {
    /// The shard of the session is asked.
    Asked,
    Connecting(Grant),
    AskedTls(Grant),
    Handshake(Grant),
    /// The upstream closes when it has taken it.
    Said,
}

impl Session {
    pub(super) fn may_cancel(&mut self, grant: Option<Grant>, outputs: &mut Vec<Output>) -> Option<Fault> {
        let Some(grant) = grant else { return Some(Fault::Gone(Side::Client)) };
        self.state = State::Cancelling(Cancelling::Connecting(grant));
        outputs.push(Output::Dial { address: grant.address, key: None });
        None
    }

    pub(super) fn cancel_dialed(&mut self) {
        let State::Cancelling(Cancelling::Connecting(grant)) = self.state else { return };
        if !grant.tls {
            return self.say_cancel(grant);
        }
        let mut request = Vec::new();
        handshake::ask_tls(&mut request);
        self.relay.requests.insert_unrecorded(&request);
        self.state = State::Cancelling(Cancelling::AskedTls(grant));
    }

    pub(super) fn cancel_secured(&mut self) {
        if let State::Cancelling(Cancelling::Handshake(grant)) = self.state {
            self.say_cancel(grant);
        }
    }

    fn say_cancel(&mut self, grant: Grant) {
        let mut request = Vec::new();
        handshake::cancel_request(grant.key, &mut request);
        self.relay.requests.insert_unrecorded(&request);
        self.state = State::Cancelling(Cancelling::Said);
    }

    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Fault> {
        const OVER: Fault = Fault::Gone(Side::Client);
        match self.state {
            State::Cancelling(Cancelling::AskedTls(grant)) => {
                if self.tls_answered(cx).map_err(|_| OVER)? {
                    self.state = State::Cancelling(Cancelling::Handshake(grant));
                    outputs.push(Output::Secure { side: Side::Upstream, early: Vec::new() });
                }
                Ok(false)
            }
            State::Cancelling(Cancelling::Said) if self.relay.replies.ended() => Err(OVER),
            _ => Ok(false),
        }
    }
}
