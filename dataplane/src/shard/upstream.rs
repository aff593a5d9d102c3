//! Connections to upstreams that sessions have left at rest, kept for the next session of the same client. A shard has its own.
//!
//! Resetting → kept → lent, or closed: by its server (any byte that it says by itself counts as that), by age, by a reload, by
//! the shard's end, or because the shard keeps too many. Nothing is tried again: whoever finds none logs in.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::mailbox::Mail;
use super::timers::Kind;
use super::{End, Shard};
use crate::control::route::Endpoint;
use crate::io::tls::SecureIo;
use crate::io::{Conn, Lent};
use crate::protocol::postgres::reset::{Progress, Reset};
use crate::protocol::postgres::wire::frontend;
use crate::session::Input;
use crate::session::lease::Lease;

/// How long an upstream may take to reset a connection.
const RESET_MAX: Duration = Duration::from_secs(5);
/// A session that has lived for longer does not leave its connection to others: it has paid for its login.
const LEASE_MAX: Duration = Duration::from_secs(5);

struct Spare {
    conn: Conn,
    endpoint: Arc<Endpoint>,
    address: u16,
    lease: Box<Lease>,
    step: Step,
    receiving: bool,
    /// From which byte on the question is being sent; nobody gets a connection with a send in flight.
    sending_from: Option<usize>,
    /// Since when it stands as it does, and until when it may, monotonic ns.
    since_ns: u64,
    until_ns: u64,
}

enum Step {
    Resetting(Reset),
    Kept,
    /// Its last event is awaited.
    Closing,
}

/// All of a shard, by place.
#[derive(Default)]
pub(super) struct Spares {
    places: Vec<Option<Box<Spare>>>,
    free: Vec<u32>,
    /// No spare's time is over before, monotonic ns.
    due_ns: u64,
    /// What the upstream of the last login reports.
    last_parameters: Rc<[u8]>,
}

impl Spares {
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn open(&self) -> impl Iterator<Item = (u32, &Spare)> {
        let places = self.places.iter().enumerate();
        let spares = places.filter_map(|(at, spare)| Some((at as u32, spare.as_deref()?)));
        spares.filter(|(_, spare)| !matches!(spare.step, Step::Closing))
    }

    fn get(&mut self, at: u32) -> Option<&mut Spare> {
        self.places.get_mut(at as usize)?.as_deref_mut()
    }

    fn add(&mut self, spare: Spare) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        self.due_ns = self.due_ns.min(spare.until_ns);
        self.places[at as usize] = Some(Box::new(spare));
        at
    }

    fn remove(&mut self, at: u32) -> Option<Box<Spare>> {
        let spare = self.places.get_mut(at as usize)?.take()?;
        self.free.push(at);
        Some(spare)
    }
}

impl<I: SecureIo> Shard<I> {
    /// Takes over the upstream's connection of a session that has ended, if another may go on with it.
    pub(super) fn keep_upstream(&mut self, index: u32) {
        let spares_max = self.limits.idle_upstreams_max as usize;
        let Some(entry) = self.entries[index as usize].as_deref_mut() else { return };
        // A cancel request of it may still be on its way, and must not meet another's statement.
        if self.stopping.is_some() || entry.was_cancelled || spares_max == 0 {
            return;
        }
        let (Some(conn), Some(endpoint)) = (entry.upstream, entry.endpoint.clone()) else { return };
        let oldest_unix_ns = self.now.unix_ns.saturating_sub(self.limits.server_lifetime.as_nanos() as u64);
        let Some((lease, receiving)) = entry.session.take_lease(oldest_unix_ns) else { return };
        entry.upstream = None;
        entry.open -= 1;
        let address = entry.address;
        let (since_ns, step) = (self.now.monotonic_ns, Step::Resetting(Reset::default()));
        let until_ns = since_ns + RESET_MAX.as_nanos() as u64;
        let at = self.spares.add(Spare {
            conn,
            endpoint,
            address,
            lease,
            step,
            receiving,
            sending_from: Some(0),
            since_ns,
            until_ns,
        });
        self.attach(conn, at, End::Spare);
        self.io.send(&mut self.slab, conn, Lent::Heap { bytes: Reset::question(), from: 0 });
        self.listen_to_spare(at);
        let oldest = self.spares.open().min_by_key(|(_, spare)| spare.since_ns).map(|(at, _)| at);
        if self.spares.open().count() > spares_max {
            oldest.into_iter().for_each(|at| self.close_spare(at));
        }
    }

    /// Lends the session a connection that is kept under this key. False: it has to dial.
    pub(super) fn lend_upstream(&mut self, index: u32, address: u16, key: u128) -> bool {
        let Some(entry) = self.entries[index as usize].as_deref() else { return false };
        let Some(endpoint) = &entry.endpoint else { return false };
        let fits = |spare: &Spare| {
            matches!(spare.step, Step::Kept)
                && spare.receiving
                && spare.sending_from.is_none()
                && (spare.lease.key, spare.address) == (key, address)
                && Arc::ptr_eq(&spare.endpoint, endpoint)
        };
        // The one that was used last: the others grow old and go.
        let newest = self.spares.open().filter(|(_, spare)| fits(spare)).max_by_key(|(_, spare)| spare.since_ns);
        let Some(spare) = newest.map(|(at, _)| at).and_then(|at| self.spares.remove(at)) else { return false };
        if let Some(entry) = self.entries[index as usize].as_deref_mut() {
            (entry.upstream, entry.address) = (Some(spare.conn), address);
            entry.open += 1;
        }
        self.attach(spare.conn, index, End::Upstream);
        self.counters.upstream_leases.add(1);
        self.feed(index, Input::Leased(spare.lease));
        true
    }

    /// From now on the session has some seconds in which it may leave its upstream's connection to another.
    pub(super) fn start_lease(&mut self, index: u32) {
        let Some(entry) = self.entries[index as usize].as_deref_mut() else { return };
        let id = entry.session.id();
        if let Some(lease) = entry.session.lease_mut() {
            lease.share(&mut self.spares.last_parameters);
            self.timer(Kind::Lease, LEASE_MAX, index, id);
        }
    }

    /// Bytes of a spare's upstream, or its end.
    pub(super) fn spare_received(&mut self, at: u32, bytes: &[u8]) {
        let (now_ns, idle_ns) = (self.now.monotonic_ns, self.limits.server_idle_timeout.as_nanos() as u64);
        let Some(spare) = self.spares.get(at) else { return };
        spare.receiving = false;
        let progress = match &mut spare.step {
            Step::Resetting(_) | Step::Kept if bytes.is_empty() => Progress::Failed,
            Step::Resetting(reset) => reset.received(bytes),
            Step::Kept => Progress::Failed,
            Step::Closing => return,
        };
        match progress {
            Progress::More => {}
            Progress::Done => {
                (spare.step, spare.since_ns, spare.until_ns) = (Step::Kept, now_ns, now_ns + idle_ns);
                self.spares.due_ns = self.spares.due_ns.min(now_ns + idle_ns);
            }
            Progress::Failed => return self.close_spare(at),
        }
        self.listen_to_spare(at);
    }

    /// The question has left, or part of it.
    pub(super) fn spare_sent(&mut self, at: u32, sent: Option<(usize, Vec<u8>)>) {
        let Some(spare) = self.spares.get(at) else { return };
        let Some((n, bytes)) = sent else { return self.close_spare(at) };
        let left_from = spare.sending_from.map(|from| from + n).filter(|from| *from < bytes.len());
        spare.sending_from = left_from;
        if let (Some(from), Step::Resetting(_)) = (left_from, &spare.step) {
            let conn = spare.conn;
            self.io.send(&mut self.slab, conn, Lent::Heap { bytes, from });
        }
    }

    pub(super) fn spare_closed(&mut self, at: u32) {
        self.spares.remove(at);
    }

    fn listen_to_spare(&mut self, at: u32) {
        let Some(spare) = self.spares.get(at) else { return };
        if !std::mem::replace(&mut spare.receiving, true) {
            let conn = spare.conn;
            self.io.receive(conn);
        }
    }

    fn close_spare(&mut self, at: u32) {
        let Some(spare) = self.spares.get(at) else { return };
        if matches!(std::mem::replace(&mut spare.step, Step::Closing), Step::Closing) {
            return;
        }
        let conn = spare.conn;
        self.io.close(conn, &frontend::GOODBYE);
    }

    /// Their logins may be good no more, nor those of the sessions that are here.
    pub(super) fn close_spares(&mut self) {
        self.close_spares_of(|_| true);
        self.entries.iter_mut().flatten().for_each(|entry| entry.session.forget_lease());
    }

    /// An upstream has no room: what all shards keep there is closed.
    pub(super) fn make_room(&mut self, index: u32) {
        let endpoint = self.entries[index as usize].as_ref().and_then(|e| e.endpoint.as_ref());
        let Some(resource) = endpoint.map(|endpoint| endpoint.resource.clone()) else { return };
        self.close_spares_of(|endpoint| endpoint.resource == resource);
        for (number, sibling) in self.siblings.iter().enumerate() {
            if number != usize::from(self.number) {
                sibling.send(Mail::MakeRoom(resource.clone()));
            }
        }
    }

    pub(super) fn close_spares_of(&mut self, is_meant: impl Fn(&Endpoint) -> bool) {
        let meant = self.spares.open().filter(|(_, spare)| is_meant(&spare.endpoint));
        let meant: Vec<u32> = meant.map(|(at, _)| at).collect();
        meant.into_iter().for_each(|at| self.close_spare(at));
    }

    /// Closes those whose time is over.
    pub(super) fn end_spares(&mut self) {
        let now_ns = self.now.monotonic_ns;
        if self.spares.len() == 0 || now_ns < self.spares.due_ns {
            return;
        }
        let late: Vec<u32> = self.spares.open().filter(|(_, s)| s.until_ns <= now_ns).map(|(at, _)| at).collect();
        late.into_iter().for_each(|at| self.close_spare(at));
        self.spares.due_ns = self.spares.open().map(|(_, s)| s.until_ns).min().unwrap_or(u64::MAX);
    }
}
