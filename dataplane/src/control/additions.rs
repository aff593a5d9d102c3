//! What users have added to an upstream under names that the analysis takes for the server's own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use policy_compiler::statement::postgres::server::Additions;
use tokio_postgres::{Client, Error};

use super::catalogue::Snapshot;

/// Extensions whose functions, also those in SQL, compute and do nothing else. Their overloads of the server's names
/// (`replace(citext, …)`, `text(geometry)`) are not what a homonym is feared for.
const REVIEWED: &[&str] = &[
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "postgis",
    "seg",
    "tsm_system_rows",
    "tsm_system_time",
    "unaccent",
    "uuid-ossp",
    "vector",
];

/// What the server itself brings has a lower OID.
const FIRST_USER_OID: u32 = 16_384;

#[derive(Debug, Default, PartialEq)]
pub(super) struct Added {
    functions: BTreeMap<String, Homonyms>,
    operators: BTreeSet<String>,
    /// Names of the types that a user's function casts to; true if some such cast happens unwritten.
    casts: BTreeMap<String, bool>,
    inert_types: BTreeSet<String>,
}

/// The functions of one name outside the schemas of the system.
#[derive(Debug, Default, PartialEq)]
struct Homonyms {
    schemas: BTreeSet<String>,
    /// Not all of them are of reviewed extensions.
    counts: bool,
}

/// One type of a user's.
struct Type {
    name: String,
    /// Nothing of a user's runs when a value is made, but for what its parts run.
    is_inert: bool,
    parts: Vec<u32>,
}

impl Added {
    pub async fn read(client: &Client) -> Result<Self, Error> {
        let names = async |query: String| -> Result<BTreeSet<String>, Error> {
            Ok(client.query(&query, &[&REVIEWED]).await?.iter().map(|row| row.get(0)).collect())
        };
        Ok(Self {
            functions: functions(client).await?,
            operators: names(operators()).await?,
            casts: casts(client).await?,
            inert_types: inert(&types(client).await?),
        })
    }
}

/// Whether the object belongs to an extension, as a condition: put there by a superuser, not by whoever owns it.
fn is_member(class: &str, oid: &str, owner: &str, which: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
         JOIN pg_catalog.pg_roles r ON r.oid = {owner} AND r.rolsuper \
         WHERE d.classid = 'pg_catalog.{class}'::pg_catalog.regclass AND d.objid = {oid} AND d.deptype = 'e' \
         AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND ({which}))"
    )
}

/// Of an extension that is reviewed, or one whose function is in C.
const TRUSTED: &str = "e.extname = ANY ($1) OR l.lanname IN ('c', 'internal')";

async fn functions(client: &Client) -> Result<BTreeMap<String, Homonyms>, Error> {
    let member = is_member("pg_proc", "p.oid", "p.proowner", "e.extname = ANY ($1)");
    let query = format!(
        "SELECT p.proname::text, n.nspname::text, pg_catalog.bool_or(NOT {member}) FROM pg_catalog.pg_proc p \
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE p.oid >= {FIRST_USER_OID} AND n.nspname <> 'information_schema' GROUP BY 1, 2"
    );
    let mut functions: BTreeMap<String, Homonyms> = BTreeMap::new();
    for row in client.query(&query, &[&REVIEWED]).await? {
        let homonyms = functions.entry(row.get(0)).or_default();
        homonyms.schemas.insert(row.get(1));
        homonyms.counts |= row.get::<_, bool>(2);
    }
    Ok(functions)
}

fn operators() -> String {
    let member = is_member("pg_operator", "o.oid", "o.oprowner", TRUSTED);
    format!(
        "SELECT DISTINCT o.oprname::text FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode \
         JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE o.oid >= {FIRST_USER_OID} AND NOT {member}"
    )
}

async fn casts(client: &Client) -> Result<BTreeMap<String, bool>, Error> {
    let member = is_member("pg_cast", "c.oid", "p.proowner", TRUSTED);
    let query = format!(
        "SELECT t.typname::text, pg_catalog.bool_or(c.castcontext <> 'e') FROM pg_catalog.pg_cast c \
         JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
         JOIN pg_catalog.pg_type t ON t.oid = c.casttarget WHERE c.oid >= {FIRST_USER_OID} AND NOT {member} GROUP BY 1"
    );
    Ok(client.query(&query, &[&REVIEWED]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// A base type's input is in C, so a superuser's; a domain's checks and a range's canonical form may call anything.
async fn types(client: &Client) -> Result<HashMap<u32, Type>, Error> {
    let member = is_member("pg_type", "t.oid", "t.typowner", "true");
    let query = format!(
        "SELECT t.oid, t.typname::text, CASE t.typtype WHEN 'e' THEN true WHEN 'c' THEN true \
         WHEN 'b' THEN t.typcategory = 'A' OR {member} \
         WHEN 'd' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_depend d \
         ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid AND d.deptype = 'n' \
         WHERE k.contypid = t.oid) \
         WHEN 'r' THEN EXISTS (SELECT FROM pg_catalog.pg_range g WHERE g.rngtypid = t.oid AND g.rngcanonical = 0 \
         AND g.rngsubtype < {FIRST_USER_OID} AND g.rngsubopc < {FIRST_USER_OID}) ELSE false END, \
         t.typbasetype, t.typelem FROM pg_catalog.pg_type t WHERE t.oid >= {FIRST_USER_OID}"
    );
    let fields = format!(
        "SELECT t.oid, a.atttypid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid \
         WHERE a.atttypid >= {FIRST_USER_OID} AND a.attnum > 0 AND NOT a.attisdropped"
    );
    let mut types = HashMap::new();
    for row in client.query(&query, &[]).await? {
        let parts = [row.get(3), row.get(4)].into_iter().filter(|part| *part >= FIRST_USER_OID).collect();
        types.insert(row.get(0), Type { name: row.get(1), is_inert: row.get(2), parts });
    }
    for row in client.query(&fields, &[]).await? {
        if let Some(of) = types.get_mut(&row.get(0)) {
            of.parts.push(row.get(1));
        }
    }
    Ok(types)
}

/// Names of which every type is inert, its parts included.
fn inert(types: &HashMap<u32, Type>) -> BTreeSet<String> {
    let mut live: BTreeSet<u32> = types.iter().filter(|(_, t)| !t.is_inert).map(|(oid, _)| *oid).collect();
    loop {
        let runs = |part: &u32| live.contains(part) || !types.contains_key(part);
        let more: Vec<u32> = types.iter().filter(|(_, t)| t.parts.iter().any(runs)).map(|(oid, _)| *oid).collect();
        let before = live.len();
        live.extend(more);
        if live.len() == before {
            break;
        }
    }
    let (runs, inert): (Vec<_>, Vec<_>) = types.iter().partition(|(oid, _)| live.contains(oid));
    let runs: BTreeSet<&str> = runs.into_iter().map(|(_, t)| t.name.as_str()).collect();
    inert.into_iter().map(|(_, t)| t.name.clone()).filter(|name| !runs.contains(name.as_str())).collect()
}

impl Added {
    pub fn schemas_of_function(&self, name: &str) -> Vec<String> {
        self.functions.get(name).map_or_else(Vec::new, |homonyms| homonyms.schemas.iter().cloned().collect())
    }
}

impl Additions for Snapshot {
    /// `name(x)` also calls the function of a cast to that type.
    fn has_function(&self, name: &str) -> bool {
        self.added.functions.get(name).is_some_and(|homonyms| homonyms.counts) || self.added.casts.contains_key(name)
    }

    fn has_operator(&self, name: &str) -> bool {
        self.added.operators.contains(name)
    }

    fn has_cast_to(&self, type_name: &str) -> bool {
        self.added.casts.contains_key(type_name)
    }

    fn has_unwritten_casts(&self) -> bool {
        self.added.casts.values().any(|unwritten| *unwritten)
    }

    fn is_inert_type(&self, name: &str) -> bool {
        self.added.inert_types.contains(name)
    }

    /// A relation that the snapshot does not know has none for sure.
    fn has_column(&self, schema: Option<&str>, relation: &str, column: &str) -> bool {
        let meant = self.meant(schema, relation);
        !meant.is_empty() && meant.iter().all(|(_, relation)| relation.has_column(column))
    }

    fn lacks_column(&self, schema: Option<&str>, relation: &str, column: &str) -> bool {
        let meant = self.meant(schema, relation);
        !meant.is_empty() && !meant.iter().any(|(_, relation)| relation.has_column(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, is_inert: bool, parts: &[u32]) -> Type {
        Type { name: name.to_owned(), is_inert, parts: parts.to_vec() }
    }

    #[test]
    fn a_type_is_inert_only_with_all_its_parts_and_all_of_its_name() {
        let types = HashMap::from([
            (1, one("mood", true, &[])),
            (2, one("checked", false, &[])),
            (3, one("over_mood", true, &[1])),
            (4, one("over_checked", true, &[2])),
            (5, one("_over_checked", true, &[4])),
            (6, one("over_unknown", true, &[77])),
            (7, one("twice", true, &[])),
            (8, one("twice", false, &[])),
        ]);
        assert_eq!(inert(&types), BTreeSet::from(["mood".to_owned(), "over_mood".to_owned()]));
    }
}
