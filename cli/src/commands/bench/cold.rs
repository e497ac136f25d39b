//! Cold runs: what the system and the cluster keep in memory is forgotten before each.

use anyhow::Context;
use basalt_sql_tests::client::Client;

/// Forgets the pages of files that the system keeps.
///
/// # Errors
/// Who is not root may not, and then no run is cold.
pub(super) async fn drop_page_cache() -> anyhow::Result<()> {
    let dropped = tokio::task::spawn_blocking(|| {
        // Pages that are not on the disk yet would stay.
        nix::unistd::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "1")
    });
    dropped.await?.context("--cold drops the page cache, which only root may on Linux")
}

/// From now on the session's queries find nothing in column caches; they do fill them.
pub(super) async fn find_no_cached_columns(client: &mut Client) -> anyhow::Result<()> {
    client.execute_update("SET column_cache = refresh").await?;
    Ok(())
}
