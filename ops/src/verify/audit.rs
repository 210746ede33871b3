//! Goes through everything that happened, event by event, and checks that money moved once and as acknowledged.
//!
//! Pure: events in, findings out. An independent second opinion, from what any client can see: it shares no code with the rules.
//!
//! To see that no id moves money twice, ids must be remembered: half a gibibyte of them at once. Where there are more, the events are gone through again for each further share of
//! the ids. Besides, memory holds the accounts, the open holds, and what was acknowledged.
//!
//! Laws that are checked
//! * Events come in strictly increasing time.
//! * Each transfer id moves money once.
//! * An account's balances after an event are those after its last event, changed by this event and nothing else.
//! * Every acknowledged transfer is there, once, as it was acknowledged.
//!
//! Not here: asking for the events (`mod.rs`).

use std::collections::{HashMap, HashSet};

use jangbu_client::ChangeEvent;
use jangbu_ledger::{Account, AccountId, EventKind, Transfer, TransferId};

/// What an account's four sums are; signed, so that a wrong one shows instead of overflowing.
type Sums = [i128; 4];

#[derive(Default)]
pub struct Audit {
    acknowledged: HashMap<TransferId, Transfer>,
    /// Acknowledged transfers that have been seen.
    seen_count: u64,
    /// Of this share.
    seen: HashSet<TransferId>,
    /// Which share of the ids is remembered, of how many.
    share: u64,
    shares: u64,
    balances: HashMap<AccountId, Sums>,
    /// Whether every account begins at zero: the audit has seen everything from the first event on.
    from_the_start: bool,
    /// What open holds hold.
    holds: HashMap<TransferId, i128>,
    last_timestamp: u64,
    pub events_count: u64,
    /// Acknowledged transfers that were in no event.
    pub lost: Vec<TransferId>,
    pub doubled: Vec<TransferId>,
    /// Acknowledged one way, recorded another.
    pub altered: Vec<TransferId>,
    /// Accounts whose balances changed by something else than their events.
    pub unexplained: Vec<AccountId>,
    pub out_of_order_count: u64,
}

/// Ids that are remembered at once: about half a gibibyte.
pub const IDS_AT_ONCE: u64 = 12 << 20;

impl Audit {
    /// `from_the_start`: the first event given is the first that ever happened. `shares`: how often all events will be given.
    pub fn new(acknowledged: Vec<Transfer>, from_the_start: bool, shares: u64) -> Audit {
        assert!(shares > 0, "the events are given at least once");
        let acknowledged = acknowledged.into_iter().map(|transfer| (transfer.id, transfer)).collect();
        Audit { acknowledged, from_the_start, shares, ..Audit::default() }
    }

    pub fn event(&mut self, event: &ChangeEvent) {
        if event.kind != EventKind::Expired && self.is_of_share(event.transfer.id) {
            self.transfer(&event.transfer);
        }
        if self.share == 0 {
            self.events_count += 1;
            self.out_of_order_count += u64::from(event.timestamp <= self.last_timestamp);
            self.last_timestamp = event.timestamp;
            self.balances(event);
        }
    }

    /// All events were given once. True if they are to be given again.
    pub fn all_were_given(&mut self) -> bool {
        let lost = self.acknowledged.keys().filter(|id| self.is_of_share(**id) && !self.seen.contains(id));
        let lost: Vec<TransferId> = lost.copied().collect();
        self.lost.extend(lost);
        self.lost.sort_unstable();
        self.seen.clear();
        self.share += 1;
        self.share < self.shares
    }

    fn is_of_share(&self, id: TransferId) -> bool {
        id.0 % u128::from(self.shares) == u128::from(self.share)
    }

    pub fn acknowledged_seen(&self) -> u64 {
        self.seen_count
    }

    fn transfer(&mut self, transfer: &Transfer) {
        if !self.seen.insert(transfer.id) {
            self.doubled.push(transfer.id);
            return;
        }
        if let Some(acknowledged) = self.acknowledged.get(&transfer.id) {
            self.seen_count += 1;
            if acknowledged != transfer {
                self.altered.push(transfer.id);
            }
        }
    }

    fn balances(&mut self, event: &ChangeEvent) {
        let Some([pending, posted]) = self.effect(event) else { return };
        let sides = [(&event.debit_account, [pending, posted, 0, 0]), (&event.credit_account, [0, 0, pending, posted])];
        for (account, change) in sides {
            let after = sums(account);
            let before = self.balances.insert(account.id, after);
            let Some(before) = before.or(self.from_the_start.then_some([0; 4])) else { continue };
            if (0..4).any(|i| before[i].wrapping_add(change[i]) != after[i]) {
                self.unexplained.push(account.id);
            }
        }
    }

    /// By how much an event changes the pending and the posted sum on either side. `None`: it resolves a hold from before
    /// the audit's first event, whose amount is not known here.
    fn effect(&mut self, event: &ChangeEvent) -> Option<[i128; 2]> {
        let amount = event.transfer.amount.0 as i128;
        match event.kind {
            EventKind::SinglePhase => Some([0, amount]),
            EventKind::Pending => {
                self.holds.insert(event.transfer.id, amount);
                Some([amount, 0])
            }
            EventKind::Posted => self.release(event, event.transfer.pending_id).map(|held| [-held, amount]),
            EventKind::Voided => self.release(event, event.transfer.pending_id).map(|held| [-held, 0]),
            EventKind::Expired => self.release(event, event.transfer.id).map(|held| [-held, 0]),
        }
    }

    fn release(&mut self, event: &ChangeEvent, hold: TransferId) -> Option<i128> {
        let held = self.holds.remove(&hold);
        if held.is_none() {
            if self.from_the_start {
                self.unexplained.push(event.debit_account.id); // resolved twice, or never held
            }
            for account in [&event.debit_account, &event.credit_account] {
                self.balances.insert(account.id, sums(account));
            }
        }
        held
    }
}

fn sums(account: &Account) -> Sums {
    [account.debits_pending, account.debits_posted, account.credits_pending, account.credits_posted]
        .map(|amount| amount.0 as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jangbu_ledger::Amount;

    fn account(id: u128, sums: [u128; 4]) -> Account {
        let [debits_pending, debits_posted, credits_pending, credits_posted] = sums.map(Amount);
        let id = AccountId(id);
        Account { id, debits_pending, debits_posted, credits_pending, credits_posted, ..Account::default() }
    }

    fn event(kind: EventKind, transfer: Transfer, debit: [u128; 4], credit: [u128; 4]) -> ChangeEvent {
        ChangeEvent {
            timestamp: transfer.timestamp,
            kind,
            transfer,
            debit_account: account(1, debit),
            credit_account: account(2, credit),
        }
    }

    fn transfer(id: u128, amount: u128) -> Transfer {
        Transfer { id: TransferId(id), amount: Amount(amount), timestamp: id as u64, ..Transfer::default() }
    }

    fn audited(acknowledged: &[Transfer], events: &[ChangeEvent]) -> Audit {
        let [at_once, in_shares] = [1, 3].map(|shares| {
            let mut audit = Audit::new(acknowledged.to_vec(), true, shares);
            for _ in 0..shares {
                events.iter().for_each(|event| audit.event(event));
                audit.all_were_given();
            }
            audit
        });
        let findings = |audit: &Audit| (audit.lost.clone(), audit.doubled.clone(), audit.altered.clone());
        assert_eq!(findings(&at_once), findings(&in_shares), "the shares find what is found at once");
        assert_eq!((&at_once.unexplained, at_once.events_count), (&in_shares.unexplained, in_shares.events_count));
        at_once
    }

    fn payment() -> ChangeEvent {
        event(EventKind::SinglePhase, transfer(10, 5), [0, 5, 0, 0], [0, 0, 0, 5])
    }

    #[test]
    fn what_was_acknowledged_and_is_there_once_is_in_order() {
        let audit = audited(&[transfer(10, 5)], &[payment()]);
        assert_eq!((audit.acknowledged_seen(), audit.lost.len(), audit.doubled.len()), (1, 0, 0));
        assert!(audit.altered.is_empty() && audit.unexplained.is_empty());
    }

    #[test]
    fn an_acknowledged_transfer_that_is_nowhere_is_lost() {
        assert_eq!(audited(&[transfer(10, 5), transfer(11, 5)], &[payment()]).lost, [TransferId(11)]);
    }

    #[test]
    fn one_id_with_two_events_is_doubled() {
        let again = ChangeEvent {
            timestamp: 20,
            debit_account: account(1, [0, 10, 0, 0]),
            credit_account: account(2, [0, 0, 0, 10]),
            ..payment()
        };
        assert_eq!(audited(&[], &[payment(), again]).doubled, [TransferId(10)]);
    }

    #[test]
    fn an_amount_other_than_acknowledged_is_altered() {
        assert_eq!(audited(&[transfer(10, 6)], &[payment()]).altered, [TransferId(10)]);
    }

    #[test]
    fn a_balance_that_moved_twice_for_one_event_is_unexplained() {
        let moved_twice = event(EventKind::SinglePhase, transfer(10, 5), [0, 10, 0, 0], [0, 0, 0, 5]);
        assert_eq!(audited(&[], &[moved_twice]).unexplained, [AccountId(1)]);
    }

    #[test]
    fn holds_posted_in_part_voided_and_expired_are_followed() {
        let resolve = |id, pending, amount| Transfer { pending_id: TransferId(pending), ..transfer(id, amount) };
        let events = [
            event(EventKind::Pending, transfer(1, 9), [9, 0, 0, 0], [0, 0, 9, 0]),
            event(EventKind::Posted, resolve(2, 1, 4), [0, 4, 0, 0], [0, 0, 0, 4]),
            event(EventKind::Pending, transfer(3, 5), [5, 4, 0, 0], [0, 0, 5, 4]),
            event(EventKind::Voided, resolve(4, 3, 5), [0, 4, 0, 0], [0, 0, 0, 4]),
            event(EventKind::Pending, transfer(5, 2), [2, 4, 0, 0], [0, 0, 2, 4]),
            ChangeEvent { timestamp: 9, ..event(EventKind::Expired, transfer(5, 2), [0, 4, 0, 0], [0, 0, 0, 4]) },
        ];
        let audit = audited(&[], &events);
        assert!(audit.unexplained.is_empty() && audit.doubled.is_empty(), "{:?}", audit.unexplained);
        assert_eq!((audit.events_count, audit.out_of_order_count), (6, 0));
    }

    #[test]
    fn a_hold_resolved_twice_is_unexplained() {
        let resolve = |id| Transfer { pending_id: TransferId(1), ..transfer(id, 9) };
        let events = [
            event(EventKind::Pending, transfer(1, 9), [9, 0, 0, 0], [0, 0, 9, 0]),
            event(EventKind::Posted, resolve(2), [0, 9, 0, 0], [0, 0, 0, 9]),
            event(EventKind::Voided, resolve(3), [0, 9, 0, 0], [0, 0, 0, 9]),
        ];
        assert_eq!(audited(&[], &events).unexplained, [AccountId(1)]);
    }

    #[test]
    fn an_audit_that_begins_later_takes_the_first_balance_it_sees() {
        let mut audit = Audit::new(Vec::new(), false, 1);
        audit.event(&event(EventKind::SinglePhase, transfer(10, 5), [0, 105, 0, 0], [0, 0, 0, 205]));
        assert!(audit.unexplained.is_empty());
    }
}
