//! Checked policy → artifact.

mod rules;

use crate::artifact;
use crate::policy::{self, Diagnostic, Source};

/// Compiles policy files into the bytes of one artifact. The same sources give the same bytes.
///
/// # Errors
/// All that is wrong with the files, in the order of the text.
pub fn compile(sources: &[Source]) -> Result<Vec<u8>, Vec<Diagnostic>> {
    let checked = policy::check(sources)?;
    let file = sources.first().map_or("policy", |source| source.name.as_str());
    artifact::write(&rules::lower(&checked), sources)
        .map_err(|e| vec![Diagnostic::about_file(file, format!("the policy cannot be archived: {e}"), None)])
}
