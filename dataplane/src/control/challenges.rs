//! What clients that log in by SASL OAUTHBEARER are told when they have no good token: where to get one.
//! Source: RFC 7628, section 3.2.2.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use crate::config::{Config, Issuer};
use crate::session::Auth;

/// Made of the configuration, once. Who is told has shown nothing yet: it holds what every client may know.
#[derive(Default)]
pub struct Challenges {
    listeners: Vec<(Auth, Arc<str>)>,
    /// Of resources that have an issuer of their own.
    resources: HashMap<String, Arc<str>>,
}

impl Challenges {
    pub fn of(config: &Config) -> Self {
        let challenge = |named: &Option<String>| challenge(config.issuer_for_clients(named.as_deref())).into();
        let own = config.resources.iter().filter(|resource| resource.oauth_issuer.is_some());
        Self {
            listeners: config.listeners.iter().map(|l| (l.auth, challenge(&l.oauth_issuer))).collect(),
            resources: own.map(|r| (r.name.clone(), challenge(&r.oauth_issuer))).collect(),
        }
    }

    /// How clients of a listener give their tokens, unless they say otherwise.
    pub fn auth(&self, listener: usize) -> Auth {
        self.listeners.get(listener).map_or(Auth::default(), |(auth, _)| *auth)
    }

    /// The JSON for a client of this listener that named this database.
    pub fn challenge(&self, listener: usize, database: &str) -> Arc<str> {
        let of_listener = || self.listeners.get(listener).map(|(_, challenge)| challenge);
        self.resources.get(database).or_else(of_listener).cloned().unwrap_or_else(|| challenge(None).into())
    }
}

/// The JSON that sends clients to an issuer. Without one it only says that the token does not count.
pub fn challenge(issuer: Option<&Issuer>) -> String {
    let mut challenge = json!({ "status": "invalid_token" });
    if let Some(url) = issuer.and_then(Issuer::discovery) {
        challenge["openid-configuration"] = url.into();
    }
    if let Some(scope) = issuer.map(|issuer| issuer.oauth_scope.as_str()).filter(|scope| !scope.is_empty()) {
        challenge["scope"] = scope.into();
    }
    challenge.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(issuer: &str) -> String {
        let rest = "audience = 'w'\nalgorithms = ['ES256']\njwks_file = 'k'\n";
        challenge(Some(&Issuer::for_tests(&format!("{rest}{issuer}"))))
    }

    #[test]
    fn an_issuer_with_an_address_is_named_with_its_scope() {
        const A: &str = r#"{"openid-configuration":"https://a.test/x/.well-known/openid-configuration","#;
        for (issuer, expected) in [
            ("issuer = 'https://a.test/x'", format!(r#"{A}"scope":"openid","status":"invalid_token"}}"#)),
            ("issuer = 'https://a.test/x/'", format!(r#"{A}"scope":"openid","status":"invalid_token"}}"#)),
            ("issuer = 'https://a.test/x'\noauth_scope = ''", format!(r#"{A}"status":"invalid_token"}}"#)),
            ("issuer = 'urn:a'\noauth_scope = 'x y'", r#"{"scope":"x y","status":"invalid_token"}"#.into()),
            ("issuer = 'http://a.test'\noauth_scope = ''", r#"{"status":"invalid_token"}"#.into()),
            ("trust_domain = 'a'\noauth_scope = ''", r#"{"status":"invalid_token"}"#.into()),
        ] {
            assert_eq!(told(issuer), expected, "{issuer}");
        }
        assert_eq!(challenge(None), r#"{"status":"invalid_token"}"#);
    }

    #[test]
    fn the_resource_comes_before_the_listener_and_what_is_not_named_tells_nothing() {
        let challenges = Challenges {
            listeners: vec![(Auth::Password, "first".into()), (Auth::Oauth, "second".into())],
            resources: HashMap::from([("shop".to_owned(), "shop's".into())]),
        };
        for (listener, database, expected) in [(0, "shop", "shop's"), (1, "shop", "shop's"), (0, "hr", "first")] {
            assert_eq!(&*challenges.challenge(listener, database), expected);
        }
        assert_eq!(&*challenges.challenge(1, ""), "second");
        assert_eq!((challenges.auth(0), challenges.auth(1)), (Auth::Password, Auth::Oauth));
        let none = Challenges::default();
        assert_eq!((none.auth(3), &*none.challenge(3, "shop")), (Auth::Password, r#"{"status":"invalid_token"}"#));
    }
}
