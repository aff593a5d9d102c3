//! TLS: what an idle connection holds, and what a record costs in each direction.

use std::time::Duration;

use allocation_counter::{measure, opt_out};
use dataplane::buffer::Slab;
use dataplane::config::ListenerTls;
use dataplane::control::certificate;
use dataplane::io::tls::{Role, SecureIo, Tls};
use dataplane::io::{Conn, Event, Io, Lent};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{Read, Write};
use std::sync::Arc;
use tests::authority::{self, CERTIFICATE, KEY, ROOT};
use tests::world::Directory;

use crate::desk::Desk;

/// Budget T7 of an idle session with TLS, bytes, less what the session holds without it.
const IDLE_BYTES_MAX: i64 = 12 * 1024 - 1536;
/// Allocations that a record may cost in one direction.
const ALLOCATIONS_MAX: u64 = 2;
const CONNECTIONS: i64 = 256;
const COUNTED: u64 = 100;
const STATEMENT: &[u8] = b"as long as a Bind, a Describe, an Execute and a Sync are together, roughly";

/// The gateway's TLS, with certificates as the product reads them.
struct Bench {
    io: Tls<Desk>,
    slab: Slab,
    events: Vec<Event>,
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
    _directory: Directory,
}

impl Bench {
    fn new() -> Bench {
        let name = format!("wireward-budget-{:?}", std::thread::current().id()).replace(['(', ')'], "-");
        let directory = std::env::temp_dir().join(format!("{name}{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the directory for temporary files is writable");
        authority::certify(&directory).expect("certificates can be made");
        let (certificate, key) = (directory.join(CERTIFICATE), directory.join(KEY));
        let server = certificate::server(&ListenerTls { certificate, key, client_ca: None }).expect("they are right");
        let client = certificate::client(&directory.join(ROOT)).expect("they are right");
        let (io, slab) = (Tls::new(Desk::new()), Slab::new(8).expect("memory"));
        Bench { io, slab, events: Vec::with_capacity(16), server, client, _directory: Directory(directory) }
    }

    /// A connection whose handshake is done, which waits for its client.
    fn connect(&mut self) -> (Conn, ClientConnection) {
        let conn = self.io.inner().accept();
        self.turn();
        self.io.secure(&mut self.slab, conn, Role::Server(self.server.clone()), b"");
        self.turn();
        let mut made = None;
        opt_out(|| {
            let name = ServerName::try_from("localhost").expect("a name");
            made = Some(ClientConnection::new(self.client.clone(), name).expect("a good configuration"));
        });
        let mut client = made.expect("it has just been made");
        self.handshake(conn, &mut client);
        (conn, client)
    }

    fn handshake(&mut self, conn: Conn, client: &mut ClientConnection) {
        let mut secured = false;
        while !secured {
            self.hear(conn, client);
            while !self.io.inner().is_quiet() {
                self.io.wait(&mut self.slab, Duration::ZERO, &mut self.events);
            }
            secured = self.events.drain(..).any(|e| matches!(e, Event::Secured { result: Ok(_), .. }));
            self.answer(client);
        }
        self.io.receive(conn);
    }

    /// What the client has to say arrives.
    fn hear(&mut self, conn: Conn, client: &mut ClientConnection) {
        let desk = self.io.inner();
        opt_out(|| {
            let mut said = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut said).expect("a vector takes everything");
            }
            if !said.is_empty() {
                desk.arrive(conn, &said);
            }
        });
    }

    /// The client gets what has been sent; returns its plaintext.
    fn answer(&mut self, client: &mut ClientConnection) -> Vec<u8> {
        let desk = self.io.inner();
        let mut plain = Vec::new();
        opt_out(|| {
            let mut sent = &desk.output[..];
            while !sent.is_empty() {
                client.read_tls(&mut sent).expect("a slice can be read");
                client.process_new_packets().expect("the gateway speaks TLS");
            }
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = client.reader().read(&mut piece) {
                plain.extend_from_slice(&piece[..bytes]);
            }
            desk.forget();
        });
        plain
    }

    /// Everything that is due happens; received slots go back. Returns how many bytes of plaintext came.
    fn turn(&mut self) -> usize {
        let mut received = 0;
        loop {
            self.io.wait(&mut self.slab, Duration::ZERO, &mut self.events);
            for event in self.events.drain(..) {
                if let Event::Received { slot, result, .. } = event {
                    received += result.expect("nothing fails here");
                    slot.into_iter().for_each(|slot| self.slab.give(slot));
                }
            }
            if self.io.inner().is_quiet() {
                return received;
            }
        }
    }

    /// One message of the client, received.
    fn request(&mut self, conn: Conn, client: &mut ClientConnection) -> u64 {
        opt_out(|| client.writer().write_all(STATEMENT).expect("it has room"));
        self.hear(conn, client);
        let counted = measure(|| assert_eq!(self.turn(), STATEMENT.len()));
        self.io.receive(conn);
        counted.count_total
    }

    /// One message to the client, sent from a slot.
    fn response(&mut self, conn: Conn, client: &mut ClientConnection) -> u64 {
        let slot = self.slab.take().expect("all slots are free");
        self.slab.bytes_mut(&slot, 0..STATEMENT.len()).copy_from_slice(STATEMENT);
        let counted = measure(|| {
            self.io.send(&mut self.slab, conn, Lent::Slot { slot: &slot, from: 0, to: STATEMENT.len() });
            self.turn();
        });
        self.slab.give(slot);
        assert_eq!(self.answer(client), STATEMENT);
        counted.count_total
    }
}

#[test]
fn an_idle_connection_with_tls_fits_its_budget_and_owns_no_slot() {
    let mut bench = Bench::new();
    let mut open: Vec<(Conn, ClientConnection)> = Vec::with_capacity(2 * CONNECTIONS as usize);
    let free = bench.slab.free();
    let mut fill = |bench: &mut Bench| {
        for _ in 0..CONNECTIONS {
            let (conn, mut client) = bench.connect();
            bench.request(conn, &mut client);
            bench.response(conn, &mut client);
            open.push((conn, client));
        }
    };
    fill(&mut bench);
    let counted = measure(|| fill(&mut bench));
    let each = counted.bytes_current / CONNECTIONS;
    println!("{each} bytes in {} allocations an idle connection with TLS", counted.count_current / CONNECTIONS);
    assert_eq!(bench.slab.free(), free);
    assert!(each <= IDLE_BYTES_MAX, "an idle connection with TLS holds {each} bytes of heap");
    assert!(each > 1000, "the connections are not counted");
}

#[test]
fn a_record_costs_two_allocations_at_most_in_each_direction() {
    let mut bench = Bench::new();
    let (conn, mut client) = bench.connect();
    for _ in 0..20 {
        bench.request(conn, &mut client);
        bench.response(conn, &mut client);
    }
    let requests: u64 = (0..COUNTED).map(|_| bench.request(conn, &mut client)).sum();
    let responses: u64 = (0..COUNTED).map(|_| bench.response(conn, &mut client)).sum();
    println!("{requests} allocations for {COUNTED} records in, {responses} for {COUNTED} out");
    assert!(requests <= ALLOCATIONS_MAX * COUNTED && responses <= ALLOCATIONS_MAX * COUNTED);
    assert!(requests + responses > 0, "nothing is counted");
}
