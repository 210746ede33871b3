//! openraft's log contract over `log/`.
//!
//! Cheap to clone: the raft core, each replication stream and the applier hold the same log.
//!
//! Laws
//! * `append` returns when the entries can be read; its callback fires when they are durable, in order.
//! * `save_vote` returns when the vote is durable. Truncating and purging return at once: they are in the stream before
//!   anything that could contradict them.
//! * Reading never holds up writing.
//! * What is read to be sent or applied begins where it was asked to, or not at all: a purge leaves no hole in it.
//!
//! Not here: bytes on disk (`log/`), what an entry does (`state_machine.rs`).

use jangbu_ledger::planted::{self, Bug};
use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds, RangeInclusive},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use openraft::{
    OptionalSend, RaftLogReader, RaftTypeConfig,
    storage::{IOFlushed, LogState, RaftLogStorage},
    type_config::TypeConfigExt,
};

use crate::{
    blocking::Blocking,
    error::{Fatal, StoreError},
    log::{Log, LogSetup, LogStats},
    type_config::{Entry, LogId, TypeConfig, Vote, encode_entry},
    vfs::Vfs,
};

#[derive(Clone)]
pub struct LogStore(Arc<Log>);

impl LogStore {
    /// Reads what is there, cuts what was never acknowledged, refuses what is damaged. Blocks on a disk.
    ///
    /// If this process had the same log open before, `blocking` must be the same: its Log lane ends what the other began.
    pub async fn open(
        setup: LogSetup,
        vfs: Arc<dyn Vfs>,
        blocking: Arc<dyn Blocking>,
        fatal: Fatal,
    ) -> Result<Self, StoreError> {
        Ok(Self(Log::open(setup, vfs, blocking, fatal).await?))
    }

    pub fn stats(&self) -> LogStats {
        LogStats(self.0.clone())
    }

    /// Waits until all that has been asked of the log is durable. Blocks on a disk.
    pub(crate) async fn settled(&self) -> Result<(), StoreError> {
        let (done, durable) = TypeConfig::oneshot();
        let settled = match self.0.settle(IOFlushed::signal(done)) {
            Ok(()) => durable.await.unwrap_or_else(|_| Err(io::Error::other("the log was closed"))),
            Err(error) => Err(error),
        };
        settled.map_err(|error| StoreError::Fenced(error.to_string()))
    }

    /// Of an entry that the log holds, or of the last one that it purged.
    pub fn log_id_at(&self, index: u64) -> Option<LogId> {
        let state = self.0.state();
        let purged = state.index.purged().filter(|purged| purged.index == index);
        let is_held = (state.index.first()..state.index.next_or_first()).contains(&index);
        purged.or_else(|| is_held.then(|| state.index.log_id(index)))
    }

    /// Entries from `start` on, before `end`, as bytes: one message's worth, at least one. None if `start` was purged. Blocks on
    /// a disk for those that are no longer in memory.
    pub async fn encoded_entries(&self, start: u64, end: u64) -> io::Result<Vec<Bytes>> {
        let entries = self.clone().limited_get_log_entries(start, end).await?;
        let encoded = |entry: &Entry| {
            let (header, payload) = encode_entry(entry);
            [&header[..], &payload].concat().into()
        };
        Ok(entries.iter().map(encoded).collect())
    }

    async fn read(&self, start: u64, end: u64, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let selection = self.0.select(start, end, bytes_max)?;
        self.0.read(selection).await
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = bounds(&range);
        self.read(start, end, u64::MAX).await
    }

    /// A message to a follower: capped by bytes, because openraft itself counts entries, and one may be a megabyte.
    ///
    /// Empty if `start` was purged meanwhile: a later entry in its place would be a hole in the follower's log.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut entries = self.read(start, end, self.0.config.append_bytes_max).await?;
        if entries.first().is_some_and(|first| first.log_id.index != start) {
            entries.clear();
        }
        Ok(entries)
    }

    /// Fails if the first entry was purged. Reads ahead one message's worth at a time, so that replaying a long log does not hold it in memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        stream::try_unfold((self.clone(), start), move |(log, start)| async move {
            let entries = log.read(start, end, log.0.config.append_bytes_max).await?;
            if entries.first().is_some_and(|first| first.log_id.index != start) {
                return Err(io::Error::other(format!("entry {start} is to be applied, and was purged")));
            }
            let next = entries.last().map(|last| last.log_id.index + 1);
            Ok::<_, io::Error>(next.map(|next| (stream::iter(entries).map(Ok), (log, next))))
        })
        .try_flatten()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.state().vote)
    }

    /// The last log id of each leader, as openraft's engine has it; the trait's own comment says the first, and is outdated.
    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> Result<Vec<LogId>, io::Error> {
        Ok(self.0.state().index.key_log_ids(range.start().index, range.end().index))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.0.state();
        Ok(LogState { last_purged_log_id: state.index.purged(), last_log_id: state.index.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Blocks on a disk.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, durable) = TypeConfig::oneshot();
        self.0.save_vote(*vote, IOFlushed::signal(done))?;
        if planted::is(Bug::VoteNotSynced) {
            return Ok(());
        }
        durable.await.map_err(|_| io::Error::other("the log was closed before the vote was durable"))?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.0.save_committed(committed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.0.state().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <TypeConfig as RaftTypeConfig>::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.append(entries.into_iter(), callback)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.0.truncate_after(last_log_id)
    }

    async fn purge(&mut self, mut log_id: LogId) -> Result<(), io::Error> {
        if planted::is(Bug::PurgePastSnapshot) {
            let last = self.0.state().index.last();
            log_id = last.map_or(log_id, |last| last.max(log_id));
        }
        self.0.purge(log_id)
    }
}

/// From the first index on, up to and without the second.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}
