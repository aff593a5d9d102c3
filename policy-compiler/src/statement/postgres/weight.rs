//! What the tree of a text takes in memory, at most, told from its tokens before there is a tree.
//!
//! The library's C tree, its protobuf form, the decoded form and ours are there at the same time. What a token adds to them all
//! was measured (`tests/budget` holds it): the dearest is a bare column in a list, with a node for the reference and one for the
//! name in each form.

use super::tokens::{Kind, Tokens};

/// A bare name.
const WORD_BYTES: usize = 3_600;
const CONSTANT_BYTES: usize = 1_200;
/// Brackets, commas, operators.
const MARK_BYTES: usize = 400;

/// Bytes, at most.
pub fn of(text: &str) -> usize {
    text.len() + Tokens::of(text).map(|token| cost(token.kind)).sum::<usize>()
}

/// What is too much of, when it is.
pub const PARTS: &str = "parts (a name counts one, a constant a third, a sign a ninth)";

/// As many parts fit into so many bytes.
pub fn parts(bytes: usize) -> usize {
    bytes / WORD_BYTES
}

fn cost(kind: Kind) -> usize {
    match kind {
        Kind::Word => WORD_BYTES,
        Kind::Number | Kind::String => CONSTANT_BYTES,
        Kind::Comma | Kind::Open | Kind::Close | Kind::Sign | Kind::Other => MARK_BYTES,
    }
}
