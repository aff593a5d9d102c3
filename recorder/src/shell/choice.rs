//! Which disk the recorder writes through: chosen once, when it starts.

use std::path::Path;

use io_uring::IoUring;
use rustix::fs::statfs;
use rustix::io::Errno;

use super::Disk;
use super::glommio::Direct;
use super::plain::Plain;

/// From linux/magic.h: files in memory. Direct I/O would be a copy of a copy.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// What was asked for: `recording.shell`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// glommio, or plain where io_uring is forbidden or the file system has no direct I/O.
    Auto,
    /// Files through the page cache.
    Plain,
    /// glommio, or no start.
    Glommio,
}

/// What writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// pwrite and fdatasync.
    Plain,
    /// Direct I/O through io_uring.
    Glommio,
}

impl Kind {
    /// As the log says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Glommio => "glommio",
        }
    }
}

impl Choice {
    /// The disk to use in `directory`, and why it is not glommio if that was wished for and cannot be had.
    pub(super) fn settle(self, directory: &Path) -> Result<(Box<dyn Disk>, Option<String>), String> {
        let plain = |why| Ok((Box::new(Plain::new(directory)) as Box<dyn Disk>, why));
        if self == Self::Plain {
            return plain(None);
        }
        match try_glommio(directory) {
            Ok(direct) => Ok((Box::new(direct), None)),
            Err(why) if self == Self::Auto => plain(Some(why)),
            Err(why) => Err(format!("{why}; allow it, or set recording.shell = \"plain\"")),
        }
    }
}

fn try_glommio(directory: &Path) -> Result<Direct, String> {
    // First without glommio, which panics where there is no io_uring.
    IoUring::new(2).map_err(|error| refused(&error))?;
    let system = statfs(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    if system.f_type as u64 == TMPFS_MAGIC {
        return Err(format!("{} is in memory (tmpfs), where direct I/O gains nothing", directory.display()));
    }
    Direct::new(directory)
}

fn refused(error: &std::io::Error) -> String {
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {
            " (forbidden by a seccomp profile or by kernel.io_uring_disabled?)"
        }
        _ => "",
    };
    format!("io_uring cannot be used: {error}{hint}")
}
