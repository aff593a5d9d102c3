//! A connection is accepted: limits first, then a session.                                                             [1]

use std::sync::Arc;
use std::time::Duration;

use super::timers::Kind;
use super::{End, Entry, SHARDS_MAX, Shard};
use crate::address::{Network, Peer};
use crate::config::Listener;
use crate::io::Conn;
use crate::io::tls::SecureIo;
use crate::session::{CancelKey, Encryption, Session, Settings};

/// Connections above `max_client_conn` that are kept until they can be told. Beyond these they are closed without a word.
const SURPLUS_MAX: usize = 64;

/// What a shard knows of a listener.
#[derive(Clone, Debug)]
pub struct Door {
    pub encryption: Encryption,
    /// Connections come from proxies in these networks alone, each with a header that names the client.
    pub proxy_from: Option<Arc<[Network]>>,
}

impl Default for Door {
    fn default() -> Self {
        Self { encryption: Encryption::None, proxy_from: None }
    }
}

impl From<&Listener> for Door {
    fn from(listener: &Listener) -> Self {
        Self { encryption: listener.encryption(), proxy_from: listener.proxy_from.clone() }
    }
}

impl Door {
    /// Whether a connection from there may be a proxy's, or need not be one.
    fn is_open_to(&self, peer: Peer) -> bool {
        match (&self.proxy_from, peer) {
            (None, _) => true,
            (Some(networks), Peer::Tcp(address)) => networks.iter().any(|network| network.contains(address.ip())),
            (Some(_), Peer::Unix { .. }) => false,
        }
    }
}

impl<I: SecureIo> Shard<I> {
    pub(super) fn accepted(&mut self, listener: usize, client: Conn, peer: Peer) {
        let door = self.doors.get(listener).cloned().unwrap_or_default();
        if !door.is_open_to(peer) {
            self.counters.refused_not_a_proxy.add(1);
            return self.io.close(client, &[]);
        }
        let Some(surplus) = self.place_left() else { return self.io.close(client, &[]) };
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        let id = self.next_session;
        self.next_session += SHARDS_MAX;
        let settings = Settings {
            shared: self.shared.clone(),
            encryption: door.encryption,
            proxied: door.proxy_from.is_some(),
            auth: self.control.challenges().auth(listener),
            surplus,
        };
        let session = Session::new(id, settings, peer, self.cancel_key(), self.now.unix_ns);
        self.entries[index as usize] = Some(Box::new(Entry::new(session, client, listener)));
        self.census.tell(self.number, self.sessions());
        self.attach(client, index, End::Client);
        self.await_login(index, id);
        self.arm(index);
    }

    /// Counts who comes; none if there is no place, not even to be told so. True: it is here to be told.
    fn place_left(&mut self) -> Option<bool> {
        let (connections, max) = (self.census.total(), self.limits.max_client_conn as usize);
        let surplus = connections >= max && !self.make_place();
        let is_refused = surplus && connections >= max + SURPLUS_MAX || self.stopping.is_some();
        let count = match (surplus, is_refused) {
            (true, _) => &self.counters.refused_max_client_conn,
            (false, true) => &self.counters.refused_shutting_down,
            (false, false) => &self.counters.connections_accepted,
        };
        count.add(1);
        (!is_refused).then_some(surplus)
    }

    /// The process id will be the upstream's own. The secret is the authority: its first bits name the shard, so that a cancel
    /// finds its way, and all others are random.
    fn cancel_key(&mut self) -> CancelKey {
        let mut secret = [0; 32];
        (self.random)(&mut secret);
        secret[0] = secret[0] & !self.shard_bits() | self.number;
        CancelKey { process_id: 0, secret }
    }

    pub(super) fn attach(&mut self, conn: Conn, index: u32, end: End) {
        let place = conn.0 as usize;
        if self.connections.len() <= place {
            self.connections.resize(place + 1, None);
        }
        self.connections[place] = Some((index, end));
    }

    pub(super) fn timer(&mut self, kind: Kind, after: Duration, index: u32, id: u64) {
        self.timers.set(kind, self.now.monotonic_ns + after.as_nanos() as u64, index, id);
    }
}
