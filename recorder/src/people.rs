//! Who somebody is, by the record: with which roles their last session was.

use std::collections::BTreeSet;
use std::path::Path;

use crate::catalog::{Session, catalog, text};
use crate::replay::text::{escape, utc};

/// What the record knows of somebody.
pub struct Person {
    /// Of the last session.
    pub roles: Vec<String>,
    /// Which session that was, in words.
    pub told: String,
}

/// Looks for the last session of a token's subject, or else of its name.
///
/// # Errors
/// There is none, it may be of several people, or the record cannot be read; in the user's words.
pub fn last_session(directory: &Path, name: &str) -> Result<Person, String> {
    let catalog = catalog(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    if !catalog.damage.is_empty() {
        return Err(format!(
            "the last session may be in evidence that is damaged: `wireward verify` ({})",
            directory.display()
        ));
    }
    let all: Vec<&Session> = catalog.sessions.iter().filter(|session| !session.subject.is_empty()).collect();
    let by_subject: Vec<&Session> = all.iter().copied().filter(|session| session.subject == name).collect();
    let found = match by_subject.is_empty() {
        true => all.into_iter().filter(|session| text(&session.open, "name") == name).collect(),
        false => by_subject,
    };
    let people: BTreeSet<String> = found.iter().map(|session| identity(session)).collect();
    if people.len() > 1 {
        let people: Vec<String> = people.into_iter().collect();
        return Err(format!(
            "several people have had sessions by this name: {}; name roles instead",
            people.join(", ")
        ));
    }
    let last =
        found.last().ok_or_else(|| format!("nobody of this name has had a session ({})", directory.display()))?;
    Ok(Person { roles: last.roles.clone(), told: told(last) })
}

fn identity(session: &Session) -> String {
    escape(&format!("{} of {}", session.subject, text(&session.open, "issuer")))
}

/// A session as a role has that role alone, and one by somebody else's hand may have fewer: so it is said.
fn told(session: &Session) -> String {
    let by = match session.actors.first() {
        Some(actor) => format!(" by {}", escape(actor)),
        None => String::new(),
    };
    format!(
        "of {} in session {}{by}, {}, as user {} on {}",
        identity(session),
        session.session,
        utc(session.started_unix_ns),
        escape(&text(&session.open, "user")),
        escape(&session.resource)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_told_names_session_actor_user_and_resource() {
        let session = Session {
            session: "s_1".to_owned(),
            started_unix_ns: 0,
            last_unix_ns: 0,
            subject: "ann".to_owned(),
            actors: vec!["crew".to_owned()],
            roles: vec!["analyst".to_owned()],
            resource: "shop".to_owned(),
            protocol: "postgres".to_owned(),
            statements: 0,
            blocked: 0,
            closed: None,
            open: json!({ "issuer": "https://id.test", "user": "demo" }),
            refused: None,
        };
        let told = told(&session);
        assert!(told.starts_with("of ann of https://id.test in session s_1 by crew, 1970-01-01"), "{told}");
        assert!(told.ends_with("as user demo on shop"), "{told}");
    }
}
