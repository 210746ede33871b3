//! Runs a request: event after event, and each chain as one.
//!
//! A chain is a run of events with `linked` set, closed by the first without it. If one of them fails, it keeps its own
//! answer, every other event of the chain answers `linked_event_failed`, and everything the chain did is undone. What comes after
//! the chain runs as if it had not been.
//!
//! Laws
//! * The last event of a request has nobody to be linked to: `linked_event_chain_open`, also in a chain that has failed already.
//! * Of a failed chain the first failing id is burnt if its status is transient. The burning outlives the undoing; the other ids stay usable.

use crate::planted::{self, Bug};
use alloc::vec::Vec;

use super::create_transfer::Accounts;
use super::imported::{self, Stamp};
use super::{create_account, create_transfer};
use crate::books::{FETCHED_AT_ONCE, Savepoint, event_time};
use crate::{
    Account, AccountFlags, Books, CreateAccountStatus, CreateResult, CreateTransferStatus, Transfer, TransferFlags,
};

/// An event of a request, account or transfer: what chains and imports need to know of it.
pub(crate) trait Event: Sized {
    type Status: Copy + PartialEq;
    /// What was looked up for it. It can't change within a request.
    type Found: Copy;

    const CREATED: Self::Status;
    const LINKED_EVENT_FAILED: Self::Status;
    const LINKED_EVENT_CHAIN_OPEN: Self::Status;
    const IMPORTED_EVENT_EXPECTED: Self::Status;
    const IMPORTED_EVENT_NOT_EXPECTED: Self::Status;
    const TIMESTAMP_MUST_BE_ZERO: Self::Status;
    const IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE: Self::Status;
    const IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE: Self::Status;

    fn is_linked(&self) -> bool;
    fn is_imported(&self) -> bool;
    fn timestamp(&self) -> u64;

    fn look_up(&self, books: &Books) -> Self::Found;

    /// Decides and, if it is lawful, has it written down.
    fn create(&self, books: &mut Books, found: Self::Found, stamp: Stamp) -> CreateResult<Self::Status>;

    /// Burns the id, if this status does that.
    fn burn(&self, books: &mut Books, status: Self::Status);
}

/// The chain that is being run.
struct Chain {
    /// Its first result.
    first: usize,
    /// `None` once it has failed.
    savepoint: Option<Savepoint>,
}

/// Runs the events of one request at `time`, and adds one result for each.
pub(crate) fn run<E: Event>(books: &mut Books, time: u64, events: &[E], results: &mut Vec<CreateResult<E::Status>>) {
    let Some(first) = events.first() else { return };
    let mut chain: Option<Chain> = None;
    let mut looked_up = Vec::with_capacity(FETCHED_AT_ONCE.min(events.len()));
    for (index, event) in events.iter().enumerate() {
        if index % FETCHED_AT_ONCE == 0 {
            looked_up.clear();
            looked_up.extend(events[index..].iter().take(FETCHED_AT_ONCE).map(|event| event.look_up(books)));
        }
        let found = looked_up[index % FETCHED_AT_ONCE];
        let is_last = index + 1 == events.len();
        let at = event_time(time, events.len(), index);
        if event.is_linked() && chain.is_none() {
            chain = Some(Chain { first: results.len(), savepoint: Some(books.open_chain()) });
        }
        let has_failed = chain.as_ref().is_some_and(|chain| chain.savepoint.is_none());

        let result = if event.is_linked() && is_last {
            CreateResult { timestamp: at, status: E::LINKED_EVENT_CHAIN_OPEN }
        } else if has_failed {
            CreateResult { timestamp: at, status: E::LINKED_EVENT_FAILED }
        } else {
            match imported::stamp(event, first.is_imported(), time, at) {
                Ok(stamp) => event.create(books, found, stamp),
                Err(status) => CreateResult { timestamp: at, status },
            }
        };
        results.push(result);

        if result.status != E::CREATED {
            if let Some(chain) = &mut chain {
                chain.fail::<E>(books, at, results);
            }
            event.burn(books, result.status);
        }
        let ends_chain = !event.is_linked() || is_last;
        if ends_chain && chain.take().is_some_and(|chain| chain.savepoint.is_some()) {
            books.keep_chain();
        }
    }
}

impl Chain {
    /// The last of `results` is that of the event at `at`, which failed. Those before it in the chain fail with it.
    fn fail<E: Event>(&mut self, books: &mut Books, at: u64, results: &mut [CreateResult<E::Status>]) {
        let Some(savepoint) = self.savepoint.take() else {
            return;
        };
        match planted::is(Bug::ChainHalfUndone) {
            true => books.keep_chain(),
            false => books.undo_chain(savepoint),
        }
        let failed = results.len() - 1;
        let before = results[self.first..failed].iter_mut().rev();
        for (result, timestamp) in before.zip((0..at).rev()) {
            *result = CreateResult { timestamp, status: E::LINKED_EVENT_FAILED };
        }
    }
}

macro_rules! chain_statuses {
    ($status:ident) => {
        type Status = $status;

        const CREATED: $status = $status::Created;
        const LINKED_EVENT_FAILED: $status = $status::LinkedEventFailed;
        const LINKED_EVENT_CHAIN_OPEN: $status = $status::LinkedEventChainOpen;
        const IMPORTED_EVENT_EXPECTED: $status = $status::ImportedEventExpected;
        const IMPORTED_EVENT_NOT_EXPECTED: $status = $status::ImportedEventNotExpected;
        const TIMESTAMP_MUST_BE_ZERO: $status = $status::TimestampMustBeZero;
        const IMPORTED_EVENT_TIMESTAMP_OUT_OF_RANGE: $status = $status::ImportedEventTimestampOutOfRange;
        const IMPORTED_EVENT_TIMESTAMP_MUST_NOT_ADVANCE: $status = $status::ImportedEventTimestampMustNotAdvance;
    };
}

impl Event for Account {
    chain_statuses!(CreateAccountStatus);

    type Found = ();

    fn is_linked(&self) -> bool {
        self.flags.contains(AccountFlags::LINKED)
    }

    fn is_imported(&self) -> bool {
        self.flags.contains(AccountFlags::IMPORTED)
    }

    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Nothing: an account of this very request may be the one that is meant.
    fn look_up(&self, _books: &Books) {}

    fn create(&self, books: &mut Books, _found: (), stamp: Stamp) -> CreateResult<CreateAccountStatus> {
        create_account::create(books, self, stamp)
    }

    /// No account's status is transient.
    fn burn(&self, _books: &mut Books, _status: CreateAccountStatus) {}
}

impl Event for Transfer {
    chain_statuses!(CreateTransferStatus);

    type Found = Accounts;

    fn is_linked(&self) -> bool {
        self.flags.contains(TransferFlags::LINKED)
    }

    fn is_imported(&self) -> bool {
        self.flags.contains(TransferFlags::IMPORTED)
    }

    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn look_up(&self, books: &Books) -> Accounts {
        Accounts { debit: books.fetch(self.debit_account_id), credit: books.fetch(self.credit_account_id) }
    }

    fn create(&self, books: &mut Books, found: Accounts, stamp: Stamp) -> CreateResult<CreateTransferStatus> {
        create_transfer::create(books, self, found, stamp)
    }

    fn burn(&self, books: &mut Books, status: CreateTransferStatus) {
        if status.is_transient() && !planted::is(Bug::BurntNotRemembered) {
            books.burn(self.id);
        }
    }
}
