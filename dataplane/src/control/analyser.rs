//! The analyser threads: what would hold up a shard is judged here (decision 8).
//!
//! Fair by identity: each has a line of its own, lines take turns, and no identity has all threads at once. A session has one
//! text here at most, so a line is no longer than its identity's sessions are many (`limits.sessions_per_subject_max`), and
//! what it holds is no more than what its sessions hold already. How long one text may take its `Budget` says.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::policy::{Decision, Subject};

/// Texts up to this many bytes may be judged on the shard at once.
pub const INLINE_BYTES_MAX: usize = 4096;

/// Stack of an analysing thread, bytes: the deepest tree that the length limits allow fits (see `statement::postgres`).
pub const STACK_BYTES: usize = 64 << 20;

/// A text to be judged for a session.
pub struct Job {
    /// Whose line it stands in: see [`crate::shard::seats::Seat::who`].
    pub who: u64,
    pub session: u64,
    /// The session's place in its shard.
    pub index: u32,
    /// The text's key. When the session has dropped its own, nobody waits for the decision any more.
    pub key: Weak<u128>,
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

/// Hands jobs to the threads. Cloned to every shard; the threads end with the last clone.
#[derive(Clone)]
pub struct Analyser(Arc<Open>);

/// Ends the threads when it drops.
struct Open(Arc<Queue>);

struct Queue {
    lines: Mutex<Lines>,
    news: Condvar,
}

#[derive(Default)]
struct Lines {
    /// Who had a thread last stands behind all others. Each has a text that waits, or one that is being judged.
    lines: VecDeque<Line>,
    /// Threads that one identity may have at once.
    each_max: usize,
    closed: bool,
}

struct Line {
    who: u64,
    running: usize,
    jobs: VecDeque<Job>,
}

impl Analyser {
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let queue = Queue::new(threads.saturating_sub(1).max(1));
        for _ in 0..threads {
            let queue = queue.clone();
            let thread = std::thread::Builder::new().name("analyser".into()).stack_size(STACK_BYTES);
            thread.spawn(move || queue.run())?;
        }
        Ok(Self(Arc::new(Open(queue))))
    }

    /// Without a thread: whoever holds the other end judges, one text a call. For the simulator.
    pub fn by_hand() -> (Self, ByHand) {
        let queue = Queue::new(usize::MAX);
        (Self(Arc::new(Open(queue.clone()))), ByHand(queue))
    }

    pub fn submit(&self, job: Job) {
        let Open(queue) = &*self.0;
        queue.lines().add(job);
        queue.news.notify_one();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lines().closed = true;
        self.0.news.notify_all();
    }
}

/// The texts that wait for [`Analyser::by_hand`].
pub struct ByHand(Arc<Queue>);

impl ByHand {
    /// Judges the text whose turn it is. False if none waits.
    pub fn judge_one(&self) -> bool {
        let job = self.0.lines().next();
        job.map(|job| self.0.judge(job)).is_some()
    }
}

impl Queue {
    fn new(each_max: usize) -> Arc<Self> {
        let lines = Lines { each_max, ..Lines::default() };
        Arc::new(Self { lines: Mutex::new(lines), news: Condvar::new() })
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(job) = self.wait() {
            self.judge(job);
        }
    }

    fn wait(&self) -> Option<Job> {
        let mut lines = self.lines();
        loop {
            if lines.closed {
                return None;
            }
            match lines.next() {
                Some(job) => return Some(job),
                None => lines = self.news.wait(lines).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn judge(&self, job: Job) {
        let who = job.who;
        // A thread that is lost would be missed by everybody; the one session notices by its own.
        let _ = catch_unwind(AssertUnwindSafe(|| decide(job)));
        self.lines().done(who);
    }
}

fn decide(job: Job) {
    let Job { session, index, key, subject, text, deliver, .. } = job;
    let decision = subject.decide(&text);
    if let Some(key) = key.upgrade() {
        deliver(Decided { session, index, key: *key, text, decision });
    }
}

impl Lines {
    fn add(&mut self, job: Job) {
        match self.lines.iter_mut().find(|line| line.who == job.who) {
            Some(line) => {
                line.forget_unwanted();
                line.jobs.push_back(job);
            }
            None => self.lines.push_back(Line { who: job.who, running: 0, jobs: VecDeque::from([job]) }),
        }
    }

    /// The oldest text of the first identity that may have one more thread.
    fn next(&mut self) -> Option<Job> {
        let each_max = self.each_max;
        self.lines.iter_mut().for_each(Line::forget_unwanted);
        self.lines.retain(Line::is_needed);
        let at = self.lines.iter().position(|line| line.running < each_max && !line.jobs.is_empty())?;
        let mut line = self.lines.remove(at)?;
        let job = line.jobs.pop_front();
        line.running += 1;
        self.lines.push_back(line);
        job
    }

    fn done(&mut self, who: u64) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.who == who) {
            line.running -= 1;
        }
        self.lines.retain(Line::is_needed);
    }
}

impl Line {
    /// Texts of sessions that have ended, or that ask for something else by now.
    fn forget_unwanted(&mut self) {
        self.jobs.retain(|job| job.key.strong_count() > 0);
    }

    fn is_needed(&self) -> bool {
        self.running > 0 || !self.jobs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::policy::tests::subject;

    /// A job of `who`, and the key that its session keeps.
    fn job(who: u64, session: u64) -> (Job, Arc<u128>) {
        let key = Arc::new(u128::from(session));
        let (subject, text, deliver) = (subject(), Box::from(*b"select 1"), Arc::new(|_| {}));
        (Job { who, session, index: 0, key: Arc::downgrade(&key), subject, text, deliver }, key)
    }

    /// Queues sessions 0, 1, … of these identities; then, by `each_max`, what is given out, of which `done` are finished first.
    fn order(each_max: usize, whose: &[u64], done: bool) -> Vec<u64> {
        let mut lines = Lines { each_max, ..Lines::default() };
        let mut keys = Vec::new();
        for (session, who) in whose.iter().enumerate() {
            let (job, key) = job(*who, session as u64);
            lines.add(job);
            keys.push(key);
        }
        let mut given = Vec::new();
        while let Some(job) = lines.next() {
            given.push(job.session);
            if done {
                lines.done(job.who);
            }
        }
        assert_eq!(lines.lines.is_empty(), done, "who has nothing here has no line");
        given
    }

    #[test]
    fn identities_take_turns_and_none_has_all_threads() {
        let rows: [(&str, usize, &[u64], bool, &[u64]); 4] = [
            ("one identity is served in its order", 1, &[7, 7, 7], true, &[0, 1, 2]),
            ("who comes later is next, however many the other has", 1, &[7, 7, 7, 8], true, &[0, 3, 1, 2]),
            ("three take turns", 1, &[7, 7, 7, 8, 8, 9], true, &[0, 3, 5, 1, 4, 2]),
            ("while its text is judged an identity has no second thread of two", 1, &[7, 7, 8], false, &[0, 2]),
        ];
        for (what, each_max, whose, done, given) in rows {
            assert_eq!(order(each_max, whose, done), given, "{what}");
        }
    }

    #[test]
    fn texts_of_sessions_that_have_ended_are_not_judged_and_take_no_room() {
        let mut lines = Lines { each_max: 1, ..Lines::default() };
        for session in 0..1_000 {
            lines.add(job(7, session).0);
        }
        assert_eq!(lines.lines[0].jobs.len(), 1, "only the last may still be wanted");
        let (wanted, _key) = job(8, 1_000);
        lines.add(wanted);
        assert_eq!(lines.next().map(|job| job.session), Some(1_000));
        assert!(lines.next().is_none());
    }

    #[test]
    fn a_thread_survives_what_panics_in_it_and_goes_on_with_others() {
        let analyser = Analyser::start(1).expect("a thread");
        let (told, heard) = crossbeam_channel::unbounded();
        let (mut breaks, _first) = job(7, 1);
        breaks.deliver = Arc::new(|_| panic!("as a bug would"));
        let (mut goes_on, _second) = job(7, 2);
        goes_on.deliver = Arc::new(move |decided| told.send(decided.session).expect("somebody listens"));
        analyser.submit(breaks);
        analyser.submit(goes_on);
        assert_eq!(heard.recv_timeout(std::time::Duration::from_secs(30)), Ok(2));
    }
}
