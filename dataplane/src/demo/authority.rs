//! A certificate authority for one demonstration: it signs one certificate for this machine's loopback names, then forgets
//! its key.

use super::server::{Outcome, write_secret};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::Path;

/// The authority's certificate, for clients (`PGSSLROOTCERT`).
pub const ROOT: &str = "ca.pem";
pub const CERTIFICATE: &str = "server.pem";
pub const KEY: &str = "server.key";

/// Writes [`ROOT`], [`CERTIFICATE`] and [`KEY`] into a directory.
pub fn certify(directory: &Path) -> Outcome<()> {
    let (root, certificate, key) = sign().map_err(|error| format!("cannot make a certificate: {error}"))?;
    for (name, pem) in [(ROOT, root), (CERTIFICATE, certificate)] {
        let path = directory.join(name);
        std::fs::write(&path, pem).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    write_secret(&directory.join(KEY), &key)
}

/// PEM of the authority's certificate, of the server's, and of the server's key.
fn sign() -> Result<(String, String, String), rcgen::Error> {
    let mut root = CertificateParams::new([])?;
    root.distinguished_name.push(DnType::CommonName, "wireward demo authority");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate()?;
    let root_pem = root.self_signed(&root_key)?.pem();
    let mut server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate()?;
    let server = server.signed_by(&key, &Issuer::new(root, root_key))?;
    Ok((root_pem, server.pem(), key.serialize_pem()))
}
