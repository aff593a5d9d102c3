//! The login to a hostile upstream. The first byte says what the resource allows (bit 0 cleartext, bit 1 md5). Then come its
//! messages: tag, length of the body in one byte, body; tag 0 is bytes without a head. In a body `\xfeN` stands for the
//! nonce that we have sent, `\xfeV` for the signature of a server that knows the credential (RFC 5802, RFC 7677).
//!
//! What must hold: once SCRAM has begun, nobody is let in before the upstream has proved that it knows the credential; the
//! credential is said in clear, or as md5, only where that is allowed, and never to the client.

use aws_lc_rs::{hmac, pbkdf2};
use dataplane::control::credential::Secret;
use dataplane::fault::{Fault, Side};
use dataplane::protocol::postgres::wire::message;
use dataplane::session::{Admission, Request, Secured};

use super::identity::base64;
use super::input::{Input, contains, messages};
use super::stage::{Outside, PLAIN, Stage};
use super::startup::{Masks, NoJudge, admission, credentials};

/// Without characters that SASLprep (RFC 4013) would change.
const PASSWORD: &[u8] = b"upstream-secret";
/// Iterations that the model of a server computes itself: seeds have few.
const ITERATIONS_MAX: u32 = 64;

struct Gate {
    allow_cleartext: bool,
    allow_md5: bool,
}

impl Outside for Gate {
    fn admit(&mut self, _: &Request) -> Result<Box<Admission>, Fault> {
        let mut admission = admission(Masks::None);
        admission.upstream.credential = Secret::new(PASSWORD);
        admission.upstream.allow_cleartext = self.allow_cleartext;
        admission.upstream.allow_md5 = self.allow_md5;
        Ok(admission)
    }

    fn secure(&mut self, side: Side) -> Secured {
        panic!("TLS was asked for on the {side:?} side")
    }
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let (allow_cleartext, allow_md5) = (flags & 1 != 0, flags & 2 != 0);
    let gate = Gate { allow_cleartext, allow_md5 };
    let mut stage = Stage::new(PLAIN, Box::new(NoJudge), Box::new(gate));
    stage.say(Side::Client, &credentials());
    let mut exchange = Exchange { startup_bytes: stage.left[Side::Upstream as usize].len(), ..Exchange::default() };
    while !input.is_empty() && !stage.closed && !stage.session.is_relaying() {
        let (tag, length) = (input.byte(), input.byte());
        let body = exchange.fill_in(input.bytes(length.into()));
        let mut said = Vec::new();
        match tag {
            0 => said.extend_from_slice(&body),
            tag => message(&mut said, tag, |out| out.extend_from_slice(&body)),
        }
        exchange.follow(tag, &body);
        stage.say(Side::Upstream, &said);
        exchange.listen(&stage.left[Side::Upstream as usize]);
        assert!(
            !stage.session.is_relaying() || !exchange.begun() || exchange.proved,
            "let in by an upstream that has not proved that it knows the credential"
        );
    }
    let to_upstream = &stage.left[Side::Upstream as usize];
    assert!(allow_cleartext || !contains(to_upstream, PASSWORD), "the credential was said in clear");
    let (answers, _) = messages(&to_upstream[exchange.startup_bytes..]);
    assert!(allow_md5 || !answers.iter().any(|a| a[5..].starts_with(b"md5")), "the credential was said as md5");
    assert!(!contains(&stage.left[Side::Client as usize], PASSWORD), "the client was shown the credential");
    stage.finish();
}

/// The server's side of RFC 5802, as far as it goes.
#[derive(Default)]
struct Exchange {
    startup_bytes: usize,
    /// client-first-message-bare.
    client_first: Option<String>,
    server_first: String,
    /// client-final-message-without-proof.
    client_final: Option<String>,
    /// The right signature was said, at its place.
    proved: bool,
}

impl Exchange {
    fn begun(&self) -> bool {
        self.client_first.is_some()
    }

    fn fill_in(&self, body: &[u8]) -> Vec<u8> {
        let mut filled = Vec::new();
        let mut rest = body;
        while let [byte, tail @ ..] = rest {
            rest = match (byte, tail) {
                (0xfe, [b'N', tail @ ..]) => {
                    filled.extend_from_slice(self.nonce().as_bytes());
                    tail
                }
                (0xfe, [b'V', tail @ ..]) => {
                    filled.extend_from_slice(self.signature().unwrap_or_default().as_bytes());
                    tail
                }
                _ => {
                    filled.push(*byte);
                    tail
                }
            };
        }
        filled
    }

    fn nonce(&self) -> &str {
        self.client_first.as_deref().and_then(|bare| bare.split_once("r=")).map_or("", |(_, nonce)| nonce)
    }

    /// What the server says, before the gateway answers.
    fn follow(&mut self, tag: u8, body: &[u8]) {
        let Some((method, text)) = body.split_first_chunk::<4>().filter(|_| tag == b'R') else { return };
        let text = String::from_utf8_lossy(text);
        match u32::from_be_bytes(*method) {
            11 if self.client_final.is_none() => self.server_first = text.into_owned(),
            // Attributes may follow the signature.
            12 => self.proved |= self.signature().is_some_and(|s| text.split(',').next() == Some(&format!("v={s}"))),
            _ => {}
        }
    }

    /// What the gateway has answered.
    fn listen(&mut self, to_upstream: &[u8]) {
        let (answers, _) = messages(&to_upstream[self.startup_bytes..]);
        for answer in answers.iter().filter(|answer| answer[0] == b'p') {
            let text = String::from_utf8_lossy(&answer[5..]);
            if text.starts_with("SCRAM-SHA-256") {
                self.client_first = text.split_once(",,").map(|(_, bare)| bare.to_owned());
            } else if let Some((without_proof, _)) = text.split_once(",p=") {
                self.client_final = Some(without_proof.to_owned());
            }
        }
    }

    fn signature(&self) -> Option<String> {
        let (first, last) = (self.client_first.as_deref()?, self.client_final.as_deref()?);
        let attribute = |name| self.server_first.split(',').find_map(|part| part.strip_prefix(name));
        let iterations = attribute("i=")?.parse().ok().filter(|n| (1..=ITERATIONS_MAX).contains(n))?;
        let salt = unbase64(attribute("s=")?)?;
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations.try_into().ok()?, &salt, PASSWORD, &mut salted);
        let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        let server_key = sign(&salted, b"Server Key");
        let text = format!("{first},{},{last}", self.server_first);
        Some(base64(sign(server_key.as_ref(), text.as_bytes()).as_ref(), b"+/", true))
    }
}

/// RFC 4648, section 4.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes().map(|byte| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let digits: Vec<u32> = digits.map(|digit| digit.map(u32::from)).collect::<Option<_>>()?;
    let group = |four: &[u32]| {
        let word = four.iter().fold(0, |word, digit| word << 6 | digit) << (6 * (4 - four.len()));
        word.to_be_bytes()[1..four.len()].to_vec()
    };
    Some(digits.chunks(4).flat_map(group).collect())
}
