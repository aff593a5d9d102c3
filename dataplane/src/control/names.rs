//! The names of a snapshot, as others ask for them: judging, and the `wireward policy` commands.

use policy_compiler::artifact::{MaskAction, Masks};
use policy_compiler::cli;
use policy_compiler::judge::{self, SETTINGS_VIEW};
use policy_compiler::policy::MaskedColumn;
use policy_compiler::statement::Output;
use policy_compiler::statement::postgres::server::Server;

use super::catalogue::{Relation, Snapshot, family};
use super::protected::Protected;
use super::route::Route;
use crate::config::Resource;

/// Reads a resource's catalogue once, with the gateway's own credential for it. Blocks until it is there.
///
/// # Errors
/// What could not be read, and why; never the credential.
pub fn read(resource: &Resource) -> Result<Snapshot, String> {
    let about = |why: String| format!("the catalogue of resource {} cannot be read: {why}", resource.name);
    let credential = resource.credential.read().map_err(about)?;
    let route = Route::load(resource).map_err(about)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| about(e.to_string()))?;
    let read = async {
        route.resolve().await;
        Snapshot::read(resource, &credential, &route.endpoint(), 0).await
    };
    runtime.block_on(read).map_err(about)
}

impl Protected {
    /// The names of the catalogue, as judging asks for them.
    pub fn catalogue<'a>(&'a self, snapshot: &'a Snapshot) -> impl judge::Catalogue + 'a {
        Names { protected: self, snapshot }
    }
}

struct Names<'a> {
    protected: &'a Protected,
    snapshot: &'a Snapshot,
}

impl Names<'_> {
    /// The relation of this name, if there is just one.
    fn only(&self, schema: Option<&str>, name: &str) -> Option<&Relation> {
        match self.snapshot.meant(schema, name)[..] {
            [(_, relation)] => Some(relation),
            _ => None,
        }
    }
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
        Some(self.only(schema, name)?.columns.iter().map(|(_, n)| n.clone()).collect())
    }

    fn copied_columns(&self, schema: Option<&str>, name: &str) -> Option<Vec<String>> {
        let relation = self.only(schema, name)?;
        let copied = relation.columns.iter().filter(|(number, _)| !relation.generated.contains_key(number));
        Some(copied.map(|(_, n)| n.clone()).collect())
    }

    fn has_column(&self, schema: Option<&str>, name: &str, column: &str) -> bool {
        self.snapshot.meant(schema, name).iter().all(|(_, relation)| relation.has_column(column))
    }

    fn column_mask(&self, schema: Option<&str>, name: &str, column: &str) -> Option<Option<MaskAction>> {
        let named: Vec<(u32, &Relation)> = self.snapshot.named(schema, name).collect();
        let mask = |(oid, relation): &(u32, &Relation)| match self.snapshot.column(*oid, column) {
            Some(number) => self.protected.columns.get(&(*oid, number)).copied(),
            // No column: a function of the row, or one that is younger than the snapshot.
            None => {
                (self.protected.relations.contains(oid) && !relation.has_column(column)).then_some(MaskAction::Null)
            }
        };
        (!named.is_empty()).then(|| named.iter().filter_map(mask).max())
    }

    fn is_shaped(&self, schema: Option<&str>, name: &str) -> bool {
        self.snapshot.named(schema, name).any(|(oid, _)| self.protected.shaped.contains(&oid))
    }

    fn leads_to_settings(&self, schema: Option<&str>, name: &str) -> bool {
        name == SETTINGS_VIEW || self.snapshot.named(schema, name).any(|(oid, _)| self.snapshot.leads_to_settings(oid))
    }

    fn generated_mask(&self, schema: Option<&str>, name: &str, column: &str) -> Option<MaskAction> {
        let masks = self.snapshot.named(schema, name).filter_map(|(oid, relation)| {
            let number = self.snapshot.column(oid, column).filter(|number| relation.generated.contains_key(number))?;
            self.protected.columns.get(&(oid, number)).copied()
        });
        masks.max()
    }

    fn schemas_of_function(&self, name: &str) -> Vec<String> {
        self.snapshot.added.schemas_of_function(name)
    }

    fn type_of(&self, schema: Option<&str>, name: &str, column: &str) -> Option<u32> {
        self.snapshot.type_of(schema, name, column)
    }

    fn schema_of(&self, name: &str) -> Option<String> {
        let all = self.snapshot.meant(None, name);
        let (_, first) = all.first()?;
        // Of temporary tables alone, one's own is meant: all their schemas are alike to a grant.
        (all.len() == 1 || first.is_temporary()).then(|| first.schema.clone())
    }
}

impl cli::Upstream for Snapshot {
    fn names<'a>(&'a self, masks: &Masks) -> Box<dyn cli::Names + 'a> {
        Box::new(OwnNames {
            protected: Protected::resolve(self, masks),
            masked: !masks.columns.is_empty(),
            snapshot: self,
        })
    }

    fn server(&self) -> Server<'_> {
        Snapshot::server(self)
    }

    fn resolves(&self, column: &MaskedColumn) -> bool {
        let MaskedColumn { schema, relation, column } = column;
        let mut oids = self.named(schema.as_deref(), relation).flat_map(|(oid, _)| family(self, oid));
        oids.any(|oid| self.column(oid, column).is_some())
    }

    fn relations(&self) -> Vec<(&str, &str)> {
        let own = |schema: &str| schema.starts_with("pg_") || schema == "information_schema";
        let all = self.relations.values().map(|relation| (relation.schema.as_str(), relation.name.as_str()));
        all.filter(|(schema, _)| !own(schema)).collect()
    }

    fn columns_of(&self, schema: Option<&str>, relation: &str) -> Vec<&str> {
        let columns = self.meant(schema, relation).into_iter().flat_map(|(_, relation)| &relation.columns);
        columns.map(|(_, name)| name.as_str()).collect()
    }
}

/// [`Names`] that own what they resolved.
struct OwnNames<'a> {
    protected: Protected,
    /// Without a mask nothing is masked, not even what is unknown.
    masked: bool,
    snapshot: &'a Snapshot,
}

impl OwnNames<'_> {
    fn borrowed(&self) -> Names<'_> {
        Names { protected: &self.protected, snapshot: self.snapshot }
    }
}

impl judge::Catalogue for OwnNames<'_> {
    fn is_protected(&self, schema: Option<&str>, name: &str) -> bool {
        self.borrowed().is_protected(schema, name)
    }

    fn columns(&self, schema: Option<&str>, name: &str) -> Option<Vec<String>> {
        self.borrowed().columns(schema, name)
    }

    fn copied_columns(&self, schema: Option<&str>, name: &str) -> Option<Vec<String>> {
        self.borrowed().copied_columns(schema, name)
    }

    fn has_column(&self, schema: Option<&str>, name: &str, column: &str) -> bool {
        self.borrowed().has_column(schema, name, column)
    }

    fn column_mask(&self, schema: Option<&str>, name: &str, column: &str) -> Option<Option<MaskAction>> {
        self.borrowed().column_mask(schema, name, column)
    }

    fn is_shaped(&self, schema: Option<&str>, name: &str) -> bool {
        self.borrowed().is_shaped(schema, name)
    }

    fn leads_to_settings(&self, schema: Option<&str>, name: &str) -> bool {
        self.borrowed().leads_to_settings(schema, name)
    }

    fn generated_mask(&self, schema: Option<&str>, name: &str, column: &str) -> Option<MaskAction> {
        self.borrowed().generated_mask(schema, name, column)
    }

    fn schemas_of_function(&self, name: &str) -> Vec<String> {
        self.borrowed().schemas_of_function(name)
    }

    fn type_of(&self, schema: Option<&str>, name: &str, column: &str) -> Option<u32> {
        self.borrowed().type_of(schema, name, column)
    }

    fn schema_of(&self, name: &str) -> Option<String> {
        self.borrowed().schema_of(name)
    }
}

impl cli::Names for OwnNames<'_> {
    fn mask_of(&self, schema: Option<&str>, relation: &str, column: &str) -> Option<MaskAction> {
        let mut known = false;
        let actions = self.snapshot.named(schema, relation).filter_map(|(oid, _)| {
            known = true;
            let number = self.snapshot.column(oid, column)?;
            self.protected.columns.get(&(oid, number)).copied()
        });
        let strictest = actions.max();
        // As on the wire: of a relation that the catalogue does not have, nothing is shown.
        strictest.or((!known && self.masked).then_some(MaskAction::Redact))
    }

    fn shows(&self, schema: Option<&str>, relation: &str, column: &str) -> Option<MaskedColumn> {
        let snapshot = self.snapshot;
        snapshot.named(schema, relation).find_map(|(oid, found)| {
            let number = snapshot.column(oid, column)?;
            let masked = |oid: &u32| {
                let number = snapshot.column(*oid, column)?;
                self.protected.columns.get(&(*oid, number))?;
                snapshot.relations.get(oid).map(|r| MaskedColumn::of(Some(&r.schema), &r.name, column))
            };
            let place = found.columns.iter().position(|(n, _)| *n == number)?;
            match found.output(snapshot.server()).get(place) {
                Some(Output::Column { relation: Some(base), name }) => {
                    let base = snapshot.bases(oid, base).find_map(|oid| snapshot.relations.get(&oid))?;
                    Some(MaskedColumn::of(Some(&base.schema), &base.name, name))
                }
                // Nearest relatives first would need their order; any that a mask names explains the mask.
                _ => family(snapshot, oid).iter().filter(|relative| **relative != oid).find_map(masked),
            }
        })
    }
}
