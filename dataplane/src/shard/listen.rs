//! The sockets that a process listens at. At a TCP address each shard has one of its own (SO_REUSEPORT); a unix-domain socket
//! is one for all shards, in a file that goes with the process.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::address::Address;
use crate::config::Listener;
use crate::io::socket::{family, keep_alive};

/// Connections that the kernel holds before they are accepted.
const BACKLOG: i32 = 1024;

/// Where a process listens. Dropping it removes the files of its sockets.
pub struct Listeners(Vec<Place>);

enum Place {
    Tcp(SocketAddr),
    Unix(SocketFile),
}

impl Listeners {
    /// Looks whether the addresses are free, and makes the unix-domain sockets.
    ///
    /// # Errors
    /// Which of them cannot be had, and why.
    pub fn open(listeners: &[Listener]) -> Result<Self, String> {
        let open = |listener: &Listener| match &listener.address {
            Address::Tcp(address) => probe(*address).map(|()| Place::Tcp(*address)).map_err(|e| cannot(address, e)),
            Address::Unix(path) => SocketFile::make(path, listener.unix_socket_mode).map(Place::Unix),
        };
        listeners.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// One shard's sockets, by listener.
    ///
    /// # Errors
    /// As [`Listeners::open`].
    pub fn for_shard(&self) -> Result<Vec<OwnedFd>, String> {
        let socket = |place: &Place| match place {
            Place::Tcp(address) => listen(*address).map_err(|e| cannot(address, e)),
            Place::Unix(file) => file.socket.try_clone().map_err(|e| cannot(file.path.display(), e)),
        };
        self.0.iter().map(socket).collect()
    }
}

fn cannot(address: impl std::fmt::Display, why: impl std::fmt::Display) -> String {
    format!("cannot listen on {address}: {why}")
}

/// Listens on an address, together with other shards. An IPv6 address is one for IPv6 alone.
///
/// # Errors
/// What the kernel says: the address is taken, say.
pub fn listen(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = bind(address, true)?;
    keep_alive(&socket)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Whether another process listens on the address. SO_REUSEPORT would let us share its clients without a word.
///
/// # Errors
/// What the kernel says: the address is taken, say.
fn probe(address: SocketAddr) -> Result<(), Errno> {
    bind(address, false).map(drop)
}

fn bind(address: SocketAddr, shared: bool) -> Result<OwnedFd, Errno> {
    let socket = net::socket_with(family(address), SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    net::bind(&socket, &address)?;
    Ok(socket)
}

/// What stands where a socket's file would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Nothing,
    /// The file of a process that has gone without removing it.
    Stale,
    /// Somebody listens there.
    Served,
}

/// # Errors
/// Why no socket can be made there.
pub fn standing(path: &Path) -> Result<Standing, String> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Standing::Nothing),
        Err(e) => return Err(cannot(path.display(), e)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(cannot(path.display(), "there is a file, and it is no socket; remove it"));
        }
        Ok(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let knock = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| net::connect(&socket, &SocketAddrUnix::new(path)?));
    match knock {
        // AGAIN: so many wait to be accepted that there is no room for one more.
        Ok(()) | Err(Errno::AGAIN) => Ok(Standing::Served),
        Err(Errno::CONNREFUSED) => Ok(Standing::Stale),
        Err(Errno::NOENT) => Ok(Standing::Nothing),
        Err(error) => Err(cannot(path.display(), error)),
    }
}

/// A unix-domain socket that listens, and its file, which is removed when this is dropped, unless it is another's by then.
struct SocketFile {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// The file has its mode before anybody can find it.
    fn make(path: &Path, mode: u32) -> Result<Self, String> {
        if standing(path)? == Standing::Served {
            return Err(cannot(path.display(), "another process serves clients there"));
        }
        // No longer than the name that it will have.
        let aside = path.with_file_name(format!(".w{}", std::process::id()));
        let made = Self::bind(&aside, mode).and_then(|socket| {
            fs::rename(&aside, path)?;
            let file = fs::symlink_metadata(path)?;
            Ok(Self { socket, path: path.to_owned(), identity: (file.dev(), file.ino()) })
        });
        made.map_err(|why| {
            let _ = fs::remove_file(&aside);
            cannot(path.display(), why)
        })
    }

    fn bind(path: &Path, mode: u32) -> std::io::Result<OwnedFd> {
        let _ = fs::remove_file(path);
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        net::listen(&socket, BACKLOG)?;
        Ok(socket)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("wireward-listen-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }
        fn socket(&self) -> PathBuf {
            self.0.join(".s.PGSQL.5432")
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_owner() {
        let room = Room::new("mode");
        for mode in [0o777, 0o700, 0o660] {
            let file = SocketFile::make(&room.socket(), mode).expect("a socket");
            assert_eq!(fs::metadata(room.socket()).expect("it is there").mode() & 0o777, mode);
            assert!(UnixStream::connect(room.socket()).is_ok());
            assert_eq!(fs::read_dir(&room.0).expect("a directory").count(), 1, "nothing is left beside it");
            drop(file);
            assert_eq!(standing(&room.socket()), Ok(Standing::Nothing));
        }
    }

    #[test]
    fn a_stale_file_is_replaced_and_nothing_else() {
        let room = Room::new("stale");
        drop(UnixListener::bind(room.socket()).expect("a socket"));
        assert_eq!(standing(&room.socket()), Ok(Standing::Stale));
        let served = SocketFile::make(&room.socket(), 0o777).expect("the stale file is replaced");
        let second = SocketFile::make(&room.socket(), 0o777).err().expect("somebody serves there");
        assert!(second.contains("another process serves clients there"), "{second}");
        assert!(UnixStream::connect(room.socket()).is_ok(), "the first goes on");
        drop(served);
        fs::write(room.socket(), "precious").expect("a file");
        let refused = SocketFile::make(&room.socket(), 0o777).err().expect("a file is there");
        assert!(refused.contains("it is no socket"), "{refused}");
        assert_eq!(fs::read(room.socket()).expect("it is still there"), b"precious");
    }

    #[test]
    fn a_file_that_is_anothers_by_now_stays() {
        let room = Room::new("other");
        let first = SocketFile::make(&room.socket(), 0o777).expect("a socket");
        fs::remove_file(room.socket()).expect("somebody removes it");
        let _second = UnixListener::bind(room.socket()).expect("somebody else takes its place");
        drop(first);
        assert_eq!(standing(&room.socket()), Ok(Standing::Served));
    }
}
