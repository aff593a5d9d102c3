//! The indexed judge and the plain interpreter agree on random policies and random statements.

use policy_compiler::artifact::{MaskAction, Policy, RoleSet};
use policy_compiler::build::compile;
use policy_compiler::explain::{Who, explain};
use policy_compiler::judge::{Action, Catalogue, Subject, judge};
use policy_compiler::policy::{Checked, Source, check};
use policy_compiler::statement::{
    AnalyseError, Analysis, Called, ColumnUse, Copy, CopyDirection, CopyFormat, Effect, EffectSet, FunctionUse, Named,
    NewValue, Output, Places, RelationUse, Setting, Statement, Unmodelled,
};
use std::collections::BTreeMap;
use std::fmt::Write;

const POLICIES: u64 = 1_000;
const STATEMENTS_PER_POLICY: u64 = 20;

const ROLES: [&str; 4] = ["analyst", "agent", "dba", "guest"];
const RESOURCES: [&str; 3] = ["shop", "crm", "*"];
const SCHEMAS: [&str; 4] = ["public", "audit", "pg_catalog", "pg_toast"];
const RELATIONS: [&str; 8] = ["customers", "orders", "log", "tmp_1", "pg_class", "pg_stats", "pg_stat_statements", "v"];
const COLUMNS: [&str; 4] = ["email", "ssn", "id", "*"];
const FUNCTIONS: [&str; 3] = ["pg_sleep", "count", "f"];
const PATTERNS: [&str; 12] = [
    "customers",
    "public.customers",
    "audit.*",
    "*.log",
    "tmp_*",
    "*",
    "*.*",
    "orders",
    "pg_stats",
    "pg_catalog.*",
    "pub*.o*s",
    "pg_stat_statements",
];
const SETTINGS: [(&str, Option<&str>); 7] = [
    ("role", Some("x")),
    ("role", None),
    ("client_encoding", Some("utf-8")),
    ("client_encoding", Some("SJIS")),
    ("client_encoding", Some("LATIN1")),
    ("search_path", Some("public, pg_catalog")),
    ("search_path", Some("audit")),
];

/// xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn some<T: Clone>(&mut self, all: &[T], most: usize) -> Vec<T> {
        (0..=self.below(most)).map(|_| self.pick(all)).collect()
    }
}

#[test]
fn judge_and_interpreter_agree_on_random_policies_and_statements() {
    let mut random = Random(0x5EED_0001);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..POLICIES {
        let sources = [Source { name: "p.toml".into(), text: random_policy(&mut random) }];
        let checked = check(&sources).unwrap_or_else(|e| panic!("{}\n{}", e[0], sources[0].text));
        let policy = Policy::from_bytes(compile(&sources).expect("compiles")).expect("opens");
        for _ in 0..STATEMENTS_PER_POLICY {
            let kind = compare(&mut random, &policy, &checked, &format!("policy {number}\n{}", sources[0].text));
            *seen.entry(kind).or_default() += 1;
        }
    }
    // A comparison that only ever sees denials would prove little.
    for kind in ["allow", "mask", "default-deny", "rule", "opaque", "pinned-setting", "masked-source", "unparsable"] {
        assert!(seen.get(kind).is_some_and(|n| *n > 20), "{kind} is hardly seen: {seen:?}");
    }
}

fn compare(random: &mut Random, policy: &Policy, checked: &Checked, context: &str) -> String {
    let names = random.some(&ROLES[..], 2);
    let roles = names.iter().fold(RoleSet::default(), |set, name| set.union(policy.role_named(name).expect("a role")));
    let resource = random.pick(&RESOURCES[..2]);
    let catalogue = RandomCatalogue::new(random);
    let analysis = random_analysis(random);
    let fast = judge(policy, Subject { roles, resource }, &analysis, &catalogue);
    let slow = explain(checked, Who { roles: &names, resource }, &analysis, &catalogue);
    // Hints of built-in verdicts are help, not policy.
    let hint = fast.hint.as_ref().filter(|_| fast.rule.starts_with("rule-"));
    let fast_parts = (fast.action, &fast.rule, fast.statement, hint, fast.mask_unsourced);
    let slow_parts = (slow.action, &slow.rule, slow.statement, slow.hint.as_ref(), slow.mask_unsourced);
    assert_eq!(fast_parts, slow_parts, "\nroles {names:?} on {resource}\n{analysis:#?}\n{catalogue:?}\n{context}");
    assert_eq!(masks_by_policy(policy, roles, resource), masks_by_hand(checked, &names, resource), "{context}");
    match fast.action {
        Action::Allow => "allow".into(),
        Action::Mask => "mask".into(),
        _ if fast.rule.starts_with("rule-") => "rule".into(),
        _ => fast.rule,
    }
}

/// For each relation and column in `public`, the action that counts.
type ByColumn = BTreeMap<(String, String), MaskAction>;

fn masks_by_policy(policy: &Policy, roles: RoleSet, resource: &str) -> ByColumn {
    let masks = policy.masks(roles, resource);
    let all = RELATIONS.iter().flat_map(|r| COLUMNS.iter().map(move |c| (*r, *c)));
    let hits = all.filter_map(|(r, c)| Some(((r.into(), c.into()), masks.column(Some("public"), r, c)?.action)));
    hits.collect()
}

fn masks_by_hand(checked: &Checked, names: &[&str], resource: &str) -> ByColumn {
    let mut out = ByColumn::new();
    for mask in &checked.masks {
        let mine = |role: &String| names.contains(&role.as_str());
        let to = mask.scope.to.as_ref().is_none_or(|to| to.iter().any(mine));
        let here = mask.scope.resources.as_ref().is_none_or(|all| all.iter().any(|name| name == resource));
        if !to || !here || mask.scope.except.iter().any(mine) {
            continue;
        }
        for column in mask.columns.iter().filter(|c| c.schema.as_deref().is_none_or(|schema| schema == "public")) {
            let entry = out.entry((column.relation.clone(), column.column.clone())).or_insert(mask.action);
            *entry = (*entry).max(mask.action);
        }
    }
    out
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn random_policy(random: &mut Random) -> String {
    let mut text: String = ROLES.iter().map(|role| format!("[[role]]\nname = \"{role}\"\n")).collect();
    let mut effects: Vec<&str> = Effect::ALL.iter().map(|(_, name)| *name).collect();
    for _ in 0..=random.below(5) {
        let (to, resources) = (random.some(&ROLES, 2), random.some(&RESOURCES, 2));
        let granted = if random.one_in(2) { vec!["*"] } else { random.some(&effects, 5) };
        let granted = if random.one_in(3) { [granted, vec!["opaque"]].concat() } else { granted };
        writeln!(text, "[[grant]]\nto = [{}]\nresources = [{}]", quoted(&to), quoted(&resources)).expect("a string");
        writeln!(text, "effects = [{}]", quoted(&granted)).expect("a string");
        list(random, &mut text, "relations", &PATTERNS, 2);
        if granted.iter().any(|effect| ["*", "call"].contains(effect)) {
            list(random, &mut text, "functions", &FUNCTIONS, 3);
        }
    }
    effects.retain(|effect| *effect != "read" && *effect != "session");
    for number in 0..random.below(5) {
        writeln!(text, "[[rule]]\nname = \"rule-{number}\"\naction = \"block\"").expect("a string");
        scope(random, &mut text);
        list(random, &mut text, "effects", &effects, 2);
        list(random, &mut text, "relations", &PATTERNS, 2);
        list(random, &mut text, "functions", &FUNCTIONS, 3);
        if random.one_in(3) {
            text.push_str("without_where = true\n");
        }
        if random.one_in(3) {
            writeln!(text, "hint = \"hint {number}\"").expect("a string");
        }
    }
    random_masks(random, &mut text);
    text
}

fn random_masks(random: &mut Random, text: &mut String) {
    let columns = ["customers.email", "customers.ssn", "public.customers.ssn", "audit.log.id", "v.email"];
    for number in 0..random.below(4) {
        let action = random.pick(&MaskAction::ALL).1;
        let columns = random.some(&columns, 3);
        writeln!(text, "[[mask]]\nname = \"mask-{number}\"\naction = \"{action}\"\ncolumns = [{}]", quoted(&columns))
            .expect("a string");
        scope(random, text);
    }
    if random.one_in(3) {
        text.push_str("[[detect]]\nname = \"pii\"\naction = \"redact\"\nkinds = [\"*\"]\n");
        scope(random, text);
    }
}

fn scope(random: &mut Random, text: &mut String) {
    list(random, text, "to", &ROLES, 2);
    list(random, text, "except", &ROLES, 3);
    list(random, text, "resources", &RESOURCES, 2);
}

/// The key with some of `all`, once in `rarity` times.
fn list(random: &mut Random, text: &mut String, key: &str, all: &[&str], rarity: usize) {
    if random.one_in(rarity) {
        let names = random.some(all, 2);
        writeln!(text, "{key} = [{}]", quoted(&names)).expect("a string");
    }
}

fn random_analysis(random: &mut Random) -> Result<Analysis, AnalyseError> {
    match random.below(100) {
        0 => Err(AnalyseError::Syntax { message: "syntax error".into(), position: None }),
        1 => Err(AnalyseError::TooLong { bytes: 2, max: 1 }),
        2 => Ok(Analysis::default()),
        n => Ok(Analysis { statements: (0..=n % 2).map(|_| random_statement(random)).collect() }),
    }
}

fn random_statement(random: &mut Random) -> Statement {
    let relations: Vec<RelationUse> = (0..random.below(3)).map(|_| random_relation(random)).collect();
    let mut effects = relations.iter().fold(EffectSet::EMPTY, |set, relation| set.union(relation.effects));
    if random.one_in(3) {
        effects = effects.with(random.pick(&Effect::ALL).0);
    }
    let columns = (0..random.below(3)).map(|_| random_column(random));
    Statement {
        tag: "STATEMENT".into(),
        columns: columns.collect(),
        functions: (0..random.below(4) / 2).map(|_| random_function(random)).collect(),
        without_where: random.one_in(3),
        output: (0..random.below(3)).map(|_| random_output(random)).collect(),
        copy: random.one_in(8).then(|| random_copy(random)),
        called: (0..random.below(3)).map(|_| random_called(random)).collect(),
        calls_unnamed: random.one_in(6),
        settings: (0..random.below(9) / 8).map(|_| random_setting(random)).collect(),
        uses: random.one_in(10).then(|| Named::Prepared("p".into())),
        opaque: effects.has(Effect::Opaque).then(|| "this form".to_owned()),
        relations,
        effects,
        ..Statement::default()
    }
}

fn random_relation(random: &mut Random) -> RelationUse {
    let schema = random.one_in(2).then(|| random.pick(&SCHEMAS).to_owned());
    let common = [Effect::Read, Effect::Read, Effect::Insert, Effect::Update, Effect::Delete, Effect::Ddl];
    let mut effects = EffectSet::of(&random.some(&common, 2));
    if random.one_in(20) {
        effects = EffectSet::EMPTY;
    }
    RelationUse { schema, name: random.pick(&RELATIONS).into(), effects }
}

fn random_column(random: &mut Random) -> ColumnUse {
    let relation = random.one_in(2).then(|| random.pick(&RELATIONS).to_owned());
    let places = random.pick(&[Places::SHOWN, Places::SHOWN, Places::PICKS, Places::SHAPES, Places::KEPT]);
    ColumnUse { relation, name: random.pick(&COLUMNS).into(), places }
}

fn random_function(random: &mut Random) -> FunctionUse {
    let schema = random.one_in(3).then(|| random.pick(&SCHEMAS).to_owned());
    FunctionUse { schema, name: random.pick(&FUNCTIONS).into(), plain: !random.one_in(4) }
}

fn random_called(random: &mut Random) -> Called {
    let FunctionUse { schema, name, .. } = random_function(random);
    Called { schema, name }
}

fn random_output(random: &mut Random) -> Output {
    match random.below(4) {
        0 => Output::All { schema: None, relation: random.pick(&RELATIONS).into() },
        1 => Output::Column { relation: None, name: random.pick(&COLUMNS).into() },
        2 => Output::Computed(Vec::new()),
        _ => Output::Unknown,
    }
}

fn random_setting(random: &mut Random) -> Setting {
    let (name, value) = random.pick(&SETTINGS);
    let value = match value {
        Some(value) => NewValue::Is(value.into()),
        None if random.one_in(2) => NewValue::Any,
        None => NewValue::Default,
    };
    Setting { name: name.into(), value }
}

fn random_copy(random: &mut Random) -> Copy {
    Copy {
        direction: if random.one_in(2) { CopyDirection::ToClient } else { CopyDirection::FromClient },
        format: CopyFormat::Text,
        table: random.one_in(2).then(|| (None, random.pick(&RELATIONS).to_owned())),
        columns: Vec::new(),
        delimiter: b'\t',
        quote: b'"',
        escape: b'"',
        null: "\\N".into(),
        header: false,
        unmodelled: random.one_in(8).then(|| Unmodelled { what: "an option".into(), remedy: "leave it out".into() }),
    }
}

#[derive(Debug)]
struct RandomCatalogue {
    protected: Vec<&'static str>,
    schemas: Vec<(&'static str, &'static str)>,
    functions: Vec<(&'static str, &'static str)>,
    known: Vec<&'static str>,
}

impl RandomCatalogue {
    fn new(random: &mut Random) -> Self {
        let protected = if random.one_in(2) { random.some(&RELATIONS, 2) } else { Vec::new() };
        let names = random.some(&RELATIONS, 3);
        let schemas = names.into_iter().map(|name| (name, random.pick(&SCHEMAS[..2]))).collect();
        let functions = random.some(&FUNCTIONS, 2).into_iter().map(|name| (name, random.pick(&SCHEMAS))).collect();
        Self { protected, schemas, functions, known: random.some(&RELATIONS, 3) }
    }
}

impl Catalogue for RandomCatalogue {
    fn is_protected(&self, _schema: Option<&str>, name: &str) -> bool {
        self.protected.contains(&name)
    }

    fn columns(&self, _schema: Option<&str>, name: &str) -> Option<Vec<String>> {
        self.known.contains(&name).then(|| vec!["id".into(), "email".into()])
    }

    fn is_shaped(&self, _schema: Option<&str>, name: &str) -> bool {
        name == "v"
    }

    fn schemas_of_function(&self, name: &str) -> Vec<String> {
        let found = self.functions.iter().filter(|(function, _)| *function == name);
        found.map(|(_, schema)| (*schema).to_owned()).collect()
    }

    fn schema_of(&self, name: &str) -> Option<String> {
        self.schemas.iter().find(|(relation, _)| *relation == name).map(|(_, schema)| (*schema).to_owned())
    }
}
