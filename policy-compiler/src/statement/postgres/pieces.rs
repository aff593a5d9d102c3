//! A text of many statements, analysed one after the other, so that their trees are not there at once: a migration that a tool
//! sends as one Query.
//!
//! A semicolon outside brackets ends a statement, with one exception: the body of a function between BEGIN ATOMIC and END. A
//! text with that word stays whole.

use super::super::{AnalyseError, Analysis};
use super::tokens::{Kind, Tokens};

/// Where each statement begins and ends, its semicolon left out. One piece if it is not sure.
pub fn of(text: &str) -> Vec<(usize, usize)> {
    let (mut pieces, mut from, mut depth) = (Vec::new(), 0, 0_usize);
    for token in Tokens::of(text) {
        match token.kind {
            Kind::Word if text[token.from..token.to].eq_ignore_ascii_case("atomic") => return vec![(0, text.len())],
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            Kind::Semicolon if depth == 0 => {
                pieces.push((from, token.from));
                from = token.to;
            }
            _ => {}
        }
    }
    pieces.push((from, text.len()));
    pieces
}

/// # Errors
/// Of the first piece that has one, as it would be of the whole text.
pub fn analyse_each(
    text: &str,
    pieces: Vec<(usize, usize)>,
    mut analyse: impl FnMut(&str) -> Result<Analysis, AnalyseError>,
) -> Result<Analysis, AnalyseError> {
    let mut whole = Analysis::default();
    for (from, to) in pieces {
        let piece = analyse(&text[from..to]).map_err(|error| of_whole(error, text, from, to))?;
        whole.statements.extend(piece.statements);
    }
    Ok(whole)
}

/// The library did not see what stands before and behind the piece.
fn of_whole(error: AnalyseError, text: &str, from: usize, to: usize) -> AnalyseError {
    let AnalyseError::Syntax { message, position } = error else { return error };
    let before = text[..from].chars().count();
    let message = match message.strip_suffix("at end of input") {
        Some(words) if to < text.len() => format!("{words}at or near \";\""),
        _ => message,
    };
    AnalyseError::Syntax { message, position: position.map(|position| position + before) }
}

#[cfg(test)]
mod tests {
    use super::super::analyse;
    use super::*;

    /// Each text is analysed whole, and in pieces.
    #[test]
    fn a_text_in_pieces_is_analysed_as_it_is_whole() {
        for text in [
            "select 1; insert into t values (';'); update t set a = 1",
            ";; select ';', $$;$$, \";\" from t /* ; */ ; -- ;\n ; drop table t;",
            "create rule r as on insert to t do (select 1; delete from t); select 2",
            "create function f() returns int begin atomic select 1; select 2; end; drop table t",
            "create function f() returns int language sql as $$ select 1; select 2 $$; drop table t",
            "begin; select 1; end; commit",
            "select 'é'; selec 1; select 2",
            "select 1; select a from; drop table t",
            "select 1; select (a; drop table t",
            "select a) ; drop table t",
            "select 1; select a from",
            "select 1 ] ; drop table t; select [",
        ] {
            assert_eq!(analyse_each(text, of(text), analyse), analyse(text), "{text}");
        }
    }
}
