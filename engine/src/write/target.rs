//! Where a transaction's rows go: table, slices and their owners at one epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_storage::ids::{ClusterId, ColumnId, Epoch, SliceId, TableId, TxnId, WorkerId};
use basalt_storage::schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use url::Url;

use crate::protocol::{AppendTarget as WireTarget, Endpoint, MalformedMessage, WireId, Workers};
use crate::snapshot::{ClusterView, Distribution, apart};

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
    /// The worker that takes the rows of each slice and has the first copy of them.
    pub slice_owners: Vec<WorkerId>,
    /// Workers that may have each slice's other copies, the best first, by slice number.
    pub slice_partners: Vec<Vec<WorkerId>>,
    /// Copies that are made.
    pub copies: Copies,
    /// Where the owners listen.
    pub endpoints: BTreeMap<WorkerId, Url>,
    /// With round-robin distribution, keep rows on the worker that produced them: right when the
    /// input is spread evenly already, and then no row crosses the network.
    pub local_slices: bool,
    /// The slice whose segments are merged: all rows go there, in the order of the sort key.
    pub merged_slice: Option<SliceId>,
}

/// How many copies of what a transaction writes are durable before it commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    /// As many as the table should have.
    pub wanted: u16,
    /// As many as there must be; fewer than `wanted` when the session lowered consistency. What
    /// lacks is made by repair.
    pub required: u16,
}

impl Copies {
    /// One copy: the owner's.
    pub const ONE: Self = Self { wanted: 1, required: 1 };
}

/// Workers beyond those wanted that a slice's copies may go to when one of these fails.
const SPARE_PARTNERS: usize = 2;

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

    /// Fills in owners, partners and addresses from a view of the cluster. Each slice goes to those
    /// of its workers that can be reached, and then to any others; it has no owner when none can.
    pub fn set_cluster(&mut self, cluster: &ClusterView) {
        self.epoch = cluster.epoch;
        self.cluster = cluster.cluster;
        self.endpoints.clone_from(&cluster.workers);
        let partners_max = usize::from(self.copies.wanted).saturating_sub(1) + SPARE_PARTNERS;
        let slices = (0..).map(SliceId).take(cluster.slice_owners.len());
        let placed = slices.filter_map(|slice| {
            let mut workers = reachable_workers(cluster, slice).into_iter();
            Some((workers.next()?, workers.take(partners_max).collect()))
        });
        (self.slice_owners, self.slice_partners) = placed.unzip();
    }

    /// Whether every worker that owns slices owns as many of them as the others, so that rows which
    /// are even over workers are even over slices.
    pub fn is_even(&self) -> bool {
        let mut owned: BTreeMap<WorkerId, usize> = BTreeMap::new();
        for owner in &self.slice_owners {
            *owned.entry(*owner).or_default() += 1;
        }
        let (least, most) = (owned.values().min(), owned.values().max());
        most.zip(least).is_none_or(|(most, least)| most - least <= 1)
    }

    /// The column whose slice hash chooses the slice of each row; none where something else does.
    pub fn routed_by(&self) -> Option<ColumnId> {
        match (self.merged_slice, self.distribution) {
            (None, Distribution::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// The workers that may have other copies of a slice, the best first.
    pub fn partners(&self, slice: SliceId) -> &[WorkerId] {
        self.slice_partners.get(usize::from(slice.0)).map_or(&[], Vec::as_slice)
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
            slice_partners: self
                .slice_partners
                .iter()
                .map(|partners| Workers { ids: partners.iter().map(WireId::to_wire).collect() })
                .collect(),
            copies_wanted: u32::from(self.copies.wanted),
            copies_required: u32::from(self.copies.required),
            endpoints: self
                .endpoints
                .iter()
                .map(|(worker, url)| Endpoint { worker: worker.to_wire(), url: url.to_string() })
                .collect(),
            local_slices: self.local_slices,
            merged_slice: self.merged_slice.map(|slice| u32::from(slice.0)),
        })
    }

    /// Reads a target from a message.
    pub fn from_wire(message: &WireTarget) -> Result<Self, MalformedMessage> {
        let malformed = |field| MalformedMessage::new(MESSAGE, field);
        let worker = |bytes: &Vec<u8>| WorkerId::from_wire(bytes, MESSAGE, "slice_owners");
        let partners =
            |partners: &Workers| partners.ids.iter().map(worker).collect::<Result<Vec<_>, _>>();
        let narrow = |number: u32, field| u16::try_from(number).map_err(|_| malformed(field));
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
            slice_partners: message
                .slice_partners
                .iter()
                .map(partners)
                .collect::<Result<_, _>>()?,
            copies: Copies {
                wanted: narrow(message.copies_wanted, "copies_wanted")?,
                required: narrow(message.copies_required, "copies_required")?,
            },
            endpoints: message.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?,
            local_slices: message.local_slices,
            merged_slice: match message.merged_slice {
                Some(slice) => Some(SliceId(narrow(slice, "merged_slice")?)),
                None => None,
            },
        })
    }
}

/// The workers that can be reached in the order in which a slice's copies go to them: the slice's
/// own, then the others, each slice from another one on.
fn reachable_workers(cluster: &ClusterView, slice: SliceId) -> Vec<WorkerId> {
    let own = cluster.workers_of(slice).filter(|worker| cluster.workers.contains_key(worker));
    let mut workers: Vec<_> = own.collect();
    let start = usize::from(slice.0) % cluster.workers.len().max(1);
    let others = cluster.workers.keys().cycle().skip(start).take(cluster.workers.len());
    let others = others.filter(|other| !workers.contains(other)).copied().collect();
    workers.extend(apart(&workers, others, &cluster.domains));
    workers
}

#[cfg(test)]
mod tests {
    use basalt_storage::schema::TableSchema;

    use super::*;

    fn cluster(workers: &[WorkerId], reachable: &[usize]) -> ClusterView {
        let slices = workers.len() * 2;
        let at = |index: usize| workers[index % workers.len()];
        ClusterView {
            cluster: ClusterId::generate(),
            epoch: Epoch(3),
            slice_owners: (0..slices).map(at).collect(),
            slice_partners: (0..slices).map(|slice| vec![at(slice + 1)]).collect(),
            members: workers.len(),
            workers: reachable
                .iter()
                .map(|port| {
                    (workers[*port], format!("http://127.0.0.1:{}", port + 1).parse().unwrap())
                })
                .collect(),
            domains: [].into(),
            moved: [].into(),
        }
    }

    #[test]
    fn others_stand_in_where_nothing_fails_together() {
        let workers = [(); 4].map(|()| WorkerId::generate());
        let mut cluster = cluster(&workers, &[0, 1, 3]);
        let racks = [(0, "a"), (1, "a"), (2, "b"), (3, "b")];
        cluster.domains = racks.map(|(at, rack)| (workers[at], rack.to_owned())).into();
        cluster.slice_owners = vec![workers[0]];
        cluster.slice_partners = vec![vec![workers[2]]];
        let target = target(&cluster);
        assert_eq!(target.partners(SliceId(0)), [workers[3], workers[1]]);
    }

    #[test]
    fn slices_are_even_where_owners_have_as_many_as_the_others() {
        let [one, other] = [(); 2].map(|()| WorkerId::generate());
        let even = |owners: &[WorkerId]| {
            let mut target = target(&cluster(&[one, other], &[0, 1]));
            target.slice_owners = owners.to_vec();
            target.is_even()
        };
        assert!(even(&[]) && even(&[one, one]) && even(&[one, other, one]));
        assert!(!even(&[one, other, one, one]));
    }

    fn target(cluster: &ClusterView) -> AppendTarget {
        let mut target = AppendTarget {
            epoch: Epoch(0),
            cluster: cluster.cluster,
            txn: TxnId::generate(),
            table: TableId(1),
            table_name: "public.t".to_owned(),
            schema: Arc::new(TableSchema { version: 1, columns: vec![], keys: vec![] }),
            distribution: Distribution::Even,
            sort_key: vec![],
            slice_owners: vec![],
            slice_partners: vec![],
            copies: Copies { wanted: 2, required: 2 },
            endpoints: BTreeMap::new(),
            local_slices: false,
            merged_slice: Some(SliceId(1)),
        };
        target.set_cluster(cluster);
        target
    }

    #[test]
    fn slices_go_to_their_own_workers_while_these_can_be_reached() {
        let workers: Vec<_> = (0..3).map(|_| WorkerId::generate()).collect();
        let cluster = cluster(&workers, &[0, 1, 2]);
        let target = target(&cluster);
        assert_eq!(target.slice_owners, cluster.slice_owners);
        for slice in (0..6).map(SliceId) {
            assert_eq!(target.partners(slice)[0], cluster.slice_partners[usize::from(slice.0)][0]);
            assert_eq!(target.partners(slice).len(), 2, "one wanted, and who is left to spare");
        }
    }

    #[test]
    fn the_slices_of_a_lost_worker_go_to_its_partners_and_those_to_others() {
        let workers: Vec<_> = (0..3).map(|_| WorkerId::generate()).collect();
        let target = target(&cluster(&workers, &[1, 2]));
        assert_eq!(target.slice_owners[0], workers[1], "worker 0 owned it, worker 1 was partner");
        assert_eq!(target.partners(SliceId(0)), [workers[2]]);
        assert_eq!(target.slice_owners[2], workers[2]);
        assert_eq!(target.partners(SliceId(2)), [workers[1]], "worker 0 was partner");
    }

    #[test]
    fn without_workers_there_are_no_owners() {
        let workers: Vec<_> = (0..2).map(|_| WorkerId::generate()).collect();
        assert!(target(&cluster(&workers, &[])).slice_owners.is_empty());
    }

    #[test]
    fn a_target_is_the_same_after_it_travelled() {
        let workers: Vec<_> = (0..3).map(|_| WorkerId::generate()).collect();
        let target = target(&cluster(&workers, &[0, 2]));
        assert_eq!(AppendTarget::from_wire(&target.to_wire().unwrap()).unwrap(), target);
    }
}
