//! Mending copies that a scan found bad.
//!
//! A scan that cannot read a chunk here takes it from a peer and goes on; the copy here is checked
//! as a whole and mended behind its back, so that the next scan finds it good. One copy is mended at
//! a time: this yields to everything else.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use basalt_storage::chunk_store::SegmentCopy;
use basalt_storage::ids::{Epoch, SegmentId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fetch::{Fetcher, Source};

/// Copies that wait to be mended. One that finds no place is found bad again by its next scan.
const WAITING_MAX: usize = 256;

struct Work {
    epoch: Epoch,
    copy: SegmentCopy,
    sources: Vec<Source>,
}

/// Mends copies of one worker. Dropping it ends the task.
#[derive(Debug)]
pub struct Healer {
    work: mpsc::Sender<Work>,
    waiting: Arc<Mutex<HashSet<SegmentId>>>,
    task: JoinHandle<()>,
}

impl Healer {
    /// Starts the task that mends.
    pub fn start(fetcher: Fetcher) -> Self {
        let (work, mut due) = mpsc::channel::<Work>(WAITING_MAX);
        let waiting: Arc<Mutex<HashSet<SegmentId>>> = Arc::default();
        let done = Arc::clone(&waiting);
        let task = tokio::spawn(async move {
            while let Some(Work { epoch, copy, sources }) = due.recv().await {
                match fetcher.fetch(epoch, &copy, &sources).await {
                    Ok(bytes) => {
                        tracing::warn!(segment = %copy.key, bytes, "a bad copy was mended");
                    }
                    Err(error) => {
                        tracing::error!(segment = %copy.key, %error, "a bad copy cannot be mended");
                    }
                }
                done.lock().unwrap_or_else(PoisonError::into_inner).remove(&copy.key.segment);
            }
        });
        Self { work, waiting, task }
    }

    /// Mends a copy soon, unless it waits for that already.
    pub fn mend(&self, epoch: Epoch, copy: SegmentCopy, sources: Vec<Source>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = copy.key.segment;
        if sources.is_empty() || !waiting.insert(segment) {
            return;
        }
        if self.work.try_send(Work { epoch, copy, sources }).is_err() {
            waiting.remove(&segment);
        }
    }
}

impl Drop for Healer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
