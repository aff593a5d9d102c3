//! What a seed draws: who comes, what they do, and what goes wrong.

use dataplane::config::TokenExpiry;
use dataplane::io::sim::{Random, Weather};

use super::law::{Generation, RULES, Rule};
use super::script::Taste;

/// The recorder is dead, or its disk is stuck while it still beats.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub from_ns: u64,
    pub to_ns: u64,
    pub beats: bool,
    /// Where the recorder is when it dies.
    pub crash: Crash,
}

/// The moment of a recorder's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Between two blocks.
    Idle,
    /// A block is sealed and not written.
    Unwritten,
    /// A part of it is on disk.
    Torn,
    /// It is on disk whole, and the ring does not know.
    Unacknowledged,
}

/// A shard panics at this moment: when it reads the clock, or in the midst of an event, when it submits a send.
#[derive(Clone, Copy, Debug)]
pub struct Panic {
    pub at_ns: u64,
    pub shard: usize,
    pub in_a_send: bool,
}

/// A reload comes when so many statements on the vault have had their answers, and at that time at the latest.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub judged: usize,
    pub at_ns: u64,
    pub amid: Amid,
}

/// What a reload waits for until its time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amid {
    Nothing,
    /// A statement on the vault is under way.
    Statement,
    /// One is bound, and perhaps described, and its Execute is still to come.
    Bound,
    /// A part of its answer is here.
    Answer,
}

/// Somebody sends a cancel request.
#[derive(Clone, Copy, Debug)]
pub struct Cancel {
    pub target: u32,
    /// The shard that it arrives at.
    pub shard: usize,
    pub key: Key,
    pub when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Right,
    WrongSecret,
    WrongProcess,
    /// It names a shard that there is not.
    NoShard,
    /// It names the session of another shard.
    OtherShard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As soon as the key is known.
    AtOnce,
    /// While a slow statement of the target runs.
    Running,
    /// While the target waits for nothing.
    Idle,
    /// When the target's session has ended.
    Gone,
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub shards: usize,
    pub clients: usize,
    pub taste: Taste,
    pub weather: Weather,
    /// In order, apart from each other.
    pub outages: Vec<Outage>,
    /// The recorder's own core writes to a disk, and dies; else a model of it reads the rings.
    pub real_recorder: bool,
    /// Clients that leave without a word, upstreams that lie, and clients with a wrong token, per mille.
    pub leavers: usize,
    pub lies: usize,
    pub strangers: usize,
    /// The first addresses of the upstream at which no session can be had.
    pub dead_addresses: usize,
    pub arrival_spread_ns: usize,
    pub generations: Vec<Generation>,
    /// When each generation but the first comes.
    pub reloads: Vec<Due>,
    pub stop_ns: Option<u64>,
    pub panics: Vec<Panic>,
    pub cancels: Vec<Cancel>,
    pub token_expiry: TokenExpiry,
    /// Clients whose token expires while they are here, per mille.
    pub expiring: usize,
    /// Turns after which no long text has been judged, per mille.
    pub analyser_late: usize,
    /// How far into a second of the wall clock the world begins: tokens expire at whole seconds.
    pub wall_offset_ns: u64,
}

impl Scenario {
    pub fn draw(random: &mut Random) -> Self {
        let weather = weather(random);
        let shards = 1 + usize::from(random.per_mille(600));
        let clients = one_of(random, &[1, 2, 3, 4, 6]);
        let panics = panics(random, shards);
        let real_recorder = !panics.is_empty() || random.per_mille(150);
        let reloads = if random.per_mille(500) { 1 + random.below(3) } else { 0 };
        let taste = Taste {
            long: random.per_mille(250),
            large: random.per_mille(333),
            vault: reloads > 0,
            slow: random.per_mille(500),
            calls: random.per_mille(500),
        };
        let canceled = taste.slow && random.per_mille(600);
        let cancels = if canceled { 1 + random.below(3) } else { 0 };
        let expiring = one_of(random, &[0, 0, 500]);
        Self {
            shards,
            clients,
            taste,
            weather,
            outages: outages(random, real_recorder),
            real_recorder,
            leavers: one_of(random, &[0, 0, 300]),
            lies: one_of(random, &[0, 0, 0, 500]),
            strangers: one_of(random, &[0, 0, 100]),
            dead_addresses: one_of(random, &[0, 0, 0, 0, 1, 2]),
            arrival_spread_ns: one_of(random, &[1, 1_000_000, 20_000_000]),
            generations: generations(random, reloads),
            reloads: reloads_due(random, reloads),
            stop_ns: stop(random, &panics),
            panics,
            cancels: (0..cancels).map(|_| cancel(random, shards, clients)).collect(),
            token_expiry: [TokenExpiry::End, TokenExpiry::FinishStatement, TokenExpiry::FinishTransaction]
                [random.below(3)],
            expiring,
            analyser_late: one_of(random, &[0, 900, 980]),
            wall_offset_ns: if expiring > 0 { 1_000_000_000 - moment(random) } else { 0 },
        }
    }

    /// The longest outage, if sessions may end of it.
    pub fn long_outage(&self) -> Option<Outage> {
        let length_ns = |o: &Outage| o.to_ns - o.from_ns;
        self.outages.iter().copied().find(|o| u128::from(length_ns(o)) > super::world::RECORDER_ABSENT_MAX.as_nanos())
    }
}

fn one_of(random: &mut Random, choices: &[usize]) -> usize {
    choices[random.below(choices.len())]
}

/// A tenth of a millisecond to a twentieth of a second, each scale as likely.
fn moment(random: &mut Random) -> u64 {
    (100_000 << random.below(9)) + 1_000 * random.below(1_000) as u64
}

fn moments(random: &mut Random, count: usize) -> Vec<u64> {
    let mut found: Vec<u64> = (0..count).map(|_| moment(random)).collect();
    found.sort_unstable();
    found
}

fn weather(random: &mut Random) -> Weather {
    let mut one_of = |choices| one_of(random, choices);
    Weather {
        late: one_of(&[0, 0, 300, 800]),
        lingering: one_of(&[0, 1]) == 1,
        chunk_bytes_max: one_of(&[0, 0, 1, 7, 600, 20_000]),
        stall: one_of(&[0, 0, 0, 20]),
        reset: one_of(&[0, 0, 0, 0, 3]),
        cut: one_of(&[0, 0, 0, 0, 3]),
        mute: one_of(&[0, 0, 0, 0, 0, 3]),
        refuse: one_of(&[0, 0, 0, 0, 200]),
    }
}

fn panics(random: &mut Random, shards: usize) -> Vec<Panic> {
    let count = if random.per_mille(250) { 1 + random.below(2) } else { 0 };
    // Some come when there has been time for a reload.
    let scale = one_of(random, &[1, 10]) as u64;
    let moments = moments(random, count).into_iter().map(|at_ns| at_ns * scale);
    moments.map(|at_ns| Panic { at_ns, shard: random.below(shards), in_a_send: random.per_mille(700) }).collect()
}

/// Some are told to stop in the very turn that a shard panics in, or just before.
fn stop(random: &mut Random, panics: &[Panic]) -> Option<u64> {
    match panics.first() {
        Some(panic) if random.per_mille(400) => Some(panic.at_ns.saturating_sub(random.below(3) as u64 * 100_000)),
        _ => random.per_mille(200).then(|| moment(random)),
    }
}

/// Long outages are surely longer than the sessions' patience, short ones surely shorter.
fn outages(random: &mut Random, real: bool) -> Vec<Outage> {
    let lengths_ms: &[usize] = if real { &[0, 3, 300, 1_500, 12_000] } else { &[0, 0, 0, 0, 1_500, 3_000, 12_000] };
    let mut at_ns = moment(random);
    let mut found = Vec::new();
    for _ in 0..if real { 3 } else { 1 } {
        let length_ns = one_of(random, lengths_ms) as u64 * 1_000_000;
        let crashes = [Crash::Idle, Crash::Unwritten, Crash::Torn, Crash::Unacknowledged];
        let (beats, crash) = (!real && random.per_mille(500), crashes[random.below(crashes.len())]);
        if length_ns > 0 {
            found.push(Outage { from_ns: at_ns, to_ns: at_ns + length_ns, beats, crash });
        }
        at_ns += length_ns + 60_000_000 + moment(random);
    }
    found
}

/// Some come in the midst of a statement, and some while nobody has asked anything yet.
fn reloads_due(random: &mut Random, count: usize) -> Vec<Due> {
    let (mut judged, mut at_ns) = (0, 0);
    let mut due = || {
        judged += 1 + random.below(3);
        let amid = [Amid::Nothing, Amid::Statement, Amid::Bound, Amid::Bound, Amid::Answer][random.below(5)];
        let patience = if amid == Amid::Nothing { 1 } else { 20 };
        at_ns += patience * (5_000_000 + 1_000 * random.below(60_000) as u64);
        Due { judged, at_ns, amid }
    };
    (0..count).map(|_| due()).collect()
}

/// A reload changes one thing or several.
fn generations(random: &mut Random, reloads: usize) -> Vec<Generation> {
    let rule = RULES[random.below(3)];
    let mut made = vec![Generation { rule, secret: 0, certificate: 0, clients_max: 100 }];
    for n in 1..=reloads {
        let mut next = made[n - 1];
        let changes = 1 + random.below(15) | usize::from(random.per_mille(500));
        if changes & 1 > 0 {
            let choices =
                [Rule::Open, Rule::Blocked, Rule::Masked, Rule::Blocked, Rule::Masked, Rule::NoPlain, Rule::NoPlain];
            next.rule = choices[random.below(choices.len())];
        }
        next.secret = if changes & 2 > 0 { n as u8 } else { next.secret };
        next.certificate = if changes & 4 > 0 { 1 - next.certificate } else { next.certificate };
        next.clients_max = if changes & 8 > 0 { [2, 100][random.below(2)] } else { next.clients_max };
        made.push(next);
    }
    made
}

fn cancel(random: &mut Random, shards: usize, clients: usize) -> Cancel {
    let wrong = [Key::WrongSecret, Key::WrongProcess, Key::NoShard, Key::OtherShard];
    let is_right = random.below(2) == 0;
    let whens = [When::AtOnce, When::Running, When::Running, When::Running, When::Idle, When::Idle, When::Gone];
    Cancel {
        target: random.below(clients) as u32,
        shard: random.below(shards),
        key: if is_right { Key::Right } else { wrong[random.below(wrong.len())] },
        when: whens[random.below(whens.len())],
    }
}
