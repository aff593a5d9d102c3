//! The client's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, towards upstreams.
//!
//! Thousands of rounds of a hash lead from a password to its keys: that is half a millisecond or more of a shard's time. The
//! salt of a role stays the same, so the keys are kept with the credential, and a login costs five hashes.
//! Source: RFC 5802, RFC 7677; RFC 5929 for the binding.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::prelude::{BASE64_STANDARD, Engine};

use crate::control::credential::{Derived, Secret};

pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Rounds that an upstream may ask for: 24 times PostgreSQL's default. More would hold up a shard.
const ITERATIONS_MAX: u32 = 100_000;
const KEY_BYTES: usize = digest::SHA256_OUTPUT_LEN;
/// Random bytes of the nonce.
const NONCE_BYTES: usize = 18;

/// What is said about the TLS connection around the login.
pub enum Binding {
    /// There is none.
    Unsupported,
    /// The upstream offers none; if it did, somebody between has hidden it, and the upstream finds out.
    Unrequested,
    /// tls-server-end-point: a hash of the upstream's certificate.
    EndPoint(Vec<u8>),
}

/// One login. Each step is asked for once, in order.
pub struct Scram {
    secret: Secret,
    binding: Binding,
    nonce: String,
    message: String,
    /// What the server must sign, with which key; set by [`Scram::update`].
    awaited: Option<(Derived, String)>,
}

impl Binding {
    fn head(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::Unrequested => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    fn encoded(&self) -> String {
        let mut text = self.head().as_bytes().to_vec();
        if let Self::EndPoint(hash) = self {
            text.extend_from_slice(hash);
        }
        BASE64_STANDARD.encode(text)
    }
}

impl Scram {
    /// `None` if the system has no random bytes.
    pub fn new(secret: Secret, binding: Binding) -> Option<Self> {
        let mut nonce = [0; NONCE_BYTES];
        rand::fill(&mut nonce).ok()?;
        Some(Self::with_nonce(secret, binding, BASE64_STANDARD.encode(nonce)))
    }

    fn with_nonce(secret: Secret, binding: Binding, nonce: String) -> Self {
        let message = format!("{}n=,r={nonce}", binding.head());
        Self { secret, binding, nonce, message, awaited: None }
    }

    /// What to send now.
    pub fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Takes the server's first message. `None`: it is malformed, or no answer to ours.
    pub fn update(&mut self, first: &[u8]) -> Option<()> {
        let first = std::str::from_utf8(first).ok()?;
        let (nonce, rest) = first.strip_prefix("r=")?.split_once(",s=")?;
        let (salt, iterations) = rest.split_once(",i=")?;
        let is_plain = nonce.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        let iterations = NonZeroU32::new(iterations.parse().ok()?).filter(|i| i.get() <= ITERATIONS_MAX)?;
        if self.awaited.is_some() || !is_plain || !nonce.starts_with(&self.nonce) {
            return None;
        }
        let salt = BASE64_STANDARD.decode(salt).ok()?;
        let keys = self.secret.derived(&salt, iterations.get(), |password| derive(password, &salt, iterations));
        let without_proof = format!("c={},r={nonce}", self.binding.encoded());
        let said = format!("n=,r={},{first},{without_proof}", self.nonce);
        let stored_key = digest::digest(&digest::SHA256, &keys.client_key);
        let signature = sign(stored_key.as_ref(), &said);
        let proof: Vec<u8> = keys.client_key.iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        self.message = format!("{without_proof},p={}", BASE64_STANDARD.encode(proof));
        self.awaited = Some((keys, said));
        Some(())
    }

    /// Takes the server's last message. `None`: it has not proved that it knows the credential.
    pub fn finish(&mut self, last: &[u8]) -> Option<()> {
        let (keys, said) = self.awaited.take()?;
        let signature = BASE64_STANDARD.decode(last.strip_prefix(b"v=")?).ok()?;
        constant_time::verify_slices_are_equal(sign(&keys.server_key, &said).as_ref(), &signature).ok()
    }
}

fn sign(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Derived {
    let mut salted = [0; KEY_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &normalized(password), &mut salted);
    let key = |name| sign(&salted, name).as_ref().try_into().unwrap_or([0; KEY_BYTES]);
    let derived = Derived {
        salt: salt.into(),
        iterations: iterations.get(),
        client_key: key("Client Key"),
        server_key: key("Server Key"),
    };
    salted.fill(0);
    derived
}

/// As PostgreSQL does: by SASLprep where that is possible, otherwise as it is.
fn normalized(password: &[u8]) -> Vec<u8> {
    let prepared = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
    prepared.map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    /// RFC 7677, 3, but for the user name, which PostgreSQL wants empty: proof and signature are computed for that.
    fn login() -> Scram {
        Scram::with_nonce(Secret::new(b"pencil"), Binding::Unsupported, "rOprNGfwEbeRWgbNEkqO".into())
    }

    #[test]
    fn the_keys_are_those_of_the_rfc() {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = derive(b"pencil", &salt, NonZeroU32::new(4096).unwrap());
        let said = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let stored_key = digest::digest(&digest::SHA256, &keys.client_key);
        let signature = sign(stored_key.as_ref(), said);
        let proof: Vec<u8> = keys.client_key.iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        assert_eq!(BASE64_STANDARD.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let verifier = BASE64_STANDARD.encode(sign(&keys.server_key, said));
        assert_eq!(verifier, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_login_is_finished_by_the_right_signature_only() {
        let mut login = login();
        assert_eq!(login.message(), b"n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        login.update(FIRST.as_bytes()).expect("it answers ours");
        let (keys, said) = login.awaited.as_ref().expect("an update").clone();
        let last = format!("v={}", BASE64_STANDARD.encode(sign(&keys.server_key, &said)));
        let mut other = self::login();
        other.update(FIRST.as_bytes()).expect("it answers ours");
        assert!(other.finish(format!("v={}", BASE64_STANDARD.encode([0; 32])).as_bytes()).is_none());
        assert!(other.finish(last.as_bytes()).is_none(), "there is one try");
        login.finish(last.as_bytes()).expect("the server knows the credential");
    }

    #[test]
    fn what_is_no_answer_to_ours_is_refused() {
        let nonce = "r=rOprNGfwEbeRWgbNEkqO";
        let rows = [
            ("another nonce", FIRST.replace("r=rO", "r=ro")),
            ("too many rounds", FIRST.replace("4096", "100001")),
            ("no rounds", FIRST.replace("4096", "0")),
            ("a comma in the nonce", FIRST.replace("%hv", ",hv")),
            ("no salt", format!("{nonce}x,i=4096")),
            ("a salt that is none", format!("{nonce}x,s=*,i=4096")),
            ("more behind it", format!("{FIRST},x=1")),
            ("nothing", String::new()),
        ];
        for (what, first) in rows {
            assert!(login().update(first.as_bytes()).is_none(), "{what}");
        }
        assert!(login().finish(b"v=").is_none(), "before its time");
    }

    #[test]
    fn keys_are_derived_once_for_a_salt_and_again_for_another() {
        let secret = Secret::new(b"pencil");
        let times = std::cell::Cell::new(0);
        let derive = |salt: &[u8]| {
            secret.derived(salt, 1, |password| {
                times.set(times.get() + 1);
                super::derive(password, salt, NonZeroU32::MIN)
            })
        };
        let first = derive(b"salt");
        assert_eq!((derive(b"salt").client_key, times.get()), (first.client_key, 1));
        assert_ne!(derive(b"pepper").client_key, first.client_key);
        assert_eq!(times.get(), 2);
        assert!(!format!("{secret:?}").contains("pencil"));
    }
}
