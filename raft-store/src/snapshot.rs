//! Snapshots: a checkpoint of the state with a manifest, to be sent to a node that is too far behind.
//!
//!     build     flush -> checkpoint (hard links) -> what does it say it is? -> checksums of new files -> manifest -> rename
//!     receive   offer -> what is lacking -> chunks, each file verified when it is whole -> is it a state?   (`snapshot/receive.rs`)
//!     install   links into a new state folder -> open, compare with the manifest -> CURRENT      (`snapshot/install.rs`)
//!
//! Laws
//! * What a snapshot says of itself (log id, membership, digest) is read back from the checkpoint, not from memory.
//! * A folder under `snapshots/` with a manifest is complete and durable; it was renamed there as the last step.
//! * The cost of building one follows from what is new: files that were in the one before keep their checksums.
//! * The newest is kept, and an older one only while someone reads it.
//!
//! Not here: when to build one (`node`), and the wire (`node/peers`).

pub mod install;
pub mod manifest;
pub mod receive;

use crate::blocking::{Blocking, Lane, run_blocking};
use crate::engine::Engine;
use crate::error::{Fatal, StoreError};
use crate::folder::GroupFolder;
use crate::identity::DataFolder;
use crate::stamp::Stamp;
use crate::state_machine::Flushing;
use crate::type_config::{Snapshot, SnapshotMeta, TypeConfig};
use crate::vfs::{OpenMode, VfsFile, read_file};
use bytes::Bytes;
use manifest::{FileInfo, Manifest};
use openraft::storage::RaftSnapshotBuilder;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use xxhash_rust::xxh3::Xxh3;

/// What is read at a time when a file is checksummed or copied.
const CHUNK_BYTES: usize = 1 << 20;

/// A complete snapshot on this node's disk. Clones are cheap; its folder stays while one of them lives.
#[derive(Clone)]
pub struct SnapshotData(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    manifest: Manifest,
    manifest_bytes: Bytes,
    folder: GroupFolder,
    blocking: Arc<dyn Blocking>,
}

impl std::fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotData({})", self.0.dir.display())
    }
}

impl SnapshotData {
    fn new(dir: PathBuf, manifest: Manifest, folder: GroupFolder, blocking: Arc<dyn Blocking>) -> SnapshotData {
        let manifest_bytes = manifest.encode();
        SnapshotData(Arc::new(Inner { dir, manifest, manifest_bytes, folder, blocking }))
    }

    /// The manifest's file, to be offered to a receiver.
    pub fn manifest(&self) -> Bytes {
        self.0.manifest_bytes.clone()
    }

    pub fn description(&self) -> &Manifest {
        &self.0.manifest
    }

    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Of the state that it holds, in log time. Opens it; blocks on the disk.
    pub async fn timestamp(&self) -> Result<u64, StoreError> {
        let this = self.clone();
        let read = run_blocking(&*self.0.blocking, Lane::Read, move || {
            let engine = this.0.folder.engines.open_read_only(&this.0.dir)?;
            Ok(Stamp::read(&*engine)?.head.last_timestamp)
        });
        read.await
    }

    /// Up to `bytes_max` bytes of a file; none at its end. Blocks on the disk.
    pub async fn read(&self, file: &str, offset: u64, bytes_max: usize) -> Result<Bytes, StoreError> {
        let Some(info) = self.0.manifest.file(file) else {
            let reason = format!("this snapshot has no file {file:?}");
            return Err(StoreError::Refused { path: self.0.dir.clone(), reason });
        };
        let count = info.bytes.saturating_sub(offset).min(bytes_max as u64) as usize;
        let (this, path) = (self.clone(), self.0.dir.join(file));
        let read = run_blocking(&*self.0.blocking, Lane::Read, move || {
            let mut bytes = vec![0; count];
            let file = this.0.folder.vfs.open(&path, OpenMode::Read);
            let count = file.and_then(|file| file.read_at(&mut bytes, offset));
            bytes.truncate(this.0.folder.io("reading", &path, count)?);
            Ok(bytes.into())
        });
        read.await
    }

    fn index(&self) -> u64 {
        self.0.manifest.last_index()
    }

    fn meta(&self) -> SnapshotMeta {
        self.0.manifest.meta().expect("a manifest is checked when it is parsed, and made of what was checked")
    }
}

/// The snapshots of one group. Clones share everything.
#[derive(Clone)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) folder: GroupFolder,
    pub(crate) identity: DataFolder,
    pub(crate) group: u32,
    pub(crate) blocking: Arc<dyn Blocking>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    newest: Option<SnapshotData>,
    /// The number of the state in use.
    state: u64,
    older: Vec<(PathBuf, Weak<Inner>)>,
    old_states: Vec<(PathBuf, Weak<dyn Engine>)>,
}

impl Snapshots {
    /// Finds the newest complete snapshot that isn't ahead of the state, and removes the others. Blocks on the disk.
    pub(crate) fn open(
        folder: GroupFolder,
        identity: DataFolder,
        group: u32,
        state: u64,
        applied_index: u64,
        blocking: Arc<dyn Blocking>,
    ) -> Result<Snapshots, StoreError> {
        let shared = Shared { folder, identity, group, blocking, kept: Mutex::new(Kept { state, ..Kept::default() }) };
        let snapshots = Snapshots { shared: Arc::new(shared) };
        let folder = &snapshots.shared.folder;
        let mut paths = folder.io("listing", &folder.snapshots(), folder.vfs.list(&folder.snapshots()))?;
        while let Some(path) = paths.pop() {
            let manifest = match snapshots.kept().newest {
                None => read_manifest(folder, &path)?,
                Some(_) => None,
            };
            match manifest.filter(|manifest| manifest.last_index() <= applied_index) {
                Some(manifest) => drop(snapshots.keep(path, manifest)),
                None => folder.remove(&path)?,
            }
        }
        Ok(snapshots)
    }

    /// For openraft.
    pub fn newest(&self) -> Option<Snapshot> {
        let snapshot = self.kept().newest.clone()?;
        Some(Snapshot { meta: snapshot.meta(), snapshot })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn leave_fence(&self, reason: &str) {
        if let Err(error) = self.shared.folder.leave_fence(reason) {
            tracing::error!(%error, "the fence's mark can't be left");
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.shared.kept.lock().expect("nothing under this lock panics")
    }

    pub(crate) fn state_number(&self) -> u64 {
        self.kept().state
    }

    /// A complete snapshot takes the newest's place; one that an installed one has overtaken meanwhile doesn't.
    fn keep(&self, dir: PathBuf, manifest: Manifest) -> SnapshotData {
        let snapshot = SnapshotData::new(dir, manifest, self.shared.folder.clone(), self.shared.blocking.clone());
        let mut kept = self.kept();
        let overtaken = kept.newest.as_ref().is_some_and(|newest| newest.index() > snapshot.index());
        let older = if overtaken { Some(snapshot.clone()) } else { kept.newest.replace(snapshot.clone()) };
        if let Some(older) = older {
            kept.older.push((older.0.dir.clone(), Arc::downgrade(&older.0)));
        }
        snapshot
    }

    /// A state was installed; the one before is removed once nobody reads it.
    fn retire_state(&self, number: u64, engine: &Arc<dyn Engine>) {
        let mut kept = self.kept();
        let old = self.shared.folder.state(kept.state);
        kept.old_states.push((old, Arc::downgrade(engine)));
        kept.state = number;
    }

    /// Removes what nobody reads any more. Blocks on the disk.
    fn sweep(&self) -> Result<(), StoreError> {
        let mut unread = Vec::new();
        {
            let mut kept = self.kept();
            kept.older.retain(|(path, readers)| keep_if(readers.strong_count() > 0, path, &mut unread));
            kept.old_states.retain(|(path, readers)| keep_if(readers.strong_count() > 0, path, &mut unread));
        }
        unread.iter().try_for_each(|path| self.shared.folder.remove(path))
    }

    /// Makes a snapshot of what was flushed to an engine; `source` names its state. Blocks on the disk.
    fn build(&self, engine: &dyn Engine, source: String) -> Result<Snapshot, StoreError> {
        let folder = &self.shared.folder;
        let building = folder.snapshots().join("building");
        folder.remove(&building)?;
        engine.checkpoint(&building)?;
        let stamp = Stamp::read(&*folder.engines.open_read_only(&building)?)?;
        let files = self.describe_files(&building, &source)?;
        let cluster_id = self.shared.identity.identity().cluster_id;
        let manifest = Manifest::new(&stamp, cluster_id, self.shared.group, source, files);
        let dir = self.put_in_place(&building, &manifest)?;
        let snapshot = self.keep(dir, manifest);
        self.sweep()?;
        tracing::info!(snapshot = %snapshot.0.dir.display(), "a snapshot is built");
        Ok(Snapshot { meta: snapshot.meta(), snapshot })
    }

    /// Names the state in use, unlike any other node's.
    pub(crate) fn source(&self) -> String {
        let incarnation = manifest::hex(&self.shared.identity.identity().incarnation);
        format!("{incarnation}/state-{}", self.state_number())
    }

    /// Name, size and checksum of each file. Files that the newest snapshot has as well were read and synced then.
    fn describe_files(&self, dir: &Path, source: &str) -> Result<Vec<FileInfo>, StoreError> {
        let folder = &self.shared.folder;
        let before = self.kept().newest.clone();
        let mut files = Vec::new();
        for path in folder.io("listing", dir, folder.vfs.list(dir))? {
            let name = file_name(&path);
            let bytes = folder.io("reading", &path, folder.vfs.len(&path))?;
            let known = before.as_ref().map(SnapshotData::description).filter(|manifest| manifest.source == source);
            let known = known
                .and_then(|manifest| manifest.file(&name))
                .filter(|known| known.bytes == bytes && is_immutable(&name));
            let xxh3_128 = match known {
                Some(known) => known.xxh3_128.clone(),
                None => {
                    let file = folder.io("reading", &path, folder.vfs.open(&path, OpenMode::Write))?;
                    folder.io("syncing", &path, file.sync_data())?;
                    folder.io("reading", &path, checksum(&*file))?
                }
            };
            files.push(FileInfo { name, bytes, xxh3_128 });
        }
        Ok(files)
    }

    /// Writes the manifest into a complete folder and gives the folder its name. Durable when it returns.
    fn put_in_place(&self, complete: &Path, manifest: &Manifest) -> Result<PathBuf, StoreError> {
        let folder = &self.shared.folder;
        let path = complete.join(manifest::FILE_NAME);
        folder.io("writing", &path, crate::vfs::replace_file(&*folder.vfs, &path, &manifest.encode()))?;
        let dir = self.free_place(manifest)?;
        folder.io("renaming", complete, folder.vfs.rename(complete, &dir))?;
        folder.io("syncing", &folder.snapshots(), folder.vfs.sync_dir(&folder.snapshots()))?;
        Ok(dir)
    }

    /// One of the same index may be there, and be read: the newer one gets a name that sorts after it.
    fn free_place(&self, manifest: &Manifest) -> Result<PathBuf, StoreError> {
        let folder = &self.shared.folder;
        let name = manifest.folder_name();
        let there = folder.io("listing", &folder.snapshots(), folder.vfs.list(&folder.snapshots()))?;
        let turn = there.iter().filter_map(|path| turn(&file_name(path), &name)).max();
        Ok(folder.snapshots().join(turn.map_or(name.clone(), |turn| format!("{name}.{:06}", turn + 1))))
    }
}

/// Of a folder of the same index: the so-manieth, counted from 0.
fn turn(folder_name: &str, first: &str) -> Option<u64> {
    match folder_name.strip_prefix(first)? {
        "" => Some(0),
        rest => rest.strip_prefix('.')?.parse().ok(),
    }
}

fn keep_if(wanted: bool, path: &Path, unwanted: &mut Vec<PathBuf>) -> bool {
    if !wanted {
        unwanted.push(path.to_owned());
    }
    wanted
}

/// RocksDB's tables never change, and their numbers never come back within one database.
fn is_immutable(name: &str) -> bool {
    name.ends_with(".sst")
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `None` of a folder without one, or with a damaged one: it is not complete.
fn read_manifest(folder: &GroupFolder, dir: &Path) -> Result<Option<Manifest>, StoreError> {
    let path = dir.join(manifest::FILE_NAME);
    if !folder.vfs.exists(&path) {
        return Ok(None);
    }
    let read = || Ok::<_, StoreError>(Manifest::parse(&folder.io("reading", &path, read_file(&*folder.vfs, &path))?));
    // Removed is a snapshot for good: what is read wrongly for once is read again.
    let manifest = match read()? {
        Ok(manifest) => Ok(manifest),
        Err(_) => read()?,
    };
    match manifest {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a snapshot is damaged and is removed");
            Ok(None)
        }
    }
}

fn checksum(file: &dyn VfsFile) -> io::Result<String> {
    let mut hasher = Xxh3::new();
    let mut bytes = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut bytes, offset)?;
        if count == 0 {
            return Ok(manifest::hex(&hasher.digest128().to_be_bytes()));
        }
        hasher.update(&bytes[..count]);
        offset += count as u64;
    }
}

/// Builds one snapshot, beside the entries that are applied meanwhile.
pub struct SnapshotBuilder {
    snapshots: Snapshots,
    /// The flush that the snapshot is taken after.
    flushing: Result<Flushing, Arc<StoreError>>,
    /// The state that was flushed.
    source: String,
    fatal: Fatal,
}

impl SnapshotBuilder {
    pub(crate) fn new(
        snapshots: Snapshots,
        flushing: Result<Flushing, Arc<StoreError>>,
        fatal: Fatal,
    ) -> SnapshotBuilder {
        let source = snapshots.source();
        SnapshotBuilder { snapshots, flushing, source, fatal }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let flushing = self.flushing.clone().map_err(io::Error::other)?;
        let disk = flushing.await.map_err(io::Error::other)?;
        let (snapshots, source) = (self.snapshots.clone(), self.source.clone());
        let blocking = self.snapshots.shared.blocking.clone();
        let built = run_blocking(&*blocking, Lane::Snapshot, move || snapshots.build(&*disk.engine, source)).await;
        built.map_err(|error| io::Error::other(self.fatal.raise(error)))
    }
}
