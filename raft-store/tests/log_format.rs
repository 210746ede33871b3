//! Today's bytes of the log, kept for tomorrow.
//!
//! `fixtures/log-v1` was written by the first version of the format. It must open for ever. As long as the format is version
//! 1, the same calls must also write the same bytes: a change that nobody meant shows here.
//!
//! A new version gets a folder of its own, written by `UPDATE_FIXTURES=1 cargo test -p jangbu-raft-store --test log_format`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use bytes::Bytes;
use jangbu_proto::entry::NodeInfo;
use jangbu_raft_store::{
    Command, Entry, Fatal, LogConfig, LogSetup, LogStore, Vote,
    log::{Inspection, inspect},
    testing::{CrashVfs, Stepped},
    type_config::log_id,
    vfs::{OpenMode, StdVfs, Vfs},
};
use openraft::{
    EntryPayload, Membership,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};

const GROUP: u32 = 3;
const DIR: &str = "/log";

fn fixture() -> PathBuf {
    PathBuf::from("tests/fixtures/log-v1")
}

fn command(term: u64, index: u64, bytes: usize) -> Entry {
    let body: Bytes = (0..bytes).map(|place| (place as u64 * 7 + index) as u8).collect();
    Entry::new(log_id(term, 2, index), EntryPayload::Normal(Command(body)))
}

fn membership(term: u64, index: u64) -> Entry {
    let node = |id: u64| NodeInfo {
        peer_address: format!("10.0.0.{id}:7000"),
        client_address: format!("10.0.0.{id}:7001"),
        data_center: format!("dc-{id}"),
        incarnation: [id as u8; 16],
    };
    let nodes: BTreeMap<u64, NodeInfo> = (1..=3).map(|id| (id, node(id))).collect();
    let membership = Membership::new(vec![(1..=3).collect()], nodes).unwrap();
    Entry::new(log_id(term, 2, index), EntryPayload::Membership(membership))
}

/// One of everything, over several segments, the first of them purged.
async fn write() -> CrashVfs {
    let (disk, lanes) = (CrashVfs::default(), Stepped::default());
    let config = LogConfig { segment_bytes: 1024, cache_bytes: 0, append_bytes_max: 1, spares_max: 0 };
    let setup = LogSetup { dir: DIR.into(), group: GROUP, config, must_exist: false };
    let opening = LogStore::open(setup, Arc::new(disk.clone()), Arc::new(lanes.clone()), Fatal::default());
    let mut log = lanes.finish(opening).await.unwrap();
    lanes.finish(log.clone().save_vote(&Vote::new_committed(1, 2))).await.unwrap();
    let blank = Entry::new(log_id(1, 2, 1), EntryPayload::Blank);
    log.append([membership(1, 0), blank, command(1, 2, 300)], IOFlushed::noop()).await.unwrap();
    lanes.drain();
    log.append([command(1, 3, 200), command(1, 4, 64)], IOFlushed::noop()).await.unwrap();
    log.truncate_after(Some(log_id(1, 2, 3))).await.unwrap();
    log.save_committed(Some(log_id(1, 2, 3))).await.unwrap();
    lanes.drain();
    lanes.finish(log.clone().save_vote(&Vote::new(2, 3))).await.unwrap();
    log.append((4..9).map(|index| command(2, index, 100)), IOFlushed::noop()).await.unwrap();
    log.purge(log_id(1, 2, 2)).await.unwrap();
    lanes.drain();
    disk
}

fn expected() -> Inspection {
    Inspection {
        vote: Some(Vote::new(2, 3)),
        committed: Some(log_id(1, 2, 3)),
        purged: Some(log_id(1, 2, 2)),
        entries: [command(1, 3, 200)].into_iter().chain((4..9).map(|index| command(2, index, 100))).collect(),
    }
}

#[tokio::test]
async fn a_log_of_version_1_opens_and_says_what_was_written() {
    assert_eq!(inspect(&StdVfs, &fixture(), GROUP).unwrap(), expected());
}

#[tokio::test]
async fn the_same_calls_write_the_bytes_of_version_1() {
    let disk = write().await;
    assert_eq!(inspect(&disk, DIR.as_ref(), GROUP).unwrap(), expected());
    let written = disk.list(DIR.as_ref()).unwrap();
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        StdVfs.create_dir_all(&fixture()).unwrap();
        for path in &written {
            let file = StdVfs.open(&fixture().join(path.file_name().unwrap()), OpenMode::Create).unwrap();
            file.write_all_at(&disk.contents(path), 0).unwrap();
        }
    }
    let kept = StdVfs.list(&fixture()).unwrap();
    assert!(kept.len() > 1, "more than one segment: {kept:?}");
    assert_eq!(kept.len(), written.len());
    for (kept, written) in kept.iter().zip(&written) {
        assert_eq!(kept.file_name(), written.file_name());
        assert!(std::fs::read(kept).unwrap() == disk.contents(written), "{} was written differently", kept.display());
    }
}
