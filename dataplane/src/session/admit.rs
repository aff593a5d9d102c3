//! The token: read from the password message, checked by the control side, never recorded.

use ring::Kind;
use serde_json::json;

use super::attempts::Attempts;
use super::{Admission, DialStep, Dialing, Output, Request, Session, State};
use crate::control::certificate;
use crate::control::credential::Secret;
use crate::control::identity::Actor;
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::protocol::postgres::framer::{self, Framed};
use crate::protocol::postgres::wire::{HEAD_BYTES, cstr_at, frontend};

impl Session {
    pub(super) fn read_token(&mut self, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Result<bool, Fault> {
        let Some(token) = self.password(cx)? else {
            return if self.relay.requests.ended() { Err(Fault::Gone(Side::Client)) } else { Ok(false) };
        };
        let Some(startup) = &self.pending_startup else { return Ok(false) };
        let (user, database) = (startup.user.clone(), startup.database.clone());
        self.state = State::Admitting { asked: true };
        outputs.push(Output::Admit(Box::new(Request { user, database, token })));
        Ok(false)
    }

    /// The password, when its message is whole.
    fn password(&mut self, cx: &mut Cx<'_>) -> Result<Option<Secret>, Fault> {
        let lane = &mut self.relay.requests;
        if lane.collecting() {
            return match lane.gather(cx.slab) {
                Some(frame) => secret(&frame.bytes).map(Some),
                None => Ok(None),
            };
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
        if bytes > self.token_bytes_max + HEAD_BYTES + 1 {
            return Err(Fault::Limit("the token is longer than token_bytes_max"));
        }
        if bytes > window.len() {
            // Strangers have no part in the shard's budget: what they can hold is bounded by max_client_conn.
            lane.collect(bytes, None);
            let _ = lane.gather(cx.slab);
            return Ok(None);
        }
        let found = secret(&window[..bytes]);
        // The token leaves no trace in the slab.
        window[..bytes].fill(0);
        lane.drop_bytes(bytes);
        found.map(Some)
    }

    pub(super) fn admitted(
        &mut self,
        admission: Admission,
        cx: &mut Cx<'_>,
        outputs: &mut Vec<Output>,
    ) -> Option<Fault> {
        let State::Admitting { .. } = self.state else { return None };
        let startup = *self.pending_startup.take()?;
        let mut open = json!({
            "session": self.id(),
            "time_unix_ns": cx.now_unix_ns,
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
        if !admission.identity.actors.is_empty() {
            let actor = |a: &Actor| json!({"subject": a.subject, "issuer": a.issuer});
            open["actors"] = admission.identity.actors.iter().map(actor).collect();
        }
        if !self.record(Kind::Open, &open, cx) {
            return Some(Fault::NotRecorded);
        }
        self.opened = true;
        self.relay.epoch = admission.epoch;
        self.relay.dissector.set_masks(admission.masks.clone());
        let attempts = Attempts::new(admission.upstream.target, admission.upstream.order.clone());
        self.state = State::Dialing(Box::new(Dialing { startup, admission, attempts, step: DialStep::Connecting }));
        self.dial(outputs)
    }
}

fn secret(frame: &[u8]) -> Result<Secret, Fault> {
    match cstr_at(frame, HEAD_BYTES) {
        Some((token, end)) if end == frame.len() => Ok(Secret::new(token)),
        _ => Err(Fault::Protocol(Side::Client, "the password message is malformed")),
    }
}
