//! What the callers asked, and what they were told: all that a judge needs to know of the client's side.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use jangbu_ledger::{CreateTransferStatus, Transfer, TransferId};

/// What became of a payment, as far as its caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Asked, and no answer that settles it: it may have been done, or may yet be.
    Unknown,
    /// It was done, and bears this timestamp.
    Acknowledged { timestamp: u64 },
    /// The rules said no.
    Refused(CreateTransferStatus),
    /// The cluster said that nothing was done.
    NotDone,
}

/// Every payment of a test. Shared by callers, and handed to the judge.
#[derive(Debug, Default)]
pub struct Journal {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    payments: BTreeMap<TransferId, (Transfer, Fate)>,
    acknowledged_count: usize,
    troubles: Vec<String>,
}

impl Journal {
    /// Before the first attempt: whatever happens from here on, this id was asked.
    pub fn asked(&self, transfer: Transfer) {
        let before = self.inner().payments.insert(transfer.id, (transfer, Fate::Unknown));
        assert!(before.is_none(), "a test asks each id once; asking again is the judge's");
    }

    pub fn told(&self, id: TransferId, fate: Fate) {
        let mut inner = self.inner();
        inner.acknowledged_count += usize::from(matches!(fate, Fate::Acknowledged { .. }));
        let payment = inner.payments.get_mut(&id).expect("only what was asked is answered");
        assert!(matches!(payment.1, Fate::Unknown), "{id} was told {:?} and then {fate:?}", payment.1);
        payment.1 = fate;
    }

    /// The answer to one event of a request.
    pub fn answered(&self, id: TransferId, status: CreateTransferStatus, timestamp: u64) -> Fate {
        let fate = match status {
            // `exists` to an id of our own is the answer to a retry: done, by an earlier attempt.
            CreateTransferStatus::Created | CreateTransferStatus::Exists => Fate::Acknowledged { timestamp },
            refused => Fate::Refused(refused),
        };
        self.told(id, fate);
        fate
    }

    /// A call that failed, in the caller's words. Some tests allow none.
    pub fn trouble(&self, words: String) {
        self.inner().troubles.push(words);
    }

    pub fn troubles(&self) -> Vec<String> {
        self.inner().troubles.clone()
    }

    pub fn acknowledged_count(&self) -> usize {
        self.inner().acknowledged_count
    }

    pub fn payments(&self) -> Vec<(Transfer, Fate)> {
        self.inner().payments.values().copied().collect()
    }

    /// In ascending order of id, which for one caller's ids is the order in which it asked.
    pub fn unknown(&self) -> Vec<Transfer> {
        self.inner()
            .payments
            .values()
            .filter(|(_, fate)| *fate == Fate::Unknown)
            .map(|(transfer, _)| *transfer)
            .collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A caller that panicked fails the test by itself; what it wrote before is still true.
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
