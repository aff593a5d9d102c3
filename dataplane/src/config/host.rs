//! How addresses are written: `192.0.2.7:5432`, `[2001:db8::7]:5432`, `db.example.com:5432`, `/run/postgresql/.s.PGSQL.5432`.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use rustls::pki_types::ServerName;

use crate::address::Address;

/// Longest path of a unix-domain socket, bytes: sun_path less its terminator (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// A file of this name and a port is what PostgreSQL's clients look for in a directory that is given as their host.
const SOCKET_NAME: &str = ".s.PGSQL.";

/// A system as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    At(Address),
    /// To be resolved, again and again.
    Named {
        name: String,
        port: u16,
    },
}

impl Host {
    /// The name that its certificate must carry; a unix-domain socket has none.
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        match self {
            Self::At(Address::Tcp(address)) => Some(ServerName::IpAddress(address.ip().into())),
            Self::At(Address::Unix(_)) => None,
            Self::Named { name, .. } => ServerName::try_from(name.clone()).ok(),
        }
    }
}

impl From<SocketAddr> for Host {
    fn from(address: SocketAddr) -> Self {
        Self::At(address.into())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Named { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

/// An address to listen at.
///
/// # Errors
/// How to write one.
pub(super) fn address(text: &str) -> Result<Address, String> {
    if text.starts_with('/') {
        let name = Path::new(text).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let has_port = name.strip_prefix(SOCKET_NAME).is_some_and(|port| port.parse::<u16>().is_ok_and(|p| p > 0));
        if !has_port {
            return Err(format!(
                "\"{text}\" is not where clients look for a socket; end it with /{SOCKET_NAME}5432, where 5432 is the port that \
                 they give beside the directory"
            ));
        }
        return socket(text);
    }
    let help = "write an IP address and a port, as 192.0.2.7:5432 or [::]:5432, or the path of a unix-domain socket";
    text.parse().map(Address::Tcp).map_err(|_| format!("\"{text}\" is no address to listen at: {help}"))
}

/// A system to connect to.
///
/// # Errors
/// How to write one.
pub(super) fn host(text: &str) -> Result<Host, String> {
    if text.starts_with('/') {
        return socket(text).map(Host::At);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.into());
    }
    let help = "write a host and a port, as db.example.com:5432, 192.0.2.7:5432 or [2001:db8::7]:5432, or the path of a \
                unix-domain socket";
    let wrong = || format!("\"{text}\" is no address: {help}");
    let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    match ServerName::try_from(name) {
        Ok(ServerName::DnsName(_)) => Ok(Host::Named { name: name.to_owned(), port }),
        _ => Err(wrong()),
    }
}

fn socket(text: &str) -> Result<Address, String> {
    match text.len() <= SOCKET_PATH_BYTES_MAX && !text.contains('\0') {
        true => Ok(Address::Unix(Path::new(text).into())),
        false => {
            Err(format!("\"{text}\" is longer than the {SOCKET_PATH_BYTES_MAX} bytes that a socket's path may have"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_names_and_sockets() {
        for text in [
            "192.0.2.7:5432",
            "[2001:db8::7]:5432",
            "db.example.com:5432",
            "localhost:1",
            "db_1:6",
            "/run/x/.s.PGSQL.5432",
            "/sock",
        ] {
            assert_eq!(host(text).expect(text).to_string(), text);
        }
        for text in [
            "",
            "db.example.com",
            "db.example.com:0",
            "db.example.com:65536",
            ":5432",
            "db..example:5432",
            "a b:5432",
            "2001:db8::7:5432",
            "192.0.2.7",
            "192.0.2.300:5432",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
        assert!(host(&format!("/{}", "x".repeat(107))).is_err(), "108 bytes");
    }

    #[test]
    fn one_listens_at_addresses_and_where_clients_look_for_a_socket() {
        for text in ["0.0.0.0:5432", "[::]:5432", "/run/wireward/.s.PGSQL.6432"] {
            assert_eq!(address(text).expect(text).to_string(), text);
        }
        for text in [
            "localhost:5432",
            "5432",
            "/run/wireward",
            "/run/.s.PGSQL.",
            "/run/.s.PGSQL.0",
            "/run/.s.PGSQL.5432.lock",
            "run/.s.PGSQL.5432",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_certificate_is_checked_for_the_host_as_it_is_written() {
        let name = |text: &str| host(text).expect(text).server_name().map(|name| name.to_str().into_owned());
        assert_eq!(name("db.example.com:5432").as_deref(), Some("db.example.com"));
        assert_eq!(name("[2001:db8::7]:5432").as_deref(), Some("2001:db8::7"));
        assert_eq!(name("/run/.s.PGSQL.5432"), None);
    }
}
