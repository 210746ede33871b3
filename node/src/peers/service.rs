//! The peer door: what other replicas ask of this one.
//!
//! Laws
//! * Nothing is done before the envelope is checked (`envelope.rs`).
//!
//! Not here: who is let in as a member (`membership.rs`), and clients (`api/`).

use std::{future::ready, sync::Arc};

use futures_util::{StreamExt, stream, stream::BoxStream};
use jangbu_proto::{
    batch::{Batch, RepliesBuilder},
    cluster::v1::{
        Accepted, AppendReply, AppendRequest, AuditRecord, DigestAt, DigestsReply, DigestsRequest, ForwardReply,
        ForwardRequest, ReadIndexReply, ReadIndexRequest, RecordRequest, SnapshotMessage, SnapshotReply,
        TransferLeaderReply, TransferLeaderRequest, VoteReply, VoteRequest, peer_server::Peer,
        transfer_leader_reply::Outcome as Transferred,
    },
    reason,
};
use jangbu_raft_store::{Raft, StateReader};
use openraft::raft::TransferLeaderError;
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::{append, convert, envelope::Gate, snapshot::Reception};
use crate::{
    access::PeerCaller, administration::Administration, api::status::to_status, batcher::Batcher,
    clock_skew::ClockSkew, error::CallError, leadership::Leadership, reader::Reader, traces::Traces,
};

pub struct PeerService {
    pub raft: Raft,
    pub gate: Arc<Gate>,
    pub batcher: Batcher,
    pub reader: Arc<Reader>,
    pub state: StateReader,
    pub administration: Arc<Administration>,
    pub leadership: watch::Receiver<Leadership>,
    pub reception: Arc<Reception>,
    pub clock_skew: Arc<ClockSkew>,
    pub deadline_max: Duration,
    pub tasks: TaskTracker,
    pub traces: Traces,
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = BoxStream<'static, Result<AppendReply, Status>>;
    type InstallSnapshotStream = BoxStream<'static, Result<SnapshotReply, Status>>;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        let caller = PeerCaller::of(&request);
        let mut requests = request.into_inner();
        let Some(first) = requests.message().await? else {
            return Ok(Response::new(Box::pin(stream::empty())));
        };
        let from = self.gate.check(caller, first.envelope.as_ref()).await.map_err(to_status)?;
        let clock_skew = self.clock_skew.clone();
        // A request that can't be read ends the stream like a broken connection: the sender begins a new one.
        let readable = stream::iter([Ok(first)])
            .chain(requests)
            .map(move |request: Result<AppendRequest, Status>| {
                let request = request.ok()?;
                clock_skew.heard(from, request.leader_clock_ns);
                let decoded = append::from_wire(request);
                decoded.inspect_err(|error| tracing::warn!(from, %error, "an append can't be read")).ok()
            })
            .take_while(|request| ready(request.is_some()))
            .filter_map(ready);
        let answers = self.raft.stream_append(readable).map(|answer| match answer {
            Ok(result) => Ok(convert::append_result_to_wire(result)),
            Err(fatal) => Err(to_status(CallError::internal(fatal.to_string()))),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteReply>, Status> {
        let (caller, request) = (PeerCaller::of(&request), request.into_inner());
        self.gate.check(caller, request.envelope.as_ref()).await.map_err(to_status)?;
        let asked = convert::vote_request_from_wire(request).map_err(malformed)?;
        let reply = self.raft.vote(asked).await.map_err(stopped)?;
        Ok(Response::new(convert::vote_reply_to_wire(&reply)))
    }

    async fn pre_vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteReply>, Status> {
        let (caller, request) = (PeerCaller::of(&request), request.into_inner());
        self.gate.check(caller, request.envelope.as_ref()).await.map_err(to_status)?;
        let asked = convert::vote_request_from_wire(request).map_err(malformed)?;
        let reply = self.raft.pre_vote(asked).await.map_err(stopped)?;
        Ok(Response::new(convert::vote_reply_to_wire(&reply)))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderReply>, Status> {
        let (caller, request) = (PeerCaller::of(&request), request.into_inner());
        self.gate.check(caller, request.envelope.as_ref()).await.map_err(to_status)?;
        let asked = convert::transfer_from_wire(request).map_err(malformed)?;
        let outcome = match self.raft.handle_transfer_leader(asked).await.map_err(stopped)? {
            Ok(()) => Transferred::Accepted(Accepted {}),
            Err(TransferLeaderError::VoteChanged { actual, .. }) => {
                Transferred::VoteChanged(convert::vote_to_wire(&actual))
            }
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
                Transferred::LogNotFlushed(actual.as_ref().map(convert::log_id_to_wire).unwrap_or_default())
            }
        };
        Ok(Response::new(TransferLeaderReply { outcome: Some(outcome) }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotMessage>>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let caller = PeerCaller::of(&request);
        let (replies, outgoing) = mpsc::channel(2);
        let reception = self.reception.clone();
        // In a task of its own, because an installation that has begun must not stop halfway when the sender hangs up.
        self.tasks.spawn(async move {
            if let Err(error) = reception.receive(caller, request.into_inner(), &replies).await {
                tracing::warn!(%error, "a snapshot was not received");
                let _ = replies.send(Err(to_status(error))).await;
            }
        });
        let outgoing = stream::unfold(outgoing, |mut outgoing| async { Some((outgoing.recv().await?, outgoing)) });
        Ok(Response::new(Box::pin(outgoing)))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        let deadline = self.deadline(&request);
        self.gate.check(PeerCaller::of(&request), request.into_inner().envelope.as_ref()).await.map_err(to_status)?;
        self.must_lead()?;
        let confirmed = self.reader.confirm(deadline).await.map_err(to_status)?;
        Ok(Response::new(ReadIndexReply { read_log_id: Some(convert::log_id_to_wire(&confirmed)) }))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardReply>, Status> {
        let arrived = Instant::now();
        let (caller, request) = (PeerCaller::of(&request), request.into_inner());
        self.gate.check(caller, request.envelope.as_ref()).await.map_err(to_status)?;
        let batch = Batch::parse(request.requests).map_err(malformed)?;
        // Not handed on a second time: whoever forwarded looks for the leader itself.
        self.must_lead()?;
        let limit = Duration::from_millis(request.deadline_ms.into()).min(self.deadline_max);
        let (requests, trail) = (batch.requests().cloned().collect(), self.traces.handed_on(&request.traceparents));
        let applied = self.batcher.submit(requests, arrived + limit, trail).await.map_err(to_status)?;
        let mut replies = RepliesBuilder::new();
        for reply in &applied.replies {
            replies.push(reply.timestamp, reply.answers());
        }
        Ok(Response::new(ForwardReply { replies: replies.finish(), log_index: applied.log_index, term: applied.term }))
    }

    async fn digests(&self, request: Request<DigestsRequest>) -> Result<Response<DigestsReply>, Status> {
        self.gate.check(PeerCaller::of(&request), request.into_inner().envelope.as_ref()).await.map_err(to_status)?;
        let digests = self.state.digests().into_iter();
        let digests =
            digests.map(|(log_index, digest)| DigestAt { log_index, digest: digest.to_vec().into() }).collect();
        Ok(Response::new(DigestsReply { digests, clock_ns: self.clock_skew.now_ns() }))
    }

    async fn record(&self, request: Request<RecordRequest>) -> Result<Response<AuditRecord>, Status> {
        let deadline = self.deadline(&request);
        let (caller, request) = (PeerCaller::of(&request), request.into_inner());
        let from = self.gate.check(caller, request.envelope.as_ref()).await.map_err(to_status)?;
        self.must_lead()?;
        let recorded = self.administration.record_for(from, request.command, deadline).await;
        recorded.map(Response::new).map_err(to_status)
    }
}

impl PeerService {
    fn must_lead(&self) -> Result<(), Status> {
        if self.leadership.borrow().is_here() {
            return Ok(());
        }
        Err(to_status(CallError::unavailable(reason::NOT_LEADER, "this node doesn't lead")))
    }

    fn deadline<T>(&self, request: &Request<T>) -> Instant {
        Instant::now() + crate::api::time_left(request.metadata()).unwrap_or(self.deadline_max).min(self.deadline_max)
    }
}

fn malformed(error: jangbu_proto::Malformed) -> Status {
    to_status(error.into())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    to_status(CallError::internal(error.to_string()))
}
