//! The server's two tables of names, prepared statements and portals, as far as they can be known from here. SQL's PREPARE and
//! DECLARE and the protocol's Parse and Bind share them (`commands/prepare.c`, `utils/mmgr/portalmem.c`).
//!
//! A name is given, or taken away, when the server has done it: what was sent and is not answered yet *pends*. Behind it in the
//! same pipeline it counts as done, since an error there skips the use as well; behind a Sync nobody can know, and who asks
//! waits for the answer. A name that the server has lost and that is still known here does no harm: the server says so itself.
//! What may have changed unseen (a function that was called, a DO) makes every name that SQL can say *lost*: nothing is known
//! of what stands there. The empty name cannot be said in SQL.

use std::num::NonZeroU64;
use std::rc::Rc;

use hashbrown::HashMap;

use super::dissector::{NameKey, Taken};
use crate::datapath::verdict::{Plan, Touch};

/// NAMEDATALEN - 1: what the server keeps of a name. The protocol's names are cut at this byte, be it within a character; SQL's
/// names at the character before it.
const NAME_BYTES_MAX: usize = 63;

pub(super) fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES_MAX)]
}

/// The keyed hash of a name; the empty name has 0. Packed, since sessions hold many and 16-byte alignment would pad each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(Rust, packed(8))]
pub(super) struct NameId(u128);

impl NameId {
    pub(super) const UNNAMED: Self = Self(0);

    /// Of a name as the protocol has it.
    pub(super) fn of(key: &NameKey, name: &[u8]) -> Self {
        match name {
            b"" => Self::UNNAMED,
            _ => Self(key.hash(&[cut(name)])),
        }
    }

    /// Of a name as SQL has it.
    pub(super) fn of_sql(key: &NameKey, name: &str) -> Self {
        Self::of(key, name[..name.floor_char_boundary(NAME_BYTES_MAX)].as_bytes())
    }
}

/// A name as an owed answer remembers it, and when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameUse {
    pub(super) id: NameId,
    pub(super) at: u64,
}

/// How a name has come to what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// By Parse or Bind: what runs is the text of the plan.
    Protocol,
    /// By PREPARE or DECLARE: what runs is the statement inside.
    Sql,
    /// By DECLARE … WITH HOLD.
    SqlHeld,
}

const MADES: [Made; 3] = [Made::Protocol, Made::Sql, Made::SqlHeld];
/// A power of two, above how many there are.
const MADES_MAX: u64 = 4;

/// What stands under a name. Two words, since sessions hold many: when it was asked for, and how it was made, are one of them.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) plan: Rc<Plan>,
    stamp: u64,
}

impl Held {
    fn new(plan: Rc<Plan>, made: Made, at: u64) -> Self {
        Self { plan, stamp: at * MADES_MAX + made as u64 }
    }

    /// Something that nobody has looked at.
    pub(super) fn unknown(plan: Plan) -> Self {
        Self::new(Rc::new(plan), Made::Protocol, 0)
    }

    pub(super) fn made(&self) -> Made {
        MADES[(self.stamp % MADES_MAX) as usize]
    }

    fn at(&self) -> u64 {
        self.stamp / MADES_MAX
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// As the last answer left it.
    confirmed: Option<Held>,
    /// The last that was asked for and is not answered yet.
    pending: Option<Held>,
}

impl Entry {
    fn bytes(&self) -> u32 {
        self.confirmed.iter().chain(&self.pending).map(|held| held.plan.bytes()).sum()
    }
}

/// What is known of a name.
#[derive(Debug)]
pub(super) enum Known {
    Held(Held),
    /// Nothing stands under it: the server would say so.
    Absent,
    /// Something may stand under it; and what it was when it was known last.
    Lost(Option<Held>),
    /// The answer that tells is on its way.
    Soon,
}

/// One of the two tables.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<NameId, Entry, Taken>,
    /// What stands under the empty name, which most clients use for every portal: it needs no table.
    unnamed: Entry,
    /// Names that are older than this are lost, by an answer that has come.
    lost: u64,
    /// The same by what was sent last and is not answered yet.
    losing: Option<NonZeroU64>,
    /// What the plans behind the names have; a plan counts for each name.
    bytes: u32,
}

impl Table {
    fn entry(&self, id: NameId) -> Option<&Entry> {
        if id == NameId::UNNAMED { Some(&self.unnamed) } else { self.entries.get(&id) }
    }

    fn change(&mut self, id: NameId, change: impl FnOnce(&mut Entry)) {
        let entry = match id {
            NameId::UNNAMED => &mut self.unnamed,
            _ => self.entries.entry(id).or_default(),
        };
        let before = entry.bytes();
        change(entry);
        self.bytes = self.bytes.wrapping_add(entry.bytes()).wrapping_sub(before);
        if id != NameId::UNNAMED && entry.confirmed.is_none() && entry.pending.is_none() {
            self.entries.remove(&id);
        }
    }

    /// What stands under the name for a message that is sent now, in the pipeline that has begun behind `from`.
    fn known(&self, id: NameId, from: u64) -> Known {
        let pending = self.entry(id).and_then(|entry| entry.pending.as_ref());
        if pending.is_some_and(|held| held.at() <= from) {
            return Known::Soon;
        }
        let held = pending.or(self.entry(id).and_then(|entry| entry.confirmed.as_ref()));
        let (at, losing) = (held.map_or(0, Held::at), self.losing.map_or(0, NonZeroU64::get));
        match held {
            _ if id == NameId::UNNAMED => {}
            _ if at < losing && losing <= from => return Known::Soon,
            _ if at < self.lost.max(losing) => return Known::Lost(held.cloned()),
            _ => {}
        }
        held.map_or(Known::Absent, |held| Known::Held(held.clone()))
    }

    fn ask(&mut self, id: NameId, held: Held) {
        self.change(id, |entry| entry.pending = Some(held));
    }

    /// The server has done what was asked then.
    fn confirm(&mut self, id: NameId, held: Held) {
        self.change(id, |entry| {
            entry.pending.take_if(|pending| pending.at() == held.at());
            entry.confirmed = Some(held);
        });
    }

    /// It has not: what stood under the name still does.
    fn refute(&mut self, id: NameId, at: u64) {
        if self.entry(id).is_some() {
            self.change(id, |entry| _ = entry.pending.take_if(|pending| pending.at() == at));
        }
    }

    /// The server has taken the name away.
    pub(super) fn drop_name(&mut self, id: NameId) {
        if self.entry(id).is_some() {
            self.change(id, |entry| entry.confirmed = None);
        }
    }

    /// The server has taken away all names that SQL can say: what is not known now does not exist.
    fn drop_all_named(&mut self) {
        self.drop_names(|_| true);
        self.lost = 0;
    }

    /// The server has taken away all names of which `goes` is true.
    fn drop_names(&mut self, mut goes: impl FnMut(&Held) -> bool) {
        let mut bytes = self.unnamed.bytes();
        self.entries.retain(|_, entry| {
            entry.confirmed.take_if(|held| goes(held));
            bytes = bytes.wrapping_add(entry.bytes());
            entry.confirmed.is_some() || entry.pending.is_some()
        });
        self.bytes = bytes;
    }

    /// What the name stands for has been judged again.
    pub(super) fn renew(&mut self, id: NameId, plan: &Rc<Plan>) {
        if self.entry(id).is_some() {
            self.change(id, |entry| {
                let held = entry.pending.as_mut().or(entry.confirmed.as_mut());
                held.into_iter().for_each(|held| held.plan = plan.clone());
            });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the plans that the names keep.
    pub(super) fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

/// Both tables.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) statements: Table,
    pub(super) portals: Table,
    /// Counts what was asked.
    at: u64,
    /// The last that was asked before the pipeline that is open, or begins next.
    from: u64,
    /// What we have refused in the server's place and it would have forgotten the unnamed statement for: so many answers are
    /// due that tell whether it came so far.
    pub(super) refusing: u32,
}

impl Names {
    pub(super) fn bytes(&self) -> usize {
        self.statements.bytes() + self.portals.bytes()
    }

    /// The pipeline has come to its end: what was asked in it is of an earlier one.
    pub(super) fn end_pipeline(&mut self) {
        self.from = self.at;
    }

    /// It was asked in the pipeline that is open.
    pub(super) fn is_of_this_pipeline(&self, at: NonZeroU64) -> bool {
        at.get() > self.from
    }

    pub(super) fn statement(&self, id: NameId) -> Known {
        let is_newer = || self.statements.unnamed.pending.as_ref().is_some_and(|held| held.at() > self.from);
        if id == NameId::UNNAMED && self.refusing > 0 && !is_newer() {
            return Known::Soon;
        }
        self.statements.known(id, self.from)
    }

    pub(super) fn portal(&self, id: NameId) -> Known {
        self.portals.known(id, self.from)
    }

    pub(super) fn next(&mut self, id: NameId) -> NameUse {
        self.at += 1;
        NameUse { id, at: self.at }
    }

    /// A Parse goes upstream.
    pub(super) fn parse(&mut self, id: NameId, plan: Rc<Plan>) -> NameUse {
        let name = self.next(id);
        self.statements.ask(id, Held::new(plan, Made::Protocol, name.at));
        name
    }

    /// A Bind goes upstream.
    pub(super) fn bind(&mut self, id: NameId, plan: Rc<Plan>, made: Made) -> NameUse {
        let name = self.next(id);
        self.portals.ask(id, Held::new(plan, made, name.at));
        name
    }

    /// The server is asked whether a lost statement still is what it was: if not, what is behind the question is skipped.
    pub(super) fn find(&mut self, id: NameId, held: &Held) -> NameUse {
        let name = self.next(id);
        self.statements.ask(id, Held::new(held.plan.clone(), held.made(), name.at));
        name
    }

    /// It is.
    pub(super) fn found(&mut self, name: NameUse) {
        self.statements.change(name.id, |entry| {
            if let Some(held) = entry.pending.take_if(|held| held.at() == name.at) {
                entry.confirmed = Some(held);
            } else if let Some(held) = &mut entry.confirmed {
                *held = Held::new(held.plan.clone(), held.made(), held.at().max(name.at));
            }
        });
    }

    /// A text goes upstream to be run.
    pub(super) fn run(&mut self, key: &NameKey, plan: &Rc<Plan>, at: u64) {
        for touch in &plan.touches {
            match touch {
                Touch::Prepares(name) => {
                    let held = Held::new(plan.clone(), Made::Sql, at);
                    self.statements.ask(NameId::of_sql(key, name), held);
                }
                Touch::Declares { name, holds } => {
                    let held = Held::new(plan.clone(), declared(*holds), at);
                    self.portals.ask(NameId::of_sql(key, name), held);
                }
                _ => {}
            }
        }
    }

    /// A statement of the text has run.
    pub(super) fn has_run(&mut self, key: &NameKey, plan: &Rc<Plan>, touch: &Touch, at: u64) {
        match touch {
            Touch::Prepares(name) => {
                self.statements.confirm(NameId::of_sql(key, name), Held::new(plan.clone(), Made::Sql, at));
            }
            Touch::Declares { name, holds } => {
                let held = Held::new(plan.clone(), declared(*holds), at);
                self.portals.confirm(NameId::of_sql(key, name), held);
            }
            Touch::Deallocates(Some(name)) => self.statements.drop_name(NameId::of_sql(key, name)),
            Touch::Deallocates(None) => self.statements.drop_all_named(),
            Touch::Closes(Some(name)) => self.portals.drop_name(NameId::of_sql(key, name)),
            Touch::Closes(None) => self.drop_portals(),
            Touch::DiscardsAll => {
                self.statements.drop_all_named();
                self.drop_portals();
            }
            Touch::Nothing | Touch::Executes { .. } | Touch::Fetches { .. } => {}
        }
    }

    /// A text will not run, or no further: of what it would have named nothing more comes about.
    pub(super) fn will_not_run(&mut self, key: &NameKey, plan: &Plan, at: u64) {
        for touch in &plan.touches {
            match touch {
                Touch::Prepares(name) => self.statements.refute(NameId::of_sql(key, name), at),
                Touch::Declares { name, .. } => self.portals.refute(NameId::of_sql(key, name), at),
                _ => {}
            }
        }
    }

    pub(super) fn parsed(&mut self, name: NameUse, plan: Rc<Plan>) {
        self.statements.confirm(name.id, Held::new(plan, Made::Protocol, name.at));
    }

    pub(super) fn bound(&mut self, name: NameUse, plan: Rc<Plan>, made: Made) {
        self.portals.confirm(name.id, Held::new(plan, made, name.at));
    }

    pub(super) fn not_parsed(&mut self, name: NameUse) {
        self.statements.refute(name.id, name.at);
    }

    pub(super) fn not_bound(&mut self, name: NameUse) {
        self.portals.refute(name.id, name.at);
    }

    /// The portal that runs CLOSE ALL stays; most often it is the unnamed one.
    fn drop_portals(&mut self) {
        self.portals.drop_all_named();
    }

    /// No transaction is open: portals have gone with the last one.
    pub(super) fn transaction_ended(&mut self) {
        self.portals.drop_names(|held| held.made() != Made::SqlHeld);
        self.portals.drop_name(NameId::UNNAMED);
    }

    /// What goes upstream now may change any name that SQL can say, also if it fails.
    pub(super) fn losing(&mut self, at: u64) {
        for table in [&mut self.statements, &mut self.portals] {
            table.losing = NonZeroU64::new(at);
        }
    }

    /// It has been run, or has failed on the way.
    pub(super) fn lost(&mut self, at: u64) {
        for table in [&mut self.statements, &mut self.portals] {
            table.lost = table.lost.max(at);
            table.losing.take_if(|loss| loss.get() <= at);
        }
    }

    /// Nothing more is owed: what has not been run never will be.
    pub(super) fn settled(&mut self) {
        for table in [&mut self.statements, &mut self.portals] {
            table.losing = None;
        }
    }
}

fn declared(holds: bool) -> Made {
    if holds { Made::SqlHeld } else { Made::Sql }
}
