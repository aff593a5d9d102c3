//! What a relaying session's messages mean. Owns the session's bounded memory: names of statements and portals with their
//! plans, what is owed, and the row plan of the result that is passing.

use std::hash::Hasher;
use std::num::NonZeroU32;
use std::rc::Rc;

use hashbrown::HashMap;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::framer::{self, Framed};
use super::wire::frontend;
use crate::datapath::mask::{CopyOut, MaskView, RowPlan};
use crate::datapath::replies::Replies;
use crate::datapath::stream::StreamedFrame;
use crate::datapath::verdict::{Judge, Plan};
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
    pub(super) copying_out: Option<CopyOut>,
    pub(super) statements: Names,
    pub(super) portals: Names,
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
    /// Counts Syncs and simple queries: a pipeline's number.
    pub(super) pipeline: u32,
    /// Statements may be there that were judged under another policy or catalogue.
    pub(super) renewed: bool,
    /// Something may be left at the upstream that a reset does not undo.
    pub(super) is_stained: bool,
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
            statements: Names::default(),
            portals: Names::default(),
            described: None,
            masks,
            rows: RowPlan::default(),
            streamed: None,
            answered: false,
            farewell: false,
            pipeline: 0,
            renewed: false,
            is_stained: false,
        }
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What a statement's or portal's name is known by.
    pub(super) fn id(&self, name: &[u8]) -> NameId {
        match name {
            b"" => NameId::UNNAMED,
            _ => NameId(self.shared.name_key.hash(&[name])),
        }
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

/// Prepared statements or portals of a session: the plan that each name was given, as far as we can be sure of it.
///
/// What the server holds under a name can differ from what was last sent: a Parse that fails, or that is skipped after an
/// error, leaves the old statement in place. So an entry counts only when the server has confirmed it, or in the very
/// pipeline that made it (an error there skips the use as well). A name without a sure entry gets the strictest masks.
#[derive(Debug, Default)]
pub(super) struct Names {
    entries: HashMap<NameId, Entry, Taken>,
    /// What stands under the empty name, which most clients use for every portal: it needs no table.
    unnamed: Option<Entry>,
    generation: u32,
    /// What the plans behind the names have; a plan counts for each name.
    bytes: u32,
}

/// The keyed hash of a name; the empty name has 0. Packed, since sessions hold many and 16-byte alignment would pad each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(Rust, packed(8))]
pub(super) struct NameId(u128);

impl NameId {
    const UNNAMED: Self = Self(0);
}

#[derive(Debug)]
struct Entry {
    plan: Rc<Plan>,
    generation: NonZeroU32,
    pipeline: u32,
    confirmed: bool,
}

/// A name as an owed answer remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameUse {
    id: NameId,
    generation: NonZeroU32,
}

impl Names {
    fn entry(&mut self, id: NameId) -> Option<&mut Entry> {
        match id {
            NameId::UNNAMED => self.unnamed.as_mut(),
            _ => self.entries.get_mut(&id),
        }
    }

    pub(super) fn get(&self, id: NameId, pipeline: u32) -> Option<Rc<Plan>> {
        let entry = if id == NameId::UNNAMED { self.unnamed.as_ref() } else { self.entries.get(&id) }?;
        (entry.confirmed || entry.pipeline == pipeline).then(|| entry.plan.clone())
    }

    pub(super) fn set(&mut self, id: NameId, plan: Rc<Plan>, pipeline: u32) -> NameUse {
        let generation = NonZeroU32::new(self.generation.wrapping_add(1)).unwrap_or(NonZeroU32::MIN);
        self.generation = generation.get();
        let entry = Entry { plan, generation, pipeline, confirmed: false };
        self.bytes = self.bytes.wrapping_add(entry.plan.bytes());
        let replaced = match id {
            NameId::UNNAMED => self.unnamed.replace(entry),
            _ => self.entries.insert(id, entry),
        };
        self.forget(replaced);
        NameUse { id, generation }
    }

    /// What the name stands for has been judged again.
    pub(super) fn renew(&mut self, id: NameId, plan: Rc<Plan>) {
        let more = plan.bytes();
        if let Some(entry) = self.entry(id) {
            let less = std::mem::replace(&mut entry.plan, plan).bytes();
            self.bytes = self.bytes.wrapping_add(more).wrapping_sub(less);
        }
    }

    /// The server has done what was asked for the name.
    pub(super) fn confirm(&mut self, name: NameUse) {
        if let Some(entry) = self.entry(name.id)
            && entry.generation == name.generation
        {
            entry.confirmed = true;
        }
    }

    /// The server has not done it: what it holds under the name is unknown.
    pub(super) fn doubt(&mut self, name: NameUse) {
        if self.entry(name.id).is_some_and(|e| e.generation == name.generation) {
            self.remove(name.id);
        }
    }

    pub(super) fn remove(&mut self, id: NameId) {
        let removed = match id {
            NameId::UNNAMED => self.unnamed.take(),
            _ => self.entries.remove(&id),
        };
        self.forget(removed);
    }

    fn forget(&mut self, entry: Option<Entry>) {
        self.bytes = self.bytes.wrapping_sub(entry.map_or(0, |e| e.plan.bytes()));
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the plans that the names keep.
    pub(super) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    pub(super) fn clear(&mut self) {
        self.unnamed = None;
        self.entries.clear();
        self.bytes = 0;
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
