//! Golden exchanges: `tests/golden/postgres/*.txt` say who says what and what must come out, on both sides and in the
//! record. Every exchange is run whole, cut in two, and byte by byte: nothing may differ. Bursts of less than 2,000 bytes are
//! cut at every place, larger ones at chosen places, or with `WIREWARD_CUTS=every` (`make conformance`) at all 910,000.
//!
//! ```text
//! login masked                              a login as that role (plain, masked, detected), not written out
//! listener oauth                            clients give their token by SASL, unless they say otherwise
//! client>   Q "select 1\0"                  what the client says: tag, then the body's parts
//! upstream> C "SELECT 1\0" | Z "I"          several messages in a line
//! to client Z "I"                           what must come out of what was said above
//! recorded verdict allow by rule            what must be in the record at the end
//! ```
//! A part is `"text"`, with Rust's escapes, or `"x"*40000`. Tag `-` is a message without a tag, `!` bytes without a length.
//! `client ends` and `upstream ends` close a side. `WIREWARD_GOLDEN=write` writes what comes out into the files, to be read
//! and judged by a person.

#[cfg(test)]
mod tests {
    mod notation;
    mod table;
    mod waiting;

    use std::collections::VecDeque;
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};
    use std::rc::Rc;

    use hashbrown::HashMap;
    use notation::{parse, show};
    use policy_compiler::artifact::MaskAction;
    use policy_compiler::detect;
    use policy_compiler::detect::transform::HashKey;
    use ring::{Consumer, Kind, Producer, Words};
    use table::Table;

    use crate::buffer::{Gathered, SLOT_BYTES, Slab};
    use crate::control::credential::Secret;
    use crate::control::identity::Identity;
    use crate::datapath::counters::Counters;
    use crate::datapath::lane::Want;
    use crate::datapath::mask::{DetectView, MaskView};
    use crate::datapath::relay::Cx;
    use crate::fault::{Fault, Side};
    use crate::io::Lent;
    use crate::protocol::Scratch;
    use crate::protocol::postgres::dissector::{Limits, NameKey, REPLY_BYTES_MAX, Shared};
    use crate::protocol::postgres::wire::{message, untagged};
    use crate::session::attempts::Target;
    use crate::session::{
        Admission, Auth, CancelKey, Encryption, Input, Output, Request, Session, Settings, Shortage, Upstream,
    };

    type Memory = Words<std::sync::Arc<[std::sync::atomic::AtomicU64]>>;

    const SIDES: [Side; 2] = [Side::Client, Side::Upstream];
    const SLOTS: u32 = 8;
    /// As much as one session's limits come to, as the configuration demands.
    const GATHERED_BYTES_MAX: usize = REPLY_BYTES_MAX + (1 << 16);

    /// How the bytes of an exchange arrive and leave.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Cut {
        Whole,
        /// Every burst in two parts, the first of so many bytes.
        At(usize),
        /// Byte by byte, in both directions.
        Bytes,
    }

    /// What is hidden from the client.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Login {
        Plain,
        /// Two columns of people.
        Masked,
        /// These, and what the detectors find.
        Detected,
    }

    /// A session with all that it needs, and no shard.
    struct Stage {
        session: Session,
        slab: Slab,
        ring: Producer<Memory>,
        recorder: Consumer<Memory>,
        scratch: Scratch,
        login: Login,
        cut: Cut,
        dialed: bool,
        closed: bool,
        /// The client reads nothing for now.
        stalled: bool,
        deaf_upstream: bool,
        recorder_present: bool,
        /// Shared with other stages, as a shard's sessions share it.
        gathered: Gathered,
        shortage: Option<Shortage>,
        judge: Table,
        /// Pieces that have not been received; an empty one is the end of the stream.
        coming: [VecDeque<Vec<u8>>; 2],
        /// What has left, by side.
        left: [Vec<u8>; 2],
        /// Requests and responses as recorded, and a line for each other record.
        recorded: [Vec<u8>; 2],
        events: String,
    }

    const SHARED: Shared = Shared {
        limits: Limits {
            statement_bytes_max: 1 << 16,
            bind_bytes_max: 1 << 16,
            row_bytes_max: 1 << 17,
            prepared_statements_max: 10,
            prepared_bytes_max: 1 << 20,
        },
        token_bytes_max: 4096,
        keeps_upstreams: false,
        ignored_startup_parameters: Vec::new(),
        name_key: NameKey([1; 16]),
    };
    impl Stage {
        fn new(login: Login, cut: Cut) -> Self {
            Self::behind(Auth::Password, login, cut)
        }

        fn behind(auth: Auth, login: Login, cut: Cut) -> Self {
            let words: std::sync::Arc<[_]> = Words::heap(1 << 20, 1).0.into();
            let settings = Settings {
                shared: Rc::new(SHARED),
                encryption: Encryption::None,
                proxied: false,
                auth,
                surplus: false,
            };
            let key = CancelKey { process_id: 7, secret: *b"0123456789abcdef0123456789abcdef" };
            let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 4000));
            Self {
                session: Session::new(1, settings, peer.into(), key, 0),
                slab: Slab::new(SLOTS).expect("memory"),
                ring: Producer::attach(Words(words.clone())).expect("a fresh ring"),
                recorder: Consumer::attach(Words(words)).expect("a fresh ring"),
                scratch: Scratch::default(),
                login,
                cut,
                dialed: false,
                closed: false,
                stalled: false,
                deaf_upstream: false,
                recorder_present: true,
                gathered: Gathered::new(GATHERED_BYTES_MAX),
                shortage: None,
                judge: Table { waits: false, view: 0 },
                coming: [VecDeque::new(), VecDeque::new()],
                left: [Vec::new(), Vec::new()],
                recorded: [Vec::new(), Vec::new()],
                events: String::new(),
            }
        }

        /// A side says something; all that follows from it is done when this returns.
        fn say(&mut self, side: Side, bytes: &[u8]) {
            let pieces: Vec<&[u8]> = match self.cut {
                Cut::At(n) if n < bytes.len() => vec![&bytes[..n], &bytes[n..]],
                Cut::Bytes if !bytes.is_empty() => bytes.chunks(1).collect(),
                _ => vec![bytes],
            };
            for piece in pieces {
                self.coming[side as usize].push_back(piece.to_vec());
                while !self.closed && SIDES.into_iter().any(|side| self.send(side) || self.receive(side)) {}
            }
        }

        /// Receives what a lane has room for; false if there is nothing to do.
        fn receive(&mut self, side: Side) -> bool {
            let Some(piece) = self.coming[side as usize].front_mut() else { return false };
            if !self.session.listens_to(side) || side == Side::Upstream && !self.dialed {
                return false;
            }
            let lane = self.session.incoming(side);
            let (fresh, index, from) = match lane.want() {
                None => return false,
                Some(Want::Any(_)) => (true, 0, 0),
                Some(Want::Tail(slot, from)) => (false, slot.index(), from),
            };
            lane.receive_started();
            let slot = fresh.then(|| self.slab.take().expect("a free slot"));
            let index = slot.as_ref().map_or(index, crate::buffer::Slot::index);
            let n = piece.len().min(SLOT_BYTES - from);
            self.slab.lent_mut(index, from..from + n).copy_from_slice(&piece[..n]);
            piece.drain(..n);
            if piece.is_empty() {
                self.coming[side as usize].pop_front();
            }
            self.feed(Input::Received { side, slot, bytes: n });
            self.read_record();
            true
        }

        fn feed(&mut self, input: Input) {
            let mut outputs = Vec::new();
            let mut cx = Cx {
                slab: &mut self.slab,
                tap: &mut self.ring,
                judge: &mut self.judge,
                scratch: &mut self.scratch,
                gathered: &self.gathered,
                counters: &Counters::default(),
                now_unix_ns: 0,
                recorder_present: self.recorder_present,
            };
            self.shortage = self.session.handle(input, &mut cx, &mut outputs);
            let ring_full = self.shortage == Some(Shortage::Recorder) && self.recorder_present;
            assert!(!ring_full, "the ring is large enough");
            for output in outputs {
                match output {
                    Output::Admit(request) => self.feed(Input::Admitted(admit(&request, self.login))),
                    Output::Challenge { database } => {
                        let challenge = format!(r#"{{"status":"invalid_token","scope":"of {database}"}}"#);
                        self.feed(Input::Challenge(challenge.into()));
                    }
                    Output::Dial { .. } => {
                        self.dialed = true;
                        self.feed(Input::Dialed(Ok(())));
                    }
                    Output::Cancel(_) => self.feed(Input::MayCancel(None)),
                    Output::Secure { side, .. } => panic!("TLS was asked for on the {side:?} side"),
                    Output::Refused(refused) => {
                        let (user, database) = (refused.user.escape_debug(), refused.database.escape_debug());
                        let why = refused.fault.text();
                        let _ = writeln!(self.events, "recorded refusal of \"{user}\" at \"{database}\": {why}");
                    }
                    Output::Part | Output::NotReached(_) => panic!("the upstream was given up"),
                    Output::Close => self.closed = true,
                    Output::UpstreamIsFull => {}
                }
            }
        }

        fn send(&mut self, side: Side) -> bool {
            if self.stalled && side == Side::Client || self.deaf_upstream && side == Side::Upstream {
                return false;
            }
            let most = if self.cut == Cut::Bytes { 1 } else { usize::MAX };
            let left = &mut self.left[side as usize];
            let before = left.len();
            let heap = match self.session.outgoing(side).lend() {
                None => return false,
                Some(Lent::Slot { slot, from, to }) => {
                    left.extend_from_slice(self.slab.bytes(slot, from..to.min(from.saturating_add(most))));
                    None
                }
                Some(Lent::Heap { bytes, from }) => {
                    left.extend(bytes[from..].iter().take(most));
                    Some(bytes)
                }
            };
            let bytes = left.len() - before;
            self.feed(Input::Sent { side, bytes, heap });
            true
        }

        /// All that has left towards a side when everything has moved.
        fn left_after(&mut self, side: Side) -> Vec<u8> {
            while SIDES.into_iter().any(|side| self.send(side) || self.receive(side)) {}
            self.left[side as usize].clone()
        }

        fn log_in(&mut self) {
            let cut = std::mem::replace(&mut self.cut, Cut::Whole);
            let mut bytes = Vec::new();
            untagged(&mut bytes, |out| out.extend_from_slice(b"\0\x03\0\0user\0ada\0database\0shop\0\0"));
            message(&mut bytes, b'p', |out| out.extend_from_slice(b"good\0"));
            self.say(Side::Client, &bytes);
            self.say(Side::Upstream, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
            self.left = [Vec::new(), Vec::new()];
            self.cut = cut;
        }

        /// Takes in what was recorded and frees its room.
        fn read_record(&mut self) {
            let mut buffer = Vec::new();
            while let Some(record) = self.recorder.poll(&mut buffer).expect("a sound ring") {
                self.recorder.release(record.end_position, record.header.seq).expect("one recorder");
                let payload = &buffer[32..];
                match record.header.kind {
                    Kind::Request => self.recorded[0].extend_from_slice(payload),
                    Kind::Response => self.recorded[1].extend_from_slice(payload),
                    Kind::Verdict => {
                        let verdict = ["allow", "mask", "hold", "block"][payload[0] as usize];
                        let rule = String::from_utf8_lossy(&payload[12..]);
                        let _ = writeln!(self.events, "recorded verdict {verdict} by {rule}");
                    }
                    Kind::Close => {
                        let close: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
                        let _ = writeln!(
                            self.events,
                            "recorded close: {}",
                            close["reason"].as_str().unwrap_or("no reason")
                        );
                    }
                    other => drop(writeln!(self.events, "recorded {other:?}")),
                }
                buffer.clear();
            }
        }
    }

    fn admit(request: &Request, login: Login) -> Result<Box<Admission>, Fault> {
        if request.token.reveal() != b"good" {
            return Err(Fault::NotAdmitted("the token's signature is wrong"));
        }
        let mut masks = MaskView::none();
        if login != Login::Plain {
            masks.active = true;
            masks.columns = HashMap::from_iter([((16401, 2), MaskAction::Redact), ((16401, 3), MaskAction::Last4)]);
            masks.relations.extend([(16400, 9), (16401, 9)]);
            masks.key = HashKey::new([7; 32]);
        }
        if login == Login::Detected {
            let actions = [MaskAction::Redact; detect::Kind::ALL.len()];
            masks.detect = Some(DetectView { kinds: detect::KindSet::ALL, actions });
        }
        Ok(Box::new(Admission {
            identity: Identity {
                subject: "ada".into(),
                name: "ada".into(),
                roles: vec!["analyst".into()],
                expires_unix_s: u64::MAX,
                ..Identity::default()
            },
            role_names: vec!["analyst".into()],
            resource: "shop".into(),
            upstream: upstream(),
            masks: Rc::new(masks),
            epoch: [0; 8],
            epoch_name: "00".into(),
        }))
    }

    fn upstream() -> Upstream {
        Upstream {
            database: "shop".into(),
            user: "gateway".into(),
            credential: Secret::new(b"secret"),
            allow_md5: false,
            allow_cleartext: true,
            role: None,
            application_name: Default::default(),
            target: Target::Any,
            tls: vec![false],
            order: vec![0],
        }
    }

    /// An exchange as it is run: read once, as it is run at tens of thousands of cuts.
    struct Exchange {
        name: String,
        auth: Auth,
        login: Login,
        steps: Vec<Step>,
    }

    struct Step {
        line: String,
        act: Act,
    }

    enum Act {
        /// A remark, or what must come out.
        Nothing,
        LogIn,
        /// Nothing said is the end of the stream. Consecutive lines of a side are one burst as far as the answers go.
        Say {
            side: Side,
            bytes: Vec<u8>,
            is_last_of_burst: bool,
        },
    }

    /// What came out: after each burst, by side, and in the record.
    #[derive(PartialEq)]
    struct Outcome {
        left: Vec<Burst>,
        recorded: [Vec<u8>; 2],
        events: String,
        closed: bool,
    }

    #[derive(PartialEq)]
    struct Burst {
        greeted: bool,
        left: [Vec<u8>; 2],
    }

    impl Exchange {
        fn read(path: &Path) -> Self {
            let golden = std::fs::read_to_string(path).expect("a golden file");
            let says = |line: &str| golden.lines().any(|l| l == line);
            let login = match (says("login masked"), says("login detected")) {
                (true, _) => Login::Masked,
                (_, true) => Login::Detected,
                _ => Login::Plain,
            };
            let auth = if says("listener oauth") { Auth::Oauth } else { Auth::Password };
            let is_said = |line: &&str| !line.starts_with("to ") && !line.starts_with("recorded ");
            let said: Vec<&str> = golden.lines().filter(is_said).collect();
            let steps = said.iter().enumerate().map(|(i, line)| Step {
                line: (*line).to_owned(),
                act: match speaker(line) {
                    None if line.starts_with("login ") => Act::LogIn,
                    None => Act::Nothing,
                    Some((side, what)) => {
                        let next = said.get(i + 1).and_then(|l| speaker(l));
                        let is_last_of_burst = next.is_none_or(|(s, w)| s != side || w == "ends");
                        let bytes = if what == "ends" { Vec::new() } else { parse(what) };
                        Act::Say { side, bytes, is_last_of_burst }
                    }
                },
            });
            let steps = steps.collect();
            Self { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), auth, login, steps }
        }

        fn run(&self, cut: Cut) -> Outcome {
            let mut stage = Stage::behind(self.auth, self.login, cut);
            let (mut left, mut greeted) = (Vec::new(), false);
            for step in &self.steps {
                match &step.act {
                    Act::Nothing => {}
                    Act::LogIn => {
                        stage.log_in();
                        greeted = true;
                    }
                    Act::Say { side, bytes, is_last_of_burst } => {
                        stage.say(*side, bytes);
                        if *is_last_of_burst {
                            left.push(Burst { greeted, left: std::mem::take(&mut stage.left) });
                            greeted |= stage.dialed && stage.session.is_relaying();
                        }
                    }
                }
            }
            stage.session.release(&mut stage.slab);
            assert_eq!(stage.slab.free(), SLOTS as usize, "{} cut {cut:?}: a slot is lost", self.name);
            stage.read_record();
            Outcome { left, recorded: stage.recorded, events: stage.events, closed: stage.closed }
        }

        /// The file as it would have to be for what came out.
        fn written(&self, outcome: &Outcome) -> String {
            let mut text = String::new();
            let mut bursts = outcome.left.iter();
            for step in &self.steps {
                let _ = writeln!(text, "{}", step.line);
                if let Act::Say { is_last_of_burst: true, .. } = step.act
                    && let Some(burst) = bursts.next()
                {
                    show(&mut text, "to upstream", &burst.left[Side::Upstream as usize], !burst.greeted);
                    show(&mut text, "to client", &burst.left[Side::Client as usize], !burst.greeted);
                }
            }
            text.push_str(&outcome.events);
            // As messages, however they were cut into records.
            show(&mut text, "recorded request", &outcome.recorded[0], false);
            show(&mut text, "recorded response", &outcome.recorded[1], false);
            if outcome.closed {
                text.push_str("recorded nothing more: the session is over\n");
            }
            text
        }

        /// Runs the cuts, on all processors.
        fn hold_to(&self, whole: &Outcome, every: bool) {
            let workers = std::thread::available_parallelism().map_or(1, usize::from);
            let run = |worker| {
                for cut in self.cuts(every).skip(worker).step_by(workers) {
                    let outcome = self.run(cut);
                    if outcome != *whole {
                        assert_eq!(self.written(&outcome), self.written(whole), "{} cut {cut:?}", self.name);
                        panic!("{} cut {cut:?}: not the same bytes, though they read the same", self.name);
                    }
                }
            };
            std::thread::scope(|scope| (0..workers).for_each(|worker| drop(scope.spawn(move || run(worker)))));
        }

        /// One byte at a time, and every cut of the longest burst. Of a large one those around its ends, a slot's end, and some
        /// between, unless `every` is asked for.
        fn cuts(&self, every: bool) -> impl Iterator<Item = Cut> {
            let bursts = self.steps.iter().map(|step| match &step.act {
                Act::Say { bytes, .. } => bytes.len(),
                _ => 0,
            });
            let longest = bursts.max().unwrap_or(0);
            let near = move |n: usize| n < 200 || longest - n < 50 || n.abs_diff(SLOT_BYTES) < 20;
            let chosen = move |n: &usize| every || longest < 2000 || near(*n) || n.is_multiple_of(997);
            (1..longest).filter(chosen).map(Cut::At).chain([Cut::Bytes])
        }
    }

    fn speaker(line: &str) -> Option<(Side, &str)> {
        let (side, rest) = match line.split_once(char::is_whitespace)? {
            ("client>", rest) => (Side::Client, rest),
            ("upstream>", rest) => (Side::Upstream, rest),
            ("client", "ends") => (Side::Client, "ends"),
            ("upstream", "ends") => (Side::Upstream, "ends"),
            _ => return None,
        };
        Some((side, rest.trim_start()))
    }

    fn goldens() -> Vec<PathBuf> {
        let directory = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
            .join("../tests/golden/postgres");
        let files = std::fs::read_dir(&directory).expect("the golden files").map(|entry| entry.expect("a file").path());
        let mut files: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "txt")).collect();
        files.sort();
        files
    }

    #[test]
    fn golden_exchanges_are_the_same_however_the_bytes_are_cut() {
        let writes = std::env::var("WIREWARD_GOLDEN").is_ok_and(|v| v == "write");
        let every = std::env::var("WIREWARD_CUTS").is_ok_and(|v| v == "every");
        let goldens = goldens();
        assert!(goldens.len() >= 25, "only {} golden exchanges were found", goldens.len());
        for path in goldens {
            let exchange = Exchange::read(&path);
            let whole = exchange.run(Cut::Whole);
            if writes {
                std::fs::write(&path, exchange.written(&whole)).expect("a writable file");
            } else {
                let golden = std::fs::read_to_string(&path).expect("a golden file");
                assert_eq!(exchange.written(&whole), golden, "{} whole", exchange.name);
            }
            exchange.hold_to(&whole, every);
        }
    }

    #[test]
    fn a_refusal_does_not_come_between_the_pieces_of_a_gathered_reply() {
        let mut stage = Stage::new(Login::Plain, Cut::Whole);
        stage.log_in();
        stage.stalled = true;
        let notice = parse(r#"N "SNOTICE\0M" "n"*150000 "\0\0""#);
        stage.say(Side::Upstream, &notice);
        stage.say(Side::Client, &parse(r#"Q "drop table forbidden\0""#));
        stage.stalled = false;
        stage.say(Side::Client, &parse(r#"Q "select 1\0""#));
        let left = &stage.left[Side::Client as usize];
        assert!(left.starts_with(&notice), "the notice is whole");
        let mut lines = String::new();
        show(&mut lines, "to client", &left[notice.len()..], false);
        let refusal = r#"to client E "SERROR\0VERROR\0C42501\0Mwireward: blocked by rule no-forbidden\0\0""#;
        assert_eq!(lines, format!("{refusal}\nto client Z \"I\"\n"));
    }

    /// A session that runs a statement with parameters of `bytes`, of which the upstream reads nothing.
    fn holds_a_request(gathered: &Gathered, bytes: usize) -> Stage {
        let mut stage = Stage::new(Login::Masked, Cut::Whole);
        stage.gathered = gathered.clone();
        stage.log_in();
        stage.say(Side::Client, &parse(r#"P "\0select name, n from people\0\0\0" | H"#));
        stage.say(Side::Upstream, &parse("1"));
        stage.deaf_upstream = true;
        let bind = format!(r#"B "\0\0\0\0\0\1" "p"*{bytes}"#);
        stage.say(Side::Client, &parse(&bind));
        stage
    }

    #[test]
    fn two_sessions_that_hold_all_gathered_bytes_wait_and_one_goes_on_when_the_other_ends() {
        let gathered = Gathered::new(100_000);
        let mut stages = [holds_a_request(&gathered, 50_000), holds_a_request(&gathered, 40_000)];
        assert!(gathered.free_bytes() < 10_000, "both hold their requests");
        let notice = parse(r#"N "SNOTICE\0M" "n"*40000 "\0\0""#);
        for stage in &mut stages {
            stage.say(Side::Upstream, &notice);
            assert_eq!(stage.shortage, Some(Shortage::GatheredBytes));
        }
        let [first, second] = &mut stages;
        first.feed(Input::End(Shortage::GatheredBytes.fault()));
        assert!(String::from_utf8_lossy(&first.left_after(Side::Client)).contains("limits.gathered_bytes_max"));
        first.session.release(&mut first.slab);
        second.deaf_upstream = false;
        second.feed(Input::Again);
        assert!(second.left_after(Side::Client).ends_with(&notice), "the other goes on");
        second.left_after(Side::Upstream);
        assert_eq!(gathered.free_bytes(), 100_000, "all that was taken is given back");
    }
}
