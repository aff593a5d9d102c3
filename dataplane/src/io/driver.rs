//! Which driver a shard runs on: chosen once, when the process starts, the same for all shards.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use serde::Deserialize;

use super::epoll::Epoll;
use super::uring::Uring;
use super::{Conn, Event, Io, Lent};
use crate::address::Address;
use crate::buffer::{Slab, Slot};

/// What was asked for: `runtime.io`, or `--io`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// io_uring, or epoll where it is forbidden or too old
    #[default]
    Auto,
    /// io_uring, or no start
    Uring,
    /// epoll
    Epoll,
}

/// What a shard is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Uring,
    Epoll,
}

impl Kind {
    /// As metrics and the log say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

impl Choice {
    /// The driver to use, and why it is not io_uring if that was wished for and cannot be had.
    ///
    /// # Errors
    /// io_uring was asked for and cannot be used.
    pub fn settle(self) -> Result<(Kind, Option<String>), String> {
        let tried = match self {
            Self::Epoll => return Ok((Kind::Epoll, None)),
            Self::Auto | Self::Uring => try_uring(),
        };
        match tried {
            Ok(()) => Ok((Kind::Uring, None)),
            Err(why) if self == Self::Auto => Ok((Kind::Epoll, Some(why))),
            Err(why) => Err(format!("{why}; allow it, or set runtime.io = \"auto\" (--io auto)")),
        }
    }
}

/// Makes a whole driver and lets it go: flags and registrations are refused one by one.
fn try_uring() -> Result<(), String> {
    let mut slab = Slab::new(1).map_err(|e| format!("no memory: {e}"))?;
    let bell = eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| format!("no event descriptor: {e}"))?;
    Uring::new(&mut slab, Vec::new(), bell).map(drop).map_err(refused)
}

fn refused(error: std::io::Error) -> String {
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {
            " (forbidden by a seccomp profile or by kernel.io_uring_disabled?)"
        }
        Some(Errno::INVAL) => " (is the kernel older than Linux 6.1?)",
        _ => "",
    };
    format!("io_uring cannot be used: {error}{hint}")
}

/// The driver of a shard. A `match` is cheaper than a call through a table, and the shard is compiled once.
pub enum Driver {
    Uring(Uring),
    Epoll(Epoll),
}

impl Driver {
    /// `bell` is the event descriptor that rings for mail.
    ///
    /// # Errors
    /// What the kernel refuses, in the user's words.
    pub fn new(kind: Kind, slab: &mut Slab, listeners: Vec<OwnedFd>, bell: OwnedFd) -> Result<Self, String> {
        match kind {
            Kind::Uring => Uring::new(slab, listeners, bell).map(Self::Uring).map_err(refused),
            Kind::Epoll => {
                Epoll::new(listeners, bell).map(Self::Epoll).map_err(|e| format!("epoll cannot be used: {e}"))
            }
        }
    }
}

macro_rules! either {
    ($driver:expr, $io:ident => $call:expr) => {
        match $driver {
            Driver::Uring($io) => $call,
            Driver::Epoll($io) => $call,
        }
    };
}

impl Io for Driver {
    fn receive_at_most(&mut self, conn: Conn, bytes_max: usize) {
        either!(self, io => io.receive_at_most(conn, bytes_max));
    }

    fn receive_into(&mut self, slab: &Slab, conn: Conn, slot: &Slot, from: usize) {
        either!(self, io => io.receive_into(slab, conn, slot, from));
    }

    fn send(&mut self, slab: &mut Slab, conn: Conn, lent: Lent<'_>) {
        either!(self, io => io.send(slab, conn, lent));
    }

    fn hurry(&mut self) {
        either!(self, io => io.hurry());
    }

    fn connect(&mut self, address: &Address) -> Result<Conn, Errno> {
        either!(self, io => io.connect(address))
    }

    fn close(&mut self, conn: Conn, farewell: &[u8]) {
        either!(self, io => io.close(conn, farewell));
    }

    fn wait(&mut self, slab: &mut Slab, timeout: Duration, events: &mut Vec<Event>) {
        either!(self, io => io.wait(slab, timeout, events));
    }
}
