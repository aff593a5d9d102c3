//! Who is there: identity tokens (JWTs) of the configured issuers, checked strictly. Sources: RFC 7515, 7517, 7519, 8725.
//!
//! The token's `iss` chooses the issuer, and only that issuer's keys can verify it. The library verifies the signature; every
//! claim is read here, since a claim of the wrong type must refuse the token and not be passed over (CVE-2026-25537 was
//! that). Keys are fetched by the control thread (`issuer.rs`); a shard never waits for them.

mod cache;
mod claims;
pub mod fetch;
mod issuer;
mod jwt;
mod keys;
pub mod path;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config;
use cache::Cache;
pub use issuer::Waiter;
use issuer::{Issuer, NoKeys};
use jwt::{Jwt, string};
use keys::Unverified;

/// Who a verified token says is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Who says so: an issuer's `issuer`, as it is configured. A subject is one of its issuer alone.
    pub issuer: String,
    pub subject: String,
    /// The name claim, or the subject where the token has none.
    pub name: String,
    pub roles: Vec<String>,
    /// Who acts for the subject, the current actor first (RFC 8693).
    pub actors: Vec<Actor>,
    /// Seconds since 1970 at which the token counts no more: its `exp`, and the leeway.
    pub expires_unix_s: u64,
}

/// One who acts for a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub subject: String,
    pub issuer: Option<String>,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// In words that say nothing of its content.
    For(&'static str),
    /// The issuer with this number may have newer keys: ask again when they have been fetched.
    UntilFetched(usize),
}

impl From<&'static str> for Refusal {
    fn from(why: &'static str) -> Self {
        Self::For(why)
    }
}

/// The words for a token whose key is not there, also after it was waited for.
pub const UNKNOWN_KEY: &str = "the token is signed with an unknown key";
const UNREACHABLE: &str =
    "the token cannot be checked: its issuer's keys cannot be fetched; try later or tell the operator";

/// Verifies tokens of all issuers.
pub struct Verifier {
    issuers: Vec<Arc<Issuer>>,
    verified: Cache,
}

impl Verifier {
    /// Keys in files are read now; others are fetched once [`Verifier::keep_fresh`] runs.
    ///
    /// # Errors
    /// Whose keys or certificates cannot be used.
    pub fn load(settings: &[config::Issuer]) -> Result<Self, String> {
        let load =
            |s: &config::Issuer| Issuer::load(s).map(Arc::new).map_err(|why| format!("issuer {}: {why}", s.label()));
        Ok(Self { issuers: settings.iter().map(load).collect::<Result<_, _>>()?, verified: Cache::new()? })
    }

    /// As [`Verifier::load`]; issuers that are fetched, and whose settings are the same, keep the keys that they have.
    ///
    /// # Errors
    /// Whose keys or certificates cannot be used.
    pub fn reload(&self, settings: &[config::Issuer]) -> Result<Self, String> {
        let again = |s: &config::Issuer| match self.issuers.iter().find(|i| i.is_fetched() && i.settings == *s) {
            Some(issuer) => Ok(issuer.clone()),
            None => Issuer::load(s).map(Arc::new).map_err(|why| format!("issuer {}: {why}", s.label())),
        };
        Ok(Self { issuers: settings.iter().map(again).collect::<Result<_, _>>()?, verified: Cache::new()? })
    }

    /// Ends the fetching for issuers that the newer verifier does not have.
    pub fn retire(&self, newer: &Self) {
        let is_gone = |issuer: &&Arc<Issuer>| !newer.issuers.iter().any(|i| Arc::ptr_eq(i, issuer));
        self.issuers.iter().filter(is_gone).for_each(|issuer| issuer.retire());
    }

    /// # Errors
    /// Why the token does not count, or does not count yet.
    pub fn verify(&self, token: &[u8], now_unix_s: u64) -> Result<Identity, Refusal> {
        let now = Instant::now();
        if let Some(identity) = self.verified.get(token, now_unix_s, |issuer| self.issuers[issuer].keys(now).ok()) {
            return Ok(identity);
        }
        let jwt = Jwt::parse(token)?;
        let number = self.issuer_of(&jwt)?;
        let issuer = &self.issuers[number];
        if !is_allowed(string(&jwt.header, "alg")?, &issuer.settings) {
            return Err("the token's algorithm is not allowed".into());
        }
        claims::check_type(&jwt.header, &issuer.settings)?;
        let keys = issuer.keys(now).map_err(|none| match none {
            NoKeys::Yet => Refusal::UntilFetched(number),
            NoKeys::Reachable => Refusal::For(UNREACHABLE),
        })?;
        keys.verify(&jwt).map_err(|why| match why {
            Unverified::Never(why) => Refusal::For(why),
            Unverified::UnknownKey if issuer.may_bring_more() => Refusal::UntilFetched(number),
            Unverified::UnknownKey => Refusal::For(UNKNOWN_KEY),
        })?;
        let identity = claims::check(&jwt.claims, &issuer.settings, now_unix_s)?;
        self.verified.put(token, &identity, number, &keys);
        Ok(identity)
    }

    /// The issuer that the token claims to be of, by `iss`; a SPIFFE token without a known one by its trust domain.
    fn issuer_of(&self, jwt: &Jwt<'_>) -> Result<usize, &'static str> {
        let position = |fits: &dyn Fn(&config::Issuer) -> bool| self.issuers.iter().position(|i| fits(&i.settings));
        let named = string(&jwt.claims, "iss")?;
        let domain = string(&jwt.claims, "sub")?.and_then(claims::trust_domain);
        let by_name = named.and_then(|name| position(&|i| i.issuer.as_deref() == Some(name)));
        let by_domain = || position(&|i| i.issuer.is_none() && domain.is_some() && i.trust_domain.as_deref() == domain);
        by_name.or_else(by_domain).ok_or("the token is of another issuer (iss)")
    }

    /// Has the waiter called when the issuer's keys have been fetched, well or badly.
    pub fn wait(&self, issuer: usize, waiter: Waiter) {
        self.issuers[issuer].wait(waiter);
    }

    /// Starts to keep all issuers' keys fresh, on the control thread's runtime.
    pub fn keep_fresh(&self) {
        for issuer in self.issuers.iter().filter(|i| i.starts()).cloned() {
            tokio::spawn(async move { issuer.keep_fresh().await });
        }
    }

    /// Each issuer's label and how old its keys are, if it has any.
    pub fn keys_ages(&self) -> Vec<(&str, Option<Duration>)> {
        let now = Instant::now();
        self.issuers.iter().map(|issuer| (issuer.settings.label(), issuer.keys_age(now))).collect()
    }

    /// Fetches all keys once.
    ///
    /// # Errors
    /// Whose keys cannot be fetched, and why.
    pub async fn fetch_all(&self) -> Result<(), String> {
        for issuer in &self.issuers {
            issuer.refresh().await.map_err(|why| format!("issuer {}: {why}", issuer.settings.label()))?;
        }
        Ok(())
    }
}

/// Whether a token's header may name this algorithm at all; the key decides which it is.
fn is_allowed(algorithm: Option<&str>, settings: &config::Issuer) -> bool {
    algorithm.is_some_and(|name| settings.algorithms.iter().any(|allowed| allowed == name))
}
