//! Tokens that were verified a moment ago: agents open many sessions with one token.
//!
//! The key is a keyed hash, so that neither the cache nor a dump of it holds a token. An entry counts until the token
//! expires, and only with the very keys that verified it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;

use super::Identity;
use super::keys::KeySet;

/// Tokens that are remembered. With the next limit: at most 32 MiB.
const ENTRIES_MAX: usize = 4096;
/// Longer tokens are verified every time.
const TOKEN_BYTES_MAX: usize = 8192;

type Digest = [u8; 32];

pub struct Cache {
    key: hmac::Key,
    entries_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    entries: HashMap<Digest, Entry>,
    /// In the order of coming, to forget the oldest first.
    order: VecDeque<Digest>,
}

struct Entry {
    identity: Identity,
    issuer: usize,
    keys: Arc<KeySet>,
}

impl Cache {
    /// # Errors
    /// When there are no random bytes for its key.
    pub fn new() -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| format!("no random bytes: {e}"))?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), entries_max: ENTRIES_MAX, held: Mutex::default() })
    }

    /// Who the token was found to name, if that still holds. `current`: the keys of an issuer now.
    pub fn get(
        &self,
        token: &[u8],
        now_unix_s: u64,
        current: impl FnOnce(usize) -> Option<Arc<KeySet>>,
    ) -> Option<Identity> {
        let digest = self.digest(token);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = held.entries.get(&digest)?;
        let is_current = current(entry.issuer).is_some_and(|keys| Arc::ptr_eq(&keys, &entry.keys));
        if is_current && now_unix_s < entry.identity.expires_unix_s {
            return Some(entry.identity.clone());
        }
        held.entries.remove(&digest);
        None
    }

    pub fn put(&self, token: &[u8], identity: &Identity, issuer: usize, keys: &Arc<KeySet>) {
        if token.len() > TOKEN_BYTES_MAX {
            return;
        }
        let digest = self.digest(token);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.entries.insert(digest, Entry { identity: identity.clone(), issuer, keys: keys.clone() });
        held.order.push_back(digest);
        if held.order.len() > self.entries_max
            && let Some(oldest) = held.order.pop_front()
        {
            held.entries.remove(&oldest);
        }
    }

    fn digest(&self, token: &[u8]) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(hmac::sign(&self.key, token).as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::issuer::Issuer;

    fn identity(name: &str, expires_unix_s: u64) -> Identity {
        Identity { subject: name.into(), name: name.into(), expires_unix_s, ..Identity::default() }
    }

    fn keys() -> Arc<KeySet> {
        let settings = Issuer::for_tests("issuer = 'i'\naudience = 'a'\nalgorithms = ['ES256']\njwks_file = 'k'");
        Arc::new(KeySet::parse(br#"{"keys":[]}"#, &settings).expect("a set"))
    }

    #[test]
    fn an_entry_counts_until_its_token_expires_and_with_its_own_keys_only() {
        let (own, other) = (keys(), keys());
        for (now_unix_s, current, counts) in [
            (0, Some(&own), true),
            (99, Some(&own), true),
            (100, Some(&own), false),
            (0, Some(&other), false),
            (0, None, false),
        ] {
            let cache = Cache::new().expect("random bytes");
            cache.put(b"token", &identity("ann", 100), 3, &own);
            let found = cache.get(b"token", now_unix_s, |issuer| current.filter(|_| issuer == 3).cloned());
            assert_eq!(found.is_some(), counts, "{now_unix_s}");
            assert!(cache.get(b"tokeN", now_unix_s, |_| Some(own.clone())).is_none(), "another token");
            let again = cache.get(b"token", 0, |_| Some(own.clone()));
            assert_eq!(again.is_some(), counts, "what once did not count is gone");
        }
    }

    #[test]
    fn the_cache_is_bounded_and_holds_no_token() {
        let cache = Cache { entries_max: 3, ..Cache::new().expect("random bytes") };
        let keys = keys();
        for n in 0..10 {
            cache.put(format!("token {n}").as_bytes(), &identity("ann", 100), 0, &keys);
            cache.put(b"token 9", &identity("ann", 100), 0, &keys);
        }
        let known = |token: &str| cache.get(token.as_bytes(), 0, |_| Some(keys.clone())).is_some();
        assert!(known("token 9") && !known("token 0"));
        let held = cache.held.lock().expect("nobody has panicked");
        assert!(held.entries.len() <= 3 && held.order.len() <= 3);
        drop(held);
        cache.put(&[b'x'; TOKEN_BYTES_MAX + 1], &identity("ann", 100), 0, &keys);
        assert!(!known(&"x".repeat(TOKEN_BYTES_MAX + 1)), "too long to be remembered");
    }
}
