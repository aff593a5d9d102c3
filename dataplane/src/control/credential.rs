//! Secrets: where they come from, and a type that does not show them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

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
pub struct Secret {
    bytes: Box<[u8]>,
    /// Clones share it.
    derived: Arc<Mutex<Option<Derived>>>,
}

/// The keys of SCRAM-SHA-256 that a password leads to with a salt: as secret as the password itself, and dear to make.
#[derive(Clone)]
pub struct Derived {
    pub salt: Box<[u8]>,
    pub iterations: u32,
    pub client_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl Secret {
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), derived: Arc::default() }
    }

    /// The keys for a salt: those that were derived last, if the salt is the same, else what `derive` makes of the secret.
    pub fn derived(&self, salt: &[u8], iterations: u32, derive: impl FnOnce(&[u8]) -> Derived) -> Derived {
        let kept = || self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |d: &&Derived| *d.salt == *salt && d.iterations == iterations;
        if let Some(derived) = kept().as_ref().filter(fits) {
            return derived.clone();
        }
        let derived = derive(&self.bytes);
        *kept() = Some(derived.clone());
        derived
    }

    /// The bytes, for the one place that needs them: the upstream's authentication.
    pub fn reveal(&self) -> &[u8] {
        &self.bytes
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
        Ok(Secret::new(&bytes))
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
