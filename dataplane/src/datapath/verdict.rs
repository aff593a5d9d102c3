//! What was decided about a text: made once per (text, subject, policy epoch), shared by all who send it.

use std::rc::Rc;

use policy_compiler::judge::CopyMasks;

/// A plan keeps its text up to this many bytes: what drivers prepare by themselves fits (asyncpg asks for types in 6.8 KB).
pub const TEXT_KEPT_BYTES_MAX: usize = 8 * 1024;

/// The outcome of judging one text.
#[derive(Debug)]
pub struct Plan {
    pub verdict: Verdict,
    /// The rule that decided, for the record.
    pub rule: Box<str>,
    /// A refusal in the protocol's own bytes, ready to send. Set if and only if the verdict is `Deny`.
    pub refusal: Option<Box<[u8]>>,
    /// Result columns without an origin are masked whole, except those that are surely harmless.
    pub mask_unsourced: bool,
    pub harmless: Box<[bool]>,
    /// What each statement of the text does to the names of prepared statements and cursors; empty if none does anything.
    pub touches: Box<[Touch]>,
    /// What it calls or runs is not known: it may change any name that SQL can say, and any setting.
    pub is_unknown: bool,
    /// BEGIN, COMMIT, SAVEPOINT and their like.
    pub transacts: bool,
    /// It leaves something for the end of its transaction, whose error may tell a value that is masked: a holdable cursor,
    /// constraints and triggers that are deferred.
    pub defers: bool,
    /// It makes the server do what was left.
    pub ends_others: bool,
    /// It may leave something in the upstream's session that a reset does not undo.
    pub leaves_traces: bool,
    /// What comes behind it is read in another encoding.
    pub leaves_utf8: bool,
    /// What to mask in a COPY … TO STDOUT.
    pub copy: Option<CopyPlan>,
    /// Of which view (policy and catalogue) it was made: see [`Judge::view`].
    pub view: u64,
    /// The text that was judged, to be judged again under another view. One above [`TEXT_KEPT_BYTES_MAX`] is not kept.
    pub text: Option<Box<[u8]>>,
}

/// What a statement does to names by SQL, once it has run. Names as SQL has them, folded.
#[derive(Debug, PartialEq, Eq)]
pub enum Touch {
    Nothing,
    Prepares(Box<str>),
    /// `holds`: the cursor outlives its transaction.
    Declares {
        name: Box<str>,
        holds: bool,
    },
    /// Runs what stands under the name. `shows`: its rows are those of the statement (EXECUTE, FETCH), and not of EXPLAIN, say.
    Executes {
        name: Box<str>,
        shows: bool,
    },
    Fetches {
        name: Box<str>,
        shows: bool,
    },
    /// `None`: all.
    Deallocates(Option<Box<str>>),
    Closes(Option<Box<str>>),
    DiscardsAll,
}

impl Touch {
    fn bytes(&self) -> usize {
        let name = match self {
            Self::Nothing | Self::DiscardsAll => 0,
            Self::Prepares(name) | Self::Declares { name, .. } => name.len(),
            Self::Executes { name, .. } | Self::Fetches { name, .. } => name.len(),
            Self::Deallocates(name) | Self::Closes(name) => name.as_ref().map_or(0, |name| name.len()),
        };
        size_of::<Self>() + name
    }
}

impl Plan {
    /// The memory that it takes; some kilobytes at most.
    pub fn bytes(&self) -> u32 {
        let refusal = self.refusal.as_ref().map_or(0, |r| r.len());
        let text = self.text.as_ref().map_or(0, |t| t.len());
        let touches: usize = self.touches.iter().map(Touch::bytes).sum();
        (size_of::<Self>() + self.rule.len() + refusal + self.harmless.len() + text + touches) as u32
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    Allow = 0,
    Mask = 1,
    Deny = 3,
}

/// How the rows of a COPY … TO STDOUT are split into fields, and what to mask in them.
#[derive(Debug, Default)]
pub struct CopyPlan {
    /// `None`: no field is masked for where it comes from; detectors still look at them.
    pub masks: Option<CopyMasks>,
    /// The type OID of each field, 0 where it is not known. Empty if none is.
    pub types: Box<[u32]>,
    /// In binary format the rest means nothing.
    pub binary: bool,
    pub csv: bool,
    pub delimiter: u8,
    pub quote: u8,
    pub escape: u8,
    /// What stands for NULL.
    pub null: Box<[u8]>,
    /// The first row has the names of the columns.
    pub header: bool,
}

impl CopyPlan {
    /// Of a COPY without options, from which nothing is masked by column.
    pub fn text() -> Self {
        Self { delimiter: b'\t', quote: b'"', escape: b'"', null: (*b"\\N").into(), ..Self::default() }
    }
}

/// What a session learns when it asks for the plan of a text.
#[derive(Debug)]
pub enum Judged {
    Plan(Rc<Plan>),
    /// The analysis is under way; the session's `Input::Again` says when to ask again.
    Wait,
}

/// Judges texts for one session's subject. The shard implements it over its plan cache.
pub trait Judge {
    fn judge(&mut self, text: &[u8]) -> Judged;
    /// The number of the policy and catalogue that are in force: plans of another number do not count any more.
    fn view(&self) -> u64;
}
