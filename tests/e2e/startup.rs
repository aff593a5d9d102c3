//! What a client brings when it connects: settings by the rule of SET, each counted as the server counts it, and encodings.

use std::process::ExitCode;

use tests::issuer::NAME;
use tests::suite::{Case, run};
use tests::wire::{Message, Wire, frame};
use tests::world::World;

fn main() -> ExitCode {
    run(vec![
        Case::new("a_setting_that_set_would_allow_is_allowed_as_a_parameter_and_in_options", allowed),
        Case::new("a_setting_that_is_pinned_is_refused_in_the_words_of_set", pinned),
        Case::new("a_setting_that_stands_twice_counts_as_the_server_counts_it", twice),
        Case::new("what_the_server_refuses_at_startup_reaches_the_client_in_its_words", in_its_words),
        Case::new("a_name_inside_options_cannot_be_more_than_a_setting", no_more_than_a_setting),
        Case::new("application_name_reads_back_as_it_was_set", application_name),
        Case::new("psql_changes_its_encoding", psql_encoding),
        Case::new("a_text_in_a_single_byte_encoding_is_judged", foreign_texts),
        Case::new("a_text_behind_a_change_of_the_encoding_is_judged_for_both", behind_a_change),
        Case::new("a_value_that_has_no_place_in_an_encoding_is_not_told", no_place),
    ])
}

/// A login as a dba with these parameters; `Err` is the refusal.
fn login(world: &World, role: &str, parameters: &[(&str, &str)]) -> Result<Wire, Message> {
    let token = world.issuer.token(&format!("{role}-test"), &[role]).expect("the issuer signs");
    let mut wire = Wire::connect(world.gateway.port);
    wire.startup(&[&[("user", NAME), ("database", "shop")], parameters].concat());
    let asked = wire.expect();
    if asked.kind == b'E' {
        return Err(asked);
    }
    wire.send(b'p', &[token.as_bytes(), b"\0"].concat());
    loop {
        let message = wire.expect();
        match message.kind {
            b'E' => return Err(message),
            b'Z' => return Ok(wire),
            _ => {}
        }
    }
}

fn shows(world: &World, parameters: &[(&str, &str)], setting: &str, expected: &str) {
    let mut wire = login(world, "dba", parameters).unwrap_or_else(|e| panic!("{parameters:?}: {e:?}"));
    wire.query(&format!("show {setting}"));
    let shown = wire.rows().concat().into_iter().next().flatten().unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&shown), expected, "{parameters:?}");
}

fn refusal(world: &World, parameters: &[(&str, &str)]) -> Message {
    let refused = login(world, "dba", parameters).err().unwrap_or_else(|| panic!("{parameters:?} was accepted"));
    assert_eq!(refused.field(b'S').as_deref(), Some("FATAL"), "{parameters:?}");
    refused
}

fn allowed(world: &World) {
    for (name, value) in [
        ("client_min_messages", "error"),
        ("jit", "off"),
        ("work_mem", "7MB"),
        ("plan_cache_mode", "force_custom_plan"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_read_only", "on"),
        ("geqo", "off"),
        ("standard_conforming_strings", "on"),
        ("statement_timeout", "7s"),
        ("search_path", "public, audit"),
        ("app.tenant", "it's \\ \"7\""),
        ("client_encoding", "LATIN9"),
        ("DateStyle", "ISO, YMD"),
    ] {
        shows(world, &[(name, value)], name, value);
        let escaped = value.replace('\\', "\\\\").replace(' ', "\\ ");
        shows(world, &[("options", &format!("-c {name}={escaped}"))], name, value);
        shows(world, &[("options", &format!("--{}={escaped}", name.replace('_', "-")))], name, value);
    }
    for off in ["false", "off", "0", "no", "F"] {
        shows(world, &[("replication", off)], "is_superuser", "off");
    }
}

fn pinned(world: &World) {
    for (name, value, words) in [
        ("role", "shop", "role cannot be set to shop: wireward pins it"),
        ("ROLE", "none", "role cannot be set to none"),
        ("session_authorization", "shop", "session_authorization cannot be set to shop"),
        ("standard_conforming_strings", "off", "standard_conforming_strings cannot be set to off"),
        ("client_encoding", "SJIS", "client_encoding cannot be set to SJIS"),
        ("client_encoding", "GBK", "client_encoding cannot be set to GBK"),
        ("search_path", "public,pg_catalog", "search_path cannot name pg_catalog after another schema"),
        ("session_preload_libraries", "x", "session_preload_libraries cannot be set by a client"),
        ("post_auth_delay", "9", "post_auth_delay cannot be set by a client"),
    ] {
        for parameters in [[(name, value)], [("options", &*format!("-c {name}={value}"))]] {
            let refused = refusal(world, &parameters);
            let text = refused.field(b'M').unwrap_or_default();
            assert!(text.contains(words), "{parameters:?}: {text}");
            assert_eq!(refused.sqlstate(), "42501", "{parameters:?}");
        }
    }
    assert_eq!(refusal(world, &[("replication", "database")]).sqlstate(), "28000");
}

/// Found out on servers 15 and 18: of `options` the last one; what stands there comes first, parameters after it, each in its
/// order; the last of a name counts, in whatever case.
fn twice(world: &World) {
    const ENCODINGS: [(&str, &str); 2] = [("options", "-c client_encoding=SJIS"), ("client_encoding", "LATIN1")];
    let rows: [(&[(&str, &str)], &str, &str); 9] = [
        (&[("options", "-c work_mem=1MB"), ("work_mem", "2MB")], "work_mem", "2MB"),
        (&[("work_mem", "2MB"), ("options", "-c work_mem=1MB")], "work_mem", "2MB"),
        (&[("work_mem", "1MB"), ("WORK_MEM", "2MB")], "work_mem", "2MB"),
        (&[("options", "-c work_mem=1MB -c Work-Mem=2MB")], "work_mem", "2MB"),
        (&[("options", "-c work_mem=1MB"), ("options", "-c geqo=off")], "work_mem", "4MB"),
        (&[("options", "-c search_path=audit"), ("search_path", "public")], "search_path", "public"),
        (&[("options", "-c datestyle=german"), ("DateStyle", "YMD")], "datestyle", "German, YMD"),
        (&ENCODINGS, "client_encoding", "LATIN1"),
        (&[("application_name", "a"), ("Application_Name", "b")], "application_name", "b"),
    ];
    for (parameters, setting, expected) in rows {
        shows(world, parameters, setting, expected);
    }
    for parameters in [
        [("client_encoding", "UTF8"), ("Client_Encoding", "SJIS")],
        [("client_encoding", "SJIS"), ("options", "-c client_encoding=UTF8")],
        [("standard_conforming_strings", "on"), ("STANDARD_CONFORMING_STRINGS", "off")],
        [("options", "-c role=shop"), ("role", "none")],
        [("search_path", "public"), ("SEARCH_PATH", "public,pg_catalog")],
    ] {
        refusal(world, &parameters);
    }
}

fn in_its_words(world: &World) {
    for (name, value, sqlstate, words) in [
        ("no_such_setting", "1", "42704", "unrecognized configuration parameter \"no_such_setting\""),
        ("log_statement", "all", "42501", "permission denied to set parameter \"log_statement\""),
        ("work_mem", "many", "22023", "invalid value for parameter \"work_mem\": \"many\""),
        ("max_connections", "9", "55P02", "parameter \"max_connections\" cannot be changed"),
    ] {
        let refused = refusal(world, &[(name, value)]);
        let text = refused.field(b'M').unwrap_or_default();
        assert!(text.contains(words), "{name}: {text}");
        assert_eq!(refused.sqlstate(), sqlstate, "{name}");
    }
    let hint = refusal(world, &[("plan_cache_mode", "x")]).field(b'H').unwrap_or_default();
    assert!(hint.contains("force_custom_plan"), "{hint}");
}

fn no_more_than_a_setting(world: &World) {
    for options in
        ["-c user=shop", "-c database=postgres", "--replication=true", "-c options=x", "-c _pq_.x=1", "-c =1"]
    {
        let refused = refusal(world, &[("options", options)]);
        assert_eq!(refused.sqlstate(), "42704", "{options}: {refused:?}");
    }
    assert_eq!(refusal(world, &[("USER", "shop")]).sqlstate(), "42704");
}

fn application_name(world: &World) {
    shows(world, &[("application_name", "my tool")], "application_name", "my tool");
    shows(world, &[], "application_name", "dba-test via wireward");
    let mut wire = login(world, "dba", &[("application_name", "my tool")]).expect("gets in");
    let reported = b"application_name\0my tool\0";
    assert!(wire.received.windows(reported.len()).any(|window| window == reported));
    wire.query("set application_name = 'other'");
    wire.until_ready();
    wire.query("show application_name");
    assert_eq!(wire.rows(), [[Some(b"other".to_vec())]]);
    wire.query("reset application_name");
    wire.until_ready();
    wire.query("show application_name");
    assert_eq!(wire.rows(), [[Some(b"my tool".to_vec())]]);
}

fn psql_encoding(world: &World) {
    for role in ["dba", "analyst"] {
        let login = world.through(role);
        let statements = ["\\encoding LATIN1", "\\echo :ENCODING", "select 'x', length(U&'\\00fc')"];
        let shown = world.psql(&login, &statements).must_succeed();
        assert_eq!(shown.out, "LATIN1\nx|1\n", "{role}");
        let shown = world.psql(&login, &["\\encoding KOI8R", "\\encoding UTF8", "\\echo :ENCODING"]).must_succeed();
        assert_eq!(shown.out, "UTF8\n", "{role}");
        let shown = world.psql(&login, &["\\encoding SJIS"]);
        assert!(shown.err.contains("SJIS"), "{role}: {shown:?}");
    }
}

/// The bytes go up as they are; what they stand for is the server's to know.
fn foreign_texts(world: &World) {
    let mut wire = login(world, "analyst", &[("client_encoding", "LATIN1")]).expect("gets in");
    let mut outcome = |text: &[u8]| {
        wire.send(b'Q', &[text, b"\0"].concat());
        let messages = wire.until_ready();
        let error = messages.iter().find(|m| m.kind == b'E').map(Message::sqlstate);
        (messages.iter().find(|m| m.kind == b'D').map(Message::row), error)
    };
    assert_eq!(
        outcome(b"select 'M\xfcller', length('M\xfcller')").0,
        Some(vec![Some(b"M\xfcller".to_vec()), Some(b"6".to_vec())])
    );
    for (text, error) in [
        (&b"select count(*) from orders where item = '\xe4' -- \xe4"[..], None),
        (b"delete from orders where item = '\xe4'", Some("42501")),
        (b"select '\xe4'; delete from orders", Some("42501")),
        (b"select 1 as \xe4", None),
        (b"set app.x = '\xe4'", Some("22021")),
        (b"select * from \"\xe4\"", Some("22021")),
        (b"set client_encoding = 'SJIS'", Some("42501")),
        (b"select set_config('client_encoding', 'BIG5', false)", Some("42501")),
        (b"set names 'KOI8R'", None),
        (b"select '\xc1'", None),
        (b"set names 'UTF8'", None),
        ("select 'ä'".as_bytes(), None),
    ] {
        assert_eq!(outcome(text).1.as_deref(), error, "{}", String::from_utf8_lossy(text));
    }
}

/// What is UTF-8 by its bytes may stand for another name by then: nothing waits for the server to say that it has changed.
fn behind_a_change(world: &World) {
    for change in ["set names 'LATIN1'", "select set_config('client_encoding', 'win1252', false)"] {
        let mut wire = login(world, "dba", &[]).expect("gets in");
        wire.query("select * from \"ü\"");
        assert_eq!(wire.until_ready()[0].sqlstate(), "42P01", "in UTF-8 it is the server that does not know it");
        let both = [change, "select * from \"ü\""].map(|text| frame(b'Q', &[text.as_bytes(), b"\0"].concat()));
        wire.raw(&both.concat());
        assert!(wire.until_ready().iter().all(|message| message.kind != b'E'), "{change}");
        assert_eq!(wire.until_ready()[0].sqlstate(), "22021", "{change}");
    }
}

/// The server says which character has no equivalent: of a column with a mask that would be a piece of its value.
fn no_place(world: &World) {
    world.psql(&world.direct(), &["update customers set email = 'x\u{20ac}@example.com' where id = 3"]).must_succeed();
    let mut wire = login(world, "analyst", &[("client_encoding", "LATIN1")]).expect("gets in");
    wire.query("select email from customers where id = 3");
    let messages = wire.until_ready();
    let told = messages.iter().find(|message| message.kind == b'E').expect("the server refuses it");
    let text = told.field(b'M').unwrap_or_default();
    assert!(!text.contains("0xe2") && !text.contains("82"), "{text}");
    world.psql(&world.direct(), &["update customers set email = 'c@example.com' where id = 3"]).must_succeed();
}
