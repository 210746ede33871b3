//! What may be asked of the past.
//!
//! A zero field means: no filter on it.
//!
//! Laws
//! * A filter that makes no sense is refused with the name of the field (there is no silent empty answer).
//!
//! Not here: how an answer is found (the store's indexes), nor the order and the limit of results, which the store keeps too.

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
        let side = [&event.debit, &event.credit].into_iter().find(|side| side.slot == slot)?;
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
