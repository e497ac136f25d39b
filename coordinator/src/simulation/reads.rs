//! Queries, as a coordinator runs them: all segments of a pinned snapshot, each from a holder, and
//! all again on the workers that answer when one of them cannot be had (`statements/failover.rs`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::snapshot::{ClusterView, Snapshot};
use basalt_storage::ids::{SegmentId, WorkerId};
use basalt_storage::manifest::SegmentRecord;

use super::coordinator::{Alarm, Waiting};
use super::disk::Row;
use super::messages::{Address, Ask, Caller, Node, Reply, unavailable};
use super::oracle::live_rows;
use super::world::{Event, Ms, World};
use crate::membership::MemberState;
use crate::statements::failover::{ATTEMPTS_MAX, moved_copies};

/// How long a holder may take.
const READ_WITHIN: Ms = 2_000;
/// How long those are waited for that are asked whether they are there.
const LOOKED_AFTER: Ms = 1_100;

/// A query under way.
pub(super) struct ReadRun {
    caller: Caller,
    pub(super) pinned: Arc<Snapshot>,
    cluster: Arc<ClusterView>,
    moved: HashMap<SegmentId, Vec<WorkerId>>,
    todo: VecDeque<Arc<SegmentRecord>>,
    /// Holders that were not asked for the first of `todo`.
    holders: Vec<WorkerId>,
    rows: Vec<Row>,
    attempt: u32,
    /// The longest it rests between two segments.
    rest: Ms,
}

impl World {
    pub(super) fn read_begins(&mut self, caller: Caller) {
        let pinned = self.snapshot();
        let cluster = Arc::clone(&pinned.cluster);
        self.next_statement += 1;
        let id = self.next_statement;
        let rest = match self.is_calm {
            true => 1,
            false => self.random.one_of(&[1, 50, 1_000, 9_000]).unwrap_or(1),
        };
        self.tell(|| format!("read {id} pins commit {}", pinned.version));
        let run = ReadRun {
            caller,
            cluster,
            moved: HashMap::new(),
            todo: pinned.segments().cloned().collect(),
            pinned,
            holders: vec![],
            rows: vec![],
            attempt: 1,
            rest,
        };
        self.brain().reads.insert(id, run);
        self.read_next(id);
    }

    /// Goes on with the next segment, or is done.
    pub(super) fn read_next(&mut self, id: u64) {
        let Some(run) = self.brain().reads.get_mut(&id) else { return };
        let Some(record) = run.todo.front() else { return self.read_ends(id) };
        let holders = run.moved.get(&record.segment).unwrap_or(&record.holders);
        let reachable = |holder: &&WorkerId| run.cluster.workers.contains_key(holder);
        run.holders = holders.iter().filter(reachable).copied().collect();
        self.read_holder(id);
    }

    fn read_holder(&mut self, id: u64) {
        let Some(run) = self.brain().reads.get_mut(&id) else { return };
        if run.holders.is_empty() {
            return self.read_plans_again(id);
        }
        let holder = run.holders.remove(0);
        let port = run.cluster.workers.get(&holder).and_then(url::Url::port).unwrap_or(0);
        let Some(segment) = run.todo.front().map(|record| record.segment) else { return };
        let ask = Ask::Read { epoch: run.cluster.epoch, segment };
        let call = self.ask(Node::Coordinator, Address::Worker(holder, port), ask, READ_WITHIN);
        self.brain().calls.insert(call, Waiting::Read(id));
    }

    pub(super) fn read_answered(&mut self, id: u64, answer: Result<Reply, SqlError>) {
        let Some(run) = self.brain().reads.get_mut(&id) else { return };
        match answer {
            Ok(Reply::Rows(rows)) => {
                let Some(record) = run.todo.pop_front() else { return };
                run.rows.extend(live_rows(&rows, &record).into_iter().map(|(_, row)| row));
                let rest = run.rest;
                let (delay, run) = (self.random.below(rest), self.coordinator_run);
                self.after(delay, Event::Coordinator(run, Alarm::ReadOn(id)));
            }
            Err(error) if error.code == ErrorCode::StalePlan => self.read_plans_again(id),
            _ => self.read_holder(id),
        }
    }

    fn read_plans_again(&mut self, id: u64) {
        let Some(run) = self.brain().reads.get_mut(&id) else { return };
        if run.attempt >= ATTEMPTS_MAX {
            let caller = run.caller;
            self.brain().reads.remove(&id);
            self.seen.note("read: an error");
            let error = unavailable("a segment cannot be read anywhere");
            return self.answer(Node::Coordinator, caller, Err(error));
        }
        run.attempt += 1;
        self.seen.note("read: planned again");
        self.ping(|state| state != MemberState::Dead);
        let run = self.coordinator_run;
        self.after(LOOKED_AFTER, Event::Coordinator(run, Alarm::ReadAgain(id)));
    }

    /// The same snapshot on the workers of now, with the copies that they have by now.
    pub(super) fn read_again(&mut self, id: u64) {
        let now = self.snapshot();
        let Some(run) = self.brain().reads.get_mut(&id) else { return };
        run.moved = moved_copies(run.pinned.segments(), now.segments());
        run.cluster = Arc::clone(&now.cluster);
        run.todo = run.pinned.segments().cloned().collect();
        run.rows.clear();
        self.read_next(id);
    }

    fn read_ends(&mut self, id: u64) {
        let newest = self.snapshot().version;
        let Some(mut run) = self.brain().reads.remove(&id) else { return };
        run.rows.sort_unstable();
        let version = run.pinned.version;
        let expected = &self.oracle.history[version as usize];
        self.require(run.rows.iter().eq(expected.iter()), || {
            format!("a read of commit {version} has {:?}, not {expected:?}", run.rows)
        });
        self.seen.note("read: all rows");
        if version < newest {
            self.seen.note("read: on an earlier commit");
        }
        self.answer(Node::Coordinator, run.caller, Ok(Reply::Rows(run.rows)));
    }
}
