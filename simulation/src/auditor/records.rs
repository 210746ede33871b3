//! What the auditor writes down: accounts, transfers, calls and answers, in records of its own.
//!
//! Nothing here is shared with `ledger/`: two bookkeepers who copy from one another make one mistake twice.

/// The answer `created`.
pub const CREATED: u32 = u32::MAX;

/// The largest amount.
pub const AMOUNT_MAX: u128 = u128::MAX;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    pub id: u128,
    pub debits_pending: u128,
    pub debits_posted: u128,
    pub credits_pending: u128,
    pub credits_posted: u128,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    pub reserved: u32,
    pub ledger: u32,
    pub code: u16,
    pub flags: u16,
    pub timestamp: u64,
}

pub mod account_flags {
    pub const LINKED: u16 = 1 << 0;
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: u16 = 1 << 1;
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: u16 = 1 << 2;
    pub const HISTORY: u16 = 1 << 3;
    pub const IMPORTED: u16 = 1 << 4;
    pub const CLOSED: u16 = 1 << 5;
    pub const ALL: u16 = (1 << 6) - 1;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfer {
    pub id: u128,
    pub debit_account_id: u128,
    pub credit_account_id: u128,
    pub amount: u128,
    pub pending_id: u128,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    /// Seconds.
    pub timeout: u32,
    pub ledger: u32,
    pub code: u16,
    pub flags: u16,
    pub timestamp: u64,
}

pub mod transfer_flags {
    pub const LINKED: u16 = 1 << 0;
    pub const PENDING: u16 = 1 << 1;
    pub const POST: u16 = 1 << 2;
    pub const VOID: u16 = 1 << 3;
    pub const BALANCING_DEBIT: u16 = 1 << 4;
    pub const BALANCING_CREDIT: u16 = 1 << 5;
    pub const CLOSING_DEBIT: u16 = 1 << 6;
    pub const CLOSING_CREDIT: u16 = 1 << 7;
    pub const IMPORTED: u16 = 1 << 8;
    pub const ALL: u16 = (1 << 9) - 1;
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    pub debits_pending: u128,
    pub debits_posted: u128,
    pub credits_pending: u128,
    pub credits_posted: u128,
    pub timestamp: u64,
}

/// As on the wire: 0 single-phase, 1 pending, 2 posted, 3 voided, 4 expired.
pub const EXPIRED: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeEvent {
    pub timestamp: u64,
    pub kind: u8,
    pub transfer: Transfer,
    /// Right after the event.
    pub debit_account: Account,
    pub credit_account: Account,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountFilter {
    pub account_id: u128,
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    pub code: u16,
    pub timestamp_min: u64,
    pub timestamp_max: u64,
    pub limit: u32,
    pub debits: bool,
    pub credits: bool,
    pub reversed: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryFilter {
    pub user_data_128: u128,
    pub user_data_64: u64,
    pub user_data_32: u32,
    pub ledger: u32,
    pub code: u16,
    pub timestamp_min: u64,
    pub timestamp_max: u64,
    pub limit: u32,
    pub reversed: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventsFilter {
    pub timestamp_min: u64,
    pub timestamp_max: u64,
    pub limit: u32,
}

/// The answer to one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub status: u32,
    pub timestamp: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    CreateAccounts(Vec<Account>),
    CreateTransfers(Vec<Transfer>),
    LookupAccounts(Vec<u128>),
    LookupTransfers(Vec<u128>),
    AccountTransfers(AccountFilter),
    AccountBalances(AccountFilter),
    QueryAccounts(QueryFilter),
    QueryTransfers(QueryFilter),
    ChangeEvents(EventsFilter),
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::CreateAccounts(_) => "create_accounts",
            Op::CreateTransfers(_) => "create_transfers",
            Op::LookupAccounts(_) => "lookup_accounts",
            Op::LookupTransfers(_) => "lookup_transfers",
            Op::AccountTransfers(_) => "get_account_transfers",
            Op::AccountBalances(_) => "get_account_balances",
            Op::QueryAccounts(_) => "query_accounts",
            Op::QueryTransfers(_) => "query_transfers",
            Op::ChangeEvents(_) => "get_change_events",
        }
    }

    pub fn is_write(&self) -> bool {
        matches!(self, Op::CreateAccounts(_) | Op::CreateTransfers(_))
    }

    /// Events of a write; 0 for a read.
    pub fn events_count(&self) -> usize {
        match self {
            Op::CreateAccounts(events) => events.len(),
            Op::CreateTransfers(events) => events.len(),
            _ => 0,
        }
    }

    /// The id of event `index` of a write.
    pub fn event_id(&self, index: usize) -> u128 {
        match self {
            Op::CreateAccounts(events) => events[index].id,
            Op::CreateTransfers(events) => events[index].id,
            _ => 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Linearizable,
    Bounded { max_ms: u32 },
    Local,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    Accounts(Vec<Account>),
    Transfers(Vec<Transfer>),
    Balances(Vec<Balance>),
    Events(Vec<ChangeEvent>),
}

impl Rows {
    pub fn count(&self) -> usize {
        match self {
            Rows::Accounts(rows) => rows.len(),
            Rows::Transfers(rows) => rows.len(),
            Rows::Balances(rows) => rows.len(),
            Rows::Events(rows) => rows.len(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Written {
        log_index: u64,
        term: u64,
        timestamp: u64,
        results: Vec<Outcome>,
    },
    Read {
        log_index: u64,
        timestamp: u64,
        staleness_ns: u64,
        rows: Rows,
        scanned_to: u64,
    },
    /// Turned away as nonsense. Nothing was done.
    Malformed(String),
    /// "Nothing was done": a promise, and it is held.
    Unavailable(String),
    /// It may or may not have been done.
    Unknown(String),
}

/// One call as its caller saw it. Times are simulated nanoseconds of one global clock.
#[derive(Debug, Clone)]
pub struct Call {
    pub client: u32,
    pub op: Op,
    pub level: Level,
    pub invoked_ns: u64,
    pub answered_ns: u64,
    pub answer: Answer,
    /// Whether the way to the answer may have left more than one attempt behind.
    pub retried: bool,
}
