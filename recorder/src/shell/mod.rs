//! Shells: what performs the core's writes. [`run`] is the loop that both share; what differs is the [`Disk`] below it:
//! `plain` (pwrite and fdatasync, on every Linux) and `glommio` (direct I/O through io_uring), as [`choice`] says.

pub mod choice;
mod glommio;
mod plain;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ring::{AttachError, Consumer, Mapped};

use crate::checkpoint::Checkpoints;
use crate::core::{Core, Failure, Report, Step};
use crate::recover::{free_name, recover};
use crate::segment;
use crate::segment::writer::{Batch, Limits, Now};
use choice::{Choice, Kind};

/// Sleep between polls while records come.
const BUSY_MS: u64 = 1;
/// Longest sleep between polls; also how often a heartbeat is shown at least.
const IDLE_MS: u64 = 20;
/// How long draining at the end may take while producers still write.
const DRAIN_MAX: Duration = Duration::from_secs(2);
const LOCK_FILE_NAME: &str = "lock";

/// What the recorder needs to run.
pub struct RunConfig {
    /// The rings, one a shard: sealed memfds from [`ring::create`].
    pub rings: Vec<OwnedFd>,
    /// Where the segments go; made if missing.
    pub directory: PathBuf,
    /// The private key that signs checkpoints; made on the first start. Best outside the directory.
    pub key_path: PathBuf,
    /// When segments are ended.
    pub limits: Limits,
    /// What writes them.
    pub shell: Choice,
    /// Told once what writes, and why it is not what was wished for, if so.
    pub settled: fn(Kind, Option<&str>),
    /// Where reports for the operator go: one line each.
    pub report: fn(&str),
}

/// Why the recorder could not run on.
#[derive(Debug)]
pub enum RunError {
    /// Another recorder works in this directory.
    Locked(PathBuf),
    /// A ring's pages could not be mapped or are no ring.
    Ring(usize, String),
    /// Another recorder has taken the rings.
    Fenced,
    /// A file could not be used.
    File(PathBuf, io::Error),
    /// The shell that was asked for cannot work here.
    Shell(String),
}

/// Records until `stop` is set, then drains the rings, ends the segment and returns.
pub fn run(config: RunConfig, stop: &AtomicBool) -> Result<(), RunError> {
    let directory = &config.directory;
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| RunError::File(path, error)
    };
    std::fs::create_dir_all(directory).map_err(at(directory))?;
    let _lock = lock(directory)?;
    let recovered = recover(directory).map_err(at(directory))?;
    recovered.torn.iter().for_each(|torn| (config.report)(&torn.to_string()));
    let checkpoints = Checkpoints::open(directory, &config.key_path).map_err(at(&config.key_path))?;
    let consumers = attach(&config.rings)?;
    let id = recorder_id().map_err(at(directory))?;
    let core = Core::new(consumers, id, config.limits, recovered.resume).map_err(at(directory))?;
    let (disk, why) = config.shell.settle(directory).map_err(RunError::Shell)?;
    (config.settled)(disk.kind(), why.as_deref());
    Shell { core, checkpoints, directory, disk, clock: Clock::new(), report: config.report }.run(stop)
}

/// What holds the open segment and performs one write at a time. Both kinds keep the same promises: what [`Disk::write`]
/// has said yes to is on stable storage, a new segment's name too.
trait Disk {
    fn kind(&self) -> Kind;

    /// Writes and flushes one batch; after the last of a segment the file is closed.
    fn write(&mut self, batch: &Batch) -> Result<(), (Failure, io::Error)>;

    /// Takes a failed write out of the file and lets go of the file: nothing of it was acknowledged, and after a failed
    /// flush it may be readable now and gone later. Best effort: the next segment is linked to the last flush in any case.
    fn undo(&mut self, batch: &Batch);
}

struct Shell<'c> {
    core: Core<Mapped>,
    checkpoints: Checkpoints,
    directory: &'c Path,
    disk: Box<dyn Disk>,
    clock: Clock,
    report: fn(&str),
}

impl Shell<'_> {
    fn run(mut self, stop: &AtomicBool) -> Result<(), RunError> {
        let mut sleep_ms = BUSY_MS;
        while !stop.load(Ordering::Relaxed) {
            let step = self.core.step(self.clock.now());
            self.report()?;
            match step {
                Step::Write => {
                    self.write();
                    sleep_ms = BUSY_MS;
                }
                Step::Wait { ms } => {
                    let pending = ms <= crate::core::BLOCK_AGE_MS_MAX;
                    sleep_ms = if pending { BUSY_MS } else { (sleep_ms * 2).min(IDLE_MS) };
                    self.checkpoint(false);
                    ring::shm::wait_any(self.core.memories(), sleep_ms as u32);
                }
            }
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), RunError> {
        let until = Instant::now() + DRAIN_MAX;
        while Instant::now() < until {
            match self.core.step(self.clock.now()) {
                Step::Write => self.write(),
                Step::Wait { ms } if ms <= crate::core::RETRY_MS && self.core.batch().is_some() => {
                    std::thread::sleep(Duration::from_millis(ms));
                }
                Step::Wait { .. } => break,
            }
        }
        while Instant::now() < until && self.core.finish(self.clock.now()).is_some() {
            self.write();
        }
        self.checkpoint(true);
        self.report()
    }

    fn write(&mut self) {
        let Some(batch) = self.core.batch() else { return };
        let result = self.disk.write(batch);
        if result.is_err() {
            self.disk.undo(batch);
        }
        let result = result.map_err(|(failure, error)| {
            (self.report)(&format!("{}: {error}", segment::path(self.directory, batch.segment).display()));
            failure
        });
        self.core.done(result, self.clock.now());
    }

    /// A checkpoint that cannot be written only widens the window in which a cut tail goes unseen: recording goes on.
    fn checkpoint(&mut self, now_or_never: bool) {
        if let Err(error) = self.checkpoints.note(self.core.durable(), self.clock.now(), now_or_never) {
            (self.report)(&format!("a checkpoint could not be written: {error}; the next try is in a second"));
        }
    }

    fn report(&mut self) -> Result<(), RunError> {
        let reports = self.core.take_reports();
        reports.iter().for_each(|report| (self.report)(&report.to_string()));
        if reports.contains(&Report::Fenced) { Err(RunError::Fenced) } else { Ok(()) }
    }
}

/// A write, or an open, that failed before anything was flushed.
fn not_written(error: io::Error) -> (Failure, io::Error) {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (Failure::NoSpace, error),
        _ => (Failure::Io, error),
    }
}

fn not_flushed(error: io::Error) -> (Failure, io::Error) {
    (Failure::Io, error)
}

/// What is in the way of a new segment is put aside.
fn make_way(path: &Path) -> io::Result<()> {
    if path.exists() { std::fs::rename(path, free_name(path)) } else { Ok(()) }
}

fn attach(rings: &[OwnedFd]) -> Result<Vec<Consumer<Mapped>>, RunError> {
    let consumer = |(place, fd): (usize, &OwnedFd)| {
        let memory = ring::map(fd).map_err(|error| RunError::Ring(place, error.to_string()))?;
        Consumer::attach(memory).map_err(|error: AttachError| RunError::Ring(place, error.to_string()))
    };
    rings.iter().enumerate().map(consumer).collect()
}

/// Holds the directory against a second recorder; freed by the kernel when this process dies.
fn lock(directory: &Path) -> Result<File, RunError> {
    let path = directory.join(LOCK_FILE_NAME);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(|error| RunError::File(path, error))?;
    file.try_lock().map_err(|_| RunError::Locked(directory.to_owned()))?;
    Ok(file)
}

fn recorder_id() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

/// Both clocks.
struct Clock {
    began: Instant,
}

impl Clock {
    fn new() -> Self {
        Clock { began: Instant::now() }
    }

    fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { unix_ns: since.as_nanos() as u64, monotonic_ms: self.began.elapsed().as_millis() as u64 }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Locked(path) => {
                write!(f, "another recorder works in {}: stop it, or use another directory", path.display())
            }
            RunError::Ring(place, why) => write!(f, "ring {place}: {why}"),
            RunError::Fenced => f.write_str("another recorder has taken the rings; this one has stopped"),
            RunError::File(path, error) => write!(f, "{}: {error}", path.display()),
            RunError::Shell(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RunError {}

#[cfg(test)]
mod tests;
