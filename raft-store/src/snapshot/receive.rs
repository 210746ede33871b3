//! Receiving a snapshot, file by file, so that a broken connection or a crash costs no more than the file it broke.
//!
//!     incoming/snap-<index>-<term>/jangbu.manifest      what is being received
//!                                  000012.sst           whole, verified and synced
//!                                  000013.sst.part      as far as it came
//!
//! Laws
//! * What is received is opened, read and compared with its manifest before anyone hears that it is here: what can't be a state is refused, and
//!   the replica goes on with the one it has.
//! * A file loses its `.part` only once it matched its checksum and was synced.
//! * What is in the log or the state here already, out of a crash's reach, is not received: the sender hears that it is here.
//! * A snapshot of a version that this program doesn't know stops the replica: what the cluster has agreed on meanwhile it can't follow.
//! * What lies here from an earlier attempt is used only for the same manifest, byte for byte, and is verified again.
//!
//! Not here: the stream (`node/peers/snapshot.rs`), and making it the state (`install.rs`).

use super::install;
use super::manifest::{self, FileInfo, Manifest};
use super::{SnapshotData, Snapshots, checksum};
use crate::blocking::{Lane, run_blocking};
use crate::error::{Fatal, StoreError};
use crate::folder::GroupFolder;
use crate::log::LogStats;
use crate::state::SharedState;
use crate::type_config::Snapshot;
use crate::vfs::{OpenMode, VfsFile, create_dir_durable, read_file, replace_file};
use bytes::Bytes;
use jangbu_proto::Malformed;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The sender's fault: refused, nothing is lost.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The sender's fault as well: every file is what it promised, and together they are no state.
    #[error("the snapshot is not the state that it says it is: {0}")]
    Unusable(String),
    /// All of it is applied here, and not yet durable: in a moment it will be.
    #[error("what it holds is applied here and about to be durable; offer it again")]
    TooSoon,
    /// This node's disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of an offer.
#[allow(clippy::large_enum_variant, reason = "one for each snapshot that is offered")]
pub enum Offered {
    /// This replica has all of it already, or more, and no crash can take it.
    Here,
    Wanted(Box<Incoming>),
}

/// Takes snapshots in. One at a time: a second `begin` clears away what another left.
#[derive(Clone)]
pub struct SnapshotReceiver {
    snapshots: Snapshots,
    shared: SharedState,
    log: LogStats,
    /// The newest cluster version that this replica takes part in.
    version_max: u32,
    fatal: Fatal,
}

impl SnapshotReceiver {
    pub(crate) fn new(
        snapshots: Snapshots,
        shared: SharedState,
        log: LogStats,
        version_max: u32,
        fatal: Fatal,
    ) -> SnapshotReceiver {
        SnapshotReceiver { snapshots, shared, log, version_max, fatal }
    }

    /// Looks at what is offered and at what is here already. Blocks on the disk.
    pub async fn begin(&self, offered: Bytes) -> Result<Offered, ReceiveError> {
        let outline = Manifest::outline(&offered)?;
        if let Some(reason) = self.snapshots.foreign(outline.group, &outline.cluster_id) {
            return Err(Malformed::new("manifest", reason).into());
        }
        self.must_know(outline.format)?;
        let manifest = Manifest::parse(&offered)?;
        if manifest.last_index() <= self.shared.read().applied.map_or(0, |id| id.index) {
            return if manifest.last_index() <= self.durable_index() {
                Ok(Offered::Here)
            } else {
                Err(ReceiveError::TooSoon)
            };
        }
        let snapshots = self.snapshots.clone();
        let begun = run_blocking(&*self.snapshots.shared().blocking, Lane::Snapshot, move || {
            Reception::begin(&snapshots, manifest, &offered)
        });
        let (reception, wants) = begun.await?;
        Ok(Offered::Wanted(Box::new(Incoming { reception: Some(reception), wants, snapshots: self.snapshots.clone() })))
    }
}

impl SnapshotReceiver {
    /// The entry that raised the version is in the snapshot and not here: nothing but the newer program gets any further.
    fn must_know(&self, version: u32) -> Result<(), StoreError> {
        if version <= self.version_max {
            return Ok(());
        }
        let too_new = || StoreError::TooNew { version, version_max: self.version_max };
        self.fatal.raise(too_new());
        Err(too_new())
    }

    /// No crash can take what is applied up to here: the log has it, or the state, or a snapshot it was purged behind.
    fn durable_index(&self) -> u64 {
        let flushed = self.shared.read().disk.stamp.applied_index();
        let logged = self.log.last_durable_index().max(self.log.purged_index());
        logged.map_or(flushed, |logged| logged.max(flushed))
    }
}

/// A snapshot on its way in.
pub struct Incoming {
    /// Away while a chunk is being written.
    reception: Option<Reception>,
    wants: Vec<(String, u64)>,
    snapshots: Snapshots,
}

impl Incoming {
    /// What is lacking: each file from its offset on.
    pub fn wants(&self) -> Vec<(String, u64)> {
        self.wants.clone()
    }

    /// The next bytes of a file; each file's come in order. Blocks on the disk.
    pub async fn write(&mut self, file: &str, offset: u64, data: Bytes) -> Result<(), ReceiveError> {
        let file = file.to_owned();
        self.with_reception(move |reception| reception.write(&file, offset, &data)).await
    }

    /// All that was wanted has come: is it a state? What isn't is removed, and may be offered again. Blocks on the disk, for two reads of everything.
    pub async fn finish(mut self) -> Result<Snapshot, ReceiveError> {
        self.with_reception(|reception| reception.finish()).await?;
        let reception = self.reception.take().expect("it comes back from every piece of work");
        let shared = self.snapshots.shared();
        let snapshot =
            SnapshotData::new(reception.dir, reception.manifest, shared.folder.clone(), shared.blocking.clone());
        Ok(Snapshot { meta: snapshot.meta(), snapshot })
    }

    async fn with_reception<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Reception) -> Result<T, ReceiveError> + Send + 'static,
    ) -> Result<T, ReceiveError> {
        let Some(mut reception) = self.reception.take() else {
            return Err(Malformed::new("chunk", "an earlier one was given up half way").into());
        };
        let (reception, done) = run_blocking(&*self.snapshots.shared().blocking, Lane::Snapshot, move || {
            let done = work(&mut reception);
            (reception, done)
        })
        .await;
        self.reception = Some(reception);
        done
    }
}

struct Reception {
    folder: GroupFolder,
    dir: PathBuf,
    manifest: Manifest,
    /// Files that are not whole yet: their length so far, and the open file once a chunk has come.
    partial: BTreeMap<String, Partial>,
}

#[derive(Default)]
struct Partial {
    bytes: u64,
    file: Option<Box<dyn VfsFile>>,
}

impl Reception {
    fn begin(
        snapshots: &Snapshots,
        manifest: Manifest,
        offered: &[u8],
    ) -> Result<(Reception, Vec<(String, u64)>), ReceiveError> {
        let folder = snapshots.shared().folder.clone();
        let dir = folder.incoming().join(manifest.folder_name());
        let mut reception = Reception { folder, dir, manifest, partial: BTreeMap::new() };
        reception.clear_others(offered)?;
        let mut wants = Vec::new();
        for info in reception.manifest.files.clone() {
            if let Some(bytes) = reception.lacking(&info)? {
                wants.push((info.name.clone(), bytes));
                reception.partial.insert(info.name, Partial { bytes, file: None });
            }
        }
        reception.complete_empty_files()?;
        wants.retain(|(name, _)| reception.partial.contains_key(name));
        Ok((reception, wants))
    }

    /// Keeps what belongs to the same manifest.
    fn clear_others(&self, offered: &[u8]) -> Result<(), StoreError> {
        let folder = &self.folder;
        let manifest = self.dir.join(manifest::FILE_NAME);
        for path in folder.io("listing", &folder.incoming(), folder.vfs.list(&folder.incoming()))? {
            let same = path == self.dir
                && folder.vfs.exists(&manifest)
                && read_file(&*folder.vfs, &manifest).is_ok_and(|bytes| bytes == offered);
            if !same {
                folder.remove(&path)?;
            }
        }
        if !folder.vfs.exists(&self.dir) {
            folder.io("making", &self.dir, create_dir_durable(&*folder.vfs, &self.dir))?;
            folder.io("writing", &manifest, replace_file(&*folder.vfs, &manifest, offered))?;
        }
        Ok(())
    }

    /// From where on a file is lacking; `None` if it is whole.
    fn lacking(&self, info: &FileInfo) -> Result<Option<u64>, StoreError> {
        let (whole, part) = (self.dir.join(&info.name), self.part(&info.name));
        let folder = &self.folder;
        if folder.vfs.exists(&whole) {
            if self.matches(&whole, info)? {
                return Ok(None);
            }
            folder.io("removing", &whole, folder.vfs.remove_file(&whole))?;
        }
        if folder.vfs.exists(&part) {
            let bytes = folder.io("reading", &part, folder.vfs.len(&part))?;
            if bytes <= info.bytes {
                return Ok(Some(bytes));
            }
            folder.io("removing", &part, folder.vfs.remove_file(&part))?;
        }
        Ok(Some(0))
    }

    fn complete_empty_files(&mut self) -> Result<(), ReceiveError> {
        // A part that is as long as its file, or a file of no bytes, gets no further chunk that would complete it.
        let whole = self
            .partial
            .iter()
            .filter(|(name, partial)| self.manifest.file(name).is_some_and(|info| info.bytes == partial.bytes));
        let names: Vec<String> = whole.map(|(name, _)| name.clone()).collect();
        for name in names {
            match self.write(&name, self.partial[&name].bytes, &[]) {
                // What a crash left of it is not what was sent: all of it comes again.
                Err(ReceiveError::Malformed(_)) => drop(self.partial.insert(name, Partial::default())),
                other => other?,
            }
        }
        Ok(())
    }

    fn write(&mut self, name: &str, offset: u64, data: &[u8]) -> Result<(), ReceiveError> {
        let Some(info) = self.manifest.file(name).cloned() else {
            return Err(Malformed::new("chunk.file", "is not in the manifest").into());
        };
        let part = self.part(name);
        let Some(partial) = self.partial.get_mut(name) else {
            return Err(Malformed::new("chunk.file", "is whole already").into());
        };
        if offset != partial.bytes {
            return Err(Malformed::new("chunk.offset", format!("is {offset}; {} comes next", partial.bytes)).into());
        }
        if offset + data.len() as u64 > info.bytes {
            return Err(Malformed::new("chunk.data", "goes beyond the end of its file").into());
        }
        let folder = &self.folder;
        if partial.file.is_none() {
            let mode = if folder.vfs.exists(&part) { OpenMode::Write } else { OpenMode::Create };
            partial.file = Some(folder.io("opening", &part, folder.vfs.open(&part, mode))?);
        }
        let file = partial.file.as_ref().expect("it was just opened");
        folder.io("writing", &part, file.write_all_at(data, offset))?;
        partial.bytes += data.len() as u64;
        if partial.bytes == info.bytes {
            folder.io("syncing", &part, file.sync_data())?;
            self.partial.remove(name);
            self.complete(&info)?;
        }
        Ok(())
    }

    /// All bytes of a file have come: is it what was promised?
    fn complete(&mut self, info: &FileInfo) -> Result<(), ReceiveError> {
        let (part, whole) = (self.part(&info.name), self.dir.join(&info.name));
        let folder = &self.folder;
        if !self.matches(&part, info)? {
            folder.io("removing", &part, folder.vfs.remove_file(&part))?;
            self.partial.insert(info.name.clone(), Partial::default());
            return Err(Malformed::new("chunk.data", format!("{} doesn't match its checksum", info.name)).into());
        }
        folder.io("renaming", &part, folder.vfs.rename(&part, &whole))?;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ReceiveError> {
        if let Some(name) = self.partial.keys().next() {
            return Err(Malformed::new("end", format!("{name} is not whole")).into());
        }
        self.folder.io("syncing", &self.dir, self.folder.vfs.sync_dir(&self.dir))?;
        match install::try_open(&self.folder, &self.dir, &self.manifest) {
            Ok(()) => Ok(()),
            Err(why) => {
                self.folder.remove(&self.dir)?;
                Err(ReceiveError::Unusable(why.to_string()))
            }
        }
    }

    fn matches(&self, path: &Path, info: &FileInfo) -> Result<bool, StoreError> {
        let folder = &self.folder;
        let file = folder.io("reading", path, folder.vfs.open(path, OpenMode::Read))?;
        let bytes = folder.io("reading", path, file.len())?;
        Ok(bytes == info.bytes && folder.io("reading", path, checksum(&*file))? == info.xxh3_128)
    }

    fn part(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.part"))
    }
}
