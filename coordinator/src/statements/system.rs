//! `ALTER SYSTEM`: what is changed of the cluster itself.

use basalt_engine::dialect::DrainWorker;
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{TxnId, WorkerId};

use super::Statements;
use crate::catalog::{Change, Command, wall_clock_ms};

impl Statements {
    /// `ALTER SYSTEM DRAIN WORKER`: the worker's slices and copies go elsewhere, in the background;
    /// it serves until they are there. `UNDRAIN` gives it its share again.
    pub(super) async fn drain_worker(&self, statement: &DrainWorker) -> Result<(), SqlError> {
        let snapshot = self.inner.catalog.snapshot();
        let cluster = self.inner.catalog.cluster();
        let unknown = || {
            let message = format!("worker '{}' is not in the cluster", statement.worker);
            SqlError::new(ErrorCode::InvalidParameter, message)
                .at(statement.position)
                .with_hint("sys.workers lists the workers")
        };
        let worker: WorkerId = statement.worker.parse().map_err(|_| unknown())?;
        if !cluster.workers.contains(&worker) {
            return Err(unknown());
        }
        if cluster.draining.contains(&worker) == statement.drain {
            return Ok(());
        }
        if statement.drain {
            let states = self.inner.reconciler.worker_states();
            let stays = |(id, duty): &&(WorkerId, &str)| *id != worker && *duty == "serving";
            let left = states.iter().filter(stays).count();
            check_left(&snapshot, left).map_err(|error| error.at(statement.position))?;
        }
        let change = Change::DrainWorker { worker, drain: statement.drain };
        let command = Command::new(TxnId::generate(), wall_clock_ms(), vec![change]);
        self.inner.catalog.commit(command).await.map(|_| ()).map_err(SqlError::from)
    }
}

/// As many workers stay as the tables have copies.
fn check_left(snapshot: &Snapshot, left: usize) -> Result<(), SqlError> {
    let most = snapshot.tables().max_by_key(|table| table.replicas);
    let (copies, whose) = match most {
        Some(table) => (
            snapshot.cluster.copies_wanted(table.replicas),
            format!("table \"{}.{}\" has", table.schema_name, table.name),
        ),
        None => (1, "a cluster needs".to_owned()),
    };
    if left >= copies {
        return Ok(());
    }
    let message = format!("{left} workers would be left, and {whose} {copies}");
    let message = if most.is_some() { format!("{message} copies") } else { message };
    Err(SqlError::new(ErrorCode::InvalidStatement, message)
        .with_hint("add a worker first, and drain this one then"))
}
