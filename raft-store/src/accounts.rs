//! Accounts on disk: pages of 32 records, written a stripe at a time.
//!
//! All accounts live in memory. Writing every account that a flush interval touched would, with millions of them, cost more than everything else together
//! (docs/decisions/0003). So each flush writes one contiguous stripe in turn, and the pages of accounts that are new; a restart reads all pages and then carries the balances
//! forward over the events since the oldest stripe, each of which says what its two accounts were after it.
//!
//! Laws
//! * For each account: the page on disk is that of its stripe's stamp or later, and every event from that stamp on is in the journal. The last event wins.
//! * The oldest stripe is at most [`STRIPE_AGE_FLUSHES_MAX`] flushes old. With up to [`ACCOUNTS_PER_STRIPE`] accounts there is one stripe, written by every flush.
//!
//! Not here: the accounts themselves (`ledger`'s Books).

use crate::codec::{self, SEAL_BYTES};
use crate::engine::Engine;
use crate::error::StoreError;
use crate::schema::{self, ACCOUNTS_PER_PAGE, Family};
use crate::stamp::Stamp;
use jangbu_ledger::{Account, EventNumber};
use std::ops::Range;

/// 16 MiB: a few milliseconds to copy at the freeze, and little beside the 30 MiB of a full flush.
pub const ACCOUNTS_PER_STRIPE: usize = 131_072;

/// Bounds what a restart carries forward: this many flush intervals of events.
pub const STRIPE_AGE_FLUSHES_MAX: usize = 32;

/// Which accounts a flush writes, and the stripes' stamps after it.
pub struct Plan {
    /// Ranges of slots, each beginning on a page's border.
    pub ranges: Vec<Range<usize>>,
    pub stripes: Vec<EventNumber>,
}

/// `before`: what the last flush left. `count`: accounts there are now. `next_event`: events below it are in the accounts as they are now.
pub fn plan(before: &Stamp, count: usize, next_event: EventNumber) -> Plan {
    plan_of(before, count, next_event, ACCOUNTS_PER_STRIPE)
}

fn plan_of(before: &Stamp, count: usize, next_event: EventNumber, per_stripe: usize) -> Plan {
    let mut stripes = before.stripes.clone();
    let oldest = (0..stripes.len()).min_by_key(|stripe| (stripes[*stripe], *stripe));
    // Stripes that are new are written whole, as all of their accounts are new.
    stripes.resize(count.div_ceil(per_stripe), next_event);
    let turn = oldest.map_or(0..0, |oldest| turn_of(oldest, stripes.len()));
    stripes[turn.clone()].fill(next_event);

    let mut ranges: Vec<Range<usize>> = turn.map(|stripe| of_stripe(stripe, count, per_stripe)).collect();
    let known = before.accounts_count as usize;
    if count > known {
        let first_new_page = known / ACCOUNTS_PER_PAGE * ACCOUNTS_PER_PAGE;
        for stripe in first_new_page / per_stripe..stripes.len() {
            let whole = of_stripe(stripe, count, per_stripe);
            if !ranges.contains(&whole) {
                ranges.push(whole.start.max(first_new_page)..whole.end);
            }
        }
    }
    ranges.sort_by_key(|range| range.start);
    Plan { ranges, stripes }
}

/// The stripes that are written together with one of `count`, so that there are no more turns than flushes in which each must have had its own.
/// They lie side by side: what a flush writes here is a small part of the table, and only that part is compacted.
fn turn_of(stripe: usize, count: usize) -> Range<usize> {
    let together = count.div_ceil(STRIPE_AGE_FLUSHES_MAX);
    let first = stripe / together * together;
    first..(first + together).min(count)
}

fn of_stripe(stripe: usize, count: usize, per_stripe: usize) -> Range<usize> {
    stripe * per_stripe..((stripe + 1) * per_stripe).min(count)
}

/// The pages of consecutive accounts, each with its number; `first` lies on a page's border.
pub fn pages(first: usize, accounts: &[Account]) -> impl Iterator<Item = (u32, Vec<u8>)> {
    assert_eq!(first % ACCOUNTS_PER_PAGE, 0, "what is written begins with a page");
    accounts.chunks(ACCOUNTS_PER_PAGE).zip(first / ACCOUNTS_PER_PAGE..).map(|(accounts, number)| {
        let mut payload = Vec::with_capacity(accounts.len() * Account::BYTES + SEAL_BYTES);
        for account in accounts {
            let mut record = [0; Account::BYTES];
            account.encode(&mut record);
            payload.extend_from_slice(&record);
        }
        (number as u32, payload)
    })
}

/// Shows the accounts of a range of slots in order, as their pages have them. The range begins on a page's border.
pub fn read(
    engine: &dyn Engine,
    stamp: &Stamp,
    slots: Range<usize>,
    visit: &mut dyn FnMut(Account),
) -> Result<(), StoreError> {
    assert_eq!(slots.start % ACCOUNTS_PER_PAGE, 0, "what is read begins with a page");
    let end = slots.end.min(stamp.accounts_count as usize);
    let (from, to) = (slots.start / ACCOUNTS_PER_PAGE, end.div_ceil(ACCOUNTS_PER_PAGE));
    let (from, to) = (schema::accounts_page(from as u32), schema::accounts_page(to as u32));
    let mut seen = slots.start;
    engine.scan(Family::Accounts, &from, &to, &mut |key, value| {
        let payload = codec::unseal(Family::Accounts, key, value)?;
        let (records, rest) = payload.as_chunks::<{ Account::BYTES }>();
        if key != schema::accounts_page((seen / ACCOUNTS_PER_PAGE) as u32) || !rest.is_empty() {
            return Err(codec::corrupt(Family::Accounts, key, "is not the page that comes next"));
        }
        for record in records.iter().take(end - seen) {
            visit(Account::decode(record));
            seen += 1;
        }
        Ok(())
    })?;
    if seen < end {
        return Err(StoreError::DamagedState(format!("{seen} accounts are there where {end} should be")));
    }
    Ok(())
}

/// From which event on balances are carried forward.
pub fn carry_from(stamp: &Stamp) -> EventNumber {
    stamp.stripes.iter().copied().min().unwrap_or(stamp.head.next_event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(plan: &Plan) -> usize {
        plan.ranges.iter().map(Range::len).sum()
    }

    #[test]
    fn few_accounts_are_one_stripe_and_written_by_every_flush() {
        let mut stamp = Stamp::start();
        for flush in 1..5u64 {
            let plan = plan_of(&stamp, 100, EventNumber(flush * 10), 128);
            assert_eq!(plan.ranges, vec![0..100; 1]);
            stamp = Stamp { stripes: plan.stripes, accounts_count: 100, ..stamp };
            assert_eq!(carry_from(&stamp), EventNumber(flush * 10));
        }
    }

    #[test]
    fn no_stripe_grows_older_than_its_bound_and_new_accounts_are_written_at_once() {
        let mut stamp = Stamp::start();
        let mut count = 0;
        for flush in 1..200u64 {
            let new = if flush < 100 { 37 } else { 0 };
            let before = count;
            count += new;
            let plan = plan_of(&stamp, count, EventNumber(flush * 10), 64);
            assert!(plan.ranges.iter().all(|range| range.start % ACCOUNTS_PER_PAGE == 0));
            for slot in before..count {
                assert!(plan.ranges.iter().any(|range| range.contains(&slot)), "slot {slot} is new in flush {flush}");
            }
            for (stripe, at) in plan.stripes.iter().enumerate().filter(|(_, at)| **at == EventNumber(flush * 10)) {
                for slot in of_stripe(stripe, count, 64) {
                    assert!(plan.ranges.iter().any(|range| range.contains(&slot)), "stripe {stripe} says {at:?}");
                }
            }
            if flush > 100 {
                assert!(slots(&plan) <= 64 * plan.stripes.len().div_ceil(STRIPE_AGE_FLUSHES_MAX));
            }
            stamp = Stamp { stripes: plan.stripes, accounts_count: count as u32, ..stamp };
            let age = flush - carry_from(&stamp).0 / 10;
            assert!(age <= STRIPE_AGE_FLUSHES_MAX as u64 + 1, "{age} flushes old");
        }
    }
}
