//! Rows that a worker has taken, made into segments here and on partners, by the rules of
//! `worker/src/staging.rs` and `worker/src/replicas/sender.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::write::AppendTarget;
use basalt_storage::ids::{ClusterId, Epoch, SegmentId, SliceId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;

use super::disk::Row;
use super::messages::{Address, Ask, Caller, Node, Reply, unavailable};
use super::oracle::new_record;
use super::worker::{Duty, Waiting};
use super::world::{Event, Ms, World};

/// How long a partner may take.
const PUT_WITHIN: Ms = 5_000;

/// One transaction on an owner.
#[derive(Debug)]
pub(super) struct Staged {
    target: Arc<AppendTarget>,
    rows: BTreeMap<SliceId, Vec<Row>>,
    touched: Ms,
    state: State,
    segments: Vec<Sealing>,
}

#[derive(Debug)]
enum State {
    Open,
    /// Whom to answer; whether the own copies are synced.
    Sealing(Caller, bool),
    Sealed,
    Failed,
}

/// A segment on its way to partners.
#[derive(Debug)]
struct Sealing {
    record: SegmentRecord,
    /// Partners that were not asked yet.
    spares: Vec<WorkerId>,
    asked: BTreeSet<WorkerId>,
}

fn over(txn: TxnId) -> SqlError {
    SqlError::new(ErrorCode::UnknownHandle, format!("transaction {txn} is over"))
}

impl World {
    pub(super) fn append(
        &mut self,
        machine: usize,
        target: &Arc<AppendTarget>,
        slice: SliceId,
        rows: Vec<Row>,
    ) -> Result<Reply, SqlError> {
        self.admits(machine, target.epoch)?;
        let now = self.now;
        let worker = self.machines[machine].worker;
        let Some(process) = &mut self.machines[machine].process else {
            return Err(unavailable("no process"));
        };
        if target.owner(slice).ok() != Some(worker) || process.aborted.contains(&target.txn) {
            return Err(over(target.txn));
        }
        let staged = process.staged.entry(target.txn).or_insert_with(|| Staged {
            target: Arc::clone(target),
            rows: BTreeMap::new(),
            touched: now,
            state: State::Open,
            segments: vec![],
        });
        if !matches!(staged.state, State::Open) {
            return Err(over(target.txn));
        }
        staged.touched = now;
        // A stream of rows is one of its connection: twice the same is the same.
        staged.rows.insert(slice, rows);
        Ok(Reply::Done)
    }

    /// Begins to seal; an answer at once when there is nothing to wait for.
    pub(super) fn seal(
        &mut self,
        machine: usize,
        caller: Caller,
        epoch: Epoch,
        txn: TxnId,
    ) -> Option<Result<Reply, SqlError>> {
        if let Err(error) = self.admits(machine, epoch) {
            return Some(Err(error));
        }
        let worker = self.machines[machine].worker;
        let process = self.machines[machine].process.as_mut()?;
        if process.aborted.contains(&txn) {
            return Some(Err(over(txn)));
        }
        let Some(staged) = process.staged.get_mut(&txn) else {
            return Some(Ok(Reply::Sealed(vec![])));
        };
        match staged.state {
            State::Sealing(..) | State::Failed => return Some(Err(over(txn))),
            State::Sealed => {
                let records = staged.segments.iter().map(|s| s.record.clone()).collect();
                return Some(Ok(Reply::Sealed(records)));
            }
            State::Open => staged.state = State::Sealing(caller, false),
        }
        let target = Arc::clone(&staged.target);
        let rows = std::mem::take(&mut staged.rows);
        let mut segments = Vec::new();
        for (slice, rows) in rows {
            let record = new_record(SegmentId(self.random.uuid()), &target, slice, worker, &rows);
            self.oracle.contents.insert(record.segment, rows);
            self.oracle.writers.insert(record.segment, txn);
            self.machines[machine].disk.write(record.segment);
            let spares = target.partners(slice).to_vec();
            segments.push(Sealing { record, spares, asked: BTreeSet::new() });
        }
        let ids: Vec<_> = segments.iter().map(|s| s.record.segment).collect();
        self.staged(machine, txn)?.segments = segments;
        for segment in ids {
            for _ in 1..target.copies.wanted {
                self.next_partner(machine, txn, segment);
            }
        }
        let (delay, run) = (self.random.between(1, 400), self.machines[machine].runs);
        self.after(delay, Event::Worker(machine, run, Duty::Sealed(txn)));
        None
    }

    fn staged(&mut self, machine: usize, txn: TxnId) -> Option<&mut Staged> {
        self.machines[machine].process.as_mut()?.staged.get_mut(&txn)
    }

    fn next_partner(&mut self, machine: usize, txn: TxnId, segment: SegmentId) {
        let Some(staged) = self.staged(machine, txn) else { return };
        let target = Arc::clone(&staged.target);
        let Some(sealing) = staged.segments.iter_mut().find(|s| s.record.segment == segment) else {
            return;
        };
        if sealing.spares.is_empty() {
            return;
        }
        let partner = sealing.spares.remove(0);
        sealing.asked.insert(partner);
        let record = Arc::new(sealing.record.clone());
        let Some(port) = target.endpoints.get(&partner).and_then(url::Url::port) else { return };
        let put = Ask::Put { epoch: target.epoch, cluster: target.cluster, record };
        let to = Address::Worker(partner, port);
        let call = self.ask(Node::Machine(machine), to, put, PUT_WITHIN);
        self.waits(machine, call, Waiting::Put { txn, segment, partner });
    }

    pub(super) fn partner_answers(
        &mut self,
        machine: usize,
        (txn, segment, partner): (TxnId, SegmentId, WorkerId),
        answer: Result<Reply, SqlError>,
    ) {
        let Some(staged) = self.staged(machine, txn) else { return };
        let Some(sealing) = staged.segments.iter_mut().find(|s| s.record.segment == segment) else {
            return;
        };
        sealing.asked.remove(&partner);
        match answer {
            Ok(_) => sealing.record.holders.push(partner),
            Err(_) => {
                if !sealing.spares.is_empty() {
                    self.seen.note("seal: a spare partner stands in");
                }
                self.next_partner(machine, txn, segment);
            }
        }
        self.maybe_sealed(machine, txn);
    }

    pub(super) fn own_copies_synced(&mut self, machine: usize, txn: TxnId) {
        let Some(staged) = self.staged(machine, txn) else { return };
        if let State::Sealing(_, synced) = &mut staged.state {
            *synced = true;
        }
        let segments: Vec<_> = staged.segments.iter().map(|s| s.record.segment).collect();
        let synced = segments.into_iter().all(|segment| self.synced(machine, segment));
        if !synced && let Some(staged) = self.staged(machine, txn) {
            // A disk that rots while it is written to: nothing of it may be named.
            staged.state = State::Failed;
        }
        self.maybe_sealed(machine, txn);
    }

    /// Answers a seal once all of its copies are where they can be.
    fn maybe_sealed(&mut self, machine: usize, txn: TxnId) {
        let now = self.now;
        let Some(staged) = self.staged(machine, txn) else { return };
        let State::Sealing(caller, true) = staged.state else { return };
        if staged.segments.iter().any(|sealing| !sealing.asked.is_empty()) {
            return;
        }
        let target = Arc::clone(&staged.target);
        for sealing in &mut staged.segments {
            let order = target.partners(sealing.record.slice);
            sealing.record.holders[1..].sort_by_key(|id| order.iter().position(|p| p == id));
        }
        let required = usize::from(target.copies.required);
        staged.touched = now;
        let answer = match staged.segments.iter().all(|s| s.record.holders.len() >= required) {
            true => {
                staged.state = State::Sealed;
                Ok(Reply::Sealed(staged.segments.iter().map(|s| s.record.clone()).collect()))
            }
            false => {
                staged.state = State::Failed;
                Err(unavailable("too few copies could be written"))
            }
        };
        self.answer(Node::Machine(machine), caller, answer);
    }

    pub(super) fn put(
        &mut self,
        machine: usize,
        caller: Caller,
        (epoch, cluster): (Epoch, ClusterId),
        record: &Arc<SegmentRecord>,
    ) -> Result<(), SqlError> {
        self.admits(machine, epoch)?;
        let run = self.machines[machine].runs;
        let Some(process) = &self.machines[machine].process else { return Ok(()) };
        process.fence.as_ref().map_or(Ok(()), |fence| fence.check_cluster(cluster))?;
        if process.aborted.contains(&record.txn) {
            return Err(over(record.txn));
        }
        let disk = &mut self.machines[machine].disk;
        if !disk.is_good(record.segment) {
            disk.write(record.segment);
        }
        let delay = self.random.between(1, 500);
        let duty = Duty::PutSynced(caller, Arc::clone(record));
        self.after(delay, Event::Worker(machine, run, duty));
        Ok(())
    }

    pub(super) fn put_synced(&mut self, machine: usize, caller: Caller, record: &SegmentRecord) {
        let (txn, segment, now) = (record.txn, record.segment, self.now);
        let synced = self.synced(machine, segment);
        let Some(process) = &mut self.machines[machine].process else { return };
        let answer = if process.aborted.contains(&txn) {
            self.machines[machine].disk.remove(segment, now);
            self.check_abort(machine, segment);
            Err(over(txn))
        } else if synced {
            let copies = process.copies.entry(txn).or_default();
            copies.0 = now;
            copies.1.push(segment);
            Ok(Reply::Done)
        } else {
            Err(unavailable("the copy was lost while it was synced"))
        };
        self.answer(Node::Machine(machine), caller, answer);
    }

    /// Whether a transaction that may not be over wrote a segment here.
    pub(super) fn has_staged(&self, machine: usize, segment: SegmentId) -> bool {
        let Some(process) = &self.machines[machine].process else { return false };
        let sealed = |staged: &Staged| {
            matches!(staged.state, State::Sealed)
                && staged.segments.iter().any(|s| s.record.segment == segment)
        };
        process.copies.values().any(|(_, segments)| segments.contains(&segment))
            || process.staged.values().any(sealed)
    }

    pub(super) fn abort_staged(&mut self, machine: usize, txn: TxnId) {
        let Some(process) = &mut self.machines[machine].process else { return };
        process.aborted.insert(txn);
        let staged = process.staged.remove(&txn);
        let (_, copies) = process.copies.remove(&txn).unwrap_or_default();
        let own = staged.into_iter().filter(|staged| matches!(staged.state, State::Sealed));
        let own = own.flat_map(|staged| staged.segments).map(|s| s.record.segment);
        for segment in own.chain(copies).collect::<Vec<_>>() {
            if self.machines[machine].disk.remove(segment, self.now) {
                self.check_abort(machine, segment);
            }
        }
    }

    /// Forgets what was staged long ago.
    pub(super) fn sweeps(&mut self, machine: usize) {
        let (now, kept) = (self.now, self.rules.staging_kept);
        let Some(process) = &mut self.machines[machine].process else { return };
        process.copies.retain(|_, (touched, _)| now - *touched < kept * 2);
        let mut abandoned = Vec::new();
        process.staged.retain(|txn, staged| {
            let age = now - staged.touched;
            match staged.state {
                State::Sealed => age <= kept,
                State::Failed => true,
                State::Open | State::Sealing(..) if age > kept * 2 => {
                    abandoned.push(*txn);
                    true
                }
                State::Open | State::Sealing(..) => true,
            }
        });
        for txn in abandoned {
            self.abort_staged(machine, txn);
        }
    }
}
