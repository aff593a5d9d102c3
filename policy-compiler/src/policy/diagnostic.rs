//! Errors with their place in the text, as rustc shows them.

use std::fmt;
use std::ops::Range;

/// One policy file: the name that messages show, and its text.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// What is wrong, where, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
    /// What to write or do instead.
    pub suggestion: Option<String>,
    /// The line of the text, for the excerpt.
    #[serde(skip)]
    excerpt: String,
    /// Characters to underline, at least 1.
    #[serde(skip)]
    width: usize,
}

/// A place: which source, and which bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    pub source: usize,
    pub span: Range<usize>,
}

/// Collects all errors of a run, so that one run shows them all.
pub(super) struct Sink<'s> {
    pub sources: &'s [Source],
    pub found: Vec<Diagnostic>,
    /// Where the lines of each source start: counting them again for each section or error would take minutes for large texts.
    line_starts: Vec<Vec<usize>>,
}

impl Diagnostic {
    /// An error about a file as a whole: it cannot be read, or there is none.
    pub fn about_file(file: &str, message: String, suggestion: Option<String>) -> Self {
        Self { file: file.to_owned(), line: 1, column: 1, message, suggestion, excerpt: String::new(), width: 1 }
    }

    pub(crate) fn new(source: &Source, span: &Range<usize>, message: String, suggestion: Option<String>) -> Self {
        Self::at(source, &line_starts(source), span, message, suggestion)
    }

    fn at(source: &Source, starts: &[usize], span: &Range<usize>, message: String, help: Option<String>) -> Self {
        let Source { name, text } = source;
        let at = if text.is_char_boundary(span.start) { span.start } else { text.len() };
        let line = starts.partition_point(|start| *start <= at);
        let start = starts[line - 1];
        let excerpt = text[start..].lines().next().unwrap_or_default().to_owned();
        let column = text[start..at].chars().count() + 1;
        let underlined = text.get(span.clone()).unwrap_or_default();
        let width = underlined.lines().next().unwrap_or_default().chars().count().max(1);
        Self { file: name.clone(), line, column, message, suggestion: help, excerpt, width }
    }
}

impl<'s> Sink<'s> {
    pub fn new(sources: &'s [Source]) -> Self {
        Self { sources, found: Vec::new(), line_starts: sources.iter().map(line_starts).collect() }
    }

    pub fn error(&mut self, at: &At, message: impl Into<String>) {
        self.error_with(at, message, None);
    }

    pub fn error_with(&mut self, at: &At, message: impl Into<String>, suggestion: Option<String>) {
        let (source, starts) = (&self.sources[at.source], &self.line_starts[at.source]);
        self.found.push(Diagnostic::at(source, starts, &at.span, message.into(), suggestion));
    }

    /// From 1.
    pub fn line(&self, at: &At) -> u32 {
        let line = self.line_starts[at.source].partition_point(|start| *start <= at.span.start);
        u32::try_from(line).unwrap_or(u32::MAX)
    }
}

fn line_starts(source: &Source) -> Vec<usize> {
    std::iter::once(0).chain(source.text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "{margin}--> {}:{}:{}", self.file, self.line, self.column)?;
        if !self.excerpt.is_empty() {
            // Tabs stay tabs, so that the caret stands under the same place at any tab width.
            let indent: String =
                self.excerpt.chars().take(self.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
            writeln!(f, "{margin} |\n{number} | {}\n{margin} | {indent}{}", self.excerpt, "^".repeat(self.width))?;
        }
        match &self.suggestion {
            Some(suggestion) => writeln!(f, "{margin} = help: {suggestion}"),
            None => Ok(()),
        }
    }
}

/// `did you mean …?` if one of `known` is near enough to `word`.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (word.chars().count() / 3).max(1);
    let near = known.into_iter().map(|name| (distance(word, name), name)).filter(|(d, _)| *d <= limit).min()?;
    Some(format!("did you mean `{}`?", near.1))
}

/// Edits from one word to the other: insert, delete, replace a character, or swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for j in 0..=b.len() {
        rows[0][j] = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            rows[i][j] = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        for (word, expected) in [
            ("efects", Some("did you mean `effects`?")),
            ("effcets", Some("did you mean `effects`?")),
            ("Effects", Some("did you mean `effects`?")),
            ("relation", Some("did you mean `relations`?")),
            ("colour", None),
        ] {
            assert_eq!(did_you_mean(word, ["effects", "relations", "to"]).as_deref(), expected, "{word}");
        }
    }

    fn shown(source: Source, span: Range<usize>, suggestion: Option<String>) -> String {
        let sources = [source];
        let mut sink = Sink::new(&sources);
        sink.error_with(&At { source: 0, span }, "bad", suggestion);
        sink.found[0].to_string()
    }

    #[test]
    fn a_text_that_is_wrong_in_each_line_is_told_of_in_time() {
        let text = "=\n".repeat(100_000);
        let found = crate::policy::check(&[Source { name: "p.toml".into(), text }]).expect_err("no TOML");
        assert!(found.len() >= 100_000);
        assert_eq!((found[99_999].line, found[99_999].column), (100_000, 1));
    }

    #[test]
    fn the_caret_stands_under_the_span() {
        let source = Source { name: "p.toml".into(), text: "a = 1\nü = \"xyz\"\n".into() };
        let start = source.text.find("\"xyz").expect("the word");
        let shown = shown(source, start..start + 5, Some("mend it".into()));
        let expected = "error: bad\n --> p.toml:2:5\n  |\n2 | ü = \"xyz\"\n  |     ^^^^^\n  = help: mend it\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn spans_outside_the_text_do_not_panic() {
        let source = Source { name: "p.toml".into(), text: "ü".into() };
        for span in [1..1, 0..9, 9..9, 5..2] {
            let shown = shown(source.clone(), span.clone(), None);
            assert!(shown.starts_with("error: bad\n"), "{span:?}");
        }
    }
}
