//! Logins by SASL OAUTHBEARER: libpq 18 with tokens of a real OpenID provider (npm oidc-provider), the discovery round, what
//! stays of it in the evidence, and clients that are rude.

use std::fs;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, OnceLock};
use std::thread::sleep;
use std::time::Duration;

use tests::gateway::{Gateway, Place};
use tests::provider::Provider;
use tests::suite::{Case, run};
use tests::wire::{Message, Wire};
use tests::world::{Login, World};

/// The client of the provider, and so the name in its tokens.
const CLIENT: &str = "nightly";
const LISTENER: &str = "protocol = \"postgres\"\naddress = \"127.0.0.1";

fn main() -> ExitCode {
    let mut cases = vec![
        Case::new("the_challenge_names_the_issuer_and_the_scope", challenge),
        Case::new("a_resource_may_send_its_clients_to_another_issuer", challenge_of_resource),
        Case::new("a_refused_token_is_in_the_evidence_and_a_question_is_not", evidence),
        Case::new("a_token_is_found_in_no_file_of_the_gateway", no_trace),
        Case::new("psql_of_before_18_is_told_and_may_choose_the_password", old_client),
        Case::new("responses_in_pieces_and_with_more_behind_them_are_read_alike", pieces),
        Case::new("a_reload_changes_how_clients_log_in", reload),
    ];
    cases.extend(Case::of_script_with("oauth_cases.py", |world, command| Scene::get(world).prepare(command)));
    run(cases)
}

/// A gateway whose clients log in by SASL, beside one with passwords, and the provider that both know.
struct Scene {
    gateway: Gateway,
    place: Place,
    passwords: Gateway,
    provider: Mutex<Provider>,
    issuer: String,
}

impl Scene {
    fn get(world: &World) -> &'static Scene {
        static SCENE: OnceLock<Scene> = OnceLock::new();
        SCENE.get_or_init(|| Scene::start(world))
    }

    fn start(world: &World) -> Scene {
        let provider = Provider::start();
        let issuer = provider.issuer.clone();
        let known = format!(
            "\n[[issuer]]\nissuer = \"{issuer}\"\naudience = \"wireward\"\nalgorithms = [\"ES256\"]\n\
             allow_loopback_http = true\nroles_claim = \"realm_access.roles\"\noauth_scope = \"shop.read\"\n"
        );
        let listener = format!("auth = \"oauth\"\n{LISTENER}");
        let (place, gateway) = world.another("oauth", |c| c.replacen(LISTENER, &listener, 1) + &known);
        let (_, passwords) = world.another("passwords", |c| c + &known);
        Scene { gateway, place, passwords, provider: Mutex::new(provider), issuer }
    }

    fn ask(&self, command: &str) -> String {
        let answer = self.provider.lock().unwrap_or_else(|e| e.into_inner()).ask(command);
        answer.as_str().unwrap_or_else(|| panic!("{command}: {answer}")).to_owned()
    }

    fn prepare(&self, command: &mut Command) {
        command
            .env("GATEWAY_PORT", self.gateway.port.to_string())
            .env("PASSWORD_PORT", self.passwords.port.to_string());
        command.env("GATEWAY_ROOT", self.place.root_certificate());
        command.env("OIDC_ISSUER", &self.issuer).env("OIDC_SECRET", self.ask("secret"));
        // libpq takes an issuer without TLS only for trying out.
        command.env("PGOAUTHDEBUG", "UNSAFE");
    }
}

/// A SASLInitialResponse for this mechanism's message.
fn initial(first: &[u8]) -> Vec<u8> {
    let length = u32::try_from(first.len()).expect("it is short").to_be_bytes();
    [b"OAUTHBEARER\0".as_slice(), &length, first].concat()
}

fn bearer(token: &str) -> Vec<u8> {
    initial(format!("n,,\x01auth=Bearer {token}\x01\x01").as_bytes())
}

/// A connection that was offered the mechanism.
fn offered(port: u16, database: &str) -> Wire {
    let mut wire = Wire::connect(port);
    wire.startup(&[("user", CLIENT), ("database", database)]);
    let asked = wire.expect();
    assert_eq!((asked.kind, &asked.body[..]), (b'R', &b"\0\0\0\x0aOAUTHBEARER\0\0"[..]));
    wire
}

/// The JSON of the challenge that comes next.
fn challenged(wire: &mut Wire) -> serde_json::Value {
    let challenge = wire.expect();
    let json = challenge.body.strip_prefix(b"\0\0\0\x0b").unwrap_or_else(|| panic!("{challenge:?}"));
    serde_json::from_slice(json).expect("JSON")
}

fn refused(wire: &mut Wire) -> Message {
    let error = wire.expect();
    assert_eq!((error.kind, error.sqlstate().as_str()), (b'E', "28000"), "{error:?}");
    assert!(wire.is_closed_clean());
    error
}

fn challenge(world: &World) {
    let scene = Scene::get(world);
    let discovery = format!("{}/.well-known/openid-configuration", scene.issuer);
    let expected =
        serde_json::json!({"status": "invalid_token", "openid-configuration": discovery, "scope": "shop.read"});
    for first in [initial(b"n,,\x01auth=\x01\x01"), bearer("x")] {
        for database in ["shop", "no such database"] {
            let mut wire = offered(scene.gateway.port, database);
            wire.send(b'p', &first);
            assert_eq!(challenged(&mut wire), expected);
            wire.send(b'p', b"\x01");
            refused(&mut wire);
        }
    }
}

fn challenge_of_resource(world: &World) {
    let scene = Scene::get(world);
    let known = "\n[[issuer]]\nissuer = \"https://idp.test/staff/\"\naudience = \"wireward\"\nalgorithms = [\"ES256\"]\n\
                 jwks_file = \"jwks.json\"\noauth_scope = \"\"\n";
    let listener = format!("auth = \"oauth\"\noauth_issuer = \"{}\"\n{LISTENER}", scene.issuer);
    let here = fs::read_to_string(scene.place.configuration()).expect("a configuration");
    let both = here[here.find("\n[[issuer]]\nissuer = \"http://127").expect("the provider")..].to_owned() + known;
    let (_place, gateway) = world.another("issuers", |c| {
        let c = c.replacen(LISTENER, &listener, 1);
        c.replacen("name = \"shop\"", "name = \"shop\"\noauth_issuer = \"https://idp.test/staff/\"", 1) + &both
    });
    let staff = "https://idp.test/staff/.well-known/openid-configuration";
    for (database, expected, scope) in [
        ("shop", staff, None),
        ("other", &format!("{}/.well-known/openid-configuration", scene.issuer), Some("shop.read")),
    ] {
        let mut wire = offered(gateway.port, database);
        wire.send(b'p', &initial(b"n,,\x01auth=\x01\x01"));
        let told = challenged(&mut wire);
        assert_eq!((told["openid-configuration"].as_str(), told["scope"].as_str()), (Some(expected), scope), "{told}");
    }
}

fn evidence(world: &World) {
    let scene = Scene::get(world);
    let (place, gateway) =
        world.another("evidence", |c| c.replacen(LISTENER, &format!("auth = \"oauth\"\n{LISTENER}"), 1));
    let mut told = offered(gateway.port, "first");
    told.send(b'p', &initial(b"n,,\x01auth=\x01\x01"));
    challenged(&mut told);
    told.send(b'p', b"\x01");
    let said = refused(&mut told).field(b'M').unwrap_or_default();
    assert!(said.contains("get one from the issuer that was named"), "{said}");
    let token = scene.ask("token");
    for (database, end) in [("second", true), ("third", false)] {
        let mut wire = offered(gateway.port, database);
        wire.send(b'p', &bearer(&token));
        challenged(&mut wire);
        match end {
            true => {
                wire.send(b'p', b"\x01");
                refused(&mut wire);
            }
            false => assert!(wire.is_ended()),
        }
    }
    let listed = (0..50).find_map(|_| {
        sleep(Duration::from_millis(100));
        let shown = world.evidence_of(&place, "sessions", &["--refused", "--json"]).must_succeed().out;
        shown.contains("third").then_some(shown)
    });
    let listed = listed.expect("the refused logins are listed");
    assert!(listed.contains("second") && !listed.contains("first"), "{listed}");
    assert_eq!(listed.matches("the token is of another issuer").count(), 2, "{listed}");
}

fn no_trace(world: &World) {
    let scene = Scene::get(world);
    let token = scene.ask("token");
    let mut wire = offered(scene.gateway.port, "shop");
    wire.send(b'p', &bearer(&token));
    wire.until_ready();
    wire.query("select 'in'");
    wire.until_ready();
    let mut wire = offered(scene.gateway.port, "payroll");
    wire.send(b'p', &bearer(&token));
    challenged(&mut wire);
    wire.send(b'p', &bearer(&token));
    refused(&mut wire);
    sleep(Duration::from_millis(500));
    let signature = token.rsplit('.').next().expect("three parts").as_bytes();
    let mut files = vec![scene.place.log()];
    files.extend(fs::read_dir(scene.place.recordings()).expect("recordings").flatten().map(|entry| entry.path()));
    for file in files.into_iter().filter(|path| path.is_file()) {
        let bytes = fs::read(&file).expect("it is readable");
        assert!(!bytes.windows(signature.len()).any(|w| w == signature), "the token is in {}", file.display());
    }
}

fn old_client(world: &World) {
    let scene = Scene::get(world);
    let login = Login { port: scene.gateway.port, ..world.through("analyst") };
    world.psql(&login, &["select 1"]).must_complain("SASL authentication mechanisms are supported");
    let mut command = world.tool(&login, "psql", &["-XAtqc", "select 'in'"]);
    command.env("PGOPTIONS", "-c wireward.auth=password");
    tests::world::Shown::of(command).must_succeed().must_print("in");
}

fn pieces(world: &World) {
    let scene = Scene::get(world);
    let token = scene.ask("token");
    let message = tests::wire::frame(b'p', &bearer(&token));
    for behind in [&b""[..], &tests::wire::frame(b'Q', b"select 7\0")] {
        let mut wire = offered(scene.gateway.port, "shop");
        for piece in [&message[..], behind].concat().chunks(61) {
            wire.raw(piece);
            sleep(Duration::from_millis(1));
        }
        wire.until_ready();
        if !behind.is_empty() {
            let answer = wire.until_ready();
            assert_eq!(answer[1].row(), [Some(b"7".to_vec())], "{answer:?}");
        }
    }
}

fn reload(world: &World) {
    let (place, gateway) = world.another("turned", |c| c);
    Wire::login(gateway.port, tests::issuer::NAME, "shop", world.through("analyst").password.as_bytes()).expect("in");
    let written = fs::read_to_string(place.configuration()).expect("a configuration");
    let fresh = place.configuration().with_extension("new");
    fs::write(&fresh, written.replacen(LISTENER, &format!("auth = \"oauth\"\n{LISTENER}"), 1)).expect("written");
    fs::rename(fresh, place.configuration()).expect("replaced");
    let turned = (0..100).any(|_| {
        sleep(Duration::from_millis(100));
        let mut wire = Wire::connect(gateway.port);
        wire.startup(&[("user", CLIENT), ("database", "shop")]);
        wire.expect().body.starts_with(b"\0\0\0\x0a")
    });
    assert!(turned, "new clients are still asked for a password");
}
