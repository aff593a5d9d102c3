//! What the claims of a token with a good signature say, strictly by type: RFC 7519, RFC 8693 (`act`), SPIFFE JWT-SVID.

use serde_json::Value;

use super::jwt::{Object, string};
use super::{Actor, Identity};
use crate::config::issuer::{Condition, Issuer, Test};

/// Actors behind each other that a token may name.
const ACTORS_MAX: usize = 8;

/// The year 10,000: no clock of ours tells later times.
const TIME_UNIX_S_MAX: u64 = 253_402_300_800;

/// Whether a token of this explicit type (RFC 8725 section 3.11) is taken for an identity. Types are media types: `application/`
/// may be left out, and case does not count (RFC 7515 section 4.1.9).
///
/// # Errors
/// It is not.
pub fn check_type(header: &Object, settings: &Issuer) -> Result<(), &'static str> {
    let Some(written) = string(header, "typ")? else { return Ok(()) };
    let lower = written.to_ascii_lowercase();
    let bare = lower.strip_prefix("application/").unwrap_or(&lower);
    match settings.token_types.iter().any(|taken| taken.eq_ignore_ascii_case(bare)) {
        true => Ok(()),
        false => Err("the token is of a type (typ) that is no identity here: give an ID token or access token"),
    }
}

/// Checks the claims by their issuer's settings.
///
/// # Errors
/// Why the token does not count, in words that say nothing of its content.
pub fn check(claims: &Object, settings: &Issuer, now_unix_s: u64) -> Result<Identity, &'static str> {
    let leeway = settings.leeway_s;
    let expires = time(claims, "exp")?.ok_or("the token has no expiry (exp)")?;
    if now_unix_s > expires.saturating_add(leeway) {
        return Err("the token has expired: get a new one");
    }
    if time(claims, "nbf")?.is_some_and(|nbf| now_unix_s.saturating_add(leeway) < nbf) {
        return Err("the token is not valid yet (nbf)");
    }
    if expires > now_unix_s.saturating_add(settings.token_lifetime_max_s).saturating_add(leeway) {
        return Err(
            "the token lives for longer than this gateway takes (token_lifetime_max_s): get one that expires sooner",
        );
    }
    if time(claims, "iat")?.is_some_and(|iat| now_unix_s.saturating_add(leeway) < iat) {
        return Err("the token was issued in the future (iat): the clocks differ");
    }
    // Logout and security event tokens (OpenID Connect Back-Channel Logout, RFC 8417) have the same issuer and audience.
    if claims.contains_key("events") {
        return Err("the token tells of an event and is nobody's identity (events)");
    }
    if !audiences(claims)?.contains(&settings.audience.as_str()) {
        return Err("the token is for another audience (aud)");
    }
    let subject = string(claims, "sub")?.filter(|s| !s.is_empty()).ok_or("the token has no subject (sub)")?;
    if settings.trust_domain.as_ref().is_some_and(|domain| trust_domain(subject) != Some(domain)) {
        return Err("the token's subject is not of the trust domain");
    }
    Ok(Identity {
        issuer: settings.label().to_owned(),
        subject: subject.to_owned(),
        name: name(claims, settings)?.unwrap_or(subject).to_owned(),
        roles: roles(claims, settings)?,
        actors: actors(claims)?,
        expires_unix_s: expires.saturating_add(settings.leeway_s),
    })
}

/// The trust domain of a SPIFFE ID, `spiffe://domain/path`.
pub fn trust_domain(subject: &str) -> Option<&str> {
    let (domain, path) = subject.strip_prefix("spiffe://")?.split_once('/')?;
    (!path.is_empty()).then_some(domain)
}

fn name<'a>(claims: &'a Object, settings: &Issuer) -> Result<Option<&'a str>, &'static str> {
    // An address that its owner has not proved may be anybody's.
    if settings.name_claim.is("email") && claims.get("email_verified") != Some(&Value::Bool(true)) {
        return Err("the token's e-mail address is not verified (email_verified)");
    }
    match settings.name_claim.find(claims) {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name.as_str()).filter(|n| !n.is_empty())),
        Some(_) => Err("a claim of the token has the wrong type"),
    }
}

/// The roles claim, then what the rules give.
fn roles(claims: &Object, settings: &Issuer) -> Result<Vec<String>, &'static str> {
    const WRONG: &str = "the token's roles claim is not a list of strings";
    let mut roles = match settings.roles_claim.find(claims) {
        None => Vec::new(),
        Some(Value::String(role)) => vec![role.clone()],
        Some(Value::Array(roles)) => {
            roles.iter().map(|r| r.as_str().map(str::to_owned).ok_or(WRONG)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(WRONG),
    };
    let given = settings.roles.iter().filter(|rule| rule.when.iter().all(|c| holds(c, claims)));
    roles.extend(given.map(|rule| rule.role.clone()));
    Ok(roles)
}

/// A claim that is a list holds if one of its members does. What is no text never holds.
fn holds(condition: &Condition, claims: &Object) -> bool {
    let fits = |value: &Value| match (&condition.test, value.as_str()) {
        (Test::Equals(wanted), Some(text)) => text == wanted,
        (Test::Prefix(wanted), Some(text)) => text.starts_with(wanted.as_str()),
        (_, None) => false,
    };
    match condition.claim.find(claims) {
        Some(Value::Array(values)) => values.iter().any(fits),
        Some(value) => fits(value),
        None => false,
    }
}

/// Who acts for the subject (RFC 8693 section 4.1), the current actor first.
fn actors(claims: &Object) -> Result<Vec<Actor>, &'static str> {
    const WRONG: &str = "the token's actor claim (act) has the wrong form";
    let mut actors = Vec::new();
    let mut next = claims.get("act");
    while let Some(actor) = next {
        let actor = actor.as_object().filter(|_| actors.len() < ACTORS_MAX).ok_or(WRONG)?;
        let subject = string(actor, "sub").map_err(|_| WRONG)?.filter(|s| !s.is_empty()).ok_or(WRONG)?;
        let issuer = string(actor, "iss").map_err(|_| WRONG)?;
        actors.push(Actor { subject: subject.to_owned(), issuer: issuer.map(str::to_owned) });
        next = actor.get("act");
    }
    Ok(actors)
}

fn time(claims: &Object, name: &'static str) -> Result<Option<u64>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        // RFC 7519 allows fractions; a string, a negative or an endless number is none of its times.
        Some(Value::Number(n)) => match (n.as_u64(), n.as_f64()) {
            (Some(seconds), _) if seconds < TIME_UNIX_S_MAX => Ok(Some(seconds)),
            (None, Some(seconds)) if seconds >= 0.0 && seconds < TIME_UNIX_S_MAX as f64 => Ok(Some(seconds as u64)),
            _ => Err("a time in the token is out of range"),
        },
        Some(_) => Err("a time in the token is not a number"),
    }
}

fn audiences(claims: &Object) -> Result<Vec<&str>, &'static str> {
    const WRONG: &str = "the token's audience (aud) is neither a string nor a list of strings";
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) => many.iter().map(|v| v.as_str().ok_or(WRONG)).collect(),
        _ => Err(WRONG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The issuer that this piece of configuration describes.
    fn settings(lines: &str) -> Issuer {
        Issuer::for_tests(&format!("audience = 'wireward'\nalgorithms = ['ES256']\njwks_file = 'k'\n{lines}"))
    }

    fn token(more: Value) -> Object {
        let mut claims =
            json!({"sub": "ann", "aud": "wireward", "exp": 2_000}).as_object().cloned().expect("an object");
        claims.extend(more.as_object().cloned().expect("an object"));
        claims
    }

    #[test]
    fn values_of_claims_give_roles() {
        const GITHUB: &str = "issuer = 'https://i'\nroles_claim = []\n[[role]]\nrole = 'ci'\nwhen = [\
            { claim = 'repository', equals = 'acme/shop' }, { claim = 'ref', prefix = 'refs/heads/' }]";
        const CLUSTER: &str = "issuer = 'https://i'\n[[role]]\nrole = 'batch'\n\
            when = [{ claim = '/kubernetes.io/namespace', equals = 'jobs' }]\n\
            [[role]]\nrole = 'account'\nwhen = [{ claim = 'sub', prefix = 'system:serviceaccount:jobs:' }]";
        const GROUPS: &str =
            "issuer = 'https://i'\n[[role]]\nrole = 'dba'\nwhen = [{ claim = 'groups', equals = 'db' }]";
        for (lines, claims, roles) in [
            (GITHUB, json!({"repository": "acme/shop", "ref": "refs/heads/main"}), &["ci"][..]),
            (GITHUB, json!({"repository": "acme/shop", "ref": "refs/tags/main"}), &[]),
            (GITHUB, json!({"repository": "acme/shop-evil", "ref": "refs/heads/main"}), &[]),
            (GITHUB, json!({"repository": "ACME/shop", "ref": "refs/heads/main"}), &[]),
            (GITHUB, json!({"ref": "refs/heads/main"}), &[]),
            (GITHUB, json!({"repository": true, "ref": "refs/heads/main"}), &[]),
            (GITHUB, json!({"roles": ["dba"]}), &[]),
            (CLUSTER, json!({"kubernetes.io": {"namespace": "jobs"}}), &["batch"]),
            (CLUSTER, json!({"kubernetes.io": {"namespace": ["x", "jobs"]}}), &["batch"]),
            (CLUSTER, json!({"kubernetes": {"io": {"namespace": "jobs"}}}), &[]),
            (CLUSTER, json!({"sub": "system:serviceaccount:jobs:nightly"}), &["account"]),
            (CLUSTER, json!({"sub": "system:serviceaccount:jobs2:nightly"}), &[]),
            (CLUSTER, json!({"roles": "reader"}), &["reader"]),
            (GROUPS, json!({"groups": ["x", "db"], "roles": ["a", "b"]}), &["a", "b", "dba"]),
            (GROUPS, json!({"groups": [["db"], {"db": "db"}]}), &[]),
        ] {
            let identity = check(&token(claims.clone()), &settings(lines), 1_000).expect("a good token");
            assert_eq!(identity.roles, roles, "{claims}");
        }
    }

    /// Claims as these issuers write them, shortened.
    #[test]
    fn the_examples_of_the_documentation_do_what_they_say() {
        let job = json!({"sub": "repo:acme/shop:ref:refs/heads/main", "repository": "acme/shop",
            "ref": "refs/heads/main", "event_name": "push", "roles": "dba"});
        let fork =
            json!({"sub": "repo:evil/shop:ref:refs/heads/main", "repository": "evil/shop", "ref": "refs/heads/main"});
        let pod = json!({"sub": "system:serviceaccount:jobs:nightly", "aud": ["wireward"],
            "kubernetes.io": {"namespace": "jobs", "serviceaccount": {"name": "nightly", "uid": "u"}}});
        let svid = json!({"sub": "spiffe://acme.example/ns/jobs/sa/nightly", "aud": ["wireward"]});
        let person = json!({"preferred_username": "ann", "realm_access": {"roles": ["analyst"]}, "roles": ["dba"]});
        let rows = [
            ("https://idp.example/realms/staff", person, &["analyst"][..]),
            ("https://token.actions.githubusercontent.com", job, &["ci"]),
            ("https://token.actions.githubusercontent.com", fork, &[]),
            ("https://kubernetes.default.svc.cluster.local", pod, &["batch"]),
            ("acme.example", svid, &["batch"]),
        ];
        let examples = Issuer::examples();
        for (label, claims, roles) in rows {
            let issuer = examples.iter().find(|i| i.label() == label).expect(label);
            assert_eq!(check(&token(claims), issuer, 1_000).expect(label).roles, roles, "{label}");
        }
    }

    #[test]
    fn actors_stand_apart_from_the_subject() {
        let chain = json!({"act": {"sub": "tool", "iss": "https://t", "act": {"sub": "crew"}}});
        let identity = check(&token(chain), &settings("issuer = 'https://i'"), 1_000).expect("a good token");
        let actor =
            |subject: &str, issuer: Option<&str>| Actor { subject: subject.into(), issuer: issuer.map(Into::into) };
        assert_eq!((&*identity.subject, &*identity.name), ("ann", "ann"));
        assert_eq!(identity.actors, [actor("tool", Some("https://t")), actor("crew", None)]);
        let endless = (0..=ACTORS_MAX).fold(json!({"sub": "x"}), |act, _| json!({"sub": "x", "act": act}));
        for refused in [json!("crew"), json!({}), json!({"sub": ""}), json!({"sub": 7}), json!(null), endless] {
            let claims = token(json!({ "act": refused }));
            assert!(check(&claims, &settings("issuer = 'https://i'"), 1_000).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_spiffe_id_counts_only_in_its_trust_domain() {
        let settings = settings("trust_domain = 'acme.test'");
        for (subject, counts) in [
            ("spiffe://acme.test/ns/jobs/sa/nightly", true),
            ("spiffe://acme.test.evil/ns/jobs", false),
            ("spiffe://acme.test", false),
            ("spiffe://acme.test/", false),
            ("spiffe:///acme.test/x", false),
            ("https://acme.test/x", false),
            ("ann", false),
        ] {
            assert_eq!(check(&token(json!({"sub": subject})), &settings, 1_000).is_ok(), counts, "{subject}");
        }
    }

    #[test]
    fn only_types_of_tokens_that_are_identities_count() {
        let (https, spiffe) = ("issuer = 'https://i'", "trust_domain = 'acme.test'");
        let only = "issuer = 'https://i'\ntoken_types = ['at+jwt']";
        for (lines, header, counts) in [
            (https, json!({}), true),
            (https, json!({"typ": "JWT"}), true),
            (https, json!({"typ": "jwt"}), true),
            (https, json!({"typ": "at+jwt"}), true),
            (https, json!({"typ": "application/at+JWT"}), true),
            (https, json!({"typ": "logout+jwt"}), false),
            (https, json!({"typ": "dpop+jwt"}), false),
            (https, json!({"typ": "secevent+jwt"}), false),
            (https, json!({"typ": "JOSE"}), false),
            (https, json!({"typ": ""}), false),
            (https, json!({"typ": "application/"}), false),
            (https, json!({"typ": null}), false),
            (https, json!({"typ": ["JWT"]}), false),
            (spiffe, json!({"typ": "JOSE"}), true),
            (only, json!({"typ": "at+jwt"}), true),
            (only, json!({"typ": "JWT"}), false),
        ] {
            let header = header.as_object().expect("an object");
            assert_eq!(check_type(header, &settings(lines)).is_ok(), counts, "{lines}: {header:?}");
        }
    }

    #[test]
    fn times_are_of_this_age_and_events_are_nobody() {
        let https = "issuer = 'https://i'";
        let short = "issuer = 'https://i'\ntoken_lifetime_max_s = 600";
        for (lines, claims, counts) in [
            (https, json!({"exp": 1_000 + 86_400 + 60}), true),
            (https, json!({"exp": 1_000 + 86_400 + 61}), false),
            (https, json!({"exp": 978_307_200_000_000_u64}), false),
            (short, json!({"exp": 1_660}), true),
            (short, json!({"exp": 1_661}), false),
            (https, json!({"iat": 1_060}), true),
            (https, json!({"iat": 1_061}), false),
            (https, json!({"iat": -1}), false),
            (https, json!({"iat": 1e300}), false),
            (https, json!({"iat": "1000"}), false),
            (https, json!({"nbf": 253_402_300_800_u64}), false),
            (https, json!({"nbf": 1e18}), false),
            (https, json!({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}), false),
        ] {
            assert_eq!(check(&token(claims.clone()), &settings(lines), 1_000).is_ok(), counts, "{lines}: {claims}");
        }
    }

    #[test]
    fn an_address_is_a_name_only_when_it_is_verified() {
        let settings = settings("issuer = 'https://i'\nname_claim = 'email'");
        for (claims, name) in [
            (json!({"email": "a@b", "email_verified": true}), Some("a@b")),
            (json!({"email": "a@b", "email_verified": false}), None),
            (json!({"email": "a@b", "email_verified": "true"}), None),
            (json!({"email": "a@b"}), None),
        ] {
            let found = check(&token(claims.clone()), &settings, 1_000);
            assert_eq!(found.ok().map(|i| i.name).as_deref(), name, "{claims}");
        }
    }
}
