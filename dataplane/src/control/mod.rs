//! COLD: what sessions ask for rarely. Keys and tokens, credentials, the policy and the catalogue of each resource.

mod additions;
pub mod admin;
pub mod analyser;
pub mod catalogue;
pub mod certificate;
pub mod challenges;
pub mod credential;
pub mod identity;
pub mod metrics;
pub mod names;
pub mod policy;
pub mod protected;
pub mod route;
pub mod upstream;

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use policy_compiler::artifact::{Policy, RoleSet};
use policy_compiler::detect::transform::HashKey;
use rustls::ServerConfig;

use crate::config::{Config, Resource};
use crate::datapath::mask::MaskView;
use crate::fault::Fault;
use crate::log;
use crate::session::{Admission, Request, Upstream};
use catalogue::Snapshot;
use challenges::Challenges;
use credential::Secret;
use identity::{Identity, Refusal, Verifier, Waiter};
use policy::Subject;
use route::{Endpoint, Route};
use tokio::task::JoinSet;

/// Checks a token, in tests and the simulator.
pub type Verify = Box<dyn Fn(&[u8], u64) -> Result<Identity, &'static str> + Send + Sync>;

/// What sessions ask of the control side. Shared by all shards, read-only but for the catalogues.
pub struct Control {
    tokens: Tokens,
    policy: Policy,
    resources: Vec<Guarded>,
    hash_key: [u8; 32],
    refresh_wanted: AtomicBool,
    /// What each listener serves TLS with.
    listeners: Vec<Option<Arc<ServerConfig>>>,
    challenges: Challenges,
    ignored_startup_parameters: Vec<String>,
}

/// Who checks tokens.
enum Tokens {
    Issuers(Verifier),
    Given(Verify),
}

/// The answer to a client that asks to be let in.
pub enum Answer {
    Known(Result<Admitted, Fault>),
    /// When this issuer's keys have been fetched: see [`Control::wait`].
    UntilFetched(usize),
}

/// A resource with what is known of it.
struct Guarded {
    config: Resource,
    name: Arc<str>,
    credential: Secret,
    route: Arc<Route>,
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    /// When the catalogue was last read, changed or not.
    read: Mutex<Option<Instant>>,
}

/// A client whose token and names are in order.
pub struct Admitted {
    identity: Identity,
    pub roles: RoleSet,
    /// Index of the resource.
    pub resource: usize,
}

impl Admitted {
    /// Whose session it is: a subject of its issuer, or who acts for it. An agent that acts for somebody has places of its own.
    pub fn holder(&self) -> (&str, &str, Option<&str>) {
        let Identity { issuer, subject, actors, .. } = &self.identity;
        (issuer, subject, actors.first().map(|actor| actor.subject.as_str()))
    }

    /// When the token expires, seconds since 1970.
    pub fn expires_unix_s(&self) -> u64 {
        self.identity.expires_unix_s
    }
}

impl Control {
    /// Loads what the configuration names: keys, policy, credentials.
    ///
    /// # Errors
    /// Which of them failed, and how.
    pub fn load(config: &Config) -> Result<Self, String> {
        Self::load_with(config, Verifier::load(&config.issuers)?, random_key()?)
    }

    /// Loads a changed configuration beside the one in force, whole or not at all. What has not changed is carried over: keys
    /// that were fetched, catalogues that were read, a hash key that was made at the start.
    ///
    /// # Errors
    /// Which part cannot be used, and why.
    pub fn reload(&self, config: &Config) -> Result<Self, String> {
        let Tokens::Issuers(verifier) = &self.tokens else { return Err("there is nothing to load".into()) };
        let newer = Self::load_with(config, verifier.reload(&config.issuers)?, self.hash_key)?;
        for guarded in &newer.resources {
            let same = self.resources.iter().find(|old| old.config == guarded.config);
            let known = same.and_then(|old| old.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone());
            *guarded.snapshot.write().unwrap_or_else(PoisonError::into_inner) = known;
            let read = same.and_then(|old| *old.read.lock().unwrap_or_else(PoisonError::into_inner));
            *guarded.read.lock().unwrap_or_else(PoisonError::into_inner) = read;
            same.iter().for_each(|old| guarded.route.carry_over(&old.route));
        }
        Ok(newer)
    }

    /// Ends what only this configuration needs, when the newer one is in force.
    pub fn retire(&self, newer: &Self) {
        if let (Tokens::Issuers(old), Tokens::Issuers(new)) = (&self.tokens, &newer.tokens) {
            old.retire(new);
        }
    }

    /// Some catalogue has not been read yet.
    pub fn lacks_catalogue(&self) -> bool {
        (0..self.resources.len()).any(|resource| self.snapshot(resource).is_none())
    }

    /// What a session that is there already may do under this configuration: its roles and the index of its resource.
    pub fn readmit(&self, role_names: &[&str], resource: &str) -> Option<(RoleSet, usize)> {
        let bits = role_names.iter().filter_map(|name| self.policy.role_named(name));
        let roles = bits.reduce(|a, b| a.union(b))?;
        let index = self.resources.iter().position(|r| *r.name == *resource)?;
        self.policy.may_reach(roles, resource).then_some((roles, index))
    }

    pub fn policy_name(&self) -> &str {
        self.policy.epoch_name()
    }

    fn load_with(config: &Config, verifier: Verifier, made_key: [u8; 32]) -> Result<Self, String> {
        let tokens = Tokens::Issuers(verifier);
        let policy = Policy::open(&config.policy_file)
            .map_err(|e| format!("policy.file {}: {e}", config.policy_file.display()))?;
        let hash_key = match &config.hash_key {
            Some(source) => read_key(&source.read().map_err(|e| format!("masking.hash_key: {e}"))?)?,
            None => made_key,
        };
        let guarded = config.resources.iter().map(Guarded::load).collect::<Result<Vec<_>, _>>()?;
        let listeners = config.listeners.iter().map(|l| l.tls.as_ref().map(certificate::server).transpose());
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            tokens,
            policy,
            resources: guarded,
            hash_key,
            refresh_wanted: AtomicBool::new(false),
            listeners,
            challenges: Challenges::of(config),
            ignored_startup_parameters: config.ignore_startup_parameters.clone(),
        })
    }

    /// For tests and the simulator: no files, no upstream.
    pub fn new(verify: Verify, policy: Policy, resources: Vec<(Resource, Secret, Snapshot)>) -> Self {
        let guard = |(config, credential, snapshot): (Resource, Secret, Snapshot)| Guarded {
            name: config.name.as_str().into(),
            route: Arc::new(Route::load(&config).expect("it names no file")),
            config,
            credential,
            snapshot: RwLock::new(Some(Arc::new(snapshot))),
            read: Mutex::default(),
        };
        Self {
            tokens: Tokens::Given(verify),
            policy,
            resources: resources.into_iter().map(guard).collect(),
            hash_key: [7; 32],
            refresh_wanted: AtomicBool::new(false),
            listeners: Vec::new(),
            challenges: Challenges::default(),
            ignored_startup_parameters: Vec::new(),
        }
    }

    /// For the simulator: what each listener serves TLS with.
    pub fn with_listeners(self, listeners: Vec<Option<Arc<ServerConfig>>>) -> Self {
        Self { listeners, ..self }
    }

    /// What a listener serves TLS with, if it does.
    pub fn listener_tls(&self, listener: usize) -> Option<&Arc<ServerConfig>> {
        self.listeners.get(listener)?.as_ref()
    }

    /// What clients without a good token are told.
    pub fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// Startup parameters of clients that count for nothing.
    pub fn ignored_startup_parameters(&self) -> &[String] {
        &self.ignored_startup_parameters
    }

    pub fn hash_key(&self) -> HashKey {
        HashKey::new(self.hash_key)
    }

    pub fn endpoint(&self, resource: usize) -> Arc<Endpoint> {
        self.resources[resource].route.endpoint()
    }

    /// Checks who it is, and whether and as what they may reach the resource that they name. `has_waited`: the issuer's keys
    /// were fetched for this very request, so there is nothing more to wait for.
    pub fn admit(&self, request: &Request, now_unix_s: u64, has_waited: bool) -> Answer {
        let token = request.token.reveal();
        let identity = match &self.tokens {
            Tokens::Issuers(verifier) => verifier.verify(token, now_unix_s),
            Tokens::Given(verify) => verify(token, now_unix_s).map_err(Refusal::For),
        };
        Answer::Known(match identity {
            Ok(identity) => self.place(identity, request),
            Err(Refusal::For(why)) => Err(Fault::NotAdmitted(why)),
            Err(Refusal::UntilFetched(issuer)) if !has_waited => return Answer::UntilFetched(issuer),
            Err(Refusal::UntilFetched(_)) => Err(Fault::NotAdmitted(identity::UNKNOWN_KEY)),
        })
    }

    /// Has the waiter called when the issuer's keys have been fetched, well or badly.
    pub fn wait(&self, issuer: usize, waiter: Waiter) {
        match &self.tokens {
            Tokens::Issuers(verifier) => verifier.wait(issuer, waiter),
            Tokens::Given(_) => waiter(),
        }
    }

    /// Starts to keep the issuers' keys fresh, on the control thread's runtime.
    pub fn keep_keys_fresh(&self) {
        if let Tokens::Issuers(verifier) = &self.tokens {
            verifier.keep_fresh();
        }
    }

    /// Fetches the keys of all issuers once.
    ///
    /// # Errors
    /// Whose keys cannot be fetched, and why.
    pub async fn fetch_keys(&self) -> Result<(), String> {
        match &self.tokens {
            Tokens::Issuers(verifier) => verifier.fetch_all().await,
            Tokens::Given(_) => Ok(()),
        }
    }

    fn place(&self, identity: Identity, request: &Request) -> Result<Admitted, Fault> {
        let all = self.policy.roles_for(identity.roles.iter().map(String::as_str));
        let as_role = self.policy.role_named(&request.user).filter(|role| role.bits() & all.bits() == role.bits());
        let roles = match as_role {
            _ if request.user == identity.name => all,
            Some(role) => role,
            None => {
                return Err(Fault::NotAdmitted("the user is neither the token's name nor one of its roles"));
            }
        };
        // A resource that one may not reach is not told apart from one that does not exist.
        let resource = self.resources.iter().position(|r| *r.name == *request.database);
        let resource = resource.filter(|r| self.policy.may_reach(roles, &self.resources[*r].name));
        let resource = resource.ok_or(Fault::NotAdmitted("no role of the token may reach this database"))?;
        if self.snapshot(resource).is_none() {
            return Err(Fault::Unreachable("the catalogue of the upstream has not been read yet; try again"));
        }
        Ok(Admitted { identity, roles, resource })
    }

    /// The facts for the session of an admitted client.
    /// By the endpoint that the session will keep, and the order in which its addresses shall be tried.
    pub fn admission(
        &self,
        admitted: Admitted,
        masks: Rc<MaskView>,
        endpoint: &Endpoint,
        order: Vec<u16>,
    ) -> Admission {
        let guarded = &self.resources[admitted.resource];
        let epoch = policy::epoch(&self.policy);
        Admission {
            role_names: self.policy.role_names(admitted.roles).into_iter().map(str::to_owned).collect(),
            identity: admitted.identity,
            resource: guarded.name.clone(),
            upstream: Upstream {
                database: guarded.config.database.clone(),
                user: guarded.config.user.clone(),
                credential: guarded.credential.clone(),
                allow_md5: guarded.config.allow_md5,
                allow_cleartext: guarded.config.allow_cleartext,
                role: guarded.config.role.clone(),
                application_name: guarded.config.application_name,
                target: endpoint.target,
                tls: endpoint.ways.iter().map(|way| way.tls.is_some()).collect(),
                order,
            },
            masks,
            epoch,
            epoch_name: self.policy.epoch_name().to_owned(),
        }
    }

    pub fn subject(&self, roles: RoleSet, resource: usize) -> Subject {
        let snapshot = self.snapshot(resource).unwrap_or_default();
        Subject::new(self.policy.clone(), roles, self.resources[resource].name.clone(), snapshot)
    }

    fn snapshot(&self, resource: usize) -> Option<Arc<Snapshot>> {
        self.resources[resource].snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A relation was seen that the snapshot does not know: it is masked whole until the catalogue is read again.
    pub fn want_refresh(&self) {
        self.refresh_wanted.store(true, Ordering::Relaxed);
    }

    pub fn is_refresh_wanted(&self) -> bool {
        self.refresh_wanted.load(Ordering::Relaxed)
    }

    /// Reads every catalogue again. True if any has changed in a way that matters; and the resources where none could be read.
    pub async fn refresh_catalogues(&self, epoch: u64) -> (bool, Vec<Arc<str>>) {
        self.refresh_wanted.store(false, Ordering::Relaxed);
        let (mut changed, mut failed) = (false, Vec::new());
        let mut reads = JoinSet::new();
        for (index, guarded) in self.resources.iter().enumerate() {
            let (config, credential) = (guarded.config.clone(), guarded.credential.clone());
            let route = guarded.route.clone();
            reads.spawn(async move {
                route.resolve().await;
                (index, Snapshot::read(&config, &credential, &route.endpoint(), epoch).await)
            });
        }
        // All at the same time: one that does not answer must not hold up the others.
        while let Some(Ok((index, read))) = reads.join_next().await {
            let guarded = &self.resources[index];
            match read {
                Ok(snapshot) => changed |= guarded.publish(snapshot),
                Err(why) => {
                    let message = format!("catalogue of resource {}: {why}", guarded.name);
                    log::tell(&log::CATALOGUE_FAILED, &[guarded.name.as_ref().into()], message);
                    failed.push(guarded.name.clone());
                }
            }
        }
        (changed, failed)
    }
}

impl Guarded {
    fn load(config: &Resource) -> Result<Self, String> {
        let credential = config.credential.read().map_err(|e| format!("resource {}: credential: {e}", config.name))?;
        let route = Route::load(config).map_err(|e| format!("resource {}: {e}", config.name))?;
        Ok(Self {
            config: config.clone(),
            name: config.name.as_str().into(),
            credential,
            route: Arc::new(route),
            snapshot: RwLock::new(None),
            read: Mutex::default(),
        })
    }

    fn publish(&self, mut snapshot: Snapshot) -> bool {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let mut current = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = current.as_ref() {
            if older.same_as(&snapshot) {
                return false;
            }
            snapshot.remember(older);
        }
        *current = Some(Arc::new(snapshot));
        true
    }
}

/// 64 hexadecimal digits.
fn read_key(secret: &Secret) -> Result<[u8; 32], String> {
    const WRONG: &str = "masking.hash_key must be 64 hexadecimal digits (32 bytes)";
    let text = std::str::from_utf8(secret.reveal()).map_err(|_| WRONG)?;
    if text.len() != 64 || !text.is_ascii() {
        return Err(WRONG.into());
    }
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| WRONG)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| WRONG)?;
    }
    Ok(key)
}

/// Without a configured key pseudonyms hold for one start of the gateway.
fn random_key() -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| format!("no random bytes: {e}"))?;
    Ok(key)
}
