//! The recorder's core under failing disks, lying producers and dying processes.

mod support;

use recorder::core::{Failure, RETRY_MS, Report, Step};
use recorder::segment::writer::Limits;
use ring::{Consumer, Kind, Memory, Producer};
use std::sync::atomic::Ordering;
use support::{Bench, Directory, assert_complete, heap, problems, put, put_many, read_all, write};

#[test]
fn after_a_failed_flush_the_records_go_to_a_new_segment_and_only_then_leave_the_ring() {
    let directory = Directory::new();
    let path = directory.recordings();
    let ring = heap(64 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let mut bench = Bench::new(&[ring], Limits::default(), Default::default());
    let mut next = 1;
    put_many(&mut producer, 10, &mut next);
    bench.write_all(&path);
    put_many(&mut producer, 10, &mut next);
    let batch = bench.next_batch().unwrap();
    write(&path, &batch);
    bench.fail(Failure::Io);
    assert_eq!(producer.durable_seq(), 10, "the kernel may have dropped what was written");
    assert_eq!(bench.core.take_reports(), [Report::Stopped(Failure::Io)]);
    assert_eq!(bench.core.step(bench.now), Step::Wait { ms: RETRY_MS });
    bench.pass(RETRY_MS);
    let again = bench.next_batch().unwrap();
    assert!(again.segment == batch.segment + 1 && again.create);
    write(&path, &again);
    bench.core.done(Ok(()), bench.now);
    assert_eq!(bench.core.take_reports(), [Report::Resumed]);
    assert_eq!(producer.durable_seq(), 20);
    bench.finish(&path);
    assert_complete(&path, 20);
    assert_eq!(problems(&directory), []);
}

#[test]
fn a_full_disk_stops_the_heartbeat_and_the_same_bytes_are_written_when_there_is_room() {
    let directory = Directory::new();
    let path = directory.recordings();
    let ring = heap(64 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let mut bench = Bench::new(&[ring], Limits::default(), Default::default());
    let mut next = 1;
    put_many(&mut producer, 10, &mut next);
    let batch = bench.next_batch().unwrap();
    bench.fail(Failure::NoSpace);
    let heartbeat = producer.recorder_heartbeat_ns();
    for _ in 0..5 {
        bench.pass(RETRY_MS);
        assert_eq!(bench.core.step(bench.now), Step::Write);
        assert_eq!(bench.core.batch(), Some(&batch));
        bench.fail(Failure::NoSpace);
        assert_eq!(producer.recorder_heartbeat_ns(), heartbeat, "no heartbeat while nothing is recorded");
    }
    assert_eq!(producer.durable_seq(), 0);
    bench.pass(RETRY_MS);
    bench.finish(&path);
    assert_eq!(producer.recorder_heartbeat_ns(), bench.now.unix_ns);
    assert_complete(&path, 10);
}

#[test]
fn a_lying_producer_poisons_its_own_ring_only() {
    let directory = Directory::new();
    let path = directory.recordings();
    let (honest, liar) = (heap(64 << 10, 1), heap(64 << 10, 2));
    let (mut good, mut bad) = (Producer::attach(honest).unwrap(), Producer::attach(liar).unwrap());
    let mut bench = Bench::new(&[honest, liar], Limits::default(), Default::default());
    put(&mut bad, Kind::Open, 77, b"{}");
    bench.write_all(&path);
    liar.store(16, 1 << 50, Ordering::Relaxed);
    let mut next = 1;
    put_many(&mut good, 5, &mut next);
    bench.pass(1000);
    bench.finish(&path);
    assert!(matches!(
        bench.core.take_reports()[..],
        [Report::ProducerDied { .. }, Report::RingPoisoned { ring: 2, .. }]
    ));
    assert!(bad.recorder_heartbeat_ns() < good.recorder_heartbeat_ns());
    assert_complete(&path, 5);
    let closes: Vec<_> = read_all(&path).into_values().filter(|(kind, ..)| *kind == Kind::Close).collect();
    assert!(closes.len() == 1 && closes[0].1 == 77, "{closes:?}");
    assert_eq!(problems(&directory), []);
}

#[test]
fn a_record_for_a_session_of_another_ring_poisons_the_ring_that_names_it() {
    let directory = Directory::new();
    let (first, second) = (heap(64 << 10, 1), heap(64 << 10, 2));
    let (mut one, mut two) = (Producer::attach(first).unwrap(), Producer::attach(second).unwrap());
    let mut bench = Bench::new(&[first, second], Limits::default(), Default::default());
    put(&mut one, Kind::Open, 5, b"{}");
    bench.write_all(&directory.recordings());
    put(&mut two, Kind::Request, 5, b"forged");
    bench.finish(&directory.recordings());
    assert!(matches!(bench.core.take_reports()[..], [Report::RingPoisoned { ring: 2, .. }]));
    assert!(!read_all(&directory.recordings()).values().any(|(.., payload)| payload == b"forged"));
}

/// The sessions that the recorder closed, in order.
fn closed_by_recorder(directory: &Directory) -> Vec<u64> {
    let records = read_all(&directory.recordings());
    let closes = records.into_values().filter(|(kind, ..)| *kind == Kind::Close);
    closes.filter(|(.., payload)| payload.windows(13).any(|w| w == b"producer died")).map(|(_, id, _)| id).collect()
}

#[test]
fn sessions_of_a_dead_producer_are_closed_and_those_of_its_successor_are_not() {
    // The recorder dies and comes back before, between, or after the producer's death and its successor's first record.
    for restart_at in 0..4 {
        let directory = Directory::new();
        let path = directory.recordings();
        let ring = heap(64 << 10, 1);
        let mut bench = Bench::new(&[ring], Limits::default(), Default::default());
        let restart = |bench: &mut Bench, at: u32| {
            bench.write_all(&path);
            if at == restart_at {
                *bench = Bench::recovered(&[ring], Limits::default(), &path);
            }
        };
        let mut dead = Producer::attach(ring).unwrap();
        put(&mut dead, Kind::Open, 1, b"{}");
        put(&mut dead, Kind::Open, 2, b"{}");
        put(&mut dead, Kind::Close, 2, b"{}");
        restart(&mut bench, 0);
        std::mem::forget(dead.try_claim(100).unwrap());
        let mut successor = Producer::attach(ring).unwrap();
        restart(&mut bench, 1);
        put(&mut successor, Kind::Open, 3, b"{}");
        restart(&mut bench, 2);
        put(&mut successor, Kind::Request, 3, b"x");
        restart(&mut bench, 3);
        bench.finish(&path);
        assert_eq!(closed_by_recorder(&directory), [1], "recorder restarted at {restart_at}");
        assert_eq!(problems(&directory), []);
    }
}

#[test]
fn sessions_whose_ring_is_gone_are_closed_at_the_next_start() {
    let directory = Directory::new();
    let ring = heap(64 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    put(&mut producer, Kind::Open, 9, b"{}");
    Bench::new(&[ring], Limits::default(), Default::default()).finish(&directory.recordings());
    let fresh = heap(64 << 10, 2);
    Bench::recovered(&[fresh], Limits::default(), &directory.recordings()).finish(&directory.recordings());
    assert_eq!(closed_by_recorder(&directory), [9]);
    Bench::recovered(&[fresh], Limits::default(), &directory.recordings()).finish(&directory.recordings());
    assert_eq!(closed_by_recorder(&directory), [9], "once");
}

#[test]
fn a_block_waits_for_company_unless_a_producer_asks() {
    let ring = heap(64 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let mut bench = Bench::new(&[ring], Limits::default(), Default::default());
    put(&mut producer, Kind::Note, 1, b"{}");
    assert_eq!(bench.core.step(bench.now), Step::Wait { ms: 50 });
    bench.pass(20);
    assert_eq!(bench.core.step(bench.now), Step::Wait { ms: 30 });
    assert!(producer.wake_needed());
    // What `Mapped::wake` stores.
    ring.store(96, 0, Ordering::SeqCst);
    assert_eq!(bench.core.step(bench.now), Step::Write);
    assert!(producer.wake_needed(), "armed again");
}

#[test]
fn the_older_of_two_recorders_loses_its_rings() {
    let directory = Directory::new();
    let ring = heap(64 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let mut older = Bench::new(&[ring], Limits::default(), Default::default());
    let newer = Consumer::attach(ring).unwrap();
    put(&mut producer, Kind::Note, 1, b"{}");
    older.write_all(&directory.recordings());
    assert_eq!(older.core.take_reports(), [Report::Fenced]);
    assert_eq!((producer.durable_seq(), newer.durable_seq()), (0, 0));
}

#[test]
fn a_segment_ends_when_it_is_large_or_old() {
    let directory = Directory::new();
    let path = directory.recordings();
    let ring = heap(256 << 10, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let limits = Limits { segment_bytes_max: 32 << 10, segment_age_ms_max: 10_000 };
    let mut bench = Bench::new(&[ring], limits, Default::default());
    let mut next = 1;
    for _ in 0..6 {
        put_many(&mut producer, 30, &mut next);
        bench.write_all(&path);
    }
    let by_size = recorder::segment::list(&path).unwrap().len();
    assert!((2..5).contains(&by_size), "{by_size}");
    put_many(&mut producer, 1, &mut next);
    bench.write_all(&path);
    bench.pass(10_000);
    bench.write_all(&path);
    assert_eq!(bench.core.finish(bench.now), None, "the old segment has ended by itself");
    assert_complete(&path, next - 1);
    assert_eq!(problems(&directory), []);
}
