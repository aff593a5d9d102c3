//! PostgreSQL's own regression suite, directly and through the gateway, each on a server of its own; the results are
//! compared file by file. README.md says what is left out and which differences are known.

mod adapt;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use tests::gateway::{Gateway, Place, Upstream};
use tests::issuer::Issuer;
use tests::policy;
use tests::server::{Outcome, Server, free_port, random_hex};
use tests::world::{Directory, tests_path, wireward};

const SUPERUSER: &str = "postgres";
const DATABASE: &str = "regression";
/// What pg_regress sets in a server of its own, and what it does to its database.
const SETTINGS: &[&str] = &["max_prepared_transactions=2"];
const MAKE_DATABASE: &str = "create database regression template template0;
    alter database regression set lc_messages to 'C';
    alter database regression set lc_monetary to 'C';
    alter database regression set lc_numeric to 'C';
    alter database regression set lc_time to 'C';
    alter database regression set bytea_output to 'hex';
    alter database regression set timezone_abbreviations to 'Default';";
/// It comes with Debian's postgresql-client-15.
const PG_REGRESS: &str = "/usr/lib/postgresql/15/lib/pgxs/src/test/regress/pg_regress";
/// What the statements of a whole run may take.
const SUITE_MAX_S: &str = "900";

/// What is run: `WIREWARD_REGRESS`.
#[derive(Clone, Copy, PartialEq)]
enum Extent {
    /// The files of `schedule`, in every run of the tests.
    Some,
    /// `all`: the suite, without what the gateway pins.
    All,
    /// `as-written`: the suite as PostgreSQL has it. What differs is shown and judged by nobody.
    AsWritten,
}

fn main() -> ExitCode {
    // `cargo test` asks for a list, or names what it wants; there is one test here.
    if std::env::args().any(|argument| argument == "--list") {
        println!("results_of_the_regression_suite_are_those_of_the_server: test");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<String> {
    let extent = match std::env::var("WIREWARD_REGRESS").as_deref() {
        Ok("all") => Extent::All,
        Ok("as-written") => Extent::AsWritten,
        _ => Extent::Some,
    };
    let directory = std::env::temp_dir().join(format!("wireward-regress-{}", random_hex(4)?));
    let directory = Directory(directory);
    let input = furnish(&directory.0, extent)?;
    let [direct, through] = std::thread::scope(|threads| {
        let side = |name: &str, through: bool| {
            let (own, input) = (directory.0.join(name), &input);
            threads.spawn(move || results(&own, input, through))
        };
        [side("direct", false), side("through", true)].map(|side| side.join().expect("no thread panics"))
    });
    compare(&direct?, &through?, extent)
}

/// A copy of the suite that the server's user can read, adapted unless it is wanted as written.
fn furnish(directory: &Path, extent: Extent) -> Outcome<PathBuf> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let source = Path::new(&home).join(".cache/wireward/postgresql-15");
    if !source.join("regress/parallel_schedule").is_file() {
        return Err(format!("{} is missing; tests/regress/fetch.sh makes it", source.display()));
    }
    let input = directory.join("input");
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let copied = Command::new("cp").arg("-r").arg(source.join("regress")).arg(&input).status();
    let also = Command::new("cp").arg("-r").arg(source.join("lib")).arg(directory.join("lib")).status();
    if !copied.is_ok_and(|status| status.success()) || !also.is_ok_and(|status| status.success()) {
        return Err(format!("cannot copy {} to {}", source.display(), directory.display()));
    }
    if extent == Extent::Some {
        let schedule = include_str!("schedule");
        fs::write(input.join("parallel_schedule"), schedule).map_err(|error| error.to_string())?;
    }
    if extent != Extent::AsWritten {
        adapt::without_pinned_settings(&input.join("sql"))?;
    }
    Ok(input)
}

/// What each file of the suite printed.
fn results(own: &Path, input: &Path, through: bool) -> Outcome<BTreeMap<String, String>> {
    let results = own.join("results");
    fs::create_dir_all(&results).map_err(|error| error.to_string())?;
    // Statements of the suite make the server write there.
    fs::set_permissions(&results, fs::Permissions::from_mode(0o777)).map_err(|error| error.to_string())?;
    let server = Server::start(own, SETTINGS)?;
    server.run_script(SUPERUSER, MAKE_DATABASE)?;
    let password = fs::read_to_string(own.join("superuser.password")).map_err(|error| error.to_string())?;
    match through {
        false => suite(own, input, server.port, &password)?,
        true => {
            let address = format!("127.0.0.1:{}", server.port);
            let upstream = Upstream { address, database: DATABASE.into(), user: SUPERUSER.into(), password };
            let (gateway, token) = gateway(own, &upstream)?;
            suite(own, input, gateway.port, &token)?;
        }
    }
    printed(own)
}

/// The results of a run by file, without what differs in every run.
fn printed(own: &Path) -> Outcome<BTreeMap<String, String>> {
    let shown_as = own.display().to_string();
    let files = fs::read_dir(own.join("results")).map_err(|error| error.to_string())?.flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "out"));
    let text = |path: &Path| -> Outcome<String> {
        let bytes = fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes).replace(&shown_as, "DIRECTORY");
        // A file that was to run as another role makes a large object, and shows the number that it happens to get.
        let shows_oids = ["privileges", "largeobject"].iter().any(|name| path.file_stem().is_some_and(|s| s == *name));
        Ok(if shows_oids { without_new_oids(&text) } else { text })
    };
    files.map(|file| Ok((file.file_name().to_string_lossy().into_owned(), text(&file.path())?))).collect()
}

/// Runs of five digits, as the numbers of new objects have, become `NNNNN`.
fn without_new_oids(text: &str) -> String {
    let parts = text.split_inclusive(|c: char| !c.is_ascii_digit());
    let replaced = |part: &str| {
        let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
        if digits.len() == 5 { part.replace(digits, "NNNNN") } else { part.to_owned() }
    };
    parts.map(replaced).collect()
}

/// A gateway with a policy that allows everything, and a token for it.
fn gateway(own: &Path, upstream: &Upstream) -> Outcome<(Gateway, String)> {
    let (issuer, place, port) = (Issuer::new()?, Place::new(own), free_port()?);
    let policies = tests_path("regress");
    place.furnish(&issuer, &policy::compile(Some(&policies))?, upstream, port)?;
    let written = fs::read_to_string(place.configuration()).map_err(|error| error.to_string())?;
    let renamed = written.replace("name = \"shop\"", &format!("name = \"{DATABASE}\""));
    fs::write(place.configuration(), renamed).map_err(|error| error.to_string())?;
    // The suite prints its user's name.
    let mut claims = Issuer::claims("suite", &["everything"]);
    claims["preferred_username"] = SUPERUSER.into();
    Ok((place.start(&wireward(), port)?, issuer.sign(&claims)?))
}

fn suite(own: &Path, input: &Path, port: u16, password: &str) -> Outcome<()> {
    let base = input.parent().unwrap_or(input);
    let mut command = Command::new("timeout");
    command.args(["-k", "5", SUITE_MAX_S, PG_REGRESS, "--use-existing", "--host=127.0.0.1", "--max-connections=4"]);
    command.arg(format!("--dbname={DATABASE}")).arg(format!("--user={SUPERUSER}")).arg(format!("--port={port}"));
    command.arg("--bindir=/usr/lib/postgresql/15/bin").arg(format!("--dlpath={}", base.join("lib").display()));
    command.arg(format!("--inputdir={}", input.display())).arg(format!("--outputdir={}", own.display()));
    command.arg(format!("--schedule={}", input.join("parallel_schedule").display()));
    command.env("PGPASSWORD", password).env("PGSSLMODE", "disable").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cannot run {PG_REGRESS}: {error}"))?;
    // 1: some files differ from what PostgreSQL expects, which ours may. Anything else: it did not run to its end.
    match output.status.code() {
        Some(0 | 1) => Ok(()),
        code => Err(format!("pg_regress ended with {code:?}:\n{}", String::from_utf8_lossy(&output.stdout))),
    }
}

/// Lines that only one side has, each with its file, as `known.diff` lists them.
fn compare(direct: &BTreeMap<String, String>, through: &BTreeMap<String, String>, extent: Extent) -> Outcome<String> {
    if direct.is_empty() || direct.keys().ne(through.keys()) {
        return Err(format!("{} results directly, {} through the gateway", direct.len(), through.len()));
    }
    let different: BTreeMap<&str, Vec<String>> = direct
        .iter()
        .map(|(file, text)| (file.as_str(), difference(text, &through[file])))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    let summary = format!("{} of {} files are the same", direct.len() - different.len(), direct.len());
    let listed: BTreeMap<&str, Vec<String>> =
        known().into_iter().filter(|(file, _)| direct.contains_key(*file)).collect();
    if extent == Extent::AsWritten {
        let names: Vec<&str> = different.keys().copied().collect();
        return Ok(format!("{summary}; not these: {}", names.join(" ")));
    }
    if different == listed {
        return Ok(format!("{summary}; the others differ as listed"));
    }
    let mut report = format!("{summary}, and the others are not those of known.diff. What differs:\n");
    for (file, lines) in different {
        report += &format!("== {file}\n{}\n", lines.join("\n"));
    }
    Err(report)
}

/// The differences that README.md explains: `== file`, then its lines.
fn known() -> BTreeMap<&'static str, Vec<String>> {
    let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut file = "";
    for line in include_str!("known.diff").lines() {
        match line.strip_prefix("== ") {
            Some(name) => file = name,
            None => files.entry(file).or_default().push(line.to_owned()),
        }
    }
    files
}

/// The lines that `diff` marks.
fn difference(direct: &str, through: &str) -> Vec<String> {
    if direct == through {
        return Vec::new();
    }
    let base = std::env::temp_dir().join(format!("wireward-diff-{}", random_hex(4).expect("random bytes")));
    let files = ["direct", "through"].map(|side| base.with_extension(side));
    fs::write(&files[0], direct)
        .and_then(|()| fs::write(&files[1], through))
        .expect("the temporary directory is writable");
    let output = Command::new("diff").arg("-a").args(&files).output().expect("diff (diffutils) runs");
    files.iter().for_each(|file| drop(fs::remove_file(file)));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    shown.lines().filter(|line| line.starts_with(['<', '>'])).map(str::to_owned).collect()
}
