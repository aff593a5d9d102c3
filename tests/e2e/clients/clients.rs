//! The clients, what each offers, and which outcomes are known to differ.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::world::{npm_modules, python, script_path};

pub struct Client {
    pub name: &'static str,
    pub command: fn(binaries: &Path) -> Command,
    /// Capabilities of which its program must have a case.
    pub offers: &'static [&'static str],
}

const WITH_CURSORS: &[&str] =
    &["introspection", "prepared", "binary", "copy", "cancel", "notify", "large objects", "cursors", "errors"];
const WITH_PIPELINES: &[&str] =
    &["introspection", "prepared", "binary", "copy", "cancel", "notify", "large objects", "pipeline", "errors"];

pub const CLIENTS: &[Client] = &[
    Client { name: "psql", command: |binaries| shell("psql.sh", binaries), offers: WITH_CURSORS },
    Client {
        name: "pgbench",
        command: |binaries| shell("pgbench.sh", binaries),
        offers: &["copy", "prepared", "pipeline"],
    },
    Client { name: "libpq", command: |binaries| shell("libpq.sh", binaries), offers: &["pipeline"] },
    Client { name: "psycopg2", command: |_| script("psycopg2_client.py"), offers: WITH_CURSORS },
    Client { name: "psycopg3", command: |_| script("psycopg3_client.py"), offers: WITH_PIPELINES },
    Client { name: "asyncpg", command: |_| script("asyncpg_client.py"), offers: WITH_PIPELINES },
    Client {
        name: "sqlalchemy",
        command: |_| script("sqlalchemy_client.py"),
        offers: &["introspection", "prepared", "binary", "copy", "cursors", "transactions", "errors"],
    },
    Client {
        name: "django",
        command: |_| script("django_client.py"),
        offers: &["introspection", "prepared", "copy", "cursors", "transactions"],
    },
    Client { name: "jdbc", command: |_| jdbc(), offers: WITH_CURSORS },
    Client { name: "node-postgres", command: |_| node(), offers: WITH_CURSORS },
];

/// Client, case, and why its outcome is not the one that it has directly. A case that is listed must differ.
pub const KNOWN: &[(&str, &str, &str)] = &[(
    "psql",
    "a_syntax_error_has_its_place",
    "the gateway says it in the server's words, but has no line of the server's source for LOCATION",
)];

/// A file of this directory.
pub fn file(name: &str) -> PathBuf {
    script_path("clients").join(name)
}

fn shell(name: &str, binaries: &Path) -> Command {
    let mut command = Command::new("bash");
    command.arg(file(name)).arg(binaries);
    command
}

fn script(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(file(name));
    command
}

/// Debian's pgjdbc; Java compiles the program each time.
fn jdbc() -> Command {
    let mut command = Command::new("java");
    // Short runs: no time for the optimising compiler.
    command
        .args(["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", "/usr/share/java/postgresql.jar"])
        .arg(file("Jdbc.java"));
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.arg(file("node.mjs")).arg(npm_modules());
    command
}
