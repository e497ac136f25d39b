//! The seam between the log's writer and the machines of its members.

use std::sync::Arc;

use basalt_storage::ids::ClusterId;
use url::Url;

use super::ledger::{APPEND_BYTES_MAX, Answer, Ask, AskFor, Run};
pub use super::log::LogReader;

/// A question to a member, with all that is needed to ask it.
pub struct Question {
    /// The cluster of the log.
    pub cluster: ClusterId,
    /// What is asked.
    pub ask: AskFor,
    /// Reads records that the question does not carry.
    pub log: LogReader,
}

impl Question {
    /// The records of an append: those that it carries, or from the disk. Blocks on it. `None`
    /// when nothing is to be appended.
    ///
    /// # Errors
    /// What is wrong with the own copy, as text for the log.
    pub fn run(&self) -> Result<Option<(u64, Run)>, String> {
        match &self.ask.ask {
            Ask::Append { after, run: Some(run), .. } => Ok(Some((*after, run.clone()))),
            Ask::Append { after, run: None, .. } => {
                let run = self.log.run(*after, APPEND_BYTES_MAX);
                let run = run.map_err(|error| error.to_string())?;
                Ok(Some((*after, run)))
            }
            Ask::Promise | Ask::Read { .. } => Ok(None),
        }
    }
}

/// How the writer reaches members.
pub trait MemberLinks: Send + Sync {
    /// Asks the worker at `url`, and calls `answer` once, within bounded time. Does not wait.
    fn ask(&self, url: &Url, question: Question, answer: Box<dyn FnOnce(Answer) + Send>);
}

/// Links to nobody, for a catalog without a network.
pub(super) struct NoLinks;

impl MemberLinks for NoLinks {
    fn ask(&self, _: &Url, _: Question, answer: Box<dyn FnOnce(Answer) + Send>) {
        answer(Answer::Failed("there is no network".to_owned()));
    }
}

/// What a catalog starts with.
pub(super) fn no_links() -> Arc<dyn MemberLinks> {
    Arc::new(NoLinks)
}
