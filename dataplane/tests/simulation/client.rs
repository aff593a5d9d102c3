//! A client: logs in, then follows a script that a seed has drawn. It knows what a server would answer (its own model of
//! one), so it knows how long to wait.

use std::cell::RefCell;
use std::rc::Rc;

use dataplane::config::TokenExpiry;
use dataplane::io::sim::{Line, Peer};
use dataplane::protocol::postgres::wire::{message, put_cstr, u32_at, untagged};

use super::law::{Court, Outcome, token};
use super::oracle::{contains, is_our_fatal, is_outdated, is_refusal};
use super::script::Step;
use super::server::{Mode, Server, VAULTED, Vault};

const FAREWELL_NS_MAX: u64 = 2_000_000_000;

/// A statement on the vault: what became of it, and the oldest and newest law from its sending to its answer.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    pub outcome: Outcome,
    pub oldest: usize,
    pub newest: usize,
}

/// What is known of a client, for the oracles.
pub struct Account {
    pub number: u32,
    /// Where it arrives.
    pub shard: usize,
    pub masked: bool,
    pub expires_unix_s: u64,
    /// Everything that it was sent.
    pub received: Vec<u8>,
    /// Where the whole frames of it end, and how many of those after the login were asked for.
    parsed: usize,
    pub answered: usize,
    /// How many frames of `expected` were asked for, and where they end.
    expected_parsed: usize,
    pub due: usize,
    /// Process id and secret, to cancel with.
    pub key: Option<[u8; 8]>,
    /// It waits for the answer to a statement on the vault.
    pub waits_for_vault: bool,
    /// The answer to its Bind is here, and its Execute is still to come.
    pub has_bound: bool,
    /// The frames that were there before that statement.
    vault_from: usize,
    pub judged: Vec<Judged>,
    /// Its session ended before the answer was whole, so the model was never asked.
    pub vault_unseen: bool,
    /// Its upstream has a slow statement under way; it has been cancelled so often.
    pub slow: bool,
    pub cancelled: u32,
    /// What the gateway has told it at the end: SQLSTATE and reason.
    pub fatal: Option<String>,
    /// The same as it was sent, perhaps in vain, and when.
    pub farewell: Option<(u64, String)>,
    /// When it was last there, on the simulator's clock.
    pub seen_ns: u64,
    /// From here on nothing of what it has sent may be executed: its token had expired, and nothing was to be finished.
    pub too_late_from: Option<usize>,
    /// Its shard has panicked.
    pub lost: bool,
    /// It came when its shard had stopped.
    pub turned_away: bool,
    /// Where its login ends in what it was sent.
    pub login_end: Option<usize>,
    /// What it has sent after its login.
    pub sent: Vec<u8>,
    /// What a server would have answered to that.
    pub expected: Vec<u8>,
    pub model: Server,
    /// Which parts of `sent` the model was given, and what was known of the vault then.
    fed: Vec<(usize, Vault)>,
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
    court: Rc<Court>,
    /// The statement on the vault that it waits for.
    vault: Option<Asked>,
    now_ns: u64,
    /// When its token has expired for so long that every shard must have noticed, on the simulator's clock.
    expired_ns: u64,
}

/// A statement on the vault that has no whole answer yet.
struct Asked {
    bytes: Vec<u8>,
    /// The end of its pipeline is still to come, after so many rounds.
    rest: Vec<u8>,
    rest_ticks: usize,
    /// The frames that were there before it.
    frames: usize,
    /// The oldest law when it was sent, and when its Execute was.
    oldest: usize,
    oldest_run: usize,
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
    pub fn new(number: u32, shard: usize, masked: bool, stranger: bool) -> Self {
        Self {
            number,
            shard,
            masked,
            expires_unix_s: u64::MAX,
            received: Vec::new(),
            parsed: 0,
            answered: 0,
            expected_parsed: 0,
            due: 0,
            key: None,
            waits_for_vault: false,
            has_bound: false,
            vault_from: 0,
            judged: Vec::new(),
            vault_unseen: false,
            slow: false,
            cancelled: 0,
            fatal: None,
            farewell: None,
            seen_ns: 0,
            too_late_from: None,
            lost: false,
            turned_away: false,
            login_end: None,
            sent: Vec::new(),
            expected: Vec::new(),
            model: Server::new(number, Mode::Direct { masked }),
            fed: Vec::new(),
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

    /// Takes in what has come, frame by frame; `greeting` bytes of it are none.
    fn receive(&mut self, bytes: &[u8], greeting: usize) {
        self.received.extend_from_slice(bytes);
        self.parsed = self.parsed.max(greeting);
        while let Some(length) = u32_at(&self.received, self.parsed + 1) {
            let (from, end) = (self.parsed, self.parsed + length as usize + 1);
            let Some(frame) = self.received.get(from..end) else { return };
            self.parsed = end;
            self.fatal = is_our_fatal(frame).then(|| frame.escape_ascii().to_string()).or(self.fatal.take());
            match (self.login_end, frame[0]) {
                (Some(login_end), _) => {
                    self.answered += usize::from(!is_unasked(frame));
                    if is_outdated(frame) && !self.lied_to {
                        self.look_for_outdated(&self.received[login_end..end].to_vec());
                    }
                }
                (None, b'Z') => self.login_end = Some(end),
                (None, b'K') => self.key = frame[5..].try_into().ok(),
                _ => {}
            }
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

    /// It has every answer that it waits for.
    pub fn is_answered(&self) -> bool {
        !self.waits_for_vault && self.answered >= self.due
    }

    /// Its session has gone on for as long as a peer that reads slowly is waited for at the end (`shard/drive.rs`).
    pub fn has_waited_since(&self, ns: u64) -> bool {
        self.seen_ns + super::world::TURN_NS_MAX >= ns + FAREWELL_NS_MAX
    }

    /// Its session is open.
    pub fn is_in(&self) -> bool {
        self.login_end.is_some() && !self.closed
    }

    /// A part of the answer to its statement on the vault is here.
    pub fn is_amid_answer(&self) -> bool {
        self.waits_for_vault && !self.has_bound && split(self.answers()).0.len() > self.vault_from
    }

    /// It waits for an answer, or is asked for COPY data.
    pub fn runs(&self) -> bool {
        self.is_in() && (!self.is_answered() || self.model.is_copying())
    }

    /// What nobody has seen the answer to.
    pub fn give_up(&mut self, unfed: &[u8]) {
        self.vault_unseen = true;
        self.model.vault = Vault { unknown: true, ..Vault::default() };
        self.model.feed(unfed, &mut Vec::new());
    }

    /// The last of the answers is a refusal because the policy has changed. If no model would have failed there, the gateway could
    /// not judge a long text again: then the model refuses that message too, and what follows from it is as sure as before.
    fn look_for_outdated(&mut self, answers: &[u8]) {
        let asked = |bytes| split(bytes).0.into_iter().filter(|frame| !is_unasked(frame));
        let number = asked(answers).count() - 1;
        let Some(due) = asked(&self.expected).nth(number) else { return };
        if due[0] == b'E' && (is_outdated(due) || self.model.may_be_outdated(due)) {
            return;
        }
        let at = due.as_ptr() as usize - self.expected.as_ptr() as usize;
        let message = self.model.answers.partition_point(|end| *end <= at);
        let mut model = Server::new(self.number, Mode::Direct { masked: self.masked });
        model.reloads = self.model.reloads;
        model.outdated = std::mem::take(&mut self.model.outdated);
        model.outdated.insert(message);
        self.model = model;
        (self.expected, self.expected_parsed, self.due) = (Vec::new(), 0, 0);
        let (sent, mut from) = (self.sent.clone(), 0);
        for (to, vault) in std::mem::take(&mut self.fed) {
            self.feed(&sent[from..to], vault);
            from = to;
        }
    }

    /// Lets the model answer what was sent next.
    fn feed(&mut self, bytes: &[u8], vault: Vault) {
        let from = self.fed.last().map_or(0, |(to, _)| *to);
        self.fed.push((from + bytes.len(), vault));
        let mut expected = std::mem::take(&mut self.expected);
        self.model.vault = vault;
        self.model.feed(bytes, &mut expected);
        self.model.vault = Vault::default();
        self.expected = expected;
        while let Some(length) = u32_at(&self.expected, self.expected_parsed + 1) {
            let end = self.expected_parsed + length as usize + 1;
            self.due += usize::from(!is_unasked(&self.expected[self.expected_parsed..end]));
            self.expected_parsed = end;
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        self.feed(bytes, Vault::default());
    }
}

impl Client {
    pub fn new(
        account: Rc<RefCell<Account>>,
        steps: Vec<Step>,
        ending: Ending,
        asks_for_encryption: bool,
        court: Rc<Court>,
        wall_ns: u64,
    ) -> Self {
        let expires_ns = account.borrow().expires_unix_s.saturating_mul(1_000_000_000);
        let expired_ns = expires_ns.saturating_sub(wall_ns).saturating_add(super::world::TURN_NS_MAX);
        let (steps, stage) = (steps.into(), Stage::New);
        Self { account, steps, ending, asks_for_encryption, stage, court, vault: None, now_ns: 0, expired_ns }
    }

    /// (j) Its token has expired, and it waits for nothing that it might have finished: what it sends now comes too late.
    fn note_lateness(&self, account: &mut Account) {
        let may_finish = match self.court.token_expiry {
            TokenExpiry::End => false,
            TokenExpiry::FinishStatement => account.runs(),
            TokenExpiry::FinishTransaction => account.runs() || !account.model.is_idle(),
        };
        if self.now_ns > self.expired_ns && !may_finish {
            account.too_late_from.get_or_insert(account.sent.len());
        }
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
        let token = match account.stranger {
            true => "token-of-a-stranger".to_owned(),
            false => token(account.number, account.masked, account.expires_unix_s),
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
        if account.fatal.is_some() {
            self.stage = Stage::Gone;
            line.fin = true;
            return;
        }
        self.look_for_vault(&mut account);
        loop {
            let answered = account.is_answered();
            let Some(step) = self.steps.front() else {
                if answered {
                    account.done = self.ending == Ending::Terminate;
                    self.leave(&mut account, line);
                }
                return;
            };
            if (step.waits || self.vault.is_some()) && !answered || step.pause_ticks > 0 {
                return;
            }
            self.note_lateness(&mut account);
            let Some(step) = self.steps.pop_front() else { return };
            line.out.extend_from_slice(&step.bytes);
            match step.vault {
                true => self.ask_for_vault(&mut account, step),
                false => account.send(&step.bytes),
            }
            if self.steps.is_empty() && self.ending != Ending::Terminate {
                return self.leave(&mut account, line);
            }
        }
    }

    fn ask_for_vault(&mut self, account: &mut Account, step: Step) {
        let Step { bytes, rest, rest_ticks, .. } = step;
        account.sent.extend_from_slice(&bytes);
        account.waits_for_vault = true;
        let frames = split(account.answers()).0.len();
        account.vault_from = frames;
        let oldest = self.court.law(account.shard).0;
        self.vault = Some(Asked { bytes, rest, rest_ticks, frames, oldest, oldest_run: oldest });
    }

    /// The end of a pipeline follows, if its time has come.
    fn send_rest(&mut self, line: &mut Line) {
        let account = self.account.clone();
        let mut account = account.borrow_mut();
        let Some(asked) = self.vault.as_mut().filter(|asked| !asked.rest.is_empty()) else { return };
        asked.rest_ticks = asked.rest_ticks.saturating_sub(1);
        account.has_bound = split(account.answers()).0.iter().skip(asked.frames).any(|frame| frame[0] == b'2');
        if asked.rest_ticks > 0 || account.fatal.is_some() {
            return;
        }
        self.note_lateness(&mut account);
        let Some(asked) = &mut self.vault else { return };
        asked.oldest_run = self.court.law(account.shard).0;
        account.sent.extend_from_slice(&asked.rest);
        line.out.extend_from_slice(&asked.rest);
        asked.bytes.append(&mut asked.rest);
        (account.has_bound, account.vault_from) = (false, split(account.answers()).0.len());
    }

    /// When the whole answer is here it is known how the statement was judged, and so what the model has to say.
    fn look_for_vault(&mut self, account: &mut Account) {
        let Some(before) = self.vault.as_ref().filter(|asked| asked.rest.is_empty()).map(|asked| asked.frames) else {
            return;
        };
        let (all, _) = split(account.answers());
        let frames: Vec<&[u8]> = all[before..].iter().copied().filter(|f| !is_unasked(f)).collect();
        if !frames.iter().any(|f| f[0] == b'Z') {
            return;
        }
        let Some(Asked { bytes, oldest, oldest_run, .. }) = self.vault.take() else { return };
        let (vault, outcome) = seen(&bytes, &frames);
        // What an Execute does is judged when it comes, whatever was bound before.
        let oldest = if vault.refused_at.is_some_and(|tag| tag != b'E') { oldest } else { oldest_run };
        let newest = self.court.law(account.shard).1;
        account.judged.extend(outcome.map(|outcome| Judged { outcome, oldest, newest }));
        self.court.judged.set(self.court.judged.get() + 1);
        account.waits_for_vault = false;
        account.feed(&bytes, vault);
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

impl Peer for Client {
    fn received(&mut self, bytes: &[u8], line: &mut Line) {
        let is_asked = self.asks_for_encryption;
        // A farewell may come where the answer was due.
        let first = self.account.borrow().received.first().or(bytes.first()).copied();
        let greeting = usize::from(is_asked && first.is_some_and(|byte| b"NS".contains(&byte)));
        self.account.borrow_mut().receive(bytes, greeting);
        let received = self.account.borrow().received.len();
        match self.stage {
            Stage::Encrypting => self.say_hello(line),
            Stage::Starting if received >= greeting + 9 => self.give_token(line),
            Stage::LoggingIn => {
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

    fn tick(&mut self, now_ns: u64, line: &mut Line) {
        self.now_ns = now_ns;
        self.account.borrow_mut().seen_ns = now_ns;
        if self.stage == Stage::New && self.asks_for_encryption {
            self.stage = Stage::Encrypting;
            untagged(&mut line.out, |out| out.extend_from_slice(&80_877_103u32.to_be_bytes()));
        } else if self.stage == Stage::New {
            self.say_hello(line);
            return;
        }
        self.send_rest(line);
        if self.stage == Stage::Working
            && let Some(step) = self.steps.front_mut().filter(|s| s.pause_ticks > 0)
        {
            step.pause_ticks -= 1;
            self.work(line);
        }
    }

    fn closed(&mut self) {
        let mut account = self.account.borrow_mut();
        (account.closed, account.has_bound) = (true, false);
        if let Some(asked) = self.vault.take() {
            account.give_up(&asked.bytes);
        }
    }

    fn faulted(&mut self) {
        self.account.borrow_mut().faulted = true;
    }
}

/// How a statement on the vault was judged, by its answer; `None` if the server has failed it, or it reads nothing.
fn seen(sent: &[u8], answer: &[&[u8]]) -> (Vault, Option<Outcome>) {
    let (asked, _) = split(sent);
    let of = |tag: u8| answer.iter().filter(move |f| f[0] == tag);
    if let Some(error) = of(b'E').find(|f| is_refusal(f) || is_outdated(f)) {
        // The first of Parse, Bind and Execute that has no answer of its own.
        let confirmed = of(b'1').count() + of(b'2').count();
        let refused_at = asked.iter().map(|f| f[0]).filter(|tag| b"QPBE".contains(tag)).nth(confirmed);
        return (Vault { refused_at, ..Vault::default() }, is_refusal(error).then_some(Outcome::Refused));
    }
    let Some(row) = of(b'D').next() else { return (Vault::default(), None) };
    let starred = !contains(row, VAULTED.as_bytes());
    (Vault { starred, ..Vault::default() }, Some(if starred { Outcome::Starred } else { Outcome::Shown }))
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
