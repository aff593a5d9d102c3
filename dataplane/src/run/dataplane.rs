//! The dataplane process: control on the main thread, a shard on its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::config::Config;
use dataplane::control::Control;
use dataplane::control::analyser::Analyser;
use dataplane::shard::mailbox::{Mail, Postbox, mailbox};
use dataplane::shard::spawn;

use super::{settle_in, stop_flag};

/// How often catalogues are read again.
const CATALOGUE_EVERY: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be loaded, listened to or started.
pub fn run(config: &Config, rings: &[i32]) -> Result<(), String> {
    let mut rings = settle_in(rings)?;
    let ring = rings.pop().ok_or("no ring was given; this command is started by `wireward run`")?;
    let stop = stop_flag()?;
    let control = Arc::new(Control::load(config)?);
    let runtime = runtime()?;
    runtime.block_on(async { control.keep_keys_fresh() });
    // The catalogue comes before the first session, so that no mask is missing.
    runtime.block_on(control.refresh_catalogues(0));
    let (shard, postbox) = start(config, ring, control.clone())?;
    runtime.block_on(control_loop(&control, &postbox, &stop, &shard));
    postbox.send(Mail::Stop);
    // A name that is being looked up must not hold up the end.
    runtime.shutdown_background();
    match shard.join() {
        Ok(ended) => ended,
        Err(_) => Err("the shard has panicked; its sessions have ended".into()),
    }
}

/// Loads all that the configuration names, and fetches the keys of every issuer.
///
/// # Errors
/// What cannot be used, and why.
pub fn check(config: &Config) -> Result<(), String> {
    let control = Control::load(config)?;
    let runtime = runtime()?;
    let fetched = runtime.block_on(control.fetch_keys());
    runtime.shutdown_background();
    fetched
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| format!("the control thread cannot be started: {e}"))
}

async fn control_loop(control: &Control, postbox: &Postbox, stop: &AtomicBool, shard: &JoinHandle<Result<(), String>>) {
    let mut epoch = 0;
    let mut read = Instant::now();
    while !stop.load(Ordering::Relaxed) && !shard.is_finished() {
        tokio::time::sleep(POLL).await;
        if read.elapsed() < CATALOGUE_EVERY && !control.is_refresh_wanted() {
            continue;
        }
        epoch += 1;
        if control.refresh_catalogues(epoch).await {
            postbox.send(Mail::Catalogue);
        }
        read = Instant::now();
    }
}

fn start(
    config: &Config,
    ring: OwnedFd,
    control: Arc<Control>,
) -> Result<(JoinHandle<Result<(), String>>, Postbox), String> {
    let listen = |l: &dataplane::config::Listener| {
        spawn::probe(l.address)
            .and_then(|()| spawn::listen(l.address))
            .map_err(|e| format!("cannot listen on {}: {e}", l.address))
    };
    let listeners = config.listeners.iter().map(listen).collect::<Result<Vec<_>, _>>()?;
    let (mailbox, postbox, bell) = mailbox().map_err(|e| format!("no event descriptor: {e}"))?;
    let assignment = spawn::Assignment {
        number: 0,
        listeners,
        ring,
        bell,
        mailbox,
        control,
        analyser: Analyser::start().map_err(|e| format!("the analyser cannot be started: {e}"))?,
        limits: config.limits,
        encryption: config.listeners.iter().map(dataplane::config::Listener::encryption).collect(),
        recorder_absent_max: config.recorder_absent_max,
    };
    let thread = std::thread::Builder::new()
        .name("shard 0".into())
        .spawn(move || spawn::run(assignment))
        .map_err(|e| format!("the shard cannot be started: {e}"))?;
    Ok((thread, postbox))
}
