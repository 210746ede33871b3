//! Installing: a received snapshot becomes the state, or the old state stays.
//!
//! Laws
//! * The new state is opened and compared with its manifest before `CURRENT` names it.
//! * At any crash: before the rename of `CURRENT` the old state is in use, after it the new one. What is left of the other is removed at the next start.
//! * A snapshot of another cluster or group, or one that is behind what is applied, is refused.
//!
//! Memory: both states' accounts, while the new one is opened.
//!
//! Not here: how it came here (`receive.rs`).

use super::manifest::{self, Manifest};
use super::{CHUNK_BYTES, SnapshotData, Snapshots, file_name, is_immutable};
use crate::blocking::{Lane, run_blocking};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::flush::{self, Keeper};
use crate::folder::GroupFolder;
use crate::reader;
use crate::state::State;
use crate::state_machine::StateMachine;
use crate::type_config::{LogId, SnapshotMeta};
use crate::vfs::{OpenMode, Vfs};
use std::io;
use std::path::Path;
use std::sync::Arc;

impl StateMachine {
    pub(crate) async fn install(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), StoreError> {
        self.finish_flush().await?;
        // What the log was told to drop for it must not come back behind it.
        self.log.settled().await?;
        let (applied, old_engine) = {
            let state = self.shared.read();
            (state.applied, state.disk.engine.clone())
        };
        check(&snapshot, meta, applied)?;
        let snapshots = self.snapshots.clone();
        let filter_bytes = self.config.filter_bytes;
        let work = run_blocking(&*self.blocking, Lane::Snapshot, move || snapshots.install(&snapshot, filter_bytes));
        let (number, state, keeper) = work.await?;
        self.replace(state, keeper);
        self.snapshots.retire_state(number, &old_engine);
        drop(old_engine);
        let snapshots = self.snapshots.clone();
        run_blocking(&*self.blocking, Lane::Snapshot, move || snapshots.sweep()).await
    }
}

fn check(snapshot: &SnapshotData, meta: &SnapshotMeta, applied: Option<LogId>) -> Result<(), StoreError> {
    let manifest = snapshot.description();
    let refuse = |reason: String| Err(StoreError::Refused { path: snapshot.dir().to_owned(), reason });
    if manifest.last_log_id() != meta.last_log_id {
        return refuse(format!(
            "the snapshot is of {:?}, and was announced as {:?}",
            manifest.last_log_id(),
            meta.last_log_id
        ));
    }
    match applied {
        Some(applied) if manifest.last_index() < applied.index => {
            refuse(format!("the snapshot ends at entry {}, and {} is applied", manifest.last_index(), applied.index))
        }
        _ => Ok(()),
    }
}

impl Snapshots {
    /// Whether a snapshot is of this node's cluster and group.
    pub(crate) fn foreign(&self, group: u32, cluster_id: &str) -> Option<String> {
        let shared = self.shared();
        if group != shared.group {
            return Some(format!("it is of group {group}, and this is group {}", shared.group));
        }
        let own = manifest::hex(&shared.identity.identity().cluster_id?);
        (cluster_id != own).then(|| format!("it is of cluster {cluster_id:?}, and this is cluster {own}"))
    }

    /// Makes a state of a snapshot and switches to it. Blocks on the disk.
    fn install(&self, snapshot: &SnapshotData, filter_bytes: usize) -> Result<(u64, State, Keeper), StoreError> {
        let manifest = snapshot.description();
        if let Some(reason) = self.foreign(manifest.group, &manifest.cluster_id) {
            return Err(StoreError::Refused { path: snapshot.dir().to_owned(), reason });
        }
        let folder = &self.shared().folder;
        let number = self.state_number() + 1;
        let dir = folder.make_state(number)?;
        self.link_files(snapshot, &dir)?;
        let (state, keeper) = open_state(folder, number, filter_bytes)?;
        check_is_described(&state, snapshot.description(), &dir)?;
        // Kept before it is the state: the log behind the state is purged from then on, and what no snapshot holds nobody
        // could be helped with from here. If a crash comes between the two, the kept one is ahead of the state and goes.
        self.keep_installed(snapshot)?;
        folder.switch(number)?;
        // Whoever holds the received one reads the same files under their new names.
        if snapshot.dir().starts_with(folder.incoming()) {
            folder.remove(snapshot.dir())?;
        }
        tracing::info!(state = %dir.display(), index = snapshot.description().last_index(), "a snapshot is installed");
        Ok((number, state, keeper))
    }

    /// The snapshot stays, as this node's newest: it may be sent on.
    fn keep_installed(&self, snapshot: &SnapshotData) -> Result<(), StoreError> {
        let folder = &self.shared().folder;
        if snapshot.dir().starts_with(folder.snapshots()) {
            return Ok(());
        }
        let building = folder.snapshots().join("building");
        folder.remove(&building)?;
        folder.io("making", &building, crate::vfs::create_dir_durable(&*folder.vfs, &building))?;
        self.link_files(snapshot, &building)?;
        let dir = self.put_in_place(&building, snapshot.description())?;
        self.keep(dir, snapshot.description().clone());
        Ok(())
    }

    /// Lays a snapshot's files into another folder: tables are linked, what the engine may write to is copied. Durable when it returns.
    fn link_files(&self, snapshot: &SnapshotData, to: &Path) -> Result<(), StoreError> {
        let folder = &self.shared().folder;
        for file in &snapshot.description().files {
            let (from, to) = (snapshot.dir().join(&file.name), to.join(&file.name));
            folder.io("linking", &to, link(&*folder.vfs, &from, &to))?;
        }
        folder.io("syncing", to, folder.vfs.sync_dir(to))
    }
}

fn link(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<()> {
    if is_immutable(&file_name(from)) {
        return vfs.hard_link(from, to);
    }
    let (from, to) = (vfs.open(from, OpenMode::Read)?, vfs.open(to, OpenMode::Create)?);
    let mut bytes = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let count = from.read_at(&mut bytes, offset)?;
        if count == 0 {
            return to.sync_data();
        }
        to.write_all_at(&bytes[..count], offset)?;
        offset += count as u64;
    }
}

fn check_is_described(state: &State, manifest: &Manifest, dir: &Path) -> Result<(), StoreError> {
    if manifest::hex(&state.point().digest) == manifest.digest && state.applied == manifest.last_log_id() {
        return Ok(());
    }
    Err(StoreError::damaged(dir, 0, "the state that was received isn't the one its manifest describes"))
}

/// Whether a folder that was received holds the state that its manifest describes; reads all of it and changes nothing. A checksum that was taken of
/// files that were damaged already is right, so that checksums alone can't say. Blocks on the disk.
pub(crate) fn try_open(folder: &GroupFolder, dir: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let engine = folder.engines.open_read_only(dir)?;
    reader::scrub(&*engine)?;
    let disk = Arc::new(Disk::open(engine, 0)?);
    check_is_described(&State::new(flush::restore(&disk)?, disk.admin()?, disk), manifest, dir)
}

/// Opens the state in a folder and reads what belongs in memory. Blocks on the disk.
pub(crate) fn open_state(
    folder: &GroupFolder,
    number: u64,
    filter_bytes: usize,
) -> Result<(State, Keeper), StoreError> {
    let disk = Disk::open(folder.engines.open(&folder.state(number))?, filter_bytes)?;
    let (keeper, disk) = Keeper::new(disk, filter_bytes)?;
    let books = flush::restore(&disk)?;
    Ok((State::new(books, disk.admin()?, disk), keeper))
}
