//! The `wireward policy` commands. Answers, and errors as JSON, go to `out`, errors for people to standard error. The exit
//! status: 0 all well, 1 the policy is wrong, 2 the question is, or something could not be read or written.

mod report;
mod upstream;

use crate::artifact::{OpenError, Policy};
use crate::build;
use crate::judge::{Catalogue, NoCatalogue, Subject, judge};
use crate::policy::{self, Checked, Diagnostic, Source};
use crate::statement::Budget;
use crate::statement::postgres::analyse_for;
use crate::statement::postgres::server::Server;
use report::{Report, Seen};
use serde_json::json;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
pub use upstream::{Asked, Names, Upstream};

/// What `wireward policy explain` is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// A policy file, a directory of them, or an artifact.
    pub policy: &'a Path,
    /// The name of a role, or of somebody whom `person` knows: `--as`.
    pub user: Option<&'a str>,
    /// Looks up who is no role of the policy.
    ///
    /// # Errors
    /// Why that cannot be known.
    pub person: &'a dyn Fn(&str) -> Result<Person, String>,
    /// Names of more roles: `--roles a,b`.
    pub roles: &'a [String],
    pub resource: &'a str,
    /// The resource's catalogue; without it names are taken as written.
    pub upstream: Option<&'a dyn Upstream>,
    pub sql: &'a str,
}

/// Somebody who has been let in before.
pub struct Person {
    pub roles: Vec<String>,
    /// Where that stands, in words.
    pub known_from: String,
}

/// `wireward policy check PATH`: reports all errors of the policy, or what it holds. With the catalogue of a resource, a
/// mask that no column of it answers to is an error.
pub fn check(path: &Path, asked: Option<Asked<'_>>, json: bool, out: &mut dyn Write) -> u8 {
    let compared = compiled(path).and_then(|compiled| {
        let errors = asked.map(|asked| upstream::unresolved(asked, &compiled.checked, compiled.policy.sources()));
        errors.filter(|errors| !errors.is_empty()).map_or(Ok(compiled), |errors| Err(Problem::Policy(errors)))
    });
    status(match compared {
        Ok(compiled) => show_summary(&compiled, asked, json, out).map(|()| OK),
        Err(problem) => show_problem(&problem, json, out),
    })
}

/// `wireward policy build PATH -o OUTPUT`: writes the artifact, whole or not at all.
pub fn build(path: &Path, output: &Path, json: bool, out: &mut dyn Write) -> u8 {
    let compiled = match compiled(path) {
        Ok(compiled) => compiled,
        Err(problem) => return status(show_problem(&problem, json, out)),
    };
    status(match replace_file(output, &compiled.bytes) {
        Ok(()) => {
            let (epoch, bytes) = (compiled.policy.epoch_name(), compiled.bytes.len());
            let line = match json {
                true => json!({ "file": output.display().to_string(), "policy": epoch, "bytes": bytes }).to_string(),
                false => format!("{}: policy {epoch}, {bytes} bytes", output.display()),
            };
            writeln!(out, "{line}").map(|()| OK)
        }
        Err(e) => {
            let problem = Problem::Question(format!("{} cannot be written: {e}", output.display()));
            show_problem(&problem, json, out)
        }
    })
}

/// `wireward policy explain`: what happens to a text of SQL, and why.
pub fn explain(question: Question<'_>, json: bool, out: &mut dyn Write) -> u8 {
    status(match answer(question) {
        Ok(report) if json => writeln!(out, "{:#}", report.to_json()).map(|()| OK),
        Ok(report) => write!(out, "{report}").map(|()| OK),
        Err(problem) => show_problem(&problem, json, out),
    })
}

/// `wireward policy schema`: the JSON Schema of a policy file.
pub fn schema(out: &mut dyn Write) -> u8 {
    status(writeln!(out, "{:#}", policy::schema()).map(|()| OK))
}

struct Compiled {
    bytes: Vec<u8>,
    policy: Policy,
    checked: Checked,
}

enum Problem {
    Policy(Vec<Diagnostic>),
    Unreadable(Vec<Diagnostic>),
    Question(String),
}

const OK: u8 = 0;
const WRONG: u8 = 1;
const FAILED: u8 = 2;

/// A reader that went away is a failure like any other.
fn status(result: io::Result<u8>) -> u8 {
    result.unwrap_or(FAILED)
}

fn compiled(path: &Path) -> Result<Compiled, Problem> {
    compiled_from(path, &policy::load(path).map_err(Problem::Unreadable)?).map_err(Problem::Policy)
}

fn compiled_from(path: &Path, sources: &[Source]) -> Result<Compiled, Vec<Diagnostic>> {
    let checked = policy::check(sources)?;
    let bytes = build::compile(sources)?;
    let policy = Policy::from_bytes(bytes.clone())
        .map_err(|e| vec![Diagnostic::about_file(&path.display().to_string(), e.to_string(), None)])?;
    Ok(Compiled { bytes, policy, checked })
}

/// An artifact carries its text: it is explained from that, and judged by its own tables.
fn opened(path: &Path) -> Result<(Policy, Checked), Problem> {
    let is_text = path.is_dir() || path.extension().is_some_and(|extension| extension == "toml");
    if is_text {
        return compiled(path).map(|compiled| (compiled.policy, compiled.checked));
    }
    let policy = Policy::open(path).map_err(|e| {
        let about = vec![Diagnostic::about_file(&path.display().to_string(), e.to_string(), None)];
        if matches!(e, OpenError::Read(_)) { Problem::Unreadable(about) } else { Problem::Policy(about) }
    })?;
    let checked = policy::check(policy.sources()).map_err(Problem::Policy)?;
    Ok((policy, checked))
}

fn answer(question: Question<'_>) -> Result<Report, Problem> {
    let (policy, checked) = opened(question.policy)?;
    let person = match question.user {
        Some(user) if policy.role_named(user).is_none() => Some(look_up(user, &policy, question.person)?),
        _ => None,
    };
    let mut names: Vec<&str> = match &person {
        Some(person) => person.roles.iter().map(String::as_str).collect(),
        None => question.user.into_iter().collect(),
    };
    names.extend(question.roles.iter().map(String::as_str));
    let mut roles = crate::artifact::RoleSet::default();
    for name in &names {
        roles = roles.union(policy.role_named(name).ok_or_else(|| Problem::Question(no_role(name, &policy)))?);
    }
    if names.is_empty() {
        return Err(Problem::Question(format!(
            "name somebody with --as, or roles with --roles; {}",
            known_roles(&policy)
        )));
    }
    let server = question.upstream.map_or(Server::NEWEST, |upstream| upstream.server());
    let analysis = analyse_for(question.sql, server, Budget::ANALYSER);
    let masks = policy.masks(roles, question.resource);
    let known = question.upstream.map(|upstream| upstream.names(&masks));
    let catalogue: &dyn Catalogue = known.as_deref().map_or(&NoCatalogue, |names| names);
    let judgement = judge(&policy, Subject { roles, resource: question.resource }, &analysis, catalogue);
    let who = crate::explain::Who { roles: &names, resource: question.resource };
    let explanation = crate::explain::explain(&checked, who, &analysis, catalogue);
    let seen = Seen { masks: &masks, names: known.as_deref() };
    let known_from = person.as_ref().map(|person| person.known_from.clone());
    let analysis = analysis.unwrap_or_default();
    Ok(Report::new(policy.epoch_name(), (who, known_from), &analysis, judgement, &explanation, seen))
}

/// Somebody's roles, but for those that the policy no longer has: the gateway passes over them too.
fn look_up(user: &str, policy: &Policy, person: &dyn Fn(&str) -> Result<Person, String>) -> Result<Person, Problem> {
    let mut person = person(user).map_err(|why| Problem::Question(format!("{}; {why}", no_role(user, policy))))?;
    person.roles.retain(|role| policy.role_named(role).is_some());
    match person.roles.is_empty() {
        false => Ok(person),
        true => Err(Problem::Question(format!(
            "`{user}` has none of this policy's roles ({}); {}",
            person.known_from,
            known_roles(policy)
        ))),
    }
}

fn no_role(name: &str, policy: &Policy) -> String {
    format!("`{name}` is no role of this policy; {}", known_roles(policy))
}

fn known_roles(policy: &Policy) -> String {
    format!("the roles are {}", policy.all_role_names().join(", "))
}

fn show_problem(problem: &Problem, json: bool, out: &mut dyn Write) -> io::Result<u8> {
    let (errors, code) = match problem {
        Problem::Policy(errors) => (errors, WRONG),
        Problem::Unreadable(errors) => (errors, FAILED),
        Problem::Question(message) if json => {
            return writeln!(out, "{:#}", json!({ "error": message })).map(|()| FAILED);
        }
        Problem::Question(message) => {
            eprintln!("error: {message}");
            return Ok(FAILED);
        }
    };
    if json {
        return writeln!(out, "{:#}", json!({ "ok": false, "errors": errors })).map(|()| code);
    }
    for error in errors {
        eprintln!("{error}");
    }
    let plural = if errors.len() == 1 { "" } else { "s" };
    eprintln!("{} error{plural}", errors.len());
    Ok(code)
}

fn show_summary(compiled: &Compiled, asked: Option<Asked<'_>>, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let checked = &compiled.checked;
    let counts = [
        ("roles", checked.roles.len()),
        ("grants", checked.grants.len()),
        ("rules", checked.rules.len()),
        ("masks", checked.masks.len()),
        ("detects", checked.detects.len()),
    ];
    if json {
        let counts: serde_json::Map<_, _> = counts.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
        let (policy, resource) = (compiled.policy.epoch_name(), asked.map(|asked| asked.resource));
        return writeln!(out, "{:#}", json!({ "ok": true, "policy": policy, "counts": counts, "resource": resource }));
    }
    let listed: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
    writeln!(out, "ok: policy {}: {}", compiled.policy.epoch_name(), listed.join(", "))?;
    match asked {
        Some(asked) => {
            let columns = upstream::masked_columns(asked.resource, checked);
            writeln!(out, "catalogue of resource {}: it has each of the {columns} masked columns", asked.resource)
        }
        None => writeln!(out, "no catalogue was asked: whether masked columns exist is open; --resource NAME asks"),
    }
}

/// A reload must never see half a file: written beside, synced, then renamed.
fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let written = fs::File::create(&beside).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| drop(fs::remove_file(&beside)))
}
