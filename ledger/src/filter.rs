//! What may be asked of the past.
//!
//! A zero field means: no filter on it.
//!
//! Laws
//! * A filter that makes no sense is refused with the name of the field (there is no silent empty answer).
//!
//! Not here: how an answer is found (the store's indexes), nor the order and the limit of results, which the store keeps too.

use crate::planted::{self, Bug};
use crate::{Account, AccountFlags, AccountId, Balances, Event, Slot, TIMESTAMP_MAX, Transfer};

/// The most events of one request, and the most results of one answer: what fits in 1 MiB of 128-byte records beside a header.
pub const EVENTS_MAX: usize = 8_189;

/// Why a filter is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub field: &'static str,
    pub reason: &'static str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct AccountFilterFlags(pub u32);

impl AccountFilterFlags {
    /// Transfers that debit the account.
    pub const DEBITS: AccountFilterFlags = AccountFilterFlags(1 << 0);
    /// Transfers that credit the account.
    pub const CREDITS: AccountFilterFlags = AccountFilterFlags(1 << 1);
    /// Newest first.
    pub const REVERSED: AccountFilterFlags = AccountFilterFlags(1 << 2);
    pub const ALL: AccountFilterFlags = AccountFilterFlags(0b111);

    pub const fn contains(self, flags: AccountFilterFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    pub const fn with(self, flags: AccountFilterFlags) -> AccountFilterFlags {
        AccountFilterFlags(self.0 | flags.0)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct QueryFilterFlags(pub u32);

impl QueryFilterFlags {
    /// Newest first.
    pub const REVERSED: QueryFilterFlags = QueryFilterFlags(1 << 0);
    pub const ALL: QueryFilterFlags = QueryFilterFlags(0b1);

    pub const fn contains(self, flags: QueryFilterFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// Which transfers of one account, or which of its balances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountFilter {
    pub account_id: AccountId,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    pub code: u16,
    /// Inclusive.
    pub timestamp_min: u64,
    /// Inclusive.
    pub timestamp_max: u64,
    /// 1 to `EVENTS_MAX`.
    pub limit: u32,
    pub flags: AccountFilterFlags,
}

impl AccountFilter {
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.account_id == AccountId::ZERO {
            return invalid("account_id", "must not be zero");
        }
        if self.account_id == AccountId::MAX {
            return invalid("account_id", "must not be 2^128 - 1");
        }
        validate_range(self.timestamp_min, self.timestamp_max)?;
        validate_limit(self.limit)?;
        if self.flags.0 & !AccountFilterFlags::ALL.0 != 0 {
            return invalid("flags", "has a bit that means nothing");
        }
        if self.flags.0 & AccountFilterFlags::DEBITS.with(AccountFilterFlags::CREDITS).0 == 0 {
            return invalid("flags", "must have debits, credits or both");
        }
        Ok(())
    }

    pub fn is_reversed(&self) -> bool {
        self.flags.contains(AccountFilterFlags::REVERSED)
    }

    pub fn matches(&self, transfer: &Transfer) -> bool {
        let debits = self.flags.contains(AccountFilterFlags::DEBITS) && transfer.debit_account_id == self.account_id;
        let credits = self.flags.contains(AccountFilterFlags::CREDITS) && transfer.credit_account_id == self.account_id;
        (debits || credits)
            && within(transfer.timestamp, self.timestamp_min, self.timestamp_max)
            && unset_or_equal(self.user_data_128, transfer.user_data_128)
            && unset_or_equal(self.user_data_64, transfer.user_data_64)
            && unset_or_equal(self.user_data_32, transfer.user_data_32)
            && unset_or_equal(self.code, transfer.code)
    }
}

/// Which accounts, or which transfers, by their attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryFilter {
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    pub ledger: u32,
    pub code: u16,
    /// Inclusive.
    pub timestamp_min: u64,
    /// Inclusive.
    pub timestamp_max: u64,
    /// 1 to `EVENTS_MAX`.
    pub limit: u32,
    pub flags: QueryFilterFlags,
}

impl QueryFilter {
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_range(self.timestamp_min, self.timestamp_max)?;
        validate_limit(self.limit)?;
        if self.flags.0 & !QueryFilterFlags::ALL.0 != 0 {
            return invalid("flags", "has a bit that means nothing");
        }
        Ok(())
    }

    pub fn is_reversed(&self) -> bool {
        self.flags.contains(QueryFilterFlags::REVERSED)
    }

    pub fn matches(&self, transfer: &Transfer) -> bool {
        within(transfer.timestamp, self.timestamp_min, self.timestamp_max)
            && unset_or_equal(self.user_data_128, transfer.user_data_128)
            && unset_or_equal(self.user_data_64, transfer.user_data_64)
            && unset_or_equal(self.user_data_32, transfer.user_data_32)
            && unset_or_equal(self.ledger, transfer.ledger)
            && unset_or_equal(self.code, transfer.code)
    }

    pub fn matches_account(&self, account: &Account) -> bool {
        within(account.timestamp, self.timestamp_min, self.timestamp_max)
            && unset_or_equal(self.user_data_128, account.user_data_128)
            && unset_or_equal(self.user_data_64, account.user_data_64)
            && unset_or_equal(self.user_data_32, account.user_data_32)
            && unset_or_equal(self.ledger, account.ledger)
            && unset_or_equal(self.code, account.code)
    }
}

/// Which change events, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeEventsFilter {
    /// Inclusive; the time of the event, not of the transfer.
    pub timestamp_min: u64,
    /// Inclusive; the time of the event, not of the transfer.
    pub timestamp_max: u64,
    /// 1 to `EVENTS_MAX`.
    pub limit: u32,
}

impl ChangeEventsFilter {
    pub fn validate(&self) -> Result<(), Invalid> {
        validate_range(self.timestamp_min, self.timestamp_max)?;
        validate_limit(self.limit)
    }

    /// `timestamp` is the event's.
    pub fn matches(&self, timestamp: u64) -> bool {
        within(timestamp, self.timestamp_min, self.timestamp_max)
    }
}

/// The balances of one account right after one of its transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountBalance {
    pub balances: Balances,
    /// The transfer's.
    pub timestamp: u64,
}

impl AccountBalance {
    /// The history row that `event` gives to the account at `slot`: only accounts with the flag `history` have one, and
    /// only a transfer writes one (an expiry writes none).
    pub fn after(event: &Event, slot: Slot) -> Option<AccountBalance> {
        let is_other = planted::is(Bug::HistoryOfTheOtherSide);
        let side = [&event.debit, &event.credit].into_iter().find(|side| (side.slot == slot) != is_other)?;
        let has_row = side.flags.contains(AccountFlags::HISTORY) && event.kind.records_transfer();
        has_row.then_some(AccountBalance { balances: side.balances, timestamp: event.transfer.timestamp })
    }
}

fn invalid(field: &'static str, reason: &'static str) -> Result<(), Invalid> {
    Err(Invalid { field, reason })
}

fn validate_range(timestamp_min: u64, timestamp_max: u64) -> Result<(), Invalid> {
    if timestamp_min > TIMESTAMP_MAX {
        return invalid("timestamp_min", "must be below 2^63");
    }
    if timestamp_max > TIMESTAMP_MAX {
        return invalid("timestamp_max", "must be below 2^63");
    }
    if timestamp_max != 0 && timestamp_min > timestamp_max {
        return invalid("timestamp_max", "must not be before timestamp_min");
    }
    Ok(())
}

fn validate_limit(limit: u32) -> Result<(), Invalid> {
    if limit == 0 {
        return invalid("limit", "must not be zero");
    }
    if limit as usize > EVENTS_MAX {
        return invalid("limit", "must not be above 8,189");
    }
    Ok(())
}

fn within(timestamp: u64, min: u64, max: u64) -> bool {
    timestamp >= min && (max == 0 || timestamp <= max)
}

fn unset_or_equal<T: Default + PartialEq>(wanted: T, actual: T) -> bool {
    wanted == T::default() || wanted == actual
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: AccountFilterFlags = AccountFilterFlags::DEBITS.with(AccountFilterFlags::CREDITS);

    fn of_account() -> AccountFilter {
        AccountFilter { account_id: AccountId(1), limit: 1, flags: BOTH, ..AccountFilter::default() }
    }

    fn field(validated: Result<(), Invalid>) -> &'static str {
        validated.expect_err("it is invalid").field
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_by_the_name_of_its_field() {
        let filter = of_account();
        assert_eq!(filter.validate(), Ok(()));
        assert_eq!(field(AccountFilter { account_id: AccountId::ZERO, ..filter }.validate()), "account_id");
        assert_eq!(field(AccountFilter { account_id: AccountId::MAX, ..filter }.validate()), "account_id");
        assert_eq!(field(AccountFilter { timestamp_min: TIMESTAMP_MAX + 1, ..filter }.validate()), "timestamp_min");
        assert_eq!(field(AccountFilter { limit: 0, ..filter }.validate()), "limit");
        assert_eq!(field(AccountFilter { flags: BOTH.with(AccountFilterFlags(8)), ..filter }.validate()), "flags");
        assert_eq!(field(AccountFilter { flags: AccountFilterFlags::REVERSED, ..filter }.validate()), "flags");
        assert_eq!(AccountFilter { flags: AccountFilterFlags::CREDITS, ..filter }.validate(), Ok(()));

        let filter = QueryFilter { limit: 1, ..QueryFilter::default() };
        assert_eq!(filter.validate(), Ok(()));
        assert_eq!(field(QueryFilter { timestamp_max: TIMESTAMP_MAX + 1, ..filter }.validate()), "timestamp_max");
        assert_eq!(field(QueryFilter { limit: 0, ..filter }.validate()), "limit");
        assert_eq!(field(QueryFilter { flags: QueryFilterFlags(2), ..filter }.validate()), "flags");

        let filter = ChangeEventsFilter { limit: 1, ..ChangeEventsFilter::default() };
        assert_eq!(filter.validate(), Ok(()));
        assert_eq!(
            field(ChangeEventsFilter { timestamp_min: 2, timestamp_max: 1, ..filter }.validate()),
            "timestamp_max"
        );
        assert_eq!(field(ChangeEventsFilter { limit: 0, ..filter }.validate()), "limit");
    }

    #[test]
    fn the_bounds_themselves_are_within() {
        let bounds = |timestamp_min, timestamp_max, limit| ChangeEventsFilter { timestamp_min, timestamp_max, limit };
        assert_eq!(bounds(TIMESTAMP_MAX, TIMESTAMP_MAX, EVENTS_MAX as u32).validate(), Ok(()));
        assert_eq!(field(bounds(0, 0, EVENTS_MAX as u32 + 1).validate()), "limit");
        // Zero is no bound, so it does not come before the other one.
        assert_eq!(bounds(7, 0, 1).validate(), Ok(()));
        let matches = |min, max| [4, 5, 6, 7, 8].map(|timestamp| bounds(min, max, 1).matches(timestamp));
        assert_eq!(matches(5, 7), [false, true, true, true, false]);
        assert_eq!(matches(0, 5), [true, true, false, false, false]);
        assert_eq!(matches(7, 0), [false, false, false, true, true]);
    }

    #[test]
    fn reversed_is_one_bit() {
        let reversed = AccountFilterFlags::REVERSED.with(BOTH);
        assert_eq!(reversed.with(BOTH), reversed);
        assert!(AccountFilter { flags: reversed, ..of_account() }.is_reversed());
        assert!(!of_account().is_reversed());
        assert!(QueryFilter { flags: QueryFilterFlags::REVERSED, ..QueryFilter::default() }.is_reversed());
        assert!(!QueryFilter::default().is_reversed());
    }

    #[test]
    fn each_field_that_is_set_must_be_equal() {
        let transfer = Transfer {
            debit_account_id: AccountId(1),
            credit_account_id: AccountId(2),
            user_data_128: 3,
            user_data_64: 4,
            user_data_32: 5,
            ledger: 6,
            code: 7,
            timestamp: 8,
            ..Transfer::default()
        };
        let filter = AccountFilter { user_data_128: 3, user_data_64: 4, user_data_32: 5, code: 7, ..of_account() };
        assert!(filter.matches(&transfer));
        assert!(AccountFilter { account_id: AccountId(2), ..filter }.matches(&transfer));
        assert!(!AccountFilter { account_id: AccountId(3), ..filter }.matches(&transfer));
        assert!(AccountFilter { flags: AccountFilterFlags::DEBITS, ..filter }.matches(&transfer));
        assert!(!AccountFilter { flags: AccountFilterFlags::CREDITS, ..filter }.matches(&transfer));
        for other in [
            Transfer { user_data_128: 9, ..transfer },
            Transfer { user_data_64: 9, ..transfer },
            Transfer { user_data_32: 9, ..transfer },
            Transfer { code: 9, ..transfer },
        ] {
            assert!(!filter.matches(&other));
            assert!(of_account().matches(&other));
        }
        assert!(!AccountFilter { timestamp_min: 9, ..filter }.matches(&transfer));
    }

    #[test]
    fn a_query_asks_transfers_and_accounts_alike() {
        let query = QueryFilter {
            user_data_128: 3,
            user_data_64: 4,
            user_data_32: 5,
            ledger: 6,
            code: 7,
            ..QueryFilter::default()
        };
        let transfer = Transfer {
            user_data_128: 3,
            user_data_64: 4,
            user_data_32: 5,
            ledger: 6,
            code: 7,
            timestamp: 8,
            ..Transfer::default()
        };
        let as_account = |transfer: &Transfer| Account {
            user_data_128: transfer.user_data_128,
            user_data_64: transfer.user_data_64,
            user_data_32: transfer.user_data_32,
            ledger: transfer.ledger,
            code: transfer.code,
            timestamp: transfer.timestamp,
            ..Account::default()
        };
        assert!(query.matches(&transfer) && query.matches_account(&as_account(&transfer)));
        for other in [
            Transfer { user_data_128: 9, ..transfer },
            Transfer { user_data_64: 9, ..transfer },
            Transfer { user_data_32: 9, ..transfer },
            Transfer { ledger: 9, ..transfer },
            Transfer { code: 9, ..transfer },
        ] {
            assert!(!query.matches(&other) && !query.matches_account(&as_account(&other)));
            assert!(QueryFilter::default().matches(&other));
            assert!(QueryFilter::default().matches_account(&as_account(&other)));
        }
        let late = QueryFilter { timestamp_min: 9, ..query };
        assert!(!late.matches(&transfer) && !late.matches_account(&as_account(&transfer)));
    }
}
