//! Each mask action on each type of column, by each way on which a value can come: what a client gets is a value that its
//! driver can read, shows nothing, and never becomes longer.

use std::collections::BTreeSet;
use std::process::ExitCode;
use tests::server::Outcome;
use tests::suite::{Case, run_in};
use tests::wire::{Row, Wire};
use tests::world::World;

const ACTIONS: [&str; 4] = ["hash", "null", "redact", "last4"];

/// Type, the value of rows 1 and 2, that of row 3. Row 4 is NULL; row 5 is the empty string where there is one.
const TYPES: [(&str, &str, &str); 14] = [
    ("text", "ada.lovelace@example.com", "ada.lovelace@example.org"),
    ("varchar", "4111-1111-1111-1234", "4111-1111-1111-1235"),
    ("char(12)", "short", "shore"),
    ("name", "a_name_of_the_server", "b_name_of_the_server"),
    ("int2", "7", "8"),
    ("int4", "123456789", "123456788"),
    ("int8", "4111111111111111", "4111111111111112"),
    ("numeric", "12345678.90", "12345678.91"),
    ("float8", "1.25", "1.5"),
    ("date", "1984-05-06", "1984-05-07"),
    ("timestamptz", "1984-05-06 07:08:09+00", "1984-05-06 07:08:10+00"),
    ("uuid", "2a5f1c36-8f2e-4a3e-9c5e-0a1b2c3d4e5f", "2a5f1c36-8f2e-4a3e-9c5e-0a1b2c3d4e60"),
    ("jsonb", "{\"secret\": 12345678}", "{\"secret\": 12345679}"),
    ("text[]", "{secret,word}", "{secret,work}"),
];
/// The first of these take any string.
const STRINGS: usize = 4;
const ROWS: usize = 5;
/// Characters of a whole pseudonym; what is longer ends in stars.
const PSEUDONYM_CHARACTERS_MAX: usize = 52;

fn main() -> ExitCode {
    let cases = vec![
        Case::new("every_action_on_every_type_gives_a_value_of_the_type_by_every_way", by_every_way),
        Case::new("a_prepared_statement_masks_at_each_execution", prepared),
        Case::new("cursors_in_text_and_binary_are_masked_alike", cursors),
        Case::new("rows_of_a_copy_are_masked_in_text_and_csv", copies),
        Case::new("a_pseudonym_is_equal_for_equal_values_only_and_never_longer", pseudonyms),
        Case::new("pseudonyms_last_as_long_as_the_key_and_do_not_show_it", keys),
    ];
    run_in(start, cases)
}

fn columns() -> Vec<(&'static str, usize)> {
    ACTIONS.iter().flat_map(|action| (0..TYPES.len()).map(move |number| (*action, number))).collect()
}

fn names() -> String {
    columns().iter().map(|(action, number)| format!("{action}_{number}")).collect::<Vec<_>>().join(", ")
}

fn start() -> Outcome<World> {
    let mut policy = "[[role]]\nname = \"analyst\"\n[[role]]\nname = \"agent\"\n[[role]]\nname = \"dba\"\n\
        [[grant]]\nto = [\"analyst\"]\nresources = [\"shop\"]\neffects = [\"read\"]\n"
        .to_owned();
    for action in ACTIONS {
        let own = columns().into_iter().filter(|(of, _)| *of == action);
        let listed: Vec<String> = own.map(|(action, number)| format!("\"masked.{action}_{number}\"")).collect();
        policy += &format!("[[mask]]\nname = \"{action}\"\naction = \"{action}\"\ncolumns = [{}]\n", listed.join(", "));
    }
    policy += "[[mask]]\nname = \"strings\"\naction = \"hash\"\ncolumns = [\"strings.value\"]\n";
    World::start_with(&script(), Some(&policy))
}

fn script() -> String {
    let typed = |(action, number): &(&str, usize)| format!("{action}_{number} {}", TYPES[*number].0);
    let columns = columns();
    let definitions: Vec<String> = columns.iter().map(typed).collect();
    let mut script = format!("set role shop; create table masked (id int primary key, {});\n", definitions.join(", "));
    for row in 1..=ROWS {
        let values: Vec<String> = columns.iter().map(|(_, number)| literal(row, *number)).collect();
        script += &format!("insert into masked values ({row}, {});\n", values.join(", "));
    }
    script += "create view masked_view as select * from masked;\n";
    script += "create table strings (id int primary key, value text);\n";
    // One value of each length, so that equal pseudonyms could only come from equal values.
    script + "insert into strings select n, repeat('é', n / 2) || repeat('x', n % 2) from generate_series(0, 80) n;\n"
}

fn literal(row: usize, number: usize) -> String {
    let (_, value, other) = TYPES[number];
    match row {
        1 | 2 => format!("'{value}'"),
        3 => format!("'{other}'"),
        5 if number < STRINGS => "''".to_owned(),
        _ => "null".to_owned(),
    }
}

fn analyst(world: &World, port: u16) -> Wire {
    let login = world.through("analyst");
    Wire::login(port, &login.user, "shop", login.password.as_bytes()).expect("an analyst gets in")
}

/// The same rows as the server gives them, in text.
fn raw(world: &World) -> Vec<Row> {
    let shown = world.psql(&world.direct(), &["\\pset null ~", &format!("select {} from masked order by id", names())]);
    let lines = shown.must_succeed().out;
    let value = |cell: &str| (cell != "~").then(|| cell.as_bytes().to_vec());
    lines.lines().map(|line| line.split('|').map(value).collect()).collect()
}

/// What of a raw value may be seen on the wire. A type that takes no stars becomes NULL, whatever the action.
#[track_caller]
fn check_rows(way: &str, raw: &[Row], seen: &[Row]) {
    assert_eq!((raw.len(), seen.len()), (ROWS, ROWS), "{way}");
    for (raw, seen) in raw.iter().zip(seen) {
        assert_eq!(seen.len(), columns().len(), "{way}");
        for (((action, number), raw), seen) in columns().into_iter().zip(raw).zip(seen) {
            let what = format!("{way}: {action} on {}: {raw:?} became {seen:?}", TYPES[number].0);
            match (raw, seen) {
                (None, seen) => assert_eq!(seen, &None, "{what}"),
                (Some(_), seen) if action == "null" || number >= STRINGS => assert_eq!(seen, &None, "{what}"),
                (Some(raw), Some(seen)) => check_string(&what, action, raw, seen),
                (Some(_), None) => panic!("{what}"),
            }
        }
    }
}

fn check_string(what: &str, action: &str, raw: &[u8], seen: &[u8]) {
    assert_eq!(raw.len(), seen.len(), "{what}");
    assert!(raw.is_empty() || raw != seen, "{what}");
    match action {
        "redact" => assert!(seen.iter().all(|byte| *byte == b'*'), "{what}"),
        "hash" => assert!(seen.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')), "{what}"),
        _ => {
            let kept = raw.len().saturating_sub(4);
            let starred = seen[..kept].iter().all(|byte| matches!(byte, b'*' | b'-' | b' '));
            assert!(
                starred && (seen[kept..] == raw[kept..] || seen[kept..].iter().all(|b| matches!(b, b'*' | b' '))),
                "{what}"
            );
        }
    }
}

fn by_every_way(world: &World) {
    let raw = raw(world);
    let mut wire = analyst(world, world.gateway.port);
    for relation in ["masked", "masked_view", "(select * from masked) q"] {
        let text = format!("select {} from {relation} order by id", names());
        wire.query(&text);
        check_rows(&format!("{relation}, simple"), &raw, &wire.rows());
        for describe in [Some(b'S'), Some(b'P'), None] {
            for binary in [false, true] {
                wire.extended(&text, describe, binary);
                let way = format!("{relation}, extended, describe {describe:?}, binary {binary}");
                check_rows(&way, &raw, &wire.rows());
            }
        }
    }
}

/// Prepared once, by message and by SQL, and executed several times; later executions are described by nobody.
fn prepared(world: &World) {
    let raw = raw(world);
    let text = format!("select {} from masked where id >= $1 order by id", names());
    let mut wire = analyst(world, world.gateway.port);
    wire.send(b'P', &[b"p\0", text.as_bytes(), b"\0\0\x01\0\0\0\x17"].concat());
    wire.send(b'S', b"");
    wire.until_ready();
    for (round, binary) in [1u8, 0, 1].into_iter().enumerate() {
        if round == 1 {
            wire.send(b'D', b"Sp\0");
        }
        let parameter = [&b"\0p\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x01\0\x01\0"[..], &[binary]].concat();
        wire.send(b'B', &parameter);
        wire.send(b'E', b"\0\0\0\0\0");
        wire.send(b'S', b"");
        check_rows(&format!("round {round}, binary {binary}"), &raw, &wire.rows());
    }
    wire.query(&format!("prepare q as select {} from masked order by id", names()));
    wire.until_ready();
    for _ in 0..2 {
        wire.query("execute q");
        check_rows("execute", &raw, &wire.rows());
    }
}

fn cursors(world: &World) {
    let raw = raw(world);
    let mut wire = analyst(world, world.gateway.port);
    for kind in ["", "binary"] {
        wire.query(&format!("begin; declare c {kind} cursor for select {} from masked order by id", names()));
        wire.until_ready();
        wire.query("fetch 2 from c");
        let mut rows = wire.rows();
        wire.extended("fetch all from c", Some(b'P'), false);
        rows.extend(wire.rows());
        check_rows(&format!("{kind} cursor"), &raw, &rows);
        wire.query("rollback");
        wire.until_ready();
    }
}

/// A COPY says no types, but the catalogue does: its fields are masked as the columns of a result are.
fn copies(world: &World) {
    let raw = raw(world);
    let select = format!("select {} from masked order by id", names());
    for source in [format!("({select})"), format!("masked ({})", names())] {
        for (options, delimiter, null) in [
            ("", '\t', "\\N"),
            ("(delimiter ';', null 'NULL')", ';', "NULL"),
            ("(format csv, delimiter '|')", '|', ""),
            ("(format csv, delimiter '|', header, null 'NA', escape '!')", '|', "NA"),
        ] {
            let shown = world.psql(&world.through("analyst"), &[&format!("copy {source} to stdout {options}")]);
            let lines = shown.must_succeed().out;
            let heads = usize::from(options.contains("header"));
            assert!(heads == 0 || lines.lines().next() == Some(&names().replace(", ", "|")), "{lines}");
            let value = |field: &str| (field != null).then(|| field.trim_matches('"').as_bytes().to_vec());
            let lines = lines.lines().skip(heads);
            let rows: Vec<Row> = lines.map(|line| line.split(delimiter).map(value).collect()).collect();
            check_rows(&format!("copy {source} {options}"), &raw, &rows);
        }
    }
}

fn pseudonyms_of(wire: &mut Wire, text: &str) -> Vec<Vec<u8>> {
    wire.query(text);
    wire.rows().into_iter().filter_map(|mut row| row.remove(0)).collect()
}

fn pseudonyms(world: &World) {
    let mut wire = analyst(world, world.gateway.port);
    let shown = pseudonyms_of(&mut wire, "select value from strings order by id");
    for (number, pseudonym) in shown.iter().enumerate() {
        // The value of row n has n bytes, whatever its characters.
        let bytes = number / 2 * 2 + number % 2;
        assert_eq!(pseudonym.len(), bytes, "{pseudonym:?}");
        assert!(pseudonym.iter().skip(PSEUDONYM_CHARACTERS_MAX).all(|byte| *byte == b'*'), "{pseudonym:?}");
        assert!(!pseudonym.iter().take(PSEUDONYM_CHARACTERS_MAX).any(|byte| *byte == b'*'), "{pseudonym:?}");
    }
    for (number, (name, _, _)) in TYPES.iter().enumerate().take(STRINGS) {
        let column = pseudonyms_of(&mut wire, &format!("select hash_{number} from masked where id <= 3 order by id"));
        assert_eq!(column[0], column[1], "equal values of {name}");
        assert_ne!(column[0], column[2], "values of {name} that differ in one byte");
    }
    // Neither the statement nor the way changes it.
    let again = pseudonyms_of(&mut wire, "select v.hash_0 from masked_view v where id <= 3 order by id");
    assert_eq!(again, pseudonyms_of(&mut wire, "select hash_0 from masked where id <= 3 order by id"));
    wire.extended("select hash_0 from masked where id <= 3 order by id", None, true);
    let binary: Vec<Vec<u8>> = wire.rows().into_iter().filter_map(|mut row| row.remove(0)).collect();
    assert_eq!(again, binary);
    let copied = world
        .psql(&world.through("analyst"), &["copy (select hash_0 from masked where id <= 3 order by id) to stdout"]);
    assert_eq!(again.concat(), copied.must_succeed().out.replace('\n', "").into_bytes());
    let distinct: BTreeSet<&Vec<u8>> = shown.iter().filter(|pseudonym| pseudonym.len() > 8).collect();
    assert_eq!(distinct.len(), shown.len() - 9, "different values of more than 8 bytes met");
}

fn keys(world: &World) {
    let text = "select value from strings where id > 8 order by id";
    let mut wire = analyst(world, world.gateway.port);
    let first = pseudonyms_of(&mut wire, text);
    let key = world.hash_key();
    let (same, _) = world.another_gateway("same-key", Some(&key)).expect("a gateway");
    let mut second = analyst(world, same.port);
    assert_eq!(pseudonyms_of(&mut second, text), first, "another start with the same key");
    let (other, _) = world.another_gateway("other-key", None).expect("a gateway");
    let mut third = analyst(world, other.port);
    let different = pseudonyms_of(&mut third, text);
    assert!(first.iter().zip(&different).all(|(a, b)| a != b), "another key gives the same pseudonym");
    let half: Vec<u8> = (0..16).map(|n| u8::from_str_radix(&key[2 * n..2 * n + 2], 16).expect("hexadecimal")).collect();
    for pattern in [key.as_bytes(), key.to_uppercase().as_bytes(), &half] {
        let shown = wire.received.windows(pattern.len()).any(|window| window == pattern);
        assert!(!shown, "the key reached the client");
        for path in world.gateway_files() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            assert!(!bytes.windows(pattern.len()).any(|window| window == pattern), "the key is in {}", path.display());
        }
    }
}
