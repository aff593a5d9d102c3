//! A shell for tests: a driver, its slab, a listener, and what was told and not yet looked at.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dataplane::buffer::{SLOT_BYTES, Slab, Slot};
use dataplane::io::driver::{Driver, Kind};
use dataplane::io::uring::Uring;
use dataplane::io::{Conn, Event, Io, Lent};
use dataplane::shard::listen::listen;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// More than io_uring's driver keeps for itself at first.
pub const SLOTS: u32 = 20;
pub const PATIENCE: Duration = Duration::from_secs(10);
pub const SHORT: Duration = Duration::from_millis(20);

/// Descriptors are the whole process's: one test takes all.
static ALONE: Mutex<()> = Mutex::new(());

/// A shell: a driver, its slab, a listener, and what was told and not yet looked at.
pub struct Desk {
    pub io: Driver,
    pub slab: Slab,
    pub address: SocketAddr,
    pub bell: OwnedFd,
    pub told: Vec<Event>,
}

pub fn both(test: fn(&mut Desk)) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // A ring that has gone may interrupt one more system call of its thread, so it comes last.
    for name in ["epoll", "io_uring", "io_uring with descriptors"] {
        println!("{name}");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut slab = Slab::new(SLOTS).unwrap();
        let bell = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let listeners = vec![listen(address).unwrap()];
        let ring = bell.try_clone().unwrap();
        let io = match name {
            "epoll" => Driver::new(Kind::Epoll, &mut slab, listeners, ring).unwrap(),
            "io_uring" => Driver::new(Kind::Uring, &mut slab, listeners, ring).unwrap(),
            _ => Driver::Uring(Uring::with_descriptors(&mut slab, listeners, ring).unwrap()),
        };
        test(&mut Desk { io, slab, address, bell, told: Vec::new() });
    }
}

impl Desk {
    pub fn wait(&mut self, timeout: Duration) {
        // What is in the list already would end the wait at once.
        let mut more = Vec::new();
        self.io.wait(&mut self.slab, timeout, &mut more);
        self.told.append(&mut more);
    }

    /// Waits until an event fits; what does not fit stays to be looked at.
    pub fn until<T>(&mut self, what: &str, fits: impl Fn(&Event) -> bool, take: impl FnOnce(Event) -> T) -> T {
        let began = Instant::now();
        loop {
            if let Some(at) = self.told.iter().position(&fits) {
                return take(self.told.remove(at));
            }
            assert!(began.elapsed() < PATIENCE, "no {what}: {:?}", self.told);
            self.wait(SHORT);
        }
    }

    /// A client that has connected and was accepted.
    pub fn client(&mut self) -> (TcpStream, Conn) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let from = stream.local_addr().unwrap();
        let fits = |event: &Event| matches!(event, Event::Accepted { peer, .. } if *peer == from.into());
        let conn = self.until("Accepted", fits, |event| match event {
            Event::Accepted { conn, listener: 0, .. } => conn,
            other => panic!("{other:?}"),
        });
        (stream, conn)
    }

    pub fn received(&mut self, of: Conn) -> (Option<Slot>, Result<usize, Errno>) {
        let fits = |event: &Event| matches!(event, Event::Received { conn, .. } if *conn == of);
        self.until("Received", fits, |event| match event {
            Event::Received { slot, result, .. } => (slot, result),
            other => panic!("{other:?}"),
        })
    }

    pub fn sent(&mut self, of: Conn) -> (Result<usize, Errno>, Option<Vec<u8>>) {
        self.io.hurry();
        let fits = |event: &Event| matches!(event, Event::Sent { conn, .. } if *conn == of);
        self.until("Sent", fits, |event| match event {
            Event::Sent { result, heap, .. } => (result, heap),
            other => panic!("{other:?}"),
        })
    }

    /// Waits for `Closed`, and gives back the slots of receives that completed before. Nothing of the connection follows.
    pub fn closed(&mut self, of: Conn) {
        self.until("Closed", |event| matches!(event, Event::Closed { conn } if *conn == of), |_| ());
        let known = self.told.len();
        (0..3).for_each(|_| self.wait(Duration::ZERO));
        let concerns = |event: &Event| match event {
            Event::Received { conn, .. } | Event::Sent { conn, .. } | Event::Connected { conn, .. } => *conn == of,
            Event::Closed { conn } => *conn == of,
            _ => false,
        };
        assert!(!self.told[known..].iter().any(concerns), "after Closed: {:?}", self.told);
        for event in std::mem::take(&mut self.told) {
            match event {
                Event::Received { conn, slot, .. } if conn == of => slot.into_iter().for_each(|s| self.slab.give(s)),
                other if concerns(&other) => {}
                other => self.told.push(other),
            }
        }
    }

    /// Fills the connection until a send stays in flight; gives the slot that it was lent.
    pub fn clog(&mut self, conn: Conn) -> Slot {
        const MUCH: usize = 16 << 20;
        let mut sent = MUCH;
        while sent == MUCH {
            self.io.send(&mut self.slab, conn, Lent::Heap { bytes: vec![0; MUCH], from: 0 });
            sent = self.sent(conn).0.unwrap();
        }
        let slot = self.slab.take().unwrap();
        loop {
            self.io.send(&mut self.slab, conn, Lent::Slot { slot: &slot, from: 0, to: SLOT_BYTES });
            self.io.hurry();
            (0..3).for_each(|_| self.wait(SHORT));
            let sent = self.told.iter().position(|event| matches!(event, Event::Sent { conn: of, .. } if *of == conn));
            let Some(at) = sent else { return slot };
            self.told.remove(at);
        }
    }

    /// Slots that neither the driver keeps nor a connection holds.
    pub fn idle_slots(&mut self) -> usize {
        self.wait(Duration::ZERO);
        self.slab.free()
    }
}
