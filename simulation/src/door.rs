//! The way from a simulated caller to the cluster: the shipped client, and a note of every call.
//!
//! Records of the auditor go in and come out; in between stand the client's own types, so that what crosses the wire is
//! exactly what a program would send.
//!
//! Not here: what is asked (`workload.rs`), and who judges the answers (`auditor.rs`).

use std::time::Duration;

use jangbu_client::{Client, ClientError, Consistency, Page, Read, StreamConfig};
use jangbu_ledger as product;
use jangbu_ledger::{CreateAccountStatus, CreateResult, CreateTransferStatus};

use crate::auditor::records::*;

/// Asks, and says what came of it.
pub async fn call(client: &Client, op: &Op, level: Level) -> Answer {
    let client = client.with_consistency(match level {
        Level::Linearizable => Consistency::Linearizable,
        Level::Bounded { max_ms } => Consistency::BoundedStaleness(Duration::from_millis(max_ms.into())),
        Level::Local => Consistency::Local,
    });
    let answered = match op {
        Op::CreateAccounts(events) => {
            let events: Vec<_> = events.iter().map(account_out).collect();
            client.create_accounts(&events).await.map(|created| {
                written(created.at.log_index, created.at.term, created.at.timestamp, account_outcomes(&created.results))
            })
        }
        Op::CreateTransfers(events) => {
            let events: Vec<_> = events.iter().map(transfer_out).collect();
            client.create_transfers(&events).await.map(|created| {
                written(
                    created.at.log_index,
                    created.at.term,
                    created.at.timestamp,
                    transfer_outcomes(&created.results),
                )
            })
        }
        Op::LookupAccounts(ids) => {
            let ids: Vec<_> = ids.iter().map(|&id| product::AccountId(id)).collect();
            client.lookup_accounts(&ids).await.map(|answer| read(answer, accounts))
        }
        Op::LookupTransfers(ids) => {
            let ids: Vec<_> = ids.iter().map(|&id| product::TransferId(id)).collect();
            client.lookup_transfers(&ids).await.map(|answer| read(answer, transfers))
        }
        Op::AccountTransfers(filter) => {
            client.get_account_transfers(&account_filter(filter)).await.map(|answer| page(answer, transfers))
        }
        Op::AccountBalances(filter) => {
            client.get_account_balances(&account_filter(filter)).await.map(|answer| page(answer, balances))
        }
        Op::QueryAccounts(filter) => {
            client.query_accounts(&query_filter(filter)).await.map(|answer| read(answer, accounts))
        }
        Op::QueryTransfers(filter) => {
            client.query_transfers(&query_filter(filter)).await.map(|answer| page(answer, transfers))
        }
        Op::ChangeEvents(filter) => {
            client.get_change_events(&events_filter(filter)).await.map(|answer| read(answer, events))
        }
    };
    answered.unwrap_or_else(failed)
}

/// Sends several requests over one packed stream, all in flight together. One answer each, in the order asked.
pub async fn call_packed(client: &Client, ops: &[Op], deadline: Duration) -> Vec<(Answer, bool)> {
    let stream = client.stream(StreamConfig { window: ops.len().max(1), deadline });
    let mut tickets = Vec::new();
    for op in ops {
        tickets.push(match op {
            Op::CreateAccounts(events) => {
                stream.submit_accounts(&events.iter().map(account_out).collect::<Vec<_>>()).await
            }
            Op::CreateTransfers(events) => {
                stream.submit_transfers(&events.iter().map(transfer_out).collect::<Vec<_>>()).await
            }
            _ => unreachable!("only writes are packed"),
        });
    }
    let mut answers = Vec::new();
    for (op, ticket) in ops.iter().zip(tickets) {
        let answered = match ticket {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        };
        answers.push(match answered {
            Ok(reply) => {
                let outcomes = match op {
                    Op::CreateAccounts(_) => {
                        reply.results::<CreateAccountStatus>().map(|results| account_outcomes(&results))
                    }
                    _ => reply.results::<CreateTransferStatus>().map(|results| transfer_outcomes(&results)),
                };
                let at = reply.at;
                let answer = outcomes
                    .map(|outcomes| written(at.log_index, at.term, at.timestamp, outcomes))
                    .unwrap_or_else(failed);
                (answer, reply.resubmitted)
            }
            Err(error) => (failed(error), true),
        });
    }
    answers
}

fn failed(error: ClientError) -> Answer {
    match error {
        ClientError::Refused(malformed) => Answer::Malformed(malformed.to_string()),
        error if error.nothing_was_done() => Answer::Unavailable(error.to_string()),
        error => Answer::Unknown(error.to_string()),
    }
}

fn written(log_index: u64, term: u64, timestamp: u64, results: Vec<Outcome>) -> Answer {
    Answer::Written { log_index, term, timestamp, results }
}

fn account_outcomes(results: &[CreateResult<CreateAccountStatus>]) -> Vec<Outcome> {
    results.iter().map(|result| Outcome { status: result.status.code(), timestamp: result.timestamp }).collect()
}

fn transfer_outcomes(results: &[CreateResult<CreateTransferStatus>]) -> Vec<Outcome> {
    results.iter().map(|result| Outcome { status: result.status.code(), timestamp: result.timestamp }).collect()
}

fn read<T>(answer: Read<Vec<T>>, rows: impl Fn(&[T]) -> Rows) -> Answer {
    Answer::Read {
        log_index: answer.at.log_index,
        timestamp: answer.at.timestamp,
        staleness_ns: answer.at.staleness_ns,
        rows: rows(&answer.value),
        scanned_to: 0,
    }
}

fn page<T>(answer: Read<Page<T>>, rows: impl Fn(&[T]) -> Rows) -> Answer {
    Answer::Read {
        log_index: answer.at.log_index,
        timestamp: answer.at.timestamp,
        staleness_ns: answer.at.staleness_ns,
        rows: rows(&answer.value.items),
        scanned_to: answer.value.scanned_to,
    }
}

fn accounts(rows: &[product::Account]) -> Rows {
    Rows::Accounts(rows.iter().map(account_in).collect())
}

fn transfers(rows: &[product::Transfer]) -> Rows {
    Rows::Transfers(rows.iter().map(transfer_in).collect())
}

fn balances(rows: &[product::AccountBalance]) -> Rows {
    let row = |row: &product::AccountBalance| Balance {
        debits_pending: row.balances.debits_pending.0,
        debits_posted: row.balances.debits_posted.0,
        credits_pending: row.balances.credits_pending.0,
        credits_posted: row.balances.credits_posted.0,
        timestamp: row.timestamp,
    };
    Rows::Balances(rows.iter().map(row).collect())
}

fn events(rows: &[jangbu_client::ChangeEvent]) -> Rows {
    let row = |row: &jangbu_client::ChangeEvent| ChangeEvent {
        timestamp: row.timestamp,
        kind: row.kind as u8,
        transfer: transfer_in(&row.transfer),
        debit_account: account_in(&row.debit_account),
        credit_account: account_in(&row.credit_account),
    };
    Rows::Events(rows.iter().map(row).collect())
}

/// The 128 bytes are the one form that both sides have in common by contract, so they are what is copied.
pub fn account_out(account: &Account) -> product::Account {
    let mut bytes = [0; 128];
    let mut out = Out(&mut bytes, 0);
    for number in [
        account.id,
        account.debits_pending,
        account.debits_posted,
        account.credits_pending,
        account.credits_posted,
        account.user_data_128,
    ] {
        out.put(&number.to_le_bytes());
    }
    out.put(&account.user_data_64.to_le_bytes());
    out.put(&account.user_data_32.to_le_bytes());
    out.put(&account.reserved.to_le_bytes());
    out.put(&account.ledger.to_le_bytes());
    out.put(&account.code.to_le_bytes());
    out.put(&account.flags.to_le_bytes());
    out.put(&account.timestamp.to_le_bytes());
    product::Account::decode(&bytes)
}

pub fn account_in(account: &product::Account) -> Account {
    let mut bytes = [0; 128];
    account.encode(&mut bytes);
    let mut from = In(&bytes, 0);
    Account {
        id: u128::from_le_bytes(from.take()),
        debits_pending: u128::from_le_bytes(from.take()),
        debits_posted: u128::from_le_bytes(from.take()),
        credits_pending: u128::from_le_bytes(from.take()),
        credits_posted: u128::from_le_bytes(from.take()),
        user_data_128: u128::from_le_bytes(from.take()),
        user_data_64: u64::from_le_bytes(from.take()),
        user_data_32: u32::from_le_bytes(from.take()),
        reserved: u32::from_le_bytes(from.take()),
        ledger: u32::from_le_bytes(from.take()),
        code: u16::from_le_bytes(from.take()),
        flags: u16::from_le_bytes(from.take()),
        timestamp: u64::from_le_bytes(from.take()),
    }
}

pub fn transfer_out(transfer: &Transfer) -> product::Transfer {
    let mut bytes = [0; 128];
    let mut out = Out(&mut bytes, 0);
    for number in [
        transfer.id,
        transfer.debit_account_id,
        transfer.credit_account_id,
        transfer.amount,
        transfer.pending_id,
        transfer.user_data_128,
    ] {
        out.put(&number.to_le_bytes());
    }
    out.put(&transfer.user_data_64.to_le_bytes());
    out.put(&transfer.user_data_32.to_le_bytes());
    out.put(&transfer.timeout.to_le_bytes());
    out.put(&transfer.ledger.to_le_bytes());
    out.put(&transfer.code.to_le_bytes());
    out.put(&transfer.flags.to_le_bytes());
    out.put(&transfer.timestamp.to_le_bytes());
    product::Transfer::decode(&bytes)
}

pub fn transfer_in(transfer: &product::Transfer) -> Transfer {
    let mut bytes = [0; 128];
    transfer.encode(&mut bytes);
    let mut from = In(&bytes, 0);
    Transfer {
        id: u128::from_le_bytes(from.take()),
        debit_account_id: u128::from_le_bytes(from.take()),
        credit_account_id: u128::from_le_bytes(from.take()),
        amount: u128::from_le_bytes(from.take()),
        pending_id: u128::from_le_bytes(from.take()),
        user_data_128: u128::from_le_bytes(from.take()),
        user_data_64: u64::from_le_bytes(from.take()),
        user_data_32: u32::from_le_bytes(from.take()),
        timeout: u32::from_le_bytes(from.take()),
        ledger: u32::from_le_bytes(from.take()),
        code: u16::from_le_bytes(from.take()),
        flags: u16::from_le_bytes(from.take()),
        timestamp: u64::from_le_bytes(from.take()),
    }
}

struct Out<'a>(&'a mut [u8; 128], usize);

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0[self.1..self.1 + bytes.len()].copy_from_slice(bytes);
        self.1 += bytes.len();
    }
}

struct In<'a>(&'a [u8; 128], usize);

impl In<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        self.1 += N;
        self.0[self.1 - N..self.1].try_into().expect("a slice of N bytes")
    }
}

fn account_filter(filter: &AccountFilter) -> product::AccountFilter {
    let bit = |on: bool, bit: u32| if on { 1 << bit } else { 0 };
    product::AccountFilter {
        account_id: product::AccountId(filter.account_id),
        user_data_128: filter.user_data_128,
        user_data_64: filter.user_data_64,
        user_data_32: filter.user_data_32,
        code: filter.code,
        timestamp_min: filter.timestamp_min,
        timestamp_max: filter.timestamp_max,
        limit: filter.limit,
        flags: product::AccountFilterFlags(bit(filter.debits, 0) | bit(filter.credits, 1) | bit(filter.reversed, 2)),
    }
}

fn query_filter(filter: &QueryFilter) -> product::QueryFilter {
    product::QueryFilter {
        user_data_128: filter.user_data_128,
        user_data_64: filter.user_data_64,
        user_data_32: filter.user_data_32,
        ledger: filter.ledger,
        code: filter.code,
        timestamp_min: filter.timestamp_min,
        timestamp_max: filter.timestamp_max,
        limit: filter.limit,
        flags: product::QueryFilterFlags(u32::from(filter.reversed)),
    }
}

fn events_filter(filter: &EventsFilter) -> product::ChangeEventsFilter {
    product::ChangeEventsFilter {
        timestamp_min: filter.timestamp_min,
        timestamp_max: filter.timestamp_max,
        limit: filter.limit,
    }
}
