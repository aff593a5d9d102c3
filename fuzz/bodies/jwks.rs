//! Key sets: the input is a JWKS, as an issuer's file holds it.
//!
//! What must hold: whatever the set says, no unsigned and no symmetric signature counts, and a token of our key counts only if the set
//! holds that key.

use std::sync::OnceLock;

use dataplane::control::identity::Verifier;
use serde_json::Value;

use super::identity::{ISSUER, KID, NOW_UNIX_S, base64, folder, public_key, settings, sign};

thread_local! {
    static FOLDER: Folder = Folder(folder());
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The tokens that every set is tried with: signing them takes longer than all else.
struct Tokens {
    /// With our key's signature.
    ours: Vec<String>,
    /// Under no key ever valid, and why not.
    never: Vec<(String, String)>,
}

fn tokens() -> &'static Tokens {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    TOKENS.get_or_init(|| {
        let claims = format!(r#"{{"iss":"{ISSUER}","aud":"wireward","sub":"ann","exp":{}}}"#, NOW_UNIX_S + 100);
        let signed = |header: String| sign(header.as_bytes(), claims.as_bytes());
        let ours = [format!(r#"{{"alg":"EdDSA","kid":"{KID}"}}"#), r#"{"alg":"EdDSA"}"#.to_owned()].map(signed).into();
        let mut never = Vec::new();
        for algorithm in ["none", "HS256", "HS512", "ES256", "RS256"] {
            let token = signed(format!(r#"{{"alg":"{algorithm}","kid":"{KID}"}}"#));
            let (signed, _) = token.rsplit_once('.').expect("three parts");
            let digest = base64(blake3::hash(signed.as_bytes()).as_bytes(), b"-_", false);
            for signature in ["", &digest] {
                never.push((format!("{signed}.{signature}"), format!("{algorithm} counts without a signature")));
            }
            never.push((token, format!("{algorithm} with a foreign signature counts")));
        }
        Tokens { ours, never }
    })
}

pub fn run(bytes: &[u8]) {
    let path = FOLDER.with(|folder| folder.0.join("keys.json"));
    std::fs::write(&path, bytes).expect("a file");
    let Ok(verifier) = Verifier::load(&[settings(&path)]) else { return };
    for token in &tokens().ours {
        if verifier.verify(token.as_bytes(), NOW_UNIX_S).is_ok() {
            assert!(holds_our_key(bytes), "a key that is not in the set verifies");
        }
    }
    for (token, wrong) in &tokens().never {
        assert!(verifier.verify(token.as_bytes(), NOW_UNIX_S).is_err(), "{wrong}");
    }
}

fn holds_our_key(bytes: &[u8]) -> bool {
    let set: Value = serde_json::from_slice(bytes).expect("an accepted set is JSON");
    let keys = set["keys"].as_array().expect("an accepted set has keys");
    keys.iter().any(|key| key["x"].as_str() == Some(&public_key()) && key["kty"] == "OKP")
}
