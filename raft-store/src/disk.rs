//! The state as of the last flush: what is asked when memory doesn't know.
//!
//! A `Disk` never changes; the next flush makes a new one. Whoever holds one reads a state that stays as it is.
//!
//! Laws
//! * Every read costs a number of pages that depends on the answer and, logarithmically, on history; nothing is scanned that isn't returned.
//! * What a run leads to is compared in full (id, timestamp) before it is believed.
//!
//! Not here: what happened since (`ledger`'s Books), and which of the two to ask (`state_machine.rs`, `reader.rs`).

use crate::admin::Admin;
use crate::codec;
use crate::engine::{Engine, get_sealed};
use crate::error::StoreError;
use crate::journal::{self, Page};
use crate::runs::{BURNT, Catalogue, RunKind, id_key};
use crate::schema::{self, ADMIN, CATALOGUE, EVENTS_PER_PAGE, Family, TAIL};
use crate::stamp::Stamp;
use bytes::Bytes;
use jangbu_ledger::planted::{self, Bug};
use jangbu_ledger::{Event, EventNumber, IdState, PendingState, TransferId};
use jangbu_proto::cluster::v1::AuditRecord;
use prost::Message as _;
use std::sync::Arc;

pub struct Disk {
    pub engine: Arc<dyn Engine>,
    pub stamp: Stamp,
    pub catalogue: Catalogue,
    /// The last events, fewer than a page.
    pub tail: Vec<Event>,
    /// The highest timestamp of a transfer before the tail.
    pub tail_floor: u64,
}

/// What the store has found of an id.
#[derive(Clone, Debug)]
pub enum Found {
    Event(EventNumber, Box<Event>),
    Burnt(TransferId),
}

impl Disk {
    /// What the last flush left. Costs the catalogue, and filters up to the budget.
    pub fn open(engine: Arc<dyn Engine>, filter_budget_bytes: usize) -> Result<Disk, StoreError> {
        let stamp = Stamp::read(engine.as_ref())?;
        let catalogue = match get_sealed(engine.as_ref(), Family::Meta, CATALOGUE)? {
            None => Catalogue::default(),
            Some(payload) => {
                let (next_run, infos) = Catalogue::decode(&payload)
                    .ok_or_else(|| codec::corrupt(Family::Meta, CATALOGUE, "is no catalogue"))?;
                Catalogue::open(engine.as_ref(), next_run, infos, filter_budget_bytes)?
            }
        };
        let (tail, tail_floor) = read_tail(engine.as_ref(), &stamp)?;
        Ok(Disk { engine, stamp, catalogue, tail, tail_floor })
    }

    /// The first event that is not in the journal's pages.
    fn tail_first(&self) -> EventNumber {
        tail_first(&self.stamp)
    }

    // --- the journal

    pub fn event(&self, number: EventNumber) -> Result<Event, StoreError> {
        assert!(number < self.stamp.head.next_event, "only what was flushed is asked of the disk");
        if number >= self.tail_first() {
            return Ok(self.tail[(number.0 - self.tail_first().0) as usize]);
        }
        let (page, index) = journal::place(number);
        self.page(page)?.event(index).ok_or_else(|| not_a_page(page))
    }

    /// A full page. Reads the disk.
    pub fn page(&self, page: u64) -> Result<Page, StoreError> {
        let key = schema::journal_page(page);
        let payload = get_sealed(self.engine.as_ref(), Family::Journal, &key)?
            .ok_or_else(|| StoreError::DamagedState(format!("page {page} of the journal is missing")))?;
        Page::decode(payload, EVENTS_PER_PAGE).ok_or_else(|| not_a_page(page))
    }

    /// The events of the page that holds `number`, from it on; at the end of the journal those of the tail.
    pub fn events_from(&self, number: EventNumber) -> Result<Vec<Event>, StoreError> {
        if number >= self.tail_first() {
            return Ok(self.tail[(number.0 - self.tail_first().0) as usize..].to_vec());
        }
        let (page, index) = journal::place(number);
        let mut events = self.page(page)?.events().ok_or_else(|| not_a_page(page))?;
        events.drain(..index);
        Ok(events)
    }

    /// Shows the events from `first` on to the end of what was flushed, oldest first.
    pub fn each_event_from(&self, first: EventNumber, visit: &mut dyn FnMut(&Event)) -> Result<(), StoreError> {
        let (mut page, mut skip) = journal::place(first);
        let (from, to) = (schema::journal_page(page), schema::journal_page(journal::place(self.tail_first()).0));
        self.engine.scan(Family::Journal, &from, &to, &mut |key, value| {
            let payload = codec::unseal(Family::Journal, key, value)?;
            let events = Page::decode(Bytes::copy_from_slice(payload), EVENTS_PER_PAGE);
            let events = events.and_then(|page| page.events()).filter(|_| key == schema::journal_page(page));
            events.ok_or_else(|| not_a_page(page))?[skip..].iter().for_each(&mut *visit);
            (page, skip) = (page + 1, 0);
            Ok(())
        })?;
        if journal::first_of_page(page) < self.tail_first() {
            return Err(StoreError::DamagedState(format!("page {page} of the journal is missing")));
        }
        let skip = first.0.saturating_sub(self.tail_first().0) as usize;
        self.tail[skip..].iter().for_each(visit);
        Ok(())
    }

    /// The first event whose log time is not before `timestamp`; the end of what was flushed if there is none.
    pub fn first_event_at(&self, timestamp: u64) -> Result<EventNumber, StoreError> {
        let page = self.last_page_where(|page| page.first_timestamp < timestamp)?;
        self.first_from(page, |event| event.timestamp >= timestamp)
    }

    /// The first transfer whose own timestamp is not before `timestamp`; the end of what was flushed if there is none.
    pub fn first_transfer_at(&self, timestamp: u64) -> Result<EventNumber, StoreError> {
        let page = self.last_page_where(|page| page.transfer_floor < timestamp)?;
        self.first_from(page, |event| event.kind.records_transfer() && event.transfer.timestamp >= timestamp)
    }

    pub fn has_transfer_at(&self, timestamp: u64) -> Result<bool, StoreError> {
        let number = self.first_transfer_at(timestamp)?;
        Ok(number < self.stamp.head.next_event && self.event(number)?.transfer.timestamp == timestamp)
    }

    /// `holds` is true of a first part of the pages and false of the rest. Page 0 where it holds of none.
    fn last_page_where(&self, holds: impl Fn(&Page) -> bool) -> Result<u64, StoreError> {
        let (mut low, mut high) = (0, journal::place(self.tail_first()).0);
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(&self.page(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.saturating_sub(1))
    }

    fn first_from(&self, page: u64, is_it: impl Fn(&Event) -> bool) -> Result<EventNumber, StoreError> {
        let mut number = journal::first_of_page(page);
        while number < self.stamp.head.next_event {
            for event in self.events_from(number)? {
                if is_it(&event) {
                    return Ok(number);
                }
                number.0 += 1;
            }
        }
        Ok(number)
    }

    // --- ids

    /// Of these ids those that memory alone can't rule out. Run by run, so that the processor fetches many filters' lines at once.
    pub fn suspects(&self, ids: &[TransferId]) -> Vec<TransferId> {
        let keyed: Vec<(TransferId, u64)> = ids.iter().map(|id| (*id, id_key(*id))).collect();
        let mut suspected = vec![false; ids.len()];
        for run in self.catalogue.of(RunKind::Ids) {
            for ((id, key), suspected) in keyed.iter().zip(&mut suspected) {
                *suspected |= !run.rules_out(*id, *key) && !planted::is(Bug::DedupForgetsFlushed);
            }
        }
        ids.iter().zip(suspected).filter(|(_, suspected)| *suspected).map(|(id, _)| *id).collect()
    }

    /// What the id was used for. Reads the disk.
    pub fn find_id(&self, id: TransferId) -> Result<Option<Found>, StoreError> {
        let key = id_key(id);
        let mut values = Vec::new();
        for run in self.catalogue.of(RunKind::Ids).iter().rev() {
            if run.rules_out(id, key) {
                continue;
            }
            values.clear();
            run.values(self.engine.as_ref(), key, &mut values)?;
            for value in &values {
                if let Some(found) = self.confirm(id, *value)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn confirm(&self, id: TransferId, value: u64) -> Result<Option<Found>, StoreError> {
        if value == BURNT {
            let row = get_sealed(self.engine.as_ref(), Family::Rows, &schema::burnt_row(id))?;
            return Ok(row.map(|_| Found::Burnt(id)));
        }
        let event = self.event(EventNumber(value))?;
        Ok((event.transfer.id == id).then_some(Found::Event(EventNumber(value), Box::new(event))))
    }

    pub fn id_state(&self, id: TransferId) -> Result<Option<IdState>, StoreError> {
        Ok(self.find_id(id)?.map(|found| match found {
            Found::Event(number, _) => IdState::Event(number),
            Found::Burnt(_) => IdState::Burnt,
        }))
    }

    // --- the administration

    /// As of the flush.
    pub fn admin(&self) -> Result<Admin, StoreError> {
        match get_sealed(self.engine.as_ref(), Family::Meta, ADMIN)? {
            None => Ok(Admin::default()),
            Some(payload) => {
                Admin::decode(&payload).ok_or_else(|| codec::corrupt(Family::Meta, ADMIN, "is no administration"))
            }
        }
    }

    /// Records of the audit trail from `number` on, at most `limit`. Reads the disk.
    pub fn audit(&self, number: u64, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        let mut records = Vec::new();
        for number in number.. {
            let key = schema::audit_row(number);
            let found =
                if records.len() < limit { get_sealed(self.engine.as_ref(), Family::Rows, &key)? } else { None };
            let Some(payload) = found else { break };
            let record = AuditRecord::decode(&payload[..]);
            records.push(record.map_err(|_| codec::corrupt(Family::Rows, &key, "is no record of the audit trail"))?);
        }
        Ok(records)
    }

    // --- pending transfers

    /// What had become of a pending transfer by the last flush. Reads the disk.
    pub fn pending_state(&self, pending: EventNumber) -> Result<PendingState, StoreError> {
        let mut values = Vec::new();
        for run in self.catalogue.of(RunKind::Resolutions).iter().rev() {
            if run.info.first.key <= pending.0 && pending.0 <= run.info.last.key {
                run.values(self.engine.as_ref(), pending.0, &mut values)?;
            }
            if let Some(value) = values.first() {
                let state = u8::try_from(*value).ok().and_then(PendingState::from_code);
                return state.ok_or_else(|| {
                    StoreError::DamagedState(format!("event {} is resolved to {value}, which means nothing", pending.0))
                });
            }
        }
        Ok(PendingState::Open)
    }

    /// The pending transfers that expire: when, and which.
    pub fn expiries(&self, visit: &mut dyn FnMut(u64, EventNumber)) -> Result<(), StoreError> {
        let (from, to) = schema::expiry_rows();
        self.engine.scan(Family::Rows, &from, &to, &mut |key, value| {
            codec::unseal(Family::Rows, key, value)?;
            let (at, pending) = schema::parse_expiry_row(key)
                .ok_or_else(|| codec::corrupt(Family::Rows, key, "has no key of an expiry"))?;
            visit(at, pending);
            Ok(())
        })
    }

    /// The ids that were burnt by the time of this flush. Rows are shared with later flushes, so they say which one wrote them.
    pub fn burnt_ids(&self, visit: &mut dyn FnMut(TransferId)) -> Result<(), StoreError> {
        let (from, to) = schema::burnt_rows();
        self.engine.scan(Family::Rows, &from, &to, &mut |key, value| {
            let payload = codec::unseal(Family::Rows, key, value)?;
            let row = schema::parse_burnt_row(key).zip(codec::Take::new(payload).u64());
            let (id, flushed_at) = row.ok_or_else(|| codec::corrupt(Family::Rows, key, "is no row of a burnt id"))?;
            if flushed_at <= self.stamp.applied_index() {
                visit(id);
            }
            Ok(())
        })
    }
}

fn tail_first(stamp: &Stamp) -> EventNumber {
    journal::first_of_page(journal::place(stamp.head.next_event).0)
}

fn not_a_page(page: u64) -> StoreError {
    codec::corrupt(Family::Journal, &schema::journal_page(page), "is no page of events")
}

/// The events of the tail, and the floor beneath them.
fn read_tail(engine: &dyn Engine, stamp: &Stamp) -> Result<(Vec<Event>, u64), StoreError> {
    let count = (stamp.head.next_event.0 - tail_first(stamp).0) as usize;
    if count == 0 {
        return Ok((Vec::new(), stamp.head.last_transfer_timestamp));
    }
    let damaged = || codec::corrupt(Family::Meta, TAIL, "is not the tail of this journal");
    let payload = get_sealed(engine, Family::Meta, TAIL)?.ok_or_else(damaged)?;
    let page = Page::decode(payload, count).ok_or_else(damaged)?;
    Ok((page.events().ok_or_else(damaged)?, page.transfer_floor))
}
