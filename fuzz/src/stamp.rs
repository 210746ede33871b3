//! What a manifest takes from a stamp (`raft-store/src/stamp.rs`).

use jangbu_ledger::Head;

use crate::type_config::{LogId, StoredMembership};

#[allow(dead_code, reason = "nobody makes one here")]
pub struct Stamp {
    pub version: u32,
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    pub head: Head,
}
