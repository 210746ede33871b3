//! openraft's own storage suite, on the log and on both engines of the state.
//!
//! It says what openraft relies on; what it leaves out (durability, order, damage) is in `log_crash_points.rs` and the
//! snapshot's tests.

use std::sync::Arc;

use jangbu_raft_store::{
    LogConfig, LogStore, StateConfig, StateMachine, StoreConfig, StoreEnv, TypeConfig,
    blocking::Lanes,
    engine::{EngineFactory, memory::MemoryEngines, rocks::RocksEngines},
    vfs::StdVfs,
};
use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};

/// Makes stores in folders of their own.
struct Builder<F> {
    engines: F,
    lanes: Arc<Lanes>,
    log: LogConfig,
    state: StateConfig,
}

impl<F> StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder<F>
where
    F: Fn() -> Arc<dyn EngineFactory> + Send + Sync,
{
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a folder to work in");
        let config = StoreConfig {
            node_id: 1,
            data_dir: dir.path().join("node"),
            new_incarnation: [1; 16],
            group: 0,
            log: self.log.clone(),
            state: self.state.clone(),
        };
        let env = StoreEnv {
            log_vfs: Arc::new(StdVfs),
            state_vfs: Arc::new(StdVfs),
            engines: (self.engines)(),
            blocking: self.lanes.clone(),
        };
        let store = jangbu_raft_store::open(config, env).await.expect("an empty folder opens");
        Ok((dir, store.log, store.state))
    }
}

async fn pass(engines: impl Fn() -> Arc<dyn EngineFactory> + Send + Sync, log: LogConfig) {
    let lanes = Arc::new(Lanes::new("suite"));
    let builder = Builder { engines, lanes, log, state: StateConfig::default() };
    Suite::test_all(builder).await.expect("the suite passes");
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_accepts_the_store_on_the_memory_engine() {
    pass(|| Arc::new(MemoryEngines::new(Arc::new(StdVfs))), LogConfig::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_accepts_the_store_on_rocksdb() {
    pass(|| Arc::new(RocksEngines::new(8 << 20)), LogConfig::default()).await;
    jangbu_raft_store::testing::leave_without_destructors();
}

/// No cache and tiny segments: every read of an entry that is written goes to the disk, and the log rolls all the time.
#[tokio::test(flavor = "multi_thread")]
async fn openraft_accepts_a_log_that_always_reads_the_disk() {
    let log = LogConfig { segment_bytes: 512, cache_bytes: 0, append_bytes_max: 1, spares_max: 1 };
    pass(|| Arc::new(MemoryEngines::new(Arc::new(StdVfs))), log).await;
}
