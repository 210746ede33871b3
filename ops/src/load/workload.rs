//! What a load asks for: pure, and from a seed.
//!
//! Laws
//! * The same shape and seed ask for the same money between the same accounts; only ids differ.
//! * A hold is posted or voided once, in full, by the client that made it, and only after it was acknowledged.

use jangbu_ledger::{AccountId, Amount, Transfer, TransferFlags, TransferId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Arguments;
use crate::import::plan::source_id;

pub const ACCOUNT_CODE: u16 = 1;
const TRANSFER_CODE: u16 = 1;
const SOURCE: &str = "load";

/// What kind of load.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub accounts: u64,
    pub batch: u32,
    /// Shares in millionths.
    pub hot: u32,
    pub two_phase: u32,
    pub read: u32,
    pub ledger: u32,
    pub run_id: u128,
}

impl Shape {
    pub fn of(arguments: &Arguments, run_id: u128) -> Shape {
        Shape {
            accounts: arguments.accounts,
            batch: arguments.batch,
            hot: arguments.hot,
            two_phase: arguments.two_phase,
            read: arguments.read,
            ledger: arguments.ledger,
            run_id,
        }
    }

    /// The accounts of one ledger are the same in every run.
    pub fn account_id(&self, number: u64) -> AccountId {
        AccountId(source_id(SOURCE, 1, u64::from(self.ledger) << 32 | number))
    }
}

/// One client's stream of requests.
pub struct Workload {
    shape: Shape,
    chance: StdRng,
    /// Holds that were acknowledged and not yet posted or voided.
    holds: Vec<Transfer>,
}

/// Holds that a client keeps open at most: beyond, it posts or voids before it holds more.
const HOLDS_MAX: usize = 1_000;

impl Workload {
    pub fn new(shape: Shape, seed: u64) -> Workload {
        Workload { shape, chance: StdRng::seed_from_u64(seed), holds: Vec::new() }
    }

    /// Is the next request an inquiry?
    pub fn is_read(&mut self) -> bool {
        self.happens(self.shape.read)
    }

    /// As many accounts as a request has transfers, at most a hundred: a page of balances.
    pub fn accounts_to_read(&mut self) -> Vec<AccountId> {
        (0..self.shape.batch.min(100)).map(|_| self.account()).collect()
    }

    pub fn transfers(&mut self, next_id: impl Fn() -> u128) -> Vec<Transfer> {
        (0..self.shape.batch).map(|_| self.transfer(TransferId(next_id()))).collect()
    }

    /// A hold that the cluster acknowledged can be posted or voided from now on.
    pub fn acknowledged(&mut self, transfer: &Transfer) {
        if transfer.flags.contains(TransferFlags::PENDING) {
            self.holds.push(*transfer);
        }
    }

    fn transfer(&mut self, id: TransferId) -> Transfer {
        if !self.happens(self.shape.two_phase) {
            return self.payment(id, TransferFlags::NONE);
        }
        let resolves = self.holds.len() >= HOLDS_MAX || (!self.holds.is_empty() && self.chance.random_range(0..2) == 0);
        if !resolves {
            return self.payment(id, TransferFlags::PENDING);
        }
        let index = self.chance.random_range(0..self.holds.len());
        let hold = self.holds.swap_remove(index);
        // Of four holds three are paid and one is given back.
        let flags = match self.chance.random_range(0..4) {
            0 => TransferFlags::VOID_PENDING_TRANSFER,
            _ => TransferFlags::POST_PENDING_TRANSFER,
        };
        // Every field is spelt out as it will be recorded, so that a verification can compare whole records.
        Transfer { id, pending_id: hold.id, flags, timestamp: 0, ..hold }
    }

    fn payment(&mut self, id: TransferId, flags: TransferFlags) -> Transfer {
        let debit = if self.happens(self.shape.hot) { self.shape.account_id(0) } else { self.account() };
        let credit = loop {
            let account = self.account();
            if account != debit {
                break account;
            }
        };
        Transfer {
            id,
            debit_account_id: debit,
            credit_account_id: credit,
            amount: Amount(u128::from(self.chance.random_range(1..=100_000u32))),
            user_data_128: self.shape.run_id,
            ledger: self.shape.ledger,
            code: TRANSFER_CODE,
            flags,
            ..Transfer::default()
        }
    }

    fn account(&mut self) -> AccountId {
        let number = self.chance.random_range(0..self.shape.accounts);
        self.shape.account_id(number)
    }

    fn happens(&mut self, share: u32) -> bool {
        share > 0 && self.chance.random_range(0..1_000_000) < share
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use super::*;

    fn shape() -> Shape {
        Shape { accounts: 10, batch: 50, hot: 500_000, two_phase: 400_000, read: 0, ledger: 7, run_id: 9 }
    }

    fn ids() -> impl Fn() -> u128 {
        let next = Cell::new(0);
        move || {
            next.set(next.get() + 1);
            next.get()
        }
    }

    #[test]
    fn the_same_seed_asks_for_the_same_money() {
        let ask = |seed| Workload::new(shape(), seed).transfers(ids());
        assert_eq!(ask(1), ask(1));
        assert_ne!(ask(1), ask(2));
    }

    #[test]
    fn shares_are_kept_and_nobody_pays_himself() {
        let mut workload = Workload::new(Shape { batch: 8_000, ..shape() }, 1);
        let transfers = workload.transfers(ids());
        let hot = transfers.iter().filter(|t| t.debit_account_id == shape().account_id(0)).count();
        let held = transfers.iter().filter(|t| t.flags.contains(TransferFlags::PENDING)).count();
        assert!((4_100..4_700).contains(&hot), "half, and a tenth of the other half: {hot}");
        assert!((2_900..3_500).contains(&held), "no hold is acknowledged yet, so all of the 40 % are new: {held}");
        assert!(transfers.iter().all(|t| t.debit_account_id != t.credit_account_id));
    }

    #[test]
    fn a_hold_is_resolved_once_in_full_and_only_after_it_was_acknowledged() {
        let mut workload = Workload::new(Shape { two_phase: 1_000_000, ..shape() }, 1);
        let next_id = ids();
        let holds = workload.transfers(&next_id);
        assert!(holds.iter().all(|t| t.flags == TransferFlags::PENDING));
        holds.iter().for_each(|hold| workload.acknowledged(hold));
        let mut resolved = BTreeSet::new();
        for _ in 0..10 {
            for transfer in workload.transfers(&next_id).iter().filter(|t| t.pending_id != TransferId::ZERO) {
                let hold = holds.iter().find(|hold| hold.id == transfer.pending_id).expect("one of ours");
                assert_eq!(transfer.amount, hold.amount);
                assert!(resolved.insert(transfer.pending_id));
            }
        }
        assert_eq!(resolved.len(), holds.len());
    }
}
