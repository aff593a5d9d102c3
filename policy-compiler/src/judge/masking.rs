//! What of an allowed text must be masked, and what a mask must not let be copied to where no mask is.

use super::{Case, CopyMasks, Denial, Resolved, role_phrase};
use crate::artifact::format::Mask;
use crate::artifact::{MaskAction, column_matches};
use crate::statement::{
    Analysis, ColumnUse, Copy, CopyDirection, CopyFormat, Effect, EffectSet, Output, Places, RelationUse, Statement,
    UNKNOWN_COLUMN,
};

/// Effects that put values where they can be read again.
const KEEPS: [Effect; 4] = [Effect::Insert, Effect::Update, Effect::Ddl, Effect::Notify];

/// Effects behind which any relation may be read and any row returned.
const HIDES: [Effect; 4] = [Effect::Call, Effect::Dynamic, Effect::File, Effect::Opaque];

impl Case<'_> {
    /// The name of a mask that may have to be applied: one on a relation of the text if there is one.
    pub(super) fn deciding_mask<'s>(&'s self, analysis: &Analysis) -> Option<&'s str> {
        let statements = || analysis.statements.iter().filter(|statement| returns_rows(statement));
        let named = statements()
            .flat_map(|statement| &statement.relations)
            .find_map(|relation| self.masks_on(&self.resolve(relation)).map(|(id, _)| id).min())
            .map(|id| self.policy.tables().masks[id as usize].name.as_str());
        let any = || statements().any(|statement| self.masks_unsourced(statement)).then(|| self.first_mask()).flatten();
        let detect = || statements().next().and_then(|_| self.first_detect());
        named.or_else(any).or_else(detect)
    }

    /// Whether a result column whose origin the server does not tell may show a masked value.
    pub(super) fn masks_unsourced(&self, statement: &Statement) -> bool {
        self.first_mask().is_some()
            && (statement.uses.is_some()
                || statement.functions.iter().any(|function| !function.plain)
                || has_any(statement.effects, &HIDES)
                || statement.relations.iter().any(|relation| self.is_protected(&self.resolve(relation))))
    }

    /// Denies what writes a masked value to where it has no mask: INSERT … SELECT, CREATE TABLE AS, views, NOTIFY.
    pub(super) fn copies_masked_values(&self, statement: &Statement) -> Option<Denial> {
        if !has_any(statement.effects, &KEEPS) || self.first_mask().is_none() {
            return None;
        }
        let source = statement.relations.iter().find(|relation| {
            let name = self.resolve(relation);
            is_source(relation) && self.is_protected(&name) && self.may_show_masked(statement, &name)
        })?;
        let roles = role_phrase(&self.policy.role_names(self.subject.roles));
        let reason = format!("{} would keep values of {}, which are masked for {roles}", statement.tag, source.name);
        let mut denial = Denial::new("masked-source", reason);
        denial.hint = Some("leave the masked columns out, and name each column instead of *".into());
        Some(denial)
    }

    /// Denies COPY … TO STDOUT where something may have to be masked and its rows cannot be taken apart for that.
    pub(super) fn copies_out_unmasked(&self, statement: &Statement) -> Option<Denial> {
        let copy = statement.copy.as_ref().filter(|_| is_copy_out(statement))?;
        self.first_mask().or_else(|| self.first_detect())?;
        if let Some(unmodelled) = &copy.unmodelled {
            let reason = format!("a COPY with {} cannot be masked field by field", unmodelled.what);
            let mut denial = Denial::new("copy-option", reason);
            denial.hint = Some(unmodelled.remedy.clone());
            return Some(denial);
        }
        if copy.format != CopyFormat::Binary || !self.masks_unsourced(statement) {
            return None;
        }
        let mut denial = Denial::new("binary-copy", "a COPY in binary format cannot be masked".to_owned());
        denial.hint = Some("use COPY … TO STDOUT in text or csv format".into());
        Some(denial)
    }

    pub(super) fn copy_masks(&self, analysis: &Analysis) -> Option<CopyMasks> {
        let copies = analysis.statements.iter().filter(|statement| is_copy_out(statement));
        copies.filter_map(|statement| self.masks_of_copy(statement)).reduce(|first, second| {
            // One plan serves the text: copies that differ share the strictest.
            if first == second { first } else { CopyMasks::All(MaskAction::Null) }
        })
    }

    fn masks_of_copy(&self, statement: &Statement) -> Option<CopyMasks> {
        let copy = statement.copy.as_ref().filter(|_| self.masks_unsourced(statement))?;
        let columns = match &copy.table {
            Some((schema, name)) => self.masks_of_table(copy, schema.as_deref(), name),
            None => self.masks_of_output(statement),
        };
        Some(columns.map_or(CopyMasks::All(MaskAction::Null), CopyMasks::Columns))
    }

    /// The type OIDs of the fields of the text's only COPY, 0 where one is not known; empty if not even their number is.
    pub(super) fn copy_types(&self, analysis: &Analysis) -> Vec<u32> {
        let mut copies = analysis.statements.iter().filter(|statement| is_copy_out(statement));
        let (Some(statement), None) = (copies.next(), copies.next()) else { return Vec::new() };
        self.types_of_copy(statement).unwrap_or_default()
    }

    fn types_of_copy(&self, statement: &Statement) -> Option<Vec<u32>> {
        let copy = statement.copy.as_ref()?;
        if let Some((schema, name)) = &copy.table {
            let relation = Resolved::of(self.catalogue, schema.as_deref(), name);
            let listed = || (!copy.columns.is_empty()).then(|| copy.columns.clone());
            let columns = listed().or_else(|| self.catalogue.copied_columns(relation.schema(), name))?;
            return Some(self.types_of(&relation, &columns));
        }
        let mut types = Vec::new();
        for column in &statement.output {
            match column {
                // It may stand for several columns.
                Output::Unknown => return None,
                Output::Computed(_) | Output::Rows | Output::Column { relation: None, .. } => types.push(0),
                Output::Column { relation: Some(name), name: column } => {
                    types.push(self.catalogue.type_of(None, name, column).unwrap_or(0));
                }
                Output::All { schema, relation } => {
                    let relation = Resolved::of(self.catalogue, schema.as_deref(), relation);
                    let columns = self.catalogue.columns(relation.schema(), relation.name)?;
                    types.extend(self.types_of(&relation, &columns));
                }
            }
        }
        Some(types)
    }

    fn types_of(&self, relation: &Resolved<'_>, columns: &[String]) -> Vec<u32> {
        let type_of = |column: &String| self.catalogue.type_of(relation.schema(), relation.name, column);
        columns.iter().map(|column| type_of(column).unwrap_or(0)).collect()
    }

    fn masks_of_table(&self, copy: &Copy, schema: Option<&str>, name: &str) -> Option<Vec<Option<MaskAction>>> {
        let relation = Resolved::of(self.catalogue, schema, name);
        let listed = || (!copy.columns.is_empty()).then(|| copy.columns.clone());
        let columns = listed().or_else(|| self.catalogue.copied_columns(relation.schema(), name))?;
        Some(columns.iter().map(|column| self.mask_of_column(&relation, column)).collect())
    }

    /// `None` if it is not known how many columns there are.
    fn masks_of_output(&self, statement: &Statement) -> Option<Vec<Option<MaskAction>>> {
        let picks = self.is_picked_by_masked(statement);
        let mut masks = Vec::new();
        for output in &statement.output {
            match output {
                Output::Unknown => return None,
                Output::All { schema, relation } => {
                    let relation = Resolved::of(self.catalogue, schema.as_deref(), relation);
                    let columns = self.catalogue.columns(relation.schema(), relation.name)?;
                    masks.extend(columns.iter().map(|column| self.mask_of_column(&relation, column)));
                }
                output => masks.push(self.mask_of_output(statement, output, picks)),
            }
        }
        (!masks.is_empty()).then_some(masks)
    }

    /// What is done to one column of a result that comes without an origin. `picks`: a masked value picks its rows.
    fn mask_of_output(&self, statement: &Statement, output: &Output, picks: bool) -> Option<MaskAction> {
        let strictest = |masked: bool| masked.then(|| self.strictest());
        // One constant for all: as many stars as a computed value has characters would tell the value.
        let null = |masked: bool| masked.then_some(MaskAction::Null);
        match output {
            Output::Column { relation, name } => {
                // `c.f` is `f(c)` to the server when the relation has no such column.
                let is_call =
                    relation.as_deref().is_some_and(|relation| !self.catalogue.has_column(None, relation, name));
                let own = relation.as_deref().and_then(|relation| self.mask_of_named(statement, relation, name));
                let used = ColumnUse { relation: relation.clone(), name: name.clone(), places: Places::SHOWN };
                own.or_else(|| strictest(picks || is_call || self.is_masked(statement, &used)))
            }
            // How many rows there are of a relation tells what was asked of each, and was asked for.
            Output::Rows => null(picks && !statement.is_flat),
            Output::Computed(flows) => {
                let columns = flows.iter().map(|column| statement.columns.get(*column as usize));
                // Detectors look at cells: in what is put together of several they may find nothing.
                let whole = self.first_detect().is_some();
                let flows_masked = |used: &ColumnUse| match whole {
                    true => self.is_of_masked(statement, used),
                    false => self.is_masked(statement, used),
                };
                let mut masked = columns.map(|column| column.is_none_or(flows_masked));
                null(picks || masked.any(|masked| masked))
            }
            Output::All { .. } | Output::Unknown => Some(MaskAction::Null),
        }
    }

    /// Over all relations of this name that the text reads.
    fn mask_of_named(&self, statement: &Statement, relation: &str, column: &str) -> Option<MaskAction> {
        let named = statement.relations.iter().filter(|used| used.name == relation);
        named.filter_map(|used| self.mask_of_column(&self.resolve(used), column)).max()
    }

    /// For each column of the result whether it shows nothing of a masked value. Only of a single statement with a column for
    /// each entry: else the places would not be those of the result.
    pub(super) fn harmless_columns(&self, analysis: &Analysis) -> Vec<bool> {
        let [statement] = analysis.statements.as_slice() else { return Vec::new() };
        if self.first_mask().is_none() {
            return Vec::new();
        }
        let masks = self.masks_of_output(statement).unwrap_or_default();
        masks.iter().map(Option::is_none).collect()
    }

    /// Whether a masked value picks, groups or orders rows somewhere in the statement.
    fn is_picked_by_masked(&self, statement: &Statement) -> bool {
        self.masked_at(statement, Places::PICKS.with(Places::SHAPES)).is_some()
    }

    /// A masked column that stands at one of the places.
    fn masked_at<'s>(&self, statement: &'s Statement, places: Places) -> Option<&'s ColumnUse> {
        let mut placed = statement.columns.iter().filter(|used| used.places.has_any(places));
        placed.find(|used| self.is_masked(statement, used))
    }

    /// Whether a column that the text names is masked, or may be.
    fn is_masked(&self, statement: &Statement, used: &ColumnUse) -> bool {
        if used.relation.is_none() && used.name == UNKNOWN_COLUMN {
            return self.masks_unsourced(statement);
        }
        let mut relations = statement
            .relations
            .iter()
            .filter(|relation| used.relation.as_deref().is_none_or(|name| name == relation.name));
        relations.any(|relation| {
            let name = self.resolve(relation);
            let is_other = || {
                let columns = self.catalogue.columns(name.schema(), name.name);
                used.relation.is_none() && columns.is_some_and(|columns| !columns.contains(&used.name))
            };
            self.is_protected(&name)
                && (used.name == "*" || !is_other() && self.mask_of_column(&name, &used.name).is_some())
        })
    }

    /// Whether a column that the text names is of a relation with a mask, or may be.
    fn is_of_masked(&self, statement: &Statement, used: &ColumnUse) -> bool {
        let whole = ColumnUse { name: "*".to_owned(), ..used.clone() };
        match &used.relation {
            Some(_) => self.is_masked(statement, &whole),
            None => self.is_masked(statement, used) || self.is_column_of_masked(statement, &used.name),
        }
    }

    fn is_column_of_masked(&self, statement: &Statement, column: &str) -> bool {
        statement.relations.iter().any(|relation| {
            let name = self.resolve(relation);
            let columns = || self.catalogue.columns(name.schema(), name.name);
            self.is_protected(&name) && columns().is_none_or(|columns| columns.iter().any(|c| c == column))
        })
    }

    /// Denies what lets a masked value decide more than whether a row answers a question: which rows of others come and how
    /// many, what a function does, what a session keeps.
    pub(super) fn lets_masked_values_act(&self, statement: &Statement) -> Option<Denial> {
        self.first_mask()?;
        let roles = || role_phrase(&self.policy.role_names(self.subject.roles));
        let shaped = |relation: &&RelationUse| {
            let name = self.resolve(relation);
            relation.effects.has(Effect::Read) && self.catalogue.is_shaped(name.schema(), name.name)
        };
        if let Some(relation) = statement.relations.iter().find(shaped) {
            let reason = format!("the rows of {} are decided by a value that is masked for {}", relation.name, roles());
            let mut denial = Denial::new("masked-shape", reason);
            denial.hint = Some("read the tables that the view stands on".into());
            return Some(denial);
        }
        if let Some(used) = self.masked_at(statement, Places::SHAPES) {
            let reason =
                format!("{} is masked for {} and would decide which rows come, or how many", named(used), roles());
            let mut denial = Denial::new("masked-shape", reason);
            denial.hint = Some("compare it with constants or parameters alone, in a condition of its own".into());
            return Some(denial);
        }
        let kept = if statement.acts { Places::KEPT.with(Places::PICKS) } else { Places::KEPT };
        let used = self.masked_at(statement, kept)?;
        let reason =
            format!("{} is masked for {}, and the statement would keep what depends on it", named(used), roles());
        let mut denial = Denial::new("masked-source", reason);
        denial.hint = Some("call functions that do something in a statement of their own".into());
        Some(denial)
    }

    /// By name where a mask names the relation; a relation that only depends on a masked one is masked whole.
    fn mask_of_column(&self, relation: &Resolved<'_>, column: &str) -> Option<MaskAction> {
        let known = self.catalogue.column_mask(relation.schema(), relation.name, column);
        if known.is_none() && self.masks_on(relation).next().is_none() {
            return self.is_protected(relation).then(|| self.strictest());
        }
        let hits = self.masks_on(relation).filter(|(_, mask)| {
            mask.columns.iter().any(|masked| {
                masked.relation == relation.name
                    && masked.column == column
                    && column_matches(masked.schema.as_deref(), relation.schema())
            })
        });
        let generated = self.catalogue.generated_mask(relation.schema(), relation.name, column);
        hits.map(|(_, mask)| mask.action).max().max(known.flatten()).max(generated)
    }

    /// Whether the text names a masked column of the relation, or may: by a star, a whole row, an unknown name.
    fn may_show_masked(&self, statement: &Statement, relation: &Resolved<'_>) -> bool {
        if self.masks_on(relation).next().is_none() {
            return true;
        }
        let columns = self.catalogue.columns(relation.schema(), relation.name);
        statement.columns.iter().any(|used| match used.relation.as_deref() {
            Some(other) if other != relation.name => false,
            // A name that is no column is a function of the whole row.
            Some(_) => {
                let is_none = columns.as_ref().is_some_and(|columns| !columns.contains(&used.name));
                used.name == "*" || is_none || self.mask_of_column(relation, &used.name).is_some()
            }
            None => {
                let known = columns.as_ref().is_some_and(|columns| columns.contains(&used.name));
                !known || self.mask_of_column(relation, &used.name).is_some()
            }
        })
    }

    fn is_protected(&self, relation: &Resolved<'_>) -> bool {
        self.masks_on(relation).next().is_some()
            || !relation.as_name().is_open_catalog() && self.catalogue.is_protected(relation.schema(), relation.name)
    }

    /// The masks of this subject with columns of the relation, and their ids.
    fn masks_on<'r>(&'r self, relation: &'r Resolved<'_>) -> impl Iterator<Item = (u32, &'r Mask)> {
        let scopes = self.policy.scopes(self.subject.roles, self.subject.resource);
        let ids = scopes.filter_map(|scope| scope.masks_of.get(relation.name)).flatten();
        let masks = ids.map(|id| (*id, &self.policy.tables().masks[*id as usize]));
        masks.filter(|(_, mask)| {
            mask.scope.applies(self.subject.roles.bits(), self.subject.resource)
                && mask.columns.iter().any(|column| {
                    column.relation == relation.name && column_matches(column.schema.as_deref(), relation.schema())
                })
        })
    }

    /// The name of the subject's first mask on columns, if there is any.
    fn first_mask(&self) -> Option<&str> {
        let id = self.own_masks().min()?;
        Some(&self.policy.tables().masks[id as usize].name)
    }

    fn first_detect(&self) -> Option<&str> {
        let detects = &self.policy.tables().detects;
        let scopes = self.policy.scopes(self.subject.roles, self.subject.resource);
        let ids = scopes
            .flat_map(|scope| &scope.detects)
            .filter(|id| detects[**id as usize].scope.applies(self.subject.roles.bits(), self.subject.resource));
        ids.min().map(|id| detects[*id as usize].name.as_str())
    }

    /// What is done where it is not known which mask would apply.
    fn strictest(&self) -> MaskAction {
        let actions = self.own_masks().map(|id| self.policy.tables().masks[id as usize].action);
        actions.max().unwrap_or(MaskAction::Null)
    }

    fn own_masks(&self) -> impl Iterator<Item = u32> {
        let masks = &self.policy.tables().masks;
        let scopes = self.policy.scopes(self.subject.roles, self.subject.resource);
        scopes
            .flat_map(|scope| scope.masks.iter().copied())
            .filter(|id| masks[*id as usize].scope.applies(self.subject.roles.bits(), self.subject.resource))
    }
}

/// A column as a person would name it.
fn named(used: &ColumnUse) -> String {
    match (&used.relation, used.name.as_str()) {
        (None, UNKNOWN_COLUMN) => "a value that may be masked".to_owned(),
        (None, name) => name.to_owned(),
        (Some(relation), "*") => format!("a column of {relation}"),
        (Some(relation), name) => format!("{relation}.{name}"),
    }
}

/// Whether the statement may send rows or copied lines to the client.
fn returns_rows(statement: &Statement) -> bool {
    !statement.output.is_empty()
        || is_copy_out(statement)
        || statement.uses.is_some()
        || has_any(statement.effects, &HIDES)
}

fn is_copy_out(statement: &Statement) -> bool {
    statement.copy.as_ref().is_some_and(|copy| copy.direction == CopyDirection::ToClient)
}

/// What is only inserted into or deleted from gives no value away.
fn is_source(relation: &RelationUse) -> bool {
    has_any(relation.effects, &[Effect::Read, Effect::Update, Effect::Ddl])
}

fn has_any(effects: EffectSet, wanted: &[Effect]) -> bool {
    !effects.intersection(EffectSet::of(wanted)).is_empty()
}
