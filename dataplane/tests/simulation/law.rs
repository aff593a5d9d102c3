//! What may be in force: policies, credentials, certificates and limits, a generation a reload; and which of them is in force on
//! which shard, as far as an observer can tell.

use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dataplane::config::{Limits, Resource, TokenExpiry};
use dataplane::control::Control;
use dataplane::control::catalogue::Snapshot;
use dataplane::control::credential::{Secret, Source};
use dataplane::control::identity::Identity;
use dataplane::control::policy::epoch;
use dataplane::protocol::postgres::dissector;
use dataplane::session::Encryption;
use dataplane::session::attempts::Target;
use dataplane::shard::accept::Door;
use dataplane::shard::mailbox::Reload;
use policy_compiler::artifact::Policy;
use rustls::ServerConfig;

use super::scenario::Scenario;
use super::tables::TABLES;
use super::world::TURN_NS_MAX;

/// As much as one session may hold, a request and a notice, so that two must wait for each other.
pub const GATHERED_BYTES_MAX: usize = 210_000;
/// The upstream's addresses are ports from here on; a session can be had at the last of them.
pub const FIRST_ADDRESS: u16 = 5432;
pub const ADDRESSES: u16 = 3;
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

const POLICY: &str = r#"
[[role]]
name = "plain"
[[role]]
name = "masked"
[[grant]]
to = [ROLES]
resources = ["shop"]
effects = ["read", "insert", "call"]
[[rule]]
name = "no-drop"
action = "block"
to = ["plain", "masked"]
effects = ["ddl"]
[[mask]]
name = "numbers"
columns = ["people.ssn"]
action = "redact"
except = ["plain"]
resources = ["shop"]
[[detect]]
name = "content"
kinds = ["*"]
action = "redact"
except = ["plain"]
resources = ["shop"]
"#;
const NO_VAULT: &str = r#"
[[rule]]
name = "no-vault"
action = "block"
to = ["plain", "masked"]
effects = ["read"]
relations = ["vault"]
"#;
const MASKED_VAULT: &str = r#"
[[mask]]
name = "vault"
columns = ["vault.note"]
action = "redact"
resources = ["shop"]
"#;

/// The policies differ in what they say about the table `vault`, and about the role `plain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Open,
    Blocked,
    Masked,
    /// Nobody of the role `plain` is let in.
    NoPlain,
}

pub const RULES: [Rule; 4] = [Rule::Open, Rule::Blocked, Rule::Masked, Rule::NoPlain];

/// What became of a statement that reads the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Shown,
    Starred,
    Refused,
}

impl Rule {
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Open | Self::NoPlain => Outcome::Shown,
            Self::Blocked => Outcome::Refused,
            Self::Masked => Outcome::Starred,
        }
    }

    fn policy(self) -> &'static Policy {
        static COMPILED: OnceLock<Vec<Policy>> = OnceLock::new();
        let compile = |rule: &Rule| {
            let roles = if *rule == Self::NoPlain { "\"masked\"" } else { "\"plain\", \"masked\"" };
            let more = match rule {
                Self::Blocked => NO_VAULT,
                Self::Masked => MASKED_VAULT,
                Self::Open | Self::NoPlain => "",
            };
            let text = POLICY.replace("ROLES", roles) + more;
            let source = policy_compiler::policy::Source { name: "simulation".into(), text };
            let bytes = policy_compiler::build::compile(&[source]).expect("a sound policy");
            Policy::from_bytes(bytes).expect("a sound artifact")
        };
        &COMPILED.get_or_init(|| RULES.iter().map(compile).collect())[self as usize]
    }

    /// What stands in its verdict records.
    pub fn epoch(self) -> [u8; 8] {
        epoch(self.policy())
    }
}

/// One configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    pub rule: Rule,
    /// Which credential the upstream is reached with.
    pub secret: u8,
    /// Which certificate the listener shows.
    pub certificate: usize,
    pub clients_max: u32,
}

impl Generation {
    pub fn password(self) -> String {
        format!("upstream secret {}", self.secret)
    }
}

/// All configurations of a world in their order, and what each shard may judge by.
pub struct Court {
    pub generations: Vec<Generation>,
    pub token_expiry: TokenExpiry,
    /// By shard: the oldest and the newest that may be in force there at this moment.
    laws: Vec<Cell<(usize, usize)>>,
    /// By client: the oldest configuration on any shard when it came.
    came: RefCell<Vec<usize>>,
    /// By client: when its token expires, seconds since 1970.
    pub expiries_unix_s: Vec<u64>,
    /// Statements on the vault that have had their answers.
    pub judged: Cell<usize>,
}

impl Court {
    pub fn new(scenario: &Scenario, expiries_unix_s: Vec<u64>) -> Self {
        let came = RefCell::new(vec![0; scenario.clients]);
        let laws = vec![Cell::new((0, 0)); scenario.shards];
        Self {
            generations: scenario.generations.clone(),
            token_expiry: scenario.token_expiry,
            laws,
            came,
            expiries_unix_s,
            judged: Cell::new(0),
        }
    }

    /// When nothing of a client may be executed any more, whatever it has begun, nanoseconds since 1970.
    pub fn ends_ns(&self, client: u32) -> u64 {
        let expiry_ns = self.expiries_unix_s[client as usize].saturating_mul(1_000_000_000);
        expiry_ns.saturating_add(self.token_expiry.grace().as_nanos() as u64 + TURN_NS_MAX)
    }

    /// A client comes.
    pub fn comes(&self, client: u32) {
        self.came.borrow_mut()[client as usize] = self.laws.iter().map(|law| law.get().0).min().unwrap_or(0);
    }

    /// Whether something holds of a configuration that was or is in force somewhere since the client came.
    pub fn since(&self, client: u32, holds: impl Fn(Generation) -> bool) -> bool {
        let newest = self.laws.iter().map(|law| law.get().1).max().unwrap_or(0);
        self.between(self.came.borrow()[client as usize], newest, holds)
    }

    /// The next configuration has been mailed to the shard: it holds from the end of the shard's next turn at the latest.
    pub fn mailed(&self, shard: usize, generation: usize) {
        let (oldest, _) = self.laws[shard].get();
        self.laws[shard].set((oldest, generation));
    }

    /// The shard has had its turn.
    pub fn settled(&self, shard: usize) {
        let (_, newest) = self.laws[shard].get();
        self.laws[shard].set((newest, newest));
    }

    pub fn law(&self, shard: usize) -> (usize, usize) {
        self.laws[shard].get()
    }

    /// Whether something holds of a configuration that is or may be in force there.
    pub fn now(&self, shard: usize, holds: impl Fn(Generation) -> bool) -> bool {
        let (oldest, newest) = self.law(shard);
        self.between(oldest, newest, holds)
    }

    pub fn between(&self, oldest: usize, newest: usize, holds: impl Fn(Generation) -> bool) -> bool {
        self.generations[oldest..=newest].iter().copied().any(holds)
    }

    /// What a shard is told to reload.
    pub fn reload(&self, generation: usize) -> Reload {
        let made = self.generations[generation];
        let listeners = vec![Some(certificates()[made.certificate].clone())];
        let control = Control::new(Box::new(verify), made.rule.policy().clone(), vec![guarded(made)]);
        Reload {
            control: Arc::new(control.with_listeners(listeners)),
            limits: limits(made, self.token_expiry),
            doors: vec![Door { encryption: Encryption::Offered, ..Door::default() }],
        }
    }
}

/// Two of them, made once: the simulator makes no handshakes, but tells which certificate one would have had.
pub fn certificates() -> &'static [Arc<ServerConfig>; 2] {
    static MADE: OnceLock<[Arc<ServerConfig>; 2]> = OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(vec!["gateway".to_owned()]).expect("a key pair");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate with its key"))
    };
    MADE.get_or_init(|| [make(), make()])
}

/// The token of a client: its name, its role, and when it expires.
pub fn token(client: u32, masked: bool, expires_unix_s: u64) -> String {
    format!("c{client}.{}.{expires_unix_s}", if masked { "masked" } else { "plain" })
}

fn verify(token: &[u8], now_unix_s: u64) -> Result<Identity, &'static str> {
    let text = std::str::from_utf8(token).map_err(|_| "not a token")?;
    let mut words = text.split('.');
    let name = words.next().filter(|name| name.starts_with('c')).ok_or("not a token")?;
    let role = words.next().ok_or("not a token")?;
    let expires_unix_s = words.next().and_then(|word| word.parse().ok()).ok_or("not a token")?;
    if expires_unix_s <= now_unix_s {
        return Err("the token has expired");
    }
    let (subject, roles) = (name.to_owned(), vec![role.to_owned()]);
    Ok(Identity { name: subject.clone(), subject, roles, expires_unix_s, ..Identity::default() })
}

fn guarded(generation: Generation) -> (Resource, Secret, Snapshot) {
    let resource = Resource {
        name: "shop".into(),
        hosts: (0..ADDRESSES).map(|n| SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_ADDRESS + n)).into()).collect(),
        target_session_attrs: Target::ReadWrite,
        connect_timeout: CONNECT_TIMEOUT,
        database: "shop".into(),
        user: "gateway".into(),
        credential: Source::Env("NONE".into()),
        allow_md5: false,
        allow_cleartext: true,
        role: None,
        application_name: Default::default(),
        tls: None,
        oauth_issuer: None,
    };
    (resource, Secret::new(generation.password().as_bytes()), Snapshot::of(&TABLES))
}

fn limits(generation: Generation, token_expiry: TokenExpiry) -> Limits {
    Limits {
        max_client_conn: generation.clients_max,
        sessions_per_subject_max: 1_000_000,
        active_sessions_max: 100,
        login_timeout: Duration::from_secs(30),
        drain_timeout: DRAIN_TIMEOUT,
        token_expiry,
        token_bytes_max: 4096,
        idle_upstreams_max: 0,
        server_idle_timeout: Duration::from_secs(60),
        server_lifetime: Duration::from_secs(3600),
        session: dissector::Limits {
            statement_bytes_max: 1 << 20,
            bind_bytes_max: 1 << 20,
            row_bytes_max: 1 << 20,
            prepared_statements_max: 100,
            prepared_bytes_max: 1 << 20,
        },
        gathered_bytes_max: GATHERED_BYTES_MAX,
        plans_max: 64,
    }
}
