//! Secrets: where they come from, and a type that does not show them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

/// Where a secret is read from: `{ env = "NAME" }`, `{ file = "path" }` or `{ command = ["prog", "arg"] }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    Env(String),
    File(PathBuf),
    Command(Vec<String>),
}

/// A secret's bytes. It has no `Display`, its `Debug` is blank, and the process makes no core file.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the one place that needs them: the upstream's authentication.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Source {
    pub fn relative_to(self, directory: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(directory.join(path)),
            other => other,
        }
    }

    /// Reads the secret; one line end at its end is not part of it.
    ///
    /// # Errors
    /// Which source failed and how; never the secret.
    pub fn read(&self) -> Result<Secret, String> {
        let mut bytes = match self {
            Self::Env(name) => std::env::var(name)
                .map(String::into_bytes)
                .map_err(|_| format!("the environment variable {name} is not set (or not UTF-8)"))?,
            Self::File(path) => std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?,
            Self::Command(words) => run(words)?,
        };
        while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(format!("{self:?} gave an empty secret"));
        }
        Ok(Secret(bytes.into()))
    }
}

fn run(words: &[String]) -> Result<Vec<u8>, String> {
    let [program, arguments @ ..] = words else { return Err("credential command is empty".into()) };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|e| format!("credential command {program}: {e}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("credential command {program} ended with {}", output.status)),
    }
}
