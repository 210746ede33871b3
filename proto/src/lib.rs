//! Every byte that crosses a wire or outlives a process.
//!
//!     jangbu/v1/*.proto    what clients say               -> jangbu::v1
//!     cluster/v1/*.proto   what replicas and operators say -> cluster::v1
//!     convert              messages to ledger types: complete, or refused with the field's name
//!     batch                the body of a log entry, and its replies
//!     entry                a log entry, as it lies on disk and travels between replicas
//!     reason               why a call failed: the one table of error reasons
//!     grant                who may what, and how a certificate says so
//!     token                what a caller shows instead of a certificate
//!     trail                the chain of hashes of the audit trail
//!     secret               what must not be seen
//!     transport            how connections are made and kept, real or simulated
//!
//! Laws
//! * Nothing is guessed: bytes decode completely, or are refused with a [`Malformed`] that names the field.
//! * A number that is on a wire or on a disk is never given a second meaning.
//!
//! Not here: what a request means (`ledger`), who may ask it (`node`), where bytes are kept (`raft-store`).

pub mod batch;
pub mod convert;
pub mod entry;
pub mod grant;
mod malformed;
pub mod reason;
mod secret;
pub mod token;
pub mod trail;
pub mod transport;

pub use malformed::Malformed;
pub use secret::Secret;

/// What clients say.
pub mod jangbu {
    pub mod v1 {
        tonic::include_proto!("jangbu.v1");
    }
}

/// What replicas and operators say.
pub mod cluster {
    pub mod v1 {
        tonic::include_proto!("cluster.v1");
    }
}

/// Descriptors of what the client door serves, for gRPC reflection: `jangbu.v1.Ledger` and `cluster.v1.Operator`.
pub const CLIENT_DOOR_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/client_door.bin"));

/// Descriptors of what the peer door serves, for gRPC reflection: `cluster.v1.Peer`.
pub const PEER_DOOR_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/peer_door.bin"));
