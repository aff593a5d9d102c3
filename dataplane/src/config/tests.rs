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
fn what_cannot_be_right_is_refused_with_what_to_write() {
    for (written, instead, expected) in [
        ("127.0.0.1:2", "db.example.com:5432", "name the authority of its certificate"),
        ("plans_max = 16", "plans_max = 16\n[runtime]\nio = \"kqueue\"", "expected one of `auto`, `uring`, `epoll`"),
        ("plans_max = 16", "plans_max = 15", "limits.plans_max = 15 is not between 16 and 1000000"),
        ("plans_max = 16", "active_sessions_max = 100000000", "is not between 1 and 65536"),
        ("plans_max = 16", "statement_bytes_max = 16777217", "is not between 1024 and 16777216"),
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

#[test]
fn the_examples_of_listeners_and_resources_are_sound() {
    #[derive(Deserialize)]
    struct Example {
        #[serde(default)]
        listener: Vec<listener::RawListener>,
        #[serde(default)]
        resource: Vec<resource::RawResource>,
    }
    let blocks = include_str!("../../CONFIG.md").split("```toml\n").skip(1);
    let examples = blocks.map(|rest| toml::from_str(rest.split("```").next().unwrap_or_default()).expect("an example"));
    let (mut doors, mut systems) = (Vec::new(), Vec::new());
    for Example { listener, resource } in examples {
        doors.extend(listener.into_iter().map(|l| listener::check(l, Path::new("")).expect("a sound listener")));
        systems.extend(resource.into_iter().map(|r| resource::check(r, Path::new("")).expect("a sound resource")));
    }
    assert!(doors.iter().any(|l| l.proxy_from.is_some()), "{doors:?}");
    assert!(systems.iter().any(|r| r.hosts.len() == 2 && r.tls.is_some()), "{systems:?}");
}

#[test]
fn a_listener_that_would_mislead_is_refused_with_what_to_write() {
    const WRITTEN: &str = "address = \"127.0.0.1:1\", plaintext = \"loopback\"";
    let socket = "address = \"/run/.s.PGSQL.5432\"";
    for (instead, expected) in [
        ("address = \"0.0.0.0:1\", plaintext = \"loopback\"", "needs a loopback address"),
        ("address = \"127.0.0.1:1\"", "give it tls = "),
        ("address = \"localhost:1\", plaintext = \"loopback\"", "no address to listen at"),
        ("address = \"127.0.0.1:1\", plaintext = \"yes\"", "it can be \"loopback\""),
        (&format!("{WRITTEN}, proxy_protocol = true"), "needs proxy_from = "),
        (&format!("{WRITTEN}, proxy_from = [\"10.0.0.0/8\"]"), "counts with proxy_protocol = true alone"),
        (&format!("{WRITTEN}, proxy_protocol = true, proxy_from = [\"10.0.0.1/8\"]"), "has bits behind its prefix"),
        (&format!("{WRITTEN}, unix_socket_mode = \"0770\""), "is for a unix-domain socket"),
        (&format!("{socket}, unix_socket_mode = \"rwx\""), "write octal digits"),
        (&format!("{socket}, unix_socket_mode = \"1777\""), "write octal digits"),
        (&format!("{socket}, tls = {{ certificate = \"c\", key = \"k\" }}"), "no TLS over a unix-domain socket"),
        (&format!("{socket}, proxy_protocol = true, proxy_from = [\"::1\"]"), "proxy_protocol is for TCP"),
        (&format!("{WRITTEN} }}, {{ protocol = \"postgres\", {WRITTEN}"), "two listeners have the address 127.0.0.1:1"),
        ("address = \"/run/wireward\"", "end it with /.s.PGSQL.5432"),
    ] {
        let error = error(WRITTEN, instead);
        assert!(error.contains(expected), "{instead}: {error}");
    }
}

#[test]
fn tls_is_the_default_unless_every_address_is_on_this_machine() {
    const WRITTEN: &str = "address = \"127.0.0.1:2\"";
    let resource = |instead: &str| {
        let text = WHOLE.replacen(WRITTEN, instead, 1);
        let raw = parse(&text).map_err(|(_, what)| what)?;
        check(raw, Path::new(".")).map(|config| config.resources[0].tls.is_some())
    };
    let unnamed = "name the authority of its certificate";
    let rows: [(&str, Result<bool, &str>); 10] = [
        (WRITTEN, Ok(false)),
        ("address = [\"127.0.0.1:2\", \"[::1]:2\", \"/run/.s.PGSQL.2\"]", Ok(false)),
        ("address = [\"127.0.0.1:2\", \"192.0.2.7:2\"]", Err(unnamed)),
        ("address = \"localhost:2\"", Err(unnamed)),
        ("address = \"localhost:2\"\ntls = \"disable\"", Ok(false)),
        ("address = \"db.example:2\"\ntls_ca = \"ca\"", Ok(true)),
        ("address = [\"db.example:2\", \"/run/.s.PGSQL.2\"]\ntls_ca = \"ca\"", Ok(true)),
        ("address = \"/run/.s.PGSQL.2\"\ntls_ca = \"ca\"", Err("no TLS over a unix-domain socket")),
        ("address = 5432", Err("must be \"host:port\" or a list of such")),
        ("address = []", Err("it can list 1 to 16")),
    ];
    for (instead, expected) in rows {
        match (resource(instead), expected) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{instead}"),
            (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{instead}: {found}"),
            (found, _) => panic!("{instead}: {found:?}"),
        }
    }
}
