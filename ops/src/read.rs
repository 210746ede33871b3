//! What the commands that look have in common: how fresh, from when to when, how many; and how records are shown.

use std::time::Duration;

use clap::Args;
use jangbu_client::{Client, Consistency};
use jangbu_ledger::{Account, AccountId, EVENTS_MAX, Transfer, TransferId};
use serde::Serialize;

use crate::access;
use crate::cli::Global;
use crate::error::Failure;
use crate::import::berka;
use crate::{output, text};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Args)]
pub struct Fresh {
    /// linearizable (sees every acknowledged write), local (what the node has, also without a quorum), or a bound such as 500ms.
    #[arg(long, value_name = "FRESHNESS", default_value = "linearizable", value_parser = consistency)]
    pub read: Consistency,
}

fn consistency(text: &str) -> Result<Consistency, String> {
    match text {
        "linearizable" => Ok(Consistency::Linearizable),
        "local" => Ok(Consistency::Local),
        bound => {
            let max = text::duration(bound).map_err(|_| format!("`{bound}` is none of linearizable, local, 500ms"))?;
            if max < Duration::from_millis(1) || max > Duration::from_secs(3_600) {
                return Err("a bound lies between 1ms and 1h".into());
            }
            Ok(Consistency::BoundedStaleness(max))
        }
    }
}

impl Fresh {
    pub fn client(&self, global: &Global) -> Result<Client, Failure> {
        Ok(access::client(global)?.with_consistency(self.read))
    }
}

/// What a record carries for its owner: given when it is created, and asked for in lists.
#[derive(Clone, Copy, Debug, Args)]
pub struct UserData {
    /// Your own 128 bits: kept with the record, and found by them. 0: none.
    #[arg(long, value_parser = text::number, default_value = "0", hide_default_value = true)]
    pub user_data_128: u128,
    /// Your own 64 bits.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub user_data_64: u64,
    /// Your own 32 bits.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub user_data_32: u32,
}

/// A window of time and a bound.
#[derive(Clone, Debug, Args)]
pub struct Window {
    /// Not before this time (RFC 3339, or nanoseconds since 1970).
    #[arg(long, value_name = "TIME", value_parser = text::timestamp, default_value = "0", hide_default_value = true)]
    pub since: u64,
    /// Not after this time.
    #[arg(long, value_name = "TIME", value_parser = text::timestamp, default_value = "0", hide_default_value = true)]
    pub until: u64,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Newest first.
    #[arg(long)]
    pub reversed: bool,
}

impl Window {
    /// Asks page by page until `limit` or the end. `page` gets (from, to, limit) and answers the items and how far the
    /// scan came, where that was not to the end.
    pub async fn collect<T, P>(&self, timestamp: impl Fn(&T) -> u64, mut page: P) -> Result<Vec<T>, Failure>
    where
        P: AsyncFnMut(u64, u64, u32) -> Result<(Vec<T>, u64), Failure>,
    {
        let (mut since, mut until) = (self.since, self.until);
        let mut items: Vec<T> = Vec::new();
        loop {
            let wanted = (self.limit - items.len() as u64).min(EVENTS_MAX as u64);
            let (more, scanned_to) = page(since, until, wanted as u32).await?;
            let is_full = more.len() as u64 == wanted;
            let reached = if scanned_to != 0 { scanned_to } else { more.last().map_or(0, &timestamp) };
            items.extend(more);
            if items.len() as u64 >= self.limit || (scanned_to == 0 && !is_full) {
                return Ok(items);
            }
            match self.reversed {
                false => since = reached + 1,
                true if reached <= 1 => return Ok(items),
                true => until = reached - 1,
            }
        }
    }
}

/// An account's id: a number, or `berka:2378` for an imported one.
pub fn account_id(text: &str) -> Result<AccountId, String> {
    match text.strip_prefix("berka:") {
        Some(number) => number.parse().map(berka::customer_id).map_err(|_| format!("`{text}`: write berka:NUMBER")),
        None => text::number(text).map(AccountId),
    }
}

/// A transfer's id: a number, or `berka:695247` for an imported one.
pub fn transfer_id(text: &str) -> Result<TransferId, String> {
    match text.strip_prefix("berka:") {
        Some(number) => number.parse().map(berka::transfer_id).map_err(|_| format!("`{text}`: write berka:NUMBER")),
        None => text::number(text).map(TransferId),
    }
}

/// An account as JSON shows it.
#[derive(Debug, Serialize)]
pub struct AccountView {
    pub id: String,
    pub debits_pending: String,
    pub debits_posted: String,
    pub credits_pending: String,
    pub credits_posted: String,
    /// Posted credits less posted debits; may be negative.
    pub balance: String,
    pub user_data_128: String,
    pub user_data_64: String,
    pub user_data_32: u32,
    pub ledger: u32,
    pub code: u16,
    pub flags: Vec<&'static str>,
    pub timestamp: String,
}

impl From<&Account> for AccountView {
    fn from(account: &Account) -> AccountView {
        AccountView {
            id: account.id.to_string(),
            debits_pending: account.debits_pending.to_string(),
            debits_posted: account.debits_posted.to_string(),
            credits_pending: account.credits_pending.to_string(),
            credits_posted: account.credits_posted.to_string(),
            balance: difference(account.credits_posted.0, account.debits_posted.0),
            user_data_128: account.user_data_128.to_string(),
            user_data_64: account.user_data_64.to_string(),
            user_data_32: account.user_data_32,
            ledger: account.ledger,
            code: account.code,
            flags: account.flags.names().collect(),
            timestamp: account.timestamp.to_string(),
        }
    }
}

/// a - b of two amounts, which may be negative and need not fit in 128 bits.
pub fn difference(a: u128, b: u128) -> String {
    if a >= b { (a - b).to_string() } else { format!("-{}", b - a) }
}

pub fn accounts_text(accounts: &[AccountView]) -> String {
    let rows = accounts.iter().map(|account| {
        [
            account.id.clone(),
            account.ledger.to_string(),
            account.code.to_string(),
            account.debits_posted.clone(),
            account.credits_posted.clone(),
            account.balance.clone(),
            account.debits_pending.clone(),
            account.credits_pending.clone(),
            account.flags.join("|"),
            text::timestamp_text(account.timestamp.parse().unwrap_or(0)),
        ]
    });
    output::table(
        &[
            "id",
            "ledger",
            "code",
            "debits",
            "credits",
            "balance",
            "debits pending",
            "credits pending",
            "flags",
            "created",
        ],
        rows,
    )
}

/// A transfer as JSON shows it.
#[derive(Debug, Serialize)]
pub struct TransferView {
    pub id: String,
    pub debit_account_id: String,
    pub credit_account_id: String,
    pub amount: String,
    pub pending_id: String,
    pub user_data_128: String,
    pub user_data_64: String,
    pub user_data_32: u32,
    pub timeout: u32,
    pub ledger: u32,
    pub code: u16,
    pub flags: Vec<&'static str>,
    pub timestamp: String,
}

impl From<&Transfer> for TransferView {
    fn from(transfer: &Transfer) -> TransferView {
        TransferView {
            id: transfer.id.to_string(),
            debit_account_id: transfer.debit_account_id.to_string(),
            credit_account_id: transfer.credit_account_id.to_string(),
            amount: transfer.amount.to_string(),
            pending_id: transfer.pending_id.to_string(),
            user_data_128: transfer.user_data_128.to_string(),
            user_data_64: transfer.user_data_64.to_string(),
            user_data_32: transfer.user_data_32,
            timeout: transfer.timeout,
            ledger: transfer.ledger,
            code: transfer.code,
            flags: transfer.flags.names().collect(),
            timestamp: transfer.timestamp.to_string(),
        }
    }
}

pub fn transfers_text(transfers: &[TransferView]) -> String {
    let rows = transfers.iter().map(|transfer| {
        [
            transfer.id.clone(),
            transfer.debit_account_id.clone(),
            transfer.credit_account_id.clone(),
            transfer.amount.clone(),
            transfer.ledger.to_string(),
            transfer.code.to_string(),
            transfer.flags.join("|"),
            text::timestamp_text(transfer.timestamp.parse().unwrap_or(0)),
        ]
    });
    output::table(&["id", "debit", "credit", "amount", "ledger", "code", "flags", "time"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(limit: u64, reversed: bool) -> Window {
        Window { since: 0, until: 0, limit, reversed }
    }

    /// Items 1 to 10 are there; a page gives at most three, and stops early after looking at five.
    async fn pages(window: Window) -> Vec<u64> {
        let page = async |since: u64, until: u64, limit: u32| {
            let until = if until == 0 { 10 } else { until.min(10) };
            let mut all: Vec<u64> = (since.max(1)..=until).collect();
            if window.reversed {
                all.reverse();
            }
            let seen: Vec<u64> = all.iter().copied().take(5).collect();
            let scanned_to = if all.len() > 5 { *seen.last().unwrap() } else { 0 };
            let even: Vec<u64> = seen.into_iter().filter(|item| item % 2 == 0).take(limit as usize).collect();
            Ok((even, scanned_to))
        };
        window.collect(|item| *item, page).await.unwrap()
    }

    #[tokio::test]
    async fn pages_are_joined_until_the_end_or_the_limit() {
        assert_eq!(pages(window(100, false)).await, [2, 4, 6, 8, 10]);
        assert_eq!(pages(window(100, true)).await, [10, 8, 6, 4, 2]);
        assert_eq!(pages(window(2, false)).await, [2, 4]);
    }

    #[test]
    fn a_balance_may_be_negative_and_wider_than_128_bits_signed() {
        assert_eq!(difference(5, 7), "-2");
        assert_eq!(difference(u128::MAX, 0), u128::MAX.to_string());
    }

    #[test]
    fn imported_accounts_have_a_short_name() {
        assert_eq!(account_id("berka:2378"), Ok(berka::customer_id(2378)));
        assert_eq!(account_id("0x10"), Ok(AccountId(16)));
        assert!(account_id("berka:x").is_err());
    }
}
