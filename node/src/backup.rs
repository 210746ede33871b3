//! What a backup reads of this node: its newest snapshot, file by file, and its log behind an entry.
//!
//!     ReadSnapshot   (nothing) -> manifest          file, offset -> piece piece … end          file, offset -> …
//!     ReadLog        after an entry -> entries … the state's mark,  entries … mark,  …
//!
//! Whoever reads slowly is waited for: the wire takes no more than its window, and a piece is read from disk when the one before
//! it has gone.
//!
//! Laws
//! * Only what is applied here is handed out: it is committed, and the mark behind it is the state that this replica has there.
//! * The log comes without a gap, or not at all: what was purged is said, and so is another entry in the place of the caller's last.
//! * A caller that makes no progress is hung up on: the snapshot that it reads takes room on this disk.
//!
//! Not here: when a snapshot is taken (`snapshots.rs`), and where a backup goes (`ops/src/backup`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jangbu_proto::{
    Malformed,
    cluster::v1::{
        EntryId, ReadLogReply, ReadLogRequest, ReadSnapshotReply, ReadSnapshotRequest, StateMark as WireMark,
    },
    reason,
};
use jangbu_raft_store::{LogId, LogStore, Raft, SnapshotData, StateMark, StateReader, log_id};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, Streaming};

use crate::{api::status::to_status, applied::AppliedIndex, error::CallError};

/// One piece of a file: a few of them fit the stream's window.
const PIECE_BYTES: usize = 1 << 20;

/// Replies read ahead of the network.
const REPLIES_AHEAD: usize = 2;

/// How long a caller may take to ask for the next file, or to take the next reply.
const PROGRESS_LIMIT: Duration = Duration::from_secs(120);

/// How long a caller is waited for to hear why its call ends: a node that stops has no more to spare.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Applied entries are gathered for so long before they are sent: it is what a backup is behind at least.
const GATHER: Duration = Duration::from_millis(100);

/// Calls that are answered at a time: a backup and its log, and one of each that hasn't noticed yet that its caller is gone.
const READERS_MAX: usize = 4;

#[derive(Clone)]
pub struct Backup {
    pub raft: Raft,
    pub log: LogStore,
    pub state: StateReader,
    pub applied: AppliedIndex,
    pub readers: Arc<Semaphore>,
    pub tasks: TaskTracker,
    pub closing: CancellationToken,
}

type Replies<T> = mpsc::Sender<Result<T, Status>>;

impl Backup {
    pub fn readers() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(READERS_MAX))
    }

    /// The index of what is handed out, and the answer.
    pub async fn snapshot(
        &self,
        requests: Streaming<ReadSnapshotRequest>,
    ) -> Result<(u64, ReceiverStream<Result<ReadSnapshotReply, Status>>), CallError> {
        let permit = self.admit()?;
        let newest = self.raft.get_snapshot().await.map_err(|fatal| CallError::internal(fatal.to_string()))?;
        let newest = newest.ok_or_else(|| {
            CallError::precondition(reason::NOT_INITIALIZED, "this node has no snapshot yet; take one first")
        })?;
        let index = newest.meta.last_log_id.map_or(0, |id| id.index);
        Ok((index, self.answer(permit, |replies| send_files(newest.snapshot, requests, replies))))
    }

    pub async fn log(&self, asked: ReadLogRequest) -> Result<ReceiverStream<Result<ReadLogReply, Status>>, CallError> {
        let permit = self.admit()?;
        let after = asked.after.ok_or_else(|| Malformed::new("after", "is missing: which entry comes before?"))?;
        let this = self.clone();
        Ok(self.answer(permit, move |replies| async move { this.send_log(after, asked.follow, replies).await }))
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, CallError> {
        self.readers.clone().try_acquire_owned().map_err(|_| CallError::Overloaded {
            what: "other backups read from this node",
            retry_after: Duration::from_secs(5),
        })
    }

    /// Runs `work` until it is done, the caller hangs up or this node stops; its error is the last reply.
    fn answer<T, F>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl FnOnce(Replies<T>) -> F,
    ) -> ReceiverStream<Result<T, Status>>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), CallError>> + Send + 'static,
    {
        let (replies, answer) = mpsc::channel(REPLIES_AHEAD);
        let (work, closing) = (work(replies.clone()), self.closing.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            let done = tokio::select! {
                biased;
                () = closing.cancelled() => Err(crate::admission::shutting_down()),
                () = replies.closed() => Ok(()),
                done = work => done,
            };
            if let Err(error) = done {
                // A caller that takes nothing any more doesn't hear of it.
                let _ = timeout(LAST_WORD, replies.send(Err(to_status(error)))).await;
            }
        });
        ReceiverStream::new(answer)
    }

    async fn send_log(&self, after: EntryId, follow: bool, replies: Replies<ReadLogReply>) -> Result<(), CallError> {
        let mut after = log_id(after.term, after.node_id, after.index);
        let mut is_first = true;
        loop {
            // One that is behind its caller catches up.
            if (follow || is_first) && !self.applied.past(after.index.saturating_sub(u64::from(is_first))).await {
                return Err(crate::admission::shutting_down());
            }
            self.check_history(after)?;
            let mark = self.state.mark();
            self.send_entries(&mut after, &mark, &replies).await?;
            if !follow {
                return Ok(());
            }
            is_first = false;
            sleep(GATHER).await;
        }
    }

    /// The entry before those that are wanted is the caller's, as far as this log still knows.
    fn check_history(&self, after: LogId) -> Result<(), CallError> {
        match self.log.log_id_at(after.index) {
            Some(here) if here != after => {
                let message = format!(
                    "entry {} is {here} here, and {after} in the backup: they are of different histories",
                    after.index
                );
                Err(CallError::precondition(reason::HISTORY_DIFFERS, message))
            }
            _ => Ok(()),
        }
    }

    /// All behind `after` up to the mark, and the mark with the last of them.
    async fn send_entries(
        &self,
        after: &mut LogId,
        mark: &StateMark,
        replies: &Replies<ReadLogReply>,
    ) -> Result<(), CallError> {
        while after.index < mark.at.log_index {
            let read = self.log.encoded_entries(after.index + 1, mark.at.log_index + 1).await;
            let entries = read.map_err(|error| CallError::internal(error.to_string()))?;
            let last = after.index + entries.len() as u64;
            // Looked at after the read: what is purged meanwhile has been read.
            let Some(id) = self.log.log_id_at(last).filter(|_| !entries.is_empty()) else {
                let message = format!("entry {} was purged here; take another full backup", after.index + 1);
                return Err(CallError::precondition(reason::GONE_BY, message));
            };
            *after = id;
            let mark = (last == mark.at.log_index).then(|| wire_mark(mark));
            push(replies, ReadLogReply { entries, mark }).await?;
        }
        Ok(())
    }
}

async fn send_files(
    snapshot: SnapshotData,
    mut requests: Streaming<ReadSnapshotRequest>,
    replies: Replies<ReadSnapshotReply>,
) -> Result<(), CallError> {
    while let Ok(request) = timeout(PROGRESS_LIMIT, requests.message()).await {
        // One that broke off doesn't hear an answer either.
        let Ok(Some(ReadSnapshotRequest { file, offset })) = request else { return Ok(()) };
        if file.is_empty() {
            let timestamp = snapshot.timestamp().await?;
            push(&replies, ReadSnapshotReply { manifest: snapshot.manifest(), timestamp, ..Default::default() })
                .await?;
        } else {
            send_file(&snapshot, &file, offset, &replies).await?;
        }
    }
    Err(stuck())
}

async fn send_file(
    snapshot: &SnapshotData,
    file: &str,
    mut offset: u64,
    replies: &Replies<ReadSnapshotReply>,
) -> Result<(), CallError> {
    let bytes = match snapshot.description().file(file) {
        Some(info) if offset <= info.bytes => info.bytes,
        Some(info) => {
            return Err(Malformed::new("offset", format!("{offset} lies behind {file}'s {} bytes", info.bytes)).into());
        }
        None => return Err(Malformed::new("file", format!("{file:?} is none of the manifest's")).into()),
    };
    loop {
        let data = snapshot.read(file, offset, PIECE_BYTES).await?;
        offset += data.len() as u64;
        let end = offset == bytes || data.is_empty();
        push(replies, ReadSnapshotReply { data, end, ..Default::default() }).await?;
        if end {
            return Ok(());
        }
    }
}

async fn push<T>(replies: &Replies<T>, reply: T) -> Result<(), CallError> {
    // One that hung up ends the call by itself ([`Backup::answer`]).
    timeout(PROGRESS_LIMIT, replies.send(Ok(reply))).await.map(drop).map_err(|_| stuck())
}

fn stuck() -> CallError {
    CallError::unavailable(reason::NOT_READY, "the backup makes no progress; begin again, it goes on where it was")
}

fn wire_mark(mark: &StateMark) -> WireMark {
    WireMark {
        log_index: mark.at.log_index,
        digest: Bytes::copy_from_slice(&mark.at.digest),
        audit_hash: Bytes::copy_from_slice(&mark.audit_hash),
        timestamp: mark.at.timestamp,
    }
}
