//! A shard comes to life: pin, listen, attach the ring, allocate the slab, then turn until told to stop.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::mailbox::Mailbox;
use super::{Now, Parts, Shard};
use crate::buffer::{Slab, budget};
use crate::config::Limits;
use crate::control::Control;
use crate::control::analyser::Analyser;
use crate::io::tls::Tls;
use crate::io::uring::Uring;
use crate::session::Encryption;

/// Connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;

/// What a shard's thread is given.
pub struct Assignment {
    pub number: u8,
    pub listeners: Vec<OwnedFd>,
    pub ring: OwnedFd,
    pub bell: OwnedFd,
    pub mailbox: Mailbox,
    pub control: Arc<Control>,
    pub analyser: Analyser,
    pub limits: Limits,
    pub encryption: Vec<Encryption>,
    pub recorder_absent_max: Duration,
}

/// Listens on an address, together with other shards (SO_REUSEPORT).
///
/// # Errors
/// What the kernel says: the address is taken, say.
pub fn listen(address: SocketAddr) -> Result<OwnedFd, rustix::io::Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    net::bind(&socket, &address)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Whether another process listens on the address. SO_REUSEPORT would let us share its clients without a word.
///
/// # Errors
/// What the kernel says: the address is taken, say.
pub fn probe(address: SocketAddr) -> Result<(), rustix::io::Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &address)
}

/// Runs a shard until it is told to stop. Returns what went wrong at its start.
pub fn run(assignment: Assignment) -> Result<(), String> {
    let limits = assignment.limits;
    let mut slab = Slab::new(budget::slots(limits.active_sessions_max)).map_err(|e| format!("no memory: {e}"))?;
    let memory = ring::map(&assignment.ring).map_err(|e| format!("the ring cannot be mapped: {e}"))?;
    let producer = ring::Producer::attach(memory).map_err(|e| format!("the ring cannot be used: {e}"))?;
    let io = Tls::new(
        Uring::new(&mut slab, assignment.listeners, assignment.bell)
            .map_err(|e| format!("io_uring cannot be used: {e} (is it forbidden by a seccomp profile?)"))?,
    );
    let mut shard = Shard::new(Parts {
        io,
        slab,
        tap: Box::new(producer),
        control: assignment.control,
        analyser: assignment.analyser,
        mailbox: assignment.mailbox,
        limits,
        encryption: assignment.encryption,
        recorder_absent_max: assignment.recorder_absent_max,
        random: Box::new(|bytes| getrandom::fill(bytes).expect("the kernel has random bytes")),
        number: assignment.number,
        now: now(),
    });
    while !(shard.stopping && shard.sessions() == 0) {
        shard.turn(&mut now);
    }
    Ok(())
}

/// Both clocks of the machine.
pub fn now() -> Now {
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now {
        unix_ns: unix.as_nanos() as u64,
        monotonic_ns: monotonic.tv_sec as u64 * 1_000_000_000 + monotonic.tv_nsec as u64,
    }
}
