//! A recorded PostgreSQL conversation as people read it, and what hostile bytes make of it.

mod support;

use recorder::cli::{self, Listing};
use recorder::replay::Options;
use recorder::segment::writer::Limits;
use ring::{Flags, Kind, Producer};
use support::{Bench, Directory, Heap, Random, heap};

const SESSION: u64 = 0x1f;
const MS: u64 = 1_000_000;

/// One message: kind, length, body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            Some(value) => {
                body.extend((value.len() as u32).to_be_bytes());
                body.extend(*value);
            }
            None => body.extend(u32::MAX.to_be_bytes()),
        }
    }
    message(b'D', &body)
}

fn columns(columns: &[(&str, u32, u16)]) -> Vec<u8> {
    let mut body = (columns.len() as u16).to_be_bytes().to_vec();
    for (name, oid, format) in columns {
        body.extend(name.as_bytes());
        body.extend([0; 7]);
        body.extend(oid.to_be_bytes());
        body.extend([0; 6]);
        body.extend(format.to_be_bytes());
    }
    message(b'T', &body)
}

struct Tape {
    ring: &'static Heap,
    producer: Producer<&'static Heap>,
    time_ns: u64,
}

impl Tape {
    fn new() -> Tape {
        let ring = heap(1 << 20, 1);
        Tape { ring, producer: Producer::attach(ring).unwrap(), time_ns: 1_700_000_000_000_000_000 }
    }

    fn put(&mut self, kind: Kind, flags: Flags, payload: &[u8]) {
        let mut claim = self.producer.try_claim(payload.len()).unwrap();
        claim.write(payload).unwrap();
        let _ = claim.commit(kind, flags, SESSION, self.time_ns);
        self.time_ns += MS;
    }

    fn client(&mut self, bytes: &[u8]) {
        self.put(Kind::Request, Flags::WHOLE | Flags::CLIENT, bytes);
    }

    fn server(&mut self, bytes: &[u8]) {
        self.put(Kind::Response, Flags::WHOLE, bytes);
    }

    fn verdict(&mut self, action: u8, rule: &str) {
        let mut payload = vec![action, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        payload.extend(rule.as_bytes());
        self.put(Kind::Verdict, Flags::WHOLE, &payload);
    }

    fn into_directory(self) -> Directory {
        let directory = Directory::new();
        Bench::new(&[self.ring], Limits::default(), Default::default()).finish(&directory.recordings());
        directory
    }
}

fn shown(directory: &Directory, options: Options) -> String {
    let mut out = Vec::new();
    assert_eq!(cli::replay(&directory.recordings(), "s_1f", options, &mut out), 0);
    String::from_utf8(out).unwrap()
}

fn conversation() -> Directory {
    let mut tape = Tape::new();
    let open = br#"{"subject":"alice","roles":["analyst","oncall"],"resource":"shop","protocol":"postgres"}"#;
    tape.put(Kind::Open, Flags::WHOLE, open);
    tape.client(&message(b'Q', b"select id, ssn from customers\0"));
    tape.verdict(1, "mask-ssn");
    let mut reply = columns(&[("id", 23, 0), ("ssn", 25, 0)]);
    reply.extend(row(&[Some(b"1"), Some(b"***-**-6789")]));
    reply.extend(row(&[Some(b"2"), None]));
    reply.extend(message(b'C', b"SELECT 2\0"));
    reply.extend(message(b'Z', b"I"));
    // A burst over three records, cut inside a message.
    let (first, rest) = reply.split_at(70);
    let (second, third) = rest.split_at(9);
    tape.put(Kind::Response, Flags::BEGIN, first);
    tape.put(Kind::Response, Flags::NONE, second);
    tape.put(Kind::Response, Flags::END, third);

    let mut batch = message(b'P', b"s1\0select $1::int4 + $2::int8\0\0\x02\0\0\0\x17\0\0\0\x14");
    batch.extend(message(b'D', b"Ss1\0"));
    let bind = b"\0s1\0\0\x02\0\x01\0\0\0\x02\0\0\0\x04\0\0\0\x2a\0\0\0\x017\0\x01\0\x01";
    batch.extend(message(b'B', bind));
    batch.extend(message(b'E', b"\0\0\0\0\0"));
    batch.extend(message(b'S', b""));
    tape.client(&batch);
    tape.verdict(0, "analysts-read");
    let mut reply = message(b'1', b"");
    reply.extend(message(b't', b"\0\x02\0\0\0\x17\0\0\0\x14"));
    reply.extend(columns(&[("sum", 20, 0)]));
    reply.extend(message(b'2', b""));
    reply.extend(row(&[Some(&49_u64.to_be_bytes())]));
    reply.extend(message(b'C', b"SELECT 1\0"));
    reply.extend(message(b'Z', b"I"));
    tape.server(&reply);

    tape.client(&message(b'Q', b"drop table customers\0"));
    tape.verdict(3, "no-drop");
    let error = b"SERROR\0C42501\0Mwireward: blocked by rule no-drop\0\0";
    tape.server(&[message(b'E', error), message(b'Z', b"I")].concat());
    tape.put(Kind::Gap, Flags::WHOLE, &ring::Gap { first_seq: 12, count: 4 }.to_bytes());
    tape.client(&message(b'X', b""));
    tape.put(Kind::Close, Flags::WHOLE, br#"{"reason":"client left"}"#);
    tape.into_directory()
}

#[test]
fn a_session_reads_like_a_log_of_statements_verdicts_and_masked_rows() {
    let text = shown(&conversation(), Options::default());
    let lines: Vec<&str> = text.lines().map(|line| &line[1..]).collect();
    let expected = [
        r#"   0.000s  open      {"protocol":"postgres","resource":"shop","roles":["analyst","oncall"],"subject":"alice"}"#,
        "   0.001s  statement select id, ssn from customers",
        "   0.002s  verdict   mask by mask-ssn (policy 070000000000)",
        "   0.004s  row       id='1', ssn='***-**-6789'",
        "   0.005s  row       id='2', ssn=NULL",
        "   0.005s  complete  SELECT 2",
        "   0.006s  prepare   s1: select $1::int4 + $2::int8",
        "   0.006s  statement select $1::int4 + $2::int8  [$1 = '42', $2 = '7']",
        "   0.007s  verdict   allow by analysts-read (policy 070000000000)",
        "   0.008s  row       sum='49'",
        "   0.008s  complete  SELECT 1",
        "   0.009s  statement drop table customers",
        "   0.010s  verdict   block by no-drop (policy 070000000000)",
        "   0.011s  error     ERROR 42501: wireward: blocked by rule no-drop",
        "   0.012s  gap       4 records were dropped here (level L0, ring full)",
        "   0.013s  message   terminate",
        r#"   0.014s  close     {"reason":"client left"}"#,
    ];
    assert_eq!(lines, expected);
}

#[test]
fn json_output_is_one_object_a_line_with_the_same_content() {
    let text = shown(&conversation(), Options { json: true, all: false });
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 17);
    assert_eq!(lines[7]["sql"], "select $1::int4 + $2::int8");
    assert_eq!((&lines[7]["params"][0], &lines[7]["offset_ms"]), (&"42".into(), &6.0.into()));
    assert_eq!((&lines[4]["values"][1], &lines[12]["rule"]), (&serde_json::Value::Null, &"no-drop".into()));
}

#[test]
fn the_list_of_sessions_counts_statements_and_blocks() {
    let mut out = Vec::new();
    assert_eq!(cli::sessions(&conversation().recordings(), Listing::default(), &mut out), 0);
    let text = String::from_utf8(out).unwrap();
    let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    let expected = "s_1f 2023-11-14 22:13:20Z alice analyst,oncall shop 3 1 0.014s closed: client left";
    assert_eq!(row.join(" "), expected);
}

#[test]
fn each_execution_of_a_prepared_statement_counts_and_a_large_text_counts_once() {
    let mut tape = Tape::new();
    tape.client(&message(b'P', b"s\0select 1\0\0\0"));
    tape.verdict(0, "analysts-read");
    let execution = [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat();
    for _ in 0..50 {
        tape.client(&execution);
    }
    // Of the pieces of a long text only the first begins with a message, whatever the others look like.
    let long = message(b'Q', &message(b'Q', b"select 2\0").repeat(9));
    tape.put(Kind::Request, Flags::BEGIN | Flags::CLIENT, &long[..31]);
    tape.put(Kind::Request, Flags::END | Flags::CLIENT, &long[31..]);
    let sessions = recorder::catalog::catalog(&tape.into_directory().recordings()).unwrap().sessions;
    assert_eq!((sessions[0].statements, sessions[0].blocked), (51, 0));
}

#[test]
fn a_function_called_by_its_number_is_a_statement_with_a_result() {
    let mut tape = Tape::new();
    let arguments = b"\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x05\0\0\0\x04\0\0\0\x09\0\x01";
    for oid in [954_u32, 2924] {
        tape.client(&message(b'F', &[&oid.to_be_bytes()[..], arguments].concat()));
    }
    tape.server(&[message(b'V', b"\0\0\0\x05hello"), message(b'Z', b"I")].concat());
    let directory = tape.into_directory();
    let text = shown(&directory, Options::default());
    for line in [r"statement (function call) loread", "00000005", r"(function call) oid 2924", "result='hello'"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let sessions = recorder::catalog::catalog(&directory.recordings()).unwrap().sessions;
    assert_eq!(sessions[0].statements, 2);
}

#[test]
fn who_acts_for_a_subject_stands_beside_it() {
    let mut tape = Tape::new();
    let open = br#"{"subject":"alice","actors":[{"subject":"crew\u001b[2J"},{"subject":"cron"}],"resource":"shop"}"#;
    tape.put(Kind::Open, Flags::WHOLE, open);
    let directory = tape.into_directory();
    let listed = |json| {
        let mut out = Vec::new();
        assert_eq!(cli::sessions(&directory.recordings(), cli::Listing { json, refused: false }, &mut out), 0);
        String::from_utf8(out).unwrap()
    };
    let words = |line: usize| listed(false).lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(0).contains("SUBJECT ACTOR ROLES"), "{}", words(0));
    assert!(words(1).contains(r"alice crew\u{1b}[2J,cron"), "{}", words(1));
    assert!(listed(true).contains(r#""actors":["crew\u001b[2J","cron"]"#), "{}", listed(true));
    assert!(shown(&directory, Options::default()).contains(r#""actors":[{"subject":"crew"#));
}

#[test]
fn long_results_are_shortened_unless_all_is_wanted() {
    let mut tape = Tape::new();
    tape.client(&message(b'Q', b"select n\0"));
    let rows: Vec<u8> = (0..250).flat_map(|n: u32| row(&[Some(n.to_string().as_bytes())])).collect();
    tape.server(&[columns(&[("n", 23, 0)]), rows, message(b'C', b"SELECT 250\0")].concat());
    let directory = tape.into_directory();
    let short = shown(&directory, Options::default());
    assert_eq!(short.matches("row  ").count(), 100);
    assert!(short.contains("… 150 rows more; --all shows them"));
    assert_eq!(shown(&directory, Options { json: false, all: true }).matches("row  ").count(), 250);
}

#[test]
fn no_recorded_byte_makes_the_viewer_fail_or_reaches_the_terminal_raw() {
    let mut random = Random(7);
    let mut tape = Tape::new();
    tape.put(Kind::Open, Flags::WHOLE, b"{\"subject\":\"\x1b]0;owned\x07\"");
    tape.put(Kind::Note, Flags::WHOLE, "{\"a\":\"\u{9b}31m\"}".as_bytes());
    let kinds = b"QPBDECSdcfFpXHTDnCIsENZdAGHWc123tRSKvV\x00\xff";
    for _ in 0..4000 {
        let kind = kinds[random.below(kinds.len() as u64) as usize];
        let body: Vec<u8> = (0..random.below(40)).map(|_| [0, 1, 27, 155, b'a'][random.below(5) as usize]).collect();
        let mut bytes = message(kind, &body);
        if random.below(4) == 0 {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.below(256) as u8;
        }
        match random.below(2) {
            0 => tape.client(&bytes),
            _ => tape.server(&bytes),
        }
    }
    let directory = tape.into_directory();
    for json in [false, true] {
        let text = shown(&directory, Options { json, all: true });
        assert!(text.lines().count() > 1000);
        assert!(!text.chars().any(|c| c != '\n' && c.is_control()));
    }
    let mut out = Vec::new();
    assert_eq!(cli::sessions(&directory.recordings(), Listing::default(), &mut out), 0);
    assert!(!String::from_utf8(out).unwrap().chars().any(|c| c != '\n' && c.is_control()));
}

#[test]
fn of_a_row_that_is_too_long_the_beginning_is_shown() {
    let mut tape = Tape::new();
    tape.client(&message(b'Q', b"select id, body, last\0"));
    tape.server(&columns(&[("id", 23, 0), ("body", 25, 0), ("last", 25, 0)]));
    let body = "é".repeat(9_000_000);
    let long = row(&[Some(b"7"), Some(body.as_bytes()), Some(b"end")]);
    let pieces = long.chunks(100_000).collect::<Vec<_>>();
    // The middle is of no use to the viewer, and more than the ring of a test holds: other bytes stand for it.
    tape.put(Kind::Response, Flags::BEGIN, &pieces[0][..1000]);
    tape.put(Kind::Response, Flags::NONE, &pieces[0][1000..]);
    tape.put(Kind::Response, Flags::END, pieces[pieces.len() - 1]);
    tape.server(&[row(&[Some(b"8"), None, None]), message(b'C', b"SELECT 2\0")].concat());
    let text = shown(&tape.into_directory(), Options::default());
    assert!(text.contains("row       id='7', body='éééé") && text.contains("é… (18000000 bytes)'\n"), "{text}");
    assert!(text.contains("row       id='8', body=NULL, last=NULL") && text.contains("SELECT 2"), "{text}");
}

#[test]
fn a_password_is_never_shown() {
    let mut tape = Tape::new();
    tape.client(&message(b'p', b"s3cret\0"));
    let text = shown(&tape.into_directory(), Options { json: true, all: true });
    assert!(text.contains("authentication message") && !text.contains("s3cret"), "{text}");
}

#[test]
fn an_unknown_session_is_an_error_that_says_so() {
    for id in ["s_99", "nonsense", "../etc/passwd"] {
        let mut out = Vec::new();
        assert_eq!(cli::replay(&conversation().recordings(), id, Options::default(), &mut out), 2);
        assert!(out.is_empty());
    }
}
