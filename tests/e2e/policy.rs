//! Refusals: what policy forbids never reaches the server, the session survives, and a transaction ends as PostgreSQL
//! would have ended it.

use std::process::ExitCode;
use tests::suite::{Case, run};
use tests::wire::{Message, Wire, frame};
use tests::world::World;

fn main() -> ExitCode {
    let mut cases = vec![
        Case::new("a_refused_statement_never_reaches_the_server", refused_never_arrives),
        Case::new("harmless_look_alikes_are_allowed", look_alikes),
        Case::new("one_forbidden_statement_forbids_its_whole_message", whole_message),
        Case::new("a_refusal_in_a_transaction_fails_the_transaction", in_a_transaction),
        Case::new("a_refused_pipeline_member_rolls_back_what_came_before", pipeline_rolls_back),
        Case::new("a_refused_first_member_skips_to_sync_and_no_further", pipeline_first_member),
        Case::new("a_refusal_on_the_wire_reads_like_any_error", refusal_on_the_wire),
        Case::new("a_statement_with_a_nul_inside_is_refused", nul_inside),
        Case::new("a_request_that_ends_its_session_is_in_the_evidence", last_words),
        Case::new("a_dba_may_do_what_the_agent_may_not", dba_may),
    ];
    cases.extend(Case::of_script("policy_cases.py"));
    run(cases)
}

/// `{}` is replaced by a mark of its own for each try, so that the server's log can be searched for it.
const FORBIDDEN_TO_AGENTS: &[&str] = &[
    "drop table {}_t",
    "DROP /* {} */ TABLE customers",
    "dr/**/op table {}_t",
    "drop table \"customers\" -- {}",
    "truncate customers /* {} */",
    "delete from customers where name = '{}'",
    "DELETE/**/FROM customers /* {} */",
    "dElEtE FROM ONLY public.customers where name = '{}'",
    "with d as (delete from customers where name = '{}' returning *) select count(*) from d",
    "explain analyze delete from customers where name = '{}'",
    "copy (delete from customers where name = '{}' returning *) to stdout",
    "copy customers to program 'cat > /tmp/{}'",
    "copy customers from program 'echo {}'",
    "copy customers to '/tmp/{}'",
    "do $$ begin execute 'dr' || 'op table {}_t'; end $$",
    "do $x$ begin raise notice '{}'; end $x$",
    "create function {}() returns int language sql as 'select 1'",
    "create table {}_t (n int)",
    "create table {}_t as table customers",
    "select * into {}_t from customers",
    "alter table customers add column {} int",
    "grant all on customers to public /* {} */",
    "prepare p_{} as delete from customers where id = $1",
    "declare c_{} cursor with hold for select 1; drop table customers",
    "select query_to_xml('select ''{}''', true, false, '')",
    "select pg_read_file('/etc/{}')",
    "select lo_import('/etc/{}')",
    "select pg_terminate_backend(pg_backend_pid()) /* {} */",
    "set role shop /* {} */",
    "set session authorization shop /* {} */",
    "select set_config('role', 'shop', false) /* {} */",
    "set standard_conforming_strings = off /* {} */",
    "select set_config('standard_' || 'conforming_strings', 'off', false) /* {} */",
    "set client_encoding = 'SJIS' /* {} */",
    "create extension {}",
    "load '{}'",
    "merge into customers using orders o on false when matched then delete /* {} */",
    "vacuum full customers /* {} */",
    "select 1; drop table customers /* {} */",
];

fn refused_never_arrives(world: &World) {
    let agent = world.through("agent");
    for (number, row) in FORBIDDEN_TO_AGENTS.iter().enumerate() {
        let mark = format!("mark_{number:03}_x");
        let statement = row.replace("{}", &mark);
        let shown = world.psql(&agent, &[&statement, "select 'goes on'"]);
        // What the server's own grammar refuses is refused in its words.
        let refused = ["42501", "42601"].iter().any(|state| shown.err.contains(state));
        assert!(refused && shown.out.contains("goes on"), "{statement}: {shown:?}");
        assert!(!world.reached_the_server(&mark), "{statement} reached the server");
    }
}

fn look_alikes(world: &World) {
    let rows = [
        "select 'DROP TABLE customers'",
        "select 1 as delete",
        "/* a /* b */ DELETE FROM customers */ select 1",
        "select count(*) from orders where item = 'drop table; --'",
        "select status as \"drop\" from orders limit 1",
    ];
    rows.iter().for_each(|row| _ = world.psql(&world.through("agent"), &[row]).must_succeed());
}

fn whole_message(world: &World) {
    let both = "insert into orders (customer_id, item, amount, placed_at, status) \
                values (1, 'whole message', 1, now(), 'new'); drop table customers";
    world.psql(&world.through("agent"), &[both]).must_complain("42501");
    assert_eq!(count_orders(world, "whole message"), 0);
}

fn in_a_transaction(world: &World) {
    let insert = "insert into orders (customer_id, item, amount, placed_at, status) \
                  values (1, 'in a transaction', 1, now(), 'new')";
    let shown = world.psql(
        &world.through("agent"),
        &["begin", insert, "drop table customers", "select 'not now'", "commit", "select 'goes on'"],
    );
    assert!(shown.err.contains("42501") && shown.err.contains("25P02"), "{shown:?}");
    assert!(!shown.out.contains("not now") && shown.out.contains("goes on"), "{shown:?}");
    assert_eq!(count_orders(world, "in a transaction"), 0);
}

fn count_orders(world: &World, item: &str) -> u32 {
    let count = format!("select count(*) from orders where item = '{item}'");
    let shown = world.psql(&world.direct(), &[&count]).must_succeed();
    shown.out.trim().parse().expect("a count is a number")
}

fn agent(world: &World) -> Wire {
    let login = world.through("agent");
    Wire::login(login.port, &login.user, "shop", login.password.as_bytes()).expect("an agent gets in")
}

/// Parse, Bind, Execute of one statement, all unnamed, without Sync.
fn member(text: &str) -> Vec<u8> {
    let parse = frame(b'P', &[b"\0", text.as_bytes(), b"\0\0\0"].concat());
    let bind = frame(b'B', b"\0\0\0\0\0\0\0\0");
    let execute = frame(b'E', b"\0\0\0\0\0");
    [parse, bind, execute].concat()
}

fn kinds(messages: &[Message]) -> String {
    let interesting = messages.iter().filter(|message| !matches!(message.kind, b'S' | b'N'));
    interesting.map(|message| message.kind as char).collect()
}

const SYNC: &[u8] = b"S\0\0\0\x04";

fn pipeline_rolls_back(world: &World) {
    let insert =
        "insert into orders (customer_id, item, amount, placed_at, status) values (1, 'pipelined', 1, now(), 'new')";
    let mut wire = agent(world);
    wire.raw(&[member(insert), member("drop table customers"), member("select 1"), SYNC.to_vec()].concat());
    let messages = wire.until_ready();
    let text = kinds(&messages);
    assert!(text.starts_with("12C") && text.ends_with("EZ"), "{text}");
    assert_eq!(text.matches('E').count(), 1, "{text}");
    let error = messages.iter().find(|message| message.kind == b'E').expect("there is one error");
    assert_eq!(error.sqlstate(), "42501");
    assert_eq!(messages.last().expect("there is a last").body, b"I");
    wire.query("select 'goes on'");
    assert_eq!(kinds(&wire.until_ready()), "TDCZ");
    assert_eq!(count_orders(world, "pipelined"), 0, "PostgreSQL would have rolled this insert back");
}

fn pipeline_first_member(world: &World) {
    let later =
        "insert into orders (customer_id, item, amount, placed_at, status) values (1, 'skipped', 1, now(), 'new')";
    let after =
        "insert into orders (customer_id, item, amount, placed_at, status) values (1, 'after sync', 1, now(), 'new')";
    let mut wire = agent(world);
    let first = [member("drop table customers"), member(later), SYNC.to_vec()].concat();
    wire.raw(&[first, member(after), SYNC.to_vec()].concat());
    let messages = wire.until_ready();
    let text = kinds(&messages);
    assert!(text.ends_with("EZ") && !text.contains('C'), "{text}");
    assert!(messages.iter().any(|message| message.sqlstate() == "42501"), "{messages:?}");
    assert_eq!(kinds(&wire.until_ready()), "12CZ");
    assert_eq!((count_orders(world, "skipped"), count_orders(world, "after sync")), (0, 1));
}

fn refusal_on_the_wire(world: &World) {
    let mut wire = agent(world);
    wire.query("drop table customers");
    let messages = wire.until_ready();
    assert_eq!(kinds(&messages), "EZ");
    let error = &messages[0];
    assert_eq!((error.field(b'S').as_deref(), error.field(b'V').as_deref()), (Some("ERROR"), Some("ERROR")));
    assert_eq!(error.sqlstate(), "42501");
    let text = error.field(b'M').unwrap_or_default();
    assert!(text.contains("blocked by rule no-ddl (policy "), "the message says who refused, and why: {text:?}");
    let hint = Some("the schema is changed by a dba; describe the change you need to one".to_owned());
    assert_eq!(error.field(b'H'), hint, "the rule's own hint is told");
    wire.query("begin; select 1");
    wire.until_ready();
    wire.query("drop table customers");
    let messages = wire.until_ready();
    let told = |m: &Message| (m.sqlstate(), m.field(b'M'), m.field(b'H'));
    assert_eq!(told(&messages[0]), ("42501".into(), Some(text), hint), "also where the server's own error makes room");
}

/// The server would refuse such a message too, with the same SQLSTATE: the words and the server's log tell who did.
fn nul_inside(world: &World) {
    let rows: [(u8, &[u8]); 3] = [
        (b'Q', b"select 1\0; drop table customers /* after_nul */\0"),
        (b'Q', b"select 1 /* no_nul_at_all */"),
        (b'P', b"\0select 1\0; drop table customers /* after_nul */\0\0\0"),
    ];
    for (kind, body) in rows {
        let mut wire = agent(world);
        wire.send(kind, body);
        let first = wire.expect();
        assert_eq!((first.kind, first.sqlstate().as_str()), (b'E', "08P01"), "{first:?}");
        assert_eq!(first.field(b'S').as_deref(), Some("FATAL"), "{first:?}");
        assert!(first.field(b'M').is_some_and(|text| text.starts_with("wireward: a ")), "{first:?}");
        assert!(wire.is_closed_clean(), "{first:?}");
    }
    for sign in ["after_nul", "no_nul_at_all", "invalid message format", "invalid string in message"] {
        assert!(!world.reached_the_server(sign), "{sign:?}: the message reached the server");
    }
}

/// Message, body, and what the replay of its session shows of it.
const ENDS: [(u8, &[u8], &str); 6] = [
    (b'Q', b"select 1\0; drop table customers /* end_0 */\0", "drop table customers /* end_0 */"),
    (b'P', b"\0select /* end_1 */ 1\0\0\x09", "select /* end_1 */ 1"),
    (b'F', b"\0\0\0", "'F' cannot be read"),
    (b'y', b"what is end_3", "what is end_3"),
    (b'D', b"Xend_4\0", "end_4"),
    (b'p', b"end_5_is_a_second_token\0", "message of an unknown kind"),
];

fn last_words(world: &World) {
    let sessions = |subject: &str| -> Option<String> {
        let listed = world.evidence("sessions", &["--json"]).out;
        let sessions = listed.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut own = sessions.filter(|session| session["subject"] == subject && !session["closed"].is_null());
        Some(own.next()?["session"].as_str()?.to_owned())
    };
    for (number, (kind, body, shown)) in ENDS.into_iter().enumerate() {
        let subject = format!("last-words-{number}");
        let token = world.issuer.token(&subject, &["agent"]).expect("the issuer signs");
        let mut wire =
            Wire::login(world.gateway.port, tests::issuer::NAME, "shop", token.as_bytes()).expect("it opens");
        wire.send(kind, body);
        assert_eq!(wire.expect().field(b'S').as_deref(), Some("FATAL"), "{shown}");
        assert!(wire.is_ended(), "{shown}");
        // What a session did is on disk a moment after it did it.
        let found = (0..50).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            sessions(&subject)
        });
        let id = found.unwrap_or_else(|| panic!("the session of {subject} is not listed as closed"));
        for options in [&[][..], &["--json"]] {
            let replayed =
                world.evidence("replay", &[&[id.as_str()][..], options].concat()).must_succeed().must_print(shown);
            assert!(!replayed.out.contains("end_5_is"), "the replay shows a token: {}", replayed.out);
        }
    }
    assert!(!world.reached_the_server("end_"), "a request that ended its session reached the server");
}

fn dba_may(world: &World) {
    let statements =
        ["create table dba_may (n int)", "insert into dba_may values (1)", "delete from dba_may", "drop table dba_may"];
    world.psql(&world.through("dba"), &statements).must_succeed();
    assert!(world.reached_the_server("drop table dba_may"));
}
