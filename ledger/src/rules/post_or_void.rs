//! Posts or voids a pending transfer.
//!
//! Laws
//! * A pending transfer is resolved once: posted, voided or expired.
//! * Posting moves at most what was held, and releases the rest. Voiding releases all.
//! * Nothing here can overflow or break a limit: what is posted was counted when it was held.
//! * A field left at zero is that of the pending transfer, in a retry as well.

use super::imported::{self, Stamp};
use super::refuse_if;
use crate::books::Entry;
use crate::planted::{self, Bug};
use crate::{
    Account, AccountFlags, AccountId, Amount, Books, CreateTransferStatus as Status, EventKind, EventNumber, IdState,
    PendingState, Transfer, TransferFlags, TransferId,
};

/// What can't go with a post or a void.
const EXCLUDED: TransferFlags = TransferFlags::PENDING
    .with(TransferFlags::BALANCING_DEBIT)
    .with(TransferFlags::BALANCING_CREDIT)
    .with(TransferFlags::CLOSING_DEBIT)
    .with(TransferFlags::CLOSING_CREDIT);

const BOTH: TransferFlags = TransferFlags::POST_PENDING_TRANSFER.with(TransferFlags::VOID_PENDING_TRANSFER);

pub(super) fn post_or_void(books: &mut Books, event: &Transfer, stamp: Stamp) -> Result<(), Status> {
    check_fields(event)?;
    let number = find_pending(books, event.pending_id)?;
    let pending = *books.transfer_at(number);
    check_against(event, &pending)?;
    let transfer = Transfer { timestamp: stamp.recorded, ..inherit(event, &pending) };
    check_amount(&transfer, &pending)?;
    check_open(books, number, &pending, stamp)?;
    if event.flags.contains(TransferFlags::IMPORTED) {
        imported::check_transfer_order(books, stamp.recorded)?;
    }
    let debit = books.slot(pending.debit_account_id).expect("a pending transfer's accounts exist");
    let credit = books.slot(pending.credit_account_id).expect("a pending transfer's accounts exist");
    if posts(event) {
        refuse_if!(is_closed(books.account_at(debit)), Status::DebitAccountAlreadyClosed);
        refuse_if!(is_closed(books.account_at(credit)), Status::CreditAccountAlreadyClosed);
    }
    let (kind, posted) =
        if posts(event) { (EventKind::Posted, transfer.amount) } else { (EventKind::Voided, Amount::ZERO) };
    let entry = Entry { timestamp: stamp.at, kind, transfer, pending: Some(number), debit, credit };
    resolve(books, entry, &pending, posted);
    Ok(())
}

fn posts(event: &Transfer) -> bool {
    event.flags.contains(TransferFlags::POST_PENDING_TRANSFER)
}

fn is_closed(account: &Account) -> bool {
    account.flags.contains(AccountFlags::CLOSED)
}

fn check_fields(event: &Transfer) -> Result<(), Status> {
    refuse_if!(event.flags.contains(BOTH) || event.flags.intersects(EXCLUDED), Status::FlagsAreMutuallyExclusive);
    refuse_if!(event.pending_id == TransferId::ZERO, Status::PendingIdMustNotBeZero);
    refuse_if!(event.pending_id == TransferId::MAX, Status::PendingIdMustNotBeIntMax);
    refuse_if!(event.pending_id == event.id, Status::PendingIdMustBeDifferent);
    refuse_if!(event.timeout != 0, Status::TimeoutReservedForPendingTransfer);
    Ok(())
}

fn find_pending(books: &Books, id: TransferId) -> Result<EventNumber, Status> {
    match books.find_transfer_id(id) {
        Some(IdState::Event(number)) => {
            let is_pending = books.transfer_at(number).flags.contains(TransferFlags::PENDING);
            refuse_if!(!is_pending, Status::PendingTransferNotPending);
            Ok(number)
        }
        Some(IdState::Burnt) | None => Err(Status::PendingTransferNotFound),
    }
}

fn check_against(event: &Transfer, pending: &Transfer) -> Result<(), Status> {
    let differs = |given: AccountId, held: AccountId| given != AccountId::ZERO && given != held;
    refuse_if!(
        differs(event.debit_account_id, pending.debit_account_id),
        Status::PendingTransferHasDifferentDebitAccountId
    );
    refuse_if!(
        differs(event.credit_account_id, pending.credit_account_id),
        Status::PendingTransferHasDifferentCreditAccountId
    );
    refuse_if!(event.ledger != 0 && event.ledger != pending.ledger, Status::PendingTransferHasDifferentLedger);
    refuse_if!(event.code != 0 && event.code != pending.code, Status::PendingTransferHasDifferentCode);
    Ok(())
}

fn check_amount(transfer: &Transfer, pending: &Transfer) -> Result<(), Status> {
    refuse_if!(transfer.amount > pending.amount, Status::ExceedsPendingTransferAmount);
    refuse_if!(!posts(transfer) && transfer.amount < pending.amount, Status::PendingTransferHasDifferentAmount);
    Ok(())
}

fn check_open(books: &Books, number: EventNumber, pending: &Transfer, stamp: Stamp) -> Result<(), Status> {
    match books.pending_state_at(number) {
        PendingState::Posted => Err(Status::PendingTransferAlreadyPosted),
        PendingState::Voided if planted::is(Bug::ReleasedTwice) => Ok(()),
        PendingState::Voided => Err(Status::PendingTransferAlreadyVoided),
        PendingState::Expired => Err(Status::PendingTransferExpired),
        PendingState::Open => {
            // Whether or not the pulse has come by: the answer must not depend on when it does. Log time, also for an import.
            let has_expired = pending.expires_at().is_some_and(|expires_at| expires_at <= stamp.at);
            refuse_if!(has_expired && !planted::is(Bug::PostAfterExpiry), Status::PendingTransferExpired);
            Ok(())
        }
    }
}

/// The post or void as it is recorded: what was left at zero comes from the pending transfer. The amount: all of it is
/// meant by `Amount::MAX` in a post, and by zero in a void.
pub(super) fn inherit(event: &Transfer, pending: &Transfer) -> Transfer {
    fn or<T: Default + PartialEq>(given: T, held: T) -> T {
        if given == T::default() { held } else { given }
    }
    let all = if posts(event) { Amount::MAX } else { Amount::ZERO };
    Transfer {
        debit_account_id: or(event.debit_account_id, pending.debit_account_id),
        credit_account_id: or(event.credit_account_id, pending.credit_account_id),
        amount: if event.amount == all { pending.amount } else { event.amount },
        user_data_128: or(event.user_data_128, pending.user_data_128),
        user_data_64: or(event.user_data_64, pending.user_data_64),
        user_data_32: or(event.user_data_32, pending.user_data_32),
        ledger: or(event.ledger, pending.ledger),
        code: or(event.code, pending.code),
        ..*event
    }
}

/// Releases what `pending` holds and posts `posted` of it. An account that it closed is opened again, unless it is posted:
/// but a closed account can't be posted to.
pub(super) fn resolve(books: &mut Books, entry: Entry, pending: &Transfer, posted: Amount) {
    const HELD: &str = "what a pending transfer holds is in the balance until it is resolved";
    const FITS: &str = "what was held fits when it is posted";
    let opens_debit = pending.flags.contains(TransferFlags::CLOSING_DEBIT);
    let opens_credit = pending.flags.contains(TransferFlags::CLOSING_CREDIT);
    books.record(
        entry,
        |account| {
            account.debits_pending = account.debits_pending.checked_sub(pending.amount).expect(HELD);
            account.debits_posted = account.debits_posted.checked_add(posted).expect(FITS);
            if opens_debit {
                account.flags = account.flags.without(AccountFlags::CLOSED);
            }
        },
        |account| {
            account.credits_pending = account.credits_pending.checked_sub(pending.amount).expect(HELD);
            account.credits_posted = account.credits_posted.checked_add(posted).expect(FITS);
            if opens_credit {
                account.flags = account.flags.without(AccountFlags::CLOSED);
            }
        },
    );
}
