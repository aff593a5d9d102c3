//! Tokens that must not open a session, one row each: refused with 28000 or 28P01, then closed in an orderly way.

use aws_lc_rs::hmac;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::process::ExitCode;
use tests::gateway::Place;
use tests::issuer::{Issuer, NAME, now_s};
use tests::suite::{Case, run};
use tests::wire::{Message, Wire};
use tests::world::World;

fn main() -> ExitCode {
    let mut cases = vec![
        Case::new("honest_tokens_open_a_session", honest_tokens),
        Case::new("tokens_with_spoiled_claims_are_refused", spoiled_claims),
        Case::new("tokens_with_spoiled_headers_are_refused", spoiled_headers),
        Case::new("tokens_that_are_no_tokens_are_refused", no_tokens),
        Case::new("a_user_that_the_token_does_not_name_is_refused", wrong_user),
        Case::new("a_database_that_does_not_exist_is_refused", wrong_database),
        Case::new("forbidden_startup_parameters_are_refused_by_name", startup_parameters),
        Case::new("a_query_before_the_password_is_not_run", query_before_password),
        Case::new("refusals_do_not_tell_which_claim_was_wrong_word_for_word", refusals_keep_quiet),
    ];
    cases.push(Case::new(
        "a_refused_login_is_in_the_evidence_with_names_address_and_reason_but_no_token",
        refusals_are_recorded,
    ));
    cases.push(Case::new("a_flood_of_refused_logins_is_counted_and_does_not_fill_the_disk", flood_is_counted));
    cases.push(Case::new("honest_clients_get_in_after_all_of_this", honest_tokens));
    run(cases)
}

fn try_token(world: &World, token: &[u8]) -> Result<Wire, Message> {
    Wire::login(world.gateway.port, NAME, "shop", token)
}

#[track_caller]
fn must_open(world: &World, what: &str, token: &str) {
    let mut wire = try_token(world, token.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    wire.query("select 1");
    wire.until_ready();
}

/// Refused with an identity error, and hung up on without a reset.
#[track_caller]
fn must_be_refused(world: &World, what: &str, token: &[u8]) {
    let mut wire = Wire::connect(world.gateway.port);
    wire.startup(&[("user", NAME), ("database", "shop")]);
    assert_eq!(wire.expect().kind, b'R', "{what}");
    wire.send(b'p', &[token, b"\0"].concat());
    let answer = wire.next().unwrap_or_else(|| panic!("{what}: hung up on without a word"));
    assert_eq!(answer.kind, b'E', "{what} got in: {answer:?}");
    assert!(["28000", "28P01"].contains(&answer.sqlstate().as_str()), "{what}: {answer:?}");
    assert_eq!(answer.field(b'S').as_deref(), Some("FATAL"), "{what}");
    assert!(wire.is_closed_clean(), "{what}: the connection is not closed in an orderly way");
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = Issuer::claims("ann", &["analyst"]);
    change(&mut claims);
    claims
}

fn without(claim: &str) -> Value {
    with(|claims| _ = claims.as_object_mut().and_then(|map| map.remove(claim)))
}

fn honest_tokens(world: &World) {
    let issuer = &world.issuer;
    must_open(world, "an honest token", &issuer.token("ann", &["analyst"]).expect("signs"));
    let array = with(|claims| claims["aud"] = json!(["elsewhere", "wireward"]));
    must_open(world, "our audience among others", &issuer.sign(&array).expect("signs"));
    let just_expired = with(|claims| claims["exp"] = json!(now_s() - 20));
    must_open(world, "expired 20 s ago, within the leeway of 60 s", &issuer.sign(&just_expired).expect("signs"));
}

fn spoiled_claims(world: &World) {
    let now = now_s();
    let rows: Vec<(&str, Value)> = vec![
        ("expired an hour ago", with(|claims| claims["exp"] = json!(now - 3600))),
        ("expired beyond the leeway", with(|claims| claims["exp"] = json!(now - 90))),
        ("exp as a string", with(|claims| claims["exp"] = json!("9999999999"))),
        ("exp negative", with(|claims| claims["exp"] = json!(-1))),
        ("exp null", with(|claims| claims["exp"] = Value::Null)),
        ("exp as an array", with(|claims| claims["exp"] = json!([9_999_999_999u64]))),
        ("no exp", without("exp")),
        ("exp in the year 31,000,000", with(|claims| claims["exp"] = json!(978_307_200_000_000_u64))),
        ("exp in two days", with(|claims| claims["exp"] = json!(now + 2 * 86_400))),
        ("iat tomorrow", with(|claims| claims["iat"] = json!(now + 86_400))),
        ("iat as a string", with(|claims| claims["iat"] = json!("now"))),
        ("nbf without end", with(|claims| claims["nbf"] = json!(1e300))),
        ("events", with(|claims| claims["events"] = json!({"http://schemas.openid.net/event/backchannel-logout": {}}))),
        ("nbf in an hour", with(|claims| claims["nbf"] = json!(now + 3600))),
        ("nbf as a string", with(|claims| claims["nbf"] = json!("x"))),
        ("aud of another service", with(|claims| claims["aud"] = json!("payroll"))),
        ("aud as a longer word", with(|claims| claims["aud"] = json!("wireward-staging"))),
        ("aud as a part of the word", with(|claims| claims["aud"] = json!("wire"))),
        ("aud in capitals", with(|claims| claims["aud"] = json!("WIREWARD"))),
        ("aud array of others", with(|claims| claims["aud"] = json!(["payroll", "wireward2"]))),
        ("aud empty array", with(|claims| claims["aud"] = json!([]))),
        ("aud nested array", with(|claims| claims["aud"] = json!([["wireward"]]))),
        ("aud as an object", with(|claims| claims["aud"] = json!({"wireward": true}))),
        ("no aud", without("aud")),
        ("iss with a slash at the end", with(|claims| claims["iss"] = json!("http://wireward.demo/"))),
        ("iss over TLS", with(|claims| claims["iss"] = json!("https://wireward.demo"))),
        ("iss as an array", with(|claims| claims["iss"] = json!(["http://elsewhere", 1]))),
        ("no iss", without("iss")),
        ("no sub", without("sub")),
        ("empty sub", with(|claims| claims["sub"] = json!(""))),
        ("no roles", without("roles")),
        ("empty roles", with(|claims| claims["roles"] = json!([]))),
        ("unknown role", with(|claims| claims["roles"] = json!(["gardener"]))),
        ("roles as an object", with(|claims| claims["roles"] = json!({"analyst": true}))),
        ("role with a NUL", with(|claims| claims["roles"] = json!(["analyst\u{0}"]))),
        ("another name", with(|claims| claims["preferred_username"] = json!("someone"))),
        ("name in capitals", with(|claims| claims["preferred_username"] = json!("DEMO"))),
        ("a confusable name", with(|claims| claims["preferred_username"] = json!("d\u{435}mo"))),
        ("name as a number", with(|claims| claims["preferred_username"] = json!(7))),
    ];
    for (what, claims) in rows {
        let token = world.issuer.sign(&claims).expect("the issuer signs anything");
        must_be_refused(world, what, token.as_bytes());
    }
}

/// A compact token of exactly these parts. `sign` gets the text to be signed and returns the third part.
fn compact(header: &Value, claims: &str, sign: impl FnOnce(&[u8]) -> String) -> Vec<u8> {
    let text = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.as_bytes()));
    let signature = sign(text.as_bytes());
    format!("{text}.{signature}").into_bytes()
}

fn spoiled_headers(world: &World) {
    let claims = Issuer::claims("ann", &["analyst"]).to_string();
    let honestly =
        |text: &[u8]| jsonwebtoken::crypto::sign(text, &world.issuer.key, Algorithm::ES256).expect("the issuer signs");
    let good = json!({"alg": "ES256", "typ": "JWT", "kid": "demo-1"});
    let unspoiled = compact(&good, &claims, honestly);
    assert!(try_token(world, &unspoiled).is_ok(), "without spoiling, the hand-made token is good");
    for name in ["none", "None", "nOnE", "NONE", ""] {
        let header = json!({"alg": name, "typ": "JWT", "kid": "demo-1"});
        must_be_refused(world, &format!("alg {name:?}, no signature"), &compact(&header, &claims, |_| String::new()));
        must_be_refused(world, &format!("alg {name:?}, good signature"), &compact(&header, &claims, honestly));
    }
    for name in ["logout+jwt", "application/logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE", ""] {
        let header = json!({"alg": "ES256", "typ": name, "kid": "demo-1"});
        must_be_refused(world, &format!("typ {name:?}"), &compact(&header, &claims, honestly));
    }
    for name in ["jwt", "at+jwt", "application/at+jwt"] {
        let header = json!({"alg": "ES256", "typ": name, "kid": "demo-1"});
        assert!(try_token(world, &compact(&header, &claims, honestly)).is_ok(), "typ {name:?} is an identity's");
    }
    let other = Issuer::new().expect("a second issuer");
    let embedded = json!({"alg": "ES256", "kid": "demo-1", "jwk": other.jwks()["keys"][0]});
    let by_other = |text: &[u8]| jsonwebtoken::crypto::sign(text, &other.key, Algorithm::ES256).expect("signs");
    must_be_refused(world, "an embedded key", &compact(&embedded, &claims, by_other));
    must_be_refused(world, "another issuer's key", &compact(&good, &claims, by_other));
    let pointed = json!({"alg": "ES256", "kid": "demo-1", "jku": "http://127.0.0.1:1/jwks.json"});
    must_be_refused(world, "a key elsewhere", &compact(&pointed, &claims, by_other));
    let critical = json!({"alg": "ES256", "kid": "demo-1", "crit": ["exp"], "b64": false});
    must_be_refused(world, "a critical extension", &compact(&critical, &claims, honestly));
    for kid in ["", "demo-2", "../../dev/null", "' or '1'='1", "demo-1\u{0}"] {
        let header = json!({"alg": "ES256", "kid": kid});
        must_be_refused(world, &format!("kid {kid:?}"), &compact(&header, &claims, honestly));
    }
    let long = json!({"alg": "ES256", "kid": "k".repeat(1 << 20)});
    assert!(try_token(world, &compact(&long, &claims, honestly)).is_err(), "a kid of 1 MiB got in");
    symmetric_with_public_key(world, &claims);
}

/// HS256 with the public key as the secret, in each form in which a careless verifier may hold it.
fn symmetric_with_public_key(world: &World, claims: &str) {
    let jwks = world.issuer.jwks();
    let key = &jwks["keys"][0];
    let forms = [
        jwks.to_string(),
        key.to_string(),
        text_of(&key["x"]),
        format!("{}{}", text_of(&key["x"]), text_of(&key["y"])),
    ];
    for secret in forms {
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": "demo-1"});
        let sign = |text: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            base64url(hmac::sign(&key, text).as_ref())
        };
        must_be_refused(world, "HS256 with the public key", &compact(&header, claims, sign));
    }
    let header = Header { kid: Some("demo-1".to_owned()), ..Header::new(Algorithm::HS256) };
    let empty = jsonwebtoken::encode(&header, &Issuer::claims("ann", &["dba"]), &EncodingKey::from_secret(b""));
    must_be_refused(world, "HS256 with an empty secret", empty.expect("signs").as_bytes());
}

fn no_tokens(world: &World) {
    let honest = world.issuer.token("ann", &["analyst"]).expect("signs");
    let (text, signature) = honest.rsplit_once('.').expect("a token has three parts");
    let (_, claims) = text.split_once('.').expect("a token has three parts");
    let doubled = Issuer::claims("ann", &["analyst"]).to_string().replacen('{', "{\"exp\":1,", 1);
    let honestly = |text: &[u8]| jsonwebtoken::crypto::sign(text, &world.issuer.key, Algorithm::ES256).expect("signs");
    let good = json!({"alg": "ES256", "typ": "JWT", "kid": "demo-1"});
    let other = world.issuer.token("bob", &["dba"]).expect("signs");
    let (_, others_signature) = other.rsplit_once('.').expect("a token has three parts");
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a word", b"secret".to_vec()),
        ("two dots", b"..".to_vec()),
        ("many dots", vec![b'.'; 1000]),
        ("no signature", format!("{text}.").into_bytes()),
        ("no third part", text.as_bytes().to_vec()),
        ("a fourth part", format!("{honest}.x").into_bytes()),
        ("another token's signature", format!("{text}.{others_signature}").into_bytes()),
        ("a shortened signature", honest.as_bytes()[..honest.len() - 2].to_vec()),
        ("a signature of zeros", format!("{text}.{}", base64url(&[0; 64])).into_bytes()),
        ("a header that is no JSON", format!("{}.{claims}.{signature}", base64url(b"{")).into_bytes()),
        ("a space before", format!(" {honest}").into_bytes()),
        ("a line feed after", format!("{honest}\n").into_bytes()),
        ("padding", format!("{honest}==").into_bytes()),
        ("claims twice", compact(&good, &doubled, honestly)),
        ("claims that are a list", compact(&good, "[1]", honestly)),
        ("claims that are deep", compact(&good, &"[".repeat(5000), honestly)),
        ("bytes that are no UTF-8", vec![0xff, 0xfe, b'.', 0x80, b'.', 0xc0]),
    ];
    for (what, token) in rows {
        must_be_refused(world, what, &token);
    }
    for length in [70_000, 1 << 20, (1 << 20) + 4096] {
        let mut wire = Wire::connect(world.gateway.port);
        wire.startup(&[("user", NAME), ("database", "shop")]);
        wire.expect();
        wire.send(b'p', &[&vec![b'a'; length][..], b"\0"].concat());
        assert!(wire.is_ended(), "{length} bytes of password keep the connection open");
        assert!(!wire.received.windows(9).any(|window| window == b"R\0\0\0\x08\0\0\0\0"), "{length} bytes got in");
    }
}

fn wrong_user(world: &World) {
    let token = world.issuer.token("ann", &["analyst"]).expect("signs");
    for user in ["ann", "wireward", "postgres", "dba", "agent", "DEMO", "demo ", "", "demo\u{1}"] {
        let refused = Wire::login(world.gateway.port, user, "shop", token.as_bytes());
        let error = refused.err().unwrap_or_else(|| panic!("user {user:?} got in with the token of demo"));
        assert_eq!(error.sqlstate(), "28000", "user {user:?}: {error:?}");
    }
    let by_role = Wire::login(world.gateway.port, "analyst", "shop", token.as_bytes());
    assert!(by_role.is_ok(), "a role that the token carries may be the user: {:?}", by_role.err());
}

fn wrong_database(world: &World) {
    let token = world.issuer.token("ann", &["analyst"]).expect("signs");
    for database in ["postgres", "template1", "Shop", "shop2", ""] {
        let refused = Wire::login(world.gateway.port, NAME, database, token.as_bytes());
        let error = refused.err().unwrap_or_else(|| panic!("database {database:?} was opened"));
        assert!(["3D000", "28000"].contains(&error.sqlstate().as_str()), "{database:?}: {error:?}");
    }
}

fn startup_parameters(world: &World) {
    let token = world.issuer.token("dora", &["dba"]).expect("signs");
    let rows = [
        ("replication", "database"),
        ("replication", "true"),
        ("role", "shop"),
        ("session_authorization", "shop"),
        ("standard_conforming_strings", "off"),
        ("client_encoding", "SJIS"),
        ("options", "-c role=shop"),
        ("options", "-c standard_conforming_strings=off"),
        ("options", "--role=shop"),
        ("options", "-crole=shop"),
        ("options", "-c search_path=public -c session_preload_libraries=x"),
        ("user", "postgres"),
        ("database", "postgres"),
    ];
    for (name, value) in rows {
        let mut wire = Wire::connect(world.gateway.port);
        wire.startup(&[("user", NAME), ("database", "shop"), (name, value)]);
        let mut message = wire.expect();
        if message.kind == b'R' {
            wire.send(b'p', &[token.as_bytes(), b"\0"].concat());
            message = wire.expect();
        }
        assert_eq!(message.kind, b'E', "{name}={value} was accepted");
        assert_eq!(message.field(b'S').as_deref(), Some("FATAL"), "{name}={value}: {message:?}");
    }
}

fn query_before_password(world: &World) {
    let mut wire = Wire::connect(world.gateway.port);
    wire.startup(&[("user", NAME), ("database", "shop")]);
    wire.query("select 'before_password'");
    assert!(wire.is_ended());
    assert!(!world.reached_the_server("before_password"));
}

fn refusals_keep_quiet(world: &World) {
    let wrong_audience = with(|claims| claims["aud"] = json!("payroll"));
    let token = world.issuer.sign(&wrong_audience).expect("signs");
    let error = try_token(world, token.as_bytes()).err().expect("it is refused");
    let text = String::from_utf8_lossy(&error.body).into_owned();
    for secret in ["payroll", &token, &world.upstream.password, &world.upstream.address] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// User, database, token, and a word of the reason.
type Refusal<'a> = (&'a str, &'a str, &'a str, &'a str);

/// A gateway of its own, so that what other cases were refused does not count.
fn refusals_are_recorded(world: &World) {
    let (gateway, place) = world.another_gateway("refusals", None).expect("a gateway");
    let honest = world.issuer.token("ann", &["analyst"]).expect("signs");
    let expired = world.issuer.sign(&with(|claims| claims["exp"] = json!(now_s() - 3600))).expect("signs");
    let roleless = world.issuer.token("ann", &["gardener"]).expect("signs");
    let rows: [Refusal<'_>; 5] = [
        (NAME, "shop", &expired, "expired"),
        (NAME, "shop", "a_secret_that_is_no_token", "token"),
        (NAME, "shop", &roleless, "role"),
        ("postgres", "shop", &honest, "user"),
        (NAME, "payroll", &honest, "database"),
    ];
    for (user, database, token, _) in rows {
        assert!(Wire::login(gateway.port, user, database, token.as_bytes()).is_err(), "{user}, {database}");
    }
    odd_strangers(gateway.port);
    Wire::login(gateway.port, NAME, "shop", honest.as_bytes()).expect("honest").query("select 1");
    drop(gateway);
    must_be_listed(world, &place, &rows);
}

/// Two that are refused before they give a token, and one that is not: psql leaves like that when it has to ask for one.
fn odd_strangers(port: u16) {
    let mut parameter = Wire::connect(port);
    parameter.startup(&[("user", NAME), ("database", "shop"), ("replication", "true")]);
    assert!(parameter.is_ended());
    let mut stranger = Wire::connect(port);
    stranger.raw(b"GET / HTTP/1.1\r\n\r\n");
    assert!(stranger.is_ended());
    let mut asker = Wire::connect(port);
    asker.startup(&[("user", "asker"), ("database", "shop")]);
    asker.expect();
}

fn must_be_listed(world: &World, place: &Place, rows: &[Refusal<'_>]) {
    let shown = world.evidence_of(place, "sessions", &["--refused", "--json"]).must_succeed();
    let listed: Vec<Value> = shown.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(listed.len(), rows.len() + 2, "{shown:?}");
    for ((user, database, token, reason), session) in rows.iter().zip(&listed) {
        let note = &session["refused"];
        assert_eq!((&note["user"], &note["database"]), (&json!(user), &json!(database)), "{note}");
        assert!(text_of(&note["reason"]).contains(reason), "{note}: expected {reason}");
        assert!(text_of(&note["client"]).starts_with("127.0.0.1:"), "{note}");
        assert!(note["time_unix_ns"].as_u64().is_some_and(|ns| ns / 1_000_000_000 >= now_s() - 60), "{note}");
        let replayed = world.evidence_of(place, "replay", &[&text_of(&session["session"])]).must_succeed();
        let replayed = replayed.must_print("login refused").must_print(user);
        let signature = token.rsplit('.').next().unwrap_or(token);
        assert!(
            !replayed.out.contains(signature) && !shown.out.contains(signature),
            "a token is recorded: {replayed:?}"
        );
    }
    assert_eq!(listed[5]["refused"]["reason"], "a startup parameter is not allowed");
    let table = world.evidence_of(place, "sessions", &[]).must_succeed();
    assert_eq!(table.out.lines().count(), 1 + rows.len() + 2 + 1, "{}", table.out);
    let table = table.must_print("(postgres)").must_print("(payroll)").must_print("refused: ");
    assert!(!table.out.contains("asker") && table.out.contains(" ann "), "{}", table.out);
    world.evidence_of(place, "verify", &[]).must_print("OK");
}

fn flood_is_counted(world: &World) {
    const TRIES: usize = 1_000;
    let (gateway, place) = world.another_gateway("flood", None).expect("a gateway");
    for n in 0..TRIES {
        let user = format!("{n}{}", "u".repeat(4_000));
        assert!(Wire::login(gateway.port, &user, "shop", b"nonsense").is_err());
    }
    drop(gateway);
    let shown = world.evidence_of(&place, "sessions", &["--refused", "--json"]).must_succeed();
    let listed: Vec<Value> = shown.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let counted = listed.iter().filter_map(|session| session["refused_counted"].as_u64()).sum::<u64>() as usize;
    let recorded = listed.iter().filter(|session| session["refused"].is_object()).count();
    assert_eq!(counted + recorded, TRIES, "each refused login is recorded or counted");
    // So many a shard, of which there is one a CPU.
    let shards = std::thread::available_parallelism().map_or(1, usize::from);
    assert!((100..=110 * shards).contains(&recorded), "{recorded} have a record of their own");
    assert!(shown.out.len() < 200 * 1024, "{} bytes", shown.out.len());
    world
        .evidence_of(&place, "replay", &["s_0"])
        .must_succeed()
        .must_print("\"127.0.0.1\":")
        .must_print("logins refused");
    world.evidence_of(&place, "sessions", &[]).must_succeed().must_print("more refused logins were counted");
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word =
            group.iter().enumerate().fold(0u32, |word, (place, byte)| word | u32::from(*byte) << (16 - 8 * place));
        for place in 0..=group.len() {
            text.push(ALPHABET[(word >> (18 - 6 * place) & 63) as usize] as char);
        }
    }
    text
}
