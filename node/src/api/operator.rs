//! `cluster.v1.Operator`: what the `jangbu` command asks of a cluster.
//!
//! Served on both doors: operators come through the client door; a leader that is to add a node, and a follower that
//! hands an operator's wish to the leader, come through the peer door.
//!
//! Not here: what may be done to a membership (`membership.rs`).

use std::{sync::Arc, time::Duration};

use jangbu_proto::{
    Malformed,
    cluster::v1::{self, Note, operator_server::Operator},
    convert, reason,
    trail::RECORDS_MAX,
};
use jangbu_raft_store::{Raft, Scrubbed, StateReader};
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

use super::{deadline, status::to_status};
use crate::{
    access::{self, Access},
    administration::{Administration, Caller},
    backup::Backup,
    config::Limits,
    error::CallError,
    health::Health,
    identity::Identity,
    leadership::Route,
    membership::Membership,
    reader::Reader,
    snapshots::Snapshots,
};

/// The cluster serves meanwhile; its maker waits.
const FINALIZE_LIMIT: Duration = Duration::from_secs(5);

/// Between attempts to raise a new cluster's version.
const FINALIZE_PAUSE: Duration = Duration::from_millis(50);

/// On calls that were handed on once already: two nodes that disagree about the leader must not send them round.
const HANDED_ON: &str = "jangbu-handed-on";

#[derive(Clone)]
pub struct OperatorService {
    pub raft: Raft,
    pub identity: Arc<Identity>,
    pub membership: Arc<Membership>,
    pub administration: Arc<Administration>,
    pub state: StateReader,
    pub reader: Arc<Reader>,
    pub snapshots: Arc<Snapshots>,
    pub health: Arc<Health>,
    pub backup: Backup,
    pub limits: Limits,
    /// 0: it has no HTTP door.
    pub http_port: u16,
}

/// Does here what only a leader can do, or asks the leader to.
macro_rules! at_the_leader {
    ($service:ident, $request:ident, $method:ident, |$caller:ident, $asked:ident, $deadline:ident| $here:expr) => {{
        let $deadline = deadline($request.metadata(), &$service.limits);
        let access = Access::of(&$request);
        match $service.route(&$request).map_err(to_status)? {
            None => {
                let $caller = caller(&access);
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
            cluster_version: self.state.version(),
            cluster_version_max: self.limits.cluster_version_max,
            draining: self.health.is_draining(),
            http_port: self.http_port.into(),
        }))
    }

    async fn identify(&self, _: Request<v1::IdentifyRequest>) -> Result<Response<v1::IdentifyReply>, Status> {
        Ok(Response::new(v1::IdentifyReply {
            node: Some(convert::node_to_wire(self.identity.node_id, &self.identity.info)),
            cluster_id: self.cluster_id(),
            version: env!("CARGO_PKG_VERSION").into(),
            cluster_version_max: self.limits.cluster_version_max,
        }))
    }

    async fn initialize(
        &self,
        request: Request<v1::InitializeRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        let deadline = deadline(request.metadata(), &self.limits);
        let access = Access::of(&request);
        let (caller, addresses) = (caller(&access), request.into_inner().peer_addresses);
        self.membership.initialize(&addresses, deadline).await.map_err(to_status)?;
        // A new cluster has nothing to go back to.
        match self.finalize_first(&access, deadline.min(Instant::now() + FINALIZE_LIMIT)).await {
            Ok(()) => {
                let outcome = "done".into();
                let note = Note { action: "cluster init".into(), detail: addresses.join(", "), outcome };
                if let Err(error) = self.administration.record(&caller, note, deadline).await {
                    tracing::warn!(who = caller.name, %error, "the cluster is made; this is not in the audit trail");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the cluster is made, and stays at version 1 until you type: jangbu upgrade finalize");
            }
        }
        Ok(Response::new(self.members()))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        at_the_leader!(self, request, add_member, |caller, asked, deadline| {
            let work = self.membership.add(&asked.peer_address, deadline);
            let detail = asked.peer_address.clone();
            self.administration.audited(&caller, "member add", detail, deadline, work).await?;
            Ok(self.members())
        })
    }

    async fn update_member(
        &self,
        request: Request<v1::UpdateMemberRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        at_the_leader!(self, request, update_member, |caller, asked, deadline| {
            let work = self.membership.update(&asked.peer_address, deadline);
            let detail = asked.peer_address.clone();
            self.administration.audited(&caller, "member update", detail, deadline, work).await?;
            Ok(self.members())
        })
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        at_the_leader!(self, request, promote_member, |caller, asked, deadline| {
            let work = self.membership.promote(asked.node_id, deadline);
            let detail = format!("node {}", asked.node_id);
            self.administration.audited(&caller, "member promote", detail, deadline, work).await?;
            Ok(self.members())
        })
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        at_the_leader!(self, request, remove_member, |caller, asked, deadline| {
            let work = self.membership.remove(asked.node_id, asked.force, deadline);
            let detail = format!("node {}{}", asked.node_id, if asked.force { ", forced" } else { "" });
            self.administration.audited(&caller, "member remove", detail, deadline, work).await?;
            Ok(self.members())
        })
    }

    async fn move_leader(
        &self,
        request: Request<v1::MoveLeaderRequest>,
    ) -> Result<Response<v1::MoveLeaderReply>, Status> {
        at_the_leader!(self, request, move_leader, |caller, asked, deadline| {
            let work = self.membership.move_leader(asked.node_id, deadline);
            let detail = if asked.node_id > 0 { format!("to node {}", asked.node_id) } else { "to any".into() };
            let moved = self.administration.audited(&caller, "leader move", detail, deadline, work).await?;
            let (leader_id, term) = moved;
            Ok(v1::MoveLeaderReply { leader_id, term })
        })
    }

    async fn finalize_upgrade(
        &self,
        request: Request<v1::FinalizeUpgradeRequest>,
    ) -> Result<Response<v1::FinalizeUpgradeReply>, Status> {
        at_the_leader!(self, request, finalize_upgrade, |caller, asked, deadline| {
            self.administration.finalize(&caller, asked.dry_run, deadline).await
        })
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::AuditRecord>, Status> {
        at_the_leader!(self, request, create_token, |caller, asked, deadline| {
            self.administration.create_token(&caller, asked.token.unwrap_or_default(), deadline).await
        })
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::AuditRecord>, Status> {
        at_the_leader!(self, request, revoke_token, |caller, asked, deadline| {
            self.administration.revoke_token(&caller, asked.token_id, deadline).await
        })
    }

    async fn list_tokens(&self, _: Request<v1::ListTokensRequest>) -> Result<Response<v1::ListTokensReply>, Status> {
        Ok(Response::new(v1::ListTokensReply { tokens: self.state.tokens() }))
    }

    async fn audit(&self, request: Request<v1::AuditRequest>) -> Result<Response<v1::AuditReply>, Status> {
        let asked = request.into_inner();
        self.audit_trail(asked).await.map(Response::new).map_err(to_status)
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainReply>, Status> {
        let deadline = deadline(request.metadata(), &self.limits);
        let caller = caller(&Access::of(&request));
        let undrain = request.into_inner().undrain;
        let action = if undrain { "node undrain" } else { "node drain" };
        let drained = self.administration.noted(&caller, action, deadline, self.drained(undrain, deadline)).await;
        drained.map(Response::new).map_err(to_status)
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
        let caller = caller(&Access::of(&request));
        let taken = self.administration.noted(&caller, "snapshot", deadline, self.snapshots.take(deadline)).await;
        let log_index = taken.map_err(to_status)?;
        Ok(Response::new(v1::TakeSnapshotReply { log_index }))
    }

    type ReadSnapshotStream = ReceiverStream<Result<v1::ReadSnapshotReply, Status>>;

    async fn read_snapshot(
        &self,
        request: Request<Streaming<v1::ReadSnapshotRequest>>,
    ) -> Result<Response<Self::ReadSnapshotStream>, Status> {
        // It holds the money of all ledgers.
        let access = Access::of(&request);
        access.check_all().map_err(to_status)?;
        let deadline = deadline(request.metadata(), &self.limits);
        let (index, replies) = self.backup.snapshot(request.into_inner()).await.map_err(to_status)?;
        let detail = format!("as of entry {index}");
        self.administration.note_reading(&caller(&access), "snapshot read", detail, deadline).await;
        Ok(Response::new(replies))
    }

    type ReadLogStream = ReceiverStream<Result<v1::ReadLogReply, Status>>;

    async fn read_log(&self, request: Request<v1::ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        let access = Access::of(&request);
        access.check_all().map_err(to_status)?;
        let deadline = deadline(request.metadata(), &self.limits);
        let asked = request.into_inner();
        let index = asked.after.as_ref().map_or(0, |after| after.index);
        let replies = self.backup.log(asked).await.map_err(to_status)?;
        let detail = format!("behind entry {index}");
        self.administration.note_reading(&caller(&access), "log read", detail, deadline).await;
        Ok(Response::new(replies))
    }

    async fn record_backup(
        &self,
        request: Request<v1::RecordBackupRequest>,
    ) -> Result<Response<v1::AuditRecord>, Status> {
        let access = Access::of(&request);
        access.check_all().map_err(to_status)?;
        let deadline = deadline(request.metadata(), &self.limits);
        let v1::RecordBackupRequest { log_index, place } = request.into_inner();
        let recorded = self.administration.record_backup(&caller(&access), log_index, &place, deadline).await;
        recorded.map(Response::new).map_err(to_status)
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

    /// The first leader of all may be about to be replaced: asks until there is one that has done it.
    async fn finalize_first(&self, access: &Access, deadline: Instant) -> Result<(), Status> {
        loop {
            let mut request = Request::new(v1::FinalizeUpgradeRequest { dry_run: false });
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            request.extensions_mut().insert(access.clone());
            match self.finalize_upgrade(request).await {
                Ok(_) => return Ok(()),
                Err(status) if Instant::now() + FINALIZE_PAUSE >= deadline => return Err(status),
                Err(status) => tracing::debug!(%status, "the first version is yet to be agreed on"),
            }
            sleep(FINALIZE_PAUSE).await;
        }
    }

    /// Drains this node, or takes it back; which node leads then. Waits for another leader, if this one led.
    async fn drained(&self, undrain: bool, deadline: Instant) -> Result<v1::DrainReply, CallError> {
        let mut leadership = self.membership.leadership.clone();
        let led = leadership.borrow().is_here();
        self.health.set_draining(!undrain);
        if led && !undrain {
            // Handed over by the task that watches for it (`abdication.rs`), again and again if need be.
            let elsewhere = leadership.wait_for(|now| now.leader_id().is_some() && !now.is_here());
            if !matches!(timeout_at(deadline, elsewhere).await, Ok(Ok(_))) {
                let message =
                    "no other voter has taken the leadership over yet; this node goes on trying while it is drained";
                return Err(CallError::unavailable(reason::LAGGING, message));
            }
        }
        let leader_id = leadership.borrow().leader_id().unwrap_or(0);
        Ok(v1::DrainReply { led, leader_id })
    }

    async fn audit_trail(&self, asked: v1::AuditRequest) -> Result<v1::AuditReply, CallError> {
        let limit = asked.limit as usize;
        if !(1..=RECORDS_MAX).contains(&limit) {
            return Err(Malformed::new("limit", format!("{limit} is not within 1 to {RECORDS_MAX}")).into());
        }
        let (records, records_count, last_hash) = self.state.audit(asked.from_number.max(1), limit).await?;
        Ok(v1::AuditReply { records, records_count, last_hash: last_hash.to_vec().into() })
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

fn caller(access: &Access) -> Caller {
    let address = access.address().map(|address| address.to_string()).unwrap_or_default();
    Caller { name: access.who().to_owned(), address }
}

fn handed_on<T>(access: &Access, asked: T, deadline: Instant) -> Request<T> {
    let mut request = Request::new(asked);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request.metadata_mut().insert(HANDED_ON, MetadataValue::from_static("1"));
    access::hand_on(access, &mut request);
    request
}
