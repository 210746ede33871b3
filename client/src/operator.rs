//! What the `jangbu` command asks: the cluster's own operations.
//!
//! Any node may be asked. What changes the cluster is only asked again where it surely was not done: asked twice, it would
//! answer that it was done already, or do it twice.

use std::{sync::Arc, time::Duration};

use jangbu_proto::cluster::v1::{
    AddMemberRequest, FinalizeUpgradeReply, FinalizeUpgradeRequest, IdentifyReply, IdentifyRequest, InitializeRequest,
    MembershipReply, MoveLeaderReply, MoveLeaderRequest, PromoteMemberRequest, RemoveMemberRequest, StatusReply,
    StatusRequest, TakeSnapshotReply, TakeSnapshotRequest, UpdateMemberRequest, VerifyReply, VerifyRequest,
    operator_client,
};
use jangbu_proto::transport::Channel;
use tonic::{Request, Response, Status};

use crate::{
    ClientConfig, ClientError,
    client::within,
    endpoints::Endpoints,
    retry::{Budget, Caller, Effect, Patience},
};

/// A client of one cluster's operator service. Cheap to clone.
///
/// With one endpoint it speaks to that node; with several, to the first that answers. Every call may wait for nodes, up to
/// the deadline. A call whose outcome is unknown answers [`ClientError::OutcomeUnknown`] without ids: look at the cluster's
/// status before asking again.
#[derive(Clone)]
pub struct OperatorClient {
    caller: Arc<Caller>,
    patience: Patience,
}

type Door = operator_client::OperatorClient<Channel>;

impl OperatorClient {
    /// Connects to none of the endpoints (client doors, host:port) yet. Refuses what is no address.
    pub fn connect(
        endpoints: impl IntoIterator<Item = impl Into<String>>,
        config: ClientConfig,
    ) -> Result<Self, ClientError> {
        let endpoints = Endpoints::new(endpoints.into_iter().map(Into::into), &config.transport, &config.http2)
            .map_err(ClientError::Refused)?;
        let patience = Patience {
            deadline: config.deadline,
            // Adding a node or verifying takes as long as it takes: one attempt may use up all the time.
            attempt_deadline: config.deadline,
            attempts_max: config.attempts_max,
        };
        let caller = Caller { endpoints, entropy: config.entropy, budget: Budget::full() };
        Ok(Self { caller: Arc::new(caller), patience })
    }

    /// The same client with another deadline for each call.
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        let patience = Patience { deadline, attempt_deadline: deadline, ..self.patience };
        Self { patience, ..self.clone() }
    }

    /// The node as it sees itself, and the cluster as it sees it. Answers without a quorum.
    pub async fn status(&self) -> Result<StatusReply, ClientError> {
        self.ask(Effect::None, StatusRequest {}, |mut door: Door, request| async move { door.status(request).await })
            .await
    }

    /// Who the node is.
    pub async fn identify(&self) -> Result<IdentifyReply, ClientError> {
        self.ask(
            Effect::None,
            IdentifyRequest {},
            |mut door: Door, request| async move { door.identify(request).await },
        )
        .await
    }

    /// Makes a cluster of fresh nodes, named with their peer addresses (host:port), the asked one's included.
    pub async fn initialize(&self, peer_addresses: &[String]) -> Result<MembershipReply, ClientError> {
        let request = InitializeRequest { peer_addresses: peer_addresses.to_vec() };
        self.ask(Effect::Each, request, |mut door: Door, request| async move { door.initialize(request).await }).await
    }

    /// Adds the fresh node at this peer address (host:port) as learner.
    pub async fn add_member(&self, peer_address: &str) -> Result<MembershipReply, ClientError> {
        let request = AddMemberRequest { peer_address: peer_address.to_owned() };
        self.ask(Effect::Each, request, |mut door: Door, request| async move { door.add_member(request).await }).await
    }

    /// Tells all where the member is that answers at this peer address (host:port) now.
    pub async fn update_member(&self, peer_address: &str) -> Result<MembershipReply, ClientError> {
        let request = UpdateMemberRequest { peer_address: peer_address.to_owned() };
        self.ask(Effect::Each, request, |mut door: Door, request| async move { door.update_member(request).await })
            .await
    }

    /// Makes a learner that has caught up a voter.
    pub async fn promote_member(&self, node_id: u64) -> Result<MembershipReply, ClientError> {
        let request = PromoteMemberRequest { node_id };
        self.ask(Effect::Each, request, |mut door: Door, request| async move { door.promote_member(request).await })
            .await
    }

    /// Removes a node for good. `force`: also when the remaining voters would be fewer than two that answer.
    pub async fn remove_member(&self, node_id: u64, force: bool) -> Result<MembershipReply, ClientError> {
        let request = RemoveMemberRequest { node_id, force };
        self.ask(Effect::Each, request, |mut door: Door, request| async move { door.remove_member(request).await })
            .await
    }

    /// Hands the leadership to a voter that has caught up; 0: to any other.
    pub async fn move_leader(&self, node_id: u64) -> Result<MoveLeaderReply, ClientError> {
        let request = MoveLeaderRequest { node_id };
        self.ask(Effect::Each, request, |mut door: Door, request| async move { door.move_leader(request).await }).await
    }

    /// Raises the cluster's version as far as every member's program knows; there is no way back. Tells what it was, what it is,
    /// and what each knows. `dry_run`: only tells what would be.
    pub async fn finalize_upgrade(&self, dry_run: bool) -> Result<FinalizeUpgradeReply, ClientError> {
        let request = FinalizeUpgradeRequest { dry_run };
        self.ask(Effect::Once, request, |mut door: Door, request| async move { door.finalize_upgrade(request).await })
            .await
    }

    /// The digest and the sums of the node's replica at a log index; 0: the newest applied there.
    pub async fn verify(&self, log_index: u64) -> Result<VerifyReply, ClientError> {
        let request = VerifyRequest { log_index, deep: false };
        self.ask(Effect::None, request, |mut door: Door, request| async move { door.verify(request).await }).await
    }

    /// Takes a snapshot on the node now, and purges the log behind it.
    pub async fn take_snapshot(&self) -> Result<TakeSnapshotReply, ClientError> {
        self.ask(Effect::Once, TakeSnapshotRequest {}, |mut door: Door, request| async move {
            door.take_snapshot(request).await
        })
        .await
    }

    async fn ask<M: Clone, T, F>(
        &self,
        effect: Effect,
        message: M,
        mut ask: impl FnMut(Door, Request<M>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let ask = |channel, limit| ask(Door::new(channel), within(limit, message.clone()));
        let answered = self.caller.call(self.patience, effect, ask).await;
        match answered {
            Ok(answered) => Ok(answered.value.into_inner()),
            Err(failed) if effect == Effect::None => Err(failed.of_read()),
            Err(failed) => Err(failed.of_write(Vec::new)),
        }
    }
}

#[cfg(test)]
mod tests;
