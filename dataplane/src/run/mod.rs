//! `wireward run`: three processes. The supervisor makes the rings and keeps them; the dataplane and the recorder inherit
//! them, and again after a restart.

pub mod check;
pub mod dataplane;
pub mod recorder;
mod reload;
pub mod supervisor;

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ::dataplane::io::driver::Choice;
use ::dataplane::log::{self, Format};
use clap::Args;
use rustix::process::{DumpableBehavior, Signal};

/// How the log is written.
#[derive(Args)]
pub struct Log {
    /// Lines of the log on stderr: text, or JSON for programs [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT", env = "WIREWARD_LOG_FORMAT", value_parser = Format::from_name)]
    log_format: Option<Format>,
}

impl Log {
    /// Begins the log of this process.
    pub fn begin(&self, process: &'static str) -> Format {
        let usual = || if std::io::stderr().is_terminal() { Format::Text } else { Format::Json };
        let format = self.log_format.unwrap_or_else(usual);
        log::begin(process, format);
        format
    }
}

/// What the supervisor tells a child.
#[derive(Args)]
pub struct Child {
    #[arg(long)]
    pub config: PathBuf,
    /// Inherited descriptor of a ring; one a shard
    #[arg(long = "ring")]
    pub rings: Vec<i32>,
    #[command(flatten)]
    pub log: Log,
    /// Of the dataplane only
    #[arg(long)]
    pub io: Option<Choice>,
}

/// Takes the inherited rings, then hides the process: no core file, no look into its memory, and it dies with its parent.
///
/// # Errors
/// A descriptor is not there: the process was not started by `wireward run`.
fn settle_in(rings: &[i32]) -> Result<Vec<OwnedFd>, String> {
    let open = |fd: &i32| {
        let path = format!("/proc/self/fd/{fd}");
        let file = File::options().read(true).write(true).open(&path);
        file.map(OwnedFd::from).map_err(|e| format!("{path}: {e}; this command is started by `wireward run`"))
    };
    let opened = rings.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(|e| e.to_string())?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| e.to_string())?;
    Ok(opened)
}

/// Set when SIGTERM or SIGINT comes.
fn stop_flag() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).map_err(|e| format!("signal {signal}: {e}"))?;
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_holds_secrets_leaves_no_core_and_lets_nobody_look() {
        settle_in(&[]).expect("no ring is asked for");
        let behaviour = rustix::process::dumpable_behavior().expect("the kernel says");
        assert_eq!(behaviour, DumpableBehavior::NotDumpable);
    }
}
