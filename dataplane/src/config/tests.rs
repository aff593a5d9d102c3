use super::*;

const WHOLE: &str = r#"
    policy.file = "p"
    recording.directory = "r"
    issuer = [{ jwks_file = "j", issuer = "i", audience = "a", algorithms = ["ES256"] }]
    listener = [{ protocol = "postgres", address = "127.0.0.1:1", plaintext = "loopback" }]
    masking.hash_key = { env = "H" }
    [[resource]]
    name = "shop"
    protocol = "postgres"
    address = "127.0.0.1:2"
    database = "d"
    user = "u"
    credential = { env = "C" }
    [limits]
    plans_max = 16
"#;

fn error(written: &str, instead: &str) -> String {
    assert!(WHOLE.contains(written), "{written}");
    let text = WHOLE.replacen(written, instead, 1);
    let checked = parse(&text).map_err(|(line, what)| format!("{line}: {what}"));
    checked.and_then(|raw| check(raw, Path::new("."))).expect_err(instead)
}

#[test]
fn an_error_never_repeats_what_may_be_a_secret() {
    parse(WHOLE).map(|raw| check(raw, Path::new(".")).expect("a good configuration")).expect("good TOML");
    for (written, instead, expected) in [
        ("{ env = \"C\" }", "\"s3cret\"", "13: resource.credential must be { env = "),
        ("{ env = \"C\" }", "{ password = \"s3cret\" }", "13: resource.credential must be { env = "),
        ("{ env = \"C\" }", "{ env = [\"s3cret\"] }", "13: resource.credential must be { env = "),
        ("{ env = \"C\" }", "'s3cret", "13: "),
        ("{ env = \"C\" }", "{ env = \"C\" }\npassword = \"s3cret\"", "14: unknown field `password`"),
        ("{ env = \"H\" }", "\"s3cret\"", "6: masking.hash_key must be { env = "),
    ] {
        let error = error(written, instead);
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn host_names_and_absurd_limits_are_refused_with_what_to_write() {
    for (written, instead, expected) in [
        ("127.0.0.1:2", "db.example.com:5432", "names are not resolved yet"),
        ("plans_max = 16", "plans_max = 16\n[runtime]\nio = \"kqueue\"", "expected one of `auto`, `uring`, `epoll`"),
        ("plans_max = 16", "plans_max = 15", "limits.plans_max = 15 is not between 16 and 1000000"),
        ("plans_max = 16", "active_sessions_max = 100000000", "is not between 1 and 65536"),
        ("plans_max = 16", "statement_bytes_max = 1048577", "is not between 1024 and 1048576"),
        ("plans_max = 16", "[admin]\naddress = \"0.0.0.0:6433\"", "say allow_non_loopback = true"),
        ("\"loopback\" }", "\"loopback\", auth = \"Oauth\" }", "it can be \"password\" or \"oauth\""),
        ("\"loopback\" }", "\"loopback\", oauth_issuer = \"gone\" }", "must be the `issuer` of an [[issuer]]"),
        // An issuer that is known, and has no address.
        (
            "\"loopback\" }",
            "\"loopback\", oauth_issuer = \"i\" }",
            "listener 127.0.0.1:1: oauth_issuer = \"i\" must be",
        ),
        ("user = \"u\"", "user = \"u\"\noauth_issuer = \"gone\"", "resource shop: oauth_issuer = \"gone\" must be"),
        ("plans_max = 16", "login_timeout_s = 1e9", "must be a positive number of seconds, at most 3600"),
    ] {
        let error = error(written, instead);
        assert!(error.contains(expected), "{error}");
    }
}
