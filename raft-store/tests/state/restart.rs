//! What a restart costs, and what it finds.

use crate::harness::*;
use bytes::Bytes;
use futures_util::FutureExt;
use jangbu_raft_store::blocking::Lane;
use jangbu_raft_store::engine::memory::MemoryEngines;
use jangbu_raft_store::engine::{Batch, Engine, EngineFactory, Row, RowRef, Rows, Staged, Usage};
use jangbu_raft_store::schema::Family;
use jangbu_raft_store::testing::Stepped;
use jangbu_raft_store::vfs::StdVfs;
use jangbu_raft_store::{Command, Entry, StateConfig, StoreEnv, StoreError, log_id};
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SECOND: u64 = 1_000_000_000;

/// Counts the rows that are read.
struct Counting {
    inner: Arc<dyn EngineFactory>,
    rows: Arc<AtomicU64>,
}

struct CountingEngine {
    inner: Arc<dyn Engine>,
    rows: Arc<AtomicU64>,
}

impl EngineFactory for Counting {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        Ok(Arc::new(CountingEngine { inner: self.inner.open(dir)?, rows: self.rows.clone() }))
    }
    fn open_read_only(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        self.inner.open_read_only(dir)
    }
    fn forget(&self, dir: &Path) {
        self.inner.forget(dir);
    }
}

impl CountingEngine {
    fn count(&self) {
        self.rows.fetch_add(1, Ordering::Relaxed);
    }
}

struct CountingRows<'e> {
    inner: Box<dyn Rows + 'e>,
    engine: &'e CountingEngine,
}

impl Rows for CountingRows<'_> {
    fn next(&mut self) -> Result<Option<RowRef<'_>>, StoreError> {
        self.engine.count();
        self.inner.next()
    }
}

impl Engine for CountingEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.count();
        self.inner.get(family, key)
    }
    fn at_or_before(&self, family: Family, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.count();
        self.inner.at_or_before(family, key)
    }
    fn at_or_after(&self, family: Family, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.count();
        self.inner.at_or_after(family, key)
    }
    fn rows<'e>(&'e self, family: Family, from: &[u8], to: &[u8], ahead_bytes: usize) -> Box<dyn Rows + 'e> {
        Box::new(CountingRows { inner: self.inner.rows(family, from, to, ahead_bytes), engine: self })
    }
    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.inner.write(batch)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }
    fn stage(&self, batch: Batch) -> Result<Staged, StoreError> {
        self.inner.stage(batch)
    }
    fn ingest(&self, family: Family, parts: Vec<Staged>) -> Result<(), StoreError> {
        self.inner.ingest(family, parts)
    }
    fn let_go(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.inner.let_go(family, from, to)
    }
    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        self.inner.checkpoint(dir)
    }
    fn scrub(&self) -> Result<(), StoreError> {
        self.inner.scrub()
    }
    fn usage(&self) -> Usage {
        self.inner.usage()
    }
}

fn plain_entry(replica: &mut Replica, entry: u128) {
    let transfers: Vec<_> = (0..50).map(|n| transfer(1 + entry * 50 + n, 1 + n % 40, 1 + (n + 1) % 40, 1)).collect();
    replica.apply_body(transfers_body(SECOND, &transfers));
}

#[test]
fn the_rows_read_at_start_do_not_grow_with_history() {
    let rows = Arc::new(AtomicU64::new(0));
    let mut replica = Replica::new(Kind::Memory, tiny());
    let memory = Arc::new(MemoryEngines::new(Arc::new(StdVfs)));
    replica.store = None;
    replica.dir = tempfile::tempdir().unwrap();
    replica.engines = Arc::new(Counting { inner: memory, rows: rows.clone() });
    replica.store = Some(replica.try_open().unwrap());
    let accounts: Vec<_> = (1..=40).map(account).collect();
    replica.apply_body(accounts_body(SECOND, &accounts));

    let mut counts = Vec::new();
    let mut entry = 0;
    for until in [40, 400, 1_600] {
        while entry < until {
            plain_entry(&mut replica, entry);
            entry += 1;
        }
        replica.store = None;
        rows.store(0, Ordering::Relaxed);
        replica.store = Some(replica.try_open().unwrap());
        counts.push(rows.load(Ordering::Relaxed));
        let applied = replica.applied_index();
        replica.log.truncate(applied as usize);
        replica.replies.truncate(applied as usize);
    }
    // 20, 200 and 800 flushes: only the number of runs has grown, with the logarithm.
    assert!(counts[2] < counts[0] + 60, "{counts:?}");
}

#[tokio::test]
async fn no_state_is_durable_before_the_log_that_it_follows_from() {
    let (dir, lanes) = (tempfile::tempdir().unwrap(), Stepped::default());
    let vfs = Arc::new(StdVfs);
    let env = StoreEnv {
        log_vfs: vfs.clone(),
        state_vfs: vfs,
        engines: engines(Kind::Memory),
        blocking: Arc::new(lanes.clone()),
    };
    let config = StateConfig { flush_events: 1, ..StateConfig::default() };
    let mut store = lanes.finish(jangbu_raft_store::open(store_config(dir.path(), config), env)).await.unwrap();
    let body = accounts_body(SECOND, &[account(1)]);
    let entry = Entry { log_id: log_id(1, 1, 1), payload: EntryPayload::Normal(Command(body)) };

    // Others have it: it is applied. This disk hasn't.
    store.log.append([entry.clone()], IOFlushed::noop()).await.unwrap();
    let mut applying = std::pin::pin!(store.state.apply_alone(entry));
    assert!((&mut applying).now_or_never().is_none());
    assert!(!lanes.step(Lane::Flush), "the flush waits for the log");
    while lanes.step(Lane::Log) {}
    assert!((&mut applying).now_or_never().is_some());
    assert!(lanes.step(Lane::Flush));
}

#[test]
fn a_restart_finds_the_last_flush_and_the_log_brings_the_rest() {
    for kind in KINDS {
        let mut replica = Replica::new(kind, StateConfig { flush_events: 120, ..StateConfig::default() });
        let accounts: Vec<_> = (1..=40).map(account).collect();
        replica.apply_body(accounts_body(SECOND, &accounts));
        for entry in 0..30 {
            plain_entry(&mut replica, entry);
            let (digest, flushed) = (replica.digest(), replica.store().reader.flushed_index());
            replica.store = None;
            replica.store = Some(replica.try_open().unwrap());
            assert!(replica.applied_index() >= flushed, "a flush that was taken over was durable");
            replica.crash_and_replay();
            assert_eq!(replica.digest(), digest);
        }
    }
}

#[test]
fn a_flush_is_due_by_bytes_of_log_as_well() {
    let config = StateConfig { flush_log_bytes: 20_000, ..StateConfig::default() };
    let mut replica = Replica::new(Kind::Memory, config);
    // Refused, so that no events gather: the log grows all the same.
    for entry in 0..10 {
        plain_entry(&mut replica, entry);
    }
    let flushed = replica.store().reader.flushed_index();
    assert!(flushed >= 6, "{flushed}");
}

#[test]
fn an_empty_pointer_or_a_lost_state_is_not_a_fresh_start() {
    let mut replica = Replica::new(Kind::Rocks, tiny());
    replica.store = None;
    let group = replica.dir.path().join("group-0");
    std::fs::write(group.join("CURRENT"), "").unwrap();
    assert!(matches!(replica.try_open().err(), Some(StoreError::Damaged { .. })));
    std::fs::remove_file(group.join("CURRENT")).unwrap();
    assert!(matches!(replica.try_open().err(), Some(StoreError::Damaged { .. })));
    std::fs::write(group.join("CURRENT"), "state-7\n").unwrap();
    assert!(replica.try_open().is_err());
}

#[test]
fn a_pointer_with_a_flipped_bit_costs_no_state() {
    let mut replica = Replica::new(Kind::Rocks, tiny());
    replica.store = None;
    let group = replica.dir.path().join("group-0");
    let pointer = std::fs::read(group.join("CURRENT")).unwrap();
    // Each state that one flipped bit of the number can name lies there, left behind by an installation that was cut off.
    (1..10).for_each(|number| std::fs::create_dir_all(group.join(format!("state-{number}"))).unwrap());
    for bit in 0..pointer.len() * 8 {
        let mut flipped = pointer.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(group.join("CURRENT"), &flipped).unwrap();
        assert!(replica.try_open().is_err(), "bit {bit}");
        assert!(group.join("state-0/CURRENT").exists(), "bit {bit}: the state is still there");
    }
    std::fs::write(group.join("CURRENT"), &pointer).unwrap();
    assert!(replica.try_open().is_ok());
}

#[test]
fn a_fenced_replica_stops_and_does_not_start_again() {
    let mut replica = Replica::new(Kind::Rocks, tiny());
    replica.store().reader.fence("its digest differs at entry 1,024");
    assert!(now(replica.store().reader.fatal()).to_string().contains("differs"));
    replica.store = None;
    match replica.try_open().err() {
        Some(StoreError::Refused { reason, .. }) => {
            assert!(reason.contains("its digest differs at entry 1,024"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}
