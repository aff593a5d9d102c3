//! Why a text gets its verdict: slow, obvious, from the checked policy as written, without bits and index.
//!
//! It shares no code with [`crate::judge`] but the matching of one name, so that the tests can hold the two together.

use crate::judge::{Action, Catalogue};
use crate::policy::catalogs::{Name, is_catalog_name};
use crate::policy::pattern::Pattern;
use crate::policy::{Checked, Grant, Mask, Origin, Rule, Scope, pattern_matches};
use crate::statement::{
    AnalyseError, Analysis, Called, ColumnUse, CopyDirection, CopyFormat, Effect, EffectSet, NewValue, Places,
    RelationUse, Statement, UNKNOWN_COLUMN,
};

/// Who asks, by names.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    pub roles: &'a [&'a str],
    pub resource: &'a str,
}

/// The verdict and what carried it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub action: Action,
    /// As in `Judgement`.
    pub rule: String,
    /// Where the rule or mask stands; `None` for built-in verdicts.
    pub origin: Option<Origin>,
    pub statement: usize,
    /// The hint of the rule.
    pub hint: Option<String>,
    pub mask_unsourced: bool,
    /// Each effect that needs a grant, with the first one that carries it.
    pub needs: Vec<Need>,
}

/// One effect of a statement, on a relation or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub statement: usize,
    pub effect: Effect,
    /// As written.
    pub relation: Option<String>,
    pub carried_by: Carrier,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    Grant(Origin),
    /// An open catalog, transaction, session: any grant on the resource.
    AnyGrant,
    Nothing,
}

/// Interprets the policy for one text.
pub fn explain(
    policy: &Checked,
    who: Who<'_>,
    analysis: &Result<Analysis, AnalyseError>,
    catalogue: &dyn Catalogue,
) -> Explanation {
    let reading = Reading { policy, who, catalogue };
    let Ok(analysis) = analysis else { return Explanation::denied("unparsable", 0, Vec::new()) };
    if reading.grants().next().is_none() {
        return Explanation::denied("default-deny", 0, Vec::new());
    }
    let statements = analysis.statements.iter().enumerate();
    let needs: Vec<Need> = statements.clone().flat_map(|(number, s)| reading.needs(number, s)).collect();
    for (number, statement) in statements {
        if let Some(denied) = reading.denied(number, statement, &needs) {
            return denied;
        }
    }
    let mask = reading.mask(analysis);
    Explanation {
        action: if mask.is_some() { Action::Mask } else { Action::Allow },
        rule: mask.as_ref().map_or("grant", |(name, _)| name).to_owned(),
        origin: mask.map(|(_, origin)| origin),
        statement: 0,
        hint: None,
        mask_unsourced: analysis.statements.iter().any(|s| reading.unsourced(s)),
        needs,
    }
}

struct Reading<'a> {
    policy: &'a Checked,
    who: Who<'a>,
    catalogue: &'a dyn Catalogue,
}

impl Explanation {
    fn denied(rule: &str, statement: usize, needs: Vec<Need>) -> Self {
        let rule = rule.to_owned();
        Self { action: Action::Deny, rule, origin: None, statement, hint: None, mask_unsourced: false, needs }
    }
}

impl<'a> Reading<'a> {
    fn denied(&self, number: usize, statement: &Statement, needs: &[Need]) -> Option<Explanation> {
        let built_in = |rule: &str| Some(Explanation::denied(rule, number, needs.to_vec()));
        if statement.settings.iter().any(|s| pinned(&s.name.to_lowercase(), &s.value))
            || self.writes_settings(statement)
        {
            return built_in("pinned-setting");
        }
        if let Some(rule) = self.policy.rules.iter().find(|rule| self.blocks(rule, statement)) {
            let denied = Explanation::denied(&rule.name, number, needs.to_vec());
            return Some(Explanation { origin: Some(rule.origin.clone()), hint: rule.hint.clone(), ..denied });
        }
        let missing = |need: &&Need| need.statement == number && need.carried_by == Carrier::Nothing;
        match needs.iter().find(missing) {
            Some(need) if need.effect == Effect::Opaque && need.relation.is_none() => built_in("opaque"),
            Some(_) => built_in("default-deny"),
            None if self.acts_by_masked(statement).is_some() => built_in(self.acts_by_masked(statement)?),
            None if self.keeps_masked(statement) => built_in("masked-source"),
            None => self.copies_untakeable(statement).and_then(built_in),
        }
    }

    fn concerns(&self, scope: &Scope) -> bool {
        let mine = |name: &String| self.who.roles.contains(&name.as_str());
        scope.to.as_ref().map_or(!self.who.roles.is_empty(), |to| to.iter().any(mine))
            && !scope.except.iter().any(mine)
            && self.here(scope.resources.as_deref())
    }

    fn here(&self, resources: Option<&[String]>) -> bool {
        resources.is_none_or(|names| names.iter().any(|name| name == self.who.resource))
    }

    fn grants(&self) -> impl Iterator<Item = &'a Grant> {
        self.policy.grants.iter().filter(|grant| {
            grant.to.iter().any(|to| self.who.roles.contains(&to.as_str())) && self.here(grant.resources.as_deref())
        })
    }

    fn schema_of(&self, schema: Option<&str>, name: &str) -> Option<String> {
        match schema {
            Some(schema) => Some(schema.to_owned()),
            None if is_catalog_name(name) => Some("pg_catalog".to_owned()),
            None => self.catalogue.schema_of(name),
        }
    }

    fn matches(&self, patterns: &[Pattern], relation: &RelationUse, strict: bool) -> bool {
        let schema = self.schema_of(relation.schema.as_deref(), &relation.name);
        patterns.iter().any(|pattern| pattern_matches(pattern, schema.as_deref(), &relation.name, strict))
    }

    fn blocks(&self, rule: &Rule, statement: &Statement) -> bool {
        if !self.concerns(&rule.scope) || (rule.without_where && !statement.without_where) {
            return false;
        }
        let calls = statement
            .functions
            .iter()
            .any(|f| rule.functions.iter().any(|pattern| pattern_matches(pattern, f.schema.as_deref(), &f.name, true)));
        let wanted = |effects: EffectSet| rule.effects.is_none_or(|e| effects.iter().any(|effect| e.has(effect)));
        let does = if !rule.relations.is_empty() {
            statement.relations.iter().any(|r| wanted(r.effects) && self.matches(&rule.relations, r, true))
        } else if rule.effects.is_some() || rule.functions.is_empty() {
            wanted(statement.effects)
        } else {
            false
        };
        calls || does
    }

    fn needs(&self, number: usize, statement: &Statement) -> Vec<Need> {
        let mut needs = Vec::new();
        let need = |effect, relation, carried_by| Need { statement: number, effect, relation, carried_by };
        for relation in &statement.relations {
            let looked_at = EffectSet::of(&[Effect::Read]);
            let effects = if relation.effects.is_empty() { looked_at } else { relation.effects };
            for effect in effects.iter() {
                needs.push(need(effect, Some(written(relation)), self.carrier_on(effect, relation)));
            }
        }
        for effect in statement.effects.iter() {
            if !statement.relations.iter().any(|relation| relation.effects.has(effect)) {
                needs.push(need(effect, None, self.carrier(effect, statement)));
            }
        }
        needs
    }

    fn carrier_on(&self, effect: Effect, relation: &RelationUse) -> Carrier {
        let schema = self.schema_of(relation.schema.as_deref(), &relation.name);
        let name = Name { schema: schema.as_deref(), name: &relation.name };
        if matches!(effect, Effect::Transaction | Effect::Session) || (effect == Effect::Read && name.is_open_catalog())
        {
            return Carrier::AnyGrant;
        }
        let carries = |grant: &&Grant| {
            grant.effects.has(effect)
                && if name.is_protected_catalog() {
                    opens(grant, &name)
                } else {
                    grant.relations.is_empty() || self.matches(&grant.relations, relation, false)
                }
        };
        self.grants().find(carries).map_or(Carrier::Nothing, |grant| Carrier::Grant(grant.origin.clone()))
    }

    fn carrier(&self, effect: Effect, statement: &Statement) -> Carrier {
        if matches!(effect, Effect::Transaction | Effect::Session | Effect::Read) {
            return Carrier::AnyGrant;
        }
        let of_all = |grant: &&Grant| effect != Effect::Call || grant.functions.is_empty();
        let carries = |grant: &&Grant| grant.effects.has(effect) && grant.is_unlimited();
        let first = self.grants().filter(of_all).find(carries).or_else(|| {
            let calls = effect == Effect::Call && !statement.calls_unnamed;
            let named: Option<Vec<&Grant>> = statement.called.iter().map(|called| self.opens_call(called)).collect();
            named.filter(|_| calls).and_then(|grants| grants.first().copied())
        });
        first.map_or(Carrier::Nothing, |grant| Carrier::Grant(grant.origin.clone()))
    }

    /// The first grant that names the function in every schema where it may be.
    fn opens_call(&self, called: &Called) -> Option<&'a Grant> {
        let known = self.catalogue.schemas_of_function(&called.name);
        let schemas: Vec<Option<String>> = match &called.schema {
            Some(schema) => vec![Some(schema.clone())],
            None if known.is_empty() => vec![None],
            None => known.into_iter().map(Some).collect(),
        };
        self.grants().filter(|grant| grant.effects.has(Effect::Call)).find(|grant| {
            schemas.iter().all(|schema| {
                let opens = |pattern: &Pattern| pattern_matches(pattern, schema.as_deref(), &called.name, false);
                grant.functions.iter().any(opens)
            })
        })
    }

    fn masks(&self) -> impl Iterator<Item = &'a Mask> {
        self.policy.masks.iter().filter(|mask| self.concerns(&mask.scope))
    }

    fn masks_of(&self, relation: &RelationUse) -> impl Iterator<Item = &'a Mask> {
        let schema = self.schema_of(relation.schema.as_deref(), &relation.name);
        let name = relation.name.clone();
        self.masks().filter(move |mask| {
            mask.columns.iter().any(|column| {
                let same_schema = column.schema.is_none() || schema.is_none() || column.schema == schema;
                column.relation == name && same_schema
            })
        })
    }

    fn protected(&self, relation: &RelationUse) -> bool {
        let schema = self.schema_of(relation.schema.as_deref(), &relation.name);
        let name = Name { schema: schema.as_deref(), name: &relation.name };
        let by_catalogue = !name.is_open_catalog() && self.catalogue.is_protected(schema.as_deref(), &relation.name);
        by_catalogue || self.masks_of(relation).next().is_some()
    }

    fn unsourced(&self, statement: &Statement) -> bool {
        let hidden = statement.uses.is_some()
            || hides(statement)
            || statement.functions.iter().any(|f| !f.plain)
            || statement.relations.iter().any(|relation| self.protected(relation));
        hidden && self.masks().next().is_some()
    }

    /// The mask that the verdict names: of a relation of the text, else the first that may apply.
    fn mask(&self, analysis: &Analysis) -> Option<(String, Origin)> {
        let returning = |s: &&Statement| {
            let copies = s.copy.as_ref().is_some_and(|copy| copy.direction == CopyDirection::ToClient);
            !s.output.is_empty() || copies || s.uses.is_some() || hides(s)
        };
        let statements: Vec<&Statement> = analysis.statements.iter().filter(returning).collect();
        let relations = || statements.iter().flat_map(|s| &s.relations);
        let named = relations().find_map(|relation| self.masks_of(relation).next());
        let any = statements.iter().any(|s| self.unsourced(s)).then(|| self.masks().next()).flatten();
        let detect =
            || self.policy.detects.iter().find(|detect| !statements.is_empty() && self.concerns(&detect.scope));
        let mask = named.or(any).map(|mask| (mask.name.clone(), mask.origin.clone()));
        mask.or_else(|| detect().map(|detect| (detect.name.clone(), detect.origin.clone())))
    }

    /// Whether the statement may put a masked value where no mask is.
    fn keeps_masked(&self, statement: &Statement) -> bool {
        let keeps = [Effect::Insert, Effect::Update, Effect::Ddl, Effect::Notify];
        if self.masks().next().is_none() || !keeps.iter().any(|effect| statement.effects.has(*effect)) {
            return false;
        }
        statement.relations.iter().any(|relation| {
            let gives = [Effect::Read, Effect::Update, Effect::Ddl].iter().any(|e| relation.effects.has(*e));
            gives && self.protected(relation) && self.shows_masked(statement, relation)
        })
    }

    /// Whether the statement copies rows out in a format that no mask can be applied to.
    fn copies_untakeable(&self, statement: &Statement) -> Option<&'static str> {
        let copy = statement.copy.as_ref().filter(|copy| copy.direction == CopyDirection::ToClient)?;
        let masked = self.masks().next().is_some() || self.policy.detects.iter().any(|d| self.concerns(&d.scope));
        match (&copy.unmodelled, copy.format) {
            (Some(_), _) if masked => Some("copy-option"),
            (None, CopyFormat::Binary) if self.unsourced(statement) => Some("binary-copy"),
            _ => None,
        }
    }

    fn writes_settings(&self, statement: &Statement) -> bool {
        let writes = [Effect::Insert, Effect::Update, Effect::Delete];
        statement.relations.iter().any(|relation| {
            let schema = self.schema_of(relation.schema.as_deref(), &relation.name);
            writes.iter().any(|effect| relation.effects.has(*effect))
                && self.catalogue.leads_to_settings(schema.as_deref(), &relation.name)
        })
    }

    /// The built-in rule that a masked column runs into by where it stands.
    fn acts_by_masked(&self, statement: &Statement) -> Option<&'static str> {
        self.masks().next()?;
        let stands = |places: Places| {
            statement.columns.iter().any(|used| used.places.has_any(places) && self.may_be_masked(statement, used))
        };
        let shaped = statement.relations.iter().any(|relation| {
            let schema = self.schema_of(relation.schema.as_deref(), &relation.name);
            relation.effects.has(Effect::Read) && self.catalogue.is_shaped(schema.as_deref(), &relation.name)
        });
        if shaped || stands(Places::SHAPES) {
            return Some("masked-shape");
        }
        (stands(Places::KEPT) || statement.acts && stands(Places::PICKS)).then_some("masked-source")
    }

    fn may_be_masked(&self, statement: &Statement, used: &ColumnUse) -> bool {
        if used.relation.is_none() && used.name == UNKNOWN_COLUMN {
            return self.unsourced(statement);
        }
        statement.relations.iter().any(|relation| {
            let schema = self.schema_of(relation.schema.as_deref(), &relation.name);
            let columns = self.catalogue.columns(schema.as_deref(), &relation.name);
            let meant = match &used.relation {
                Some(name) => *name == relation.name,
                None => used.name == "*" || columns.is_none_or(|columns| columns.contains(&used.name)),
            };
            let by_name = self.masks_of(relation).flat_map(|mask| &mask.columns).any(|column| {
                column.relation == relation.name
                    && column.column == used.name
                    && (column.schema.is_none() || schema.is_none() || column.schema == schema)
            });
            let whole = self.masks_of(relation).next().is_none();
            meant && self.protected(relation) && (used.name == "*" || by_name || whole)
        })
    }

    fn shows_masked(&self, statement: &Statement, relation: &RelationUse) -> bool {
        if self.masks_of(relation).next().is_none() {
            return true;
        }
        let schema = self.schema_of(relation.schema.as_deref(), &relation.name);
        let known = self.catalogue.columns(schema.as_deref(), &relation.name).unwrap_or_default();
        let masked = |column: &str| {
            let generated = self.catalogue.generated_mask(schema.as_deref(), &relation.name, column).is_some();
            generated
                || self.masks_of(relation).flat_map(|mask| &mask.columns).any(|masked| {
                    let same_schema = masked.schema.is_none() || schema.is_none() || masked.schema == schema;
                    masked.relation == relation.name && masked.column == column && same_schema
                })
        };
        let is_none = |column: &String| !known.is_empty() && !known.contains(column);
        statement.columns.iter().any(|used| match &used.relation {
            Some(name) => *name == relation.name && (used.name == "*" || masked(&used.name) || is_none(&used.name)),
            None => !known.contains(&used.name) || masked(&used.name),
        })
    }
}

fn opens(grant: &Grant, name: &Name<'_>) -> bool {
    let all_but_opaque = EffectSet::ALL.iter().filter(|effect| *effect != Effect::Opaque);
    let unlimited = grant.relations.is_empty() && grant.functions.is_empty();
    let everything = unlimited && all_but_opaque.into_iter().all(|effect| grant.effects.has(effect));
    let by_name = grant.relations.iter().filter(|pattern| pattern.name.literal() == Some(name.name));
    everything || by_name.into_iter().any(|pattern| pattern_matches(pattern, name.schema, name.name, false))
}

fn hides(statement: &Statement) -> bool {
    [Effect::Call, Effect::Dynamic, Effect::File, Effect::Opaque].iter().any(|effect| statement.effects.has(*effect))
}

fn pinned(name: &str, value: &NewValue) -> bool {
    let value = match value {
        NewValue::Default => return false,
        NewValue::Is(value) => value,
        NewValue::Any => return !crate::judge::may_take_any_value(name),
    };
    let letters: String = value.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    match name {
        "role" | "session_authorization" => true,
        "standard_conforming_strings" => !matches!(value.trim().to_lowercase().as_str(), "on" | "true" | "yes" | "1"),
        "client_encoding" => {
            let safe = ["utf8", "unicode", "latin", "iso8859", "win125", "windows125", "euc", "koi8", "sqlascii"];
            !safe.iter().any(|start| letters.starts_with(start))
        }
        "search_path" => {
            let path: Vec<String> = value.to_lowercase().split(',').map(|s| s.trim().replace('"', "")).collect();
            path.iter().skip(1).any(|schema| schema == "pg_catalog") && path[0] != "pg_catalog"
        }
        _ => false,
    }
}

fn written(relation: &RelationUse) -> String {
    match &relation.schema {
        Some(schema) => format!("{schema}.{}", relation.name),
        None => relation.name.clone(),
    }
}
