//! Cancel requests: who sends them, with which key, and by what right one may reach the upstream.

use std::cell::RefCell;
use std::rc::Rc;

use dataplane::io::sim::{Line, Peer};
use dataplane::protocol::postgres::handshake;

use super::client::Account;
use super::scenario::{Cancel, Key, When};

/// Whoever has found no moment to cancel by then goes away without a word.
const PATIENCE_NS: u64 = 2_000_000_000;

/// A request that was sent.
#[derive(Debug)]
pub struct Ask {
    pub plan: Cancel,
    /// How many bytes the target had sent, if it then waited for nothing: nothing of it ran.
    idle_at: Option<usize>,
    pub landed: bool,
}

pub type Asks = Rc<RefCell<Vec<Ask>>>;

/// A client that connects only to cancel.
pub struct Canceller {
    plan: Cancel,
    target: Rc<RefCell<Account>>,
    asks: Asks,
    came_ns: Option<u64>,
    is_done: bool,
}

impl Canceller {
    pub fn new(plan: Cancel, target: Rc<RefCell<Account>>, asks: Asks) -> Self {
        Self { plan, target, asks, came_ns: None, is_done: false }
    }

    fn say(&mut self, key: [u8; 8], line: &mut Line) {
        let mut key = key;
        match self.plan.key {
            Key::Right => {}
            Key::WrongSecret => key[7] ^= 1,
            Key::WrongProcess => key[3] ^= 1,
            // The first bits of the secret name the shard.
            Key::NoShard => key[4] ^= 0x7f,
            Key::OtherShard => key[4] ^= 1,
        }
        handshake::cancel_request(key, &mut line.out);
        let target = self.target.borrow();
        let is_idle = target.closed || target.is_in() && !target.runs();
        let idle_at = (is_idle && !target.faulted).then_some(target.sent.len());
        self.asks.borrow_mut().push(Ask { plan: self.plan, idle_at, landed: false });
        self.is_done = true;
    }
}

impl Peer for Canceller {
    fn received(&mut self, _bytes: &[u8], _line: &mut Line) {}

    fn tick(&mut self, now_ns: u64, line: &mut Line) {
        let came_ns = *self.came_ns.get_or_insert(now_ns);
        if self.is_done {
            return;
        }
        let target = self.target.borrow();
        let is_time = match self.plan.when {
            When::AtOnce => true,
            When::Running => target.slow,
            When::Idle => target.is_in() && !target.runs(),
            When::Gone => target.closed,
        };
        let key = target.key.filter(|_| is_time);
        drop(target);
        match key {
            Some(key) => self.say(key, line),
            None if now_ns > came_ns + PATIENCE_NS => (self.is_done, line.fin) = (true, true),
            None => {}
        }
    }

    fn closed(&mut self) {}

    fn faulted(&mut self) {}
}

/// (g) A cancel has reached the upstream's session of `client`: somebody asked for just that one, by its key, and a statement of it
/// may have run since.
pub fn lands(asks: &Asks, client: &Account) {
    let mut asks = asks.borrow_mut();
    let rightful = |ask: &Ask| {
        let ran = ask.idle_at != Some(client.sent.len()) || client.faulted;
        !ask.landed && ask.plan.target == client.number && ask.plan.key == Key::Right && ran
    };
    match asks.iter().position(rightful) {
        Some(n) => asks[n].landed = true,
        None => panic!(
            "a cancel reached client {}, which had sent {}, without right: {asks:?}",
            client.number,
            client.sent.len()
        ),
    }
}
