//! Answers from what is applied here. Every answer holds at one index, and says which.
//!
//!     read lock { what memory knows, the point, the disk beneath } -> (Read lane: the disk) -> one answer
//!
//! Accounts are all in memory. Transfers since the last flush are in memory, older ones in the journal, found by their id, by their account (runs of history), or by a scan.
//!
//! Laws
//! * Records never change once written, so an answer put together from memory and disk is that of the moment the lock was held.
//! * The lock is held for at most [`MEMORY_CHUNK`] events of a scan, or for a walk along one account's events in memory: at most those of two
//!   flush intervals, some tens of nanoseconds each.
//! * A query looks at no more than [`EXAMINED_MAX`] events; an answer that stops there says how far it got (`scanned_to`).
//!
//! Not here: whether this replica is fresh enough to be asked (`node`'s reader), and the form of answers on the wire (`proto`).

use crate::blocking::{Blocking, Lane, run_blocking};
use crate::codec;
use crate::contents::Contents;
use crate::disk::{Disk, Found};
use crate::engine::Engine;
use crate::error::{Fatal, StoreError};
use crate::runs::{Cursor, RunKind, SideKey, history_key, pair};
use crate::schema::Family;
use crate::snapshot::Snapshots;
use crate::state::{AppliedPoint, SharedState, State, StateMark};
use crate::type_config::LogId;
use jangbu_ledger::{
    Account, AccountBalance, AccountFilter, AccountFilterFlags, AccountFlags, AccountId, ChangeEventsFilter, Digest,
    Event, EventNumber, Head, IdState, QueryFilter, Side, Slot, Totals, Transfer, TransferId,
};
use jangbu_proto::cluster::v1::{AuditRecord, Token};
use jangbu_proto::convert::ChangeEvent;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one query looks at before it stops and says how far it got: about 0.1 s of work.
pub const EXAMINED_MAX: usize = 65_536;

/// Events of a scan that are looked at under one hold of the lock: some tens of microseconds.
const MEMORY_CHUNK: usize = 4_096;

/// Events of a scan that are read from disk in one piece of work: other queries wait in the same lane.
const DISK_CHUNK: usize = 4_096;

/// Accounts of a query that are looked at under one hold of the lock.
const ACCOUNTS_CHUNK: usize = 16_384;

/// Pages of a recount that are read at a time.
const RECOUNT_EVENTS: u64 = 32_768;

/// Longer than any key, and greater.
const AFTER_ALL_KEYS: &[u8] = &[0xff; 40];

/// An answer, and the index it holds at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read<T> {
    pub at: AppliedPoint,
    pub value: T,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Not 0: the scan stopped at its bound. All that matches up to this timestamp (down to it, if reversed) is among the items.
    pub scanned_to: u64,
}

impl<T> Page<T> {
    fn whole(items: Vec<T>) -> Page<T> {
        Page { items, scanned_to: 0 }
    }

    fn map<U>(self, to: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(to).collect(), scanned_to: self.scanned_to }
    }
}

/// The state, counted afresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// With the digest that was kept as entries were applied.
    pub at: AppliedPoint,
    /// From all accounts, all pages of the journal and all burnt ids.
    pub digest_recount: [u8; 16],
    pub totals: BTreeMap<u32, Totals>,
    pub accounts_over_limit: u64,
    pub accounts_count: u64,
    pub events_count: u64,
}

/// What was read and found right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    pub values_count: u64,
    pub values_bytes: u64,
}

/// Reads the state that a `StateMachine` writes. Clones are cheap.
#[derive(Clone)]
pub struct StateReader {
    shared: SharedState,
    blocking: Arc<dyn Blocking>,
    snapshots: Snapshots,
    fatal: Fatal,
}

impl StateReader {
    pub(crate) fn new(
        shared: SharedState,
        blocking: Arc<dyn Blocking>,
        snapshots: Snapshots,
        fatal: Fatal,
    ) -> StateReader {
        StateReader { shared, blocking, snapshots, fatal }
    }

    // --- where it stands

    pub fn applied(&self) -> AppliedPoint {
        self.shared.read().point()
    }

    pub fn mark(&self) -> StateMark {
        self.shared.read().mark()
    }

    pub fn head(&self) -> Head {
        self.shared.read().books.head()
    }

    pub fn accounts_count(&self) -> u64 {
        self.shared.read().books.accounts_count() as u64
    }

    /// When the next pending transfer expires, in log time.
    pub fn next_expiry(&self) -> Option<u64> {
        self.shared.read().books.next_expiry()
    }

    /// The cluster's version; entries and snapshots are of it or of an earlier one.
    pub fn version(&self) -> u32 {
        self.shared.read().admin.version()
    }

    /// A token as it is known here, whatever its state.
    pub fn token(&self, id: &str) -> Option<Token> {
        self.shared.read().admin.token(id).cloned()
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> Vec<Token> {
        self.shared.read().admin.tokens().cloned().collect()
    }

    /// When a backup was last said to have come to its end, in log time; 0: never.
    pub fn backed_up_at(&self) -> u64 {
        self.shared.read().admin.backed_up_at()
    }

    /// Records of the audit trail from `number` (from 1) on, at most `limit`; and how many there are, with the last one's hash.
    pub async fn audit(&self, number: u64, limit: usize) -> Result<(Vec<AuditRecord>, u64, [u8; 32]), StoreError> {
        let (disk, recent, count, last_hash) = {
            let state = self.shared.read();
            let recent: Vec<AuditRecord> = state.admin.recent_from(number).cloned().collect();
            (state.disk.clone(), recent, state.admin.records_count(), state.admin.last_hash())
        };
        let mut records = self.on_disk(move || disk.audit(number, limit)).await?;
        let missing = records.last().map_or(number, |record| record.number + 1);
        records.extend(recent.into_iter().filter(|record| record.number >= missing));
        records.truncate(limit);
        Ok((records, count, last_hash))
    }

    /// Of all memberships ever applied here; node ids are never used again.
    pub fn highest_node_id(&self) -> u64 {
        self.shared.read().highest_node_id
    }

    /// The digests at every 1,024th index, newest last. Those before the last start are not among them.
    pub fn digests(&self) -> Vec<(u64, [u8; 16])> {
        self.shared.read().digests()
    }

    /// The index that a restart would begin with.
    pub fn flushed_index(&self) -> u64 {
        self.shared.read().disk.stamp.applied_index()
    }

    /// All that the last flush left, to be copied out.
    pub fn contents(&self) -> Contents {
        Contents::of(self.shared.read().disk.clone())
    }

    /// Bytes in use by the state's engine: memory, and disk.
    pub fn usage(&self) -> crate::engine::Usage {
        let disk = self.shared.read().disk.clone();
        disk.engine.usage()
    }

    /// This replica differs from the others: it stops, and leaves a mark that keeps it from starting with this state again. Blocks on the disk, right
    /// here and once in a lifetime: the process may end as soon as it hears of the cause, and the mark must be there by then.
    pub fn fence(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.snapshots.leave_fence(&reason);
        self.fatal.raise(StoreError::Fenced(reason));
    }

    /// Waits until the store can't go on; for ever, if all goes well.
    pub async fn fatal(&self) -> Arc<StoreError> {
        self.fatal.raised().await
    }

    /// Whether a node was a member once and isn't any more, by what is agreed on: the log id of the membership without it.
    pub fn removed(&self, node_id: u64) -> Option<LogId> {
        let state = self.shared.read();
        let is_member = state.membership.membership().get_node(&node_id).is_some();
        // Ids only grow: one above all that were ever members is of a node that is yet to be added, as far as is known here.
        let was_member = node_id <= state.highest_node_id;
        if was_member && !is_member { *state.membership.log_id() } else { None }
    }

    // --- accounts

    /// Those that exist, in the order asked.
    pub async fn lookup_accounts(&self, ids: Vec<AccountId>) -> Result<Read<Vec<Account>>, StoreError> {
        let state = self.shared.read();
        let value = ids.iter().filter_map(|id| state.books.account(*id).copied()).collect();
        Ok(Read { at: state.point(), value })
    }

    /// Looks at all accounts, which are in memory; what is asked of them never changes, so they are found in chunks and read at once.
    pub async fn query_accounts(&self, filter: QueryFilter) -> Result<Read<Vec<Account>>, StoreError> {
        let limit = filter.limit as usize;
        let count = self.shared.read().books.accounts_count();
        let mut found: Vec<Slot> = Vec::new();
        let mut examined = 0;
        while examined < count && found.len() < limit {
            let end = (examined + ACCOUNTS_CHUNK).min(count);
            let state = self.shared.read();
            let matching = (examined..end)
                .map(|place| if filter.is_reversed() { count - 1 - place } else { place })
                .filter(|slot| filter.matches_account(&state.books.accounts()[*slot]))
                .map(|slot| Slot(slot as u32));
            found.extend(matching.take(limit - found.len()));
            examined = end;
        }
        let state = self.shared.read();
        let value = found.into_iter().map(|slot| *state.books.account_at(slot)).collect();
        Ok(Read { at: state.point(), value })
    }

    // --- transfers by id

    /// Those that exist, in the order asked.
    pub async fn lookup_transfers(&self, ids: Vec<TransferId>) -> Result<Read<Vec<Transfer>>, StoreError> {
        let (at, mut found, suspects, disk) = {
            let state = self.shared.read();
            let (found, unknown) = recent_transfers(&state, &ids);
            (state.point(), found, state.disk.suspects(&unknown), state.disk.clone())
        };
        if !suspects.is_empty() {
            let old = self.on_disk(move || {
                let mut old = BTreeMap::new();
                for id in suspects {
                    if let Some(Found::Event(_, event)) = disk.find_id(id)? {
                        old.insert(id, event.transfer);
                    }
                }
                Ok(old)
            });
            found.extend(old.await?);
        }
        let value = ids.iter().filter_map(|id| found.get(id).copied()).collect();
        Ok(Read { at, value })
    }

    // --- transfers of an account

    pub async fn get_account_transfers(&self, filter: AccountFilter) -> Result<Read<Page<Transfer>>, StoreError> {
        let read = self.account_events(filter, AccountFlags::NONE).await?;
        Ok(Read { at: read.at, value: read.value.map(|(_, event)| event.transfer) })
    }

    /// Only of an account that keeps its history.
    pub async fn get_account_balances(&self, filter: AccountFilter) -> Result<Read<Page<AccountBalance>>, StoreError> {
        let read = self.account_events(filter, AccountFlags::HISTORY).await?;
        let balance = |(slot, event): (Slot, Event)| {
            AccountBalance::after(&event, slot).expect("the event is one of this account")
        };
        Ok(Read { at: read.at, value: read.value.map(balance) })
    }

    /// The recorded transfers of an account that match, if it has the flags required.
    async fn account_events(
        &self,
        filter: AccountFilter,
        required: AccountFlags,
    ) -> Result<Read<Page<(Slot, Event)>>, StoreError> {
        let limit = filter.limit as usize;
        let (at, slot, recent, disk) = {
            let state = self.shared.read();
            let account = state
                .books
                .slot(filter.account_id)
                .filter(|slot| state.books.account_at(*slot).flags.contains(required));
            let Some(slot) = account else {
                return Ok(Read { at: state.point(), value: Page::whole(Vec::new()) });
            };
            (state.point(), slot, recent_account_events(&state, slot, &filter), state.disk.clone())
        };
        let value = if filter.is_reversed() {
            let mut page = Page::whole(recent);
            if page.items.len() < limit {
                let wanted = limit - page.items.len();
                let older = self.on_disk(move || account_events_on_disk(&disk, slot, &filter, wanted)).await?;
                page.items.extend(older.items);
                page.scanned_to = older.scanned_to;
            }
            page
        } else {
            let mut page = self.on_disk(move || account_events_on_disk(&disk, slot, &filter, limit)).await?;
            if page.scanned_to == 0 {
                page.items.extend(recent);
                page.items.truncate(limit);
            }
            page
        };
        Ok(Read { at, value: value.map(|event| (slot, event)) })
    }

    // --- transfers and events by a scan

    pub async fn query_transfers(&self, filter: QueryFilter) -> Result<Read<Page<Transfer>>, StoreError> {
        let (at, end) = {
            let state = self.shared.read();
            (state.point(), state.books.head().next_event)
        };
        let (min, max) = (filter.timestamp_min, filter.timestamp_max);
        // An imported transfer is recorded later than its own timestamp says, never earlier.
        let first = if min == 0 { EventNumber(0) } else { self.first_event_at(min, end).await? };
        let last = if max == 0 { end } else { self.first_transfer_after(max, end).await? };
        let matches = move |event: &Event| event.kind.records_transfer() && filter.matches(&event.transfer);
        let page = self.scan(first, last, filter.is_reversed(), filter.limit as usize, matches).await?;
        Ok(Read { at, value: page.map(|event| event.transfer) })
    }

    /// Oldest first.
    pub async fn change_events(&self, filter: ChangeEventsFilter) -> Result<Read<Vec<ChangeEvent>>, StoreError> {
        let (at, end) = {
            let state = self.shared.read();
            (state.point(), state.books.head().next_event)
        };
        let first = self.first_event_at(filter.timestamp_min, end).await?;
        let page =
            self.scan(first, end, false, filter.limit as usize, move |event| filter.matches(event.timestamp)).await?;
        let state = self.shared.read();
        let value = page.items.into_iter().map(|event| change_event(&state, event)).collect();
        Ok(Read { at, value })
    }

    /// Walks the events of [first, end) in either direction, from disk and from memory, until `limit` match.
    async fn scan(
        &self,
        first: EventNumber,
        end: EventNumber,
        reversed: bool,
        limit: usize,
        matches: impl Fn(&Event) -> bool + Clone + Send + 'static,
    ) -> Result<Page<Event>, StoreError> {
        let mut scan = Scan { first, end, reversed, limit, examined: 0, items: Vec::new(), last_timestamp: 0 };
        while !scan.is_done() {
            let disk = {
                let state = self.shared.read();
                if scan.next() >= state.books.recent_first() {
                    scan.step_in_memory(&state, &matches);
                    continue;
                }
                state.disk.clone()
            };
            let matches = matches.clone();
            scan = self.on_disk(move || scan.step_on_disk(&disk, matches)).await?;
        }
        let stopped_early = scan.first < scan.end && scan.items.len() < limit;
        Ok(Page { items: scan.items, scanned_to: if stopped_early { scan.last_timestamp } else { 0 } })
    }

    /// The first event at or after a log time, below `end`.
    async fn first_event_at(&self, timestamp: u64, end: EventNumber) -> Result<EventNumber, StoreError> {
        let disk = {
            let state = self.shared.read();
            let first = state.books.recent_first();
            if first < end && event_in_memory(&state, first).timestamp < timestamp {
                return Ok(first_where(first, end, |number| event_in_memory(&state, number).timestamp >= timestamp));
            }
            state.disk.clone()
        };
        self.on_disk(move || disk.first_event_at(timestamp)).await.map(|number| number.min(end))
    }

    /// A number at or below `end` such that no transfer from it on has a timestamp up to `timestamp`.
    async fn first_transfer_after(&self, timestamp: u64, end: EventNumber) -> Result<EventNumber, StoreError> {
        let disk = self.shared.read().disk.clone();
        if disk.stamp.head.last_transfer_timestamp <= timestamp {
            return Ok(end);
        }
        self.on_disk(move || disk.first_transfer_at(timestamp + 1)).await.map(|number| number.min(end))
    }

    // --- the proof

    /// Counts everything afresh, at an index or at the newest that is applied; waits for an index that is not applied yet. `None`: it has gone by.
    ///
    /// The accounts are counted between two entries, which wait for it: 20 to 30 ns an account. The journal is read beside them.
    pub async fn verify(&self, at_index: Option<u64>) -> Result<Option<VerifyReport>, StoreError> {
        let asked = self.shared.write().ask_probe(at_index);
        let Ok(probe) = asked.await else {
            return Ok(None);
        };
        let stamp = &probe.disk.stamp;
        let mut journal = probe.recent_digest;
        let mut from = 0;
        while from < stamp.head.next_event.0 {
            let to = (from + RECOUNT_EVENTS).min(stamp.head.next_event.0);
            let disk = probe.disk.clone();
            journal = journal.wrapping_add(self.on_disk(move || recount(&disk, from, to)).await?);
            from = to;
        }
        let disk = probe.disk.clone();
        let burnt = self.on_disk(move || {
            let mut sum = 0u128;
            disk.burnt_ids(&mut |id| sum = sum.wrapping_add(Digest::of_burnt(id)))?;
            Ok(sum)
        });
        // Ids burnt since the last flush are taken as they were counted: memory keeps no second list of them.
        let burnt_since =
            probe.head.digest.journal.wrapping_sub(stamp.head.digest.journal).wrapping_sub(probe.recent_digest);
        journal = journal.wrapping_add(burnt.await?).wrapping_add(burnt_since);
        Ok(Some(VerifyReport {
            at: probe.at,
            digest_recount: Digest { accounts: probe.accounts_digest, journal }.to_bytes(),
            totals: probe.totals,
            accounts_over_limit: probe.accounts_over_limit,
            accounts_count: probe.accounts_count,
            events_count: probe.head.next_event.0,
        }))
    }

    /// Reads all that was flushed and compares it with its checksums: the engine's tables, then every value with its own seal. A recount reads
    /// neither the indexes nor what no event leads to; this does. Costs two reads of the whole state, one at a time on a thread of their own.
    pub async fn scrub(&self) -> Result<Scrubbed, StoreError> {
        let disk = self.shared.read().disk.clone();
        self.in_lane(Lane::Scrub, move || scrub(&*disk.engine)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.in_lane(Lane::Read, work).await
    }

    /// Reads the disk. Damage that is met stops the replica.
    async fn in_lane<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let fatal = self.fatal.clone();
        // Raised by the lane: who asked may have gone away meanwhile.
        let work = move || work().map_err(|error| StoreError::Fenced(fatal.raise(error).to_string()));
        run_blocking(&*self.blocking, lane, work).await
    }
}

/// What memory knows of these ids, and the ids that it doesn't know.
fn recent_transfers(state: &State, ids: &[TransferId]) -> (BTreeMap<TransferId, Transfer>, Vec<TransferId>) {
    let mut found = BTreeMap::new();
    let mut unknown = Vec::new();
    for id in ids {
        match state.books.recent_id(*id) {
            Some(IdState::Event(number)) => {
                found.insert(*id, event_in_memory(state, number).transfer);
            }
            Some(IdState::Burnt) => {}
            None => unknown.push(*id),
        }
    }
    (found, unknown)
}

fn event_in_memory(state: &State, number: EventNumber) -> &Event {
    state.books.recent_event(number).expect("memory holds every event from the first it names")
}

/// The first number of [first, end) for which `is_it` holds, as it does for all after it.
fn first_where(first: EventNumber, end: EventNumber, is_it: impl Fn(EventNumber) -> bool) -> EventNumber {
    let (mut low, mut high) = (first.0, end.0);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_it(EventNumber(middle)) { high = middle } else { low = middle + 1 }
    }
    EventNumber(low)
}

/// The account's transfers in memory that match, in the order asked for, up to the limit.
fn recent_account_events(state: &State, slot: Slot, filter: &AccountFilter) -> Vec<Event> {
    let newest_first = state
        .books
        .recent_account_events_newest_first(slot)
        .map(|number| event_in_memory(state, number))
        .take_while(|event| event.timestamp >= filter.timestamp_min)
        .filter(|event| event.kind.records_transfer() && filter.matches(&event.transfer));
    let limit = filter.limit as usize;
    if filter.is_reversed() {
        return newest_first.take(limit).copied().collect();
    }
    let all: Vec<&Event> = newest_first.collect();
    all.into_iter().rev().take(limit).copied().collect()
}

/// The same on disk, by the runs of history.
fn account_events_on_disk(
    disk: &Disk,
    slot: Slot,
    filter: &AccountFilter,
    limit: usize,
) -> Result<Page<Event>, StoreError> {
    let first = if filter.timestamp_min == 0 { EventNumber(0) } else { disk.first_transfer_at(filter.timestamp_min)? };
    let end = match filter.timestamp_max {
        0 => disk.stamp.head.next_event,
        max => disk.first_transfer_at(max + 1)?,
    };
    let mut page = Page::whole(Vec::new());
    let Some(last) = end.0.checked_sub(1).filter(|last| *last >= first.0) else {
        return Ok(page);
    };
    let sides = [(AccountFilterFlags::DEBITS, SideKey::Debit), (AccountFilterFlags::CREDITS, SideKey::Credit)];
    let keys: Vec<u64> = sides
        .iter()
        .filter(|(flag, _)| filter.flags.contains(*flag))
        .map(|(_, side)| history_key(slot, *side))
        .collect();
    // A run holds consecutive events: the runs follow each other as the events do.
    let runs = disk.catalogue.of(RunKind::History);
    let mut in_order: Vec<_> = runs.iter().collect();
    if filter.is_reversed() {
        in_order.reverse();
    }
    let mut examined = 0;
    for run in in_order {
        let cursors =
            keys.iter().map(|key| Cursor::new(run.info.clone(), pair(*key, first.0), pair(*key, last))).collect();
        let mut numbers = Numbers { cursors, heads: Vec::new(), reversed: filter.is_reversed() };
        while let Some(number) = numbers.next(disk)? {
            let event = disk.event(EventNumber(number))?;
            if filter.matches(&event.transfer) {
                page.items.push(event);
                if page.items.len() == limit {
                    return Ok(page);
                }
            }
            examined += 1;
            if examined == EXAMINED_MAX {
                page.scanned_to = event.transfer.timestamp;
                return Ok(page);
            }
        }
    }
    Ok(page)
}

/// The event numbers of one or two keys of a run, merged.
struct Numbers {
    cursors: Vec<Cursor>,
    heads: Vec<Option<u64>>,
    reversed: bool,
}

impl Numbers {
    fn next(&mut self, disk: &Disk) -> Result<Option<u64>, StoreError> {
        while self.heads.len() < self.cursors.len() {
            let head = self.pull(self.heads.len(), disk)?;
            self.heads.push(head);
        }
        let present = (0..self.heads.len()).filter(|index| self.heads[*index].is_some());
        let nearest = if self.reversed {
            present.max_by_key(|index| self.heads[*index])
        } else {
            present.min_by_key(|index| self.heads[*index])
        };
        let Some(nearest) = nearest else {
            return Ok(None);
        };
        let number = self.heads[nearest];
        self.heads[nearest] = self.pull(nearest, disk)?;
        Ok(number)
    }

    fn pull(&mut self, index: usize, disk: &Disk) -> Result<Option<u64>, StoreError> {
        let cursor = &mut self.cursors[index];
        let engine = disk.engine.as_ref();
        let pair = if self.reversed { cursor.next_back(engine)? } else { cursor.next(engine)? };
        Ok(pair.map(|pair| pair.value))
    }
}

/// A scan on its way: [first, end) is left to look at.
struct Scan {
    first: EventNumber,
    end: EventNumber,
    reversed: bool,
    limit: usize,
    examined: usize,
    items: Vec<Event>,
    last_timestamp: u64,
}

impl Scan {
    fn is_done(&self) -> bool {
        self.first >= self.end || self.items.len() >= self.limit || self.examined >= EXAMINED_MAX
    }

    /// The event that is looked at next.
    fn next(&self) -> EventNumber {
        if self.reversed { EventNumber(self.end.0 - 1) } else { self.first }
    }

    fn look(&mut self, event: &Event, matches: &impl Fn(&Event) -> bool) {
        if matches(event) {
            self.items.push(*event);
        }
        // Of an expiry the transfer's timestamp says nothing about how far the scan got.
        if event.kind.records_transfer() {
            self.last_timestamp = event.transfer.timestamp;
        }
        self.examined += 1;
        if self.reversed { self.end.0 -= 1 } else { self.first.0 += 1 }
    }

    fn step_in_memory(&mut self, state: &State, matches: &impl Fn(&Event) -> bool) {
        for _ in 0..MEMORY_CHUNK {
            if self.is_done() || self.next() < state.books.recent_first() {
                return;
            }
            self.look(event_in_memory(state, self.next()), matches);
        }
    }

    /// Goes on until the disk knows no further, the scan is done, or others should have their turn.
    fn step_on_disk(mut self, disk: &Disk, matches: impl Fn(&Event) -> bool) -> Result<Scan, StoreError> {
        let turn_ends = self.examined + DISK_CHUNK;
        while !self.is_done() && self.examined < turn_ends && self.next() < disk.stamp.head.next_event {
            let next = self.next();
            let page_first = crate::journal::first_of_page(crate::journal::place(next).0);
            let from = if self.reversed { page_first } else { next };
            let mut events = disk.events_from(from)?;
            if self.reversed {
                events.truncate((next.0 - from.0 + 1) as usize);
                events.reverse();
            }
            for event in &events {
                if self.is_done() {
                    break;
                }
                self.look(event, &matches);
            }
        }
        Ok(self)
    }
}

fn change_event(state: &State, event: Event) -> ChangeEvent {
    let account_after = |side: &Side| {
        let mut account = *state.books.account_at(side.slot);
        account.set_balances(side.balances);
        account.flags = side.flags;
        account
    };
    ChangeEvent {
        timestamp: event.timestamp,
        kind: event.kind,
        transfer: event.transfer,
        debit_account: account_after(&event.debit),
        credit_account: account_after(&event.credit),
    }
}

/// Reads everything in an engine, and compares it with its checksums.
pub(crate) fn scrub(engine: &dyn Engine) -> Result<Scrubbed, StoreError> {
    engine.scrub()?;
    let mut scrubbed = Scrubbed::default();
    for family in Family::ALL {
        engine.scan(family, &[], AFTER_ALL_KEYS, &mut |key, value| {
            codec::unseal(family, key, value)?;
            scrubbed.values_count += 1;
            scrubbed.values_bytes += value.len() as u64;
            Ok(())
        })?;
    }
    Ok(scrubbed)
}

fn recount(disk: &Disk, from: u64, to: u64) -> Result<u128, StoreError> {
    let mut sum = 0u128;
    let mut number = from;
    while number < to {
        for event in disk.events_from(EventNumber(number))? {
            if number < to {
                sum = sum.wrapping_add(Digest::of_event(EventNumber(number), &event));
                number += 1;
            }
        }
    }
    Ok(sum)
}
