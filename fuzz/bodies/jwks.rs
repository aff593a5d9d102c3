//! Key sets: the input is a JWKS, as an issuer's file holds it.
//!
//! What must hold: whatever the set says, no unsigned and no symmetric signature counts, and a token of our key counts only if the set
//! holds that key.

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

pub fn run(bytes: &[u8]) {
    let path = FOLDER.with(|folder| folder.0.join("keys.json"));
    std::fs::write(&path, bytes).expect("a file");
    let Ok(verifier) = Verifier::load(&[settings(&path)]) else { return };
    let claims = format!(r#"{{"iss":"{ISSUER}","aud":"wireward","sub":"ann","exp":{}}}"#, NOW_UNIX_S + 100);
    for header in [format!(r#"{{"alg":"EdDSA","kid":"{KID}"}}"#), r#"{"alg":"EdDSA"}"#.to_owned()] {
        if verifier.verify(sign(header.as_bytes(), claims.as_bytes()).as_bytes(), NOW_UNIX_S).is_ok() {
            assert!(holds_our_key(bytes), "a key that is not in the set verifies");
        }
    }
    for algorithm in ["none", "HS256", "HS512", "ES256", "RS256"] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"{KID}"}}"#);
        let token = sign(header.as_bytes(), claims.as_bytes());
        assert!(verifier.verify(token.as_bytes(), NOW_UNIX_S).is_err(), "{algorithm} with a foreign signature counts");
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        let digest = base64(blake3::hash(signed.as_bytes()).as_bytes(), b"-_", false);
        for signature in ["", &digest] {
            let token = format!("{signed}.{signature}");
            assert!(verifier.verify(token.as_bytes(), NOW_UNIX_S).is_err(), "{algorithm} counts without a signature");
        }
    }
}

fn holds_our_key(bytes: &[u8]) -> bool {
    let set: Value = serde_json::from_slice(bytes).expect("an accepted set is JSON");
    let keys = set["keys"].as_array().expect("an accepted set has keys");
    keys.iter().any(|key| key["x"].as_str() == Some(&public_key()) && key["kty"] == "OKP")
}
