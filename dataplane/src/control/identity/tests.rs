//! Whole tokens before a [`Verifier`] with several issuers, and answers of servers that mean no good.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::fetch::Fetcher;
use super::{Refusal, Verifier};
use crate::config::issuer::{Issuer, Keys};

/// A key pair: the signing half, and a JWKS with the other.
struct Signer {
    key: EncodingKey,
    jwks: Value,
}

impl Signer {
    fn new(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(pair.expect("a key").as_ref());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = json!(id);
        Self { key, jwks: json!({ "keys": [jwk] }) }
    }

    fn sign(&self, id: &str, claims: &Value) -> Vec<u8> {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).expect("signs").into_bytes()
    }
}

/// A file that goes with the test.
struct File(PathBuf);

impl File {
    fn new(content: &Value) -> Self {
        let mut name = [0; 8];
        getrandom::fill(&mut name).expect("random bytes");
        let path = std::env::temp_dir().join(format!("wireward-jwks-{:x}.json", u64::from_le_bytes(name)));
        std::fs::write(&path, content.to_string()).expect("a file");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn issuer(lines: &str, keys: &File) -> Issuer {
    let path = keys.0.display();
    Issuer::for_tests(&format!("audience = 'w'\nalgorithms = ['ES256']\njwks_file = '{path}'\n{lines}"))
}

#[test]
fn keys_of_one_issuer_verify_no_token_of_another() {
    // Both use the same key id, as two installations of one product do.
    let (left, right, spire) = (Signer::new("k"), Signer::new("k"), Signer::new("k"));
    let mut bundle = spire.jwks.clone();
    bundle["keys"][0]["use"] = json!("jwt-svid");
    let files = [&left.jwks, &right.jwks, &bundle].map(File::new);
    let verifier = Verifier::load(&[
        issuer("issuer = 'https://left'", &files[0]),
        issuer("issuer = 'https://right'", &files[1]),
        issuer("trust_domain = 'acme.test'", &files[2]),
    ]);
    let verifier = verifier.expect("sound keys");
    let svid = "spiffe://acme.test/job";
    for (signer, iss, sub, counts) in [
        (&left, Some("https://left"), "ann", true),
        (&right, Some("https://right"), "ann", true),
        (&left, Some("https://right"), "ann", false),
        (&right, Some("https://left"), "ann", false),
        (&left, Some("https://left/"), "ann", false),
        (&left, None, "ann", false),
        (&spire, None, svid, true),
        (&spire, Some("https://spire"), svid, true),
        (&spire, Some("https://left"), svid, false),
        (&spire, None, "ann", false),
        (&left, None, svid, false),
        (&left, Some("https://spire"), svid, false),
    ] {
        let mut claims = json!({"sub": sub, "aud": "w", "exp": 2_000});
        if let Some(iss) = iss {
            claims["iss"] = json!(iss);
        }
        let token = signer.sign("k", &claims);
        // Twice: what is remembered must count like what is checked.
        for _ in 0..2 {
            assert_eq!(verifier.verify(&token, 1_000).is_ok(), counts, "{claims}");
        }
    }
}

#[test]
fn a_remembered_token_dies_at_its_expiry_and_leeway_alone_lets_it_in() {
    let signer = Signer::new("k");
    let file = File::new(&signer.jwks);
    let verifier = Verifier::load(&[issuer("issuer = 'i'\nleeway_s = 60", &file)]).expect("sound keys");
    let token = signer.sign("k", &json!({"iss": "i", "sub": "ann", "aud": "w", "exp": 2_000}));
    for (now_unix_s, counts) in [(1_000, true), (1_999, true), (2_060, true), (2_061, false), (2_000, true)] {
        assert_eq!(verifier.verify(&token, now_unix_s).is_ok(), counts, "{now_unix_s}");
    }
}

#[test]
fn an_unknown_key_is_waited_for_only_where_it_can_come() {
    let signer = Signer::new("k");
    let file = File::new(&signer.jwks);
    let remote = Issuer::for_tests("issuer = 'https://r'\naudience = 'w'\nalgorithms = ['ES256']");
    let verifier = Verifier::load(&[issuer("issuer = 'https://f'", &file), remote]).expect("sound keys");
    for (iss, refusal) in [
        ("https://f", Refusal::For("the token is signed with an unknown key")),
        ("https://r", Refusal::UntilFetched(1)),
        ("https://x", Refusal::For("the token is of another issuer (iss)")),
    ] {
        let token = signer.sign("other", &json!({"iss": iss, "sub": "ann", "aud": "w", "exp": 2_000}));
        assert_eq!(verifier.verify(&token, 1_000), Err(refusal), "{iss}");
    }
    // `{"alg":"none","kid":"x"}` and `{"iss":"https://r"}`: no key can ever make it good.
    let none = b"eyJhbGciOiJub25lIiwia2lkIjoieCJ9.eyJpc3MiOiJodHRwczovL3IifQ.";
    assert_eq!(verifier.verify(none, 1_000), Err(Refusal::For("the token's algorithm is not allowed")));
}

/// Answers every connection with these bytes, then stays silent for a while where `slow`.
fn server(answer: Vec<u8>, slow: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
            if slow {
                std::thread::sleep(Duration::from_secs(30));
            }
        }
    });
    port
}

fn fetch(lines: &str) -> Result<String, String> {
    let lines = format!("audience = 'w'\nalgorithms = ['ES256']\nallow_loopback_http = true\n{lines}");
    let settings = Issuer::for_tests(&lines);
    let Keys::Remote(remote) = settings.keys else { panic!("not remote: {lines}") };
    let fetcher = Fetcher::new(remote)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bytes = runtime.block_on(fetcher.fetch(settings.issuer.as_deref()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn an_answer_is_taken_only_whole_small_and_from_where_it_was_asked() {
    let large = "x".repeat(300 * 1024);
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(300 * 1024)).into_bytes();
    for (answer, expected) in [
        (ok("keys"), Ok("keys")),
        (ok(&large), Err("at most 262144 bytes")),
        (endless, Err("at most 262144 bytes")),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n".to_vec(), Err("redirects are not followed")),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(), Err("it answers 404")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec(), Err("the answer")),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), Err("http")),
        (Vec::new(), Err("http")),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        let port = server(answer, false);
        let found = fetch(&format!("issuer = 'i'\njwks_url = 'http://127.0.0.1:{port}/jwks'"));
        match expected {
            Ok(body) => assert_eq!(found.as_deref(), Ok(body), "{shown}"),
            Err(why) => assert!(found.as_ref().is_err_and(|e| e.contains(why)), "{shown}: {found:?}"),
        }
    }
}

#[test]
fn a_server_that_drips_is_given_up() {
    let port = server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec(), true);
    let start = Instant::now();
    let found = fetch(&format!("issuer = 'i'\njwks_url = 'http://127.0.0.1:{port}/jwks'"));
    assert!(found.as_ref().is_err_and(|e| e.contains("no whole answer")), "{found:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// Serves `keys` by TLS with a certificate for this name; the certificate in PEM form, and the port.
fn tls_server(name: &str) -> (String, u16) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let config = std::sync::Arc::new(config.expect("a sound certificate"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = rustls::StreamOwned::new(connection, stream.expect("a connection"));
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ = stream.write_all(&ok("keys"));
                let _ = stream.flush();
            }
        }
    });
    (made.cert.pem(), port)
}

#[test]
fn keys_come_only_from_a_server_with_the_right_certificate() {
    let (right, port) = tls_server("127.0.0.1");
    let (other, other_port) = tls_server("idp.test");
    let files = [&right, &other].map(|pem| {
        let file = File::new(&json!(null));
        std::fs::write(&file.0, pem).expect("written");
        file
    });
    for (ca, port, expected) in [
        (Some(&files[0]), port, Ok("keys")),
        (Some(&files[1]), port, Err("invalid peer certificate")),
        (Some(&files[1]), other_port, Err("not valid for name")),
        (None, port, Err("invalid peer certificate")),
    ] {
        let ca = ca.map(|file| format!("ca_file = '{}'", file.0.display())).unwrap_or_default();
        let found = fetch(&format!("issuer = 'i'\njwks_url = 'https://127.0.0.1:{port}/jwks'\n{ca}"));
        match expected {
            Ok(body) => assert_eq!(found.as_deref(), Ok(body)),
            Err(why) => assert!(found.as_ref().is_err_and(|e| e.contains(why)), "{why}: {found:?}"),
        }
    }
    let empty = File::new(&json!([]));
    let ca = empty.0.display();
    let found = fetch(&format!("issuer = 'i'\nca_file = '{ca}'\njwks_url = 'https://127.0.0.1:{port}/'"));
    assert!(found.as_ref().is_err_and(|e| e.contains("no certificate in PEM form")), "{found:?}");
}

#[test]
fn a_discovery_document_counts_only_for_its_own_issuer_and_names_a_safe_place() {
    let keys = server(ok("keys"), false);
    let place = format!("http://127.0.0.1:{keys}/jwks");
    for (named, jwks_uri, expected) in [
        (json!("SELF"), json!(place), Ok("keys")),
        (json!("SELF/"), json!(place), Err("of another issuer")),
        (json!("https://evil.test"), json!(place), Err("of another issuer")),
        (json!(["SELF"]), json!(place), Err("names no issuer")),
        (json!(null), json!(place), Err("names no issuer")),
        (json!("SELF"), json!("http://192.0.2.1/jwks"), Err("https only")),
        (json!("SELF"), json!("file:///etc/passwd"), Err("not a URL")),
        (json!("SELF"), json!(7), Err("names no jwks_uri")),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let document = json!({"issuer": named, "jwks_uri": jwks_uri}).to_string();
        let document = ok(&document.replace("SELF", &format!("http://127.0.0.1:{port}")));
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 4096];
            let n = stream.read(&mut request).expect("a request");
            stream.write_all(&document).expect("written");
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let found = fetch(&format!("issuer = 'http://127.0.0.1:{port}'"));
        let asked = asked.join().expect("answered");
        assert!(asked.starts_with("GET /.well-known/openid-configuration HTTP/1.1\r\n"), "{asked}");
        match expected {
            Ok(body) => assert_eq!(found.as_deref(), Ok(body)),
            Err(why) => assert!(found.as_ref().is_err_and(|e| e.contains(why)), "{named} {jwks_uri}: {found:?}"),
        }
    }
}
