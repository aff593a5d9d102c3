//! The shell: feeds each event to its session, performs each output, arms what the lanes want.                       [2, 10]

use std::time::Duration;

use rustix::io::Errno;

use super::census::Seat;
use super::judging::SessionJudge;
use super::mailbox::Mail;
use super::timers::Kind;
use super::{End, Entry, Shard};
use crate::buffer::Slot;
use crate::control::Answer;
use crate::datapath::lane::Want;
use crate::datapath::relay::Cx;
use crate::fault::{Fault, Side};
use crate::io::tls::{Role, SecureIo};
use crate::io::{Conn, Event};
use crate::log;
use crate::session::attempts::Miss;
use crate::session::{Input, Output, Request, Secured};

/// How long a session may take to say goodbye to a slow peer.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Why there is no connection.
fn miss(error: Errno) -> Miss {
    match error {
        // Nobody listens at the port, at the socket's file, or there is no such file.
        Errno::CONNREFUSED | Errno::NOENT => Miss::Refused,
        Errno::TIMEDOUT => Miss::Late,
        // It was accepted, and reset before we looked.
        Errno::CONNRESET | Errno::PIPE => Miss::Closed,
        _ => Miss::Unreachable,
    }
}

impl<I: SecureIo> Shard<I> {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Accepted { listener, conn, peer } => self.accepted(listener, conn, peer),
            Event::AcceptFailed { listener, error } => {
                self.counters.accept_failures.add(1);
                let message = format!("accept on listener {listener}: {error}");
                log::tell(&log::ACCEPT_FAILED, &[self.number.into(), listener.into()], message);
            }
            Event::Received { conn, slot, result } => match self.side(conn) {
                Some((index, side)) => {
                    let input = match result {
                        Ok(bytes) => {
                            self.counters.received(side, bytes);
                            Input::Received { side, slot: slot.map(|s| self.slab.touched(s)), bytes }
                        }
                        Err(_) => Input::ReceiveFailed { side, slot },
                    };
                    self.feed(index, input);
                }
                None => self.received_aside(conn, slot, result),
            },
            Event::Sent { conn, result, heap } => self.sent(conn, result, heap),
            Event::Connected { conn, result } => {
                let Some((index, End::Upstream)) = self.place(conn) else { return };
                self.feed(index, Input::Dialed(result.map_err(miss)));
            }
            Event::Secured { conn, result } => self.on_secured(conn, result),
            Event::Closed { conn } => self.closed(conn),
            Event::Woken => self.on_mail(),
        }
    }

    fn place(&self, conn: Conn) -> Option<(u32, End)> {
        self.connections.get(conn.0 as usize).copied().flatten()
    }

    /// The session of a connection that still matters to it, and its side there.
    fn side(&self, conn: Conn) -> Option<(u32, Side)> {
        let (index, end) = self.place(conn)?;
        let side = match end {
            End::Client => Side::Client,
            End::Upstream => Side::Upstream,
            End::Parting | End::Spare => return None,
        };
        self.entries[index as usize].as_ref().filter(|e| !e.closing).map(|_| (index, side))
    }

    fn sent(&mut self, conn: Conn, result: Result<usize, Errno>, heap: Option<Vec<u8>>) {
        if let Some((at, End::Spare)) = self.place(conn) {
            return self.spare_sent(at, result.ok().zip(heap));
        }
        let Some((index, side)) = self.side(conn) else { return };
        let session = self.entries[index as usize].as_deref_mut().map(|e| &mut e.session);
        if let (Some(session), Ok(bytes), None) = (session, result, &heap)
            && session.is_only_moving()
        {
            let lane = session.outgoing(side);
            lane.sent(&mut self.slab, bytes, None);
            // What it did not take, or what has come since, is to go.
            if !lane.is_flushed() {
                self.arm(index);
            }
            return;
        }
        let input = match result {
            Ok(bytes) => Input::Sent { side, bytes, heap },
            Err(_) => Input::SendFailed { side },
        };
        self.feed(index, input);
    }

    /// What comes on a connection that no session reads.
    fn received_aside(&mut self, conn: Conn, slot: Option<Slot>, result: Result<usize, Errno>) {
        if let Some((at, End::Spare)) = self.place(conn) {
            let bytes = slot.as_ref().map(|slot| self.slab.bytes(slot, 0..result.unwrap_or(0)).to_vec());
            self.spare_received(at, &bytes.unwrap_or_default());
        }
        slot.into_iter().for_each(|s| self.slab.give(s));
    }

    /// One input into one session; then its outputs, then its lanes.
    pub(super) fn feed(&mut self, index: u32, input: Input) {
        let recorder_present = self.recorder_present();
        let Some(entry) = self.entries[index as usize].as_deref_mut() else { return };
        if entry.closing {
            return;
        }
        let (was_draining, was_relaying) = (entry.session.is_draining(), entry.session.is_relaying());
        let mut judge = SessionJudge {
            plans: &mut self.plans,
            counters: &self.counters,
            view: entry.view.as_ref(),
            pending: &mut entry.pending,
            key: self.shared.name_key,
            analyser: &self.analyser,
            postbox: self.mailbox.postbox(),
            session: entry.session.id(),
            index,
            who: entry.seat.as_ref().map_or(0, Seat::who),
            turn_bytes: &mut self.turn_bytes,
        };
        let mut cx = Cx {
            slab: &mut self.slab,
            tap: &mut *self.tap,
            judge: &mut judge,
            scratch: &mut self.scratch,
            gathered: &self.gathered,
            counters: &self.counters,
            now_unix_ns: self.now.unix_ns,
            recorder_present,
        };
        let shortage = entry.session.handle(input, &mut cx, &mut self.outputs);
        if entry.shortage != shortage {
            entry.shortage = shortage;
            entry.stalled_since_ns = self.now.monotonic_ns;
        }
        if shortage.is_some() && !std::mem::replace(&mut entry.retrying, true) {
            self.stalled.push(index);
        }
        let is_let_in = !was_relaying && entry.session.is_relaying();
        let process_id = entry.session.cancel_key().process_id;
        if let Some(view) = &entry.view
            && view.masks.stale.take()
        {
            self.control.want_refresh();
        }
        if !was_draining && entry.session.is_draining() {
            let id = entry.session.id();
            self.timer(Kind::Drain, DRAIN_MAX, index, id);
        }
        if is_let_in {
            self.backends.insert((process_id, index));
            self.start_lease(index);
        }
        self.perform(index);
        self.arm(index);
    }

    fn perform(&mut self, index: u32) {
        while let Some(output) = self.outputs.pop() {
            match output {
                Output::Admit(request) => self.admit(index, request, false),
                Output::Dial { address, key } => self.dial(index, address, key),
                Output::Part => self.part(index),
                Output::UpstreamIsFull => self.make_room(index),
                Output::NotReached(misses) => self.not_reached(index, &misses),
                Output::Challenge { database } => self.challenge(index, &database),
                Output::Cancel(request) => self.want_cancel(index, request),
                Output::Secure { side, early } => self.secure(index, side, &early),
                Output::Refused(refused) => self.refused(&refused),
                Output::Close => self.close(index),
            }
        }
    }

    /// `has_waited`: it comes by mail, after its issuer's keys were fetched.
    pub(super) fn admit(&mut self, index: u32, request: Box<Request>, has_waited: bool) {
        let admitted = match self.control.admit(&request, self.now.unix_ns / 1_000_000_000, has_waited) {
            Answer::Known(admitted) => admitted,
            Answer::UntilFetched(issuer) => {
                let Some(session) = self.entries[index as usize].as_ref().map(|e| e.session.id()) else { return };
                let postbox = self.mailbox.postbox().clone();
                let again = move || postbox.send(Mail::Admit { session, index, request });
                return self.control.wait(issuer, Box::new(again));
            }
        };
        let seated = admitted.and_then(|admitted| {
            let seat = self.census.seat(&admitted.holder(), self.limits.sessions_per_subject_max as usize);
            Ok((admitted, seat.ok_or(Fault::TooManyOfSubject)?))
        });
        let input = match seated {
            Ok((admitted, seat)) => {
                let key = (admitted.roles, admitted.resource);
                self.expire(index, admitted.expires_unix_s());
                let endpoint = self.control.endpoint(key.1);
                let control = self.control.clone();
                let view = self.view(|| control.subject(key.0, key.1), key);
                let admission = self.control.admission(
                    admitted,
                    view.masks.clone(),
                    &endpoint,
                    self.resting.order(&endpoint.ways, self.now),
                );
                if let Some(entry) = self.entries[index as usize].as_mut() {
                    entry.view = Some(view);
                    entry.endpoint = Some(endpoint);
                    entry.seat = Some(seat);
                }
                Ok(Box::new(admission))
            }
            Err(fault) => Err(fault),
        };
        self.feed(index, Input::Admitted(input));
    }

    /// Says where tokens for this database come from.
    fn challenge(&mut self, index: u32, database: &str) {
        let Some(listener) = self.entries[index as usize].as_ref().map(|e| usize::from(e.listener)) else { return };
        let challenge = self.control.challenges().challenge(listener, database);
        self.feed(index, Input::Challenge(challenge));
    }

    /// The session ends with its token.
    fn expire(&mut self, index: u32, at_unix_s: u64) {
        let Some(id) = self.entries[index as usize].as_ref().map(|e| e.session.id()) else { return };
        let left_ns = at_unix_s.saturating_mul(1_000_000_000).saturating_sub(self.now.unix_ns);
        self.timers.set(Kind::Expiry, self.now.monotonic_ns.saturating_add(left_ns), index, id);
    }

    fn dial(&mut self, index: u32, address: u16, key: Option<u128>) {
        if key.is_some_and(|key| self.lend_upstream(index, address, key)) {
            return;
        }
        let Some(entry) = self.entries[index as usize].as_deref_mut() else { return };
        let way = entry.endpoint.as_ref().and_then(|e| Some((e.ways.get(usize::from(address))?, e.connect_timeout)));
        let Some((way, timeout)) = way else { return self.feed(index, Input::Dialed(Err(Miss::Unresolved))) };
        match self.io.connect(&way.address) {
            Ok(conn) => {
                (entry.upstream, entry.address) = (Some(conn), address);
                entry.open += 1;
                entry.dial_until_ms = self.now.monotonic_ms().wrapping_add(timeout.as_millis() as u32);
                let id = entry.session.id();
                self.attach(conn, index, End::Upstream);
                self.timer(Kind::Dial, timeout, index, id);
            }
            Err(error) => self.feed(index, Input::Dialed(Err(miss(error)))),
        }
    }

    /// An address has had its time; others are tried before it for a while.
    pub(super) fn dial_late(&mut self, index: u32) {
        let entry = self.entries[index as usize].as_ref();
        let way = entry.and_then(|e| e.endpoint.as_ref()?.ways.get(usize::from(e.address)));
        if let Some(way) = way {
            self.resting.add(way.address.clone(), self.now);
        }
        self.feed(index, Input::DialLate);
    }

    /// Closes the connection to an address that will not do. The session goes on when its last operation is done.
    fn part(&mut self, index: u32) {
        let Some(entry) = self.entries[index as usize].as_deref_mut() else { return };
        match entry.upstream.take() {
            Some(conn) => {
                self.attach(conn, index, End::Parting);
                self.io.close(conn, &[]);
            }
            None => self.feed(index, Input::Parted),
        }
    }

    /// No address will do: the operator is told which, but not of every client.
    fn not_reached(&mut self, index: u32, misses: &[(u16, Miss)]) {
        const EVERY_NS: u64 = 1_000_000_000;
        let now_ns = self.now.monotonic_ns;
        let entry = self.entries[index as usize].as_ref();
        let Some(endpoint) = entry.and_then(|e| e.endpoint.as_ref()) else { return };
        if self.told_unreachable_ns.is_some_and(|told| now_ns < told + EVERY_NS) {
            return;
        }
        self.told_unreachable_ns = Some(now_ns);
        let message = endpoint.explain(misses);
        log::tell(&log::UPSTREAM_UNREACHABLE, &[self.number.into(), endpoint.resource.as_ref().into()], message);
    }

    fn secure(&mut self, index: u32, side: Side, early: &[u8]) {
        let Some(entry) = self.entries[index as usize].as_deref_mut() else { return };
        let (conn, role) = match side {
            Side::Client => (
                Some(entry.client),
                self.control.listener_tls(entry.listener.into()).map(|config| Role::Server(config.clone())),
            ),
            _ => {
                let way = entry.endpoint.as_ref().and_then(|e| e.ways.get(usize::from(entry.address)));
                let tls = way.and_then(|way| way.tls.clone());
                (entry.upstream, tls.map(|(config, name)| Role::Client(config, name)))
            }
        };
        debug_assert!(!entry.session.incoming(side).is_receiving(), "a receive in clear is in flight");
        match conn.zip(role) {
            Some((conn, role)) => self.io.secure(&mut self.slab, conn, role, early),
            // Nothing goes on in clear where TLS was promised.
            None => self.close(index),
        }
    }

    fn on_secured(&mut self, conn: Conn, result: Result<Box<Secured>, String>) {
        let Some((index, side)) = self.side(conn) else { return };
        self.counters.secured(side, result.is_ok());
        let result = result.map_err(|why| {
            if side == Side::Upstream {
                log::tell(&log::UPSTREAM_TLS_FAILED, &[self.number.into()], format!("TLS with an upstream: {why}"));
            }
            Fault::Gone(side)
        });
        self.feed(index, Input::Secured { side, result });
        let entry = self.entries[index as usize].as_ref();
        if side == Side::Client && entry.is_some_and(|e| e.session.is_secured()) {
            self.counters.tls_sessions_open.add(1);
        }
    }

    pub(super) fn close(&mut self, index: u32) {
        let Some(entry) = self.entries[index as usize].as_mut() else { return };
        if std::mem::replace(&mut entry.closing, true) {
            return;
        }
        self.keep_upstream(index);
        let Some(entry) = self.entries[index as usize].as_ref() else { return };
        let (client, upstream) = (entry.client, entry.upstream);
        self.io.close(client, &[]);
        if let Some(conn) = upstream {
            self.io.close(conn, entry.session.goodbye());
        }
    }

    /// The last event of a connection. With the last connection the session is gone and its slots are free.
    fn closed(&mut self, conn: Conn) {
        let Some((index, end)) = self.connections.get_mut(conn.0 as usize).and_then(Option::take) else { return };
        if end == End::Spare {
            return self.spare_closed(index);
        }
        let Some(entry) = self.entries[index as usize].as_mut() else { return };
        entry.open -= 1;
        if entry.open > 0 {
            if end == End::Parting {
                self.feed(index, Input::Parted);
            }
            return;
        }
        entry.session.release(&mut self.slab);
        self.backends.remove(&(entry.session.cancel_key().process_id, index));
        self.counters
            .tls_sessions_open
            .set(self.counters.tls_sessions_open.get() - u64::from(entry.session.is_secured()));
        self.entries[index as usize] = None;
        self.free.push(index);
        self.census.tell(self.number, self.sessions());
    }

    /// Submits the receives and sends that the lanes want.
    pub(super) fn arm(&mut self, index: u32) {
        let Some(entry) = self.entries[index as usize].as_deref_mut() else { return };
        if entry.closing {
            return;
        }
        let Entry { session, client, upstream, .. } = entry;
        let ends = [(Some(*client), Side::Client), (*upstream, Side::Upstream)];
        let is_short = self.slab.is_short();
        for (conn, side) in ends {
            let Some(conn) = conn else { continue };
            if let Some(lent) = session.outgoing(side).lend() {
                self.io.send(&mut self.slab, conn, lent);
            }
            if !session.listens_to(side) {
                continue;
            }
            let lane = session.incoming(side);
            if is_short && !lane.park(&mut self.slab, &self.gathered) {
                continue;
            }
            match lane.want() {
                Some(Want::Any(bytes_max)) => self.io.receive_at_most(conn, bytes_max),
                Some(Want::Tail(slot, from)) => self.io.receive_into(&self.slab, conn, slot, from),
                None => continue,
            }
            lane.receive_started();
        }
        if session.awaits_sent() {
            self.io.hurry();
        }
    }
}
