//! A stopped node's folder, looked into: what its log, its vote, its snapshots and its state say.
//!
//! Laws
//! * The folder is locked while it is looked into: never one that a node has open, and no node starts meanwhile.
//! * Nothing of the node's is changed: what is damaged stays as it is, and is told as damage. (RocksDB writes its own
//!   messages into `LOG` beside the state.)
//! * What is handed out is bounded by whoever asks.
//!
//! Not here: how it is shown (`ops/src/inspect.rs`).

use std::{ops::Range, path::Path, sync::Arc};

use jangbu_proto::batch::{Batch, Kind};
use openraft::EntryPayload;

use crate::{
    CACHE_BYTES, DataFolder, Identity, StoreError,
    engine::{Usage, rocks::RocksEngines},
    folder::GroupFolder,
    log::inspect_part,
    snapshot::manifest::{self, Manifest},
    stamp::Stamp,
    type_config::{Command, Entry, LogId, Vote, encode_membership},
    vfs::{StdVfs, Vfs, read_file},
};

/// A node has one group so far.
const GROUP: u32 = 0;

/// A stopped node's folder, locked.
pub struct Inspector {
    vfs: Arc<dyn Vfs>,
    folder: DataFolder,
    group: GroupFolder,
}

/// Which entries the log holds, and some of them.
pub struct LogView {
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// The indexes of all that it holds.
    pub held: Range<u64>,
    pub entries: Vec<EntryView>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryView {
    pub log_id: LogId,
    pub payload: PayloadView,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadView {
    /// What a new leader begins its term with.
    Blank,
    /// Requests of clients.
    Batch { time: u64, requests: usize, events: usize, bytes: usize },
    /// Expires what is due.
    Pulse { time: u64 },
    /// An administrative action.
    Admin { time: u64, bytes: usize },
    /// A command that this program can't read, and why.
    Unreadable { bytes: usize, reason: String },
    /// Voters (two sets while they change) and all nodes with their peer addresses.
    Membership { configs: Vec<Vec<u64>>, nodes: Vec<(u64, String)> },
}

pub struct SnapshotView {
    pub name: String,
    /// `Err`: what is wrong with its manifest.
    pub manifest: Result<Manifest, String>,
}

pub struct StateView {
    pub number: u64,
    /// Why this replica may not start any more.
    pub fenced: Option<String>,
    pub stamp: Stamp,
    pub usage: Usage,
}

impl Inspector {
    /// Locks the folder. Refused while a node has it open, and if it is no node's. Blocks on a disk, as all here.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let vfs: Arc<dyn Vfs> = Arc::new(StdVfs);
        let folder = DataFolder::look_into(vfs.clone(), data_dir)?;
        let engines = Arc::new(RocksEngines::new(CACHE_BYTES));
        let group = GroupFolder::new(vfs.clone(), engines, data_dir.join(format!("group-{GROUP}")));
        Ok(Self { vfs, folder, group })
    }

    pub fn identity(&self) -> Identity {
        self.folder.identity()
    }

    /// Reads and checks the whole log; hands out the entries of `wanted`, at most `entries_max`.
    pub fn log(&self, wanted: Range<u64>, entries_max: usize) -> Result<LogView, StoreError> {
        let dir = self.group.log();
        let (inspection, held) = inspect_part(&*self.vfs, &dir, GROUP, wanted, entries_max)?;
        Ok(LogView {
            vote: inspection.vote,
            committed: inspection.committed,
            purged: inspection.purged,
            held,
            entries: inspection.entries.into_iter().map(EntryView::of).collect(),
        })
    }

    /// Complete ones, and one on its way in.
    pub fn snapshots(&self) -> Result<Vec<SnapshotView>, StoreError> {
        let mut views = Vec::new();
        for parent in [self.group.snapshots(), self.group.incoming()] {
            for dir in self.group.io("listing", &parent, self.vfs.list(&parent))? {
                let path = dir.join(manifest::FILE_NAME);
                if !self.vfs.exists(&path) {
                    continue;
                }
                let bytes = self.group.io("reading", &path, read_file(&*self.vfs, &path))?;
                let name = dir.strip_prefix(parent.parent().unwrap_or(&parent)).unwrap_or(&dir).display().to_string();
                views.push(SnapshotView { name, manifest: Manifest::parse(&bytes).map_err(|error| error.to_string()) });
            }
        }
        Ok(views)
    }

    pub fn state(&self) -> Result<StateView, StoreError> {
        let dir = self.group.snapshots();
        let number = self.group.current()?.ok_or_else(|| StoreError::Refused {
            path: dir.with_file_name("CURRENT"),
            reason: "this node has no state: nothing says which folder holds it".into(),
        })?;
        let engine = self.group.engines.open_read_only(&self.group.state(number))?;
        let (stamp, usage) = (Stamp::read(&*engine)?, engine.usage());
        Ok(StateView { number, fenced: self.group.fence()?, stamp, usage })
    }
}

impl EntryView {
    fn of(entry: Entry) -> Self {
        let payload = match entry.payload {
            EntryPayload::Blank => PayloadView::Blank,
            EntryPayload::Normal(Command(body)) => PayloadView::of_command(body),
            EntryPayload::Membership(membership) => {
                let membership = encode_membership(&membership);
                PayloadView::Membership {
                    configs: membership.configs.into_iter().map(|voters| voters.into_iter().collect()).collect(),
                    nodes: membership.nodes.into_iter().map(|(id, node)| (id, node.peer_address)).collect(),
                }
            }
        };
        Self { log_id: entry.log_id, payload }
    }
}

impl PayloadView {
    fn of_command(body: bytes::Bytes) -> Self {
        let bytes = body.len();
        let batch = match Batch::parse(body) {
            Ok(batch) => batch,
            Err(malformed) => return Self::Unreadable { bytes, reason: malformed.to_string() },
        };
        let time = batch.time();
        match batch.kind() {
            Kind::Batch => Self::Batch { time, requests: batch.requests().len(), events: batch.events_count(), bytes },
            Kind::Pulse => Self::Pulse { time },
            Kind::Admin => Self::Admin { time, bytes },
        }
    }
}
