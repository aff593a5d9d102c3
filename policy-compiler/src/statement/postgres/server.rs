//! What of the upstream decides what a text means: its major version, and the things that users have added to it.
//!
//! The server resolves a name by what its catalogue holds, not by what the name looks like: `lower(1)` is a user's
//! function where somebody has created `public.lower(int)`. So whoever analyses says which server it is for.

/// Major versions of servers whose texts can be judged, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    V15,
    V16,
    V17,
    #[default]
    V18,
}

impl Version {
    pub const ALL: [Self; 4] = [Self::V15, Self::V16, Self::V17, Self::V18];

    /// `None` for a major version that cannot be judged.
    pub fn of_major(major: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.major() == major)
    }

    pub fn major(self) -> u32 {
        15 + self as u32
    }

    /// As the tables of functions, keywords and catalogues write versions: `15-18`, or just `17`.
    pub(crate) fn range(written: &str) -> Option<std::ops::RangeInclusive<Self>> {
        let (since, until) = written.split_once('-').unwrap_or((written, written));
        let version = |major: &str| Self::of_major(major.parse().ok()?);
        Some(version(since)?..=version(until)?)
    }
}

/// What users have added outside `pg_catalog` and `information_schema`, by bare name: any schema counts, also one that the
/// search_path does not name. Whatever is not known for sure must be answered as if it were there.
pub trait Additions: Sync {
    /// A function, aggregate, window function or procedure of this name.
    fn has_function(&self, name: &str) -> bool;

    /// An operator of this name that is not carried out by a function in C.
    fn has_operator(&self, name: &str) -> bool;

    /// A cast that calls a user's function, to a type of this name.
    fn has_cast_to(&self, type_name: &str) -> bool;

    /// Some cast that calls a user's function happens unwritten (implicitly, or on assignment).
    fn has_unwritten_casts(&self) -> bool;

    /// Every type of this name runs nothing of a user's when a value is made: an enum, a composite type or a domain
    /// without checks over such types, a type of an extension in C. Of a name that no type has it
    /// may say either: the server refuses that itself.
    fn is_inert_type(&self, name: &str) -> bool;

    /// Each relation that may be meant has the column. `c.f` is `f(c)` to the server when it has none.
    fn has_column(&self, schema: Option<&str>, relation: &str, column: &str) -> bool;

    /// No relation that may be meant has the column, and there is one: a bare name is another relation's then.
    fn lacks_column(&self, _schema: Option<&str>, _relation: &str, _column: &str) -> bool {
        false
    }
}

/// A server to which nobody has added anything, and whose tables have every column asked for. For what is judged without
/// an upstream (`wireward policy check`), and for tests.
pub struct Untouched;

impl Additions for Untouched {
    fn has_function(&self, _name: &str) -> bool {
        false
    }

    fn has_operator(&self, _name: &str) -> bool {
        false
    }

    fn has_cast_to(&self, _type_name: &str) -> bool {
        false
    }

    fn has_unwritten_casts(&self) -> bool {
        false
    }

    fn is_inert_type(&self, _name: &str) -> bool {
        true
    }

    fn has_column(&self, _schema: Option<&str>, _relation: &str, _column: &str) -> bool {
        true
    }
}

/// The server that a text is analysed for.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    pub version: Version,
    pub additions: &'a dyn Additions,
}

impl Server<'static> {
    /// The newest server, untouched.
    pub const NEWEST: Self = Self { version: Version::V18, additions: &Untouched };
}
