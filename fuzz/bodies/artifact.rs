//! Policy artifacts. The first byte says what follows: 0 a whole file; 1 changes (place, byte: 3 bytes each) of a good file;
//! 2 as 1, after which the hashes are made right again, to go deeper: a hash shows damage, not intent.
//!
//! What must hold: a changed byte is never accepted; what is accepted can be used.

use std::sync::OnceLock;

use policy_compiler::artifact::{Policy, RoleSet};
use policy_compiler::build::compile;
use policy_compiler::judge::{NoCatalogue, Subject, judge};
use policy_compiler::policy::Source;
use policy_compiler::statement::{AnalyseError, Analysis, postgres};

use super::input::Input;

const POLICY: &str = include_str!("../../dataplane/src/demo/policy.toml");
/// `policy-compiler/src/artifact/FORMAT.md`.
const TABLE_AT: usize = 24;
const ENTRY_BYTES: usize = 56;
const SECTIONS: usize = 3;
const HEADER_HASH_AT: usize = TABLE_AT + SECTIONS * ENTRY_BYTES;

fn good() -> &'static (Vec<u8>, Vec<Result<Analysis, AnalyseError>>) {
    static GOOD: OnceLock<(Vec<u8>, Vec<Result<Analysis, AnalyseError>>)> = OnceLock::new();
    GOOD.get_or_init(|| {
        let sources = [Source { name: "policy.toml".into(), text: POLICY.into() }];
        let texts =
            ["select email from customers", "update orders set id = 1", "drop table a.b", "copy customers to stdout"];
        let analyses = texts.iter().map(|text| postgres::analyse(text)).collect();
        (compile(&sources).expect("the policy of the demo"), analyses)
    })
}

pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (good, _) = good();
    let file = match input.byte() {
        0 => input.0.to_vec(),
        mode => {
            let mut file = good.clone();
            while !input.is_empty() {
                let place = usize::from(input.u16()) % file.len();
                file[place] = input.byte();
            }
            if mode == 2 { hash_again(file) } else { file }
        }
    };
    let is_changed = file != *good;
    let mode = bytes.first().copied().unwrap_or(0);
    match Policy::from_bytes(file) {
        Ok(policy) => {
            assert!(mode != 1 || !is_changed, "a changed file is accepted");
            use_it(&policy);
        }
        Err(why) => assert!(is_changed && !why.to_string().is_empty(), "the good file is refused: {why}"),
    }
}

/// Gives each section that its header names, and then the header, the hash that it has now.
fn hash_again(mut file: Vec<u8>) -> Vec<u8> {
    for entry in (0..SECTIONS).map(|n| TABLE_AT + n * ENTRY_BYTES) {
        let word =
            |at: usize| file[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)) as usize;
        let (start, length) = (word(entry + 8), word(entry + 16));
        let Some(section) = start.checked_add(length).and_then(|end| file.get(start..end)) else { continue };
        let hash = *blake3::hash(section).as_bytes();
        file[entry + 24..entry + ENTRY_BYTES].copy_from_slice(&hash);
    }
    let hash = *blake3::hash(&file[..HEADER_HASH_AT]).as_bytes();
    file[HEADER_HASH_AT..HEADER_HASH_AT + 32].copy_from_slice(&hash);
    file
}

/// As a session does: roles, masks, verdicts.
fn use_it(policy: &Policy) {
    let by_claim = policy.roles_for(["analyst", "agent", "dba"].into_iter());
    let by_name = policy.all_role_names().into_iter().filter_map(|name| policy.role_named(name));
    let all = by_name.fold(RoleSet::default(), RoleSet::union);
    for roles in [RoleSet::default(), by_claim, all] {
        policy.role_names(roles);
        policy.may_reach(roles, "shop");
        policy.masks(roles, "shop").column(Some("public"), "customers", "email");
        for analysis in &good().1 {
            judge(policy, Subject { roles, resource: "shop" }, analysis, &NoCatalogue);
        }
    }
}
