//! A real OpenID provider (npm oidc-provider) in a process of its own, told what to do line by line.

use crate::server::tied_to_us;
use crate::world::script_path;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// Stopped when dropped, or when we end.
pub struct Provider {
    _process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub issuer: String,
}

impl Provider {
    /// # Panics
    /// If it does not start.
    pub fn start() -> Provider {
        let script = script_path("provider/provider.mjs");
        let mut command = tied_to_us(Path::new("node"), "KILL");
        command.arg(script).arg(node_modules()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("node runs; .ci/run installs it");
        let commands = process.stdin.take().expect("it was asked for");
        let answers = BufReader::new(process.stdout.take().expect("it was asked for"));
        let mut provider = Provider { _process: process, commands, answers, issuer: String::new() };
        provider.issuer = provider.answer().as_str().expect("its issuer").to_owned();
        provider
    }

    /// One of the commands that `provider.mjs` lists.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn ask(&mut self, command: &str) -> Value {
        writeln!(self.commands, "{command}").expect("the provider listens");
        self.answer()
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the provider answers");
        serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("no answer of the provider; .ci/run puts oidc-provider into {}", node_modules().display())
        })
    }

    /// A token of its client `nightly`.
    pub fn token(&mut self) -> String {
        let answer = self.ask("token");
        answer.as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// When its keys were asked for, in milliseconds.
    pub fn asked_ms(&mut self) -> Vec<u64> {
        serde_json::from_value(self.ask("asked")).expect("a list of times")
    }
}

fn node_modules() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    Path::new(&home).join(".cache/wireward/node/node_modules")
}
