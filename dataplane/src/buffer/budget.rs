//! How many slots a shard has, as a written sum.

/// Slots that wait in the kernel at least; the driver gives more when a round of receives has used them up.
pub const KERNEL_SLOTS_MIN: u32 = 2;

/// As many may wait there in the smallest shard.
const KERNEL_ROOM_MIN: u32 = 256;

/// As many buffers fit into a ring that io_uring takes (`io_uring_register_buf_ring(3)`).
const KERNEL_ROOM_MAX: u32 = 1 << 15;

/// Slots that one busy session may own: each direction one filling and one draining.
const SESSION_SLOTS_MAX: u32 = 4;

/// Slots of a shard for `active_sessions_max` sessions that move data at the same moment. Idle sessions own none, so this
/// is not the number of connections. At 256, the default, the sum is 1,280 slots or 40 MiB of address space a shard.
pub fn slots(active_sessions_max: u32) -> u32 {
    KERNEL_ROOM_MIN.max(active_sessions_max) + session_slots(active_sessions_max)
}

/// The part of them that sessions own.
pub fn session_slots(active_sessions_max: u32) -> u32 {
    active_sessions_max * SESSION_SLOTS_MAX
}

/// How many of a shard's slots may wait in the kernel for the next receives of lanes that own none: one for each session that
/// moves data, so that all of them may be spoken to at once. A power of two.
pub fn kernel_slots(slots: u32) -> u16 {
    let each = slots / (SESSION_SLOTS_MAX + 1);
    each.clamp(KERNEL_ROOM_MIN, KERNEL_ROOM_MAX).next_power_of_two() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_waits_for_each_session_that_moves_data() {
        assert_eq!((slots(1), kernel_slots(slots(1))), (260, 256));
        assert_eq!((slots(256), kernel_slots(slots(256))), (1280, 256));
        assert_eq!((slots(1000), kernel_slots(slots(1000))), (5000, 1024));
        assert_eq!(kernel_slots(slots(65_536)), 32_768);
    }
}
