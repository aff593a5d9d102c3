//! The client matrix: each program of this directory runs directly and through the gateway, and must see the same.
//!
//! Rows: client × server (15, 18) × driver (io_uring, epoll) × transport (in clear, TLS). Every run of the tests takes two of the
//! eight for each client, chosen so that all eight are taken; `WIREWARD_CLIENTS=all` (`make clients`) takes all for each.

mod clients;
mod side;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clients::{CLIENTS, Client, KNOWN};
use side::{Side, WAYS, Way};
use tests::server::{Outcome, random_hex};
use tests::world::Directory;

const MAJORS: [u32; 2] = [15, 18];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted =
        |client: &Client| wanted.is_empty() || wanted.iter().any(|part| client.name.contains(part.as_str()));
    let rows: Vec<(usize, &Client)> = CLIENTS.iter().enumerate().filter(|(_, client)| is_wanted(client)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        rows.iter().for_each(|(_, client)| println!("{}: test", client.name));
        return ExitCode::SUCCESS;
    }
    if rows.is_empty() {
        println!("\nrunning 0 tests\n");
        return ExitCode::SUCCESS;
    }
    match run(&rows) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("\ntest result: FAILED. {failed} rows differ\n");
            ExitCode::FAILURE
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// How many rows differ. One thread a server, each with both gateways before it.
fn run(rows: &[(usize, &Client)]) -> Outcome<usize> {
    let directory = Directory(std::env::temp_dir().join(format!("wireward-clients-{}", random_hex(4)?)));
    let all = std::env::var("WIREWARD_CLIENTS").is_ok_and(|extent| extent == "all");
    let work = |major: u32| -> Outcome<usize> {
        let side = Side::start(&directory.0.join(major.to_string()), major)?;
        Ok(rows.iter().map(|(index, client)| row(&side, client, &ways(*index, major, all))).sum())
    };
    let counts = std::thread::scope(|threads| {
        let threads = MAJORS.map(|major| threads.spawn(move || work(major)));
        threads.map(|thread| thread.join().expect("a failing client is no panic"))
    });
    counts.into_iter().sum()
}

/// The ways of one client on one server: one of the four, another on the other server, all in turn.
fn ways(client: usize, major: u32, all: bool) -> Vec<Way> {
    let turn = if major == MAJORS[0] { client } else { WAYS.len() - 1 - client % WAYS.len() };
    if all { WAYS.to_vec() } else { vec![WAYS[turn % WAYS.len()]] }
}

/// The number of ways in which the client does not see what it sees directly.
fn row(side: &Side, client: &Client, ways: &[Way]) -> usize {
    let start = Instant::now();
    let directly = match side.run(client, None).and_then(|seen| sound(client, seen)) {
        Ok(seen) => seen,
        Err(why) => return told(side, client, "directly", start, Some(why)),
    };
    let differs = |way: &Way| {
        let start = Instant::now();
        let seen = side.run(client, Some(*way));
        let wrong = seen.map_or_else(Some, |seen| differences(client.name, &directly, &seen));
        told(side, client, &way.to_string(), start, wrong)
    };
    ways.iter().map(differs).sum()
}

fn told(side: &Side, client: &Client, way: &str, start: Instant, wrong: Option<String>) -> usize {
    let verdict = if wrong.is_some() { "FAILED" } else { "ok" };
    let (major, took) = (side.major, start.elapsed().as_millis());
    println!("test {} on {major} {way} ... {verdict} ({took} ms)", client.name);
    let Some(why) = wrong else { return 0 };
    println!("{why}");
    1
}

/// What a client printed: capability and name of each case, with its outcome.
type Seen = BTreeMap<(String, String), String>;

/// A program that breaks off, has nothing of what its client offers, or fails directly, shows nothing.
fn sound(client: &Client, seen: Seen) -> Outcome<Seen> {
    let missing = client.offers.iter().find(|capability| !seen.keys().any(|(of, _)| of == **capability));
    if let Some(capability) = missing {
        return Err(format!("there is no case of {capability}: {:?}", seen.keys()));
    }
    match seen.iter().find(|(_, outcome)| outcome.contains("FAILED")) {
        Some(((_, name), outcome)) => Err(format!("{name} fails directly: {outcome:.1500}")),
        None => Ok(seen),
    }
}

/// `None` if both are the same but for what is listed, and that is not the same.
fn differences(client: &str, directly: &Seen, through: &Seen) -> Option<String> {
    let names = directly.keys().chain(through.keys().filter(|name| !directly.contains_key(*name)));
    let wrong = |name: &&(String, String)| {
        let listed = KNOWN.iter().any(|(of, case, _)| *of == client && *case == name.1);
        (directly.get(name) == through.get(name)) == listed
    };
    let shown = |name: &(String, String)| {
        let (expected, found) = (directly.get(name), through.get(name));
        let at = |text: Option<&String>, from: usize| text.map(|t| t.chars().skip(from).take(700).collect::<String>());
        let common =
            expected.zip(found).map_or(0, |(e, f)| e.chars().zip(f.chars()).take_while(|(a, b)| a == b).count());
        let from = common.saturating_sub(80);
        format!(
            "{} {}, from character {from}\n  directly: {:?}\n  through:  {:?}",
            name.0,
            name.1,
            at(expected, from),
            at(found, from)
        )
    };
    let lines: Vec<String> = names.filter(wrong).map(shown).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
