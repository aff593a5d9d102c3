//! Golden exchanges: `tests/golden/postgres/*.txt` say who says what and what must come out, on both sides and in the
//! record. Every exchange is run whole, cut in two at every place, and byte by byte: nothing may differ.
//!
//! ```text
//! login masked                              a login as that role (plain, masked, detected), not written out
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
    mod table;

    use std::collections::VecDeque;
    use std::fmt::Write as _;
    use std::path::PathBuf;
    use std::rc::Rc;

    use hashbrown::HashMap;
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
    use crate::protocol::postgres::dissector::{Limits, NameKey, REPLY_BYTES_MAX};
    use crate::protocol::postgres::wire::{message, u32_at, untagged};
    use crate::session::{
        Admission, CancelKey, Encryption, Input, Output, Request, Session, Settings, Shortage, Upstream,
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

    impl Stage {
        fn new(login: Login, cut: Cut) -> Self {
            let words: std::sync::Arc<[_]> = Words::heap(1 << 20, 1).0.into();
            let limits = Limits {
                statement_bytes_max: 1 << 16,
                bind_bytes_max: 1 << 16,
                row_bytes_max: 1 << 17,
                prepared_statements_max: 10,
                prepared_bytes_max: 1 << 20,
            };
            let settings = Settings {
                limits,
                name_key: NameKey([1; 16]),
                token_bytes_max: 4096,
                encryption: Encryption::None,
                surplus: false,
            };
            let key = CancelKey { process_id: 7, secret: *b"0123456789abcdef0123456789abcdef" };
            let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 4000));
            Self {
                session: Session::new(1, settings, peer, key, 0),
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
                judge: Table { waits: false },
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
                    Output::Dial => {
                        self.dialed = true;
                        self.feed(Input::Dialed(Ok(())));
                    }
                    Output::Cancel(_) => self.feed(Input::MayCancel(None)),
                    Output::Secure { side, .. } => panic!("TLS was asked for on the {side:?} side"),
                    Output::Refused(refused) => {
                        let (user, database) = (refused.user.escape_debug(), refused.database.escape_debug());
                        let reason = refused.fault.text();
                        let _ = writeln!(self.events, "recorded refusal of \"{user}\" at \"{database}\": {reason}");
                    }
                    Output::Close => self.closed = true,
                }
            }
        }

        fn send(&mut self, side: Side) -> bool {
            if self.stalled && side == Side::Client || self.deaf_upstream && side == Side::Upstream {
                return false;
            }
            let (bytes, heap) = match self.session.outgoing(side).lend() {
                None => return false,
                Some(Lent::Slot { slot, from, to }) => (self.slab.bytes(slot, from..to).to_vec(), None),
                Some(Lent::Heap { bytes, from }) => (bytes[from..].to_vec(), Some(bytes)),
            };
            let n = if self.cut == Cut::Bytes { 1 } else { bytes.len() };
            self.left[side as usize].extend_from_slice(&bytes[..n]);
            self.feed(Input::Sent { side, bytes: n, heap });
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

        /// The record, a line each; requests and responses as messages, however they were cut into records.
        fn record(mut self) -> String {
            self.read_record();
            let mut lines = self.events;
            show(&mut lines, "recorded request", &self.recorded[0], false);
            show(&mut lines, "recorded response", &self.recorded[1], false);
            if self.closed {
                lines.push_str("recorded nothing more: the session is over\n");
            }
            lines
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
                actors: Vec::new(),
                expires_unix_s: u64::MAX,
            },
            role_names: vec!["analyst".into()],
            resource: "shop".into(),
            upstream: Upstream {
                database: "shop".into(),
                user: "gateway".into(),
                credential: Secret::new(b"secret"),
                allow_md5: false,
                allow_cleartext: true,
                role: None,
                tls: false,
            },
            masks: Rc::new(masks),
            epoch: [0; 8],
            epoch_name: "00".into(),
        }))
    }

    /// Runs an exchange; the file as it would have to be for what came out.
    fn run(golden: &str, cut: Cut) -> String {
        let says = |line: &str| golden.lines().any(|l| l == line);
        let login = match (says("login masked"), says("login detected")) {
            (true, _) => Login::Masked,
            (_, true) => Login::Detected,
            _ => Login::Plain,
        };
        let mut stage = Stage::new(login, cut);
        let mut written = String::new();
        let mut greeted = false;
        let said: Vec<&str> = golden.lines().filter(|l| !l.starts_with("to ") && !l.starts_with("recorded ")).collect();
        for (i, line) in said.iter().enumerate() {
            let _ = writeln!(written, "{line}");
            let Some((side, what)) = speaker(line) else {
                if line.starts_with("login ") {
                    stage.log_in();
                    greeted = true;
                }
                continue;
            };
            let bytes = if what == "ends" { Vec::new() } else { parse(what) };
            stage.say(side, &bytes);
            // What one side says in consecutive lines is one burst as far as the answers go.
            if said.get(i + 1).and_then(|l| speaker(l)).is_some_and(|(s, w)| s == side && w != "ends") {
                continue;
            }
            for (side, title) in [(Side::Upstream, "to upstream"), (Side::Client, "to client")] {
                let bytes = std::mem::take(&mut stage.left[side as usize]);
                show(&mut written, title, &bytes, !greeted);
            }
            greeted |= stage.dialed && stage.session.is_relaying();
        }
        stage.session.release(&mut stage.slab);
        assert_eq!(stage.slab.free(), SLOTS as usize, "a slot is lost");
        written.push_str(&stage.record());
        written
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

    /// `Q "select 1\0" | S` as bytes.
    fn parse(line: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, body) in messages(line) {
            match tag {
                '!' => bytes.extend(body),
                '-' => untagged(&mut bytes, |out| out.extend(body)),
                tag => message(&mut bytes, tag as u8, |out| out.extend(body)),
            }
        }
        bytes
    }

    fn messages(line: &str) -> Vec<(char, Vec<u8>)> {
        let mut found: Vec<(char, Vec<u8>)> = Vec::new();
        let mut rest = line.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                ' ' | '|' => {}
                '"' => {
                    let mut text = String::new();
                    while let Some(c) = rest.next_if(|c| *c != '"') {
                        text.push(c);
                        text.extend((c == '\\').then(|| rest.next()).flatten());
                    }
                    rest.next();
                    let times: String = match rest.next_if_eq(&'*') {
                        Some(_) => std::iter::from_fn(|| rest.next_if(char::is_ascii_digit)).collect(),
                        None => "1".to_owned(),
                    };
                    let body = &mut found.last_mut().unwrap_or_else(|| panic!("no tag before a body: {line}")).1;
                    (0..times.parse().expect("a number")).for_each(|_| body.extend(unescape(&text)));
                }
                tag => found.push((tag, Vec::new())),
            }
        }
        found
    }

    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(b) = rest.next() {
            let escaped = if b == b'\\' { rest.next() } else { None };
            bytes.push(match escaped {
                None => b,
                Some(b'0') => 0,
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'x') => {
                    let digits = [rest.next(), rest.next()].map(|d| (d.expect("two digits") as char).to_digit(16));
                    digits.into_iter().fold(0, |n, d| n << 4 | d.expect("hexadecimal") as u8)
                }
                Some(other) => other,
            });
        }
        bytes
    }

    /// Writes messages, a line each. Before the greeting is over there are some without a tag.
    fn show(out: &mut String, title: &str, bytes: &[u8], greeting: bool) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let word = |from| u32_at(rest, from).map_or(usize::MAX, |n| n as usize);
            let (tag, head, length) = match rest[0] {
                b'N' if greeting => ('!', 0, 1),
                0 if greeting => ('-', 4, word(0)),
                tag => (tag as char, 5, word(1).saturating_add(1)),
            };
            let whole = (head..=rest.len()).contains(&length);
            let (tag, body) = if whole { (tag, &rest[head..length]) } else { ('!', rest) };
            at += if whole { length } else { rest.len() };
            let _ = writeln!(out, "{title} {tag}{}", quote(body));
        }
    }

    /// A body in the notation of the files; long runs of one byte are counted.
    fn quote(body: &[u8]) -> String {
        let (mut out, mut open) = (String::new(), false);
        for run in body.chunk_by(|a, b| a == b) {
            let byte = match run[0] {
                0 => "\\0".to_owned(),
                byte => byte.escape_ascii().to_string(),
            };
            if run.len() >= 64 {
                out.push_str(if open { "\"" } else { "" });
                let _ = write!(out, " \"{byte}\"*{}", run.len());
                open = false;
                continue;
            }
            out.push_str(if open { "" } else { " \"" });
            out.push_str(&byte.repeat(run.len()));
            open = true;
        }
        out.push_str(if open { "\"" } else { "" });
        out
    }

    /// Every cut of the longest burst; of a large one, those around its ends, a slot's end, and some between.
    fn cuts(golden: &str) -> Vec<Cut> {
        let bursts = golden.lines().filter_map(speaker).filter(|(_, what)| *what != "ends");
        let longest = bursts.map(|(_, what)| parse(what).len()).max().unwrap_or(0);
        let near = |n: usize| n < 200 || longest - n < 50 || n.abs_diff(SLOT_BYTES) < 20;
        let places = (1..longest).filter(|n| longest < 2000 || near(*n) || n.is_multiple_of(997));
        places.map(Cut::At).chain([Cut::Bytes]).collect()
    }

    fn goldens() -> Vec<PathBuf> {
        let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/postgres"));
        let files = std::fs::read_dir(&directory).expect("the golden files").map(|entry| entry.expect("a file").path());
        let mut files: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "txt")).collect();
        files.sort();
        files
    }

    #[test]
    fn golden_exchanges_are_the_same_however_the_bytes_are_cut() {
        let writes = std::env::var("WIREWARD_GOLDEN").is_ok_and(|v| v == "write");
        let goldens = goldens();
        assert!(goldens.len() >= 25, "only {} golden exchanges were found", goldens.len());
        for path in goldens {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let golden = std::fs::read_to_string(&path).expect("a golden file");
            let whole = run(&golden, Cut::Whole);
            if writes {
                std::fs::write(&path, &whole).expect("a writable file");
            } else {
                assert_eq!(whole, golden, "{name} whole");
            }
            for cut in cuts(&golden) {
                let cut_up = run(&golden, cut);
                assert_eq!(cut_up, whole, "{name} cut {cut:?}");
            }
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

    #[test]
    fn a_gathered_statement_whose_analysis_is_done_waits_for_the_recorder_too() {
        let mut stage = Stage::new(Login::Plain, Cut::Whole);
        stage.log_in();
        let statement = parse(r#"Q "select " "1"*40000 "\0""#);
        stage.judge.waits = true;
        stage.say(Side::Client, &statement);
        (stage.judge.waits, stage.recorder_present) = (false, false);
        stage.feed(Input::Again);
        while stage.send(Side::Upstream) {}
        assert_eq!(stage.left[Side::Upstream as usize].len(), 0, "a statement has started without the recorder");
        stage.recorder_present = true;
        stage.feed(Input::Again);
        while stage.send(Side::Upstream) {}
        assert!(stage.left[Side::Upstream as usize] == statement, "the statement starts when the recorder is back");
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
