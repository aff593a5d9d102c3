//! The end: the client is told why in its own protocol, what was cleared leaves, and the record says how it ended.

use ring::Kind;
use serde_json::json;

use super::{Admitting, Output, Refused, Session, State};
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::responder::Report;
use crate::protocol::postgres::wire::frontend;

impl Session {
    pub(super) fn end(&mut self, fault: Fault, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) {
        if self.is_draining() {
            return;
        }
        let fault = match self.state {
            // However the rest of the exchange went: this is what it was refused for.
            State::Admitting(Admitting::Challenging(ref fault) | Admitting::Challenged(ref fault)) => **fault,
            _ => fault,
        };
        let relaying = self.is_relaying();
        if !relaying && !matches!(self.state, State::Cancelling(_)) {
            cx.counters.logins.failed(fault);
        }
        self.state = State::Draining { said_close: false };
        match self.opened {
            true => self.record_close(fault, cx),
            false => outputs.extend(self.refusal(fault)),
        }
        if fault != Fault::Gone(Side::Client) && !self.relay.dissector.is_farewell_said() && self.replies_are_whole() {
            let mut bytes = Vec::new();
            let message = format!("wireward: {}", fault.text());
            Report::fatal(fault.sqlstate(), &message).write(&mut bytes);
            // The reason is about the session, not of its data, and must reach a client whose session cannot be recorded.
            self.relay.replies.insert_unrecorded(&bytes);
        }
        // A client that leaves its upstream at rest may leave it to another.
        if relaying && fault == Fault::Gone(Side::Client) && self.upstream_rests() {
            return;
        }
        self.lease = None;
        if relaying && fault.side() != Side::Upstream && self.requests_are_whole() {
            self.relay.requests.insert_unrecorded(&frontend::GOODBYE);
        }
    }

    /// A message of ours in the midst of another's bytes would be read as its content.
    fn replies_are_whole(&self) -> bool {
        !self.relay.replies.is_amid_frame() && !self.relay.is_recording_gathered()
    }

    fn requests_are_whole(&self) -> bool {
        !self.relay.requests.is_amid_frame()
    }

    /// A client that goes away without a token, as psql does to ask for one, was not refused.
    fn refusal(&mut self, fault: Fault) -> Option<Output> {
        if matches!(fault, Fault::Gone(_) | Fault::NoToken | Fault::ShuttingDown) {
            return None;
        }
        let startup = self.pending_startup.take().unwrap_or_default();
        let (session, client, user, database) = (self.id(), self.peer, startup.user, startup.database);
        Some(Output::Refused(Box::new(Refused { session, client, user, database, fault })))
    }

    fn record_close(&mut self, fault: Fault, cx: &mut Cx<'_>) {
        let reason = match fault {
            Fault::Gone(Side::Client) => "client closed",
            other => other.text(),
        };
        let close = json!({
            "session": self.id(),
            "time_unix_ns": cx.now_unix_ns,
            "reason": reason,
            "duration_ms": cx.now_unix_ns.saturating_sub(self.started_unix_ns) / 1_000_000,
            "statements": self.relay.statements,
            "refused": self.relay.refused,
        });
        self.record(Kind::Close, &close, cx);
    }

    /// Closes when all that may leave has left; the shell's timer bounds how long that may take.
    pub(super) fn drain(&mut self, outputs: &mut Vec<Output>) {
        let State::Draining { said_close } = &mut self.state else { return };
        let flushed = self.relay.replies.is_flushed() && self.relay.requests.is_flushed();
        if flushed && !*said_close {
            *said_close = true;
            outputs.push(Output::Close);
        }
    }

    /// Gives the slots back, when the connections' last operations are done.
    pub fn release(&mut self, slab: &mut crate::buffer::Slab) {
        self.relay.requests.release(slab);
        self.relay.replies.release(slab);
    }
}
