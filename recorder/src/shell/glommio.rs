//! The glommio disk: O_DIRECT through io_uring, so that what is recorded does not push a database's pages out of the cache.
//!
//! The executor runs only while a batch is written. Between batches the recorder's one thread sleeps at its rings, as over
//! the plain disk: an idle executor costs nothing.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use glommio::io::{DmaFile, OpenOptions};
use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement};

use super::choice::Kind;
use super::{Disk, make_way, not_flushed, not_written};
use crate::core::Failure;
use crate::recover::sync_directory;
use crate::segment;
use crate::segment::format::PAGE_BYTES;
use crate::segment::writer::Batch;

/// glommio registers this with three rings, and the kernel counts each against RLIMIT_MEMLOCK, which is 8 MiB for most: so
/// as little as glommio takes. Batches are written from ordinary aligned memory.
const REGISTERED_BYTES: usize = 64 << 10;
/// A file that is written once, to see whether direct I/O works in this directory.
const TRIAL_FILE_NAME: &str = "direct-io-trial";

pub(super) struct Direct {
    executor: LocalExecutor,
    directory: PathBuf,
    /// The open segment and its number.
    open: Option<(u64, DmaFile)>,
}

impl Direct {
    /// An executor that has written and flushed a page in `directory`. glommio panics where it does not like what it finds
    /// in /sys; then it is not for this machine.
    ///
    /// # Errors
    /// Why it cannot be used, in words for the operator.
    pub(super) fn new(directory: &Path) -> Result<Self, String> {
        let tried = catch_unwind(AssertUnwindSafe(|| Self::tried(directory)));
        tried.unwrap_or_else(|_| Err("glommio does not understand this machine's disks".to_owned()))
    }

    fn tried(directory: &Path) -> Result<Self, String> {
        let built = LocalExecutorBuilder::new(Placement::Unbound).io_memory(REGISTERED_BYTES).ring_depth(16).make();
        let executor = built.map_err(|error| format!("no glommio executor can be made: {error}"))?;
        let direct = Self { executor, directory: directory.to_owned(), open: None };
        let path = directory.join(TRIAL_FILE_NAME);
        let written = direct.executor.run(async {
            let file = create_segment(&path, false).await?;
            write_all(&file, &[0; PAGE_BYTES], 0).await?;
            file.fdatasync().await.map_err(plainly)?;
            file.close().await.map_err(plainly)
        });
        let _ = std::fs::remove_file(&path);
        written.map_err(|error| format!("direct I/O does not work in {}: {error}", directory.display()))?;
        Ok(direct)
    }
}

impl Disk for Direct {
    fn kind(&self) -> Kind {
        Kind::Glommio
    }

    fn write(&mut self, batch: &Batch) -> Result<(), (Failure, io::Error)> {
        let Self { executor, directory, open } = self;
        if batch.create {
            make_way(&segment::path(directory, batch.segment)).map_err(not_written)?;
        }
        executor.run(write(directory, open, batch))?;
        if batch.create {
            sync_directory(directory).map_err(not_flushed)?;
        }
        Ok(())
    }

    fn undo(&mut self, batch: &Batch) {
        let Some((_, file)) = self.open.take() else { return };
        self.executor.run(async {
            if !batch.create {
                let _ = file.truncate(batch.offset).await;
            }
            let _ = file.close().await;
        });
        if batch.create {
            let _ = std::fs::remove_file(segment::path(&self.directory, batch.segment));
        }
    }
}

async fn write(directory: &Path, open: &mut Option<(u64, DmaFile)>, batch: &Batch) -> Result<(), (Failure, io::Error)> {
    let file = match open {
        Some((number, file)) if *number == batch.segment => file,
        _ => {
            let path = segment::path(directory, batch.segment);
            let opened = if batch.create { create_segment(&path, true).await } else { reopen_segment(&path).await };
            &mut open.insert((batch.segment, opened.map_err(not_written)?)).1
        }
    };
    write_all(file, &batch.bytes, batch.offset).await.map_err(not_written)?;
    file.fdatasync().await.map_err(plainly).map_err(not_flushed)?;
    if batch.finish
        && let Some((_, file)) = open.take()
    {
        // Everything is flushed: what closing says changes nothing.
        let _ = file.close().await;
    }
    Ok(())
}

// For writing only, on purpose: whether a disk can be polled glommio tries by reading from the first file that it opens
// there. An empty file answers as if it could, and then glommio spins on a whole core while the disk works; a file that
// cannot be read makes it wait for interrupts.
async fn create_segment(path: &Path, new: bool) -> io::Result<DmaFile> {
    OpenOptions::new().write(true).create(true).create_new(new).mode(0o600).dma_open(path).await.map_err(plainly)
}

async fn reopen_segment(path: &Path) -> io::Result<DmaFile> {
    OpenOptions::new().write(true).dma_open(path).await.map_err(plainly)
}

/// Writes pages. The disk may take fewer than it is given; it goes on at the last whole page.
async fn write_all(file: &DmaFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let mut buffer = file.alloc_dma_buffer(rest.len());
        buffer.as_bytes_mut().copy_from_slice(rest);
        let written = file.write_at(buffer, offset + done as u64).await.map_err(plainly)?;
        if written < PAGE_BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        done += written - written % PAGE_BYTES;
    }
    Ok(())
}

/// The system's own error: glommio wraps it with a path that the report has anyway.
fn plainly(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}
