//! The recorder process: drains the rings to disk; it holds no credential of any upstream.

use dataplane::config::Config;
use recorder::RunConfig;

use super::{settle_in, stop_flag};

/// Runs until SIGTERM or SIGINT, then drains the rings.
///
/// # Errors
/// Why nothing can be recorded: the directory, its lock, the rings.
pub fn run(config: &Config, rings: &[i32]) -> Result<(), String> {
    let rings = settle_in(rings)?;
    let stop = stop_flag()?;
    let run = RunConfig {
        rings,
        directory: config.recordings.clone(),
        key_path: config.recordings.with_extension("key"),
        limits: recorder::segment::writer::Limits::default(),
        report: |line| eprintln!("wireward recorder: {line}"),
    };
    recorder::run(run, &stop).map_err(|e| format!("the recorder cannot go on: {e}"))
}
