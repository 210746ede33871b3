//! The replicated log of a node, and the state that follows from it: openraft's storage.
//!
//!     openraft ── LogStore      -> log/            one ordered stream of records on the disk seam (`vfs.rs`)
//!        │
//!        └─────── StateMachine  -> Books (memory)  -> flush -> pages, runs, rows -> Engine (RocksDB, or memory)
//!     readers ─── StateReader   -> Books, or what was flushed
//!
//! Laws
//! * The log is what must not be lost. The state is what applying the log gave, as of the last flush; a restart applies the rest again.
//! * Everything of a group lies in its folder, and every path, record and snapshot names the group.
//! * No state is durable before the log that it follows from is, on the same disk: after a crash the log reaches as far as the state.
//! * What this replica can't trust stops it ([`Fatal`]).
//!
//! Not here: the rules of money (`ledger`), connections between replicas (`node`), what lies in the bytes of an entry (`proto`).

pub mod type_config;

pub mod log;
pub mod log_store;

pub mod accounts;
pub mod admin;
pub mod codec;
pub mod contents;
pub mod disk;
pub mod engine;
pub mod flush;
pub mod folder;
pub mod inspect;
pub mod journal;
pub mod reader;
pub mod recover;
pub mod restore;
pub mod runs;
pub mod schema;
pub mod snapshot;
pub mod stamp;
pub mod state;
pub mod state_machine;
pub mod watched;

pub mod blocking;
pub mod error;
pub mod identity;
pub mod rt;
pub mod testing;
pub mod vfs;

use blocking::{Blocking, Lane, Lanes, run_blocking};
use engine::EngineFactory;
use engine::rocks::RocksEngines;
use folder::GroupFolder;
use jangbu_ledger::planted::{self, Bug};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use snapshot::Snapshots;
use std::path::PathBuf;
use std::sync::Arc;
use vfs::{StdVfs, Vfs};

pub use error::{Fatal, StoreError};
pub use identity::{DataFolder, Identity};
pub use log::{LogConfig, LogSetup, LogStats, SyncHistogram};
pub use log_store::LogStore;
pub use reader::{Page, Read, Scrubbed, StateReader, VerifyReport};
pub use snapshot::SnapshotData;
pub use snapshot::receive::{Incoming, Offered, ReceiveError, SnapshotReceiver};
pub use state::{AppliedPoint, StateMark};
pub use state_machine::{StateConfig, StateMachine};
pub use type_config::{Applied, Command, Entry, LeaderId, LogId, TypeConfig, Vote, log_id};

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Memory for blocks of the state read from disk.
const CACHE_BYTES: usize = 64 << 20;

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub node_id: u64,
    pub data_dir: PathBuf,
    /// The folder's incarnation, if it is made now.
    pub new_incarnation: [u8; 16],
    pub group: u32,
    pub log: LogConfig,
    pub state: StateConfig,
}

/// The world beneath a store: real, or simulated.
#[derive(Clone)]
pub struct StoreEnv {
    /// The log's disk, and the identity's.
    pub log_vfs: Arc<dyn Vfs>,
    /// The disk of everything about the state that is ours: pointers, manifests, snapshots on their way in.
    pub state_vfs: Arc<dyn Vfs>,
    pub engines: Arc<dyn EngineFactory>,
    pub blocking: Arc<dyn Blocking>,
}

impl StoreEnv {
    /// The real one.
    pub fn production() -> StoreEnv {
        StoreEnv {
            log_vfs: Arc::new(StdVfs),
            state_vfs: Arc::new(StdVfs),
            engines: Arc::new(RocksEngines::new(CACHE_BYTES)),
            blocking: Arc::new(Lanes::new("store")),
        }
    }
}

/// One group's log and state, open.
pub struct Store {
    pub folder: DataFolder,
    pub log: LogStore,
    pub log_stats: LogStats,
    pub state: StateMachine,
    pub reader: StateReader,
    pub incoming: SnapshotReceiver,
    pub fatal: Fatal,
}

impl Store {
    /// Takes a snapshot if the log was purged further than the newest one reaches; to be called before Raft takes the store over.
    ///
    /// A snapshot that was damaged is gone after a start, and the log behind it as well: nobody who lacks that part could be
    /// helped from here. (openraft sees to it only where there is no snapshot at all.) Blocks on the disk: reads the files that
    /// are newer than the last snapshot.
    pub async fn stand_behind_the_log(&mut self) -> Result<(), StoreError> {
        let applied = self.reader.applied().log_index;
        let purged = self.log_stats.purged_index().unwrap_or(0);
        let newest = self.state.snapshots.newest().and_then(|newest| newest.meta.last_log_id).map_or(0, |id| id.index);
        if newest < purged && purged <= applied {
            tracing::warn!(purged, newest, applied, "no snapshot holds what was purged from the log: one is taken");
            let built = self.state.get_snapshot_builder().await.build_snapshot().await;
            built.map_err(|error| StoreError::Fenced(error.to_string()))?;
        }
        Ok(())
    }
}

/// Opens a group's log and state, or makes them in an empty folder. Blocks on the disk, for as long as reading the accounts and
/// the tail of the log takes: it doesn't grow with history.
pub async fn open(config: StoreConfig, env: StoreEnv) -> Result<Store, StoreError> {
    let fatal = Fatal::default();
    let (vfs, data_dir) = (env.log_vfs.clone(), config.data_dir.clone());
    let opening =
        run_blocking(&*env.blocking, Lane::Snapshot, move || DataFolder::open(vfs, &data_dir, config.node_id));
    let folder = opening.await?;
    let founded = folder.is_founded();

    let group_dir = config.data_dir.join(format!("group-{}", config.group));
    let log_setup =
        LogSetup { dir: group_dir.join("log"), group: config.group, config: config.log, must_exist: founded };
    let log = LogStore::open(log_setup, env.log_vfs, env.blocking.clone(), fatal.clone()).await?;

    let group_folder = GroupFolder::new(env.state_vfs, env.engines, group_dir);
    let (data_folder, blocking, filter_bytes) = (folder.clone(), env.blocking.clone(), config.state.filter_bytes);
    let opening = run_blocking(&*env.blocking, Lane::Snapshot, move || {
        let number = group_folder.prepare(founded)?;
        let (state, keeper) = snapshot::install::open_state(&group_folder, number, filter_bytes)?;
        let applied_index = state.applied.map_or(0, |id| id.index);
        let snapshots =
            Snapshots::open(group_folder, data_folder.clone(), config.group, number, applied_index, blocking)?;
        if !founded {
            data_folder.found(config.new_incarnation)?;
        }
        Ok::<_, StoreError>((state, keeper, snapshots))
    });
    let (state, keeper, snapshots) = opening.await?;
    let (version, version_max) = (state.admin.version(), config.state.version_max);
    if version > version_max && !planted::is(Bug::OlderOpensNewer) {
        return Err(StoreError::TooNew { version, version_max });
    }

    let state = StateMachine::new(
        state,
        keeper,
        snapshots.clone(),
        log.clone(),
        config.state,
        env.blocking.clone(),
        fatal.clone(),
    );
    let reader = StateReader::new(state.shared.clone(), env.blocking, snapshots.clone(), fatal.clone());
    let incoming = SnapshotReceiver::new(snapshots, state.shared.clone(), log.stats(), version_max, fatal.clone());
    Ok(Store { folder, log_stats: log.stats(), log, state, reader, incoming, fatal })
}
