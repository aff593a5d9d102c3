//! What a subject does not see of a catalogue: masks of columns by OID and number, for tables and all that hangs on them.

use std::collections::{BTreeSet, HashMap, HashSet};

use policy_compiler::artifact::{MaskAction, Masks};
use policy_compiler::statement::{ColumnUse, Output, Places, Statement};

use super::catalogue::{Snapshot, Sources, family};

/// A subject's masks, resolved against a snapshot.
#[derive(Debug, Default)]
pub struct Protected {
    /// What to do with each masked column, views included.
    pub columns: HashMap<(u32, u16), MaskAction>,
    /// Relations that are masked or hang on one that is.
    pub(super) relations: HashSet<u32>,
    /// Views of which a masked value decides how many rows they have, or which.
    pub(super) shaped: HashSet<u32>,
    /// Masks that no column answers to: in the log, for the operator.
    pub unresolved: Vec<String>,
    /// Detectors look through what passes, cell by cell: what is put together of several cells they may miss.
    has_detectors: bool,
}

impl Protected {
    pub fn resolve(snapshot: &Snapshot, masks: &Masks) -> Self {
        let mut protected = Self { has_detectors: !masks.detect.is_empty(), ..Self::default() };
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
        protected.generated(snapshot);
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

    /// What is computed from masked columns is NULL: the last four of a text turned round are its first, and its length may
    /// be what it was computed from.
    fn generated(&mut self, snapshot: &Snapshot) {
        let masked = snapshot.relations.iter().filter(|(oid, _)| self.relations.contains(oid));
        let derived: Vec<(u32, u16, MaskAction)> = masked
            .flat_map(|(oid, relation)| relation.generated.iter().map(move |column| (*oid, column)))
            .filter_map(|(oid, (number, sources))| Some((oid, *number, self.of_sources(oid, sources)?)))
            .collect();
        for (oid, number, action) in derived {
            self.mask(oid, number, action.max(MaskAction::Null));
        }
    }

    /// The strictest mask of what a generated column is computed from.
    fn of_sources(&self, oid: u32, sources: &Sources) -> Option<MaskAction> {
        let from = |number: &u16| match sources {
            Sources::Columns(columns) => columns.contains(number),
            Sources::Unknown => true,
        };
        let own = self.columns.iter().filter(|((relation, number), _)| *relation == oid && from(number));
        own.map(|(_, action)| *action).max()
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
        let statement = relation.statement(snapshot.server()).unwrap_or_default();
        let output = &statement.output;
        let is_one_each =
            output.len() == relation.columns.len() && !output.iter().any(|o| matches!(o, Output::All { .. }));
        // Of rows that a masked value has shaped nothing is shown, not even how many they are.
        let of_shaped = snapshot.reads.iter().any(|(v, read)| *v == view && self.shaped.contains(read));
        let shaped = of_shaped || self.is_masked_at(snapshot, view, &statement, Places::SHAPES.with(Places::KEPT));
        if shaped {
            self.shaped.insert(view);
        }
        let exact = is_one_each && !shaped;
        for (i, (number, _)) in relation.columns.iter().enumerate() {
            let action = match output.get(i).filter(|_| exact) {
                Some(output) => self.mask_of_output(snapshot, view, &statement, output),
                None => Some(MaskAction::Null),
            };
            if let Some(action) = action {
                self.mask(view, *number, action);
            }
        }
    }

    /// What a view computes is one constant: a value's length would tell what it was computed from.
    fn mask_of_output(
        &self,
        snapshot: &Snapshot,
        view: u32,
        statement: &Statement,
        output: &Output,
    ) -> Option<MaskAction> {
        let picks = || self.is_masked_at(snapshot, view, statement, Places::PICKS);
        let null = |masked: bool| masked.then_some(MaskAction::Null);
        match output {
            Output::Column { relation: Some(base), name } => self.origin(snapshot, view, base, name),
            Output::Rows => null(picks() && !statement.is_flat),
            Output::Computed(flows) => {
                let used = flows.iter().map(|column| statement.columns.get(*column as usize));
                let whole = |used: &ColumnUse| ColumnUse { name: "*".to_owned(), ..used.clone() };
                let flows_masked = |used: &ColumnUse| {
                    self.is_masked(snapshot, view, used)
                        || self.has_detectors && self.is_masked(snapshot, view, &whole(used))
                };
                let mut masked = used.map(|used| used.is_none_or(flows_masked));
                null(masked.any(|masked| masked) || picks())
            }
            _ => Some(MaskAction::Null),
        }
    }

    fn is_masked_at(&self, snapshot: &Snapshot, view: u32, statement: &Statement, places: Places) -> bool {
        let mut placed = statement.columns.iter().filter(|used| used.places.has_any(places));
        placed.any(|used| self.is_masked(snapshot, view, used))
    }

    /// A column that a view's text names is masked, or may be.
    fn is_masked(&self, snapshot: &Snapshot, view: u32, used: &ColumnUse) -> bool {
        match &used.relation {
            Some(base) if used.name == "*" => {
                let mut bases = snapshot.bases(view, base).peekable();
                bases.peek().is_none() || bases.any(|oid| self.relations.contains(&oid))
            }
            Some(base) => self.origin(snapshot, view, base, &used.name).is_some(),
            None => true,
        }
    }

    /// The mask of the column that a view's column shows, strictest over all relations that may be meant.
    fn origin(&self, snapshot: &Snapshot, view: u32, base: &str, name: &str) -> Option<MaskAction> {
        let bases: Vec<u32> = snapshot.bases(view, base).collect();
        if bases.is_empty() {
            return Some(MaskAction::Null);
        }
        let masks = bases.into_iter().map(|oid| match snapshot.column(oid, name) {
            Some(number) => self.columns.get(&(oid, number)).copied(),
            None => Some(MaskAction::Null),
        });
        masks.flatten().max()
    }
}
