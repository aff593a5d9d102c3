//! A place in a slot. A session has sixteen of them while it is idle, so they are as small as a slot allows.

use std::ops::{Add, AddAssign};

use crate::buffer::SLOT_BYTES;

/// Bytes from the slot's head, 0 to [`SLOT_BYTES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u16);

impl Mark {
    pub(super) fn new(at: usize) -> Self {
        debug_assert!(at <= SLOT_BYTES);
        Self(at as u16)
    }

    pub(super) fn at(self) -> usize {
        usize::from(self.0)
    }
}

impl Add<usize> for Mark {
    type Output = Self;
    fn add(self, n: usize) -> Self {
        Self::new(self.at() + n)
    }
}

impl AddAssign<usize> for Mark {
    fn add_assign(&mut self, n: usize) {
        *self = *self + n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_of_a_slot_has_a_mark_of_its_own() {
        assert_eq!([0, 1, SLOT_BYTES - 1, SLOT_BYTES].map(|at| Mark::new(at).at()), [0, 1, SLOT_BYTES - 1, SLOT_BYTES]);
    }
}
