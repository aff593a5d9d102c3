//! Fetching an issuer's keys: HTTPS GET with limits of size and time, without redirects, proxies or cookies. Sources:
//! OpenID Connect Discovery 1.0, RFC 8414, RFC 9110.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::jwt::{parse_object, string};
use crate::config::issuer::{Place, Remote};

/// Longest answer: a key set with a hundred certificates fits.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// From the first look at the name to the last byte of the answer.
const TIME_MAX: Duration = Duration::from_secs(5);
/// For one address of several: where one family of addresses leads nowhere, the other still has its turn.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Fetches the keys of one issuer.
pub struct Fetcher {
    tls: TlsConnector,
    remote: Remote,
}

/// An address that may be fetched: https, or http to this very machine where that is allowed.
///
/// # Errors
/// Why not, and what to write instead.
pub fn checked_url(text: &str, allow_loopback_http: bool) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|e| format!("`{text}` is not a URL: {e}"))?;
    if url.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(format!("{}: a URL here has no user and no password", url.host().unwrap_or_default()));
    }
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(_)) => Ok(url),
        (Some("http"), Some(host)) if is_loopback(host) => match allow_loopback_http {
            true => Ok(url),
            false => Err(format!("`{text}`: http is only for trying out; allow it with allow_loopback_http = true")),
        },
        _ => Err(format!("`{text}`: an issuer's keys are fetched by https only")),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Fetcher {
    /// # Errors
    /// When there is no certificate to trust.
    pub fn new(remote: Remote) -> Result<Self, String> {
        let roots = match &remote.ca_file {
            Some(path) => roots_of(path)?,
            None => system_roots(),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be set up: {e}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), remote })
    }

    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The key set as the issuer writes it now. `issuer`: what a discovery document must say of itself.
    ///
    /// # Errors
    /// Which address failed, and how.
    pub async fn fetch(&self, issuer: Option<&str>) -> Result<Vec<u8>, String> {
        match &self.remote.place {
            Place::Jwks(url) => self.get(url).await,
            Place::Discovery(url) => {
                let document = self.get(url).await?;
                let keys = self.jwks_uri(&document, issuer).map_err(|why| format!("{url}: {why}"))?;
                self.get(&keys).await
            }
        }
    }

    fn jwks_uri(&self, document: &[u8], issuer: Option<&str>) -> Result<Uri, String> {
        let document = parse_object(document).ok_or("the discovery document is not a JSON object")?;
        // Another issuer's document would bring another issuer's keys (Discovery 1.0, section 4.3).
        match string(&document, "issuer") {
            Ok(named) if named.is_some() && named == issuer => {}
            Ok(Some(named)) => return Err(format!("the discovery document is of another issuer: {named:?}")),
            _ => return Err("the discovery document names no issuer".into()),
        }
        let keys = string(&document, "jwks_uri").ok().flatten().ok_or("the discovery document names no jwks_uri")?;
        checked_url(keys, self.remote.allow_loopback_http)
    }

    async fn get(&self, url: &Uri) -> Result<Vec<u8>, String> {
        let answer = tokio::time::timeout(TIME_MAX, self.get_at_leisure(url)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no whole answer within {} s", TIME_MAX.as_secs())));
        answer.map_err(|why| format!("{url}: {why}"))
    }

    async fn get_at_leisure(&self, url: &Uri) -> Result<Vec<u8>, String> {
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let is_https = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let stream = connect(host, port).await?;
        if !is_https {
            return exchange(stream, url).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| "the host is not a name for TLS")?;
        exchange(self.tls.connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?, url).await
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(|e| format!("its name is not found: {e}"))?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    let mut why = "its name has no address".to_owned();
    for address in addresses {
        match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => why = format!("{address}: {e}"),
            Err(_) => why = format!("{address}: no connection within {} s", CONNECT_MAX.as_secs()),
        }
    }
    Err(why)
}

async fn exchange<S>(stream: S, url: &Uri) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    // Ends with this function, however it ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let host = url.authority().map_or("", |a| a.as_str());
    let target = url.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::get(target)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, "wireward")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => return Err(format!("it answers {status}; redirects are not followed")),
        status => return Err(format!("it answers {status}")),
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    body.map(|b| b.to_bytes().to_vec()).map_err(|e| format!("the answer (of at most {ANSWER_BYTES_MAX} bytes): {e}"))
}

fn roots_of(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::pem_file_iter(path).map_err(|e| format!("{}: {e}", path.display()))?;
    for certificate in read {
        let certificate = certificate.map_err(|e| format!("{}: {e}", path.display()))?;
        roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    match roots.is_empty() {
        true => Err(format!("{}: no certificate in PEM form", path.display())),
        false => Ok(roots),
    }
}

/// What the machine trusts. A machine that trusts nobody fails at the first fetch, with the words of TLS.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}
