//! A snapshot on its way: offered, asked for, sent, installed.
//!
//!     sender    offer (manifest)            chunk chunk chunk … end
//!     receiver                   want (files, offsets)               installed (vote)
//!
//! The receiver asks only for what it lacks, so a transfer that was cut off goes on where it was, and files that it has
//! from an earlier snapshot aren't sent again. Everything is verified against the manifest before it is installed.
//!
//! Laws
//! * A snapshot that its receiver can't open is refused before it hears of it as a state; the sender is told, looks after its own
//!   files, and offers the same one again only after `OFFER_AGAIN_AFTER`.
//! * A snapshot that its receiver refuses, because a file of it is damaged, makes the sender take another.
//! * A transfer without progress ends after `snapshot_progress_timeout`, on either side.
//! * One transfer is received at a time.
//!
//! Not here: what is in a snapshot, and how it becomes the state (`raft_store::snapshot`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use jangbu_proto::{
    Malformed,
    cluster::v1::{
        FileWant, SnapshotChunk, SnapshotEnd, SnapshotInstalled, SnapshotMessage, SnapshotOffer, SnapshotReply,
        SnapshotWant, snapshot_message::Message as Sent, snapshot_reply::Message as Replied,
    },
    reason,
};
use jangbu_raft_store::{Incoming, Offered, Raft, ReceiveError, SnapshotData, SnapshotReceiver, TypeConfig, Vote};
use openraft::{
    async_runtime::WatchReceiver,
    errors::{RPCError, StreamingError, Unreachable},
    raft::SnapshotResponse,
};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};
use tonic::{Code, Streaming};

use super::{
    Link, convert,
    envelope::Gate,
    network::{network_error, rpc_error},
};
use crate::{access::PeerCaller, error::CallError, metrics::Metrics};

/// One chunk: a few of them fit the stream's window.
const CHUNK_BYTES: usize = 1 << 20;

/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 2;

/// Verifying and installing reads all files some more times; it may take this many times a chunk's limit.
const INSTALL_LIMITS: u32 = 60;

/// A snapshot that its receiver couldn't open: what harmed it there, if it was that, may have passed. Megabytes must not go
/// round in the meantime.
const OFFER_AGAIN_AFTER: Duration = Duration::from_secs(60);

type Failure = StreamingError<TypeConfig>;

// --- the sender

/// Sends a snapshot and returns when it is installed there. Blocks on the peer.
pub async fn send(
    link: Arc<Link>,
    vote: Vote,
    snapshot: SnapshotData,
) -> Result<SnapshotResponse<TypeConfig>, Failure> {
    let manifest = snapshot.manifest();
    if link.unusable_snapshot().as_ref() == Some(&manifest) {
        return Err(Unreachable::from_string("the peer can't open this snapshot").into());
    }
    let _sending = link.common.snapshots_sent.begin();
    let sent = Transfer::open(link.clone(), vote, &snapshot).await;
    let sent = match sent {
        Ok(transfer) => transfer.run(&snapshot).await,
        Err(error) => Err(error),
    };
    if sent.is_err() {
        link.drop_channel();
    }
    sent.map_err(Failure::from)
}

struct Transfer {
    link: Arc<Link>,
    requests: mpsc::Sender<SnapshotMessage>,
    replies: Streaming<SnapshotReply>,
    manifest: Bytes,
    limit: Duration,
}

impl Transfer {
    async fn open(link: Arc<Link>, vote: Vote, snapshot: &SnapshotData) -> Result<Self, RPCError<TypeConfig>> {
        let limit = link.common.timings.snapshot_progress_timeout;
        let offer = SnapshotOffer {
            envelope: Some(link.envelope()),
            vote: Some(convert::vote_to_wire(&vote)),
            manifest: snapshot.manifest(),
        };
        let (requests, outgoing) = mpsc::channel(CHUNKS_AHEAD);
        requests.try_send(message(Sent::Offer(offer))).expect("the channel is empty");
        let outgoing = stream::unfold(outgoing, |mut outgoing| async { Some((outgoing.recv().await?, outgoing)) });
        let failed = |status| rpc_error(&link, status);
        let mut client = link.client().map_err(failed)?;
        let replies = timeout(limit, client.install_snapshot(outgoing)).await.map_err(late)?.map_err(failed)?;
        Ok(Self { link, requests, replies: replies.into_inner(), manifest: snapshot.manifest(), limit })
    }

    async fn run(mut self, snapshot: &SnapshotData) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let want = match self.reply(self.limit).await? {
            Replied::Want(want) => want,
            // It has this state already, or a newer one.
            Replied::Installed(installed) => return response(installed),
        };
        for file in want.files {
            self.send_file(snapshot, file).await?;
        }
        self.push(Sent::End(SnapshotEnd {})).await?;
        match self.reply(self.limit * INSTALL_LIMITS).await? {
            Replied::Installed(installed) => response(installed),
            Replied::Want(_) => Err(network_error("the receiver asks twice".into())),
        }
    }

    async fn send_file(&mut self, snapshot: &SnapshotData, want: FileWant) -> Result<(), RPCError<TypeConfig>> {
        let mut offset = want.from_offset;
        loop {
            let data = snapshot.read(&want.file, offset, CHUNK_BYTES).await;
            let data = data.map_err(|error| network_error(format!("reading the snapshot: {error}")))?;
            if data.is_empty() {
                return Ok(());
            }
            let bytes = data.len() as u64;
            self.push(Sent::Chunk(SnapshotChunk { file: want.file.clone(), offset, data })).await?;
            offset += bytes;
        }
    }

    async fn push(&mut self, sent: Sent) -> Result<(), RPCError<TypeConfig>> {
        let pushed = timeout(self.limit, self.requests.send(message(sent))).await.map_err(late)?;
        match pushed {
            Ok(()) => Ok(()),
            // The receiver has ended the call; its status says why.
            Err(_) => {
                Err(self.reply(self.limit).await.err().unwrap_or_else(|| network_error("the stream ended".into())))
            }
        }
    }

    async fn reply(&mut self, limit: Duration) -> Result<Replied, RPCError<TypeConfig>> {
        let reply = timeout(limit, self.replies.message()).await.map_err(late)?;
        let reply = reply.inspect_err(|status| self.note_refusal(status));
        let reply = reply.map_err(|status| rpc_error(&self.link, status))?;
        reply.and_then(|reply| reply.message).ok_or_else(|| network_error("the receiver hung up".into()))
    }

    fn note_refusal(&self, status: &tonic::Status) {
        if reason::told(status).reason == reason::SNAPSHOT_UNUSABLE {
            self.link.note_unusable_snapshot(self.manifest.clone(), OFFER_AGAIN_AFTER);
        } else if status.code() == Code::InvalidArgument {
            // Sent once more, what has rotted on this disk would be refused once more: the peer gets another.
            self.link.common.snapshot_refused.notify_one();
        }
    }
}

fn response(installed: SnapshotInstalled) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
    let vote = convert::vote_from_wire(installed.vote).map_err(|error| network_error(error.to_string()))?;
    Ok(SnapshotResponse::new(vote))
}

fn message(sent: Sent) -> SnapshotMessage {
    SnapshotMessage { message: Some(sent) }
}

fn late(_: tokio::time::error::Elapsed) -> RPCError<TypeConfig> {
    network_error("the snapshot makes no progress".into())
}

// --- the receiver

/// What the peer door needs to receive snapshots.
pub struct Reception {
    pub raft: Raft,
    pub gate: Arc<Gate>,
    pub receiver: SnapshotReceiver,
    pub metrics: Arc<Metrics>,
    pub limit: Duration,
    pub one_at_a_time: Mutex<()>,
}

impl Reception {
    /// Receives one snapshot; replies go out as they come up.
    pub async fn receive(
        &self,
        caller: PeerCaller,
        mut messages: Streaming<SnapshotMessage>,
        replies: &mpsc::Sender<Result<SnapshotReply, tonic::Status>>,
    ) -> Result<(), CallError> {
        let offer = match self.next(&mut messages).await? {
            Sent::Offer(offer) => offer,
            _ => return Err(Malformed::new("message", "an offer comes first").into()),
        };
        let from = self.gate.check(caller, offer.envelope.as_ref()).await?;
        let vote = convert::vote_from_wire(offer.vote)?;
        let _alone = timeout(self.limit, self.one_at_a_time.lock()).await.map_err(|_| stuck())?;
        let mut incoming = match self.receiver.begin(offer.manifest).await.map_err(receive_error)? {
            Offered::Wanted(incoming) => incoming,
            Offered::Here => {
                // A leader that lost the answer to what it sent before offers a snapshot to a replica that has all of it.
                tracing::info!(from, "a snapshot was offered that is in the state already");
                let vote = self.raft.metrics().borrow_watched().vote;
                reply(replies, Replied::Installed(SnapshotInstalled { vote: Some(convert::vote_to_wire(&vote)) }))
                    .await;
                return Ok(());
            }
        };
        let files: Vec<FileWant> =
            incoming.wants().into_iter().map(|(file, from_offset)| FileWant { file, from_offset }).collect();
        tracing::info!(from, files = files.len(), "receiving a snapshot");
        reply(replies, Replied::Want(SnapshotWant { files })).await;
        self.receive_files(&mut messages, &mut incoming).await?;
        let finished = incoming.finish().await;
        if matches!(finished, Err(ReceiveError::Unusable(_))) {
            self.metrics.snapshots_refused.inc();
        }
        let snapshot = finished.map_err(receive_error)?;
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        let installed = installed.map_err(|error| CallError::internal(error.to_string()))?;
        tracing::info!(from, "the snapshot is installed");
        reply(replies, Replied::Installed(SnapshotInstalled { vote: Some(convert::vote_to_wire(&installed.vote)) }))
            .await;
        Ok(())
    }

    async fn receive_files(
        &self,
        messages: &mut Streaming<SnapshotMessage>,
        incoming: &mut Incoming,
    ) -> Result<(), CallError> {
        loop {
            match self.next(messages).await? {
                Sent::Chunk(chunk) => {
                    incoming.write(&chunk.file, chunk.offset, chunk.data).await.map_err(receive_error)?;
                }
                Sent::End(SnapshotEnd {}) => return Ok(()),
                Sent::Offer(_) => return Err(Malformed::new("message", "a second offer").into()),
            }
        }
    }

    async fn next(&self, messages: &mut Streaming<SnapshotMessage>) -> Result<Sent, CallError> {
        let message = timeout(self.limit, messages.message()).await.map_err(|_| stuck())?;
        let message = message.map_err(|status| CallError::unavailable(reason::NOT_READY, status.message()))?;
        let message = message.ok_or_else(|| Malformed::new("message", "the stream ends before the snapshot does"))?;
        message.message.ok_or_else(|| Malformed::new("message", "is empty").into())
    }
}

async fn reply(replies: &mpsc::Sender<Result<SnapshotReply, tonic::Status>>, message: Replied) {
    // A sender that went away doesn't hear it; what was received stays for its next attempt.
    let _ = replies.send(Ok(SnapshotReply { message: Some(message) })).await;
}

fn stuck() -> CallError {
    CallError::unavailable(reason::NOT_READY, "the snapshot makes no progress")
}

fn receive_error(error: ReceiveError) -> CallError {
    match error {
        ReceiveError::Malformed(malformed) => malformed.into(),
        ReceiveError::TooSoon => CallError::unavailable(reason::NOT_READY, error.to_string()),
        ReceiveError::Unusable(_) => CallError::precondition(reason::SNAPSHOT_UNUSABLE, error.to_string()),
        ReceiveError::Store(error) => error.into(),
    }
}
