//! Licences of everything that we are built from, as Cargo knows them.

use std::process::Command;

use serde_json::Value;

use super::scan::root;

/// All of them ask for no more than that their text is kept.
const ALLOWED: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Zlib",
];

/// Packages whose licence is none of these, with the reason why they may stay. bitmaps (MPL-2.0+, of glommio) is used
/// unchanged, and that licence reaches its own files only.
const EXCEPTIONS: [&str; 1] = ["bitmaps"];

/// What `cargo metadata` says of the workspace and all its dependencies.
pub fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--offline"]).current_dir(root());
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

/// The packages whose licence is not allowed.
pub fn complaints(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let complaint = |package: &Value| {
        let (name, licence) = (package["name"].as_str()?, package["license"].as_str().unwrap_or("(none)"));
        let known = EXCEPTIONS.contains(&name) || is_allowed(licence);
        (!known)
            .then(|| format!("{name} is under {licence}: choose another package, or add it to EXCEPTIONS and say why"))
    };
    packages.iter().filter_map(complaint).collect()
}

/// An SPDX expression that can be satisfied with allowed licences alone. `/` is Cargo's old OR.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "+WITH+");
    let words: Vec<String> = spaced.split_whitespace().map(|word| word.replace("+WITH+", " WITH ")).collect();
    let mut at = 0;
    let allowed = any(&words, &mut at);
    allowed && at == words.len()
}

fn any(words: &[String], at: &mut usize) -> bool {
    let mut allowed = all(words, at);
    while words.get(*at).is_some_and(|w| w == "OR") {
        *at += 1;
        allowed |= all(words, at);
    }
    allowed
}

fn all(words: &[String], at: &mut usize) -> bool {
    let mut allowed = one(words, at);
    while words.get(*at).is_some_and(|w| w == "AND") {
        *at += 1;
        allowed &= one(words, at);
    }
    allowed
}

fn one(words: &[String], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if word != "(" {
        return ALLOWED.contains(&word.as_str());
    }
    let allowed = any(words, at);
    let closed = words.get(*at).is_some_and(|w| w == ")");
    *at += 1;
    allowed && closed
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    for (expression, allowed) in [
        ("MIT", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("MIT AND (GPL-3.0 OR AGPL-3.0)", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
        ("(none)", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
}
