//! All that a settled state holds, in order, for whoever copies it out: accounts, events, and what its digest was.
//!
//! Laws
//! * Everything is of one index, that of the flush; what is applied meanwhile is in none of it.
//! * Memory holds the piece that was asked for, however large the state.
//! * Whoever has seen all of it has seen enough to count the digest afresh.
//!
//! Not here: the form that it is copied into (`ops/src/export`).

use crate::accounts;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::schema::ACCOUNTS_PER_PAGE;
use jangbu_ledger::{Account, Digest, Event, EventNumber};
use std::sync::Arc;

/// Accounts that are handed out at a time: 128 MiB. Each piece costs a walk over the events since the oldest stripe.
const ACCOUNTS_AT_ONCE: usize = (1 << 20) / ACCOUNTS_PER_PAGE * ACCOUNTS_PER_PAGE;

/// Events that are handed out at a time: 3 MiB.
const EVENTS_AT_ONCE: usize = 8_192;

/// Blocks on the disk, all of it.
#[derive(Clone)]
pub struct Contents {
    disk: Arc<Disk>,
}

impl Contents {
    pub(crate) fn of(disk: Arc<Disk>) -> Contents {
        Contents { disk }
    }

    /// Of the last entry whose effects are in it.
    pub fn log_index(&self) -> u64 {
        self.disk.stamp.applied_index()
    }

    /// Log time.
    pub fn timestamp(&self) -> u64 {
        self.disk.stamp.head.last_timestamp
    }

    /// As it was kept while entries were applied.
    pub fn digest(&self) -> Digest {
        self.disk.stamp.head.digest
    }

    pub fn accounts_count(&self) -> u64 {
        self.disk.stamp.accounts_count.into()
    }

    pub fn events_count(&self) -> u64 {
        self.disk.stamp.head.next_event.0
    }

    /// Pending transfers that are neither posted, voided nor expired.
    pub fn pendings_open(&self) -> u64 {
        self.disk.stamp.head.pendings_open
    }

    /// Those of them that would expire.
    pub fn pendings_expiring(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        self.disk.expiries(&mut |_, _| count += 1)?;
        Ok(count)
    }

    /// The accounts from a place in the order of creation on, with their balances; none at the end. `first`: a sum of what was
    /// handed out before.
    pub fn accounts(&self, first: u64) -> Result<Vec<Account>, StoreError> {
        let stamp = &self.disk.stamp;
        if first >= self.accounts_count() {
            return Ok(Vec::new());
        }
        let first = first as usize;
        let range = first..(first + ACCOUNTS_AT_ONCE).min(stamp.accounts_count as usize);
        let mut found = Vec::with_capacity(range.len());
        accounts::read(self.disk.engine.as_ref(), stamp, range.clone(), &mut |account| found.push(account))?;
        self.disk.each_event_from(accounts::carry_from(stamp), &mut |event| {
            for side in [&event.debit, &event.credit] {
                let place = (side.slot.0 as usize).checked_sub(range.start);
                if let Some(account) = place.and_then(|place| found.get_mut(place)) {
                    account.flags = side.flags;
                    account.set_balances(side.balances);
                }
            }
        })?;
        Ok(found)
    }

    /// The events from a number on; none at the end.
    pub fn events(&self, first: EventNumber) -> Result<Vec<Event>, StoreError> {
        let (end, mut next) = (self.disk.stamp.head.next_event, first);
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        while next < end && events.len() < EVENTS_AT_ONCE {
            let more = self.disk.events_from(next)?;
            next.0 += more.len() as u64;
            events.extend(more);
        }
        Ok(events)
    }

    /// What the burnt ids add to the journal's digest.
    pub fn burnt_digest(&self) -> Result<u128, StoreError> {
        let mut sum = 0u128;
        self.disk.burnt_ids(&mut |id| sum = sum.wrapping_add(Digest::of_burnt(id)))?;
        Ok(sum)
    }
}
