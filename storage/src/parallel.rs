//! Runs a function over many items on a bounded number of threads, to the end or the first error.
//!
//! Plain scoped threads: the work items here (encode a column, sync a file) take milliseconds,
//! and a pool of our own would be one more thing to shut down.

use std::sync::{Mutex, PoisonError};

use crate::error::{Result, StorageError};

/// Calls `work` once for each item, on at most `threads` threads. Items not yet started are
/// skipped after an error; the first error is returned.
pub(crate) fn for_each<'a, T: Sync>(
    threads: usize,
    items: &'a [T],
    work: impl Fn(&'a T) -> Result<()> + Sync,
) -> Result<()> {
    run(threads, items.len(), Mutex::new(items.iter()), work)
}

/// As [`for_each`], over exclusive references.
pub(crate) fn for_each_mut<'a, T: Send>(
    threads: usize,
    items: &'a mut [T],
    work: impl Fn(&'a mut T) -> Result<()> + Sync,
) -> Result<()> {
    run(threads, items.len(), Mutex::new(items.iter_mut()), work)
}

fn run<I: Iterator + Send>(
    threads: usize,
    items: usize,
    queue: Mutex<I>,
    work: impl Fn(I::Item) -> Result<()> + Sync,
) -> Result<()> {
    let drain = || -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = next else { return Ok(()) };
            if let Err(error) = work(item) {
                // Others find the queue empty and stop.
                queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
                return Err(error);
            }
        }
    };
    let threads = threads.min(items).max(1);
    if threads == 1 {
        return drain();
    }
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(drain)).collect();
        let own = drain();
        helpers.into_iter().fold(own, |result, helper| {
            let joined = helper.join().unwrap_or_else(|_| {
                Err(StorageError::invalid_request("a storage worker thread panicked"))
            });
            result.and(joined)
        })
    })
}
