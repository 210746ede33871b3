//! Moves money, or holds it.
//!
//! The way of every transfer begins here: its record, its id. A post or void then branches off (`post_or_void.rs`).
//!
//! Laws
//! * An id is used once. Asking again for the same transfer answers `exists`, for another one under the same id what differs first,
//!   and for a burnt id `id_already_failed`.
//! * What a balance would not hold is refused, before a limit is even looked at.
//! * A limit is held against what is posted on the other side; money that is only pending there can't be spent.

use super::imported::{self, Stamp};
use super::{post_or_void, refuse_if};
use crate::books::Entry;
use crate::planted::{self, Bug};
use crate::{
    Account, AccountFlags, AccountId, Amount, Books, CreateResult, CreateTransferStatus as Status, EventKind, IdState,
    Slot, TIMESTAMP_MAX, Transfer, TransferFlags, TransferId,
};

const RESOLVING: TransferFlags = TransferFlags::POST_PENDING_TRANSFER.with(TransferFlags::VOID_PENDING_TRANSFER);
const BALANCING: TransferFlags = TransferFlags::BALANCING_DEBIT.with(TransferFlags::BALANCING_CREDIT);
const CLOSING: TransferFlags = TransferFlags::CLOSING_DEBIT.with(TransferFlags::CLOSING_CREDIT);

/// The accounts that a transfer names, if they exist.
#[derive(Clone, Copy)]
pub(crate) struct Accounts {
    pub(super) debit: Option<Slot>,
    pub(super) credit: Option<Slot>,
}

pub(super) fn create(books: &mut Books, event: &Transfer, named: Accounts, stamp: Stamp) -> CreateResult<Status> {
    let refused = |status| CreateResult { timestamp: stamp.at, status };
    if let Err(status) = check_record(event) {
        return refused(status);
    }
    match books.find_transfer_id(event.id) {
        Some(IdState::Event(number)) => {
            let existing = books.transfer_at(number);
            let status = compare(books, event, existing);
            let timestamp = if status == Status::Exists { existing.timestamp } else { stamp.at };
            return CreateResult { timestamp, status };
        }
        Some(IdState::Burnt) => return refused(Status::IdAlreadyFailed),
        None => {}
    }
    let created = if event.flags.intersects(RESOLVING) {
        post_or_void::post_or_void(books, event, stamp)
    } else {
        transfer(books, event, named, stamp)
    };
    match created {
        Ok(()) => CreateResult { timestamp: stamp.recorded, status: Status::Created },
        Err(status) => refused(status),
    }
}

fn check_record(event: &Transfer) -> Result<(), Status> {
    refuse_if!(event.flags.0 & !TransferFlags::ALL.0 != 0, Status::ReservedFlag);
    refuse_if!(event.id == TransferId::ZERO, Status::IdMustNotBeZero);
    refuse_if!(event.id == TransferId::MAX, Status::IdMustNotBeIntMax);
    Ok(())
}

/// What to answer to `event`, whose id is that of `existing`.
fn compare(books: &Books, event: &Transfer, existing: &Transfer) -> Status {
    // The flags first: they change what the other fields mean.
    if event.flags != existing.flags {
        Status::ExistsWithDifferentFlags
    } else if event.pending_id != existing.pending_id {
        Status::ExistsWithDifferentPendingId
    } else if event.timeout != existing.timeout {
        Status::ExistsWithDifferentTimeout
    } else if event.flags.intersects(RESOLVING) {
        let pending = books.find_transfer_id(existing.pending_id);
        let Some(IdState::Event(pending)) = pending else { panic!("what was posted or voided exists, and is loaded") };
        compare_fields(&post_or_void::inherit(event, books.transfer_at(pending)), existing)
    } else {
        compare_fields(event, existing)
    }
}

fn compare_fields(event: &Transfer, existing: &Transfer) -> Status {
    if event.debit_account_id != existing.debit_account_id {
        Status::ExistsWithDifferentDebitAccountId
    } else if event.credit_account_id != existing.credit_account_id {
        Status::ExistsWithDifferentCreditAccountId
    } else if !could_have_moved(event, existing.amount) {
        Status::ExistsWithDifferentAmount
    } else if event.user_data_128 != existing.user_data_128 {
        Status::ExistsWithDifferentUserData128
    } else if event.user_data_64 != existing.user_data_64 {
        Status::ExistsWithDifferentUserData64
    } else if event.user_data_32 != existing.user_data_32 {
        Status::ExistsWithDifferentUserData32
    } else if event.ledger != existing.ledger {
        Status::ExistsWithDifferentLedger
    } else if event.code != existing.code {
        Status::ExistsWithDifferentCode
    } else {
        Status::Exists
    }
}

/// A balancing transfer moves up to its amount; any other one exactly that.
fn could_have_moved(event: &Transfer, moved: Amount) -> bool {
    let is_same = event.amount == moved || planted::is(Bug::ExistsIgnoresAmount);
    if event.flags.intersects(BALANCING) { event.amount >= moved } else { is_same }
}

/// An ordinary or a pending transfer.
fn transfer(books: &mut Books, event: &Transfer, named: Accounts, stamp: Stamp) -> Result<(), Status> {
    check_fields(event)?;
    let debit_slot = named.debit.ok_or(Status::DebitAccountNotFound)?;
    let credit_slot = named.credit.ok_or(Status::CreditAccountNotFound)?;
    let debit = books.account_at(debit_slot);
    let credit = books.account_at(credit_slot);
    refuse_if!(debit.ledger != credit.ledger, Status::AccountsMustHaveTheSameLedger);
    refuse_if!(event.ledger != debit.ledger, Status::TransferMustHaveTheSameLedgerAsAccounts);
    if event.flags.contains(TransferFlags::IMPORTED) {
        imported::check_transfer_order(books, stamp.recorded)?;
        imported::check_transfer_postdates(debit, credit, stamp.recorded)?;
        imported::check_no_timeout(event)?;
    }
    let is_closed = debit.flags.contains(AccountFlags::CLOSED) && !planted::is(Bug::ClosedStillPays);
    refuse_if!(is_closed, Status::DebitAccountAlreadyClosed);
    refuse_if!(credit.flags.contains(AccountFlags::CLOSED), Status::CreditAccountAlreadyClosed);
    let transfer = Transfer { amount: clip(event, debit, credit), timestamp: stamp.recorded, ..*event };
    let after = add(&transfer, debit, credit)?;
    refuse_if!(expires_too_late(&transfer), Status::OverflowsTimeout);
    check_limits(&after, debit, credit)?;
    write_down(books, transfer, after, stamp, debit_slot, credit_slot);
    Ok(())
}

fn check_fields(event: &Transfer) -> Result<(), Status> {
    refuse_if!(event.debit_account_id == AccountId::ZERO, Status::DebitAccountIdMustNotBeZero);
    refuse_if!(event.debit_account_id == AccountId::MAX, Status::DebitAccountIdMustNotBeIntMax);
    refuse_if!(event.credit_account_id == AccountId::ZERO, Status::CreditAccountIdMustNotBeZero);
    refuse_if!(event.credit_account_id == AccountId::MAX, Status::CreditAccountIdMustNotBeIntMax);
    refuse_if!(event.credit_account_id == event.debit_account_id, Status::AccountsMustBeDifferent);
    refuse_if!(event.pending_id != TransferId::ZERO, Status::PendingIdMustBeZero);
    if !event.flags.contains(TransferFlags::PENDING) {
        refuse_if!(event.timeout != 0, Status::TimeoutReservedForPendingTransfer);
        refuse_if!(event.flags.intersects(CLOSING), Status::ClosingTransferMustBePending);
    }
    refuse_if!(event.ledger == 0, Status::LedgerMustNotBeZero);
    refuse_if!(event.code == 0, Status::CodeMustNotBeZero);
    Ok(())
}

/// The amount that moves: of a balancing transfer at most what its account can give, with or without a limit flag.
fn clip(event: &Transfer, debit: &Account, credit: &Account) -> Amount {
    let mut amount = event.amount;
    if event.flags.contains(TransferFlags::BALANCING_DEBIT) {
        let held = if planted::is(Bug::BalancingIgnoresPending) { Amount::ZERO } else { debit.debits_pending };
        let spent = held.checked_add(debit.debits_posted).expect("an account's debits fit together");
        amount = amount.min(debit.credits_posted.saturating_sub(spent));
    }
    if event.flags.contains(TransferFlags::BALANCING_CREDIT) {
        let received =
            credit.credits_pending.checked_add(credit.credits_posted).expect("an account's credits fit together");
        amount = amount.min(credit.debits_posted.saturating_sub(received));
    }
    amount
}

/// What the two accounts will have, should the transfer happen.
struct After {
    debits_pending: Amount,
    debits_posted: Amount,
    credits_pending: Amount,
    credits_posted: Amount,
    /// Of the debit account: pending and posted.
    debits: Amount,
    /// Of the credit account: pending and posted.
    credits: Amount,
}

fn add(transfer: &Transfer, debit: &Account, credit: &Account) -> Result<After, Status> {
    let amount = transfer.amount;
    let is_pending = transfer.flags.contains(TransferFlags::PENDING);
    let debits_pending = debit.debits_pending.checked_add(amount).ok_or(Status::OverflowsDebitsPending);
    let credits_pending = credit.credits_pending.checked_add(amount).ok_or(Status::OverflowsCreditsPending);
    if is_pending {
        debits_pending?;
        credits_pending?;
    }
    let debits_posted = debit.debits_posted.checked_add(amount).ok_or(Status::OverflowsDebitsPosted)?;
    let credits_posted = credit.credits_posted.checked_add(amount).ok_or(Status::OverflowsCreditsPosted)?;
    // Together they must fit as well: then a post never overflows, and a limit is always a plain comparison.
    let debits = debits_posted.checked_add(debit.debits_pending).ok_or(Status::OverflowsDebits)?;
    let credits = credits_posted.checked_add(credit.credits_pending).ok_or(Status::OverflowsCredits)?;
    if is_pending {
        let (debits_pending, credits_pending) = (debits_pending?, credits_pending?);
        let (debits_posted, credits_posted) = (debit.debits_posted, credit.credits_posted);
        return Ok(After { debits_pending, debits_posted, credits_pending, credits_posted, debits, credits });
    }
    let (debits_pending, credits_pending) = (debit.debits_pending, credit.credits_pending);
    Ok(After { debits_pending, debits_posted, credits_pending, credits_posted, debits, credits })
}

fn expires_too_late(transfer: &Transfer) -> bool {
    transfer.expires_at_if_recorded_at(transfer.timestamp).is_none_or(|expires_at| expires_at > TIMESTAMP_MAX)
}

fn check_limits(after: &After, debit: &Account, credit: &Account) -> Result<(), Status> {
    let debits_are_limited = debit.flags.contains(AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS);
    let arrived = match planted::is(Bug::LimitCountsPendingCredits) {
        true => debit.credits_posted.checked_add(debit.credits_pending).unwrap_or(Amount::MAX),
        false => debit.credits_posted,
    };
    refuse_if!(debits_are_limited && after.debits > arrived, Status::ExceedsCredits);
    let credits_are_limited = credit.flags.contains(AccountFlags::CREDITS_MUST_NOT_EXCEED_DEBITS);
    refuse_if!(credits_are_limited && after.credits > credit.debits_posted, Status::ExceedsDebits);
    Ok(())
}

fn write_down(books: &mut Books, transfer: Transfer, after: After, stamp: Stamp, debit: Slot, credit: Slot) {
    let is_pending = transfer.flags.contains(TransferFlags::PENDING);
    let kind = if is_pending { EventKind::Pending } else { EventKind::SinglePhase };
    let closes_debit = transfer.flags.contains(TransferFlags::CLOSING_DEBIT);
    let closes_credit = transfer.flags.contains(TransferFlags::CLOSING_CREDIT);
    let entry = Entry { timestamp: stamp.at, kind, transfer, pending: None, debit, credit };
    books.record(
        entry,
        |account| {
            account.debits_pending = after.debits_pending;
            account.debits_posted = after.debits_posted;
            if closes_debit {
                account.flags = account.flags.with(AccountFlags::CLOSED);
            }
        },
        |account| {
            account.credits_pending = after.credits_pending;
            account.credits_posted = after.credits_posted;
            if closes_credit {
                account.flags = account.flags.with(AccountFlags::CLOSED);
            }
        },
    );
}
