//! How many slots a shard has, as a written sum.

/// Slots that may wait in the kernel for the next receives of lanes that own none.
pub const KERNEL_SLOTS: u32 = 256;

/// As many wait at first; the driver gives more when a round of receives has used them up.
pub const KERNEL_SLOTS_FIRST: u32 = 16;

/// Slots that one busy session may own: each direction one filling and one draining.
pub const SESSION_SLOTS_MAX: u32 = 4;

/// Slots of a shard for `active_sessions_max` sessions that move data at the same moment. Idle sessions own none, so this
/// is not the number of connections. At 256, the default, the sum is 1,280 slots or 40 MiB of address space a shard.
pub fn slots(active_sessions_max: u32) -> u32 {
    KERNEL_SLOTS + active_sessions_max * SESSION_SLOTS_MAX
}
