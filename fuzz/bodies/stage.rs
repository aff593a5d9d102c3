//! A session with all that it needs and no shard: bytes go in on both sides in pieces of any size, and what leaves and what
//! is recorded is kept.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use dataplane::buffer::{Gathered, SLOT_BYTES, Slab, Slot};
use dataplane::datapath::counters::Counters;
use dataplane::datapath::lane::Want;
use dataplane::datapath::relay::Cx;
use dataplane::datapath::tap::{Evidence, Note};
use dataplane::datapath::verdict::Judge;
use dataplane::fault::{Fault, Side};
use dataplane::io::Lent;
use dataplane::protocol::Scratch;
use dataplane::protocol::postgres::dissector::{Limits, NameKey, REPLY_BYTES_MAX, Shared};
use dataplane::session::{
    Admission, Auth, CancelKey, Encryption, Input, Output, Request, Secured, Session, Settings, Shortage,
};
use ring::{Consumer, Kind, Producer, Receipt, Words};

type Memory = Words<Arc<[AtomicU64]>>;

const SIDES: [Side; 2] = [Side::Client, Side::Upstream];
const SLOTS: u32 = 8;
pub const LIMITS: Limits = Limits {
    statement_bytes_max: 1 << 16,
    bind_bytes_max: 1 << 16,
    row_bytes_max: 1 << 17,
    prepared_statements_max: 10,
    prepared_bytes_max: 1 << 20,
};
pub const TOKEN_BYTES_MAX: usize = 4096;
/// As much as one session's limits come to, as the configuration demands.
const GATHERED_BYTES_MAX: usize = REPLY_BYTES_MAX + (1 << 16);
/// Larger than what the relay records at once.
const RECORD_BYTES_MAX: usize = 1 << 16;
pub const KEY: CancelKey = CancelKey { process_id: 7, secret: *b"0123456789abcdef0123456789abcdef" };

/// What a shard has for its sessions. Making it costs more than a run, so a thread keeps it.
struct Shard {
    slab: Slab,
    tap: Tap,
}

thread_local! {
    static SHARD: RefCell<Option<Shard>> = const { RefCell::new(None) };
}

impl Shard {
    fn new() -> Self {
        let words: Arc<[_]> = Words::heap(8 * RECORD_BYTES_MAX, 1).0.into();
        let producer = Producer::attach(Words(words.clone())).expect("a fresh ring");
        let consumer = Consumer::attach(Words(words)).expect("a fresh ring");
        let record = Record::default();
        Self { slab: Slab::new(SLOTS).expect("memory"), tap: Tap { producer, consumer, buffer: Vec::new(), record } }
    }
}

/// The product's ring, emptied after every record.
struct Tap {
    producer: Producer<Memory>,
    consumer: Consumer<Memory>,
    buffer: Vec<u8>,
    record: Record,
}

/// What was recorded. Requests and responses are joined, however they were cut into records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub requests: Vec<u8>,
    pub responses: Vec<u8>,
    /// Kind and payload of all others.
    pub events: Vec<(Kind, Vec<u8>)>,
}

impl Evidence for Tap {
    fn room_bytes(&self) -> usize {
        RECORD_BYTES_MAX
    }

    fn record(&mut self, note: Note, parts: &[&[u8]]) -> Option<Receipt> {
        let receipt = self.producer.record(note, parts)?;
        self.buffer.clear();
        let record = self.consumer.poll(&mut self.buffer).expect("a sound ring").expect("it was recorded");
        self.consumer.release(record.end_position, record.header.seq).expect("one recorder");
        let payload = &self.buffer[ring::record::HEADER_BYTES..];
        match record.header.kind {
            Kind::Request => self.record.requests.extend_from_slice(payload),
            Kind::Response => self.record.responses.extend_from_slice(payload),
            kind => self.record.events.push((kind, payload.to_vec())),
        }
        Some(receipt)
    }
}

/// How the bytes of a side come and go: in pieces of so many bytes, `None` for as many as there are.
pub type Cut = Option<usize>;

/// What stands before a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    pub auth: Auth,
    pub encryption: Encryption,
    pub proxied: bool,
}

/// In clear, without a proxy, with the token as a password.
pub const PLAIN: Listener = Listener { auth: Auth::Password, encryption: Encryption::None, proxied: false };

/// What the outside answers to a session.
pub trait Outside {
    fn admit(&mut self, request: &Request) -> Result<Box<Admission>, Fault>;
    /// A handshake has ended: what it has found out.
    fn secure(&mut self, side: Side) -> Secured;
    fn dialed(&mut self) {}
}

pub struct Stage<'j> {
    pub session: Session,
    shard: Shard,
    scratch: Scratch,
    gathered: Gathered,
    counters: Counters,
    judge: Box<dyn Judge + 'j>,
    outside: Box<dyn Outside + 'j>,
    cut: Cut,
    pub closed: bool,
    dialed: bool,
    pub secured: bool,
    /// Pieces that have not been received; an empty one is the end of the stream.
    coming: [VecDeque<Vec<u8>>; 2],
    /// What has left, by side.
    pub left: [Vec<u8>; 2],
    /// Why the login was refused.
    pub fault: Option<Fault>,
}

/// What a session behind its login has come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub to_upstream: Vec<u8>,
    pub to_client: Vec<u8>,
    pub record: Record,
    pub closed: Option<String>,
}

impl<'j> Stage<'j> {
    pub fn new(listener: Listener, judge: Box<dyn Judge + 'j>, outside: Box<dyn Outside + 'j>) -> Self {
        let settings = Settings {
            shared: Rc::new(Shared {
                limits: LIMITS,
                token_bytes_max: TOKEN_BYTES_MAX,
                keeps_upstreams: false,
                ignored_startup_parameters: Vec::new(),
                name_key: NameKey([1; 16]),
            }),
            auth: listener.auth,
            encryption: listener.encryption,
            proxied: listener.proxied,
            surplus: false,
        };
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 4000));
        let mut shard = SHARD.take().unwrap_or_else(Shard::new);
        shard.tap.record = Record::default();
        Self {
            session: Session::new(1, settings, peer.into(), KEY, 0),
            shard,
            scratch: Scratch::default(),
            gathered: Gathered::new(GATHERED_BYTES_MAX),
            counters: Counters::default(),
            judge,
            outside,
            cut: None,
            closed: false,
            dialed: false,
            secured: false,
            coming: [VecDeque::new(), VecDeque::new()],
            left: [Vec::new(), Vec::new()],
            fault: None,
        }
    }

    /// From now on, bytes come and go in pieces.
    pub fn cut(&mut self, cut: Cut) {
        self.cut = cut;
    }

    /// A side says something; all that follows from it is done when this returns.
    pub fn say(&mut self, side: Side, bytes: &[u8]) {
        // However small the pieces are, a long burst comes in some dozens of them.
        let piece = self.cut.map_or(usize::MAX, |n| n.max(bytes.len() / 64));
        for piece in bytes.chunks(piece.max(1)) {
            self.arrive(side, piece.to_vec());
        }
    }

    /// A side says no more.
    pub fn end(&mut self, side: Side) {
        self.arrive(side, Vec::new());
    }

    fn arrive(&mut self, side: Side, piece: Vec<u8>) {
        self.coming[side as usize].push_back(piece);
        while !self.closed && SIDES.into_iter().any(|side| self.send(side) || self.receive(side)) {}
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
        let slot = fresh.then(|| self.shard.slab.take().expect("a session holds fewer slots than the slab has"));
        let index = slot.as_ref().map_or(index, Slot::index);
        let n = piece.len().min(SLOT_BYTES - from);
        self.shard.slab.lent_mut(index, from..from + n).copy_from_slice(&piece[..n]);
        piece.drain(..n);
        if piece.is_empty() {
            self.coming[side as usize].pop_front();
        }
        self.feed(Input::Received { side, slot, bytes: n });
        true
    }

    fn send(&mut self, side: Side) -> bool {
        let (bytes, heap) = match self.session.outgoing(side).lend() {
            None => return false,
            Some(Lent::Slot { slot, from, to }) => (self.shard.slab.bytes(slot, from..to).to_vec(), None),
            Some(Lent::Heap { bytes, from }) => (bytes[from..].to_vec(), Some(bytes)),
        };
        let n = self.cut.map_or(bytes.len(), |n| n.max(bytes.len() / 64).clamp(1, bytes.len()));
        self.left[side as usize].extend_from_slice(&bytes[..n]);
        self.feed(Input::Sent { side, bytes: n, heap });
        true
    }

    fn feed(&mut self, input: Input) {
        let mut outputs = Vec::new();
        let mut cx = Cx {
            slab: &mut self.shard.slab,
            tap: &mut self.shard.tap,
            judge: &mut *self.judge,
            scratch: &mut self.scratch,
            gathered: &self.gathered,
            counters: &self.counters,
            now_unix_ns: 0,
            recorder_present: true,
        };
        let shortage = self.session.handle(input, &mut cx, &mut outputs);
        assert_ne!(shortage, Some(Shortage::Recorder), "the ring always has room");
        outputs.into_iter().for_each(|output| self.perform(output));
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Admit(request) => {
                let answer = self.outside.admit(&request);
                self.feed(Input::Admitted(answer));
            }
            Output::Dial { .. } => {
                self.dialed = true;
                self.outside.dialed();
                self.feed(Input::Dialed(Ok(())));
            }
            Output::Cancel(_) => self.feed(Input::MayCancel(None)),
            Output::Secure { side, early } => {
                // What came early is the handshake's: it must never be read as the protocol's.
                drop(early);
                self.secured |= side == Side::Client;
                let result = Ok(Box::new(self.outside.secure(side)));
                self.feed(Input::Secured { side, result });
            }
            Output::Refused(refused) => self.fault = Some(refused.fault),
            Output::Challenge { .. } => self.feed(Input::Challenge(r#"{"status":"invalid_token"}"#.into())),
            Output::Part => panic!("the only address is left for another"),
            Output::NotReached(_) | Output::UpstreamIsFull => {}
            Output::Close => self.closed = true,
        }
    }

    pub fn record(&self) -> &Record {
        &self.shard.tap.record
    }

    /// Why the session was closed, as its record says.
    fn close_reason(&self) -> Option<String> {
        let (_, close) = self.record().events.iter().find(|(kind, _)| *kind == Kind::Close)?;
        let close: serde_json::Value = serde_json::from_slice(close).expect("JSON");
        Some(close["reason"].as_str().expect("a reason").to_owned())
    }

    /// Ends the session, and says what it has come to.
    pub fn ran(mut self) -> Ran {
        let [to_client, to_upstream] = std::mem::take(&mut self.left);
        let ran = Ran { to_upstream, to_client, record: self.record().clone(), closed: self.close_reason() };
        self.finish();
        ran
    }

    /// Ends the session; nothing may be lost with it.
    pub fn finish(mut self) {
        self.session.release(&mut self.shard.slab);
        drop(self.session);
        assert_eq!(self.shard.slab.free(), SLOTS as usize, "a slot is lost");
        assert_eq!(self.gathered.free_bytes(), GATHERED_BYTES_MAX, "gathered bytes are lost");
        SHARD.set(Some(self.shard));
    }
}
