//! What went wrong (`error/failure.rs`), and what is made of the errors of other rooms.

mod failure;

use jangbu_raft_store::StoreError;

pub use failure::{During, EXIT_CODES, Failure, Kind};

/// Of a state that is read without a node: the disk's fault, or that of what lies there.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::general(error.to_string())
    }
}
