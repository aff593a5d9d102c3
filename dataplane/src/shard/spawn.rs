//! A shard comes to life: pin, attach the ring, allocate the slab, then turn until told to stop.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::accept::Door;
use super::census::Census;
use super::mailbox::{Mailbox, Postbox};
use super::{Now, Parts, Shard};
use crate::buffer::{Slab, budget};
use crate::config::Limits;
use crate::control::Control;
use crate::control::analyser::Analyser;
use crate::datapath::counters::Counters;
use crate::io::driver::{Driver, Kind};
use crate::io::tls::Tls;
use crate::log;

/// A shard that panics at once on every start must not eat its core.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// What a shard's thread is given.
pub struct Assignment {
    pub number: u8,
    pub driver: Kind,
    pub listeners: Vec<OwnedFd>,
    pub ring: OwnedFd,
    pub bell: OwnedFd,
    pub mailbox: Mailbox,
    /// All shards' postboxes, by number.
    pub siblings: Vec<Postbox>,
    pub census: Census,
    pub counters: Arc<Counters>,
    pub control: Arc<Control>,
    pub analyser: Analyser,
    pub limits: Limits,
    pub doors: Vec<Door>,
    pub recorder_absent_max: Duration,
}

/// Runs a shard until it is told to stop; after a panic it is started again. Its sessions end with it, and the recorder,
/// which sees a new producer, closes their records.
///
/// # Errors
/// What went wrong at a start.
pub fn run(assignment: &Assignment) -> Result<(), String> {
    pin(assignment.number);
    loop {
        let once = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_once(assignment)));
        match once {
            Ok(ended) => return ended,
            Err(_) => {
                let number = assignment.number;
                let message = format!("shard {number} has panicked: its sessions have ended, and it is started again");
                log::tell(&log::SHARD_RESTARTED, &[number.into()], message);
                std::thread::sleep(RESTART_PAUSE);
            }
        }
    }
}

/// A shard stays on its CPU while it may; where it may not (a changed mask), it runs anywhere.
fn pin(number: u8) {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return };
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut own = rustix::thread::CpuSet::new();
    own.set(cpus[usize::from(number) % cpus.len()]);
    let _ = rustix::thread::sched_setaffinity(None, &own);
}

fn run_once(assignment: &Assignment) -> Result<(), String> {
    let limits = assignment.limits;
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(|e| format!("no descriptor: {e}"));
    let mut slab = Slab::new(budget::slots(limits.active_sessions_max)).map_err(|e| format!("no memory: {e}"))?;
    let memory = ring::map(&assignment.ring).map_err(|e| format!("the ring cannot be mapped: {e}"))?;
    let producer = ring::Producer::attach(memory).map_err(|e| format!("the ring cannot be used: {e}"))?;
    let listeners = assignment.listeners.iter().map(copy).collect::<Result<Vec<_>, _>>()?;
    let io = Driver::new(assignment.driver, &mut slab, listeners, copy(&assignment.bell)?)?;
    let mut shard = Shard::new(Parts {
        io: Tls::new(io),
        slab,
        tap: Box::new(producer),
        control: assignment.control.clone(),
        analyser: assignment.analyser.clone(),
        mailbox: assignment.mailbox.clone(),
        siblings: assignment.siblings.clone(),
        census: assignment.census.clone(),
        counters: assignment.counters.clone(),
        limits,
        doors: assignment.doors.clone(),
        recorder_absent_max: assignment.recorder_absent_max,
        random: Box::new(|bytes| getrandom::fill(bytes).expect("the kernel has random bytes")),
        number: assignment.number,
        now: now(),
    });
    let mut clock = Clock { read: now() };
    while !shard.has_stopped() {
        shard.turn(&mut || clock.now());
    }
    Ok(())
}

/// Both clocks of the machine.
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { unix_ns: unix.as_nanos() as u64, monotonic_ns: monotonic_ns() }
}

fn monotonic_ns() -> u64 {
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    monotonic.tv_sec as u64 * 1_000_000_000 + monotonic.tv_nsec as u64
}

/// Both clocks for the price of one: what they differ by is looked up once a millisecond.
struct Clock {
    read: Now,
}

impl Clock {
    const GOOD_NS: u64 = 1_000_000;

    fn now(&mut self) -> Now {
        let monotonic_ns = monotonic_ns();
        let since_ns = monotonic_ns.saturating_sub(self.read.monotonic_ns);
        if since_ns > Self::GOOD_NS {
            self.read = now();
            return self.read;
        }
        Now { unix_ns: self.read.unix_ns + since_ns, monotonic_ns }
    }
}
