//! What names and OIDs mean in an upstream: read by the control thread, published as an immutable snapshot with an epoch.
//!
//! A mask names a column; here it becomes (OID, column number), for the table, its partitions and children, and the views
//! that show the column. What hangs on a masked table in a way that is not understood is masked whole.

use std::collections::{BTreeSet, HashMap, HashSet};

use policy_compiler::artifact::{MaskAction, Masks};
use policy_compiler::statement::{Output, postgres};
use tokio_postgres::Client;

use super::credential::Secret;
use super::route::Endpoint;
use super::upstream::{chain, connect};
use crate::config::Resource;

/// The catalogue of one upstream at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub epoch: u64,
    pub(super) relations: HashMap<u32, Relation>,
    by_name: HashMap<String, Vec<u32>>,
    /// Children and partitions, with their parents.
    inherits: Vec<(u32, u32)>,
    /// Views, with what they read.
    reads: Vec<(u32, u32)>,
    /// Views that call functions which are not the server's own: what these read is not known.
    calls: BTreeSet<u32>,
    /// What columns were called since this process began, if otherwise than now: a rename takes no mask away.
    former: BTreeSet<Former>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Former {
    schema: String,
    relation: String,
    column: String,
    oid: u32,
    number: u16,
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
    /// Numbers of the generated columns.
    pub generated: Vec<u16>,
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

/// An upstream that takes longer is treated as one that does not answer.
const READ_MAX: std::time::Duration = std::time::Duration::from_secs(10);
const CALLS: &str = "SELECT DISTINCT r.ev_class FROM pg_catalog.pg_depend d \
     JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid \
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass \
     AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

/// The OID of the type `text`.
const TEXT: u32 = 25;

/// Server major versions whose grammar is judged (decision 6).
const VERSIONS: std::ops::RangeInclusive<i32> = 15..=18;

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
            check_version(&client).await?;
            Self::query(&client, epoch).await.map_err(|e| chain(&e))
        };
        let late = |_| format!("the catalogue was not read within {} s", READ_MAX.as_secs());
        tokio::time::timeout(READ_MAX, read).await.map_err(late)?
    }

    async fn query(client: &Client, epoch: u64) -> Result<Self, tokio_postgres::Error> {
        let mut snapshot = Self { epoch, ..Self::default() };
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
                relation.generated.extend(row.get::<_, bool>(3).then_some(number));
            }
        }
        snapshot.inherits = client.query(INHERITS, &[]).await?.iter().map(|r| (r.get(0), r.get(1))).collect();
        snapshot.reads = client.query(READS, &[]).await?.iter().map(|r| (r.get(0), r.get(1))).collect();
        snapshot.calls = client.query(CALLS, &[]).await?.iter().map(|r| r.get(0)).collect();
        Ok(snapshot)
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
        self.relations == other.relations
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
            .filter(move |(_, relation)| schema.is_none_or(|s| s == relation.schema))
    }

    fn column_name(&self, oid: u32, number: u16) -> Option<&str> {
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
    /// Where a view's columns come from, as its text shows it; empty for anything else.
    pub(super) fn output(&self) -> Vec<Output> {
        let analysis = self.definition.as_deref().map(postgres::analyse).and_then(Result::ok);
        analysis.and_then(|a| Some(a.statements.into_iter().next()?.output)).unwrap_or_default()
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

async fn check_version(client: &Client) -> Result<(), String> {
    let row =
        client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await.map_err(|e| chain(&e))?;
    let major = row.get::<_, i32>(0) / 10_000;
    match VERSIONS.contains(&major) {
        true => Ok(()),
        false => Err(format!("the server is PostgreSQL {major}; versions {VERSIONS:?} can be judged")),
    }
}

/// A subject's masks, resolved against a snapshot.
#[derive(Debug, Default)]
pub struct Protected {
    /// What to do with each masked column, views included.
    pub columns: HashMap<(u32, u16), MaskAction>,
    /// Relations that are masked or hang on one that is.
    pub(super) relations: HashSet<u32>,
    /// Masks that no column answers to: in the log, for the operator.
    pub unresolved: Vec<String>,
}

impl Protected {
    pub fn resolve(snapshot: &Snapshot, masks: &Masks) -> Self {
        let mut protected = Self::default();
        for mask in &masks.columns {
            let mut found = false;
            for (oid, _) in snapshot.named(mask.schema.as_deref(), &mask.relation) {
                found |= protected.column(snapshot, oid, &mask.column, mask.action);
            }
            for former in snapshot.former.iter().filter(|f| f.relation == mask.relation && f.column == mask.column) {
                let meant = mask.schema.as_ref().is_none_or(|schema| *schema == former.schema);
                if let Some(name) = snapshot.column_name(former.oid, former.number).filter(|_| meant) {
                    found |= protected.column(snapshot, former.oid, name, mask.action);
                }
            }
            if !found {
                protected.unresolved.push(format!("{}: {}.{}", mask.rule, mask.relation, mask.column));
            }
        }
        protected.views(snapshot);
        protected
    }

    /// Masks a column in a relation and in everything that shares its rows by inheritance.
    fn column(&mut self, snapshot: &Snapshot, oid: u32, name: &str, action: MaskAction) -> bool {
        let mut found = false;
        for oid in family(snapshot, oid) {
            if let Some(number) = snapshot.column(oid, name) {
                found = true;
                self.relations.insert(oid);
                self.mask(oid, number, action);
            }
        }
        found
    }

    fn mask(&mut self, oid: u32, number: u16, action: MaskAction) {
        let entry = self.columns.entry((oid, number)).or_insert(action);
        *entry = (*entry).max(action);
    }

    /// A view shows a column under an OID of its own. Views can stand on views, so this goes on until nothing changes.
    /// What a function reads is not known, so a view that calls one counts as one on a masked table.
    fn views(&mut self, snapshot: &Snapshot) {
        if self.columns.is_empty() {
            return;
        }
        loop {
            let reads = snapshot.reads.iter().filter(|(_, read)| self.relations.contains(read)).map(|(view, _)| *view);
            let views = reads.chain(snapshot.calls.iter().copied());
            let next: BTreeSet<u32> = views.filter(|view| !self.relations.contains(view)).collect();
            // A view is taken only after all masked views that it reads: their columns must be known first.
            let ready = next
                .iter()
                .copied()
                .find(|view| !snapshot.reads.iter().any(|(v, read)| v == view && next.contains(read)));
            let Some(view) = ready.or(next.first().copied()) else { return };
            self.view(snapshot, view);
            self.relations.insert(view);
        }
    }

    fn view(&mut self, snapshot: &Snapshot, view: u32) {
        let Some(relation) = snapshot.relations.get(&view) else { return };
        let output = relation.output();
        let exact = output.len() == relation.columns.len() && !output.iter().any(|o| matches!(o, Output::All { .. }));
        for (i, (number, _)) in relation.columns.iter().enumerate() {
            let action = match output.get(i) {
                Some(Output::Harmless) if exact => None,
                Some(Output::Column { relation: Some(base), name }) if exact => self.origin(snapshot, view, base, name),
                _ => Some(MaskAction::Redact),
            };
            if let Some(action) = action {
                self.mask(view, *number, action);
            }
        }
    }

    /// The mask of the column that a view's column shows, strictest over all relations that may be meant.
    fn origin(&self, snapshot: &Snapshot, view: u32, base: &str, name: &str) -> Option<MaskAction> {
        let bases: Vec<u32> = snapshot.bases(view, base).collect();
        if bases.is_empty() {
            return Some(MaskAction::Redact);
        }
        let masks = bases.into_iter().map(|oid| match snapshot.column(oid, name) {
            Some(number) => self.columns.get(&(oid, number)).copied(),
            None => Some(MaskAction::Redact),
        });
        masks.flatten().max()
    }
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
