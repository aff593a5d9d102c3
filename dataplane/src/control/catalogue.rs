//! What names and OIDs mean in an upstream: read by the control thread, published as an immutable snapshot with an epoch.
//!
//! A mask names a column; here it becomes (OID, column number), for the table, its partitions and children, and the views
//! that show the column. What hangs on a masked table in a way that is not understood is masked whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use policy_compiler::judge::SETTINGS_VIEW;
use policy_compiler::statement::postgres;
use policy_compiler::statement::postgres::server::{Server, Version};
use policy_compiler::statement::{Budget, Output, Statement};
use tokio_postgres::Client;

use super::additions::Added;
use super::credential::Secret;
use super::route::Endpoint;
use super::upstream::{chain, connect};
use crate::config::Resource;

/// The catalogue of one upstream at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub epoch: u64,
    version: Version,
    pub(super) added: Added,
    pub(super) relations: HashMap<u32, Relation>,
    by_name: HashMap<String, Vec<u32>>,
    /// Children and partitions, with their parents.
    inherits: Vec<(u32, u32)>,
    /// Views, with what they read.
    pub(super) reads: Vec<(u32, u32)>,
    /// Views that call functions which are not the server's own: what these read is not known.
    pub(super) calls: BTreeSet<u32>,
    /// What columns were called since this process began, if otherwise than now: a rename takes no mask away.
    pub(super) former: BTreeSet<Former>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Former {
    pub schema: String,
    pub relation: String,
    pub column: String,
    pub oid: u32,
    pub number: u16,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Relation {
    pub schema: String,
    pub name: String,
    /// The text of a view.
    definition: Option<String>,
    /// (number, name), in order of number.
    pub columns: Vec<(u16, String)>,
    /// Type OIDs of the columns, in the same order; of a domain the type beneath.
    pub types: Vec<u32>,
    /// Generated columns, with those that they are computed from.
    pub generated: BTreeMap<u16, Sources>,
}

/// What a generated column is computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// These columns of its row.
    Columns(BTreeSet<u16>),
    /// Somebody's function computes it, which may look at anything.
    Unknown,
}

impl Default for Sources {
    fn default() -> Self {
        Self::Columns(BTreeSet::new())
    }
}

const RELATIONS: &str = "SELECT c.oid, n.nspname::text, c.relname::text, \
     CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 't')";
const COLUMNS: &str = "SELECT attrelid, attnum, attname::text, attgenerated <> '', atttypid FROM pg_catalog.pg_attribute \
     WHERE attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum";
const DOMAINS: &str = "SELECT oid, typbasetype FROM pg_catalog.pg_type WHERE typtype = 'd'";
const INHERITS: &str = "SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits";
const READS: &str = "SELECT DISTINCT r.ev_class, d.refobjid FROM pg_catalog.pg_depend d \
     JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass \
     AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class";

/// What the expressions of generated columns depend on: columns of the same table (class 0), or a function that is not the
/// server's own. Servers write the dependency either of the default or of the column.
const GENERATED: &str = "SELECT a.adrelid, a.adnum, d.refobjsubid, \
     d.refclassid <> 'pg_catalog.pg_class'::pg_catalog.regclass FROM pg_catalog.pg_attrdef a \
     JOIN pg_catalog.pg_attribute c ON c.attrelid = a.adrelid AND c.attnum = a.adnum AND c.attgenerated <> '' \
     JOIN pg_catalog.pg_depend d ON (d.classid, d.objid, d.objsubid) IN \
     (('pg_catalog.pg_attrdef'::pg_catalog.regclass, a.oid, 0), ('pg_catalog.pg_class'::pg_catalog.regclass, a.adrelid, a.adnum)) \
     WHERE d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass) \
     OR d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = a.adrelid AND d.refobjsubid > 0 \
     AND d.refobjsubid <> a.adnum";

/// An upstream that takes longer is treated as one that does not answer.
const READ_MAX: std::time::Duration = std::time::Duration::from_secs(10);
const CALLS: &str = "SELECT DISTINCT r.ev_class FROM pg_catalog.pg_depend d \
     JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid \
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass \
     AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

/// The OID of the type `text`.
const TEXT: u32 = 25;

impl Snapshot {
    /// Reads the catalogue over a connection of its own.
    ///
    /// # Errors
    /// What the upstream or the network says, without the credential.
    pub async fn read(
        resource: &Resource,
        credential: &Secret,
        endpoint: &Endpoint,
        epoch: u64,
    ) -> Result<Self, String> {
        let client = connect(resource, credential, endpoint).await?;
        let read = async {
            let version = version(&client).await?;
            Self::query(&client, epoch, version).await.map_err(|e| chain(&e))
        };
        let late = |_| format!("the catalogue was not read within {} s", READ_MAX.as_secs());
        tokio::time::timeout(READ_MAX, read).await.map_err(late)?
    }

    async fn query(client: &Client, epoch: u64, version: Version) -> Result<Self, tokio_postgres::Error> {
        let mut snapshot = Self { epoch, version, added: Added::read(client).await?, ..Self::default() };
        for row in client.query(RELATIONS, &[]).await? {
            let (oid, name): (u32, String) = (row.get(0), row.get(2));
            snapshot.by_name.entry(name.clone()).or_default().push(oid);
            let relation = Relation { schema: row.get(1), name, definition: row.get(3), ..Relation::default() };
            snapshot.relations.insert(oid, relation);
        }
        let domains = client.query(DOMAINS, &[]).await?;
        let domains: HashMap<u32, u32> = domains.iter().map(|r| (r.get(0), r.get(1))).collect();
        for row in client.query(COLUMNS, &[]).await? {
            if let Some(relation) = snapshot.relations.get_mut(&row.get(0)) {
                let number = row.get::<_, i16>(1) as u16;
                relation.columns.push((number, row.get(2)));
                relation.types.push(beneath(&domains, row.get(4)));
                relation.generated.extend(row.get::<_, bool>(3).then(|| (number, Sources::default())));
            }
        }
        for row in client.query(GENERATED, &[]).await? {
            let source = (!row.get::<_, bool>(3)).then(|| row.get::<_, i32>(2) as u16);
            snapshot.computed_from(row.get(0), row.get::<_, i16>(1) as u16, source);
        }
        snapshot.inherits = client.query(INHERITS, &[]).await?.iter().map(|r| (r.get(0), r.get(1))).collect();
        snapshot.reads = client.query(READS, &[]).await?.iter().map(|r| (r.get(0), r.get(1))).collect();
        snapshot.calls = client.query(CALLS, &[]).await?.iter().map(|r| r.get(0)).collect();
        Ok(snapshot)
    }

    /// A generated column is computed from another column, or (`None`) by somebody's function.
    pub(super) fn computed_from(&mut self, oid: u32, number: u16, source: Option<u16>) {
        let Some(relation) = self.relations.get_mut(&oid) else { return };
        let sources = relation.generated.entry(number).or_default();
        match (sources, source) {
            (Sources::Columns(columns), Some(source)) => drop(columns.insert(source)),
            (sources, None) => *sources = Sources::Unknown,
            (Sources::Unknown, Some(_)) => {}
        }
    }

    /// The major version of the server.
    pub fn version(&self) -> Version {
        self.version
    }

    /// As the analysis of a text asks for it.
    pub fn server(&self) -> Server<'_> {
        Server { version: self.version, additions: self }
    }

    /// Writing to it sets settings: pg_settings, and views that stand on it.
    pub(super) fn leads_to_settings(&self, oid: u32) -> bool {
        let mut reached = BTreeSet::from([oid]);
        loop {
            let before = reached.len();
            let read: Vec<u32> =
                self.reads.iter().filter(|(view, _)| reached.contains(view)).map(|(_, r)| *r).collect();
            reached.extend(read);
            if reached.len() == before {
                break;
            }
        }
        let is_view =
            |oid: &u32| self.relations.get(oid).is_some_and(|r| r.name == SETTINGS_VIEW && r.schema == "pg_catalog");
        reached.iter().any(is_view)
    }

    /// Keeps the names that relations and columns had in an older snapshot.
    pub fn remember(&mut self, older: &Self) {
        self.former.extend(older.former.iter().filter(|f| self.relations.contains_key(&f.oid)).cloned());
        for (oid, before) in &older.relations {
            let Some(now) = self.relations.get(oid).filter(|now| *now != before) else { continue };
            let moved = (&now.schema, &now.name) != (&before.schema, &before.name);
            let columns = before.columns.iter().filter(|column| moved || !now.columns.contains(column));
            self.former.extend(columns.map(|(number, column)| Former {
                schema: before.schema.clone(),
                relation: before.name.clone(),
                column: column.clone(),
                oid: *oid,
                number: *number,
            }));
        }
    }

    /// A catalogue of plain tables of text in schema `public`, for tests and the simulator: (OID, name, columns numbered from 1).
    pub fn of(tables: &[(u32, &str, &[&str])]) -> Self {
        let mut snapshot = Self::default();
        for (oid, name, columns) in tables {
            let types = vec![TEXT; columns.len()];
            let columns = (1..).zip(columns.iter().map(|c| (*c).to_owned())).collect();
            let relation =
                Relation { schema: "public".into(), name: (*name).to_owned(), columns, types, ..Relation::default() };
            snapshot.by_name.entry((*name).to_owned()).or_default().push(*oid);
            snapshot.relations.insert(*oid, relation);
        }
        snapshot
    }

    /// Each relation with its highest column number.
    pub fn column_maxima(&self) -> impl Iterator<Item = (u32, u16)> {
        self.relations.iter().map(|(oid, relation)| (*oid, relation.columns.last().map_or(0, |(number, _)| *number)))
    }

    /// Nothing that matters to masks or judging differs.
    pub fn same_as(&self, other: &Self) -> bool {
        let sorted = |pairs: &[(u32, u32)]| pairs.iter().copied().collect::<BTreeSet<_>>();
        self.version == other.version
            && self.added == other.added
            && self.relations == other.relations
            && sorted(&self.inherits) == sorted(&other.inherits)
            && sorted(&self.reads) == sorted(&other.reads)
            && self.calls == other.calls
    }

    pub(super) fn named<'a, 's>(
        &'a self,
        schema: Option<&'s str>,
        name: &str,
    ) -> impl Iterator<Item = (u32, &'a Relation)> + use<'a, 's> {
        let oids = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        oids.iter()
            .filter_map(|oid| Some((*oid, self.relations.get(oid)?)))
            .filter(move |(_, relation)| schema.is_none_or(|s| relation.is_in(s)))
    }

    /// The relations that a statement may mean by a name. Temporary ones of whatever session do not stand in the way of a
    /// lasting one: others cannot name them so, and what their own session does to them concerns nobody.
    pub(super) fn meant(&self, schema: Option<&str>, name: &str) -> Vec<(u32, &Relation)> {
        let (temporary, lasting): (Vec<_>, Vec<_>) =
            self.named(schema, name).partition(|(_, relation)| relation.is_temporary());
        if lasting.is_empty() { temporary } else { lasting }
    }

    pub(super) fn column_name(&self, oid: u32, number: u16) -> Option<&str> {
        self.relations.get(&oid)?.columns.iter().find(|(n, _)| *n == number).map(|(_, name)| name.as_str())
    }

    pub(super) fn column(&self, oid: u32, name: &str) -> Option<u16> {
        self.relations.get(&oid)?.columns.iter().find(|(_, n)| n == name).map(|(number, _)| *number)
    }

    /// The type of a column in each relation of the name, if they all have it and agree.
    pub(super) fn type_of(&self, schema: Option<&str>, name: &str, column: &str) -> Option<u32> {
        let mut types = self.named(schema, name).map(|(_, relation)| {
            let place = relation.columns.iter().position(|(_, n)| n == column)?;
            relation.types.get(place).copied()
        });
        let first = types.next()??;
        types.all(|other| other == Some(first)).then_some(first)
    }

    /// The relations of this name that a view reads.
    pub(super) fn bases<'a>(&'a self, view: u32, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.named(None, name).map(|(oid, _)| oid).filter(move |oid| self.reads.contains(&(view, *oid)))
    }
}

impl Relation {
    /// `pg_temp` is what a session calls the schema of its own temporary tables.
    fn is_in(&self, schema: &str) -> bool {
        self.schema == schema || schema == "pg_temp" && self.schema.starts_with("pg_temp_")
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.schema.starts_with("pg_temp_") || self.schema.starts_with("pg_toast_temp_")
    }

    pub(super) fn has_column(&self, name: &str) -> bool {
        const SYSTEM: [&str; 6] = ["tableoid", "cmax", "xmax", "cmin", "xmin", "ctid"];
        self.columns.iter().any(|(_, n)| n == name) || self.definition.is_none() && SYSTEM.contains(&name)
    }

    /// Where a view's columns come from, as its text shows it; empty for anything else.
    pub(super) fn output(&self, server: Server<'_>) -> Vec<Output> {
        self.statement(server).map(|statement| statement.output).unwrap_or_default()
    }

    /// What a view's text does.
    pub(super) fn statement(&self, server: Server<'_>) -> Option<Statement> {
        let analysis = postgres::analyse_for(self.definition.as_deref()?, server, Budget::ANALYSER).ok()?;
        analysis.statements.into_iter().next()
    }
}

/// The type that a domain is of, through domains over domains.
fn beneath(domains: &HashMap<u32, u32>, type_oid: u32) -> u32 {
    let mut type_oid = type_oid;
    // Two reads of a changing catalogue need not agree: no circle may keep us.
    for _ in 0..=domains.len() {
        match domains.get(&type_oid) {
            Some(below) => type_oid = *below,
            None => return type_oid,
        }
    }
    0
}

async fn version(client: &Client) -> Result<Version, String> {
    let row =
        client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await.map_err(|e| chain(&e))?;
    let major = row.get::<_, i32>(0) / 10_000;
    let [oldest, .., newest] = Version::ALL.map(Version::major);
    let known = u32::try_from(major).ok().and_then(Version::of_major);
    known.ok_or_else(|| format!("the server is PostgreSQL {major}; versions {oldest} to {newest} can be judged"))
}

/// A relation with all its ancestors and descendants by inheritance.
pub(super) fn family(snapshot: &Snapshot, oid: u32) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([oid]);
    loop {
        let before = family.len();
        for (child, parent) in &snapshot.inherits {
            if family.contains(child) || family.contains(parent) {
                family.extend([*child, *parent]);
            }
        }
        if family.len() == before {
            return family;
        }
    }
}

#[cfg(test)]
mod tests {
    use policy_compiler::artifact::{MaskAction, Policy};
    use policy_compiler::build::compile;
    use policy_compiler::judge::Catalogue as _;
    use policy_compiler::policy::Source;
    use policy_compiler::statement::postgres::server::Additions;

    use super::super::protected::Protected;
    use super::*;

    const PEOPLE: (u32, &str, &[&str]) = (100, "people", &["id", "ssn", "turned", "next"]);

    fn protected(snapshot: &Snapshot, action: &str) -> Protected {
        let text = format!(
            "[[role]]\nname = \"a\"\n[[grant]]\nto = [\"a\"]\nresources = [\"*\"]\neffects = [\"read\"]\n\
             [[mask]]\nname = \"m\"\ncolumns = [\"people.ssn\"]\naction = \"{action}\""
        );
        let bytes = compile(&[Source { name: "policy.toml".into(), text }]).expect("the policy compiles");
        let policy = Policy::from_bytes(bytes).expect("the artifact opens");
        Protected::resolve(snapshot, &policy.masks(policy.role_named("a").expect("a role"), "shop"))
    }

    #[test]
    fn a_generated_column_is_masked_as_its_sources_and_at_least_whole() {
        for (action, sources, expected) in [
            ("last4", &[Some(2)][..], Some(MaskAction::Null)),
            ("redact", &[Some(1), Some(2)], Some(MaskAction::Null)),
            ("null", &[Some(2)], Some(MaskAction::Null)),
            ("hash", &[None], Some(MaskAction::Null)),
            ("hash", &[Some(1), None], Some(MaskAction::Null)),
            ("redact", &[Some(1)], None),
            ("redact", &[], None),
        ] {
            let mut snapshot = Snapshot::of(&[PEOPLE, (200, "items", &["id", "label"])]);
            for source in sources {
                snapshot.computed_from(100, 3, *source);
                snapshot.computed_from(200, 2, *source);
            }
            let protected = protected(&snapshot, action);
            assert_eq!(protected.columns.get(&(100, 3)).copied(), expected, "{action} {sources:?}");
            assert_eq!(protected.columns.get(&(100, 4)), None);
            assert!(!protected.columns.contains_key(&(200, 2)), "another table's column");
            let names = protected.catalogue(&snapshot);
            assert_eq!(names.generated_mask(None, "people", "turned"), expected, "COPY and masked-source ask by name");
            assert_eq!(names.generated_mask(None, "people", "ssn"), None);
        }
    }

    #[test]
    fn a_view_shows_a_generated_column_masked() {
        let mut snapshot = Snapshot::of(&[PEOPLE, (300, "shown", &["turned", "next"])]);
        snapshot.computed_from(100, 3, Some(2));
        snapshot.reads.push((300, 100));
        let view = snapshot.relations.get_mut(&300).expect("the view");
        view.definition = Some("SELECT people.turned, people.next FROM people".to_owned());
        let columns = protected(&snapshot, "last4").columns;
        assert_eq!(columns.get(&(300, 1)), Some(&MaskAction::Null));
        assert_eq!(columns.get(&(300, 2)), None);
    }

    /// A snapshot with a lasting `orders`, if wanted, and temporary ones of two sessions.
    fn with_temporaries(lasting: bool) -> Snapshot {
        let all = [(100, "orders", &["id", "item"][..]), (200, "orders", &["a"]), (300, "orders", &["a"])];
        let mut snapshot = Snapshot::of(if lasting { &all } else { &all[1..] });
        for (oid, schema) in [(200, "pg_temp_3"), (300, "pg_temp_4")] {
            snapshot.relations.get_mut(&oid).expect("a table").schema = schema.to_owned();
        }
        snapshot
    }

    #[test]
    fn temporary_tables_do_not_stand_in_the_way_of_a_lasting_one() {
        let snapshot = with_temporaries(true);
        let protected = Protected::default();
        let names = protected.catalogue(&snapshot);
        assert_eq!(names.schema_of("orders").as_deref(), Some("public"));
        assert_eq!(names.columns(None, "orders"), Some(vec!["id".to_owned(), "item".to_owned()]));
        assert!(Additions::has_column(&snapshot, None, "orders", "item"));
        assert!(!Additions::has_column(&snapshot, None, "orders", "a"));
        assert_eq!(snapshot.column_maxima().count(), 3, "rows of temporary tables are known by their OID");
        assert_eq!(snapshot.named(Some("pg_temp"), "orders").count(), 2);
    }

    #[test]
    fn temporary_tables_alone_are_ones_own() {
        let snapshot = with_temporaries(false);
        let protected = Protected::default();
        let names = protected.catalogue(&snapshot);
        assert!(names.schema_of("orders").is_some_and(|schema| schema.starts_with("pg_temp_")));
        assert!(!names.is_protected(None, "orders"), "known, so shown");
        assert!(Additions::has_column(&snapshot, None, "orders", "a"));
    }

    #[test]
    fn what_a_snapshot_does_not_know_has_no_columns() {
        let snapshot = Snapshot::of(&[PEOPLE]);
        for (relation, column, is_there) in
            [("people", "ssn", true), ("people", "ctid", true), ("people", "reverse", false), ("nowhere", "id", false)]
        {
            assert_eq!(Additions::has_column(&snapshot, None, relation, column), is_there, "{relation}.{column}");
        }
    }
}
