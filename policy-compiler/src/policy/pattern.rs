//! Names with `*`: `customers`, `audit.*`, `public.tmp_*`, `"Odd Name"`.

use rkyv::{Archive, Deserialize, Serialize};

/// One name in which `*` stands for any run of characters. There is no other special character.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// The pieces between the stars: one piece is a plain name, `["a", "b"]` is `a*b`.
    pieces: Vec<String>,
}

/// `name` or `schema.name`, each part a [`Glob`]. Without a schema it stands for that name in any schema.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub schema: Option<Glob>,
    pub name: Glob,
}

/// One part of a dotted name as written, without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub text: String,
    pub quoted: bool,
}

/// What is wrong with a name, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError {
    pub message: String,
    pub suggestion: Option<String>,
}

impl Glob {
    fn of(part: &Part) -> Self {
        // A star inside quotes is a character of the name: SQL allows it.
        let pieces =
            if part.quoted { vec![part.text.clone()] } else { part.text.split('*').map(String::from).collect() };
        Self { pieces }
    }

    /// The name itself if there is no star in it.
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [name] => Some(name),
            _ => None,
        }
    }

    /// What every matching name starts with; the whole name if there is no star.
    pub fn prefix(&self) -> &str {
        self.pieces.first().map_or("", String::as_str)
    }

    /// Whether it is nothing but stars.
    pub fn is_any(&self) -> bool {
        self.pieces.len() > 1 && self.pieces.iter().all(String::is_empty)
    }

    pub fn matches(&self, name: &str) -> bool {
        let [first, middle @ .., last] = self.pieces.as_slice() else {
            return self.pieces.first().is_some_and(|only| only == name);
        };
        let Some(mut rest) = name.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str())) else {
            return false;
        };
        for piece in middle {
            // The leftmost place is always a right one: what follows only needs what is left.
            let Some(at) = rest.find(piece.as_str()) else { return false };
            rest = &rest[at + piece.len()..];
        }
        true
    }
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let parts = split_name(text)?;
        match parts.as_slice() {
            [name] => Ok(Self { schema: None, name: Glob::of(name) }),
            [schema, name] => Ok(Self { schema: Some(Glob::of(schema)), name: Glob::of(name) }),
            _ => Err(NameError::new(format!("`{text}` has {} parts; a name is `name` or `schema.name`", parts.len()))),
        }
    }

    /// `*` alone: any relation of any schema.
    pub fn is_any(&self) -> bool {
        self.name.is_any() && self.schema.as_ref().is_none_or(Glob::is_any)
    }
}

impl NameError {
    pub fn new(message: String) -> Self {
        Self { message, suggestion: None }
    }
}

/// Splits a dotted name; parts may stand in double quotes, doubled inside. Parts are never empty.
///
/// Unquoted capitals are refused: the server folds them, so the pattern would silently match nothing.
pub fn split_name(text: &str) -> Result<Vec<Part>, NameError> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = if rest.starts_with('"') { quoted_part(text, rest)? } else { plain_part(text, rest)? };
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err(NameError::new(format!("`{text}`: a dot must follow the closing quote"))),
        }
    }
}

fn quoted_part<'t>(whole: &str, rest: &'t str) -> Result<(Part, &'t str), NameError> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' if characters.next_if(|(_, next)| *next == '"').is_some() => text.push('"'),
            '"' if text.is_empty() => break,
            '"' => return Ok((Part { text, quoted: true }, &rest[at + 1..])),
            c => text.push(c),
        }
    }
    Err(NameError::new(format!("`{whole}`: a quoted name is empty or has no closing quote")))
}

fn plain_part<'t>(whole: &str, rest: &'t str) -> Result<(Part, &'t str), NameError> {
    let end = rest.find('.').unwrap_or(rest.len());
    let text = &rest[..end];
    if text.is_empty() {
        return Err(NameError::new(format!("`{whole}` has an empty part; a name is `name` or `schema.name`")));
    }
    if let Some(odd) = text.chars().find(|c| !(c.is_alphanumeric() || "_$*-".contains(*c))) {
        return Err(NameError::new(format!(
            "`{whole}`: `{odd}` cannot stand in a name; the only special character is `*`, other names need double quotes"
        )));
    }
    if text.chars().any(char::is_uppercase) {
        let message = format!("`{whole}` has capitals, which the server folds unless the name is quoted");
        return Err(NameError { message, suggestion: Some(whole.to_lowercase()) });
    }
    Ok((Part { text: text.to_owned(), quoted: false }, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let rows = [
            ("customers", "customers", true),
            ("customers", "customers2", false),
            ("*", "", true),
            ("*", "x", true),
            ("tmp_*", "tmp_", true),
            ("tmp_*", "tmp", false),
            ("*_log", "a_log", true),
            ("*_log", "a_logs", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "axxbxxc", true),
            ("a*b*c", "acb", false),
            ("a*b*b", "ab", false),
            ("*a*", "bab", true),
            ("*a*a*", "bab", false),
            ("\"*\"", "*", true),
            ("\"*\"", "x", false),
        ];
        for (pattern, name, expected) in rows {
            let glob = Pattern::parse(pattern).expect(pattern).name;
            assert_eq!(glob.matches(name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn names_that_cannot_match_are_refused() {
        for (text, expected) in [
            ("", "empty part"),
            ("audit.", "empty part"),
            (".x", "empty part"),
            ("a.b.c", "3 parts"),
            ("tmp_?", "`?` cannot stand"),
            ("tmp [a]", "cannot stand"),
            ("Customers", "capitals"),
            ("\"", "no closing quote"),
            ("\"\"", "empty"),
            ("\"a\"b", "a dot must follow"),
        ] {
            let error = Pattern::parse(text).expect_err(text);
            assert!(error.message.contains(expected), "{text}: {}", error.message);
        }
    }

    #[test]
    fn quoted_parts_keep_capitals_dots_and_doubled_quotes() {
        let pattern = Pattern::parse("\"A.b\".\"C\"\"d\"").expect("a quoted pattern");
        assert!(pattern.schema.expect("a schema").matches("A.b"));
        assert!(pattern.name.matches("C\"d"));
    }
}
