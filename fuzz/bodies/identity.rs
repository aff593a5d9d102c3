//! An issuer whose signing key is known, and its settings.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use dataplane::config::issuer::{Condition, Issuer, Keys, RoleRule, Test};
use dataplane::control::identity::path::ClaimPath;

pub const ISSUER: &str = "https://issuer";
pub const AUDIENCE: &str = "wireward";
pub const LEEWAY_S: u64 = 60;
/// The clock of every run, seconds since 1970.
pub const NOW_UNIX_S: u64 = 1_800_000_000;
/// The key's id.
pub const KID: &str = "k";

pub fn key() -> &'static Ed25519KeyPair {
    static KEY: OnceLock<Ed25519KeyPair> = OnceLock::new();
    KEY.get_or_init(|| Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("any seed is a key"))
}

/// The public half, as a JWK writes it.
pub fn public_key() -> String {
    base64url(key().public_key().as_ref())
}

/// A token in compact form, signed with the key.
pub fn sign(header: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", base64url(header), base64url(claims));
    let signature = base64url(key().sign(signed.as_bytes()).as_ref());
    format!("{signed}.{signature}")
}

pub fn settings(keys: &Path) -> Issuer {
    let claim = |text| ClaimPath::parse(text).expect("a claim");
    let rule = RoleRule {
        role: "batch".into(),
        when: vec![Condition { claim: claim("groups"), test: Test::Prefix("jobs/".into()) }],
    };
    Issuer {
        issuer: Some(ISSUER.into()),
        trust_domain: None,
        audience: AUDIENCE.into(),
        algorithms: ["EdDSA", "ES256", "RS256"].map(String::from).into(),
        keys: Keys::File(keys.to_owned()),
        roles_claim: claim("realm_access.roles"),
        name_claim: claim("preferred_username"),
        roles: vec![rule],
        leeway_s: LEEWAY_S,
        token_types: ["JWT", "at+jwt"].map(String::from).into(),
        token_lifetime_max_s: 86_400,
        oauth_scope: "openid".into(),
    }
}

/// A folder of this process and thread, in memory where the system has such.
pub fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let thread = format!("{:?}", std::thread::current().id());
    let number: String = thread.chars().filter(char::is_ascii_digit).collect();
    let folder = place.join(format!("wireward-fuzz-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder that can be written");
    folder
}

fn base64url(bytes: &[u8]) -> String {
    base64(bytes, b"-_", false)
}

/// RFC 4648, sections 4 and 5: `last` are the two characters that differ.
pub fn base64(bytes: &[u8], last: &[u8; 2], padded: bool) -> String {
    let digit = |n: u32| match n as u8 & 63 {
        n @ 0..26 => b'A' + n,
        n @ 26..52 => b'a' + n - 26,
        n @ 52..62 => b'0' + n - 52,
        n => last[usize::from(n - 62)],
    };
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        (0..=three.len()).for_each(|n| text.push(digit(word >> (18 - 6 * n)).into()));
        (three.len()..3).filter(|_| padded).for_each(|_| text.push('='));
    }
    text
}
