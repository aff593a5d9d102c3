use super::*;

/// What each text must not show; what is written in the record where that is told.
const SECRET_TEXTS: &[(&str, &str)] = &[
    ("alter role ann password 'CANARY'", "alter role ann password '******'"),
    ("ALTER USER ann WITH ENCRYPTED PASSWORD 'CANARY' VALID UNTIL '2030-01-01'", ""),
    ("create role ann login password E'CAN\\x41RY CANARY'", ""),
    ("create user ann password U&'\\0043CANARY'", ""),
    ("create user ann password $$CANARY$$", "create user ann password $$******$$"),
    ("create user ann password $a$CANARY$a$ valid until 'x'", ""),
    ("create role ann /* why */ password -- then\n 'CANARY'", ""),
    ("create role ann password 'CAN'\n'CANARY'", ""),
    ("create /* x */ role ann password 'it''s CANARY'", ""),
    ("create group ann password 'CANARY'", ""),
    ("alter role ann password 'SCRAM-SHA-256$4096:CANARY$CANARY:CANARY'", ""),
    ("update pg_authid set rolpassword = 'CANARY' where rolname = 'ann'", ""),
    ("create user mapping for ann server far options (user 'ann', password 'CANARY')", ""),
    ("alter user mapping for ann server far options (set password 'CANARY')", ""),
    ("alter user mapping for ann server far options (add \"password\" 'CANARY', sslkey 'CANARY')", ""),
    ("create user mapping for ann server far options (U&\"p\\0061ssword\" 'CANARY')", ""),
    ("create server far foreign data wrapper postgres_fdw options (host 'h', passfile 'CANARY')", ""),
    ("alter server far options (set sslpassword 'CANARY')", ""),
    ("create foreign table t (a int) server far options (password 'CANARY')", ""),
    ("create subscription s connection 'host=h password=CANARY dbname=d' publication p", ""),
    ("alter subscription s connection 'postgres://ann:CANARY@h/d'", ""),
    ("select * from dblink('host=h password=CANARY', 'select 1') as t(a int)", ""),
    ("select dblink('host=h user=ann', 'select 4711')", "select dblink('host=h user=ann', 'select 4711')"),
    ("select dblink_connect('c', 'host=h ' || 'pass' || 'word=CANARY')", ""),
    ("select dblink_connect_u(E'host=h p\\x61ssword=CANARY')", ""),
    ("select dblink_connect($$host=h password = CANARY$$)", ""),
    ("select 'postgresql://ann:CANARY@h:5432/d?sslmode=require'", ""),
    ("select 'postgresql://ann:CANARY@h', 4", "select 'postgresql://**********@h', 4"),
    ("select dblink_exec('c', 'alter role ann password ''CANARY''')", ""),
    ("do $$ begin execute 'alter role ann password ''CANARY'''; end $$", ""),
    (
        "do $$ begin alter role ann password 'CANARY'; delete from orders; end $$",
        "do $$ begin alter role ann password '******'; delete from orders; end $$",
    ),
    ("do language plpgsql $$ begin execute $q$alter role ann password 'CANARY'$q$; end $$", ""),
    ("do $$ begin perform dblink_connect('ho' || 'st=h passw' || 'ord=CANARY'); end $$", ""),
    ("create function f() returns void language sql as $$ alter role ann password 'CANARY' $$", ""),
    ("select length(E'host=h pass\\x77ord=CANARY')", ""),
    ("select length(U&'host=h pass\\0077ord=CANARY')", ""),
    ("explain select dblink('password=CANARY', 'x')", ""),
    ("prepare p as select dblink_connect('password=CANARY')", ""),
    ("select format('alter role ann password %L', 'CANARY')", ""),
    ("set my.password to 'CANARY'", ""),
    ("select set_config('my.password', 'CANARY', false)", ""),
    ("update users set password = crypt('CANARY', gen_salt('bf'))", ""),
    ("update users set password = 'CAN' || 'CANARY'", ""),
    ("select * from users where password in ('CANARY')", ""),
    ("select connect(password => 'CANARY')", ""),
    ("alter role ann password 'CANARY", ""),
    ("alter role ann password $$CANARY", ""),
    ("/* password is CANARY */ select 1", ""),
    ("-- pwd CANARY\nselect 1", "-- pwd*******\nselect 1"),
    ("select 1; alter role ann password 'CANARY'; select 'seen'", ""),
];

/// Evidence that stays as it came.
const PLAIN_TEXTS: &[&str] = &[
    "select password from users where id = '5' and name = 'ann'",
    "select password, 'kept' from users",
    "select * from users where password is null or name = 'kept'",
    "create table role_of (role text default 'kept')",
    "create index on users (lower('kept'))",
    "alter table secrets add column note text default 'kept'",
    "select 'https://example.com/a', 'kept'",
    "select 'a@b', 'http://h/x', 'ann@example.com'",
    "do $$ begin if new.password = old.password then delete from orders where item = 'kept'; end if; end $$",
    "alter role ann set work_mem = 64",
    "select $1, $2 from t where a = 'create role'",
    "select 'pass'",
];

fn redacted(sql: &str) -> String {
    let mut message = [&b"Q\0\0\0\0"[..], sql.as_bytes(), b"\0"].concat();
    let length = message.len() as u32 - 1;
    message[1..5].copy_from_slice(&length.to_be_bytes());
    if may_hold_secret(&message) {
        run(&mut message);
    }
    assert_eq!(message.last(), Some(&0), "{sql}");
    String::from_utf8_lossy(&message[5..message.len() - 1]).into_owned()
}

#[test]
fn no_secret_of_a_text_is_recorded_and_its_length_is() {
    for (sql, expected) in SECRET_TEXTS {
        for sql in [(*sql).to_owned(), sql.to_uppercase().replace("CAN\\X41RY", "CANARY")] {
            let seen = redacted(&sql);
            assert!(!seen.contains("CANARY"), "{sql} is recorded as {seen}");
            assert_eq!(seen.len(), sql.len(), "{sql}");
        }
        assert!(expected.is_empty() || redacted(sql) == *expected, "{sql} is recorded as {}", redacted(sql));
    }
    let mixed = redacted("select 1; alter role ann password 'CANARY'; select 'seen'");
    assert!(mixed.ends_with("; select 'seen'"), "{mixed}");
}

#[test]
fn what_is_no_secret_is_recorded_as_it_came() {
    for sql in PLAIN_TEXTS {
        assert_eq!(redacted(sql), *sql);
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

#[test]
fn parse_bind_and_function_calls_are_read_among_other_messages() {
    let value = |text: &[u8]| [&(text.len() as u32).to_be_bytes()[..], text].concat();
    let two = [value(b"kept"), value(b"host=h password=CANARY"), vec![255; 4]].concat();
    let bind = [&b"\0s\0\0\x01\0\0\0\x03"[..], &two, b"\0\0"].concat();
    let call = [&b"\0\0\0\x07\0\0\0\x03"[..], &two, b"\0\0"].concat();
    let parse = b"s\0alter role ann password 'CANARY'\0\0\x01\0\0\0\x19";
    let sent = [message(b'S', b""), message(b'P', parse), message(b'B', &bind), message(b'F', &call)].concat();
    let mut seen = sent.clone();
    assert!(may_hold_secret(&sent));
    run(&mut seen);
    let shown = String::from_utf8_lossy(&seen);
    assert!(!shown.contains("CANARY") && shown.matches("kept").count() == 2, "{shown}");
    assert_eq!(shown.matches("host=h password*******").count(), 2, "{shown}");
    assert_eq!(seen.len(), sent.len());
    let broken: [(u8, &[u8]); 4] = [
        (b'B', b"\0s\0\0\0\0\x01\0\0\x01\0password=CANARY"),
        (b'F', b"\0\0\0\x07password=CANARY"),
        (b'P', b"s\0select 1\0 alter role ann password 'CANARY'\0\0\0"),
        (b'Q', b"select 1\0 alter role ann password 'CANARY'\0"),
    ];
    for (tag, body) in broken {
        let mut broken = message(tag, body);
        run(&mut broken);
        assert!(!String::from_utf8_lossy(&broken).contains("CANARY"), "{broken:?}");
    }
}

#[test]
fn what_an_error_quotes_of_a_secret_is_starred() {
    let error = message(b'E', b"SERROR\0C42601\0Munterminated quoted string at or near \"'CANARY\"\0DCANARY\0P30\0\0");
    let row = message(b'D', b"\0\x01\0\0\0\x04kept");
    let mut seen = [error.clone(), row.clone(), error[..20].to_vec()].concat();
    reports(&mut seen);
    let shown = String::from_utf8_lossy(&seen).into_owned();
    assert!(!shown.contains("CANARY") && shown.contains("kept") && shown.contains("C42601"), "{shown}");
    assert!(shown.contains("Munterminated quoted string at or near \"*******\"\0D******\0P30\0\0"), "{shown}");
}

#[test]
fn wherever_a_large_message_is_cut_nothing_behind_a_mark_is_recorded() {
    for marked in
        ["alter role ann password 'CANARY'", "select 'postgres://ann:CANARY@h/'", "dblink_connect('x=CANARY')"]
    {
        let text = format!("select 'https://h/a'; {}{marked}{}", "x ".repeat(20), " y".repeat(30));
        let whole = message(b'Q', &[text.as_bytes(), b"\0"].concat());
        for cut in [1, 2, 3, 5, 7, 16, 17, 40, 1000] {
            let mut pieces = Pieces::default();
            let mut seen = Vec::new();
            for (i, piece) in whole.chunks(cut).enumerate() {
                let from = pieces.starred_from(piece, i == 0);
                seen.extend_from_slice(&piece[..from]);
                seen.extend(vec![b'*'; piece.len() - from]);
            }
            let seen = String::from_utf8_lossy(&seen[5..]).into_owned();
            assert!(!seen.contains("CANARY") && seen.ends_with("****"), "{cut}: {seen}");
            assert!(seen.starts_with("select 'https://h/a'; x x") || cut < 40, "{cut}: {seen}");
        }
    }
    let rows = message(b'd', b"password=kept");
    assert_eq!(Pieces::default().starred_from(&rows, true), rows.len(), "COPY data is no statement");
}

#[test]
fn any_bytes_are_read_to_their_end() {
    let parts = [
        "'",
        "\"",
        "$$",
        "$a$",
        "--",
        "/*",
        "*/",
        "\n",
        "\\",
        "E'",
        "U&'",
        "password",
        "=",
        "create role ",
        "://",
        "@",
        "x",
        ";",
        "\0",
    ];
    let mut seed = 11u64;
    for _ in 0..50_000 {
        let mut body = Vec::new();
        for _ in 0..seed % 12 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            body.extend(parts[(seed >> 33) as usize % parts.len()].bytes());
        }
        seed = seed.wrapping_add(1);
        for tag in [b'Q', b'P', b'B', b'F'] {
            let mut seen = message(tag, &body);
            let length = seen.len();
            run(&mut seen);
            assert_eq!(seen.len(), length);
        }
    }
}
