//! A changed configuration: noticed by SIGHUP or by the files' own change, loaded whole beside the one in force, or not at all.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ::dataplane::log;
use dataplane::config::Config;
use dataplane::control::Control;
use dataplane::control::admin::Admin;
use dataplane::shard::accept::Door;
use dataplane::shard::mailbox::{Mail, Postbox, Reload};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Which bytes a file holds, as far as its place in the file system tells: device, inode, size, and when it was changed.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(path: &PathBuf) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

/// Notices that something was changed. A change counts when it has stood for one look, since files are written in steps.
pub struct Watch {
    asked: Arc<AtomicBool>,
    files: Vec<PathBuf>,
    stamps: Vec<Stamp>,
    changed: Option<Vec<Stamp>>,
    looked: Instant,
}

impl Watch {
    /// # Errors
    /// The signal cannot be had.
    pub fn new(config: &Config) -> Result<Self, String> {
        let asked = Arc::new(AtomicBool::new(false));
        let signal = signal_hook::consts::SIGHUP;
        signal_hook::flag::register(signal, asked.clone()).map_err(|e| format!("signal {signal}: {e}"))?;
        let files = config.files();
        let stamps = files.iter().map(stamp).collect();
        Ok(Self { asked, files, stamps, changed: None, looked: Instant::now() })
    }

    /// Whether it is time to load the configuration again.
    pub fn is_due(&mut self) -> bool {
        if self.asked.swap(false, Ordering::Relaxed) {
            return true;
        }
        if self.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
        let stamps: Vec<Stamp> = self.files.iter().map(stamp).collect();
        let is_changed = stamps != self.stamps;
        let stood = self.changed.as_ref() == Some(&stamps);
        self.changed = is_changed.then_some(stamps);
        is_changed && stood
    }

    /// What is there now is what was looked at last, whether it could be used or not.
    fn seen(&mut self, files: Vec<PathBuf>) {
        self.files = files;
        self.stamps = self.files.iter().map(stamp).collect();
        self.changed = None;
    }
}

/// The configuration in force and what was made of it.
pub struct InForce {
    pub config: Config,
    pub control: Arc<Control>,
    pub admin: Option<Arc<Admin>>,
}

impl InForce {
    /// Loads the configuration again, and hands it to all shards if all of it can be used. What was decided stands in the log.
    pub async fn reload(&mut self, watch: &mut Watch, postboxes: &[Postbox], epoch: u64) {
        // Taken before anything is read: what changes meanwhile is a change again.
        watch.seen(self.config.files());
        match self.load(epoch).await {
            Ok((config, control)) => {
                watch.seen(config.files());
                self.control.retire(&control);
                let (old, new) = (self.control.policy_name().to_owned(), control.policy_name().to_owned());
                (self.config, self.control) = (config, control);
                postboxes.iter().for_each(|postbox| postbox.send(Mail::Reload(Box::new(self.for_shard()))));
                self.admin.iter().for_each(|admin| admin.reloaded(self.control.clone()));
                let message = format!("the configuration was read again: policy {new} is in force (before: {old})");
                log::tell(&log::RELOADED, &[new.into(), old.into()], message);
            }
            Err(why) => {
                let message = format!("the configuration stays as it was: {why}");
                log::tell(&log::RELOAD_REFUSED, &[], message);
            }
        }
    }

    async fn load(&self, epoch: u64) -> Result<(Config, Arc<Control>), String> {
        let config = Config::load(&self.config.path).map_err(|e| e.to_string())?;
        if let Some(key) = self.config.needs_restart(&config) {
            return Err(format!("{key} cannot be changed while the gateway runs; restart it"));
        }
        let control = Arc::new(self.control.reload(&config)?);
        control.keep_keys_fresh();
        if control.lacks_catalogue() {
            control.refresh_catalogues(epoch).await;
        }
        Ok((config, control))
    }

    fn for_shard(&self) -> Reload {
        Reload {
            control: self.control.clone(),
            limits: self.config.limits,
            doors: self.config.listeners.iter().map(Door::from).collect(),
        }
    }
}
