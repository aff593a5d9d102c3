//! A statement that is known: no allocation, one copy (into the ring), four turns of the shard's loop.

use ring::Kind;

use crate::desk::Sent;
use crate::dialog::{self, INT4, TEXT};
use crate::table::{Recorded, Seat, Table};

const COUNTED: usize = 100;
/// Tables and buffers grow to their size in the first transactions.
const WARM_UP: usize = 20;

const STATEMENT: &str = "select id, email from customers where id = $1";
const SIMPLE: &str = "select id, email from customers where id = 42";

/// Relation 16401 is not in the (empty) catalogue, so for `guarded` it is masked whole; a plain role sees it.
fn answer() -> Vec<u8> {
    dialog::result(&[("id", 16401, 1, INT4), ("email", 16401, 2, TEXT)], &["42", "ada@example.com"])
}

/// A column of no relation, with a text that the detectors find and one that they do not.
fn detected() -> Vec<u8> {
    dialog::result(&[("a", 0, 0, TEXT), ("b", 0, 0, TEXT)], &["write to ada@example.com today", "nothing here"])
}

/// One way to run a known statement, and whether the row comes out as the server sent it.
struct Way {
    name: &'static str,
    role: &'static str,
    request: Vec<u8>,
    response: Vec<u8>,
    masked: bool,
}

fn ways() -> Vec<Way> {
    let simple = || dialog::query(SIMPLE);
    let count = || dialog::query("select count(*), 'write to ada@example.com today' from generate_series(1, 3)");
    let prepared = || dialog::execute("s");
    let way = |name, role, request, response, masked| Way { name, role, request, response, masked };
    vec![
        way("prepared, plain", "plain", prepared(), dialog::bound(&answer()), false),
        way("prepared, masked", "guarded", prepared(), dialog::bound(&answer()), true),
        way("simple, plain", "plain", simple(), answer(), false),
        way("simple, masked", "guarded", simple(), answer(), true),
        way("detected, plain", "plain", count(), detected(), false),
        way("detected, masked", "guarded", count(), detected(), true),
    ]
}

/// A session of the way's role that knows the statement; with what the client got for it.
fn seated(table: &mut Table, way: &Way) -> (Seat, Vec<u8>) {
    let seat = table.seat(way.role);
    table.exchange(seat, &dialog::parse("s", STATEMENT), &dialog::parsed());
    for _ in 0..WARM_UP {
        table.desk().forget();
        table.exchange(seat, &way.request, &way.response);
    }
    let output = table.desk().output[way.request.len()..].to_vec();
    table.drain();
    table.desk().forget();
    (seat, output)
}

#[test]
fn the_masked_ways_mask_and_the_plain_ones_do_not() {
    for way in ways() {
        let (_, output) = seated(&mut Table::lay(), &way);
        let shows = output.windows(15).any(|w| w == b"ada@example.com");
        assert_eq!(shows, !way.masked, "{}: {}", way.name, String::from_utf8_lossy(&output));
        assert_eq!(output == way.response, !way.masked, "{}", way.name);
    }
}

#[test]
fn a_known_statement_allocates_nothing() {
    for way in ways() {
        let mut table = Table::lay();
        let (seat, _) = seated(&mut table, &way);
        let counted = allocation_counter::measure(|| {
            for _ in 0..COUNTED {
                table.exchange(seat, &way.request, &way.response);
            }
        });
        assert_eq!(counted.count_total, 0, "{}: {counted:?} in {COUNTED} transactions", way.name);
    }
}

#[test]
fn a_masked_execute_without_a_describe_allocates_nothing() {
    let described = dialog::bound(&answer());
    let way = Way {
        name: "undescribed",
        role: "guarded",
        request: dialog::execute_undescribed("s"),
        response: described,
        masked: true,
    };
    let mut table = Table::lay();
    let (seat, _) = seated(&mut table, &way);
    let counted = allocation_counter::measure(|| {
        for _ in 0..COUNTED {
            table.exchange(seat, &way.request, &way.response);
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?} in {COUNTED} transactions");
}

#[test]
fn an_allocation_on_the_way_would_be_seen() {
    let mut table = Table::lay();
    let way = &ways()[0];
    let (seat, _) = seated(&mut table, way);
    let counted = allocation_counter::measure(|| {
        table.exchange(seat, &dialog::parse("other", "select 1"), &dialog::parsed());
    });
    assert!(counted.count_total > 0, "a new statement is analysed, and that allocates");
}

#[test]
fn a_transaction_is_four_turns_of_the_loop() {
    for way in ways() {
        let mut table = Table::lay();
        let (seat, _) = seated(&mut table, &way);
        table.exchange(seat, &way.request, &way.response);
        // Received and sent, in each direction. Each turn is one io_uring_enter.
        assert_eq!(table.desk().turns, 4, "{}", way.name);
    }
}

#[test]
fn bytes_leave_from_the_slot_that_they_came_in() {
    for way in ways() {
        let mut table = Table::lay();
        let (seat, output) = seated(&mut table, &way);
        table.exchange(seat, &way.request, &way.response);
        let desk = table.desk();
        let [request, response] = [desk.filled[0], desk.filled[1]];
        let expected = [
            Sent { conn: seat.upstream, slot: Some(request), bytes: way.request.len() },
            Sent { conn: seat.client, slot: Some(response), bytes: output.len() },
        ];
        // A row that a mask has made shorter leaves with what stood before it, and what follows closes the gap.
        assert_eq!(desk.sent, expected, "{}", way.name);
    }
}

#[test]
fn each_byte_that_passes_is_copied_into_the_ring_once() {
    for way in ways() {
        let mut table = Table::lay();
        let (seat, output) = seated(&mut table, &way);
        table.exchange(seat, &way.request, &way.response);
        let records = table.drain();
        let payload = |kind| -> Vec<u8> {
            let of_kind = |r: &&Recorded| r.kind == kind;
            records.iter().filter(of_kind).flat_map(|r| r.payload.clone()).collect()
        };
        assert_eq!(payload(Kind::Request), way.request, "{}", way.name);
        assert_eq!(payload(Kind::Response), output, "{}", way.name);
        let others = records.iter().filter(|r| !matches!(r.kind, Kind::Request | Kind::Response | Kind::Verdict));
        assert_eq!(others.count(), 0, "{}: {records:?}", way.name);
        if !way.masked {
            let runs = records.iter().filter(|r| r.kind != Kind::Verdict).count();
            assert_eq!(runs, 2, "{}: a run of frames is one record", way.name);
        }
    }
}
