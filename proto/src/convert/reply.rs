//! What is answered: results, records, balances, change events.

use jangbu_ledger::{
    Account, AccountBalance, Amount, Balances, CreateAccountStatus, CreateResult, CreateTransferStatus, EventKind,
    Transfer,
};

use super::{
    number::{u128_from_wire, u128_to_wire},
    record::{account_from_wire, account_to_wire, transfer_from_wire, transfer_to_wire},
};
use crate::{
    Malformed,
    batch::{Answer, ReplyView},
    jangbu::v1,
};

/// A status of accounts or of transfers, as its number.
pub trait CreateStatus: Copy + Send + Sync + 'static {
    fn code(self) -> u32;
    fn from_code(code: u32) -> Option<Self>;
}

impl CreateStatus for CreateAccountStatus {
    fn code(self) -> u32 {
        CreateAccountStatus::code(self)
    }
    fn from_code(code: u32) -> Option<Self> {
        CreateAccountStatus::from_code(code)
    }
}

impl CreateStatus for CreateTransferStatus {
    fn code(self) -> u32 {
        CreateTransferStatus::code(self)
    }
    fn from_code(code: u32) -> Option<Self> {
        CreateTransferStatus::from_code(code)
    }
}

/// One thing that happened, with both accounts as they were right after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeEvent {
    /// When it happened; unique and increasing over all events.
    pub timestamp: u64,
    pub kind: EventKind,
    /// For an expiry, the pending transfer that expired.
    pub transfer: Transfer,
    pub debit_account: Account,
    pub credit_account: Account,
}

// --- written by a node

/// A result of the ledger, as replies carry it.
pub fn answer<S: CreateStatus>(result: &CreateResult<S>) -> Answer {
    Answer { status: result.status.code(), timestamp: result.timestamp }
}

pub fn create_accounts_reply(applied_at: v1::AppliedAt, reply: &ReplyView) -> v1::CreateAccountsReply {
    v1::CreateAccountsReply { applied_at: Some(applied_at), results: results_to_wire(reply) }
}

pub fn create_transfers_reply(applied_at: v1::AppliedAt, reply: &ReplyView) -> v1::CreateTransfersReply {
    v1::CreateTransfersReply { applied_at: Some(applied_at), results: results_to_wire(reply) }
}

fn results_to_wire(reply: &ReplyView) -> Vec<v1::Result> {
    reply.answers().map(|answer| v1::Result { timestamp: answer.timestamp, status: answer.status }).collect()
}

/// Where the request with this reply was applied.
pub fn applied_at(log_index: u64, term: u64, reply: &ReplyView) -> v1::AppliedAt {
    v1::AppliedAt { log_index, term, timestamp: reply.timestamp }
}

/// A reply on a packed stream.
pub fn applied(applied_at: v1::AppliedAt, reply: &ReplyView) -> v1::Applied {
    v1::Applied {
        applied_at: Some(applied_at),
        events_count: reply.events_count,
        exceptions: reply.exceptions_bytes().clone(),
    }
}

pub fn accounts_reply(read_at: v1::ReadAt, accounts: &[Account]) -> v1::AccountsReply {
    v1::AccountsReply { read_at: Some(read_at), accounts: accounts.iter().map(account_to_wire).collect() }
}

pub fn transfers_reply(read_at: v1::ReadAt, transfers: &[Transfer], scanned_to: u64) -> v1::TransfersReply {
    v1::TransfersReply {
        read_at: Some(read_at),
        transfers: transfers.iter().map(transfer_to_wire).collect(),
        scanned_to,
    }
}

pub fn balances_reply(read_at: v1::ReadAt, balances: &[AccountBalance], scanned_to: u64) -> v1::AccountBalancesReply {
    v1::AccountBalancesReply {
        read_at: Some(read_at),
        balances: balances.iter().map(balance_to_wire).collect(),
        scanned_to,
    }
}

fn balance_to_wire(balance: &AccountBalance) -> v1::AccountBalance {
    v1::AccountBalance {
        debits_pending: u128_to_wire(balance.balances.debits_pending.0),
        debits_posted: u128_to_wire(balance.balances.debits_posted.0),
        credits_pending: u128_to_wire(balance.balances.credits_pending.0),
        credits_posted: u128_to_wire(balance.balances.credits_posted.0),
        timestamp: balance.timestamp,
    }
}

pub fn change_events_reply(read_at: v1::ReadAt, events: &[ChangeEvent]) -> v1::ChangeEventsReply {
    v1::ChangeEventsReply { read_at: Some(read_at), events: events.iter().map(change_event_to_wire).collect() }
}

fn change_event_to_wire(event: &ChangeEvent) -> v1::ChangeEvent {
    v1::ChangeEvent {
        timestamp: event.timestamp,
        r#type: event.kind.code().into(),
        transfer: Some(transfer_to_wire(&event.transfer)),
        debit_account: Some(account_to_wire(&event.debit_account)),
        credit_account: Some(account_to_wire(&event.credit_account)),
    }
}

// --- read by a client

/// The results of a typed reply to a request of `events_count` events.
pub fn results<S: CreateStatus>(wire: &[v1::Result], events_count: usize) -> Result<Vec<CreateResult<S>>, Malformed> {
    if wire.len() != events_count {
        return Err(Malformed::new("results", format!("holds {} answers to {events_count} events", wire.len())));
    }
    let result = |(index, result): (usize, &v1::Result)| {
        read_result(index, Answer { status: result.status, timestamp: result.timestamp })
    };
    wire.iter().enumerate().map(result).collect()
}

/// The results of a packed reply.
pub fn results_of<S: CreateStatus>(reply: &ReplyView) -> Result<Vec<CreateResult<S>>, Malformed> {
    reply.answers().enumerate().map(|(index, answer)| read_result(index, answer)).collect()
}

fn read_result<S: CreateStatus>(index: usize, answer: Answer) -> Result<CreateResult<S>, Malformed> {
    let status = S::from_code(answer.status)
        .ok_or_else(|| Malformed::new(format!("results[{index}].status"), format!("{} is none", answer.status)))?;
    Ok(CreateResult { status, timestamp: answer.timestamp })
}

/// A packed stream's reply to a request of `events_count` events, whole.
pub fn view_of_applied(applied: &v1::Applied, events_count: usize) -> Result<(v1::AppliedAt, ReplyView), Malformed> {
    let applied_at = applied.applied_at.ok_or_else(|| Malformed::new("applied.applied_at", "is missing"))?;
    if applied.events_count as usize != events_count {
        let reason = format!("{} is not the request's {events_count}", applied.events_count);
        return Err(Malformed::new("applied.events_count", reason));
    }
    let reply = ReplyView::new(applied_at.timestamp, applied.events_count, applied.exceptions.clone())
        .map_err(|refusal| refusal.within("applied"))?;
    Ok((applied_at, reply))
}

pub fn accounts(wire: &[v1::Account]) -> Result<Vec<Account>, Malformed> {
    read_list("accounts", wire, account_from_wire)
}

pub fn transfers(wire: &[v1::Transfer]) -> Result<Vec<Transfer>, Malformed> {
    read_list("transfers", wire, transfer_from_wire)
}

pub fn balances(wire: &[v1::AccountBalance]) -> Vec<AccountBalance> {
    wire.iter().map(read_balance).collect()
}

pub fn change_events(wire: &[v1::ChangeEvent]) -> Result<Vec<ChangeEvent>, Malformed> {
    read_list("events", wire, read_change_event)
}

fn read_list<W, T>(list: &str, wire: &[W], read: impl Fn(&W) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    let read = |(index, item)| read(item).map_err(|refusal| refusal.within(&format!("{list}[{index}]")));
    wire.iter().enumerate().map(read).collect()
}

fn read_balance(wire: &v1::AccountBalance) -> AccountBalance {
    AccountBalance {
        balances: Balances {
            debits_pending: Amount(u128_from_wire(&wire.debits_pending)),
            debits_posted: Amount(u128_from_wire(&wire.debits_posted)),
            credits_pending: Amount(u128_from_wire(&wire.credits_pending)),
            credits_posted: Amount(u128_from_wire(&wire.credits_posted)),
        },
        timestamp: wire.timestamp,
    }
}

fn read_change_event(wire: &v1::ChangeEvent) -> Result<ChangeEvent, Malformed> {
    let kind = u8::try_from(wire.r#type)
        .ok()
        .and_then(EventKind::from_code)
        .ok_or_else(|| Malformed::new("type", format!("{} is none", wire.r#type)))?;
    Ok(ChangeEvent {
        timestamp: wire.timestamp,
        kind,
        transfer: read_part("transfer", &wire.transfer, transfer_from_wire)?,
        debit_account: read_part("debit_account", &wire.debit_account, account_from_wire)?,
        credit_account: read_part("credit_account", &wire.credit_account, account_from_wire)?,
    })
}

fn read_part<W, T>(field: &str, wire: &Option<W>, read: impl Fn(&W) -> Result<T, Malformed>) -> Result<T, Malformed> {
    let wire = wire.as_ref().ok_or_else(|| Malformed::new(field, "is missing"))?;
    read(wire).map_err(|refusal| refusal.within(field))
}
