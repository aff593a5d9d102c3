//! How fast ring bytes become segments. Run with
//! `cargo test --release -p recorder --test throughput -- --ignored --nocapture --test-threads=1`.

mod support;

use recorder::compress::{Compressor, Effort};
use recorder::core::Step;
use recorder::segment::writer::Limits;
use recorder::shell::choice::Choice;
use recorder::{RunConfig, run};
use ring::{ClaimError, Flags, Kind, Mapped, Producer};
use rustix::time::{ClockId, clock_gettime};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Bench, Directory, Random, heap};

/// One pgbench select: Parse-less Bind, Execute, Sync of a client, and its row.
fn transaction(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    let (account, balance) = (random.below(100_000_000), random.below(1_000_000));
    let request = format!("B\0\0\0\x25\0P_0\0\0\0\0\x01\0\0\0\x08{account:08}\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04");
    let reply = format!("2\0\0\0\x04D\0\0\0\x11\0\x01\0\0\0\x07{balance:07}C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I");
    (request.into_bytes(), reply.into_bytes())
}

#[test]
#[ignore = "a measurement"]
fn ring_bytes_become_blocks_at_this_speed() {
    let ring = heap(64 << 20, 1);
    let mut producer = Producer::attach(ring).unwrap();
    let mut bench = Bench::new(&[ring], Limits::default(), Default::default());
    let mut random = Random(5);
    let (mut filled, mut filling) = (0_u64, Duration::ZERO);
    let (mut draining, mut stored) = (Duration::ZERO, 0_u64);
    for round in 0..24 {
        // Below half of the ring the recorder uses zstd level 1; the rounds are the same but for the data.
        let began = Instant::now();
        while producer.used_bytes() < 30 << 20 {
            let (request, reply) = transaction(&mut random);
            let before = producer.used_bytes();
            for (kind, bytes) in [(Kind::Request, &request), (Kind::Response, &reply)] {
                let mut claim = producer.try_claim(bytes.len()).unwrap();
                claim.write(bytes).unwrap();
                let _ = claim.commit(kind, Flags::WHOLE, 1 + random.below(64), round);
            }
            filled += (producer.used_bytes() - before) as u64;
        }
        filling += began.elapsed();
        let began = Instant::now();
        while bench.core.step(bench.now) == Step::Write {
            stored += bench.core.batch().unwrap().bytes.len() as u64;
            bench.core.done(Ok(()), bench.now);
        }
        draining += began.elapsed();
        bench.pass(60);
    }
    let mb = |bytes: u64, time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    println!("fill with generated records: {:.0} MB/s", mb(filled, filling));
    println!(
        "ring to hashed blocks, zstd 1: {:.0} MB/s, {:.2} of the size",
        mb(filled, draining),
        stored as f64 / filled as f64
    );
}

#[test]
#[ignore = "a measurement"]
fn compression_and_hash_run_at_this_speed() {
    let mut random = Random(6);
    let mut raw = Vec::new();
    for seq in 0_u64.. {
        let (request, reply) = transaction(&mut random);
        for bytes in [request, reply] {
            raw.extend([9; 8]);
            raw.extend(
                [bytes.len() as u64, 7, seq, 1_700_000_000_000_000_000 + seq * 13_007].map(u64::to_le_bytes).concat(),
            );
            raw.extend(bytes);
        }
        if raw.len() >= 1 << 20 {
            break;
        }
    }
    let mut compressor = Compressor::new().unwrap();
    for effort in [Effort::Normal, Effort::Fast, Effort::None] {
        let (began, mut stored) = (Instant::now(), 0);
        for _ in 0..400 {
            let (_, bytes) = compressor.compress(&raw, effort);
            stored = bytes.len();
            let _ = recorder::chain::Hash::of(&[bytes]);
        }
        let mb = raw.len() as f64 * 400.0 / 1e6 / began.elapsed().as_secs_f64();
        println!("{effort:?}: {mb:.0} MB/s, {:.2} of the size", stored as f64 / raw.len() as f64);
    }
}

/// How much of a ring the producer fills: the recorder compresses below a half, and not at all above three quarters.
const FILLS: [(&str, usize); 2] = [("zstd 1", 45), ("no codec", 95)];
const RING_BYTES: usize = 64 << 20;
const ROUND_BYTES: u64 = 256 << 20;

#[test]
#[ignore = "a measurement"]
fn ring_bytes_become_segments_on_disk_at_this_speed_through_each_shell() {
    for round in 1..=3 {
        for (codec, percent) in FILLS {
            for shell in [Choice::Plain, Choice::Glommio] {
                println!("round {round}, {codec}, {shell:?}: {}", to_disk(shell, percent));
            }
        }
    }
}

fn to_disk(shell: Choice, percent: usize) -> String {
    let directory = Directory::new();
    let ring = ring::create(RING_BYTES).unwrap();
    let mut producer = Producer::attach(ring::map(&ring).unwrap()).unwrap();
    let stop = AtomicBool::new(false);
    let config = RunConfig { report: |line| println!("{line}"), ..directory.config(&ring, shell) };
    let (began, cpu) = (Instant::now(), seconds(ClockId::ProcessCPUTime));
    let (ring_bytes, producing) = std::thread::scope(|scope| {
        scope.spawn(|| run(config, &stop).unwrap());
        let before = seconds(ClockId::ThreadCPUTime);
        let filled = fill(&mut producer, percent);
        let producing = seconds(ClockId::ThreadCPUTime) - before;
        stop.store(true, Ordering::Relaxed);
        (filled, producing)
    });
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), seconds(ClockId::ProcessCPUTime) - cpu - producing);
    let path = recorder::segment::path(&directory.recordings(), 1);
    let stored = std::fs::metadata(&path).unwrap().len();
    let cached = Command::new("fincore").args(["-b", "-n", "-o", "RES"]).arg(&path).output().unwrap().stdout;
    let mb = ring_bytes as f64 / 1e6;
    format!(
        "{:.0} MB/s of ring bytes, {:.0} MB/s a second of CPU, {:.2} of the size, {} of {stored} bytes left in the page cache",
        mb / elapsed,
        mb / cpu,
        stored as f64 / ring_bytes as f64,
        String::from_utf8_lossy(&cached).trim()
    )
}

/// Commits records until `ROUND_BYTES` have gone through the ring, and waits until it is empty; how many bytes.
fn fill(producer: &mut Producer<Mapped>, percent: usize) -> u64 {
    let mut random = Random(7);
    let records: Vec<Vec<u8>> = (0..4096).map(|_| transaction(&mut random)).flat_map(|(a, b)| [a, b]).collect();
    let (mut filled, mut at) = (0, 0);
    while filled < ROUND_BYTES {
        let bytes = &records[at % records.len()];
        while at % 64 == 0 && producer.used_bytes() > RING_BYTES / 100 * percent {
            std::thread::sleep(Duration::from_micros(200));
        }
        match producer.try_claim(bytes.len()) {
            Ok(mut claim) => {
                claim.write(bytes).unwrap();
                let _ = claim.commit(Kind::Request, Flags::WHOLE, 1 + at as u64 % 64, at as u64);
                // Header and payload, padded to 8 bytes (`recorder/ring/RECORD.md`).
                filled += (32 + bytes.len() as u64).next_multiple_of(8);
                at += 1;
            }
            Err(ClaimError::Full) => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => panic!("{error}"),
        }
    }
    while producer.used_bytes() > 0 {
        std::thread::sleep(Duration::from_micros(200));
    }
    filled
}

fn seconds(clock: ClockId) -> f64 {
    let now = clock_gettime(clock);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
