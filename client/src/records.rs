//! What accounts and transfers have in common for one who asks for them; and what the answer to a repeated chain means.
//!
//! A chain that is asked for again after it was carried out answers `exists` for its first event and `linked_event_failed`
//! for the others: read by itself, that looks like a chain that failed. So after a doubt the others are looked up, and those
//! that are there answer `exists` as well.

use jangbu_ledger::{
    Account, AccountFlags, CreateAccountStatus, CreateResult, CreateTransferStatus, Transfer, TransferFlags,
};
use jangbu_proto::convert::CreateStatus;

pub(crate) trait Record: Copy {
    type Status: CreateStatus + PartialEq;
    const EXISTS: Self::Status;
    const LINKED_EVENT_FAILED: Self::Status;

    fn id(&self) -> u128;
    fn timestamp(&self) -> u64;
    fn is_linked(&self) -> bool;

    /// Is `found` what was made of this event? Beyond the id it compares what an event always hands on unchanged.
    fn became(&self, found: &Self) -> bool;
}

impl Record for Account {
    type Status = CreateAccountStatus;
    const EXISTS: CreateAccountStatus = CreateAccountStatus::Exists;
    const LINKED_EVENT_FAILED: CreateAccountStatus = CreateAccountStatus::LinkedEventFailed;

    fn id(&self) -> u128 {
        self.id.0
    }

    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn is_linked(&self) -> bool {
        self.flags.contains(AccountFlags::LINKED)
    }

    fn became(&self, found: &Self) -> bool {
        // It may have been closed since.
        let flags = self.flags.without(AccountFlags::CLOSED) == found.flags.without(AccountFlags::CLOSED);
        flags && (self.id, self.ledger, self.code) == (found.id, found.ledger, found.code)
    }
}

impl Record for Transfer {
    type Status = CreateTransferStatus;
    const EXISTS: CreateTransferStatus = CreateTransferStatus::Exists;
    const LINKED_EVENT_FAILED: CreateTransferStatus = CreateTransferStatus::LinkedEventFailed;

    fn id(&self) -> u128 {
        self.id.0
    }

    fn timestamp(&self) -> u64 {
        self.timestamp
    }

    fn is_linked(&self) -> bool {
        self.flags.contains(TransferFlags::LINKED)
    }

    fn became(&self, found: &Self) -> bool {
        // A post or void may leave the rest to be inherited.
        let inherits = TransferFlags::POST_PENDING_TRANSFER.with(TransferFlags::VOID_PENDING_TRANSFER);
        let sides = |transfer: &Self| (transfer.debit_account_id, transfer.credit_account_id, transfer.code);
        (self.id, self.flags, self.pending_id) == (found.id, found.flags, found.pending_id)
            && (self.flags.intersects(inherits) || sides(self) == sides(found))
    }
}

/// The events whose answer is open after a repeated request: those that failed only because their chain has one that
/// exists already.
pub(crate) fn open_after_repeat<R: Record>(events: &[R], results: &[CreateResult<R::Status>]) -> Vec<usize> {
    let mut open = Vec::new();
    for chain in chains(events) {
        if results[chain.clone()].iter().any(|result| result.status == R::EXISTS) {
            open.extend(chain.filter(|index| results[*index].status == R::LINKED_EVENT_FAILED));
        }
    }
    open
}

/// Answers `exists` to those of the open events that were found.
pub(crate) fn settle<R: Record>(events: &[R], open: &[usize], found: &[R], results: &mut [CreateResult<R::Status>]) {
    for index in open {
        if let Some(found) = found.iter().find(|found| events[*index].became(found)) {
            results[*index] = CreateResult { status: R::EXISTS, timestamp: found.timestamp() };
        }
    }
}

/// The runs of events that succeed or fail together: those with `linked`, and the first after them without.
fn chains<R: Record>(events: &[R]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        start += events[start..].iter().position(Record::is_linked)?;
        let linked_count = events[start..].iter().take_while(|event| event.is_linked()).count();
        let end = (start + linked_count + 1).min(events.len());
        Some(std::mem::replace(&mut start, end)..end)
    })
}

#[cfg(test)]
mod tests {
    use jangbu_ledger::TransferId;

    use super::*;

    fn transfer(id: u128, linked: bool) -> Transfer {
        let flags = if linked { TransferFlags::LINKED } else { TransferFlags::NONE };
        Transfer { id: TransferId(id), flags, ..Transfer::default() }
    }

    fn results(statuses: &[CreateTransferStatus]) -> Vec<CreateResult<CreateTransferStatus>> {
        statuses.iter().map(|status| CreateResult { status: *status, timestamp: 1 }).collect()
    }

    #[test]
    fn chains_are_runs_of_linked_events_and_the_one_that_closes_them() {
        let found = |linked: &[bool]| {
            let events: Vec<_> = (1..).zip(linked).map(|(id, linked)| transfer(id, *linked)).collect();
            chains(&events).collect::<Vec<_>>()
        };
        let (yes, no) = (true, false);
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[no, no]), []);
        assert_eq!(found(&[no, yes, yes, no, no, yes, no]), [1..4, 5..7]);
        assert_eq!(found(&[yes, no, yes]), [0..2, 2..3], "an open chain ends with the request");
    }

    #[test]
    fn a_repeated_chain_that_was_carried_out_exists_as_a_whole() {
        use CreateTransferStatus::{Created, ExceedsCredits, Exists, LinkedEventFailed};
        let events = [(1, true), (2, true), (3, false), (4, false), (5, true), (6, false)];
        let events = events.map(|(id, linked)| transfer(id, linked));
        let mut results =
            results(&[Exists, LinkedEventFailed, LinkedEventFailed, Created, LinkedEventFailed, ExceedsCredits]);
        let open = open_after_repeat(&events, &results);
        assert_eq!(open, [1, 2], "the other chain really failed");
        let found = [2, 3].map(|id| Transfer { timestamp: 90 + id as u64, ..events[id as usize - 1] });
        settle(&events, &open, &found, &mut results);
        assert_eq!(results[1], CreateResult { status: Exists, timestamp: 92 });
        assert_eq!(results[2], CreateResult { status: Exists, timestamp: 93 });
        assert_eq!(results[4].status, LinkedEventFailed);
    }

    #[test]
    fn what_was_found_under_an_id_must_be_what_was_asked() {
        let mut results = results(&[CreateTransferStatus::Exists, CreateTransferStatus::LinkedEventFailed]);
        let events = [transfer(1, true), transfer(2, false)];
        let other = Transfer { code: 9, ..events[1] };
        settle(&events, &[1], &[other], &mut results);
        assert_eq!(results[1].status, CreateTransferStatus::LinkedEventFailed);
    }
}
