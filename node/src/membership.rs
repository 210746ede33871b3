//! Who belongs to the cluster: made once, then changed one node at a time.
//!
//! A node joins as a learner, receives the books, and is promoted when it has caught up. A node that is gone for good is
//! removed, and its id with it. Every step asks the node itself who it is first, because an address is no identity.
//!
//! Laws
//! * A node id is never used twice: Raft could not tell the new node from the old one, and would count votes and entries
//!   that were lost with it.
//! * Nobody is removed if those who are left could not go on.
//! * An address is changed to where the member itself answers: a cluster that called another node by it could elect two leaders.
//!
//! Not here: refusing calls from whoever isn't a member (`peers/envelope.rs`), and how that one hears of it (`hearsay.rs`).

use jangbu_ledger::planted::{self, Bug};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jangbu_proto::{
    cluster::v1::{IdentifyReply, IdentifyRequest, MemberStatus, NodeVersion},
    convert,
    entry::NodeInfo,
    reason,
};
use jangbu_raft_store::{Raft, StateReader, TypeConfig};
use openraft::{
    ChangeMembers, Instant as _, RaftMetrics,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, InitializeError, RaftError},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    administration::node_version,
    environment::{Entropy, draw_id},
    error::CallError,
    identity::{Identity, hex},
    leadership::{self, Leadership, Route},
    peers::Peers,
};

/// Entries a learner may still lack when it is promoted: it receives them in a moment.
const LAG_ENTRIES_MAX: u64 = 1_000;

/// The most voters; more would slow down every write for no more safety.
const VOTERS_MAX: usize = 9;

pub struct Membership {
    pub raft: Raft,
    pub peers: Arc<Peers>,
    pub identity: Arc<Identity>,
    pub state: StateReader,
    pub leadership: watch::Receiver<Leadership>,
    pub entropy: Arc<dyn Entropy>,
    /// One change at a time, also before Raft sees it.
    pub changing: tokio::sync::Mutex<()>,
}

impl Membership {
    /// Makes a cluster of fresh nodes, this one included. Blocks on all of them.
    pub async fn initialize(&self, peer_addresses: &[String], deadline: Instant) -> Result<(), CallError> {
        let _alone = self.alone()?;
        if self.raft.is_initialized().await.map_err(stopped)? {
            return Err(CallError::precondition(reason::ALREADY_INITIALIZED, "this node is in a cluster already"));
        }
        let mut nodes = BTreeMap::new();
        for address in peer_addresses {
            let (id, node) = self.identify(address, deadline).await?;
            if nodes.insert(id, node).is_some() {
                let message = format!("{address}: node id {id} is named twice");
                return Err(CallError::precondition(reason::NODE_IN_USE, message));
            }
        }
        self.check_founders(&nodes)?;
        // An earlier attempt may have got this far: its cluster id is as good as a new one.
        let cluster_id = self.identity.cluster_id().unwrap_or_else(|| draw_id(&*self.entropy));
        self.identity.join(cluster_id).await?;
        match self.raft.initialize(nodes).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(CallError::precondition(reason::ALREADY_INITIALIZED, "this node is in a cluster already"));
            }
            Err(error) => return Err(stopped(error)),
        }
        let mut leadership = self.leadership.clone();
        leadership::known(&mut leadership, deadline).await.ok_or_else(|| {
            CallError::unavailable(reason::NO_LEADER, "the cluster is made, and has yet to elect a leader")
        })?;
        Ok(())
    }

    /// Adds a fresh node as learner. Blocks on it and on a quorum.
    pub async fn add(&self, peer_address: &str, deadline: Instant) -> Result<(), CallError> {
        let _alone = self.alone()?;
        let (id, node) = self.identify(peer_address, deadline).await?;
        if let Some(member) = self.member(id) {
            if member.incarnation == node.incarnation {
                return Ok(());
            }
            return Err(another_folder(id));
        }
        let highest = self.state.highest_node_id();
        if id <= highest {
            let message = format!("node id {id} may have been used before; ids above {highest} are free");
            return Err(CallError::precondition(reason::NODE_IN_USE, message));
        }
        let added = timeout_at(deadline, self.raft.add_learner(id, node, false)).await;
        changed(added.map(|added| added.map(drop)))
    }

    /// Tells all where a member is now. The address is believed because the member itself answers there, from the data
    /// folder that the cluster knows. Blocks on it and on a quorum.
    pub async fn update(&self, peer_address: &str, deadline: Instant) -> Result<(), CallError> {
        let _alone = self.alone()?;
        let (id, node) = self.identify(peer_address, deadline).await?;
        let known = self.member(id).ok_or_else(|| unknown_node(id))?;
        if known.incarnation != node.incarnation {
            return Err(another_folder(id));
        }
        if known == node {
            return Ok(());
        }
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, node)])), true, deadline).await
    }

    /// Makes a learner a voter, if it has caught up. Blocks on a quorum.
    pub async fn promote(&self, id: u64, deadline: Instant) -> Result<(), CallError> {
        let _alone = self.alone()?;
        self.member(id).ok_or_else(|| unknown_node(id))?;
        let metrics = self.metrics();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        if voters.contains(&id) {
            return Ok(());
        }
        if voters.len() >= VOTERS_MAX {
            let message = format!("there are {VOTERS_MAX} voters already; more would only slow writes down");
            return Err(CallError::precondition(reason::NODE_IN_USE, message));
        }
        match lag_entries(&metrics, id) {
            Some(lag) if lag <= LAG_ENTRIES_MAX => {}
            Some(lag) => {
                let message = format!("node {id} has yet to receive {lag} entries; try again when it has caught up");
                return Err(CallError::precondition(reason::LAGGING, message));
            }
            None => return Err(CallError::precondition(reason::LAGGING, format!("node {id} has not answered yet"))),
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true, deadline).await
    }

    /// Removes a node for good. Blocks on a quorum.
    pub async fn remove(&self, id: u64, force: bool, deadline: Instant) -> Result<(), CallError> {
        let _alone = self.alone()?;
        if self.member(id).is_none() {
            // Asked again after it was done.
            return if id <= self.state.highest_node_id() { Ok(()) } else { Err(unknown_node(id)) };
        }
        let metrics = self.metrics();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        if !voters.contains(&id) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), true, deadline).await;
        }
        self.check_rest(&metrics, &voters, id, force)?;
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false, deadline).await
    }

    /// Hands the leadership to a voter; 0: to the one that is furthest. Returns the leader and its term.
    pub async fn move_leader(&self, to: u64, deadline: Instant) -> Result<(u64, u64), CallError> {
        let metrics = self.metrics();
        let this = self.identity.node_id;
        let to = match to {
            0 => furthest_voter(&metrics)
                .ok_or_else(|| CallError::precondition(reason::UNKNOWN_NODE, "there is no other voter that answers"))?,
            to if metrics.membership_config.voter_ids().any(|id| id == to) => to,
            to => return Err(CallError::precondition(reason::UNKNOWN_NODE, format!("node {to} is no voter"))),
        };
        if to == this {
            return Ok((this, metrics.current_term));
        }
        if lag_entries(&metrics, to).is_none_or(|lag| lag > LAG_ENTRIES_MAX) {
            return Err(CallError::precondition(reason::LAGGING, format!("node {to} has yet to catch up")));
        }
        self.raft.trigger().transfer_leader(to).await.map_err(stopped)?;
        let mut leadership = self.leadership.clone();
        let moved =
            leadership.wait_for(|now| now.term > metrics.current_term && now.leader_id().is_some_and(|id| id != this));
        match timeout_at(deadline, moved).await {
            Ok(Ok(now)) => Ok((now.leader_id().unwrap_or_default(), now.term)),
            _ => Err(CallError::unavailable(reason::NO_LEADER, format!("node {to} did not take over in time"))),
        }
    }

    /// The members as this node knows them.
    pub fn members(&self) -> Vec<MemberStatus> {
        let metrics = self.metrics();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let nodes = metrics.membership_config.membership().nodes();
        nodes
            .map(|(id, node)| MemberStatus {
                node: Some(convert::node_to_wire(*id, node)),
                voter: voters.contains(id),
                lag_entries: lag_entries(&metrics, *id),
            })
            .collect()
    }

    /// `Err(leader)` if these changes are for another node to make.
    pub fn route(&self) -> Route {
        self.leadership.borrow().route()
    }

    pub(crate) fn alone(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, CallError> {
        self.changing.try_lock().map_err(|_| busy())
    }

    /// What each member's program knows. Blocks on all of them.
    pub async fn versions(&self, deadline: Instant) -> Result<Vec<NodeVersion>, CallError> {
        let metrics = self.metrics();
        let mut versions = Vec::new();
        for (id, node) in metrics.membership_config.membership().nodes() {
            let reply = self.ask_who(&node.peer_address, deadline).await?;
            let (answering, _) = convert::node_from_wire(reply.node.as_ref())?;
            if answering != *id {
                let message = format!("node {answering} answers at {}, the address of node {id}", node.peer_address);
                return Err(CallError::precondition(reason::NODE_IN_USE, message));
            }
            versions.push(node_version(*id, reply.version, reply.cluster_version_max));
        }
        Ok(versions)
    }

    /// Asks the node at an address who it is; it must be in no cluster, or in this one already.
    async fn identify(&self, peer_address: &str, deadline: Instant) -> Result<(u64, NodeInfo), CallError> {
        let reply = self.ask_who(peer_address, deadline).await?;
        let (id, node) = convert::node_from_wire(reply.node.as_ref())?;
        let told = node_version(id, reply.version, reply.cluster_version_max);
        let version = self.state.version();
        if told.cluster_version_max < version {
            let message = format!(
                "{peer_address}: node {id} runs program {}, which knows cluster versions up to {}; the cluster is at {version}",
                told.program_version, told.cluster_version_max
            );
            return Err(CallError::precondition(reason::WRONG_VERSION, message));
        }
        let ours = self.identity.cluster_id();
        if !reply.cluster_id.is_empty() && ours.is_none_or(|ours| ours[..] != reply.cluster_id[..]) {
            let message = format!("{peer_address}: node {id} is in another cluster ({})", hex(&reply.cluster_id));
            return Err(CallError::precondition(reason::NODE_IN_USE, message));
        }
        Ok((id, node))
    }

    async fn ask_who(&self, peer_address: &str, deadline: Instant) -> Result<IdentifyReply, CallError> {
        let mut operator = self.peers.operator(peer_address)?;
        let limit = deadline.min(Instant::now() + Duration::from_secs(5));
        match timeout_at(limit, operator.identify(IdentifyRequest {})).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(unreachable_node(peer_address, status.message())),
            Err(_) => Err(unreachable_node(peer_address, "no answer in time")),
        }
    }

    fn check_founders(&self, nodes: &BTreeMap<u64, NodeInfo>) -> Result<(), CallError> {
        if nodes.len() > VOTERS_MAX {
            let message = format!("{} nodes are named; at most {VOTERS_MAX} may vote", nodes.len());
            return Err(CallError::precondition(reason::NODE_IN_USE, message));
        }
        let this = &self.identity;
        match nodes.get(&this.node_id) {
            Some(node) if node.incarnation == this.info.incarnation => Ok(()),
            Some(_) => {
                let message = format!("another node uses the id {} too", this.node_id);
                Err(CallError::precondition(reason::NODE_IN_USE, message))
            }
            None => {
                let message = format!("node {} was asked, and is not among those named", this.node_id);
                Err(CallError::precondition(reason::UNKNOWN_NODE, message))
            }
        }
    }

    /// Those who are left must be able to go on, as far as is known here.
    fn check_rest(
        &self,
        metrics: &RaftMetrics<TypeConfig>,
        voters: &BTreeSet<u64>,
        removed: u64,
        force: bool,
    ) -> Result<(), CallError> {
        let rest: BTreeSet<u64> = voters.iter().copied().filter(|id| *id != removed).collect();
        let answering = rest.iter().filter(|id| self.answers(metrics, **id)).count();
        let majority = rest.len() / 2 + 1;
        if answering < majority || (answering < 2 && !force) {
            let message = format!(
                "without node {removed}, {answering} of {} voters answer; {majority} are needed{}",
                rest.len(),
                if answering >= majority {
                    ", and one alone keeps nothing safe (force it if that is meant)"
                } else {
                    ""
                },
            );
            return Err(CallError::precondition(reason::NO_QUORUM_LEFT, message));
        }
        Ok(())
    }

    fn answers(&self, metrics: &RaftMetrics<TypeConfig>, id: u64) -> bool {
        if id == self.identity.node_id {
            return true;
        }
        let limit = self.peers.common.timings.election_max * 2;
        let heard = metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&id)).copied().flatten();
        heard.is_some_and(|heard| heard.elapsed() < limit)
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, NodeInfo>,
        retain: bool,
        deadline: Instant,
    ) -> Result<(), CallError> {
        if planted::is(Bug::MembersBeforeCommit) {
            let raft = self.raft.clone();
            drop(tokio::spawn(async move { raft.change_membership(change, retain).await }));
            return Ok(());
        }
        let done = timeout_at(deadline, self.raft.change_membership(change, retain)).await;
        changed(done.map(|done| done.map(drop)))
    }

    fn member(&self, id: u64) -> Option<NodeInfo> {
        self.metrics().membership_config.membership().get_node(&id).cloned()
    }

    fn metrics(&self) -> RaftMetrics<TypeConfig> {
        // Cloned at once: a borrow that is kept holds up the Raft core.
        self.raft.metrics().borrow_watched().clone()
    }
}

/// Entries a node has yet to receive; known to a leader only.
pub fn lag_entries(metrics: &RaftMetrics<TypeConfig>, id: u64) -> Option<u64> {
    let last = metrics.last_log_index.unwrap_or(0);
    let matched = metrics.replication.as_ref()?.get(&id)?.as_ref()?.index;
    Some(last.saturating_sub(matched))
}

/// The voter, other than this node, that has the most of the log.
pub fn furthest_voter(metrics: &RaftMetrics<TypeConfig>) -> Option<u64> {
    let others = metrics.membership_config.voter_ids().filter(|id| *id != metrics.id);
    others.filter_map(|id| Some((lag_entries(metrics, id)?, id))).min().map(|(_, id)| id)
}

type Changed = Result<Result<(), RaftError<TypeConfig, ClientWriteError<TypeConfig>>>, tokio::time::error::Elapsed>;

fn changed(result: Changed) -> Result<(), CallError> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error)))) => {
            Err(CallError::precondition(reason::MEMBERSHIP_BUSY, error.to_string()))
        }
        Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
            Err(CallError::unavailable(reason::NOT_LEADER, "the leader has changed; ask again"))
        }
        // The change may be in the log; the list of members tells.
        Ok(Err(RaftError::APIError(_))) | Err(_) => Err(CallError::OutcomeUnknown),
        Ok(Err(RaftError::Fatal(fatal))) => Err(stopped(fatal)),
    }
}

fn busy() -> CallError {
    CallError::precondition(reason::MEMBERSHIP_BUSY, "another change of the membership is under way")
}

fn unknown_node(id: u64) -> CallError {
    CallError::precondition(reason::UNKNOWN_NODE, format!("node {id} is no member"))
}

fn another_folder(id: u64) -> CallError {
    let message = format!(
        "node id {id} belongs to a member whose data folder was another one; a node that lost its data comes back under a \
         new id"
    );
    CallError::precondition(reason::NODE_IN_USE, message)
}

fn unreachable_node(address: &str, why: &str) -> CallError {
    CallError::unavailable(reason::NOT_READY, format!("no node answers at {address}: {why}"))
}

fn stopped(error: impl std::fmt::Display) -> CallError {
    CallError::internal(error.to_string())
}
