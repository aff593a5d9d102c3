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
mod queries;
pub mod server;
mod settings;
mod tree;
mod utility;
mod walk;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod keywords;
#[cfg(test)]
mod tests;

use self::server::Server;
use super::{AnalyseError, Analysis, Effect, Statement};

/// Longest text analysed, in bytes: who asks may have a lower bound of his own (`limits.statement_bytes_max`).
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// What an analysis may cost: steps of the walk, each of some tens of nanoseconds, counted the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub steps: u32,
}

impl Budget {
    /// For a text that is judged on the shard itself: a millisecond or two.
    pub const INLINE: Self = Self { steps: 20_000 };
    /// For the analyser thread: some tenths of a second. An INSERT of 1 MiB takes about a tenth of it.
    pub const ANALYSER: Self = Self { steps: 4_000_000 };
}

/// What a text would do on the newest server, to which nobody has added anything. See [`analyse_for`].
///
/// # Errors
/// As [`analyse_for`].
pub fn analyse(text: &str) -> Result<Analysis, AnalyseError> {
    analyse_for(text, Server::NEWEST, Budget::ANALYSER)
}

/// What a text would do on a server. It runs on the caller's thread, which needs 2 MiB of stack, when the text cannot nest
/// deeply; else on a short-lived thread of its own with 64 MiB (about 50 µs more).
///
/// # Errors
/// See [`AnalyseError`]. A text that nests deeper than the grammar's library or [`tree::LEVELS_MAX`] bears is a
/// `Syntax` error.
pub fn analyse_for(text: &str, server: Server<'_>, budget: Budget) -> Result<Analysis, AnalyseError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(AnalyseError::TooLong { bytes: text.len(), max: TEXT_BYTES_MAX });
    }
    if text.as_bytes().contains(&0) {
        return Err(AnalyseError::Encoding("the text holds a NUL byte; remove it"));
    }
    match depth::bound(text) {
        bound if bound <= depth::INLINE_MAX => analyse_here(text, server, budget),
        _ => depth::on_deep_stack(|| analyse_here(text, server, budget)),
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

fn analyse_here(text: &str, server: Server<'_>, budget: Budget) -> Result<Analysis, AnalyseError> {
    let parsed = parse(text)?;
    let mut statements = Vec::with_capacity(parsed.stmts.len());
    let mut steps = budget.steps;
    for raw in &parsed.stmts {
        let Some(node) = raw.stmt.as_deref() else { continue };
        statements.push(match tree::build(node) {
            Ok(tree) => {
                let statement = walk::statement(&tree, server, &mut steps);
                statement.ok_or(AnalyseError::TooComplex { steps: budget.steps })?
            }
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

/// Longest text, in bytes, and most places in it that are tried.
const SOUGHT_BYTES_MAX: usize = 16 * 1024;
const PLACES_MAX: usize = 32;

/// Where the grammar stumbled, in characters from 1. The library drops the place but the message names the token: it is the
/// first of its kind up to which the text alone gives the same message.
fn stumbled_at(text: &str, message: &str) -> Option<usize> {
    let characters = |bytes: usize| text.get(..bytes).map(|before| before.chars().count() + 1);
    if message.ends_with("at end of input") {
        return characters(text.len());
    }
    let named = message.split_once("at or near \"")?.1.strip_suffix('"')?;
    if text.len() > SOUGHT_BYTES_MAX {
        return None;
    }
    let stumbles = |at: usize| {
        let before = text.get(..at + named.len())?;
        matches!(grammar(before), Ok(Err(pg_query::Error::Parse(same))) if same == message).then_some(at)
    };
    let places = text.match_indices(named).map(|(at, _)| at).filter(|at| !is_cut(text, *at + named.len()));
    characters(places.take(PLACES_MAX).find_map(stumbles)?)
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
