//! One issuer's keys over time: fetched by the control thread, looked up by the shards, and never of another issuer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::fetch::Fetcher;
use super::keys::KeySet;
use crate::config;
use crate::config::issuer::Keys;

/// However many logins ask for it, keys are fetched at most this often (threats JW-02).
const FETCH_EVERY_MIN: Duration = Duration::from_secs(10);
/// Logins that wait for a fetch; each holds its token. One more is answered at once.
const WAITING_MAX: usize = 256;

/// Called once when a fetch has ended, well or badly.
pub type Waiter = Box<dyn FnOnce() + Send>;

pub struct Issuer {
    pub settings: config::Issuer,
    fetcher: Option<Fetcher>,
    held: RwLock<Held>,
    waiting: Mutex<Vec<Waiter>>,
    wanted: Notify,
    started: AtomicBool,
    retired: AtomicBool,
}

#[derive(Default)]
struct Held {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Why the last fetch failed.
    failure: Option<String>,
}

/// There are no keys to verify with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKeys {
    /// The first fetch is under way.
    Yet,
    /// Fetches fail, and what was fetched before is too old.
    Reachable,
}

impl Issuer {
    /// # Errors
    /// When a file of keys, or of certificates to trust, cannot be used.
    pub fn load(settings: &config::Issuer) -> Result<Self, String> {
        let (keys, fetcher) = match &settings.keys {
            Keys::File(path) => (Some((Arc::new(KeySet::load(path, settings)?), Instant::now())), None),
            Keys::Remote(remote) => (None, Some(Fetcher::new(remote.clone())?)),
        };
        Ok(Self {
            settings: settings.clone(),
            fetcher,
            held: RwLock::new(Held { keys, failure: None }),
            waiting: Mutex::default(),
            wanted: Notify::new(),
            started: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        })
    }

    pub fn is_fetched(&self) -> bool {
        self.fetcher.is_some()
    }

    /// True once: whoever asks first has to keep its keys fresh.
    pub fn starts(&self) -> bool {
        !self.started.swap(true, Ordering::Relaxed)
    }

    /// It is in no configuration any more: [`Issuer::keep_fresh`] ends with its next round.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// The keys that count now.
    ///
    /// # Errors
    /// When there are none.
    pub fn keys(&self, now: Instant) -> Result<Arc<KeySet>, NoKeys> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        match &held.keys {
            Some((keys, fetched)) if !self.is_stale(now.saturating_duration_since(*fetched)) => Ok(keys.clone()),
            None if held.failure.is_none() => Err(NoKeys::Yet),
            _ => Err(NoKeys::Reachable),
        }
    }

    fn is_stale(&self, age: Duration) -> bool {
        self.fetcher.as_ref().is_some_and(|f| age > f.remote().stale_max)
    }

    /// Whether waiting for the next fetch can bring a key: not with a file, nor while fetches fail.
    pub fn may_bring_more(&self) -> bool {
        let is_failing = || self.held.read().unwrap_or_else(PoisonError::into_inner).failure.is_some();
        self.fetcher.is_some() && !is_failing()
    }

    /// Asks for a fetch. The waiter is called when the next one has ended, or at once if too many wait already.
    pub fn wait(&self, waiter: Waiter) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX {
            drop(waiting);
            return waiter();
        }
        waiting.push(waiter);
        self.wanted.notify_one();
    }

    /// Fetches now, again when somebody waits or the keys grow old, and never too often, until it is retired.
    pub async fn keep_fresh(&self) {
        let Some(fetcher) = &self.fetcher else { return };
        while !self.retired.load(Ordering::Relaxed) {
            let is_failing = self.refresh().await.is_err();
            let answered = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            answered.into_iter().for_each(|waiter| waiter());
            tokio::time::sleep(FETCH_EVERY_MIN).await;
            if !is_failing {
                let rest = fetcher.remote().refresh.saturating_sub(FETCH_EVERY_MIN);
                let _ = tokio::time::timeout(rest, self.somebody_waits()).await;
            }
        }
    }

    async fn somebody_waits(&self) {
        // A call that came before the last fetch ended has been answered, and its permit means nothing.
        while self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.wanted.notified().await;
        }
    }

    /// Fetches once.
    ///
    /// # Errors
    /// Why there are no new keys; the old ones stay.
    pub async fn refresh(&self) -> Result<(), String> {
        let Some(fetcher) = &self.fetcher else { return Ok(()) };
        let fetched = fetcher.fetch(self.settings.issuer.as_deref()).await;
        let keys = fetched.and_then(|bytes| KeySet::parse(&bytes, &self.settings));
        let result = keys.as_ref().map(|_| ()).map_err(Clone::clone);
        self.publish(keys, Instant::now());
        result
    }

    fn publish(&self, keys: Result<KeySet, String>, now: Instant) {
        let label = self.settings.label();
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match keys {
            Ok(keys) => {
                if held.failure.take().is_some() {
                    eprintln!("wireward: issuer {label}: its keys can be fetched again");
                }
                if keys.is_empty() {
                    eprintln!("wireward: issuer {label}: it has no key for {:?}", self.settings.algorithms);
                }
                // Keys that have not changed stay the very same: verified tokens are remembered with theirs.
                let same = held.keys.take().map(|(old, _)| old).filter(|old| old.same_as(&keys));
                held.keys = Some((same.unwrap_or_else(|| Arc::new(keys)), now));
            }
            Err(why) => {
                if held.failure.as_ref() != Some(&why) {
                    eprintln!("wireward: issuer {label}: its keys cannot be fetched: {why}");
                }
                held.failure = Some(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn remote() -> Issuer {
        let lines = "issuer = 'https://i.test'\naudience = 'w'\nalgorithms = ['EdDSA']\nkeys_stale_max_s = 600";
        Issuer::load(&config::Issuer::for_tests(lines)).expect("nothing to read")
    }

    fn set(issuer: &Issuer, text: &str) -> Result<KeySet, String> {
        KeySet::parse(text.as_bytes(), &issuer.settings)
    }

    /// What has happened to an issuer, and after how many seconds.
    type Event<'a> = (u64, Result<&'a str, &'a str>);

    #[test]
    fn keys_count_until_they_are_stale_and_failures_do_not_make_them_younger() {
        let rows: [(&[Event<'_>], u64, Result<(), NoKeys>, bool); 8] = [
            (&[], 0, Err(NoKeys::Yet), true),
            (&[(0, Err("down"))], 1, Err(NoKeys::Reachable), false),
            (&[(0, Ok(KEYS))], 600, Ok(()), true),
            (&[(0, Ok(KEYS))], 601, Err(NoKeys::Reachable), true),
            (&[(0, Ok(KEYS)), (500, Err("down"))], 600, Ok(()), false),
            (&[(0, Ok(KEYS)), (500, Err("down"))], 601, Err(NoKeys::Reachable), false),
            (&[(0, Ok(KEYS)), (500, Ok(KEYS))], 1_100, Ok(()), true),
            (&[(0, Err("down")), (500, Ok(KEYS))], 501, Ok(()), true),
        ];
        for (events, then_s, found, may_bring_more) in rows {
            let issuer = remote();
            let start = Instant::now();
            for (at_s, event) in events {
                let keys = event.map_err(str::to_owned).and_then(|text| set(&issuer, text));
                issuer.publish(keys, start + Duration::from_secs(*at_s));
            }
            let keys = issuer.keys(start + Duration::from_secs(then_s));
            assert_eq!(keys.map(|_| ()), found, "{events:?} after {then_s} s");
            assert_eq!(issuer.may_bring_more(), may_bring_more, "{events:?}");
        }
    }

    #[test]
    fn keys_that_did_not_change_stay_the_same_and_others_do_not() {
        let issuer = remote();
        let now = Instant::now();
        let publish = |text: &str| {
            issuer.publish(set(&issuer, text), now);
            issuer.keys(now).expect("keys")
        };
        let first = publish(KEYS);
        assert!(Arc::ptr_eq(&first, &publish(KEYS)));
        let renamed = publish(&KEYS.replace("\"a\"", "\"b\""));
        assert!(!Arc::ptr_eq(&first, &renamed) && !renamed.is_empty());
        assert!(publish(r#"{"keys":[]}"#).is_empty(), "an issuer may take all its keys back");
    }

    #[test]
    fn no_more_wait_than_may() {
        static CALLED: AtomicUsize = AtomicUsize::new(0);
        let issuer = remote();
        for _ in 0..WAITING_MAX + 3 {
            issuer.wait(Box::new(|| _ = CALLED.fetch_add(1, Ordering::Relaxed)));
        }
        assert_eq!(CALLED.load(Ordering::Relaxed), 3, "those beyond the limit are answered at once");
    }
}
