//! An identity provider in one file: an ES256 key made at start, its public half as a JWKS, and tokens on demand.
//! Good for a demonstration and for tests; the private key never leaves the process.

use super::server::Outcome;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub const ISSUER: &str = "http://wireward.demo";
pub const AUDIENCE: &str = "wireward";
/// The name claim that every token carries, so that one `PGUSER` serves them all.
pub const NAME: &str = "demo";
const KEY_ID: &str = "demo-1";
const LIFETIME_S: u64 = 12 * 60 * 60;

pub struct Issuer {
    /// The private half, for whoever wants to sign what [`Issuer::sign`] would not.
    pub key: EncodingKey,
    public: Value,
}

impl Issuer {
    pub fn new() -> Outcome<Issuer> {
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let pair = pair.map_err(|_| "cannot make an ES256 key: the system gives no random bytes".to_owned())?;
        let key = EncodingKey::from_ec_der(pair.as_ref());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256)
            .and_then(|jwk| Ok(serde_json::to_value(jwk)?))
            .map_err(|error| format!("cannot write the key as a JWK: {error}"))?;
        public["kid"] = json!(KEY_ID);
        public["use"] = json!("sig");
        Ok(Issuer { key, public })
    }

    /// The key set that the gateway verifies against (RFC 7517).
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.public] })
    }

    /// The claims of an honest token for 12 hours, to sign or to spoil first.
    pub fn claims(subject: &str, roles: &[&str]) -> Value {
        let now = now_s();
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "preferred_username": NAME, "roles": roles,
            "iat": now, "nbf": now, "exp": now + LIFETIME_S,
        })
    }

    pub fn header() -> Header {
        Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) }
    }

    /// A signed token (RFC 7519, compact form).
    pub fn sign(&self, claims: &Value) -> Outcome<String> {
        jsonwebtoken::encode(&Issuer::header(), claims, &self.key)
            .map_err(|error| format!("cannot sign a token: {error}"))
    }

    pub fn token(&self, subject: &str, roles: &[&str]) -> Outcome<String> {
        self.sign(&Issuer::claims(subject, roles))
    }
}

/// Seconds since the epoch.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
