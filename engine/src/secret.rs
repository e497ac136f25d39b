//! The cluster secret: what tells a member of the cluster from a stranger on the network.
//!
//! A plan is remote code and a chunk is data, so every internal RPC carries the secret, and a
//! server answers `UNAUTHENTICATED` without it (RULES 29). The secret never appears in a log or an
//! error text (RULES 30): `Debug` hides it, and there is no `Display`.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tonic::{Request, Status};

/// The metadata key that carries the secret.
pub const SECRET_HEADER: &str = "x-basalt-cluster-secret";

/// 32 random bytes as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(String);

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read cluster secret {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("cluster secret {path} is readable by others: run chmod 600 {path}")]
    TooOpen {
        /// The file.
        path: String,
    },
    /// The text is not 64 hexadecimal digits.
    #[error("cluster secret is not 64 hexadecimal digits")]
    Malformed,
}

impl ClusterSecret {
    /// Wraps 32 bytes from a random source.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Reads the text form; surrounding white space is ignored.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(SecretError::Malformed),
        }
    }

    /// Reads a secret file, which only its owner may read.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let io = |source| SecretError::Io { path: path.display().to_string(), source };
        let mode = fs::metadata(path).map_err(io)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(SecretError::TooOpen { path: path.display().to_string() });
        }
        Self::parse(&fs::read_to_string(path).map_err(io)?)
    }

    /// The text form, for the secret file and the metadata of a request only.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `candidate` is the secret, in time that does not depend on where they differ.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        secret.len() == candidate.len()
            && secret.iter().zip(candidate).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
    }

    /// Lets a request pass that carries the secret.
    #[expect(clippy::result_large_err, reason = "tonic's interceptors return Status by value")]
    pub fn admit(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let carried = request.metadata().get(SECRET_HEADER).map(|value| value.as_bytes());
        match carried.is_some_and(|candidate| self.matches(candidate)) {
            true => Ok(request),
            false => Err(Status::unauthenticated("the cluster secret is missing or wrong")),
        }
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_passes_only_with_the_very_secret() {
        let secret = ClusterSecret::from_bytes([7; 32]);
        let request = |value: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert(SECRET_HEADER, value.parse().unwrap());
            request
        };
        assert!(secret.admit(request(secret.reveal())).is_ok());
        assert!(secret.admit(request("")).is_err());
        assert!(secret.admit(request(&secret.reveal()[1..])).is_err());
        assert!(secret.admit(Request::new(())).is_err());
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        let secret = ClusterSecret::from_bytes([7; 32]);
        assert!(!format!("{secret:?}").contains("0707"));
    }
}
