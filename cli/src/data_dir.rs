//! What a data folder was made for: which role, and an embedded cluster's for how many workers.
//!
//! `embedded.toml` in the folder says with how many workers it was made. The slices of a cluster
//! lie in one folder per worker, so opening it with another number would leave some of them out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use basalt_storage::durable_write::{create_dir_durable, write_file_durable};
use serde::Deserialize;

/// Whose data folder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A coordinator's.
    Coordinator,
    /// A worker's.
    Worker,
    /// That of an embedded cluster, with one folder in it for each of its roles.
    Cluster,
}

/// What only the folder of a role has in it, and what it is called.
const MARKS: [(Role, &str, &str); 4] = [
    (Role::Coordinator, "catalog.redb", "a coordinator's"),
    (Role::Worker, "IDENTITY.json", "a worker's"),
    (Role::Worker, "WORKER_ID", "a worker's"),
    (Role::Cluster, "embedded.toml", "that of a cluster in one process (`basalt start`)"),
];

/// Refuses the folder of another role, before anything is made there or told to anybody.
///
/// # Errors
/// A folder that is another role's; one that cannot be read.
pub fn check_role(data_dir: &Path, role: Role) -> anyhow::Result<()> {
    for (_, mark, whose) in MARKS.into_iter().filter(|(other, ..)| *other != role) {
        let path = data_dir.join(mark);
        if path.try_exists().with_context(|| format!("{} cannot be read", path.display()))? {
            bail!(
                "data folder {} is {whose}: use another folder with --data-dir",
                data_dir.display()
            );
        }
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Embedded {
    workers: usize,
}

/// Makes the folder for `workers` workers, or checks that it was made for as many.
///
/// # Errors
/// A folder made for another number, with the remedy; a folder that cannot be read or written.
pub fn claim(data_dir: &Path, workers: usize) -> anyhow::Result<()> {
    check_role(data_dir, Role::Cluster)?;
    let marker = marker(data_dir);
    let text = match std::fs::read_to_string(&marker) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_dir_durable(data_dir)
                .with_context(|| format!("data folder {} cannot be made", data_dir.display()))?;
            return write_file_durable(&marker, format!("workers = {workers}\n").as_bytes())
                .with_context(|| format!("{} cannot be written", marker.display()));
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", marker.display()));
        }
    };
    let made: Embedded =
        toml::from_str(&text).with_context(|| format!("{} is not valid", marker.display()))?;
    if made.workers != workers {
        bail!(
            "data folder {} was made with --workers {}, not {workers}: start it with --workers {}, \
             or use another folder with --data-dir",
            data_dir.display(),
            made.workers,
            made.workers,
        );
    }
    Ok(())
}

fn marker(data_dir: &Path) -> PathBuf {
    data_dir.join("embedded.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_another_role_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for role in [Role::Coordinator, Role::Worker, Role::Cluster] {
            check_role(folder.path(), role).unwrap();
        }
        std::fs::write(folder.path().join("catalog.redb"), "").unwrap();
        check_role(folder.path(), Role::Coordinator).unwrap();
        let error = check_role(folder.path(), Role::Worker).unwrap_err().to_string();
        assert!(error.contains("is a coordinator's: use another folder"), "{error}");
        assert!(check_role(folder.path(), Role::Cluster).is_err());
    }

    #[test]
    fn a_folder_made_with_another_number_of_workers_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("new");
        claim(&data_dir, 3).unwrap();
        claim(&data_dir, 3).unwrap();
        let error = claim(&data_dir, 5).unwrap_err().to_string();
        assert!(error.contains("--workers 3, or use another folder with --data-dir"), "{error}");
    }
}
