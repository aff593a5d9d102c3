//! One seed's world: shards over simulators, their clients, the upstream, a recorder, and a clock; and what is done to them.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dataplane::buffer::{Slab, budget};
use dataplane::control::analyser::{Analyser, ByHand};
use dataplane::io::sim::{Arrival, Random, Sim};
use dataplane::shard::census::Census;
use dataplane::shard::mailbox::{Mail, Mailbox, Postbox, mailbox};
use dataplane::shard::{Now, Parts, Shard};

use super::cancel::{Asks, Canceller};
use super::client::{Account, Client, Ending};
use super::law::{Court, Rule};
use super::ledger::Ledger;
use super::recorder::Recorder;
use super::scenario::{Amid, Due, Outage, Panic, Scenario};
use super::script::script;
use super::tally::Tally;
use super::upstream::House;
use super::wires::{self, Armed, Ends, Injected, Wires};

/// Client n comes from this port plus n.
pub const FIRST_PORT: u32 = 10_000;
/// Cancel requests come from here on.
pub const CANCEL_PORT: u32 = 20_000;
pub const EPOCH_NS: u64 = 1_800_000_000_000_000_000;
/// The longest turn of a shard, and a little more.
pub const TURN_NS_MAX: u64 = 25_000_000;
const TURNS_MAX: usize = 400_000;
/// When the world ends for whoever is left: longer than every time limit of a session.
const DOOMSDAY_NS: u64 = 60_000_000_000;
pub const RECORDER_ABSENT_MAX: Duration = Duration::from_secs(5);
/// How long a shard may take to stop: `drain_timeout` (1 s), farewells to peers that do not read (2 s), and starts after panics.
pub const STOP_NS_MAX: u64 = 3_500_000_000;
/// How much later some come in a world of panics.
const LATECOMER_NS: u64 = 150_000_000;
/// What a shard that has panicked waits before it is started again (`shard/spawn.rs`).
const RESTART_PAUSE_NS: u64 = 100_000_000;

/// A shard's thread: the shard, and what outlives it.
pub struct Place {
    pub shard: Shard<Sim>,
    pub wires: Wires,
    mailbox: Mailbox,
    bell: OwnedFd,
    /// It was told to stop, and has.
    pub has_stopped: bool,
    /// Wall clock of its last panic.
    pub panicked_ns: Option<u64>,
    trace: u64,
}

pub struct World {
    pub places: Vec<Place>,
    pub scenario: Scenario,
    pub shared: wires::World,
    pub recorder: Option<Recorder>,
    pub census: Census,
    pub slots: usize,
    postboxes: Vec<Postbox>,
    analyser: Analyser,
    texts: ByHand,
    random: Random,
    generation: usize,
    panics: std::vec::IntoIter<Panic>,
    next_panic: Option<Panic>,
    outage: Option<Outage>,
    is_stopping: bool,
    /// Records that there were when the recorder was last started again.
    pub recorded_before: Option<usize>,
}

/// Runs one seed; the trace's hash, and what has happened.
pub fn run(seed: u64) -> (u64, Tally) {
    let mut world = World::new(seed);
    let turned = catch_unwind(AssertUnwindSafe(|| world.turn_until_over()));
    if std::env::var_os("WIREWARD_SIM_SEED").is_some() {
        world.dump();
    }
    turned.unwrap_or_else(|failed| resume_unwind(failed));
    world.check();
    let trace = world
        .places
        .iter_mut()
        .fold(0, |all: u64, place| (all ^ place.trace ^ place.shard.io().trace()).wrapping_mul(0x0100_0000_01b3));
    let tally = world.shared.tally.borrow().clone();
    (trace, tally)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random);
        let wall_ns = wires::wall_ns(scenario.wall_offset_ns);
        let accounts = accounts(&mut random, &scenario);
        let expiries = accounts.iter().map(|a| a.borrow().expires_unix_s).collect();
        let court = Rc::new(Court::new(&scenario, expiries));
        let witness = scenario.real_recorder;
        let ledger = Rc::new(RefCell::new(Ledger::new(scenario.shards, witness, court.clone())));
        let (intakes, asks) = (Rc::default(), Rc::default());
        let house = House { intakes, accounts: Rc::new(accounts), asks, court: court.clone() };
        let (tally, lies, dead_addresses) = (Rc::default(), scenario.lies, scenario.dead_addresses);
        let shared = wires::World { court, house, ledger, tally, wall_ns, lies, dead_addresses };
        let recorder =
            witness.then(|| Recorder::start(&shared.ledger.borrow(), scenario.shards, scenario.wall_offset_ns));
        let (analyser, texts) = Analyser::by_hand();
        let mut mailboxes: Vec<_> = (0..scenario.shards).map(|_| mailbox().expect("an event descriptor")).collect();
        let postboxes = mailboxes.iter().map(|(_, postbox, _)| postbox.clone()).collect();
        let slots = budget::session_slots((scenario.clients + scenario.cancels.len()) as u32);
        let mut panics = scenario.panics.clone().into_iter();
        let mut world = Self {
            places: Vec::new(),
            shared,
            recorder,
            census: Census::default(),
            slots: slots as usize,
            postboxes,
            analyser,
            texts,
            generation: 0,
            next_panic: panics.next(),
            panics,
            outage: None,
            is_stopping: false,
            recorded_before: None,
            random,
            scenario,
        };
        let arrivals = world.arrivals();
        for (shard, arrivals) in arrivals.into_iter().enumerate() {
            let (mailbox, _, bell) = mailboxes.remove(0);
            let wires = Wires { shard, ..Wires::default() };
            let started = world.start(&wires, &mailbox, &bell, arrivals);
            let (has_stopped, panicked_ns, trace) = (false, None, 0);
            world.places.push(Place { shard: started, wires, mailbox, bell, has_stopped, panicked_ns, trace });
        }
        world
    }

    /// What `shard/spawn.rs` does, at the first start and at every other.
    fn start(&mut self, wires: &Wires, mailbox: &Mailbox, bell: &OwnedFd, arrivals: Vec<Arrival>) -> Shard<Sim> {
        let bell = bell.try_clone().expect("a descriptor");
        let mut sim = Sim::new(self.random.next(), self.scenario.weather, bell, wires.clock_ns.clone());
        arrivals.into_iter().for_each(|arrival| sim.arrive(arrival));
        wires.tie(&mut sim, &self.shared, self.random.next());
        let mut bytes = Random::new(self.random.next());
        let first = self.shared.court.reload(0);
        let producer = self.shared.ledger.borrow().producer(wires.shard);
        Shard::new(Parts {
            io: sim,
            slab: Slab::new(self.slots as u32).expect("memory"),
            tap: Box::new(producer),
            control: first.control,
            analyser: self.analyser.clone(),
            mailbox: mailbox.clone(),
            limits: first.limits,
            siblings: self.postboxes.clone(),
            census: self.census.clone(),
            counters: Arc::default(),
            doors: first.doors,
            recorder_absent_max: RECORDER_ABSENT_MAX,
            random: Box::new(move |out| out.iter_mut().for_each(|b| *b = bytes.next() as u8)),
            number: wires.shard as u8,
            now: now(self.shared.wall_ns, wires.clock_ns.get()),
        })
    }

    /// Who comes to which shard, and when.
    fn arrivals(&mut self) -> Vec<Vec<Arrival>> {
        let (scenario, random) = (&self.scenario, &mut self.random);
        let mut arrivals: Vec<Vec<Arrival>> = (0..scenario.shards).map(|_| Vec::new()).collect();
        let from = |port: u32| SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        let mut at_ns = 0;
        for account in self.shared.house.accounts.iter() {
            let ending = match random.below(1000) {
                n if n < scenario.leavers / 2 => Ending::Fin,
                n if n < scenario.leavers => Ending::Reset,
                _ => Ending::Terminate,
            };
            let steps = script(random, scenario.taste);
            let (asks, court) = (random.per_mille(300), self.shared.court.clone());
            let client = Client::new(account.clone(), steps, ending, asks, court, self.shared.wall_ns);
            at_ns += random.below(scenario.arrival_spread_ns) as u64;
            // Whom a panic has lost others follow.
            if !scenario.panics.is_empty() && random.per_mille(200) {
                at_ns += LATECOMER_NS;
            }
            let (shard, port) = (account.borrow().shard, FIRST_PORT + account.borrow().number);
            arrivals[shard].push((at_ns, from(port), Box::new(client)));
        }
        let asks: &Asks = &self.shared.house.asks;
        for (n, plan) in scenario.cancels.iter().enumerate() {
            let target = self.shared.house.accounts[plan.target as usize].clone();
            let canceller = Canceller::new(*plan, target, asks.clone());
            arrivals[plan.shard].push((at_ns, from(CANCEL_PORT + n as u32), Box::new(canceller)));
        }
        arrivals
    }

    fn turn_until_over(&mut self) {
        let mut is_doomed = false;
        for _ in 0..TURNS_MAX {
            let Some(behind) = self.behind() else { return };
            let now_ns = self.places[behind].wires.clock_ns.get();
            self.strike(now_ns);
            self.record(now_ns);
            self.turn(behind);
            if self.is_over() {
                return;
            }
            if now_ns > DOOMSDAY_NS && !is_doomed {
                is_doomed = true;
                self.check_nobody_hangs();
                self.places.iter_mut().for_each(|place| place.shard.io().reset_all());
            }
        }
        let left: Vec<usize> = self.places.iter().map(|place| place.shard.sessions()).collect();
        panic!("not over after {TURNS_MAX} turns: {left:?} sessions are left");
    }

    /// The shard whose clock is behind has the next turn.
    fn behind(&self) -> Option<usize> {
        let running = (0..self.places.len()).filter(|n| !self.places[*n].has_stopped);
        running.min_by_key(|n| self.places[*n].wires.clock_ns.get())
    }

    fn is_over(&mut self) -> bool {
        let stops = self.is_stopping;
        let over = |p: &mut Place| p.has_stopped || !stops && p.shard.io().open() == 0 && p.shard.sessions() == 0;
        let is_late = |p: &Place| p.wires.stopping_ns.get().is_some_and(|at| p.wires.clock_ns.get() > at + STOP_NS_MAX);
        self.places.iter_mut().all(over) || self.places.iter().any(is_late)
    }

    /// What is due by now is done.
    fn strike(&mut self, now_ns: u64) {
        let judged = self.shared.court.judged.get();
        let any = |is: fn(&Account) -> bool| self.shared.house.accounts.iter().any(|a| is(&a.borrow()));
        let is_amid = |amid| match amid {
            Amid::Nothing => true,
            Amid::Statement => any(|account| account.waits_for_vault),
            Amid::Bound => any(|account| account.has_bound),
            Amid::Answer => any(Account::is_amid_answer),
        };
        let is_due = |due: &Due| due.at_ns <= now_ns || due.judged <= judged && is_amid(due.amid);
        if self.scenario.reloads.get(self.generation).is_some_and(is_due) {
            self.generation += 1;
            self.reload();
        }
        if self.scenario.stop_ns.is_some_and(|at_ns| at_ns <= now_ns) && !self.is_stopping {
            self.is_stopping = true;
            self.stop();
        }
        if let Some(panic) = self.next_panic.take_if(|panic| panic.at_ns <= now_ns) {
            let place = if panic.in_a_send { Armed::Send } else { Armed::Clock };
            self.places[panic.shard].wires.armed.set(Some(place));
            self.next_panic = self.panics.next();
        }
    }

    fn reload(&mut self) {
        for (shard, postbox) in self.postboxes.iter().enumerate() {
            self.shared.court.mailed(shard, self.generation);
            postbox.send(Mail::Reload(Box::new(self.shared.court.reload(self.generation))));
        }
        let runs = self.shared.house.accounts.iter().filter(|a| a.borrow().runs()).count();
        let mut tally = self.shared.tally.borrow_mut();
        tally.add("reload", 1);
        tally.add("reload under a running statement", usize::from(runs > 0));
        let count = |is: fn(&Account) -> bool| self.shared.house.accounts.iter().filter(|a| is(&a.borrow())).count();
        tally.add("reload between a Bind and its Execute", count(|account| account.has_bound));
        tally.add("reload in the midst of an answer", count(Account::is_amid_answer));
    }

    fn stop(&mut self) {
        for (place, postbox) in self.places.iter().zip(&self.postboxes) {
            let runs = self.shared.house.accounts.iter().map(|a| a.borrow()).filter(|a| a.runs());
            *place.wires.running.borrow_mut() = runs.map(|account| account.number).collect();
            place.wires.stopping_ns.set(Some(place.wires.clock_ns.get()));
            postbox.send(Mail::Stop);
        }
        self.shared.tally.borrow_mut().add("stop", 1);
    }

    /// The recorder's turn: it beats and frees room, unless the scenario has it dead or its disk stuck.
    fn record(&mut self, now_ns: u64) {
        let outage = self.scenario.outages.iter().copied().find(|o| (o.from_ns..o.to_ns).contains(&now_ns));
        let began = outage.filter(|o| self.outage.is_none_or(|before| before.from_ns != o.from_ns));
        self.outage = outage;
        let wall_offset_ns = self.shared.wall_ns - EPOCH_NS;
        let mut ledger = self.shared.ledger.borrow_mut();
        ledger.read();
        match &mut self.recorder {
            Some(recorder) => {
                if let Some(outage) = began {
                    recorder.die(outage.crash, wall_offset_ns + now_ns);
                    self.shared.tally.borrow_mut().add("death of the recorder", 1);
                }
                if outage.is_none() && !recorder.is_alive() {
                    recorder.live(wall_offset_ns + now_ns);
                    self.recorded_before = Some(ledger.records());
                }
                recorder.step(wall_offset_ns + now_ns);
            }
            None => {
                if outage.is_none_or(|o| o.beats) {
                    ledger.beat(self.shared.wall_ns + now_ns);
                }
                if outage.is_none() {
                    ledger.release();
                }
                let stuck = began.is_some_and(|outage| outage.beats);
                self.shared.tally.borrow_mut().add("stuck disk", usize::from(stuck));
            }
        }
    }

    /// One turn of one shard; then long texts are judged, so that their letters come at the same turn whenever a seed is run.
    fn turn(&mut self, shard: usize) {
        let place = &mut self.places[shard];
        let (wall_ns, wires) = (self.shared.wall_ns, place.wires.clone());
        let mut clock = move || {
            Armed::strike(&wires.armed, Armed::Clock);
            now(wall_ns, wires.clock_ns.get())
        };
        let turned = catch_unwind(AssertUnwindSafe(|| place.shard.turn(&mut clock)));
        if let Err(why) = turned {
            if !why.is::<Injected>() {
                resume_unwind(why);
            }
            return self.start_again(shard);
        }
        self.shared.ledger.borrow_mut().read();
        let late = self.scenario.analyser_late;
        while !self.random.per_mille(late) && self.texts.judge_one() {
            self.shared.tally.borrow_mut().add("long text judged late", usize::from(late > 0));
        }
        self.settle(shard);
        if self.places[shard].shard.has_stopped() {
            self.end(shard);
        }
    }

    /// What was mailed before the turn holds now.
    fn settle(&mut self, shard: usize) {
        let (court, accounts) = (&self.shared.court, &self.shared.house.accounts);
        let (oldest, newest) = court.law(shard);
        court.settled(shard);
        let mut ledger = self.shared.ledger.borrow_mut();
        if (oldest + 1..=newest).any(|n| court.generations[n].rule == Rule::NoPlain) {
            ledger.bar(|client| {
                let account = accounts[client as usize].borrow();
                account.shard == shard && !account.masked
            });
        }
        ledger.stopped[shard] |= self.is_stopping;
    }

    /// The shard's thread has ended, and with it its listeners.
    fn end(&mut self, shard: usize) {
        let place = &mut self.places[shard];
        place.has_stopped = true;
        for (_, address, _) in place.shard.io().abandon() {
            if u32::from(address.port()) < CANCEL_PORT {
                let number = u32::from(address.port()) - FIRST_PORT;
                self.shared.house.accounts[number as usize].borrow_mut().turned_away = true;
            }
        }
    }

    /// All that the shard owned is gone; what outlives it is given to the next.
    fn start_again(&mut self, shard: usize) {
        let (wires, accounts) = (self.places[shard].wires.clone(), self.shared.house.accounts.clone());
        let here = |account: &Account| account.shard == shard;
        let beside = accounts.iter().filter(|a| !here(&a.borrow()) && a.borrow().is_in()).count();
        let before = self.shared.ledger.borrow().lost.len();
        self.shared.ledger.borrow_mut().lose(shard, |client| here(&accounts[client as usize].borrow()));
        for number in wires.ends.borrow().clients.values() {
            let mut account = accounts[*number as usize].borrow_mut();
            account.lost |= !account.closed;
        }
        *wires.ends.borrow_mut() = Ends::default();
        let place = &mut self.places[shard];
        let arrivals: Vec<Arrival> = place.shard.io().abandon().collect();
        place.trace = (place.trace ^ place.shard.io().trace()).wrapping_mul(0x0100_0000_01b3);
        place.panicked_ns = Some(self.shared.wall_ns + wires.clock_ns.get());
        wires.clock_ns.set(wires.clock_ns.get() + RESTART_PAUSE_NS);
        let (mailbox, bell) = (place.mailbox.clone(), place.bell.try_clone().expect("a descriptor"));
        self.count_struck(shard);
        let mut tally = self.shared.tally.borrow_mut();
        tally.add("panic in a turn", 1);
        tally.add("session lost by a panic", self.shared.ledger.borrow().lost.len() - before);
        tally.add("session beside a panic", beside);
        drop(tally);
        let started = self.start(&wires, &mailbox, &bell, arrivals);
        self.places[shard].shard = started;
    }

    /// What the simulator has done to a shard.
    pub fn count_struck(&mut self, shard: usize) {
        let struck = self.places[shard].shard.io().struck;
        let counts = [
            ("late completion", struck.late),
            ("short send", struck.short),
            ("stalled peer", struck.stall),
            ("reset", struck.reset),
            ("cut", struck.cut),
            ("silent peer", struck.mute),
            ("refused connect", struck.refuse),
        ];
        let mut tally = self.shared.tally.borrow_mut();
        counts.into_iter().for_each(|(what, times)| tally.add(what, times));
    }
}

fn now(wall_ns: u64, clock_ns: u64) -> Now {
    Now { unix_ns: wall_ns + clock_ns, monotonic_ns: clock_ns }
}

fn accounts(random: &mut Random, scenario: &Scenario) -> Vec<Rc<RefCell<Account>>> {
    let mut account = |number| {
        let (shard, masked) = (random.below(scenario.shards), random.per_mille(500));
        let mut account = Account::new(number, shard, masked, random.per_mille(scenario.strangers));
        account.model.reloads = !scenario.reloads.is_empty();
        if random.per_mille(scenario.expiring) {
            account.expires_unix_s = EPOCH_NS / 1_000_000_000 + 1;
        }
        Rc::new(RefCell::new(account))
    };
    (0..scenario.clients as u32).map(&mut account).collect()
}
