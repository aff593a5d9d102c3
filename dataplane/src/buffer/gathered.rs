//! The shard's budget of bytes that lie outside slots: frames that must be held whole to be judged or masked.
//!
//! A frame's share is taken at once, when its head has announced its length, and given back when its last byte has left or
//! its session ends. So a frame that has begun to be gathered never waits for another one.

use std::cell::Cell;
use std::rc::Rc;

/// What is left of a shard's `gathered_bytes_max`. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Gathered(Rc<Budget>);

#[derive(Debug)]
struct Budget {
    free_bytes: Cell<usize>,
    bytes_max: usize,
}

/// A part of the budget, given back when it drops.
#[derive(Debug)]
pub struct Share {
    budget: Gathered,
    bytes: usize,
}

impl Gathered {
    pub fn new(gathered_bytes_max: usize) -> Self {
        Self(Rc::new(Budget { free_bytes: Cell::new(gathered_bytes_max), bytes_max: gathered_bytes_max }))
    }

    /// `None` while other frames hold too much.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        self.0.free_bytes.set(self.free_bytes().checked_sub(bytes)?);
        Some(Share { budget: self.clone(), bytes })
    }

    /// For what nobody has judged: strangers and beginnings of messages leave one half of the budget to whole messages.
    pub fn take_of_half(&self, bytes: usize) -> Option<Share> {
        let left = self.free_bytes().checked_sub(bytes)?;
        (left >= self.0.bytes_max / 2).then(|| self.take(bytes)).flatten()
    }

    pub fn free_bytes(&self) -> usize {
        self.0.free_bytes.get()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.free_bytes.set(self.budget.free_bytes() + self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_and_never_more_is_given_than_there_is() {
        let budget = Gathered::new(100);
        let first = budget.take(60).expect("there is room");
        assert!(budget.take(41).is_none(), "more than is left");
        let second = budget.take(40).expect("exactly what is left");
        assert_eq!(budget.free_bytes(), 0);
        drop(first);
        assert_eq!(budget.free_bytes(), 60);
        drop(second);
        assert_eq!(budget.free_bytes(), 100);
    }

    #[test]
    fn beginnings_leave_half_of_the_budget_to_whole_messages() {
        let budget = Gathered::new(100);
        let begun = budget.take_of_half(50).expect("half is there");
        assert!(budget.take_of_half(1).is_none(), "the other half is not for beginnings");
        let whole = budget.take(50).expect("a whole message may have it");
        drop(begun);
        assert!(budget.take_of_half(1).is_none(), "whole messages hold half");
        drop(whole);
        assert_eq!(budget.free_bytes(), 100);
    }
}
