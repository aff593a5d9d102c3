//! Identity tokens: JWTs checked against a JWKS file, strictly by type. Sources: RFC 7515, 7517, 7519, 8725.
//!
//! The library verifies the signature; every claim is read here, since a claim of the wrong type must refuse the token and
//! not be passed over (CVE-2026-25537 was that).

use std::collections::HashMap;
use std::path::Path;

use jsonwebtoken::jwk::{JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::de::{self, MapAccess, Visitor};
use serde_json::Value;

use crate::config;

/// Who a verified token says is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub subject: String,
    /// The name claim, or the subject where the token has none.
    pub name: String,
    pub roles: Vec<String>,
    /// Seconds since 1970 at which the token expires.
    pub expires_unix_s: u64,
}

/// Verifies tokens of one issuer.
pub struct Verifier {
    keys: Vec<Key>,
    settings: config::Identity,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The longest header or key id that is looked at, bytes.
const HEADER_BYTES_MAX: usize = 4096;

impl Verifier {
    /// # Errors
    /// When the JWKS file cannot be read or holds no key for the configured algorithms.
    pub fn load(settings: &config::Identity) -> Result<Self, String> {
        let keys = read_keys(&settings.jwks_file, &settings.algorithms)?;
        Ok(Self { keys, settings: settings.clone() })
    }

    /// # Errors
    /// Why the token does not count, in words that say nothing of its content.
    pub fn verify(&self, token: &[u8], now_unix_s: u64) -> Result<Identity, &'static str> {
        let token = std::str::from_utf8(token).map_err(|_| "the token is not a JWT")?;
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("the token is not a signed JWT: give an identity token as the password");
        };
        let key = self.key_for(header)?;
        let signed = &token[..header.len() + 1 + payload.len()];
        match jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.key, key.algorithm) {
            Ok(true) => self.check_claims(&decode_object(payload)?, now_unix_s),
            _ => Err("the token's signature is wrong"),
        }
    }

    /// The key and its own algorithm decide; the header may only agree.
    fn key_for(&self, header: &str) -> Result<&Key, &'static str> {
        if header.len() > HEADER_BYTES_MAX {
            return Err("the token's header is too long");
        }
        let header = decode_object(header)?;
        if header.contains_key("crit") {
            return Err("the token asks for extensions (crit) that are not understood");
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) if self.settings.algorithms.contains(name) => {
                name.parse::<Algorithm>().map_err(|_| "the token's algorithm is not allowed")?
            }
            _ => return Err("the token's algorithm is not allowed"),
        };
        let id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return Err("the token's key id is not a string"),
        };
        let mut fitting = self.keys.iter().filter(|k| k.algorithm == algorithm);
        match id {
            Some(id) => fitting.find(|k| k.id.as_deref() == Some(id)).ok_or("the token is signed with an unknown key"),
            // Without an id it must be plain which key is meant.
            None => match (fitting.next(), fitting.next()) {
                (Some(key), None) => Ok(key),
                _ => Err("the token names no key (kid) and several could be meant"),
            },
        }
    }

    fn check_claims(&self, claims: &HashMap<String, Value>, now_unix_s: u64) -> Result<Identity, &'static str> {
        let leeway = self.settings.leeway_s;
        let expires = time(claims, "exp")?.ok_or("the token has no expiry (exp)")?;
        if now_unix_s > expires.saturating_add(leeway) {
            return Err("the token has expired: get a new one");
        }
        if time(claims, "nbf")?.is_some_and(|nbf| now_unix_s.saturating_add(leeway) < nbf) {
            return Err("the token is not valid yet (nbf)");
        }
        time(claims, "iat")?;
        if string(claims, "iss")? != Some(self.settings.issuer.as_str()) {
            return Err("the token is of another issuer (iss)");
        }
        if !audiences(claims)?.contains(&self.settings.audience.as_str()) {
            return Err("the token is for another audience (aud)");
        }
        let subject = string(claims, "sub")?.filter(|s| !s.is_empty()).ok_or("the token has no subject (sub)")?;
        let name = string(claims, &self.settings.name_claim)?.filter(|s| !s.is_empty()).unwrap_or(subject);
        Ok(Identity {
            subject: subject.to_owned(),
            name: name.to_owned(),
            roles: self.roles(claims)?,
            expires_unix_s: expires,
        })
    }

    /// The roles claim; dots reach into objects (`realm_access.roles`).
    fn roles(&self, claims: &HashMap<String, Value>) -> Result<Vec<String>, &'static str> {
        const WRONG: &str = "the token's roles claim is not a list of strings";
        let whole = claims.get(&self.settings.roles_claim);
        let found = whole.or_else(|| {
            let mut path = self.settings.roles_claim.split('.');
            let first = claims.get(path.next()?)?;
            path.try_fold(first, |value, step| value.get(step))
        });
        match found {
            None => Ok(Vec::new()),
            Some(Value::String(role)) => Ok(vec![role.clone()]),
            Some(Value::Array(roles)) => roles.iter().map(|r| r.as_str().map(str::to_owned).ok_or(WRONG)).collect(),
            Some(_) => Err(WRONG),
        }
    }
}

fn time(claims: &HashMap<String, Value>, name: &'static str) -> Result<Option<u64>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        // RFC 7519 allows fractions; a string, a negative or an endless number is none of its times.
        Some(Value::Number(n)) => match (n.as_u64(), n.as_f64()) {
            (Some(seconds), _) if seconds < 1 << 53 => Ok(Some(seconds)),
            (None, Some(seconds)) if seconds >= 0.0 && seconds < 9e15 => Ok(Some(seconds as u64)),
            _ => Err("a time in the token is out of range"),
        },
        Some(_) => Err("a time in the token is not a number"),
    }
}

fn string<'a>(claims: &'a HashMap<String, Value>, name: &str) -> Result<Option<&'a str>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a claim of the token has the wrong type"),
    }
}

fn audiences(claims: &HashMap<String, Value>) -> Result<Vec<&str>, &'static str> {
    const WRONG: &str = "the token's audience (aud) is neither a string nor a list of strings";
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) => many.iter().map(|v| v.as_str().ok_or(WRONG)).collect(),
        _ => Err(WRONG),
    }
}

/// A base64url part as a JSON object without duplicate names: of two, readers could take either.
fn decode_object(part: &str) -> Result<HashMap<String, Value>, &'static str> {
    const WRONG: &str = "the token is not a JWT";
    let bytes = decode_base64url(part).ok_or(WRONG)?;
    serde_json::from_slice::<Object>(&bytes).map(|o| o.0).map_err(|_| WRONG)
}

/// Base64url without padding (RFC 4648 section 5), canonical only.
fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (held < 6 && bits == 0).then_some(out)
}

struct Object(HashMap<String, Value>);

impl<'de> de::Deserialize<'de> for Object {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Object;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = HashMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if object.insert(name, value).is_some() {
                        return Err(de::Error::custom("a name stands twice"));
                    }
                }
                Ok(Object(object))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}

fn read_keys(path: &Path, algorithms: &[String]) -> Result<Vec<Key>, String> {
    let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let set: JwkSet = serde_json::from_slice(&text).map_err(|e| format!("{}: not a JWKS: {e}", path.display()))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        if matches!(&jwk.common.public_key_use, Some(u) if *u != PublicKeyUse::Signature) {
            continue;
        }
        let Ok(key) = DecodingKey::from_jwk(jwk) else { continue };
        let named = jwk.common.key_algorithm.map(|a: KeyAlgorithm| a.to_string());
        for name in algorithms {
            let Ok(algorithm) = name.parse::<Algorithm>() else { continue };
            let fits = named.as_ref().is_none_or(|n| n == name) && algorithm_family_fits(algorithm, jwk);
            if fits {
                keys.push(Key { id: jwk.common.key_id.clone(), algorithm, key: key.clone() });
            }
        }
    }
    match keys.is_empty() {
        true => Err(format!("{}: no signature key for any of identity.algorithms {algorithms:?}", path.display())),
        false => Ok(keys),
    }
}

fn algorithm_family_fits(algorithm: Algorithm, jwk: &jsonwebtoken::jwk::Jwk) -> bool {
    use jsonwebtoken::jwk::{AlgorithmParameters as P, EllipticCurve as C};
    match (&jwk.algorithm, algorithm) {
        (P::RSA(_), a) => matches!(
            a,
            Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512
        ),
        (P::EllipticCurve(p), Algorithm::ES256) => p.curve == C::P256,
        (P::EllipticCurve(p), Algorithm::ES384) => p.curve == C::P384,
        (P::OctetKeyPair(p), Algorithm::EdDSA) => p.curve == C::Ed25519,
        _ => false,
    }
}
