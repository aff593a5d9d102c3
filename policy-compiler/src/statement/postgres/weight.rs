//! What the tree of a text takes in memory, at most, told from its tokens before there is a tree.
//!
//! The library's C tree, its protobuf form, the decoded form and ours are there at the same time. What a token adds to them all
//! was measured (`tests/e2e/exhaustion.rs` holds it): the dearest is a bare column in a list, with a node for the reference and
//! one for the name in each form.

use super::tokens::{Kind, Token, Tokens};

const NAME_BYTES: usize = 3_600;
const OPERATOR_BYTES: usize = 1_600;
const CONSTANT_BYTES: usize = 1_200;
/// Brackets, commas, dots, and words that are none but the grammar's.
const MARK_BYTES: usize = 400;

/// Reserved words that are frequent: none is a name unless a dot or AS stands before it.
const WORDS: [&str; 32] = [
    "select", "from", "where", "and", "or", "not", "as", "on", "in", "is", "null", "join", "left", "inner", "order",
    "by", "group", "insert", "into", "values", "update", "set", "delete", "case", "when", "then", "else", "end",
    "union", "all", "like", "create",
];

/// What is too much of, when it is.
pub const PARTS: &str = "parts (a name counts one, an operator half, a constant a third, a sign a ninth)";

/// Bytes, at most.
pub fn of(text: &str) -> usize {
    text.len() + Tokens::of(text).map(|token| cost(text, token)).sum::<usize>()
}

/// As many parts fit into so many bytes.
pub fn parts(bytes: usize) -> usize {
    bytes / NAME_BYTES
}

fn cost(text: &str, token: Token) -> usize {
    match token.kind {
        Kind::Word if WORDS.iter().any(|word| word.eq_ignore_ascii_case(&text[token.from..token.to])) => MARK_BYTES,
        Kind::Word => NAME_BYTES,
        Kind::Number | Kind::String => CONSTANT_BYTES,
        Kind::Sign | Kind::Parameter | Kind::Other => OPERATOR_BYTES,
        Kind::Comma | Kind::Open | Kind::Close | Kind::Mark | Kind::Semicolon => MARK_BYTES,
    }
}
