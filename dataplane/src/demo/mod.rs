//! `wireward demo`: a PostgreSQL server with a sample shop, a token issuer and a gateway before it, in one directory
//! and one command. `--check` walks the tour by itself and says whether each step holds.

mod authority;
mod check;
mod gateway;
mod issuer;
mod policy;
mod server;
mod shop;

use clap::Args;
use gateway::{Gateway, Place, Upstream};
use issuer::{Issuer, NAME};
use server::{Outcome, Server, free_port, random_hex, write_secret};
use std::fs;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const USUAL_PORT: u16 = 6432;

/// Starts a sample PostgreSQL and a gateway before it
#[derive(Args)]
pub struct Options {
    /// Keep everything in this directory and use it again; otherwise a temporary one that is removed at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Guard this server instead of a sample one (postgresql://user:password@host:port/database)
    #[arg(long, value_name = "DSN")]
    upstream: Option<String>,
    /// Use the policy files of this directory instead of the sample policy
    #[arg(long, value_name = "DIR")]
    policy: Option<PathBuf>,
    /// Walk the tour, print one line a step, and end with 0 if all of it holds
    #[arg(long)]
    check: bool,
    /// Listen on this port of 127.0.0.1 (default: 6432, or a free one if that is taken)
    #[arg(long)]
    port: Option<u16>,
    /// Taken as by every command; the demonstration writes a configuration of its own
    #[arg(long, value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
}

/// Runs the demonstration until Ctrl-C or SIGTERM, or to the end of the check.
///
/// # Errors
/// A text for the person at the terminal: what failed, where, and how to mend it.
pub fn run(options: &Options) -> Outcome<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&stop));
        registered.map_err(|error| format!("cannot wait for signal {signal}: {error}"))?;
    }
    let home = Home::open(options.dir.as_deref())?;
    let mut demo = Demo::start(options, &home.directory)?;
    if options.check {
        return check::walk(&demo);
    }
    println!("{}", demo.tour());
    println!("ready");
    while !stop.load(Ordering::Relaxed) {
        if let Some(end) = demo.gateway.ended() {
            return Err(format!("{end}; see {}", demo.place.log().display()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("stopping");
    Ok(())
}

/// The directory of a demonstration. A temporary one goes when this is dropped.
struct Home {
    directory: PathBuf,
    temporary: bool,
}

impl Home {
    fn open(wish: Option<&Path>) -> Outcome<Home> {
        let temporary = wish.is_none();
        let directory = match wish {
            Some(directory) => directory.to_owned(),
            None => std::env::temp_dir().join(format!("wireward-demo-{}", random_hex(4)?)),
        };
        fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let directory =
            directory.canonicalize().map_err(|error| format!("cannot open {}: {error}", directory.display()))?;
        Ok(Home { directory, temporary })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// What is running. Fields are dropped in this order: the gateway stops before the server behind it.
struct Demo {
    gateway: Gateway,
    server: Option<Server>,
    issuer: Issuer,
    upstream: Upstream,
    place: Place,
    admin: String,
    program: PathBuf,
    directory: PathBuf,
    tokens: Tokens,
}

struct Tokens {
    analyst: String,
    agent: String,
    dba: String,
}

impl Demo {
    fn start(options: &Options, directory: &Path) -> Outcome<Demo> {
        // The policy first: a mistake in it should not cost the start of a server.
        let bundle = policy::compile(options.policy.as_deref())?;
        let port = choose_port(options.port)?;
        let (server, upstream) = match &options.upstream {
            Some(dsn) => (None, parse_dsn(dsn)?),
            None => {
                let (server, upstream) = shop::start(directory, &[])?;
                (Some(server), upstream)
            }
        };
        let issuer = Issuer::new()?;
        let tokens = Tokens {
            analyst: issuer.token("ann", &["analyst"])?,
            agent: issuer.token("crew-sales", &["agent"])?,
            dba: issuer.token("dora", &["dba"])?,
        };
        let place = Place::new(directory);
        place.furnish(&issuer, &bundle, &upstream, port)?;
        let program = std::env::current_exe().map_err(|error| format!("cannot find the wireward binary: {error}"))?;
        let gateway = place.start(&program, port)?;
        let (admin, directory) = (place.admin()?, directory.to_owned());
        let demo = Demo { gateway, server, issuer, upstream, place, admin, program, directory, tokens };
        write_secret(&demo.directory.join("env"), &demo.environment())?;
        Ok(demo)
    }

    /// Lines for a shell to source.
    fn environment(&self) -> String {
        let Upstream { address, database, user, password } = &self.upstream;
        let dsn = format!("postgresql://{user}:{password}@{address}/{database}");
        let rows = [
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", self.gateway.port.to_string()),
            ("PGDATABASE", "shop".to_owned()),
            ("PGUSER", NAME.to_owned()),
            ("PGPASSWORD", self.tokens.analyst.clone()),
            ("PGSSLMODE", "verify-full".to_owned()),
            ("PGSSLROOTCERT", self.place.root_certificate().display().to_string()),
            ("ANALYST_TOKEN", self.tokens.analyst.clone()),
            ("AGENT_TOKEN", self.tokens.agent.clone()),
            ("DBA_TOKEN", self.tokens.dba.clone()),
            ("WIREWARD_CONFIG", self.place.configuration().display().to_string()),
            ("UPSTREAM_DSN", dsn),
            ("WIREWARD_ADMIN", self.admin.clone()),
            ("RECORDINGS", self.place.recordings().display().to_string()),
        ];
        let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
        let mut lines: String = rows.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
        // The tour says `wireward`, which a build does not install.
        if let Some(directory) = self.program.parent() {
            lines += &format!("export PATH={}:\"$PATH\"\n", quoted(&directory.display().to_string()));
        }
        lines
    }

    fn tour(&self) -> String {
        let environment = self.directory.join("env");
        let log = self.place.log();
        format!(
            r#"
A gateway on 127.0.0.1:{port} guards a sample shop. Paste this into another terminal:

  . {environment}

  # an analyst: personal data is masked on the wire
  psql -c 'select id, name, email, ssn, card, phone from customers order by id limit 3'
  psql -c 'select * from customer_contacts order by id limit 3'

  # an agent: some statements never reach the server, and the session goes on
  PGPASSWORD=$AGENT_TOKEN psql -c 'drop table customers' -c 'select count(*) from orders'
  PGPASSWORD=$AGENT_TOKEN psql -c 'delete from customers'

  # a dba: everything, in clear
  PGPASSWORD=$DBA_TOKEN psql -c 'select id, email, ssn from customers order by id limit 3'

  # health and numbers
  curl -s $WIREWARD_ADMIN/healthz $WIREWARD_ADMIN/metrics

  # the evidence
  wireward sessions
  wireward replay "$(wireward sessions | awk '/crew-sales/ {{ print $1; exit }}')"
  wireward verify

The gateway's own words are in {log}. Ctrl-C stops all of it.
"#,
            port = self.gateway.port,
            environment = environment.display(),
            log = log.display(),
        )
    }
}

fn choose_port(wish: Option<u16>) -> Outcome<u16> {
    match wish {
        Some(port) => match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => Ok(port),
            Err(error) => {
                Err(format!("--port {port}: {error}; choose another, or leave it out to have a free one chosen"))
            }
        },
        None if TcpListener::bind(("127.0.0.1", USUAL_PORT)).is_ok() => Ok(USUAL_PORT),
        None => free_port(),
    }
}

fn parse_dsn(dsn: &str) -> Outcome<Upstream> {
    let wrong = |what: &str| format!("--upstream: {what}; write postgresql://user:password@host:port/database");
    let parsed: tokio_postgres::Config = dsn.parse().map_err(|error| wrong(&format!("{error}")))?;
    let Some(tokio_postgres::config::Host::Tcp(host)) = parsed.get_hosts().first() else {
        return Err(wrong("no host name or address in it"));
    };
    let port = parsed.get_ports().first().copied().unwrap_or(5432);
    let address = (host.as_str(), port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let address = address.ok_or_else(|| wrong(&format!("{host:?} has no address")))?;
    let user = parsed.get_user().ok_or_else(|| wrong("no user in it"))?;
    let password = parsed.get_password().ok_or_else(|| wrong("no password in it"))?;
    Ok(Upstream {
        address: address.to_string(),
        database: parsed.get_dbname().unwrap_or(user).to_owned(),
        user: user.to_owned(),
        password: String::from_utf8_lossy(password).into_owned(),
    })
}
