//! From the queue to the disk: group commit.
//!
//! Whoever queues while the writer rests starts it; then it goes round by itself until nothing waits:
//!
//!     write   all that waits, as one write per segment       (a piece of work on the Log lane)
//!     sync    one fdatasync, then the callbacks in order     (another one: the simulator can crash between them)
//!     mark    if nothing waits: a small record that says how far the stream is durable, not synced
//!
//! A lone append costs one hop to the lane, one write and one sync. Under load, what arrives during a sync is the next write.
//! The mark lets recovery tell damage to the newest acknowledged records from a torn tail.
//!
//! Laws
//! * A segment is whole and synced before the next one has a byte in it: only the last one can have a torn tail.
//! * After the first failure nothing is written, and every callback that waits hears of it.
//! * A purged segment is given up only after the purge itself is durable.
//!
//! Not here: bounds. What waits is bounded by those who wait for it: admission on the leader, the window of a replication
//! stream on a follower.

use jangbu_ledger::planted::{self, Bug};
use std::{
    io::{self, IoSlice},
    ops::Range,
    sync::{Arc, MutexGuard},
};

use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::time::Instant;

use super::{
    Log, State,
    record::{ALIGNMENT, Body, HEADER_BYTES, Head, Header, Kind, Stamp, record_bytes},
    segment::{self, Segment, Spares},
};
use crate::{blocking::Lane, error::StoreError, type_config::TypeConfig};

/// The next segment is made ready once this share of the current one is used: early enough not to wait for it, late enough
/// that a node which does little never spends the room.
const SPARE_WANTED_AT: u64 = 4;

/// Bodies up to this size are copied next to their header: cheaper than another slice in the call.
const COPIED_BODY_BYTES_MAX: usize = 16 << 10;

/// Who is told that a record is durable.
pub(crate) type Done = IOFlushed<TypeConfig>;

/// What waits to be written, and how far the stream has come.
pub(crate) struct Queue {
    waiting: Vec<Record>,
    /// The writer is at work, or will never work again.
    writing: bool,
    /// The position that the next record gets.
    end: u64,
    /// The segment that the next record goes to, and where it starts.
    sequence: u64,
    segment_start: u64,
    /// In the operating system's hands, but perhaps not on the disk.
    written: u64,
    durable: u64,
    /// Before this, nothing is needed any more once all that waits is durable.
    keep_from: u64,
}

/// A record on its way to the disk.
struct Record {
    segment: u64,
    position: u64,
    kind: Kind,
    stamp: Stamp,
    committed: Stamp,
    body: Body,
    done: Option<Done>,
}

/// What waited when the writer looked.
struct Round {
    records: Vec<Record>,
    end: u64,
    keep_from: u64,
}

/// What was written and not yet synced.
struct Written {
    end: u64,
    keep_from: u64,
    dones: Vec<Done>,
}

/// The writer's own: where it writes.
pub(super) struct Disk {
    current: Arc<Segment>,
    /// How far the stream is known to be synced; goes into each header.
    durable: u64,
    gather: Gather,
    /// The segment after the current one was asked for.
    spare_wanted: bool,
}

impl Queue {
    /// Goes on at `end`, in `segment`; all before it is durable.
    pub(super) fn new(segment: &Segment, end: u64) -> Self {
        Self {
            waiting: Vec::new(),
            writing: false,
            end,
            sequence: segment.sequence,
            segment_start: segment.start,
            written: end,
            durable: end,
            keep_from: 0,
        }
    }

    /// All that was queued is durable; but for a mark, which says only that.
    pub(super) fn rests(&self) -> bool {
        !self.writing && self.waiting.is_empty()
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn reclaim_to(&mut self, keep_from: u64) {
        self.keep_from = self.keep_from.max(keep_from);
    }

    /// Whether a record with such a body has to go to the next segment. One that fits into none goes into a fresh one.
    pub(super) fn is_full(&self, body_bytes: usize, segment_bytes: u64) -> bool {
        let used = self.end - self.segment_start;
        used > record_bytes(Head::BYTES) && used + record_bytes(body_bytes) > segment_bytes
    }

    /// The next record goes to the next segment, which begins with `head`.
    pub(super) fn roll(&mut self, head: Head, committed: Stamp) {
        self.sequence += 1;
        self.segment_start = self.end;
        let body = Body { header: None, payload: head.encode() };
        self.push(Kind::Head, Stamp::NONE, committed, body, None);
    }

    fn take(&mut self) -> Round {
        Round { records: std::mem::take(&mut self.waiting), end: self.end, keep_from: self.keep_from }
    }

    /// Returns the record's position.
    pub(super) fn push(&mut self, kind: Kind, stamp: Stamp, committed: Stamp, body: Body, done: Option<Done>) -> u64 {
        let position = self.end;
        self.end += record_bytes(body.len());
        self.waiting.push(Record { segment: self.sequence, position, kind, stamp, committed, body, done });
        position
    }
}

impl Disk {
    pub(super) fn new(current: Arc<Segment>, durable: u64) -> Self {
        Self { current, durable, gather: Gather::default(), spare_wanted: false }
    }

    fn stage(&mut self, record: &Record, group: u32) {
        let header = Header {
            segment: record.segment,
            position: record.position,
            durable: self.durable,
            group,
            kind: record.kind,
            body_bytes: record.body.len() as u32,
            body_checksum: record.body.checksum(),
            stamp: record.stamp,
            committed: record.committed,
        };
        self.gather.push(&header.encode(), record.position, &record.body);
    }

    /// Hands all that was staged to the operating system, in one write.
    fn write_staged(&mut self) -> Result<(), StoreError> {
        let Some(position) = self.gather.start else { return Ok(()) };
        let offset = position - self.current.start;
        let written = self.current.file.write_vectored_at(&self.gather.slices(), offset);
        self.gather.clear();
        written.map_err(|error| StoreError::io("write", &self.current.path, error))
    }

    fn sync(&mut self, end: u64) -> Result<(), StoreError> {
        self.current.sync()?;
        self.durable = end;
        Ok(())
    }
}

impl Log {
    /// Starts the writer if it rests. Takes the lock, so that nothing can be queued between the look and the start.
    pub(super) fn wake(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if !state.queue.writing && !state.queue.waiting.is_empty() {
            state.queue.writing = true;
            drop(state);
            self.next_step(Self::write_step);
        }
    }

    pub(super) fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().expect("no disk work is done under this lock")
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("a panic on the Log lane ends the process")
    }

    fn next_step(self: &Arc<Self>, step: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let log = self.clone();
        drop(self.blocking.run(Lane::Log, Box::new(move || step(&log))));
    }

    fn write_step(self: &Arc<Self>) {
        let round = self.state().queue.take();
        if let Some(written) = self.write_round(round) {
            self.next_step(move |log| log.sync_step(written));
        }
    }

    fn sync_step(self: &Arc<Self>, written: Written) {
        let began = Instant::now();
        let synced = if planted::is(Bug::AckBeforeSync) { Ok(()) } else { self.disk().sync(written.end) };
        self.sync_times.record(began.elapsed());
        if let Err(error) = synced {
            return self.stop(written.dones, error);
        }
        self.state().queue.durable = written.end;
        written.dones.into_iter().for_each(|done| done.io_completed(Ok(())));
        self.reclaim(written.keep_from);
        if self.mark() {
            let mut state = self.state();
            state.queue.writing = false;
            self.wake(state);
        }
    }

    /// Writes down how far the stream is durable, unless the next record is about to say so. False if the log has stopped.
    fn mark(self: &Arc<Self>) -> bool {
        let mut state = self.state();
        if !state.queue.waiting.is_empty() || state.queue.is_full(0, self.config.segment_bytes) {
            return true;
        }
        let committed = Stamp::of(state.committed);
        state.queue.push(Kind::Mark, Stamp::NONE, committed, Body::default(), None);
        let round = state.queue.take();
        drop(state);
        self.write_round(round).is_some()
    }

    /// None if the log has stopped.
    fn write_round(self: &Arc<Self>, mut round: Round) -> Option<Written> {
        let dones = round.records.iter_mut().filter_map(|record| record.done.take()).collect();
        match self.write(&round.records) {
            Ok(()) => {
                self.state().queue.written = round.end;
                Some(Written { end: round.end, keep_from: round.keep_from, dones })
            }
            Err(error) => {
                self.stop(dones, error);
                None
            }
        }
    }

    fn write(self: &Arc<Self>, records: &[Record]) -> Result<(), StoreError> {
        let mut disk = self.disk();
        for record in records {
            if record.kind == Kind::Head {
                self.roll(&mut disk, record)?;
            }
            disk.stage(record, self.group);
        }
        let is_time = disk.durable - disk.current.start > self.config.segment_bytes / SPARE_WANTED_AT;
        if !disk.spare_wanted && is_time {
            disk.spare_wanted = true;
            self.replenish();
        }
        disk.write_staged()
    }

    /// Leaves the current segment whole and synced, and goes on in the next one.
    fn roll(self: &Arc<Self>, disk: &mut Disk, head: &Record) -> Result<(), StoreError> {
        disk.write_staged()?;
        disk.sync(head.position)?;
        let spare = self.spares().take();
        let bytes = self.config.segment_bytes;
        let next = segment::create(&*self.vfs, &self.dir, spare, head.segment, head.position, bytes)?;
        disk.current = Arc::new(next);
        disk.spare_wanted = false;
        self.state().segments.push(disk.current.clone());
        Ok(())
    }

    /// Gives up the segments that lie wholly before `keep_from`.
    pub(super) fn reclaim(self: &Arc<Self>, keep_from: u64) {
        let purged: Vec<_> = {
            let mut state = self.state();
            let later = state.segments.iter().skip(1);
            let count = later.take_while(|segment| segment.start <= keep_from).count();
            state.segments.drain(..count).collect()
        };
        if !purged.is_empty() {
            self.retire(purged);
        }
    }

    /// The end: everyone who waits is told, and the writer never starts again.
    fn stop(&self, dones: Vec<Done>, error: StoreError) {
        let cause = self.fatal.raise(error);
        let waiting = std::mem::take(&mut self.state().queue.waiting);
        let waiting = waiting.into_iter().filter_map(|record| record.done);
        dones.into_iter().chain(waiting).for_each(|done| done.io_completed(Err(io::Error::other(cause.clone()))));
    }
}

/// Records gathered for one write: small pieces copied into one buffer, large bodies where they lie.
#[derive(Default)]
struct Gather {
    /// The position of the first piece.
    start: Option<u64>,
    copied: Vec<u8>,
    pieces: Vec<Piece>,
}

enum Piece {
    Copied(Range<usize>),
    Body(Bytes),
}

impl Gather {
    fn push(&mut self, header: &[u8; HEADER_BYTES], position: u64, body: &Body) {
        self.start.get_or_insert(position);
        self.copy(header);
        self.copy(body.header());
        if body.payload.len() <= COPIED_BODY_BYTES_MAX {
            self.copy(&body.payload);
        } else {
            self.pieces.push(Piece::Body(body.payload.clone()));
        }
        let padding = record_bytes(body.len()) as usize - HEADER_BYTES - body.len();
        self.copy(&[0; ALIGNMENT as usize][..padding]);
    }

    fn copy(&mut self, bytes: &[u8]) {
        let start = self.copied.len();
        self.copied.extend_from_slice(bytes);
        match self.pieces.last_mut() {
            Some(Piece::Copied(range)) => range.end = self.copied.len(),
            _ => self.pieces.push(Piece::Copied(start..self.copied.len())),
        }
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Copied(range) => IoSlice::new(&self.copied[range.clone()]),
                Piece::Body(bytes) => IoSlice::new(bytes),
            })
            .collect()
    }

    fn clear(&mut self) {
        self.start = None;
        self.copied.clear();
        self.pieces.clear();
    }
}
