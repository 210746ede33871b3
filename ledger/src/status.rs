//! What may be answered to one event: the result codes, listed in order of precedence.
//!
//! Where several apply, the first of the list is the answer. The number is the wire value. The numbers and names are
//! TigerBeetle's, so that people who know that model know ours.
//!
//! Laws
//! * A number never changes its meaning and is never used again (18 of the transfers' is retired).
//! * A status tells about the books and the request alone, never about this machine.
//!
//! Not here: where each of them arises (`rules/`).

use core::fmt;

/// The answer to one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateResult<S> {
    /// `created`: the record's timestamp. `exists`: that of the record that exists. Otherwise: the time the event used up.
    pub timestamp: u64,
    pub status: S,
}

/// Writes one enum of statuses: from one list the numbers, the names and the order of precedence.
macro_rules! statuses {
    ($(#[$doc:meta])* $type:ident { $($status:ident = $code:literal $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $type {
            $($status = $code,)+
            /// The event took effect.
            Created = u32::MAX,
        }

        impl $type {
            /// In order of precedence; `Created` last.
            pub const ALL: &'static [$type] = &[$($type::$status,)+ $type::Created];

            pub const fn code(self) -> u32 {
                self as u32
            }

            pub const fn from_code(code: u32) -> Option<$type> {
                match code {
                    $($code => Some($type::$status),)+
                    u32::MAX => Some($type::Created),
                    _ => None,
                }
            }

            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$status => $name,)+
                    $type::Created => "created",
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

statuses! {
    /// The answer to one event of `create_accounts`.
    CreateAccountStatus {
        LinkedEventFailed = 1 "linked_event_failed",
        LinkedEventChainOpen = 2 "linked_event_chain_open",
        ImportedEventExpected = 22 "imported_event_expected",
        ImportedEventNotExpected = 23 "imported_event_not_expected",
        TimestampMustBeZero = 3 "timestamp_must_be_zero",
        ImportedEventTimestampOutOfRange = 24 "imported_event_timestamp_out_of_range",
        ImportedEventTimestampMustNotAdvance = 25 "imported_event_timestamp_must_not_advance",
        ReservedField = 4 "reserved_field",
        ReservedFlag = 5 "reserved_flag",
        IdMustNotBeZero = 6 "id_must_not_be_zero",
        IdMustNotBeIntMax = 7 "id_must_not_be_int_max",
        ExistsWithDifferentFlags = 15 "exists_with_different_flags",
        ExistsWithDifferentUserData128 = 16 "exists_with_different_user_data_128",
        ExistsWithDifferentUserData64 = 17 "exists_with_different_user_data_64",
        ExistsWithDifferentUserData32 = 18 "exists_with_different_user_data_32",
        ExistsWithDifferentLedger = 19 "exists_with_different_ledger",
        ExistsWithDifferentCode = 20 "exists_with_different_code",
        Exists = 21 "exists",
        FlagsAreMutuallyExclusive = 8 "flags_are_mutually_exclusive",
        DebitsPendingMustBeZero = 9 "debits_pending_must_be_zero",
        DebitsPostedMustBeZero = 10 "debits_posted_must_be_zero",
        CreditsPendingMustBeZero = 11 "credits_pending_must_be_zero",
        CreditsPostedMustBeZero = 12 "credits_posted_must_be_zero",
        LedgerMustNotBeZero = 13 "ledger_must_not_be_zero",
        CodeMustNotBeZero = 14 "code_must_not_be_zero",
        ImportedEventTimestampMustNotRegress = 26 "imported_event_timestamp_must_not_regress",
    }
}

statuses! {
    /// The answer to one event of `create_transfers`.
    CreateTransferStatus {
        LinkedEventFailed = 1 "linked_event_failed",
        LinkedEventChainOpen = 2 "linked_event_chain_open",
        ImportedEventExpected = 56 "imported_event_expected",
        ImportedEventNotExpected = 57 "imported_event_not_expected",
        TimestampMustBeZero = 3 "timestamp_must_be_zero",
        ImportedEventTimestampOutOfRange = 58 "imported_event_timestamp_out_of_range",
        ImportedEventTimestampMustNotAdvance = 59 "imported_event_timestamp_must_not_advance",
        ReservedFlag = 4 "reserved_flag",
        IdMustNotBeZero = 5 "id_must_not_be_zero",
        IdMustNotBeIntMax = 6 "id_must_not_be_int_max",
        ExistsWithDifferentFlags = 36 "exists_with_different_flags",
        ExistsWithDifferentPendingId = 40 "exists_with_different_pending_id",
        ExistsWithDifferentTimeout = 44 "exists_with_different_timeout",
        ExistsWithDifferentDebitAccountId = 37 "exists_with_different_debit_account_id",
        ExistsWithDifferentCreditAccountId = 38 "exists_with_different_credit_account_id",
        ExistsWithDifferentAmount = 39 "exists_with_different_amount",
        ExistsWithDifferentUserData128 = 41 "exists_with_different_user_data_128",
        ExistsWithDifferentUserData64 = 42 "exists_with_different_user_data_64",
        ExistsWithDifferentUserData32 = 43 "exists_with_different_user_data_32",
        ExistsWithDifferentLedger = 67 "exists_with_different_ledger",
        ExistsWithDifferentCode = 45 "exists_with_different_code",
        Exists = 46 "exists",
        IdAlreadyFailed = 68 "id_already_failed",
        FlagsAreMutuallyExclusive = 7 "flags_are_mutually_exclusive",
        DebitAccountIdMustNotBeZero = 8 "debit_account_id_must_not_be_zero",
        DebitAccountIdMustNotBeIntMax = 9 "debit_account_id_must_not_be_int_max",
        CreditAccountIdMustNotBeZero = 10 "credit_account_id_must_not_be_zero",
        CreditAccountIdMustNotBeIntMax = 11 "credit_account_id_must_not_be_int_max",
        AccountsMustBeDifferent = 12 "accounts_must_be_different",
        PendingIdMustBeZero = 13 "pending_id_must_be_zero",
        PendingIdMustNotBeZero = 14 "pending_id_must_not_be_zero",
        PendingIdMustNotBeIntMax = 15 "pending_id_must_not_be_int_max",
        PendingIdMustBeDifferent = 16 "pending_id_must_be_different",
        TimeoutReservedForPendingTransfer = 17 "timeout_reserved_for_pending_transfer",
        ClosingTransferMustBePending = 64 "closing_transfer_must_be_pending",
        LedgerMustNotBeZero = 19 "ledger_must_not_be_zero",
        CodeMustNotBeZero = 20 "code_must_not_be_zero",
        DebitAccountNotFound = 21 "debit_account_not_found",
        CreditAccountNotFound = 22 "credit_account_not_found",
        AccountsMustHaveTheSameLedger = 23 "accounts_must_have_the_same_ledger",
        TransferMustHaveTheSameLedgerAsAccounts = 24 "transfer_must_have_the_same_ledger_as_accounts",
        PendingTransferNotFound = 25 "pending_transfer_not_found",
        PendingTransferNotPending = 26 "pending_transfer_not_pending",
        PendingTransferHasDifferentDebitAccountId = 27 "pending_transfer_has_different_debit_account_id",
        PendingTransferHasDifferentCreditAccountId = 28 "pending_transfer_has_different_credit_account_id",
        PendingTransferHasDifferentLedger = 29 "pending_transfer_has_different_ledger",
        PendingTransferHasDifferentCode = 30 "pending_transfer_has_different_code",
        ExceedsPendingTransferAmount = 31 "exceeds_pending_transfer_amount",
        PendingTransferHasDifferentAmount = 32 "pending_transfer_has_different_amount",
        PendingTransferAlreadyPosted = 33 "pending_transfer_already_posted",
        PendingTransferAlreadyVoided = 34 "pending_transfer_already_voided",
        PendingTransferExpired = 35 "pending_transfer_expired",
        ImportedEventTimestampMustNotRegress = 60 "imported_event_timestamp_must_not_regress",
        ImportedEventTimestampMustPostdateDebitAccount = 61 "imported_event_timestamp_must_postdate_debit_account",
        ImportedEventTimestampMustPostdateCreditAccount = 62 "imported_event_timestamp_must_postdate_credit_account",
        ImportedEventTimeoutMustBeZero = 63 "imported_event_timeout_must_be_zero",
        DebitAccountAlreadyClosed = 65 "debit_account_already_closed",
        CreditAccountAlreadyClosed = 66 "credit_account_already_closed",
        OverflowsDebitsPending = 47 "overflows_debits_pending",
        OverflowsCreditsPending = 48 "overflows_credits_pending",
        OverflowsDebitsPosted = 49 "overflows_debits_posted",
        OverflowsCreditsPosted = 50 "overflows_credits_posted",
        OverflowsDebits = 51 "overflows_debits",
        OverflowsCredits = 52 "overflows_credits",
        OverflowsTimeout = 53 "overflows_timeout",
        ExceedsCredits = 54 "exceeds_credits",
        ExceedsDebits = 55 "exceeds_debits",
    }
}

impl CreateTransferStatus {
    /// Would the same event succeed at another moment? Then its id is burnt, so that a late copy of the request can't
    /// move money after the client was told that none moved.
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            CreateTransferStatus::DebitAccountNotFound
                | CreateTransferStatus::CreditAccountNotFound
                | CreateTransferStatus::PendingTransferNotFound
                | CreateTransferStatus::DebitAccountAlreadyClosed
                | CreateTransferStatus::CreditAccountAlreadyClosed
                | CreateTransferStatus::ExceedsCredits
                | CreateTransferStatus::ExceedsDebits
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_names_one_account_status() {
        let all = CreateAccountStatus::ALL;
        assert_eq!(all.len(), 26 + 1);
        for status in all {
            assert_eq!(CreateAccountStatus::from_code(status.code()), Some(*status));
        }
        assert!(
            (1..=26).all(|code| { CreateAccountStatus::from_code(code).is_some_and(|status| status.code() == code) })
        );
        assert_eq!(CreateAccountStatus::from_code(0), None);
        assert_eq!(CreateAccountStatus::from_code(27), None);
        assert_eq!(CreateAccountStatus::from_code(u32::MAX), Some(CreateAccountStatus::Created));
    }

    #[test]
    fn each_number_names_one_transfer_status_and_18_is_retired() {
        let all = CreateTransferStatus::ALL;
        assert_eq!(all.len(), 67 + 1);
        for status in all {
            assert_eq!(CreateTransferStatus::from_code(status.code()), Some(*status));
        }
        for code in 0..100 {
            let known = (1..=68).contains(&code) && code != 18;
            assert_eq!(CreateTransferStatus::from_code(code).is_some(), known, "{code}");
        }
        assert_eq!(CreateTransferStatus::from_code(u32::MAX), Some(CreateTransferStatus::Created));
    }

    #[test]
    fn the_transient_statuses_are_those_that_time_may_heal() {
        let transient = CreateTransferStatus::ALL.iter().filter(|status| status.is_transient());
        let codes: alloc::vec::Vec<u32> = transient.map(|status| status.code()).collect();
        assert_eq!(codes, [21, 22, 25, 65, 66, 54, 55]);
    }

    #[test]
    fn a_status_prints_as_its_name() {
        assert_eq!(alloc::format!("{}", CreateTransferStatus::PendingTransferExpired), "pending_transfer_expired");
        assert_eq!(alloc::format!("{}", CreateAccountStatus::Created), "created");
    }
}
