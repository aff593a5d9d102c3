//! `wireward check-config` finds what cannot be used before a client does, and shows no secret.

use std::fs;
use std::process::{Command, ExitCode};
use tests::suite::{Case, run};
use tests::world::{World, wireward};

fn main() -> ExitCode {
    run(vec![
        Case::new("what_the_gateway_runs_with_is_all_in_order", all_in_order),
        Case::new("each_thing_that_cannot_be_used_is_named", each_problem),
        Case::new("a_mask_on_a_misspelt_column_is_named", misspelt_column),
        Case::new("programs_read_the_same_as_json", as_json),
    ])
}

/// Exit code and output for the world's configuration with one text replaced.
fn check(world: &World, written: &str, instead: &str, options: &[&str]) -> (Option<i32>, String) {
    let text = fs::read_to_string(world.place.configuration()).expect("a configuration");
    assert!(text.contains(written), "{written} is in the configuration");
    let path = world.directory.0.join("changed.toml");
    fs::write(&path, text.replacen(written, instead, 1)).expect("a configuration is written");
    let output = Command::new(wireward()).arg("check-config").args(options).arg("--config").arg(path).output();
    let output = output.expect("wireward runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn all_in_order(world: &World) {
    let (code, said) = check(world, "", "", &[]);
    assert!(code == Some(0) && said.contains("user wireward logs in") && said.contains("all in order"), "{said}");
    let (code, said) = check(world, "plaintext =", "auth = \"oauth\"\nplaintext =", &["--offline"]);
    assert!(code == Some(0) && said.contains("no issuer has an address, so clients must know theirs"), "{said}");
    let by_oauth = "issuer = \"https://idp.test\"\n[[listener]]\nprotocol = \"postgres\"\naddress = \"127.0.0.1:0\"\n\
                    plaintext = \"loopback\"\nauth = \"oauth\"\n[[issuer]]\nissuer = ";
    let more = "jwks_file = \"jwks.json\"\naudience = \"w\"\nalgorithms = [\"ES256\"]\n";
    let (code, said) = check(world, "issuer = ", &by_oauth.replacen('\n', &format!("\n{more}"), 1), &["--offline"]);
    let url = "clients get tokens by https://idp.test/.well-known/openid-configuration, scope \"openid\"";
    assert!(code == Some(0) && said.contains(url), "{said}");
}

fn each_problem(world: &World) {
    fs::write(world.directory.0.join("wrong.password"), "wrong").expect("a file");
    let upstream = world.upstream.address.as_str();
    for (written, instead, expected) in [
        (upstream, "127.0.0.1:1", "resource shop"),
        (upstream, "db.example.com:5432", "name the authority of its certificate"),
        ("\"upstream.password\"", "\"wrong.password\"", "password authentication failed"),
        ("\"upstream.password\"", "\"gone.password\"", "resource shop: credential: "),
        ("{ file = \"upstream.password\" }", "\"hunter2\"", "resource.credential must be { env = "),
        ("directory = \"recordings\"", "directory = \"jwks.json\"", "recording.directory"),
        ("jwks.json", "gone.json", "jwks_file "),
        ("name = \"shop\"", "name = \"shoq\"", "it names the resource `shop`"),
        ("policy.bundle", "gone.bundle", "make one with `wireward policy build"),
        ("[policy]", "[limits]\nactive_sessions_max = 100000000\n[policy]", "is not between 1 and 65536"),
    ] {
        let (code, said) = check(world, written, instead, &[]);
        let found = said.lines().any(|line| line.starts_with("WRONG") && line.contains(expected));
        assert!(code == Some(78) && found && !said.contains("hunter2"), "{instead}: {code:?}\n{said}");
    }
    let (code, said) = check(world, upstream, "127.0.0.1:1", &["--offline"]);
    assert!(code == Some(0) && said.contains("not asked: --offline"), "{said}");
}

fn misspelt_column(world: &World) {
    let policy = world.directory.0.join("misspelt.toml");
    let text = include_str!("../../dataplane/src/demo/policy.toml").replace("customers.ssn", "customers.snn");
    fs::write(&policy, text).expect("a policy");
    let bundle = world.directory.0.join("misspelt.bundle");
    let built = Command::new(wireward()).args(["policy", "build"]).arg(policy).arg("-o").arg(bundle).status();
    assert!(built.expect("wireward runs").success());
    let (code, said) = check(world, "policy.bundle", "misspelt.bundle", &[]);
    assert!(
        code == Some(78) && said.contains("mask customer-numbers: customers.snn: there is no such column"),
        "{said}"
    );
}

fn as_json(world: &World) {
    for (instead, code, ok) in [("name = \"shop\"", 0, true), ("name = \"shoq\"", 78, false)] {
        let (found, said) = check(world, "name = \"shop\"", instead, &["--json"]);
        let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!((found, &answer["ok"]), (Some(code), &ok.into()), "{said}");
        let wrong = answer["checks"].as_array().expect("rows").iter().filter(|row| row["state"] == "WRONG").count();
        assert_eq!(wrong == 0, ok, "{said}");
    }
}
