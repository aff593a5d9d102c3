//! SQL text → [`Analysis`]: what a statement would do, read off the server's own grammar.
//!
//! The analysis is about the text alone. What names mean is the catalogue's business, and what is forbidden is the
//! policy's. Whatever is not understood is [`Effect::Opaque`], never guessed.

pub mod postgres;

/// One kind of thing that a statement does. The closed vocabulary of `effects = [...]` in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Effect {
    /// Rows of a relation are read: SELECT, TABLE, COPY … TO STDOUT, RETURNING, FETCH.
    Read,
    Insert,
    Update,
    Delete,
    Truncate,
    /// CREATE, ALTER, DROP, COMMENT, REINDEX, REFRESH, SELECT INTO, CREATE TABLE AS and their like.
    Ddl,
    /// GRANT, REVOKE, roles, ownership, default privileges, row security.
    Dcl,
    /// Explicit locks: LOCK, FOR UPDATE and FOR SHARE, advisory locks.
    Lock,
    /// BEGIN, COMMIT, SAVEPOINT and their like. Every grant carries it.
    Transaction,
    /// SET, SHOW, RESET, DISCARD, DEALLOCATE, CLOSE, `UNLISTEN *`, set_config with literals. Every grant carries it.
    Session,
    /// LISTEN, UNLISTEN of a channel.
    Listen,
    /// NOTIFY, pg_notify.
    Notify,
    /// A function that is not on the list of known plain ones is called: its effects are unknown.
    Call,
    /// SQL that is run from a value: DO, query_to_xml, dblink; CALL of a procedure.
    Dynamic,
    /// Files and programs of the server: COPY with a path or PROGRAM, pg_read_file, lo_import, LOAD.
    File,
    /// VACUUM, ANALYZE, CLUSTER, CHECKPOINT, ALTER SYSTEM, pg_terminate_backend, replication.
    Admin,
    /// Not understood. Nothing but a grant that names `opaque` lets it pass.
    Opaque,
}

/// A set of effects.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EffectSet(u32);

impl Effect {
    /// Every effect, with the name that policies use for it.
    pub const ALL: [(Effect, &'static str); 17] = [
        (Effect::Read, "read"),
        (Effect::Insert, "insert"),
        (Effect::Update, "update"),
        (Effect::Delete, "delete"),
        (Effect::Truncate, "truncate"),
        (Effect::Ddl, "ddl"),
        (Effect::Dcl, "dcl"),
        (Effect::Lock, "lock"),
        (Effect::Transaction, "transaction"),
        (Effect::Session, "session"),
        (Effect::Listen, "listen"),
        (Effect::Notify, "notify"),
        (Effect::Call, "call"),
        (Effect::Dynamic, "dynamic"),
        (Effect::File, "file"),
        (Effect::Admin, "admin"),
        (Effect::Opaque, "opaque"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(e, _)| *e)
    }
}

impl EffectSet {
    pub const EMPTY: Self = Self(0);
    pub const ALL: Self = Self((1 << Effect::ALL.len()) - 1);

    pub fn of(effects: &[Effect]) -> Self {
        effects.iter().fold(Self::EMPTY, |set, e| set.with(*e))
    }
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & Self::ALL.0)
    }
    pub fn bits(self) -> u32 {
        self.0
    }
    #[must_use]
    pub fn with(self, effect: Effect) -> Self {
        Self(self.0 | 1 << effect as u8)
    }
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    pub fn has(self, effect: Effect) -> bool {
        self.0 & 1 << effect as u8 != 0
    }
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    pub fn iter(self) -> impl Iterator<Item = Effect> {
        Effect::ALL.iter().map(|(e, _)| *e).filter(move |e| self.has(*e))
    }
}

impl std::fmt::Debug for EffectSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter().map(Effect::name)).finish()
    }
}

/// What one text (a Query message or the text of a Parse message) would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// In the order of the text. Empty for an empty text or one of comments only.
    pub statements: Vec<Statement>,
}

/// What one statement would do, everything nested in it (CTEs, sub-selects, EXPLAIN ANALYZE, PREPARE) included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// What a person would call it: `SELECT`, `DROP TABLE`, `COPY FROM`. For messages and records.
    pub tag: String,
    pub effects: EffectSet,
    /// Each relation named, once for every (schema, name), with all effects on it. CTE names are not relations.
    pub relations: Vec<RelationUse>,
    /// Each column named (in any clause), with the relation where the text makes that plain. `*` is the name `*`, and a
    /// value of which nothing is known has the name [`UNKNOWN_COLUMN`].
    pub columns: Vec<ColumnUse>,
    /// Each function called. Operators and casts are not functions.
    pub functions: Vec<FunctionUse>,
    /// Those of the functions whose effect is [`Effect::Call`]: nobody knows what they do.
    pub called: Vec<Called>,
    /// What has no name of its own is called as well, an operator or a cast: only a grant of every call carries that.
    pub calls_unnamed: bool,
    /// An UPDATE or DELETE stands somewhere in it without a condition that sets a column of its table against something
    /// else (`id = id` does not); so does a MERGE that does either, or an INSERT … SELECT … ON CONFLICT DO UPDATE.
    pub without_where: bool,
    /// A function is called that does something: takes a lock, counts a sequence up, sets a setting.
    pub acts: bool,
    /// One query level, and nothing but relations and their joins in FROM: as many rows come as the relations have.
    pub is_flat: bool,
    /// How each column of the result comes about, as far as the text shows it. Empty if there are no rows. For PREPARE
    /// and DECLARE it is the result of the statement that they name, for COPY TO the columns of the lines sent.
    pub output: Vec<Output>,
    /// Set for COPY from or to the client.
    pub copy: Option<Copy>,
    /// Settings that SET, RESET, set_config and their like would change, for the session or for later ones. RESET ALL and
    /// DISCARD ALL stand as the name `all`.
    pub settings: Vec<Setting>,
    /// The name that PREPARE, DECLARE give to a statement.
    pub defines: Option<Named>,
    /// DECLARE … WITH HOLD: the cursor outlives its transaction, whose end reads its rows.
    pub holds: bool,
    /// The name that EXECUTE, FETCH, MOVE use.
    pub uses: Option<Named>,
    /// What DEALLOCATE, CLOSE, DISCARD ALL take away.
    pub drops: Option<Dropped>,
    /// What is not understood, in the user's words; set if and only if the effects have `opaque`.
    pub opaque: Option<String>,
    /// The verdict and masks are proved not to depend on any literal of this statement (decision 7): constants stand only
    /// in comparisons, VALUES, LIMIT and OFFSET, target lists, and as arguments of functions known to be plain.
    pub literals_are_plain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationUse {
    /// As written (after the server's case folding); `None` when unqualified.
    pub schema: Option<String>,
    pub name: String,
    pub effects: EffectSet,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnUse {
    /// The relation's name (not its alias) where the text makes it plain.
    pub relation: Option<String>,
    pub name: String,
    pub places: Places,
}

/// The name of a [`ColumnUse`] that stands for a value of which nothing is known: what a user's function returns.
pub const UNKNOWN_COLUMN: &str = "";

/// What a column decides beyond the value of a column of the result: how a mask on it could be got around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places(u8);

impl Places {
    /// It stands in a result column, is assigned to, or is asked for NULL.
    pub const SHOWN: Self = Self(0);
    /// It picks, groups or orders rows, set against constants and parameters alone: who asks learns yes or no.
    pub const PICKS: Self = Self(1);
    /// Together with other values, or through a function that returns rows, it decides which rows come or how many:
    /// they tell the value.
    pub const SHAPES: Self = Self(2);
    /// A function keeps it, or does something that depends on it, outside the result.
    pub const KEPT: Self = Self(4);

    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Some place of `others` is among them.
    pub fn has_any(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

/// A function that is called, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    pub schema: Option<String>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionUse {
    pub schema: Option<String>,
    pub name: String,
    /// On the list of known plain functions of pg_catalog: no effect beyond its arguments, no SQL from text.
    pub plain: bool,
}

/// Where a column of a result comes from, as far as the text alone shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// All columns of a relation, in its order (`*` or `t.*` over a plain relation).
    All { schema: Option<String>, relation: String },
    /// A bare column. `relation` is `None` when several could have it.
    Column { relation: Option<String>, name: String },
    /// How many rows there are, or how many with a value in a bare column: count(*), count(c).
    Rows,
    /// An expression, with the columns whose values flow into it, as places in [`Statement::columns`], in order. None flow
    /// into a constant or a parameter.
    Computed(Vec<u32>),
    /// Not known: how many columns it is stands open too.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub direction: CopyDirection,
    pub format: CopyFormat,
    /// The table, or `None` for COPY (query).
    pub table: Option<(Option<String>, String)>,
    /// The column list as written; empty means all columns.
    pub columns: Vec<String>,
    /// Bytes that the COPY's options set; text: `\t`, csv: `,`.
    pub delimiter: u8,
    pub quote: u8,
    pub escape: u8,
    pub null: String,
    pub header: bool,
    /// What about the form of its rows masking cannot follow exactly; who is masked may not run it.
    pub unmodelled: Option<Unmodelled>,
}

/// An option, and what to do instead, both in the user's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmodelled {
    pub what: String,
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    ToClient,
    FromClient,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    Text,
    Csv,
    Binary,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: String,
    pub value: NewValue,
}

/// What a setting becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewValue {
    /// DEFAULT, RESET: what the session began with.
    Default,
    Is(String),
    /// What a parameter or an expression gives.
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    Prepared(String),
    Cursor(String),
}

/// Names that a statement takes away; `None` is all of the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dropped {
    Prepared(Option<String>),
    Cursor(Option<String>),
    /// DISCARD ALL.
    Everything,
}

/// What the analysis of one text may cost at most. Counted, not timed: the same text has the same answer everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes that its tree may take by a bound that is told before there is a tree (`postgres::weight`).
    pub tree_bytes: usize,
    /// Brackets, operators and sub-queries that may stand within each other: the library takes the square of it.
    pub levels: usize,
    /// Steps of the walk, each of some tens of nanoseconds: names that are compared, columns that flow together.
    pub steps: u32,
    /// A text of several statements may take as much for each, one after the other.
    pub piecemeal: bool,
}

impl Budget {
    /// For a thread that others wait for.
    pub const INLINE: Self = Self { tree_bytes: 3 << 19, levels: 160, steps: 20_000, piecemeal: false };
    /// For a thread that has time.
    pub const ANALYSER: Self = Self { tree_bytes: 56 << 20, levels: usize::MAX, steps: 4_000_000, piecemeal: true };
}

/// Why a text could not be analysed. The text is then blocked under every policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnalyseError {
    /// The server's grammar refuses it: `message` is the grammar's, `position` a character offset from 1 if known.
    Syntax { message: String, position: Option<usize> },
    /// Longer than `max` bytes.
    TooLong { bytes: usize, max: usize },
    /// More of `what` than a [`Budget`] allows.
    Budget { what: &'static str, max: usize },
    /// A NUL byte, or not UTF-8.
    Encoding(&'static str),
}

impl AnalyseError {
    /// Of a text that is not quite the one that was sent.
    pub(super) fn without_position(self) -> Self {
        match self {
            Self::Syntax { message, .. } => Self::Syntax { message, position: None },
            other => other,
        }
    }
}
