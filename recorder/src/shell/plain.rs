//! The plain disk: pwrite through the page cache, then fdatasync.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::choice::Kind;
use super::{Disk, make_way, not_flushed, not_written};
use crate::core::Failure;
use crate::recover::sync_directory;
use crate::segment;
use crate::segment::writer::Batch;

pub(super) struct Plain {
    directory: PathBuf,
    /// The open segment and its number.
    open: Option<(u64, File)>,
}

impl Plain {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None }
    }
}

impl Disk for Plain {
    fn kind(&self) -> Kind {
        Kind::Plain
    }

    fn write(&mut self, batch: &Batch) -> Result<(), (Failure, io::Error)> {
        let file = match &mut self.open {
            Some((number, file)) if *number == batch.segment => file,
            open => {
                let path = segment::path(&self.directory, batch.segment);
                &mut open.insert((batch.segment, open_segment(&path, batch.create).map_err(not_written)?)).1
            }
        };
        file.write_all_at(&batch.bytes, batch.offset).map_err(not_written)?;
        file.sync_data().map_err(not_flushed)?;
        if batch.create {
            sync_directory(&self.directory).map_err(not_flushed)?;
        }
        if batch.finish {
            self.open = None;
        }
        Ok(())
    }

    fn undo(&mut self, batch: &Batch) {
        let _ = match self.open.take() {
            Some(_) if batch.create => std::fs::remove_file(segment::path(&self.directory, batch.segment)),
            Some((_, file)) => file.set_len(batch.offset),
            None => Ok(()),
        };
    }
}

fn open_segment(path: &Path, create: bool) -> io::Result<File> {
    if create {
        make_way(path)?;
    }
    OpenOptions::new().write(true).create_new(create).mode(0o600).open(path)
}
