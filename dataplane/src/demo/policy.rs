//! The policy of the demonstration, compiled: the built-in one, or the files of a directory.

use super::server::Outcome;
use policy_compiler::build;
use policy_compiler::policy::Source;
use std::fs;
use std::path::{Path, PathBuf};

const BUILT_IN: &str = include_str!("policy.toml");

/// Compiles every `.toml` file of the directory, in the order of their names, or the built-in policy.
///
/// # Errors
/// Everything that is wrong with the policy, with file and line.
pub fn compile(directory: Option<&Path>) -> Outcome<Vec<u8>> {
    let sources = match directory {
        Some(directory) => read(directory)?,
        None => vec![Source { name: "policy.toml".to_owned(), text: BUILT_IN.to_owned() }],
    };
    build::compile(&sources).map_err(|wrong| {
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn read(directory: &Path) -> Outcome<Vec<Source>> {
    let cannot_read = |path: &Path, error| format!("cannot read the policy {}: {error}", path.display());
    let entries = fs::read_dir(directory).map_err(|error| cannot_read(directory, error))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    if paths.is_empty() {
        return Err(format!("no policy in {}: its files end in .toml", directory.display()));
    }
    let source = |path: &PathBuf| {
        let text = fs::read_to_string(path).map_err(|error| cannot_read(path, error))?;
        Ok(Source { name: path.display().to_string(), text })
    };
    paths.iter().map(source).collect()
}
