//! A client: logs in, then follows a script that a seed has drawn. It knows what a server would answer (its own model of
//! one), so it knows how long to wait.

use std::cell::RefCell;
use std::rc::Rc;

use dataplane::io::sim::{Line, Peer, Random};
use dataplane::protocol::postgres::wire::{message, put_cstr, u32_at, untagged};

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

/// One step of a script: bytes, and whether all answers are awaited before they are sent.
pub struct Step {
    pub bytes: Vec<u8>,
    pub waits: bool,
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
        let number = self.account.borrow().number;
        untagged(&mut line.out, |out| {
            out.extend_from_slice(&(3u32 << 16).to_be_bytes());
            for text in ["user", &format!("c{number}"), "database", "shop"] {
                put_cstr(out, text.as_bytes());
            }
            out.push(0);
        });
        self.stage = Stage::Starting;
    }

    fn give_token(&mut self, line: &mut Line) {
        let account = self.account.borrow();
        let role = if account.masked { "masked" } else { "plain" };
        let token = match account.stranger {
            true => "a wrong token".to_owned(),
            false => format!("c{} {role}", account.number),
        };
        message(&mut line.out, b'p', |out| put_cstr(out, token.as_bytes()));
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
            if step.waits && !answered {
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
        }
    }

    fn closed(&mut self) {
        self.account.borrow_mut().closed = true;
    }

    fn faulted(&mut self) {
        self.account.borrow_mut().faulted = true;
    }
}

/// How many whole frames there are.
pub fn frames(bytes: &[u8]) -> usize {
    split(bytes).0.len()
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

/// What a script may hold.
#[derive(Clone, Copy, Debug)]
pub struct Taste {
    /// Texts that are judged by the analyser thread.
    pub long: bool,
    /// Rows, parameters and COPY data larger than a slot.
    pub large: bool,
}

/// Draws a script.
pub fn script(random: &mut Random, taste: Taste) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut sequence = 0;
    for _ in 0..3 + random.below(12) {
        let mut writer = Writer { random, taste, sequence: &mut sequence, steps: &mut steps };
        match writer.random.below(10) {
            0..=3 => writer.simple(),
            4..=7 => writer.pipeline(),
            8 => writer.copy_in(),
            _ => writer.after_a_failure(),
        }
    }
    steps
}

struct Writer<'a> {
    random: &'a mut Random,
    taste: Taste,
    sequence: &'a mut usize,
    steps: &'a mut Vec<Step>,
}

impl Writer<'_> {
    fn push(&mut self, bytes: Vec<u8>) {
        let waits = self.random.per_mille(700);
        self.steps.push(Step { bytes, waits });
    }

    /// A statement; each is another text.
    fn text(&mut self, copies: bool) -> String {
        *self.sequence += 1;
        let k = *self.sequence;
        let aside = ["", "", "", " AND note <> 'notice'", " AND note <> 'status'", " AND note <> 'notify'"];
        let aside = aside[self.random.below(aside.len())];
        let big = if self.taste.large && self.random.per_mille(300) { " AND note <> 'big'" } else { "" };
        let text = match self.random.below(if copies { 16 } else { 14 }) {
            0..=2 => format!("SELECT id, note FROM items WHERE k = {k}{aside}{big}"),
            3..=4 => format!("SELECT name, ssn, note FROM people WHERE k = {k}{aside}{big}"),
            5 => format!("SELECT ssn || '' FROM people WHERE k = {k}"),
            6 => format!("INSERT INTO items SELECT id, note FROM items WHERE k = {k}{aside}"),
            7 => "BEGIN".to_owned(),
            8 => "COMMIT".to_owned(),
            9 => "ROLLBACK".to_owned(),
            10 => "SELECT 1 / 0".to_owned(),
            11..=12 => format!("DROP TABLE forbidden_{k}"),
            13 => String::new(),
            14 => "COPY items TO STDOUT".to_owned(),
            _ => "COPY people (name, ssn, note) TO STDOUT".to_owned(),
        };
        self.lengthen(text)
    }

    /// Some texts are for the analyser thread, and some are larger than a slot.
    fn lengthen(&mut self, text: String) -> String {
        if !self.taste.long || text.is_empty() || !self.random.per_mille(300) {
            return text;
        }
        let padding = [4_100, 9_000, 33_000, 40_000][self.random.below(4)];
        format!("{text} /* {} */", "x".repeat(padding))
    }

    fn simple(&mut self) {
        let mut text = self.text(true);
        if self.random.per_mille(150) && !text.contains("COPY") {
            text = format!("{text}; {}", self.text(false));
        }
        let mut bytes = Vec::new();
        query(&text, &mut bytes);
        self.push(bytes);
    }

    fn pipeline(&mut self) {
        let mut bytes = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            self.member(&mut bytes);
            if self.random.per_mille(150) {
                message(&mut bytes, b'H', |_| ());
            }
            if self.random.per_mille(100) {
                self.push(std::mem::take(&mut bytes));
            }
        }
        message(&mut bytes, b'S', |_| ());
        self.push(bytes);
    }

    fn member(&mut self, out: &mut Vec<u8>) {
        let statement = ["", "", "s1", "s2"][self.random.below(4)];
        let portal = ["", "", "p1"][self.random.below(3)];
        // The unnamed statement may be a COPY FROM STDIN of before.
        let parses = statement.is_empty() || self.random.per_mille(600);
        if parses {
            if !statement.is_empty() && self.random.per_mille(700) {
                name(out, b'C', b'S', statement);
            }
            let text = self.text(true);
            parse(statement, &text, out);
        }
        if self.random.per_mille(200) {
            name(out, b'D', b'S', statement);
        }
        let parameter = if self.taste.large && self.random.per_mille(100) { 50_000 } else { 20 };
        bind(portal, statement, parameter, out);
        if self.random.per_mille(500) {
            name(out, b'D', b'P', portal);
        }
        let rows_max = if self.random.per_mille(300) { 2 } else { 0 };
        execute(portal, rows_max, out);
        if rows_max > 0 && self.random.per_mille(700) {
            execute(portal, 0, out);
        }
        if self.random.per_mille(200) {
            name(out, b'C', b'P', portal);
        }
    }

    fn copy_in(&mut self) {
        let extended = self.random.per_mille(400);
        let mut bytes = Vec::new();
        if extended {
            parse("", "COPY items FROM STDIN", &mut bytes);
            bind("", "", 20, &mut bytes);
            execute("", 0, &mut bytes);
            // Many drivers send it here; the server ignores it.
            if self.random.per_mille(500) {
                message(&mut bytes, b'S', |_| ());
            }
        } else {
            query("COPY items FROM STDIN", &mut bytes);
        }
        self.push(bytes);
        for _ in 0..self.random.below(4) {
            let length = if self.taste.large && self.random.per_mille(300) { 45_000 } else { 30 };
            let mut bytes = Vec::new();
            message(&mut bytes, b'd', |out| out.extend(std::iter::repeat_n(b'r', length)));
            self.push(bytes);
        }
        let mut bytes = Vec::new();
        match self.random.per_mille(700) {
            true => message(&mut bytes, b'c', |_| ()),
            false => message(&mut bytes, b'f', |out| put_cstr(out, b"no more")),
        }
        if extended {
            message(&mut bytes, b'S', |_| ());
        }
        self.push(bytes);
    }

    /// Simple queries in a pipeline that has failed: the server ignores them up to the Sync.
    fn after_a_failure(&mut self) {
        let mut bytes = Vec::new();
        bind("", "missing", 20, &mut bytes);
        message(&mut bytes, b'H', |_| ());
        self.push(bytes);
        let mut bytes = Vec::new();
        (0..2).for_each(|_| query("INSERT INTO items SELECT id, note FROM items WHERE k = 3", &mut bytes));
        message(&mut bytes, b'S', |_| ());
        self.push(bytes);
        *self.sequence += 1;
        let mut bytes = Vec::new();
        query(&format!("SELECT ssn || '' FROM people WHERE k = {}", self.sequence), &mut bytes);
        self.push(bytes);
    }
}

pub fn query(text: &str, out: &mut Vec<u8>) {
    message(out, b'Q', |out| put_cstr(out, text.as_bytes()));
}

fn parse(statement: &str, text: &str, out: &mut Vec<u8>) {
    message(out, b'P', |out| {
        put_cstr(out, statement.as_bytes());
        put_cstr(out, text.as_bytes());
        out.extend_from_slice(&[0, 0]);
    });
}

fn bind(portal: &str, statement: &str, parameter_bytes: usize, out: &mut Vec<u8>) {
    message(out, b'B', |out| {
        put_cstr(out, portal.as_bytes());
        put_cstr(out, statement.as_bytes());
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(&(parameter_bytes as u32).to_be_bytes());
        out.extend(std::iter::repeat_n(b'p', parameter_bytes));
        out.extend_from_slice(&[0, 0]);
    });
}

fn execute(portal: &str, rows_max: u32, out: &mut Vec<u8>) {
    message(out, b'E', |out| {
        put_cstr(out, portal.as_bytes());
        out.extend_from_slice(&rows_max.to_be_bytes());
    });
}

fn name(out: &mut Vec<u8>, tag: u8, kind: u8, name: &str) {
    message(out, tag, |out| {
        out.push(kind);
        put_cstr(out, name.as_bytes());
    });
}
