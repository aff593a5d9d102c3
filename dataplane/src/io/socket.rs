//! What every driver does with a socket before it moves bytes.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, sockopt};

use crate::address::{Address, Peer};

/// A peer that has gone without a word, or whose way was lost, is noticed after 2 minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// Starts a connect that does not block; poll says when it has ended. The socket is non-blocking.
///
/// # Errors
/// No socket can be made, or the address is refused at once.
pub(super) fn dial(address: &Address) -> Result<OwnedFd, Errno> {
    let flags = net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK;
    let open = |family| net::socket_with(family, net::SocketType::STREAM, flags, None);
    let (socket, connecting) = match address {
        Address::Tcp(address) => {
            let socket = open(family(*address))?;
            sockopt::set_tcp_nodelay(&socket, true)?;
            keep_alive(&socket)?;
            sockopt::set_tcp_user_timeout(&socket, UNACKNOWLEDGED_MAX.as_millis() as u32)?;
            let connecting = net::connect(&socket, address);
            (socket, connecting)
        }
        Address::Unix(path) => {
            let socket = open(AddressFamily::UNIX)?;
            let connecting = net::connect(&socket, &net::SocketAddrUnix::new(&**path)?);
            (socket, connecting)
        }
    };
    match connecting {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// The family of an address's sockets.
pub(crate) fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// Has the kernel ask now and then whether the peer is still there. What a listener has, its connections inherit (tcp(7)).
///
/// # Errors
/// What the kernel says.
pub(crate) fn keep_alive(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)
}

/// Bytes that an upstream's host does not acknowledge for so long end the connection; left to itself the kernel takes a quarter of
/// an hour.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// What came of a connect that has ended.
///
/// # Errors
/// Why there is no connection.
pub(super) fn dialed(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(socket).and_then(|ended| ended)
}

/// Who is at the other end of an accepted connection, which sends at once from here on. `None`: it has gone already.
pub(super) fn peer(socket: &OwnedFd) -> Option<Peer> {
    if is_shared(socket) {
        return Some(Peer::Unix { uid: sockopt::socket_peercred(socket).ok()?.uid.as_raw() });
    }
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let address = SocketAddr::try_from(net::getpeername(socket).ok()??).ok()?;
    Some(address.into())
}

/// A unix-domain listener is one socket for all shards; TCP ones are many at the same address.
pub(super) fn is_shared(socket: &OwnedFd) -> bool {
    sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
}

/// io_uring answers EAGAIN instead of waiting on a descriptor that is marked non-blocking.
pub(super) fn make_blocking(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(socket)?;
    rustix::fs::fcntl_setfl(socket, flags & !rustix::fs::OFlags::NONBLOCK)
}
