//! The working set: all accounts, everything since the last freeze, and what was loaded for this request.
//!
//! The store drives it, one request after the other, in log order:
//!
//! ```text
//! unresolved_ids / unresolved_timestamps / due   what can't be answered from memory
//!   -> load_*                                    the store looks it up, and loads what exists
//!   -> create_accounts / create_transfers / expire
//!   -> unload
//! freeze -> (flush) -> forget_frozen             now and then
//! ```
//!
//! Laws
//! * An answer never depends on what happens to be in memory: what is not recent, not frozen and not loaded does not exist.
//!   For that the store loads whatever it was asked for, between the question and the decision nothing is frozen or
//!   forgotten, and what was loaded is unloaded before the next question.
//! * A failed chain leaves no trace (`Savepoint`), save one burnt id.
//! * `head` and `next_expiry` are exact after each request.
//!
//! Not here: which event may happen (`rules/`); anything that waits.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::{hint::black_box, mem};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::index::{Fragment, Index};
use crate::recent::{Buffers, Link, Links, Mark, Recent};
use crate::rules::{expire, linked};
use crate::{
    Account, AccountFlags, AccountId, CreateAccountStatus, CreateResult, CreateTransferStatus, Event, EventKind,
    EventNumber, Frozen, Head, IdState, PendingState, Side, Slot, Transfer, TransferFlags, TransferId,
};

/// So many accounts are fetched before the first of them is worked on: enough that the processor waits for many of them at
/// once instead of for one after the other, and few enough that what it has fetched is still there when its turn comes.
pub(crate) const FETCHED_AT_ONCE: usize = 64;

/// The highest timestamp: the 64th bit is left to whoever keeps timestamps.
pub const TIMESTAMP_MAX: u64 = (1 << 63) - 1;

/// The working set. See the head of this file for who calls what, and when.
pub struct Books {
    /// By slot, and so by timestamp as well.
    accounts: Vec<Account>,
    /// By slot: the last event that touched the account, wherever it lies.
    last_events: Vec<Link>,
    slots: Index,
    head: Head,
    recent: Recent,
    frozen: Option<Arc<Frozen>>,
    /// For the next generation.
    spare: Buffers,
    loaded: Loaded,
    /// Of each open pending transfer with a timeout: when it expires.
    expiries: BTreeSet<(u64, EventNumber)>,
    /// The first event of the request that is being decided.
    request_first: EventNumber,
    /// The accounts that this request touched: their hashes are out of the digest until its end.
    request_touched: Vec<Slot>,
    /// The accounts that the open chain touched, as they were before; newest last.
    undo_accounts: Vec<(Slot, Account)>,
    undo_expiries: Vec<ExpiryChange>,
    /// Is a chain open?
    undo_is_on: bool,
}

/// What the store found for this request.
#[derive(Default)]
struct Loaded {
    ids: HashMap<TransferId, IdState, FixedState>,
    transfers: HashMap<EventNumber, (Transfer, Option<PendingState>), FixedState>,
    transfer_timestamps: HashSet<u64, FixedState>,
}

/// Where to return to when a chain fails.
pub(crate) struct Savepoint {
    head: Head,
    accounts: usize,
    recent: Mark,
    request_touched: usize,
}

enum ExpiryChange {
    Added((u64, EventNumber)),
    Removed((u64, EventNumber)),
}

impl Default for Books {
    fn default() -> Books {
        Books::new()
    }
}

/// Start-up, by the store.
impl Books {
    pub fn new() -> Books {
        Books {
            accounts: Vec::new(),
            last_events: Vec::new(),
            slots: Index::default(),
            head: Head::START,
            recent: Recent::new(EventNumber(0), Buffers::default()),
            frozen: None,
            spare: Buffers::default(),
            loaded: Loaded::default(),
            expiries: BTreeSet::new(),
            request_first: EventNumber(0),
            request_touched: Vec::new(),
            undo_accounts: Vec::new(),
            undo_expiries: Vec::new(),
            undo_is_on: false,
        }
    }

    /// Empty ones that can take so many accounts without growing.
    pub fn with_room_for(accounts: usize) -> Books {
        let mut books = Books::new();
        books.accounts.reserve_exact(accounts);
        books.last_events.reserve_exact(accounts);
        books.slots.reserve(accounts);
        books
    }

    /// In the order of slots.
    pub fn restore_account(&mut self, account: Account) {
        self.insert_account(account);
    }

    /// Rolls an account forward to what it was right after a later event. The digest of the head knows of it already.
    pub fn restore_side(&mut self, side: &Side) {
        let account = &mut self.accounts[side.slot.index()];
        account.flags = side.flags;
        account.set_balances(side.balances);
    }

    pub fn restore_expiry(&mut self, expires_at: u64, pending: EventNumber) {
        let new = self.expiries.insert((expires_at, pending));
        assert!(new, "a pending transfer expires once");
    }

    /// Last of the restoring calls.
    pub fn restore_head(&mut self, head: Head) {
        assert!(self.recent.events.is_empty() && self.frozen.is_none(), "books are restored before anything happens");
        let last_account = self.accounts.last().map_or(0, |account| account.timestamp);
        assert_eq!(head.last_account_timestamp, last_account, "the accounts restored are those of the head");
        self.recent = Recent::new(head.next_event, Buffers::default());
        self.head = head;
    }

    pub fn head(&self) -> Head {
        self.head.clone()
    }
}

/// Load: what memory can't answer.
impl Books {
    /// The transfer ids of these events, their own and those of the pending transfers they name, that memory doesn't know.
    pub fn unresolved_ids(&self, events: &[Transfer], out: &mut Vec<TransferId>) {
        for event in events {
            self.push_unresolved(event.id, out);
            if event.flags.intersects(RESOLVING) {
                self.push_unresolved(event.pending_id, out);
            }
        }
    }

    fn push_unresolved(&self, id: TransferId, out: &mut Vec<TransferId>) {
        if id != TransferId::ZERO && id != TransferId::MAX && self.recent_id(id).is_none() {
            out.push(id);
        }
    }

    /// The timestamps of these imported accounts of which memory can't tell whether a transfer has them.
    pub fn unresolved_timestamps(&self, events: &[Account], out: &mut Vec<u64>) {
        for event in events {
            let imported = event.flags.contains(AccountFlags::IMPORTED);
            // Above the last transfer's there is none; and what does not advance the accounts is refused before anyone asks.
            let in_doubt = self.head.last_account_timestamp < event.timestamp
                && event.timestamp <= self.head.last_transfer_timestamp;
            if imported && in_doubt && !self.has_recent_transfer_timestamp(event.timestamp) {
                out.push(event.timestamp);
            }
        }
    }

    /// The pending transfers that `expire(now, limit)` would expire, in order. Those before `recent_first` must be loaded.
    pub fn due(&self, now: u64, limit: usize, out: &mut Vec<EventNumber>) {
        out.extend(self.due_expiries(now).take(limit).map(|(_, pending)| *pending));
    }

    fn due_expiries(&self, now: u64) -> impl Iterator<Item = &(u64, EventNumber)> {
        self.expiries.range(..=(now, EventNumber(u64::MAX)))
    }

    /// `state`: of a pending transfer what has become of it, otherwise `None`.
    pub fn load_transfer(&mut self, number: EventNumber, transfer: Transfer, state: Option<PendingState>) {
        assert_eq!(
            transfer.flags.contains(TransferFlags::PENDING),
            state.is_some(),
            "a pending transfer has a state, no other has"
        );
        assert!(number < self.recent_first(), "what is in memory is not loaded");
        self.loaded.ids.insert(transfer.id, IdState::Event(number));
        self.loaded.transfers.insert(number, (transfer, state));
    }

    pub fn load_burnt(&mut self, id: TransferId) {
        self.loaded.ids.insert(id, IdState::Burnt);
    }

    /// There is a transfer with this timestamp.
    pub fn load_transfer_timestamp(&mut self, timestamp: u64) {
        self.loaded.transfer_timestamps.insert(timestamp);
    }

    pub fn unload(&mut self) {
        self.loaded.ids.clear();
        self.loaded.transfers.clear();
        self.loaded.transfer_timestamps.clear();
    }
}

/// Decide. One request after the other.
impl Books {
    /// Event i of n gets `time` - n + i + 1. One result per event is added to `results`, in order.
    pub fn create_accounts(
        &mut self,
        time: u64,
        events: &[Account],
        results: &mut Vec<CreateResult<CreateAccountStatus>>,
    ) {
        self.begin_request(time, events.len());
        linked::run(self, time, events, results);
        self.end_request(time);
    }

    /// Event i of n gets `time` - n + i + 1. One result per event is added to `results`, in order.
    pub fn create_transfers(
        &mut self,
        time: u64,
        events: &[Transfer],
        results: &mut Vec<CreateResult<CreateTransferStatus>>,
    ) {
        self.begin_request(time, events.len());
        linked::run(self, time, events, results);
        self.end_request(time);
    }

    /// The pulse: expires what is due at `time`, at most `limit`, in the order of expiry, then creation. Tells how many
    /// it were; event j of k gets `time` - k + j + 1.
    pub fn expire(&mut self, time: u64, limit: usize) -> usize {
        let due: Vec<EventNumber> = self.due_expiries(time).take(limit).map(|(_, pending)| *pending).collect();
        self.begin_request(time, due.len());
        for (index, pending) in due.iter().enumerate() {
            expire::expire(self, *pending, event_time(time, due.len(), index));
        }
        self.end_request(time);
        due.len()
    }

    /// When the next pending transfer expires.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiries.first().map(|(expires_at, _)| *expires_at)
    }

    /// Log time moves on though nothing happened.
    pub fn advance(&mut self, time: u64) {
        assert!(time <= TIMESTAMP_MAX, "log time fits in 63 bits");
        self.head.last_timestamp = self.head.last_timestamp.max(time);
    }
}

/// Look.
impl Books {
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.slot(id).map(|slot| self.account_at(slot))
    }

    #[inline]
    pub fn slot(&self, id: AccountId) -> Option<Slot> {
        let found = self.slots.find(Fragment::of(id.0), |slot| self.accounts[slot as usize].id == id);
        found.map(Slot)
    }

    pub fn account_at(&self, slot: Slot) -> &Account {
        &self.accounts[slot.index()]
    }

    pub fn accounts_count(&self) -> usize {
        self.accounts.len()
    }

    /// In the order of slots, which is that of timestamps.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// What is known of an id from what is recent or frozen.
    pub fn recent_id(&self, id: TransferId) -> Option<IdState> {
        let fragment = Fragment::of(id.0);
        self.recent.find(id, fragment).or_else(|| self.frozen.as_ref()?.find(id, fragment))
    }

    /// An event that is recent or frozen.
    pub fn recent_event(&self, number: EventNumber) -> Option<&Event> {
        self.recent_event_and_links(number).map(|(event, _)| event)
    }

    fn recent_event_and_links(&self, number: EventNumber) -> Option<(&Event, &Links)> {
        self.recent.event(number).or_else(|| self.frozen.as_ref()?.event(number))
    }

    /// The oldest event in memory, recent or frozen; the next event where there is none.
    pub fn recent_first(&self) -> EventNumber {
        self.frozen.as_ref().map_or(self.recent.first, |frozen| frozen.first)
    }

    /// The events in memory that touched an account, oldest first. Costs as much as there are; to take a few of the newest use
    /// `recent_account_events_newest_first`.
    pub fn recent_account_events(
        &self,
        slot: Slot,
    ) -> impl DoubleEndedIterator<Item = EventNumber> + ExactSizeIterator + use<> {
        let newest_first: Vec<EventNumber> = self.recent_account_events_newest_first(slot).collect();
        newest_first.into_iter().rev()
    }

    /// The events in memory that touched an account, newest first: a walk along their links, each step when it is asked for.
    pub fn recent_account_events_newest_first(&self, slot: Slot) -> impl Iterator<Item = EventNumber> + '_ {
        let mut link = self.last_events.get(slot.index()).copied().unwrap_or(Link::NONE);
        core::iter::from_fn(move || {
            let number = link.number()?;
            let (event, links) = self.recent_event_and_links(number)?;
            link = if event.debit.slot == slot { links.debit } else { links.credit };
            Some(number)
        })
    }

    /// What has become of a pending transfer, if that is known from memory: it was resolved since the last flush, or is
    /// itself in memory.
    pub fn recent_pending_state(&self, pending: EventNumber) -> Option<PendingState> {
        let resolved = self.recent.pending_state(pending).or_else(|| self.frozen.as_ref()?.pending_state(pending));
        resolved.or_else(|| {
            let event = self.recent_event(pending)?;
            (event.kind == EventKind::Pending).then_some(PendingState::Open)
        })
    }
}

/// Freeze: hand over to the store.
impl Books {
    /// How many events the next freeze would hand over.
    pub fn recent_events_count(&self) -> usize {
        self.recent.events.len()
    }

    /// Hands over everything since the last freeze. Lookups go on seeing it until `forget_frozen`.
    pub fn freeze(&mut self) -> Arc<Frozen> {
        assert!(self.frozen.is_none(), "one flush after the other");
        let next = Recent::new(self.head.next_event, mem::take(&mut self.spare));
        let frozen = Arc::new(mem::replace(&mut self.recent, next).freeze(self.head.clone()));
        self.frozen = Some(Arc::clone(&frozen));
        frozen
    }

    /// What was frozen is durable and can be looked up in the store.
    pub fn forget_frozen(&mut self) {
        // Where the store still holds on to it, the next generation begins with new lists.
        if let Some(frozen) = self.frozen.take().and_then(Arc::into_inner) {
            self.spare = frozen.into_buffers();
        }
    }
}

const RESOLVING: TransferFlags = TransferFlags::POST_PENDING_TRANSFER.with(TransferFlags::VOID_PENDING_TRANSFER);

/// The time of event `index` of `count` in a request at `time`.
pub(crate) fn event_time(time: u64, count: usize, index: usize) -> u64 {
    time - (count - index - 1) as u64
}

/// What a rule has decided shall happen.
pub(crate) struct Entry {
    pub(crate) timestamp: u64,
    pub(crate) kind: EventKind,
    pub(crate) transfer: Transfer,
    pub(crate) pending: Option<EventNumber>,
    pub(crate) debit: Slot,
    pub(crate) credit: Slot,
}

/// For the rules: look.
impl Books {
    /// The slot of an account that will be needed soon; all that a decision reads of it is on its way to the cache.
    pub(crate) fn fetch(&self, id: AccountId) -> Option<Slot> {
        let slot = self.slot(id)?;
        self.fetch_account(slot);
        black_box(self.last_events[slot.index()]);
        Some(slot)
    }

    /// An account's first and last field: it takes two cache lines.
    fn fetch_account(&self, slot: Slot) {
        let account = self.account_at(slot);
        black_box((account.id, account.timestamp));
    }

    pub(crate) fn find_transfer_id(&self, id: TransferId) -> Option<IdState> {
        let found = self.recent_id(id);
        if found.is_some() || self.loaded.ids.is_empty() {
            return found;
        }
        self.loaded.ids.get(&id).copied()
    }

    pub(crate) fn transfer_at(&self, number: EventNumber) -> &Transfer {
        match self.recent_event(number) {
            Some(event) => &event.transfer,
            None => &self.loaded.transfers.get(&number).expect("the store loads what a request names").0,
        }
    }

    pub(crate) fn pending_state_at(&self, pending: EventNumber) -> PendingState {
        let loaded = || self.loaded.transfers.get(&pending).and_then(|(_, state)| *state);
        let state = self.recent_pending_state(pending).or_else(loaded);
        state.expect("a pending transfer has a state, in memory or loaded")
    }

    pub(crate) fn has_transfer_with_timestamp(&self, timestamp: u64) -> bool {
        self.has_recent_transfer_timestamp(timestamp) || self.loaded.transfer_timestamps.contains(&timestamp)
    }

    pub(crate) fn has_account_with_timestamp(&self, timestamp: u64) -> bool {
        self.accounts.binary_search_by_key(&timestamp, |account| account.timestamp).is_ok()
    }

    fn has_recent_transfer_timestamp(&self, timestamp: u64) -> bool {
        let frozen = || self.frozen.as_ref().is_some_and(|frozen| frozen.has_transfer_timestamp(timestamp));
        self.recent.has_transfer_timestamp(timestamp) || frozen()
    }

    pub(crate) fn last_account_timestamp(&self) -> u64 {
        self.head.last_account_timestamp
    }

    pub(crate) fn last_transfer_timestamp(&self) -> u64 {
        self.head.last_transfer_timestamp
    }

    fn next_slot(&self) -> Slot {
        Slot(u32::try_from(self.accounts.len()).expect("accounts are counted in 32 bits"))
    }
}

/// For the rules: write. What is decided always succeeds.
impl Books {
    fn begin_request(&mut self, time: u64, events_count: usize) {
        assert!(time <= TIMESTAMP_MAX, "log time fits in 63 bits");
        let before = time.checked_sub(events_count as u64);
        assert!(
            before.is_some_and(|before| before >= self.head.last_timestamp),
            "log time moves on by one for each event"
        );
        self.request_first = self.head.next_event;
    }

    fn end_request(&mut self, time: u64) {
        assert!(!self.undo_is_on, "each chain ends in its request");
        for slots in self.request_touched.chunks(FETCHED_AT_ONCE) {
            slots.iter().for_each(|slot| self.fetch_account(*slot));
            slots.iter().for_each(|slot| self.head.digest.add_account(&self.accounts[slot.index()]));
        }
        self.request_touched.clear();
        self.head.last_timestamp = time;
    }

    pub(crate) fn create_account(&mut self, account: Account) {
        assert!(account.timestamp > self.head.last_account_timestamp, "accounts are in the order of their timestamps");
        self.insert_account(account);
        self.head.last_account_timestamp = account.timestamp;
        self.head.digest.add_account(&account);
    }

    fn insert_account(&mut self, account: Account) {
        let slot = self.next_slot();
        self.accounts.push(account);
        self.last_events.push(Link::NONE);
        self.slots.insert(Fragment::of(account.id.0), slot.0);
    }

    /// Changes the two accounts of `entry` and writes down that it happened.
    #[inline]
    pub(crate) fn record(
        &mut self,
        entry: Entry,
        change_debit: impl FnOnce(&mut Account),
        change_credit: impl FnOnce(&mut Account),
    ) {
        let number = self.head.next_event;
        let (debit, debit_link) = self.change_account(entry.debit, number, change_debit);
        let (credit, credit_link) = self.change_account(entry.credit, number, change_credit);
        let Entry { timestamp, kind, transfer, pending, .. } = entry;
        let event = Event { timestamp, kind, transfer, pending, debit, credit };
        self.keep_counts(&event);
        self.head.digest.add_event(number, &event);
        self.head.next_event = EventNumber(number.0 + 1);
        self.recent.push(event, Links { debit: debit_link, credit: credit_link });
    }

    fn change_account(&mut self, slot: Slot, number: EventNumber, change: impl FnOnce(&mut Account)) -> (Side, Link) {
        let account = &mut self.accounts[slot.index()];
        let last = mem::replace(&mut self.last_events[slot.index()], Link::to(number));
        if last.is_before(self.request_first) {
            self.head.digest.remove_account(account);
            self.request_touched.push(slot);
        }
        if self.undo_is_on {
            self.undo_accounts.push((slot, *account));
        }
        change(account);
        (Side { slot, flags: account.flags, balances: account.balances() }, last)
    }

    fn keep_counts(&mut self, event: &Event) {
        if event.kind.records_transfer() {
            self.head.last_transfer_timestamp = event.transfer.timestamp;
        }
        if event.kind == EventKind::Pending {
            self.head.pendings_open += 1;
            if let Some(expires_at) = event.transfer.expires_at() {
                self.add_expiry((expires_at, self.head.next_event));
            }
        }
        if let Some(pending) = event.pending {
            self.head.pendings_open -= 1;
            if let Some(expires_at) = self.transfer_at(pending).expires_at() {
                self.remove_expiry((expires_at, pending));
            }
        }
    }

    fn add_expiry(&mut self, expiry: (u64, EventNumber)) {
        self.expiries.insert(expiry);
        self.recent.expiries_added.push(expiry);
        if self.undo_is_on {
            self.undo_expiries.push(ExpiryChange::Added(expiry));
        }
    }

    fn remove_expiry(&mut self, expiry: (u64, EventNumber)) {
        let found = self.expiries.remove(&expiry);
        assert!(found, "an open pending transfer with a timeout is in the index of expiries");
        self.recent.expiries_removed.push(expiry);
        if self.undo_is_on {
            self.undo_expiries.push(ExpiryChange::Removed(expiry));
        }
    }

    /// From now on this id answers `id_already_failed`.
    pub(crate) fn burn(&mut self, id: TransferId) {
        self.recent.burn(id);
        self.head.digest.add_burnt(id);
    }
}

/// For the rules: chains.
impl Books {
    pub(crate) fn open_chain(&mut self) -> Savepoint {
        assert!(!self.undo_is_on, "chains follow each other");
        self.undo_is_on = true;
        Savepoint {
            head: self.head.clone(),
            accounts: self.accounts.len(),
            recent: self.recent.mark(),
            request_touched: self.request_touched.len(),
        }
    }

    /// The chain has succeeded.
    pub(crate) fn keep_chain(&mut self) {
        self.undo_is_on = false;
        self.undo_accounts.clear();
        self.undo_expiries.clear();
    }

    /// The chain has failed: everything is as it was at the savepoint.
    pub(crate) fn undo_chain(&mut self, savepoint: Savepoint) {
        self.undo_is_on = false;
        self.undo_events(&savepoint);
        self.undo_account_creations(savepoint.accounts);
        while let Some(change) = self.undo_expiries.pop() {
            match change {
                ExpiryChange::Added(expiry) => self.expiries.remove(&expiry),
                ExpiryChange::Removed(expiry) => self.expiries.insert(expiry),
            };
        }
        self.request_touched.truncate(savepoint.request_touched);
        self.head = savepoint.head;
    }

    fn undo_events(&mut self, savepoint: &Savepoint) {
        while let Some((slot, account)) = self.undo_accounts.pop() {
            self.accounts[slot.index()] = account;
        }
        let first = savepoint.head.next_event.0;
        for number in (first..self.head.next_event.0).rev() {
            let (event, links) = self.recent.event(EventNumber(number)).expect("a chain's events are recent");
            self.last_events[event.debit.slot.index()] = links.debit;
            self.last_events[event.credit.slot.index()] = links.credit;
        }
        self.recent.truncate(savepoint.recent);
    }

    fn undo_account_creations(&mut self, count: usize) {
        for slot in count..self.accounts.len() {
            self.slots.remove(Fragment::of(self.accounts[slot].id.0), slot as u32);
        }
        self.accounts.truncate(count);
        self.last_events.truncate(count);
    }
}
