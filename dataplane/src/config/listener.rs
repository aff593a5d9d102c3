//! Where clients come in: an address, or a unix-domain socket; in clear or by TLS; straight, or from a proxy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::host;
use crate::address::{Address, Network};
use crate::session::{Auth, Encryption};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    protocol: String,
    address: String,
    #[serde(default)]
    unix_socket_mode: Option<String>,
    #[serde(default)]
    plaintext: Option<String>,
    #[serde(default)]
    tls: Option<RawListenerTls>,
    #[serde(default)]
    proxy_protocol: bool,
    #[serde(default)]
    proxy_from: Vec<String>,
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    oauth_issuer: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListenerTls {
    certificate: PathBuf,
    key: PathBuf,
    #[serde(default)]
    client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: Address,
    /// Permissions of a unix-domain socket.
    pub unix_socket_mode: u32,
    /// Sessions in clear are served: tokens stay on this machine.
    pub plaintext: bool,
    pub tls: Option<ListenerTls>,
    /// Proxies that name their clients by the PROXY protocol; then nobody else may connect.
    pub proxy_from: Option<Arc<[Network]>>,
    /// How clients give their tokens, unless they say otherwise.
    pub auth: Auth,
    /// Where clients without a token are sent; else the first issuer that has an address.
    pub oauth_issuer: Option<String>,
}

/// PEM files that a listener serves TLS with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Clients may show a certificate of this authority.
    pub client_ca: Option<PathBuf>,
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

pub(super) fn check(raw: RawListener, directory: &Path) -> Result<Listener, String> {
    super::known_protocol(&raw.protocol)?;
    let about = |why: String| format!("listener {}: {why}", raw.address);
    let address = host::address(&raw.address).map_err(about)?;
    let proxy_from = proxies(&raw).map_err(about)?;
    let unix_socket_mode = mode(&raw, &address).map_err(about)?;
    let plaintext = plaintext(&raw, &address).map_err(about)?;
    let auth = auth(raw.auth.as_deref()).map_err(about)?;
    let tls = raw.tls.map(|tls| ListenerTls {
        certificate: directory.join(tls.certificate),
        key: directory.join(tls.key),
        client_ca: tls.client_ca.map(|path| directory.join(path)),
    });
    match plaintext || tls.is_some() {
        true => {
            Ok(Listener { address, unix_socket_mode, plaintext, tls, proxy_from, auth, oauth_issuer: raw.oauth_issuer })
        }
        false => Err(format!(
            "listener {address}: give it tls = {{ certificate = \"…\", key = \"…\" }}, or on a loopback address plaintext = \"loopback\""
        )),
    }
}

fn auth(written: Option<&str>) -> Result<Auth, String> {
    let name = written.unwrap_or("password");
    Auth::named(name).ok_or_else(|| format!("auth = \"{name}\" is unknown; it can be \"password\" or \"oauth\""))
}

/// Bytes of a unix-domain socket do not leave the machine, and clients speak no TLS there.
fn plaintext(raw: &RawListener, address: &Address) -> Result<bool, String> {
    match (address, raw.plaintext.as_deref()) {
        (Address::Unix(_), _) if raw.tls.is_some() => {
            Err("clients speak no TLS over a unix-domain socket; leave tls out".into())
        }
        (Address::Unix(_), None) => Ok(true),
        (Address::Tcp(_), None) => Ok(false),
        (_, Some("loopback")) if address.is_local() => Ok(true),
        (_, Some("loopback")) => {
            Err("plaintext = \"loopback\" needs a loopback address, or tokens would cross the network in clear".into())
        }
        (_, Some(other)) => Err(format!("plaintext = \"{other}\" is unknown; it can be \"loopback\"")),
    }
}

fn proxies(raw: &RawListener) -> Result<Option<Arc<[Network]>>, String> {
    match (raw.proxy_protocol, raw.proxy_from.is_empty()) {
        (false, true) => Ok(None),
        (false, false) => Err("proxy_from counts with proxy_protocol = true alone".into()),
        (true, true) => Err(
            "proxy_protocol = true needs proxy_from = [\"10.0.0.0/8\", …], the proxies' addresses: whoever may send the header \
             may name any client"
                .into(),
        ),
        (true, false) if raw.address.starts_with('/') => {
            Err("proxy_protocol is for TCP: a proxy at a unix-domain socket cannot be told by its address".into())
        }
        (true, false) => {
            let networks = raw.proxy_from.iter().map(|text| text.parse().map_err(|why| format!("proxy_from: {why}")));
            Ok(Some(networks.collect::<Result<_, _>>()?))
        }
    }
}

/// As PostgreSQL and pgbouncer have it, everybody on the machine may connect: the token says who may do what.
fn mode(raw: &RawListener, address: &Address) -> Result<u32, String> {
    const USUAL: u32 = 0o777;
    match (&raw.unix_socket_mode, address) {
        (None, _) => Ok(USUAL),
        (Some(_), Address::Tcp(_)) => Err("unix_socket_mode is for a unix-domain socket".into()),
        (Some(text), Address::Unix(_)) => match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= USUAL && text.len() >= 3 => Ok(mode),
            _ => Err(format!("unix_socket_mode = \"{text}\" is no mode; write octal digits, as \"0770\"")),
        },
    }
}
