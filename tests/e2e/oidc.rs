//! Logins with tokens of a real OpenID provider (npm oidc-provider): discovery, rotation of keys, a flood of unknown keys,
//! and providers that are away or not what they seem.

use std::fs;
use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use tests::gateway::{Gateway, Place};
use tests::issuer::{NAME, now_s};
use tests::provider::Provider;
use tests::server::free_port;
use tests::suite::{Case, run};
use tests::wire::{Message, Wire};
use tests::world::{Shown, World, wireward};

/// The gateway fetches keys no more often than this.
const FETCH_EVERY_MIN: Duration = Duration::from_secs(10);
/// Longer than a fetch and the wait for it may take.
const SOON: Duration = Duration::from_secs(15);
/// How long keys of the provider that goes away count.
const STALE_MAX: Duration = Duration::from_secs(12);
/// The client of the provider, and so the name in its tokens.
const CLIENT: &str = "nightly";

fn main() -> ExitCode {
    run(vec![
        Case::new("a_token_of_client_credentials_opens_a_session", client_credentials),
        Case::new("who_acts_for_whom_is_recorded_and_shown", actors_are_recorded),
        Case::new("keys_are_rotated_while_running", rotation),
        Case::new("a_flood_of_unknown_keys_makes_one_fetch_in_ten_seconds", flood),
        Case::new("a_login_waits_for_keys_no_longer_than_login_timeout", impatience),
        Case::new("an_issuer_whose_discovery_document_is_of_another_is_refused", wrong_issuer),
        Case::new("an_issuer_that_was_never_reached_lets_nobody_in", never_reached),
        Case::new("keys_of_an_issuer_that_went_away_count_for_the_stated_time", stale_keys),
        Case::new("other_issuers_do_not_mind", other_issuers),
    ])
}

/// A table of the configuration for one more issuer.
fn issuer(name: &str, more: &str) -> String {
    format!(
        "[[issuer]]\nissuer = \"{name}\"\naudience = \"wireward\"\nalgorithms = [\"ES256\"]\n\
         allow_loopback_http = true\nroles_claim = \"realm_access.roles\"\n{more}\n"
    )
}

/// A gateway beside the world's own, with more in its configuration. It starts though some issuers are away.
fn gateway(world: &World, name: &str, more: &str) -> (Place, Gateway) {
    world.another(name, |written| format!("{written}\n{more}"))
}

/// A gateway with issuers of every kind.
struct Scene {
    gateway: Gateway,
    place: Place,
    main: Mutex<Provider>,
    leaving: Mutex<Provider>,
    wrong: String,
    /// Nobody listens there.
    nobody: String,
}

impl Scene {
    fn get(world: &World) -> &'static Scene {
        static SCENE: OnceLock<Scene> = OnceLock::new();
        SCENE.get_or_init(|| Scene::start(world))
    }

    fn start(world: &World) -> Scene {
        let (main, leaving) = (Provider::start(), Provider::start());
        let wrong = format!("{}/wrong", main.issuer);
        let nobody = format!("http://127.0.0.1:{}", free_port().expect("a port"));
        let by_subject =
            format!("[[issuer.role]]\nrole = \"dba\"\nwhen = [{{ claim = \"sub\", equals = \"{CLIENT}\" }}]");
        let short = format!(
            "jwks_url = \"{}/jwks\"\nkeys_refresh_s = 10\nkeys_stale_max_s = {}",
            leaving.issuer,
            STALE_MAX.as_secs()
        );
        let issuers = [
            issuer(&main.issuer, &by_subject),
            issuer(&leaving.issuer, &short),
            issuer(&wrong, ""),
            issuer(&nobody, ""),
        ];
        let (place, gateway) = gateway(world, "oidc", &issuers.concat());
        Scene { gateway, place, main: Mutex::new(main), leaving: Mutex::new(leaving), wrong, nobody }
    }

    fn main(&self) -> MutexGuard<'_, Provider> {
        self.main.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn issuer_and_token(&self) -> (String, String) {
        let mut main = self.main();
        (main.issuer.clone(), main.token())
    }

    fn leaving(&self) -> MutexGuard<'_, Provider> {
        self.leaving.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn log_in(&self, user: &str, token: &str) -> Result<Wire, Message> {
        Wire::login(self.gateway.port, user, "shop", token.as_bytes())
    }

    #[track_caller]
    fn must_open(&self, what: &str, token: &str) {
        let mut wire = self.log_in(CLIENT, token).unwrap_or_else(|error| panic!("{what}: {}", told(&error)));
        wire.query("select 1");
        wire.until_ready();
    }

    #[track_caller]
    fn must_be_refused(&self, what: &str, token: &str, why: &str) {
        match self.log_in(CLIENT, token) {
            Ok(_) => panic!("{what} got in"),
            Err(error) => {
                assert_eq!(error.sqlstate(), "28000", "{what}: {}", told(&error));
                assert!(told(&error).contains(why), "{what}: expected {why:?}, got {:?}", told(&error));
            }
        }
    }

    fn evidence(&self, command: &str, arguments: &[&str]) -> Shown {
        let mut program = Command::new(wireward());
        program.arg(command).args(arguments).arg("--config").arg(self.place.configuration());
        Shown::of(program)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.log()).expect("the gateway's log")
    }
}

fn told(error: &Message) -> String {
    error.field(b'M').unwrap_or_default()
}

/// Claims that would do, were the signature right.
fn claims(issuer: &str) -> Value {
    json!({"iss": issuer, "aud": "wireward", "sub": CLIENT, "exp": now_s() + 600, "realm_access": {"roles": ["dba"]}})
}

/// A token of this issuer that is signed by somebody else, with a key of this name.
fn forged(world: &World, issuer: &str, key: &str) -> String {
    let header = Header { kid: Some(key.to_owned()), ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, &claims(issuer), &world.issuer.key).expect("signs")
}

fn client_credentials(world: &World) {
    let scene = Scene::get(world);
    let token = scene.main().token();
    scene.must_open("a token of client_credentials", &token);
    // Roles of the nested claim and of the rule: the session may act as each.
    for role in ["analyst", "dba"] {
        assert!(scene.log_in(role, &token).is_ok(), "the token carries {role}");
    }
    scene.log_in("agent", &token).err().expect("the token does not carry the role agent");
}

fn actors_are_recorded(world: &World) {
    let scene = Scene::get(world);
    scene.must_open("a token with actors", &scene.main().token());
    let row = (0..50).find_map(|_| {
        sleep(Duration::from_millis(100));
        let listed = scene.evidence("sessions", &[]).out;
        listed.lines().find(|line| line.contains(CLIENT)).map(str::to_owned)
    });
    let row = row.expect("the session is listed");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[3..5], [CLIENT, "crew-sales,scheduler"], "{row}");
    let open = scene.evidence("replay", &[cells[0]]).must_print("\"subject\":\"nightly\"");
    open.must_print(
        r#""actors":[{"issuer":null,"subject":"crew-sales"},{"issuer":"https://cron.test","subject":"scheduler"}]"#,
    );
}

fn rotation(world: &World) {
    let scene = Scene::get(world);
    let old = scene.main().token();
    scene.must_open("before", &old);
    scene.main().ask("rotate");
    let new = scene.main().token();
    let start = Instant::now();
    scene.must_open("a token of the new key", &new);
    assert!(start.elapsed() < SOON, "waited {:?}", start.elapsed());
    // It was remembered, too.
    scene.must_be_refused("a token of the key that is gone", &old, "unknown key");
    let start = Instant::now();
    scene.must_open("the new key is known by now", &new);
    assert!(start.elapsed() < Duration::from_secs(2), "waited {:?}", start.elapsed());
}

fn flood(world: &World) {
    let scene = Scene::get(world);
    let (issuer, honest) = scene.issuer_and_token();
    let before = scene.main().asked_ms().len();
    let start = Instant::now();
    while start.elapsed() < FETCH_EVERY_MIN + Duration::from_secs(2) {
        let ask = |n: usize| {
            let mut wire = Wire::connect(scene.gateway.port);
            wire.startup(&[("user", CLIENT), ("database", "shop")]);
            assert_eq!(wire.expect().kind, b'R');
            wire.send(b'p', &[forged(world, &issuer, &format!("k{n}")).as_bytes(), b"\0"].concat());
            wire
        };
        // More than may wait, so that some are answered at once.
        let mut waiting: Vec<Wire> = (0..300).map(ask).collect();
        let since = Instant::now();
        scene.must_open("an honest client in the midst", &honest);
        assert!(since.elapsed() < Duration::from_secs(2), "honest clients waited {:?}", since.elapsed());
        for wire in &mut waiting {
            let answer = wire.expect();
            assert_eq!((answer.kind, &*answer.sqlstate()), (b'E', "28000"), "{}", told(&answer));
        }
    }
    let asked_ms = scene.main().asked_ms();
    let most = 1 + (start.elapsed().as_secs() / FETCH_EVERY_MIN.as_secs()) as usize;
    let fetches = asked_ms.len() - before;
    println!("{fetches} fetches in {:?}", start.elapsed());
    assert!((1..=most).contains(&fetches), "{fetches} fetches in {:?}", start.elapsed());
    let gap_ms = asked_ms.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(u64::MAX);
    assert!(gap_ms + 50 >= FETCH_EVERY_MIN.as_millis() as u64, "keys were asked for twice in {gap_ms} ms");
}

fn impatience(world: &World) {
    let scene = Scene::get(world);
    let (main, honest) = scene.issuer_and_token();
    let more = format!("{}[limits]\nlogin_timeout_s = 1\n", issuer(&main, ""));
    let (_place, gateway) = gateway(world, "impatient", &more);
    let log_in = |token: &str| Wire::login(gateway.port, CLIENT, "shop", token.as_bytes());
    let asked = scene.main().asked_ms().len();
    let start = Instant::now();
    let refused = log_in(&forged(world, &main, "k")).err().expect("a forged token gets in");
    assert_eq!(refused.sqlstate(), "57014", "{}", told(&refused));
    assert!(start.elapsed() < Duration::from_secs(3), "waited {:?}", start.elapsed());
    // Another session is in its place when the keys come for the one that has gone.
    let mut other = log_in(&honest).unwrap_or_else(|error| panic!("{}", told(&error)));
    while scene.main().asked_ms().len() == asked {
        assert!(start.elapsed() < SOON, "no keys were fetched");
        sleep(Duration::from_millis(100));
    }
    sleep(Duration::from_millis(200));
    other.query("select 1");
    other.until_ready();
}

fn wrong_issuer(world: &World) {
    let scene = Scene::get(world);
    let token = scene.main().ask(&format!("sign {}", claims(&scene.wrong)));
    let token = token.as_str().expect("a token");
    scene.must_be_refused("a token of an issuer with another's document", token, "keys cannot be fetched");
    assert!(scene.log().contains("of another issuer"), "the operator is told: {}", scene.log());
    // The same key under its own issuer counts, so nothing else was wrong.
    let own = scene.main().issuer.clone();
    let token = scene.main().ask(&format!("sign {}", claims(&own)));
    scene.must_open("a token of its own issuer", token.as_str().expect("a token"));
    let checked = scene.evidence("check-config", &[]);
    assert!(!checked.success && checked.err.contains(&scene.wrong), "{checked:?}");
}

fn never_reached(world: &World) {
    let scene = Scene::get(world);
    let start = Instant::now();
    scene.must_be_refused("an issuer that is away", &forged(world, &scene.nobody, "k"), "keys cannot be fetched");
    assert!(start.elapsed() < Duration::from_secs(2), "waited {:?} for nothing", start.elapsed());
    let line = format!("issuer {}: its keys cannot be fetched", scene.nobody);
    assert_eq!(scene.log().matches(&line).count(), 1, "the operator is told once: {}", scene.log());
}

fn stale_keys(world: &World) {
    let scene = Scene::get(world);
    let tokens = [(); 3].map(|()| scene.leaving().token());
    scene.must_open("while the issuer is there", &tokens[0]);
    scene.leaving().ask("down");
    let start = Instant::now();
    scene.must_open("a token that was seen before", &tokens[0]);
    scene.must_open("one that was not", &tokens[1]);
    sleep(STALE_MAX + Duration::from_secs(1) - start.elapsed());
    scene.must_be_refused("a token that was remembered", &tokens[0], "keys cannot be fetched");
    scene.must_be_refused("one that was never seen", &tokens[2], "keys cannot be fetched");
    scene.leaving().ask("up");
    let start = Instant::now();
    while scene.log_in(CLIENT, &tokens[2]).is_err() {
        assert!(start.elapsed() < SOON, "the issuer is back and nobody gets in: {}", scene.log());
        sleep(Duration::from_millis(200));
    }
    assert!(scene.log().contains("can be fetched again"), "{}", scene.log());
}

fn other_issuers(world: &World) {
    let scene = Scene::get(world);
    let token = world.issuer.token("ann", &["analyst"]).expect("signs");
    let mut wire = scene.log_in(NAME, &token).unwrap_or_else(|error| panic!("{}", told(&error)));
    wire.query("select 1");
    wire.until_ready();
    // Their `roles` claim is not this one's.
    let nested = json!({"iss": "http://wireward.demo", "aud": "wireward", "sub": "x", "preferred_username": CLIENT,
        "exp": now_s() + 600, "realm_access": {"roles": ["dba"]}});
    let token = world.issuer.sign(&nested).expect("signs");
    scene.must_be_refused("roles in another issuer's place", &token, "no role of the token");
}
