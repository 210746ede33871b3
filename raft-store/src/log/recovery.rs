//! From files to memory, at start-up: what is kept, what is cut, what is refused.
//!
//!     …06.log             07.log                                      08.log
//!     [head][..][..]      [head][entry][entry][hole][entry]  zeros    (no head: was about to be made)
//!                                             ^ cut here, if no record found behind it says that this was durable
//!
//! A crash may keep any part of what was not synced, so a hole followed by whole records is an honest torn tail: nothing
//! from the hole on was acknowledged. But each record says how far the stream was durable when it was written. If a record
//! anywhere behind the hole says that the hole was, then acknowledged data is gone, and this replica must not go on.
//!
//! A disk may also return for once what it doesn't hold. So before anything is cut, all is read and judged once more.
//!
//! Laws
//! * What was acknowledged is recovered or recovery fails; it never goes on without it.
//! * Nothing is cut that two reads don't agree on, and nothing is written back that was not checked as it was read.
//! * What was cut never comes back: the records behind a hole are overwritten before anything new is written there.
//! * What is recovered is durable before anyone builds on it.
//! * Cost is bounded by the log that was not purged.

use jangbu_ledger::planted::{self, Bug};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;

use super::{
    Log, LogSetup, State,
    cache::Cache,
    index::{Index, Slot},
    record::{ALIGNMENT, Bad, Body, Found, HEADER_BYTES, Head, Header, Kind, Stamp, parse, parse_header, record_bytes},
    segment::{self, Name, Segment, Spares},
    sync_times::SyncTimes,
    writer::{Disk, Queue},
};
use crate::{
    blocking::Blocking,
    error::{Fatal, StoreError},
    type_config::{self, Entry, LogId, Vote},
    vfs::{OpenMode, Vfs, create_dir_durable},
};

/// Blocks on a disk.
pub(super) fn open(
    setup: LogSetup,
    vfs: Arc<dyn Vfs>,
    blocking: Arc<dyn Blocking>,
    fatal: Fatal,
) -> Result<Arc<Log>, StoreError> {
    let LogSetup { dir, group, config, must_exist } = setup;
    let folder = Folder { vfs: &*vfs, dir: &dir, group };
    create_dir_durable(&*vfs, &dir).map_err(|error| StoreError::io("make the log's folder", &dir, error))?;
    let listing = folder.list()?;
    let recovered = match folder.repair(folder.scan_for_sure(&listing, must_exist)?)? {
        Some(recovered) => recovered,
        None => folder.begin(config.segment_bytes)?,
    };
    folder.remove(&listing, &recovered.segments)?;

    let last = recovered.segments.last().expect("there is a segment to write to");
    let queue = Queue::new(last, recovered.end);
    let disk = Disk::new(last.clone(), recovered.end);
    let (ready, spare_number) = folder.adopt_spares(&listing, config.spares_max)?;
    let Replay { vote, committed, index, .. } = recovered.replay;
    let keep_from = index.first_position().unwrap_or(recovered.end);
    let state = State { vote, committed, index, cache: Cache::default(), segments: recovered.segments, queue };
    let log = Arc::new(Log {
        group,
        config,
        vfs: vfs.clone(),
        blocking,
        fatal,
        state: Mutex::new(state),
        disk: Mutex::new(disk),
        spares: Mutex::new(Spares::new(ready, spare_number)),
        sync_times: SyncTimes::default(),
        dir,
    });
    log.reclaim(keep_from);
    Ok(log)
}

/// What a stopped node's log holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    pub entries: Vec<Entry>,
}

/// Reads the log of a stopped node by the rules of recovery, and changes nothing. Blocks on a disk.
pub fn inspect(vfs: &dyn Vfs, dir: &Path, group: u32) -> Result<Inspection, StoreError> {
    inspect_part(vfs, dir, group, 0..u64::MAX, usize::MAX).map(|(inspection, _)| inspection)
}

/// The same, with the entries of `wanted` alone and at most `entries_max` of them; also says which entries there are. Every record
/// is read and checked all the same. Memory: one segment, and the entries handed out.
pub fn inspect_part(
    vfs: &dyn Vfs,
    dir: &Path,
    group: u32,
    wanted: Range<u64>,
    entries_max: usize,
) -> Result<(Inspection, Range<u64>), StoreError> {
    let folder = Folder { vfs, dir, group };
    let Scan { outlines, replay: Replay { vote, committed, index, .. }, .. } = folder.scan(&folder.list()?, false)?;
    let held = index.first()..index.next_or_first();
    let mut entries = Vec::new();
    let mut indexes = (held.start.max(wanted.start)..held.end.min(wanted.end)).take(entries_max).peekable();
    for (place, outline) in outlines.iter().enumerate() {
        let end = outlines.get(place + 1).map_or(u64::MAX, Outline::start);
        if indexes.peek().is_none_or(|at| index.slot(*at).position >= end) {
            continue;
        }
        let image = folder.load(outline, Vec::new())?;
        while let Some(at) = indexes.next_if(|at| index.slot(*at).position < end) {
            let offset = index.slot(at).position - outline.start();
            let found = folder.parse(&image, offset).expect("the scan has just parsed it");
            let entry = type_config::decode_entry(Bytes::copy_from_slice(found.body()));
            entries.push(entry.map_err(|error| StoreError::damaged(&outline.path, offset, error.to_string()))?);
        }
    }
    Ok((Inspection { vote, committed, purged: index.purged(), entries }, held))
}

/// What the stream says, record by record.
#[derive(Default)]
struct Replay {
    vote: Option<Vote>,
    committed: Option<LogId>,
    index: Index,
    /// How far the stream was durable, as its records say.
    durable: u64,
}

struct Recovered {
    segments: Vec<Arc<Segment>>,
    replay: Replay,
    /// The position that the next record gets.
    end: u64,
}

/// What lies in the folder, judged.
struct Scan {
    outlines: Vec<Outline>,
    /// The newest segment, if a crash left it without a head.
    unborn: Option<Outline>,
    replay: Replay,
    end: u64,
    /// How many bytes behind the end hold records that were never acknowledged, and must not come back.
    stale: u64,
    /// Something other than zeros lies behind the end.
    torn: bool,
    /// The last bytes before the end: what no record says to be durable.
    doubtful: Vec<u8>,
}

struct Listing {
    /// Sequence numbers, ascending.
    segments: Vec<u64>,
    spares: Vec<(u64, PathBuf)>,
}

struct Folder<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    group: u32,
}

/// A segment's file, of which only the head was read.
struct Outline {
    sequence: u64,
    path: PathBuf,
    /// The position of its first byte, as its head says; none if it has no valid head.
    head: Option<u64>,
}

impl Outline {
    /// The position of its first byte.
    fn start(&self) -> u64 {
        self.head.expect("a segment without a head is dropped or refused before it is used")
    }
}

/// A segment's file, read whole; one at a time, because a log may be larger than memory.
struct Image<'a> {
    outline: &'a Outline,
    bytes: Vec<u8>,
}

/// What lies behind the first bad record of a segment.
struct Beyond {
    /// How far a record there says that the stream was durable.
    durable: u64,
    /// The offset behind the last such record.
    end: u64,
}

impl Folder<'_> {
    fn list(&self) -> Result<Listing, StoreError> {
        let paths = self.vfs.list(self.dir).map_err(|error| StoreError::io("list", self.dir, error))?;
        let mut listing = Listing { segments: Vec::new(), spares: Vec::new() };
        for path in paths {
            match Name::of(&path) {
                Name::Segment(sequence) => listing.segments.push(sequence),
                Name::Spare(number) => listing.spares.push((number, path)),
                Name::Unknown => tracing::warn!(path = %path.display(), "a stranger in the log's folder is left alone"),
            }
        }
        listing.segments.sort_unstable();
        Ok(listing)
    }

    /// As `scan`; if something would be cut, only what a second look says as well.
    fn scan_for_sure(&self, listing: &Listing, must_exist: bool) -> Result<Scan, StoreError> {
        let scan = self.scan(listing, must_exist)?;
        if scan.unborn.is_none() && !scan.torn {
            return Ok(scan);
        }
        let again = self.scan(listing, must_exist)?;
        if (again.end, again.unborn.is_some()) == (scan.end, scan.unborn.is_some()) {
            return Ok(again);
        }
        let lies =
            std::io::Error::other("the disk returned something else when it was read again; nothing was changed");
        Err(StoreError::io("read the log's tail", self.dir, lies))
    }

    /// Reads all, judges all, changes nothing.
    fn scan(&self, listing: &Listing, must_exist: bool) -> Result<Scan, StoreError> {
        let mut outlines = self.newest_run(&listing.segments)?;
        let unborn = self.split_unborn(&mut outlines, must_exist)?;
        if outlines.is_empty() && must_exist {
            return Err(StoreError::damaged(self.dir, 0, "this node's log is gone: there is no segment"));
        }
        let mut replay = Replay::default();
        let (mut end, mut stale, mut torn) = (0, 0, false);
        let mut doubtful = Vec::new();
        let mut bytes = Vec::new();
        for (place, outline) in outlines.iter().enumerate() {
            let image = self.load(outline, bytes)?;
            end = self.replay(&image, outlines.get(place + 1), place == 0, &mut replay)?;
            let offset = end - outline.start();
            stale = self.look_beyond(&image, offset).end.min(image.bytes.len() as u64).saturating_sub(offset);
            if place + 1 == outlines.len() {
                let durable = replay.durable.clamp(outline.start(), end) - outline.start();
                doubtful = image.bytes[durable as usize..offset as usize].to_vec();
                torn = image.bytes[offset as usize..].iter().any(|byte| *byte != 0);
            }
            bytes = image.bytes;
        }
        if let Some(oldest) = outlines.first() {
            self.check_beginning(oldest, &replay.index)?;
        }
        Ok(Scan { outlines, unborn, replay, end, stale, torn, doubtful })
    }

    /// Cuts what the scan says was never acknowledged. None if there has never been anything here.
    fn repair(&self, scan: Scan) -> Result<Option<Recovered>, StoreError> {
        let Scan { outlines, unborn, replay, end, stale, doubtful, .. } = scan;
        if let Some(unborn) = unborn {
            tracing::info!(path = %unborn.path.display(), "a log segment that was never synced is dropped");
            let removed = self.vfs.remove_file(&unborn.path).and_then(|()| self.vfs.sync_dir(self.dir));
            removed.map_err(|error| StoreError::io("drop an unfinished log segment", &unborn.path, error))?;
        }
        let Some(newest) = outlines.last() else { return Ok(None) };
        self.finish_tail(newest, &doubtful, end, stale)?;
        let segments = outlines.into_iter().map(|outline| self.open(outline)).collect::<Result<_, _>>()?;
        Ok(Some(Recovered { segments, replay, end }))
    }

    /// The segments that follow one another up to the newest. An older one before a gap was purged, its removal not durable;
    /// if it was needed, `check_beginning` notices.
    fn newest_run(&self, sequences: &[u64]) -> Result<Vec<Outline>, StoreError> {
        let run = sequences.chunk_by(|older, newer| older + 1 == *newer).next_back().unwrap_or_default();
        run.iter().map(|sequence| self.outline(*sequence)).collect()
    }

    fn outline(&self, sequence: u64) -> Result<Outline, StoreError> {
        let path = segment::segment_path(self.dir, sequence);
        let mut bytes = vec![0; record_bytes(Head::BYTES) as usize];
        let read = self.vfs.open(&path, OpenMode::Read).and_then(|file| file.read_at(&mut bytes, 0));
        read.map_err(|error| StoreError::io("read", &path, error))?;
        let head = claimed_position(&bytes)
            .and_then(|start| parse(&bytes, sequence, start, self.group).ok())
            .filter(|found| found.header.kind == Kind::Head);
        if let Some(Err(version)) = head.as_ref().map(|found| Head::parse(found.body())) {
            let reason =
                format!("log format {version} is not known to this version; run the one that wrote it, or a newer one");
            return Err(StoreError::Refused { path, reason });
        }
        let head = head.map(|found| found.header.position);
        Ok(Outline { sequence, path, head })
    }

    /// Into `bytes`: memory that was used before is cheaper than new memory.
    fn load<'a>(&self, outline: &'a Outline, mut bytes: Vec<u8>) -> Result<Image<'a>, StoreError> {
        let mut read = || {
            let file = self.vfs.open(&outline.path, OpenMode::Read)?;
            bytes.resize(file.len()? as usize, 0);
            file.read_at(&mut bytes, 0)
        };
        let count = read().map_err(|error| StoreError::io("read", &outline.path, error))?;
        bytes.truncate(count);
        Ok(Image { outline, bytes })
    }

    /// A crash may leave the newest segment without a head: its name was made, its first write was not yet synced. Any other
    /// segment was synced whole before the next one was made.
    fn split_unborn(&self, outlines: &mut Vec<Outline>, must_exist: bool) -> Result<Option<Outline>, StoreError> {
        let Some(place) = outlines.iter().position(|outline| outline.head.is_none()) else { return Ok(None) };
        let (older, unborn) = outlines.split_at(place);
        let beyond = self.look_beyond(&self.load(&unborn[0], Vec::new())?, 0);
        let durable_before = match older.last() {
            Some(before) => before.start() + self.first_bad(&self.load(before, Vec::new())?),
            None => 0,
        };
        let may_begin = place > 0 || (unborn[0].sequence == 1 && !must_exist);
        if unborn.len() > 1 || !may_begin || beyond.durable > durable_before {
            return Err(StoreError::damaged(&unborn[0].path, 0, "the segment's head is not readable"));
        }
        Ok(outlines.pop())
    }

    /// The offset of the first bad record.
    fn first_bad(&self, image: &Image<'_>) -> u64 {
        let mut offset = 0;
        while let Ok(found) = self.parse(image, offset) {
            offset = found.header.end() - image.outline.start();
        }
        offset
    }

    fn parse<'a>(&self, image: &'a Image<'_>, offset: u64) -> Result<Found<'a>, Bad> {
        let bytes = image.bytes.get(offset as usize..).unwrap_or_default();
        parse(bytes, image.outline.sequence, image.outline.start() + offset, self.group)
    }

    /// Replays one segment; returns the position where it ends. All but the newest must reach the `next` one's start.
    fn replay(
        &self,
        image: &Image<'_>,
        next: Option<&Outline>,
        is_first: bool,
        replay: &mut Replay,
    ) -> Result<u64, StoreError> {
        let mut offset = 0;
        let damaged = |offset, reason| Err(StoreError::damaged(&image.outline.path, offset, reason));
        loop {
            let position = image.outline.start() + offset;
            if next.is_some_and(|next| next.start() == position) {
                return Ok(position);
            }
            let bad = match self.parse(image, offset) {
                Ok(found) => {
                    if let Err(reason) = replay.take(&found, is_first && offset == 0) {
                        return damaged(offset, reason);
                    }
                    offset = found.header.end() - image.outline.start();
                    continue;
                }
                Err(bad) => bad,
            };
            return match next {
                Some(next) => damaged(offset, format!("{bad}; segment {} proves that it was durable", next.sequence)),
                None if self.look_beyond(image, offset).durable > position && !planted::is(Bug::MiddleDropped) => {
                    damaged(offset, format!("{bad}; later records prove that it was durable"))
                }
                None => Ok(position),
            };
        }
    }

    /// Whole headers of this segment's own records behind `offset`, where no record is.
    fn look_beyond(&self, image: &Image<'_>, offset: u64) -> Beyond {
        let mut beyond = Beyond { durable: 0, end: offset };
        let mut offset = offset as usize;
        while offset + HEADER_BYTES <= image.bytes.len() {
            let bytes = &image.bytes[offset..];
            let position = claimed_position(bytes).unwrap_or(u64::MAX);
            let in_place = image.outline.head.is_none_or(|start| start + offset as u64 == position);
            match parse_header(bytes, image.outline.sequence, position, self.group) {
                Ok(header) if in_place => {
                    beyond.durable = beyond.durable.max(header.durable);
                    beyond.end = beyond.end.max(offset as u64 + record_bytes(header.body_bytes as usize));
                    // A whole record's body is not searched: what a client wrote there is not ours.
                    let whole = parse(bytes, image.outline.sequence, position, self.group).is_ok();
                    offset +=
                        if whole { record_bytes(header.body_bytes as usize) as usize } else { ALIGNMENT as usize };
                }
                _ => offset += ALIGNMENT as usize,
            }
        }
        beyond
    }

    /// All entries that were not purged must be here.
    fn check_beginning(&self, first: &Outline, index: &Index) -> Result<(), StoreError> {
        let needed = index.purged().map_or(0, |purged| purged.index + 1);
        if first.sequence == 1 || index.first() <= needed {
            return Ok(());
        }
        let missing = segment::segment_path(self.dir, first.sequence - 1);
        let reason = format!("the segment is missing, and with it the entries {needed} to {}", index.first() - 1);
        Err(StoreError::damaged(missing, 0, reason))
    }

    /// Overwrites what lies behind the cut, and makes all before it durable.
    ///
    /// What is there may be readable and yet never become durable: after a sync that failed the kernel calls its pages clean,
    /// and the next sync has nothing to do. So what nothing says to be durable is written once more. Older segments were
    /// synced whole before the next was made.
    fn finish_tail(&self, newest: &Outline, doubtful: &[u8], end: u64, stale: u64) -> Result<(), StoreError> {
        let (path, offset) = (&newest.path, end - newest.start());
        let finish = || {
            let file = self.vfs.open(path, OpenMode::Write)?;
            file.write_all_at(doubtful, offset - doubtful.len() as u64)?;
            if stale > 0 {
                tracing::info!(path = %path.display(), offset, stale, "cut a torn tail: it was never acknowledged");
                file.write_all_at(&vec![0; stale as usize], offset)?;
            }
            file.sync_data()?;
            self.vfs.sync_dir(self.dir)
        };
        finish().map_err(|error| StoreError::io("finish the log's tail", path, error))
    }

    fn open(&self, outline: Outline) -> Result<Arc<Segment>, StoreError> {
        let file = self.vfs.open(&outline.path, OpenMode::Write);
        let file = file.map_err(|error| StoreError::io("open", &outline.path, error))?;
        let start = outline.start();
        Ok(Arc::new(Segment { sequence: outline.sequence, start, path: outline.path, file }))
    }

    /// The very first segment, durable when this returns.
    fn begin(&self, segment_bytes: u64) -> Result<Recovered, StoreError> {
        let segment = segment::create(self.vfs, self.dir, None, 1, 0, segment_bytes)?;
        let filled = segment::fill(&*segment.file, segment_bytes);
        filled.map_err(|error| StoreError::io("fill a log segment", &segment.path, error))?;
        let payload = Head { vote: None, purged: None, next: None }.encode();
        let body = Body { header: None, payload };
        let header = Header {
            segment: 1,
            position: 0,
            durable: 0,
            group: self.group,
            kind: Kind::Head,
            body_bytes: body.len() as u32,
            body_checksum: body.checksum(),
            stamp: Stamp::NONE,
            committed: Stamp::NONE,
        };
        let written = segment.file.write_all_at(&[&header.encode()[..], &body.payload].concat(), 0);
        written.map_err(|error| StoreError::io("write", &segment.path, error))?;
        segment.sync()?;
        Ok(Recovered { segments: vec![Arc::new(segment)], replay: Replay::default(), end: header.end() })
    }

    /// Segments that were purged long ago, but whose removal was not durable.
    fn remove(&self, listing: &Listing, kept: &[Arc<Segment>]) -> Result<(), StoreError> {
        let oldest = kept.first().map_or(0, |segment| segment.sequence);
        let stale: Vec<_> = listing.segments.iter().filter(|sequence| **sequence < oldest).collect();
        if stale.is_empty() {
            return Ok(());
        }
        let remove = || {
            stale.iter().try_for_each(|sequence| self.vfs.remove_file(&segment::segment_path(self.dir, **sequence)))?;
            self.vfs.sync_dir(self.dir)
        };
        remove().map_err(|error| StoreError::io("remove purged log segments", self.dir, error))
    }

    /// The spares to go on with, and the highest number among them.
    fn adopt_spares(&self, listing: &Listing, spares_max: usize) -> Result<(Vec<PathBuf>, u64), StoreError> {
        let number = listing.spares.iter().map(|(number, _)| *number).max().unwrap_or(0);
        let mut paths: Vec<_> = listing.spares.iter().map(|(_, path)| path.clone()).collect();
        for path in paths.drain(spares_max.min(paths.len())..) {
            self.vfs.remove_file(&path).map_err(|error| StoreError::io("remove a spare", &path, error))?;
        }
        Ok((paths, number))
    }
}

impl Replay {
    /// `Err` with what contradicts the records before.
    fn take(&mut self, found: &Found<'_>, is_first: bool) -> Result<(), String> {
        let Header { kind, stamp, position, body_bytes, committed, durable, .. } = found.header;
        self.durable = self.durable.max(durable);
        self.committed = committed.log_id().or(self.committed);
        match kind {
            Kind::Head => return self.take_head(found.body(), is_first),
            Kind::Entry => {
                let id = stamp.log_id().ok_or("an entry without a log id")?;
                self.index.check_next(id)?;
                self.index.append(id, Slot { position, body_bytes });
            }
            Kind::Vote if planted::is(Bug::VoteForgotten) => {}
            Kind::Vote => self.vote = stamp.vote(),
            Kind::Truncate => self.index.truncate_after(stamp.log_id().map(|id| id.index)),
            Kind::Purge => self.index.purge(stamp.log_id().ok_or("a purge without a log id")?),
            Kind::Mark => {}
        }
        Ok(())
    }

    fn take_head(&mut self, body: &[u8], is_first: bool) -> Result<(), String> {
        let head = Head::parse(body).expect("its version was checked when the segment was read");
        if is_first {
            self.vote = head.vote;
            self.index = Index::new(head.next, head.purged);
            return Ok(());
        }
        let here = Head { vote: self.vote, purged: self.index.purged(), next: self.index.next() };
        (head == here).then_some(()).ok_or_else(|| format!("the head says {head:?}, the records before it {here:?}"))
    }
}

/// The position that a header at the beginning of `bytes` claims, unchecked.
fn claimed_position(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(16..24)?.try_into().expect("eight bytes")))
}
