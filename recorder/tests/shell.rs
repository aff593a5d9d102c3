//! The recorder as the binary runs it, through both shells: one thread, a stop flag, real files.

mod support;

use recorder::segment::format::{End, Part};
use recorder::segment::reader::Reader;
use recorder::shell::choice::Choice;
use recorder::{RunError, run};
use ring::{Flags, Kind, Level, Producer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Directory, problems, read_all};

#[test]
fn a_woken_recorder_confirms_and_a_stopped_one_drains_and_ends_its_segment() {
    for shell in [Choice::Plain, Choice::Glommio] {
        println!("{shell:?}");
        confirm_and_drain(shell);
    }
}

fn confirm_and_drain(shell: Choice) {
    let directory = Directory::new();
    let ring = ring::create(1 << 20).unwrap();
    let mut producer = Producer::attach(ring::map(&ring).unwrap()).unwrap();
    let stop = AtomicBool::new(false);
    let put = |producer: &mut Producer<ring::Mapped>| {
        let mut claim = producer.try_claim(2).unwrap();
        claim.write(b"{}").unwrap();
        claim.commit(Kind::Note, Flags::WHOLE, 1, 1)
    };
    std::thread::scope(|scope| {
        let recorder = scope.spawn(|| run(directory.config(&ring, shell), &stop));
        let receipt = put(&mut producer);
        producer.memory().wake();
        let until = Instant::now() + Duration::from_secs(10);
        while producer.confirm(receipt).is_none_or(|confirmed| confirmed.level != Level::L2) {
            assert!(Instant::now() < until, "the record does not become durable");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(producer.recorder_heartbeat_ns() > 0);
        let fresh = ring::create(1 << 20).unwrap();
        let second = run(directory.config(&fresh, shell), &AtomicBool::new(true));
        assert!(matches!(second, Err(RunError::Locked(_))), "{second:?}");
        for _ in 0..500 {
            let _ = put(&mut producer);
        }
        stop.store(true, Ordering::Relaxed);
        recorder.join().unwrap().unwrap();
    });
    assert_eq!((producer.durable_seq(), producer.used_bytes()), (501, 0));
    assert_eq!(read_all(&directory.recordings()).len(), 501);
    let reader = Reader::open(&recorder::segment::path(&directory.recordings(), 1)).unwrap();
    assert_eq!(reader.footer().unwrap().0.part, Part::Footer(End::Stopped));
    assert_eq!(problems(&directory), []);
    assert!(std::fs::read_to_string(directory.recordings().join("checkpoints")).unwrap().ends_with("}\n"));
}
