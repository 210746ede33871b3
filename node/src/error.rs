//! Two kinds of failure: a call that can't be answered, and a node that can't go on.
//!
//! Not here: the mapping to gRPC codes (`api/status.rs`), and what the rules of money refuse, which is no error at all.

use std::time::Duration;

use jangbu_proto::{Malformed, cluster::v1::Removal};
use jangbu_raft_store::StoreError;

/// Why a call was not answered, told by what the caller should do next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The request makes no sense. Nothing was done; asking again is useless.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// More load than capacity. Nothing was done; come back after `retry_after`.
    #[error("overloaded: {what}; come back in {retry_after:?}")]
    Overloaded { what: &'static str, retry_after: Duration },
    /// The cluster can't answer now. Nothing was done; ask again, here or elsewhere.
    #[error("{message}")]
    Unavailable { reason: Reason, message: String },
    /// The deadline passed before the request was proposed. Nothing was done.
    #[error("the deadline passed before the request was proposed; nothing was done")]
    NotProposed,
    /// The request was proposed and its fate isn't known here. Asking again with the same ids resolves it.
    #[error("the outcome is unknown; ask again with the same ids to resolve it")]
    OutcomeUnknown,
    /// Nothing that the caller has shown proves who it is.
    #[error("{message}")]
    Unauthenticated { reason: Reason, message: String },
    /// The caller isn't who it must be, or may not.
    #[error("{message}")]
    Denied { reason: Reason, message: String },
    /// The caller was removed from the cluster (peers only), and is told what proves it.
    #[error("node {node} was removed from the cluster")]
    Removed { node: u64, removal: Removal },
    /// The cluster's state doesn't allow it (operators only). Nothing was done.
    #[error("{message}")]
    Precondition { reason: Reason, message: String },
    /// Its store or its Raft core has failed. Where they can't be trusted any more, the process is ending for the same reason
    /// (node.rs); a snapshot's file that couldn't be read ends the call alone. Only the log of this node tells which.
    #[error("an error inside this node: {message}")]
    Internal { message: String },
}

/// A short name for programs: `ErrorInfo.reason` on the wire.
pub type Reason = &'static str;

impl CallError {
    pub fn unavailable(reason: Reason, message: impl Into<String>) -> Self {
        Self::Unavailable { reason, message: message.into() }
    }

    pub fn denied(reason: Reason, message: impl Into<String>) -> Self {
        Self::Denied { reason, message: message.into() }
    }

    pub fn unauthenticated(reason: Reason, message: impl Into<String>) -> Self {
        Self::Unauthenticated { reason, message: message.into() }
    }

    pub fn precondition(reason: Reason, message: impl Into<String>) -> Self {
        Self::Precondition { reason, message: message.into() }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal { message: message.into() }
    }

    /// One word for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "invalid",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable { .. } => "unavailable",
            Self::NotProposed => "not_proposed",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::Denied { .. } | Self::Removed { .. } => "denied",
            Self::Precondition { .. } => "precondition",
            Self::Internal { .. } => "internal",
        }
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::internal(error.to_string())
    }
}

/// Why a node ended, or could not start. Each says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("configuration: {0}")]
    Config(String),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error("{path}: {message}")]
    Identity { path: String, message: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the Raft core has stopped: {0}")]
    RaftStopped(String),
    #[error("{0}")]
    Fenced(String),
    /// The cluster says that this is not the node it knows.
    #[error("{0}")]
    Disowned(String),
    #[error(
        "node {node} was removed from the cluster ({how}). Don't start it again. To use this machine again, give it a new \
         node_id and an empty data_dir, start it, and type: jangbu member add"
    )]
    Removed { node: u64, how: String },
}
