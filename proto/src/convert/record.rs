//! One account, one transfer.

use jangbu_ledger::{Account, AccountFlags, AccountId, Amount, Transfer, TransferFlags, TransferId};

use super::number::{u16_from_wire, u128_from_wire, u128_to_wire};
use crate::{Malformed, jangbu::v1};

pub fn account_from_wire(account: &v1::Account) -> Result<Account, Malformed> {
    Ok(Account {
        id: AccountId(u128_from_wire(&account.id)),
        debits_pending: Amount(u128_from_wire(&account.debits_pending)),
        debits_posted: Amount(u128_from_wire(&account.debits_posted)),
        credits_pending: Amount(u128_from_wire(&account.credits_pending)),
        credits_posted: Amount(u128_from_wire(&account.credits_posted)),
        user_data_128: u128_from_wire(&account.user_data_128),
        user_data_64: account.user_data_64,
        user_data_32: account.user_data_32,
        reserved: account.reserved,
        ledger: account.ledger,
        code: u16_from_wire("code", account.code)?,
        flags: AccountFlags(u16_from_wire("flags", account.flags)?),
        timestamp: account.timestamp,
    })
}

pub fn account_to_wire(account: &Account) -> v1::Account {
    v1::Account {
        id: u128_to_wire(account.id.0),
        debits_pending: u128_to_wire(account.debits_pending.0),
        debits_posted: u128_to_wire(account.debits_posted.0),
        credits_pending: u128_to_wire(account.credits_pending.0),
        credits_posted: u128_to_wire(account.credits_posted.0),
        user_data_128: u128_to_wire(account.user_data_128),
        user_data_64: account.user_data_64,
        user_data_32: account.user_data_32,
        reserved: account.reserved,
        ledger: account.ledger,
        code: account.code as u32,
        flags: account.flags.0 as u32,
        timestamp: account.timestamp,
    }
}

pub fn transfer_from_wire(transfer: &v1::Transfer) -> Result<Transfer, Malformed> {
    Ok(Transfer {
        id: TransferId(u128_from_wire(&transfer.id)),
        debit_account_id: AccountId(u128_from_wire(&transfer.debit_account_id)),
        credit_account_id: AccountId(u128_from_wire(&transfer.credit_account_id)),
        amount: Amount(u128_from_wire(&transfer.amount)),
        pending_id: TransferId(u128_from_wire(&transfer.pending_id)),
        user_data_128: u128_from_wire(&transfer.user_data_128),
        user_data_64: transfer.user_data_64,
        user_data_32: transfer.user_data_32,
        timeout: transfer.timeout,
        ledger: transfer.ledger,
        code: u16_from_wire("code", transfer.code)?,
        flags: TransferFlags(u16_from_wire("flags", transfer.flags)?),
        timestamp: transfer.timestamp,
    })
}

pub fn transfer_to_wire(transfer: &Transfer) -> v1::Transfer {
    v1::Transfer {
        id: u128_to_wire(transfer.id.0),
        debit_account_id: u128_to_wire(transfer.debit_account_id.0),
        credit_account_id: u128_to_wire(transfer.credit_account_id.0),
        amount: u128_to_wire(transfer.amount.0),
        pending_id: u128_to_wire(transfer.pending_id.0),
        user_data_128: u128_to_wire(transfer.user_data_128),
        user_data_64: transfer.user_data_64,
        user_data_32: transfer.user_data_32,
        timeout: transfer.timeout,
        ledger: transfer.ledger,
        code: transfer.code as u32,
        flags: transfer.flags.0 as u32,
        timestamp: transfer.timestamp,
    }
}
