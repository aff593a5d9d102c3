//! What the commands ask of an upstream's catalogue. The gateway reads catalogues; this crate knows none of them.

use crate::artifact::{MaskAction, Masks};
use crate::judge::Catalogue;
use crate::policy::{Checked, Diagnostic, MaskedColumn, Source, did_you_mean};
use crate::statement::postgres::server::Server;

/// The catalogue of one resource, read with the gateway's own credential.
pub trait Upstream {
    /// Its names as the gateway judges and masks by them, for a subject with these masks.
    fn names<'a>(&'a self, masks: &Masks) -> Box<dyn Names + 'a>;
    /// The server as the analysis of a text asks for it.
    fn server(&self) -> Server<'_>;
    /// Whether the gateway finds at least one column for it.
    fn resolves(&self, column: &MaskedColumn) -> bool;
    /// Schema and name of every relation, those of the server itself left out.
    fn relations(&self) -> Vec<(&str, &str)>;
    /// The names of all columns of all relations of this name, in this schema or (`None`) in any.
    fn columns_of(&self, schema: Option<&str>, relation: &str) -> Vec<&str>;
}

/// Names with what a subject does not see of them.
pub trait Names: Catalogue {
    /// What is done to the values of a column; `None` leaves them as they are.
    fn mask_of(&self, schema: Option<&str>, relation: &str, column: &str) -> Option<MaskAction>;
    /// The column that this one shows: a view's that of a relation it reads, a partition's that of its parent.
    fn shows(&self, schema: Option<&str>, relation: &str, column: &str) -> Option<MaskedColumn>;
}

/// A resource that was asked.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub resource: &'a str,
    pub upstream: &'a dyn Upstream,
}

/// Every masked column of the resource that no column answers to, at its place in the policy.
pub(super) fn unresolved(asked: Asked<'_>, checked: &Checked, sources: &[Source]) -> Vec<Diagnostic> {
    let masks = checked.masks.iter().filter(|mask| mask.scope.has_resource(asked.resource));
    let places = masks.flat_map(|mask| mask.columns.iter().zip(&mask.places).map(move |place| (mask, place)));
    let missing = places.filter(|(_, (column, _))| !asked.upstream.resolves(column));
    let diagnostics = missing.filter_map(|(mask, (column, at))| {
        let (problem, help) = missing_name(asked, column);
        let message = format!("mask `{}` masks nothing: {problem}", mask.name);
        Some(Diagnostic::new(sources.get(at.source)?, &at.span, message, Some(help)))
    });
    diagnostics.collect()
}

/// How many columns of the policy concern the resource.
pub(super) fn masked_columns(resource: &str, checked: &Checked) -> usize {
    let masks = checked.masks.iter().filter(|mask| mask.scope.has_resource(resource));
    masks.map(|mask| mask.columns.len()).sum()
}

/// What is not there, and what may have been meant.
fn missing_name(asked: Asked<'_>, column: &MaskedColumn) -> (String, String) {
    let Asked { resource, upstream } = asked;
    let MaskedColumn { schema, relation, column } = column;
    let columns = upstream.columns_of(schema.as_deref(), relation);
    if !columns.is_empty() {
        let known = || format!("its columns are {}", columns.join(", "));
        let help = did_you_mean(column, columns.iter().copied()).unwrap_or_else(known);
        return (format!("`{relation}` of resource {resource} has no column `{column}`"), help);
    }
    let relations = upstream.relations();
    let elsewhere = relations.iter().find(|(_, name)| name == relation);
    match (schema, elsewhere) {
        (Some(schema), Some((other, name))) => {
            let help = format!("did you mean `{other}.{name}`?");
            (format!("schema `{schema}` of resource {resource} has no relation `{relation}`"), help)
        }
        _ => {
            let help = did_you_mean(relation, relations.iter().map(|(_, name)| *name));
            let general = || "name a table or view that the gateway's role can see in that database".to_owned();
            (format!("resource {resource} has no relation `{relation}`"), help.unwrap_or_else(general))
        }
    }
}
