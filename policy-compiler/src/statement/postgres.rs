//! PostgreSQL: the text goes through the server's own grammar (libpg_query, PostgreSQL 18), then one walk over the
//! tree collects what it would do.
//!
//! Nested statements count as if they stood alone: a DELETE inside a CTE, an EXPLAIN ANALYZE or a COPY is a DELETE.
//! Unqualified names of functions, operators and types are taken for those of `pg_catalog`, because the server looks there
//! first, unless users have added one of the same name anywhere: then it is a call of theirs (see [`server`]). A session
//! that puts another schema before `pg_catalog` in its search_path is guarded by the policy: `settings` shows the change.

pub mod complaint;
mod copy;
mod depth;
mod expressions;
pub mod foreign;
mod from;
mod functions;
mod guards;
mod kinds;
mod lineage;
mod names;
mod pieces;
mod queries;
mod runs;
pub mod server;
mod settings;
mod tokens;
mod tree;
mod utility;
mod walk;
mod weight;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod keywords;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::server::Server;
use super::{AnalyseError, Analysis, Budget, Effect, Statement};

/// Longest text analysed, in bytes: who asks may have a lower bound of his own (`limits.statement_bytes_max`).
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// What a text would do on the newest server, to which nobody has added anything. See [`analyse_for`].
///
/// # Errors
/// As [`analyse_for`].
pub fn analyse(text: &str) -> Result<Analysis, AnalyseError> {
    analyse_for(text, Server::NEWEST, Budget::ANALYSER)
}

/// What a text would do on a server. It runs on the caller's thread, which needs 2 MiB of stack, when the text is short and
/// cannot nest deeply; else on a short-lived thread of its own with 64 MiB (about 50 µs more).
///
/// # Errors
/// See [`AnalyseError`]. A text that nests deeper than the grammar's library or [`tree::LEVELS_MAX`] bears is a
/// `Syntax` error.
pub fn analyse_for(text: &str, server: Server<'_>, budget: Budget) -> Result<Analysis, AnalyseError> {
    within(text, server, budget, &mut budget.steps.clone())
}

/// As [`analyse_for`]; the steps that it takes are taken off `steps`.
fn within(text: &str, server: Server<'_>, budget: Budget, steps: &mut u32) -> Result<Analysis, AnalyseError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(AnalyseError::TooLong { bytes: text.len(), max: TEXT_BYTES_MAX });
    }
    if text.as_bytes().contains(&0) {
        return Err(AnalyseError::Encoding("the text holds a NUL byte; remove it"));
    }
    if depth::bound(text) > budget.levels {
        return Err(AnalyseError::Budget { what: "levels", max: budget.levels });
    }
    if weight::of(text) <= budget.tree_bytes {
        return analyse_whole(text, server, steps);
    }
    match pieces::of(text) {
        pieces if budget.piecemeal && pieces.len() > 1 => {
            let budget = Budget { piecemeal: false, ..budget };
            pieces::analyse_each(text, pieces, |piece| within(piece, server, budget, steps))
        }
        _ => analyse_shortened(text, server, budget, steps),
    }
}

/// The middle of a list of constants says nothing, where it is proved that constants do not matter.
fn analyse_shortened(
    text: &str,
    server: Server<'_>,
    budget: Budget,
    steps: &mut u32,
) -> Result<Analysis, AnalyseError> {
    let too_large = || AnalyseError::Budget { what: weight::PARTS, max: weight::parts(budget.tree_bytes) };
    match runs::shorten(text) {
        Cow::Owned(short) if weight::of(&short) <= budget.tree_bytes => {
            let analysis = analyse_whole(&short, server, steps).map_err(AnalyseError::without_position)?;
            let is_plain = analysis.statements.iter().all(|statement| statement.literals_are_plain);
            if is_plain { Ok(analysis) } else { Err(too_large()) }
        }
        _ => Err(too_large()),
    }
}

/// As [`analyse_for`], for bytes off the wire.
///
/// # Errors
/// [`AnalyseError::Encoding`] for a NUL byte or bytes that are not UTF-8, else as [`analyse_for`].
pub fn analyse_bytes(text: &[u8], server: Server<'_>, budget: Budget) -> Result<Analysis, AnalyseError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(AnalyseError::TooLong { bytes: text.len(), max: TEXT_BYTES_MAX });
    }
    match std::str::from_utf8(text) {
        Ok(text) => {
            let analyse = |text: &str| analyse_for(text, server, budget);
            foreign::guarded(text, analyse(text), analyse)
        }
        Err(_) => Err(AnalyseError::Encoding("the text is not UTF-8; set client_encoding to UTF8")),
    }
}

/// Longer texts have a thread of their own too: what malloc keeps for a thread goes back to the system with it, and not before.
const SHARED_THREAD_BYTES_MAX: usize = 16 * 1024;

fn analyse_whole(text: &str, server: Server<'_>, steps: &mut u32) -> Result<Analysis, AnalyseError> {
    match depth::bound(text) {
        bound if bound <= depth::INLINE_MAX && text.len() <= SHARED_THREAD_BYTES_MAX => {
            analyse_here(text, server, steps)
        }
        _ => depth::on_deep_stack(|| analyse_here(text, server, steps)),
    }
}

fn analyse_here(text: &str, server: Server<'_>, steps: &mut u32) -> Result<Analysis, AnalyseError> {
    let max = *steps as usize;
    let parsed = parse(text)?;
    let mut statements = Vec::with_capacity(parsed.stmts.len());
    for raw in parsed.stmts {
        let Some(node) = raw.stmt else { continue };
        let tree = tree::build(&node);
        // Both forms at once are dear, and the walk needs ours alone.
        drop(node);
        statements.push(match tree {
            Ok(tree) => walk::statement(&tree, server, steps).ok_or(AnalyseError::Budget { what: "steps", max })?,
            Err(why) => refused(why),
        });
    }
    Ok(Analysis { statements })
}

/// A panic of the library, or what its grammar says.
fn grammar(text: &str) -> std::thread::Result<pg_query::Result<pg_query::ParseResult>> {
    std::panic::catch_unwind(|| pg_query::parse(text, pg_query::ParserOptions::DEFAULT))
}

/// `pg_query` reads more out of the tree than asked and panics on names that it does not expect; such a text is refused.
fn parse(text: &str) -> Result<pg_query::protobuf::ParseResult, AnalyseError> {
    match grammar(text) {
        Ok(Ok(parsed)) => Ok(parsed.protobuf),
        Ok(Err(pg_query::Error::Parse(message))) => {
            let position = stumbled_at(text, &message);
            Err(AnalyseError::Syntax { message, position })
        }
        Ok(Err(other)) => Err(AnalyseError::Syntax { message: other.to_string(), position: None }),
        Err(_) => {
            let message = "the statement's tree cannot be read; write it another way".to_owned();
            Err(AnalyseError::Syntax { message, position: None })
        }
    }
}

/// Bytes that are parsed again, in all, to find the place: what is refused must not cost more than what is judged.
const SOUGHT_BYTES_MAX: usize = 8 * 1024;
/// What each try costs beside its bytes.
const PLACE_BYTES: usize = 512;

/// Where the grammar stumbled, in characters from 1. The library drops the place but the message names the token: it is the
/// first of its kind up to which the text alone gives the same message.
fn stumbled_at(text: &str, message: &str) -> Option<usize> {
    let characters = |bytes: usize| text.get(..bytes).map(|before| before.chars().count() + 1);
    if message.ends_with("at end of input") {
        return characters(text.len());
    }
    let named = message.split_once("at or near \"")?.1.strip_suffix('"')?;
    let mut left = SOUGHT_BYTES_MAX;
    let mut stumbles = |at: usize| {
        let before = text.get(..at + named.len())?;
        left = left.checked_sub(before.len() + PLACE_BYTES)?;
        matches!(grammar(before), Ok(Err(pg_query::Error::Parse(same))) if same == message).then_some(at)
    };
    let places = text.match_indices(named).map(|(at, _)| at).filter(|at| !is_cut(text, *at + named.len()));
    characters(places.take(SOUGHT_BYTES_MAX / PLACE_BYTES).find_map(&mut stumbles)?)
}

/// The text goes on behind this place with the same word.
fn is_cut(text: &str, at: usize) -> bool {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    text[..at].ends_with(is_of_word) && text[at..].starts_with(is_of_word)
}

fn refused(why: String) -> Statement {
    let effects = super::EffectSet::of(&[Effect::Opaque]);
    Statement { tag: "UNKNOWN".to_owned(), effects, opaque: Some(why), ..Statement::default() }
}
