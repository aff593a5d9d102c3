//! Identity tokens. The first byte says what follows: 0 a token as the client sends it; 1 claims (JSON), which the issuer has
//! signed; 2 a header's length in one byte, header and claims, which it has signed; 3 as 1, but the signature's byte at the next byte's
//! place is changed by the one after.
//!
//! What must hold: only what the issuer has signed is accepted, and only with claims that a naive reading accepts too.

use std::sync::OnceLock;

use dataplane::control::identity::{Identity, Verifier};
use serde_json::{Value, json};

use super::identity::{AUDIENCE, ISSUER, KID, LEEWAY_S, NOW_UNIX_S, folder, public_key, settings, sign};
use super::input::Input;

/// RFC 7515 A.3 and A.2: keys whose private halves are known to everybody.
const EC_KEY: &str = r#"{"kty":"EC","crv":"P-256","kid":"ec","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const RSA_KEY: &str = r#"{"kty":"RSA","kid":"rsa","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#;

fn verifier() -> &'static Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let folder = folder();
        let path = folder.join("keys.json");
        let ours = json!({"kty": "OKP", "crv": "Ed25519", "kid": KID, "x": public_key()});
        std::fs::write(&path, format!(r#"{{"keys":[{ours},{EC_KEY},{RSA_KEY}]}}"#)).expect("a file");
        let verifier = Verifier::load(&[settings(&path)]).expect("sound keys");
        let _ = std::fs::remove_dir_all(folder);
        verifier
    })
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let header = format!(r#"{{"alg":"EdDSA","kid":"{KID}"}}"#);
    let mut forged = false;
    let (token, claims) = match input.byte() {
        0 => (input.0.to_vec(), None),
        2 => {
            let length = input.byte();
            let header = input.bytes(length.into());
            (sign(header, input.0).into_bytes(), Some(input.0))
        }
        3 => {
            let (place, change) = (usize::from(input.byte()), input.byte());
            let mut token = sign(header.as_bytes(), input.0).into_bytes();
            let place = token.len() - 1 - place % 86;
            token[place] ^= change;
            forged = change != 0;
            (token, Some(input.0))
        }
        _ => (sign(header.as_bytes(), input.0).into_bytes(), Some(input.0)),
    };
    let verified = verifier().verify(&token, NOW_UNIX_S);
    let Ok(identity) = verified else { return };
    assert!(!forged, "a token with a changed signature is accepted");
    let claims = match claims {
        Some(claims) => claims.to_vec(),
        None => signed_claims(&token),
    };
    check(&identity, &claims);
    assert_eq!(verifier().verify(&token, NOW_UNIX_S).ok(), Some(identity), "a remembered token says something else");
}

/// Of a token that the fuzzer has written whole: it must be one that the issuer signs so too. Nothing else can be right, for
/// Ed25519 is deterministic, and nobody here signs with the other keys.
fn signed_claims(token: &[u8]) -> Vec<u8> {
    let known = std::iter::once(CLAIMS).map(|claims| (claims, sign(HEADER, claims)));
    let known = known.into_iter().find(|(_, signed)| signed.as_bytes() == token);
    known.unwrap_or_else(|| panic!("a token that nobody has signed is accepted: {}", token.escape_ascii())).0.to_vec()
}

/// The one token that seeds may hold whole.
const HEADER: &[u8] = br#"{"alg":"EdDSA","kid":"k"}"#;
const CLAIMS: &[u8] = br#"{"iss":"https://issuer","aud":"wireward","sub":"ann","exp":1800000100}"#;

/// The claims read once more, without the product's readers.
fn check(identity: &Identity, claims: &[u8]) {
    let claims: Value = serde_json::from_slice(claims).expect("accepted claims are JSON");
    let seconds = |name: &str| claims.get(name).and_then(Value::as_f64);
    let expires_s = seconds("exp").expect("accepted claims have an expiry");
    assert!(expires_s + LEEWAY_S as f64 + 1.0 > NOW_UNIX_S as f64, "an expired token is accepted: {claims}");
    assert!(identity.expires_unix_s as f64 <= expires_s + LEEWAY_S as f64, "it counts longer than it says: {claims}");
    let begins_s = claims.get("nbf").map(|_| seconds("nbf").expect("a number"));
    assert!(begins_s.is_none_or(|s| s < (NOW_UNIX_S + LEEWAY_S) as f64 + 1.0), "it is not valid yet: {claims}");
    let audience = match &claims["aud"] {
        Value::Array(many) => many.contains(&json!(AUDIENCE)),
        one => *one == json!(AUDIENCE),
    };
    assert!(audience, "a token for another audience is accepted: {claims}");
    assert_eq!(claims["iss"], json!(ISSUER), "a token of another issuer is accepted");
    assert_eq!(claims["sub"], json!(identity.subject), "the subject is another");
    assert!(!identity.subject.is_empty() && !identity.name.is_empty(), "nobody is let in: {claims}");
    let roles = &claims["realm_access"]["roles"];
    for role in &identity.roles {
        let said = *roles == json!(role) || roles.as_array().is_some_and(|roles| roles.contains(&json!(role)));
        let given = role == "batch" && claims["groups"].to_string().contains("\"jobs/");
        assert!(said || given, "the role {role} comes from nowhere: {claims}");
    }
}
