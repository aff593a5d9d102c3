//! What must hold when a world is over.

use super::client::{Account, split};
use super::law::{ADDRESSES, CONNECT_TIMEOUT, GATHERED_BYTES_MAX, Outcome, Rule};
use super::ledger::Evidence;
use super::oracle;
use super::scenario::{Key, When};
use super::upstream::Intake;
use super::words::is_question;
use super::world::{RECORDER_ABSENT_MAX, STOP_NS_MAX, TURN_NS_MAX, World};

impl World {
    pub fn check(&mut self) {
        self.shared.ledger.borrow_mut().read();
        for account in self.shared.house.accounts.clone().iter() {
            self.check_client(&account.borrow());
        }
        for shard in 0..self.places.len() {
            self.check_place(shard);
        }
        assert_eq!((self.census.total(), self.census.seated()), (0, 0), "the census counts who is gone");
        self.check_recorder();
        self.count();
    }

    /// (e) Every wait of a session has its limit: who is left when all are over waits for ever.
    pub fn check_nobody_hangs(&self) {
        for account in self.shared.house.accounts.iter().map(|a| a.borrow()) {
            let is_through = account.closed || account.faulted || account.lost || account.turned_away;
            assert!(is_through, "client {} hangs: {} of {} answers", account.number, account.answered, account.due);
        }
    }

    fn check_client(&self, account: &Account) {
        let ledger = self.shared.ledger.borrow();
        let evidence = ledger.evidence.get(&account.number);
        oracle::nothing_strays(account, evidence);
        if account.stranger {
            assert!(evidence.is_none(), "a stranger has a session");
            assert!(account.login_end.is_none(), "a stranger was let in");
            return;
        }
        self.check_end(account);
        self.check_judged(account);
        let Some(evidence) = evidence else { return };
        oracle::answers_are_the_servers(account, self.may_be_cut(account), self.may_be_starred());
        oracle::the_record_is_complete(account, evidence);
        self.check_patience(evidence);
        let late = account.too_late_from.is_some_and(|from| evidence.requests.len() > from);
        assert!(!late, "client {} went on when its token had expired and nothing was to be finished", account.number);
        self.check_upstreams(account, evidence);
    }

    /// (b) One upstream serves a client. The others that were tried, standbys and those that were too slow, got a login at most.
    fn check_upstreams(&self, account: &Account, evidence: &Evidence) {
        let intakes = self.shared.house.intakes.borrow();
        let dialed: Vec<_> = intakes.iter().map(|i| i.borrow()).filter(|i| i.client == Some(account.number)).collect();
        let Some((served, left)) = dialed.split_last() else { return };
        // A login that was cut off has no end.
        let has_more = |intake: &Intake| intake.login_end.is_some_and(|end| intake.received.len() > end);
        assert!(!left.iter().any(|i| has_more(i)), "an upstream that was left got more than a login");
        assert!(!served.is_standby || !has_more(served), "a standby was sent more than a login");
        if !served.is_standby {
            oracle::requests_are_the_clients(account, served, evidence);
        }
    }

    /// Everything that a shard lends and counts has come back, and who was told to stop has stopped.
    fn check_place(&mut self, shard: usize) {
        let place = &self.places[shard];
        assert_eq!(place.shard.sessions(), 0, "a session is left");
        assert_eq!(place.shard.slots_free(), self.slots, "a slot is lost");
        assert_eq!(place.shard.gathered_bytes_free(), GATHERED_BYTES_MAX, "gathered bytes are lost");
        let Some(stopping_ns) = place.wires.stopping_ns.get() else { return };
        let took_ns = place.wires.clock_ns.get().saturating_sub(stopping_ns);
        assert!(place.has_stopped, "a shard has not stopped {took_ns} ns after it was told to");
        assert!(took_ns < STOP_NS_MAX, "a shard took {took_ns} ns to stop");
    }

    /// (h) A statement is judged by a policy that was in force between its sending and its answer, and never by two.
    fn check_judged(&self, account: &Account) {
        for judged in &account.judged {
            let by = |rule: Rule| rule.outcome() == judged.outcome;
            let known = self.shared.court.between(judged.oldest, judged.newest, |generation| by(generation.rule));
            assert!(
                known || account.lied_to,
                "client {}: {judged:?} by none of {:?}",
                account.number,
                self.scenario.generations
            );
        }
    }

    /// (l) What the shards were given receipts for is on disk once, whatever has died.
    fn check_recorder(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        let last_ns = self.places.iter().map(|place| place.wires.clock_ns.get()).max().unwrap_or(0);
        let ledger = self.shared.ledger.borrow();
        recorder.check(&ledger, self.scenario.wall_offset_ns + last_ns);
        let after = self.recorded_before.map_or(0, |before| ledger.records() - before);
        self.shared.tally.borrow_mut().add("record after a restart of the recorder", after);
    }

    /// (f) Nobody has waited for the recorder for longer than the limit. What is slow by itself does not count.
    fn check_patience(&self, evidence: &Evidence) {
        let (weather, taste) = (self.scenario.weather, self.scenario.taste);
        let Some(outage) = self.scenario.long_outage().filter(|outage| !outage.beats) else { return };
        // Who is still looking for an address that answers does not wait for the recorder yet.
        if weather.stall > 0 || weather.mute > 0 || taste.large || self.scenario.dead_addresses > 0 {
            return;
        }
        let wall_ns = self.shared.wall_ns;
        let waited = evidence.opened_ns < wall_ns + outage.from_ns && evidence.last_request_ns > wall_ns + outage.to_ns;
        assert!(!waited, "a session has waited for the recorder for {RECORDER_ABSENT_MAX:?} and gone on");
    }

    /// Some ends come in the midst of a row, where there is no place for a reason.
    fn may_be_cut(&self, account: &Account) -> bool {
        let sent_away = self.scenario.stop_ns.is_some() || account.expires_unix_s < u64::MAX;
        self.scenario.long_outage().is_some() || sent_away || self.has_lost_its_role(account)
    }

    /// Somebody from whom nothing is hidden sees stars only where another policy hides something, and the gateway is not sure
    /// what runs.
    fn may_be_starred(&self) -> bool {
        self.scenario.generations.iter().any(|generation| generation.rule == Rule::Masked)
    }

    fn has_lost_its_role(&self, account: &Account) -> bool {
        !account.masked && self.shared.court.since(account.number, |generation| generation.rule == Rule::NoPlain)
    }

    /// (e), (f), (j), (k) Without a fault a client reaches its end, or is told why it does not, and that is so.
    fn check_end(&self, account: &Account) {
        if account.faulted || account.done || account.lost || account.turned_away {
            return;
        }
        let number = account.number;
        let explained = match (&account.fatal, &account.farewell) {
            (Some(fatal), _) => self.explains(fatal, account),
            // A slow network has its time to take the reason, and no more.
            (None, Some((at_ns, words))) if account.has_waited_since(self.began_to_end(account, *at_ns, words)) => {
                self.explains(words, account)
            }
            (None, None) if account.login_end.is_none() => {
                // Nobody is told who comes too late to be let in, or who has not taken even what came before the reason.
                let stopping_ns = self.places[account.shard].wires.stopping_ns.get();
                stopping_ns.is_some_and(|at_ns| account.received.len() <= 1 || account.has_waited_since(at_ns))
            }
            (None, _) => self.may_be_cut(account) && !split(account.answers()).1.is_empty(),
        };
        assert!(explained, "client {number} has no fault and did not come to its end; told: {:?}", account.fatal);
    }

    /// When the gateway began to end a session whose reason it sent at `at_ns`: what was on its way then had to leave first.
    fn began_to_end(&self, account: &Account, at_ns: u64, words: &str) -> u64 {
        let ledger = self.shared.ledger.borrow();
        let closed_ns = ledger.evidence.get(&account.number).and_then(|e| e.closed_ns);
        let stopping_ns = self.places[account.shard].wires.stopping_ns.get();
        let began_ns = closed_ns.map(|at_ns| at_ns - self.shared.wall_ns);
        began_ns
            .or(stopping_ns.filter(|_| words.contains("is shutting down")))
            .map_or(at_ns, |began_ns| began_ns.min(at_ns))
    }

    fn explains(&self, fatal: &str, account: &Account) -> bool {
        let expires = account.expires_unix_s < u64::MAX;
        let (lost_role, stops) = (self.has_lost_its_role(account), self.scenario.stop_ns.is_some());
        let few = self.shared.court.since(account.number, |generation| generation.clients_max < 100);
        let reasons = [
            ("C57P01", "is shutting down", stops),
            ("C57P01", "cannot be recorded", self.scenario.long_outage().is_some()),
            ("C57P01", "the policy has changed", lost_role),
            ("C28000", "no role of the token may reach", lost_role),
            ("C28000", "the token has expired", expires),
            ("C53300", "too many clients", few),
            ("C08001", "the upstream cannot be reached", self.was_too_slow(account, fatal)),
            // The budget is small here: a few long tokens that come in pieces fill their half of it.
            ("C54000", "too many logins are held whole", true),
            // Likewise: others wait for the room of one whose peer has stood still for 10 s.
            ("C54000", "kept room for a message above 32 KiB for 10 s", true),
        ];
        reasons.into_iter().any(|(state, words, so)| so && fatal.contains(state) && fatal.contains(words))
    }

    /// Every address at which a session can be had is told to have been late, and was.
    fn was_too_slow(&self, account: &Account, fatal: &str) -> bool {
        let live = self.scenario.dead_addresses + 1..=ADDRESSES.into();
        let told =
            live.clone().all(|n| fatal.contains(&format!("address {n} did not answer within connect_timeout_s")));
        let intakes = self.shared.house.intakes.borrow();
        // Whoever was cut off in its startup message has not said for whom it came.
        let of =
            |i: &Intake| !i.is_standby && !i.is_canceller && i.client.is_none_or(|client| client == account.number);
        let is_late = |i: &Intake| i.seen_ns + TURN_NS_MAX >= i.dialed_ns + CONNECT_TIMEOUT.as_nanos() as u64;
        told && intakes.iter().map(|i| i.borrow()).filter(|i| of(i) && is_late(i)).count() >= live.count()
    }

    /// What has happened in this world, beside what was counted when it did.
    fn count(&mut self) {
        (0..self.places.len()).for_each(|shard| self.count_struck(shard));
        let mut tally = self.shared.tally.borrow_mut();
        for account in self.shared.house.accounts.iter().map(|a| a.borrow()) {
            let of = |outcome| account.judged.iter().filter(|j| j.outcome == outcome).count();
            let outcomes = [Outcome::Shown, Outcome::Starred, Outcome::Refused].map(of);
            let crossed = account.judged.iter().filter(|j| j.oldest < j.newest).count();
            let told = |words: &str| usize::from(account.fatal.as_ref().is_some_and(|fatal| fatal.contains(words)));
            tally.add("statement shown", outcomes[0]);
            tally.add("statement starred", outcomes[1]);
            tally.add("statement refused", outcomes[2]);
            tally.add("session with two outcomes", usize::from(outcomes.iter().filter(|n| **n > 0).count() > 1));
            tally.add("statement that began under one policy and may have ended under another", crossed);
            tally.add("session ended by a reload", told("the policy has changed"));
            tally.add("login refused by a reload", told("no role of the token may reach"));
            tally.add("too many clients after a reload", told("too many clients"));
            let away = account.turned_away || account.received.is_empty() && account.closed && !account.faulted;
            tally.add("turned away while stopping", usize::from(away));
            tally.add("slow statement cut short", account.cancelled);
            tally.add("lie of an upstream", usize::from(account.lied_to));
            tally.add("stranger", usize::from(account.stranger && !account.received.is_empty()));
        }
        let is_later =
            |i: &Intake| i.password.as_ref().is_some_and(|given| *given != self.scenario.generations[0].password());
        let exchanged = self.shared.house.intakes.borrow().iter().filter(|i| is_later(&i.borrow())).count();
        tally.add("credential exchanged", exchanged);
        for intake in self.shared.house.intakes.borrow().iter().map(|i| i.borrow()) {
            let (frames, _) = split(&intake.received[intake.login_end.unwrap_or(intake.received.len())..]);
            let questions = frames.iter().filter(|frame| frame[0] == b'E' && is_question(frame)).count();
            tally.add("question of the gateway's own", questions);
        }
        for ask in self.shared.house.asks.borrow().iter() {
            let target = self.shared.house.accounts[ask.plan.target as usize].borrow();
            let across = ask.landed && ask.plan.shard != target.shard;
            let is_right = ask.plan.key == Key::Right;
            tally.add("cancel asked", 1);
            tally.add("cancel landed", usize::from(ask.landed));
            tally.add("cancel landed over shards", usize::from(across));
            tally.add("cancel of an idle session", usize::from(is_right && ask.plan.when == When::Idle));
            tally.add("cancel of a session that is gone", usize::from(is_right && ask.plan.when == When::Gone));
            tally.add("cancel with a wrong key", usize::from(!is_right));
        }
        let ledger = self.shared.ledger.borrow();
        let after =
            |shard: usize, opened_ns: u64| self.places[shard].panicked_ns.is_some_and(|at_ns| opened_ns > at_ns);
        let shard_of = |client: u32| self.shared.house.accounts[client as usize].borrow().shard;
        let later = ledger.evidence.iter().filter(|(client, e)| after(shard_of(**client), e.opened_ns)).count();
        tally.add("session after a panic", later);
        let is_lost_on = |shard: usize| ledger.evidence.iter().any(|(client, e)| e.lost && shard_of(*client) == shard);
        let beside = |client: u32, e: &Evidence| after(shard_of(client), e.opened_ns) && is_lost_on(shard_of(client));
        let successors = ledger.evidence.iter().filter(|(client, e)| beside(**client, e)).count();
        tally.add("session after a panic that others were lost by", successors);
    }

    /// Everything that was said, for whoever repeats a seed.
    pub fn dump(&self) {
        let lines = |title: &str, bytes: &[u8]| {
            eprintln!("--- {title}");
            split(bytes).0.iter().for_each(|f| eprintln!("{} {}", f[0] as char, oracle::show(f)));
        };
        eprintln!("{:#?}", self.scenario);
        let ledger = self.shared.ledger.borrow();
        for account in self.shared.house.accounts.iter().map(|a| a.borrow()) {
            let number = account.number;
            eprintln!(
                "=== client {number} on shard {} masked={} faulted={} lost={} done={} told={:?} {:?}",
                account.shard,
                account.masked,
                account.faulted,
                account.lost,
                account.done,
                account.farewell,
                account.judged
            );
            if let Some(e) = ledger.evidence.get(&number) {
                let since = |at_ns: u64| at_ns.saturating_sub(self.shared.wall_ns);
                eprintln!(
                    "opened at {}, last request at {}, {:?}",
                    since(e.opened_ns),
                    since(e.last_request_ns),
                    e.close
                );
            }
            lines("sent", &account.sent);
            eprintln!("all: {}", account.received[..account.received.len().min(600)].escape_ascii());
            lines("received", account.answers());
            lines("expected", &account.expected);
            for intake in self.shared.house.intakes.borrow().iter().map(|i| i.borrow()) {
                if intake.client == Some(number) {
                    let login_end = intake.login_end.unwrap_or(intake.received.len());
                    lines("upstream received", &intake.received[login_end..]);
                }
            }
        }
    }
}
