//! The way in, for Rust programs; and the model for other languages.
//!
//!     Client          the nine operations, on ledger types     -> one node, and another if need be
//!     PackedStream    many requests in flight, for heavy producers
//!     Gatherer        single transfers of many tasks, gathered into packed requests
//!     LookupGatherer  single lookups of many tasks, gathered into lookups of many
//!     OperatorClient  what the `jangbu` command asks
//!     Ids             time-ordered ids
//!
//! A service chooses the id of a transfer, keeps it, and only then asks. From there on asking again is always safe, and this
//! crate does it by itself while the call's deadline allows: under the same ids, at whichever node answers.
//!
//! Laws
//! * Every call ends by its deadline.
//! * What was asked once is only ever asked again under the same ids, byte for byte.
//! * An error says what the caller can do, and "unavailable" means that nothing was done: after any doubt it is
//!   [`ClientError::OutcomeUnknown`].
//! * Attempts are bounded, apart in time by chance, and at most a tenth more than calls in the long run.
//!
//! Not here: TLS, names of services, the meaning of a status (`ledger`).

mod client;
mod endpoints;
mod environment;
mod error;
#[cfg(test)]
mod fake;
mod gather;
mod id;
mod operator;
mod records;
mod retry;
mod stream;

pub use client::{Client, ClientConfig, Created, Fate, Page, Read, SessionToken};
pub use environment::{Clock, Entropy, system_clock, system_entropy};
pub use error::ClientError;
pub use gather::{Gatherer, LookupGatherer};
pub use id::{Ids, id};
pub use jangbu_proto::{
    Malformed,
    batch::{EVENTS_MAX, Operation},
    convert::{ChangeEvent, Consistency},
    jangbu::v1::{AppliedAt, ReadAt},
    reason,
};
pub use operator::OperatorClient;
pub use stream::{PackedReply, PackedStream, StreamConfig, Ticket};
