//! The dataplane process: control on the main thread, each shard on its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::config::Config;
use dataplane::control::Control;
use dataplane::control::admin::{self, Admin};
use dataplane::control::analyser::Analyser;
use dataplane::datapath::counters::Counters;
use dataplane::io::driver::{Choice, Kind};
use dataplane::log;
use dataplane::shard::accept::Door;
use dataplane::shard::census::Census;
use dataplane::shard::listen::Listeners;
use dataplane::shard::mailbox::{Mail, Postbox, mailbox};
use dataplane::shard::spawn;

use tokio::runtime::Runtime;

use super::reload::{InForce, Watch};
use super::{settle_in, stop_flag};

/// How often catalogues are read again.
const CATALOGUE_EVERY: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

type Ended = Result<(), String>;

/// Runs until SIGTERM or SIGINT. `io` stands above the configuration.
///
/// # Errors
/// What could not be loaded, listened to or started.
pub fn run(config: &Config, io: Option<Choice>, rings: &[i32]) -> Ended {
    let rings = settle_in(rings)?;
    if rings.is_empty() {
        return Err("no ring was given; this command is started by `wireward run`".into());
    }
    let stop = stop_flag()?;
    let driver = settle(io.unwrap_or(config.io))?;
    let control = Arc::new(Control::load(config)?);
    let runtime = runtime()?;
    runtime.block_on(async { control.keep_keys_fresh() });
    let counters: Vec<Arc<Counters>> = rings.iter().map(|_| Arc::default()).collect();
    let admin = watch(config, &control, &counters, driver, &runtime)?;
    // The catalogue comes before the first session, so that no mask is missing.
    runtime.block_on(control.refresh_catalogues(0));
    let mut changes = Watch::new(config)?;
    // The files of its sockets go when this goes.
    let listeners = Listeners::open(&config.listeners)?;
    let (shards, postboxes) = start(config, driver, rings, &control, &counters, &listeners)?;
    let message = format!("the dataplane serves: {} shards by {}", shards.len(), driver.name());
    log::tell(&log::STARTED, &[shards.len().into(), driver.name().into()], message);
    let in_force = InForce { config: config.clone(), control, admin };
    runtime.block_on(control_loop(in_force, &mut changes, &postboxes, &stop, &shards));
    postboxes.iter().for_each(|postbox| postbox.send(Mail::Stop));
    // A name that is being looked up must not hold up the end.
    runtime.shutdown_background();
    let join = |shard: JoinHandle<Ended>| shard.join().unwrap_or_else(|_| Err("a shard could not be started".into()));
    shards.into_iter().map(join).collect()
}

/// Serves health and metrics, if that is configured, from before the first session.
fn watch(
    config: &Config,
    control: &Arc<Control>,
    counters: &[Arc<Counters>],
    driver: Kind,
    runtime: &Runtime,
) -> Result<Option<Arc<Admin>>, String> {
    let Some(address) = config.admin else { return Ok(None) };
    let listener = admin::listen(address).map_err(|e| format!("cannot listen on {address} (admin): {e}"))?;
    let admin = Arc::new(Admin::new(control.clone(), counters.to_vec(), driver.name()));
    runtime.spawn(admin.clone().serve(listener));
    Ok(Some(admin))
}

/// One driver for all shards. That it is not the wished one is said once.
fn settle(io: Choice) -> Result<Kind, String> {
    let (driver, why) = io.settle()?;
    if let Some(why) = why {
        log::tell(&log::DRIVER_FALLBACK, &[driver.name().into()], format!("{why}: epoll is used instead"));
    }
    Ok(driver)
}

/// For the control side's own connections.
///
/// # Errors
/// What the system says.
pub fn runtime() -> Result<Runtime, String> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| format!("the control thread cannot be started: {e}"))
}

async fn control_loop(
    mut in_force: InForce,
    changes: &mut Watch,
    postboxes: &[Postbox],
    stop: &AtomicBool,
    shards: &[JoinHandle<Ended>],
) {
    let mut epoch = 0;
    let mut read = Instant::now();
    let mut reading: Option<tokio::task::JoinHandle<(bool, Vec<Arc<str>>)>> = None;
    while !stop.load(Ordering::Relaxed) && !shards.iter().any(JoinHandle::is_finished) {
        tokio::time::sleep(POLL).await;
        if changes.is_due() {
            epoch += 1;
            in_force.reload(changes, postboxes, epoch).await;
        }
        if let Some(ended) = reading.take_if(|task| task.is_finished()) {
            let (changed, failed) = ended.await.unwrap_or_default();
            if changed {
                postboxes.iter().for_each(|postbox| postbox.send(Mail::Catalogue));
            }
            for (postbox, resource) in postboxes.iter().flat_map(|p| failed.iter().map(move |r| (p, r))) {
                postbox.send(Mail::MakeRoom(resource.clone()));
            }
            read = Instant::now();
        }
        if reading.is_some() || read.elapsed() < CATALOGUE_EVERY && !in_force.control.is_refresh_wanted() {
            continue;
        }
        epoch += 1;
        // Addresses that do not answer take their time, and a changed configuration must not wait for them.
        let control = in_force.control.clone();
        reading = Some(tokio::spawn(async move { control.refresh_catalogues(epoch).await }));
    }
}

/// One shard a ring, all at the same addresses.
fn start(
    config: &Config,
    driver: Kind,
    rings: Vec<OwnedFd>,
    control: &Arc<Control>,
    counters: &[Arc<Counters>],
    listeners: &Listeners,
) -> Result<(Vec<JoinHandle<Ended>>, Vec<Postbox>), String> {
    let analyser = Analyser::start(rings.len().max(2)).map_err(|e| format!("the analyser cannot be started: {e}"))?;
    let mailboxes = rings.iter().map(|_| mailbox()).collect::<Result<Vec<_>, _>>();
    let mailboxes = mailboxes.map_err(|e| format!("no event descriptor: {e}"))?;
    let postboxes: Vec<Postbox> = mailboxes.iter().map(|(_, postbox, _)| postbox.clone()).collect();
    let census = Census::default();
    let mut shards = Vec::new();
    for (number, (ring, (mailbox, _, bell))) in rings.into_iter().zip(mailboxes).enumerate() {
        let assignment = spawn::Assignment {
            number: number as u8,
            driver,
            listeners: listeners.for_shard()?,
            ring,
            bell,
            mailbox,
            siblings: postboxes.clone(),
            census: census.clone(),
            counters: counters[number].clone(),
            control: control.clone(),
            analyser: analyser.clone(),
            limits: config.limits,
            doors: config.listeners.iter().map(Door::from).collect(),
            recorder_absent_max: config.recorder_absent_max,
        };
        let thread = std::thread::Builder::new().name(format!("shard {number}"));
        let thread = thread.spawn(move || spawn::run(&assignment));
        shards.push(thread.map_err(|e| format!("a shard cannot be started: {e}"))?);
    }
    Ok((shards, postboxes))
}
