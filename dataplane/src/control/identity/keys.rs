//! A JSON Web Key Set (RFC 7517), reduced to what verifies signatures.

use std::path::Path;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::jwt::{Jwt, Object, parse_object};
use crate::config::issuer::Issuer;

/// The keys of one issuer at one time.
pub struct KeySet {
    keys: Vec<Key>,
    /// As they were read, to tell whether anything has changed.
    written: Vec<Value>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why a signature does not count.
#[derive(Debug, PartialEq, Eq)]
pub enum Unverified {
    /// No key has this id: the issuer may have a newer one.
    UnknownKey,
    Never(&'static str),
}

impl KeySet {
    /// # Errors
    /// When the file cannot be read, or holds no key for the issuer's algorithms.
    pub fn load(path: &Path, settings: &Issuer) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("jwks_file {}: {e}", path.display()))?;
        let set = Self::parse(&bytes, settings).map_err(|why| format!("{}: {why}", path.display()))?;
        match set.is_empty() {
            true => Err(format!("{}: no signature key for any of {:?}", path.display(), settings.algorithms)),
            false => Ok(set),
        }
    }

    /// Keys that are not understood, or not for signatures, are passed over (RFC 7517 section 5).
    ///
    /// # Errors
    /// When it is no key set at all.
    pub fn parse(bytes: &[u8], settings: &Issuer) -> Result<Self, String> {
        const WRONG: &str = "not a JWKS (RFC 7517): a JSON object with a list of `keys`";
        let written = match parse_object(bytes).and_then(|mut set| set.remove("keys")) {
            Some(Value::Array(keys)) => keys,
            _ => return Err(WRONG.into()),
        };
        let is_for_us = |key: &&Value| match key.get("use").map(Value::as_str) {
            None | Some(Some("sig")) => true,
            Some(Some("jwt-svid")) => settings.trust_domain.is_some(),
            _ => false,
        };
        let keys = written.iter().filter(is_for_us).flat_map(|key| fitting(key, &settings.algorithms)).collect();
        Ok(Self { keys, written })
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn same_as(&self, other: &Self) -> bool {
        self.written == other.written
    }

    /// # Errors
    /// Why the token's signature does not count.
    pub fn verify(&self, jwt: &Jwt<'_>) -> Result<(), Unverified> {
        let key = self.key_for(&jwt.header)?;
        match jsonwebtoken::crypto::verify(jwt.signature, jwt.signed.as_bytes(), &key.key, key.algorithm) {
            Ok(true) => Ok(()),
            _ => Err(Unverified::Never("the token's signature is wrong")),
        }
    }

    /// The key and its own algorithm decide; the header may only agree.
    fn key_for(&self, header: &Object) -> Result<&Key, Unverified> {
        if header.contains_key("crit") {
            return Err(Unverified::Never("the token asks for extensions (crit) that are not understood"));
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(|name| name.parse::<Algorithm>().ok());
        let mut fitting = self.keys.iter().filter(|k| Some(k.algorithm) == algorithm);
        match header.get("kid") {
            Some(Value::String(id)) => fitting.find(|k| k.id.as_ref() == Some(id)).ok_or(Unverified::UnknownKey),
            Some(_) => Err(Unverified::Never("the token's key id is not a string")),
            // Without an id it must be plain which key is meant.
            None => match (fitting.next(), fitting.next()) {
                (Some(key), None) => Ok(key),
                _ => Err(Unverified::Never("the token names no key (kid) and it is not plain which is meant")),
            },
        }
    }
}

/// A key once for each allowed algorithm that it may be used with.
fn fitting(written: &Value, algorithms: &[String]) -> Vec<Key> {
    let Ok(jwk) = serde_json::from_value::<Jwk>(written.clone()) else { return Vec::new() };
    let Ok(key) = DecodingKey::from_jwk(&jwk) else { return Vec::new() };
    let named = written.get("alg");
    let allowed = algorithms.iter().filter(|name| named.is_none_or(|n| n.as_str() == Some(name)));
    let parsed = allowed.filter_map(|name| name.parse().ok()).filter(|algorithm| family_fits(*algorithm, &jwk));
    parsed.map(|algorithm| Key { id: jwk.common.key_id.clone(), algorithm, key: key.clone() }).collect()
}

fn family_fits(algorithm: Algorithm, jwk: &Jwk) -> bool {
    use Algorithm as A;
    match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => {
            matches!(algorithm, A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512)
        }
        AlgorithmParameters::EllipticCurve(p) => match algorithm {
            A::ES256 => p.curve == EllipticCurve::P256,
            A::ES384 => p.curve == EllipticCurve::P384,
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(p) => algorithm == A::EdDSA && p.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}
