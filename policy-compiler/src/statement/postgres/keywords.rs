//! Words that are not the same to the grammars of servers 15 to 18.
//!
//! Texts are read by the grammar of 18. Where a word is reserved there and a plain name to an older server, the two see
//! different statements: `SYSTEM_USER` is a call to one and a column to the other. Tests hold by this list that the walk
//! judges none of them by the newest reading (`FORMS` in `expressions.rs`, versions in `functions.txt`).

use std::collections::HashMap;
use std::sync::LazyLock;

use super::server::Version;

/// One word a line, see the head of the file.
const TABLE: &str = include_str!("keywords.txt");

/// What a grammar allows a word to be beside a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// No keyword.
    Absent,
    /// Any name.
    Unreserved,
    /// The name of a column, not of a function or a type.
    ColumnName,
    /// The name of a function or a type, not of a column.
    TypeOrFunctionName,
    /// No name, unless it is quoted.
    Reserved,
}

impl Category {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "-" => Self::Absent,
            "U" => Self::Unreserved,
            "C" => Self::ColumnName,
            "T" => Self::TypeOrFunctionName,
            "R" => Self::Reserved,
            _ => return None,
        })
    }
}

static WORDS: LazyLock<HashMap<&'static str, Vec<Category>>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    lines.map(|(word, categories)| (word, categories.split(' ').filter_map(Category::parse).collect())).collect()
});

/// The category of a word in lower case; `None` if it is the same on all servers.
pub fn category(version: Version, word: &str) -> Option<Category> {
    WORDS.get(word)?.get(version as usize).copied()
}

pub fn words() -> impl Iterator<Item = &'static str> {
    WORDS.keys().copied()
}

/// Whether the word means more to the grammar of 18, which reads the text, than to that of the server, which runs it.
pub fn differs(version: Version, word: &str) -> bool {
    let newest = category(Version::V18, word);
    let meant = !matches!(newest, None | Some(Category::Absent | Category::Unreserved));
    meant && category(version, word) != newest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the servers say, compared with them by tests/e2e/catalogues.rs.
    const SERVERS: &str = include_str!("../../../../tests/corpus/postgres/pg_keywords.txt");

    #[test]
    fn the_table_has_each_word_whose_category_differs_between_servers() {
        let mut differing = 0;
        for line in SERVERS.lines().filter(|line| !line.starts_with('#')) {
            let (word, categories) = line.split_once(' ').expect("a word and its categories");
            let same = categories.chars().all(|c| categories.starts_with(c));
            differing += usize::from(!same);
            for (version, written) in Version::ALL.into_iter().zip(categories.chars()) {
                let expected = Category::parse(&written.to_string()).filter(|_| !same);
                assert_eq!(category(version, word), expected, "{word} in {version:?}");
            }
        }
        assert_eq!(differing, WORDS.len());
    }

    #[test]
    fn a_word_that_only_the_newest_grammar_takes_for_more_than_a_name_differs() {
        use Version::{V15, V16, V17, V18};
        for (word, versions) in [
            ("system_user", &[V15][..]),
            ("json_object", &[V15]),
            ("merge_action", &[V15, V16]),
            ("json_table", &[V15, V16]),
            ("json", &[V15, V16]),
            ("virtual", &[]),
            ("recheck", &[]),
            ("select", &[]),
            ("orders", &[]),
        ] {
            let found: Vec<Version> = [V15, V16, V17, V18].into_iter().filter(|v| differs(*v, word)).collect();
            assert_eq!(found, versions, "{word}");
        }
    }
}
