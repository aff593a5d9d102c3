//! A gateway set up from nothing in one directory: keys, policy bundle, configuration, and the running process.

use super::authority::{self, CERTIFICATE, KEY};
use super::issuer::{AUDIENCE, ISSUER, Issuer};
use super::server::{Outcome, free_port, random_hex, stop, tied_to_us, wait_for_port, write_secret};
use dataplane::config::Config;
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(10);

/// The database behind the gateway, and the one credential that clients must never see.
pub struct Upstream {
    /// `host:port`.
    pub address: String,
    pub database: String,
    pub user: String,
    pub password: String,
}

/// A running `wireward run`, stopped when dropped.
pub struct Gateway {
    pub process: Child,
    pub port: u16,
}

/// Where the parts of one set-up lie; everything is inside one directory.
pub struct Place(PathBuf);

impl Place {
    pub fn new(directory: &Path) -> Place {
        Place(directory.to_owned())
    }

    pub fn configuration(&self) -> PathBuf {
        self.0.join("wireward.toml")
    }

    /// Where health and metrics are served, as the configuration says.
    pub fn admin(&self) -> Outcome<String> {
        let config = Config::load(&self.configuration()).map_err(|error| error.to_string())?;
        let address = config.admin.ok_or("the configuration has no admin listener")?;
        Ok(format!("http://{address}"))
    }

    pub fn recordings(&self) -> PathBuf {
        self.0.join("recordings")
    }

    /// What clients verify the gateway's certificate with.
    pub fn root_certificate(&self) -> PathBuf {
        self.0.join(authority::ROOT)
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("wireward.log")
    }

    /// Writes everything that `wireward run` reads. `bundle` is a compiled policy.
    pub fn furnish(&self, issuer: &Issuer, bundle: &[u8], upstream: &Upstream, port: u16) -> Outcome<()> {
        fs::create_dir_all(self.recordings()).map_err(|error| self.cannot_write("recordings", &error))?;
        self.write("jwks.json", issuer.jwks().to_string().as_bytes())?;
        self.write("policy.bundle", bundle)?;
        authority::certify(&self.0)?;
        write_secret(&self.0.join("upstream.password"), &upstream.password)?;
        write_secret(&self.0.join("hash.key"), &random_hex(32)?)?;
        self.write("wireward.toml", configuration(upstream, port, free_port()?).as_bytes())
    }

    /// Starts `program run` on this directory's configuration and waits until it accepts connections on `port`.
    pub fn start(&self, program: &Path, port: u16) -> Outcome<Gateway> {
        let log = fs::File::create(self.log()).map_err(|error| self.cannot_write("wireward.log", &error))?;
        let also = log.try_clone().map_err(|error| self.cannot_write("wireward.log", &error))?;
        let mut command = tied_to_us(program, "TERM");
        command.arg("run").arg("--config").arg(self.configuration()).stdout(log).stderr(also);
        let process = command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let mut gateway = Gateway { process, port };
        gateway.wait_until_ready().map_err(|why| {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            format!("{why}; {} says:\n{}", self.log().display(), log.trim_end())
        })?;
        Ok(gateway)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Outcome<()> {
        fs::write(self.0.join(name), bytes).map_err(|error| self.cannot_write(name, &error))
    }

    fn cannot_write(&self, name: &str, error: &std::io::Error) -> String {
        format!("cannot write {}: {error}", self.0.join(name).display())
    }
}

impl Gateway {
    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        self.process.try_wait().ok().flatten().map(|status| format!("wireward ended by itself ({status})"))
    }

    fn wait_until_ready(&mut self) -> Outcome<()> {
        const SLICE: Duration = Duration::from_millis(100);
        for _ in 0..START_MAX.as_millis() / SLICE.as_millis() {
            match (wait_for_port(self.port, SLICE), self.ended()) {
                (_, Some(end)) => return Err(end),
                (Ok(()), None) => return Ok(()),
                (Err(_), None) => {}
            }
        }
        Err(format!("wireward does not accept connections on port {} after {} s", self.port, START_MAX.as_secs()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        stop(&mut self.process, Signal::TERM, Signal::KILL, STOP_MAX);
    }
}

fn configuration(upstream: &Upstream, port: u16, admin_port: u16) -> String {
    let Upstream { address, database, user, .. } = upstream;
    let loopback = address.parse().is_ok_and(|a: std::net::SocketAddr| a.ip().is_loopback());
    let tls = if loopback { "" } else { "tls = \"disable\" # better: \"verify-full\" with tls_ca\n" };
    format!(
        r#"# Paths are relative to this file.
[[issuer]]
issuer = "{ISSUER}"
jwks_file = "jwks.json"
audience = "{AUDIENCE}"
algorithms = ["ES256"]

[policy]
file = "policy.bundle"

[recording]
directory = "recordings"

[[listener]]
protocol = "postgres"
address = "127.0.0.1:{port}"
plaintext = "loopback" # tokens in clear only on loopback
tls = {{ certificate = "{CERTIFICATE}", key = "{KEY}" }}

[[resource]]
name = "shop"
protocol = "postgres"
address = "{address}"
database = "{database}"
user = "{user}"
credential = {{ file = "upstream.password" }}
{tls}
[masking]
hash_key = {{ file = "hash.key" }}

[admin]
address = "127.0.0.1:{admin_port}"
"#
    )
}
