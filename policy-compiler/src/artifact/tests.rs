use super::format::{HEADER_BYTES, Tables};
use super::write::{COMPILER, assemble, write};
use super::{OpenError, Policy};
use crate::build::compile;
use crate::policy::Source;
use rkyv::rancor::Error;

const POLICY: &str = r#"
[[role]]
name = "a"
[[role]]
name = "b"
claims = ["b", "bees"]
[[grant]]
to = ["a"]
resources = ["shop"]
effects = ["read"]
relations = ["public.*"]
[[rule]]
name = "r"
action = "block"
effects = ["ddl"]
functions = ["pg_sleep"]
hint = "no"
[[mask]]
name = "m"
columns = ["customers.email", "public.customers.ssn"]
action = "last4"
[[mask]]
name = "n"
columns = ["customers.ssn"]
action = "null"
to = ["a"]
[[detect]]
name = "d"
kinds = ["*"]
action = "redact"
except = ["b"]
"#;

fn artifact() -> Vec<u8> {
    compile(&[Source { name: "p.toml".into(), text: POLICY.into() }]).expect("the policy is right")
}

#[test]
fn an_artifact_cut_at_any_length_is_refused() {
    let whole = artifact();
    for length in 0..whole.len() {
        assert!(Policy::from_bytes(whole[..length].to_vec()).is_err(), "{length} of {} bytes", whole.len());
    }
    let mut longer = whole;
    longer.push(0);
    assert!(Policy::from_bytes(longer).is_err());
}

#[test]
fn an_artifact_with_any_one_bit_flipped_is_refused() {
    let mut bytes = artifact();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Policy::from_bytes(bytes.clone()).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(Policy::from_bytes(bytes).is_ok());
}

/// Whoever writes a file can hash it: below right hashes any bytes may stand.
#[test]
fn hostile_tables_under_right_hashes_do_not_panic() {
    let policy = Policy::from_bytes(artifact()).expect("opens");
    let rules = rkyv::to_bytes::<Error>(policy.tables()).expect("archives");
    let sources = rkyv::to_bytes::<Error>(&policy.sources().to_vec()).expect("archives");
    let mut refused = 0;
    for bit in 0..rules.len() * 8 {
        let mut bad = rules.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        match Policy::from_bytes(assemble([&bad, &sources, COMPILER.as_bytes()])) {
            Ok(policy) => {
                let everybody = policy.roles_for(["a", "b", "bees"].into_iter());
                policy.may_reach(everybody, "shop");
                policy.masks(everybody, "shop");
            }
            Err(OpenError::Damaged(_)) => refused += 1,
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
    assert!(refused > 0, "flipped pointers and lengths must not validate");
    for length in 0..rules.len() {
        drop(Policy::from_bytes(assemble([&rules[..length], &sources, COMPILER.as_bytes()])));
    }
}

#[test]
fn tables_that_contradict_each_other_are_refused() {
    let policy = Policy::from_bytes(artifact()).expect("opens");
    let breaks: [(&str, fn(&mut Tables)); 5] = [
        ("a grant to a role that is not there", |t| t.grants[0].scope.to = 1 << 7),
        ("a rule except a role that is not there", |t| t.rules[0].scope.except = 1 << 2),
        ("an effect that is not there", |t| t.grants[0].effects = 1 << 31),
        ("an effect of a rule that is not there", |t| t.rules[0].effects = Some(1 << 20)),
        ("a detector that is not there", |t| t.detects[0].kinds = 1 << 5),
    ];
    for (what, damage) in breaks {
        let mut tables = policy.tables().clone();
        damage(&mut tables);
        let bytes = write(&tables, policy.sources()).expect("archives");
        assert!(matches!(Policy::from_bytes(bytes), Err(OpenError::Damaged(_))), "{what}");
    }
}

#[test]
fn the_same_sources_give_the_same_bytes_and_another_text_another_identity() {
    assert_eq!(artifact(), artifact());
    let other = compile(&[Source { name: "p.toml".into(), text: format!("{POLICY}\n# more") }]).expect("compiles");
    let (one, two) = (Policy::from_bytes(artifact()).expect("opens"), Policy::from_bytes(other).expect("opens"));
    assert_ne!(one.digest(), two.digest());
    assert_eq!(one.digest(), *blake3::hash(&artifact()).as_bytes());
    assert_eq!(one.epoch_name().len(), 12);
    assert_eq!(one.sources()[0].text, POLICY);
    assert_eq!(one.compiler(), COMPILER);
}

#[test]
fn a_file_of_another_kind_or_version_says_what_to_do() {
    let mut newer = artifact();
    newer[8] = 9;
    let rows = [
        (Vec::new(), "is no policy artifact"),
        (vec![b'x'; HEADER_BYTES + 9], "is no policy artifact"),
        (newer, "has format 9, this wireward reads 2"),
    ];
    for (bytes, expected) in rows {
        let error = Policy::from_bytes(bytes).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("policy build"), "{error}");
    }
}

#[test]
fn claims_give_roles_and_grants_reach() {
    let policy = Policy::from_bytes(artifact()).expect("opens");
    for (claims, names, reach) in [
        (&["a"][..], &["a"][..], true),
        (&["bees"], &["b"], false),
        (&["x", "b", "a"], &["a", "b"], true),
        (&["x"], &[], false),
    ] {
        let roles = policy.roles_for(claims.iter().copied());
        assert_eq!(policy.role_names(roles), names, "{claims:?}");
        assert_eq!(policy.may_reach(roles, "shop"), reach, "{claims:?}");
        assert!(!policy.may_reach(roles, "other"), "{claims:?}");
    }
    assert!(policy.role_named("bees").is_none(), "a claim is no role");
}

#[test]
fn of_several_masks_on_a_column_the_strictest_counts_whether_or_not_they_name_the_schema() {
    use super::MaskAction::{Last4, Null};
    let policy = Policy::from_bytes(artifact()).expect("opens");
    let masks = policy.masks(policy.role_named("a").expect("a role"), "shop");
    for (schema, column, expected) in [
        (None, "email", Some(Last4)),
        (Some("public"), "email", Some(Last4)),
        (None, "ssn", Some(Null)),
        (Some("public"), "ssn", Some(Null)),
        (Some("other"), "ssn", Some(Null)),
        (Some("public"), "name", None),
    ] {
        assert_eq!(masks.column(schema, "customers", column).map(|m| m.action), expected, "{schema:?} {column}");
    }
    let qualified = masks.columns.iter().find(|mask| mask.schema.is_some()).expect("the qualified entry");
    assert_eq!((qualified.action, qualified.rule.as_str()), (Null, "n"));
    assert_eq!(masks.detect.len(), 1);
    let other = policy.masks(policy.role_named("b").expect("a role"), "shop");
    assert_eq!(other.column(Some("other"), "customers", "ssn"), None, "the any-schema mask is for role a");
    assert_eq!(other.column(Some("public"), "customers", "ssn").map(|m| m.action), Some(Last4));
    assert!(other.detect.is_empty());
}
