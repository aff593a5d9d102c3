//! A system behind the gateway: where it is, as whom the gateway logs in there, and how its certificate is checked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde::{Deserialize, Deserializer};

use super::host::{self, Host};
use super::{seconds, source};
use crate::address::Address;
use crate::control::credential::Source;
use crate::session::attempts::Target;

/// Addresses that a resource may list.
const HOSTS_MAX: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResource {
    name: String,
    protocol: String,
    address: OneOrMore,
    #[serde(default)]
    target_session_attrs: Target,
    #[serde(default = "default_connect_timeout_s")]
    connect_timeout_s: f64,
    database: String,
    user: String,
    #[serde(deserialize_with = "credential")]
    credential: Source,
    #[serde(default)]
    auth: Vec<String>,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    application_name: ApplicationName,
    #[serde(default)]
    tls: Option<String>,
    #[serde(default)]
    tls_ca: Option<PathBuf>,
    #[serde(default)]
    tls_name: Option<String>,
    #[serde(default)]
    oauth_issuer: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "resource.address must be \"host:port\" or a list of such")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// What upstream sessions are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApplicationName {
    /// As their clients say, so that what they set reads back.
    #[default]
    Client,
    /// By who is behind them, too.
    Identity,
}

fn credential<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
    source(deserializer, "resource.credential")
}

fn default_connect_timeout_s() -> f64 {
    5.0
}

/// A system behind us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub name: String,
    /// In the order in which they are tried. All are one cluster: masks know tables by OIDs.
    pub hosts: Vec<Host>,
    pub target_session_attrs: Target,
    /// For each address, up to the end of the login there.
    pub connect_timeout: Duration,
    pub database: String,
    pub user: String,
    pub credential: Source,
    /// Weaker methods that the upstream may ask for, besides SCRAM-SHA-256.
    pub allow_md5: bool,
    pub allow_cleartext: bool,
    /// Role that the upstream session is pinned to.
    pub role: Option<String>,
    pub application_name: ApplicationName,
    pub tls: Option<UpstreamTls>,
    /// Where its clients without a token are sent, before the listener's.
    pub oauth_issuer: Option<String>,
}

impl Resource {
    /// Its addresses as they are configured.
    pub fn address(&self) -> String {
        self.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// How an upstream's certificate is checked (`verify-full`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    pub ca: PathBuf,
    /// In place of the host that is tried.
    pub name: Option<ServerName<'static>>,
}

pub(super) fn check(raw: RawResource, directory: &Path) -> Result<Resource, String> {
    super::known_protocol(&raw.protocol)?;
    let about = |why: String| format!("resource {}: {why}", raw.name);
    for method in &raw.auth {
        if !["scram-sha-256", "md5", "cleartext"].contains(&method.as_str()) {
            return Err(about(format!(
                "auth = \"{method}\" is unknown; it can list \"scram-sha-256\", \"md5\", \"cleartext\""
            )));
        }
    }
    let hosts = hosts(&raw.address).map_err(about)?;
    let connect_timeout = seconds("connect_timeout_s", raw.connect_timeout_s).map_err(about)?;
    let tls = upstream_tls(&raw, &hosts, directory).map_err(about)?;
    let allows = |method: &str| raw.auth.iter().any(|m| m == method);
    Ok(Resource {
        allow_md5: allows("md5"),
        allow_cleartext: allows("cleartext"),
        name: raw.name,
        hosts,
        target_session_attrs: raw.target_session_attrs,
        connect_timeout,
        database: raw.database,
        user: raw.user,
        credential: raw.credential.relative_to(directory),
        role: raw.role,
        application_name: raw.application_name,
        tls,
        oauth_issuer: raw.oauth_issuer,
    })
}

fn hosts(written: &OneOrMore) -> Result<Vec<Host>, String> {
    let texts = match written {
        OneOrMore::One(text) => std::slice::from_ref(text),
        OneOrMore::More(texts) => texts,
    };
    match texts.len() {
        1..=HOSTS_MAX => texts.iter().map(|text| host::host(text)).collect(),
        count => Err(format!("address lists {count} addresses; it can list 1 to {HOSTS_MAX}")),
    }
}

/// Towards a resource that is not on this machine TLS is the default; to leave it off has to be said. Unix-domain sockets have
/// none, whatever the other addresses of a list have.
fn upstream_tls(raw: &RawResource, hosts: &[Host], directory: &Path) -> Result<Option<UpstreamTls>, String> {
    let are_local = hosts.iter().all(|host| matches!(host, Host::At(address) if address.is_local()));
    let are_sockets = hosts.iter().all(|host| matches!(host, Host::At(Address::Unix(_))));
    match (raw.tls.as_deref(), &raw.tls_ca) {
        (Some("disable"), None) => Ok(None),
        (None, None) if are_local && raw.tls_name.is_none() => Ok(None),
        (None | Some("verify-full"), _) if are_sockets => Err("there is no TLS over a unix-domain socket; leave it out".into()),
        (None | Some("verify-full"), Some(ca)) => {
            let wrong = |name: &String| format!("tls_name = \"{name}\" is neither a host name nor an address");
            let parse = |name: &String| ServerName::try_from(name.clone()).map_err(|_| wrong(name));
            Ok(Some(UpstreamTls { ca: directory.join(ca), name: raw.tls_name.as_ref().map(parse).transpose()? }))
        }
        (Some("disable"), Some(_)) => Err("tls = \"disable\" and tls_ca contradict each other".into()),
        (Some("verify-full") | None, None) => Err(
            "name the authority of its certificate with tls_ca = \"file.pem\" (and tls_name, if the certificate has another \
             name than the address), or say tls = \"disable\""
                .into(),
        ),
        (Some(other), _) => Err(format!("tls = \"{other}\" is unknown; it can be \"verify-full\" or \"disable\"")),
    }
}
