//! What a relaying session's messages mean. Owns the session's bounded memory: names of statements and portals with their
//! plans, what is owed, and the row plan of the result that is passing.

use std::hash::Hasher;
use std::num::NonZeroU64;
use std::rc::Rc;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::framer::{self, Framed};
use super::names::{NameId, Names};
use super::wire::frontend;
use crate::datapath::mask::{CopyOut, MaskView, RowPlan};
use crate::datapath::replies::Replies;
use crate::datapath::stream::StreamedFrame;
use crate::datapath::verdict::Judge;
use crate::fault::Fault;
use crate::protocol::{self, Large, Scratch, Step};

/// Limits of one session. Each is a key of `[limits]` in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub statement_bytes_max: usize,
    pub bind_bytes_max: usize,
    pub row_bytes_max: usize,
    pub prepared_statements_max: usize,
    /// Of the plans behind the names of statements and portals.
    pub prepared_bytes_max: usize,
}

/// What the sessions of a shard have in common.
#[derive(Debug)]
pub struct Shared {
    pub limits: Limits,
    pub token_bytes_max: usize,
    /// Upstream connections may be kept for other sessions.
    pub keeps_upstreams: bool,
    pub ignored_startup_parameters: Vec<String>,
    pub name_key: NameKey,
}

/// The longest message of the upstream that is neither a row nor COPY data, bytes.
pub const REPLY_BYTES_MAX: usize = 1 << 20;

/// What becomes of the client's messages after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    No,
    /// The refusal was ours alone: nothing goes upstream until Sync, and we answer that too.
    ToOwnSync,
    /// The upstream has failed the pipeline: nothing but the Sync goes there.
    ToUpstreamSync,
}

/// COPY FROM STDIN, as the upstream has confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyIn {
    No,
    Open,
}

/// Whether the server is to be asked what holds, before anything else runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GuardDue {
    No,
    /// A Bind may have run a function already; the Execute of what is bound may come first.
    BehindExecute,
    Now,
}

#[derive(Debug)]
pub struct Dissector {
    pub(super) shared: Rc<Shared>,
    pub(super) replies: Replies,
    /// The transaction status of the last ReadyForQuery: `I`, `T` or `E`.
    pub(super) status: u8,
    /// Messages of an extended-protocol pipeline have gone upstream since the last Sync.
    pub(super) pipeline_open: bool,
    pub(super) skip: Skip,
    pub(super) copy_in: CopyIn,
    pub(super) copying_out: Option<Box<CopyOut>>,
    pub(super) names: Names,
    /// Behind a statement of unknown effect, which was asked then, nothing goes upstream until the server has said what holds.
    pub(super) wall: Option<NonZeroU64>,
    pub(super) guard_due: GuardDue,
    /// The portal whose RowDescription is the last one asked for, if an Execute of it may follow.
    pub(super) described: Option<NameId>,
    /// Of what is asked from now on.
    pub(super) masks: Rc<MaskView>,
    pub(super) rows: RowPlan,
    /// The row that is masked while it passes.
    pub(super) streamed: Option<Box<StreamedFrame>>,
    /// The query or function call that is answered now has had a result's end or an error: the server may be ready.
    pub(super) answered: bool,
    /// The upstream has said its last word: a FATAL error.
    pub(super) farewell: bool,
    /// A statement that is too long to be judged passes by: its kind and length.
    pub(super) discarding: Option<(u8, u32)>,
    /// The upstream's process, as the server signs notifications with it.
    pub(super) own_pid: Option<u32>,
    /// What the resource pins, if it does; few do.
    pub(super) pinned_role: Option<Box<Box<str>>>,
    /// Statements of the query that is answered now that have run.
    pub(super) ran: usize,
    /// The open transaction has something left for its end, whose error may tell a value that is masked.
    pub(super) defers: bool,
    /// Statements may be there that were judged under another policy or catalogue.
    pub(super) renewed: bool,
    /// Something may be left at the upstream that a reset does not undo.
    pub(super) is_stained: bool,
    /// Every text so far was read in UTF-8 by the server. From the first other encoding on names are judged for all of them.
    pub(super) is_utf8: bool,
}

impl Dissector {
    pub fn new(shared: Rc<Shared>, masks: Rc<MaskView>) -> Self {
        Self {
            shared,
            replies: Replies::default(),
            status: b'I',
            pipeline_open: false,
            skip: Skip::No,
            copy_in: CopyIn::No,
            copying_out: None,
            names: Names::default(),
            wall: None,
            guard_due: GuardDue::No,
            described: None,
            masks,
            rows: RowPlan::default(),
            streamed: None,
            answered: false,
            farewell: false,
            discarding: None,
            own_pid: None,
            pinned_role: None,
            ran: 0,
            defers: false,
            renewed: false,
            is_stained: false,
            is_utf8: true,
        }
    }

    /// The session begins in another encoding than UTF-8.
    pub fn begin_foreign(&mut self) {
        self.is_utf8 = false;
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What a statement's or portal's name is known by.
    pub(super) fn id(&self, name: &[u8]) -> NameId {
        NameId::of(&self.shared.name_key, name)
    }

    /// Nothing is owed and no transaction is open.
    pub fn is_idle(&self) -> bool {
        self.replies.is_empty() && self.status == b'I' && !self.pipeline_open
    }

    /// Nothing is under way on the upstream's connection, and all that the session has left there can be undone.
    pub fn is_at_rest(&self) -> bool {
        self.is_idle() && self.skip == Skip::No && self.copy_in == CopyIn::No && !self.farewell && !self.is_stained
    }

    /// An answer is still to come.
    pub fn is_owed(&self) -> bool {
        !self.replies.is_empty()
    }

    /// The client has been told why the session ends.
    pub fn say_farewell(&mut self) {
        self.farewell = true;
    }

    /// The client knows already why the session ends.
    pub fn is_farewell_said(&self) -> bool {
        self.farewell
    }

    /// Whose the upstream's connection is: its process, and the role that the resource pins.
    pub fn set_upstream(&mut self, pid: Option<u32>, role: Option<&str>) {
        self.own_pid = pid;
        self.pinned_role = role.map(|role| Box::new(Box::from(role)));
    }

    pub fn set_masks(&mut self, masks: Rc<MaskView>) {
        self.masks = masks;
    }

    /// Other masks count from the next statement on. What is owed keeps those that it was asked under; a portal that was
    /// described under others is described again.
    pub fn renew_masks(&mut self, masks: Rc<MaskView>) {
        self.masks = masks;
        self.described = None;
        self.renewed = true;
    }

    /// The masks of what passes now: those of the statement whose answer it is.
    pub(super) fn masks_of_answer(&self) -> Rc<MaskView> {
        self.replies.front().map_or(&self.masks, |owed| &owed.masks).clone()
    }
}

impl protocol::Dissector for Dissector {
    fn frame(&self, window: &[u8]) -> Framed {
        framer::next(window)
    }

    fn is_execution(tag: u8) -> bool {
        matches!(tag, frontend::QUERY | frontend::EXECUTE | frontend::FUNCTION_CALL)
    }

    fn is_owing(&self) -> bool {
        !self.replies.is_empty()
    }

    fn request(&mut self, frame: &[u8], judge: &mut dyn Judge, scratch: &mut Scratch) -> Step {
        self.on_request(frame, judge, scratch)
    }

    fn large_request(&mut self, tag: u8, bytes: usize) -> Large {
        self.on_large_request(tag, bytes)
    }

    fn discarded(&mut self, judge: &dyn Judge, scratch: &mut Scratch) {
        self.on_discarded(judge.view(), scratch);
    }

    fn response(&mut self, frame: &mut [u8], scratch: &mut Scratch) -> Step {
        self.on_response(frame, scratch)
    }

    fn large_response(&mut self, tag: u8, bytes: usize) -> Large {
        self.on_large_response(tag, bytes)
    }

    fn response_piece(&mut self, piece: &mut [u8]) -> Result<usize, Fault> {
        self.on_response_piece(piece)
    }
}

/// A process-wide secret under which names and texts are hashed, so that nobody can make two collide.
#[derive(Clone, Copy)]
pub struct NameKey(pub [u8; 16]);

impl NameKey {
    pub fn hash(&self, parts: &[&[u8]]) -> u128 {
        let mut hasher = self.hasher();
        for part in parts {
            hasher.0.write_usize(part.len());
            hasher.write(part);
        }
        hasher.finish()
    }

    pub fn hasher(&self) -> KeyedHasher {
        KeyedHasher(SipHasher13::new_with_key(&self.0))
    }
}

/// A 128-bit keyed hash of bytes that come in parts; where the parts end makes no difference.
pub struct KeyedHasher(SipHasher13);

impl KeyedHasher {
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub fn finish(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

impl std::fmt::Debug for NameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameKey(hidden)")
    }
}

/// The key is a keyed hash already; its low half serves as the table's hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken;

impl std::hash::BuildHasher for Taken {
    type Hasher = TakenHasher;
    fn build_hasher(&self) -> TakenHasher {
        TakenHasher(0)
    }
}

pub(crate) struct TakenHasher(u64);

impl Hasher for TakenHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}
