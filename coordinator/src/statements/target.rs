//! Where the rows of a write go: a table, the workers that can be reached, and how many copies.
//!
//! Invariant: a transaction begins only if as many workers can be reached as its session requires
//! copies; fewer than the table wants are made only where the session lowered its consistency.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::settings::WriteConsistency;
use basalt_engine::snapshot::{ClusterView, Distribution, TableSnapshot};
use basalt_engine::write::{AppendTarget, Copies};
use basalt_storage::ids::{ColumnId, TableId, TxnId};
use basalt_storage::schema::TableSchema;

use crate::catalog::NewTable;

/// A table that rows go into: a stored one, or one that the same commit creates.
pub(crate) struct TargetTable {
    id: TableId,
    name: String,
    schema: Arc<TableSchema>,
    distribution: Distribution,
    sort_key: Vec<ColumnId>,
    replicas: u16,
}

impl From<&TableSnapshot> for TargetTable {
    fn from(table: &TableSnapshot) -> Self {
        Self {
            id: table.id,
            name: format!("{}.{}", table.schema_name, table.name),
            schema: Arc::clone(&table.schema),
            distribution: table.appended_by(),
            sort_key: table.sort_key.clone(),
            replicas: table.replicas,
        }
    }
}

impl From<&NewTable> for TargetTable {
    fn from(table: &NewTable) -> Self {
        Self {
            id: table.id,
            name: format!("{}.{}", table.schema, table.name),
            schema: Arc::new(table.columns.clone()),
            distribution: table.distribution,
            sort_key: table.sort_key.clone(),
            replicas: table.replicas,
        }
    }
}

impl TargetTable {
    /// A new transaction's target among the workers of a view of the cluster.
    ///
    /// # Errors
    /// [`ErrorCode::Unavailable`] when fewer workers can be reached than copies are required.
    pub(crate) fn begin(
        self,
        cluster: &ClusterView,
        consistency: WriteConsistency,
    ) -> Result<AppendTarget, SqlError> {
        let wanted = cluster.copies_wanted(self.replicas);
        let required = consistency.required(wanted);
        check_workers(&self.name, cluster, wanted, required)?;
        let copies = |number| u16::try_from(number).unwrap_or(u16::MAX);
        let mut target = AppendTarget {
            epoch: cluster.epoch,
            cluster: cluster.cluster,
            txn: TxnId::generate(),
            table: self.id,
            table_name: self.name,
            schema: self.schema,
            distribution: self.distribution,
            sort_key: self.sort_key,
            slice_owners: vec![],
            slice_partners: vec![],
            copies: Copies { wanted: copies(wanted), required: copies(required) },
            endpoints: BTreeMap::new(),
            local_slices: false,
            merged_slice: None,
        };
        target.set_cluster(cluster);
        Ok(target)
    }
}

fn check_workers(
    table: &str,
    cluster: &ClusterView,
    wanted: usize,
    required: usize,
) -> Result<(), SqlError> {
    if cluster.slice_owners.is_empty() {
        let message = "no worker has joined the cluster, so there is nowhere to write";
        return Err(SqlError::new(ErrorCode::Unavailable, message)
            .with_hint("start one: basalt worker --coordinator URL --secret-file FILE"));
    }
    let reachable = cluster.workers.len();
    if reachable >= required.max(1) {
        return Ok(());
    }
    let message = format!(
        "table \"{table}\" has {wanted} copies of its rows, of which {required} must be written, and \
         {reachable} of {} workers can be reached",
        cluster.members
    );
    let hint = match reachable {
        0 => "start the workers again; sys.workers shows them",
        _ => {
            "start the missing workers again (sys.workers shows them), or write fewer copies now and \
             let repair make the others: SET write_consistency = 'one'"
        }
    };
    Err(SqlError::new(ErrorCode::Unavailable, message).with_hint(hint))
}
