//! Policies as text: the input is one TOML file.
//!
//! What must hold: an error names a place that exists; what compiles does so to the same bytes again, opens, and keeps its
//! text; the compiled policy and the plain interpreter give the same verdicts; and without a grant nothing is allowed.

use std::sync::OnceLock;

use policy_compiler::artifact::{Policy, RoleSet};
use policy_compiler::build::compile;
use policy_compiler::explain::{Who, explain};
use policy_compiler::judge::{Action, NoCatalogue, Subject, judge};
use policy_compiler::policy::{Checked, Diagnostic, Source, check};
use policy_compiler::statement::{AnalyseError, Analysis, postgres};

/// Roles that the verdicts are compared for: more would only cost time.
const ROLES_MAX: usize = 4;
const STATEMENTS: [&str; 8] = [
    "select id, email from customers",
    "select count(*) from public.orders o join audit.log l on l.id = o.id",
    "insert into orders select * from customers",
    "update customers set ssn = 'x'",
    "delete from orders where id = 1; begin",
    "drop table customers",
    "copy customers (email) to stdout",
    "select pg_sleep(1), set_config('role', 'x', false)",
];

fn analyses() -> &'static [Result<Analysis, AnalyseError>] {
    static ANALYSES: OnceLock<Vec<Result<Analysis, AnalyseError>>> = OnceLock::new();
    ANALYSES.get_or_init(|| STATEMENTS.iter().map(|text| postgres::analyse(text)).collect())
}

pub fn run(bytes: &[u8]) {
    // A file that is no UTF-8 is refused when it is read.
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let sources = [Source { name: "p.toml".into(), text: text.to_owned() }];
    match check(&sources) {
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            let lines: Vec<&str> = text.split('\n').collect();
            errors.iter().for_each(|error| check_place(error, &lines));
        }
        Ok(checked) => check_compiled(&sources, &checked),
    }
}

fn check_place(error: &Diagnostic, lines: &[&str]) {
    // The end of the file is a place too.
    let line = lines.get(error.line - 1);
    let line = line.unwrap_or_else(|| panic!("line {} does not exist: {error}", error.line));
    let width = line.chars().count();
    assert!((1..=width + 1).contains(&error.column), "column {} does not exist: {error}", error.column);
    assert!(!error.message.is_empty() && !error.to_string().is_empty());
}

fn check_compiled(sources: &[Source], checked: &Checked) {
    let Ok(artifact) = compile(sources) else { panic!("what was checked does not compile") };
    // Compiling again is half of the work: it is done for every fourth text.
    if sources[0].text.len().is_multiple_of(4) {
        assert_eq!(compile(sources).ok().as_ref(), Some(&artifact), "the same text gives other bytes");
    }
    let policy = Policy::from_bytes(artifact).unwrap_or_else(|e| panic!("what was compiled does not open: {e}"));
    assert!(policy.sources() == sources, "the artifact holds another text");
    let names: Vec<&str> = checked.roles.iter().map(|role| &*role.name).take(ROLES_MAX).collect();
    for count in [0, 1, names.len()] {
        let names = &names[..count.min(names.len())];
        let roles =
            names.iter().fold(RoleSet::default(), |set, name| set.union(policy.role_named(name).expect("a role")));
        for analysis in analyses() {
            let fast = judge(&policy, Subject { roles, resource: "shop" }, analysis, &NoCatalogue);
            let slow = explain(checked, Who { roles: names, resource: "shop" }, analysis, &NoCatalogue);
            assert_eq!(
                (fast.action, &fast.rule, fast.statement, fast.mask_unsourced),
                (slow.action, &slow.rule, slow.statement, slow.mask_unsourced),
                "roles {names:?}, {analysis:?}"
            );
            let granted = !checked.grants.is_empty() && !names.is_empty();
            assert!(granted || fast.action == Action::Deny, "allowed without a grant: {analysis:?}");
        }
    }
}
