//! Whether this node can serve, and if not, why: for load balancers, operators and gRPC health checks.
//!
//! *Live* is who runs. *Started* is who has its state. *Ready* is who can serve a linearizable request: it is in a cluster,
//! knows a leader, and has seen a quorum confirm it lately. A node that isn't ready still answers local reads.

use std::{sync::Arc, time::Duration};

use jangbu_raft_store::{LogStats, Raft, StateReader};
use openraft::{ServerState, async_runtime::WatchReceiver};
use tokio::sync::watch;

use crate::{identity::Identity, membership::lag_entries, metrics::Snapshot, reader::Reader};

/// How stale a ready node may be: some missed rounds, as after an election.
const STALENESS_MAX: Duration = Duration::from_secs(2);

pub struct Health {
    pub raft: Raft,
    pub identity: Arc<Identity>,
    pub reader: Arc<Reader>,
    pub state: StateReader,
    pub log: LogStats,
    pub draining: watch::Sender<bool>,
}

impl Health {
    /// From now on this node says that it isn't ready; or no more.
    pub fn set_draining(&self, draining: bool) {
        self.draining.send_replace(draining);
    }

    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// `None`: ready.
    pub fn not_ready_because(&self) -> Option<String> {
        if self.is_draining() {
            return Some("it is draining".into());
        }
        if self.identity.cluster_id().is_none() {
            return Some("it is in no cluster yet".into());
        }
        if let Err(fatal) = &self.raft.metrics().borrow_watched().running_state {
            return Some(format!("its Raft core has stopped: {fatal}"));
        }
        if self.raft.metrics().borrow_watched().current_leader.is_none() {
            return Some("no leader is known".into());
        }
        match self.reader.staleness() {
            None => Some("it has yet to catch up since it started".into()),
            Some(staleness) if staleness > STALENESS_MAX => Some(format!("its state is up to {staleness:.1?} old")),
            Some(_) => None,
        }
    }

    pub fn role(&self) -> &'static str {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match metrics.state {
            _ if metrics.running_state.is_err() => "Stopped",
            _ if metrics.membership_config.membership().nodes().next().is_none() => "Uninitialized",
            ServerState::Leader => "Leader",
            ServerState::Follower => "Follower",
            ServerState::Learner => "Learner",
            ServerState::Candidate => "Candidate",
            _ => "Stopped",
        }
    }

    /// What the metrics show of Raft and of the books.
    pub fn snapshot(&self) -> Snapshot {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: &Option<jangbu_raft_store::LogId>| id.as_ref().map_or(0, |id| id.index);
        let head = self.state.head();
        let peers = metrics.membership_config.membership().nodes().map(|(id, _)| *id).filter(|id| *id != metrics.id);
        Snapshot {
            is_leader: metrics.state == ServerState::Leader,
            has_leader: metrics.current_leader.is_some(),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(&metrics.local_committed),
            applied_index: index(&metrics.last_applied),
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            voters: metrics.membership_config.voter_ids().count() as u64,
            staleness: self.reader.staleness(),
            accounts: self.state.accounts_count(),
            events: head.next_event.0,
            pendings_open: head.pendings_open,
            log_bytes: self.log.bytes_unpurged(),
            lags: peers.filter_map(|id| Some((id, lag_entries(&metrics, id)?))).collect(),
        }
    }
}
