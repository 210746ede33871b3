//! The replicated log on disk: one ordered stream of records per group, cut into segment files.
//!
//!     append, save_vote, …  ->  queue  ->  Log lane: write all that waits, one fdatasync, then the callbacks in order
//!            |                                   |
//!            v                                   v
//!     index + cache (memory)              000000000007.log   spare-000000000003
//!
//! A position is a byte's place in the stream since its beginning; it never restarts, however often files are reused. A
//! record gets its position when it is queued, so the order of the queue is the order on disk.
//!
//!     record.rs     one record: its header, its checksums
//!     segment.rs    one file of the stream: names, making, reuse
//!     index.rs      where each entry lies, and which leader proposed it
//!     cache.rs      the newest entries, in memory
//!     writer.rs     the queue, group commit, rolling to the next segment, reclaiming purged ones
//!     recovery.rs   from files to memory: what is kept, what is cut, what is refused
//!     sync_times.rs how long the syncs take
//!
//! Laws
//! * Votes and entries share one stream: what was saved later never survives a crash that loses what was saved earlier.
//! * Nothing is acknowledged before the sync that covers it, and acknowledgements come in the order of the stream.
//! * Memory never holds an entry back from the disk, and never drops one that the disk does not have yet.
//! * A failed write or sync is never tried again: the store is fatal from then on (`error.rs`).
//!
//! Not here: openraft's contract (`log_store.rs`).

mod cache;
mod index;
mod record;
mod recovery;
mod segment;
mod sync_times;
mod writer;

use jangbu_ledger::planted::{self, Bug};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;

use crate::{
    blocking::{Blocking, Lane, run_blocking},
    error::{Fatal, StoreError},
    type_config::{self, Entry, LogId, Vote},
    vfs::Vfs,
};
use cache::Cache;
use index::{Index, Slot};
use record::{Body, Kind, Stamp};
pub use recovery::{Inspection, inspect, inspect_part};
use segment::Segment;
pub use sync_times::SyncHistogram;
use sync_times::SyncTimes;
pub(crate) use writer::Done;
use writer::{Disk, Queue};

/// How a log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment's size in bytes. Larger: fewer pauses to roll; smaller: finer steps in which purged space comes back.
    pub segment_bytes: u64,
    /// How many bytes of the newest entries stay in memory. Replication and applying read the disk beyond it.
    pub cache_bytes: u64,
    /// How many bytes of entries go into one message to a follower; at least one entry goes.
    pub append_bytes_max: u64,
    /// How many purged segments are kept for reuse: a sync of old blocks needs no journal commit of the file system. As many
    /// as a snapshot lets go at once and more, so that no new ones are needed.
    pub spares_max: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, cache_bytes: 32 << 20, append_bytes_max: 4 << 20, spares_max: 4 }
    }
}

/// What a log is opened with.
pub struct LogSetup {
    /// The folder of the group's segments.
    pub dir: PathBuf,
    pub group: u32,
    pub config: LogConfig,
    /// This node has had a log before: an empty folder is a loss, not a beginning.
    pub must_exist: bool,
}

pub(crate) struct Log {
    dir: PathBuf,
    group: u32,
    pub(crate) config: LogConfig,
    vfs: Arc<dyn Vfs>,
    blocking: Arc<dyn Blocking>,
    pub(crate) fatal: Fatal,
    /// Held for moments: no disk work is done under it.
    state: Mutex<State>,
    /// Touched by the Log lane alone; never contended.
    disk: Mutex<Disk>,
    spares: Mutex<segment::Spares>,
    sync_times: SyncTimes,
}

/// The log as the rest of the node sees it: ahead of the disk by what is queued.
pub(crate) struct State {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) index: Index,
    cache: Cache,
    /// Oldest first; those that exist as files.
    segments: Vec<Arc<Segment>>,
    queue: Queue,
}

/// Entries to read: some from the disk, the rest already here.
pub(crate) struct Selection {
    on_disk: Vec<(Arc<Segment>, u64, Slot)>,
    in_memory: Vec<Entry>,
}

impl Log {
    pub(crate) async fn open(
        setup: LogSetup,
        vfs: Arc<dyn Vfs>,
        blocking: Arc<dyn Blocking>,
        fatal: Fatal,
    ) -> Result<Arc<Self>, StoreError> {
        let lane = blocking.clone();
        run_blocking(&*lane, Lane::Log, move || recovery::open(setup, vfs, blocking, fatal)).await
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock but our own mistakes, and those end the process")
    }

    /// Queues `entries`; `done` hears of it once they are durable. They are readable when this returns.
    pub(crate) fn append(self: &Arc<Self>, entries: impl Iterator<Item = Entry>, done: Done) -> io::Result<()> {
        let mut state = self.open_state()?;
        let mut entries = entries.peekable();
        let mut done = Some(done);
        if entries.peek().is_none() {
            // Durable once all before it is: an empty record keeps it in order.
            self.queue(&mut state, Kind::Mark, Stamp::NONE, Body::default(), done.take());
        }
        while let Some(entry) = entries.next() {
            let (header, payload) = type_config::encode_entry(&entry);
            let body = Body { header: Some(header), payload };
            let body_bytes = body.len() as u32;
            state.index.check_next(entry.log_id).map_err(io::Error::other)?;
            let done = if entries.peek().is_none() { done.take() } else { None };
            let position = self.queue(&mut state, Kind::Entry, entry.log_id.into(), body, done);
            state.index.append(entry.log_id, Slot { position, body_bytes });
            state.cache.push(entry, body_bytes);
        }
        self.evict(&mut state);
        self.wake(state);
        Ok(())
    }

    /// Queues `vote`; `done` hears of it once it is durable.
    pub(crate) fn save_vote(self: &Arc<Self>, vote: Vote, done: Done) -> io::Result<()> {
        let mut state = self.open_state()?;
        self.queue(&mut state, Kind::Vote, vote.into(), Body::default(), Some(done));
        state.vote = Some(vote);
        self.wake(state);
        Ok(())
    }

    /// `done` hears once all that was queued before is durable: at once, if the writer rests.
    pub(crate) fn settle(self: &Arc<Self>, done: Done) -> io::Result<()> {
        let mut state = self.open_state()?;
        if state.queue.rests() {
            drop(state);
            done.io_completed(Ok(()));
            return Ok(());
        }
        self.queue(&mut state, Kind::Mark, Stamp::NONE, Body::default(), Some(done));
        self.wake(state);
        Ok(())
    }

    /// Rides along with the next record: losing it costs a little waiting after a restart, never an entry.
    pub(crate) fn save_committed(&self, committed: Option<LogId>) -> io::Result<()> {
        self.open_state()?.committed = committed;
        Ok(())
    }

    /// Drops what follows `after`. Not durable when this returns, but before anything that is queued later.
    pub(crate) fn truncate_after(self: &Arc<Self>, after: Option<LogId>) -> io::Result<()> {
        let mut state = self.open_state()?;
        if !planted::is(Bug::TruncateNotWritten) {
            self.queue(&mut state, Kind::Truncate, Stamp::of(after), Body::default(), None);
        }
        state.index.truncate_after(after.map(|id| id.index));
        let next = state.index.next_or_first();
        state.cache.truncate(next);
        self.wake(state);
        Ok(())
    }

    /// Drops all up to and with `upto`. Its space comes back once that is durable.
    pub(crate) fn purge(self: &Arc<Self>, upto: LogId) -> io::Result<()> {
        let mut state = self.open_state()?;
        let position = self.queue(&mut state, Kind::Purge, upto.into(), Body::default(), None);
        state.index.purge(upto);
        let first = state.index.first();
        state.cache.purge(first);
        let keep_from = state.index.first_position().unwrap_or(position);
        state.queue.reclaim_to(keep_from);
        self.wake(state);
        Ok(())
    }

    /// The entries of `range` that the log has; `bytes_max` may leave off the later ones, never the first.
    pub(crate) fn select(&self, start: u64, end: u64, bytes_max: u64) -> io::Result<Selection> {
        let state = self.open_state()?;
        let start = start.max(state.index.first());
        let end = state.index.end_within(start, end.min(state.index.next_or_first()), bytes_max).max(start);
        let cached_from = state.cache.first().unwrap_or(end).clamp(start, end);
        let on_disk = (start..cached_from)
            .map(|index| {
                let slot = state.index.slot(index);
                (state.segment_of(slot.position), index, slot)
            })
            .collect();
        Ok(Selection { on_disk, in_memory: state.cache.range(cached_from, end) })
    }

    /// Reads what was selected. Blocks on a disk only for entries that are no longer in memory.
    pub(crate) async fn read(self: &Arc<Self>, selection: Selection) -> io::Result<Vec<Entry>> {
        let Selection { on_disk, mut in_memory } = selection;
        if on_disk.is_empty() {
            return Ok(in_memory);
        }
        let group = self.group;
        let read = run_blocking(&*self.blocking, Lane::Read, move || {
            on_disk
                .iter()
                .map(|(segment, index, slot)| read_entry(segment, group, *index, *slot))
                .collect::<Result<Vec<_>, _>>()
        });
        match read.await {
            Ok(mut entries) => {
                entries.append(&mut in_memory);
                Ok(entries)
            }
            Err(error) => Err(io::Error::other(self.fatal.raise(error))),
        }
    }

    /// Checked under the lock: what is queued before the store stops is told of it (`writer.rs`), what comes later is refused.
    fn open_state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        self.fatal.check()?;
        Ok(state)
    }

    /// Before `state` changes: if this begins a segment, its head says what was true before the record.
    fn queue(&self, state: &mut State, kind: Kind, stamp: Stamp, body: Body, done: Option<Done>) -> u64 {
        let committed = Stamp::of(state.committed);
        if state.queue.is_full(body.len(), self.config.segment_bytes) {
            let head = state.head();
            state.queue.roll(head, committed);
        }
        state.queue.push(kind, stamp, committed, body, done)
    }

    fn evict(&self, state: &mut State) {
        while state.cache.bytes() > self.config.cache_bytes
            && let Some(oldest) = state.cache.first()
            && state.index.slot(oldest).end() <= state.queue.written()
        {
            state.cache.evict();
        }
    }
}

impl State {
    /// What the next segment's head says, so that older segments can go.
    fn head(&self) -> record::Head {
        record::Head { vote: self.vote, purged: self.index.purged(), next: self.index.next() }
    }

    fn segment_of(&self, position: u64) -> Arc<Segment> {
        let after = self.segments.partition_point(|segment| segment.start <= position);
        self.segments[after.checked_sub(1).expect("a slot's segment is kept as long as the slot")].clone()
    }
}

fn read_entry(segment: &Segment, group: u32, index: u64, slot: Slot) -> Result<Entry, StoreError> {
    let offset = slot.position - segment.start;
    let damaged = |reason: String| StoreError::damaged(&segment.path, offset, reason);
    let mut bytes = vec![0; slot.bytes() as usize];
    segment.file.read_at(&mut bytes, offset).map_err(|error| StoreError::io("read", &segment.path, error))?;
    let record =
        record::parse(&bytes, segment.sequence, slot.position, group).map_err(|bad| damaged(bad.to_string()))?;
    if record.header.kind != Kind::Entry || record.header.stamp.index != index {
        return Err(damaged(format!("not the entry {index} that was written there")));
    }
    let range = record.body_range();
    type_config::decode_entry(Bytes::from(bytes).slice(range)).map_err(|malformed| damaged(malformed.to_string()))
}

/// A look at the log's size, for metrics and for whoever decides when to make a snapshot.
#[derive(Clone)]
pub struct LogStats(pub(crate) Arc<Log>);

impl LogStats {
    /// Bytes ever appended; never goes back. The difference between two moments is what was logged between them.
    pub fn position(&self) -> u64 {
        self.0.state().queue.end()
    }

    /// Bytes that a restart would have to read, because they were not purged.
    pub fn bytes_unpurged(&self) -> u64 {
        let state = self.0.state();
        let end = state.queue.end();
        end - state.index.first_position().unwrap_or(end)
    }

    /// The last entry to purge so that of those up to `last` at most `entries_kept` stay, in at most `bytes_kept`; none if none has to go.
    pub fn last_to_purge(&self, last: u64, entries_kept: u64, bytes_kept: u64) -> Option<u64> {
        self.0.state().index.last_to_purge(last, entries_kept, bytes_kept)
    }

    /// Bytes that wait for a sync.
    pub fn bytes_in_flight(&self) -> u64 {
        let state = self.0.state();
        state.queue.end() - state.queue.durable()
    }

    /// The last entry that a crash cannot take.
    pub fn last_durable_index(&self) -> Option<u64> {
        let state = self.0.state();
        state.index.last_before(state.queue.durable())
    }

    /// The last entry that was purged.
    pub fn purged_index(&self) -> Option<u64> {
        self.0.state().index.purged().map(|id| id.index)
    }

    pub fn bytes_cached(&self) -> u64 {
        self.0.state().cache.bytes()
    }

    pub fn segments_count(&self) -> usize {
        self.0.state().segments.len()
    }

    /// Since the log was opened.
    pub fn sync_times(&self) -> SyncHistogram {
        self.0.sync_times.read()
    }
}
