//! Whether this node can serve, and if not, why: for load balancers, operators and gRPC health checks.
//!
//! *Live* is who runs. *Started* is who has its state. *Ready* is who can serve a linearizable request: it is in a cluster,
//! knows a leader, and has seen a quorum confirm it. A node that isn't ready still answers local reads.
//!
//! Two ask whether a node is ready. A look ([`Health::not_ready_because`]) costs nothing and rests on the last round with a
//! quorum, which may be [`STALENESS_MAX`] old: for metrics, gRPC health and `Status`, which are asked all the time. A proof
//! ([`Health::check`]) does what a linearizable read does, now, within [`PROOF_LIMIT`]: for `/readyz`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jangbu_raft_store::{LogStats, Raft, StateReader};
use openraft::{ServerState, async_runtime::WatchReceiver};
use tokio::{sync::watch, time::Instant};

use crate::{
    environment::LinesLost, identity::Identity, machine::Machine, membership::lag_entries, metrics::Snapshot,
    reader::Reader,
};

const LEADER: &str = "leader";

/// How stale a ready node may be: some missed rounds, as after an election.
const STALENESS_MAX: Duration = Duration::from_secs(2);

/// How long a proof of readiness may take: longer than an election on one machine or in a metropolis, shorter than those
/// who ask are used to wait.
pub const PROOF_LIMIT: Duration = Duration::from_secs(1);

pub struct Health {
    pub data_dir: PathBuf,
    pub lines_lost: LinesLost,
    pub raft: Raft,
    pub identity: Arc<Identity>,
    pub reader: Arc<Reader>,
    pub state: StateReader,
    pub log: LogStats,
    pub draining: watch::Sender<bool>,
}

/// What is asked without waiting for anybody; `Err`: why not.
type Question = (&'static str, fn(&Health) -> Result<(), String>);

/// One question and its answer.
pub struct Check {
    pub name: &'static str,
    /// `Err`: why not.
    pub outcome: Result<(), String>,
    pub took: Duration,
}

impl Check {
    fn of(name: &'static str, began: Instant, outcome: Result<(), String>) -> Self {
        Self { name, outcome, took: began.elapsed() }
    }
}

impl Health {
    /// From now on this node says that it isn't ready; or no more.
    pub fn set_draining(&self, draining: bool) {
        self.draining.send_replace(draining);
    }

    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// `None`: ready, as far as was known a moment ago.
    pub fn not_ready_because(&self) -> Option<String> {
        let known = self.questions().iter().find_map(|(_, ask)| ask(self).err());
        known.or_else(|| match self.reader.staleness() {
            None => Some("it has yet to catch up since it started".into()),
            Some(staleness) if staleness > STALENESS_MAX => Some(format!("its state is up to {staleness:.1?} old")),
            Some(_) => None,
        })
    }

    /// Every check in turn, the last one a linearizable read. Blocks on a quorum, at most for [`PROOF_LIMIT`].
    pub async fn check(&self) -> Vec<Check> {
        let mut checks: Vec<Check> = self
            .questions()
            .into_iter()
            .map(|(name, ask)| {
                let began = Instant::now();
                Check::of(name, began, ask(self))
            })
            .collect();
        let began = Instant::now();
        // Without a cluster or a core there is nobody to ask; a leader may be found while the read waits.
        let in_vain = checks.iter().any(|check| check.outcome.is_err() && check.name != LEADER);
        let outcome = match in_vain {
            true => Err("not tried".into()),
            false => self.reader.prove(began + PROOF_LIMIT).await.map_err(|error| error.to_string()),
        };
        checks.push(Check::of("read", began, outcome));
        checks
    }

    fn questions(&self) -> [Question; 4] {
        [
            ("running", Self::is_running),
            ("cluster", Self::is_in_a_cluster),
            ("raft", Self::has_a_core),
            (LEADER, Self::knows_a_leader),
        ]
    }

    fn is_running(&self) -> Result<(), String> {
        if self.is_draining() { Err("it is draining".into()) } else { Ok(()) }
    }

    fn is_in_a_cluster(&self) -> Result<(), String> {
        self.identity.cluster_id().map(drop).ok_or_else(|| "it is in no cluster yet".into())
    }

    fn has_a_core(&self) -> Result<(), String> {
        let state = self.raft.metrics().borrow_watched().running_state.clone();
        state.map_err(|fatal| format!("its Raft core has stopped: {fatal}"))
    }

    fn knows_a_leader(&self) -> Result<(), String> {
        let leader = self.raft.metrics().borrow_watched().current_leader;
        leader.map(drop).ok_or_else(|| "no leader is known".into())
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
            ready: self.not_ready_because().is_none(),
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
            backed_up_at: self.state.backed_up_at(),
            events: head.next_event.0,
            pendings_open: head.pendings_open,
            log_bytes: self.log.bytes_unpurged(),
            log_syncs: self.log.sync_times(),
            log_lines_lost: (self.lines_lost)(),
            machine: Machine::look(&self.data_dir),
            lags: peers.filter_map(|id| Some((id, lag_entries(&metrics, id)?))).collect(),
        }
    }
}
