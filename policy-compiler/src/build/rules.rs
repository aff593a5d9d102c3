//! Names of roles become bits; everything else is kept as it is.

use crate::artifact::format::{Detect, Grant, Mask, Role, Rule, Scope, Tables};
use crate::policy::{self, Checked};
use crate::statement::EffectSet;

/// The decision tables of a checked policy.
pub(super) fn lower(policy: &Checked) -> Tables {
    let scope = |scope: &policy::Scope| Scope {
        to: scope.to.as_ref().map_or(u128::MAX, |names| bits(policy, names)),
        except: bits(policy, &scope.except),
        resources: scope.resources.clone(),
    };
    Tables {
        roles: policy.roles.iter().map(|r| Role { name: r.name.clone(), claims: r.claims.clone() }).collect(),
        grants: policy.grants.iter().map(|g| grant(policy, g)).collect(),
        rules: policy.rules.iter().map(|r| rule(scope(&r.scope), r)).collect(),
        masks: policy.masks.iter().map(|m| mask(scope(&m.scope), m)).collect(),
        detects: policy.detects.iter().map(|d| detect(scope(&d.scope), d)).collect(),
    }
}

/// A name that is no role has been refused by the check.
fn bits(policy: &Checked, names: &[String]) -> u128 {
    let roles = policy.roles.iter().enumerate();
    roles.filter(|(_, role)| names.contains(&role.name)).fold(0, |bits, (bit, _)| bits | 1 << bit)
}

fn grant(policy: &Checked, grant: &policy::Grant) -> Grant {
    Grant {
        scope: Scope { to: bits(policy, &grant.to), except: 0, resources: grant.resources.clone() },
        effects: grant.effects.bits(),
        relations: grant.relations.clone(),
        functions: grant.functions.clone(),
        origin: grant.origin.clone(),
    }
}

fn rule(scope: Scope, rule: &policy::Rule) -> Rule {
    Rule {
        name: rule.name.clone(),
        scope,
        effects: rule.effects.map(EffectSet::bits),
        relations: rule.relations.clone(),
        functions: rule.functions.clone(),
        without_where: rule.without_where,
        hint: rule.hint.clone(),
        origin: rule.origin.clone(),
    }
}

fn mask(scope: Scope, mask: &policy::Mask) -> Mask {
    Mask {
        name: mask.name.clone(),
        scope,
        columns: mask.columns.clone(),
        action: mask.action,
        origin: mask.origin.clone(),
    }
}

fn detect(scope: Scope, detect: &policy::Detect) -> Detect {
    Detect {
        name: detect.name.clone(),
        scope,
        kinds: detect.kinds,
        action: detect.action,
        origin: detect.origin.clone(),
    }
}
