//! How many slots the kernel is given for the next receives.
//!
//! It takes them in turn, so each more is one more that has left the cache when its turn comes; but a receive that finds none
//! comes again. So there are as many as were needed lately.

use crate::buffer::budget::KERNEL_SLOTS_MIN;

/// After as many rounds without need, half of the slots do.
const ROUNDS: u32 = 256;

pub(super) struct Demand {
    wanted: usize,
    max: usize,
    has_run_out: bool,
    /// The fewest that were left at the end of a round, and of how many rounds.
    least_left: usize,
    rounds: u32,
}

impl Demand {
    pub(super) fn new(max: usize) -> Self {
        Self { wanted: KERNEL_SLOTS_MIN as usize, max, has_run_out: false, least_left: usize::MAX, rounds: 0 }
    }

    /// A receive has found no slot.
    pub(super) fn ran_out(&mut self) {
        self.has_run_out = true;
    }

    /// How many the kernel should have for the next round, of which `left` are left of the last.
    pub(super) fn wanted(&mut self, left: usize) -> usize {
        self.least_left = self.least_left.min(left);
        self.rounds += 1;
        if std::mem::take(&mut self.has_run_out) {
            self.wanted = (self.wanted * 2).min(self.max);
            self.begin();
        } else if self.rounds == ROUNDS {
            if self.least_left > self.wanted / 2 {
                self.wanted = (self.wanted / 2).max(KERNEL_SLOTS_MIN as usize);
            }
            self.begin();
        }
        self.wanted
    }

    fn begin(&mut self) {
        (self.least_left, self.rounds) = (usize::MAX, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: usize = KERNEL_SLOTS_MIN as usize;

    /// `rounds` rounds that take `taken` slots of those that there are.
    fn rounds(demand: &mut Demand, rounds: u32, taken: usize) -> usize {
        let mut held = demand.wanted;
        for _ in 0..rounds {
            if taken > held {
                demand.ran_out();
            }
            held = held.saturating_sub(taken);
            held = held.max(demand.wanted(held));
        }
        demand.wanted
    }

    #[test]
    fn slots_double_once_a_round_until_they_suffice_and_there_are_no_more_than_the_ring_has() {
        let mut demand = Demand::new(64);
        (0..10).for_each(|_| demand.ran_out());
        assert_eq!(demand.wanted(0), 2 * MIN);
        assert_eq!(rounds(&mut demand, 10, 30), 32);
        assert_eq!(rounds(&mut demand, 10, 1000), 64);
    }

    #[test]
    fn slots_that_nobody_needs_are_taken_back_to_the_least() {
        let mut demand = Demand::new(64);
        assert_eq!(rounds(&mut demand, 10, 1000), 64);
        assert_eq!(rounds(&mut demand, ROUNDS - 1, 1), 64);
        assert_eq!(rounds(&mut demand, 2 * ROUNDS, 1), 16);
        assert_eq!(rounds(&mut demand, 10 * ROUNDS, 1), MIN);
    }

    #[test]
    fn slots_that_are_needed_now_and_then_stay() {
        let mut demand = Demand::new(64);
        assert_eq!(rounds(&mut demand, 10, 30), 32);
        for _ in 0..10 {
            rounds(&mut demand, ROUNDS - 1, 1);
            assert_eq!(rounds(&mut demand, 1, 30), 32);
        }
    }
}
