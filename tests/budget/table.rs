//! The table that the counting is done at: a real shard with its policy, ring and plan cache, between a fake client and a
//! fake upstream.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dataplane::buffer::{Slab, budget};
use dataplane::config::{Limits, Resource};
use dataplane::control::Control;
use dataplane::control::analyser::Analyser;
use dataplane::control::catalogue::Snapshot;
use dataplane::control::credential::{Secret, Source};
use dataplane::control::identity::Identity;
use dataplane::io::Conn;
use dataplane::protocol::postgres::dissector;
use dataplane::session::attempts::Target;
use dataplane::shard::mailbox::mailbox;
use dataplane::shard::{Now, Parts, Shard};
use policy_compiler::artifact::Policy;
use policy_compiler::build;
use policy_compiler::policy as rules;
use ring::{Consumer, Kind, Producer, Words};

use crate::desk::Desk;
use crate::dialog;

const NOW: Now = Now { unix_ns: 1_700_000_000_000_000_000, monotonic_ns: 1_000_000_000 };
const RING_BYTES: usize = 4 << 20;
const ACTIVE_SESSIONS_MAX: u32 = 16;

/// `plain` sees everything; from `guarded` a column and all that looks like personal data is masked.
const POLICY: &str = r#"
[[role]]
name = "plain"

[[role]]
name = "guarded"

[[grant]]
to = ["plain", "guarded"]
resources = ["shop"]
effects = ["read"]

[[mask]]
name = "contact"
columns = ["customers.email"]
action = "redact"
except = ["plain"]
resources = ["shop"]

[[detect]]
name = "pii"
kinds = ["*"]
action = "redact"
except = ["plain"]
resources = ["shop"]
"#;

type Memory = Words<Vec<AtomicU64>>;

pub struct Table {
    now: Now,
    shard: Shard<Desk>,
    consumer: Consumer<&'static Memory>,
}

/// One relaying session, by its two connections.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    pub client: Conn,
    pub upstream: Conn,
}

/// A record of the ring.
#[derive(Debug)]
pub struct Recorded {
    pub kind: Kind,
    pub payload: Vec<u8>,
}

impl Table {
    pub fn lay() -> Table {
        let memory: &'static Memory = Box::leak(Box::new(Words::heap(RING_BYTES, 1)));
        let producer = Producer::attach(memory).expect("a fresh ring");
        let consumer = Consumer::attach(memory).expect("a fresh ring");
        consumer.beat(NOW.unix_ns);
        let (mailbox, _, _) = mailbox().expect("an event descriptor");
        let shard = Shard::new(Parts {
            io: Desk::new(),
            slab: Slab::new(budget::slots(ACTIVE_SESSIONS_MAX)).expect("memory"),
            tap: Box::new(producer),
            control: control().into(),
            analyser: Analyser::start(1).expect("a thread"),
            mailbox,
            limits: limits(),
            siblings: Vec::new(),
            census: dataplane::shard::census::Census::default(),
            counters: std::sync::Arc::default(),
            doors: Vec::new(),
            recorder_absent_max: Duration::from_secs(5),
            random: Box::new(|bytes| bytes.fill(5)),
            number: 0,
            now: NOW,
        });
        Table { now: NOW, shard, consumer }
    }

    /// Some seconds go by, in which nothing is said.
    pub fn pass(&mut self, seconds: u64) {
        self.now.unix_ns += seconds * 1_000_000_000;
        self.now.monotonic_ns += seconds * 1_000_000_000;
        self.consumer.beat(self.now.unix_ns);
        let now = self.now;
        self.shard.turn(&mut || now);
    }

    /// A client with this role logs in, up to its ReadyForQuery.
    pub fn seat(&mut self, role: &str) -> Seat {
        let client = self.shard.io().accept();
        self.settle();
        self.say(client, &dialog::startup(role, "shop"));
        self.say(client, &dialog::password(role));
        let seat = Seat { client, upstream: Conn(client.0 + 1) };
        self.say(seat.upstream, &dialog::welcome());
        self.shard.io().forget();
        seat
    }

    /// Bytes arrive on a connection, and everything that follows from it happens.
    pub fn say(&mut self, conn: Conn, bytes: &[u8]) {
        self.shard.io().arrive(conn, bytes);
        self.settle();
    }

    /// One exchange: what the client says, and what the server answers.
    pub fn exchange(&mut self, seat: Seat, request: &[u8], response: &[u8]) {
        self.say(seat.client, request);
        self.say(seat.upstream, response);
    }

    fn settle(&mut self) {
        let now = self.now;
        while !self.shard.io().is_quiet() {
            self.shard.turn(&mut || now);
        }
    }

    pub fn desk(&mut self) -> &mut Desk {
        self.shard.io()
    }

    pub fn slots_free(&self) -> usize {
        self.shard.slots_free()
    }

    /// Takes all records out of the ring, as the recorder does.
    pub fn drain(&mut self) -> Vec<Recorded> {
        let mut drained = Vec::new();
        let mut bytes = Vec::new();
        while let Some(record) = self.consumer.poll(&mut bytes).expect("the ring is sound") {
            let payload = bytes.split_off(ring::record::HEADER_BYTES);
            bytes.clear();
            drained.push(Recorded { kind: record.header.kind, payload });
            self.consumer.release(record.end_position, record.header.seq).expect("one consumer");
        }
        drained
    }
}

fn control() -> Control {
    let source = rules::Source { name: "budget.toml".into(), text: POLICY.into() };
    let bundle = build::compile(&[source]).expect("the policy is right");
    let policy = Policy::from_bytes(bundle).expect("the bundle is right");
    let resource = Resource {
        name: "shop".into(),
        hosts: vec![SocketAddr::from(([127, 0, 0, 1], 5432)).into()],
        target_session_attrs: Target::Any,
        connect_timeout: Duration::from_secs(5),
        database: "shop".into(),
        user: "gateway".into(),
        credential: Source::Env("UNUSED".into()),
        allow_md5: false,
        allow_cleartext: false,
        role: None,
        application_name: Default::default(),
        tls: None,
        oauth_issuer: None,
    };
    // The token is the role's name; who checks real ones is not what is counted here.
    let verify = Box::new(|token: &[u8], _| {
        let role = String::from_utf8_lossy(token).into_owned();
        let (subject, name) = (role.clone(), role.clone());
        Ok(Identity { subject, name, roles: vec![role], expires_unix_s: u64::MAX, ..Identity::default() })
    });
    Control::new(verify, policy, vec![(resource, Secret::new(b"secret"), Snapshot::default())])
}

fn limits() -> Limits {
    Limits {
        max_client_conn: 10_000,
        sessions_per_subject_max: 10_000,
        active_sessions_max: ACTIVE_SESSIONS_MAX,
        login_timeout: Duration::from_secs(60),
        drain_timeout: Duration::from_secs(1),
        token_expiry: dataplane::config::TokenExpiry::FinishTransaction,
        token_bytes_max: 4096,
        session: dissector::Limits {
            statement_bytes_max: 1 << 20,
            bind_bytes_max: 1 << 20,
            row_bytes_max: 1 << 20,
            prepared_statements_max: 64,
            prepared_bytes_max: 1 << 20,
        },
        gathered_bytes_max: 16 << 20,
        plans_max: 1024,
        idle_upstreams_max: 16,
        server_idle_timeout: Duration::from_secs(60),
        server_lifetime: Duration::from_secs(3600),
    }
}
