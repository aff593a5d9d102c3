//! The ring's own table of sockets, where the kernel is new enough for it.

use io_uring::{IoUring, Probe, opcode};
use rustix::process::{Resource, getrlimit};

/// Sockets in a ring's table, 8 bytes of the kernel's each. More have descriptors.
const DIRECT_MAX: u32 = 64 * 1024;

/// Makes the ring's table of sockets and gives its places, as many as the process may have descriptors. 0: the kernel is too old.
///
/// Linux before 6.13 frees what is taken out of the table only when every operation that was begun earlier has completed, and an
/// idle client's receive may take days. No operation came with 6.13; one of 6.15 tells.
pub(super) fn make_table(ring: &IoUring) -> u32 {
    let mut probe = Probe::new();
    let is_known = ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(opcode::EpollWait::CODE);
    let places = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).min(u64::from(DIRECT_MAX)) as u32;
    if is_known && ring.submitter().register_files_sparse(places).is_ok() { places } else { 0 }
}
