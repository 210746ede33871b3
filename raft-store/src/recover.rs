//! A majority is lost for good: a stopped survivor is made the only member of its cluster.
//!
//! What Raft promises, it promises as long as a majority keeps its disks. Here somebody says that it hasn't, and that what the lost ones alone had
//! may be lost with them. The survivor keeps all that is in its log, also what it didn't know to be committed: it may have been acknowledged.
//!
//! Laws
//! * Nothing is removed from the log: behind its last entry comes a membership of this node alone, and a record in the audit trail.
//! * A folder that a node has open, that was fenced, or whose node had no vote is refused.
//!
//! Not here: whether there is a better survivor, and whether the others are gone (`ops/src/recover.rs`).

use crate::blocking::Lanes;
use crate::inspect::Inspector;
use crate::log::LogSetup;
use crate::log_store::LogStore;
use crate::restore::{GROUP, Record, RestoreError, found_alone};
use crate::stamp::Stamp;
use crate::type_config::{Command, LogId, StoredMembership};
use crate::vfs::StdVfs;
use crate::{Fatal, LogConfig, StoreError};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jangbu_proto::Malformed;
use jangbu_proto::batch::{Batch, Kind};
use jangbu_proto::cluster::v1::{AdminCommand, admin_command};
use openraft::storage::RaftLogStorage as _;
use openraft::{EntryPayload, RaftLogReader as _};
use prost::Message as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

/// Makes the node of a folder its cluster's only member; tells the last entry that it keeps. Durable when it returns. Blocks on the disk.
pub async fn stand_alone(data_dir: &Path, record: &Record) -> Result<LogId, RestoreError> {
    // Held to the end: no node starts meanwhile.
    let inspector = Inspector::open(data_dir)?;
    let node_id = inspector.identity().node_id;
    let refuse = |reason: String| StoreError::Refused { path: data_dir.to_owned(), reason };
    let state = inspector.state()?;
    if let Some(reason) = state.fenced {
        return Err(refuse(format!("this replica was fenced: {reason}")).into());
    }
    let setup = LogSetup {
        dir: data_dir.join(format!("group-{GROUP}")).join("log"),
        group: GROUP,
        config: LogConfig::default(),
        must_exist: true,
    };
    let mut log = LogStore::open(setup, Arc::new(StdVfs), Arc::new(Lanes::new("recover")), Fatal::default()).await?;
    let last = log.get_log_state().await?.last_log_id;
    let last = last.ok_or_else(|| refuse("its log is empty: there is nothing to go on from".into()))?;
    let (membership, version) = as_of_the_log(&mut log, &state.stamp).await?;
    let node = membership.membership().get_node(&node_id).cloned();
    let node = node.filter(|_| membership.voter_ids().any(|id| id == node_id));
    let node =
        node.ok_or_else(|| refuse(format!("node {node_id} had no vote in its cluster: it may lack anything")))?;
    found_alone(&mut log, last, node_id, node, version, record).await?;
    Ok(last)
}

/// The members and the cluster's version, as the log says that the flushed state doesn't know yet; committed or not.
async fn as_of_the_log(log: &mut LogStore, stamp: &Stamp) -> Result<(StoredMembership, u32), RestoreError> {
    let (mut membership, mut version) = (stamp.membership.clone(), stamp.version);
    let first = stamp.applied.map_or(0, |applied| applied.index + 1);
    let mut entries = pin!(log.entries_stream(first..).await);
    while let Some(entry) = entries.try_next().await? {
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(newer) => membership = StoredMembership::new(Some(entry.log_id), newer),
            EntryPayload::Normal(Command(body)) => version = raised(body)?.unwrap_or(version),
        }
    }
    Ok((membership, version))
}

fn raised(body: Bytes) -> Result<Option<u32>, Malformed> {
    let batch = Batch::parse(body)?;
    if batch.kind() != Kind::Admin {
        return Ok(None);
    }
    let command =
        AdminCommand::decode(&batch.admin()[..]).map_err(|error| Malformed::new("admin", error.to_string()))?;
    Ok(match command.command {
        Some(admin_command::Command::RaiseVersion(raise)) => Some(raise.version),
        _ => None,
    })
}
