//! The replicated log of a node, and the state that follows from it: openraft's storage.
//!
//! Not here: the rules of money (`ledger`), connections between replicas (`node`), what lies in the bytes (`proto`).

pub mod blocking;
pub mod error;
pub mod identity;
pub mod log;
pub mod log_store;
pub mod rt;
pub mod testing;
pub mod type_config;
pub mod vfs;

pub use error::{Fatal, StoreError};
pub use identity::{DataFolder, Identity};
pub use log::{LogConfig, LogSetup, LogStats};
pub use log_store::LogStore;
pub use type_config::{Applied, Command, Entry, LeaderId, LogId, TypeConfig, Vote};

pub mod codec;
pub mod engine;
pub mod journal;
pub mod runs;
pub mod schema;
