//! Where the shell keeps what was typed.

use std::path::{Path, PathBuf};

/// Statements kept.
pub(super) const ENTRIES_MAX: usize = 10_000;

/// The history file, in a folder that exists then: `$XDG_STATE_HOME/basalt/history`, by default
/// below `~/.local/state`. `None` when there is no home or the folder cannot be made: the shell
/// works without.
pub(super) fn file() -> Option<PathBuf> {
    let from_env = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = from_env("XDG_STATE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(from_env("HOME")?.join(".local/state")))?;
    let folder = state.join("basalt");
    match make_private(&folder) {
        Ok(()) => Some(folder.join("history")),
        Err(error) => {
            tracing::debug!(folder = %folder.display(), %error, "no history is kept");
            None
        }
    }
}

/// Statements may hold what others must not read.
fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
