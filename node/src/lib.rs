//! The process `jangbud`: doors, clocks, wires.
//!
//!     api ──► admission ─► batcher ─┬─► proposer ──► Raft ──► raft-store
//!      │                            └─► forwarder ─► the leader's peer door
//!      └────► reader ──────────────────► raft-store
//!     peers: the wires between replicas     membership, pulse, snapshots, digests: what a cluster needs to stay one
//!
//! [`run`] is a node's whole life. It stands on an [`Environment`] alone, so the simulator runs the same code.
//!
//! Not here: the rules of money (`ledger`), what lies on disk (`raft-store`), the bytes of the wire (`proto`).

pub mod config;
pub mod environment;
pub mod error;
pub mod node;

mod admission;
mod api;
mod applied;
mod batcher;
mod clock_skew;
mod digests;
mod forwarder;
mod health;
mod http;
mod identity;
mod leadership;
mod membership;
mod metrics;
mod peers;
mod proposer;
mod pulse;
mod reader;
mod shutdown;
mod snapshots;

pub use config::NodeConfig;
pub use environment::Environment;
pub use error::NodeError;
pub use node::{Node, run};
