//! Both drivers over real TCP, held to the rules of `io/mod.rs` by the same tests.

#[path = "drivers/desk.rs"]
mod desk;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread::spawn;
use std::time::{Duration, Instant};

use dataplane::address::{Address, Peer};
use dataplane::buffer::{SLOT_BYTES, Slab, Slot};
use dataplane::io::driver::{Driver, Kind};
use dataplane::io::{Conn, Event, Io, Lent};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use desk::{Desk, PATIENCE, SHORT, SLOTS, both};

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[test]
fn what_is_sent_arrives_whole_and_in_order_however_short_the_sends_are() {
    both(|desk| {
        let (mut stream, conn) = desk.client();
        let all = pattern(12 << 20);
        let expected = all.clone();
        let reader = spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut got = Vec::new();
            stream.read_to_end(&mut got).map(|_| got)
        });
        let slot = desk.slab.take().unwrap();
        let (mut at, mut short) = (0, 0);
        while at < all.len() {
            let by_slot = at % 3 == 0;
            let end = all.len().min(at + if by_slot { SLOT_BYTES } else { 8 << 20 });
            if by_slot {
                desk.slab.bytes_mut(&slot, 0..end - at).copy_from_slice(&all[at..end]);
                desk.io.send(&mut desk.slab, conn, Lent::Slot { slot: &slot, from: 0, to: end - at });
            } else {
                let bytes = [b"not this", &all[at..end]].concat();
                desk.io.send(&mut desk.slab, conn, Lent::Heap { bytes, from: 8 });
            }
            let (result, heap) = desk.sent(conn);
            assert_eq!(heap.map(|bytes| bytes.len()), (!by_slot).then_some(end - at + 8), "a buffer comes back");
            let sent = result.unwrap();
            short += usize::from(sent < end - at);
            at += sent;
        }
        assert!(short > 0, "no send was short: the test shows nothing");
        desk.slab.give(slot);
        desk.io.close(conn, b"");
        desk.closed(conn);
        assert!(reader.join().unwrap().unwrap() == expected, "other bytes have arrived");
    });
}

#[test]
fn what_arrives_is_received_whole_into_slots_of_either_choice_and_ends_with_zero() {
    both(|desk| {
        let (mut stream, conn) = desk.client();
        let idle = desk.idle_slots();
        let all = pattern(3 << 20);
        let expected = all.clone();
        let writer = spawn(move || stream.write_all(&all).and_then(|()| stream.shutdown(Shutdown::Write)));
        let mut got = Vec::new();
        for round in 0.. {
            let own = (round % 2 == 1).then(|| desk.slab.take().unwrap());
            let from = round % 1000;
            match &own {
                Some(slot) => desk.io.receive_into(&desk.slab, conn, slot, from),
                None => desk.io.receive(conn),
            }
            let (chosen, result) = desk.received(conn);
            let bytes = result.unwrap();
            assert!(own.is_none() || chosen.is_none(), "a slot nobody asked for");
            let slot = own.or(chosen);
            let from = if round % 2 == 1 { from } else { 0 };
            if let Some(slot) = slot {
                got.extend_from_slice(desk.slab.bytes(&slot, from..from + bytes));
                desk.slab.give(slot);
            }
            if bytes == 0 {
                break;
            }
        }
        // The end is told as often as one asks.
        desk.io.receive(conn);
        let (slot, result) = desk.received(conn);
        assert_eq!(result, Ok(0));
        slot.into_iter().for_each(|slot| desk.slab.give(slot));
        writer.join().unwrap().unwrap();
        assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
        desk.io.close(conn, b"");
        desk.closed(conn);
        assert_eq!(desk.idle_slots(), idle);
    });
}

/// States in which a connection may be closed. Each gives back the slots that are to be kept until `Closed`.
type State = fn(&mut Desk, &mut TcpStream, Conn) -> Vec<Slot>;

const STATES: [(&str, State); 9] = [
    ("idle", |_, _, _| Vec::new()),
    ("with a receive in flight", |desk, _, conn| {
        desk.io.receive(conn);
        desk.wait(SHORT);
        Vec::new()
    }),
    ("with a receive just submitted", |desk, _, conn| {
        desk.io.receive(conn);
        Vec::new()
    }),
    ("with a receive into a slot in flight", |desk, _, conn| {
        let slot = desk.slab.take().unwrap();
        desk.io.receive_into(&desk.slab, conn, &slot, 5);
        desk.wait(SHORT);
        vec![slot]
    }),
    ("with a receive in flight and bytes there", |desk, stream, conn| {
        desk.io.receive(conn);
        desk.wait(SHORT);
        stream.write_all(b"bytes").unwrap();
        std::thread::sleep(SHORT);
        Vec::new()
    }),
    ("with bytes that nobody has received", |desk, stream, _| {
        stream.write_all(b"bytes").unwrap();
        desk.wait(SHORT);
        Vec::new()
    }),
    ("with a send in flight", |desk, _, conn| vec![desk.clog(conn)]),
    ("with a send and a receive in flight", |desk, _, conn| {
        let slot = desk.clog(conn);
        desk.io.receive(conn);
        desk.wait(SHORT);
        vec![slot]
    }),
    ("with a send that has completed and was not told", |desk, _, conn| {
        desk.io.send(&mut desk.slab, conn, Lent::Heap { bytes: b"bytes".to_vec(), from: 0 });
        Vec::new()
    }),
];

#[test]
fn a_close_in_any_state_ends_with_closed_and_every_slot_comes_back() {
    both(|desk| {
        for peer_has_left in [false, true] {
            for (name, state) in STATES {
                println!("{name}, peer has left: {peer_has_left}");
                let (mut stream, conn) = desk.client();
                let idle = desk.idle_slots();
                let kept = state(desk, &mut stream, conn);
                if peer_has_left {
                    stream.shutdown(Shutdown::Both).unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                }
                desk.io.close(conn, b"");
                desk.io.close(conn, b"a second close is nothing");
                desk.closed(conn);
                kept.into_iter().for_each(|slot| desk.slab.give(slot));
                assert_eq!(desk.idle_slots(), idle, "{name}");
                let ended = stream.read_to_end(&mut Vec::new());
                assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset), "{name}");
            }
        }
    });
}

#[test]
fn a_number_is_used_again_only_after_its_closed() {
    both(|desk| {
        let (_stream, first) = desk.client();
        desk.io.close(first, b"");
        let (_other, second) = desk.client();
        assert_ne!(first, second);
        desk.closed(first);
        let (_third, again) = desk.client();
        assert_eq!(again, first, "a number that is free is used");
    });
}

#[test]
fn a_receive_takes_no_slot_before_bytes_are_there_and_waits_while_there_is_none() {
    // The second time shows that all slots have come back, whatever the driver keeps for itself.
    both(|desk| (0..2).for_each(|_| starve(desk)));
}

fn starve(desk: &mut Desk) {
    let mut clients: Vec<_> = (0..SLOTS + 5).map(|_| desk.client()).collect();
    let idle = desk.idle_slots();
    clients.iter().for_each(|(_, conn)| desk.io.receive(*conn));
    desk.wait(SHORT);
    assert_eq!(desk.slab.free(), idle, "slots are gone, and nobody has sent a byte");
    clients.iter_mut().for_each(|(stream, _)| stream.write_all(b"x").unwrap());
    (0..10).for_each(|_| desk.wait(SHORT));
    let take = |event| match event {
        Event::Received { slot: Some(slot), result: Ok(1), .. } => slot,
        other => panic!("{other:?}"),
    };
    let mut held: Vec<Slot> = std::mem::take(&mut desk.told).into_iter().map(take).collect();
    assert_eq!(held.len(), SLOTS as usize, "as many receives complete as there are slots");
    // What a send takes may be the slot that others wait for: they do not wait for another event beside it.
    let began = Instant::now();
    desk.io.send(&mut desk.slab, clients[0].1, Lent::Heap { bytes: b"bytes".to_vec(), from: 0 });
    desk.wait(PATIENCE);
    assert!(matches!(desk.told.pop(), Some(Event::Sent { result: Ok(5), .. })), "the send was not told");
    assert!(began.elapsed() < PATIENCE / 4, "it lay for {:?}", began.elapsed());
    for _ in 0..4 {
        desk.slab.give(held.remove(0));
        let slot = desk.until("Received", |event| matches!(event, Event::Received { .. }), take);
        assert_eq!(desk.slab.bytes(&slot, 0..1), b"x");
        held.push(slot);
    }
    // One still waits for a slot: it is closed like any other.
    for (_, conn) in &clients {
        desk.io.close(*conn, b"");
        desk.closed(*conn);
    }
    held.into_iter().for_each(|slot| desk.slab.give(slot));
}

#[test]
fn a_receive_that_waits_for_a_slot_is_forgotten_with_its_connection() {
    both(|desk| {
        let (mut stream, conn) = desk.client();
        let lent = desk.clog(conn);
        // All slots are gone: some are held, and what the driver keeps for itself goes to these, of whom one gets none.
        let idle = desk.idle_slots();
        let held: Vec<Slot> = std::iter::from_fn(|| desk.slab.take()).collect();
        let mut others: Vec<_> = (0..SLOTS as usize - idle).map(|_| desk.client()).collect();
        others.iter_mut().for_each(|(other, conn)| {
            desk.io.receive(*conn);
            other.write_all(b"x").unwrap();
        });
        (0..5).for_each(|_| desk.wait(SHORT));
        // With a send in flight it waits for one too, when it is closed.
        desk.io.receive(conn);
        stream.write_all(b"x").unwrap();
        (0..5).for_each(|_| desk.wait(SHORT));
        desk.io.close(conn, b"");
        desk.closed(conn);
        desk.slab.give(lent);
        let (mut stream, again) = desk.client();
        assert_eq!(again, conn);
        stream.write_all(b"mine").unwrap();
        held.into_iter().for_each(|slot| desk.slab.give(slot));
        (0..5).for_each(|_| desk.wait(SHORT));
        for event in std::mem::take(&mut desk.told) {
            match event {
                Event::Received { conn, slot, .. } if conn != again => slot.into_iter().for_each(|s| desk.slab.give(s)),
                other => panic!("nobody has asked for {other:?}"),
            }
        }
        desk.io.receive(again);
        let (slot, result) = desk.received(again);
        assert_eq!(result, Ok(4));
        slot.into_iter().for_each(|slot| desk.slab.give(slot));
    });
}

#[test]
fn what_nobody_asked_for_wakes_nobody() {
    both(|desk| {
        let (mut loud, _) = desk.client();
        let (gone, _) = desk.client();
        let (_quiet, quiet) = desk.client();
        desk.io.receive(quiet);
        loud.write_all(b"bytes").unwrap();
        drop(gone);
        // What is on its way may end a wait or two.
        (0..5).for_each(|_| desk.wait(SHORT));
        let began = Instant::now();
        (0..5).for_each(|_| desk.wait(SHORT));
        assert!(desk.told.is_empty(), "{:?}", desk.told);
        assert!(began.elapsed() >= SHORT * 4, "five waits of {SHORT:?} took {:?}", began.elapsed());
    });
}

#[test]
fn a_send_that_somebody_waits_for_is_told_at_once() {
    both(|desk| {
        let (_stream, conn) = desk.client();
        // A new connection may have news of its own.
        desk.wait(SHORT);
        let began = Instant::now();
        desk.io.send(&mut desk.slab, conn, Lent::Heap { bytes: b"bytes".to_vec(), from: 0 });
        desk.io.hurry();
        desk.wait(PATIENCE);
        assert!(matches!(desk.told[..], [Event::Sent { result: Ok(5), .. }]), "{:?}", desk.told);
        assert!(began.elapsed() < PATIENCE / 2, "after {:?}", began.elapsed());
    });
}

#[test]
fn a_send_that_nobody_waits_for_is_told_before_its_answer() {
    both(|desk| {
        let (mut stream, conn) = desk.client();
        desk.io.receive(conn);
        desk.wait(SHORT);
        desk.io.send(&mut desk.slab, conn, Lent::Heap { bytes: b"question".to_vec(), from: 0 });
        let answer = spawn(move || {
            stream.read_exact(&mut [0; 8]).unwrap();
            stream.write_all(b"answer").map(|()| stream)
        });
        let began = Instant::now();
        while !matches!(desk.told[..], [.., Event::Received { .. }]) {
            desk.wait(PATIENCE);
        }
        let [Event::Sent { .. }, Event::Received { result: Ok(6), .. }] = desk.told[..] else {
            panic!("{:?}", desk.told)
        };
        assert!(began.elapsed() < PATIENCE / 4, "the answer lay for {:?}", began.elapsed());
        answer.join().unwrap().unwrap();
    });
}

/// A peer that has just spoken has room, as a rule. This one speaks and does not read; another one's send does not wait for it.
#[test]
fn a_small_send_that_finds_no_room_goes_on_when_there_is() {
    both(|desk| {
        let (mut stream, conn) = desk.client();
        let (_reads, other) = desk.client();
        let piece = pattern(8000);
        let mut sent = 0;
        desk.io.receive(conn);
        let reader = loop {
            stream.write_all(b"?").unwrap();
            let (slot, _) = desk.received(conn);
            desk.slab.give(slot.unwrap());
            desk.io.receive(conn);
            let from = sent % piece.len();
            desk.io.send(&mut desk.slab, conn, Lent::Heap { bytes: piece.clone(), from });
            desk.io.send(&mut desk.slab, other, Lent::Heap { bytes: b"!".to_vec(), from: 0 });
            desk.io.hurry();
            desk.wait(PATIENCE);
            let is_sent = |event: &Event, to| matches!(event, Event::Sent { conn, .. } if *conn == to);
            assert!(desk.told.iter().any(|event| is_sent(event, other)), "one wait was not enough: {:?}", desk.told);
            desk.sent(other).0.unwrap();
            (0..3).for_each(|_| desk.wait(Duration::ZERO));
            let reader = (!desk.told.iter().any(|event| is_sent(event, conn))).then(|| {
                let mut stream = stream.try_clone().unwrap();
                spawn(move || {
                    let mut got = Vec::new();
                    stream.read_to_end(&mut got).map(|_| got)
                })
            });
            sent += desk.sent(conn).0.unwrap();
            assert!(sent < 32 << 20, "a socket holds less");
            if let Some(reader) = reader {
                break reader;
            }
        };
        desk.io.close(conn, b"");
        desk.closed(conn);
        let got = reader.join().unwrap().unwrap();
        assert_eq!(got.len(), sent);
        assert!(got.chunks(piece.len()).all(|chunk| piece.starts_with(chunk)), "other bytes have arrived");
    });
}

#[test]
fn a_wait_ends_in_time_however_long_the_one_before_was_to_be() {
    both(|desk| {
        let (mut stream, conn) = desk.client();
        // All of them are longer than they take: somebody speaks.
        for longest in [PATIENCE, PATIENCE / 2, SHORT, PATIENCE] {
            desk.io.receive(conn);
            stream.write_all(b"?").unwrap();
            while desk.told.is_empty() {
                desk.wait(longest);
            }
            let (slot, _) = desk.received(conn);
            desk.slab.give(slot.unwrap());
            for timeout in [Duration::ZERO, SHORT / 10, SHORT, 2 * SHORT, SHORT] {
                let began = Instant::now();
                desk.wait(timeout);
                assert!(began.elapsed() < PATIENCE / 4, "a wait of {timeout:?} took {:?}", began.elapsed());
            }
        }
    });
}

#[test]
fn a_send_to_a_peer_that_has_left_fails_and_the_connection_can_be_closed() {
    both(|desk| {
        let (stream, conn) = desk.client();
        drop(stream);
        let failed = (0..100).find_map(|_| {
            desk.io.send(&mut desk.slab, conn, Lent::Heap { bytes: vec![0; 100], from: 0 });
            let (result, heap) = desk.sent(conn);
            assert_eq!(heap.map(|bytes| bytes.len()), Some(100));
            std::thread::sleep(Duration::from_millis(1));
            result.err()
        });
        assert!(matches!(failed, Some(Errno::PIPE | Errno::CONNRESET)), "{failed:?}");
        desk.io.close(conn, b"");
        desk.closed(conn);
    });
}

#[test]
fn a_farewell_is_the_last_that_the_peer_reads() {
    both(|desk| {
        let (mut stream, conn) = desk.client();
        desk.io.receive(conn);
        desk.wait(SHORT);
        desk.io.close(conn, b"goodbye");
        desk.closed(conn);
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"goodbye");
    });
}

/// What io_uring's table of sockets must not do: keep a closed one open until all that was begun before has completed.
#[test]
fn a_peer_hears_of_the_close_while_older_receives_wait() {
    both(|desk| {
        let (_idle, older) = desk.client();
        desk.io.receive(older);
        for farewell in [&b""[..], b"goodbye"] {
            let (mut stream, conn) = desk.client();
            desk.io.receive(conn);
            desk.wait(SHORT);
            desk.io.close(conn, farewell);
            desk.closed(conn);
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert_eq!(got, farewell);
        }
        desk.io.close(older, b"");
        desk.closed(older);
    });
}

#[test]
fn a_socket_in_the_rings_table_takes_no_descriptor() {
    fn open() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }
    both(|desk| {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let before = open();
        let (_client, accepted) = desk.client();
        let dialed = desk.io.connect(&server.local_addr().unwrap().into()).unwrap();
        desk.until("Connected", |event| matches!(event, Event::Connected { result: Ok(()), .. }), |_| ());
        // The client of the test has one. Linux before 6.15 is not trusted with the table.
        let table = matches!(&desk.io, Driver::Uring(uring) if uring.has_table());
        assert_eq!(open() - before, if table { 1 } else { 3 });
        for conn in [accepted, dialed] {
            desk.io.close(conn, b"");
            desk.closed(conn);
        }
        assert_eq!(open() - before, 1);
    });
}

#[test]
fn a_connection_that_we_open_moves_bytes_both_ways_and_a_refused_one_says_so() {
    both(|desk| {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let connected = |desk: &mut Desk, of: Conn| {
            let fits = |event: &Event| matches!(event, Event::Connected { conn, .. } if *conn == of);
            desk.until("Connected", fits, |event| match event {
                Event::Connected { result, .. } => result,
                other => panic!("{other:?}"),
            })
        };
        let conn = desk.io.connect(&address.into()).unwrap();
        assert_eq!(connected(desk, conn), Ok(()));
        let (mut peer, _) = server.accept().unwrap();
        desk.io.receive(conn);
        desk.io.send(&mut desk.slab, conn, Lent::Heap { bytes: b"ping".to_vec(), from: 0 });
        let mut ping = [0; 4];
        desk.wait(SHORT);
        peer.read_exact(&mut ping).unwrap();
        peer.write_all(b"pong").unwrap();
        let (slot, result) = desk.received(conn);
        let slot = slot.unwrap();
        assert_eq!((&ping, desk.slab.bytes(&slot, 0..result.unwrap())), (b"ping", &b"pong"[..]));
        desk.slab.give(slot);
        drop(server);
        let refused = desk.io.connect(&address.into()).unwrap();
        assert_eq!(connected(desk, refused), Err(Errno::CONNREFUSED));
        // A connect that is still under way: nobody answers at an address for documentation, or the way there is refused.
        let under_way = desk.io.connect(&SocketAddr::from(([192, 0, 2, 1], 1)).into());
        for conn in [Some(conn), Some(refused), under_way.ok()].into_iter().flatten() {
            desk.io.close(conn, b"");
            desk.closed(conn);
        }
    });
}

#[test]
fn a_unix_domain_socket_is_accepted_from_and_dialed_and_tells_the_user() {
    both(|desk| {
        let path = std::env::temp_dir().join(format!("wireward-drivers-{}", std::process::id()));
        let missing = Address::Unix(path.as_path().into());
        assert_eq!(desk.io.connect(&missing), Err(Errno::NOENT));
        let listener = UnixListener::bind(&path).unwrap();
        let kind = if matches!(desk.io, Driver::Epoll(_)) { Kind::Epoll } else { Kind::Uring };
        let mut slab = Slab::new(SLOTS).unwrap();
        let listeners = vec![listener.into()];
        let io = Driver::new(kind, &mut slab, listeners, desk.bell.try_clone().unwrap()).unwrap();
        let mut server =
            Desk { io, slab, address: desk.address, bell: desk.bell.try_clone().unwrap(), told: Vec::new() };
        let uid = rustix::process::getuid().as_raw();
        // Twice: an accept is asked for anew after each.
        for _ in 0..2 {
            let dialed = desk.io.connect(&missing).unwrap();
            let accepted =
                |event: &Event| matches!(event, Event::Accepted { peer: Peer::Unix { uid: of }, .. } if *of == uid);
            let conn = server.until("Accepted", accepted, |event| match event {
                Event::Accepted { conn, .. } => conn,
                other => panic!("{other:?}"),
            });
            desk.until("Connected", |event| matches!(event, Event::Connected { result: Ok(()), .. }), |_| ());
            desk.io.send(&mut desk.slab, dialed, Lent::Heap { bytes: b"ping".to_vec(), from: 0 });
            server.io.receive(conn);
            assert_eq!(desk.sent(dialed).0, Ok(4));
            let (slot, result) = server.received(conn);
            let slot = slot.unwrap();
            assert_eq!(server.slab.bytes(&slot, 0..result.unwrap()), b"ping");
            server.slab.give(slot);
            server.io.close(conn, b"");
            server.closed(conn);
            desk.io.close(dialed, b"");
            desk.closed(dialed);
        }
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn the_bell_wakes_once_for_all_that_rang() {
    both(|desk| {
        for _ in 0..3 {
            (0..2).for_each(|_| _ = rustix::io::write(&desk.bell, &1u64.to_ne_bytes()).unwrap());
            desk.wait(PATIENCE);
            assert!(matches!(desk.told[..], [Event::Woken]), "{:?}", desk.told);
            desk.told.clear();
            desk.wait(SHORT);
            assert!(desk.told.is_empty(), "{:?}", desk.told);
        }
    });
}

#[test]
fn being_out_of_descriptors_does_not_spin_and_who_waits_is_accepted_later() {
    both(|desk| {
        let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(desk.address).unwrap()).collect();
        let usual = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..usual }).unwrap();
        let (began, mut rounds) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_millis(500) {
            desk.wait(Duration::from_millis(50));
            rounds += 1;
        }
        setrlimit(Resource::Nofile, usual).unwrap();
        let failures =
            desk.told.iter().filter(|e| matches!(e, Event::AcceptFailed { error: Errno::MFILE, .. })).count();
        assert!(
            (1..=10).contains(&failures) && rounds <= 30,
            "{failures} failures in {rounds} rounds of half a second"
        );
        for client in &clients {
            let from = client.local_addr().unwrap();
            desk.until("Accepted", |e| matches!(e, Event::Accepted { peer, .. } if *peer == from.into()), |_| ());
        }
    });
}
