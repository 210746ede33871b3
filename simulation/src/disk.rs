//! A disk in memory for each host: it forgets what was not synced, tears what was half written, and fails on purpose.
//!
//! It stands behind the product's own disk seam (`jangbu_raft_store::vfs`), so the code that money rests on runs unchanged.
//! Turmoil brings a simulated file system too; this one is ours because a fault must strike one host and not all, at a time
//! that the plan says, and because a judge wants to read the durable part of a dead host's log.
//!
//! Laws
//! * What `sync_data` covered survives every crash. What it did not may survive whole, in part, or not at all.
//! * A name survives once its folder was synced; before that it may be lost.
//! * A handle of a process that is gone changes nothing any more: destructors run in a crash too.
//! * After a failed sync the unsynced writes stay visible and never become durable, as on Linux.
//! * A trap ends the life of whoever steps into it at that very step: nothing that follows reaches the disk.
//!
//! Not here: how long a disk takes (`world::SimBlocking`), and RocksDB, which brings its own files.

mod changes;
mod inner;
mod mount;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use changes::{File, NameChange};
use jangbu_raft_store::vfs::Vfs;
use mount::{ANY_LIFE, Mount};
use serde::{Deserialize, Serialize};

use crate::{chance::Dice, faults::Step};

/// What a crash leaves of what was not synced.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
pub enum Survival {
    /// The process died, the machine went on: all is there, and what was not synced is still not durable.
    All,
    /// The power failed before anything was written back.
    Nothing,
    /// The power failed in the middle of it.
    Some,
}

/// The disk of one host. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

struct Inner {
    files: Vec<File>,
    dirs: BTreeSet<PathBuf>,
    durable_dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    /// Handles of an earlier life are dead.
    life: u64,
    dice: Dice,
    faults: DiskFaults,
    stats: DiskStats,
    trap: Option<Trap>,
    /// The step at which the power failed, until the harness has taken note.
    sprung: Option<Step>,
}

/// Where the power is going to fail.
#[derive(Debug, Clone)]
struct Trap {
    step: Step,
    survival: Survival,
}

/// What is wrong with a disk at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Writes that need room fail.
    pub full: bool,
    /// Syncs fail.
    pub sync_fails: bool,
    /// Of a hundred reads, so many fail.
    pub reads_fail_percent: u64,
    /// Of a hundred reads, so many return one bit that is not what lies there, and say nothing.
    pub reads_flip_percent: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct DiskStats {
    pub syncs: u64,
    pub writes: u64,
    pub bytes_written: u64,
    /// Operations that failed on purpose.
    pub failures: u64,
    /// Unsynced writes that a crash tore or lost.
    pub writes_lost: u64,
    /// Of those, such that came out as garbage.
    pub garbage: u64,
    /// Reads that returned a bit that was wrong.
    pub flips: u64,
    /// How often another folder was made the state in use.
    pub switched: u64,
}

impl SimDisk {
    pub fn new(dice: Dice) -> Self {
        let root = BTreeSet::from([PathBuf::from("/")]);
        Self(Arc::new(Mutex::new(Inner {
            files: Vec::new(),
            dirs: root.clone(),
            durable_dirs: root,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            locks: BTreeSet::new(),
            life: 0,
            dice,
            faults: DiskFaults::default(),
            stats: DiskStats::default(),
            trap: None,
            sprung: None,
        })))
    }

    /// The disk as a process sees it that starts now.
    pub fn mount(&self) -> Arc<dyn Vfs> {
        Arc::new(Mount::new(self, self.lock().life))
    }

    /// The disk as whoever outlives all processes sees it: the durable images of the state.
    pub fn mount_for_ever(&self) -> Arc<dyn Vfs> {
        Arc::new(Mount::new(self, ANY_LIFE))
    }

    /// What a process would find in a folder if the power failed now and nothing unsynced survived. A copy.
    pub fn durable_image(&self, dir: &Path) -> SimDisk {
        let image = SimDisk::new(Dice::new(0, "image"));
        {
            let (inner, mut copy) = (self.lock(), image.lock());
            copy.dirs = inner.durable_dirs.clone();
            for (path, file) in inner.durable_names.iter().filter(|(path, _)| path.parent() == Some(dir)) {
                let place = copy.files.len();
                copy.files.push(File { bytes: inner.files[*file].durable.clone(), ..File::default() });
                copy.names.insert(path.clone(), place);
            }
        }
        image
    }

    /// The process that used the disk is gone; the next one finds what survived.
    pub fn crash(&self, survival: Survival) {
        self.lock().crash(survival);
    }

    /// The power fails as soon as this step is taken.
    pub fn set_trap(&self, step: Step, survival: Survival) {
        self.lock().trap = Some(Trap { step, survival });
    }

    /// The step at which the power failed since this was asked last.
    pub fn sprung(&self) -> Option<Step> {
        self.lock().sprung.take()
    }

    pub fn remove_trap(&self) {
        self.lock().trap = None;
    }

    /// The disk is taken out and an empty one put in.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        let root = BTreeSet::from([PathBuf::from("/")]);
        inner.files.clear();
        inner.dirs = root.clone();
        inner.durable_dirs = root;
        inner.names.clear();
        inner.durable_names.clear();
        inner.unsynced_names.clear();
        inner.locks.clear();
        inner.life += 1;
    }

    pub fn set_faults(&self, faults: DiskFaults) {
        self.lock().faults = faults;
    }

    pub fn faults(&self) -> DiskFaults {
        self.lock().faults
    }

    pub fn stats(&self) -> DiskStats {
        self.lock().stats
    }

    /// Flips one bit in the durable part of a file whose path contains `part`, within the first `percent` of its bytes that
    /// are not zero at the end. Says where, if there was such a file.
    pub fn rot(&self, part: &str, percent: u64) -> Option<(PathBuf, usize)> {
        let mut inner = self.lock();
        let Inner { files, durable_names, dice, .. } = &mut *inner;
        let candidates: Vec<(PathBuf, usize)> = durable_names
            .iter()
            .filter(|(path, _)| path.to_string_lossy().contains(part))
            .map(|(path, file)| (path.clone(), *file))
            .filter(|(_, file)| files[*file].durable.iter().any(|byte| *byte != 0))
            .collect();
        if candidates.is_empty() {
            return None;
        }
        let (path, file) = dice.pick(&candidates).clone();
        let file = &mut files[file];
        let used = file.durable.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let offset = dice.below((used as u64 * percent / 100).max(1)) as usize;
        file.durable[offset] ^= 0x10;
        if let Some(byte) = file.bytes.get_mut(offset) {
            *byte ^= 0x10;
        }
        Some((path, offset))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no holder of this lock panics")
    }
}
