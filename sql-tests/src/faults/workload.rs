//! What clients do while faults happen, and how it is told afterwards whether all is right.
//!
//! - [`append`]: batches of rows; each there exactly once, whole or not at all
//! - [`bank`]: transfers between accounts; the sum never changes
//! - [`cells`]: UPDATE and DELETE over several columns; no half change, no mixed columns
//! - [`requests`]: writes that are sent again under their keys; each there exactly once
//! - [`statements`]: INSERT, COPY and CREATE TABLE AS
//! - [`queries`]: reads of one value to reads of very many rows, each whole or an error
//!
//! Each is writers and readers that run at the same time and a check at the end. What a checker
//! decides is a pure function of a history and of the rows that were found, tested with planted
//! bugs.

pub mod append;
pub mod bank;
pub mod cells;
pub mod queries;
pub mod requests;
pub mod statements;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::choices::Choices;
use super::session::Session;
use super::traffic::Traffic;
use super::violation::Violation;

pub use append::Append;
pub use bank::Bank;
pub use cells::Cells;
pub use queries::Queries;
pub use requests::Requests;
pub use statements::Statements;

/// A kind of traffic and its checker. Lives for many trials on one cluster.
#[async_trait]
pub trait Workload: Send {
    /// Makes its tables.
    ///
    /// # Errors
    /// When the cluster does not take them.
    async fn prepare(&mut self, session: &mut Session) -> Result<(), Violation>;

    /// Writes and reads until the traffic is over.
    ///
    /// # Errors
    /// A promise that a reader or a writer saw broken.
    async fn run(
        &mut self,
        url: &str,
        traffic: &Arc<Traffic>,
        choices: &mut Choices,
    ) -> Result<(), Violation>;

    /// Checks everything there is against everything that was done so far. Nothing is wrong with
    /// the cluster any more, and nothing is under way.
    ///
    /// # Errors
    /// The promise that is broken.
    async fn check(&mut self, session: &mut Session) -> Result<Unanswered, Violation>;
}

/// What had become of writes without an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// Those that were made.
    pub made: u64,
    /// Those that were not.
    pub not_made: u64,
}

impl Unanswered {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self { made: self.made + other.made, not_made: self.not_made + other.not_made }
    }
}

/// Waits for all tasks, and returns what they return or the first violation.
async fn all<T: 'static>(mut tasks: JoinSet<Result<T, Violation>>) -> Result<Vec<T>, Violation> {
    let mut done = Vec::new();
    while let Some(task) = tasks.join_next().await {
        match task {
            Ok(result) => done.push(result?),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(done)
}
