//! `wireward check-config`: tries everything that the configuration names, and says of each whether it can be used.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use dataplane::address::Address;
use dataplane::config::{Config, Listener, Resource};
use dataplane::control::Control;
use dataplane::control::catalogue::Snapshot;
use dataplane::control::protected::Protected;
use dataplane::control::route::Route;
use dataplane::session::Auth;
use dataplane::shard::listen::{Standing, standing};
use policy_compiler::artifact::Policy;
use serde_json::json;

use super::recorder::key_path;

/// How to check.
#[derive(Clone, Copy)]
pub struct Options {
    /// Connect to nothing.
    pub offline: bool,
    /// One JSON object instead of a table.
    pub json: bool,
}

/// Checks the configuration file and writes a line for each thing that it names. Gives the exit code: 0, or 78 if something
/// cannot be used. Upstreams have 15 seconds, all at the same time.
pub fn check(path: &Path, options: Options, out: &mut dyn Write) -> u8 {
    let mut report = Report(Vec::new());
    match Config::load(path) {
        Ok(config) => report.all(&config, options.offline),
        Err(why) => report.wrong("configuration", why.to_string()),
    }
    let wrong = report.0.iter().filter(|row| row.state == State::Wrong).count();
    match report.show(path, wrong, options.json, out) {
        Ok(()) if wrong == 0 => 0,
        Ok(()) => crate::EXIT_CONFIG,
        Err(_) => 2,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Worth knowing and not wrong.
    Note,
    Wrong,
}

struct Row {
    state: State,
    what: String,
    says: String,
}

struct Report(Vec<Row>);

impl Report {
    fn all(&mut self, config: &Config, offline: bool) {
        // Keys, artifact, secrets and certificates, as the gateway itself loads them.
        match Control::load(config) {
            Ok(_) => self.ok("files and secrets", "keys, policy, credentials and certificates are there".into()),
            Err(why) => self.wrong("files and secrets", why),
        }
        self.recordings(&config.recordings);
        config.listeners.iter().map(|l| l.address.clone()).for_each(|address| self.listener(&address));
        config.admin.iter().for_each(|address| self.listener(&Address::Tcp(*address)));
        config.listeners.iter().filter(|l| l.auth == Auth::Oauth).for_each(|listener| self.oauth(config, listener));
        let policy = Policy::open(&config.policy_file).ok();
        if let Some(policy) = &policy {
            self.named_resources(policy, config);
        }
        if offline {
            return self.note("upstreams", "not asked: --offline".into());
        }
        self.keys(config);
        match snapshots(&config.resources) {
            Ok(snapshots) => {
                for (resource, snapshot) in config.resources.iter().zip(snapshots) {
                    self.upstream(resource, snapshot, policy.as_ref());
                }
            }
            Err(why) => self.wrong("upstreams", why),
        }
    }

    fn recordings(&mut self, directory: &Path) {
        let key = key_path(directory);
        let tried = writable(directory).and_then(|()| match key.exists() {
            true => Ok(()),
            false => writable(key.parent().unwrap_or(Path::new("."))),
        });
        match tried {
            Ok(()) => self.ok("recording.directory", format!("{} can be written", directory.display())),
            Err(why) => self.wrong("recording.directory", why),
        }
    }

    fn listener(&mut self, address: &Address) {
        let what = format!("listener {address}");
        let is_free = match address {
            Address::Tcp(address) => match TcpListener::bind(address) {
                Ok(_) => Ok(true),
                Err(e) if e.kind() == ErrorKind::AddrInUse => Ok(false),
                Err(e) => Err(format!("cannot listen: {e}")),
            },
            Address::Unix(path) => standing(path).and_then(|standing| match path.parent() {
                Some(directory) if !directory.is_dir() => Err(format!("{} is no directory", directory.display())),
                Some(directory) if standing != Standing::Served => writable(directory).map(|()| true),
                _ => Ok(standing != Standing::Served),
            }),
        };
        match is_free {
            Ok(true) => self.ok(&what, "the address is free".into()),
            Ok(false) => self.note(&what, "the address is in use, perhaps by a gateway that runs".into()),
            Err(why) => self.wrong(&what, why),
        }
    }

    /// Where clients of a listener get their tokens.
    fn oauth(&mut self, config: &Config, listener: &Listener) {
        let what = format!("listener {}", listener.address);
        let issuer = config.issuer_for_clients(listener.oauth_issuer.as_deref());
        match issuer.and_then(|issuer| issuer.discovery().map(|url| (url, &issuer.oauth_scope))) {
            Some((url, scope)) => {
                self.ok(&what, format!("OAUTHBEARER: clients get tokens by {url}, scope \"{scope}\""))
            }
            None => self.note(&what, "OAUTHBEARER: no issuer has an address, so clients must know theirs".into()),
        }
    }

    /// Fetches the keys of every issuer, as the gateway would.
    fn keys(&mut self, config: &Config) {
        let Ok(control) = Control::load(config) else { return };
        let fetched = super::dataplane::runtime().and_then(|runtime| {
            let fetched = runtime.block_on(control.fetch_keys());
            runtime.shutdown_background();
            fetched
        });
        match fetched {
            Ok(()) => self.ok("issuers", "the keys of every issuer are there".into()),
            Err(why) => self.wrong("issuers", why),
        }
    }

    /// A rule for a resource that does not exist protects nothing.
    fn named_resources(&mut self, policy: &Policy, config: &Config) {
        let checked = match policy_compiler::policy::check(policy.sources()) {
            Ok(checked) => checked,
            Err(_) => return self.wrong("policy", "its own text cannot be read; build it again".into()),
        };
        let scopes = checked.rules.iter().map(|r| &r.scope).chain(checked.masks.iter().map(|m| &m.scope));
        let scopes = scopes.chain(checked.detects.iter().map(|d| &d.scope)).map(|scope| &scope.resources);
        let named = checked.grants.iter().map(|grant| &grant.resources).chain(scopes).flatten().flatten();
        let named: BTreeSet<&str> = named.map(String::as_str).collect();
        let known: BTreeSet<&str> = config.resources.iter().map(|resource| resource.name.as_str()).collect();
        if named.is_subset(&known) {
            self.ok("policy", format!("policy {}", policy.epoch_name()));
        }
        for name in named.difference(&known) {
            self.wrong("policy", format!("it names the resource `{name}`, which the configuration does not have"));
        }
        let unreached = |name: &&&str| {
            let mut roles = policy.all_role_names().into_iter().filter_map(|role| policy.role_named(role));
            !roles.any(|role| policy.may_reach(role, name))
        };
        for name in known.iter().filter(unreached) {
            self.note("policy", format!("no role may reach the resource `{name}`"));
        }
    }

    fn upstream(&mut self, resource: &Resource, snapshot: Result<Snapshot, String>, policy: Option<&Policy>) {
        let what = format!("resource {}", resource.name);
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(why) => return self.wrong(&what, why),
        };
        self.ok(&what, format!("{}: user {} logs in, the catalogue is read", resource.address(), resource.user));
        let Some(policy) = policy else { return };
        let roles = policy.all_role_names().into_iter().filter_map(|role| policy.role_named(role));
        let unresolved: BTreeSet<String> = roles
            .flat_map(|role| Protected::resolve(&snapshot, &policy.masks(role, &resource.name)).unresolved)
            .collect();
        for mask in unresolved {
            self.wrong(&what, format!("mask {mask}: there is no such column, so nothing of it is masked"));
        }
    }

    fn ok(&mut self, what: &str, says: String) {
        self.0.push(Row { state: State::Ok, what: what.to_owned(), says });
    }

    fn note(&mut self, what: &str, says: String) {
        self.0.push(Row { state: State::Note, what: what.to_owned(), says });
    }

    fn wrong(&mut self, what: &str, says: String) {
        self.0.push(Row { state: State::Wrong, what: what.to_owned(), says });
    }

    fn show(&self, path: &Path, wrong: usize, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            let row = |row: &Row| json!({ "state": row.state.name(), "what": row.what, "says": row.says });
            let checks: Vec<_> = self.0.iter().map(row).collect();
            return writeln!(out, "{:#}", json!({ "ok": wrong == 0, "checks": checks }));
        }
        let width = self.0.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        for row in &self.0 {
            writeln!(out, "{:<5}  {:<width$}  {}", row.state.name(), row.what, row.says)?;
        }
        match wrong {
            0 => writeln!(out, "{}: all in order", path.display()),
            1 => writeln!(out, "{}: 1 problem", path.display()),
            _ => writeln!(out, "{}: {wrong} problems", path.display()),
        }
    }
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Wrong => "WRONG",
        }
    }
}

/// Whether a file can be made there. A directory that is missing is made by the recorder: then what is above it counts.
fn writable(directory: &Path) -> Result<(), String> {
    let Some(nearest) = directory.ancestors().find(|path| path.exists()) else { return Ok(()) };
    let nearest = if nearest.as_os_str().is_empty() { Path::new(".") } else { nearest };
    let probe: PathBuf = nearest.join(format!(".wireward-check-{}", std::process::id()));
    let made = std::fs::File::create_new(&probe).and_then(|_| std::fs::remove_file(&probe));
    made.map_err(|e| format!("{} cannot be written: {e}", nearest.display()))
}

/// The catalogue of every resource, or why there is none.
fn snapshots(resources: &[Resource]) -> Result<Vec<Result<Snapshot, String>>, String> {
    super::dataplane::runtime()?.block_on(async {
        let asked: Vec<_> = resources.iter().cloned().map(|resource| tokio::spawn(snapshot(resource))).collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await.unwrap_or_else(|e| Err(e.to_string())));
        }
        Ok(answers)
    })
}

async fn snapshot(resource: Resource) -> Result<Snapshot, String> {
    let credential = resource.credential.read().map_err(|e| format!("credential: {e}"))?;
    let route = Route::load(&resource)?;
    route.resolve().await;
    Snapshot::read(&resource, &credential, &route.endpoint(), 0).await
}
