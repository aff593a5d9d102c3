//! Plans by text: bounded, a shard's own. A key is a keyed 128-bit hash over (subject, policy epoch, catalogue epoch, text).

use std::rc::Rc;

use hashbrown::HashMap;

use super::verdict::Plan;
use crate::protocol::postgres::dissector::Taken;

/// Two generations: a full young one becomes the old one, so what is used survives and nothing is ever scanned.
pub struct PlanCache {
    young: HashMap<u128, Rc<Plan>, Taken>,
    old: HashMap<u128, Rc<Plan>, Taken>,
    generation_max: usize,
}

impl PlanCache {
    /// Holds `plans_max` plans at most, at least half of the most recently used ones.
    pub fn new(plans_max: usize) -> Self {
        let young = HashMap::with_hasher(Taken);
        let old = HashMap::with_hasher(Taken);
        Self { young, old, generation_max: plans_max.div_ceil(2) }
    }

    pub fn get(&mut self, key: u128) -> Option<Rc<Plan>> {
        match self.young.get(&key) {
            Some(plan) => Some(plan.clone()),
            None => self.old.remove(&key).inspect(|plan| self.insert(key, plan.clone())),
        }
    }

    pub fn insert(&mut self, key: u128, plan: Rc<Plan>) {
        if self.young.len() >= self.generation_max {
            self.old = std::mem::replace(&mut self.young, HashMap::with_hasher(Taken));
        }
        self.young.insert(key, plan);
    }

    /// A new policy or catalogue: nothing that was decided holds.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
