//! The log on real files and real threads: written, read and purged at the same time.
//!
//! Segments and cache are small, so that readers go to the disk, segments are reused behind them, and the writer rolls.

use std::sync::Arc;

use bytes::Bytes;
use jangbu_raft_store::{
    Command, Entry, Fatal, LogConfig, LogSetup, LogStore, TypeConfig, Vote, blocking::Lanes, testing::Dice,
    type_config::log_id, vfs::StdVfs,
};
use openraft::{
    EntryPayload, RaftLogReader,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};

const ENTRIES: u64 = 4000;

/// The body follows from the index, so that a reader knows what it must read.
fn entry(index: u64) -> Entry {
    let mut dice = Dice(index);
    let size = 1 + dice.below(if index.is_multiple_of(50) { 40_000 } else { 600 });
    let body: Bytes = (0..size).map(|_| dice.roll() as u8).collect();
    Entry::new(log_id(1, 1, index), EntryPayload::Normal(Command(body)))
}

async fn open(dir: &std::path::Path, lanes: &Arc<Lanes>) -> LogStore {
    let config = LogConfig { segment_bytes: 64 << 10, cache_bytes: 16 << 10, append_bytes_max: 8 << 10, spares_max: 2 };
    let setup = LogSetup { dir: dir.join("log"), group: 0, config, must_exist: false };
    LogStore::open(setup, Arc::new(StdVfs), lanes.clone(), Fatal::default()).await.unwrap()
}

/// Reads somewhere in the log, again and again, until it holds all entries.
async fn read(mut log: LogStore, seed: u64) {
    let mut dice = Dice(seed);
    loop {
        let state = log.get_log_state().await.unwrap();
        let next = state.last_log_id.map_or(0, |last| last.index + 1);
        let start = dice.below(next);
        let entries = log.limited_get_log_entries(start, start + 40).await.unwrap();
        for (read, index) in entries.iter().zip(start..) {
            assert_eq!(
                *read,
                entry(index),
                "nothing if the first was purged meanwhile; never a later one in its place"
            );
        }
        if next == ENTRIES {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_whole_entries_while_the_log_is_written_and_purged() {
    let dir = tempfile::tempdir().unwrap();
    let lanes = Arc::new(Lanes::new("load"));
    let mut log = open(dir.path(), &lanes).await;
    let readers: Vec<_> = (0..3).map(|seed| tokio::spawn(read(log.clone(), seed))).collect();
    let mut index = 0;
    let mut last_durable = None;
    while index < ENTRIES {
        let end = (index + 1 + index % 7).min(ENTRIES);
        let (done, durable) = TypeConfig::oneshot();
        log.append((index..end).map(entry), IOFlushed::signal(done)).await.unwrap();
        // Now and then the writer waits, so that it is neither always behind nor never.
        if index % 5 == 0 {
            durable.await.unwrap().unwrap();
        } else {
            last_durable = Some(durable);
        }
        if index % 400 < 7 && index > 800 {
            log.purge(log_id(1, 1, index - 600)).await.unwrap();
            log.save_vote(&Vote::new(index, 1)).await.unwrap();
        }
        index = end;
    }
    if let Some(durable) = last_durable {
        durable.await.unwrap().unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let state = log.get_log_state().await.unwrap();
    let whole = log.try_get_log_entries(..).await.unwrap();
    assert!(log.stats().segments_count() < 40, "purged segments are given back");
    // The last vote is durable, and so is all before it.
    log.save_vote(&Vote::new(ENTRIES, 1)).await.unwrap();
    drop(log);

    let mut again = open(dir.path(), &lanes).await;
    assert_eq!(again.get_log_state().await.unwrap(), state);
    assert_eq!(again.try_get_log_entries(..).await.unwrap(), whole);
    assert_eq!(again.read_vote().await.unwrap(), Some(Vote::new(ENTRIES, 1)));
}
