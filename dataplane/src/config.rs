//! The configuration file: [`RawConfig`] is what was written, [`Config`] is what was checked.
//!
//! Strict: an unknown key is an error with its line. Paths are relative to the file. The reference is `dataplane/CONFIG.md`.

pub mod issuer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::control::credential::Source;
use crate::protocol::postgres::dissector;
use crate::session::Encryption;
pub use issuer::Issuer;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    issuer: Vec<issuer::RawIssuer>,
    policy: RawPolicy,
    recording: RawRecording,
    listener: Vec<RawListener>,
    resource: Vec<RawResource>,
    #[serde(default)]
    masking: RawMasking,
    #[serde(default)]
    limits: RawLimits,
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
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListener {
    protocol: String,
    address: SocketAddr,
    #[serde(default)]
    plaintext: Option<String>,
    #[serde(default)]
    tls: Option<RawListenerTls>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListenerTls {
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default)]
    client_ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResource {
    name: String,
    protocol: String,
    address: SocketAddr,
    database: String,
    user: String,
    credential: Source,
    #[serde(default)]
    auth: Vec<String>,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    tls: Option<String>,
    #[serde(default)]
    tls_ca: Option<PathBuf>,
    #[serde(default)]
    tls_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMasking {
    hash_key: Option<Source>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    max_client_conn: u32,
    active_sessions_max: u32,
    login_timeout_s: f64,
    token_bytes_max: usize,
    statement_bytes_max: usize,
    bind_bytes_max: usize,
    row_bytes_max: usize,
    prepared_statements_max: usize,
    plans_max: usize,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            max_client_conn: 10_000,
            active_sessions_max: 256,
            login_timeout_s: 15.0,
            token_bytes_max: 64 * 1024,
            statement_bytes_max: 1 << 20,
            bind_bytes_max: 64 << 20,
            row_bytes_max: 16 << 20,
            prepared_statements_max: 10_000,
            plans_max: 16_384,
        }
    }
}

fn default_ring_bytes() -> usize {
    ring::CAPACITY_BYTES_DEFAULT
}
fn default_recorder_absent_max_s() -> f64 {
    5.0
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub issuers: Vec<Issuer>,
    pub policy_file: PathBuf,
    pub recordings: PathBuf,
    pub ring_bytes: usize,
    pub recorder_absent_max: Duration,
    pub listeners: Vec<Listener>,
    pub resources: Vec<Resource>,
    pub hash_key: Option<Source>,
    pub limits: Limits,
}

#[derive(Clone, Debug)]
pub struct Listener {
    pub address: SocketAddr,
    /// Sessions in clear are served: tokens stay on this machine.
    pub plaintext: bool,
    pub tls: Option<ListenerTls>,
}

impl Listener {
    pub fn encryption(&self) -> Encryption {
        match (&self.tls, self.plaintext) {
            (None, _) => Encryption::None,
            (Some(_), true) => Encryption::Offered,
            (Some(_), false) => Encryption::Required,
        }
    }
}

/// PEM files that a listener serves TLS with.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Clients may show a certificate of this authority.
    pub client_ca: Option<PathBuf>,
}

/// How an upstream's certificate is checked (`verify-full`).
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    pub ca: PathBuf,
    pub name: ServerName<'static>,
}

/// A system behind us.
#[derive(Clone, Debug)]
pub struct Resource {
    pub name: String,
    pub address: SocketAddr,
    pub database: String,
    pub user: String,
    pub credential: Source,
    /// Weaker methods that the upstream may ask for, besides SCRAM-SHA-256.
    pub allow_md5: bool,
    pub allow_cleartext: bool,
    /// Role that the upstream session is pinned to.
    pub role: Option<String>,
    pub tls: Option<UpstreamTls>,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections of a shard (pgbouncer's name).
    pub max_client_conn: u32,
    /// Sessions that move data at the same moment: sizes the slab.
    pub active_sessions_max: u32,
    pub login_timeout: Duration,
    pub token_bytes_max: usize,
    pub session: dissector::Limits,
    /// Plans that a shard keeps.
    pub plans_max: usize,
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
        let raw: RawConfig = toml::from_str(&text).map_err(|e| ConfigError(format!("{}: {e}", path.display())))?;
        let directory = path.parent().unwrap_or(Path::new("."));
        check(raw, directory).map_err(|e| ConfigError(format!("{}: {e}", path.display())))
    }
}

fn check(raw: RawConfig, directory: &Path) -> Result<Config, String> {
    let resolve = |p: &Path| directory.join(p);
    let resources = raw.resource.into_iter().map(|r| resource(r, directory)).collect::<Result<Vec<_>, _>>()?;
    for (i, resource) in resources.iter().enumerate() {
        if resources[..i].iter().any(|r| r.name == resource.name) {
            return Err(format!("two resources are named `{}`; names must differ", resource.name));
        }
    }
    Ok(Config {
        issuers: issuer::check_all(raw.issuer, directory)?,
        policy_file: resolve(&raw.policy.file),
        recordings: resolve(&raw.recording.directory),
        ring_bytes: ring_bytes(raw.recording.ring_bytes)?,
        recorder_absent_max: seconds("recording.recorder_absent_max_s", raw.recording.recorder_absent_max_s)?,
        listeners: raw.listener.into_iter().map(|l| listener(l, directory)).collect::<Result<_, _>>()?,
        resources,
        hash_key: raw.masking.hash_key.map(|s| s.relative_to(directory)),
        limits: limits(&raw.limits)?,
    })
}

fn listener(raw: RawListener, directory: &Path) -> Result<Listener, String> {
    known_protocol(&raw.protocol)?;
    let address = raw.address;
    let plaintext = match raw.plaintext.as_deref() {
        Some("loopback") if address.ip().is_loopback() => true,
        Some("loopback") => {
            return Err(format!(
                "listener {address}: plaintext = \"loopback\" needs a loopback address, or tokens would cross the network in clear"
            ));
        }
        Some(other) => {
            return Err(format!("listener {address}: plaintext = \"{other}\" is unknown; it can be \"loopback\""));
        }
        None => false,
    };
    let tls = raw.tls.map(|tls| ListenerTls {
        certificate: directory.join(tls.certificate),
        key: directory.join(tls.key),
        client_ca: tls.client_ca.map(|path| directory.join(path)),
    });
    match plaintext || tls.is_some() {
        true => Ok(Listener { address, plaintext, tls }),
        false => Err(format!(
            "listener {address}: give it tls = {{ certificate = \"…\", key = \"…\" }}, or on a loopback address plaintext = \"loopback\""
        )),
    }
}

fn known_protocol(name: &str) -> Result<(), String> {
    match name {
        "postgres" => Ok(()),
        other => Err(format!("protocol `{other}` is unknown; this version serves \"postgres\"")),
    }
}

fn resource(raw: RawResource, directory: &Path) -> Result<Resource, String> {
    known_protocol(&raw.protocol)?;
    for method in &raw.auth {
        if !["scram-sha-256", "md5", "cleartext"].contains(&method.as_str()) {
            return Err(format!(
                "resource {}: auth = \"{method}\" is unknown; it can list \"scram-sha-256\", \"md5\", \"cleartext\"",
                raw.name
            ));
        }
    }
    let tls = upstream_tls(&raw, directory)?;
    let allows = |method: &str| raw.auth.iter().any(|m| m == method);
    Ok(Resource {
        allow_md5: allows("md5"),
        allow_cleartext: allows("cleartext"),
        name: raw.name,
        address: raw.address,
        database: raw.database,
        user: raw.user,
        credential: raw.credential.relative_to(directory),
        role: raw.role,
        tls,
    })
}

/// Towards a resource that is not on this machine TLS is the default; to leave it off has to be said.
fn upstream_tls(raw: &RawResource, directory: &Path) -> Result<Option<UpstreamTls>, String> {
    let wrong = |what: &str| Err(format!("resource {}: {what}", raw.name));
    match (raw.tls.as_deref(), &raw.tls_ca) {
        (Some("disable"), None) => Ok(None),
        (None, None) if raw.address.ip().is_loopback() && raw.tls_name.is_none() => Ok(None),
        (None | Some("verify-full"), Some(ca)) => {
            let name = raw.tls_name.clone().unwrap_or_else(|| raw.address.ip().to_string());
            match ServerName::try_from(name.clone()) {
                Ok(name) => Ok(Some(UpstreamTls { ca: directory.join(ca), name })),
                Err(_) => wrong(&format!("tls_name = \"{name}\" is neither a host name nor an address")),
            }
        }
        (Some("disable"), Some(_)) => wrong("tls = \"disable\" and tls_ca contradict each other"),
        (Some("verify-full") | None, None) => wrong(
            "name the authority of its certificate with tls_ca = \"file.pem\" (and tls_name, if the certificate has a host name), \
             or say tls = \"disable\"",
        ),
        (Some(other), _) => wrong(&format!("tls = \"{other}\" is unknown; it can be \"verify-full\" or \"disable\"")),
    }
}

fn limits(raw: &RawLimits) -> Result<Limits, String> {
    let at_least = |name: &str, value: usize, min: usize| {
        if value < min { Err(format!("limits.{name} = {value} is below its minimum of {min}")) } else { Ok(value) }
    };
    Ok(Limits {
        max_client_conn: at_least("max_client_conn", raw.max_client_conn as usize, 1)? as u32,
        active_sessions_max: at_least("active_sessions_max", raw.active_sessions_max as usize, 1)? as u32,
        login_timeout: seconds("limits.login_timeout_s", raw.login_timeout_s)?,
        token_bytes_max: at_least("token_bytes_max", raw.token_bytes_max, 1024)?,
        session: dissector::Limits {
            statement_bytes_max: at_least("statement_bytes_max", raw.statement_bytes_max, 1024)?,
            bind_bytes_max: at_least("bind_bytes_max", raw.bind_bytes_max, 1024)?,
            row_bytes_max: at_least("row_bytes_max", raw.row_bytes_max, 64 * 1024)?,
            prepared_statements_max: at_least("prepared_statements_max", raw.prepared_statements_max, 1)?,
        },
        plans_max: at_least("plans_max", raw.plans_max, 16)?,
    })
}

fn ring_bytes(bytes: usize) -> Result<usize, String> {
    match bytes.is_power_of_two() && (1 << 20..=1 << 28).contains(&bytes) {
        true => Ok(bytes),
        false => Err(format!("recording.ring_bytes = {bytes} must be a power of two from 1 MiB to 256 MiB")),
    }
}

fn seconds(name: &str, value: f64) -> Result<Duration, String> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if value > 0.0 => Ok(duration),
        _ => Err(format!("{name} = {value} must be a positive number of seconds")),
    }
}
