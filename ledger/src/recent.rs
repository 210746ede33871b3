//! What has happened since the last freeze, and the frozen part that is on its way to the disk.
//!
//! ```text
//! Recent  --freeze-->  Arc<Frozen>  --flush-->  the store
//! (grows)              (read only)              (immutable runs)
//! ```
//!
//! Both hold events under their numbers, a table from ids to events, and for each event the two events before it that
//! touched the same accounts, so that an account's history can be walked backwards without an index per account.
//!
//! Laws
//! * Nothing here is ever iterated in the order of a hash table.
//! * Taking back the last events (`truncate`) leaves no trace of them: not in the table, not in the lists.
//!
//! Not here: whether an event may happen (`rules/`); bytes on the disk (the store).

use alloc::vec::Vec;
use foldhash::fast::FixedState;

use crate::index::{Fragment, Index};
use crate::{Event, EventNumber, Head, IdState, PendingState, TransferId};

/// The event before, on the same account: the number plus one, and 0 for none. So "not since n" is one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link(u64);

impl Link {
    pub(crate) const NONE: Link = Link(0);

    pub(crate) fn to(number: EventNumber) -> Link {
        Link(number.0 + 1)
    }

    pub(crate) fn is_before(self, number: EventNumber) -> bool {
        self.0 <= number.0
    }

    pub(crate) fn number(self) -> Option<EventNumber> {
        self.0.checked_sub(1).map(EventNumber)
    }
}

/// Of an event: the events before it on its debit and on its credit account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) debit: Link,
    pub(crate) credit: Link,
}

/// Set: the entry is a place in the list of burnt ids. Clear: a place in the list of events.
const BURNT: u32 = 1 << 31;

fn id_at(place: u32, events: &[Event], burnt: &[TransferId]) -> TransferId {
    match place & BURNT {
        0 => events[place as usize].transfer.id,
        _ => burnt[(place & !BURNT) as usize],
    }
}

fn state_at(place: u32, first: EventNumber) -> IdState {
    match place & BURNT {
        0 => IdState::Event(EventNumber(first.0 + u64::from(place))),
        _ => IdState::Burnt,
    }
}

/// Everything since the last freeze.
pub(crate) struct Recent {
    pub(crate) first: EventNumber,
    pub(crate) events: Vec<Event>,
    pub(crate) links: Vec<Links>,
    ids: Index,
    /// The timestamps of the recorded transfers, ascending.
    transfer_timestamps: Vec<u64>,
    pub(crate) burnt: Vec<TransferId>,
    /// In log order; each pending transfer at most once.
    resolutions: Vec<(EventNumber, PendingState)>,
    resolved: hashbrown::HashMap<EventNumber, PendingState, FixedState>,
    pub(crate) expiries_added: Vec<(u64, EventNumber)>,
    pub(crate) expiries_removed: Vec<(u64, EventNumber)>,
}

/// The large lists and tables, empty: kept from one generation to the next, so that they need not grow again, page fault by page fault.
#[derive(Default)]
pub(crate) struct Buffers {
    events: Vec<Event>,
    links: Vec<Links>,
    ids: Index,
    transfer_timestamps: Vec<u64>,
}

/// How long the lists of `Recent` were at some moment.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    events: usize,
    transfer_timestamps: usize,
    burnt: usize,
    resolutions: usize,
    expiries_added: usize,
    expiries_removed: usize,
}

impl Recent {
    pub(crate) fn new(first: EventNumber, buffers: Buffers) -> Recent {
        let Buffers { events, links, ids, transfer_timestamps } = buffers;
        Recent {
            first,
            events,
            links,
            ids,
            transfer_timestamps,
            burnt: Vec::new(),
            resolutions: Vec::new(),
            resolved: hashbrown::HashMap::default(),
            expiries_added: Vec::new(),
            expiries_removed: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn find(&self, id: TransferId, fragment: Fragment) -> Option<IdState> {
        // The slices are made inside of the closure: loading a slice whose length was only just written would wait until
        // all of the last event has reached the cache, a third of the time of a transfer.
        let place = self.ids.find(fragment, |place| id_at(place, &self.events, &self.burnt) == id)?;
        Some(state_at(place, self.first))
    }

    pub(crate) fn event(&self, number: EventNumber) -> Option<(&Event, &Links)> {
        let place = usize::try_from(number.0.checked_sub(self.first.0)?).ok()?;
        Some((self.events.get(place)?, &self.links[place]))
    }

    pub(crate) fn has_transfer_timestamp(&self, timestamp: u64) -> bool {
        self.transfer_timestamps.binary_search(&timestamp).is_ok()
    }

    pub(crate) fn pending_state(&self, pending: EventNumber) -> Option<PendingState> {
        self.resolved.get(&pending).copied()
    }

    pub(crate) fn push(&mut self, event: Event, links: Links) {
        let place = self.events.len();
        assert!(place < BURNT as usize, "the store flushes long before two thousand million events");
        if event.kind.records_transfer() {
            self.transfer_timestamps.push(event.transfer.timestamp);
            self.ids.insert(Fragment::of(event.transfer.id.0), place as u32);
        }
        if let Some(state) = event.kind.resolves_to() {
            let pending = event.pending.expect("an event that resolves names what it resolves");
            self.resolutions.push((pending, state));
            let earlier = self.resolved.insert(pending, state);
            assert!(earlier.is_none(), "a pending transfer is resolved once");
        }
        self.events.push(event);
        self.links.push(links);
    }

    pub(crate) fn burn(&mut self, id: TransferId) {
        let place = self.burnt.len();
        assert!(place < BURNT as usize, "the store flushes long before two thousand million ids are burnt");
        self.burnt.push(id);
        self.ids.insert(Fragment::of(id.0), place as u32 | BURNT);
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            events: self.events.len(),
            transfer_timestamps: self.transfer_timestamps.len(),
            burnt: self.burnt.len(),
            resolutions: self.resolutions.len(),
            expiries_added: self.expiries_added.len(),
            expiries_removed: self.expiries_removed.len(),
        }
    }

    /// Takes back everything since `mark`.
    pub(crate) fn truncate(&mut self, mark: Mark) {
        assert_eq!(self.burnt.len(), mark.burnt, "a chain ends before an id of it is burnt");
        for place in mark.events..self.events.len() {
            let event = &self.events[place];
            if event.kind.records_transfer() {
                self.ids.remove(Fragment::of(event.transfer.id.0), place as u32);
            }
        }
        for (pending, _) in self.resolutions.drain(mark.resolutions..) {
            self.resolved.remove(&pending);
        }
        self.events.truncate(mark.events);
        self.links.truncate(mark.events);
        self.transfer_timestamps.truncate(mark.transfer_timestamps);
        self.expiries_added.truncate(mark.expiries_added);
        self.expiries_removed.truncate(mark.expiries_removed);
    }

    pub(crate) fn freeze(self, head: Head) -> Frozen {
        let Recent { first, expiries_added, expiries_removed, mut resolutions, resolved, .. } = self;
        // Added and removed since the last freeze: of no concern to the disk, which never saw it.
        let still_open = |(_, pending): &(u64, EventNumber)| !resolved.contains_key(pending);
        let seen_before = |(_, pending): &(u64, EventNumber)| *pending < first;
        let expiries_added = expiries_added.into_iter().filter(still_open).collect();
        let expiries_removed = expiries_removed.into_iter().filter(seen_before).collect();
        resolutions.sort_unstable_by_key(|(pending, _)| *pending);
        Frozen {
            head,
            first,
            events: self.events,
            resolutions,
            burnt: self.burnt,
            expiries_added,
            expiries_removed,
            links: self.links,
            ids: self.ids,
            transfer_timestamps: self.transfer_timestamps,
        }
    }
}

/// Everything between two freezes, for the flush: together with what was flushed before, the state at `head`. Which accounts were
/// created the store sees in `Books::accounts`; how they changed is in the events.
pub struct Frozen {
    pub head: Head,
    /// The number of `events[0]`.
    pub first: EventNumber,
    pub events: Vec<Event>,
    /// Ascending by pending event.
    pub resolutions: Vec<(EventNumber, PendingState)>,
    /// In log order.
    pub burnt: Vec<TransferId>,
    /// Net: what was added and removed in between is in neither list. In log order.
    pub expiries_added: Vec<(u64, EventNumber)>,
    pub expiries_removed: Vec<(u64, EventNumber)>,
    links: Vec<Links>,
    ids: Index,
    transfer_timestamps: Vec<u64>,
}

impl Frozen {
    pub(crate) fn into_buffers(self) -> Buffers {
        let Frozen { mut events, mut links, mut ids, mut transfer_timestamps, .. } = self;
        events.clear();
        links.clear();
        ids.clear();
        transfer_timestamps.clear();
        Buffers { events, links, ids, transfer_timestamps }
    }

    #[inline]
    pub(crate) fn find(&self, id: TransferId, fragment: Fragment) -> Option<IdState> {
        let place = self.ids.find(fragment, |place| id_at(place, &self.events, &self.burnt) == id)?;
        Some(state_at(place, self.first))
    }

    pub(crate) fn event(&self, number: EventNumber) -> Option<(&Event, &Links)> {
        let place = usize::try_from(number.0.checked_sub(self.first.0)?).ok()?;
        Some((self.events.get(place)?, &self.links[place]))
    }

    pub(crate) fn has_transfer_timestamp(&self, timestamp: u64) -> bool {
        self.transfer_timestamps.binary_search(&timestamp).is_ok()
    }

    pub(crate) fn pending_state(&self, pending: EventNumber) -> Option<PendingState> {
        let place = self.resolutions.binary_search_by_key(&pending, |(pending, _)| *pending).ok()?;
        Some(self.resolutions[place].1)
    }
}
