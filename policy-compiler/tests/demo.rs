//! The demo's policy, end to end: from its text and real SQL to verdicts and to what `wireward policy` prints.

use policy_compiler::artifact::{MaskAction, Policy};
use policy_compiler::cli::{self, Question};
use policy_compiler::judge::{Action, NoCatalogue, Subject, judge};
use policy_compiler::policy::load;
use policy_compiler::statement::postgres::analyse;
use std::path::PathBuf;

fn demo() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo runs the tests"))
        .join("../dataplane/src/demo/policy.toml")
}

fn compiled() -> Policy {
    let sources = load(&demo()).expect("the demo's policy is there");
    let bytes = policy_compiler::build::compile(&sources).unwrap_or_else(|e| panic!("{}", e[0]));
    Policy::from_bytes(bytes).expect("opens")
}

#[test]
fn the_demo_policy_decides_as_its_comments_say() {
    use Action::{Allow, Deny, Mask};
    let rows = [
        ("analyst", "select * from customers", Mask, "customer-contact"),
        ("analyst", "select 1", Mask, "pii"),
        ("analyst", "select count(*) from orders", Mask, "pii"),
        ("analyst", "insert into orders (id) values (1)", Deny, "default-deny"),
        ("analyst", "copy customers to stdout (format binary)", Deny, "binary-copy"),
        ("analyst", "copy (select name from customers) to stdout (format binary)", Deny, "binary-copy"),
        ("analyst", "copy (select count(*) from orders) to stdout (format binary)", Mask, "pii"),
        ("analyst", "copy orders to stdout (format csv)", Mask, "pii"),
        ("analyst", "copy orders to stdout (null '\\')", Deny, "copy-option"),
        ("analyst", "copy orders to stdout (delimiter '@')", Deny, "copy-option"),
        ("dba", "copy customers to stdout (null '\\', delimiter '@', encoding 'latin1')", Allow, "grant"),
        ("dba", "copy customers from stdin (null '\\', delimiter '@', encoding 'latin1')", Allow, "grant"),
        ("dba", "copy customers to stdout (format binary)", Allow, "grant"),
        ("analyst", "update customers set name = 'x'", Deny, "no-update-without-where"),
        ("analyst", "select relname from pg_class", Mask, "pii"),
        ("analyst", "select most_common_vals from pg_stats", Deny, "default-deny"),
        ("analyst", "begin; commit", Allow, "grant"),
        ("analyst", "set role postgres", Deny, "pinned-setting"),
        ("analyst", "reset role", Allow, "grant"),
        ("agent", "select email from customers", Mask, "customer-contact"),
        ("agent", "insert into orders (id) values (1)", Allow, "grant"),
        ("agent", "insert into customers (id) values (1)", Deny, "default-deny"),
        ("agent", "update orders set total = 2 where id = 1", Allow, "grant"),
        ("agent", "update orders set total = 2", Deny, "no-update-without-where"),
        ("agent", "update customers set name = 'x' where id = 1", Deny, "default-deny"),
        ("agent", "delete from orders where id = 1", Deny, "no-delete"),
        ("agent", "with d as (delete from orders returning id) select count(*) from d", Deny, "no-delete"),
        ("agent", "select 1; drop table orders", Deny, "no-ddl"),
        ("agent", "truncate orders", Deny, "no-ddl"),
        ("agent", "do $$ begin perform 1; end $$", Deny, "default-deny"),
        ("agent", "selec 1", Deny, "unparsable"),
        ("agent", "insert into orders (note) select email from customers", Deny, "masked-source"),
        ("dba", "select * from customers", Allow, "grant"),
        ("dba", "drop table orders", Allow, "grant"),
        ("dba", "delete from orders", Allow, "grant"),
        ("dba", "do $$ begin perform 1; end $$", Allow, "grant"),
        ("stranger", "select 1", Deny, "default-deny"),
    ];
    let policy = compiled();
    for (role, sql, action, rule) in rows {
        let roles = policy.roles_for([role].into_iter());
        let judgement = judge(&policy, Subject { roles, resource: "shop" }, &analyse(sql), &NoCatalogue);
        assert_eq!((judgement.action, judgement.rule.as_str()), (action, rule), "{role}: {sql}: {}", judgement.reason);
    }
}

#[test]
fn the_demo_masks_four_columns_for_all_but_the_dba() {
    let policy = compiled();
    for (claim, columns) in [("data-analysts", 4), ("agent", 4), ("dba", 0)] {
        let masks = policy.masks(policy.roles_for([claim].into_iter()), "shop");
        assert_eq!((masks.columns.len(), masks.detect.len()), (columns, columns / 4), "{claim}");
    }
    let masks = policy.masks(policy.role_named("analyst").expect("a role"), "shop");
    let action = |column| masks.column(None, "customers", column).map(|mask| mask.action);
    assert_eq!(action("email"), Some(MaskAction::Redact));
    assert_eq!(action("card"), Some(MaskAction::Last4));
    assert!(!policy.may_reach(policy.role_named("analyst").expect("a role"), "another"));
}

fn nobody(_: &str) -> Result<cli::Person, String> {
    Err("nobody is known".to_owned())
}

fn explained(user: Option<&str>, sql: &str, json: bool) -> (u8, String) {
    let mut out = Vec::new();
    let path = demo();
    let question = Question { policy: &path, user, person: &nobody, roles: &[], resource: "shop", upstream: None, sql };
    let status = cli::explain(question, json, &mut out);
    let shown = String::from_utf8(out).expect("text");
    (status, shown.replace(&path.display().to_string(), "policy.toml").replace(compiled().epoch_name(), "EPOCH"))
}

#[test]
fn explain_shows_verdict_rule_grants_and_masks() {
    let rows = [
        (
            "delete from orders where id = 1",
            "agent",
            "verdict    deny by no-delete (policy.toml:LINE)
why        DELETE on orders is blocked for role agent
sqlstate   42501
hint       set orders.status to 'cancelled' instead
policy     EPOCH
roles      agent
resource   shop
catalogue  not asked: views, partitions and search_path are taken as written; --config FILE asks
1          DELETE
           delete on orders             not granted
",
        ),
        (
            "select id, email, count(*) from customers group by id, email",
            "analyst",
            "verdict    mask by customer-contact (policy.toml:LINE)
why        every effect is granted, no rule blocks it, and a mask may apply
policy     EPOCH
roles      analyst
resource   shop
catalogue  not asked: views, partitions and search_path are taken as written; --config FILE asks
1          SELECT
           read on customers            granted at policy.toml:LINE
           column 1: customers.id       as it is
           column 2: customers.email    redact by customer-contact
           column 3: a number of rows   as it is
detect     redact by pii: payment-card, us-ssn, email, phone, iban
",
        ),
    ];
    for (sql, role, expected) in rows {
        let (status, shown) = explained(Some(role), sql, false);
        assert_eq!((status, without_lines(&shown).as_str()), (0, expected), "{sql}\n{shown}");
    }
}

/// The demo's comments may grow without breaking the test.
fn without_lines(shown: &str) -> String {
    let mut parts = shown.split("policy.toml:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("policy.toml:LINE");
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    out
}

#[test]
fn explain_as_json_says_the_same() {
    let (status, shown) = explained(Some("agent"), "drop table orders", true);
    let value: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(status, 0);
    assert_eq!((&value["verdict"], &value["rule"]), (&"deny".into(), &"no-ddl".into()));
    assert_eq!(value["statements"][0]["effects"][0]["effect"], "ddl");
    assert_eq!(value["statements"][0]["effects"][0]["granted"], "not granted");
    assert!(value["at"].as_str().is_some_and(|at| at.starts_with("policy.toml:")), "{shown}");
}

#[test]
fn explain_for_an_unknown_user_lists_the_roles() {
    for (user, expected) in [
        (Some("alice"), "`alice` is no role of this policy; the roles are analyst, agent, dba; nobody is known"),
        (None, "name somebody with --as, or roles with --roles; the roles are analyst, agent, dba"),
    ] {
        let (status, shown) = explained(user, "select 1", true);
        let answer: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!((status, &answer["error"]), (2, &expected.into()));
        assert_eq!(explained(user, "select 1", false), (2, String::new()), "people read it on standard error");
    }
}

#[test]
fn check_and_build_report_and_an_artifact_explains_itself() {
    let mut out = Vec::new();
    assert_eq!(cli::check(&demo(), None, false, &mut out), 0);
    assert!(String::from_utf8_lossy(&out).starts_with("ok: policy "), "{}", String::from_utf8_lossy(&out));

    let directory = std::env::temp_dir().join(format!("wireward-demo-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (artifact, broken) = (directory.join("p.artifact"), directory.join("broken.toml"));
    std::fs::write(&broken, "[[role]]\nnam = \"a\"\n").expect("a file");
    let mut out = Vec::new();
    let built = cli::build(&demo(), &artifact, false, &mut out);
    let opened = Policy::open(&artifact);
    let question = Question {
        policy: &artifact,
        user: Some("dba"),
        person: &nobody,
        roles: &[],
        resource: "shop",
        upstream: None,
        sql: "select 1",
    };
    let explained = cli::explain(question, false, &mut Vec::new());
    let mut errors = Vec::new();
    let refused = (cli::check(&broken, None, true, &mut errors), cli::build(&broken, &artifact, true, &mut Vec::new()));
    let nowhere = directory.join("missing/p.artifact");
    let mut sink = Vec::new();
    let failed = (cli::check(&nowhere, None, false, &mut sink), cli::build(&demo(), &nowhere, false, &mut sink));
    let (mut told, mut complained) = (Vec::new(), Vec::new());
    let as_json =
        (cli::build(&demo(), &artifact, true, &mut told), cli::build(&demo(), &nowhere, true, &mut complained));
    let files = std::fs::read_dir(&directory).expect("listed").count();
    std::fs::remove_dir_all(&directory).expect("removed");

    let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
    assert_eq!(told["policy"].as_str(), Some(opened.as_ref().expect("opens").epoch_name()));
    let complained: serde_json::Value = serde_json::from_slice(&complained).expect("JSON");
    assert!(complained["error"].as_str().is_some_and(|e| e.contains("cannot be written")), "{complained}");
    assert_eq!(as_json.0, 0);
    assert_ne!(as_json.1, 0);
    assert_eq!((built, explained), (0, 0), "{}", String::from_utf8_lossy(&out));
    assert_eq!(opened.expect("opens").digest(), compiled().digest());
    assert_eq!((refused, files), ((1, 1), 2), "a failed build leaves the old artifact and nothing else");
    assert_eq!((failed, sink), ((2, 2), Vec::new()), "what cannot be read or written is no fault of the policy");
    let errors: serde_json::Value = serde_json::from_slice(&errors).expect("JSON");
    assert_eq!(errors["errors"][0]["suggestion"], "did you mean `name`?");
}
