//! Values of 40 MB with personal data in them: masked while they pass, in bounded memory.

use std::fs;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tests::process;
use tests::suite::{Case, run};
use tests::world::{Login, Shown, World};

const CARD: &str = "4111111111111111";
const ADDRESS: &str = "ann@example.com";
/// Budget T10: what the dataplane process may grow by, however large a row is.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
const FRESH_MAX: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut cases = Case::of_script("large_cases.py");
    cases.extend([
        Case::new("a_text_value_of_40_mb_is_masked_while_it_passes", select_text),
        Case::new("copy_of_a_40_mb_row_is_masked_in_text_and_csv", copy_out),
        Case::new("a_streamed_row_is_replayed_as_it_was_masked", replayed),
        Case::new("a_row_that_must_be_held_whole_ends_above_its_limit_with_the_limits_name", too_long_to_hold),
    ]);
    run(cases)
}

/// Makes a table whose rows hold a card and an address every few hundred bytes, at every offset to any border.
fn table(world: &World, name: &str, pieces: u32, columns: &str) {
    let piece = format!("repeat('x', n % 397) || ' {CARD} {ADDRESS} '");
    let body = format!("(select string_agg({piece}, '' order by n) from generate_series(1, {pieces}) n)");
    let made = format!("create table {name} as select 1 as id, {body} as body{columns}");
    world.psql(&world.direct(), &[&made]).must_succeed();
    // Until the catalogue has been read again, an unknown relation is masked whole.
    let start = Instant::now();
    while world.psql(&world.through("analyst"), &[&format!("select id from {name}")]).out.trim() != "1" {
        assert!(start.elapsed() < FRESH_MAX, "the gateway does not learn of {name}");
        sleep(Duration::from_millis(300));
    }
}

fn dataplane_bytes(world: &World) -> u64 {
    let pids = world.gateway_pids().into_iter();
    let mut dataplanes = pids.filter(|pid| process::command_line(*pid).contains("wireward dataplane"));
    process::private_bytes(dataplanes.next().expect("a dataplane process"))
}

/// Runs a client to its end; how much the dataplane process grew meanwhile.
fn growth(world: &World, mut client: Command) -> u64 {
    let before = dataplane_bytes(world);
    let mut most = before;
    let mut client = client.spawn().expect("the client starts");
    let status = loop {
        most = most.max(dataplane_bytes(world));
        if let Some(status) = client.try_wait().expect("it is ours") {
            break status;
        }
        sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
    most - before
}

/// What the statement gives through the gateway is what it gives directly, with stars for what is hidden.
fn compare(world: &World, statement: &str) {
    let files = ["direct.out", "through.out"];
    let client = |login: &Login, file| world.tool(login, "psql", &["-XAtq", "-o", file, "-c", statement]);
    Shown::of(client(&world.direct(), files[0])).must_succeed();
    let grown = growth(world, client(&world.through("analyst"), files[1]));
    let [direct, through] = files.map(|file| fs::read_to_string(world.directory.0.join(file)).expect("psql wrote it"));
    assert!(direct.len() > 39_000_000 && direct.contains(CARD), "only {} bytes", direct.len());
    let expected = direct.replace(CARD, &"*".repeat(CARD.len())).replace(ADDRESS, &"*".repeat(ADDRESS.len()));
    assert!(through == expected, "{statement}: {} bytes differ from what is due", through.len());
    println!("{statement}: the dataplane grew by {} KiB over {} bytes", grown >> 10, through.len());
    assert!(grown < GROWTH_BYTES_MAX, "{statement}: the dataplane grew by {grown} bytes");
}

fn select_text(world: &World) {
    table(world, "documents", 170_000, ", 'end' as last");
    compare(world, "select id, body, last from documents");
}

fn copy_out(world: &World) {
    compare(world, "copy documents to stdout");
    compare(world, "copy documents to stdout (format csv, force_quote *)");
}

fn replayed(world: &World) {
    table(world, "letters", 3_000, "");
    let shown = world.psql(&world.through("analyst"), &["select body from letters"]).must_succeed();
    let expected = shown.out.trim_end_matches('\n').to_owned();
    assert!(expected.len() > 600_000 && expected.contains(&"*".repeat(CARD.len())) && !expected.contains(CARD));
    let start = Instant::now();
    let row = format!("body='{expected}'");
    let is_shown = || session_ids(world).iter().any(|id| world.evidence("replay", &[id]).out.contains(&row));
    while !is_shown() {
        assert!(start.elapsed() < FRESH_MAX, "no replay shows the row");
        sleep(Duration::from_millis(300));
    }
}

fn session_ids(world: &World) -> Vec<String> {
    let sessions = world.evidence("sessions", &["--json"]).out;
    let ids = sessions.lines().filter_map(|line| {
        let session: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(session["session"].as_str()?.to_owned())
    });
    ids.collect()
}

fn too_long_to_hold(world: &World) {
    let statement = "select d.body, c.card from documents d, customers c where c.id = 1";
    let shown = world.psql(&world.through("analyst"), &[statement]);
    shown.must_complain("54000").must_complain("limits.row_bytes_max");
}
