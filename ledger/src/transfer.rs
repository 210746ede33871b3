//! A transfer record and its flags.
//!
//! Laws
//! * `decode` and `encode` are inverse to each other over all 128-byte strings.
//! * A recorded transfer is never changed. What becomes of a pending one is written beside it (`PendingState`).
//!
//! Not here: which combinations of flags are lawful (`rules/create_transfer.rs`, `rules/post_or_void.rs`).

use core::fmt;

use crate::bytes::{Reader, Writer};
use crate::{AccountId, Amount};

/// A transfer's name, chosen by the client before the first attempt, and its key to asking again safely.
/// Neither 0 nor 2^128 - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct TransferId(pub u128);

impl TransferId {
    pub const ZERO: TransferId = TransferId(0);
    pub const MAX: TransferId = TransferId(u128::MAX);
}

impl fmt::Display for TransferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a transfer does, bit by bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct TransferFlags(pub u16);

impl TransferFlags {
    pub const NONE: TransferFlags = TransferFlags(0);
    /// The fate of this event is that of the next one.
    pub const LINKED: TransferFlags = TransferFlags(1 << 0);
    /// Holds the amount on both accounts until it is posted, voided or expires.
    pub const PENDING: TransferFlags = TransferFlags(1 << 1);
    /// Posts what a pending transfer holds, or part of it.
    pub const POST_PENDING_TRANSFER: TransferFlags = TransferFlags(1 << 2);
    /// Releases what a pending transfer holds.
    pub const VOID_PENDING_TRANSFER: TransferFlags = TransferFlags(1 << 3);
    /// Moves at most what keeps the debit account's debits within its credits.
    pub const BALANCING_DEBIT: TransferFlags = TransferFlags(1 << 4);
    /// Moves at most what keeps the credit account's credits within its debits.
    pub const BALANCING_CREDIT: TransferFlags = TransferFlags(1 << 5);
    /// Closes the debit account.
    pub const CLOSING_DEBIT: TransferFlags = TransferFlags(1 << 6);
    /// Closes the credit account.
    pub const CLOSING_CREDIT: TransferFlags = TransferFlags(1 << 7);
    /// The timestamp is the client's.
    pub const IMPORTED: TransferFlags = TransferFlags(1 << 8);

    /// The bits that mean something. The others must be 0.
    pub const ALL: TransferFlags = TransferFlags(0b1_1111_1111);

    /// What people call them, in the order of their bits.
    pub const NAMES: [(&str, TransferFlags); 9] = [
        ("linked", TransferFlags::LINKED),
        ("pending", TransferFlags::PENDING),
        ("post_pending_transfer", TransferFlags::POST_PENDING_TRANSFER),
        ("void_pending_transfer", TransferFlags::VOID_PENDING_TRANSFER),
        ("balancing_debit", TransferFlags::BALANCING_DEBIT),
        ("balancing_credit", TransferFlags::BALANCING_CREDIT),
        ("closing_debit", TransferFlags::CLOSING_DEBIT),
        ("closing_credit", TransferFlags::CLOSING_CREDIT),
        ("imported", TransferFlags::IMPORTED),
    ];

    pub fn named(name: &str) -> Option<TransferFlags> {
        TransferFlags::NAMES.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag)
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        TransferFlags::NAMES.into_iter().filter(move |(_, flag)| self.contains(*flag)).map(|(name, _)| name)
    }

    pub const fn contains(self, flags: TransferFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Is at least one of `flags` set?
    pub const fn intersects(self, flags: TransferFlags) -> bool {
        self.0 & flags.0 != 0
    }

    pub const fn with(self, flags: TransferFlags) -> TransferFlags {
        TransferFlags(self.0 | flags.0)
    }
}

impl FromIterator<TransferFlags> for TransferFlags {
    fn from_iter<I: IntoIterator<Item = TransferFlags>>(flags: I) -> TransferFlags {
        flags.into_iter().fold(TransferFlags::NONE, TransferFlags::with)
    }
}

/// A transfer as it is stored, sent and answered. As an event of `create_transfers` it may hold anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Transfer {
    pub id: TransferId,
    pub debit_account_id: AccountId,
    pub credit_account_id: AccountId,
    pub amount: Amount,
    /// The pending transfer that this one posts or voids; otherwise zero.
    pub pending_id: TransferId,
    /// The client's own; the ledger only compares and filters them.
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    /// Seconds until a pending transfer expires; zero: never.
    pub timeout: u32,
    /// The ledger of both accounts.
    pub ledger: u32,
    /// Why the money moves, by the client's own numbering. Not zero.
    pub code: u16,
    pub flags: TransferFlags,
    /// Nanoseconds since the Unix epoch. Unique over all accounts and transfers.
    pub timestamp: u64,
}

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

impl Transfer {
    pub const BYTES: usize = 128;

    #[inline]
    pub fn encode(&self, out: &mut [u8; Transfer::BYTES]) {
        let mut out = Writer(out);
        out.u128(self.id.0);
        out.u128(self.debit_account_id.0);
        out.u128(self.credit_account_id.0);
        out.u128(self.amount.0);
        out.u128(self.pending_id.0);
        out.u128(self.user_data_128);
        out.u64(self.user_data_64);
        out.u32(self.user_data_32);
        out.u32(self.timeout);
        out.u32(self.ledger);
        out.u16(self.code);
        out.u16(self.flags.0);
        out.u64(self.timestamp);
    }

    #[inline]
    pub fn decode(bytes: &[u8; Transfer::BYTES]) -> Transfer {
        let mut bytes = Reader(bytes);
        Transfer {
            id: TransferId(bytes.u128()),
            debit_account_id: AccountId(bytes.u128()),
            credit_account_id: AccountId(bytes.u128()),
            amount: Amount(bytes.u128()),
            pending_id: TransferId(bytes.u128()),
            user_data_128: bytes.u128(),
            user_data_64: bytes.u64(),
            user_data_32: bytes.u32(),
            timeout: bytes.u32(),
            ledger: bytes.u32(),
            code: bytes.u16(),
            flags: TransferFlags(bytes.u16()),
            timestamp: bytes.u64(),
        }
    }

    /// When this transfer, recorded as pending, expires: from this instant on it can neither be posted nor voided.
    /// `None`: never.
    pub fn expires_at(&self) -> Option<u64> {
        if self.timeout == 0 {
            return None;
        }
        let expires_at = self.expires_at_if_recorded_at(self.timestamp);
        Some(expires_at.expect("a pending transfer whose expiry does not fit is refused"))
    }

    /// `None` where the sum does not fit.
    pub(crate) fn expires_at_if_recorded_at(&self, timestamp: u64) -> Option<u64> {
        // 2^32 seconds are 4.3e18 nanoseconds: the product always fits in 64 bits, the sum need not.
        timestamp.checked_add(u64::from(self.timeout) * NANOSECONDS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sets_of_bits() {
        let both = TransferFlags::PENDING.with(TransferFlags::CLOSING_DEBIT);
        assert_eq!(both.with(TransferFlags::PENDING), both);
        assert!(both.contains(TransferFlags::PENDING) && !TransferFlags::PENDING.contains(both));
        assert!(both.intersects(TransferFlags::PENDING.with(TransferFlags::IMPORTED)));
        assert!(!both.intersects(TransferFlags::IMPORTED));
        assert_eq!(TransferFlags::ALL.0, 0b1_1111_1111);
    }

    #[test]
    fn each_flag_has_a_name() {
        let named: TransferFlags = TransferFlags::NAMES.into_iter().map(|(_, flag)| flag).collect();
        assert_eq!(named, TransferFlags::ALL);
        assert!(TransferFlags::ALL.names().eq(TransferFlags::NAMES.map(|(name, _)| name)));
        assert_eq!(TransferFlags::named("pending"), Some(TransferFlags::PENDING));
        assert_eq!(TransferFlags::named("held"), None);
    }

    #[test]
    fn an_id_prints_as_its_number() {
        assert_eq!(alloc::format!("{}", TransferId(15)), "15");
    }

    #[test]
    fn a_pending_transfer_expires_its_timeout_after_its_timestamp() {
        let transfer = Transfer { timestamp: 5, timeout: 2, ..Transfer::default() };
        assert_eq!(transfer.expires_at(), Some(2_000_000_005));
        assert_eq!(Transfer { timeout: 0, ..transfer }.expires_at(), None);
    }
}
