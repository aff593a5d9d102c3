//! The `wireward` command: sub-commands → libraries, nothing else.

mod demo;
mod run;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use dataplane::config::Config;
use policy_compiler::cli as policy;

/// Wireward stands between people or AI agents and your databases: it blocks, masks and records on the wire
///
/// Clients connect with their usual tools and a short-lived identity token as the password; the gateway holds the
/// credential of the system behind. Try it: `wireward demo`.
///
/// Exit codes: 0 all well; 1 something is wrong with what was looked at (a policy, evidence, a step of the demo);
/// 2 the command line is wrong or something could not be looked at; 78 the configuration is wrong.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Configured {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "WIREWARD_CONFIG", default_value = "wireward.toml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway: the dataplane and the recorder, restarted when they die
    Run(Configured),
    /// Start a sample PostgreSQL and a gateway before it, with a tour
    Demo(demo::Options),
    /// Say whether a configuration and all that it names can be used
    CheckConfig(Configured),
    /// Check, build and question policies
    #[command(subcommand)]
    Policy(Policy),
    /// List recorded sessions
    Sessions {
        #[command(flatten)]
        configured: Configured,
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
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Unused,
    },
    /// Compile a policy to the one file that the gateway maps
    Build {
        path: PathBuf,
        #[arg(short, long, value_name = "FILE", default_value = "policy.bundle")]
        output: PathBuf,
        #[command(flatten)]
        configured: Unused,
    },
    /// Say what happens to a statement, which rule decides, why, and what is masked
    Explain {
        /// A role, as whom the statement is sent
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
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
        sql: String,
    },
    /// Print the JSON Schema of policy files
    Schema,
}

/// `--config` is taken by every command, also where it changes nothing.
#[derive(Args)]
struct Unused {
    #[arg(long, value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
}

/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let out = &mut std::io::stdout().lock();
    let code = match Cli::parse().command {
        Command::Run(c) => with(&c.config, |config| run::supervisor::run(&c.config, config)),
        Command::Dataplane(child) => with(&child.config, |config| run::dataplane::run(config, &child.rings)),
        Command::Recorder(child) => with(&child.config, |config| run::recorder::run(config, &child.rings)),
        Command::Demo(options) => match demo::run(&options) {
            Ok(()) => 0,
            Err(why) => {
                eprintln!("wireward demo: {why}");
                1
            }
        },
        Command::CheckConfig(c) => with(&c.config, |config| {
            run::dataplane::check(config)?;
            println!("{}: all in order", c.config.display());
            Ok(())
        }),
        Command::Policy(command) => answer(command, out),
        Command::Sessions { configured, json } => {
            look(&configured.config, |directory| recorder::cli::sessions(directory, json, out))
        }
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
        Policy::Check { path, json, .. } => policy::check(&path, json, out),
        Policy::Build { path, output, .. } => policy::build(&path, &output, out),
        Policy::Schema => policy::schema(out),
        Policy::Explain { user, roles, resource, policy: path, json, configured, sql } => {
            let path = match path {
                Some(path) => path,
                None => match Config::load(&configured.config) {
                    Ok(config) => config.policy_file,
                    Err(why) => return complain(&why),
                },
            };
            let question = policy::Question {
                policy: &path,
                user: user.as_deref(),
                roles: &roles,
                resource: &resource,
                sql: &sql,
            };
            policy::explain(question, json, out)
        }
    }
}

/// Runs a process of the gateway on a checked configuration.
fn with(path: &Path, run: impl FnOnce(&Config) -> Result<(), String>) -> u8 {
    match Config::load(path) {
        Err(why) => complain(&why),
        Ok(config) => match run(&config) {
            Ok(()) => 0,
            Err(why) => complain(&why),
        },
    }
}

fn look(path: &Path, show: impl FnOnce(&Path) -> u8) -> u8 {
    match Config::load(path) {
        Ok(config) => show(&config.recordings),
        Err(why) => complain(&why),
    }
}

fn complain(why: &dyn std::fmt::Display) -> u8 {
    eprintln!("wireward: {why}");
    EXIT_CONFIG
}
