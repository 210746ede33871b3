//! The replicated log of a node, and the state that follows from it: openraft's storage.
//!
//! Not here: the rules of money (`ledger`), connections between replicas (`node`), what lies in the bytes (`proto`).

pub mod type_config;
pub mod rt;
pub mod vfs;
pub mod blocking;
pub mod error;

pub use error::{Fatal, StoreError};
pub use type_config::{Applied, Command, Entry, LeaderId, LogId, TypeConfig, Vote};
