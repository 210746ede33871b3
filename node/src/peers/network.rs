//! openraft's way to a peer.
//!
//! Laws
//! * Every call has a deadline, and a stream that makes no progress is dropped together with its connection.
//! * A peer that refuses this node by name is `Unreachable` for openraft, which then waits before it tries again.
//!
//! Not here: the receiving side (`service.rs`).

use std::{sync::Arc, time::Duration};

use futures_util::Stream;
use jangbu_proto::{
    cluster::v1::{self as wire, TransferLeaderReply, peer_client::PeerClient, transfer_leader_reply},
    entry::NodeInfo,
    transport::Channel,
};
use jangbu_raft_store::{LogStats, SnapshotData, TypeConfig, Vote};
use openraft::{
    OptionalSend,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{
        Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
    },
    raft::{
        AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::SnapshotOf,
};
use tokio::time::timeout;
use tonic::{Code, Response, Status};

use super::{Link, Peers, Purpose, append, convert, snapshot};

/// After a peer could not be reached, the next attempts wait so long.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

pub struct Network {
    pub peers: Arc<Peers>,
    pub log: LogStats,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &NodeInfo) -> PeerNetwork {
        self.network(target, node, Purpose::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeInfo) -> PeerNetwork {
        self.network(target, node, Purpose::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &NodeInfo) -> PeerNetwork {
        self.network(target, node, Purpose::Snapshot)
    }
}

impl Network {
    fn network(&self, target: u64, node: &NodeInfo, bulk: Purpose) -> PeerNetwork {
        PeerNetwork {
            bulk: self.peers.link(target, node, bulk),
            control: self.peers.link(target, node, Purpose::Control),
            log: (bulk == Purpose::Append).then(|| self.log.clone()),
        }
    }
}

/// One of openraft's ways to one peer.
pub struct PeerNetwork {
    /// For what this way was made: entries, heartbeats, or snapshots.
    bulk: Arc<Link>,
    control: Arc<Link>,
    /// Where the entries come from, if this way carries any.
    log: Option<LogStats>,
}

impl NetBackoff<TypeConfig> for PeerNetwork {
    fn backoff(&self) -> Option<Backoff> {
        let doubling = std::iter::successors(Some(BACKOFF_MIN), |last| Some((*last * 2).min(BACKOFF_MAX)));
        Some(Backoff::new(doubling))
    }
}

impl NetStreamAppend<TypeConfig> for PeerNetwork {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        // openraft gives the heartbeat interval here, also for a stream that lives for hours: the progress deadline of
        // `append` is what counts.
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(append::stream(self.bulk.clone(), self.log.clone(), input))
    }
}

impl NetVote<TypeConfig> for PeerNetwork {
    async fn vote(
        &mut self,
        asked: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(asked, option, async |mut peer, request| peer.vote(request).await).await
    }

    async fn pre_vote(
        &mut self,
        asked: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(asked, option, async |mut peer, request| peer.pre_vote(request).await).await
    }
}

impl PeerNetwork {
    async fn ask_for_vote(
        &self,
        asked: VoteRequest<TypeConfig>,
        option: RPCOption,
        ask: impl AsyncFnOnce(PeerClient<Channel>, wire::VoteRequest) -> Result<Response<wire::VoteReply>, Status>,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::vote_request_to_wire(&asked, self.control.envelope());
        let client = self.control.client().map_err(|status| rpc_error(&self.control, status))?;
        let reply = within(&self.control, option.hard_ttl(), ask(client, request)).await?;
        convert::vote_reply_from_wire(reply.into_inner()).map_err(|error| network_error(error.to_string()))
    }
}

impl NetTransferLeader<TypeConfig> for PeerNetwork {
    async fn transfer_leader(
        &mut self,
        asked: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::transfer_to_wire(&asked, self.control.envelope());
        let mut client = self.control.client().map_err(|status| rpc_error(&self.control, status))?;
        let reply = within(&self.control, option.hard_ttl(), client.transfer_leader(request)).await?.into_inner();
        transfer_reply(&asked, reply)
    }
}

fn transfer_reply(
    asked: &TransferLeaderRequest<TypeConfig>,
    reply: TransferLeaderReply,
) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
    use transfer_leader_reply::Outcome;
    Ok(match reply.outcome {
        Some(Outcome::Accepted(_)) => Ok(()),
        Some(Outcome::VoteChanged(vote)) => Err(TransferLeaderError::VoteChanged {
            expected: *asked.from_leader(),
            actual: convert::vote_from_wire(Some(vote)).map_err(|error| network_error(error.to_string()))?,
        }),
        Some(Outcome::LogNotFlushed(id)) => Err(TransferLeaderError::LogNotFlushed {
            expected: asked.last_log_id().cloned(),
            // Index 0 stands for "nothing yet".
            actual: (id.index > 0).then(|| convert::log_id_from_wire(id)),
        }),
        None => return Err(network_error("the reply has no outcome".into())),
    })
}

impl NetSnapshot<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        // openraft's limit is on the whole transfer, which takes as long as it takes: a progress deadline is kept instead.
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = snapshot::send(self.bulk.clone(), vote, snapshot.snapshot) => sent,
        }
    }
}

async fn within<T>(
    link: &Link,
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, RPCError<TypeConfig>> {
    match timeout(limit, call).await {
        Ok(reply) => reply.map_err(|status| rpc_error(link, status)),
        Err(_) => Err(network_error(format!("no answer within {limit:?}"))),
    }
}

/// A refusal or a dead peer makes openraft wait before it tries again; anything else is tried again at once.
pub fn rpc_error(link: &Link, status: Status) -> RPCError<TypeConfig> {
    link.note_refusal(&status);
    match status.code() {
        Code::PermissionDenied | Code::FailedPrecondition | Code::Unavailable | Code::Unknown => {
            Unreachable::from_string(status.message()).into()
        }
        _ => network_error(status.message().to_owned()),
    }
}

pub fn network_error(message: String) -> RPCError<TypeConfig> {
    NetworkError::from_string(message).into()
}
