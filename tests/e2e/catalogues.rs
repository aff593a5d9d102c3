//! Servers 15 to 18 themselves: the committed lists of what they have are true, and a snapshot sees what users added.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dataplane::config::Config;
use dataplane::control::catalogue::Snapshot;
use dataplane::control::names;
use dataplane::control::policy::Subject;
use dataplane::control::protected::Protected;
use policy_compiler::artifact::{MaskAction, Policy};
use policy_compiler::build::compile;
use policy_compiler::judge::Catalogue as _;
use policy_compiler::policy::Source;
use policy_compiler::statement::postgres::server::{Additions, Version};
use tests::gateway::{Place, Upstream};
use tests::issuer::Issuer;
use tests::policy;
use tests::server::{Server, random_hex};
use tests::world::{Directory, server_programs, tests_path};

const POLICY: &str = r#"
    [[role]]
    name = "analyst"
    [[grant]]
    to = ["analyst"]
    resources = ["shop"]
    effects = ["read"]
    [[mask]]
    name = "numbers"
    columns = ["people.ssn"]
    action = "last4"
    [[mask]]
    name = "codes"
    columns = ["people.code"]
    action = "null"
"#;

const FUNCTIONS: &str = "
    select case n.nspname when 'pg_catalog' then '' else n.nspname || '.' end || proname, '',
      concat(case when bool_or(proretset) then 's' end, case when bool_or(provolatile = 'v') then 'v' end)
    from pg_proc p join pg_namespace n on n.oid = pronamespace
    where n.nspname in ('pg_catalog', 'information_schema') group by n.nspname, proname";
const RELATIONS: &str = "
    select n.nspname || ' ' || relname, '', '' from pg_class c join pg_namespace n on n.oid = relnamespace
    where n.nspname in ('pg_catalog', 'information_schema') and relkind in ('r', 'v', 'm', 'f', 'p', 'S')";
const KEYWORDS: &str = "select word, catcode, '' from pg_get_keywords()";

/// A server with what users add: homonyms of the server's functions, operators, casts, types, generated columns.
const ADDITIONS: &str = "
    create function uuidv7() returns text language sql as 'select 1::text';
    create schema far;
    create function far.lower(int) returns text language sql as 'select 1::text';
    create function far.same(text, int) returns bool language sql as 'select true';
    create operator far.<-> (leftarg = text, rightarg = int, function = far.same);
    create type mood as enum ('a', 'b');
    create function mood_number(mood) returns int language sql as 'select 1';
    create cast (mood as int4) with function mood_number(mood) as assignment;
    create domain short as text check (length(value) < 9);
    create domain checked as text check (far.same(value, 1));
    create type pair as (a int, b short);
    create type bad_pair as (a int, b checked);
    create function far.tidied(text) returns text language sql immutable as 'select $1';
    create table people (id int primary key, ssn text, code text, up text generated always as (upper(ssn)) stored,
      tidy text generated always as (far.tidied(code)) stored, next int generated always as (id + 1) stored);
    create extension citext;";

struct Running {
    server: Server,
    upstream: Upstream,
    directory: Directory,
}

fn start(version: Version) -> Running {
    let name = format!("wireward-catalogues-{}-{}", version.major(), random_hex(4).expect("random"));
    let directory = Directory(std::env::temp_dir().join(name));
    fs::create_dir_all(&directory.0).expect("a directory");
    let programs = server_programs(&directory.0, version.major()).expect("the server is installed");
    let server = Server::start_of(&programs, &directory.0, &[]).expect("the server starts");
    let password = random_hex(16).expect("random");
    let make = format!("create role gate login password '{password}'; create database shop owner gate;");
    server.run_script("postgres", &make).expect("a role and a database");
    let address = format!("127.0.0.1:{}", server.port);
    let upstream = Upstream { address, database: "shop".into(), user: "gate".into(), password };
    Running { server, upstream, directory }
}

fn corpus(file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(tests_path("corpus/postgres").join(file)).expect("readable");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

fn is_of(versions: &str, version: Version) -> bool {
    let (since, until) = versions.split_once('-').unwrap_or((versions, versions));
    let major = |written: &str| written.parse::<u32>().expect("a major version");
    (major(since)..=major(until)).contains(&version.major())
}

/// What a server says, in lines of a name and what is said of it.
fn said(running: &Running, query: &str) -> BTreeSet<(String, String, String)> {
    let shown = running.server.run_script("shop", query).expect("the catalogue can be read");
    let parts = |line: &str| {
        let mut parts = line.split('|').map(str::to_owned);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    };
    shown.lines().map(parts).collect()
}

#[track_caller]
fn same(what: &str, version: Version, said: &BTreeSet<String>, listed: &BTreeSet<String>) {
    let missing: Vec<_> = said.difference(listed).collect();
    let gone: Vec<_> = listed.difference(said).collect();
    assert!(missing.is_empty() && gone.is_empty(), "{what} of {version:?}: not listed {missing:?}, gone {gone:?}");
}

/// The lists that the reviewed tables of the policy compiler are tested against.
fn lists_are_true(running: &Running, version: Version) {
    let names = |query| said(running, query).into_iter().map(|(name, ..)| name).collect::<BTreeSet<_>>();
    let functions = corpus("pg_proc.txt").into_iter().filter(|line| is_of(&line[1], version));
    same("functions", version, &names(FUNCTIONS), &functions.map(|line| line[0].clone()).collect());
    let relations = corpus("pg_class.txt").into_iter().filter(|line| is_of(&line[2], version));
    same("relations", version, &names(RELATIONS), &relations.map(|line| line[..2].join(" ")).collect());
    let place = version as usize;
    let keywords = corpus("pg_keywords.txt").into_iter().filter_map(|line| {
        let category = line[1].chars().nth(place).filter(|c| *c != '-')?;
        Some(format!("{} {category}", line[0]))
    });
    let found = said(running, KEYWORDS).into_iter().map(|(word, category, _)| format!("{word} {category}"));
    same("keywords", version, &found.collect(), &keywords.collect());
}

/// What is set-returning or volatile in any version is so in the list.
fn flags_are_true(all: &[BTreeSet<(String, String, String)>]) {
    let mut listed: BTreeSet<(String, char)> = BTreeSet::new();
    for line in corpus("pg_proc.txt") {
        listed.extend(line.get(2).into_iter().flat_map(|flags| flags.chars()).map(|flag| (line[0].clone(), flag)));
    }
    let found = all.iter().flatten().flat_map(|(name, _, flags)| flags.chars().map(|flag| (name.clone(), flag)));
    assert_eq!(found.collect::<BTreeSet<_>>().symmetric_difference(&listed).collect::<Vec<_>>(), Vec::<&_>::new());
}

fn snapshot(running: &Running, issuer: &Issuer, bundle: &[u8]) -> Snapshot {
    let place = Place::new(Path::new(&running.directory.0));
    place.furnish(issuer, bundle, &running.upstream, 1).expect("a configuration");
    let config = Config::load(&place.configuration()).expect("it is valid");
    names::read(&config.resources[0]).expect("the catalogue is read")
}

fn additions_are_seen(snapshot: &Snapshot, version: Version) {
    let about = |what: &str| format!("{what} on {version:?}");
    assert_eq!(snapshot.version(), version);
    for (name, is_there) in [
        ("uuidv7", true),
        ("lower", true),
        ("int4", true),
        ("upper", false),
        ("replace", false),
        ("strpos", false),
        ("regexp_match", false),
    ] {
        assert_eq!(snapshot.has_function(name), is_there, "{}", about(name));
    }
    for (name, is_there) in [("<->", true), ("=", false), ("~~", false)] {
        assert_eq!(snapshot.has_operator(name), is_there, "{}", about(name));
    }
    for (name, is_inert) in [
        ("mood", true),
        ("short", true),
        ("checked", false),
        ("pair", true),
        ("bad_pair", false),
        ("_bad_pair", false),
        ("citext", true),
        ("people", true),
        ("no_such_type", false),
    ] {
        assert_eq!(snapshot.is_inert_type(name), is_inert, "{}", about(name));
    }
    for (name, schemas) in [("lower", &["far"][..]), ("replace", &["public"]), ("upper", &[])] {
        let protected = Protected::default();
        assert_eq!(protected.catalogue(snapshot).schemas_of_function(name), schemas, "{}", about(name));
    }
    assert!(snapshot.has_cast_to("int4") && !snapshot.has_cast_to("text") && snapshot.has_unwritten_casts());
    for (column, is_there) in [("ssn", true), ("ctid", true), ("tidied", false)] {
        assert_eq!(Additions::has_column(snapshot, None, "people", column), is_there, "{}", about(column));
    }
    assert!(!Additions::has_column(snapshot, None, "no_such_table", "ssn"));
}

/// The masks of `people`, by the numbers of its columns.
fn generated_columns_follow_their_sources(snapshot: Snapshot, version: Version) {
    let source = Source { name: "policy.toml".into(), text: POLICY.into() };
    let policy = Policy::from_bytes(compile(&[source]).expect("it compiles")).expect("it opens");
    let roles = policy.role_named("analyst").expect("the role is there");
    let subject = Subject::new(policy, roles, "shop".into(), Arc::new(snapshot));
    let masks = subject.protected.columns.iter().map(|((_, number), action)| (*number, *action));
    let mut expected = BTreeMap::from([
        (2, MaskAction::Last4),
        (3, MaskAction::Null),
        // upper(ssn); a user's function of code, which may look at anything; id + 1 is not masked.
        (4, MaskAction::Null),
        (5, MaskAction::Null),
    ]);
    if version == Version::V18 {
        expected.insert(7, MaskAction::Null);
    }
    assert_eq!(masks.collect::<BTreeMap<_, _>>(), expected, "{version:?}");
}

#[test]
fn the_lists_of_servers_are_true_and_a_snapshot_sees_what_users_added() {
    let issuer = Issuer::new().expect("keys");
    let bundle = policy::compile(None).expect("the demo's policy compiles");
    let mut functions = Vec::new();
    for version in Version::ALL {
        let running = start(version);
        lists_are_true(&running, version);
        functions.push(said(&running, FUNCTIONS));
        let before = snapshot(&running, &issuer, &bundle);
        assert!(!before.has_function("uuidv7") && !before.has_operator("<->") && !before.has_unwritten_casts());
        running.server.run_script("shop", ADDITIONS).expect("users add things");
        if version == Version::V18 {
            let add = "alter table people add turned text generated always as (reverse(ssn)) virtual";
            running.server.run_script("shop", add).expect("18 has virtual columns");
        }
        let after = snapshot(&running, &issuer, &bundle);
        additions_are_seen(&after, version);
        assert!(!before.same_as(&after), "a view would not be renewed on {version:?}");
        generated_columns_follow_their_sources(after, version);
    }
    flags_are_true(&functions);
}
