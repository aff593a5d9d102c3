//! psql through the gateway: it must not notice.

use std::process::{ExitCode, Stdio};
use tests::suite::{Case, run};
use tests::world::{Shown, World};

fn main() -> ExitCode {
    run(vec![
        Case::new("every_statement_prints_what_it_prints_directly", same_as_direct),
        Case::new("errors_read_the_same_as_direct", same_errors),
        Case::new("several_statements_in_one_message_all_run", several_in_one_message),
        Case::new("describe_commands_print_what_they_print_directly", describe_commands),
        Case::new("copy_goes_out_and_comes_in", copy_out_and_in),
        Case::new("a_notice_arrives", notice),
        Case::new("a_notification_arrives_on_another_session", notification),
        Case::new("variables_set_in_a_session_stay", settings_stay),
        Case::new("a_million_rows_stream_without_growth", million_rows),
        Case::new("values_of_megabytes_pass_unharmed", big_values),
        Case::new("extended_protocol_of_psql_works", bind_and_gexec),
        Case::new("the_server_sees_who_is_behind_the_gateway", application_name),
    ])
}

/// Runs the same statements directly and through the gateway as a dba, and compares every byte.
#[track_caller]
fn compare(world: &World, statements: &[&str]) -> Shown {
    let directly = world.psql(&world.direct(), statements);
    let through = world.psql(&world.through("dba"), statements);
    // A syntax error is ours to say, in the server's words but without the place in its source.
    let without_scanner = |shown: &Shown| {
        let lines = shown.err.lines().filter(|line| !line.starts_with("LOCATION:  scanner_yyerror"));
        Shown { err: lines.map(|line| format!("{line}\n")).collect(), ..shown.clone() }
    };
    assert_eq!(without_scanner(&through), without_scanner(&directly), "{statements:?}");
    through
}

fn same_as_direct(world: &World) {
    let rows = [
        "select 1",
        "select null, '', ' ', E'tab\\t', 'ünïcödé', '{}'::jsonb",
        "select id, item, amount, placed_at, status from orders order by id limit 200",
        "select status, count(*), sum(amount) from orders group by 1 order by 1",
        "values (1), (2), (3)",
        "show server_version",
        "select",
        "",
        "create temporary table t (n int); insert into t select generate_series(1, 5); select * from t",
        "begin; select txid_current() is not null; rollback",
        "explain select 1",
    ];
    rows.iter().for_each(|row| _ = compare(world, &[row]));
    compare(world, &rows);
}

fn same_errors(world: &World) {
    let rows = [
        "select 1/0",
        "selec 1",
        "select * from no_such_table",
        "select no_such_column from orders",
        "select 'x'::int",
        "insert into orders (id, customer_id, item, amount, placed_at, status) values (1, 1, 'a', 1, now(), 'b')",
        "insert into orders (customer_id, item, amount, placed_at, status) values (99999999, 'a', 1, now(), 'b')",
        "select lower(1, 2)",
        "commit and chain",
        "do $$ begin raise exception 'mine' using errcode = 'ZZ001', detail = 'd', hint = 'h'; end $$",
    ];
    for row in rows {
        let shown = compare(world, &[row, "select 'goes on'"]);
        shown.must_complain("ERROR").must_print("goes on");
    }
}

fn several_in_one_message(world: &World) {
    compare(world, &["select 1; select 2; select 3"]).must_succeed().must_print("1\n2\n3\n");
    compare(world, &["create temp table s (n int); insert into s values (1); select 1/0; insert into s values (2)"])
        .must_complain("22012");
}

fn describe_commands(world: &World) {
    let commands =
        ["\\d", "\\dt", "\\d customers", "\\d+ orders", "\\dn", "\\df", "\\du", "\\l", "\\dv", "\\di", "\\sf lower"];
    commands.iter().for_each(|command| _ = compare(world, &[command]));
}

fn copy_out_and_in(world: &World) {
    compare(world, &["copy (select * from orders where id <= 5000 order by id) to stdout"]).must_succeed();
    compare(world, &["copy (select * from orders where id <= 50 order by id) to stdout with (format csv, header)"]);
    let statements = [
        "create temp table copied (like orders)",
        "\\copy (select * from orders where id <= 20000 order by id) to 'orders.tsv'",
        "\\copy copied from 'orders.tsv'",
        "select count(*), sum(amount), max(placed_at) from copied",
        "\\copy copied from program 'printf \"1\\tbroken\\n\"'",
        "select count(*) from copied",
    ];
    compare(world, &statements).must_print("20000|").must_complain("22P02");
}

fn notice(world: &World) {
    compare(world, &["do $$ begin raise notice 'hear this'; raise warning 'and this'; end $$"])
        .must_complain("NOTICE:  00000: hear this");
}

fn notification(world: &World) {
    let mut listener = world.tool(&world.through("dba"), "psql", &["-XAtq"]);
    listener.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut listener = listener.spawn().expect("psql starts");
    let mut keyboard = listener.stdin.take().expect("psql has a standard input");
    std::io::Write::write_all(&mut keyboard, b"listen bell;\n\\! echo > listening\n").expect("psql reads");
    while !world.directory.0.join("listening").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    world.psql(&world.through("dba"), &["notify bell, 'dinner'"]).must_succeed();
    std::io::Write::write_all(&mut keyboard, b"select 1;\n\\q\n").expect("psql reads");
    drop(keyboard);
    let output = listener.wait_with_output().expect("psql ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Asynchronous notification \"bell\" with payload \"dinner\""), "{text}");
}

fn settings_stay(world: &World) {
    let statements = ["set timezone to 'Asia/Tokyo'", "select timestamptz '2026-01-01 00:00:00+00'", "show timezone"];
    compare(world, &statements).must_succeed().must_print("2026-01-01 09:00:00+09");
}

fn million_rows(world: &World) {
    const GROWTH_BYTES_MAX: u64 = 16 << 20;
    let rows = "select n, md5(n::text), repeat('x', 60) from generate_series(1, 1000000) n";
    let mut command =
        world.tool(&world.through("dba"), "psql", &["-XAtq", "-v", "FETCH_COUNT=0", "-o", "/dev/null", "-c", rows]);
    world.psql(&world.through("dba"), &["select 1"]).must_succeed();
    let before = world.gateway_bytes();
    let mut client = command.spawn().expect("psql starts");
    let mut most = before;
    let status = loop {
        most = most.max(world.gateway_bytes());
        if let Some(status) = client.try_wait().expect("psql is ours") {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
    let growth = most - before;
    assert!(growth < GROWTH_BYTES_MAX, "the gateway grew by {growth} bytes over a result of 110 MB");
}

fn big_values(world: &World) {
    let statements = [
        "select length(v), md5(v) from (select repeat('abcdefghij', 500000) as v) as big",
        "select repeat('abcdefghij', 500000)",
        "select decode(repeat('00ff10ab', 5000000), 'hex')",
        "create temp table big (v bytea); insert into big select decode(repeat('00ff10ab', 5000000), 'hex')",
        "select v from big",
    ];
    statements[..3].iter().for_each(|statement| _ = compare(world, &[statement]).must_succeed());
    compare(world, &statements[3..]).must_succeed();
    let literal = format!("select length('{}')", "y".repeat(900_000));
    let file = world.directory.0.join("literal.sql");
    std::fs::write(&file, literal).expect("the directory is writable");
    let shown = Shown::of(world.tool(&world.through("dba"), "psql", &["-XAtq", "-f", "literal.sql"]));
    shown.must_succeed().must_print("900000");
}

fn bind_and_gexec(world: &World) {
    let script = "select 'select ' || n from generate_series(1, 3) n \\gexec\n\
                  select item from orders where id = 1 \\gset\n\\echo :item\nselect 7 as x \\gdesc\n";
    std::fs::write(world.directory.0.join("gexec.sql"), script).expect("the directory is writable");
    let arguments = ["-XAtq", "-f", "gexec.sql"];
    let directly = Shown::of(world.tool(&world.direct(), "psql", &arguments));
    let through = Shown::of(world.tool(&world.through("dba"), "psql", &arguments));
    assert_eq!(through, directly);
    through.must_succeed().must_print("x|integer");
}

fn application_name(world: &World) {
    let own = "select application_name from pg_stat_activity where pid = pg_backend_pid()";
    world.psql(&world.through("dba"), &[own]).must_succeed().must_print("psql");
    let mut nameless = world.tool(&world.through("dba"), "psql", &["-XAtqc", own]);
    nameless.env("PGOPTIONS", "-c application_name=x").env("PGAPPNAME", "tool");
    Shown::of(nameless).must_succeed().must_print("tool");
}
