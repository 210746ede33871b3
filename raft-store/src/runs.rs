//! Sorted runs of pairs of numbers: the indexes of the journal.
//!
//! | kind        | key                       | value                      |
//! |-------------|---------------------------|----------------------------|
//! | ids         | hash of the transfer id   | event number, or [`BURNT`] |
//! | history     | slot, then 0 debit / 1 credit | event number           |
//! | resolutions | event number of a pending | what became of it          |
//!
//! Each flush writes one run of each kind; four runs of a level are merged into one of the next, a bounded step after each flush (`runs/merge.rs`). So there are
//! few runs, and a run covers consecutive events: those of an older run all lie before those of a newer one.
//!
//!     run     = pages of up to 512 pairs, and filters over them (ids only)
//!     page    = count, base value, then per pair: key minus the key before; value minus the value before (same key) or minus base
//!
//! Laws
//! * Pairs of a run ascend by key, then value, and are written once.
//! * A hash only narrows: whoever finds an event by it compares the full id.
//! * Memory is a few bytes per run plus filters up to a stated budget; a filter that doesn't fit is read from disk when it is asked.
//!
//! Not here: who puts what into runs (`flush.rs`), who asks (`disk.rs`).

pub mod filter;
pub mod merge;
pub mod sort;

use crate::codec::{self, Put, Take};
use crate::engine::{Batch, Engine, Row, RowRef, Rows};
use crate::error::StoreError;
use crate::schema::{self, Family, RunPart};
use filter::{Filter, KEYS_PER_PARTITION};
use jangbu_ledger::{EventNumber, Slot, TransferId};
use std::sync::{Arc, Weak};
use xxhash_rust::xxh3::xxh3_64;

/// A page of ids is then about 5 KiB, one of history 2 KiB: unpacked in a few microseconds.
const PAIRS_PER_PAGE: usize = 512;

/// What most packed pairs take at most: seven bytes of a hash, three of an event's number.
const PACKED_PAIR_BYTES: usize = 11;

/// Count and base value.
const PAGE_HEAD_BYTES_MAX: usize = 12;

/// Marks the id of a merged run.
const MERGED: u64 = 1 << 63;

/// The value of an id that is burnt.
pub const BURNT: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RunKind {
    Ids = 0,
    History = 1,
    Resolutions = 2,
}

impl RunKind {
    pub const ALL: [RunKind; 3] = [RunKind::Ids, RunKind::History, RunKind::Resolutions];

    fn from_u8(byte: u8) -> Option<RunKind> {
        RunKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Only ids are asked for that aren't there; the other keys are known to exist, or cheap to rule out by the run's bounds.
    fn has_filter(self) -> bool {
        self == RunKind::Ids
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub key: u64,
    pub value: u64,
}

pub fn pair(key: u64, value: u64) -> Pair {
    Pair { key, value }
}

/// The key of a transfer id.
pub fn id_key(id: TransferId) -> u64 {
    xxh3_64(&id.0.to_le_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SideKey {
    Debit = 0,
    Credit = 1,
}

/// The key of one side of an account.
pub fn history_key(slot: Slot, side: SideKey) -> u64 {
    u64::from(slot.0) << 1 | side as u64
}

/// What the catalogue says of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInfo {
    pub id: u64,
    pub kind: RunKind,
    /// 0: written by a flush; n + 1: merged from runs of level n.
    pub level: u8,
    pub pairs: u64,
    pub first: Pair,
    pub last: Pair,
    /// The least and the greatest transfer id: ids that grow with time are ruled out by these alone. Zero for other kinds.
    pub ids: (u128, u128),
}

/// A run and as much of its filter as memory may hold.
#[derive(Debug)]
pub struct Run {
    pub info: RunInfo,
    filters: Filters,
    /// Held by everyone who may read this run: it isn't deleted before they let go.
    in_use: Arc<()>,
}

#[derive(Debug)]
enum Filters {
    /// This kind has none.
    None,
    /// Each partition under its first key.
    Resident(Vec<(u64, Filter)>),
    OnDisk,
}

impl Run {
    /// A run that the catalogue names. Its filters are loaded if they fit into what is left of the budget.
    pub fn open(engine: &dyn Engine, info: RunInfo, budget_bytes: &mut usize) -> Result<Arc<Run>, StoreError> {
        let filters = if !info.kind.has_filter() {
            Filters::None
        } else if take_budget(&info, budget_bytes) {
            Filters::Resident(read_filters(engine, &info)?)
        } else {
            Filters::OnDisk
        };
        Ok(Arc::new(Run { info, filters, in_use: Arc::default() }))
    }

    pub fn filter_bytes(&self) -> usize {
        match &self.filters {
            Filters::Resident(partitions) => partitions.iter().map(|(_, filter)| filter.bytes()).sum(),
            Filters::None | Filters::OnDisk => 0,
        }
    }

    /// The same run without its filters in memory.
    pub fn evicted(&self) -> Arc<Run> {
        Arc::new(Run { info: self.info.clone(), filters: Filters::OnDisk, in_use: self.in_use.clone() })
    }

    /// Tells, once the catalogue has let go of it, whether someone still reads it.
    pub fn readers(&self) -> Weak<()> {
        Arc::downgrade(&self.in_use)
    }

    fn may_hold_id(&self, id: TransferId) -> bool {
        (self.info.ids.0..=self.info.ids.1).contains(&id.0)
    }

    /// Whether memory alone can say that the id isn't here.
    pub fn rules_out(&self, id: TransferId, key: u64) -> bool {
        if !self.may_hold_id(id) {
            return true;
        }
        match &self.filters {
            Filters::Resident(partitions) => {
                !partition_of(partitions, key).is_some_and(|filter| filter.may_contain(key))
            }
            Filters::None | Filters::OnDisk => false,
        }
    }

    /// Adds the values under a key, ascending. Reads the disk.
    pub fn values(&self, engine: &dyn Engine, key: u64, out: &mut Vec<u64>) -> Result<(), StoreError> {
        if matches!(self.filters, Filters::OnDisk) && !self.filter_on_disk_may_contain(engine, key)? {
            return Ok(());
        }
        let mut cursor = Cursor::new(self.info.clone(), pair(key, 0), pair(key, u64::MAX));
        while let Some(pair) = cursor.next(engine)? {
            out.push(pair.value);
        }
        Ok(())
    }

    fn filter_on_disk_may_contain(&self, engine: &dyn Engine, key: u64) -> Result<bool, StoreError> {
        let wanted = schema::run_key(self.info.id, RunPart::Filter, key, u64::MAX);
        let Some((found, value)) = engine.at_or_before(Family::Runs, &wanted)? else {
            return Ok(false);
        };
        if !schema::is_run_part(&found, self.info.id, RunPart::Filter) {
            return Ok(false);
        }
        Ok(decode_filter(&found, &value)?.may_contain(key))
    }
}

fn take_budget(info: &RunInfo, budget_bytes: &mut usize) -> bool {
    let bytes = info.pairs as usize * 2;
    let fits = bytes <= *budget_bytes;
    if fits {
        *budget_bytes -= bytes;
    }
    fits
}

/// Keys are hashes, spread evenly: the right partition is the one guessed, or next to it.
fn partition_of(partitions: &[(u64, Filter)], key: u64) -> Option<&Filter> {
    let mut place = ((u128::from(key) * partitions.len() as u128) >> 64) as usize;
    while partitions.get(place + 1).is_some_and(|(first, _)| *first <= key) {
        place += 1;
    }
    while partitions.get(place)?.0 > key {
        place = place.checked_sub(1)?;
    }
    Some(&partitions[place].1)
}

fn read_filters(engine: &dyn Engine, info: &RunInfo) -> Result<Vec<(u64, Filter)>, StoreError> {
    let mut partitions = Vec::new();
    let from = schema::run_key(info.id, RunPart::Filter, 0, 0);
    engine.scan(Family::Runs, &from, &schema::run_end(info.id), &mut |key, value| {
        let first = u64::from_be_bytes(key[9..17].try_into().expect("keys of runs have 25 bytes"));
        partitions.push((first, decode_filter(key, value)?));
        Ok(())
    })?;
    Ok(partitions)
}

fn decode_filter(key: &[u8], value: &[u8]) -> Result<Filter, StoreError> {
    let payload = codec::unseal(Family::Runs, key, value)?;
    Filter::decode(payload).ok_or_else(|| codec::corrupt(Family::Runs, key, "is no filter"))
}

// --- written

/// Writes one run, pair by pair, in ascending order.
pub struct RunWriter {
    info: RunInfo,
    page: Vec<Pair>,
    /// The keys of the partition that is being gathered.
    filter_keys: Vec<u64>,
    filters: Vec<(u64, Filter)>,
    /// How much of them memory may hold; beyond it they are read from disk when asked.
    filters_budget_bytes: usize,
}

/// Where the rows of a run go: its pages ascend, and so do its filters, which lie behind them.
pub trait RunRows {
    fn put_page(&mut self, key: &[u8], payload: Vec<u8>);
    fn put_filter(&mut self, key: &[u8], payload: Vec<u8>);
}

impl RunRows for Batch {
    fn put_page(&mut self, key: &[u8], payload: Vec<u8>) {
        self.put_sealed(Family::Runs, key, payload);
    }

    fn put_filter(&mut self, key: &[u8], payload: Vec<u8>) {
        self.put_sealed(Family::Runs, key, payload);
    }
}

impl RunWriter {
    /// `ids`: the least and the greatest transfer id that will be in it.
    pub fn new(id: u64, kind: RunKind, level: u8, ids: (u128, u128), filters_budget_bytes: usize) -> RunWriter {
        let info = RunInfo { id, kind, level, pairs: 0, first: pair(0, 0), last: pair(0, 0), ids };
        let page = Vec::with_capacity(PAIRS_PER_PAGE);
        RunWriter { info, page, filter_keys: Vec::new(), filters: Vec::new(), filters_budget_bytes }
    }

    pub fn push(&mut self, pair: Pair, rows: &mut impl RunRows) {
        if self.info.pairs == 0 {
            self.info.first = pair;
        } else {
            assert!(self.info.last <= pair, "pairs of a run ascend");
        }
        self.info.last = pair;
        self.info.pairs += 1;
        self.page.push(pair);
        if self.page.len() == PAIRS_PER_PAGE {
            self.write_page(rows);
        }
        if self.info.kind.has_filter() {
            // A key belongs to one partition, whatever the number of its values.
            if self.filter_keys.len() >= KEYS_PER_PARTITION && self.filter_keys.last() != Some(&pair.key) {
                self.write_filter(rows);
            }
            self.filter_keys.push(pair.key);
        }
    }

    /// The run, or `None` if nothing was pushed.
    pub fn finish(mut self, rows: &mut impl RunRows) -> Option<Arc<Run>> {
        if self.info.pairs == 0 {
            return None;
        }
        self.write_page(rows);
        self.write_filter(rows);
        let filters = match self.info.kind.has_filter() {
            false => Filters::None,
            true if self.filters.is_empty() => Filters::OnDisk,
            true => Filters::Resident(self.filters),
        };
        Some(Arc::new(Run { info: self.info, filters, in_use: Arc::default() }))
    }

    fn write_page(&mut self, rows: &mut impl RunRows) {
        if let Some(first) = self.page.first() {
            let key = schema::run_key(self.info.id, RunPart::Page, first.key, first.value);
            rows.put_page(&key, encode_page(&self.page));
            self.page.clear();
        }
    }

    fn write_filter(&mut self, rows: &mut impl RunRows) {
        if let Some(first) = self.filter_keys.first().copied() {
            let filter = Filter::build(&self.filter_keys);
            rows.put_filter(&schema::run_key(self.info.id, RunPart::Filter, first, 0), filter.encode());
            self.filter_keys.clear();
            self.keep_filter(first, filter);
        }
    }

    /// All of a run's filters are in memory, or none.
    fn keep_filter(&mut self, first: u64, filter: Filter) {
        match self.filters_budget_bytes.checked_sub(filter.bytes()) {
            Some(left) => {
                self.filters_budget_bytes = left;
                self.filters.push((first, filter));
            }
            None => {
                self.filters_budget_bytes = 0;
                self.filters = Vec::new();
            }
        }
    }
}

/// The first pair's key lies in the page's own key.
fn encode_page(pairs: &[Pair]) -> Vec<u8> {
    let base = pairs.iter().map(|pair| pair.value).min().expect("a page holds a pair");
    let mut out = Vec::with_capacity(pairs.len() * PACKED_PAIR_BYTES + PAGE_HEAD_BYTES_MAX + codec::SEAL_BYTES);
    out.put_varint(pairs.len() as u128);
    out.put_varint(u128::from(base));
    let mut before = pair(pairs[0].key, base);
    for pair in pairs {
        if pair.key == before.key {
            out.put_varint(0);
            out.put_varint(u128::from(pair.value - before.value));
        } else {
            out.put_varint(u128::from(pair.key - before.key));
            out.put_varint(u128::from(pair.value - base));
        }
        before = *pair;
    }
    out
}

/// Unpacks a page in place of what `pairs` held.
fn decode_page(first_key: u64, payload: &[u8], pairs: &mut Vec<Pair>) -> Option<()> {
    pairs.clear();
    let mut take = Take::new(payload);
    let count = take.varint_u32()? as usize;
    let base = take.varint_u64()?;
    if count == 0 || count > PAIRS_PER_PAGE {
        return None;
    }
    pairs.reserve(count);
    let mut before = pair(first_key, base);
    for _ in 0..count {
        let key = before.key.checked_add(take.varint_u64()?)?;
        let from = if key == before.key { before.value } else { base };
        before = pair(key, from.checked_add(take.varint_u64()?)?);
        pairs.push(before);
    }
    take.is_empty().then_some(())
}

/// Unpacks the page that `row` should be into `pairs`, and tells its first pair. A page that should be there and isn't is damage,
/// not an end.
fn read_page(run: u64, row: Option<RowRef<'_>>, pairs: &mut Vec<Pair>) -> Result<Pair, StoreError> {
    let Some((key, value)) = row.filter(|(key, _)| schema::is_run_part(key, run, RunPart::Page)) else {
        return Err(StoreError::DamagedState(format!("a page of run {run} is missing")));
    };
    let number = |at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("keys of runs have 25 bytes"));
    let first = pair(number(9), number(17));
    let payload = codec::unseal(Family::Runs, key, value)?;
    decode_page(first.key, payload, pairs).ok_or_else(|| codec::corrupt(Family::Runs, key, "is no page of a run"))?;
    Ok(first)
}

fn page_key(run: u64, first: Pair) -> [u8; schema::RUN_KEY_BYTES] {
    schema::run_key(run, RunPart::Page, first.key, first.value)
}

/// The first key that can lie behind the page that begins with `first`.
fn behind_page(run: u64, first: Pair) -> Vec<u8> {
    let mut behind = page_key(run, first).to_vec();
    behind.push(0);
    behind
}

// --- read

/// A whole run, page by page, ascending; with a rest in between, if need be.
pub struct Pages {
    info: RunInfo,
    /// The first pair of the page that was read last.
    read: Option<Pair>,
    at_end: bool,
}

impl Pages {
    pub fn of(info: RunInfo) -> Pages {
        Pages { info, read: None, at_end: false }
    }

    /// The rows of the pages that come next. Whoever holds them keeps what they lie in from being deleted.
    pub fn rows<'e>(&self, engine: &'e dyn Engine) -> Box<dyn Rows + 'e> {
        let from = match self.read {
            None => page_key(self.info.id, self.info.first).to_vec(),
            Some(first) => behind_page(self.info.id, first),
        };
        engine.rows(Family::Runs, &from, &schema::run_key(self.info.id, RunPart::Filter, 0, 0), 0)
    }

    /// Unpacks the next page, which is the next of [`Pages::rows`], in place of what `pairs` held; leaves it empty when there is none.
    /// Reads the disk.
    pub fn next(&mut self, rows: &mut dyn Rows, pairs: &mut Vec<Pair>) -> Result<(), StoreError> {
        pairs.clear();
        if !self.at_end {
            self.read = Some(read_page(self.info.id, rows.next()?, pairs)?);
            self.at_end = pairs.last() >= Some(&self.info.last);
        }
        Ok(())
    }
}

/// Walks a run's pairs within bounds, a page in memory at a time, in either direction. Each page is a read of the disk.
pub struct Cursor {
    info: RunInfo,
    from: Pair,
    to: Pair,
    page: Vec<Pair>,
    state: CursorState,
}

enum CursorState {
    /// No page was read yet.
    Start,
    /// `page[next]` comes next (ascending) or `page[next - 1]` (descending).
    Within {
        page_first: Pair,
        next: usize,
    },
    End,
}

impl Cursor {
    /// Both bounds are inclusive.
    pub fn new(info: RunInfo, from: Pair, to: Pair) -> Cursor {
        let outside = to < info.first || info.last < from || to < from;
        Cursor { info, from, to, page: Vec::new(), state: if outside { CursorState::End } else { CursorState::Start } }
    }

    /// Ascending.
    pub fn next(&mut self, engine: &dyn Engine) -> Result<Option<Pair>, StoreError> {
        loop {
            match self.state {
                CursorState::End => return Ok(None),
                CursorState::Start => {
                    // The page that begins at or before `from` holds it, unless `from` lies before the first page.
                    let from = self.from.max(self.info.first);
                    let (from_key, wanted) = (from, self.page_key(from));
                    let row = engine.at_or_before(Family::Runs, &wanted)?;
                    self.enter(row, |page| page.partition_point(|pair| *pair < from_key))?;
                }
                CursorState::Within { page_first, next } => match self.page.get(next).copied() {
                    Some(pair) if pair > self.to => self.state = CursorState::End,
                    Some(pair) => {
                        self.state = CursorState::Within { page_first, next: next + 1 };
                        return Ok(Some(pair));
                    }
                    None if self.page.last().is_none_or(|last| *last >= self.info.last.min(self.to)) => {
                        self.state = CursorState::End
                    }
                    None => {
                        let row = engine.at_or_after(Family::Runs, &behind_page(self.info.id, page_first))?;
                        self.enter(row, |_| 0)?;
                    }
                },
            }
        }
    }

    /// Descending. A cursor goes one way only.
    pub fn next_back(&mut self, engine: &dyn Engine) -> Result<Option<Pair>, StoreError> {
        loop {
            match self.state {
                CursorState::End => return Ok(None),
                CursorState::Start => {
                    let to = self.to.min(self.info.last);
                    let row = engine.at_or_before(Family::Runs, &self.page_key(to))?;
                    self.enter(row, |page| page.partition_point(|pair| *pair <= to))?;
                }
                CursorState::Within { page_first, next: 0 } => {
                    if page_first <= self.info.first.max(self.from) {
                        self.state = CursorState::End;
                        continue;
                    }
                    let before = if page_first.value > 0 {
                        pair(page_first.key, page_first.value - 1)
                    } else {
                        pair(page_first.key - 1, u64::MAX)
                    };
                    let row = engine.at_or_before(Family::Runs, &self.page_key(before))?;
                    self.enter(row, <[Pair]>::len)?;
                }
                CursorState::Within { page_first, next } => {
                    let pair = self.page[next - 1];
                    if pair < self.from {
                        self.state = CursorState::End;
                    } else {
                        self.state = CursorState::Within { page_first, next: next - 1 };
                        return Ok(Some(pair));
                    }
                }
            }
        }
    }

    fn page_key(&self, pair: Pair) -> [u8; schema::RUN_KEY_BYTES] {
        page_key(self.info.id, pair)
    }

    /// Unpacks a page and stands where `place` says.
    fn enter(&mut self, row: Option<Row>, place: impl FnOnce(&[Pair]) -> usize) -> Result<(), StoreError> {
        let row = row.as_ref().map(|(key, value)| (key.as_slice(), value.as_ref()));
        let page_first = read_page(self.info.id, row, &mut self.page)?;
        self.state = CursorState::Within { page_first, next: place(&self.page) };
        Ok(())
    }
}

// --- the catalogue

/// The runs that are valid, oldest first within each kind, and the next run's id.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    pub next_run: u64,
    pub runs: [Vec<Arc<Run>>; 3],
}

impl Catalogue {
    pub fn of(&self, kind: RunKind) -> &[Arc<Run>] {
        &self.runs[kind as usize]
    }

    pub fn of_mut(&mut self, kind: RunKind) -> &mut Vec<Arc<Run>> {
        &mut self.runs[kind as usize]
    }

    pub fn draw_run_id(&mut self) -> u64 {
        self.next_run += 1;
        self.next_run - 1
    }

    /// The id of a run that others are merged into. These lie behind all that flushes write, so that neither kind lies between the tables of the other,
    /// which would have to be written again.
    pub fn draw_merged_id(&mut self) -> u64 {
        self.draw_run_id() | MERGED
    }

    /// Draws no id again that was found on disk.
    pub fn never_draw(&mut self, id: u64) {
        self.next_run = self.next_run.max((id & !MERGED) + 1);
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.runs.iter().flatten()
    }

    /// Lets go of the oldest runs' filters until the others fit the budget.
    pub fn keep_filters_within(&mut self, budget_bytes: usize) {
        let mut left = budget_bytes;
        for run in self.of_mut(RunKind::Ids).iter_mut().rev() {
            match left.checked_sub(run.filter_bytes()) {
                Some(rest) => left = rest,
                None => *run = run.evicted(),
            }
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64(self.next_run);
        out.put_u32(self.all().count() as u32);
        for run in self.all() {
            let info = &run.info;
            out.put_u64(info.id);
            out.put_u8(info.kind as u8);
            out.put_u8(info.level);
            out.put_u64(info.pairs);
            for pair in [info.first, info.last] {
                out.put_u64(pair.key);
                out.put_u64(pair.value);
            }
            out.put_u128(info.ids.0);
            out.put_u128(info.ids.1);
        }
        out
    }

    /// The infos of all runs, and the next run's id.
    pub fn decode(payload: &[u8]) -> Option<(u64, Vec<RunInfo>)> {
        let mut take = Take::new(payload);
        let next_run = take.u64()?;
        let count = take.u32()?;
        let runs = (0..count).map(|_| take_run(&mut take)).collect::<Option<Vec<_>>>()?;
        take.is_empty().then_some((next_run, runs))
    }

    /// Opens the runs of a catalogue as it was decoded. The newest filters get the memory.
    pub fn open(
        engine: &dyn Engine,
        next_run: u64,
        infos: Vec<RunInfo>,
        mut budget_bytes: usize,
    ) -> Result<Catalogue, StoreError> {
        let mut catalogue = Catalogue { next_run, runs: Default::default() };
        for info in infos.into_iter().rev() {
            let kind = info.kind;
            let run = Run::open(engine, info, &mut budget_bytes)?;
            catalogue.of_mut(kind).push(run);
        }
        catalogue.runs.iter_mut().for_each(|runs| runs.reverse());
        Ok(catalogue)
    }
}

fn take_run(take: &mut Take<'_>) -> Option<RunInfo> {
    Some(RunInfo {
        id: take.u64()?,
        kind: RunKind::from_u8(take.u8()?)?,
        level: take.u8()?,
        pairs: take.u64()?,
        first: pair(take.u64()?, take.u64()?),
        last: pair(take.u64()?, take.u64()?),
        ids: (take.u128()?, take.u128()?),
    })
}

/// The event number that an id's value stands for.
pub fn event_of(value: u64) -> Option<EventNumber> {
    (value != BURNT).then_some(EventNumber(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineFactory;
    use crate::engine::memory::MemoryEngines;
    use crate::vfs::StdVfs;
    use std::path::Path;

    fn engine() -> Arc<dyn Engine> {
        MemoryEngines::new(Arc::new(StdVfs)).open(Path::new("/nowhere/that/exists")).unwrap()
    }

    fn write(engine: &dyn Engine, id: u64, kind: RunKind, pairs: &[Pair]) -> Arc<Run> {
        let mut batch = Batch::new();
        let mut writer = RunWriter::new(id, kind, 0, (0, u128::MAX), usize::MAX);
        pairs.iter().for_each(|pair| writer.push(*pair, &mut batch));
        let run = writer.finish(&mut batch).unwrap();
        engine.write(batch).unwrap();
        run
    }

    fn forward(engine: &dyn Engine, run: &Run, from: Pair, to: Pair) -> Vec<Pair> {
        let mut cursor = Cursor::new(run.info.clone(), from, to);
        std::iter::from_fn(|| cursor.next(engine).unwrap()).collect()
    }

    fn backward(engine: &dyn Engine, run: &Run, from: Pair, to: Pair) -> Vec<Pair> {
        let mut cursor = Cursor::new(run.info.clone(), from, to);
        let mut pairs: Vec<Pair> = std::iter::from_fn(|| cursor.next_back(engine).unwrap()).collect();
        pairs.reverse();
        pairs
    }

    #[test]
    fn any_range_of_a_run_reads_the_same_in_both_directions() {
        let engine = engine();
        let pairs: Vec<Pair> = (0..3_000).map(|n| pair(n / 7 * 3, n * 2)).collect();
        // Neighbours must not leak into the run between them.
        write(engine.as_ref(), 4, RunKind::History, &[pair(0, 0), pair(9_999, 0)]);
        let run = write(engine.as_ref(), 5, RunKind::History, &pairs);
        write(engine.as_ref(), 6, RunKind::History, &[pair(0, 0), pair(9_999, 0)]);
        for (from, to) in [(0, 10_000), (0, 0), (300, 600), (301, 302), (1_283, 1_290), (5_000, 6_000), (7, 3)] {
            let (from, to) = (pair(from, 0), pair(to, u64::MAX));
            let expected: Vec<Pair> = pairs.iter().copied().filter(|pair| (from..=to).contains(pair)).collect();
            assert_eq!(forward(engine.as_ref(), &run, from, to), expected, "{from:?} to {to:?}");
            assert_eq!(backward(engine.as_ref(), &run, from, to), expected, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn many_values_of_one_key_spread_over_pages() {
        let engine = engine();
        let pairs: Vec<Pair> = (0..2_000).map(|n| pair(8, n * 5)).collect();
        let run = write(engine.as_ref(), 0, RunKind::History, &pairs);
        assert_eq!(forward(engine.as_ref(), &run, pair(8, 3_001), pair(8, 6_000)), pairs[601..=1_200]);
        assert_eq!(backward(engine.as_ref(), &run, pair(8, 3_001), pair(8, 6_000)), pairs[601..=1_200]);
    }

    #[test]
    fn a_filter_answers_from_memory_and_from_disk_alike() {
        let engine = engine();
        let mut pairs: Vec<Pair> = (0..100_000u128).map(|n| pair(id_key(TransferId(n)), n as u64)).collect();
        pairs.sort_unstable();
        let run = write(engine.as_ref(), 0, RunKind::Ids, &pairs);
        let mut catalogue = Catalogue { next_run: 1, runs: Default::default() };
        catalogue.of_mut(RunKind::Ids).push(run.clone());
        let (next_run, infos) = Catalogue::decode(&catalogue.encode()).unwrap();
        assert_eq!(infos, std::slice::from_ref(&run.info));
        for budget in [0, 1 << 20] {
            let reopened = Catalogue::open(engine.as_ref(), next_run, infos.clone(), budget).unwrap();
            let run = &reopened.of(RunKind::Ids)[0];
            assert_eq!(run.filter_bytes() > 0, budget > 0);
            for n in (0..200_000u128).step_by(997) {
                let mut found = Vec::new();
                let key = id_key(TransferId(n));
                if !run.rules_out(TransferId(n), key) {
                    run.values(engine.as_ref(), key, &mut found).unwrap();
                }
                assert_eq!(found, if n < 100_000 { vec![n as u64] } else { vec![] });
            }
        }
    }

    #[test]
    fn filters_beyond_the_budget_are_read_from_disk() {
        let engine = engine();
        let mut keys: Vec<u64> = (0..100_000u128).map(|n| id_key(TransferId(n))).collect();
        keys.sort_unstable();
        let mut batch = Batch::new();
        let mut writer = RunWriter::new(0, RunKind::Ids, 1, (0, u128::MAX), 100_000);
        keys.iter().zip(0..).for_each(|(key, value)| writer.push(pair(*key, value), &mut batch));
        let run = writer.finish(&mut batch).unwrap();
        engine.write(batch).unwrap();
        assert_eq!(run.filter_bytes(), 0, "all or none: a part would rule out what is in the rest");
        let mut found = Vec::new();
        run.values(engine.as_ref(), keys[99_999], &mut found).unwrap();
        assert!(!run.rules_out(TransferId(5), keys[5]));
        assert_eq!(found, [99_999]);
    }

    #[test]
    fn a_burnt_ids_value_is_kept() {
        let engine = engine();
        let run = write(engine.as_ref(), 0, RunKind::Ids, &[pair(3, 7), pair(3, BURNT), pair(u64::MAX, BURNT)]);
        let mut values = Vec::new();
        run.values(engine.as_ref(), 3, &mut values).unwrap();
        run.values(engine.as_ref(), u64::MAX, &mut values).unwrap();
        assert_eq!(values, [7, BURNT, BURNT]);
    }

    #[test]
    fn a_missing_page_is_damage_and_not_an_end() {
        let engine = engine();
        let pairs: Vec<Pair> = (0..2_000).map(|n| pair(n, n)).collect();
        let run = write(engine.as_ref(), 0, RunKind::History, &pairs);
        let mut batch = Batch::new();
        batch.delete(Family::Runs, &schema::run_key(0, RunPart::Page, 1_536, 1_536));
        engine.write(batch).unwrap();
        let mut cursor = Cursor::new(run.info.clone(), pair(0, 0), pair(u64::MAX, 0));
        let end = loop {
            match cursor.next(engine.as_ref()) {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert!(end.is_err());
    }
}
