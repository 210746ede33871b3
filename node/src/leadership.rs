//! Who leads, as far as this node knows.
//!
//! One task turns openraft's metrics into a small value that changes only when the leader does, so that everyone who
//! waits for a leader waits for the same news.
//!
//! Not here: whether that leader still leads. Only a quorum can say so (`reader.rs`, `proposer.rs`).

use std::sync::{Arc, atomic::Ordering};

use jangbu_proto::entry::NodeInfo;
use jangbu_raft_store::{Raft, TypeConfig};
use openraft::{
    async_runtime::WatchReceiver, metrics::RaftServerMetrics, type_config::alias::WatchReceiverOf, vote::RaftLeaderId,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{environment::Term, metrics::Metrics};

/// The leader of one term.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    pub this_node: u64,
    pub term: u64,
    /// `None`: an election is under way, or nothing was heard yet.
    pub leader: Option<(u64, NodeInfo)>,
}

/// The way of a request to the log.
#[derive(Debug, Clone)]
pub enum Route {
    Here,
    There(u64, NodeInfo),
    Unknown,
}

impl Leadership {
    pub fn route(&self) -> Route {
        match &self.leader {
            Some((id, _)) if *id == self.this_node => Route::Here,
            Some((id, node)) => Route::There(*id, node.clone()),
            None => Route::Unknown,
        }
    }

    pub fn leader_id(&self) -> Option<u64> {
        self.leader.as_ref().map(|(id, _)| *id)
    }

    pub fn is_here(&self) -> bool {
        self.leader_id() == Some(self.this_node)
    }
}

/// Watches until `stop`.
pub fn watch(
    raft: &Raft,
    told: Arc<Metrics>,
    term: Term,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> watch::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let first = read(&metrics);
    term.store(first.term, Ordering::Relaxed);
    let (sender, receiver) = watch::channel(first);
    tasks.spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
            }
            let now = read(&metrics);
            term.store(now.term, Ordering::Relaxed);
            sender.send_if_modified(|before| {
                let changed = *before != now;
                if changed {
                    tracing::info!(term = now.term, leader = now.leader_id(), "leadership");
                    if now.leader.is_some() {
                        told.leader_changes.inc();
                    }
                    *before = now;
                }
                changed
            });
        }
    });
    receiver
}

/// Waits until a leader is known, at most until `deadline`.
pub async fn known(leadership: &mut watch::Receiver<Leadership>, deadline: Instant) -> Option<Route> {
    let known = leadership.wait_for(|leadership| leadership.leader.is_some());
    timeout_at(deadline, known).await.ok()?.ok().map(|leadership| leadership.route())
}

fn read(metrics: &WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>) -> Leadership {
    // The borrow holds up RaftCore: take what is needed and let go.
    let metrics = metrics.borrow_watched();
    let leader = metrics.current_leader.and_then(|id| {
        let node = metrics.membership_config.membership().get_node(&id)?;
        Some((id, node.clone()))
    });
    Leadership { this_node: metrics.id, term: metrics.vote.leader_id().term(), leader }
}
