//! The process `jangbud`: doors, clocks, wires.
//!
//!     api ──► admission ─► batcher ─┬─► proposer ──► Raft ──► raft-store
//!      │                            └─► forwarder ─► the leader's peer door
//!      └────► reader ──────────────────► raft-store
//!     peers: the wires between replicas
//!     backup: what a backup reads of a node
//!     traces: what single calls went through
//!     access, keys: who may what, and what proves who somebody is
//!     membership, administration, hearsay, succession, abdication, pulse, snapshots, digests: what a cluster needs to stay one
//!
//! [`run`] is a node's whole life. It stands on an [`Environment`] alone, so the simulator runs the same code.
//!
//! Not here: the rules of money (`ledger`), what lies on disk (`raft-store`), the bytes of the wire (`proto`).

pub mod abdication;
pub mod access;
pub mod administration;
pub mod admission;
pub mod api;
pub mod applied;
pub mod backup;
pub mod batcher;
pub mod clock_skew;
pub mod config;
pub mod digests;
pub mod environment;
pub mod error;
pub mod forwarder;
pub mod health;
pub mod hearsay;
pub mod http;
pub mod identity;
pub mod keys;
pub mod leadership;
pub mod machine;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod proposer;
pub mod pulse;
pub mod reader;
pub mod service_manager;
pub mod shutdown;
pub mod snapshots;
pub mod succession;
pub mod traces;
pub mod waves;

pub use config::NodeConfig;
pub use environment::Environment;
pub use error::NodeError;
pub use node::{Node, run};
