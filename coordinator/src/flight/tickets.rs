//! Planned queries that wait to be fetched, and fetched ones that can be cancelled.
//!
//! ```text
//! GetFlightInfo -> planned -- DoGet --> running -- last row, error or drop --> gone
//!                     └── 5 minutes, cancel, or `max` newer ones ──────────────> gone
//! ```
//! Invariant: a query is started at most once: [`Tickets::start`] takes the plan out.
//! Tickets work on any connection, also another process's (`adbc_read_partition`).
//! The clock is handed in.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use basalt_engine::error::{ErrorCode, SqlError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::Handle;
use crate::backend::{PlannedQuery, QueryId};

/// Bytes of texts and parameters of the queries that wait. A plan takes some times as much, and a
/// client may plan without end.
const BYTES_MAX: usize = 64 << 20;

/// A planned query with its text, which errors while it runs point into.
pub(super) struct Planned {
    pub(super) query: PlannedQuery,
    pub(super) sql: Arc<str>,
}

/// What came of a request to cancel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// It had not started and never will.
    BeforeStart,
    /// It runs: tell the backend.
    Running(QueryId),
    /// It is unknown or over.
    Unknown,
}

/// The queries that clients hold tickets of.
pub(super) struct Tickets {
    max: usize,
    bytes_max: usize,
    ttl: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Queries that wait, each with the bytes of its text and parameters.
    planned: HashMap<Handle, (Planned, usize)>,
    /// The sum of those bytes.
    bytes: usize,
    /// Every planned handle in the order of its deadline; also some that are gone already.
    order: VecDeque<(Instant, Handle)>,
    running: HashMap<Handle, (QueryId, CancellationToken)>,
}

/// A query that is being fetched; it counts as running until this is dropped.
pub(super) struct Running {
    handle: Handle,
    state: Arc<Mutex<State>>,
    /// Cancelled when a client asks to cancel the query.
    pub(super) cancelled: CancellationToken,
}

impl Tickets {
    pub(super) fn new(max: usize, ttl: Duration) -> Self {
        Self { max: max.max(1), bytes_max: BYTES_MAX, ttl, state: Arc::default() }
    }

    /// Keeps a planned query of so many bytes until somebody fetches it; the oldest go when there
    /// are too many or too large ones.
    pub(super) fn insert(&self, planned: Planned, bytes: usize, now: Instant) -> Handle {
        let handle = Handle::generate();
        let mut state = lock(&self.state);
        let mut dropped = state.expire(now);
        while (state.planned.len() >= self.max || state.bytes + bytes > self.bytes_max)
            && let Some((_, oldest)) = state.order.pop_front()
        {
            dropped.extend(state.remove(oldest));
        }
        if state.order.len() >= 2 * self.max {
            let State { planned, order, .. } = &mut *state;
            order.retain(|(_, handle)| planned.contains_key(handle));
        }
        state.planned.insert(handle, (planned, bytes));
        state.bytes += bytes;
        state.order.push_back((now + self.ttl, handle));
        // Plans may be expensive to drop: not under the lock.
        drop(state);
        drop(dropped);
        handle
    }

    /// Takes a planned query out, to be started.
    ///
    /// # Errors
    /// When the handle is unknown: used up, expired or never handed out.
    pub(super) fn start(&self, handle: Handle) -> Result<(Planned, Running), SqlError> {
        let mut state = lock(&self.state);
        let planned = state.remove(handle).ok_or_else(unknown)?;
        let cancelled = CancellationToken::new();
        state.running.insert(handle, (planned.query.query_id, cancelled.clone()));
        drop(state);
        Ok((planned, Running { handle, state: Arc::clone(&self.state), cancelled }))
    }

    /// Cancels a query.
    pub(super) fn cancel(&self, handle: Handle) -> Cancelled {
        let mut state = lock(&self.state);
        let planned = state.remove(handle);
        if planned.is_some() {
            drop(state);
            return Cancelled::BeforeStart;
        }
        match state.running.get(&handle) {
            Some((query, token)) => {
                token.cancel();
                Cancelled::Running(*query)
            }
            None => Cancelled::Unknown,
        }
    }

    /// Drops planned queries whose time is over.
    pub(super) fn expire(&self, now: Instant) {
        let dropped = lock(&self.state).expire(now);
        drop(dropped);
    }
}

impl State {
    fn remove(&mut self, handle: Handle) -> Option<Planned> {
        let (planned, bytes) = self.planned.remove(&handle)?;
        self.bytes -= bytes;
        Some(planned)
    }

    fn expire(&mut self, now: Instant) -> Vec<Planned> {
        let mut dropped = Vec::new();
        while let Some((deadline, handle)) = self.order.front().copied() {
            if deadline > now && self.planned.contains_key(&handle) {
                break;
            }
            dropped.extend(self.remove(handle));
            self.order.pop_front();
        }
        dropped
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.state).running.remove(&self.handle);
    }
}

/// The error of a ticket that names nothing.
pub(super) fn unknown() -> SqlError {
    SqlError::new(
        ErrorCode::UnknownHandle,
        "the ticket is unknown: it was fetched already, has expired, or is not from this server",
    )
    .with_hint("a ticket is good for one fetch within a few minutes; run the query again")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The maps are whole after any panic: each change is one call.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use futures::StreamExt;

    use super::*;

    fn planned(id: u128) -> Planned {
        let schema = Arc::new(Schema::empty());
        let start = Box::new(|| futures::stream::empty().boxed());
        let query = PlannedQuery { query_id: QueryId::from_u128(id), schema, start };
        Planned { query, sql: "".into() }
    }

    fn tickets(max: usize) -> (Tickets, Instant) {
        (Tickets::new(max, Duration::from_secs(300)), Instant::now())
    }

    #[test]
    fn a_ticket_is_good_for_one_fetch() {
        let (tickets, now) = tickets(10);
        let handle = tickets.insert(planned(1), 1, now);
        assert!(tickets.start(handle).is_ok());
        let error = tickets.start(handle).err().unwrap();
        assert_eq!(error.code, ErrorCode::UnknownHandle);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let (tickets, now) = tickets(2);
        let handles: Vec<_> = (0..3).map(|id| tickets.insert(planned(id), 1, now)).collect();
        assert!(tickets.start(handles[0]).is_err());
        assert!(tickets.start(handles[1]).is_ok());
        assert!(tickets.start(handles[2]).is_ok());
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large() {
        let (mut tickets, now) = tickets(10);
        tickets.bytes_max = 100;
        let sizes = [(0, 40), (1, 10), (2, 60), (3, 30)];
        let handles: Vec<_> =
            sizes.iter().map(|(id, bytes)| tickets.insert(planned(*id), *bytes, now)).collect();
        assert!(tickets.start(handles[0]).is_err());
        assert!(tickets.start(handles[1]).is_ok());
        // One that is too large by itself is alone.
        let large = tickets.insert(planned(4), 200, now);
        assert!(tickets.start(handles[2]).is_err() && tickets.start(handles[3]).is_err());
        assert!(tickets.start(large).is_ok());
        assert_eq!(lock(&tickets.state).bytes, 0);
    }

    #[test]
    fn a_query_that_nobody_fetches_is_dropped() {
        let (tickets, now) = tickets(10);
        let old = tickets.insert(planned(1), 1, now);
        let new = tickets.insert(planned(2), 1, now + Duration::from_secs(1));
        tickets.expire(now + Duration::from_secs(300));
        assert!(tickets.start(old).is_err());
        assert!(tickets.start(new).is_ok());
    }

    #[test]
    fn fetched_tickets_leave_nothing_behind() {
        let (tickets, now) = tickets(10);
        for id in 0..1_000 {
            let handle = tickets.insert(planned(id), 1, now);
            drop(tickets.start(handle).unwrap());
        }
        let state = lock(&tickets.state);
        assert!(state.order.len() <= 1 && state.planned.is_empty() && state.running.is_empty());
    }

    #[test]
    fn cancelling_finds_the_query_in_each_state() {
        let (tickets, now) = tickets(10);
        let handle = tickets.insert(planned(1), 1, now);
        assert_eq!(tickets.cancel(handle), Cancelled::BeforeStart);
        let handle = tickets.insert(planned(2), 1, now);
        let (_, running) = tickets.start(handle).unwrap();
        assert_eq!(tickets.cancel(handle), Cancelled::Running(QueryId::from_u128(2)));
        assert!(running.cancelled.is_cancelled());
        drop(running);
        assert_eq!(tickets.cancel(handle), Cancelled::Unknown);
    }
}
