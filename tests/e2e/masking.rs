//! A hostile analyst: no statement of `corpus/masking/` may bring a raw value to the client, in any message.

use std::process::ExitCode;
use tests::suite::{Case, run};
use tests::wire::Wire;
use tests::world::World;

fn main() -> ExitCode {
    let mut cases = Case::of_script("masking_cases.py");
    cases.push(Case::new("a_function_call_message_is_refused", function_call));
    cases.push(Case::new("a_statement_split_over_three_segments_stays_masked", split_statement));
    run(cases)
}

/// The raw values of one customer, read without the gateway.
fn raw_values(world: &World, id: u32) -> Vec<String> {
    let row = format!("select unnest(array[email, ssn, card, phone]) from customers where id = {id}");
    let shown = world.psql(&world.direct(), &[&row]).must_succeed();
    let values: Vec<String> = shown.out.lines().map(str::to_owned).collect();
    assert_eq!(values.len(), 4, "{values:?}");
    values
}

fn login(world: &World) -> Wire {
    let analyst = world.through("analyst");
    Wire::login(analyst.port, &analyst.user, "shop", analyst.password.as_bytes()).expect("an analyst gets in")
}

#[track_caller]
fn nothing_raw(world: &World, wire: &Wire, id: u32) {
    for value in raw_values(world, id) {
        let leaked = wire.received.windows(value.len()).any(|window| window == value.as_bytes());
        assert!(!leaked, "{value:?} reached the client");
    }
}

fn function_call(world: &World) {
    let oid = world.psql(&world.direct(), &["select 'query_to_xml'::regproc::oid"]).must_succeed().out;
    let oid: u32 = oid.trim().parse().expect("an oid is a number");
    let arguments: [&[u8]; 4] = [b"select ssn from customers where id = 7", b"t", b"f", b""];
    let mut body = [&oid.to_be_bytes()[..], &0u16.to_be_bytes(), &4u16.to_be_bytes()].concat();
    for argument in arguments {
        body.extend(u32::try_from(argument.len()).expect("short").to_be_bytes());
        body.extend(argument);
    }
    body.extend(0u16.to_be_bytes());
    let mut wire = login(world);
    wire.send(b'F', &body);
    let answer = wire.expect();
    assert_eq!((answer.kind, answer.sqlstate().as_str()), (b'E', "42501"), "{answer:?}");
    assert!(!world.reached_the_server("fastpath function call"), "the call reached the server");
    assert_eq!(wire.expect().kind, b'Z');
    wire.query("select 'goes on'");
    assert_eq!(wire.rows(), [[Some(b"goes on".to_vec())]]);
    nothing_raw(world, &wire, 7);
}

fn split_statement(world: &World) {
    let mut wire = login(world);
    let bytes = tests::wire::frame(b'Q', b"select id, ssn, card from customers where id = 7\0");
    for part in [&bytes[..3], &bytes[3..20], &bytes[20..]] {
        wire.raw(part);
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    let messages = wire.until_ready();
    assert!(messages.iter().any(|message| message.kind == b'D'), "{messages:?}");
    nothing_raw(world, &wire, 7);
}
