//! Which rows of the tables can concern a statement at all, so that a verdict does not look at every rule.
//!
//! The index only proposes: each row that it gives is still checked in full. It is made when the artifact is opened, not
//! stored in it: so a file cannot hold an index that hides a rule.

use super::format::{Grant, Mask, Rule, Scope, Tables};
use crate::policy::pattern::{Glob, Pattern};
use crate::statement::{Effect, EffectSet};
use std::collections::HashMap;

/// Above so many roles or resources a row is kept once for all, instead of once for each pair.
const KEYS_MAX: usize = 8;

const ANY_ROLE: u8 = u8::MAX;
const ANY_RESOURCE: u32 = u32::MAX;

pub(super) struct Index {
    /// From a value of the roles claim to bits of roles.
    pub claims: HashMap<String, u128>,
    resources: HashMap<String, u32>,
    scopes: HashMap<(u32, u8), ScopeIndex>,
}

/// The rows for one role (or every role) on one resource (or all). Every list is in ascending order.
#[derive(Default)]
pub(crate) struct ScopeIndex {
    /// All grants.
    pub grants: Vec<u32>,
    /// Grants for any relation.
    pub unlimited_grants: ByEffect,
    /// Grants that let certain functions be called.
    pub function_grants: Vec<u32>,
    /// Grants for certain relations.
    pub relation_grants: Names,
    pub rules: RuleIndex,
    /// Rules that want `without_where`: most statements have nothing to do with them.
    pub without_where_rules: RuleIndex,
    /// Masks with columns of a relation of this name.
    pub masks_of: HashMap<String, Vec<u32>>,
    pub masks: Vec<u32>,
    pub detects: Vec<u32>,
}

#[derive(Default)]
pub(crate) struct RuleIndex {
    by_effect: ByEffect,
    relations: Names,
    functions: Names,
}

/// Rows by effect, and those that want none.
#[derive(Default)]
pub(crate) struct ByEffect {
    always: Vec<u32>,
    lists: [Vec<u32>; Effect::ALL.len()],
}

/// Rows by the names in their patterns.
#[derive(Default)]
pub(crate) struct Names {
    exact: HashMap<String, Vec<u32>>,
    /// Any name of a schema: `audit.*`.
    schemas: HashMap<String, Vec<u32>>,
    /// All of `schemas`, for a name whose schema is not known.
    any_schema: Vec<u32>,
    /// Names that start alike: `tmp_*`. By what stands before the first star.
    prefixes: HashMap<String, Vec<u32>>,
    /// The lengths of those prefixes in bytes, ascending.
    prefix_lengths: Vec<usize>,
    /// Patterns that only trying tells: `*_log`, `*.*`.
    other: Vec<u32>,
}

impl Index {
    pub fn of(tables: &Tables) -> Self {
        let mut index = Self { claims: HashMap::new(), resources: HashMap::new(), scopes: HashMap::new() };
        for (bit, role) in tables.roles.iter().enumerate() {
            for claim in &role.claims {
                *index.claims.entry(claim.clone()).or_default() |= 1 << bit;
            }
        }
        for (id, grant) in numbered(&tables.grants) {
            index.place(&grant.scope, |scope| scope.add_grant(id, grant));
        }
        for (id, rule) in numbered(&tables.rules) {
            index.place(&rule.scope, |scope| scope.add_rule(id, rule));
        }
        for (id, mask) in numbered(&tables.masks) {
            index.place(&mask.scope, |scope| scope.add_mask(id, mask));
        }
        for (id, detect) in numbered(&tables.detects) {
            index.place(&detect.scope, |scope| scope.detects.push(id));
        }
        index
    }

    pub fn scopes(&self, roles: u128, resource: &str) -> impl Iterator<Item = &ScopeIndex> {
        let resource = self.resources.get(resource).copied();
        let resources = resource.into_iter().chain([ANY_RESOURCE]);
        resources.flat_map(move |resource| {
            bits(roles).chain([ANY_ROLE]).filter_map(move |role| self.scopes.get(&(resource, role)))
        })
    }

    fn place(&mut self, scope: &Scope, mut add: impl FnMut(&mut ScopeIndex)) {
        for resource in self.resource_keys(scope) {
            for role in role_keys(scope.to) {
                add(self.scopes.entry((resource, role)).or_default());
            }
        }
    }

    fn resource_keys(&mut self, scope: &Scope) -> Vec<u32> {
        let Some(names) = scope.resources.as_ref().filter(|names| names.len() <= KEYS_MAX) else {
            return vec![ANY_RESOURCE];
        };
        let mut keys = Vec::new();
        for name in names {
            let next = self.resources.len() as u32;
            keys.push(*self.resources.entry(name.clone()).or_insert(next));
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl ScopeIndex {
    fn add_grant(&mut self, id: u32, grant: &Grant) {
        self.grants.push(id);
        self.function_grants.extend((!grant.functions.is_empty()).then_some(id));
        if grant.relations.is_empty() || grant.relations.iter().any(Pattern::is_any) {
            self.unlimited_grants.add(id, Some(EffectSet::from_bits(grant.effects)));
        } else {
            self.relation_grants.add(id, &grant.relations);
        }
    }

    fn add_rule(&mut self, id: u32, rule: &Rule) {
        let index = if rule.without_where { &mut self.without_where_rules } else { &mut self.rules };
        if rule.relations.is_empty() && (rule.effects.is_some() || rule.functions.is_empty()) {
            index.by_effect.add(id, rule.effects.map(EffectSet::from_bits));
        }
        index.relations.add(id, &rule.relations);
        index.functions.add(id, &rule.functions);
    }

    fn add_mask(&mut self, id: u32, mask: &Mask) {
        self.masks.push(id);
        for column in &mask.columns {
            push_once(self.masks_of.entry(column.relation.clone()).or_default(), id);
        }
    }
}

impl RuleIndex {
    /// Lists of ids; together they hold every rule that a statement of these effects, relations and functions can match.
    pub fn by_effects(&self, effects: EffectSet) -> impl Iterator<Item = &[u32]> {
        self.by_effect.candidates(effects)
    }

    pub fn by_relation<'s>(&'s self, schema: Option<&str>, name: &'s str) -> impl Iterator<Item = &'s [u32]> {
        self.relations.candidates(schema, name)
    }

    pub fn by_function<'s>(&'s self, schema: Option<&str>, name: &'s str) -> impl Iterator<Item = &'s [u32]> {
        self.functions.candidates(schema, name)
    }
}

impl ByEffect {
    fn add(&mut self, id: u32, effects: Option<EffectSet>) {
        match effects {
            None => self.always.push(id),
            Some(effects) => effects.iter().for_each(|effect| self.lists[effect as usize].push(id)),
        }
    }

    pub fn candidates(&self, effects: EffectSet) -> impl Iterator<Item = &[u32]> {
        let lists = effects.iter().map(|effect| self.lists[effect as usize].as_slice());
        lists.chain([self.always.as_slice()])
    }
}

impl Names {
    fn add(&mut self, id: u32, patterns: &[Pattern]) {
        for pattern in patterns {
            let schema = pattern.schema.as_ref().and_then(Glob::literal).filter(|_| pattern.name.is_any());
            if let Some(name) = pattern.name.literal() {
                push_once(self.exact.entry(name.to_owned()).or_default(), id);
            } else if let Some(schema) = schema {
                push_once(self.schemas.entry(schema.to_owned()).or_default(), id);
                push_once(&mut self.any_schema, id);
            } else if pattern.name.prefix().is_empty() {
                push_once(&mut self.other, id);
            } else {
                self.add_prefix(id, pattern.name.prefix());
            }
        }
    }

    fn add_prefix(&mut self, id: u32, prefix: &str) {
        push_once(self.prefixes.entry(prefix.to_owned()).or_default(), id);
        if let Err(place) = self.prefix_lengths.binary_search(&prefix.len()) {
            self.prefix_lengths.insert(place, prefix.len());
        }
    }

    /// Lists of ids; together they hold every row with a pattern that can stand for the name.
    pub fn candidates<'s>(&'s self, schema: Option<&str>, name: &'s str) -> impl Iterator<Item = &'s [u32]> {
        let of_schema = match schema {
            Some(schema) => self.schemas.get(schema),
            None => Some(&self.any_schema),
        };
        let starts = self.prefix_lengths.iter().map_while(|length| name.as_bytes().get(..*length));
        let by_prefix = starts.filter_map(|start| self.prefixes.get(std::str::from_utf8(start).ok()?));
        let by_name = [self.exact.get(name), of_schema, Some(&self.other)].into_iter().flatten();
        by_name.chain(by_prefix).map(Vec::as_slice)
    }
}

/// Whether a mask for `masked` (`None`: any schema) concerns a relation in `schema` (`None`: not known, so perhaps).
pub(crate) fn column_matches(masked: Option<&str>, schema: Option<&str>) -> bool {
    masked.is_none() || schema.is_none() || masked == schema
}

fn role_keys(to: u128) -> Vec<u8> {
    if to.count_ones() as usize > KEYS_MAX { vec![ANY_ROLE] } else { bits(to).collect() }
}

/// The positions of the set bits, lowest first.
fn bits(mut set: u128) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros() as u8;
        set &= set.checked_sub(1)?;
        Some(bit)
    })
}

fn push_once(list: &mut Vec<u32>, id: u32) {
    if list.last() != Some(&id) {
        list.push(id);
    }
}

fn numbered<T>(rows: &[T]) -> impl Iterator<Item = (u32, &T)> {
    (0u32..).zip(rows)
}
