//! Hands a batch to the leader, within its deadline.
//!
//! The leader takes it as one piece of work and answers request by request. What went wrong is told apart by one
//! question: can the leader have proposed it? If the connection was never made, or the leader says so itself, it can't.
//! Anything else that breaks on the way leaves the outcome unknown.
//!
//! Not here: trying again (`batcher.rs`).

use jangbu_ledger::planted::{self, Bug};
use std::{error::Error, sync::Arc, time::Duration};

use jangbu_proto::{
    batch::{BatchBuilder, Replies},
    cluster::v1::{ForwardReply, ForwardRequest},
    entry::NodeInfo,
    reason,
};
use tokio::time::Instant;
use tonic::{Code, ConnectError, Status};

use crate::{
    batcher::{Applied, Outcome},
    error::CallError,
    peers::{Peers, Purpose},
};

/// Kept back from the callers' deadline, so that the leader's word arrives before it.
const RETURN_MARGIN_MAX: Duration = Duration::from_millis(10);

pub struct Forwarder {
    peers: Arc<Peers>,
}

impl Forwarder {
    pub fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }

    /// Blocks on the leader and its quorum; the caller keeps the deadline.
    pub async fn forward(
        &self,
        leader: u64,
        node: &NodeInfo,
        builder: BatchBuilder,
        traceparents: Vec<String>,
        deadline: Instant,
    ) -> Outcome {
        let requests_count = builder.len();
        let link = self.peers.link(leader, node, Purpose::Append);
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left - RETURN_MARGIN_MAX.min(left / 10);
        let request = ForwardRequest {
            envelope: Some(link.envelope()),
            // The leader stamps the time.
            requests: builder.finish(0),
            deadline_ms: left.as_millis() as u32,
            traceparents,
        };
        let mut client = match link.client() {
            Ok(client) => client,
            Err(_) => return Outcome::NotProposed,
        };
        match client.forward(request).await {
            Ok(reply) => applied(reply.into_inner(), requests_count),
            Err(status) => failed(&status),
        }
    }
}

fn applied(reply: ForwardReply, requests_count: usize) -> Outcome {
    match Replies::parse(reply.replies) {
        Ok(replies) if replies.len() == requests_count => {
            Outcome::Applied(Applied { log_index: reply.log_index, term: reply.term, replies: replies.into_views() })
        }
        // It was done, and this node can't tell the callers how.
        _ => Outcome::Unknown,
    }
}

fn failed(status: &Status) -> Outcome {
    let told = reason::told(status);
    match told.reason.as_str() {
        reason::NOT_LEADER
        | reason::NO_LEADER
        | reason::NO_QUORUM
        | reason::NOT_READY
        | reason::SHUTTING_DOWN
        | reason::FENCED
        | reason::NOT_PROPOSED => Outcome::NotProposed,
        reason::OVERLOADED => Outcome::Refused(CallError::Overloaded {
            what: "requests at the leader",
            retry_after: told.retry_after.unwrap_or(Duration::from_millis(100)),
        }),
        // Removed, and yet to hear of it: whoever waits here would wait in vain, and any other node can take it.
        _ if status.code() == Code::PermissionDenied => {
            let message = "the leader doesn't take this node for a member; ask another one";
            Outcome::Refused(CallError::unavailable(reason::NOT_READY, message))
        }
        _ if never_connected(status) => Outcome::NotProposed,
        _ if planted::is(Bug::DoubtIsDenied) => Outcome::NotProposed,
        _ => Outcome::Unknown,
    }
}

/// No connection, no proposal.
fn never_connected(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_of_a_node_that_was_removed_are_sent_elsewhere_at_once() {
        let removed = reason::status(Code::PermissionDenied, reason::NOT_A_MEMBER, "node 3 is being removed");
        let outcome = failed(&removed);
        assert!(matches!(outcome, Outcome::Refused(CallError::Unavailable { reason: reason::NOT_READY, .. })));
    }
}
