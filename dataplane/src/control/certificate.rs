//! TLS on both sides: certificates and keys from files, made into configurations that shards share.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config::ListenerTls;

/// The protocol's name in ALPN: <https://www.iana.org/assignments/tls-extensiontype-values>.
const ALPN: &[u8] = b"postgresql";

/// What a listener serves TLS with. Sessions are resumed by tickets, so that no shard keeps any.
///
/// # Errors
/// Which file is wrong, and how.
pub fn server(tls: &ListenerTls) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(&tls.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| format!("{}: no private key: {e}", tls.key.display()))?;
    let builder = ServerConfig::builder();
    let builder = match &tls.client_ca {
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots(path)?)).allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(|e| format!("{}: {e}", path.display()))?)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| format!("{} and {}: {e}", tls.certificate.display(), tls.key.display()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new().map_err(|e| format!("no session tickets: {e}"))?;
    Ok(Arc::new(config))
}

/// How an upstream is reached: its certificate must come from this authority and carry its name.
///
/// # Errors
/// The file is wrong, and how.
pub fn client(ca: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut config = ClientConfig::builder().with_root_certificates(roots(ca)?).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => Err(format!("{}: no certificate in it", path.display())),
        Ok(chain) => Ok(chain),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(roots)
}

/// The channel binding `tls-server-end-point` (RFC 5929, 4.1): a certificate's hash by its own signature's hash function,
/// SHA-256 in place of MD5 and SHA-1. `None` where the RFC defines none (Ed25519).
pub fn server_end_point(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    let algorithm = match certificate.signature_algorithm.oid.to_string().as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, der).as_ref().to_vec())
}

/// A certificate's subject as a distinguished name (RFC 4514).
pub fn subject(der: &[u8]) -> Option<String> {
    Some(Certificate::from_der(der).ok()?.tbs_certificate.subject.to_string())
}
