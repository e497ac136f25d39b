//! Asking workers whether they are there.
//!
//! Heartbeats say that a worker can reach the coordinator. Whether the coordinator can reach the
//! worker shows when it is asked: after a statement failed on workers, and again and again while
//! one did not answer.

use std::sync::Arc;
use std::time::Duration;

use basalt_engine::channels::Channels;
use basalt_engine::protocol::PingRequest;
use basalt_engine::protocol::replicas_client::ReplicasClient;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Incarnation, Member, MemberState, Members};

/// How long an answer may take: what a busy machine needs, and what a statement that lost a worker
/// can wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often those are asked again that did not answer.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Asks the workers of one cluster.
#[derive(Clone)]
pub struct Probes {
    members: Arc<Members>,
    channels: Channels,
}

impl Probes {
    /// Probes over connections to workers.
    pub fn new(members: Arc<Members>, channels: Channels) -> Self {
        Self { members, channels }
    }

    /// Asks every worker that is not dead. On return, snapshots name those that answered.
    pub async fn ask_all(&self) {
        self.ask(|member| member.state != MemberState::Dead).await;
    }

    /// Asks suspects until `stop` is cancelled.
    pub async fn run(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(AGAIN_AFTER)).await.is_some() {
            self.ask(|member| member.state == MemberState::Suspect).await;
        }
    }

    async fn ask(&self, wanted: impl Fn(&Member) -> bool) {
        let members = self.members.members();
        let asked = members.into_iter().filter(|member| wanted(member));
        let answers = join_all(asked.map(|member| async move {
            // One answer may be late on a busy machine.
            let answered = self.answers(&member).await || self.answers(&member).await;
            (member.worker, member.incarnation, answered)
        }));
        let answers = answers.await;
        if !answers.is_empty() {
            self.members.note_answers(&answers);
        }
    }

    /// Whether the very run of a worker that is a member answers.
    async fn answers(&self, member: &Member) -> bool {
        let Ok(channel) = self.channels.worker(member.worker, &member.url) else { return false };
        let ping = async {
            let answer = ReplicasClient::new(channel).ping(PingRequest {}).await;
            answer.is_ok_and(|answer| {
                let incarnation = uuid::Uuid::from_slice(&answer.into_inner().incarnation);
                incarnation.ok().map(Incarnation) == Some(member.incarnation)
            })
        };
        tokio::time::timeout(ANSWER_WITHIN, ping).await.unwrap_or(false)
    }
}
