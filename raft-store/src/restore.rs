//! A node's folder out of a backup: the first and only member of a new cluster, to which others are added.
//!
//!     snapshot's files -> incoming/ (verified) -> installed -> entries applied, to the wanted one -> snapshot there
//!                                                                   └ and in memory only, on to the next recorded digest
//!     last: the log begins behind it { vote, members = this node, the audit trail's record }
//!
//! All of it is the code by which a replica receives a snapshot and applies its log; what is cut off goes on where it was.
//!
//! Laws
//! * The log is founded last. A folder whose log is empty is no member of anything, and a node that is started with it waits to be asked.
//! * Entries are applied in order and without a gap, each with a log id that may follow on the one before.
//! * A new cluster has an id of its own: what is restored is refused by the old cluster's nodes, and refuses them.
//!
//! Not here: where the backup lies, and which of it is wanted (`ops/src/backup`).

use crate::contents::Contents;
use crate::log_store::LogStore;
use crate::snapshot::manifest::{self, Manifest};
use crate::snapshot::receive::{Incoming, Offered, ReceiveError};
use crate::state::StateMark;
use crate::type_config::{Command, Entry, LeaderId, LogId, Vote, decode_entry, log_id};
use crate::{Identity, LogConfig, StateConfig, Store, StoreConfig, StoreEnv, StoreError};
use bytes::Bytes;
use jangbu_proto::Malformed;
use jangbu_proto::batch::{self, Batch, Kind};
use jangbu_proto::cluster::v1::{AdminCommand, Note, admin_command};
use jangbu_proto::entry::NodeInfo;
use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogStorage as _, RaftSnapshotBuilder as _, RaftStateMachine as _};
use openraft::type_config::TypeConfigExt as _;
use openraft::{EntryPayload, RaftLogReader as _};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// A node has one group so far.
pub(crate) const GROUP: u32 = 0;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup's fault: what is in it makes no sense here.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Its files are what was promised, and together they are no state.
    #[error(transparent)]
    Snapshot(#[from] ReceiveError),
    /// This disk's.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Who writes a record into the audit trail without a cluster to ask.
#[derive(Clone, Debug)]
pub struct Record {
    pub actor: String,
    pub action: String,
    pub detail: String,
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
}

/// What the log of a folder says that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Founding {
    /// The node is no member of anything yet.
    No,
    /// It is its cluster's only member, and nothing was done with it since: an attempt was cut off when all but its name was done.
    Alone,
    /// A node has run with it.
    Used,
}

/// A folder that is being made.
pub struct Restoring {
    store: Store,
    incoming: Option<Box<Incoming>>,
    /// Of the last entry in the state.
    last: Option<LogId>,
}

impl Restoring {
    /// Begins, or goes on. `manifest`: of the backup's snapshot. `drawn`: for the cluster's id and the folder's, if they have
    /// none yet. Blocks on the disk, as all here.
    pub async fn open(
        dir: &Path,
        node_id: u64,
        drawn: ([u8; 16], [u8; 16]),
        snapshot: &[u8],
    ) -> Result<Restoring, RestoreError> {
        let (cluster_id, new_incarnation) = drawn;
        let config = StoreConfig {
            node_id,
            data_dir: dir.to_owned(),
            new_incarnation,
            group: GROUP,
            log: LogConfig::default(),
            state: StateConfig::default(),
        };
        let store = crate::open(config, StoreEnv::production()).await?;
        if store.folder.identity().cluster_id.is_none() {
            store.folder.join(cluster_id)?;
        }
        let mut manifest = Manifest::parse(snapshot)?;
        manifest.cluster_id = store.folder.identity().cluster_id.map(|id| manifest::hex(&id)).unwrap_or_default();
        let incoming = match store.incoming.begin(manifest.encode()).await? {
            Offered::Wanted(incoming) => Some(incoming),
            Offered::Here => None,
        };
        let mut restoring = Restoring { store, incoming, last: None };
        restoring.last = restoring.store.state.applied_state().await?.0;
        Ok(restoring)
    }

    pub fn identity(&self) -> Identity {
        self.store.folder.identity()
    }

    /// Of the snapshot's files: which are lacking, and from where on.
    pub fn wants(&self) -> Vec<(String, u64)> {
        self.incoming.as_ref().map(|incoming| incoming.wants()).unwrap_or_default()
    }

    /// The next bytes of a file that is wanted. Fails if the file is whole and not what the manifest says.
    pub async fn write(&mut self, file: &str, offset: u64, data: Bytes) -> Result<(), RestoreError> {
        let incoming = self.incoming.as_mut().ok_or_else(|| Malformed::new("file", "nothing is wanted"))?;
        Ok(incoming.write(file, offset, data).await?)
    }

    /// All that was wanted has come: it becomes the state, if it is the one that its manifest describes.
    pub async fn install(&mut self) -> Result<(), RestoreError> {
        let Some(incoming) = self.incoming.take() else { return Ok(()) };
        let snapshot = incoming.finish().await?;
        self.store.state.install_snapshot(&snapshot.meta, snapshot.snapshot).await?;
        self.last = self.store.state.applied_state().await?.0;
        Ok(())
    }

    /// Where the state stands.
    pub fn mark(&self) -> StateMark {
        self.store.reader.mark()
    }

    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// Of all members that the old cluster ever had, up to here.
    pub fn highest_node_id(&self) -> u64 {
        self.store.reader.highest_node_id()
    }

    pub fn events_count(&self) -> u64 {
        self.store.reader.head().next_event.0
    }

    /// All that is settled, or was installed, to be copied out.
    pub fn contents(&self) -> Contents {
        self.store.reader.contents()
    }

    /// Whether an earlier attempt has come to its end, and what has become of it.
    pub async fn founding(&mut self) -> Result<Founding, RestoreError> {
        let mut log = self.store.log.clone();
        let state = log.get_log_state().await?;
        let (Some(last), begins_behind) = (state.last_log_id, state.last_purged_log_id) else {
            return Ok(Founding::No);
        };
        if begins_behind == Some(last) {
            return Ok(Founding::No); // cut off before the first entry
        }
        let (applied, membership) = self.store.state.applied_state().await?;
        let is_known = membership.nodes().any(|(id, _)| *id == self.identity().node_id);
        if is_known || applied.is_none() || applied != begins_behind {
            return Ok(Founding::Used);
        }
        let entries = log.try_get_log_entries(begins_behind.map_or(0, |id| id.index + 1)..).await?;
        let is_alone = match &*entries.iter().map(|entry| &entry.payload).collect::<Vec<_>>() {
            [EntryPayload::Membership(_)] => true,
            [EntryPayload::Membership(_), EntryPayload::Normal(Command(body))] => {
                Batch::parse(body.clone())?.kind() == Kind::Admin
            }
            _ => false,
        };
        Ok(if is_alone { Founding::Alone } else { Founding::Used })
    }

    /// Takes a founding back that is [alone](Founding::Alone): what is settled stays, and may be added to. Durable with
    /// the next founding.
    pub async fn take_back(&self) -> Result<(), RestoreError> {
        let mut log = self.store.log.clone();
        let begins_behind = log.get_log_state().await?.last_purged_log_id;
        Ok(log.truncate_after(begins_behind).await?)
    }

    /// The log time of the last event that an entry would bring; `None` if it brings none.
    pub fn time_of(&self, entry: &[u8]) -> Result<Option<u64>, RestoreError> {
        let EntryPayload::Normal(Command(body)) = decode_entry(Bytes::copy_from_slice(entry))?.payload else {
            return Ok(None);
        };
        let batch = Batch::parse(body)?;
        let before = self.mark().at.timestamp;
        Ok(Some(match batch.kind() {
            Kind::Batch => batch.stamped(before).last().map_or(before, |(time, _)| time),
            Kind::Pulse | Kind::Admin => batch.time().max(before + 1),
        }))
    }

    /// Applies the next entry, durably in the end ([`settle`](Self::settle)).
    pub async fn apply(&mut self, entry: &[u8]) -> Result<(), RestoreError> {
        let entry = self.next(entry)?;
        self.last = Some(entry.log_id);
        self.store.state.apply_alone(entry).await?;
        Ok(())
    }

    /// Applies the next entry in memory alone: what is settled stays as it is. For a look at the digest that follows.
    pub async fn try_on(&mut self, entry: &[u8]) -> Result<(), RestoreError> {
        let entry = self.next(entry)?;
        self.last = Some(entry.log_id);
        self.store.state.apply_in_memory(entry).await?;
        Ok(())
    }

    fn next(&self, entry: &[u8]) -> Result<Entry, RestoreError> {
        let entry = decode_entry(Bytes::copy_from_slice(entry))?;
        let follows = match self.last {
            None => entry.log_id.index == 0,
            Some(last) => entry.log_id.index == last.index + 1 && entry.log_id.leader_id >= last.leader_id,
        };
        if !follows {
            let before = self.last.map_or_else(|| "nothing".to_owned(), |last| last.to_string());
            return Err(Malformed::new("entry", format!("{} doesn't follow on {before}", entry.log_id)).into());
        }
        Ok(entry)
    }

    /// Makes what was applied durable, and a snapshot of it: it is what a new member will be sent.
    pub async fn settle(&mut self) -> Result<(), RestoreError> {
        self.store.state.get_snapshot_builder().await.build_snapshot().await?;
        self.store.state.finish_flush().await?;
        Ok(())
    }

    /// Makes this node the only member of its cluster, with a record of it in the audit trail. `at`: what was settled. Durable
    /// when it returns.
    pub async fn found(&self, at: LogId, node: NodeInfo, record: &Record) -> Result<(), RestoreError> {
        let mut log = self.store.log.clone();
        log.purge(at).await?;
        let version = self.store.reader.version();
        found_alone(&mut log, at, self.identity().node_id, node, version, record).await?;
        Ok(())
    }
}

/// Makes a node the only member from here on: writes behind the last entry of its log that it was elected, is alone, and who said so.
pub(crate) async fn found_alone(
    log: &mut LogStore,
    last: LogId,
    node_id: u64,
    node: NodeInfo,
    version: u32,
    record: &Record,
) -> Result<(), io::Error> {
    let voted = log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.leader_id.term) + 1;
    log.save_vote(&Vote { leader_id: LeaderId { term, node_id }, committed: true }).await?;
    let alone = openraft::Membership::new(vec![BTreeSet::from([node_id])], BTreeMap::from([(node_id, node)]));
    let alone = alone.map_err(io::Error::other)?;
    let mut payloads = vec![EntryPayload::Membership(alone)];
    if version >= crate::admin::VERSION_WITH_ADMIN {
        let note = Note { action: record.action.clone(), detail: record.detail.clone(), outcome: "done".into() };
        let command = admin_command::Command::Note(note);
        let command =
            AdminCommand { actor: record.actor.clone(), address: String::new(), node_id, command: Some(command) };
        payloads.push(EntryPayload::Normal(Command(batch::admin(&command.encode_to_vec(), record.time))));
    }
    let entry = |(index, payload)| Entry::new(log_id(term, node_id, index), payload);
    let entries: Vec<Entry> = (last.index + 1..).zip(payloads).map(entry).collect();
    let (done, durable) = crate::TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(done)).await?;
    durable.await.map_err(|_| io::Error::other("the log was closed before it was durable"))?
}
