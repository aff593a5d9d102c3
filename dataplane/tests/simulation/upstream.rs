//! The upstream's end of a connection: the model server behind a login, which in some seeds lies.

use std::cell::RefCell;
use std::rc::Rc;

use dataplane::io::sim::{Line, Peer, Random};
use dataplane::protocol::postgres::wire::{CANCEL_REQUEST, cstr_at, message, put_cstr, u32_at};

use super::cancel::{self, Asks};
use super::client::{Account, is_unasked, split};
use super::law::Court;
use super::oracle::{is_outdated, is_refusal, says_no_name};
use super::server::{Mode, Server};

/// What a lying upstream does, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    UnaskedRow,
    UnaskedCompletion,
    UnaskedReady,
    UnaskedCopyData,
    UnknownMessage,
    ImpossibleLength,
    EndInMidMessage,
    /// Rows whose RowDescription is missing.
    NoRowDescription,
    /// A row with another number of columns than described.
    OtherColumns,
    /// FATAL, then the end: what a server that is shut down does. No lie, but an end.
    Fatal,
}

const LIES: [Lie; 10] = [
    Lie::UnaskedRow,
    Lie::UnaskedCompletion,
    Lie::UnaskedReady,
    Lie::UnaskedCopyData,
    Lie::UnknownMessage,
    Lie::ImpossibleLength,
    Lie::EndInMidMessage,
    Lie::NoRowDescription,
    Lie::OtherColumns,
    Lie::Fatal,
];

/// What is known of one upstream connection.
#[derive(Default)]
pub struct Intake {
    pub client: Option<u32>,
    /// It takes no writes, and the gateway wants a server that does.
    pub is_standby: bool,
    /// It came to cancel.
    pub is_canceller: bool,
    /// Everything that it was sent, and where its login ends in that, if it is whole.
    pub received: Vec<u8>,
    pub login_end: Option<usize>,
    /// What it was sent, and what is on its way.
    pub handed: Vec<u8>,
    /// Of each send: where it ends in `received`, and how many bytes of requests were recorded then.
    pub sends: Vec<(usize, usize)>,
    /// The password that it was given, if it asked for one.
    pub password: Option<String>,
    pub closed: bool,
    /// It was asked to cancel what it runs.
    pub cancelled: bool,
    /// When it was dialed, and when it was last there.
    pub dialed_ns: u64,
    pub seen_ns: u64,
    /// What it is about, and how many of its answers the client must have: see [`must_arrive`].
    pub rests: Rests,
    pub answered: usize,
}

/// What a server has under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rests {
    /// No statement runs.
    pub from_statements: bool,
    /// Nor is a transaction or a pipeline open.
    pub wholly: bool,
    /// It has failed, and ignores all up to the next Sync.
    ignores: bool,
}

impl Intake {
    /// What is on its way there, or half there.
    fn is_under_way(&self) -> bool {
        let Some(login_end) = self.login_end else { return true };
        let (frames, rest) = split(&self.handed[login_end..]);
        let (mut end, mut ignores) = (login_end, self.rests.ignores);
        let is_late = |frame: &&[u8]| {
            end += frame.len();
            let is_late = end > self.received.len();
            ignores &= !(is_late && frame[0] == b'S');
            // A goodbye or a Flush asks for nothing.
            is_late && !ignores && !matches!(frame[0], b'X' | b'H')
        };
        !rest.is_empty() || frames.iter().any(is_late)
    }

    /// What it has under way as the gateway can know it, when so many of its answers are in the record.
    pub fn known_rests(&self, recorded: usize) -> Rests {
        let all = recorded == self.answered && !self.is_under_way();
        if all { self.rests } else { Rests::default() }
    }
}

/// A frame of a server that the gateway neither swallows nor says in its place. Those that answer a Describe it may have asked
/// for, a ReadyForQuery it may say alone, what stands for a refusal it replaces, and that there is no such name it may know.
pub fn must_arrive(frame: &[u8]) -> bool {
    let is_replaced = frame[0] == b'E' && (is_refusal(frame) || is_outdated(frame) || says_no_name(frame));
    !b"ZTnt".contains(&frame[0]) && !is_unasked(frame) && !is_replaced
}

/// What all upstream connections know of each other: the server's side.
#[derive(Clone)]
pub struct House {
    pub intakes: Rc<RefCell<Vec<Rc<RefCell<Intake>>>>>,
    pub accounts: Rc<Vec<Rc<RefCell<Account>>>>,
    pub asks: Asks,
    pub court: Rc<Court>,
}

pub struct UpstreamPeer {
    intake: Rc<RefCell<Intake>>,
    house: House,
    /// Its place in the house, which is its process id.
    number: u32,
    server: Option<Server>,
    /// How long a slow statement takes, and until when this one does.
    slow_ns: u64,
    slow_until_ns: Option<u64>,
    /// After how many bursts the lie comes.
    lie: Option<(Lie, usize)>,
    asks_for_password: bool,
    fed: usize,
}

impl UpstreamPeer {
    pub fn new(intake: Rc<RefCell<Intake>>, house: House, random: &mut Random, lies_per_mille: usize) -> Self {
        let lie = random.per_mille(lies_per_mille).then(|| (LIES[random.below(LIES.len())], 1 + random.below(8)));
        let slow_ns = [1, 20, 300][random.below(3)] * 1_000_000;
        let number = house.intakes.borrow().len() as u32;
        house.intakes.borrow_mut().push(intake.clone());
        let asks_for_password = random.per_mille(500);
        let (server, slow_until_ns) = (None, None);
        Self { intake, house, number, server, slow_ns, slow_until_ns, lie, asks_for_password, fed: 0 }
    }

    /// Process id and secret; the secret follows from the number.
    fn key(number: u32) -> [u8; 8] {
        let secret = (number ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b1);
        let mut key = [0; 8];
        key[..4].copy_from_slice(&number.to_be_bytes());
        key[4..].copy_from_slice(&secret.to_be_bytes());
        key
    }

    /// It came only to cancel: what it names is told, and it is gone.
    fn cancel(&mut self, key: &[u8], line: &mut Line) {
        let number = u32_at(key, 0).expect("a process id");
        assert_eq!(key, Self::key(number), "the upstream got a cancel with a wrong key");
        let intakes = self.house.intakes.borrow();
        let mut named = intakes[number as usize].borrow_mut();
        let client = named.client.expect("a key is given after the login");
        let account = self.house.accounts[client as usize].borrow();
        cancel::lands(&self.house.asks, &account);
        named.cancelled = account.slow;
        line.fin = true;
    }

    /// The login, then everything that came behind it.
    fn log_in(&mut self, line: &mut Line) {
        let mut intake = self.intake.borrow_mut();
        let Some(length) = u32_at(&intake.received, 0).map(|n| n as usize) else { return };
        if intake.received.len() < length {
            return;
        }
        if u32_at(&intake.received, 4) == Some(CANCEL_REQUEST) {
            let key = intake.received[8..].to_vec();
            intake.is_canceller = true;
            drop(intake);
            return self.cancel(&key, line);
        }
        if intake.client.is_none() {
            intake.client = Some(client_of(&intake.received[..length]));
            if self.asks_for_password {
                message(&mut line.out, b'R', |out| out.extend_from_slice(&3u32.to_be_bytes()));
            }
        }
        let mut login_end = length;
        if self.asks_for_password {
            let Some(password) = u32_at(&intake.received, length + 1) else { return };
            let end = length + password as usize + 1;
            if intake.received.len() < end {
                return;
            }
            let given = std::str::from_utf8(&intake.received[length + 5..end - 1]).expect("text");
            let client = intake.client.expect("set");
            let known = self.house.court.since(client, |generation| generation.password() == given);
            assert!(known, "the upstream was given {given} for client {client}, which was not in force since it came");
            intake.password = Some(given.to_owned());
            login_end = end;
        }
        intake.login_end = Some(login_end);
        intake.rests = Rests { from_statements: true, wholly: true, ignores: false };
        welcome(intake.is_standby, Self::key(self.number), &mut line.out);
        self.server = Some(Server::new(intake.client.expect("set"), Mode::Upstream));
        self.fed = login_end;
    }

    fn serve(&mut self, line: &mut Line) {
        let Some(server) = &mut self.server else { return };
        let intake = self.intake.borrow();
        let mut answer = Vec::new();
        server.feed(&intake.received[self.fed..], &mut answer);
        self.fed = intake.received.len();
        drop(intake);
        self.answer(answer, line);
    }

    /// A slow statement goes on until its time is over or it is cancelled.
    fn pass_time(&mut self, now_ns: u64, line: &mut Line) {
        let Some(server) = self.server.as_mut().filter(|server| server.sleeping) else { return };
        let until_ns = *self.slow_until_ns.get_or_insert(now_ns + self.slow_ns);
        let mut account = self.house.accounts[server.client as usize].borrow_mut();
        let cancelled = std::mem::take(&mut self.intake.borrow_mut().cancelled);
        account.slow = !cancelled && now_ns < until_ns;
        if account.slow {
            return;
        }
        account.cancelled += u32::from(cancelled);
        drop(account);
        self.slow_until_ns = None;
        let mut answer = Vec::new();
        server.wake(cancelled, &mut answer);
        self.answer(answer, line);
    }

    fn answer(&mut self, answer: Vec<u8>, line: &mut Line) {
        let Some(server) = &mut self.server else { return };
        let mut intake = self.intake.borrow_mut();
        intake.answered += split(&answer).0.into_iter().filter(|frame| must_arrive(frame)).count();
        intake.answered -= std::mem::take(&mut server.hidden);
        let from_statements = !server.sleeping && !server.is_copying();
        let wholly = from_statements && server.is_idle();
        intake.rests = Rests { from_statements, wholly, ignores: server.skipping };
        drop(intake);
        line.fin |= server.terminated;
        let Some((lie, bursts)) = &mut self.lie else { return line.out.extend(answer) };
        *bursts -= usize::from(!answer.is_empty() && *bursts > 0);
        if *bursts > 0 || answer.is_empty() {
            return line.out.extend(answer);
        }
        let lie = *lie;
        self.lie = None;
        server.lenient = true;
        let mut account = self.house.accounts[server.client as usize].borrow_mut();
        (account.faulted, account.lied_to) = (true, true);
        drop(account);
        tell(lie, answer, line);
    }
}

impl Peer for UpstreamPeer {
    fn received(&mut self, bytes: &[u8], line: &mut Line) {
        self.intake.borrow_mut().received.extend_from_slice(bytes);
        if self.server.is_none() {
            self.log_in(line);
        }
        self.serve(line);
    }

    fn tick(&mut self, now_ns: u64, line: &mut Line) {
        self.intake.borrow_mut().seen_ns = now_ns;
        self.pass_time(now_ns, line);
    }

    fn closed(&mut self) {
        self.intake.borrow_mut().closed = true;
        if let Some(server) = &self.server {
            self.house.accounts[server.client as usize].borrow_mut().slow = false;
        }
    }

    fn faulted(&mut self) {
        // Before the startup message is read nobody knows whose it is; then all may miss an answer.
        match self.intake.borrow().client {
            Some(client) => self.house.accounts[client as usize].borrow_mut().faulted = true,
            None => self.house.accounts.iter().for_each(|a| a.borrow_mut().faulted = true),
        }
    }
}

/// All that follows a login.
fn welcome(is_standby: bool, key: [u8; 8], out: &mut Vec<u8>) {
    message(out, b'R', |out| out.extend_from_slice(&[0; 4]));
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("in_hot_standby", if is_standby { "on" } else { "off" }),
        ("default_transaction_read_only", "off"),
    ] {
        message(out, b'S', |out| {
            put_cstr(out, name.as_bytes());
            put_cstr(out, value.as_bytes());
        });
    }
    message(out, b'K', |out| out.extend_from_slice(&key));
    message(out, b'Z', |out| out.push(b'I'));
}

/// An address at which no session can be had.
pub enum Dead {
    Unanswered,
    Silent,
    Closing,
}

impl Dead {
    /// One way or another to be dead; `None`: it is no such address, or a hot standby.
    pub fn drawn(how: usize) -> Option<Self> {
        match how {
            0 => Some(Self::Unanswered),
            1 => Some(Self::Silent),
            2 => Some(Self::Closing),
            _ => None,
        }
    }
}

impl Peer for Dead {
    fn received(&mut self, _bytes: &[u8], _line: &mut Line) {}

    fn tick(&mut self, _now_ns: u64, line: &mut Line) {
        line.fin |= matches!(self, Self::Closing);
    }

    fn closed(&mut self) {}

    fn faulted(&mut self) {}

    fn answers(&self) -> bool {
        !matches!(self, Self::Unanswered)
    }
}

fn tell(lie: Lie, answer: Vec<u8>, line: &mut Line) {
    match lie {
        Lie::EndInMidMessage => {
            line.out.extend_from_slice(&answer[..answer.len() - 1]);
            line.fin = true;
        }
        Lie::NoRowDescription | Lie::OtherColumns => {
            for frame in super::client::split(&answer).0 {
                match (lie, frame[0]) {
                    (Lie::NoRowDescription, b'T') => {}
                    (Lie::OtherColumns, b'D') => row(9, &mut line.out),
                    _ => line.out.extend_from_slice(frame),
                }
            }
        }
        _ => {
            line.out.extend(answer);
            add(lie, &mut line.out);
            line.fin = lie == Lie::Fatal;
        }
    }
}

/// What comes behind an honest answer.
fn add(lie: Lie, out: &mut Vec<u8>) {
    const REASON: &[u8] = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0";
    match lie {
        Lie::UnaskedRow => row(1, out),
        Lie::UnaskedCompletion => message(out, b'C', |out| put_cstr(out, b"SELECT 1")),
        Lie::UnaskedReady => message(out, b'Z', |out| out.push(b'I')),
        Lie::UnaskedCopyData => message(out, b'd', |out| out.extend_from_slice(b"STRAY!")),
        Lie::UnknownMessage => message(out, b'y', |out| out.extend_from_slice(b"STRAY!")),
        Lie::ImpossibleLength => out.extend_from_slice(&[b'D', 0, 0, 0, 3]),
        _ => message(out, b'E', |out| out.extend_from_slice(REASON)),
    }
}

fn row(columns: u16, out: &mut Vec<u8>) {
    message(out, b'D', |out| {
        out.extend_from_slice(&columns.to_be_bytes());
        for _ in 0..columns {
            out.extend_from_slice(b"\0\0\0\x06STRAY!");
        }
    });
}

/// Whose session it is: the gateway says so in application_name.
fn client_of(startup: &[u8]) -> u32 {
    let mut at = 8;
    while let Some((name, next)) = cstr_at(startup, at) {
        let Some((value, next)) = cstr_at(startup, next) else { break };
        if name == b"application_name" {
            let value = std::str::from_utf8(value).expect("text");
            return value.strip_prefix('c').and_then(|v| v.split(' ').next()?.parse().ok()).expect("a client");
        }
        at = next;
    }
    panic!("a startup message without application_name");
}
