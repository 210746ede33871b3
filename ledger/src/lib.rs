//! The rules of money: accounts, transfers, and what may be answered to whoever asks for one.
//!
//! This crate decides and keeps nothing but memory. The store loads what a request names, asks for the decision, and
//! writes down what happened:
//!
//! ```text
//! events (requests, in log order)  ->  Books  ->  results, one per event
//!                                        |
//!                                        v
//!                                  change events  ->  the store, at each flush
//! ```
//!
//! Laws
//! * Debits equal credits: over every ledger, pending and posted, after every event (`laws.rs`).
//! * No account breaks its limit, pending included (`laws.rs`).
//! * A transfer id has at most one effect, for ever; the same id with the same body always gets the same answer, once
//!   it has had an effect or was burnt.
//! * What was refused left no trace, save a burnt id.
//! * A pending transfer is posted, voided or expired: exactly one of them, and expiry depends on log time alone.
//! * Money neither wraps nor rounds: no input makes a sum overflow, and none makes this crate panic.
//! * The same requests at the same times give the same results, balances, events and digest, on whichever machine, and
//!   whatever part of the past happens to be in memory.
//!
//! Not here: clocks, disks, networks, threads, chance. The compiler keeps most of them out (`no_std`); time is an argument.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod account;
mod amount;
mod books;
mod bytes;
mod digest;
mod filter;
mod index;
mod journal;
mod laws;
pub mod planted;
mod recent;
mod rules;
mod status;
mod transfer;

pub use account::{Account, AccountFlags, AccountId, Balances, Slot};
pub use amount::Amount;
pub use books::{Books, TIMESTAMP_MAX};
pub use digest::Digest;
pub use filter::{
    AccountBalance, AccountFilter, AccountFilterFlags, ChangeEventsFilter, EVENTS_MAX, Invalid, QueryFilter,
    QueryFilterFlags,
};
pub use journal::{Event, EventKind, EventNumber, Head, IdState, PendingState, Side};
pub use laws::{Sum, Totals};
pub use recent::Frozen;
pub use status::{CreateAccountStatus, CreateResult, CreateTransferStatus};
pub use transfer::{Transfer, TransferFlags, TransferId};
