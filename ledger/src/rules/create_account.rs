//! Opens an account.
//!
//! Laws
//! * An account is opened empty, and an id once. Asking again for the same account answers `exists`; for another one under the
//!   same id, what differs first.
//! * Compared are the flags as they are now: an account closed since was not asked for (`exists_with_different_flags`).

use super::imported::{self, Stamp};
use super::refuse_if;
use crate::{Account, AccountFlags, AccountId, Amount, Books, CreateAccountStatus as Status, CreateResult};

const BOTH_LIMITS: AccountFlags =
    AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS.with(AccountFlags::CREDITS_MUST_NOT_EXCEED_DEBITS);

pub(super) fn create(books: &mut Books, event: &Account, stamp: Stamp) -> CreateResult<Status> {
    if let Err(status) = check_record(event) {
        return CreateResult { timestamp: stamp.at, status };
    }
    if let Some(existing) = books.account(event.id) {
        let status = compare(event, existing);
        let timestamp = if status == Status::Exists { existing.timestamp } else { stamp.at };
        return CreateResult { timestamp, status };
    }
    if let Err(status) = check_new(books, event, stamp) {
        return CreateResult { timestamp: stamp.at, status };
    }
    books.create_account(Account { timestamp: stamp.recorded, ..*event });
    CreateResult { timestamp: stamp.recorded, status: Status::Created }
}

fn check_record(event: &Account) -> Result<(), Status> {
    refuse_if!(event.reserved != 0, Status::ReservedField);
    refuse_if!(event.flags.without(AccountFlags::ALL) != AccountFlags::NONE, Status::ReservedFlag);
    refuse_if!(event.id == AccountId::ZERO, Status::IdMustNotBeZero);
    refuse_if!(event.id == AccountId::MAX, Status::IdMustNotBeIntMax);
    Ok(())
}

fn compare(event: &Account, existing: &Account) -> Status {
    if event.flags != existing.flags {
        Status::ExistsWithDifferentFlags
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

fn check_new(books: &Books, event: &Account, stamp: Stamp) -> Result<(), Status> {
    refuse_if!(event.flags.contains(BOTH_LIMITS), Status::FlagsAreMutuallyExclusive);
    refuse_if!(event.debits_pending != Amount::ZERO, Status::DebitsPendingMustBeZero);
    refuse_if!(event.debits_posted != Amount::ZERO, Status::DebitsPostedMustBeZero);
    refuse_if!(event.credits_pending != Amount::ZERO, Status::CreditsPendingMustBeZero);
    refuse_if!(event.credits_posted != Amount::ZERO, Status::CreditsPostedMustBeZero);
    refuse_if!(event.ledger == 0, Status::LedgerMustNotBeZero);
    refuse_if!(event.code == 0, Status::CodeMustNotBeZero);
    if event.flags.contains(AccountFlags::IMPORTED) {
        imported::check_account_order(books, stamp.recorded)?;
    }
    Ok(())
}
