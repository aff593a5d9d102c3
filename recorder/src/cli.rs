//! What the commands `sessions`, `replay` and `verify` do. They print to `out`, complain to standard error, and give the
//! process's exit code: 0 all well, 1 something is wrong with the evidence, 2 it could not be looked at.

use std::io::{self, Write};
use std::path::Path;

use crate::catalog::{self, Session, catalog};
use crate::checkpoint::{PUBLIC_KEY_FILE_NAME, read_public_key};
use crate::evidence::Damage;
use crate::replay::{self, Options, text};
use crate::session::SessionId;
use crate::verify::{Outcome, verify as check};

const OK: u8 = 0;
const WRONG: u8 = 1;
const FAILED: u8 = 2;

/// How to list sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listing {
    /// One JSON object a line instead of a table.
    pub json: bool,
    /// Only logins that were refused.
    pub refused: bool,
}

/// Lists the sessions of a directory.
pub fn sessions(directory: &Path, listing: Listing, out: &mut dyn Write) -> u8 {
    let listed = catalog(directory).and_then(|mut catalog| {
        catalog.sessions.retain(|session| !listing.refused || session.refused.is_some());
        match listing.json {
            true => print_json(&catalog.sessions, catalog.refused_counted, out)?,
            false => print_table(&catalog.sessions, catalog.refused_counted, out)?,
        }
        Ok(complain_of_damage(&catalog.damage))
    });
    exit_code(directory, listed)
}

/// Shows one session, named `s_…`.
pub fn replay(directory: &Path, id: &str, options: Options, out: &mut dyn Write) -> u8 {
    let Some(id) = SessionId::parse(id) else {
        eprintln!("{:?} is no session: write s_ and hexadecimal digits, as `sessions` lists them", id);
        return FAILED;
    };
    let shown = replay::replay(directory, id, options, out);
    if let Ok(shown) = &shown
        && shown.records == 0
    {
        complain_of_damage(&shown.damage);
        eprintln!("{}: there is no session {id}; `sessions` lists those there are", directory.display());
        return FAILED;
    }
    exit_code(directory, shown.map(|shown| complain_of_damage(&shown.damage)))
}

/// Checks a directory. `name`: only a segment (`0000000001.seg`) or the checkpoints file is of interest. `public_key`: a
/// copy of the key that was kept elsewhere; without one the key in the directory is believed.
pub fn verify(directory: &Path, name: Option<&str>, public_key: Option<&Path>, json: bool, out: &mut dyn Write) -> u8 {
    let own_key = directory.join(PUBLIC_KEY_FILE_NAME);
    let key = match read_public_key(public_key.unwrap_or(&own_key)) {
        Ok(key) => key,
        Err(error) => {
            eprintln!("{}: {error}: name the public key", public_key.unwrap_or(&own_key).display());
            return FAILED;
        }
    };
    if let Some(name) = name.filter(|name| !directory.join(name).is_file()) {
        eprintln!("{}: there is no file {name:?}; leave the name out to check all", directory.display());
        return FAILED;
    }
    let checked = check(directory, &key).and_then(|mut outcome| {
        outcome.problems.retain(|problem| name.is_none_or(|name| name == problem.file));
        if public_key.is_none() {
            outcome
                .notes
                .push("the key in the directory itself was believed; bring a copy that was kept elsewhere".into());
        }
        print_outcome(&outcome, json, out)?;
        Ok(if outcome.problems.is_empty() { OK } else { WRONG })
    });
    exit_code(directory, checked)
}

fn print_outcome(outcome: &Outcome, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", serde_json::to_string(outcome).map_err(io::Error::other)?);
    }
    let Outcome { segments, blocks, records, checkpoints, problems, notes } = outcome;
    for problem in problems {
        writeln!(out, "WRONG  {}", text::escape(&problem.to_string()))?;
    }
    for note in notes {
        writeln!(out, "note   {}", text::escape(note))?;
    }
    let verdict = if problems.is_empty() { "OK" } else { "NOT OK" };
    let counts = [
        (*segments, "segment"),
        (*blocks, "block"),
        (*records, "record"),
        (*checkpoints, "checkpoint"),
        (problems.len() as u64, "problem"),
    ];
    let counts = counts.map(|(count, noun)| format!("{count} {noun}{}", if count == 1 { "" } else { "s" }));
    writeln!(out, "{verdict}: {}", counts.join(", "))
}

fn print_json(sessions: &[Session], refused_counted: u64, out: &mut dyn Write) -> io::Result<()> {
    for session in sessions {
        let line = serde_json::to_string(session).map_err(io::Error::other)?;
        writeln!(out, "{}", replay::escape_json(&line))?;
    }
    match refused_counted {
        0 => Ok(()),
        count => {
            writeln!(out, "{}", serde_json::json!({"session": SessionId(0).to_string(), "refused_counted": count}))
        }
    }
}

/// The column of actors; it is shown only where somebody acts for somebody.
const ACTOR: usize = 3;

fn print_table(sessions: &[Session], refused_counted: u64, out: &mut dyn Write) -> io::Result<()> {
    let head =
        ["SESSION", "STARTED", "SUBJECT", "ACTOR", "ROLES", "RESOURCE", "STATEMENTS", "BLOCKED", "DURATION", "STATE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(sessions.iter().map(|session| narrow(row(session).to_vec())));
    if sessions.iter().all(|session| session.actors.is_empty()) {
        rows.iter_mut().for_each(|row| _ = row.remove(ACTOR));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    match refused_counted {
        0 => Ok(()),
        count => writeln!(out, "{count} more refused logins were counted and not recorded one by one: replay s_0"),
    }
}

/// A cell shows no more, since names come from tokens and clients; the last one, which widens no other, says why a login was
/// refused. `--json` has all of them whole.
const CELL_CHARACTERS_MAX: usize = 40;
const LAST_CELL_CHARACTERS_MAX: usize = 160;

fn narrow(mut row: Vec<String>) -> Vec<String> {
    let last = row.len() - 1;
    for (column, cell) in row.iter_mut().enumerate() {
        cut(cell, if column == last { LAST_CELL_CHARACTERS_MAX } else { CELL_CHARACTERS_MAX });
    }
    row
}

/// What is too long keeps its beginning and its end.
fn cut(cell: &mut String, characters_max: usize) {
    let count = cell.chars().count();
    if count > characters_max {
        let tail = characters_max / 3;
        let head = cell.chars().take(characters_max - 1 - tail);
        *cell = head.chain(['…']).chain(cell.chars().skip(count - tail)).collect();
    }
}

fn row(session: &Session) -> [String; 10] {
    let duration_ms = session.duration_ns() / 1_000_000;
    [
        session.session.clone(),
        text::utc(session.started_unix_ns),
        claimed(session, "user").unwrap_or_else(|| text::escape(&session.subject)),
        text::escape(&session.actors.join(",")),
        text::escape(&session.roles.join(",")),
        claimed(session, "database").unwrap_or_else(|| text::escape(&session.resource)),
        session.statements.to_string(),
        session.blocked.to_string(),
        format!("{}.{:03}s", duration_ms / 1000, duration_ms % 1000),
        state(session),
    ]
}

/// A name that nobody has proved, in parentheses.
fn claimed(session: &Session, name: &str) -> Option<String> {
    let note = session.refused.as_ref()?;
    Some(format!("({})", text::escape(&catalog::text(note, name))))
}

fn state(session: &Session) -> String {
    match (&session.refused, &session.closed) {
        (Some(note), _) => {
            let (reason, client) = (catalog::text(note, "reason"), catalog::text(note, "client"));
            text::escape(&format!("refused: {reason} (from {client})"))
        }
        (None, Some(reason)) => format!("closed: {}", text::escape(reason)),
        (None, None) => "open".to_owned(),
    }
}

fn complain_of_damage(damage: &[Damage]) -> u8 {
    for place in damage {
        eprintln!("{}; run verify", text::escape(&place.to_string()));
    }
    if damage.is_empty() { OK } else { WRONG }
}

fn exit_code(directory: &Path, result: io::Result<u8>) -> u8 {
    match result {
        Ok(code) => code,
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => OK,
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_widens_the_table_and_json_has_it_whole() {
        let long = format!("spiffe://acme.example/{}/nightly", "x".repeat(40_000));
        let session = |id: &str, subject: &str| Session {
            session: id.to_owned(),
            started_unix_ns: 0,
            last_unix_ns: 0,
            subject: subject.to_owned(),
            actors: vec![long.clone()],
            roles: vec![long.clone()],
            resource: long.clone(),
            protocol: "postgres".to_owned(),
            statements: 0,
            blocked: 0,
            closed: Some(long.clone()),
            open: serde_json::Value::Null,
            refused: None,
        };
        let sessions = [session("s_1", &long), session("s_2", "ann")];
        let mut out = Vec::new();
        print_table(&sessions, 0, &mut out).expect("a table");
        let table = String::from_utf8(out).expect("text");
        assert!(table.lines().all(|line| line.chars().count() < 450), "{table}");
        assert!(table.contains("spiffe://acme.example/xxxx…xxxxx/nightly  "), "{table}");
        let mut out = Vec::new();
        print_json(&sessions, 0, &mut out).expect("lines");
        assert!(String::from_utf8(out).expect("text").contains(&long));
    }
}
