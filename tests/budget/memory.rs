//! What an idle session holds: bytes of heap, and no slot.

use dataplane::session::Session;
use dataplane::shard::Entry;

use crate::dialog::{self, INT4};
use crate::table::{Seat, Table};

/// Budget T7 of an idle session without TLS, bytes.
const IDLE_BYTES_MAX: i64 = 1536;
/// How long a session that is new keeps its login for others, seconds; and one more.
const LEASE_S: u64 = 6;
/// A power of two: tables that double are full then, neither half empty nor just grown.
const SESSIONS: i64 = 1024;
const STATEMENT: &str = "select id from orders where id = $1";

/// Sessions that have each prepared and run a statement, and now wait for their client.
fn idle_sessions(table: &mut Table, role: &str, count: i64) -> Vec<Seat> {
    (0..count).map(|_| idle_session(table, role)).collect()
}

fn idle_session(table: &mut Table, role: &str) -> Seat {
    let seat = table.seat(role);
    table.exchange(seat, &dialog::parse("s", STATEMENT), &dialog::parsed());
    let answer = dialog::bound(&dialog::result(&[("id", 0, 0, INT4)], &["42"]));
    table.exchange(seat, &dialog::execute("s"), &answer);
    table.drain();
    table.desk().forget();
    seat
}

#[test]
fn an_idle_session_owns_no_slot() {
    for role in ["plain", "guarded"] {
        let mut table = Table::lay();
        let free = table.slots_free();
        idle_sessions(&mut table, role, 1);
        assert_eq!(table.slots_free(), free, "{role}");
    }
}

#[test]
fn an_idle_session_fits_its_budget() {
    for role in ["plain", "guarded"] {
        let mut table = Table::lay();
        idle_sessions(&mut table, role, SESSIONS);
        table.pass(LEASE_S);
        let mut seats = Vec::with_capacity(SESSIONS as usize);
        let counted = allocation_counter::measure(|| {
            for _ in 0..SESSIONS {
                seats.push(idle_session(&mut table, role));
            }
            // Until then each may leave its upstream's connection to another, and keeps what that takes.
            table.pass(LEASE_S);
        });
        let each = counted.bytes_current / SESSIONS;
        println!(
            "{role}: {each} bytes in {} allocations an idle session; Entry {}, Session {}",
            counted.count_current / SESSIONS,
            size_of::<Entry>(),
            size_of::<Session>()
        );
        assert!(each <= IDLE_BYTES_MAX, "{role}: an idle session holds {each} bytes of heap");
        assert!(each as usize >= size_of::<Entry>(), "{role}: the sessions are not counted");
    }
}
