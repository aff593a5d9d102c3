//! Both disks, held to the same promises. The files are beside the test program: /tmp may be in memory.

use super::*;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let program = std::env::current_exe().unwrap();
        let path = program.with_file_name(format!("wireward-shell-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn both(name: &str, test: fn(&Place, &mut dyn Disk)) {
    for choice in [Choice::Plain, Choice::Glommio] {
        println!("{choice:?}");
        let place = Place::new(&format!("{name}-{choice:?}"));
        let (mut disk, why) = choice.settle(&place.0).unwrap();
        assert_eq!((disk.kind() == Kind::Glommio, why), (choice == Choice::Glommio, None));
        assert_eq!(place.names(), [""; 0], "the trial leaves nothing behind");
        test(&place, &mut *disk);
    }
}

fn batch(segment: u64, offset: u64, pages: usize, create: bool) -> Batch {
    let bytes = (0..pages * 4096).map(|at| (at / 4096 + at % 251 + offset as usize) as u8).collect();
    Batch { segment, create, offset, bytes, finish: false }
}

#[test]
fn what_is_written_is_in_the_file_and_the_next_segment_is_another_file() {
    both("written", |place, disk| {
        // The last one is larger than one request of a block device.
        let batches = [batch(1, 0, 1, true), batch(1, 4096, 3, false), batch(1, 4 * 4096, 1100, false)];
        for batch in &batches {
            disk.write(batch).unwrap();
        }
        disk.write(&Batch { finish: true, ..batch(1, 1104 * 4096, 1, false) }).unwrap();
        disk.write(&batch(2, 0, 2, true)).unwrap();
        let found = std::fs::read(segment::path(&place.0, 1)).unwrap();
        let expected: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.clone()).collect();
        assert!(found[..expected.len()] == expected, "the file differs from the batches");
        assert_eq!(found.len(), 1105 * 4096);
        assert_eq!(std::fs::read(segment::path(&place.0, 2)).unwrap(), batch(2, 0, 2, true).bytes);
        assert_eq!(place.names(), ["0000000001.seg", "0000000002.seg"]);
    });
}

#[test]
fn a_segment_is_for_its_owner_alone_and_what_is_in_its_way_is_put_aside() {
    use std::os::unix::fs::PermissionsExt;
    both("aside", |place, disk| {
        std::fs::write(segment::path(&place.0, 7), "older").unwrap();
        disk.write(&batch(7, 0, 1, true)).unwrap();
        assert_eq!(place.names(), ["0000000007.seg", "0000000007.seg.torn"]);
        let mode = std::fs::metadata(segment::path(&place.0, 7)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn a_segment_is_opened_again_after_a_failure_and_what_was_flushed_is_still_there() {
    both("failure", |place, disk| {
        // No file system has files so long: the write fails after the open.
        let beyond = (1 << 63) - 4096;
        disk.write(&batch(1, 0, 2, true)).unwrap();
        let failing = batch(1, beyond, 1, false);
        assert_eq!(disk.write(&failing).unwrap_err().0, Failure::Io);
        disk.undo(&failing);
        disk.write(&batch(1, 8192, 1, false)).unwrap();
        assert_eq!(std::fs::read(segment::path(&place.0, 1)).unwrap().len(), 3 * 4096);
        let failing = batch(2, beyond, 1, true);
        assert_eq!(disk.write(&failing).unwrap_err().0, Failure::Io);
        disk.undo(&failing);
        assert_eq!(place.names(), ["0000000001.seg"], "a segment of which nothing is flushed is removed");
    });
}

#[test]
fn a_failed_write_is_cut_off_the_file() {
    both("cut", |place, disk| {
        disk.write(&batch(1, 0, 1, true)).unwrap();
        let doubtful = batch(1, 4096, 2, false);
        disk.write(&doubtful).unwrap();
        disk.undo(&doubtful);
        assert_eq!(std::fs::read(segment::path(&place.0, 1)).unwrap().len(), 4096);
    });
}

#[test]
fn a_directory_that_is_gone_is_told_and_nothing_is_made() {
    both("gone", |place, disk| {
        std::fs::remove_dir(&place.0).unwrap();
        let (failure, error) = disk.write(&batch(1, 0, 1, true)).unwrap_err();
        assert_eq!((failure, error.kind()), (Failure::Io, io::ErrorKind::NotFound));
        disk.undo(&batch(1, 0, 1, true));
        assert!(!place.0.exists());
    });
}

#[test]
fn no_room_is_told_from_other_failures() {
    let rows = [(28, Failure::NoSpace), (122, Failure::NoSpace), (5, Failure::Io), (30, Failure::Io)];
    for (errno, failure) in rows {
        assert_eq!(not_written(io::Error::from_raw_os_error(errno)).0, failure, "errno {errno}");
        assert_eq!(not_flushed(io::Error::from_raw_os_error(errno)).0, Failure::Io, "errno {errno}");
    }
}

#[test]
fn in_memory_auto_is_plain_and_says_why_and_glommio_does_not_start() {
    let place = PathBuf::from(format!("/dev/shm/wireward-shell-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let auto = Choice::Auto.settle(&place).map(|(disk, why)| (disk.kind(), why.unwrap_or_default()));
    let strict = Choice::Glommio.settle(&place).map(|(disk, _)| disk.kind());
    std::fs::remove_dir_all(&place).unwrap();
    let (kind, why) = auto.unwrap();
    assert_eq!(kind, Kind::Plain);
    assert!(why.contains("tmpfs"), "{why}");
    assert!(strict.unwrap_err().contains("recording.shell"));
}
