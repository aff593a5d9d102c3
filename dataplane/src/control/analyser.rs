//! The analyser threads: long statements are judged here, so that a shard never waits for a parser (decision 8).

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::policy::{Decision, Subject};

/// Texts up to this many bytes are judged on the shard at once.
pub const INLINE_BYTES_MAX: usize = 4096;

/// Stack of an analysing thread, bytes: the deepest tree that the length limits allow fits (see `statement::postgres`).
pub const STACK_BYTES: usize = 64 << 20;

/// Texts that may wait; when it is full the session is told to come again.
const QUEUE_MAX: usize = 1024;

/// A text to be judged for a session.
pub struct Job {
    pub session: u64,
    /// The session's place in its shard.
    pub index: u32,
    pub key: u128,
    pub subject: Subject,
    pub text: Box<[u8]>,
    /// Where the decision goes.
    pub deliver: Arc<dyn Fn(Decided) + Send + Sync>,
}

pub struct Decided {
    pub session: u64,
    /// The session's place in its shard.
    pub index: u32,
    pub key: u128,
    pub text: Box<[u8]>,
    pub decision: Decision,
}

/// Hands jobs to the threads. Cloned to every shard.
#[derive(Clone)]
pub struct Analyser(Sender<Job>);

impl Analyser {
    /// Several threads, so that one text which takes seconds does not hold up all others.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (sender, receiver) = bounded(QUEUE_MAX);
        for _ in 0..threads {
            let receiver: Receiver<Job> = receiver.clone();
            let thread = std::thread::Builder::new().name("analyser".into()).stack_size(STACK_BYTES);
            thread.spawn(move || run(&receiver))?;
        }
        Ok(Self(sender))
    }

    /// Without a thread: whoever holds the other end judges, one text a call. For the simulator.
    pub fn by_hand() -> (Self, ByHand) {
        let (sender, receiver) = bounded(QUEUE_MAX);
        (Self(sender), ByHand(receiver))
    }

    /// False if the queue is full.
    pub fn submit(&self, job: Job) -> bool {
        self.0.try_send(job).is_ok()
    }
}

/// The texts that wait for [`Analyser::by_hand`].
pub struct ByHand(Receiver<Job>);

impl ByHand {
    /// Judges the text that has waited longest. False if none waits.
    pub fn judge_one(&self) -> bool {
        self.0.try_recv().map(judge).is_ok()
    }
}

fn run(jobs: &Receiver<Job>) {
    jobs.iter().for_each(judge);
}

fn judge(job: Job) {
    let Job { session, index, key, subject, text, deliver } = job;
    let decision = subject.decide(&text);
    deliver(Decided { session, index, key, text, decision });
}
