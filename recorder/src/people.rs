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
    match last_of(&catalog.sessions, name)? {
        Some(last) => Ok(Person { roles: last.roles.clone(), told: told(last) }),
        None => Err(format!("nobody of this name has had a session ({})", directory.display())),
    }
}

/// The sessions are in order. A refused login has no subject.
fn last_of<'a>(sessions: &'a [Session], name: &str) -> Result<Option<&'a Session>, String> {
    let all: Vec<&Session> = sessions.iter().filter(|session| !session.subject.is_empty()).collect();
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
    Ok(found.last().copied())
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

    fn session(id: &str, subject: &str, issuer: &str, name: &str) -> Session {
        Session {
            session: id.to_owned(),
            started_unix_ns: 0,
            last_unix_ns: 0,
            subject: subject.to_owned(),
            actors: vec!["crew".to_owned()],
            roles: vec!["analyst".to_owned()],
            resource: "shop".to_owned(),
            protocol: "postgres".to_owned(),
            statements: 0,
            blocked: 0,
            closed: None,
            open: json!({ "issuer": issuer, "user": "demo", "name": name }),
            refused: None,
        }
    }

    #[test]
    fn what_is_told_names_session_actor_user_and_resource() {
        let told = told(&session("s_1", "ann", "https://id.test", "Ann"));
        assert!(told.starts_with("of ann of https://id.test in session s_1 by crew, 1970-01-01"), "{told}");
        assert!(told.ends_with("as user demo on shop"), "{told}");
    }

    #[test]
    fn a_subject_goes_before_a_name_and_a_name_of_several_people_is_refused() {
        let sessions = [
            session("s_1", "ann", "a", "demo"),
            session("s_2", "ann", "a", "demo"),
            session("s_3", "bob", "a", "ann"),
            session("s_4", "zoe", "a", "zoe"),
            session("s_5", "zoe", "b", "zoe"),
            session("s_6", "", "", ""),
        ];
        let last = |name| last_of(&sessions, name).map(|found| found.map(|s| s.session.as_str()));
        assert_eq!(last("ann"), Ok(Some("s_2")));
        assert_eq!(last("bob"), Ok(Some("s_3")));
        assert_eq!(last(""), Ok(None));
        assert_eq!(last("nobody"), Ok(None));
        assert!(last("demo").is_ok_and(|found| found == Some("s_2")));
        assert!(last("zoe").is_err_and(|why| why.contains("zoe of a, zoe of b")));
    }
}
