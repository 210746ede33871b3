//! The laws in code: debits equal credits; no account breaks its limit.
//!
//! Recounted over all accounts, so that the check owes nothing to the code that kept the balances.

use alloc::collections::BTreeMap;
use core::fmt;

use crate::{Account, AccountFlags, Amount, Books};

/// A sum of amounts, which may be larger than any amount: there are up to 2^32 accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum {
    /// How often 2^128 went into it.
    high: u32,
    low: u128,
}

impl Sum {
    pub fn add(&mut self, amount: Amount) {
        let (low, carry) = self.low.overflowing_add(amount.0);
        self.low = low;
        self.high += u32::from(carry);
    }

    /// `None` where it is larger than any amount.
    pub fn amount(self) -> Option<Amount> {
        (self.high == 0).then_some(Amount(self.low))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.high {
            0 => self.low.fmt(f),
            high => write!(f, "{high} x 2^128 + {}", self.low),
        }
    }
}

/// The sums over all accounts of one ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub accounts: usize,
    pub debits_pending: Sum,
    pub debits_posted: Sum,
    pub credits_pending: Sum,
    pub credits_posted: Sum,
}

impl Totals {
    pub fn add(&mut self, account: &Account) {
        self.accounts += 1;
        self.debits_pending.add(account.debits_pending);
        self.debits_posted.add(account.debits_posted);
        self.credits_pending.add(account.credits_pending);
        self.credits_posted.add(account.credits_posted);
    }

    /// The first law: what was debited was credited.
    pub fn balance(&self) -> bool {
        self.debits_pending == self.credits_pending && self.debits_posted == self.credits_posted
    }
}

impl Account {
    /// Does it break the limit that its flags set? Pending counts on the side that is limited, and not on the other.
    pub fn is_over_limit(&self) -> bool {
        let over = |pending: Amount, posted: Amount, limit: Amount| match pending.checked_add(posted) {
            Some(sum) => sum > limit,
            None => true,
        };
        (self.flags.contains(AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS)
            && over(self.debits_pending, self.debits_posted, self.credits_posted))
            || (self.flags.contains(AccountFlags::CREDITS_MUST_NOT_EXCEED_DEBITS)
                && over(self.credits_pending, self.credits_posted, self.debits_posted))
    }
}

impl Books {
    /// The sums of each ledger, recounted over all accounts.
    pub fn totals(&self) -> BTreeMap<u32, Totals> {
        let mut totals = BTreeMap::<u32, Totals>::new();
        for account in self.accounts() {
            totals.entry(account.ledger).or_default().add(account);
        }
        totals
    }

    /// The accounts that break the limit their flags set, recounted. Lawful books have none.
    pub fn accounts_over_limit(&self) -> usize {
        self.accounts().iter().filter(|account| account.is_over_limit()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_may_be_larger_than_any_amount() {
        let mut sum = Sum::default();
        sum.add(Amount(5));
        assert_eq!(sum.amount(), Some(Amount(5)));
        sum.add(Amount::MAX);
        assert_eq!(sum.amount(), None);
        assert_eq!(alloc::format!("{sum}"), "1 x 2^128 + 4");
    }

    #[test]
    fn totals_add_up_all_accounts_and_see_what_does_not_balance() {
        let debited = Account { debits_pending: Amount(2), debits_posted: Amount(3), ..Account::default() };
        let credited = Account { credits_pending: Amount(2), credits_posted: Amount(3), ..Account::default() };
        let mut totals = Totals::default();
        assert!(totals.balance());
        totals.add(&debited);
        assert!(!totals.balance());
        totals.add(&credited);
        assert!(totals.balance());
        assert_eq!(totals.accounts, 2);
        let sums = [totals.debits_pending, totals.debits_posted, totals.credits_pending, totals.credits_posted];
        assert_eq!(sums.map(Sum::amount), [2, 3, 2, 3].map(|amount| Some(Amount(amount))));
        totals.add(&Account { debits_pending: Amount(1), ..Account::default() });
        assert!(!totals.balance(), "pending alone");
        totals.add(&Account { credits_pending: Amount(1), debits_posted: Amount(1), ..Account::default() });
        assert!(!totals.balance(), "posted alone");
    }

    #[test]
    fn each_ledger_has_its_own_totals_and_each_account_over_its_limit_is_counted() {
        let mut books = Books::new();
        let account = |id, ledger| Account {
            id: crate::AccountId(id),
            ledger,
            timestamp: id as u64,
            debits_posted: Amount(id),
            flags: AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS,
            ..Account::default()
        };
        for account in [account(1, 7), account(2, 7), account(3, 8)] {
            books.restore_account(account);
        }
        let totals = books.totals();
        assert_eq!(totals.keys().copied().collect::<alloc::vec::Vec<_>>(), [7, 8]);
        assert_eq!(totals[&7].debits_posted.amount(), Some(Amount(3)));
        assert_eq!(totals[&8].debits_posted.amount(), Some(Amount(3)));
        assert_eq!((totals[&7].accounts, totals[&8].accounts), (2, 1));
        assert_eq!(books.accounts_over_limit(), 3);
    }

    #[test]
    fn pending_counts_only_on_the_limited_side() {
        let account = Account {
            debits_pending: Amount(3),
            debits_posted: Amount(4),
            credits_pending: Amount(100),
            credits_posted: Amount(7),
            flags: AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS,
            ..Account::default()
        };
        assert!(!account.is_over_limit());
        assert!(Account { debits_pending: Amount(4), ..account }.is_over_limit());
        assert!(Account { debits_pending: Amount::MAX, ..account }.is_over_limit());
        assert!(!Account { debits_pending: Amount(4), flags: AccountFlags::NONE, ..account }.is_over_limit());
        let mirrored = Account { flags: AccountFlags::CREDITS_MUST_NOT_EXCEED_DEBITS, ..account };
        assert!(mirrored.is_over_limit());
        assert!(!Account { credits_pending: Amount(0), debits_posted: Amount(7), ..mirrored }.is_over_limit());
    }
}
