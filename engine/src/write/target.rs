//! Where a transaction's rows go: table, slices and their owners at one epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_storage::ids::{ClusterId, ColumnId, Epoch, SliceId, TableId, TxnId, WorkerId};
use basalt_storage::schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use url::Url;

use crate::protocol::{AppendTarget as WireTarget, Endpoint, MalformedMessage, WireId};
use crate::snapshot::{ClusterView, Distribution};

const MESSAGE: &str = "AppendTarget";

/// What a writer must know to put rows into slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendTarget {
    /// The epoch of the slice map.
    pub epoch: Epoch,
    /// The cluster.
    pub cluster: ClusterId,
    /// The transaction.
    pub txn: TxnId,
    /// The table.
    pub table: TableId,
    /// The table's name, for errors.
    pub table_name: String,
    /// The table's columns.
    pub schema: Arc<TableSchema>,
    /// How rows are assigned to slices.
    pub distribution: Distribution,
    /// What segments are sorted by.
    pub sort_key: Vec<ColumnId>,
    /// The owner of each slice.
    pub slice_owners: Vec<WorkerId>,
    /// Where the owners listen.
    pub endpoints: BTreeMap<WorkerId, Url>,
    /// With round-robin distribution, keep rows on the worker that produced them: right when the
    /// input is spread evenly already, and then no row crosses the network.
    pub local_slices: bool,
}

impl AppendTarget {
    /// The owner of a slice.
    pub fn owner(&self, slice: SliceId) -> Result<WorkerId> {
        self.slice_owners
            .get(usize::from(slice.0))
            .copied()
            .ok_or_else(|| DataFusionError::Internal(format!("slice {slice} does not exist")))
    }

    /// The slices that one worker owns.
    pub fn slices_of(&self, worker: WorkerId) -> Vec<SliceId> {
        (0..)
            .map(SliceId)
            .zip(&self.slice_owners)
            .filter(|(_, owner)| **owner == worker)
            .map(|(slice, _)| slice)
            .collect()
    }

    /// Fills in owners and addresses from a view of the cluster.
    pub fn set_cluster(&mut self, cluster: &ClusterView) {
        self.epoch = cluster.epoch;
        self.cluster = cluster.cluster;
        self.slice_owners.clone_from(&cluster.slice_owners);
        self.endpoints.clone_from(&cluster.workers);
    }

    /// The target as a message.
    pub fn to_wire(&self) -> Result<WireTarget> {
        let json = |error: serde_json::Error| DataFusionError::External(Box::new(error));
        Ok(WireTarget {
            epoch: self.epoch.0,
            cluster: self.cluster.to_wire(),
            txn: self.txn.to_wire(),
            table: self.table.0,
            table_name: self.table_name.clone(),
            schema: serde_json::to_vec(&self.schema.as_ref()).map_err(json)?,
            distribution: serde_json::to_vec(&self.distribution).map_err(json)?,
            sort_key: self.sort_key.iter().map(|column| column.0).collect(),
            slice_owners: self.slice_owners.iter().map(WireId::to_wire).collect(),
            endpoints: self
                .endpoints
                .iter()
                .map(|(worker, url)| Endpoint { worker: worker.to_wire(), url: url.to_string() })
                .collect(),
            local_slices: self.local_slices,
        })
    }

    /// Reads a target from a message.
    pub fn from_wire(message: &WireTarget) -> Result<Self, MalformedMessage> {
        let malformed = |field| MalformedMessage::new(MESSAGE, field);
        let worker = |bytes: &Vec<u8>| WorkerId::from_wire(bytes, MESSAGE, "slice_owners");
        let endpoint = |endpoint: &Endpoint| {
            let worker = WorkerId::from_wire(&endpoint.worker, MESSAGE, "endpoints")?;
            let url = endpoint.url.parse().map_err(|_| malformed("endpoints"))?;
            Ok((worker, url))
        };
        Ok(Self {
            epoch: Epoch(message.epoch),
            cluster: ClusterId::from_wire(&message.cluster, MESSAGE, "cluster")?,
            txn: TxnId::from_wire(&message.txn, MESSAGE, "txn")?,
            table: TableId(message.table),
            table_name: message.table_name.clone(),
            schema: serde_json::from_slice::<TableSchema>(&message.schema)
                .map(Arc::new)
                .map_err(|_| malformed("schema"))?,
            distribution: serde_json::from_slice(&message.distribution)
                .map_err(|_| malformed("distribution"))?,
            sort_key: message.sort_key.iter().map(|column| ColumnId(*column)).collect(),
            slice_owners: message.slice_owners.iter().map(worker).collect::<Result<_, _>>()?,
            endpoints: message.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?,
            local_slices: message.local_slices,
        })
    }
}
