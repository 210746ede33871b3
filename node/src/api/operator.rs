//! `cluster.v1.Operator`: what the `jangbu` command asks of a cluster.
//!
//! Served on both doors: operators come through the client door; a leader that is to add a node, and a follower that
//! hands an operator's wish to the leader, come through the peer door.
//!
//! Not here: what may be done to a membership (`membership.rs`).

use std::sync::Arc;

use jangbu_proto::{
    cluster::v1::{self, operator_server::Operator},
    convert, reason,
};
use jangbu_raft_store::{Raft, Scrubbed, StateReader};
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::{deadline, status::to_status};
use crate::{
    access::{self, Access},
    config::Limits,
    error::CallError,
    health::Health,
    identity::Identity,
    leadership::Route,
    membership::Membership,
    reader::Reader,
    snapshots::Snapshots,
};

/// On calls that were handed on once already: two nodes that disagree about the leader must not send them round.
const HANDED_ON: &str = "jangbu-handed-on";

#[derive(Clone)]
pub struct OperatorService {
    pub raft: Raft,
    pub identity: Arc<Identity>,
    pub membership: Arc<Membership>,
    pub state: StateReader,
    pub reader: Arc<Reader>,
    pub snapshots: Arc<Snapshots>,
    pub health: Arc<Health>,
    pub limits: Limits,
}

/// Does here what only a leader can do, or asks the leader to.
macro_rules! at_the_leader {
    ($service:ident, $request:ident, $method:ident, |$asked:ident, $deadline:ident| $here:expr) => {{
        let $deadline = deadline($request.metadata(), &$service.limits);
        let access = Access::of(&$request);
        match $service.route(&$request).map_err(to_status)? {
            None => {
                let $asked = $request.into_inner();
                let done: Result<_, CallError> = async { $here }.await;
                done.map(Response::new).map_err(to_status)
            }
            Some(address) => {
                let mut leader =
                    $service.membership.peers.operator(&address).map_err(|malformed| to_status(malformed.into()))?;
                leader.$method(handed_on(&access, $request.into_inner(), $deadline)).await
            }
        }
    }};
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let applied = self.state.applied();
        let head = self.state.head();
        let not_ready = self.health.not_ready_because();
        let index = |id: &Option<jangbu_raft_store::LogId>| id.as_ref().map_or(0, |id| id.index);
        Ok(Response::new(v1::StatusReply {
            node: Some(convert::node_to_wire(self.identity.node_id, &self.identity.info)),
            cluster_id: self.cluster_id(),
            version: env!("CARGO_PKG_VERSION").into(),
            role: self.health.role().into(),
            term: metrics.current_term,
            leader_id: metrics.current_leader.unwrap_or(0),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(&metrics.local_committed),
            applied_index: applied.log_index,
            snapshot_index: index(&metrics.snapshot),
            purged_index: index(&metrics.purged),
            digest: applied.digest.to_vec().into(),
            last_timestamp: applied.timestamp,
            accounts_count: self.state.accounts_count(),
            events_count: head.next_event.0,
            staleness_ns: self.reader.staleness_ns(),
            members: self.membership.members(),
            ready: not_ready.is_none(),
            not_ready_because: not_ready.unwrap_or_default(),
            pendings_open_count: head.pendings_open,
        }))
    }

    async fn identify(&self, _: Request<v1::IdentifyRequest>) -> Result<Response<v1::IdentifyReply>, Status> {
        Ok(Response::new(v1::IdentifyReply {
            node: Some(convert::node_to_wire(self.identity.node_id, &self.identity.info)),
            cluster_id: self.cluster_id(),
            version: env!("CARGO_PKG_VERSION").into(),
        }))
    }

    async fn initialize(
        &self,
        request: Request<v1::InitializeRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        let deadline = deadline(request.metadata(), &self.limits);
        let addresses = request.into_inner().peer_addresses;
        self.membership.initialize(&addresses, deadline).await.map_err(to_status)?;
        Ok(Response::new(self.members()))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        at_the_leader!(self, request, add_member, |asked, deadline| {
            self.membership.add(&asked.peer_address, deadline).await?;
            Ok(self.members())
        })
    }

    async fn update_member(
        &self,
        request: Request<v1::UpdateMemberRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        at_the_leader!(self, request, update_member, |asked, deadline| {
            self.membership.update(&asked.peer_address, deadline).await?;
            Ok(self.members())
        })
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        at_the_leader!(self, request, promote_member, |asked, deadline| {
            self.membership.promote(asked.node_id, deadline).await?;
            Ok(self.members())
        })
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        at_the_leader!(self, request, remove_member, |asked, deadline| {
            self.membership.remove(asked.node_id, asked.force, deadline).await?;
            Ok(self.members())
        })
    }

    async fn move_leader(
        &self,
        request: Request<v1::MoveLeaderRequest>,
    ) -> Result<Response<v1::MoveLeaderReply>, Status> {
        at_the_leader!(self, request, move_leader, |asked, deadline| {
            let (leader_id, term) = self.membership.move_leader(asked.node_id, deadline).await?;
            Ok(v1::MoveLeaderReply { leader_id, term })
        })
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyReply>, Status> {
        let deadline = deadline(request.metadata(), &self.limits);
        self.verified(request.into_inner(), deadline).await.map(Response::new).map_err(to_status)
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotReply>, Status> {
        let deadline = deadline(request.metadata(), &self.limits);
        let log_index = self.snapshots.take(deadline).await.map_err(to_status)?;
        Ok(Response::new(v1::TakeSnapshotReply { log_index }))
    }
}

impl OperatorService {
    /// Where the leader's peer door is; `None`: here.
    fn route<T>(&self, request: &Request<T>) -> Result<Option<String>, CallError> {
        match self.membership.route() {
            Route::Here => Ok(None),
            Route::There(_, node) if !request.metadata().contains_key(HANDED_ON) => Ok(Some(node.peer_address)),
            Route::There(..) => Err(CallError::unavailable(reason::NOT_LEADER, "the leader has changed; ask again")),
            Route::Unknown if self.identity.cluster_id().is_none() => Err(CallError::precondition(
                reason::NOT_INITIALIZED,
                "this node is in no cluster yet; make one first (jangbu cluster init), or add it to one",
            )),
            Route::Unknown => Err(CallError::unavailable(reason::NO_LEADER, "no leader is known")),
        }
    }

    async fn verified(&self, asked: v1::VerifyRequest, deadline: Instant) -> Result<v1::VerifyReply, CallError> {
        let log_index = asked.log_index;
        // The state itself waits for the index, and counts before the next entry is applied.
        let report = timeout_at(deadline, self.state.verify((log_index > 0).then_some(log_index))).await;
        let report = report.map_err(|_| {
            let message = format!("entry {log_index} is not applied here yet, or the count takes longer");
            CallError::unavailable(reason::STALE, message)
        })??;
        let report = report.ok_or_else(|| {
            let message = format!("more than entry {log_index} is applied here, and its state is gone");
            CallError::precondition(reason::GONE_BY, message)
        })?;
        let scrubbed = if asked.deep { self.scrubbed(deadline).await? } else { Scrubbed::default() };
        Ok(v1::VerifyReply {
            log_index: report.at.log_index,
            digest: report.at.digest.to_vec().into(),
            digest_recount: report.digest_recount.to_vec().into(),
            totals: report
                .totals
                .into_iter()
                .map(|(ledger, totals)| v1::LedgerTotals {
                    ledger,
                    debits_posted: totals.debits_posted.to_string(),
                    credits_posted: totals.credits_posted.to_string(),
                    debits_pending: totals.debits_pending.to_string(),
                    credits_pending: totals.credits_pending.to_string(),
                })
                .collect(),
            accounts_over_limit: report.accounts_over_limit,
            accounts_count: report.accounts_count,
            events_count: report.events_count,
            values_read_count: scrubbed.values_count,
            values_read_bytes: scrubbed.values_bytes,
        })
    }

    async fn scrubbed(&self, deadline: Instant) -> Result<Scrubbed, CallError> {
        let scrubbed = timeout_at(deadline, self.state.scrub()).await;
        let scrubbed = scrubbed.map_err(|_| {
            let message = "reading everything takes longer than that; it goes on, and the node ends if it finds damage";
            CallError::unavailable(reason::STALE, message)
        })?;
        Ok(scrubbed?)
    }

    fn members(&self) -> v1::MembershipReply {
        v1::MembershipReply { members: self.membership.members(), cluster_id: self.cluster_id() }
    }

    fn cluster_id(&self) -> bytes::Bytes {
        self.identity.cluster_id().map(|id| id.to_vec()).unwrap_or_default().into()
    }
}

fn handed_on<T>(access: &Access, asked: T, deadline: Instant) -> Request<T> {
    let mut request = Request::new(asked);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request.metadata_mut().insert(HANDED_ON, MetadataValue::from_static("1"));
    access::hand_on(access, &mut request);
    request
}
