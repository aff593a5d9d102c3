//! The configuration file: [`RawConfig`] is what was written, [`Config`] is what was checked.
//!
//! Strict: an unknown key is an error with its line. Paths are relative to the file. The reference is `dataplane/CONFIG.md`.

pub mod host;
pub mod issuer;
mod listener;
mod resource;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy_compiler::statement::postgres::TEXT_BYTES_MAX;
use serde::{Deserialize, Deserializer, de};

use crate::control::credential::Source;
use crate::io::driver::Choice;
use crate::protocol::postgres::dissector;
pub use host::Host;
pub use issuer::Issuer;
pub use listener::{Listener, ListenerTls};
pub use resource::{ApplicationName, Resource, UpstreamTls};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    issuer: Vec<issuer::RawIssuer>,
    policy: RawPolicy,
    recording: RawRecording,
    listener: Vec<listener::RawListener>,
    resource: Vec<resource::RawResource>,
    #[serde(default)]
    runtime: RawRuntime,
    #[serde(default)]
    masking: RawMasking,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    admin: Option<RawAdmin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAdmin {
    #[serde(deserialize_with = "address")]
    address: SocketAddr,
    #[serde(default)]
    allow_non_loopback: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    file: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecording {
    directory: PathBuf,
    #[serde(default = "default_ring_bytes")]
    ring_bytes: usize,
    #[serde(default = "default_recorder_absent_max_s")]
    recorder_absent_max_s: f64,
    #[serde(default)]
    shell: RecorderShell,
}

/// What writes recordings to disk: `recording.shell`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecorderShell {
    /// glommio, or plain where that cannot be had.
    Auto,
    /// Through the page cache.
    #[default]
    Plain,
    /// Direct I/O through io_uring, or no start.
    Glommio,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRuntime {
    shards: Option<usize>,
    #[serde(default)]
    io: Choice,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMasking {
    #[serde(default, deserialize_with = "hash_key")]
    hash_key: Option<Source>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    max_client_conn: u32,
    sessions_per_subject_max: u32,
    active_sessions_max: u32,
    login_timeout_s: f64,
    drain_timeout_s: f64,
    token_expiry: TokenExpiry,
    token_bytes_max: usize,
    statement_bytes_max: usize,
    bind_bytes_max: usize,
    row_bytes_max: usize,
    gathered_bytes_max: usize,
    prepared_statements_max: usize,
    prepared_bytes_max: usize,
    plans_max: usize,
    idle_upstreams_max: u32,
    server_idle_timeout_s: f64,
    server_lifetime_s: f64,
    ignore_startup_parameters: Vec<String>,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            max_client_conn: 10_000,
            // PostgreSQL has 97 places for all as it comes: one subject leaves some to others.
            sessions_per_subject_max: 64,
            active_sessions_max: 256,
            login_timeout_s: 15.0,
            drain_timeout_s: 10.0,
            token_expiry: TokenExpiry::FinishTransaction,
            token_bytes_max: 64 * 1024,
            statement_bytes_max: 1 << 20,
            bind_bytes_max: 64 << 20,
            row_bytes_max: 16 << 20,
            gathered_bytes_max: 256 << 20,
            prepared_statements_max: 10_000,
            prepared_bytes_max: 8 << 20,
            plans_max: 16_384,
            idle_upstreams_max: 0,
            server_idle_timeout_s: 60.0,
            server_lifetime_s: 3600.0,
            ignore_startup_parameters: Vec::new(),
        }
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let help = "write an IP address and a port, as 192.0.2.7:5432; names are not resolved here";
        de::Error::custom(format!("\"{text}\" is no address: {help}"))
    })
}

fn hash_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Source>, D::Error> {
    source(deserializer, "masking.hash_key").map(Some)
}

/// What stands there instead may be the secret itself: the error does not repeat it.
fn source<'de, D: Deserializer<'de>>(deserializer: D, key: &str) -> Result<Source, D::Error> {
    const FORMS: &str = "{ env = \"NAME\" } | { file = \"path\" } | { command = [\"program\", \"argument\"] }";
    Source::deserialize(deserializer).map_err(|_| de::Error::custom(format!("{key} must be {FORMS}")))
}

fn default_ring_bytes() -> usize {
    ring::CAPACITY_BYTES_DEFAULT
}
fn default_recorder_absent_max_s() -> f64 {
    5.0
}

/// A process id for cancelling has 7 bits for the shard.
pub const SHARDS_MAX: usize = 127;
/// The longest that anything may be told to wait.
const SECONDS_MAX: f64 = 3600.0;

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that it was read from.
    pub path: PathBuf,
    pub issuers: Vec<Issuer>,
    pub policy_file: PathBuf,
    pub recordings: PathBuf,
    pub ring_bytes: usize,
    pub recorder_absent_max: Duration,
    pub shell: RecorderShell,
    /// Threads that move data, 1 to [`SHARDS_MAX`].
    pub shards: usize,
    /// The kernel's interface that they use.
    pub io: Choice,
    pub listeners: Vec<Listener>,
    pub resources: Vec<Resource>,
    pub hash_key: Option<Source>,
    pub limits: Limits,
    /// Startup parameters that clients may bring and that count for nothing (pgbouncer's name).
    pub ignore_startup_parameters: Vec<String>,
    /// Where `/healthz` and `/metrics` are served, if anywhere.
    pub admin: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections of all shards (pgbouncer's name).
    pub max_client_conn: u32,
    /// Sessions of one subject, on all shards.
    pub sessions_per_subject_max: u32,
    /// Sessions that move data at the same moment: sizes the slab.
    pub active_sessions_max: u32,
    pub login_timeout: Duration,
    /// What a session may finish when its token has expired.
    pub token_expiry: TokenExpiry,
    /// What statements and transactions have to finish when the gateway stops.
    pub drain_timeout: Duration,
    pub token_bytes_max: usize,
    pub session: dissector::Limits,
    /// Bytes of frames above a slot that a shard's sessions hold whole at one moment.
    pub gathered_bytes_max: usize,
    /// Plans that a shard keeps.
    pub plans_max: usize,
    /// Upstream connections that a shard keeps of sessions that have ended; 0: none.
    pub idle_upstreams_max: u32,
    /// For how long it keeps each (pgbouncer's name).
    pub server_idle_timeout: Duration,
    /// How old the login of one may become (pgbouncer's name).
    pub server_lifetime: Duration,
}

/// When a session ends whose token has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenExpiry {
    End,
    FinishStatement,
    FinishTransaction,
}

impl TokenExpiry {
    /// No statement or transaction goes on for longer.
    pub fn grace(self) -> Duration {
        Duration::from_secs(if self == Self::End { 0 } else { 30 })
    }
}

/// A problem of the configuration, in the user's words.
#[derive(Debug)]
pub struct ConfigError(String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// The file, the line and what is wrong there.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| ConfigError(format!("{}: {e}; give the file with --config FILE", path.display())))?;
        let raw = parse(&text).map_err(|(line, what)| ConfigError(format!("{}:{line}: {what}", path.display())))?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let checked = check(raw, directory).map_err(|e| ConfigError(format!("{}: {e}", path.display())))?;
        Ok(Self { path: path.to_owned(), ..checked })
    }

    /// All files that it names and that are read again when they change, itself among them.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone(), self.policy_file.clone()];
        for issuer in &self.issuers {
            match &issuer.keys {
                issuer::Keys::File(path) => files.push(path.clone()),
                issuer::Keys::Remote(remote) => files.extend(remote.ca_file.clone()),
            }
        }
        for tls in self.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            files.extend([tls.certificate.clone(), tls.key.clone()]);
            files.extend(tls.client_ca.clone());
        }
        for resource in &self.resources {
            files.extend(resource.tls.as_ref().map(|tls| tls.ca.clone()));
        }
        let sources = self.resources.iter().map(|r| &r.credential).chain(&self.hash_key);
        files.extend(
            sources.filter_map(|source| if let Source::File(path) = source { Some(path.clone()) } else { None }),
        );
        files
    }

    /// What a running gateway cannot take from a newer configuration, by its key.
    pub fn needs_restart(&self, newer: &Self) -> Option<&'static str> {
        let addresses = |config: &Self| config.listeners.iter().map(|l| l.address.clone()).collect::<Vec<_>>();
        let modes = |config: &Self| config.listeners.iter().map(|l| l.unix_socket_mode).collect::<Vec<_>>();
        match () {
            () if addresses(self) != addresses(newer) => Some("listener.address"),
            () if modes(self) != modes(newer) => Some("listener.unix_socket_mode"),
            () if self.shards != newer.shards => Some("runtime.shards"),
            () if self.io != newer.io => Some("runtime.io"),
            () if self.admin != newer.admin => Some("admin.address"),
            () if self.recordings != newer.recordings => Some("recording.directory"),
            () if self.ring_bytes != newer.ring_bytes => Some("recording.ring_bytes"),
            () if self.shell != newer.shell => Some("recording.shell"),
            () if self.recorder_absent_max != newer.recorder_absent_max => Some("recording.recorder_absent_max_s"),
            () if self.limits.active_sessions_max != newer.limits.active_sessions_max => {
                Some("limits.active_sessions_max")
            }
            () if self.limits.gathered_bytes_max != newer.limits.gathered_bytes_max => {
                Some("limits.gathered_bytes_max")
            }
            () => None,
        }
    }
}

/// The line, from 1, and what is wrong there. The text of the line is not shown: a secret may stand in it.
fn parse(text: &str) -> Result<RawConfig, (usize, String)> {
    toml::from_str(text).map_err(|e| {
        let before = e.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        (before.matches('\n').count() + 1, e.message().to_owned())
    })
}

fn check(raw: RawConfig, directory: &Path) -> Result<Config, String> {
    let resolve = |p: &Path| directory.join(p);
    let resources = raw.resource.into_iter().map(|r| resource::check(r, directory)).collect::<Result<Vec<_>, _>>()?;
    for (i, resource) in resources.iter().enumerate() {
        if resources[..i].iter().any(|r| r.name == resource.name) {
            return Err(format!("two resources are named `{}`; names must differ", resource.name));
        }
    }
    let config = Config {
        path: PathBuf::new(),
        issuers: issuer::check_all(raw.issuer, directory)?,
        policy_file: resolve(&raw.policy.file),
        recordings: resolve(&raw.recording.directory),
        ring_bytes: ring_bytes(raw.recording.ring_bytes)?,
        shards: shards(raw.runtime.shards)?,
        io: raw.runtime.io,
        recorder_absent_max: seconds("recording.recorder_absent_max_s", raw.recording.recorder_absent_max_s)?,
        shell: raw.recording.shell,
        listeners: listeners(raw.listener, directory)?,
        resources,
        hash_key: raw.masking.hash_key.map(|s| s.relative_to(directory)),
        limits: limits(&raw.limits)?,
        ignore_startup_parameters: raw.limits.ignore_startup_parameters,
        admin: raw.admin.map(|a| admin(&a)).transpose()?,
    };
    issuer::check_named(&config)?;
    Ok(config)
}

/// Whoever reaches the admin listener may read it, so it stays on this machine unless somebody has thought about that.
fn admin(raw: &RawAdmin) -> Result<SocketAddr, String> {
    match raw.address.ip().is_loopback() || raw.allow_non_loopback {
        true => Ok(raw.address),
        false => Err(format!(
            "admin.address = \"{}\" is no loopback address and the listener asks nobody who they are; if only those can reach it \
             who may read it, say allow_non_loopback = true",
            raw.address
        )),
    }
}

fn listeners(raw: Vec<listener::RawListener>, directory: &Path) -> Result<Vec<Listener>, String> {
    let listeners = raw.into_iter().map(|l| listener::check(l, directory)).collect::<Result<Vec<_>, _>>()?;
    for (i, listener) in listeners.iter().enumerate() {
        if listeners[..i].iter().any(|l| l.address == listener.address) {
            return Err(format!("two listeners have the address {}; give each its own", listener.address));
        }
    }
    match listeners.is_empty() {
        true => Err("there is no listener: write one [[listener]] or more".into()),
        false => Ok(listeners),
    }
}

fn known_protocol(name: &str) -> Result<(), String> {
    match name {
        "postgres" => Ok(()),
        other => Err(format!("protocol `{other}` is unknown; this version serves \"postgres\"")),
    }
}

fn limits(raw: &RawLimits) -> Result<Limits, String> {
    let within = |name: &str, value: usize, range: RangeInclusive<usize>| match range.contains(&value) {
        true => Ok(value),
        false => Err(format!("limits.{name} = {value} is not between {} and {}", range.start(), range.end())),
    };
    // One session can hold a request and a row, so it never waits for itself alone.
    let request_bytes_max = raw.statement_bytes_max.max(raw.bind_bytes_max);
    let one_session_bytes_max = request_bytes_max.saturating_add(raw.row_bytes_max.max(dissector::REPLY_BYTES_MAX));
    let of_subject = raw.sessions_per_subject_max as usize;
    Ok(Limits {
        max_client_conn: within("max_client_conn", raw.max_client_conn as usize, 1..=1_000_000)? as u32,
        sessions_per_subject_max: within("sessions_per_subject_max", of_subject, 1..=1_000_000)? as u32,
        // The slab takes 128 KiB of address space for each.
        active_sessions_max: within("active_sessions_max", raw.active_sessions_max as usize, 1..=65_536)? as u32,
        login_timeout: seconds("limits.login_timeout_s", raw.login_timeout_s)?,
        token_expiry: raw.token_expiry,
        drain_timeout: seconds("limits.drain_timeout_s", raw.drain_timeout_s)?,
        token_bytes_max: within("token_bytes_max", raw.token_bytes_max, 1024..=1 << 20)?,
        session: dissector::Limits {
            // Longer texts are not judged.
            statement_bytes_max: within("statement_bytes_max", raw.statement_bytes_max, 1024..=TEXT_BYTES_MAX)?,
            bind_bytes_max: within("bind_bytes_max", raw.bind_bytes_max, 1024..=1 << 30)?,
            row_bytes_max: within("row_bytes_max", raw.row_bytes_max, 64 * 1024..=1 << 30)?,
            prepared_statements_max: within("prepared_statements_max", raw.prepared_statements_max, 1..=1_000_000)?,
            prepared_bytes_max: within("prepared_bytes_max", raw.prepared_bytes_max, 64 * 1024..=1 << 30)?,
        },
        gathered_bytes_max: within("gathered_bytes_max", raw.gathered_bytes_max, one_session_bytes_max..=1 << 40)?,
        plans_max: within("plans_max", raw.plans_max, 16..=1_000_000)?,
        idle_upstreams_max: within("idle_upstreams_max", raw.idle_upstreams_max as usize, 0..=10_000)? as u32,
        server_idle_timeout: seconds("limits.server_idle_timeout_s", raw.server_idle_timeout_s)?,
        server_lifetime: seconds("limits.server_lifetime_s", raw.server_lifetime_s)?,
    })
}

/// One a CPU that the process may use, unless said otherwise.
fn shards(wish: Option<usize>) -> Result<usize, String> {
    let cpus = || std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS_MAX);
    match wish.unwrap_or_else(cpus) {
        shards @ 1..=SHARDS_MAX => Ok(shards),
        shards => Err(format!("runtime.shards = {shards} must be from 1 to {SHARDS_MAX}")),
    }
}

fn ring_bytes(bytes: usize) -> Result<usize, String> {
    match bytes.is_power_of_two() && (1 << 20..=1 << 28).contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("recording.ring_bytes = {bytes} must be a power of two from 1 MiB to 256 MiB")),
    }
}

fn seconds(name: &str, value: f64) -> Result<Duration, String> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if value > 0.0 && value <= SECONDS_MAX => Ok(duration),
        _ => Err(format!("{name} = {value} must be a positive number of seconds, at most {SECONDS_MAX}")),
    }
}

#[cfg(test)]
mod tests;
