//! The recorder process: drains the rings to disk; it holds no credential of any upstream.

use std::path::{Path, PathBuf};

use dataplane::config::{Config, RecorderShell};
use dataplane::log;
use recorder::RunConfig;
use recorder::shell::choice::{Choice, Kind};

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
        key_path: key_path(&config.recordings),
        limits: recorder::segment::writer::Limits::default(),
        shell: shell(config.shell),
        settled: tell_shell,
        report: |line| log::tell(&log::RECORDER_REPORT, &[], line),
    };
    recorder::run(run, &stop).map_err(|e| format!("the recorder cannot go on: {e}"))
}

fn shell(wish: RecorderShell) -> Choice {
    match wish {
        RecorderShell::Auto => Choice::Auto,
        RecorderShell::Plain => Choice::Plain,
        RecorderShell::Glommio => Choice::Glommio,
    }
}

fn tell_shell(shell: Kind, why: Option<&str>) {
    let name = shell.name();
    match why {
        Some(why) => log::tell(&log::SHELL_FALLBACK, &[name.into()], format!("{why}: {name} is used instead")),
        None => log::tell(&log::RECORDING, &[name.into()], format!("recording through the {name} shell")),
    }
}

/// Where the signing key of a recordings directory is: beside it, `<directory>.key`.
///
/// Once the name's last extension was replaced, so that `ev.v1` and `ev.v2` shared `ev.key`: a directory that was begun
/// with such a key keeps it.
pub fn key_path(recordings: &Path) -> PathBuf {
    let mut name = recordings.as_os_str().to_owned();
    name.push(".key");
    let (own, shared) = (PathBuf::from(name), recordings.with_extension("key"));
    let is_begun = recordings.join(recorder::checkpoint::PUBLIC_KEY_FILE_NAME).exists();
    if is_begun && !own.exists() && shared.exists() { shared } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_has_its_own_key_and_one_begun_with_a_shared_key_keeps_it() {
        let base = std::env::temp_dir().join(format!("wireward-key-path-{}", std::process::id()));
        let (old, new) = (base.join("ev.v1"), base.join("ev.v2"));
        std::fs::create_dir_all(&old).expect("a directory");
        std::fs::create_dir_all(&new).expect("a directory");
        std::fs::write(old.join("checkpoints.pub"), "").expect("a file");
        std::fs::write(base.join("ev.key"), "").expect("a file");
        let paths = [key_path(&old), key_path(&new), key_path(&base.join("plain"))];
        std::fs::remove_dir_all(&base).expect("removed");
        assert_eq!(paths, [base.join("ev.key"), base.join("ev.v2.key"), base.join("plain.key")]);
    }
}
