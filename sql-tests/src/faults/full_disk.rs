//! A disk of a given size that can be filled: a tmpfs, for what happens when no space is left.
//!
//! Invariant: it is unmounted when a [`SmallDisk`] is dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A file system of a few MiB.
#[derive(Debug)]
pub struct SmallDisk {
    mount: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of `mib` MiB. Needs root.
    ///
    /// # Errors
    /// When the machine does not allow it, for [`skip`](super::skip::skip).
    pub fn new(mib: u64) -> anyhow::Result<Self> {
        let mount = tempfile::Builder::new().prefix("basalt-small-disk-").tempdir()?;
        let options = format!("size={mib}m");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(mount.path())
            .output()
            .context("mount cannot be started")?;
        if !output.status.success() {
            bail!("mount failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(Self { mount })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mount.path()
    }

    /// Fills it up to the last byte. Removing the file makes the space free again.
    ///
    /// # Errors
    /// Anything but "no space left".
    pub fn fill(&self) -> anyhow::Result<PathBuf> {
        let path = self.path().join("ballast");
        let mut file = std::fs::File::create(&path)?;
        let zeros = vec![0; 64 << 10];
        loop {
            match std::io::Write::write_all(&mut file, &zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(path),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            tracing::warn!(mount = %self.path().display(), "a tmpfs is left mounted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::skip::skip;

    #[test]
    fn a_full_disk_takes_no_more_until_there_is_space_again() {
        let disk = match SmallDisk::new(4) {
            Ok(disk) => disk,
            Err(error) => return skip("a full disk", &format!("{error:#}")),
        };
        let file = disk.path().join("file");
        std::fs::write(&file, [7; 4_096]).unwrap();
        let ballast = disk.fill().unwrap();
        let error = std::fs::write(disk.path().join("more"), [7; 4_096]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&file).unwrap(), [7; 4_096], "what is there stays");
        std::fs::remove_file(ballast).unwrap();
        std::fs::write(disk.path().join("more"), [7; 4_096]).unwrap();
    }
}
