//! What an import would do, worked out before anything is asked of the cluster.
//!
//! ```text
//!     file ── parse ──► Plan { accounts, transfers, what does not add up } ── dry run ──► print
//!                                                                          └─ run.rs ──► create, then compare
//! ```
//!
//! Laws
//! * A plan is a function of the file alone: the same file gives the same ids, in the same order. That is what makes an
//!   import safe to repeat after a crash: what is already there answers `exists`.
//! * Sums are exact integers in the ledger's smallest unit.
//!
//! Not here: reading files and talking to a cluster (`run.rs`); one format's meaning (`berka.rs`, `csv.rs`).

use std::collections::BTreeMap;

use jangbu_ledger::{Account, AccountId, Transfer, TransferFlags};
use serde::Serialize;

/// All that a file asks for, and all that is wrong with it.
#[derive(Debug, Default)]
pub struct Plan {
    pub rows_count: u64,
    pub accounts: Vec<Account>,
    /// In the order in which they are to be created, each with the line of the file it comes from.
    pub transfers: Vec<(u64, Transfer)>,
    /// Rows that cannot be loaded as they stand. An import with any of them does not start.
    pub refused: Vec<RefusedRow>,
    /// Rows whose recorded balance does not follow. They are loaded all the same: the amount is what counts.
    pub disagreements: Vec<Disagreement>,
    /// For the reader who goes through each day first fit, the number of rows that would not follow.
    pub disagreements_first_fit: Option<usize>,
    /// Days with too many rows to be searched for their best order.
    pub days_too_long: usize,
    /// Accounts of which the file records a balance.
    pub recorded: Vec<RecordedBalance>,
    /// Decimal places between the file's unit and the ledger's.
    pub scale: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedRow {
    pub line: u64,
    pub reason: String,
}

/// A row whose recorded balance does not follow from the row before it, in any order of its account's day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub line: u64,
    /// As the file names them.
    pub transfer: u64,
    pub account: u64,
    /// YYYYMMDD.
    pub date: u32,
    /// The recorded balance of the row before it, in the best order found.
    pub before: i128,
    pub change: i128,
    pub recorded: i128,
}

impl Disagreement {
    pub fn difference(&self) -> i128 {
        self.recorded - (self.before + self.change)
    }
}

/// The balance that the file records for an account at its end; credits less debits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedBalance {
    pub account_id: AccountId,
    pub balance: i128,
}

/// What an account's transfers sum up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub debits: u128,
    pub credits: u128,
}

impl Sums {
    pub fn balance(&self) -> i128 {
        self.credits as i128 - self.debits as i128
    }
}

/// What goes in must come out: the totals to compare with the source's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlTotals {
    pub rows: u64,
    pub accounts: u64,
    pub transfers: u64,
    /// Per ledger: transfers, and the sum of their amounts.
    pub ledgers: BTreeMap<u32, (u64, u128)>,
}

impl Plan {
    pub fn control_totals(&self) -> ControlTotals {
        let mut ledgers = BTreeMap::new();
        for (_, transfer) in &self.transfers {
            let (count, amount): &mut (u64, u128) = ledgers.entry(transfer.ledger).or_default();
            *count += 1;
            *amount = amount.saturating_add(transfer.amount.0);
        }
        ControlTotals {
            rows: self.rows_count,
            accounts: self.accounts.len() as u64,
            transfers: self.transfers.len() as u64,
            ledgers,
        }
    }

    /// The exact sums per account; `None` where they can't be told beforehand, because a transfer is not a plain one.
    pub fn sums(&self) -> Option<BTreeMap<AccountId, Sums>> {
        let mut sums: BTreeMap<AccountId, Sums> = BTreeMap::new();
        for (_, transfer) in &self.transfers {
            if transfer.flags.without_linked() != TransferFlags::NONE {
                return None;
            }
            let debit = &mut sums.entry(transfer.debit_account_id).or_default().debits;
            *debit = debit.checked_add(transfer.amount.0)?;
            let credit = &mut sums.entry(transfer.credit_account_id).or_default().credits;
            *credit = credit.checked_add(transfer.amount.0)?;
        }
        Some(sums)
    }

    /// Accounts whose recorded end balance is not the sum of their amounts: (account, recorded, sum).
    pub fn end_balances_that_differ(&self) -> Vec<(AccountId, i128, i128)> {
        let Some(sums) = self.sums() else { return Vec::new() };
        self.recorded
            .iter()
            .map(|recorded| {
                (recorded.account_id, recorded.balance, sums.get(&recorded.account_id).map_or(0, Sums::balance))
            })
            .filter(|(_, recorded, sum)| recorded != sum)
            .collect()
    }
}

trait WithoutLinked {
    fn without_linked(self) -> TransferFlags;
}

impl WithoutLinked for TransferFlags {
    fn without_linked(self) -> TransferFlags {
        TransferFlags(self.0 & !TransferFlags::LINKED.0)
    }
}

/// An id made from a source's own: the source's name (up to six letters), what it is, and its number there. Packed, not hashed:
/// two different rows cannot meet, and a person can read it in hexadecimal.
///
/// ```text
///     127          80 79     64 63                     0
///     | source, ASCII | kind   | the source's own number |
/// ```
pub const fn source_id(source: &str, kind: u16, number: u64) -> u128 {
    let bytes = source.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= 6, "a source's name has one to six letters");
    let mut name: u128 = 0;
    let mut i = 0;
    while i < 6 {
        name = name << 8 | if i < bytes.len() { bytes[i] as u128 } else { 0 };
        i += 1;
    }
    name << 80 | (kind as u128) << 64 | number as u128
}

#[cfg(test)]
mod tests {
    use super::*;
    use jangbu_ledger::Amount;

    #[test]
    fn ids_keep_source_kind_and_number_apart() {
        let id = source_id("berka", 2, 0xabcd);
        assert_eq!(format!("{id:032x}"), "6265726b61000002000000000000abcd");
    }

    #[test]
    fn sums_cannot_be_foretold_once_a_transfer_is_not_plain() {
        let transfer = Transfer { amount: Amount(5), flags: TransferFlags::PENDING, ..Transfer::default() };
        let plan = Plan { transfers: vec![(2, transfer)], ..Plan::default() };
        assert_eq!(plan.sums(), None);
    }
}
