//! The ways to an upstream: its hosts as configured, and what their names stand for now. Names are resolved here, on the control
//! thread, and never on a shard; shards see an immutable [`Endpoint`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::certificate;
use crate::address::Address;
use crate::config::{Host, Resource};
use crate::log;
use crate::session::attempts::{Miss, Target};

/// Addresses of one name that count; of more the first.
const ADDRESSES_MAX: usize = 16;
/// Ways to an upstream in all.
const WAYS_MAX: usize = 32;
/// A resolver that takes longer has failed.
const LOOK_UP_MAX: Duration = Duration::from_secs(5);

/// Where an upstream is and how it is reached. A session keeps the one that it was admitted with, its cancel requests too,
/// whatever is configured or resolved meanwhile.
#[derive(Debug)]
pub struct Endpoint {
    pub resource: Arc<str>,
    /// In the order of the configuration, and of the resolver.
    pub ways: Vec<Way>,
    /// Hosts without an address, and why.
    pub unresolved: Vec<String>,
    pub target: Target,
    /// For each way, up to the end of the login there.
    pub connect_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Way {
    /// As it is configured.
    pub host: Arc<str>,
    pub address: Address,
    /// The authorities that count, and the name that the certificate must carry.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self.address.to_string();
        match *self.host == address {
            true => f.write_str(&address),
            false => write!(f, "{} ({address})", self.host),
        }
    }
}

impl Way {
    fn leads_where(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (Some((config, name)), Some((others, other_name))) => Arc::ptr_eq(config, others) && name == other_name,
            (None, None) => true,
            _ => false,
        };
        same_tls && self.host == other.host && self.address == other.address
    }
}

impl Endpoint {
    /// The same ways in the same order; what is configured beside them does not change while a configuration is in force.
    fn leads_where(&self, other: &Self) -> bool {
        let same = |(a, b): (&Way, &Way)| a.leads_where(b);
        self.ways.len() == other.ways.len()
            && self.ways.iter().zip(&other.ways).all(same)
            && self.unresolved == other.unresolved
    }

    /// For the operator: each way with why it was left.
    pub fn explain(&self, misses: &[(u16, Miss)]) -> String {
        let way = |at: u16| self.ways.get(usize::from(at));
        let tried = misses.iter().filter_map(|(at, miss)| Some(format!("{} {}", way(*at)?, miss.text())));
        let all: Vec<String> = tried.chain(self.unresolved.iter().cloned()).collect();
        let wants = match self.target {
            Target::Any => String::new(),
            target => format!(" (target_session_attrs = \"{}\")", target.name()),
        };
        format!("resource {}{wants} cannot be reached: {}", self.resource, all.join("; "))
    }
}

/// A resource's hosts, with what is known of their names.
pub struct Route {
    resource: Resource,
    name: Arc<str>,
    tls: Option<Arc<ClientConfig>>,
    /// By host.
    found: Mutex<Vec<Found>>,
    endpoint: RwLock<Arc<Endpoint>>,
}

/// What the last lookups of a name have brought.
#[derive(Clone, Debug, Default)]
struct Found {
    addresses: Vec<SocketAddr>,
    /// Why the last one failed, if it did.
    failed: Option<String>,
}

impl Route {
    /// # Errors
    /// The file of authorities cannot be used.
    pub fn load(resource: &Resource) -> Result<Self, String> {
        let tls = resource.tls.as_ref().map(|tls| certificate::client(&tls.ca)).transpose()?;
        let found = vec![Found::default(); resource.hosts.len()];
        let name: Arc<str> = resource.name.as_str().into();
        let endpoint = RwLock::new(Arc::new(endpoint(resource, name.clone(), tls.as_ref(), &found)));
        Ok(Self { resource: resource.clone(), name, tls, found: Mutex::new(found), endpoint })
    }

    pub fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what an older configuration had resolved for the same hosts.
    pub fn carry_over(&self, older: &Self) {
        if self.resource.hosts == older.resource.hosts {
            self.publish(older.found.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
    }

    /// Looks every name up. One that cannot be resolved keeps the addresses that it had.
    pub async fn resolve(&self) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (host, found) in self.resource.hosts.iter().zip(&mut found) {
            let Host::Named { name, port } = host else { continue };
            match look_up(name, *port).await {
                Ok(addresses) => *found = Found { addresses, failed: None },
                Err(why) => self.failed(host, why, found),
            }
        }
        self.publish(found);
    }

    fn failed(&self, host: &Host, why: String, found: &mut Found) {
        if found.failed.is_none() {
            let (resource, host) = (&*self.name, host.to_string());
            let kept = match found.addresses.len() {
                0 => String::new(),
                count => format!("; the addresses it had ({count}) count on"),
            };
            let message = format!("host {host} of resource {resource} cannot be resolved: {why}{kept}");
            log::tell(&log::NAME_UNRESOLVED, &[resource.into(), host.into()], message);
        }
        found.failed = Some(why);
    }

    fn publish(&self, found: Vec<Found>) {
        let endpoint = endpoint(&self.resource, self.name.clone(), self.tls.as_ref(), &found);
        let mut published = self.endpoint.write().unwrap_or_else(PoisonError::into_inner);
        // Upstream connections that are kept belong to one endpoint: where nothing has changed it is the same one.
        if !published.leads_where(&endpoint) {
            *published = Arc::new(endpoint);
        }
        drop(published);
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// As the system resolves names: `/etc/hosts` counts, and the order is the resolver's (RFC 6724).
async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let looked_up = tokio::time::timeout(LOOK_UP_MAX, tokio::net::lookup_host((name, port))).await;
    let late = |_| format!("no answer within {} s", LOOK_UP_MAX.as_secs());
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in looked_up.map_err(late)?.map_err(|e| e.to_string())? {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err("it has no address".into()),
        false => Ok(addresses),
    }
}

fn endpoint(resource: &Resource, name: Arc<str>, tls: Option<&Arc<ClientConfig>>, found: &[Found]) -> Endpoint {
    let mut ways = Vec::new();
    let mut unresolved = Vec::new();
    let configured = resource.tls.as_ref().and_then(|tls| tls.name.as_ref());
    for (host, found) in resource.hosts.iter().zip(found) {
        let text: Arc<str> = host.to_string().into();
        let way = |address: Address| {
            let name = host.server_name().map(|name| configured.cloned().unwrap_or(name));
            Way { host: text.clone(), address, tls: tls.cloned().zip(name) }
        };
        match host {
            Host::At(address) => ways.push(way(address.clone())),
            Host::Named { .. } => ways.extend(found.addresses.iter().map(|address| way((*address).into()))),
        }
        if matches!(host, Host::Named { .. }) && found.addresses.is_empty() {
            let why = found.failed.as_deref().unwrap_or("it has not been looked up yet");
            unresolved.push(format!("{host} cannot be resolved: {why}"));
        }
    }
    ways.truncate(WAYS_MAX);
    let (target, connect_timeout) = (resource.target_session_attrs, resource.connect_timeout);
    Endpoint { resource: name, ways, unresolved, target, connect_timeout }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamTls;
    use crate::control::credential::Source;

    fn resource(hosts: Vec<Host>) -> Resource {
        Resource {
            name: "shop".into(),
            hosts,
            target_session_attrs: Target::ReadWrite,
            connect_timeout: Duration::from_secs(5),
            database: "d".into(),
            user: "u".into(),
            credential: Source::Env("NONE".into()),
            allow_md5: false,
            allow_cleartext: false,
            role: None,
            application_name: Default::default(),
            tls: None,
            oauth_issuer: None,
        }
    }

    fn named(name: &str) -> Host {
        Host::Named { name: name.into(), port: 5432 }
    }

    fn addresses(endpoint: &Endpoint) -> Vec<String> {
        endpoint.ways.iter().map(|way| way.address.to_string()).collect()
    }

    #[test]
    fn all_addresses_of_a_name_stand_in_its_place() {
        let hosts = vec![
            named("a.example"),
            "192.0.2.9:1".parse::<SocketAddr>().expect("an address").into(),
            named("b.example"),
        ];
        let found = [
            Found {
                addresses: vec!["192.0.2.1:5432".parse().expect("one"), "[2001:db8::1]:5432".parse().expect("one")],
                failed: Some("late".into()),
            },
            Found::default(),
            Found { addresses: Vec::new(), failed: Some("unknown".into()) },
        ];
        let endpoint = endpoint(&resource(hosts), "shop".into(), None, &found);
        assert_eq!(addresses(&endpoint), ["192.0.2.1:5432", "[2001:db8::1]:5432", "192.0.2.9:1"]);
        assert_eq!(endpoint.unresolved, ["b.example:5432 cannot be resolved: unknown"]);
        assert_eq!(
            endpoint.explain(&[(0, Miss::Refused), (1, Miss::Standby), (2, Miss::Late)]),
            "resource shop (target_session_attrs = \"read-write\") cannot be reached: a.example:5432 (192.0.2.1:5432) refused the \
             connection; a.example:5432 ([2001:db8::1]:5432) is a hot standby; 192.0.2.9:1 did not answer within \
             connect_timeout_s; b.example:5432 cannot be resolved: unknown"
        );
    }

    #[test]
    fn each_way_is_checked_for_the_host_that_is_tried_and_a_socket_has_no_tls() {
        let authorities = rustls::RootCertStore::empty();
        let config = Arc::new(ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth());
        let socket = Host::At(Address::Unix(std::path::Path::new("/run/.s.PGSQL.1").into()));
        let at = |n: &str| Found { addresses: vec![format!("{n}:5432").parse().expect("an address")], failed: None };
        let found = [at("192.0.2.1"), at("192.0.2.2"), Found::default()];
        let mut resource = resource(vec![named("a.example"), named("b.example"), socket]);
        for (name, expected) in [(None, ["a.example", "b.example"]), (Some("c.example"), ["c.example", "c.example"])] {
            let name = name.map(|name| ServerName::try_from(name).expect("a name"));
            resource.tls = Some(UpstreamTls { ca: "ca.pem".into(), name });
            let endpoint = endpoint(&resource, "shop".into(), Some(&config), &found);
            let names = endpoint.ways.iter().map(|way| way.tls.as_ref().map(|(_, name)| name.to_str().into_owned()));
            assert_eq!(names.collect::<Vec<_>>(), [Some(expected[0].into()), Some(expected[1].into()), None]);
        }
    }

    #[test]
    fn a_name_that_fails_later_keeps_its_addresses_over_a_reload_too() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let first = Route::load(&resource(vec![named("localhost")])).expect("no file is named");
        assert_eq!(addresses(&first.endpoint()), [""; 0], "nothing is looked up before the control thread does it");
        runtime.block_on(first.resolve());
        let known = addresses(&first.endpoint());
        assert!(known.iter().any(|a| a == "127.0.0.1:5432" || a == "[::1]:5432"), "{known:?}");
        let mut found = first.found.lock().expect("no panic holds it").clone();
        first.failed(&named("localhost"), "no answer".into(), &mut found[0]);
        first.publish(found);
        let second = Route::load(&resource(vec![named("localhost")])).expect("no file is named");
        second.carry_over(&first);
        assert_eq!(addresses(&second.endpoint()), known);
        let other = Route::load(&resource(vec![named("nowhere.invalid")])).expect("no file is named");
        other.carry_over(&first);
        runtime.block_on(other.resolve());
        let endpoint = other.endpoint();
        assert!(endpoint.ways.is_empty() && endpoint.unresolved.len() == 1, "{endpoint:?}");
    }
}
