//! `wireward policy explain` and `policy check` before a real catalogue: what they say is what a session gets.

use std::fs;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tests::suite::{Case, run};
use tests::world::{Shown, World, wireward};

fn main() -> ExitCode {
    run(vec![
        Case::new("explain_follows_views_stars_and_partitions_to_the_masked_column", follows_names),
        Case::new("explain_without_a_configuration_asks_nobody_and_says_so", offline),
        Case::new("explain_says_what_a_session_gets", same_as_a_session),
        Case::new("explain_names_the_rule_that_a_session_is_refused_by", same_refusals),
        Case::new("explain_as_a_person_takes_the_roles_of_the_last_session", as_a_person),
        Case::new("explain_for_a_resource_that_is_not_configured_names_those_that_are", unknown_resource),
        Case::new("check_accepts_masks_that_the_catalogue_has", masks_that_exist),
        Case::new("check_shows_the_place_of_each_mask_that_no_column_answers_to", masks_that_do_not),
        Case::new("an_upstream_that_cannot_be_asked_is_a_failure_and_shows_no_credential", unreachable),
    ])
}

fn policy_command(world: &World, arguments: &[&str]) -> (Option<i32>, Shown) {
    let mut command = Command::new(wireward());
    command.arg("policy").args(arguments).current_dir(&world.directory.0).env_remove("WIREWARD_CONFIG");
    let status = command.output().expect("wireward runs").status.code();
    (status, Shown::of(command))
}

/// Asks for the resource of the world's own configuration.
fn explain(world: &World, role: &str, more: &[&str]) -> Shown {
    let configuration = world.place.configuration().display().to_string();
    let arguments = ["explain", "--as", role, "--resource", "shop", "--config", &configuration];
    let (status, shown) = policy_command(world, &[&arguments[..], more].concat());
    assert_eq!(status, Some(0), "{shown:?}");
    shown
}

fn follows_names(world: &World) {
    let through_view = "redact by customer-contact, shows customers.email";
    let rows: [(&str, &[&str]); 6] = [
        ("select * from customer_contacts", &["column 3: customer_contacts.email", through_view, "column 4:"]),
        ("select email as x from customer_contacts c", &[through_view]),
        ("select id from customer_contacts", &["customer_contacts.id as it is"]),
        ("select ssn from customers_archive", &["last4 by customer-numbers, shows customers.ssn"]),
        ("select item, card from orders join customers on customer_id = customers.id", &["last4 by customer-numbers"]),
        ("table customers", &["column 5: customers.card", "column 1: customers.id as it is"]),
    ];
    for (sql, wanted) in rows {
        let shown = explain(world, "analyst", &[sql]).must_print("catalogue  asked").out;
        let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        wanted.iter().for_each(|part| assert!(flat.contains(part), "{sql}: expected {part:?} in\n{shown}"));
    }
    let clear = explain(world, "dba", &["select * from customer_contacts"]);
    assert!(!clear.out.contains("redact"), "{clear:?}");
}

fn offline(world: &World) {
    let bundle = world.directory.0.join("policy.bundle").display().to_string();
    let asks = ["explain", "--policy", &bundle, "--as", "analyst", "--resource", "shop"];
    let sql = "select email from customer_contacts";
    let (status, shown) = policy_command(world, &[&asks[..], &[sql]].concat());
    assert_eq!(status, Some(0), "{shown:?}");
    let shown = shown.must_print("catalogue  not asked").must_print("customer_contacts.email as it is");
    assert_eq!(explain(world, "analyst", &["--offline", sql]).out, shown.out);
    let json = policy_command(world, &[&asks[..], &["--json", sql]].concat()).1.out;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["catalogue"], "not asked");
}

/// The columns that explain calls masked are those that differ between an analyst's session and the server itself.
fn same_as_a_session(world: &World) {
    for sql in [
        "select id, name, email, ssn, card, phone from customers where id = 7",
        "select * from customer_contacts where id = 7",
        "select id, email e, card from only customers where id = 7",
        "select c.phone, o.id, o.item from customer_contacts c, orders o where c.id = 7 order by o.id limit 1",
    ] {
        let shown = explain(world, "analyst", &["--json", sql]).out;
        let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let columns = json["statements"][0]["columns"].as_array().expect("columns");
        let told: Vec<bool> = columns.iter().map(|column| column["mask"] != "as it is").collect();
        let (raw, seen) = (world.psql(&world.direct(), &[sql]).out, world.psql(&world.through("analyst"), &[sql]).out);
        let differs: Vec<bool> =
            raw.trim_end().split('|').zip(seen.trim_end().split('|')).map(|(a, b)| a != b).collect();
        assert_eq!(told, differs, "{sql}\n{shown}\n{raw}{seen}");
    }
}

/// The rule that explain names is the one that the refusal names.
fn same_refusals(world: &World) {
    for sql in [
        "copy customers to stdout (format binary)",
        "update orders set item = 'x'",
        "drop table orders",
        "set role postgres",
        "create table kept as select email from customer_contacts",
    ] {
        let shown = explain(world, "analyst", &["--json", sql]).out;
        let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(json["verdict"], "deny", "{sql}: {shown}");
        let rule = json["rule"].as_str().expect("a rule");
        world.psql(&world.through("analyst"), &[sql]).must_complain(&format!("blocked by rule {rule} (policy"));
    }
}

fn as_a_person(world: &World) {
    let sql = "select email from customer_contacts";
    let configuration = world.place.configuration().display().to_string();
    let asked = |user: &str| {
        policy_command(
            world,
            &["explain", "--as", user, "--resource", "shop", "--config", &configuration, "--json", sql],
        )
    };
    for (subject, role, mask) in [("analyst-test", "analyst", true), ("dba-test", "dba", false)] {
        world.psql(&world.through(role), &[sql]);
        let begun = Instant::now();
        // The recorder gathers what comes for a moment before it writes.
        let shown = loop {
            match asked(subject) {
                (Some(0), shown) => break shown,
                (_, shown) => assert!(begun.elapsed() < Duration::from_secs(10), "{shown:?}"),
            }
            sleep(Duration::from_millis(100));
        };
        let told: serde_json::Value = serde_json::from_str(&shown.out).expect("JSON");
        assert_eq!(told["roles"], serde_json::json!([role]), "{told}");
        assert!(
            told["roles_from"].as_str().is_some_and(|from| from.starts_with(&format!("of {subject} of "))),
            "{told}"
        );
        assert_eq!(told["statements"][0]["columns"][0]["mask"] != "as it is", mask, "{told}");
    }
    let (status, shown) = asked("zoe");
    assert_eq!(status, Some(2), "{shown:?}");
    shown.must_print("`zoe` is no role of this policy").must_print("nobody of this name has had a session");
}

fn unknown_resource(world: &World) {
    let configuration = world.place.configuration().display().to_string();
    let asks = ["explain", "--as", "dba", "--resource", "shpo", "--config", &configuration, "select 1"];
    let (status, shown) = policy_command(world, &asks);
    assert_eq!(status, Some(78), "{shown:?}");
    shown.must_complain("the configuration has no resource `shpo`; it has shop");
}

const HEAD: &str = "[[role]]\nname = \"a\"\n[[grant]]\nto = [\"a\"]\nresources = [\"*\"]\neffects = [\"read\"]\n\n";

/// Checks a policy that masks `columns`, with the world's configuration.
fn check(world: &World, columns: &str, resources: &str, more: &[&str]) -> (Option<i32>, Shown) {
    let text = format!("{HEAD}[[mask]]\nname = \"m\"\naction = \"hash\"\ncolumns = [{columns}]\n{resources}");
    let path = world.directory.0.join("checked.toml");
    fs::write(&path, text).expect("a policy file");
    let (path, configuration) = (path.display().to_string(), world.place.configuration().display().to_string());
    policy_command(world, &[&["check", &path, "--config", &configuration][..], more].concat())
}

fn masks_that_exist(world: &World) {
    let rows = [
        ("\"customers.email\", \"public.customers.ssn\", \"customer_contacts.phone\"", "", "each of the 3 masked"),
        ("\"nowhere.email\"", "resources = [\"another\"]", "each of the 0 masked"),
    ];
    for (columns, resources, wanted) in rows {
        let (status, shown) = check(world, columns, resources, &["--resource", "shop"]);
        assert_eq!(status, Some(0), "{columns}: {shown:?}");
        shown.must_print(wanted);
    }
    let (status, shown) = check(world, "\"nowhere.email\"", "", &[]);
    assert_eq!(status, Some(0), "without --resource nobody is asked: {shown:?}");
    shown.must_print("no catalogue was asked");
}

fn masks_that_do_not(world: &World) {
    let rows = [
        ("custmers.email", "resource shop has no relation `custmers`", "did you mean `customers`?"),
        ("customers.emial", "`customers` of resource shop has no column `emial`", "did you mean `email`?"),
        ("customers.zzzzzz", "has no column `zzzzzz`", "its columns are id, name, email"),
        ("sales.orders.item", "schema `sales` of resource shop has no relation `orders`", "`public.orders`?"),
    ];
    for (column, message, help) in rows {
        let columns = format!("\"customers.id\", \"{column}\"");
        let (status, shown) = check(world, &columns, "", &["--resource", "shop"]);
        assert_eq!(status, Some(1), "{column}: {shown:?}");
        for said in [message, help, "checked.toml:11:28", "1 error\n"] {
            assert!(shown.err.contains(said), "{said}: {shown:?}");
        }
        let (status, shown) = check(world, &columns, "", &["--resource", "shop", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&shown.out).expect("JSON");
        let error = &json["errors"][0];
        assert_eq!((status, &error["line"], &error["column"]), (Some(1), &11.into(), &28.into()), "{json}");
    }
}

fn unreachable(world: &World) {
    let text = fs::read_to_string(world.place.configuration()).expect("a configuration");
    let port = tests::server::free_port().expect("a free port");
    let text = text.replace(&world.upstream.address, &format!("127.0.0.1:{port}"));
    let path = world.directory.0.join("elsewhere.toml");
    fs::write(&path, text).expect("a configuration");
    let path = path.display().to_string();
    let asks = ["explain", "--as", "dba", "--resource", "shop", "--config", &path, "select 1"];
    let (status, shown) = policy_command(world, &asks);
    assert_eq!(status, Some(2), "{shown:?}");
    assert!(!shown.err.contains(&world.upstream.password), "{shown:?}");
    shown.must_complain("the catalogue of resource shop cannot be read");
}
