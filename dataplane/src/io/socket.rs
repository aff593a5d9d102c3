//! What every driver does with a TCP socket before it moves bytes.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, sockopt};

/// Starts a connect that does not block; poll says when it has ended. The socket is non-blocking.
///
/// # Errors
/// No socket can be made, or the address is refused at once.
pub(super) fn dial(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { net::AddressFamily::INET } else { net::AddressFamily::INET6 };
    let flags = net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, net::SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// What came of a connect that has ended.
///
/// # Errors
/// Why there is no connection.
pub(super) fn dialed(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(socket).and_then(|ended| ended)
}
