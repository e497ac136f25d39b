//! The cluster secret: what a process must know to speak to the cluster's internal ports.
//!
//! A plan is remote code and a chunk is data, so every internal RPC carries the secret, and a
//! server answers `UNAUTHENTICATED` without it (RULES 29).
//!
//! Invariant: the secret never appears in `Debug`, logs or errors (RULES 30), and comparing one
//! takes the same time wherever it differs.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;
use thiserror::Error;
use tonic::{Request, Status};

/// The metadata key that carries the secret.
pub const SECRET_HEADER: &str = "x-basalt-cluster-secret";

/// Random bytes in a secret.
const SECRET_BYTES: usize = 32;
/// A secret as text: two hexadecimal digits a byte.
const SECRET_CHARS: usize = 2 * SECRET_BYTES;
/// Permission bits that let every user of the machine read or change the file.
const OTHERS: u32 = 0o007;

/// Why a secret cannot be made, read or trusted.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Every user of the machine can read the file.
    #[error("secret file {path} is open to every user (mode {mode:03o}): run chmod 600 on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("secret file {path} does not hold {SECRET_CHARS} hexadecimal digits")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The file is not there.
    #[error(
        "secret file {path} is missing: copy cluster.secret from another process of the cluster"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers: {problem}")]
    NoRandomness {
        /// What it says.
        problem: String,
    },
    /// The file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
}

/// 32 random bytes that every process of a cluster has.
#[derive(Clone)]
pub struct ClusterSecret([u8; SECRET_BYTES]);

impl ClusterSecret {
    /// A new secret from the operating system's random numbers.
    pub fn generate() -> Result<Self, SecretError> {
        let mut bytes = [0; SECRET_BYTES];
        match SysRng.try_fill_bytes(&mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(error) => Err(SecretError::NoRandomness { problem: error.to_string() }),
        }
    }

    /// Reads the secret at `path`.
    ///
    /// Fails with [`SecretError::Missing`], with [`SecretError::Exposed`] when every user of
    /// the machine could read or change it, and with [`SecretError::Malformed`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SecretError::Missing { path: path.to_owned() });
            }
            opened => opened.map_err(io_error(path))?,
        };
        let mode = file.metadata().map_err(io_error(path))?.mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(SecretError::Exposed { path: path.to_owned(), mode });
        }
        // Room for a line end and one byte more, so that a longer file is seen to be longer.
        let mut text = Vec::with_capacity(SECRET_CHARS + 3);
        file.take(SECRET_CHARS as u64 + 3).read_to_end(&mut text).map_err(io_error(path))?;
        let malformed = || SecretError::Malformed { path: path.to_owned() };
        let text = std::str::from_utf8(&text).map_err(|_| malformed())?;
        Self::parse(text.trim_end()).ok_or_else(malformed)
    }

    /// Reads the secret at `path`, or makes one when there is none. Only the process that holds
    /// the lock of the directory may call this.
    ///
    /// On `Ok` the file survives a crash; it is whole or absent after any crash before.
    pub fn read_or_create(path: &Path) -> Result<Self, SecretError> {
        match Self::read(path) {
            Err(SecretError::Missing { .. }) => {
                let secret = Self::generate()?;
                secret.write_new(path)?;
                Ok(secret)
            }
            read => read,
        }
    }

    /// Parses 64 hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }

    /// The secret as text, for the header of an internal RPC and for nothing else.
    pub fn expose(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Whether somebody else's text is this secret, in a time that depends on its length only.
    pub fn matches(&self, presented: &[u8]) -> bool {
        // `blake3::Hash` compares in constant time, and hashing hides where the texts differ.
        blake3::hash(presented) == blake3::hash(self.expose().as_bytes())
    }

    /// Lets a request pass that carries the secret.
    pub fn admit(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let carried = request.metadata().get(SECRET_HEADER).map(|value| value.as_bytes());
        match carried.is_some_and(|presented| self.matches(presented)) {
            true => Ok(request),
            false => Err(Status::unauthenticated("the cluster secret is missing or wrong")),
        }
    }

    /// Writes the secret to `path`. On `Ok` the file survives a crash; it is whole or absent after
    /// any crash before.
    ///
    /// Temporary file, fsync, rename, fsync of the directory.
    #[expect(
        clippy::disallowed_methods,
        reason = "the secret needs its mode before its first byte, and the directory is synced here"
    )]
    pub fn write_new(&self, path: &Path) -> Result<(), SecretError> {
        let temporary = path.with_extension("secret.tmp");
        let write = || -> io::Result<()> {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _left_over_of_a_crash => {}
            }
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
            writeln!(file, "{}", self.expose())?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(io_error(path))
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(hidden)")
    }
}

impl PartialEq for ClusterSecret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }
}

impl Eq for ClusterSecret {}

fn io_error(path: &Path) -> impl Fn(io::Error) -> SecretError {
    move |source| SecretError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_passes_only_with_the_very_secret() {
        let secret = ClusterSecret::parse(&"07".repeat(32)).unwrap();
        let request = |value: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert(SECRET_HEADER, value.parse().unwrap());
            request
        };
        assert!(secret.admit(request(&secret.expose())).is_ok());
        let refused = [
            request(""),
            request(&secret.expose()[1..]),
            request(&secret.expose().repeat(2)),
            request(&"08".repeat(32)),
            Request::new(()),
        ];
        for request in refused {
            let status = secret.admit(request).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated);
            assert!(!format!("{status:?}").contains("07"), "{status:?}");
        }
        let mut opaque = Request::new(());
        let bytes = tonic::metadata::AsciiMetadataValue::try_from(&[0xff; 64][..]).unwrap();
        opaque.metadata_mut().insert(SECRET_HEADER, bytes);
        assert!(secret.admit(opaque).is_err());
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        let secret = ClusterSecret::parse(&"07".repeat(32)).unwrap();
        assert!(!format!("{secret:?}").contains("0707"));
    }
}
