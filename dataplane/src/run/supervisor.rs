//! The parent: tiny, so that it does not die. It holds the rings, starts both children and starts them again.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use dataplane::config::Config;
use dataplane::io::driver::Choice;
use dataplane::log::{self, Format};
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::stop_flag;

/// A child that ends sooner than this has not come up.
const UP: Duration = Duration::from_secs(2);
/// So many times in a row a child may fail to come up when the gateway starts. Later it is always started again.
const FAILURES_MAX: u32 = 5;
/// A child that keeps dying is started again after a pause that grows by this with each death, up to `PAUSE_MAX`.
const PAUSE_STEP: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(20);
/// The recorder drains the rings when it is stopped. The dataplane says goodbye to its clients, who have `drain_timeout` before.
const STOP_MAX: Duration = Duration::from_secs(10);

/// glibc's malloc gives back what the analysis of a long statement took: thresholds that are set do not grow by what was once
/// freed, and a thread's cache would keep single pieces, which hold all that lies before them.
const MALLOC: [(&str, &str); 3] = [
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
    ("MALLOC_MMAP_THRESHOLD_", "1048576"),
    ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"),
];

/// Runs until SIGTERM or SIGINT. `io` stands above the configuration.
///
/// # Errors
/// A ring cannot be made, or a child does not come up.
pub fn run(path: &Path, config: &Config, format: Format, io: Option<Choice>) -> Result<(), String> {
    let stop = stop_flag()?;
    let reload = Arc::new(AtomicBool::new(false));
    let hangup = signal_hook::consts::SIGHUP;
    signal_hook::flag::register(hangup, reload.clone()).map_err(|e| format!("signal {hangup}: {e}"))?;
    let rings = (0..config.shards).map(|_| make_ring(config.ring_bytes)).collect::<Result<Vec<_>, _>>()?;
    let format = format!("--log-format={}", format.name());
    let io = io.and_then(|choice| choice.to_possible_value()).map(|value| format!("--io={}", value.get_name()));
    let both = [Some(format.clone()), io].into_iter().flatten().collect();
    let mut recorder = Watched::start("recorder", path, &rings, vec![format])?;
    let mut dataplane = Watched::start("dataplane", path, &rings, both)?;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(POLL);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if reload.swap(false, Ordering::Relaxed) {
            let _ = kill_process(Pid::from_child(&dataplane.child), Signal::HUP);
        }
        for child in [&mut recorder, &mut dataplane] {
            child.watch(path, &rings)?;
        }
    }
    // It may have been changed since.
    let newest = Config::load(path).map_or(config.limits.drain_timeout, |newer| newer.limits.drain_timeout);
    dataplane.stop(newest.max(config.limits.drain_timeout) + STOP_MAX);
    recorder.stop(STOP_MAX);
    Ok(())
}

fn make_ring(bytes: usize) -> Result<OwnedFd, String> {
    let ring = ring::create(bytes).map_err(|e| format!("the ring cannot be made: {e}"))?;
    // Both children inherit it; exec would close it otherwise.
    rustix::io::fcntl_setfd(&ring, FdFlags::empty()).map_err(|e| format!("the ring cannot be handed on: {e}"))?;
    Ok(ring)
}

struct Watched {
    name: &'static str,
    /// Arguments of its own.
    arguments: Vec<String>,
    child: Child,
    since: Instant,
    /// Deaths in a row, each before the child had come up.
    failures: u32,
    /// It has come up once.
    proved: bool,
    ended: Option<Instant>,
}

impl Watched {
    fn start(name: &'static str, config: &Path, rings: &[OwnedFd], arguments: Vec<String>) -> Result<Self, String> {
        Ok(Self {
            name,
            child: spawn(name, config, rings, &arguments)?,
            arguments,
            since: Instant::now(),
            failures: 0,
            proved: false,
            ended: None,
        })
    }

    fn watch(&mut self, config: &Path, rings: &[OwnedFd]) -> Result<(), String> {
        let Ok(Some(status)) = self.child.try_wait() else {
            self.proved |= self.since.elapsed() >= UP;
            return Ok(());
        };
        let ended = *self.ended.get_or_insert_with(Instant::now);
        if ended.elapsed() < (PAUSE_STEP * self.failures).min(PAUSE_MAX) {
            return Ok(());
        }
        self.failures = if ended.duration_since(self.since) < UP { self.failures + 1 } else { 0 };
        let hopeless = status.code() == Some(i32::from(crate::EXIT_CONFIG)) || self.failures >= FAILURES_MAX;
        if hopeless && !self.proved {
            return Err(format!("the {} does not come up ({status}); see above", self.name));
        }
        let message = format!("the {} has ended ({status}) and is started again", self.name);
        log::tell(&log::CHILD_RESTARTED, &[self.name.into(), status.to_string().into()], message);
        self.child = spawn(self.name, config, rings, &self.arguments)?;
        (self.since, self.ended) = (Instant::now(), None);
        Ok(())
    }

    fn stop(&mut self, max: Duration) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < max {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.stop(STOP_MAX);
        }
    }
}

fn spawn(name: &str, config: &Path, rings: &[OwnedFd], arguments: &[String]) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let unset = MALLOC.into_iter().filter(|(variable, _)| std::env::var_os(variable).is_none());
    Command::new(program)
        .envs(unset)
        .arg(name)
        .arg("--config")
        .arg(config)
        .args(rings.iter().flat_map(|ring| ["--ring".to_owned(), ring.as_raw_fd().to_string()]))
        .args(arguments)
        .stdin(Stdio::null())
        // Ctrl-C is for the supervisor: it stops the recorder after the dataplane.
        .process_group(0)
        .spawn()
        .map_err(|e| format!("the {name} cannot be started: {e}"))
}
