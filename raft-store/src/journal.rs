//! Pages of events: the one thing that grows with history, in the fewest bytes that still let one event be fetched alone.
//!
//!     page   first_timestamp u64 | transfer_floor u64 | ends u16 x count | events …
//!     event  marks u16 | varint fields, those that are zero left out (see `put_event`)
//!
//! `first_timestamp` is the log time of the page's first event; `transfer_floor` is the highest timestamp of a transfer before it. Both ascend from page
//! to page, so that a time is found by halving the journal, whether it is the time of an event or of an imported transfer.
//!
//! Laws
//! * A page in the journal holds [`EVENTS_PER_PAGE`] events and is written once. What doesn't fill a page yet is the tail, one row, written anew by each flush.
//!
//! Not here: which page holds an event of whom (`runs.rs`), the events not flushed yet (`ledger`'s Books).

use crate::codec::{Put, Take};
use crate::schema::EVENTS_PER_PAGE;
use bytes::Bytes;
use jangbu_ledger::{
    AccountFlags, AccountId, Amount, Balances, Event, EventKind, EventNumber, Side, Slot, Transfer, TransferFlags,
    TransferId,
};

/// The page of an event, and its place there.
pub fn place(number: EventNumber) -> (u64, usize) {
    (number.0 / EVENTS_PER_PAGE as u64, (number.0 % EVENTS_PER_PAGE as u64) as usize)
}

/// The number of a page's first event.
pub fn first_of_page(page: u64) -> EventNumber {
    EventNumber(page * EVENTS_PER_PAGE as u64)
}

/// Some consecutive events as bytes, at most a page of them.
pub fn encode_page(events: &[Event], transfer_floor: u64) -> Vec<u8> {
    assert!(!events.is_empty() && events.len() <= EVENTS_PER_PAGE, "a page holds 1 to {EVENTS_PER_PAGE} events");
    let first_timestamp = events[0].timestamp;
    let mut out = Vec::with_capacity(events.len() * 128);
    out.put_u64(first_timestamp);
    out.put_u64(transfer_floor);
    let ends_at = out.len();
    out.resize(ends_at + events.len() * 2, 0);
    let events_at = out.len();
    for (index, event) in events.iter().enumerate() {
        put_event(&mut out, event, first_timestamp);
        let end = u16::try_from(out.len() - events_at).expect("32 events of at most 400 bytes stay below 64 KiB");
        out[ends_at + index * 2..][..2].copy_from_slice(&end.to_le_bytes());
    }
    out
}

/// A page as it was read; events are unpacked when asked for.
#[derive(Clone, Debug)]
pub struct Page {
    payload: Bytes,
    count: usize,
    pub first_timestamp: u64,
    pub transfer_floor: u64,
}

const PAGE_HEADER_BYTES: usize = 16;

impl Page {
    /// `count` events; `None` if the payload can't be that.
    pub fn decode(payload: Bytes, count: usize) -> Option<Page> {
        let mut take = Take::new(&payload);
        let (first_timestamp, transfer_floor) = (take.u64()?, take.u64()?);
        take.bytes(count * 2)?;
        Some(Page { payload, count, first_timestamp, transfer_floor })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn event(&self, index: usize) -> Option<Event> {
        if index >= self.count {
            return None;
        }
        let events = self.payload.get(PAGE_HEADER_BYTES + self.count * 2..)?;
        let start = if index == 0 { 0 } else { self.end(index - 1)? };
        let bytes = events.get(start..self.end(index)?)?;
        take_event(bytes, self.first_timestamp)
    }

    fn end(&self, index: usize) -> Option<usize> {
        let at = PAGE_HEADER_BYTES + index * 2;
        Some(u16::from_le_bytes(self.payload.get(at..at + 2)?.try_into().ok()?).into())
    }

    pub fn events(&self) -> Option<Vec<Event>> {
        (0..self.count).map(|index| self.event(index)).collect()
    }
}

/// The highest timestamp of a transfer up to and with `event`, `floor` being that of all before it.
pub fn raise_floor(floor: u64, event: &Event) -> u64 {
    if event.kind.records_transfer() { floor.max(event.transfer.timestamp) } else { floor }
}

// The marks: the low three bits are the kind, the others say which fields are there.
const KIND: u16 = 0b111;
const PENDING: u16 = 1 << 3;
/// The transfer's timestamp isn't the event's: an expiry, or an import.
const OWN_TIMESTAMP: u16 = 1 << 4;
const PENDING_ID: u16 = 1 << 5;
const USER_DATA_128: u16 = 1 << 6;
const USER_DATA_64: u16 = 1 << 7;
const USER_DATA_32: u16 = 1 << 8;
const TIMEOUT: u16 = 1 << 9;
const FLAGS: u16 = 1 << 10;

fn put_event(out: &mut Vec<u8>, event: &Event, first_timestamp: u64) {
    let transfer = &event.transfer;
    let mark = |present: bool, mark: u16| if present { mark } else { 0 };
    let marks = u16::from(event.kind.code())
        | mark(event.pending.is_some(), PENDING)
        | mark(transfer.timestamp != event.timestamp, OWN_TIMESTAMP)
        | mark(transfer.pending_id != TransferId::ZERO, PENDING_ID)
        | mark(transfer.user_data_128 != 0, USER_DATA_128)
        | mark(transfer.user_data_64 != 0, USER_DATA_64)
        | mark(transfer.user_data_32 != 0, USER_DATA_32)
        | mark(transfer.timeout != 0, TIMEOUT)
        | mark(transfer.flags != TransferFlags::NONE, FLAGS);
    out.put_u16(marks);
    out.put_varint(u128::from(event.timestamp - first_timestamp));
    if let Some(pending) = event.pending {
        out.put_varint(u128::from(pending.0));
    }
    out.put_u128(transfer.id.0);
    out.put_u128(transfer.debit_account_id.0);
    out.put_u128(transfer.credit_account_id.0);
    out.put_varint(transfer.amount.0);
    out.put_varint(u128::from(transfer.ledger));
    out.put_varint(u128::from(transfer.code));
    if marks & OWN_TIMESTAMP != 0 {
        out.put_u64(transfer.timestamp);
    }
    if marks & PENDING_ID != 0 {
        out.put_u128(transfer.pending_id.0);
    }
    if marks & USER_DATA_128 != 0 {
        out.put_u128(transfer.user_data_128);
    }
    if marks & USER_DATA_64 != 0 {
        out.put_u64(transfer.user_data_64);
    }
    if marks & USER_DATA_32 != 0 {
        out.put_u32(transfer.user_data_32);
    }
    if marks & TIMEOUT != 0 {
        out.put_varint(u128::from(transfer.timeout));
    }
    if marks & FLAGS != 0 {
        out.put_u16(transfer.flags.0);
    }
    put_side(out, &event.debit);
    put_side(out, &event.credit);
}

fn put_side(out: &mut Vec<u8>, side: &Side) {
    out.put_varint(u128::from(side.slot.0));
    out.put_varint(u128::from(side.flags.0));
    out.put_varint(side.balances.debits_pending.0);
    out.put_varint(side.balances.debits_posted.0);
    out.put_varint(side.balances.credits_pending.0);
    out.put_varint(side.balances.credits_posted.0);
}

fn take_event(bytes: &[u8], first_timestamp: u64) -> Option<Event> {
    let mut take = Take::new(bytes);
    let marks = take.u16()?;
    let has = |mark: u16| marks & mark != 0;
    let kind = EventKind::from_code((marks & KIND) as u8)?;
    let timestamp = first_timestamp.checked_add(take.varint_u64()?)?;
    let pending = if has(PENDING) { Some(EventNumber(take.varint_u64()?)) } else { None };
    let transfer = Transfer {
        id: TransferId(take.u128()?),
        debit_account_id: AccountId(take.u128()?),
        credit_account_id: AccountId(take.u128()?),
        amount: Amount(take.varint()?),
        ledger: take.varint_u32()?,
        code: u16::try_from(take.varint_u32()?).ok()?,
        timestamp: if has(OWN_TIMESTAMP) { take.u64()? } else { timestamp },
        pending_id: if has(PENDING_ID) { TransferId(take.u128()?) } else { TransferId::ZERO },
        user_data_128: if has(USER_DATA_128) { take.u128()? } else { 0 },
        user_data_64: if has(USER_DATA_64) { take.u64()? } else { 0 },
        user_data_32: if has(USER_DATA_32) { take.u32()? } else { 0 },
        timeout: if has(TIMEOUT) { take.varint_u32()? } else { 0 },
        flags: if has(FLAGS) { TransferFlags(take.u16()?) } else { TransferFlags::NONE },
    };
    let (debit, credit) = (take_side(&mut take)?, take_side(&mut take)?);
    take.is_empty().then_some(Event { timestamp, kind, transfer, pending, debit, credit })
}

fn take_side(take: &mut Take<'_>) -> Option<Side> {
    Some(Side {
        slot: Slot(take.varint_u32()?),
        flags: AccountFlags(u16::try_from(take.varint_u32()?).ok()?),
        balances: Balances {
            debits_pending: Amount(take.varint()?),
            debits_posted: Amount(take.varint()?),
            credits_pending: Amount(take.varint()?),
            credits_posted: Amount(take.varint()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn side() -> impl Strategy<Value = Side> {
        (any::<u32>(), any::<u16>(), any::<[u128; 4]>(), 0..128u32).prop_map(|(slot, flags, amounts, shift)| Side {
            slot: Slot(slot),
            flags: AccountFlags(flags),
            balances: Balances {
                debits_pending: Amount(amounts[0] >> shift),
                debits_posted: Amount(amounts[1] >> shift),
                credits_pending: Amount(amounts[2] >> shift),
                credits_posted: Amount(amounts[3]),
            },
        })
    }

    fn event() -> impl Strategy<Value = Event> {
        (any::<[u8; 128]>(), any::<u16>(), 0..5u8, any::<Option<u64>>(), any::<u32>(), side(), side()).prop_map(
            |(mut bytes, blank, kind, pending, timestamp, debit, credit)| {
                // Leaves out a random choice of eight-byte words, as real transfers do.
                for word in 0..16 {
                    if blank & (1 << word) != 0 {
                        bytes[word * 8..][..8].fill(0);
                    }
                }
                Event {
                    timestamp: u64::from(timestamp),
                    kind: EventKind::from_code(kind).unwrap(),
                    transfer: Transfer::decode(&bytes),
                    pending: pending.map(EventNumber),
                    debit,
                    credit,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn any_page_comes_back(mut events in proptest::collection::vec(event(), 1..=EVENTS_PER_PAGE), floor in any::<u64>()) {
            events.sort_by_key(|event| event.timestamp);
            let payload = Bytes::from(encode_page(&events, floor));
            let page = Page::decode(payload, events.len()).unwrap();
            prop_assert_eq!(page.transfer_floor, floor);
            prop_assert_eq!(page.first_timestamp, events[0].timestamp);
            prop_assert_eq!(page.events().unwrap(), events);
        }

        #[test]
        fn no_bytes_make_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..600), count in 1..=EVENTS_PER_PAGE) {
            if let Some(page) = Page::decode(payload.into(), count) {
                let _ = page.events();
            }
        }
    }
}
