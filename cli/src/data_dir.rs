//! What an embedded cluster's data folder was made for.
//!
//! `embedded.toml` in the folder says with how many workers it was made. The slices of a cluster
//! lie in one folder per worker, so opening it with another number would leave some of them out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use basalt_storage::durable_write::{create_dir_durable, write_file_durable};
use serde::Deserialize;

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
    fn a_folder_made_with_another_number_of_workers_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("new");
        claim(&data_dir, 3).unwrap();
        claim(&data_dir, 3).unwrap();
        let error = claim(&data_dir, 5).unwrap_err().to_string();
        assert!(error.contains("--workers 3, or use another folder with --data-dir"), "{error}");
    }
}
