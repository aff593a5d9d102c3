//! The ring's pages: a sealed memfd, mapped shared.
//!
//! Invariant: a [`Pages`] owns one mapping of `words * 8` bytes, readable and writable, page-aligned, of a memfd whose
//! size is sealed; it lives until `Drop` and is only ever seen as `&[AtomicU64]`. The seals F_SEAL_SHRINK and
//! F_SEAL_GROW are checked before mapping: without them the other process could cut the file and turn a load into
//! SIGBUS. Other processes change the words at any time; atomic access makes that a value, not undefined behaviour.
//! Only this package makes a `Pages`. Checked by: the tests below, the two-process kill test, and review.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_long, c_uint, c_void};
use core::sync::atomic::AtomicU64;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use crate::layout::{CONTROL_BYTES, WORD_WAITING, Words, capacity_is_valid, format};

/// Size of a ring's data unless the configuration says otherwise: 16 MiB.
pub const CAPACITY_BYTES_DEFAULT: usize = 16 << 20;

/// A ring's mapped pages as the algorithm's memory.
pub type Mapped = Words<Pages>;

/// Makes an empty ring: a memfd, formatted and sealed. `capacity_bytes` is a power of two, 256 bytes to 256 MiB.
pub fn create(capacity_bytes: usize) -> io::Result<OwnedFd> {
    if !capacity_is_valid(capacity_bytes) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("ring capacity {capacity_bytes}: use a power of two from 256 bytes to 256 MiB"),
        ));
    }
    let fd = memfd()?;
    let file = File::from(fd);
    file.set_len((CONTROL_BYTES + capacity_bytes) as u64)?;
    // SAFETY: fcntl with F_ADD_SEALS takes an int and touches no memory of ours.
    check(unsafe { fcntl(file.as_raw_fd(), F_ADD_SEALS, F_SEAL_SEAL | SIZE_SEALS) }.into())?;
    let memory = map(&file)?;
    format(&memory, capacity_bytes, random_u64()?);
    Ok(file.into())
}

/// Maps a ring's pages. Fails unless the file's size is sealed. The descriptor may be closed afterwards.
pub fn map(fd: impl AsFd) -> io::Result<Mapped> {
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    // SAFETY: fcntl with F_GET_SEALS takes no argument and touches no memory of ours.
    let seals = check(unsafe { fcntl(file.as_raw_fd(), F_GET_SEALS) }.into())?;
    if seals as c_int & SIZE_SEALS != SIZE_SEALS {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the ring's file is not sealed against resizing"));
    }
    let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if bytes < CONTROL_BYTES || !bytes.is_multiple_of(8) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a file of {bytes} bytes is no ring")));
    }
    Ok(Words(Pages::map(&file, bytes)?))
}

/// One shared mapping, unmapped on drop.
pub struct Pages {
    base: NonNull<AtomicU64>,
    words: usize,
}

impl Pages {
    fn map(file: &File, bytes: usize) -> io::Result<Pages> {
        let flags = MAP_SHARED | MAP_POPULATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours.
        let base = unsafe { mmap(std::ptr::null_mut(), bytes, PROT_READ | PROT_WRITE, flags, file.as_raw_fd(), 0) };
        if base.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address zero"))?;
        Ok(Pages { base, words: bytes / 8 })
    }
}

impl AsRef<[AtomicU64]> for Pages {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `words` words, is page-aligned, lives as long as `self`, and is only accessed atomically.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.words) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: base and length are those of our own mapping, and no reference to it outlives `self`.
        unsafe { munmap(self.base.as_ptr().cast(), self.words * 8) };
    }
}

// SAFETY: the pages are only reached through atomics, from any thread.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Mapped {
    /// Clears the waiting word and wakes the recorder that sleeps on it. One system call.
    pub fn wake(&self) {
        let word = &self.0.as_ref()[WORD_WAITING];
        word.store(0, core::sync::atomic::Ordering::SeqCst);
        // SAFETY: the address is a word of our mapping; FUTEX_WAKE reads no other memory.
        unsafe { syscall(SYS_FUTEX, word.as_ptr(), FUTEX_WAKE, c_int::MAX) };
    }
}

/// Sleeps until a producer calls [`Mapped::wake`] on one of the rings whose waiting word is set, at most `timeout_ms`
/// (below 1000). Where the kernel has no futex_waitv, or there are more than 128 rings, it sleeps the whole time.
pub fn wait_any<'r>(rings: impl Iterator<Item = &'r Mapped>, timeout_ms: u32) {
    let waiters: Vec<FutexWaiter> = rings
        .map(|ring| FutexWaiter {
            expected: 1,
            address: ring.0.as_ref()[WORD_WAITING].as_ptr().expose_provenance() as u64,
            flags: FUTEX2_SIZE_U32,
            reserved: 0,
        })
        .collect();
    let until = deadline(timeout_ms);
    // SAFETY: `waiters` and `until` live through the call; every address is a word of a mapping that `rings` borrows.
    let woken = unsafe { syscall(SYS_FUTEX_WAITV, waiters.as_ptr(), waiters.len(), 0, &until, CLOCK_MONOTONIC) };
    if woken < 0 && !matches!(io::Error::last_os_error().raw_os_error(), Some(EAGAIN | EINTR | ETIMEDOUT)) {
        std::thread::sleep(std::time::Duration::from_millis(timeout_ms.into()));
    }
}

fn deadline(timeout_ms: u32) -> Timespec {
    let mut now = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the kernel writes one timespec into `now`.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &mut now) };
    let nanoseconds = now.nanoseconds + i64::from(timeout_ms.min(999)) * 1_000_000;
    Timespec { seconds: now.seconds + nanoseconds / 1_000_000_000, nanoseconds: nanoseconds % 1_000_000_000 }
}

fn memfd() -> io::Result<OwnedFd> {
    let open = |flags: c_uint| {
        // SAFETY: the name is a terminated string; a descriptor that comes back is new and ours.
        check(unsafe { memfd_create(c"wireward-ring".as_ptr(), flags) }.into())
    };
    let flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    // Kernels before 6.3 do not know MFD_NOEXEC_SEAL.
    let fd = open(flags | MFD_NOEXEC_SEAL).or_else(|_| open(flags))?;
    // SAFETY: the descriptor was just opened and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

fn random_u64() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel writes at most 8 bytes into `bytes`.
    let count = check(unsafe { getrandom(bytes.as_mut_ptr().cast(), 8, 0) } as c_long)?;
    if count != 8 {
        return Err(io::Error::other("getrandom gave fewer than 8 bytes"));
    }
    Ok(u64::from_le_bytes(bytes))
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[repr(C)]
struct FutexWaiter {
    expected: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

// Numbers of the Linux ABI; they are the same on x86_64 and aarch64 but for SYS_FUTEX.
#[cfg(not(all(target_os = "linux", target_endian = "little", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("the ring is written for Linux on x86_64 and aarch64");
#[cfg(target_arch = "x86_64")]
const SYS_FUTEX: c_long = 202;
#[cfg(target_arch = "aarch64")]
const SYS_FUTEX: c_long = 98;
const SYS_FUTEX_WAITV: c_long = 449;
const FUTEX_WAKE: c_int = 1;
const FUTEX2_SIZE_U32: u32 = 2;
const CLOCK_MONOTONIC: c_int = 1;
const EINTR: c_int = 4;
const EAGAIN: c_int = 11;
const ETIMEDOUT: c_int = 110;
const PROT_READ: c_int = 1;
const PROT_WRITE: c_int = 2;
const MAP_SHARED: c_int = 1;
const MAP_POPULATE: c_int = 0x8000;
const MFD_CLOEXEC: c_uint = 1;
const MFD_ALLOW_SEALING: c_uint = 2;
const MFD_NOEXEC_SEAL: c_uint = 8;
const F_ADD_SEALS: c_int = 1033;
const F_GET_SEALS: c_int = 1034;
const F_SEAL_SEAL: c_int = 1;
const SIZE_SEALS: c_int = 2 | 4;

unsafe extern "C" {
    fn mmap(address: *mut c_void, bytes: usize, protection: c_int, flags: c_int, fd: c_int, offset: i64)
    -> *mut c_void;
    fn munmap(address: *mut c_void, bytes: usize) -> c_int;
    fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn getrandom(buffer: *mut c_void, bytes: usize, flags: c_uint) -> isize;
    fn clock_gettime(clock: c_int, now: *mut Timespec) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Consumer, Flags, Kind, Memory, Producer};

    #[test]
    fn a_record_crosses_two_mappings_of_one_file() {
        let fd = create(4096).unwrap();
        let mut producer = Producer::attach(map(&fd).unwrap()).unwrap();
        let mut consumer = Consumer::attach(map(&fd).unwrap()).unwrap();
        drop(fd);
        let mut claim = producer.try_claim(5).unwrap();
        claim.write(b"hello").unwrap();
        let receipt = claim.commit(Kind::Note, Flags::WHOLE, 1, 2);
        let mut bytes = Vec::new();
        let record = consumer.poll(&mut bytes).unwrap().unwrap();
        assert_eq!((record.header.seq, &bytes[32..]), (receipt.seq, &b"hello"[..]));
        assert_eq!(producer.ring_id(), consumer.ring_id());
    }

    #[test]
    fn an_unsealed_or_short_file_is_refused() {
        let unsealed = File::from(memfd().unwrap());
        unsealed.set_len(8192).unwrap();
        assert_eq!(map(&unsealed).err().unwrap().kind(), io::ErrorKind::PermissionDenied);
        for bytes in [0, 100, 3 << 20, 1 << 31] {
            assert_eq!(create(bytes).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let sealed = create(4096).unwrap();
        assert!(File::from(sealed).set_len(0).is_err());
    }

    #[test]
    fn a_sleeping_recorder_is_woken_before_its_time() {
        let ring = map(create(4096).unwrap()).unwrap();
        ring.store(WORD_WAITING, 1, core::sync::atomic::Ordering::SeqCst);
        let began = std::time::Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| wait_any([&ring].into_iter(), 900));
            std::thread::sleep(std::time::Duration::from_millis(50));
            ring.wake();
        });
        let slept_ms = began.elapsed().as_millis();
        assert!((50..800).contains(&slept_ms), "{slept_ms} ms; this test needs futex_waitv (Linux 5.16)");
        assert_eq!(ring.load(WORD_WAITING, core::sync::atomic::Ordering::SeqCst), 0);
    }
}
