//! A replica's state without Raft: entries are applied as a log would hand them over, and a crash is a drop.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jangbu_ledger::{Account, AccountFlags, AccountId, Amount, Transfer, TransferFlags, TransferId};
use jangbu_proto::batch::{BatchBuilder, Operation, pulse};
use jangbu_proto::entry::NodeInfo;
use jangbu_raft_store::blocking::{Blocking, Lane, Work};
use jangbu_raft_store::engine::EngineFactory;
use jangbu_raft_store::engine::memory::MemoryEngines;
use jangbu_raft_store::engine::rocks::RocksEngines;
use jangbu_raft_store::vfs::StdVfs;
use jangbu_raft_store::{
    Command, Entry, LogConfig, StateConfig, Store, StoreConfig, StoreEnv, StoreError, TypeConfig, log_id,
};
use openraft::EntryPayload;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::SnapshotOf;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

pub(crate) type Snapshot = SnapshotOf<TypeConfig, jangbu_raft_store::SnapshotData>;

/// Every test of the state runs on each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Rocks,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Memory, Kind::Rocks];

pub(crate) fn engines(kind: Kind) -> Arc<dyn EngineFactory> {
    match kind {
        Kind::Memory => Arc::new(MemoryEngines::new(Arc::new(StdVfs))),
        Kind::Rocks => Arc::new(RocksEngines::new(8 << 20)),
    }
}

/// Does the work at once, on the caller's thread, as a simulation does.
pub(crate) struct Inline;

impl Blocking for Inline {
    fn run(&self, _lane: Lane, work: Work) -> BoxFuture<'static, ()> {
        work();
        futures_util::future::ready(()).boxed()
    }
}

/// Waits for a future that only ever waits for [`Inline`].
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("inline work is done at once")
}

pub(crate) fn tiny() -> StateConfig {
    StateConfig { flush_events: 100, ..StateConfig::default() }
}

/// A replica over a folder, and the log it applied.
pub(crate) struct Replica {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) engines: Arc<dyn EngineFactory>,
    pub(crate) config: StateConfig,
    pub(crate) store: Option<Store>,
    pub(crate) log: Vec<Entry>,
    /// What the log's entries were answered.
    pub(crate) replies: Vec<Bytes>,
}

impl Replica {
    pub(crate) fn new(kind: Kind, config: StateConfig) -> Replica {
        let dir = tempfile::tempdir().unwrap();
        let mut replica =
            Replica { dir, engines: engines(kind), config, store: None, log: Vec::new(), replies: Vec::new() };
        replica.store = Some(replica.try_open().unwrap());
        replica
    }

    pub(crate) fn try_open(&self) -> Result<Store, StoreError> {
        open(self.dir.path(), self.engines.clone(), self.config.clone())
    }

    pub(crate) fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("the replica is up")
    }

    /// What was not flushed is lost; the log brings it back.
    pub(crate) fn crash_and_replay(&mut self) {
        self.store = None;
        self.store = Some(self.try_open().unwrap());
        let applied = self.applied_index();
        for entry in self.log.clone().into_iter().filter(|entry| entry.log_id.index > applied) {
            let index = entry.log_id.index;
            let replies = apply(self.store(), entry).unwrap();
            assert_eq!(replies, self.replies[index as usize - 1], "an entry is answered the same again");
        }
    }

    pub(crate) fn applied_index(&mut self) -> u64 {
        now(self.store().state.applied_state()).unwrap().0.map_or(0, |id| id.index)
    }

    pub(crate) fn apply(&mut self, payload: EntryPayload<Command, u64, NodeInfo>) -> Bytes {
        let index = self.log.last().map_or(1, |entry| entry.log_id.index + 1);
        let entry = Entry { log_id: log_id(1, 1, index), payload };
        self.log.push(entry.clone());
        let replies = apply(self.store(), entry).unwrap();
        self.replies.push(replies.clone());
        replies
    }

    pub(crate) fn apply_body(&mut self, body: Bytes) -> Bytes {
        self.apply(EntryPayload::Normal(Command(body)))
    }

    pub(crate) fn snapshot(&mut self) -> Snapshot {
        let mut builder = now(self.store().state.get_snapshot_builder());
        now(builder.build_snapshot()).unwrap()
    }

    pub(crate) fn digest(&mut self) -> [u8; 16] {
        self.store().reader.applied().digest
    }
}

pub(crate) fn open(dir: &Path, engines: Arc<dyn EngineFactory>, state: StateConfig) -> Result<Store, StoreError> {
    let vfs = Arc::new(StdVfs);
    let env = StoreEnv { log_vfs: vfs.clone(), state_vfs: vfs, engines, blocking: Arc::new(Inline) };
    now(jangbu_raft_store::open(store_config(dir, state), env))
}

pub(crate) fn store_config(dir: &Path, state: StateConfig) -> StoreConfig {
    StoreConfig {
        node_id: 1,
        data_dir: dir.to_owned(),
        new_incarnation: [1; 16],
        group: 0,
        log: LogConfig { segment_bytes: 64 << 10, ..LogConfig::default() },
        state,
    }
}

pub(crate) fn apply(store: &mut Store, entry: Entry) -> std::io::Result<Bytes> {
    now(store.state.apply_alone(entry)).map(|applied| applied.replies)
}

pub(crate) fn membership(ids: &[u64]) -> EntryPayload<Command, u64, NodeInfo> {
    let nodes: BTreeMap<u64, NodeInfo> = ids.iter().map(|id| (*id, NodeInfo::default())).collect();
    let configs = vec![ids.iter().copied().collect::<BTreeSet<u64>>()];
    EntryPayload::Membership(openraft::Membership::new(configs, nodes).unwrap())
}

// --- bodies

pub(crate) fn accounts_body(time: u64, accounts: &[Account]) -> Bytes {
    let mut batch = BatchBuilder::new();
    batch.push(Operation::CreateAccounts, &pack(accounts, Account::encode));
    batch.finish(time)
}

pub(crate) fn transfers_body(time: u64, transfers: &[Transfer]) -> Bytes {
    let mut batch = BatchBuilder::new();
    batch.push(Operation::CreateTransfers, &pack(transfers, Transfer::encode));
    batch.finish(time)
}

pub(crate) fn pulse_body(time: u64) -> Bytes {
    pulse(time)
}

pub(crate) fn pack<T>(records: &[T], encode: impl Fn(&T, &mut [u8; 128])) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(records.len() * 128);
    for record in records {
        let mut packed = [0; 128];
        encode(record, &mut packed);
        bytes.extend_from_slice(&packed);
    }
    bytes
}

pub(crate) fn account(id: u128) -> Account {
    Account { id: AccountId(id), ledger: 1, code: 1, flags: AccountFlags::HISTORY, ..Account::default() }
}

pub(crate) fn transfer(id: u128, debit: u128, credit: u128, amount: u128) -> Transfer {
    Transfer {
        id: TransferId(id),
        debit_account_id: AccountId(debit),
        credit_account_id: AccountId(credit),
        amount: Amount(amount),
        ledger: 1,
        code: 1,
        flags: TransferFlags::NONE,
        ..Transfer::default()
    }
}
