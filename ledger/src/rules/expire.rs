//! Expires a pending transfer: the pulse gives back what nobody posted or voided in time.
//!
//! Laws
//! * An expiry writes no transfer, but a change event.
//! * It releases all that was held and opens what was closed, also on accounts that are closed by another transfer.

use super::post_or_void;
use crate::books::Entry;
use crate::{Amount, Books, EventKind, EventNumber};

/// `number` is due; the event happens at log time `at`.
pub(crate) fn expire(books: &mut Books, number: EventNumber, at: u64) {
    let pending = *books.transfer_at(number);
    let debit = books.slot(pending.debit_account_id).expect("a pending transfer's accounts exist");
    let credit = books.slot(pending.credit_account_id).expect("a pending transfer's accounts exist");
    let entry =
        Entry { timestamp: at, kind: EventKind::Expired, transfer: pending, pending: Some(number), debit, credit };
    post_or_void::resolve(books, entry, &pending, Amount::ZERO);
}
