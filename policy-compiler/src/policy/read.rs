//! The spanned TOML tree → words with places. Knows TOML, knows no rules.

use super::diagnostic::{At, Sink, did_you_mean};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A string of the text and its place.
pub(super) struct Word {
    pub text: String,
    pub at: At,
}

/// One `[[kind]]` of the text.
pub(super) struct Section<'t> {
    pub kind: &'static str,
    pub at: At,
    table: &'t DeTable<'t>,
}

/// Parses one source. Syntax errors go to the sink; what could be read is still returned.
pub(super) fn parse<'s>(sink: &mut Sink<'s>, source: usize) -> DeTable<'s> {
    let text = &sink.sources[source].text;
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = At { source, span: error.span().unwrap_or(0..0) };
        sink.error(&at, format!("not TOML: {}", error.message()));
    }
    table.into_inner()
}

/// The sections of one file, each of a kind in `kinds`. Anything else at the top is an error.
pub(super) fn sections<'t>(
    sink: &mut Sink<'_>,
    source: usize,
    table: &'t DeTable<'t>,
    kinds: &[&'static str],
) -> Vec<Section<'t>> {
    let mut found = Vec::new();
    for (key, value) in table {
        let at = At { source, span: key.span() };
        let Some(kind) = kinds.iter().find(|kind| **kind == key.get_ref().as_ref()) else {
            let message = format!("unknown section `{}`", key.get_ref());
            let known = format!("the sections are {}", listed(kinds));
            sink.error_with(&at, message, did_you_mean(key.get_ref(), kinds.iter().copied()).or(Some(known)));
            continue;
        };
        let Some(items) = value.get_ref().as_array() else {
            let message = format!("`{kind}` must be written as [[{kind}]]");
            sink.error_with(&at, message, Some(format!("write `[[{kind}]]` with two brackets")));
            continue;
        };
        for item in items {
            let at = At { source, span: item.span() };
            match item.get_ref().as_table() {
                Some(table) => found.push(Section { kind, at, table }),
                None => sink.error(&at, format!("a `{kind}` must be a table, not {}", described(item.get_ref()))),
            }
        }
    }
    // The map is sorted by key: what counts is the order of the text.
    found.sort_by_key(|section| section.at.span.start);
    found
}

impl Section<'_> {
    /// Reports each key that is not in `known`.
    pub fn keys(&self, sink: &mut Sink<'_>, known: &[&str]) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let at = self.at_of(key.span());
                let listed = format!("[[{}]] takes {}", self.kind, listed(known));
                let help = did_you_mean(name, known.iter().copied()).or(Some(listed));
                sink.error_with(&at, format!("unknown key `{name}` in [[{}]]", self.kind), help);
            }
        }
    }

    pub fn string(&self, sink: &mut Sink<'_>, key: &str) -> Option<Word> {
        let value = self.table.get(key)?;
        let word = self.word(value);
        if word.is_none() {
            self.wrong_type(sink, key, "a string", value);
        }
        word
    }

    pub fn flag(&self, sink: &mut Sink<'_>, key: &str) -> bool {
        let Some(value) = self.table.get(key) else { return false };
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(sink, key, "true or false", value);
        }
        flag.unwrap_or_default()
    }

    /// `None` if the key is absent. An empty list is an error: it would mean nothing, and is easily read as everything.
    pub fn strings(&self, sink: &mut Sink<'_>, key: &str) -> Option<Vec<Word>> {
        let value = self.table.get(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(sink, key, "a list of strings", value);
            return Some(Vec::new());
        };
        if items.is_empty() {
            let help = format!("leave `{key}` out, or name something");
            sink.error_with(&self.at_of(value.span()), format!("`{key}` is an empty list"), Some(help));
        }
        let mut words = Vec::new();
        for item in items {
            match self.word(item) {
                Some(word) => words.push(word),
                None => self.wrong_type(sink, key, "a list of strings", item),
            }
        }
        Some(words)
    }

    pub fn required_string(&self, sink: &mut Sink<'_>, key: &str) -> Option<Word> {
        self.require(sink, key);
        self.string(sink, key)
    }

    pub fn required_strings(&self, sink: &mut Sink<'_>, key: &str) -> Vec<Word> {
        self.require(sink, key);
        self.strings(sink, key).unwrap_or_default()
    }

    /// A key that is only misspelt is told of as such, once.
    fn require(&self, sink: &mut Sink<'_>, key: &str) {
        let is_misspelt = || self.table.keys().any(|written| did_you_mean(written.get_ref(), [key]).is_some());
        if !self.table.contains_key(key) && !is_misspelt() {
            sink.error(&self.at, format!("[[{}]] needs `{key}`", self.kind));
        }
    }

    fn word(&self, value: &Spanned<DeValue<'_>>) -> Option<Word> {
        let text = value.get_ref().as_str()?.to_owned();
        Some(Word { text, at: self.at_of(value.span()) })
    }

    fn wrong_type(&self, sink: &mut Sink<'_>, key: &str, wanted: &str, value: &Spanned<DeValue<'_>>) {
        let message = format!("`{key}` must be {wanted}, not {}", described(value.get_ref()));
        let help =
            (wanted == "a list of strings" && value.get_ref().is_str()).then(|| format!("write {key} = [\"…\"]"));
        sink.error_with(&self.at_of(value.span()), message, help);
    }

    fn at_of(&self, span: std::ops::Range<usize>) -> At {
        At { source: self.at.source, span }
    }
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `a`, `b`, `c`.
pub(super) fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
