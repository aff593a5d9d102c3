//! What nobody granted is denied.

use super::{Case, Denial, Resolved, effect_phrase, role_phrase};
use crate::artifact::format::Grant;
use crate::policy::pattern::Pattern;
use crate::policy::pattern_matches;
use crate::statement::{Called, Effect, EffectSet, Statement};

/// Effects that come with any grant on the resource.
pub(crate) const FREE: [Effect; 2] = [Effect::Transaction, Effect::Session];

impl Case<'_> {
    /// The first effect of the statement that no grant carries.
    pub(super) fn ungranted(&self, statement: &Statement) -> Option<Denial> {
        let free = EffectSet::of(&FREE);
        let mut tied = EffectSet::EMPTY;
        for relation in &statement.relations {
            tied = tied.union(relation.effects);
            let name = self.resolve(relation);
            // A relation that is named for nothing known is at least looked at.
            let effects = if relation.effects.is_empty() { EffectSet::of(&[Effect::Read]) } else { relation.effects };
            let missing = effects.minus(free).iter().find(|effect| !self.grants_on(*effect, &name));
            if let Some(effect) = missing {
                return Some(self.denial_on(statement, effect, &name, relation.schema.as_deref()));
            }
        }
        // Rows of no relation are constants, or come from a function or a prepared statement, which is judged itself.
        let free = free.with(Effect::Read);
        let mut untied = statement.effects.minus(tied).minus(free).iter();
        let missing = untied.find(|effect| {
            let by_name = || *effect == Effect::Call && self.ungranted_call(statement).is_none();
            !self.grants_at_all(*effect) && !by_name()
        })?;
        Some(self.denial_without_relation(statement, missing))
    }

    /// What of the statement's calls no grant names: a function, or (inner `None`) something without a name.
    fn ungranted_call<'s>(&self, statement: &'s Statement) -> Option<Option<&'s Called>> {
        let function = statement.called.iter().find(|called| !self.grants_call(called));
        let unnamed = statement.calls_unnamed || statement.called.is_empty();
        function.map(Some).or_else(|| unnamed.then_some(None))
    }

    /// An unqualified function may be that of any schema: the grant must be for all.
    fn grants_call(&self, called: &Called) -> bool {
        let schemas = match &called.schema {
            Some(schema) => vec![schema.clone()],
            None => self.catalogue.schemas_of_function(&called.name),
        };
        let mut scopes = self.policy.scopes(self.subject.roles, self.subject.resource);
        scopes.any(|scope| {
            scope.function_grants.iter().any(|id| {
                let grant = self.policy.tables().grants.get(*id as usize);
                let grant = grant.filter(|g| self.applies(g) && EffectSet::from_bits(g.effects).has(Effect::Call));
                let names = |schema: Option<&str>| {
                    let mut patterns = grant.into_iter().flat_map(|grant| &grant.functions);
                    patterns.any(|pattern| pattern_matches(pattern, schema, &called.name, false))
                };
                if schemas.is_empty() { names(None) } else { schemas.iter().all(|schema| names(Some(schema))) }
            })
        })
    }

    fn applies(&self, grant: &Grant) -> bool {
        grant.scope.applies(self.subject.roles.bits(), self.subject.resource)
    }

    /// Whether a grant carries the effect on no relation or any.
    fn grants_at_all(&self, effect: Effect) -> bool {
        let mut scopes = self.policy.scopes(self.subject.roles, self.subject.resource);
        scopes.any(|scope| {
            let mut lists = scope.unlimited_grants.candidates(EffectSet::of(&[effect]));
            lists.any(|list| list.iter().any(|id| self.carries(*id, effect).is_some()))
        })
    }

    fn grants_on(&self, effect: Effect, relation: &Resolved<'_>) -> bool {
        let name = relation.as_name();
        if effect == Effect::Read && name.is_open_catalog() {
            return true;
        }
        let protected = name.is_protected_catalog();
        let mut scopes = self.policy.scopes(self.subject.roles, self.subject.resource);
        scopes.any(|scope| {
            let named = scope.relation_grants.candidates(relation.schema(), relation.name);
            let mut lists = scope.unlimited_grants.candidates(EffectSet::of(&[effect])).chain(named);
            lists.any(|list| {
                list.iter().any(|id| {
                    self.carries(*id, effect).is_some_and(|grant| {
                        if protected { opens_protected(grant, relation) } else { covers(grant, relation) }
                    })
                })
            })
        })
    }

    fn carries(&self, id: u32, effect: Effect) -> Option<&Grant> {
        let grant = &self.policy.tables().grants[id as usize];
        let of_all = effect != Effect::Call || grant.functions.is_empty();
        let carries = of_all && EffectSet::from_bits(grant.effects).has(effect) && self.applies(grant);
        carries.then_some(grant)
    }

    fn denial_on(
        &self,
        statement: &Statement,
        effect: Effect,
        relation: &Resolved<'_>,
        written: Option<&str>,
    ) -> Denial {
        let what = effect_phrase(statement, effect, Some((written, relation.name)));
        let mut denial = self.not_granted(&what);
        if relation.as_name().is_protected_catalog() {
            denial.hint = Some(format!("{} shows data of others: only a grant that names it opens it", relation.name));
        } else if relation.schema.is_none() && self.is_granted_in_some_schema(effect, relation.name) {
            denial.hint = Some(format!("write the schema, as in public.{}", relation.name));
        }
        denial
    }

    fn is_granted_in_some_schema(&self, effect: Effect, name: &str) -> bool {
        let tables = self.policy.tables();
        let mut ids = 0..tables.grants.len() as u32;
        ids.any(|id| {
            let grant = self.carries(id, effect);
            grant.is_some_and(|grant| grant.relations.iter().any(|pattern| pattern_matches(pattern, None, name, true)))
        })
    }

    fn denial_without_relation(&self, statement: &Statement, effect: Effect) -> Denial {
        if effect == Effect::Opaque {
            let what = statement.opaque.as_deref().unwrap_or("the statement is not understood");
            return Denial::new("opaque", what.to_owned());
        }
        let what = effect_phrase(statement, effect, None);
        let called = (effect == Effect::Call).then(|| self.ungranted_call(statement)).flatten().flatten();
        let Some(Called { schema, name }) = called else { return self.not_granted(&what) };
        let name = schema.as_ref().map_or_else(|| name.clone(), |schema| format!("{schema}.{name}"));
        let mut denial = self.not_granted(&format!("{what} of {name}"));
        denial.hint = Some(format!(
            "it is not known what {name} does: a grant with effects = [\"call\"] and functions = [\"{name}\"] opens it"
        ));
        denial
    }

    fn not_granted(&self, what: &str) -> Denial {
        let roles = role_phrase(&self.policy.role_names(self.subject.roles));
        Denial::new("default-deny", format!("{what} is not granted to {roles}"))
    }
}

fn covers(grant: &Grant, relation: &Resolved<'_>) -> bool {
    let matches = |pattern: &Pattern| pattern_matches(pattern, relation.schema(), relation.name, false);
    grant.relations.is_empty() || grant.relations.iter().any(matches)
}

/// Catalogs that show data of others want their own name in the grant, or a grant of everything on everything.
fn opens_protected(grant: &Grant, relation: &Resolved<'_>) -> bool {
    let everything = EffectSet::ALL.minus(EffectSet::of(&[Effect::Opaque]));
    let unlimited = grant.relations.is_empty() && grant.functions.is_empty();
    let of_everything = unlimited && everything.minus(EffectSet::from_bits(grant.effects)).is_empty();
    let by_name = |pattern: &Pattern| {
        pattern.name.literal().is_some() && pattern_matches(pattern, relation.schema(), relation.name, false)
    };
    of_everything || grant.relations.iter().any(by_name)
}
