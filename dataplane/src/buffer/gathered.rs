//! The shard's budget of bytes that lie outside slots: frames that must be held whole to be judged or masked.
//!
//! A frame takes what has come of it, never what its head announces. A quarter of the budget is kept for one frame at a time,
//! which may be finished when the rest is used up: so frames that have begun wait for each other and not for ever. A share is
//! given back when its frame's last byte has left or its session ends; who holds one and does not move is found by its age.

use std::cell::Cell;
use std::rc::Rc;

/// What is left of a shard's `gathered_bytes_max`. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Gathered(Rc<Budget>);

#[derive(Debug)]
struct Budget {
    free_bytes: Cell<usize>,
    bytes_max: usize,
    /// Some frame may use the last quarter.
    is_one_finishing: Cell<bool>,
    /// The clock of the shares' ages, seconds.
    now_s: Cell<u32>,
}

/// A part of the budget, given back when it drops.
#[derive(Debug)]
pub struct Share {
    budget: Gathered,
    bytes: usize,
    moved_s: u32,
    /// How much of the budget it leaves to others.
    leaves: Leaves,
    is_finishing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// To the one that is finishing, which it may be itself.
    Quarter,
    Half,
}

impl Gathered {
    pub fn new(gathered_bytes_max: usize) -> Self {
        Self(Rc::new(Budget {
            free_bytes: Cell::new(gathered_bytes_max),
            bytes_max: gathered_bytes_max,
            is_one_finishing: Cell::new(false),
            now_s: Cell::new(0),
        }))
    }

    pub fn tick(&self, now_s: u32) {
        self.0.now_s.set(now_s);
    }

    /// A share that grows with its frame.
    pub fn begin(&self) -> Share {
        self.share(Leaves::Quarter)
    }

    /// As [`Gathered::begin`], for what nobody has judged: strangers and beginnings of messages leave one half of the budget to
    /// messages of those who were let in.
    pub fn begin_of_half(&self) -> Share {
        self.share(Leaves::Half)
    }

    pub fn take_of_half(&self, bytes: usize) -> Option<Share> {
        let mut share = self.begin_of_half();
        share.grow(bytes).then_some(share)
    }

    fn share(&self, leaves: Leaves) -> Share {
        Share { budget: self.clone(), bytes: 0, moved_s: self.0.now_s.get(), leaves, is_finishing: false }
    }

    pub fn free_bytes(&self) -> usize {
        self.0.free_bytes.get()
    }
}

impl Share {
    /// `bytes` more. False while other frames hold too much.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let budget = &self.budget.0;
        let Some(left) = budget.free_bytes.get().checked_sub(bytes) else { return false };
        match self.leaves {
            Leaves::Half if left < budget.bytes_max / 2 => return false,
            Leaves::Quarter if left < budget.bytes_max / 4 && !self.is_finishing => {
                if budget.is_one_finishing.replace(true) {
                    return false;
                }
                self.is_finishing = true;
            }
            _ => {}
        }
        budget.free_bytes.set(left);
        self.bytes += bytes;
        self.touch();
        true
    }

    /// Something of its frame has come or left.
    pub fn touch(&mut self) {
        self.moved_s = self.budget.0.now_s.get();
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When it was last touched, in the budget's seconds.
    pub fn moved_s(&self) -> u32 {
        self.moved_s
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let budget = &self.budget.0;
        budget.free_bytes.set(budget.free_bytes.get() + self.bytes);
        if self.is_finishing {
            budget.is_one_finishing.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_and_never_more_is_given_than_there_is() {
        let budget = Gathered::new(100);
        let (mut first, mut second) = (budget.begin(), budget.begin());
        assert!(first.grow(60) && first.grow(0), "there is room");
        assert!(!second.grow(41), "more than is left");
        assert!(second.grow(40), "exactly what is left");
        assert_eq!((budget.free_bytes(), first.bytes(), second.bytes()), (0, 60, 40));
        drop(first);
        assert_eq!(budget.free_bytes(), 60);
        drop(second);
        assert_eq!(budget.free_bytes(), 100);
    }

    #[test]
    fn of_frames_that_use_up_the_budget_together_one_is_finished_after_the_other() {
        const NEED: usize = 24;
        let budget = Gathered::new(100);
        let mut shares: Vec<Share> = (0..8).map(|_| budget.begin()).collect();
        let mut finished = 0;
        for _ in 0..100 * NEED {
            shares.retain_mut(|share| {
                let is_whole = share.grow(1) && share.bytes() == NEED;
                finished += u32::from(is_whole);
                !is_whole
            });
        }
        assert_eq!((finished, budget.free_bytes()), (8, 100), "192 bytes of 100, and nobody had to go");
    }

    #[test]
    fn a_share_is_as_old_as_its_last_movement() {
        let budget = Gathered::new(100);
        let mut share = budget.begin();
        budget.tick(7);
        assert_eq!(share.moved_s(), 0);
        assert!(share.grow(10));
        assert_eq!(share.moved_s(), 7);
        budget.tick(9);
        assert!(!share.grow(91));
        assert_eq!(share.moved_s(), 7, "what finds no room has not moved");
        share.touch();
        assert_eq!(share.moved_s(), 9);
    }

    #[test]
    fn beginnings_leave_half_of_the_budget_to_whole_messages() {
        let budget = Gathered::new(100);
        let begun = budget.take_of_half(50).expect("half is there");
        assert!(budget.take_of_half(1).is_none(), "the other half is not for beginnings");
        let mut whole = budget.begin();
        assert!(whole.grow(50), "a whole message may have it");
        drop(begun);
        assert!(budget.take_of_half(1).is_none(), "whole messages hold half");
        drop(whole);
        assert_eq!(budget.free_bytes(), 100);
    }
}
