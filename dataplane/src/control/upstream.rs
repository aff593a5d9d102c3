//! The control side's own connection to an upstream: the same TLS and the same restraint about methods as a session's.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Client;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::certificate;
use super::credential::Secret;
use super::route::{Endpoint, Way};
use crate::address::Address;
use crate::config::Resource;
use crate::protocol::postgres::handshake;
use crate::protocol::postgres::wire::backend;
use crate::session::attempts::{Attempts, Miss, Traits};

/// Logs in as the gateway, at the first address that will do.
///
/// # Errors
/// What each address or the network says, without the credential.
pub async fn connect(resource: &Resource, credential: &Secret, endpoint: &Endpoint) -> Result<Client, String> {
    let mut attempts = Attempts::new(endpoint.target, (0..endpoint.ways.len() as u16).collect());
    let mut said = endpoint.unresolved.clone();
    while let Some(way) = attempts.current().and_then(|at| endpoint.ways.get(usize::from(at))) {
        let late = |_| Left(Some(Miss::Late), format!("no login within {:?}", endpoint.connect_timeout));
        let tried = tokio::time::timeout(endpoint.connect_timeout, log_in(resource, credential, way)).await;
        let stands = tried.map_err(late).flatten().and_then(|(client, traits)| match attempts.judge(traits) {
            Ok(()) => Ok(client),
            Err(miss) => Err(Left(Some(miss), miss.text().to_owned())),
        });
        match stands {
            Ok(client) => return Ok(client),
            Err(Left(None, why)) => return Err(format!("{way}: {why}")),
            Err(Left(Some(miss), why)) => {
                said.push(format!("{way}: {why}"));
                attempts.missed(miss);
            }
        }
    }
    Err(said.join("; "))
}

/// Why there is no session at an address; without a miss no other is to be tried.
struct Left(Option<Miss>, String);

async fn log_in(resource: &Resource, credential: &Secret, way: &Way) -> Result<(Client, Traits), Left> {
    let (allow_md5, allow_cleartext) = (resource.allow_md5, resource.allow_cleartext);
    let mut config = tokio_postgres::Config::new();
    config.ssl_mode(SslMode::Disable);
    let opened = open(&way.address).await.map_err(|e| Left(Some(Miss::Unreachable), e.to_string()))?;
    let (mut binding, mut stream) = (None, opened);
    if let Some((tls, name)) = &way.tls {
        let secured = secure(stream, tls.clone(), name.clone()).await.map_err(|e| Left(Some(Miss::TlsFailed), e))?;
        let certificate = secured.get_ref().1.peer_certificates().and_then(<[_]>::first);
        binding = certificate.and_then(|c| certificate::server_end_point(c));
        stream = Box::new(secured);
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    }
    config.dbname(&resource.database).user(&resource.user).password(credential.reveal());
    config.application_name("wireward catalogue");
    let watched =
        Watched { stream, binding, allow_md5, allow_cleartext, head: Vec::new(), skip: 0, authenticated: false };
    let (client, connection) =
        config.connect_raw(watched, Secured).await.map_err(|e| Left(left_behind(&e), chain(&e)))?;
    let mut traits = Traits::default();
    for name in ["in_hot_standby", "default_transaction_read_only"] {
        traits.note(name.as_bytes(), connection.parameter(name).unwrap_or_default().as_bytes());
    }
    tokio::spawn(connection);
    Ok((client, traits))
}

async fn open(address: &Address) -> std::io::Result<Box<dyn Stream>> {
    Ok(match address {
        Address::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// Whether another address may do after a login that failed.
fn left_behind(error: &tokio_postgres::Error) -> Option<Miss> {
    let away = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    match error.code() {
        Some(code) => away.contains(code).then_some(Miss::StartingUp),
        None => (error.is_closed() || has_lost(error)).then_some(Miss::Closed),
    }
}

/// The connection was lost. That a method is not allowed is told as an error of the stream too.
fn has_lost(error: &tokio_postgres::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    source.is_some_and(|e| e.kind() != std::io::ErrorKind::PermissionDenied)
}

async fn secure(
    mut stream: Box<dyn Stream>,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<tokio_rustls::client::TlsStream<Box<dyn Stream>>, String> {
    let mut request = Vec::new();
    handshake::ask_tls(&mut request);
    stream.write_all(&request).await.map_err(|e| e.to_string())?;
    match stream.read_u8().await.map_err(|e| e.to_string())? {
        b'S' => TlsConnector::from(config).connect(name, stream).await.map_err(|e| format!("TLS: {e}")),
        _ => Err("the upstream does not offer TLS, and the resource asks for it".into()),
    }
}

/// An error of the driver with its cause: the first alone says only where it happened.
pub fn chain(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Ends the connection when the upstream asks for a weaker method than is configured: the driver would answer with the
/// credential.
struct Watched {
    stream: Box<dyn Stream>,
    /// tls-server-end-point of the upstream's certificate, if it is reached by TLS.
    binding: Option<Vec<u8>>,
    allow_md5: bool,
    allow_cleartext: bool,
    /// Tag, length and, of an authentication request, its code.
    head: Vec<u8>,
    /// Bytes of a message that are of no interest.
    skip: usize,
    authenticated: bool,
}

impl TlsStream for Watched {
    fn channel_binding(&self) -> ChannelBinding {
        self.binding.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// Tells the driver of a stream that is TLS already.
struct Secured;

impl TlsConnect<Watched> for Secured {
    type Stream = Watched;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Watched, Self::Error>>;

    fn connect(self, stream: Watched) -> Self::Future {
        std::future::ready(Ok(stream))
    }
}

impl Watched {
    fn look(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !self.authenticated && !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else { break };
            self.head.push(*first);
            bytes = rest;
            self.judge_head()?;
        }
        Ok(())
    }

    fn judge_head(&mut self) -> std::io::Result<()> {
        let number = |at: usize| self.head.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let Some(length) = number(1) else { return Ok(()) };
        let is_request = self.head[0] == backend::AUTHENTICATION && length >= 8;
        match number(5) {
            None if is_request => return Ok(()),
            Some(3) if is_request && !self.allow_cleartext => return Err(not_allowed("cleartext")),
            Some(5) if is_request && !self.allow_md5 => return Err(not_allowed("md5")),
            Some(0) if is_request => self.authenticated = true,
            _ => {}
        }
        self.skip = (length as usize + 1).saturating_sub(self.head.len());
        self.head.clear();
        Ok(())
    }
}

fn not_allowed(method: &str) -> std::io::Error {
    let text =
        format!("the upstream asks for {method} authentication, which is not allowed; see `auth` of the resource");
    std::io::Error::new(std::io::ErrorKind::PermissionDenied, text)
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.look(&buffer.filled()[before..]))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(allow: (bool, bool), bytes: &[u8], cut: usize) -> bool {
        let (stream, _other) = tokio::io::duplex(1);
        let (allow_md5, allow_cleartext) = allow;
        let stream = Box::new(stream);
        let mut watched = Watched {
            stream,
            binding: None,
            allow_md5,
            allow_cleartext,
            head: Vec::new(),
            skip: 0,
            authenticated: false,
        };
        watched.look(&bytes[..cut]).and_then(|()| watched.look(&bytes[cut..])).is_ok()
    }

    #[test]
    fn a_method_that_is_not_configured_is_never_answered_wherever_the_bytes_are_cut() {
        let notice = b"N\0\0\0\x07abc";
        let request = |code: u8| [notice.as_slice(), b"R\0\0\0\x0c\0\0\0", &[code], b"salt"].concat();
        let rows = [
            (3, (false, false), false),
            (5, (false, false), false),
            (3, (true, false), false),
            (5, (false, true), false),
            (3, (false, true), true),
            (5, (true, false), true),
            (10, (false, false), true),
        ];
        for (code, allow, answered) in rows {
            let bytes = request(code);
            for cut in 0..bytes.len() {
                assert_eq!(look(allow, &bytes, cut), answered, "code {code}, {allow:?}, cut at {cut}");
            }
        }
    }

    #[test]
    fn after_the_login_nothing_is_looked_at() {
        let bytes = b"R\0\0\0\x08\0\0\0\0R\0\0\0\x08\0\0\0\x03";
        assert!(look((false, false), bytes, 4));
    }
}
