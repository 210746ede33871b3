//! A function for each decoder of bytes from outside: whatever the bytes, it must not panic, and what it takes must keep the
//! laws of that decoder.
//!
//!     identity            what a caller shows of itself: the names of certificates, tokens
//!     client_message      what a client asks: typed messages to records, filters, ids
//!     packed_stream       what a client packs itself, and what it is answered
//!     peer_message        what a peer says
//!     log_entry           an entry as it lies in the log and travels
//!     log_record          a record of the log's files
//!     snapshot_manifest   what a snapshot says of itself
//!     import_csv          files that people import
//!     import_berka
//!     exported            tables of an export, taken back
//!
//! The decoders of the log's files and of manifests are compiled from their own files and not through their crate, which
//! would bring RocksDB with it. What they touch of the rest stands here as small as they need it.
//!
//! Not here: what is only reached through a running node (`node/src/peers/envelope.rs`, HTTP/2 itself): `tests/cluster/doors.rs`.

#[path = "../../raft-store/src/admin.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod admin;
mod export;
#[path = "../../ops/src/error/failure.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod failure;
mod import;
mod log;
#[path = "../../raft-store/src/rt.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod rt;
mod snapshot;
mod stamp;
#[path = "../../raft-store/src/error.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod store_error;
#[path = "../../ops/src/text.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod text;
#[path = "../../raft-store/src/type_config.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod type_config;
#[path = "../../raft-store/src/watched.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod watched;
mod wire;

pub use export::exported;
pub use import::{import_berka, import_csv};
pub use log::{log_entry, log_record};
pub use snapshot::snapshot_manifest;
pub use wire::{client_message, identity, packed_stream, peer_message};

/// Under one name, as both crates' files call theirs.
mod error {
    pub use crate::failure::{During, Failure, Kind};
    pub use crate::store_error::*;
}
