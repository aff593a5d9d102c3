use super::*;
use crate::statement::Effect;

fn errors_of(text: &str) -> String {
    let errors = check(&[Source { name: "p.toml".into(), text: text.into() }]).expect_err(text);
    errors.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("")
}

const ROLE: &str = "[[role]]\nname = \"agent\"\n";
const GRANT: &str = "[[grant]]\nto = [\"agent\"]\nresources = [\"shop\"]\neffects = [\"read\"]\n";

/// The head is two sections of six lines, so that each row starts on line 7.
fn errors_after_head(rest: &str) -> String {
    errors_of(&format!("{ROLE}{GRANT}{rest}"))
}

#[test]
fn errors_say_what_where_and_how_to_mend_it() {
    let rows = [
        (
            "[[rule]]\nname = \"r\"\naction = \"block\"\nefects = [\"ddl\"]\n",
            "error: unknown key `efects` in [[rule]]
  --> p.toml:10:1
   |
10 | efects = [\"ddl\"]
   | ^^^^^^
   = help: did you mean `effects`?
",
        ),
        (
            "[[rule]]\nname = \"r\"\naction = \"block\"\neffects = [\"ddl\", \"delte\"]\n",
            "error: unknown effect `delte`
  --> p.toml:10:19
   |
10 | effects = [\"ddl\", \"delte\"]
   |                   ^^^^^^^
   = help: did you mean `delete`?
",
        ),
        (
            "[[rule]]\nname = \"r\"\naction = \"block\"\n[[mask]]\nname = \"r\"\ncolumns = [\"a.b\"]\naction = \"null\"\n",
            "error: the name `r` is used twice
  --> p.toml:11:8
   |
11 | name = \"r\"
   |        ^^^
   = help: the first one is at p.toml:7
",
        ),
        (
            "[[rule]]\nname = \"r\"\naction = \"block\"\nto = [\"agnet\"]\n",
            "error: unknown role `agnet`
  --> p.toml:10:7
   |
10 | to = [\"agnet\"]
   |       ^^^^^^^
   = help: did you mean `agent`?
",
        ),
        (
            "[[rule]]\nname = \"r\"\naction = \"block\"\nrelations = [\"audit.\"]\n",
            "error: `audit.` has an empty part; a name is `name` or `schema.name`
  --> p.toml:10:14
   |
10 | relations = [\"audit.\"]
   |              ^^^^^^^^
",
        ),
        (
            "[[rule]]\nname = \"r\"\naction = \"block\"\neffects = \"ddl\"\n",
            "error: `effects` must be a list of strings, not a string
  --> p.toml:10:11
   |
10 | effects = \"ddl\"
   |           ^^^^^
   = help: write effects = [\"…\"]
",
        ),
        (
            "[[mask]]\nname = \"m\"\ncolumns = [\"email\"]\naction = \"redact\"\n",
            "error: `email` is not a column
 --> p.toml:9:12
  |
9 | columns = [\"email\"]
  |            ^^^^^^^
  = help: write `relation.column` or `schema.relation.column`, as `customers.email`
",
        ),
        (
            "[[rule]]\nname = \"r\"\naction = \"hold\"\n",
            "error: `hold` is not enforced yet
 --> p.toml:9:10
  |
9 | action = \"hold\"
  |          ^^^^^^
  = help: use `block` with a `hint` that says whom to ask
",
        ),
    ];
    for (rest, expected) in rows {
        assert_eq!(errors_after_head(rest), expected);
    }
}

#[test]
fn an_empty_policy_is_an_error() {
    let expected = "error: the policy grants nothing: nobody could get in
 --> p.toml:1:1
  = help: add a [[role]] and a [[grant]]
";
    for text in ["", "# nothing\n", ROLE] {
        assert_eq!(errors_of(text), expected, "{text}");
    }
}

#[test]
fn every_other_slip_is_an_error_too() {
    let rows = [
        ("[[rles]]\nname = \"x\"\n", "unknown section `rles`"),
        ("[rule]\nname = \"x\"\n", "`rule` must be written as [[rule]]"),
        ("x = 1\n", "unknown key `x` in [[grant]]"),
        ("functions = [\"st_*\"]\n", "`effects` has no `call`"),
        ("[[rule]]\naction = \"block\"\n", "[[rule]] needs `name`"),
        ("[[rule]]\nname = \"r\"\n", "[[rule]] needs `action`"),
        ("[[rule]]\nname = \"r\"\naction = \"blok\"\n", "did you mean `block`?"),
        ("[[rule]]\nname = 3\naction = \"block\"\n", "`name` must be a string, not a number"),
        ("[[rule]]\nname = \"\"\naction = \"block\"\n", "cannot name a rule"),
        ("[[rule]]\nname = \"a b\"\naction = \"block\"\n", "cannot name a rule"),
        ("[[rule]]\nname = \"opaque\"\naction = \"block\"\n", "stands for a built-in verdict"),
        ("[[rule]]\nname = \"r\"\naction = \"block\"\nto = []\n", "`to` is an empty list"),
        ("[[rule]]\nname = \"r\"\naction = \"block\"\neffects = [\"*\"]\n", "`*` is for grants only"),
        ("[[rule]]\nname = \"r\"\naction = \"block\"\neffects = [\"SELECT\"]\n", "did you mean `read`?"),
        ("[[rule]]\nname = \"r\"\naction = \"block\"\neffects = [1]\n", "must be a list of strings, not a number"),
        (
            "[[rule]]\nname = \"r\"\naction = \"block\"\nwithout_where = \"yes\"\n",
            "must be true or false, not a string",
        ),
        ("[[rule]]\nname = \"r\"\naction = \"block\"\nrelations = [\"Orders\"]\n", "write `orders`"),
        ("[[rule]]\nname = \"r\"\naction = \"block\"\nexcept = [\"nobody\"]\n", "the roles are `agent`"),
        ("[[rule]]\nname = \"r\"\naction = \"block\"\nresources = [\"sh*\"]\n", "`sh*` is not the name of a resource"),
        ("[[mask]]\nname = \"m\"\ncolumns = [\"c.*\"]\naction = \"null\"\n", "a mask names single columns"),
        ("[[mask]]\nname = \"m\"\ncolumns = [\"a.b.c.d\"]\naction = \"null\"\n", "is not a column"),
        ("[[mask]]\nname = \"m\"\ncolumns = [\"a.b\"]\naction = \"blank\"\n", "`last4`, `hash`, `redact`, `null`"),
        ("[[mask]]\nname = \"m\"\naction = \"null\"\n", "[[mask]] needs `columns`"),
        ("[[detect]]\nname = \"d\"\nkinds = [\"ssn\"]\naction = \"null\"\n", "the kinds are `payment-card`"),
        ("[[detect]]\nname = \"d\"\nkinds = [\"e-mail\"]\naction = \"null\"\n", "did you mean `email`?"),
        ("[[role]]\nname = \"agent\"\n", "the role `agent` is defined twice"),
        ("[[role]]\nname = \"other\"\nclaims = [\"agent\"]\n", "already gives the role `agent`"),
        ("[[rule]]\nname = \"r\"\nname = \"s\"\naction = \"block\"\n", "not TOML"),
        ("[[rule\n", "not TOML"),
    ];
    for (rest, expected) in rows {
        let shown = errors_after_head(rest);
        assert!(shown.contains(expected), "{rest}\n{shown}");
        assert!(shown.contains("--> p.toml:"), "{shown}");
    }
}

#[test]
fn all_errors_are_shown_in_the_order_of_the_text() {
    let text =
        format!("{ROLE}{GRANT}[[rule]]\nname = \"r\"\nto = [\"x\"]\nefects = [\"ddl\"]\n[[mask]]\nname = \"r\"\n");
    let errors = check(&[Source { name: "p.toml".into(), text }]).expect_err("errors");
    let lines: Vec<usize> = errors.iter().map(|e| e.line).collect();
    assert_eq!(lines, [7, 9, 10, 11, 11, 12], "{errors:#?}");
}

#[test]
fn a_role_of_one_file_is_known_in_another() {
    let sources =
        [Source { name: "a.toml".into(), text: GRANT.into() }, Source { name: "b.toml".into(), text: ROLE.into() }];
    let policy = check(&sources).expect("the files belong together");
    assert_eq!(policy.grants[0].origin, Origin { file: "a.toml".into(), line: 1 });
    assert_eq!(policy.roles[0].claims, ["agent"], "a role's own name is its claim");
}

#[test]
fn more_roles_than_bits_are_refused() {
    let roles: String = (0..=ROLES_MAX).map(|n| format!("[[role]]\nname = \"r{n}\"\n")).collect();
    assert!(errors_of(&roles).contains("more than 128 roles"));
}

#[test]
fn star_grants_everything_but_opaque() {
    let grant = GRANT.replace("\"read\"", "\"*\"");
    let policy = check(&[Source { name: "p.toml".into(), text: format!("{ROLE}{grant}") }]).expect("right");
    assert_eq!(EffectSet::ALL.minus(policy.grants[0].effects), EffectSet::of(&[Effect::Opaque]));
}

#[test]
fn the_schema_has_the_keys_that_the_check_takes() {
    let schema = schema();
    for kind in ["role", "grant", "rule", "mask", "detect"] {
        let shown = errors_after_head(&format!("[[{kind}]]\nzzzzzzzz = 1\n"));
        let listed = shown.split(&format!("[[{kind}]] takes ")).nth(1).expect(kind).lines().next().expect("a line");
        let mut taken: Vec<&str> = listed.split(", ").map(|key| key.trim_matches('`')).collect();
        let properties = schema["properties"][kind]["items"]["properties"].as_object().expect(kind);
        let mut offered: Vec<&str> = properties.keys().map(String::as_str).collect();
        taken.sort_unstable();
        offered.sort_unstable();
        assert_eq!(taken, offered, "{kind}");
        let required = schema["properties"][kind]["items"]["required"].as_array().expect(kind);
        for key in required.iter().filter_map(serde_json::Value::as_str) {
            assert!(shown.contains(&format!("[[{kind}]] needs `{key}`")), "{kind}.{key}\n{shown}");
        }
    }
}

#[test]
fn the_files_of_a_directory_are_merged_in_the_order_of_their_names() {
    let directory = std::env::temp_dir().join(format!("wireward-policy-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    for (name, text) in [("b.toml", ROLE), ("a.toml", GRANT), ("notes.txt", "not a policy")] {
        std::fs::write(directory.join(name), text).expect("a file");
    }
    let loaded = load_dir(&directory);
    let missing = load(&directory.join("absent.toml"));
    std::fs::remove_dir_all(&directory).expect("removed");
    let (sources, _) = loaded.expect("loads");
    let names: Vec<&str> = sources.iter().filter_map(|source| source.name.rsplit('/').next()).collect();
    assert_eq!(names, ["a.toml", "b.toml"]);
    assert!(missing.expect_err("absent")[0].message.contains("cannot be read"));
}
