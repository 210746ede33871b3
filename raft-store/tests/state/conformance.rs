//! openraft's own suite over our log and state, on both engines, with the lanes of production.

use crate::harness::{KINDS, Kind, engines, store_config, tiny};
use jangbu_raft_store::blocking::Lanes;
use jangbu_raft_store::vfs::StdVfs;
use jangbu_raft_store::{LogStore, StateMachine, StoreEnv, TypeConfig};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::Arc;

struct Builder(Kind);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let vfs = Arc::new(StdVfs);
        let blocking = Arc::new(Lanes::new("suite"));
        let env = StoreEnv { log_vfs: vfs.clone(), state_vfs: vfs, engines: engines(self.0), blocking };
        let store = jangbu_raft_store::open(store_config(dir.path(), tiny()), env).await.unwrap();
        Ok((dir, store.log, store.state))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_of_openraft_passes_on_both_engines() {
    for kind in KINDS {
        Suite::test_all(Builder(kind)).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}
