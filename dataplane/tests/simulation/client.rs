//! A client: logs in, then follows a script that a seed has drawn. It knows what a server would answer (its own model of
//! one), so it knows how long to wait.

use std::cell::RefCell;
use std::rc::Rc;

use dataplane::io::sim::{Line, Peer};
use dataplane::protocol::postgres::wire::{message, put_cstr, u32_at, untagged};

use super::script::Step;
use super::server::{Mode, Server};

/// What is known of a client, for the oracles.
pub struct Account {
    pub number: u32,
    pub masked: bool,
    /// Everything that it was sent.
    pub received: Vec<u8>,
    /// Where its login ends in what it was sent.
    pub login_end: Option<usize>,
    /// What it has sent after its login.
    pub sent: Vec<u8>,
    /// What a server would have answered to that.
    pub expected: Vec<u8>,
    pub model: Server,
    /// Not all that was sent arrives: its connection, or its upstream's, has a fault, or its upstream lies.
    pub faulted: bool,
    /// Its upstream has said what it was not asked.
    pub lied_to: bool,
    /// It has received every answer and said goodbye.
    pub done: bool,
    pub closed: bool,
    /// Its token is not good.
    pub stranger: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Terminate,
    /// It closes its side without a word, at its last step.
    Fin,
    Reset,
}

pub struct Client {
    account: Rc<RefCell<Account>>,
    steps: std::collections::VecDeque<Step>,
    ending: Ending,
    asks_for_encryption: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Encrypting,
    Starting,
    LoggingIn,
    Working,
    Gone,
}

impl Account {
    pub fn new(number: u32, masked: bool, stranger: bool) -> Self {
        Self {
            number,
            masked,
            received: Vec::new(),
            login_end: None,
            sent: Vec::new(),
            expected: Vec::new(),
            model: Server::new(number, Mode::Direct { masked }),
            faulted: false,
            lied_to: false,
            done: false,
            closed: false,
            stranger,
        }
    }

    /// It gives its token by SASL.
    fn by_oauth(&self) -> bool {
        self.number.is_multiple_of(3)
    }

    /// It was told that its token does not count.
    fn is_challenged(&self, from: usize) -> bool {
        let told = self.received.get(from..).map(|bytes| split(bytes).0).unwrap_or_default();
        told.iter().any(|frame| frame.starts_with(b"R") && u32_at(frame, 5) == Some(11))
    }

    /// What it was sent after its login.
    pub fn answers(&self) -> &[u8] {
        self.login_end.map_or(&[], |at| &self.received[at..])
    }

    fn find_login_end(&mut self, from: usize) {
        let mut at = from;
        while let Some(length) = u32_at(&self.received, at + 1) {
            let end = at + length as usize + 1;
            if self.received.len() < end {
                return;
            }
            if self.received[at] == b'Z' {
                self.login_end = Some(end);
                return;
            }
            at = end;
        }
    }
}

impl Client {
    pub fn new(account: Rc<RefCell<Account>>, steps: Vec<Step>, ending: Ending, asks_for_encryption: bool) -> Self {
        Self { account, steps: steps.into(), ending, asks_for_encryption, stage: Stage::New }
    }

    fn say_hello(&mut self, line: &mut Line) {
        let (number, by_oauth) = (self.account.borrow().number, self.account.borrow().by_oauth());
        untagged(&mut line.out, |out| {
            out.extend_from_slice(&(3u32 << 16).to_be_bytes());
            for text in ["user", &format!("c{number}"), "database", "shop"] {
                put_cstr(out, text.as_bytes());
            }
            if by_oauth {
                put_cstr(out, b"options");
                put_cstr(out, b"-c wireward.auth=oauth");
            }
            out.push(0);
        });
        self.stage = Stage::Starting;
    }

    fn give_token(&mut self, line: &mut Line) {
        let account = self.account.borrow();
        let role = if account.masked { "masked" } else { "plain" };
        let token = match account.stranger {
            true => "wrong".to_owned(),
            false => format!("c{}.{role}", account.number),
        };
        let first = format!("n,,\x01auth=Bearer {token}\x01\x01");
        message(&mut line.out, b'p', |out| match account.by_oauth() {
            false => put_cstr(out, token.as_bytes()),
            true => {
                put_cstr(out, b"OAUTHBEARER");
                out.extend_from_slice(&(first.len() as u32).to_be_bytes());
                out.extend_from_slice(first.as_bytes());
            }
        });
        drop(account);
        self.stage = Stage::LoggingIn;
    }

    /// Sends the next steps, as far as they need not wait.
    fn work(&mut self, line: &mut Line) {
        let account = self.account.clone();
        let mut account = account.borrow_mut();
        if split(account.answers()).0.last().is_some_and(|f| super::oracle::is_our_fatal(f)) {
            self.stage = Stage::Gone;
            line.fin = true;
            return;
        }
        loop {
            let answered = frames(account.answers()) >= frames(&account.expected);
            let Some(step) = self.steps.front() else {
                if answered {
                    account.done = self.ending == Ending::Terminate;
                    self.leave(&mut account, line);
                }
                return;
            };
            if step.waits && !answered || step.pause_ticks > 0 {
                return;
            }
            line.out.extend_from_slice(&step.bytes);
            account.send(&step.bytes);
            self.steps.pop_front();
            if self.steps.is_empty() && self.ending != Ending::Terminate {
                return self.leave(&mut account, line);
            }
        }
    }

    fn leave(&mut self, account: &mut Account, line: &mut Line) {
        self.stage = Stage::Gone;
        match self.ending {
            Ending::Terminate => {
                let goodbye = [b'X', 0, 0, 0, 4];
                line.out.extend_from_slice(&goodbye);
                account.send(&goodbye);
            }
            Ending::Fin => {}
            Ending::Reset => line.reset = true,
        }
        account.faulted |= self.ending != Ending::Terminate;
        line.fin = true;
    }
}

impl Account {
    fn send(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        let mut expected = std::mem::take(&mut self.expected);
        self.model.feed(bytes, &mut expected);
        self.expected = expected;
    }
}

impl Peer for Client {
    fn received(&mut self, bytes: &[u8], line: &mut Line) {
        self.account.borrow_mut().received.extend_from_slice(bytes);
        let received = self.account.borrow().received.len();
        let greeting = usize::from(self.asks_for_encryption);
        match self.stage {
            Stage::Encrypting => self.say_hello(line),
            Stage::Starting if received >= greeting + 9 => self.give_token(line),
            Stage::LoggingIn => {
                self.account.borrow_mut().find_login_end(greeting);
                if self.account.borrow().login_end.is_some() {
                    self.stage = Stage::Working;
                    self.work(line);
                } else if self.account.borrow().is_challenged(greeting) {
                    self.stage = Stage::Gone;
                    message(&mut line.out, b'p', |out| out.push(1));
                }
            }
            Stage::Working => self.work(line),
            _ => {}
        }
    }

    fn tick(&mut self, _now_ns: u64, line: &mut Line) {
        if self.stage == Stage::New && self.asks_for_encryption {
            self.stage = Stage::Encrypting;
            untagged(&mut line.out, |out| out.extend_from_slice(&80_877_103u32.to_be_bytes()));
        } else if self.stage == Stage::New {
            self.say_hello(line);
        } else if self.stage == Stage::Working
            && let Some(step) = self.steps.front_mut().filter(|s| s.pause_ticks > 0)
        {
            step.pause_ticks -= 1;
            self.work(line);
        }
    }

    fn closed(&mut self) {
        self.account.borrow_mut().closed = true;
    }

    fn faulted(&mut self) {
        self.account.borrow_mut().faulted = true;
    }
}

/// How many whole frames there are that were asked for.
pub fn frames(bytes: &[u8]) -> usize {
    split(bytes).0.into_iter().filter(|f| !is_unasked(f)).count()
}

/// A large notice, which the model server sends when nobody has asked: it may come before or after other answers.
pub fn is_unasked(frame: &[u8]) -> bool {
    frame[0] == b'N' && frame.len() > 1000
}

/// The whole frames, and what is left behind them.
pub fn split(bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(length) = u32_at(bytes, at + 1) {
        let end = at + length as usize + 1;
        if end > bytes.len() {
            break;
        }
        found.push(&bytes[at..end]);
        at = end;
    }
    (found, &bytes[at..])
}
