//! Rules that block.

use super::{Case, Denial, Resolved, effect_phrase, role_phrase};
use crate::artifact::format::Rule;
use crate::policy::pattern_matches;
use crate::statement::{Effect, EffectSet, RelationUse, Statement};

/// What of a statement a rule is about, for the message.
struct Hit<'s> {
    effect: Option<Effect>,
    relation: Option<&'s RelationUse>,
    function: Option<&'s str>,
}

impl Case<'_> {
    /// The first rule of the text that blocks the statement: any would do, but the message should not depend on chance.
    pub(super) fn blocked(&self, statement: &Statement) -> Option<Denial> {
        let mut best: Option<(u32, Hit<'_>)> = None;
        let mut consider = |list: &[u32]| {
            for id in list {
                if best.as_ref().is_some_and(|(first, _)| first <= id) {
                    return;
                }
                if let Some(hit) = self.rule_hits(&self.policy.tables().rules[*id as usize], statement) {
                    best = Some((*id, hit));
                    return;
                }
            }
        };
        for scope in self.policy.scopes(self.subject.roles, self.subject.resource) {
            let with_where = [Some(&scope.rules), statement.without_where.then_some(&scope.without_where_rules)];
            for index in with_where.into_iter().flatten() {
                index.by_effects(statement.effects).for_each(&mut consider);
                for relation in &statement.relations {
                    let name = self.resolve(relation);
                    index.by_relation(name.schema(), name.name).for_each(&mut consider);
                }
                for function in &statement.functions {
                    index.by_function(function.schema.as_deref(), &function.name).for_each(&mut consider);
                }
            }
        }
        best.map(|(id, hit)| self.denial_by(&self.policy.tables().rules[id as usize], statement, &hit))
    }

    pub(super) fn resolve<'r>(&self, relation: &'r RelationUse) -> Resolved<'r> {
        Resolved::of(self.catalogue, relation.schema.as_deref(), &relation.name)
    }

    fn rule_hits<'s>(&self, rule: &Rule, statement: &'s Statement) -> Option<Hit<'s>> {
        if !rule.scope.applies(self.subject.roles.bits(), self.subject.resource)
            || rule.without_where && !statement.without_where
        {
            return None;
        }
        let about_effects = rule.effects.is_some() || !rule.relations.is_empty() || rule.functions.is_empty();
        let by_effect = if about_effects { self.effect_hit(rule, statement) } else { None };
        by_effect.or_else(|| function_hit(rule, statement))
    }

    fn effect_hit<'s>(&self, rule: &Rule, statement: &'s Statement) -> Option<Hit<'s>> {
        let wanted = rule.effects.map(EffectSet::from_bits);
        let hit_in = |effects: EffectSet| wanted.is_none_or(|wanted| !wanted.intersection(effects).is_empty());
        let first = |effects: EffectSet| wanted.map_or(effects, |wanted| wanted.intersection(effects)).iter().next();
        let hit = |relation: &'s RelationUse| Hit {
            effect: first(relation.effects),
            relation: Some(relation),
            function: None,
        };
        if rule.relations.is_empty() {
            let relation = statement.relations.iter().find(|relation| hit_in(relation.effects)).map(hit);
            let whole = || Hit { effect: first(statement.effects), relation: None, function: None };
            return hit_in(statement.effects).then(|| relation.unwrap_or_else(whole));
        }
        let concerned = |relation: &&RelationUse| {
            let name = self.resolve(relation);
            hit_in(relation.effects)
                && rule.relations.iter().any(|pattern| pattern_matches(pattern, name.schema(), name.name, true))
        };
        statement.relations.iter().find(concerned).map(hit)
    }

    fn denial_by(&self, rule: &Rule, statement: &Statement, hit: &Hit<'_>) -> Denial {
        let relation = hit.relation.map(|relation| (relation.schema.as_deref(), relation.name.as_str()));
        let what = match (hit.function, hit.effect) {
            (Some(function), _) => format!("calling {function}"),
            (None, Some(effect)) => effect_phrase(statement, effect, relation),
            (None, None) => statement.tag.clone(),
        };
        let without_where = if rule.without_where { " without WHERE" } else { "" };
        let roles = role_phrase(&self.policy.role_names(self.subject.roles));
        let mut denial = Denial::new(&rule.name, format!("{what}{without_where} is blocked for {roles}"));
        denial.hint.clone_from(&rule.hint);
        denial
    }
}

fn function_hit<'s>(rule: &Rule, statement: &'s Statement) -> Option<Hit<'s>> {
    let called = statement.functions.iter().find(|function| {
        let schema = function.schema.as_deref();
        rule.functions.iter().any(|pattern| pattern_matches(pattern, schema, &function.name, true))
    })?;
    Some(Hit { effect: None, relation: None, function: Some(&called.name) })
}
