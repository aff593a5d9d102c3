//! `[[issuer]]`: who may sign identity tokens, where their keys are, and what their claims mean here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use serde::Deserialize;

use super::Config;
use crate::control::challenges::challenge;
use crate::control::identity::fetch::checked_url;
use crate::control::identity::path::ClaimPath;
use crate::protocol::postgres::oauth::CHALLENGE_BYTES_MAX;

/// Keys are not fetched more often than this, so neither can they be refreshed more often.
const REFRESH_S_MIN: f64 = 10.0;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIssuer {
    issuer: Option<String>,
    trust_domain: Option<String>,
    audience: String,
    algorithms: Vec<String>,
    jwks_file: Option<PathBuf>,
    jwks_url: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    allow_loopback_http: bool,
    #[serde(default = "default_keys_refresh_s")]
    keys_refresh_s: f64,
    #[serde(default = "default_keys_stale_max_s")]
    keys_stale_max_s: f64,
    #[serde(default = "default_roles_claim")]
    roles_claim: ClaimPath,
    #[serde(default = "default_name_claim")]
    name_claim: ClaimPath,
    #[serde(default = "default_leeway_s")]
    leeway_s: u64,
    token_types: Option<Vec<String>>,
    #[serde(default = "default_token_lifetime_max_s")]
    token_lifetime_max_s: u64,
    #[serde(default = "default_oauth_scope")]
    oauth_scope: String,
    #[serde(default)]
    role: Vec<RawRoleRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoleRule {
    role: String,
    when: Vec<RawCondition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCondition {
    claim: ClaimPath,
    equals: Option<String>,
    prefix: Option<String>,
}

fn default_keys_refresh_s() -> f64 {
    300.0
}
fn default_keys_stale_max_s() -> f64 {
    3600.0
}
fn default_roles_claim() -> ClaimPath {
    ClaimPath::parse("roles").expect("a claim")
}
fn default_name_claim() -> ClaimPath {
    ClaimPath::parse("preferred_username").expect("a claim")
}
fn default_leeway_s() -> u64 {
    60
}
fn default_token_lifetime_max_s() -> u64 {
    86_400
}
fn default_oauth_scope() -> String {
    "openid".to_owned()
}

/// Whose tokens count, and how they are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The only value of `iss` that counts. None: tokens are told by their trust domain alone.
    pub issuer: Option<String>,
    /// SPIFFE trust domain that every subject must be of.
    pub trust_domain: Option<String>,
    pub audience: String,
    pub algorithms: Vec<String>,
    pub keys: Keys,
    pub roles_claim: ClaimPath,
    pub name_claim: ClaimPath,
    pub roles: Vec<RoleRule>,
    /// Seconds of clock difference that `exp` and `nbf` are given.
    pub leeway_s: u64,
    /// Values of the header's `typ` that are taken for an identity; a token without one is too.
    pub token_types: Vec<String>,
    /// How many seconds from now a token may expire at most, before the leeway.
    pub token_lifetime_max_s: u64,
    /// Scopes that clients without a token are told to ask for; may be empty.
    pub oauth_scope: String,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    File(PathBuf),
    Remote(Remote),
}

/// Keys that are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub place: Place,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    pub allow_loopback_http: bool,
    /// How often keys are fetched, and how long after their fetch they count while no other succeeds.
    pub refresh: Duration,
    pub stale_max: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Jwks(Uri),
    /// The issuer's discovery document names the place.
    Discovery(Uri),
}

/// A role that a token has when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRule {
    pub role: String,
    pub when: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub claim: ClaimPath,
    pub test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    Equals(String),
    Prefix(String),
}

impl Issuer {
    /// Its name for people.
    pub fn label(&self) -> &str {
        self.issuer.as_deref().or(self.trust_domain.as_deref()).unwrap_or_default()
    }

    /// The address of its discovery document, if its name is one.
    pub fn discovery(&self) -> Option<String> {
        let url = discovery_url(self.issuer.as_deref()?).ok()?;
        checked_url(&url, true).is_ok().then_some(url)
    }

    /// The examples of CONFIG.md, in their order.
    #[cfg(test)]
    pub fn examples() -> Vec<Self> {
        #[derive(Deserialize)]
        struct Example {
            #[serde(default)]
            issuer: Vec<RawIssuer>,
        }
        let blocks = include_str!("../../CONFIG.md").split("```toml\n").skip(1);
        let texts = blocks.map(|rest| rest.split("```").next().unwrap_or_default());
        let raw = texts.flat_map(|text| toml::from_str::<Example>(text).expect("an example").issuer).collect();
        check_all(raw, Path::new("")).expect("sound examples")
    }

    /// The issuer of a TOML table.
    #[cfg(test)]
    pub fn for_tests(text: &str) -> Self {
        check(toml::from_str(text).expect("a table of an issuer"), Path::new("")).expect("a sound issuer")
    }
}

impl Config {
    /// The issuer that clients without a token are sent to: the one of this name, else the first that has an address.
    pub fn issuer_for_clients(&self, named: Option<&str>) -> Option<&Issuer> {
        match named {
            Some(name) => self.issuers.iter().find(|issuer| issuer.issuer.as_deref() == Some(name)),
            None => self.issuers.iter().find(|issuer| issuer.discovery().is_some()),
        }
    }
}

/// Where clients are sent must be an issuer whose tokens count.
pub(super) fn check_named(config: &Config) -> Result<(), String> {
    let listeners = config.listeners.iter().map(|l| (format!("listener {}", l.address), &l.oauth_issuer));
    let resources = config.resources.iter().map(|r| (format!("resource {}", r.name), &r.oauth_issuer));
    for (what, named) in listeners.chain(resources) {
        let Some(name) = named else { continue };
        if config.issuer_for_clients(Some(name)).and_then(Issuer::discovery).is_none() {
            return Err(format!(
                "{what}: oauth_issuer = \"{name}\" must be the `issuer` of an [[issuer]], and an https address"
            ));
        }
    }
    Ok(())
}

/// Checks all issuers together.
pub(super) fn check_all(raw: Vec<RawIssuer>, directory: &Path) -> Result<Vec<Issuer>, String> {
    let issuers = raw.into_iter().map(|r| check(r, directory)).collect::<Result<Vec<_>, _>>()?;
    for (i, issuer) in issuers.iter().enumerate() {
        // Keys belong to one issuer: of two with one name, tokens could be checked with the other's.
        if issuers[..i].iter().any(|other| other.issuer == issuer.issuer && other.label() == issuer.label()) {
            return Err(format!("two issuers are named `{}`; each name stands once", issuer.label()));
        }
    }
    match issuers.is_empty() {
        true => Err("there is no [[issuer]], so nobody could log in; name at least one".into()),
        false => Ok(issuers),
    }
}

fn check(raw: RawIssuer, directory: &Path) -> Result<Issuer, String> {
    let label = raw.issuer.clone().or_else(|| raw.trust_domain.clone()).filter(|l| !l.is_empty());
    let label = label.ok_or("an [[issuer]] needs `issuer` (the tokens' iss), or `trust_domain` for SPIFFE")?;
    let named = |why: String| format!("issuer {label}: {why}");
    algorithms(&raw.algorithms).map_err(named)?;
    scope(&raw.oauth_scope).map_err(named)?;
    lifetime(raw.token_lifetime_max_s).map_err(named)?;
    let token_types = token_types(&raw).map_err(named)?;
    let issuer = Issuer {
        keys: keys(&raw, directory).map_err(named)?,
        roles: raw.role.into_iter().map(role_rule).collect::<Result<_, _>>().map_err(named)?,
        issuer: raw.issuer,
        trust_domain: raw.trust_domain,
        audience: raw.audience,
        algorithms: raw.algorithms,
        roles_claim: raw.roles_claim,
        name_claim: raw.name_claim,
        leeway_s: raw.leeway_s,
        token_types,
        token_lifetime_max_s: raw.token_lifetime_max_s,
        oauth_scope: raw.oauth_scope,
    };
    match challenge(Some(&issuer)).len() {
        0..=CHALLENGE_BYTES_MAX => Ok(issuer),
        bytes => Err(named(format!(
            "its name and oauth_scope make a challenge of {bytes} bytes, and clients read no more than {CHALLENGE_BYTES_MAX}"
        ))),
    }
}

/// RFC 6749, section 3.3.
fn scope(text: &str) -> Result<(), String> {
    let is_plain = |b: u8| matches!(b, b'!' | b'#'..=b'[' | b']'..=b'~');
    match text.is_empty() || text.split(' ').all(|word| !word.is_empty() && word.bytes().all(is_plain)) {
        true => Ok(()),
        false => Err("oauth_scope must be words with one blank between them, without quotes and backslashes".into()),
    }
}

/// Types of tokens that stand for something else than who somebody is.
const OTHER_TYPES: [&str; 3] = ["logout+jwt", "dpop+jwt", "secevent+jwt"];

/// ID tokens and most access tokens say `JWT` or nothing, access tokens by RFC 9068 `at+jwt`, JWT-SVIDs also `JOSE`.
fn token_types(raw: &RawIssuer) -> Result<Vec<String>, String> {
    let Some(named) = &raw.token_types else {
        let svid = raw.trust_domain.is_some().then_some("JOSE");
        return Ok(["JWT", "at+jwt"].into_iter().chain(svid).map(str::to_owned).collect());
    };
    match named.iter().find(|name| name.is_empty() || OTHER_TYPES.iter().any(|other| name.eq_ignore_ascii_case(other)))
    {
        Some(name) => Err(format!("token_types: `{name}` is never an identity; use \"JWT\" or \"at+jwt\"")),
        None => Ok(named.clone()),
    }
}

fn lifetime(seconds: u64) -> Result<(), String> {
    match seconds {
        60..=31_536_000 => Ok(()),
        _ => Err("token_lifetime_max_s is 60 to 31536000 (a year)".into()),
    }
}

fn algorithms(names: &[String]) -> Result<(), String> {
    const KNOWN: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    match names.iter().find(|name| !KNOWN.contains(&name.as_str())) {
        Some(name) => {
            Err(format!("algorithms: `{name}` is not an asymmetric signature algorithm; use some of {KNOWN:?}"))
        }
        None if names.is_empty() => Err("algorithms is empty; name at least one, for example [\"ES256\"]".into()),
        None => Ok(()),
    }
}

fn keys(raw: &RawIssuer, directory: &Path) -> Result<Keys, String> {
    let url = |text: &str| checked_url(text, raw.allow_loopback_http);
    let place = match (&raw.jwks_file, &raw.jwks_url, &raw.issuer) {
        (Some(_), Some(_), _) => return Err("jwks_file and jwks_url exclude each other; keep one".into()),
        (Some(file), None, _) => return Ok(Keys::File(directory.join(file))),
        (None, Some(text), _) => Place::Jwks(url(text)?),
        (None, None, Some(issuer)) => Place::Discovery(url(&discovery_url(issuer)?)?),
        (None, None, None) => {
            return Err("without `issuer` there is nothing to discover; give jwks_url or jwks_file".into());
        }
    };
    let refresh = super::seconds("keys_refresh_s", raw.keys_refresh_s)?;
    let stale_max = super::seconds("keys_stale_max_s", raw.keys_stale_max_s)?;
    if raw.keys_refresh_s < REFRESH_S_MIN || stale_max < refresh {
        return Err(format!("keys_refresh_s is at least {REFRESH_S_MIN}, and keys_stale_max_s no less than it"));
    }
    let ca_file = raw.ca_file.as_ref().map(|file| directory.join(file));
    Ok(Keys::Remote(Remote { place, ca_file, allow_loopback_http: raw.allow_loopback_http, refresh, stale_max }))
}

/// OpenID Connect Discovery 1.0, section 4.1: a slash at the issuer's end is not doubled.
fn discovery_url(issuer: &str) -> Result<String, String> {
    match issuer.contains(['?', '#']) {
        true => Err("an issuer has no query and no fragment (OpenID Connect Discovery 1.0, section 3)".into()),
        false => Ok(format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer))),
    }
}

fn role_rule(raw: RawRoleRule) -> Result<RoleRule, String> {
    let when = raw.when.into_iter().map(condition).collect::<Result<Vec<_>, _>>();
    let when = when.map_err(|why| format!("role {}: {why}", raw.role))?;
    match when.is_empty() {
        true => Err(format!("role {}: `when` is empty, so every token would have the role", raw.role)),
        false => Ok(RoleRule { role: raw.role, when }),
    }
}

fn condition(raw: RawCondition) -> Result<Condition, String> {
    if raw.claim.is_empty() {
        return Err("`claim` names no claim".into());
    }
    let test = match (raw.equals, raw.prefix) {
        (Some(value), None) => Test::Equals(value),
        (None, Some(prefix)) if prefix.ends_with(['/', ':']) => Test::Prefix(prefix),
        (None, Some(prefix)) => {
            return Err(format!("prefix = \"{prefix}\" must end with / or :, or longer names would fit it too"));
        }
        _ => return Err("a condition has either `equals` or `prefix`".into()),
    };
    Ok(Condition { claim: raw.claim, test })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "issuer = 'https://idp.test/x'\naudience = 'w'\nalgorithms = ['ES256']\n";

    fn read(text: &str) -> Result<Issuer, String> {
        toml::from_str(text).map_err(|e| e.to_string()).and_then(|raw| check(raw, Path::new("/etc/w")))
    }

    #[test]
    fn keys_are_where_the_configuration_says() {
        for (lines, found) in [
            ("", "Discovery(https://idp.test/x/.well-known/openid-configuration)"),
            ("jwks_url = 'https://keys.test/jwks'", "Jwks(https://keys.test/jwks)"),
            ("jwks_url = 'http://127.0.0.1:1/j'\nallow_loopback_http = true", "Jwks(http://127.0.0.1:1/j)"),
        ] {
            match read(&format!("{SOUND}{lines}")).map(|i| i.keys) {
                Ok(Keys::Remote(remote)) => assert_eq!(format!("{:?}", remote.place), found, "{lines}"),
                other => panic!("{lines}: {other:?}"),
            }
        }
        let keys = read(&format!("{SOUND}jwks_file = 'k.json'")).expect("sound").keys;
        assert!(matches!(keys, Keys::File(path) if path == Path::new("/etc/w/k.json")));
    }

    #[test]
    fn what_is_unsafe_or_unclear_is_refused_with_the_way_to_mend_it() {
        for (lines, why) in [
            ("jwks_url = 'http://keys.test/jwks'", "https"),
            ("jwks_url = 'http://keys.test/jwks'\nallow_loopback_http = true", "https"),
            ("jwks_url = 'http://127.0.0.1/jwks'", "allow_loopback_http"),
            ("jwks_url = 'ftp://keys.test/jwks'", "https"),
            ("jwks_url = 'https://user:secret@keys.test/jwks'", "no user"),
            ("jwks_url = '/jwks'", "https"),
            ("jwks_url = 'https://a/j'\njwks_file = 'k'", "exclude each other"),
            ("keys_refresh_s = 5", "at least 10"),
            ("keys_stale_max_s = 200", "no less"),
            ("keys_stale_max_s = -1", "positive"),
            ("roles_claim = 'https://x.test/roles'", "write it as a list"),
            ("[[role]]\nrole = 'r'\nwhen = []", "every token"),
            ("[[role]]\nrole = 'r'\nwhen = [{ claim = 'sub' }]", "either"),
            ("[[role]]\nrole = 'r'\nwhen = [{ claim = 'sub', equals = 'a', prefix = 'a/' }]", "either"),
            ("[[role]]\nrole = 'r'\nwhen = [{ claim = 'sub', prefix = 'repo:acme' }]", "must end with"),
            ("[[role]]\nrole = 'r'\nwhen = [{ claim = 'sub', prefix = '' }]", "must end with"),
            ("[[role]]\nrole = 'r'\nwhen = [{ claim = [], equals = 'x' }]", "names no claim"),
            ("oauth_scope = 'openid  profile'", "one blank between"),
            ("oauth_scope = 'openid ' ", "one blank between"),
            ("oauth_scope = 'a\"b'", "without quotes"),
            ("oauth_scope = 'a\\b'", "without quotes"),
            ("oauth_scope = 'ä'", "without quotes"),
            ("token_types = ['logout+jwt']", "never an identity"),
            ("token_types = ['']", "never an identity"),
            ("token_lifetime_max_s = 59", "60 to"),
            ("token_lifetime_max_s = 31536001", "60 to"),
            ("unknown = 1", "unknown field"),
        ] {
            let complaint = read(&format!("{SOUND}{lines}")).expect_err(lines);
            assert!(complaint.contains(why), "{lines}: {complaint}");
        }
        for (whole, why) in [
            ("audience = 'w'\nalgorithms = ['ES256']", "needs `issuer`"),
            ("trust_domain = 'acme.test'\naudience = 'w'\nalgorithms = ['ES256']", "nothing to discover"),
            ("issuer = 'https://i?x'\naudience = 'w'\nalgorithms = ['ES256']", "no query"),
            ("issuer = 'https://i'\naudience = 'w'\nalgorithms = ['HS256']", "asymmetric"),
            ("issuer = 'https://i'\naudience = 'w'\nalgorithms = []", "at least one"),
        ] {
            let complaint = read(whole).expect_err(whole);
            assert!(complaint.contains(why), "{whole}: {complaint}");
        }
    }

    #[test]
    fn what_clients_are_told_fits_what_they_read() {
        for (scope_bytes, fits) in [(1700, true), (1900, false)] {
            let read = read(&format!("{SOUND}oauth_scope = '{}'", "s".repeat(scope_bytes)));
            assert_eq!(read.is_ok(), fits, "{scope_bytes}: {read:?}");
        }
    }

    #[test]
    fn no_two_issuers_share_a_name() {
        let of = |texts: &[String]| {
            let raw = texts.iter().map(|t| toml::from_str(t).expect("a table")).collect();
            check_all(raw, Path::new("")).map(|i| i.len())
        };
        let domain = "trust_domain = 'd'\naudience = 'w'\nalgorithms = ['ES256']\njwks_file = 'k'".to_owned();
        let other = SOUND.replace("/x", "/y");
        assert_eq!(of(&[SOUND.into(), other, domain.clone()]), Ok(3));
        assert!(of(&[SOUND.into(), SOUND.into()]).is_err_and(|why| why.contains("two issuers")));
        assert!(of(&[domain.clone(), domain]).is_err_and(|why| why.contains("two issuers")));
        assert!(of(&[]).is_err_and(|why| why.contains("at least one")));
    }
}
