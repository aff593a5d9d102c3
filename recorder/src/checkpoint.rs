//! Signed checkpoints: the last block on disk, every second. Beyond the newest checkpoint a cut tail cannot be seen;
//! before it every missing byte can. So the window in which a cut goes unseen is the interval below.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey};
use serde::{Deserialize, Serialize};

use crate::chain::{Hash, from_hex, to_hex};
use crate::segment::writer::{Now, Tip};

/// How long a written block may stay without a checkpoint, in milliseconds.
pub const INTERVAL_MS: u64 = 1000;
/// The file of checkpoints in the recordings directory: one JSON object a line.
pub const FILE_NAME: &str = "checkpoints";
/// The public key in the recordings directory, in PEM. A verifier should rather bring its own copy.
pub const PUBLIC_KEY_FILE_NAME: &str = "checkpoints.pub";

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The segment of the last block on disk.
    pub segment: u64,
    /// Its number there.
    pub block: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
    /// When the checkpoint was made, nanoseconds since 1970.
    pub time_unix_ns: u64,
    /// ed25519 over [`Checkpoint::message`], in hexadecimal.
    pub signature: String,
}

impl Checkpoint {
    /// What is signed.
    pub fn message(&self) -> String {
        let Checkpoint { segment, block, hash, time_unix_ns, .. } = self;
        format!("wireward checkpoint 1\n{segment}\n{block}\n{hash}\n{time_unix_ns}\n")
    }

    /// Whether this key signed it.
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let signature = from_hex(&self.signature).and_then(|bytes| Signature::from_slice(&bytes).ok());
        signature.is_some_and(|signature| key.verify_strict(self.message().as_bytes(), &signature).is_ok())
    }

    /// The hash as bytes; `None` if it is not 64 hexadecimal digits.
    pub fn hash(&self) -> Option<Hash> {
        Hash::from_hex(&self.hash)
    }
}

/// Appends checkpoints to the file.
pub struct Checkpoints {
    file: File,
    file_bytes: u64,
    key: SigningKey,
    last: Option<(Tip, u64)>,
    retry_at_ms: u64,
}

impl Checkpoints {
    /// Opens the file and the key; makes the key on the first start, readable by this user only, and puts the public key
    /// into the directory.
    pub fn open(directory: &Path, key_path: &Path) -> io::Result<Self> {
        let key = load_or_make_key(key_path)?;
        let public = key.verifying_key().to_public_key_pem(LineEnding::LF).map_err(io::Error::other)?;
        let public_path = directory.join(PUBLIC_KEY_FILE_NAME);
        match std::fs::read_to_string(&public_path) {
            Ok(known) if known == public => {}
            Ok(_) => {
                return Err(io::Error::other(format!(
                    "{} is the key of another recorder: use its private key, or another directory",
                    public_path.display()
                )));
            }
            Err(_) => write_synced(&public_path, public.as_bytes(), 0o644)?,
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(directory.join(FILE_NAME))?;
        let file_bytes = file.metadata()?.len();
        Ok(Checkpoints { file, file_bytes, key, last: None, retry_at_ms: 0 })
    }

    /// Signs and flushes the tip if it is new and the last checkpoint is old enough, or `now_or_never`. After an error the
    /// file is as before, and the next try comes an interval later.
    pub fn note(&mut self, tip: Tip, now: Now, now_or_never: bool) -> io::Result<()> {
        let due = match self.last {
            Some((last, _)) if last == tip => false,
            Some((_, at_ms)) => now_or_never || now.monotonic_ms - at_ms >= INTERVAL_MS,
            None => tip.segment > 0,
        };
        if !due || now.monotonic_ms < self.retry_at_ms {
            return Ok(());
        }
        let mut checkpoint = Checkpoint {
            segment: tip.segment,
            block: tip.block,
            hash: tip.hash.to_string(),
            time_unix_ns: now.unix_ns,
            signature: String::new(),
        };
        checkpoint.signature = to_hex(&self.key.sign(checkpoint.message().as_bytes()).to_bytes());
        let mut line = serde_json::to_string(&checkpoint).map_err(io::Error::other)?;
        line.push('\n');
        if let Err(error) = self.append(line.as_bytes()) {
            self.retry_at_ms = now.monotonic_ms + INTERVAL_MS;
            return Err(error);
        }
        self.last = Some((tip, now.monotonic_ms));
        Ok(())
    }

    /// Appends a whole line or nothing.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line).and_then(|()| self.file.sync_data()) {
            self.file.set_len(self.file_bytes)?;
            return Err(error);
        }
        self.file_bytes += line.len() as u64;
        Ok(())
    }
}

/// Reads a public key in PEM.
pub fn read_public_key(path: &Path) -> io::Result<VerifyingKey> {
    let pem = std::fs::read_to_string(path)?;
    VerifyingKey::from_public_key_pem(&pem).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is no ed25519 public key: {error}", path.display()))
    })
}

fn load_or_make_key(path: &Path) -> io::Result<SigningKey> {
    match std::fs::read_to_string(path) {
        Ok(pem) => SigningKey::from_pkcs8_pem(&pem).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is no ed25519 key in PEM: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(path),
        Err(error) => Err(error),
    }
}

fn make_key(path: &Path) -> io::Result<SigningKey> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let key = SigningKey::from_bytes(&secret);
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
    write_synced(path, pem.as_bytes(), 0o600)?;
    Ok(key)
}

/// Writes a small file whole or not at all: a key that was half written would lock the recorder out.
fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}
