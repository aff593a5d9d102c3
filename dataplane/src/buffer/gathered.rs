//! The shard's budget of bytes that lie outside slots: frames that must be held whole to be judged or masked.
//!
//! A frame's share is taken at once, when its head has announced its length, and given back when its last byte has left or
//! its session ends. So a frame that has begun to be gathered never waits for another one.

use std::cell::Cell;
use std::rc::Rc;

/// What is left of a shard's `gathered_bytes_max`. Clones are the same budget.
#[derive(Clone, Debug)]
pub struct Gathered(Rc<Cell<usize>>);

/// A part of the budget, given back when it drops.
#[derive(Debug)]
pub struct Share {
    budget: Gathered,
    bytes: usize,
}

impl Gathered {
    pub fn new(gathered_bytes_max: usize) -> Self {
        Self(Rc::new(Cell::new(gathered_bytes_max)))
    }

    /// `None` while other frames hold too much.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        self.0.set(self.0.get().checked_sub(bytes)?);
        Some(Share { budget: self.clone(), bytes })
    }

    pub fn free_bytes(&self) -> usize {
        self.0.get()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.bytes);
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
}
