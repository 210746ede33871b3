//! Imported events: history that happened elsewhere, with the timestamps it had there.
//!
//! The first event decides for the whole request: all imported, or none.
//!
//! Laws
//! * A given timestamp is within 1 .. 2^63 - 1, before the time of the request, after the last of its own kind, and equal
//!   to none of the other kind. So timestamps stay unique, and each kind ordered by them.
//! * What has to do with order is checked after `exists`, so that an import can be repeated.

use super::linked::Event;
use super::refuse_if;
use crate::{Account, Books, CreateAccountStatus, CreateTransferStatus, TIMESTAMP_MAX, Transfer};

/// When an event happens, and what its record will say.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    /// Log time: unique, used up by the event whatever becomes of it.
    pub(crate) at: u64,
    /// The record's timestamp: the given one if imported, otherwise log time.
    pub(crate) recorded: u64,
}

/// The stamp of `event`, which happens at log time `at` in a request at `time`.
pub(super) fn stamp<E: Event>(event: &E, request_is_imported: bool, time: u64, at: u64) -> Result<Stamp, E::Status> {
    if !event.is_imported() {
        refuse_if!(request_is_imported, E::IMPORTED_EVENT_EXPECTED);
        refuse_if!(event.timestamp() != 0, E::TIMESTAMP_MUST_BE_ZERO);
        return Ok(Stamp { at, recorded: at });
    }
    let given = event.timestamp();
    refuse_if!(!request_is_imported, E::IMPORTED_EVENT_NOT_EXPECTED);
    refuse_if!(given == 0 || given > TIMESTAMP_MAX, E::IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE);
    // The request's time, not the event's: what is imported has happened before anyone asked.
    refuse_if!(given >= time, E::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE);
    Ok(Stamp { at, recorded: given })
}

pub(super) fn check_account_order(books: &Books, recorded: u64) -> Result<(), CreateAccountStatus> {
    let regresses = recorded <= books.last_account_timestamp() || books.has_transfer_with_timestamp(recorded);
    refuse_if!(regresses, CreateAccountStatus::ImportedEventTimestampMustNotRegress);
    Ok(())
}

pub(super) fn check_transfer_order(books: &Books, recorded: u64) -> Result<(), CreateTransferStatus> {
    let regresses = recorded <= books.last_transfer_timestamp() || books.has_account_with_timestamp(recorded);
    refuse_if!(regresses, CreateTransferStatus::ImportedEventTimestampMustNotRegress);
    Ok(())
}

pub(super) fn check_transfer_postdates(
    debit: &Account,
    credit: &Account,
    recorded: u64,
) -> Result<(), CreateTransferStatus> {
    refuse_if!(recorded <= debit.timestamp, CreateTransferStatus::ImportedEventTimestampMustPostdateDebitAccount);
    refuse_if!(recorded <= credit.timestamp, CreateTransferStatus::ImportedEventTimestampMustPostdateCreditAccount);
    Ok(())
}

/// Nobody could say when, on which clock, a transfer of the past expires.
pub(super) fn check_no_timeout(event: &Transfer) -> Result<(), CreateTransferStatus> {
    refuse_if!(event.timeout != 0, CreateTransferStatus::ImportedEventTimeoutMustBeZero);
    Ok(())
}
