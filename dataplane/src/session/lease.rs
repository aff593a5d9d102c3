//! An upstream connection outlives its session: agents make a connection for every statement, and a server forks and logs in
//! for each. When a client leaves its upstream at rest, the shell may keep the connection: what the session has set there is
//! undone ([`crate::protocol::postgres::reset`]), and then it is lent to a session that would log in with the very same
//! bytes, of the same identity in the same roles. Nobody goes on where somebody else has been. Where the resource pins a role nothing is
//! kept: servers before 15.9, 16.5 and 17.1 forget it in the reset (CVE-2024-10978).

use std::rc::Rc;

use super::attempts::Traits;
use super::{Dialing, Output, Session, State};
use crate::control::identity::Actor;
use crate::datapath::relay::Cx;
use crate::fault::Fault;
use crate::protocol::postgres::dissector::NameKey;
use crate::protocol::postgres::handshake::{self, Ready};
use crate::protocol::postgres::wire::frontend;

/// A login that another session may use.
#[derive(Debug)]
pub struct Lease {
    /// A keyed hash over all that must be the same.
    pub key: u128,
    /// The upstream's ParameterStatus messages. Sessions that are alike share them.
    pub parameters: Rc<[u8]>,
    pub traits: Traits,
    pub cancel_key: Option<[u8; 8]>,
    /// When it was made.
    pub logged_in_unix_ns: u64,
}

impl Lease {
    pub fn new(key: u128, ready: Ready, logged_in_unix_ns: u64) -> Self {
        let Ready { parameters, traits, cancel_key } = ready;
        Self { key, parameters: parameters.into(), traits, cancel_key, logged_in_unix_ns }
    }

    /// A crowd's sessions mostly hear the same of their upstream: it is kept once.
    pub fn share(&mut self, last: &mut Rc<[u8]>) {
        match self.parameters == *last {
            true => self.parameters = last.clone(),
            false => *last = self.parameters.clone(),
        }
    }
}

impl Dialing {
    /// Whose login it is: everything that the upstream is told of it, and who the gateway knows it to be.
    pub(super) fn key_under<'a>(&'a self, name_key: NameKey) -> u128 {
        let admission = &self.admission;
        let mut hello = Vec::new();
        handshake::startup(admission, &self.startup, &mut hello);
        let identity = &admission.identity;
        let mut parts = vec![
            &hello[..],
            admission.resource.as_bytes(),
            identity.issuer.as_bytes(),
            identity.subject.as_bytes(),
            identity.name.as_bytes(),
        ];
        let actor = |a: &'a Actor| [a.subject.as_bytes(), a.issuer.as_deref().unwrap_or_default().as_bytes()];
        parts.extend(identity.actors.iter().flat_map(actor));
        // What is behind it can then not be taken for what is before it.
        parts.push(b"");
        parts.extend(admission.role_names.iter().map(String::as_bytes));
        name_key.hash(&parts)
    }
}

impl Session {
    /// The shell has kept a connection, and a receive is armed on it.
    pub(super) fn leased(&mut self, lease: Box<Lease>, cx: &mut Cx<'_>, outputs: &mut Vec<Output>) -> Option<Fault> {
        self.relay.replies.receive_started();
        let State::Dialing(dialing) = &self.state else { return None };
        if let Err(miss) = dialing.attempts.judge(lease.traits) {
            return self.missed(miss, outputs);
        }
        self.let_in(lease, cx);
        None
    }

    pub fn lease_mut(&mut self) -> Option<&mut Lease> {
        self.lease.as_deref_mut()
    }

    /// A session that stays has no use for a lease, and its memory is for many.
    pub fn forget_lease(&mut self) {
        self.lease = None;
    }

    /// The last bytes for its upstream, if they have not been said because the connection might have been kept.
    pub fn goodbye(&self) -> &'static [u8] {
        if self.is_draining() && self.lease.is_some() { &frontend::GOODBYE } else { &[] }
    }

    /// Of a session that has ended and said all: its login, if its upstream's connection can be used again, and whether a
    /// receive is armed there. The session has no upstream from then on. Older logins are not given on.
    pub fn take_lease(&mut self, oldest_unix_ns: u64) -> Option<(Box<Lease>, bool)> {
        let is_old = self.lease.as_ref().is_none_or(|lease| lease.logged_in_unix_ns < oldest_unix_ns);
        if is_old || !self.is_draining() || !self.upstream_rests() {
            return None;
        }
        Some((self.lease.take()?, self.relay.replies.let_go()))
    }

    /// No byte of either side is under way on the upstream's connection, and no state is left there that cannot be undone.
    pub(super) fn upstream_rests(&self) -> bool {
        self.lease.is_some()
            && self.relay.dissector.is_at_rest()
            && self.relay.requests.has_left()
            && self.relay.replies.has_come()
            && !self.relay.is_recording_gathered()
    }
}
