//! Sections → [`Checked`]: every name known, every value in its vocabulary, names unique.

use super::diagnostic::{Diagnostic, Sink, Source, did_you_mean};
use super::pattern::{Pattern, split_name};
use super::read::{Section, Word, listed, parse, sections};
use super::{
    Checked, Detect, Grant, Mask, MaskAction, MaskedColumn, Origin, RESERVED_NAMES, ROLES_MAX, Role, Rule, Scope,
    detect_kinds,
};
use crate::detect::Kind;
use crate::statement::{Effect, EffectSet};
use std::collections::HashMap;

/// Checks all sources together: a role may stand in one file and be used in another.
///
/// # Errors
/// All that is wrong, in the order of the text.
pub fn check(sources: &[Source]) -> Result<Checked, Vec<Diagnostic>> {
    let mut sink = Sink::new(sources);
    let tables: Vec<_> = (0..sources.len()).map(|source| parse(&mut sink, source)).collect();
    let all: Vec<Section<'_>> =
        tables.iter().enumerate().flat_map(|(source, table)| sections(&mut sink, source, table, &KINDS)).collect();
    let mut checker = Checker { sink, names: HashMap::new(), claims: HashMap::new(), policy: Checked::default() };
    for section in all.iter().filter(|section| section.kind == "role") {
        checker.role(section);
    }
    for section in &all {
        checker.section(section);
    }
    checker.finish()
}

const KINDS: [&str; 5] = ["role", "grant", "rule", "mask", "detect"];

struct Checker<'s> {
    sink: Sink<'s>,
    /// Rules, masks and detectors share one name space: a verdict names its rule and nothing else.
    names: HashMap<String, Origin>,
    claims: HashMap<String, String>,
    policy: Checked,
}

impl Checker<'_> {
    fn section(&mut self, section: &Section<'_>) {
        match section.kind {
            "grant" => self.grant(section),
            "rule" => self.rule(section),
            "mask" => self.mask(section),
            "detect" => self.detect(section),
            _ => {}
        }
    }

    fn role(&mut self, section: &Section<'_>) {
        section.keys(&mut self.sink, &["name", "claims"]);
        let claims = section.strings(&mut self.sink, "claims");
        let Some(name) = section.required_string(&mut self.sink, "name") else { return };
        self.plain_name(&name, "a role");
        if self.policy.roles.iter().any(|role| role.name == name.text) {
            self.sink.error(&name.at, format!("the role `{}` is defined twice", name.text));
        }
        if self.policy.roles.len() == ROLES_MAX {
            self.sink.error(&name.at, format!("there are more than {ROLES_MAX} roles"));
        }
        let claims = claims.unwrap_or_else(|| vec![Word { text: name.text.clone(), at: name.at.clone() }]);
        for claim in &claims {
            // Two roles from one claim is not wrong by itself, but nearly always a slip of copying.
            if let Some(other) = self.claims.insert(claim.text.clone(), name.text.clone()).filter(|o| *o != name.text) {
                let message = format!("the claim `{}` already gives the role `{other}`", claim.text);
                self.sink.error(&claim.at, message);
            }
        }
        let claims = claims.into_iter().map(|claim| claim.text).collect();
        self.policy.roles.push(Role { name: name.text, claims });
    }

    fn grant(&mut self, section: &Section<'_>) {
        section.keys(&mut self.sink, &["to", "resources", "effects", "relations", "functions"]);
        let to = section.required_strings(&mut self.sink, "to");
        let to = self.roles(to);
        let resources = section.required_strings(&mut self.sink, "resources");
        let resources = self.resources(resources);
        let effects = section.required_strings(&mut self.sink, "effects");
        let effects = self.effects(effects, true);
        let relations = section.strings(&mut self.sink, "relations");
        let relations = self.patterns(relations);
        let functions = section.strings(&mut self.sink, "functions");
        if let Some(first) = functions.iter().flatten().next().filter(|_| !effects.has(Effect::Call)) {
            let help = "add `call` to `effects`, or leave `functions` out".to_owned();
            self.sink.error_with(
                &first.at,
                "`functions` says what may be called, but `effects` has no `call`",
                Some(help),
            );
        }
        let functions = self.patterns(functions);
        let origin = self.origin(section);
        self.policy.grants.push(Grant { to, resources, effects, relations, functions, origin });
    }

    fn rule(&mut self, section: &Section<'_>) {
        const KEYS: [&str; 10] = [
            "name",
            "action",
            "to",
            "except",
            "resources",
            "effects",
            "relations",
            "functions",
            "without_where",
            "hint",
        ];
        section.keys(&mut self.sink, &KEYS);
        let name = self.unique_name(section);
        if let Some(action) = section.required_string(&mut self.sink, "action") {
            self.rule_action(&action);
        }
        let scope = self.scope(section);
        let effects = section.strings(&mut self.sink, "effects").map(|words| self.effects(words, false));
        let relations = section.strings(&mut self.sink, "relations");
        let relations = self.patterns(relations);
        let functions = section.strings(&mut self.sink, "functions");
        let functions = self.patterns(functions);
        let without_where = section.flag(&mut self.sink, "without_where");
        let hint = section.string(&mut self.sink, "hint").map(|word| word.text);
        let origin = self.origin(section);
        self.policy.rules.push(Rule { name, scope, effects, relations, functions, without_where, hint, origin });
    }

    fn rule_action(&mut self, action: &Word) {
        match action.text.as_str() {
            "block" => {}
            "hold" => {
                // A rule that looks like a check but lets everything pass is worse than none.
                let help = "use `block` with a `hint` that says whom to ask".to_owned();
                self.sink.error_with(&action.at, "`hold` is not enforced yet", Some(help));
            }
            other => {
                let help = did_you_mean(other, ["block", "hold"]).or(Some("the action of a rule is `block`".into()));
                self.sink.error_with(&action.at, format!("unknown action `{other}`"), help);
            }
        }
    }

    fn mask(&mut self, section: &Section<'_>) {
        section.keys(&mut self.sink, &["name", "columns", "action", "to", "except", "resources"]);
        let name = self.unique_name(section);
        let columns = section.required_strings(&mut self.sink, "columns");
        let columns = columns.into_iter().filter_map(|word| Some((self.masked_column(&word)?, word.at)));
        let (columns, places) = columns.unzip();
        let action = self.mask_action(section);
        let scope = self.scope(section);
        let origin = self.origin(section);
        self.policy.masks.push(Mask { name, scope, columns, places, action, origin });
    }

    fn detect(&mut self, section: &Section<'_>) {
        section.keys(&mut self.sink, &["name", "kinds", "action", "to", "except", "resources"]);
        let name = self.unique_name(section);
        let kinds = section.required_strings(&mut self.sink, "kinds");
        let kinds = kinds.iter().fold(0, |bits, word| bits | self.kind(word));
        let action = self.mask_action(section);
        let scope = self.scope(section);
        let origin = self.origin(section);
        self.policy.detects.push(Detect { name, scope, kinds, action, origin });
    }

    fn masked_column(&mut self, word: &Word) -> Option<MaskedColumn> {
        let message = match split_name(&word.text) {
            Err(e) => {
                self.sink.error_with(&word.at, e.message, e.suggestion.map(|s| format!("write `{s}`")));
                return None;
            }
            Ok(parts) if parts.iter().any(|part| !part.quoted && part.text.contains('*')) => {
                format!("`{}`: a mask names single columns, `*` is not possible", word.text)
            }
            Ok(parts) => match &parts[..] {
                [relation, column] => return Some(MaskedColumn::of(None, &relation.text, &column.text)),
                [schema, relation, column] => {
                    return Some(MaskedColumn::of(Some(&schema.text), &relation.text, &column.text));
                }
                _ => format!("`{}` is not a column", word.text),
            },
        };
        let help = "write `relation.column` or `schema.relation.column`, as `customers.email`".to_owned();
        self.sink.error_with(&word.at, message, Some(help));
        None
    }

    fn mask_action(&mut self, section: &Section<'_>) -> MaskAction {
        let Some(word) = section.required_string(&mut self.sink, "action") else { return MaskAction::Null };
        MaskAction::parse(&word.text).unwrap_or_else(|| {
            let known = MaskAction::ALL.map(|(_, name)| name);
            let listed = format!("the actions of a {} are {}", section.kind, listed(&known));
            let help = did_you_mean(&word.text, known).or(Some(listed));
            self.sink.error_with(&word.at, format!("unknown action `{}`", word.text), help);
            MaskAction::Null
        })
    }

    fn kind(&mut self, word: &Word) -> u16 {
        if word.text == "*" {
            return (1 << Kind::ALL.len()) - 1;
        }
        if let Some(kind) = Kind::parse(&word.text) {
            return 1 << kind as u16;
        }
        let known = detect_kinds();
        let help = did_you_mean(&word.text, known).or(Some(format!("the kinds are {}", listed(&known))));
        self.sink.error_with(&word.at, format!("unknown kind `{}`", word.text), help);
        0
    }

    fn scope(&mut self, section: &Section<'_>) -> Scope {
        let to = section.strings(&mut self.sink, "to").map(|words| self.roles(words));
        let except = section.strings(&mut self.sink, "except").map(|words| self.roles(words)).unwrap_or_default();
        let resources = section.strings(&mut self.sink, "resources").and_then(|words| self.resources(words));
        Scope { to, except, resources }
    }

    fn roles(&mut self, words: Vec<Word>) -> Vec<String> {
        for word in &words {
            if !self.policy.roles.iter().any(|role| role.name == word.text) {
                let known = || self.policy.roles.iter().map(|role| role.name.as_str());
                let all = format!("the roles are {}", listed(&known().collect::<Vec<_>>()));
                let help = did_you_mean(&word.text, known()).or(Some(all));
                self.sink.error_with(&word.at, format!("unknown role `{}`", word.text), help);
            }
        }
        words.into_iter().map(|word| word.text).collect()
    }

    /// `None` is all of them.
    fn resources(&mut self, words: Vec<Word>) -> Option<Vec<String>> {
        for word in words.iter().filter(|word| word.text != "*" && (word.text.contains('*') || word.text.is_empty())) {
            let help = "name each resource, or write `*` alone for all".to_owned();
            self.sink.error_with(&word.at, format!("`{}` is not the name of a resource", word.text), Some(help));
        }
        let all = words.iter().any(|word| word.text == "*");
        (!all).then(|| words.into_iter().map(|word| word.text).collect())
    }

    fn effects(&mut self, words: Vec<Word>, star: bool) -> EffectSet {
        let mut set = EffectSet::EMPTY;
        for word in words {
            match Effect::parse(&word.text) {
                Some(effect) => set = set.with(effect),
                None if word.text == "*" && star => set = set.union(every_effect()),
                None if word.text == "*" => {
                    let help = "leave `effects` out to mean any".to_owned();
                    self.sink.error_with(&word.at, "`*` is for grants only", Some(help));
                }
                None => {
                    let help = effect_help(&word.text);
                    self.sink.error_with(&word.at, format!("unknown effect `{}`", word.text), Some(help));
                }
            }
        }
        set
    }

    fn patterns(&mut self, words: Option<Vec<Word>>) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for word in words.unwrap_or_default() {
            match Pattern::parse(&word.text) {
                Ok(pattern) => patterns.push(pattern),
                Err(e) => self.sink.error_with(&word.at, e.message, e.suggestion.map(|s| format!("write `{s}`"))),
            }
        }
        patterns
    }

    fn unique_name(&mut self, section: &Section<'_>) -> String {
        let Some(name) = section.required_string(&mut self.sink, "name") else { return String::new() };
        self.plain_name(&name, "a rule");
        if RESERVED_NAMES.contains(&name.text.as_str()) {
            self.sink.error(&name.at, format!("the name `{}` is taken: it stands for a built-in verdict", name.text));
        }
        let origin = self.origin(section);
        match self.names.get(&name.text) {
            Some(first) => {
                let help = format!("the first one is at {}:{}", first.file, first.line);
                self.sink.error_with(&name.at, format!("the name `{}` is used twice", name.text), Some(help));
            }
            None => drop(self.names.insert(name.text.clone(), origin)),
        }
        name.text
    }

    /// Names are shown in one-line messages and typed on command lines.
    fn plain_name(&mut self, name: &Word, what: &str) {
        let plain = |c: char| c.is_alphanumeric() || "-_.:@/".contains(c);
        if name.text.is_empty() || !name.text.chars().all(plain) {
            let message = format!("`{}` cannot name {what}", name.text);
            self.sink.error_with(&name.at, message, Some("use letters, digits and `-_.:@/`".into()));
        }
    }

    fn origin(&self, section: &Section<'_>) -> Origin {
        Origin { file: self.sink.sources[section.at.source].name.clone(), line: self.sink.line(&section.at) }
    }

    fn finish(mut self) -> Result<Checked, Vec<Diagnostic>> {
        if self.sink.found.is_empty() && self.policy.grants.is_empty() {
            let file = self.sink.sources.first().map_or("policy", |source| source.name.as_str());
            let help = "add a [[role]] and a [[grant]]".to_owned();
            let message = "the policy grants nothing: nobody could get in".to_owned();
            self.sink.found.push(Diagnostic::about_file(file, message, Some(help)));
        }
        let mut found = self.sink.found;
        found.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        if found.is_empty() { Ok(self.policy) } else { Err(found) }
    }
}

/// What `*` means in a grant.
fn every_effect() -> EffectSet {
    EffectSet::ALL.minus(EffectSet::of(&[Effect::Opaque]))
}

/// People think of statements; the vocabulary is of effects.
fn effect_help(word: &str) -> String {
    let statement = match word.to_lowercase().as_str() {
        "select" | "query" => Some("read"),
        "create" | "alter" | "drop" => Some("ddl"),
        "grant" | "revoke" => Some("dcl"),
        "execute" => Some("call"),
        "set" => Some("session"),
        _ => None,
    };
    let known = Effect::ALL.map(|(_, name)| name);
    statement
        .map(|effect| format!("did you mean `{effect}`?"))
        .or_else(|| did_you_mean(word, known))
        .unwrap_or_else(|| format!("the effects are {}", listed(&known)))
}
