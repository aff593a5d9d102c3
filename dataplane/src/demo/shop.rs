//! The sample shop: 10,000 invented customers and their orders on a server of our own.

use super::gateway::Upstream;
use super::server::{Outcome, Server, random_hex};
use std::fs;
use std::path::Path;

const SHOP: &str = include_str!("shop.sql");

/// Starts a server in `directory` and loads the shop into it, unless an earlier run has. The password of the role
/// `wireward` is made here once; [`super::gateway::Place::furnish`] keeps it for the next run.
pub fn start(directory: &Path, settings: &[&str]) -> Outcome<(Server, Upstream)> {
    let server = Server::start(directory, settings)?;
    let kept = directory.join("upstream.password");
    let password = fs::read_to_string(&kept).or_else(|_| random_hex(16))?;
    let there = server.run_script("postgres", "select count(*) from pg_database where datname = 'shop'")?;
    if there.trim() == "0" {
        server.run_script("postgres", &format!("\\set wireward_password '{password}'\n{SHOP}"))?;
    }
    let address = format!("127.0.0.1:{}", server.port);
    let upstream = Upstream { address, database: "shop".to_owned(), user: "wireward".to_owned(), password };
    Ok((server, upstream))
}
