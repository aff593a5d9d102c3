//! What one client, or thousands, can take of the gateway without paying for it: beginnings that are never finished, answers
//! that are never read, places, names and descriptors. The other clients go on meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::gateway::{Gateway, Place};
use tests::issuer::NAME;
use tests::process;
use tests::server::{free_port, tied_to_us, wait_for_port};
use tests::suite::{Case, run};
use tests::wire::{Message, Wire, frame};
use tests::world::{World, python, script_path, wireward};

/// Longer than anything here is allowed to take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of a shard for one session: 256 for the kernel, and 4.
const SLOTS_OF_ONE: u64 = 260;

fn main() -> ExitCode {
    run(vec![
        Case::new(
            "a_thousand_idle_sessions_take_little_memory_and_no_buffer_and_fifty_work_beside_them",
            thousand_idle,
        ),
        Case::new("two_thousand_beginnings_of_logins_take_no_buffer_and_a_client_works_beside_them", half_logins),
        Case::new("messages_of_300_sessions_are_finished_later_and_meanwhile_a_client_works", half_messages),
        Case::new("half_tls_records_take_no_buffer", half_records),
        Case::new("who_does_not_read_ends_when_no_buffer_is_left_and_memory_stays_bounded", stalled_readers),
        Case::new("mute_clients_give_their_places_to_those_that_log_in", mute_clients),
        Case::new("names_of_large_texts_are_bounded_by_prepared_bytes_max", large_names),
        Case::new("listening_to_ten_thousand_channels_costs_the_gateway_nothing", listeners),
        Case::new("who_announces_much_and_sends_little_takes_no_room_from_others", announced),
        Case::new("who_keeps_room_and_does_not_move_ends_while_others_wait_for_it", keepers_of_room),
        Case::new("idle_sessions_of_one_subject_leave_places_to_others", one_subject),
        Case::new("eight_texts_of_one_write_do_not_hold_up_another_session", eight_texts),
        Case::new("long_texts_of_one_subject_do_not_hold_up_those_of_another", long_texts),
        Case::new("a_long_text_costs_bounded_memory_which_comes_back", long_text_memory),
        Case::new("health_is_told_at_once_beside_half_requests", half_requests),
        Case::new("out_of_descriptors_accepts_are_counted_and_do_not_spin", descriptors),
    ])
}

/// More sessions of one subject than a test has.
const CROWD: &str = "sessions_per_subject_max = 10000";

/// A gateway with one shard and these limits.
fn small(world: &World, name: &str, limits: &str) -> (Place, Gateway) {
    world.another(name, |c| format!("{c}\n[runtime]\nshards = 1\n[limits]\n{limits}\n"))
}

fn enter(world: &World, gateway: &Gateway) -> Wire {
    enter_as(world, gateway, "dba").unwrap_or_else(|why| panic!("{why:?}"))
}

fn enter_as(world: &World, gateway: &Gateway, role: &str) -> Result<Wire, Message> {
    let login = world.through(role);
    Wire::login(gateway.port, &login.user, "shop", login.password.as_bytes())
}

#[track_caller]
fn works(wire: &mut Wire) {
    for _ in 0..20 {
        wire.query("select count(*) from orders");
        assert_eq!(wire.rows().len(), 1);
    }
}

/// The sum of a series over its labels.
fn metric(place: &Place, name: &str) -> u64 {
    let url = place.admin().expect("an admin listener");
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: wireward\r\n\r\n").expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers and closes");
    let of_it = page.lines().filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    of_it.map(|l| l.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok()).expect("a number") as u64).sum()
}

/// Waits until the shard has published what holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn dataplane_bytes(gateway: &Gateway) -> u64 {
    let pids = process::tree(gateway.process.id()).into_iter();
    let mut dataplanes = pids.filter(|pid| process::command_line(*pid).contains("wireward dataplane"));
    process::private_bytes(dataplanes.next().expect("a dataplane process"))
}

fn thousand_idle(world: &World) {
    const FIRST: usize = 100;
    const SESSIONS: usize = 1_000;
    /// What the whole process grows by for each: the session itself is held to 1,536 by `budget`, and tables double.
    const EACH_BYTES_MAX: u64 = 3 * 1024;
    let port = free_port().expect("a port is free");
    let mut command = tied_to_us(&python(), "TERM");
    command.arg(script_path("../../benches/peers/standin.py"));
    command.args([&port.to_string(), &world.server.port.to_string(), &world.upstream.password]);
    let mut stand_in = command.spawn().expect("Python starts");
    wait_for_port(port, PATIENCE).expect("the stand-in listens");
    let (place, gateway) = world.another("idle", |c| {
        let there = format!("address = \"{}\"", world.upstream.address);
        assert!(c.contains(&there), "{c}");
        format!(
            "{}\n[runtime]\nshards = 1\n[limits]\n{CROWD}\n",
            c.replace(&there, &format!("address = \"127.0.0.1:{port}\""))
        )
    });
    let idle = |_| {
        let mut wire = enter(world, &gateway);
        wire.query("select 1");
        assert_eq!(wire.rows().len(), 1);
        wire
    };
    let mut held: Vec<Wire> = (0..FIRST).map(idle).collect();
    let free = metric(&place, "wireward_slots_free");
    let before = dataplane_bytes(&gateway);
    held.extend((FIRST..SESSIONS).map(idle));
    let each = dataplane_bytes(&gateway).saturating_sub(before) / (SESSIONS - FIRST) as u64;
    println!("{each} bytes of the process for an idle session");
    assert!(each <= EACH_BYTES_MAX, "{each} bytes of the process for an idle session");
    assert!(metric(&place, "wireward_slots_free") + 4 >= free, "idle sessions keep buffers");
    let executed = metric(&place, "wireward_executions_total");
    held.iter_mut().take(50).for_each(works);
    assert_eq!(metric(&place, "wireward_executions_total") - executed, 50 * 20);
    drop((gateway, held));
    stand_in.kill().and_then(|()| stand_in.wait()).expect("it is ours");
}

fn half_logins(world: &World) {
    const CLIENTS: u64 = 2_000;
    let (place, gateway) = small(world, "half-logins", "login_timeout_s = 120.0");
    let mut inside = enter(world, &gateway);
    // Half a length, half a startup message, half an encryption request, half a hello without a request.
    let beginnings: [&[u8]; 4] =
        [&[0, 0], &[0, 0, 0, 80, 0, 3, 0, 0, b'u'], &[0, 0, 0, 8, 4], &[22, 3, 1, 2, 0, 1, 0, 1]];
    let half_open: Vec<Wire> = (0..CLIENTS as usize)
        .map(|i| {
            let mut wire = Wire::connect(gateway.port);
            wire.raw(beginnings[i % beginnings.len()]);
            wire
        })
        .collect();
    until("all are there", || metric(&place, "wireward_sessions_open") == CLIENTS + 1);
    works(&mut inside);
    works(&mut enter(world, &gateway));
    // The default of 1,280 buffers: half of them the beginnings may have.
    let free = metric(&place, "wireward_slots_free");
    assert!((600..1_280).contains(&free), "{free} buffers are free");
    assert_eq!(metric(&place, "wireward_sessions_evicted_total"), 0);
    drop(half_open);
}

fn half_messages(world: &World) {
    const SESSIONS: u64 = 300;
    let (place, gateway) = small(world, "half-messages", &format!("active_sessions_max = 1\n{CROWD}"));
    let mut inside = enter(world, &gateway);
    let text = |i: u64| format!("select {i} as number, '{}' as padding", "x".repeat(i as usize * 50));
    let query = |i: u64| frame(b'Q', &[text(i).as_bytes(), b"\0"].concat());
    // Every third has said a whole message before, in the same breath.
    let before = |i: u64| if i.is_multiple_of(3) { frame(b'Q', b"select 'first'\0") } else { Vec::new() };
    let cut = |i: u64| 1 + (i as usize * 37) % (query(i).len() - 1);
    let mut halves: Vec<Wire> = (0..SESSIONS)
        .map(|i| {
            let mut wire = enter(world, &gateway);
            wire.raw(&[&before(i)[..], &query(i)[..cut(i)]].concat());
            wire
        })
        .collect();
    until("most of the buffers are free again", || metric(&place, "wireward_slots_free") > SLOTS_OF_ONE / 3);
    works(&mut inside);
    works(&mut enter(world, &gateway));
    for (i, wire) in (0..SESSIONS).zip(&mut halves) {
        wire.raw(&query(i)[cut(i)..]);
        if i.is_multiple_of(3) {
            assert_eq!(wire.rows().len(), 1);
        }
        let rows = wire.rows();
        assert_eq!(rows[0][0].as_deref(), Some(i.to_string().as_bytes()), "session {i}");
    }
    assert_eq!(metric(&place, "wireward_sessions_evicted_total"), 0);
}

fn half_records(world: &World) {
    const CLIENTS: u64 = 600;
    let (place, gateway) = small(world, "half-records", "active_sessions_max = 1\nlogin_timeout_s = 120.0");
    let mut inside = enter(world, &gateway);
    let half_open: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
            stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).expect("it reads");
            stream.read_exact(&mut [0]).expect("it says S");
            stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).expect("it reads");
            stream
        })
        .collect();
    works(&mut inside);
    works(&mut enter(world, &gateway));
    assert!(metric(&place, "wireward_slots_free") > SLOTS_OF_ONE / 3);
    drop(half_open);
}

fn stalled_readers(world: &World) {
    const SESSIONS: usize = 280;
    /// Two buffers for each, and what a session holds otherwise.
    const GROWTH_BYTES_MAX: u64 = 32 << 20;
    let (place, gateway) = small(world, "stalled", &format!("active_sessions_max = 1\n{CROWD}"));
    let mut inside = enter(world, &gateway);
    works(&mut inside);
    let mut stalled: Vec<Wire> = (0..SESSIONS).map(|_| enter(world, &gateway)).collect();
    let before = dataplane_bytes(&gateway);
    for wire in &mut stalled {
        wire.reads_little();
        wire.query("select repeat('x', 100), generate_series(1, 10000000)");
    }
    until("no buffer is left", || metric(&place, "wireward_slots_free") < SLOTS_OF_ONE / 16);
    let grown = dataplane_bytes(&gateway).saturating_sub(before);
    println!("{SESSIONS} results of 10 M rows that nobody reads: the dataplane grew by {} KiB", grown >> 10);
    assert!(grown < GROWTH_BYTES_MAX, "the dataplane grew by {grown} bytes");
    until("they are ended", || metric(&place, "wireward_sessions_evicted_total") > 0);
    works(&mut inside);
    works(&mut enter(world, &gateway));
    drop(stalled);
}

fn mute_clients(world: &World) {
    const PLACES: usize = 12;
    let (place, gateway) = small(world, "mute", &format!("max_client_conn = {PLACES}\nlogin_timeout_s = 120.0"));
    let mut inside = enter(world, &gateway);
    let mute: Vec<Wire> = (0..2 * PLACES).map(|_| Wire::connect(gateway.port)).collect();
    until("the places are taken", || metric(&place, "wireward_sessions_open") >= PLACES as u64);
    let token = world.through("dba").password;
    let mut in_place = Vec::new();
    until("clients that log in get the places of those that do not", || {
        in_place.extend(Wire::login(gateway.port, NAME, "shop", token.as_bytes()).ok());
        in_place.len() == PLACES - 1
    });
    // All who are in have a name now: one more is told so, and nobody is sent away.
    let refused = Wire::login(gateway.port, NAME, "shop", token.as_bytes()).err().expect("there is no room");
    assert_eq!(refused.sqlstate(), "53300");
    works(&mut inside);
    in_place.iter_mut().for_each(works);
    drop(mute);
}

fn large_names(world: &World) {
    let (_place, gateway) = small(world, "names", "prepared_bytes_max = 1048576");
    let mut wire = enter(world, &gateway);
    let text = |i: usize| format!("select {i} as \"{}\", '{}'", "x".repeat(60), "y".repeat(3_000));
    let mut prepared = 0;
    let refused = loop {
        wire.send(b'P', &[format!("name {prepared}\0{}\0", text(prepared)).as_bytes(), b"\0\0"].concat());
        wire.send(b'S', b"");
        let first = wire.expect();
        if first.kind == b'E' {
            break first;
        }
        assert_eq!((first.kind, wire.expect().kind), (b'1', b'Z'));
        prepared += 1;
        assert!(prepared < 1_000, "nothing bounds what names keep");
    };
    assert!((200..340).contains(&prepared), "{prepared} texts of 3 KB in 1 MiB");
    assert_eq!(refused.sqlstate(), "54000");
    assert!(refused.field(b'M').unwrap_or_default().contains("limits.prepared_bytes_max"), "{refused:?}");
    // Who closes what it does not need may go on for ever.
    let mut wire = enter(world, &gateway);
    for i in 0..2 * prepared {
        wire.send(b'P', &[format!("name {i}\0{}\0", text(i)).as_bytes(), b"\0\0"].concat());
        wire.send(b'C', format!("Sname {i}\0").as_bytes());
        wire.send(b'S', b"");
        assert!(wire.until_ready().iter().all(|m| m.kind != b'E'), "after {i}");
    }
}

fn listeners(world: &World) {
    let (_place, gateway) = small(world, "listeners", "");
    let mut wire = enter(world, &gateway);
    works(&mut wire);
    let before = dataplane_bytes(&gateway);
    for hundred in 0..100 {
        let texts: String = (0..100).map(|i| format!("listen channel_{hundred}_{i};")).collect();
        wire.query(&texts);
        assert!(wire.until_ready().iter().all(|m| m.kind != b'E'));
    }
    let grown = dataplane_bytes(&gateway).saturating_sub(before);
    // Plans of 100 texts are remembered: 4 KiB each at most.
    assert!(grown < 4 << 20, "the dataplane grew by {grown} bytes");
    works(&mut wire);
}

fn descriptors(world: &World) {
    const OPEN_MAX: usize = 100;
    let line = format!("#!/bin/sh\nulimit -n {OPEN_MAX}\nexec {} \"$@\"\n", wireward().display());
    let program = world.directory.0.join("few-descriptors.sh");
    fs::write(&program, line).expect("our directory is writable");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let one_shard = |c| format!("{c}\n[runtime]\nshards = 1\n");
    let (place, gateway) = world.another_by(&program, "few-descriptors", one_shard);
    let mut inside = enter(world, &gateway);
    let admin = place.admin().expect("an admin listener");
    let begun = Instant::now();
    let crowd: Vec<Wire> = (0..2 * OPEN_MAX).map(|_| Wire::connect(gateway.port)).collect();
    sleep(Duration::from_secs(1));
    works(&mut inside);
    drop(crowd);
    until("it accepts again", || TcpStream::connect(admin.trim_start_matches("http://")).is_ok());
    works(&mut enter(world, &gateway));
    let failures = metric(&place, "wireward_accept_failures_total");
    // Ten tries a second at most.
    let tries_max = begun.elapsed().as_millis() as u64 / 100 + 1;
    assert!((1..=tries_max).contains(&failures), "{failures} of {tries_max} possible accepts failed");
}

/// A message above a slot.
fn asks_at_length(wire: &mut Wire) {
    wire.query(&format!("select length('{}')", "x".repeat(44_000)));
    assert_eq!(wire.rows(), [[Some(b"44000".to_vec())]]);
}

fn announced(world: &World) {
    let (_place, gateway) = small(world, "announced", "gathered_bytes_max = 100000000");
    let announcing: Vec<Wire> = (0..16)
        .map(|_| {
            let mut wire = enter(world, &gateway);
            let bytes: u32 = (64 << 20) - 100;
            wire.raw(&[&b"B"[..], &bytes.to_be_bytes(), &[0, 0]].concat());
            wire
        })
        .collect();
    let mut honest = enter(world, &gateway);
    for _ in 0..10 {
        asks_at_length(&mut honest);
    }
    drop(announcing);
}

fn keepers_of_room(world: &World) {
    let (_place, gateway) = small(world, "keepers", "gathered_bytes_max = 90000000");
    // Together they have sent all that there is room for, and go silent.
    let mut keepers: Vec<Wire> = (0..2)
        .map(|_| {
            let mut wire = enter(world, &gateway);
            let bytes: u32 = (64 << 20) - 100;
            wire.raw(&[&b"B"[..], &bytes.to_be_bytes(), &vec![0; 45 << 20]].concat());
            wire
        })
        .collect();
    let mut honest = enter(world, &gateway);
    let begun = Instant::now();
    asks_at_length(&mut honest);
    println!("a message of 44 KB waited {:?}", begun.elapsed());
    asks_at_length(&mut honest);
    let ended = keepers.iter_mut().find_map(|wire| wire.next()).expect("one of them is told");
    assert_eq!(ended.sqlstate(), "54000");
    assert!(ended.field(b'M').is_some_and(|words| words.contains("limits.gathered_bytes_max")), "{ended:?}");
}

fn one_subject(world: &World) {
    const PLACES: usize = 3;
    let (_place, gateway) = small(world, "one-subject", &format!("sessions_per_subject_max = {PLACES}"));
    let agent = || enter_as(world, &gateway, "agent");
    let mut idle: Vec<Wire> = (0..PLACES).filter_map(|_| agent().ok()).collect();
    assert_eq!(idle.len(), PLACES);
    let refused = agent().err().expect("the agent has its places");
    assert_eq!(refused.sqlstate(), "53300");
    assert!(refused.field(b'M').is_some_and(|words| words.contains("limits.sessions_per_subject_max")), "{refused:?}");
    works(&mut enter(world, &gateway));
    for _ in 0..3 * PLACES {
        idle.pop();
        until("the place of one that has gone is free", || agent().map(|wire| idle.push(wire)).is_ok());
    }
    assert!(agent().is_err(), "places are not made by going");
}

/// A statement of nearly so many bytes in which every name is looked for in many: what costs most to analyse.
fn dear(bytes: usize, number: usize) -> String {
    let columns = (0..10).map(|c| format!("1 c{c}")).collect::<Vec<_>>().join(",");
    let tables = (0..bytes / 30).map(|t| format!("w t{t}")).collect::<Vec<_>>().join(",");
    let head = format!("with w as (select {columns}), v as (select * from {tables}) select ");
    let tail = format!(",{number} from {}", (0..bytes / 40).map(|v| format!("v a{v}")).collect::<Vec<_>>().join(","));
    let names = bytes.saturating_sub(head.len() + tail.len()) / 2;
    format!("{head}{}{tail}", vec!["q"; names.max(1)].join(","))
}

fn eight_texts(world: &World) {
    let (_place, gateway) = small(world, "eight-texts", "");
    let mut honest = enter(world, &gateway);
    works(&mut honest);
    let mut dear_one = enter(world, &gateway);
    let texts: Vec<u8> = (0..8).flat_map(|n| frame(b'Q', &[dear(3_900, n).as_bytes(), b"\0"].concat())).collect();
    assert!(texts.len() <= 32 << 10);
    dear_one.raw(&texts);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        works(&mut honest);
        longest = longest.max(asked.elapsed() / 20);
    }
    println!("beside eight dear texts of one write a known statement took {longest:?} at most");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
    drop(dear_one);
}

fn long_texts(world: &World) {
    let (_place, gateway) = small(world, "long-texts", "");
    let mut honest = enter(world, &gateway);
    let others: Vec<Wire> = (0..8)
        .map(|n| {
            let mut wire = enter_as(world, &gateway, "analyst").unwrap_or_else(|why| panic!("{why:?}"));
            wire.query(&dear(30_000, n));
            wire
        })
        .collect();
    let begun = Instant::now();
    for n in 0..5 {
        honest.query(&format!("select {n} /* {} */", "x".repeat(5_000)));
        assert_eq!(honest.rows().len(), 1);
    }
    println!("five new statements of 5 KB took {:?} beside eight of 30 KB of another subject", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(others);
}

/// What is answered to a text, and the largest of what is `measured` meanwhile.
fn ask_watched(wire: &mut Wire, text: &str, measured: impl Fn() -> u64) -> (Vec<Message>, u64) {
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            wire.query(text);
            wire.until_ready()
        });
        let mut peak = 0;
        while !asking.is_finished() {
            peak = peak.max(measured());
            sleep(Duration::from_millis(2));
        }
        (asking.join().expect("it is answered"), peak)
    })
}

fn long_text_memory(world: &World) {
    /// What is promised of one text, and what may stay.
    const PEAK_BYTES_MAX: u64 = 64 << 20;
    const STAYS_BYTES_MAX: u64 = 32 << 20;
    const TEXT_BYTES: usize = 1_000_000;
    let list = |part: &str| part.repeat(TEXT_BYTES / part.len());
    let (_place, gateway) = small(world, "long-text", "");
    let mut wire = enter(world, &gateway);
    works(&mut wire);
    let before = dataplane_bytes(&gateway);
    for (text, is_judged) in [
        (format!("select array[{}a]", list("a,")), false),
        (format!("select 1 from orders where {} id = 0", list("id=1 or ")), false),
        (format!("select count(*) from orders where id in ({}1)", list("123456,")), true),
        (format!("select count(*) from orders where status in ({}'x')", list("'ab',")), true),
        (format!("select count(*) from (values {}(1, 'a', 1.5)) v", list("(1, 'abc', 2.5),")), true),
        (format!("select '{}'", list("a word, ")), true),
        (format!("select array[{}id]::text is null from orders limit 0", "id,".repeat(14_500)), true),
        (format!("select 1 from orders where false and ({} id = 0)", "id=1 or ".repeat(7_500)), true),
        (format!("select case {} end from orders limit 0", "when id then id ".repeat(6_500)), true),
        (list("select 1 from (select 1) o;"), true),
    ] {
        let begun = Instant::now();
        let (messages, peak) = ask_watched(&mut wire, &text, || dataplane_bytes(&gateway).saturating_sub(before));
        // What the server says to it is its own affair.
        let refused = messages.iter().find(|message| message.kind == b'E' && message.sqlstate() == "54000");
        println!("{}…: {:?}, {} MiB at the peak", &text[..30], begun.elapsed(), peak >> 20);
        assert_eq!(refused.is_none(), is_judged, "{}: {refused:?}", &text[..40]);
        if let Some(refused) = refused {
            let words = refused.field(b'M').unwrap_or_default();
            assert!(words.contains("too many parts"), "{refused:?}");
        }
        // The text itself is gathered, copied for the analyser, and sent.
        assert!(peak <= PEAK_BYTES_MAX + 4 * text.len() as u64, "{}: {peak} bytes", &text[..40]);
        let begun = Instant::now();
        until("what it took is given back", || dataplane_bytes(&gateway) <= before + STAYS_BYTES_MAX);
        assert!(begun.elapsed() < Duration::from_secs(10), "{}: {:?}", &text[..40], begun.elapsed());
    }
}

fn half_requests(world: &World) {
    let (place, gateway) = small(world, "half-requests", "");
    let url = place.admin().expect("an admin listener");
    let address = url.trim_start_matches("http://");
    let half = |_| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").expect("it reads");
        stream
    };
    for _ in 0..3 {
        let halves: Vec<TcpStream> = (0..200).map(half).collect();
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: wireward\r\n\r\n").expect("it reads");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("it answers and closes");
        println!("/healthz took {:?} beside 200 half requests", begun.elapsed());
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(halves);
    }
    drop(gateway);
}
