//! The `wireward` command: sub-commands → libraries, nothing else.

mod demo;
mod run;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dataplane::config::{Config, ConfigError};
use dataplane::control::catalogue::Snapshot;
use dataplane::control::names;
use dataplane::io::driver::Choice;
use dataplane::log;
use policy_compiler::cli as policy;

/// Wireward stands between people or AI agents and your databases: it blocks, masks and records on the wire
///
/// Clients connect with their usual tools and a short-lived identity token as the password; the gateway holds the
/// credential of the system behind. Try it: `wireward demo`.
///
/// Exit codes: 0 all well; 1 something is wrong with what was looked at (a policy, evidence, a step of the demo);
/// 2 the command line is wrong or something could not be looked at; 78 the configuration is wrong.
#[derive(Parser)]
#[command(name = "wireward", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Configured {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "WIREWARD_CONFIG", default_value = CONFIG_DEFAULT)]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway: the dataplane and the recorder, restarted when they die
    Run {
        #[command(flatten)]
        configured: Configured,
        #[command(flatten)]
        log: run::Log,
        /// The kernel's interface that moves data, instead of what `runtime.io` says
        #[arg(long, env = "WIREWARD_IO")]
        io: Option<Choice>,
    },
    /// Start a sample PostgreSQL and a gateway before it, with a tour
    Demo(demo::Options),
    /// Say whether a configuration and all that it names can be used
    CheckConfig {
        #[command(flatten)]
        configured: Configured,
        /// Connect to no upstream
        #[arg(long)]
        offline: bool,
        /// One JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Check, build and question policies
    ///
    /// The language is described in policy-compiler/POLICY.md; `wireward policy schema` prints its JSON Schema.
    #[command(subcommand)]
    Policy(Policy),
    /// List recorded sessions and refused logins
    Sessions {
        #[command(flatten)]
        configured: Configured,
        /// Only logins that were refused
        #[arg(long)]
        refused: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a recorded session: statements with parameters, verdicts, rows as the client saw them, timing
    Replay {
        #[command(flatten)]
        configured: Configured,
        /// The session's id, as `sessions` lists it
        id: String,
        /// All rows of every result, not the first hundred
        #[arg(long)]
        all: bool,
        #[arg(long)]
        json: bool,
    },
    /// Check the recordings: nothing is changed, missing, swapped or cut off
    Verify {
        #[command(flatten)]
        configured: Configured,
        /// Only this file of the recordings
        name: Option<String>,
        /// A copy of the recorder's public key that was kept elsewhere
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// The process in the data path; started by `run`
    #[command(hide = true)]
    Dataplane(run::Child),
    /// The process that records; started by `run`
    #[command(hide = true)]
    Recorder(run::Child),
}

#[derive(Subcommand)]
enum Policy {
    /// Report every error of a policy with its place, or what the policy holds
    Check {
        /// A policy file or a directory of them
        path: PathBuf,
        /// Ask this resource's catalogue, with the gateway's credential of it, whether every masked column exists
        #[arg(long)]
        resource: Option<String>,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Compile a policy to the one file that the gateway reads
    Build {
        path: PathBuf,
        #[arg(short, long, value_name = "FILE", default_value = "policy.bundle")]
        output: PathBuf,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Unused,
    },
    /// Say what happens to a statement, which rule decides, why, and what is masked
    Explain(Explain),
    /// Print the JSON Schema of policy files
    Schema {
        #[command(flatten)]
        configured: Unused,
    },
}

#[derive(Args)]
struct Explain {
    /// As whom the statement is sent: a role, or somebody who has had a session; then with the roles of the last one
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// More roles, with commas
    #[arg(long, value_delimiter = ',')]
    roles: Vec<String>,
    #[arg(long)]
    resource: String,
    /// A policy file, directory or artifact; the configuration's artifact if left out
    #[arg(long)]
    policy: Option<PathBuf>,
    /// The configuration file; if named, the resource's catalogue is asked with the gateway's credential of it
    #[arg(long, value_name = "FILE", env = "WIREWARD_CONFIG")]
    config: Option<PathBuf>,
    /// Ask no catalogue, even if a configuration is named
    #[arg(long)]
    offline: bool,
    #[arg(long)]
    json: bool,
    sql: String,
}

/// `--config` is taken by every command, also where it changes nothing.
#[derive(Args)]
struct Unused {
    #[arg(long, value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
}

const CONFIG_DEFAULT: &str = "wireward.toml";
/// Something could not be looked at.
const EXIT_FAILED: u8 = 2;
/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let out = &mut std::io::stdout().lock();
    let code = match Cli::parse().command {
        Command::Run { configured: Configured { config: path }, log, io } => {
            let format = log.begin("supervisor");
            with(&path, |config| run::supervisor::run(&path, config, format, io))
        }
        Command::Dataplane(child) => {
            child.log.begin("dataplane");
            with(&child.config, |config| run::dataplane::run(config, child.io, &child.rings))
        }
        Command::Recorder(child) => {
            child.log.begin("recorder");
            with(&child.config, |config| run::recorder::run(config, &child.rings))
        }
        Command::Demo(options) => match demo::run(&options) {
            Ok(()) => 0,
            Err(why) => {
                eprintln!("wireward demo: {why}");
                1
            }
        },
        Command::CheckConfig { configured, offline, json } => {
            run::check::check(&configured.config, run::check::Options { offline, json }, out)
        }
        Command::Policy(command) => answer(command, out),
        Command::Sessions { configured, refused, json } => look(&configured.config, |directory| {
            recorder::cli::sessions(directory, recorder::cli::Listing { json, refused }, out)
        }),
        Command::Replay { configured, id, all, json } => look(&configured.config, |directory| {
            recorder::cli::replay(directory, &id, recorder::replay::Options { all, json }, out)
        }),
        Command::Verify { configured, name, public_key, json } => look(&configured.config, |directory| {
            recorder::cli::verify(directory, name.as_deref(), public_key.as_deref(), json, out)
        }),
    };
    ExitCode::from(code)
}

fn answer(command: Policy, out: &mut dyn Write) -> u8 {
    match command {
        Policy::Check { path, resource: None, json, .. } => policy::check(&path, None, json, out),
        Policy::Check { path, resource: Some(resource), json, configured } => {
            match Config::load(&configured.config).map_err(Refused::config).and_then(|c| catalogue(&c, &resource)) {
                Ok(snapshot) => {
                    let asked = policy::Asked { resource: &resource, upstream: &snapshot };
                    policy::check(&path, Some(asked), json, out)
                }
                Err(refused) => refused.complain(),
            }
        }
        Policy::Build { path, output, json, .. } => policy::build(&path, &output, json, out),
        Policy::Schema { .. } => policy::schema(out),
        Policy::Explain(question) => match explain(&question, out) {
            Ok(code) => code,
            Err(refused) => refused.complain(),
        },
    }
}

fn explain(question: &Explain, out: &mut dyn Write) -> Result<u8, Refused> {
    let Explain { user, roles, resource, policy: path, config, offline, json, sql } = question;
    let named = config.as_deref().map(Config::load).transpose().map_err(Refused::config)?;
    let path = match (path, &named) {
        (Some(path), _) => path.clone(),
        (None, Some(config)) => config.policy_file.clone(),
        (None, None) => Config::load(Path::new(CONFIG_DEFAULT)).map_err(Refused::config)?.policy_file,
    };
    let recordings = match &named {
        Some(config) => Some(config.recordings.clone()),
        None => Config::load(Path::new(CONFIG_DEFAULT)).ok().map(|config| config.recordings),
    };
    let person = |name: &str| last_session(recordings.as_deref(), name);
    let snapshot = named.filter(|_| !offline).map(|config| catalogue(&config, resource)).transpose()?;
    let upstream = snapshot.as_ref().map(|snapshot| snapshot as &dyn policy::Upstream);
    let user = user.as_deref();
    let question = policy::Question { policy: &path, user, person: &person, roles, resource, upstream, sql };
    Ok(policy::explain(question, *json, out))
}

/// Somebody's roles are in a token; what a gateway has seen of it is in the record.
fn last_session(recordings: Option<&Path>, name: &str) -> Result<policy::Person, String> {
    let recordings = recordings.ok_or("--config FILE names the recordings, where others are known from")?;
    let person = recorder::people::last_session(recordings, name)?;
    Ok(policy::Person { roles: person.roles, known_from: person.told })
}

/// The catalogue of one resource of the configuration.
fn catalogue(config: &Config, name: &str) -> Result<Snapshot, Refused> {
    let found = config.resources.iter().find(|resource| resource.name == name).ok_or_else(|| {
        let known: Vec<&str> = config.resources.iter().map(|resource| resource.name.as_str()).collect();
        Refused(EXIT_CONFIG, format!("the configuration has no resource `{name}`; it has {}", known.join(", ")))
    })?;
    names::read(found).map_err(|why| Refused(EXIT_FAILED, why))
}

/// Why a command cannot answer, with its exit code.
struct Refused(u8, String);

impl Refused {
    fn config(why: ConfigError) -> Self {
        Self(EXIT_CONFIG, why.to_string())
    }

    fn complain(self) -> u8 {
        eprintln!("wireward: {}", self.1);
        self.0
    }
}

/// Runs a process of the gateway on a checked configuration.
fn with(path: &Path, run: impl FnOnce(&Config) -> Result<(), String>) -> u8 {
    match Config::load(path) {
        Err(why) => end(&why),
        Ok(config) => match run(&config) {
            Ok(()) => 0,
            Err(why) => end(&why),
        },
    }
}

fn look(path: &Path, show: impl FnOnce(&Path) -> u8) -> u8 {
    match Config::load(path) {
        Ok(config) => show(&config.recordings),
        Err(why) => complain(&why),
    }
}

/// A process of the gateway ends; its log says why.
fn end(why: &dyn std::fmt::Display) -> u8 {
    log::tell(&log::FATAL, &[], why);
    EXIT_CONFIG
}

fn complain(why: &dyn std::fmt::Display) -> u8 {
    eprintln!("wireward: {why}");
    EXIT_CONFIG
}
