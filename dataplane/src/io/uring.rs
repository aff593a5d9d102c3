//! The io_uring driver: multishot accept, single-shot receives with buffer selection, batched submission.
//!
//! Invariant owned here: every address given to the kernel stays valid until the completion of its operation. Slots belong
//! to the slab, which [`Io::wait`]'s caller keeps alive; heap buffers are moved in here and handed back with the event;
//! slots in the buffer ring are held as [`Slot`] values in `provided`. A connection's socket is closed only after its last
//! operation has completed. Where the kernel can, sockets live in the ring's own table and take no descriptor. Who may call:
//! one shard, on the thread that made the driver (`SINGLE_ISSUER`).
//! Checked by: `tests/drivers.rs`, the end-to-end tests, and `simulation`, which holds the code above to the same rules
//! without a kernel.

mod connection;
mod demand;
mod op;
mod table;

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net;

use self::connection::{Connection, Sending, Socket};
use self::demand::Demand;
use self::op::{Op, user_data};
use self::table::make_table;
use super::socket::{dial, dialed, is_shared, make_blocking, peer};
use super::{ACCEPT_PAUSE, Conn, Event, Io, Lent};
use crate::address::Address;
use crate::buffer::budget::kernel_slots;
use crate::buffer::{SLOT_BYTES, Slab, Slot};

const BUFFER_GROUP: u16 = 0;
const MSG_NOSIGNAL: i32 = 0x4000;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_WAITALL: i32 = 0x100;
/// What a socket certainly takes at once: a peer that has spoken since has room for as much (Linux starts with three times it).
const PROMPT_BYTES_MAX: u32 = 8 * 1024;
/// A wait that is to be shorter has a limit of its own.
const ALARM_MIN: Duration = Duration::from_millis(10);
/// IORING_RECVSEND_POLL_FIRST: a receive that follows a send would find nothing, so the kernel need not try first.
const POLL_FIRST: u16 = 1;

pub struct Uring {
    ring: IoUring,
    buffers: BufferRing,
    /// Places in the ring's table of sockets; 0 if it is not used.
    direct_max: u32,
    listeners: Vec<OwnedFd>,
    bell: OwnedFd,
    bell_count: Box<u64>,
    /// How long the timer that runs was to run: it ends a wait that has no limit of its own, which is cheaper than a limit to each.
    alarm: Option<Duration>,
    alarm_time: Box<Timespec>,
    connections: Vec<Connection>,
    free: Vec<u32>,
    /// Connections closed with nothing in flight: their event is due at the next wait.
    closed: Vec<Conn>,
    /// Numbers whose `Closed` is being told: free from the next wait on, when the shell has certainly heard it.
    retired: Vec<u32>,
    /// Receives that found no buffer: submitted again when slots are back.
    starved: VecDeque<Conn>,
    accept_again: Vec<u32>,
    /// Until when nothing is accepted after a failure.
    accept_after: Option<Instant>,
    /// Whose sends are done when the kernel has read them: it tells of those only that were short or have failed.
    prompt: Vec<Conn>,
    /// No wait is to linger.
    hurried: bool,
    /// Room for those of one wait.
    completions: Vec<cqueue::Entry>,
}

impl Uring {
    /// # Errors
    /// When the kernel refuses io_uring or one of the flags (Linux 6.1 has them all), or memory is out.
    pub fn new(slab: &mut Slab, listeners: Vec<OwnedFd>, bell: OwnedFd) -> std::io::Result<Self> {
        let mut uring = Self::with_descriptors(slab, listeners, bell)?;
        uring.direct_max = make_table(&uring.ring);
        Ok(uring)
    }

    /// As [`Self::new`] on a kernel that is too old for the table of sockets: each has a descriptor.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_descriptors(slab: &mut Slab, listeners: Vec<OwnedFd>, bell: OwnedFd) -> std::io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(4096).build(1024)?;
        let buffers = BufferRing::new(&ring, slab)?;
        let mut uring = Self {
            ring,
            buffers,
            direct_max: 0,
            listeners,
            bell,
            bell_count: Box::new(0),
            alarm: None,
            alarm_time: Box::new(Timespec::new()),
            connections: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            retired: Vec::new(),
            starved: VecDeque::new(),
            accept_again: Vec::new(),
            accept_after: None,
            prompt: Vec::new(),
            hurried: false,
            completions: Vec::new(),
        };
        (0..uring.listeners.len() as u32).for_each(|l| uring.accept(l));
        uring.listen_to_bell();
        Ok(uring)
    }

    /// Whether sockets live in the ring's table.
    pub fn has_table(&self) -> bool {
        self.direct_max > 0
    }

    fn accept(&mut self, listener: u32) {
        let socket = &self.listeners[listener as usize];
        let fd = Fd(socket.as_raw_fd());
        let accept = match is_shared(socket) {
            // Of those that wait on one socket the kernel wakes the first: who has been served goes to the end of the queue.
            true => opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build(),
            false => opcode::AcceptMulti::new(fd).build(),
        };
        self.push(accept.user_data(user_data(Op::Accept, listener)));
    }

    fn listen_to_bell(&mut self) {
        let address: *mut u64 = &mut *self.bell_count;
        let read = opcode::Read::new(Fd(self.bell.as_raw_fd()), address.cast(), 8).build();
        self.push(read.user_data(user_data(Op::Bell, 0)));
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: the addresses in `entry` are kept valid as the head of this file says.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The submission queue is full: hand it to the kernel and go on.
            let _ = self.ring.submit();
        }
    }

    fn adopt(&mut self, socket: OwnedFd, connecting: bool) -> Conn {
        let connection = Connection::new(socket, connecting);
        match self.free.pop() {
            Some(index) => {
                self.connections[index as usize] = connection;
                Conn(index)
            }
            None => {
                self.connections.push(connection);
                Conn(self.connections.len() as u32 - 1)
            }
        }
    }

    /// Moves a socket that is set up into the ring's table, if that has a place for it.
    fn move_into_table(&mut self, conn: Conn) {
        let socket = &mut self.connections[conn.0 as usize].socket;
        let Socket::Own(descriptor) = &*socket else { return };
        if conn.0 < self.direct_max
            && self.ring.submitter().register_files_update(conn.0, &[descriptor.as_raw_fd()]).is_ok()
        {
            *socket = Socket::Direct;
        }
    }

    fn close_socket(&mut self, conn: Conn) {
        let socket = &mut self.connections[conn.0 as usize].socket;
        if let Socket::Direct = std::mem::replace(socket, Socket::Closed) {
            let _ = self.ring.submitter().register_files_update(conn.0, &[-1]);
        }
    }

    fn start(&mut self, conn: Conn, entry: impl FnOnce(Fd) -> squeue::Entry, op: Op) {
        let connection = &mut self.connections[conn.0 as usize];
        debug_assert!(!connection.closing, "an operation on a closed connection");
        let entry = match &connection.socket {
            Socket::Closed => return,
            Socket::Own(socket) => entry(Fd(socket.as_raw_fd())),
            Socket::Direct => entry(Fd(conn.0 as i32)).flags(squeue::Flags::FIXED_FILE),
        };
        connection.in_flight += 1;
        self.push(entry.user_data(user_data(op, conn.0)));
    }

    /// Ends what is in flight on a socket of the table, which nothing shuts down. By operation, which the kernel looks up in one
    /// bucket; by socket it would look at all that is armed on the ring.
    fn cancel_direct(&mut self, conn: Conn) {
        let connection = &self.connections[conn.0 as usize];
        let Socket::Direct = connection.socket else { return };
        // A prompt send is over before a cancel is read.
        let sending = (connection.is_sending() && !connection.is_prompt).then_some(Op::Send);
        for op in [connection.receiving, sending].into_iter().flatten() {
            self.cancel(op, conn);
        }
    }

    fn cancel(&mut self, op: Op, conn: Conn) {
        let cancel = opcode::AsyncCancel::new(user_data(op, conn.0)).build();
        self.push(cancel.user_data(user_data(Op::Cancel, conn.0)));
    }

    fn submit_send(&mut self, conn: Conn, message_flags: i32, flags: squeue::Flags) {
        let (address, bytes) = self.connections[conn.0 as usize].sending.range();
        let send = |fd| opcode::Send::new(fd, address, bytes).flags(MSG_NOSIGNAL | message_flags).build().flags(flags);
        self.start(conn, send, Op::Send);
    }

    /// A send that the kernel does or refuses when it reads it. WAITALL makes one that is cut short a failure.
    fn send_promptly(&mut self, conn: Conn) {
        self.submit_send(conn, MSG_DONTWAIT | MSG_WAITALL, squeue::Flags::SKIP_SUCCESS);
        self.connections[conn.0 as usize].is_prompt = true;
        self.prompt.push(conn);
    }

    /// Prompt sends of which the kernel has told nothing are done, if [`Self::is_all_told`].
    fn tell_prompt(&mut self, events: &mut Vec<Event>) {
        let mut prompt = std::mem::take(&mut self.prompt);
        for conn in prompt.drain(..) {
            let connection = &self.connections[conn.0 as usize];
            if connection.is_prompt {
                let (_, bytes) = connection.sending.range();
                self.sent(conn, Ok(bytes as usize), events);
            }
        }
        self.prompt = prompt;
    }

    fn sent(&mut self, conn: Conn, result: Result<usize, Errno>, events: &mut Vec<Event>) {
        let connection = &mut self.connections[conn.0 as usize];
        connection.is_prompt = false;
        let heap = match std::mem::replace(&mut connection.sending, Sending::Nothing) {
            Sending::Heap(bytes, _) => Some(bytes),
            Sending::Slot(..) | Sending::Nothing => None,
        };
        if self.finished(conn, events) {
            events.push(Event::Sent { conn, result, heap });
        }
    }

    /// Submits what there is and waits for a completion, `timeout` at most.
    fn enter(&mut self, timeout: Duration) {
        self.set_alarm(timeout);
        // ETIME, EINTR and EBUSY all mean: look at the completions and come again.
        let _ = match self.alarm {
            Some(alarm) if alarm <= timeout => self.ring.submitter().submit_and_wait(1),
            _ => self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&Timespec::from(timeout))),
        };
    }

    /// The kernel has read all that was submitted, and every completion so far is in the ring: none waits for room in it.
    fn is_all_told(&mut self) -> bool {
        let submission = self.ring.submission();
        submission.is_empty() && !submission.cq_overflow()
    }

    /// Has the alarm ring after `timeout` at the latest, unless that is so soon that this wait may as well have a limit.
    fn set_alarm(&mut self, timeout: Duration) {
        if timeout < ALARM_MIN || self.alarm.is_some_and(|alarm| alarm <= timeout) {
            return;
        }
        *self.alarm_time = Timespec::from(timeout);
        let alarm = user_data(Op::Alarm, 0);
        match self.alarm.replace(timeout) {
            None => self.push(opcode::Timeout::new(&*self.alarm_time).build().user_data(alarm)),
            // If it rings at this moment, nothing is left to be changed.
            Some(_) => {
                let sooner = opcode::TimeoutUpdate::new(alarm, &*self.alarm_time).build();
                self.push(sooner.flags(squeue::Flags::SKIP_SUCCESS).user_data(user_data(Op::Alarm, 1)));
            }
        }
    }

    fn complete(&mut self, entry: &cqueue::Entry, events: &mut Vec<Event>) {
        let (op, index) = op::of(entry);
        let result = match entry.result() {
            n if n < 0 => Err(Errno::from_raw_os_error(-n)),
            n => Ok(n as usize),
        };
        match op {
            Op::Accept => self.accepted(index, result, cqueue::more(entry.flags()), events),
            Op::Connect => self.connected(Conn(index), events),
            Op::Receive => self.received(Conn(index), result, cqueue::buffer_select(entry.flags()), events),
            Op::ReceiveInto => {
                self.connections[index as usize].receiving = None;
                self.connections[index as usize].unanswered_bytes = 0;
                if self.finished(Conn(index), events) {
                    events.push(Event::Received { conn: Conn(index), slot: None, result });
                }
            }
            Op::Send if result == Err(Errno::AGAIN) && !self.connections[index as usize].closing => {
                // The peer takes no more for now: this time the kernel is to wait for it.
                self.connections[index as usize].in_flight -= 1;
                self.connections[index as usize].is_prompt = false;
                self.submit_send(Conn(index), 0, squeue::Flags::empty());
            }
            Op::Send => self.sent(Conn(index), result, events),
            Op::Bell => {
                self.listen_to_bell();
                events.push(Event::Woken);
            }
            Op::Alarm if index == 0 => self.alarm = None,
            Op::Alarm => {}
            // It was about to look for more when the cancel came: once more.
            Op::Cancel if result == Err(Errno::NOENT) => self.cancel_direct(Conn(index)),
            Op::Cancel => {}
        }
    }

    fn accepted(&mut self, listener: u32, result: Result<usize, Errno>, more: bool, events: &mut Vec<Event>) {
        match result {
            Ok(fd) => {
                // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
                let socket = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) };
                match peer(&socket) {
                    Some(peer) => {
                        let conn = self.adopt(socket, false);
                        self.move_into_table(conn);
                        events.push(Event::Accepted { listener: listener as usize, conn, peer });
                    }
                    None => drop(socket),
                }
            }
            Err(error) => {
                // Out of descriptors, say. It would fail again at once.
                self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                events.push(Event::AcceptFailed { listener: listener as usize, error });
            }
        }
        if !more {
            self.accept_again.push(listener);
        }
    }

    fn connected(&mut self, conn: Conn, events: &mut Vec<Event>) {
        let connection = &mut self.connections[conn.0 as usize];
        connection.connecting = false;
        let result = match &connection.socket {
            Socket::Own(socket) => dialed(socket).and_then(|()| make_blocking(socket.as_fd())),
            Socket::Closed | Socket::Direct => Err(Errno::BADF),
        };
        if result.is_ok() {
            self.move_into_table(conn);
        }
        if self.finished(conn, events) {
            events.push(Event::Connected { conn, result });
        }
    }

    fn received(&mut self, conn: Conn, result: Result<usize, Errno>, buffer: Option<u16>, events: &mut Vec<Event>) {
        self.connections[conn.0 as usize].receiving = None;
        self.connections[conn.0 as usize].unanswered_bytes = 0;
        let slot = buffer.map(|b| self.buffers.taken(b));
        if result == Err(Errno::NOBUFS) && !self.connections[conn.0 as usize].closing {
            self.connections[conn.0 as usize].in_flight -= 1;
            self.starved.push_back(conn);
            self.buffers.demand.ran_out();
            return;
        }
        // A selected slot always reaches the shell, which gives it back even when the connection is closing.
        let last = !self.finished(conn, events);
        if !last || slot.is_some() {
            let received = Event::Received { conn, slot, result };
            match last && matches!(events.last(), Some(Event::Closed { .. })) {
                true => events.insert(events.len() - 1, received),
                false => events.push(received),
            }
        }
    }

    /// One operation less in flight. False if the connection is closing: its events are of no interest any more.
    fn finished(&mut self, conn: Conn, events: &mut Vec<Event>) -> bool {
        let connection = &mut self.connections[conn.0 as usize];
        connection.in_flight -= 1;
        if connection.closing && connection.in_flight == 0 {
            self.close_socket(conn);
            self.retired.push(conn.0);
            events.push(Event::Closed { conn });
        }
        !self.connections[conn.0 as usize].closing
    }

    fn before_wait(&mut self, slab: &mut Slab, events: &mut Vec<Event>) {
        self.free.append(&mut self.retired);
        for conn in std::mem::take(&mut self.closed) {
            self.close_socket(conn);
            self.retired.push(conn.0);
            events.push(Event::Closed { conn });
        }
        self.buffers.refill(slab);
        // Who has waited for longest, and no more than there are slots for: each that finds none costs a call and comes again.
        for _ in 0..self.buffers.held().min(self.starved.len()) {
            let Some(conn) = self.starved.pop_front() else { break };
            self.receive_at_most(conn, self.connections[conn.0 as usize].receive_bytes_max as usize);
        }
    }

    /// Accepts again where it has ended, unless a failure is too fresh. Gives what is left of the pause.
    fn accept_again(&mut self) -> Option<Duration> {
        let left = self.accept_after.map(|after| after.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| !left.is_zero()) {
            return left;
        }
        self.accept_after = None;
        for listener in std::mem::take(&mut self.accept_again) {
            self.accept(listener);
        }
        None
    }
}

impl Io for Uring {
    fn receive_at_most(&mut self, conn: Conn, bytes_max: usize) {
        let bytes_max = bytes_max.min(SLOT_BYTES) as u32;
        self.connections[conn.0 as usize].receive_bytes_max = bytes_max;
        self.connections[conn.0 as usize].receiving = Some(Op::Receive);
        let receive = |fd| {
            opcode::Recv::new(fd, std::ptr::null_mut(), bytes_max)
                .buf_group(BUFFER_GROUP)
                .ioprio(POLL_FIRST)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        };
        self.start(conn, receive, Op::Receive);
    }

    fn receive_into(&mut self, slab: &Slab, conn: Conn, slot: &Slot, from: usize) {
        let address = slab.address(slot).wrapping_add(from);
        let room = (SLOT_BYTES - from) as u32;
        self.connections[conn.0 as usize].receiving = Some(Op::ReceiveInto);
        self.start(conn, |fd| opcode::Recv::new(fd, address, room).build(), Op::ReceiveInto);
    }

    fn send(&mut self, slab: &mut Slab, conn: Conn, lent: Lent<'_>) {
        let connection = &mut self.connections[conn.0 as usize];
        // The kernel may still read what is there: whoever broke the trait's rule must not free it.
        assert!(!connection.is_sending(), "a send is in flight on this connection");
        connection.sending = match lent {
            Lent::Slot { slot, from, to } => {
                Sending::Slot(slab.address(slot).wrapping_add(from).cast_const(), (to - from) as u32)
            }
            Lent::Heap { bytes, from } => Sending::Heap(bytes, from as u32),
        };
        let (_, bytes) = connection.sending.range();
        connection.unanswered_bytes = connection.unanswered_bytes.saturating_add(bytes);
        match connection.unanswered_bytes > PROMPT_BYTES_MAX {
            // Large ones do not linger: one that was short, or found no room, must go on at once.
            true => {
                self.hurried = true;
                self.submit_send(conn, MSG_DONTWAIT, squeue::Flags::empty());
            }
            false => self.send_promptly(conn),
        }
    }

    fn hurry(&mut self) {
        self.hurried = true;
    }

    fn connect(&mut self, address: &Address) -> Result<Conn, Errno> {
        let socket = dial(address)?;
        let conn = self.adopt(socket, true);
        let pollout = rustix::event::PollFlags::OUT.bits().into();
        self.start(conn, |fd| opcode::PollAdd::new(fd, pollout).build(), Op::Connect);
        Ok(conn)
    }

    fn close(&mut self, conn: Conn, farewell: &[u8]) {
        // Whatever else is in flight: the number may have a new connection before its turn comes.
        self.starved.retain(|c| *c != conn);
        let connection = &mut self.connections[conn.0 as usize];
        if connection.closing {
            return;
        }
        match &connection.socket {
            Socket::Own(socket) => {
                if !farewell.is_empty() {
                    let _ = net::send(socket, farewell, net::SendFlags::DONTWAIT | net::SendFlags::NOSIGNAL);
                }
                // Wakes the receive in flight; a send in flight ends with an error or as sent.
                let _ = net::shutdown(socket, net::Shutdown::Both);
            }
            Socket::Direct => {}
            Socket::Closed => return,
        }
        self.cancel_direct(conn);
        let connection = &mut self.connections[conn.0 as usize];
        if matches!(connection.socket, Socket::Direct) && !connection.is_sending() && !farewell.is_empty() {
            connection.sending = Sending::Heap(farewell.to_vec(), 0);
            self.submit_send(conn, MSG_DONTWAIT, squeue::Flags::empty());
        }
        let connection = &mut self.connections[conn.0 as usize];
        connection.closing = true;
        if connection.in_flight == 0 {
            self.closed.push(conn);
        } else if connection.connecting {
            self.cancel(Op::Connect, conn);
        }
    }

    fn wait(&mut self, slab: &mut Slab, timeout: Duration, events: &mut Vec<Event>) {
        self.before_wait(slab, events);
        let pause = self.accept_again().unwrap_or(timeout);
        let timeout = if events.is_empty() { timeout.min(pause) } else { Duration::ZERO };
        // Nobody is woken for a prompt send, and it is told when the call returns. Not while somebody waits for it or for a slot:
        // it may give back the last, and nothing else come.
        let hurried = std::mem::take(&mut self.hurried) || !self.starved.is_empty();
        self.enter(if hurried && !self.prompt.is_empty() { Duration::ZERO } else { timeout });
        let is_all_told = self.is_all_told();
        let mut completions = std::mem::take(&mut self.completions);
        completions.extend(self.ring.completion());
        // A send is told before its answer.
        completions.iter().filter(|entry| op::of(entry).0 == Op::Send).for_each(|entry| self.complete(entry, events));
        if is_all_told {
            self.tell_prompt(events);
        }
        self.hurried |= hurried && !self.prompt.is_empty();
        completions.iter().filter(|entry| op::of(entry).0 != Op::Send).for_each(|entry| self.complete(entry, events));
        completions.clear();
        self.completions = completions;
        slab.set_waiting(self.buffers.held());
    }
}

/// The ring of free slots that receives without a range take from.
struct BufferRing {
    entries: NonNull<BufRingEntry>,
    mask: u16,
    tail: u16,
    /// The slots that the kernel holds, by buffer id.
    provided: Vec<Option<Slot>>,
    spare_ids: Vec<u16>,
    demand: Demand,
}

impl BufferRing {
    fn new(ring: &IoUring, slab: &mut Slab) -> std::io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let count = kernel_slots(slab.slots());
        let bytes = usize::from(count) * size_of::<BufRingEntry>();
        // SAFETY: a fresh private mapping (page-aligned, as the kernel asks) that lives until the process ends.
        let base = unsafe {
            mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        // SAFETY: `base` is a mapping of `count` entries that is never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(base as u64, count, BUFFER_GROUP, 0) }?;
        let entries = NonNull::new(base.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let provided = (0..count).map(|_| None).collect();
        let spare_ids = (0..count).rev().collect();
        let demand = Demand::new(usize::from(count));
        let mut buffers = Self { entries, mask: count - 1, tail: 0, provided, spare_ids, demand };
        buffers.refill(slab);
        Ok(buffers)
    }

    fn held(&self) -> usize {
        self.provided.len() - self.spare_ids.len()
    }

    /// The kernel has put bytes into buffer `id`: it is ours again.
    fn taken(&mut self, id: u16) -> Slot {
        self.spare_ids.push(id);
        self.provided[usize::from(id)].take().expect("the kernel chose a buffer that it was given")
    }

    /// Gives the kernel slots until it has as many as are wanted or the slab is empty.
    fn refill(&mut self, slab: &mut Slab) {
        let before = self.tail;
        let wanted = self.demand.wanted(self.held());
        while self.held() < wanted {
            let Some(slot) = slab.take() else { break };
            let id = self.spare_ids.pop().expect("fewer are held than there are");
            // SAFETY: the index is masked to the ring's length; the kernel reads the entry only after the tail moves past it.
            let entry = unsafe { &mut *self.entries.as_ptr().add(usize::from(self.tail & self.mask)) };
            entry.set_addr(slab.address(&slot) as u64);
            entry.set_len(SLOT_BYTES as u32);
            entry.set_bid(id);
            self.provided[usize::from(id)] = Some(slot);
            self.tail = self.tail.wrapping_add(1);
        }
        if self.tail != before {
            // SAFETY: the tail lies in the ring's first entry, is aligned, and only this thread writes it.
            let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
            tail.store(self.tail, Ordering::Release);
        }
    }
}
