//! An account record, its flags, its balances.
//!
//! Laws
//! * `decode` and `encode` are inverse to each other over all 128-byte strings: no byte is lost, none is made up.
//! * A balance that has been computed fits: `Balances` is only changed by amounts that were checked before.
//!
//! Not here: who may change a balance, and when (`rules/`).

use core::fmt;

use crate::Amount;
use crate::bytes::{Reader, Writer};

/// An account's name, chosen by the client. Neither 0 nor 2^128 - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct AccountId(pub u128);

impl AccountId {
    pub const ZERO: AccountId = AccountId(0);
    pub const MAX: AccountId = AccountId(u128::MAX);
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An account's place in the order of creation: dense, from 0, and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Slot(pub u32);

impl Slot {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an account is, bit by bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct AccountFlags(pub u16);

impl AccountFlags {
    pub const NONE: AccountFlags = AccountFlags(0);
    /// The fate of this event is that of the next one.
    pub const LINKED: AccountFlags = AccountFlags(1 << 0);
    /// Pending and posted debits never exceed posted credits.
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: AccountFlags = AccountFlags(1 << 1);
    /// Pending and posted credits never exceed posted debits.
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: AccountFlags = AccountFlags(1 << 2);
    /// The balances after each transfer can be asked for.
    pub const HISTORY: AccountFlags = AccountFlags(1 << 3);
    /// The timestamp is the client's.
    pub const IMPORTED: AccountFlags = AccountFlags(1 << 4);
    /// Takes part in no transfer, save the void of a pending one.
    pub const CLOSED: AccountFlags = AccountFlags(1 << 5);

    /// The bits that mean something. The others must be 0.
    pub const ALL: AccountFlags = AccountFlags(0b11_1111);

    /// What people call them, in the order of their bits.
    pub const NAMES: [(&str, AccountFlags); 6] = [
        ("linked", AccountFlags::LINKED),
        ("debits_must_not_exceed_credits", AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS),
        ("credits_must_not_exceed_debits", AccountFlags::CREDITS_MUST_NOT_EXCEED_DEBITS),
        ("history", AccountFlags::HISTORY),
        ("imported", AccountFlags::IMPORTED),
        ("closed", AccountFlags::CLOSED),
    ];

    pub fn named(name: &str) -> Option<AccountFlags> {
        AccountFlags::NAMES.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag)
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        AccountFlags::NAMES.into_iter().filter(move |(_, flag)| self.contains(*flag)).map(|(name, _)| name)
    }

    pub const fn contains(self, flags: AccountFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    pub const fn with(self, flags: AccountFlags) -> AccountFlags {
        AccountFlags(self.0 | flags.0)
    }

    pub const fn without(self, flags: AccountFlags) -> AccountFlags {
        AccountFlags(self.0 & !flags.0)
    }
}

impl FromIterator<AccountFlags> for AccountFlags {
    fn from_iter<I: IntoIterator<Item = AccountFlags>>(flags: I) -> AccountFlags {
        flags.into_iter().fold(AccountFlags::NONE, AccountFlags::with)
    }
}

/// The four sums of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balances {
    pub debits_pending: Amount,
    pub debits_posted: Amount,
    pub credits_pending: Amount,
    pub credits_posted: Amount,
}

/// An account as it is stored, sent and answered. As an event of `create_accounts` it may hold anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Account {
    pub id: AccountId,
    pub debits_pending: Amount,
    pub debits_posted: Amount,
    pub credits_pending: Amount,
    pub credits_posted: Amount,
    /// The client's own; the ledger only compares and filters them.
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    /// Zero.
    pub reserved: u32,
    /// Which currency, asset or unit. Transfers never cross from one ledger to another. Not zero.
    pub ledger: u32,
    /// What kind of account, by the client's own numbering. Not zero.
    pub code: u16,
    pub flags: AccountFlags,
    /// Nanoseconds since the Unix epoch. Unique over all accounts and transfers.
    pub timestamp: u64,
}

impl Account {
    pub const BYTES: usize = 128;

    #[inline]
    pub fn encode(&self, out: &mut [u8; Account::BYTES]) {
        let mut out = Writer(out);
        out.u128(self.id.0);
        out.u128(self.debits_pending.0);
        out.u128(self.debits_posted.0);
        out.u128(self.credits_pending.0);
        out.u128(self.credits_posted.0);
        out.u128(self.user_data_128);
        out.u64(self.user_data_64);
        out.u32(self.user_data_32);
        out.u32(self.reserved);
        out.u32(self.ledger);
        out.u16(self.code);
        out.u16(self.flags.0);
        out.u64(self.timestamp);
    }

    #[inline]
    pub fn decode(bytes: &[u8; Account::BYTES]) -> Account {
        let mut bytes = Reader(bytes);
        Account {
            id: AccountId(bytes.u128()),
            debits_pending: Amount(bytes.u128()),
            debits_posted: Amount(bytes.u128()),
            credits_pending: Amount(bytes.u128()),
            credits_posted: Amount(bytes.u128()),
            user_data_128: bytes.u128(),
            user_data_64: bytes.u64(),
            user_data_32: bytes.u32(),
            reserved: bytes.u32(),
            ledger: bytes.u32(),
            code: bytes.u16(),
            flags: AccountFlags(bytes.u16()),
            timestamp: bytes.u64(),
        }
    }

    pub fn balances(&self) -> Balances {
        Balances {
            debits_pending: self.debits_pending,
            debits_posted: self.debits_posted,
            credits_pending: self.credits_pending,
            credits_posted: self.credits_posted,
        }
    }

    pub fn set_balances(&mut self, balances: Balances) {
        self.debits_pending = balances.debits_pending;
        self.debits_posted = balances.debits_posted;
        self.credits_pending = balances.credits_pending;
        self.credits_posted = balances.credits_posted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sets_of_bits() {
        let both = AccountFlags::HISTORY.with(AccountFlags::CLOSED);
        assert_eq!(both.with(AccountFlags::CLOSED), both);
        assert!(both.contains(AccountFlags::CLOSED) && !both.contains(AccountFlags::LINKED));
        assert!(!AccountFlags::CLOSED.contains(both));
        assert_eq!(both.without(AccountFlags::CLOSED.with(AccountFlags::LINKED)), AccountFlags::HISTORY);
        assert_eq!(AccountFlags::ALL.0, 0b11_1111);
    }

    #[test]
    fn each_flag_has_a_name() {
        let named: AccountFlags = AccountFlags::NAMES.into_iter().map(|(_, flag)| flag).collect();
        assert_eq!(named, AccountFlags::ALL);
        assert!(AccountFlags::ALL.names().eq(AccountFlags::NAMES.map(|(name, _)| name)));
        assert_eq!(AccountFlags::named("closed"), Some(AccountFlags::CLOSED));
        assert_eq!(AccountFlags::named("locked"), None);
    }

    #[test]
    fn an_id_prints_as_its_number() {
        assert_eq!(alloc::format!("{}", AccountId(15)), "15");
    }
}
