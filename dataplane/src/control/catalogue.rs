//! What names and OIDs mean in an upstream: read by the control thread, published as an immutable snapshot with an epoch.
//!
//! A mask names a column; here it becomes (OID, column number), for the table, its partitions and children, and the views
//! that show the column. What hangs on a masked table in a way that is not understood is masked whole.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use policy_compiler::artifact::{MaskAction, Masks};
use policy_compiler::judge;
use policy_compiler::statement::{Output, postgres};
use rustls::ClientConfig;
use tokio_postgres::Client;

use super::credential::Secret;
use super::upstream::{chain, connect};
use crate::config::Resource;

/// The catalogue of one upstream at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub epoch: u64,
    relations: HashMap<u32, Relation>,
    by_name: HashMap<String, Vec<u32>>,
    /// Children and partitions, with their parents.
    inherits: Vec<(u32, u32)>,
    /// Views, with what they read.
    reads: Vec<(u32, u32)>,
}

#[derive(Debug, PartialEq)]
struct Relation {
    schema: String,
    name: String,
    /// The text of a view.
    definition: Option<String>,
    /// (number, name), in order of number.
    columns: Vec<(u16, String)>,
}

const RELATIONS: &str = "SELECT c.oid, n.nspname::text, c.relname::text, \
     CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 't')";
const COLUMNS: &str = "SELECT attrelid, attnum, attname::text FROM pg_catalog.pg_attribute \
     WHERE attnum > 0 AND NOT attisdropped ORDER BY attrelid, attnum";
const INHERITS: &str = "SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits";
const READS: &str = "SELECT DISTINCT r.ev_class, d.refobjid FROM pg_catalog.pg_depend d \
     JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass \
     AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class";

/// An upstream that takes longer is treated as one that does not answer.
const READ_MAX: std::time::Duration = std::time::Duration::from_secs(10);

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
        tls: Option<&Arc<ClientConfig>>,
        epoch: u64,
    ) -> Result<Self, String> {
        let client = connect(resource, credential, tls).await?;
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
            let relation = Relation { schema: row.get(1), name, definition: row.get(3), columns: Vec::new() };
            snapshot.relations.insert(oid, relation);
        }
        for row in client.query(COLUMNS, &[]).await? {
            if let Some(relation) = snapshot.relations.get_mut(&row.get(0)) {
                relation.columns.push((row.get::<_, i16>(1) as u16, row.get(2)));
            }
        }
        snapshot.inherits = client.query(INHERITS, &[]).await?.iter().map(|r| (r.get(0), r.get(1))).collect();
        snapshot.reads = client.query(READS, &[]).await?.iter().map(|r| (r.get(0), r.get(1))).collect();
        Ok(snapshot)
    }

    /// A catalogue of plain tables in schema `public`, for tests and the simulator: (OID, name, columns numbered from 1).
    pub fn of(tables: &[(u32, &str, &[&str])]) -> Self {
        let mut snapshot = Self::default();
        for (oid, name, columns) in tables {
            let columns = (1..).zip(columns.iter().map(|c| (*c).to_owned())).collect();
            let relation = Relation { schema: "public".into(), name: (*name).to_owned(), definition: None, columns };
            snapshot.by_name.entry((*name).to_owned()).or_default().push(*oid);
            snapshot.relations.insert(*oid, relation);
        }
        snapshot
    }

    pub fn oids(&self) -> impl Iterator<Item = u32> {
        self.relations.keys().copied()
    }

    /// Nothing that matters to masks or judging differs.
    pub fn same_as(&self, other: &Self) -> bool {
        let sorted = |pairs: &[(u32, u32)]| pairs.iter().copied().collect::<BTreeSet<_>>();
        self.relations == other.relations
            && sorted(&self.inherits) == sorted(&other.inherits)
            && sorted(&self.reads) == sorted(&other.reads)
    }

    fn named<'a>(&'a self, schema: Option<&'a str>, name: &str) -> impl Iterator<Item = (u32, &'a Relation)> {
        let oids = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        oids.iter()
            .filter_map(|oid| Some((*oid, self.relations.get(oid)?)))
            .filter(move |(_, relation)| schema.is_none_or(|s| s == relation.schema))
    }

    fn column(&self, oid: u32, name: &str) -> Option<u16> {
        self.relations.get(&oid)?.columns.iter().find(|(_, n)| n == name).map(|(number, _)| *number)
    }
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
    relations: HashSet<u32>,
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
    fn views(&mut self, snapshot: &Snapshot) {
        loop {
            let reads = snapshot.reads.iter();
            let next: BTreeSet<u32> = reads
                .filter(|(view, read)| self.relations.contains(read) && !self.relations.contains(view))
                .map(|(view, _)| *view)
                .collect();
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
        let output = relation.definition.as_deref().map(postgres::analyse).and_then(Result::ok);
        let output = output.and_then(|a| Some(a.statements.into_iter().next()?.output)).unwrap_or_default();
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
        let read = |oid: &u32| snapshot.reads.contains(&(view, *oid));
        let bases: Vec<u32> = snapshot.named(None, base).map(|(oid, _)| oid).filter(read).collect();
        if bases.is_empty() {
            return Some(MaskAction::Redact);
        }
        let masks = bases.into_iter().map(|oid| match snapshot.column(oid, name) {
            Some(number) => self.columns.get(&(oid, number)).copied(),
            None => Some(MaskAction::Redact),
        });
        masks.flatten().max()
    }

    /// The names of the catalogue, as judging asks for them.
    pub fn catalogue<'a>(&'a self, snapshot: &'a Snapshot) -> impl judge::Catalogue + 'a {
        Names { protected: self, snapshot }
    }
}

/// A relation with all its ancestors and descendants by inheritance.
fn family(snapshot: &Snapshot, oid: u32) -> BTreeSet<u32> {
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

struct Names<'a> {
    protected: &'a Protected,
    snapshot: &'a Snapshot,
}

impl judge::Catalogue for Names<'_> {
    fn is_protected(&self, schema: Option<&str>, name: &str) -> bool {
        let mut known = false;
        let any = self.snapshot.named(schema, name).any(|(oid, _)| {
            known = true;
            self.protected.relations.contains(&oid)
        });
        any || !known
    }

    fn columns(&self, schema: Option<&str>, name: &str) -> Option<Vec<String>> {
        let mut found = self.snapshot.named(schema, name);
        match (found.next(), found.next()) {
            (Some((_, relation)), None) => Some(relation.columns.iter().map(|(_, n)| n.clone()).collect()),
            _ => None,
        }
    }

    fn schema_of(&self, name: &str) -> Option<String> {
        let mut found = self.snapshot.named(None, name);
        match (found.next(), found.next()) {
            (Some((_, relation)), None) => Some(relation.schema.clone()),
            _ => None,
        }
    }
}
