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

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use jangbu_raft_store::vfs::{OpenMode, Vfs, VfsFile};
use serde::{Deserialize, Serialize};

use crate::{
    chance::Dice,
    faults::{Act, Place, Step},
};

/// A torn write is torn between sectors.
const SECTOR_BYTES: usize = 512;

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

/// A mount of this life is never cut off.
const ANY_LIFE: u64 = u64::MAX;

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

#[derive(Default, Clone)]
struct File {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
struct NameChange {
    removed: Option<PathBuf>,
    made: Option<(PathBuf, usize)>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes: written } => {
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(written);
            }
            Change::Length(length) => bytes.resize(*length, 0),
        }
    }

    /// The part that reached the platter: whole sectors from its beginning, the last of which may hold anything.
    fn torn(&self, dice: &mut Dice, stats: &mut DiskStats) -> Option<Self> {
        match self {
            Change::Write { offset, bytes } => {
                let sectors = (bytes.len() / SECTOR_BYTES) as u64 + 1;
                let first = SECTOR_BYTES - offset % SECTOR_BYTES;
                let kept = match dice.below(sectors + 1) as usize {
                    0 => 0,
                    sectors => (first + (sectors - 1) * SECTOR_BYTES).min(bytes.len()),
                };
                let mut bytes = bytes[..kept].to_vec();
                if kept > 0 && dice.percent(30) {
                    let garbage_bytes = (offset + kept - 1) % SECTOR_BYTES + 1;
                    bytes.iter_mut().rev().take(garbage_bytes).for_each(|byte| *byte = dice.draw() as u8);
                    stats.garbage += 1;
                }
                (kept > 0).then_some(Change::Write { offset: *offset, bytes })
            }
            Change::Length(_) => None,
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(removed) = &self.removed {
            names.remove(removed);
        }
        if let Some((path, file)) = &self.made {
            names.insert(path.clone(), *file);
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        let paths = [self.removed.as_ref(), self.made.as_ref().map(|(path, _)| path)];
        paths.into_iter().flatten().any(|path| path.parent() == Some(dir))
    }
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
        Arc::new(Mount { disk: self.clone(), life: self.lock().life })
    }

    /// The disk as whoever outlives all processes sees it: the durable images of the state.
    pub fn mount_for_ever(&self) -> Arc<dyn Vfs> {
        Arc::new(Mount { disk: self.clone(), life: ANY_LIFE })
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

/// The disk as one life of a process sees it.
struct Mount {
    disk: SimDisk,
    life: u64,
}

struct Handle {
    disk: SimDisk,
    life: u64,
    file: usize,
    place: Option<Place>,
}

struct LockGuard {
    disk: SimDisk,
    life: u64,
    path: PathBuf,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let mut inner = self.disk.lock();
        if inner.life == self.life {
            inner.locks.remove(&self.path);
        }
    }
}

fn alive(disk: &SimDisk, life: u64) -> io::Result<MutexGuard<'_, Inner>> {
    let inner = disk.lock();
    if life == ANY_LIFE || inner.life == life { Ok(inner) } else { Err(gone()) }
}

fn gone() -> io::Error {
    io::Error::other("the process that had this open is gone")
}

impl Trap {
    fn is_sprung_by(&mut self, act: Act, place: Option<Place>) -> bool {
        if self.step.act != act || place != Some(self.step.place) {
            return false;
        }
        let now = self.step.skip == 0;
        self.step.skip = self.step.skip.saturating_sub(1);
        now
    }
}

/// What lies at a path of a data folder.
fn place_of(path: &Path) -> Option<Place> {
    path.components().rev().find_map(|part| {
        let part = part.as_os_str().to_str()?;
        let places = [
            ("log", Place::Log),
            ("snapshots", Place::Snapshots),
            ("incoming", Place::Incoming),
            ("identity", Place::Identity),
            ("CURRENT", Place::Current),
            ("state-", Place::State),
        ];
        // Files that are about to take the name of another begin with it.
        places.into_iter().find(|(name, _)| part.starts_with(name)).map(|(_, place)| place)
    })
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

impl Inner {
    fn crash(&mut self, survival: Survival) {
        let Inner { files, dirs, durable_dirs, names, durable_names, unsynced_names, dice, stats, .. } = self;
        if survival != Survival::All {
            let names_kept = match survival {
                Survival::Some => dice.below(unsynced_names.len() as u64 + 1) as usize,
                _ => 0,
            };
            unsynced_names[..names_kept].iter().for_each(|change| change.apply(durable_names));
            unsynced_names.clear();
            *dirs = durable_dirs.clone();
            durable_names.retain(|path, _| path.parent().is_some_and(|dir| dirs.contains(dir)));
            *names = durable_names.clone();
            for file in files.iter_mut() {
                for change in std::mem::take(&mut file.unsynced) {
                    let survivor = match (survival, dice.below(3)) {
                        (Survival::Some, 0) => Some(change),
                        (Survival::Some, 1) => change.torn(dice, stats),
                        _ => None,
                    };
                    match survivor {
                        Some(change) => change.apply(&mut file.durable),
                        None => stats.writes_lost += 1,
                    }
                }
                file.bytes = file.durable.clone();
            }
        }
        self.life += 1;
        self.locks.clear();
    }

    /// Something is done to the disk, unless the power fails at it.
    fn step<T>(
        &mut self,
        act: Act,
        place: Option<Place>,
        take: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(Trap { step, survival }) = self.trap.take_if(|trap| trap.is_sprung_by(act, place)) else {
            return take(self);
        };
        if !step.before {
            // Done, and nobody will ever be told.
            let _ = take(self);
        }
        self.crash(survival);
        self.sprung = Some(step);
        Err(gone())
    }

    fn failing(&mut self, text: &str) -> io::Error {
        self.stats.failures += 1;
        io::Error::other(format!("{text}, on purpose"))
    }

    /// Some reads lie: one bit of what is read, and nothing of what lies there. Not in the zeros of a file that is not full.
    fn flip(&mut self, read: &mut [u8]) {
        let percent = self.faults.reads_flip_percent;
        let used = read.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if percent > 0 && used > 0 && self.dice.percent(percent) {
            read[self.dice.below(used as u64) as usize] ^= 1 << self.dice.below(8);
            self.stats.flips += 1;
        }
    }

    fn full(&mut self) -> io::Error {
        self.stats.failures += 1;
        io::Error::new(io::ErrorKind::StorageFull, "no space left on device, on purpose")
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| not_found(path))
    }

    fn create(&mut self, path: &Path) -> io::Result<usize> {
        self.must_have_dir_of(path)?;
        if self.names.contains_key(path) {
            let text = format!("{} is there already", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        if self.faults.full {
            return Err(self.full());
        }
        self.files.push(File::default());
        let file = self.files.len() - 1;
        self.rename(NameChange { removed: None, made: Some((path.into(), file)) });
        Ok(file)
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn change(&mut self, file: usize, change: Change) {
        let file = &mut self.files[file];
        change.apply(&mut file.bytes);
        file.unsynced.push(change);
    }

    fn must_have_dir_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(dir) if self.dirs.contains(dir) => Ok(()),
            _ => Err(not_found(path)),
        }
    }
}

impl Vfs for Mount {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn VfsFile>> {
        let mut inner = alive(&self.disk, self.life)?;
        let place = place_of(path);
        let file = match mode {
            OpenMode::Create => inner.step(Act::Create, place, |inner| inner.create(path))?,
            _ => inner.file(path)?,
        };
        Ok(Box::new(Handle { disk: self.disk.clone(), life: self.life, file, place }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = alive(&self.disk, self.life)?;
        if !inner.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        let mut paths: Vec<PathBuf> =
            inner.names.keys().chain(&inner.dirs).filter(|path| path.parent() == Some(dir)).cloned().collect();
        paths.sort();
        Ok(paths)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = alive(&self.disk, self.life)?;
        inner.dirs.extend(path.ancestors().map(PathBuf::from));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        alive(&self.disk, self.life)?.step(Act::Rename, place_of(to), |inner| {
            inner.must_have_dir_of(to)?;
            if inner.dirs.contains(from) {
                return inner.rename_dir(from, to);
            }
            let file = inner.file(from)?;
            inner.rename(NameChange { removed: Some(from.into()), made: Some((to.into(), file)) });
            inner.stats.switched += u64::from(place_of(to) == Some(Place::Current));
            Ok(())
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        alive(&self.disk, self.life)?.step(Act::Link, place_of(to), |inner| {
            inner.must_have_dir_of(to)?;
            let file = inner.file(from)?;
            inner.rename(NameChange { removed: None, made: Some((to.into(), file)) });
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        alive(&self.disk, self.life)?.step(Act::Remove, place_of(path), |inner| {
            inner.file(path)?;
            inner.rename(NameChange { removed: Some(path.into()), made: None });
            Ok(())
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = alive(&self.disk, self.life)?;
        if !inner.dirs.contains(path) {
            return Err(not_found(path));
        }
        let doomed: Vec<PathBuf> = inner.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for name in doomed {
            inner.rename(NameChange { removed: Some(name), made: None });
        }
        inner.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        alive(&self.disk, self.life)?.step(Act::SyncFolder, place_of(dir), |inner| inner.sync_dir(dir))
    }

    fn exists(&self, path: &Path) -> bool {
        alive(&self.disk, self.life).is_ok_and(|inner| inner.names.contains_key(path) || inner.dirs.contains(path))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let inner = alive(&self.disk, self.life)?;
        Ok(inner.files[inner.file(path)?].bytes.len() as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut inner = alive(&self.disk, self.life)?;
        if !inner.locks.insert(path.into()) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "locked"));
        }
        Ok(Box::new(LockGuard { disk: self.disk.clone(), life: self.life, path: path.into() }))
    }
}

impl Inner {
    fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        if self.faults.sync_fails {
            return Err(self.failing("syncing a folder failed"));
        }
        let Inner { dirs, durable_dirs, durable_names, unsynced_names, .. } = self;
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(unsynced_names).into_iter().partition(|change| change.touches(dir));
        now.iter().for_each(|change| change.apply(durable_names));
        *unsynced_names = later;
        durable_dirs.retain(|path| path.parent() != Some(dir) || dirs.contains(path));
        durable_dirs.extend(dirs.iter().filter(|path| path.parent() == Some(dir)).cloned());
        Ok(())
    }

    /// Folders are renamed whole, and durable at once: a journaling file system orders that before what follows.
    fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = |path: &Path| {
            path.strip_prefix(from).map(|rest| if rest.as_os_str().is_empty() { to.into() } else { to.join(rest) })
        };
        for dirs in [&mut self.dirs, &mut self.durable_dirs] {
            *dirs = dirs.iter().map(|path| moved(path).unwrap_or_else(|_| path.clone())).collect();
        }
        for names in [&mut self.names, &mut self.durable_names] {
            *names =
                std::mem::take(names).into_iter().map(|(path, file)| (moved(&path).unwrap_or(path), file)).collect();
        }
        for change in &mut self.unsynced_names {
            if let Some(removed) = &mut change.removed {
                *removed = moved(removed).unwrap_or_else(|_| removed.clone());
            }
            if let Some((made, _)) = &mut change.made {
                *made = moved(made).unwrap_or_else(|_| made.clone());
            }
        }
        Ok(())
    }
}

impl VfsFile for Handle {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut inner = alive(&self.disk, self.life)?;
        let percent = inner.faults.reads_fail_percent;
        if percent > 0 && inner.dice.percent(percent) {
            return Err(inner.failing("reading failed"));
        }
        let file = &inner.files[self.file].bytes;
        let start = (offset as usize).min(file.len());
        let count = bytes.len().min(file.len() - start);
        bytes[..count].copy_from_slice(&file[start..start + count]);
        inner.flip(&mut bytes[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        alive(&self.disk, self.life)?.step(Act::Write, self.place, |inner| {
            let end = offset as usize + bytes.len();
            if inner.faults.full && end > inner.files[self.file].bytes.len() {
                return Err(inner.full());
            }
            inner.stats.writes += 1;
            inner.stats.bytes_written += bytes.len() as u64;
            inner.change(self.file, Change::Write { offset: offset as usize, bytes: bytes.to_vec() });
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        alive(&self.disk, self.life)?.step(Act::Sync, self.place, |inner| {
            let failing = inner.faults.sync_fails;
            let file = &mut inner.files[self.file];
            let unsynced = std::mem::take(&mut file.unsynced);
            if failing {
                return Err(inner.failing("syncing failed"));
            }
            unsynced.iter().for_each(|change| change.apply(&mut file.durable));
            inner.stats.syncs += 1;
            Ok(())
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut inner = alive(&self.disk, self.life)?;
        inner.change(self.file, Change::Length(bytes as usize));
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut inner = alive(&self.disk, self.life)?;
        if inner.faults.full {
            return Err(inner.full());
        }
        let length = inner.files[self.file].bytes.len().max(bytes as usize);
        inner.change(self.file, Change::Length(length));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let inner = alive(&self.disk, self.life)?;
        Ok(inner.files[self.file].bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use jangbu_raft_store::vfs::{create_dir_durable, read_file, replace_file};

    use super::*;

    fn disk() -> SimDisk {
        let disk = SimDisk::new(Dice::new(1, "test"));
        create_dir_durable(&*disk.mount(), Path::new("/data")).unwrap();
        disk
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_does_not() {
        let disk = disk();
        let path = Path::new("/data/log");
        let mount = disk.mount();
        let file = mount.open(path, OpenMode::Create).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        mount.sync_dir(Path::new("/data")).unwrap();
        file.write_all_at(b"lost", 4).unwrap();
        assert_eq!(read_file(&*disk.durable_image(Path::new("/data")).mount(), path).unwrap(), b"kept");
        disk.crash(Survival::Nothing);
        assert_eq!(read_file(&*disk.mount(), path).unwrap(), b"kept");
        assert!(file.write_all_at(b"late", 4).is_err(), "the process is gone");
    }

    #[test]
    fn a_name_needs_its_folder_synced() {
        let disk = disk();
        let mount = disk.mount();
        mount.open(Path::new("/data/a"), OpenMode::Create).unwrap().sync_data().unwrap();
        disk.crash(Survival::Nothing);
        assert!(!disk.mount().exists(Path::new("/data/a")));
    }

    #[test]
    fn a_replaced_file_is_old_or_new() {
        for seed in 0..100 {
            let disk = SimDisk::new(Dice::new(seed, "test"));
            let path = Path::new("/data/current");
            create_dir_durable(&*disk.mount(), Path::new("/data")).unwrap();
            replace_file(&*disk.mount(), path, b"old").unwrap();
            let mount = disk.mount();
            let file = mount.open(Path::new("/data/new"), OpenMode::Create).unwrap();
            file.write_all_at(b"new", 0).unwrap();
            file.sync_data().unwrap();
            mount.rename(Path::new("/data/new"), path).unwrap();
            disk.crash(Survival::Some);
            let found = read_file(&*disk.mount(), path).unwrap();
            assert!(found == b"old" || found == b"new", "{found:?}");
        }
    }

    #[test]
    fn what_a_killed_process_left_can_still_be_lost_to_a_power_cut() {
        let disk = disk();
        let path = Path::new("/data/log");
        disk.mount().open(path, OpenMode::Create).unwrap().write_all_at(b"x", 0).unwrap();
        disk.mount().sync_dir(Path::new("/data")).unwrap();
        disk.crash(Survival::All);
        assert_eq!(read_file(&*disk.mount(), path).unwrap(), b"x");
        disk.crash(Survival::Nothing);
        assert_eq!(disk.mount().len(path).unwrap(), 0);
    }

    #[test]
    fn a_trap_ends_a_life_before_or_after_its_step() {
        for before in [true, false] {
            let disk = disk();
            let mount = disk.mount();
            create_dir_durable(&*mount, Path::new("/data/log")).unwrap();
            let file = mount.open(Path::new("/data/log/1"), OpenMode::Create).unwrap();
            mount.sync_dir(Path::new("/data/log")).unwrap();
            file.write_all_at(b"x", 0).unwrap();
            let step = Step { act: Act::Sync, place: Place::Log, skip: 1, before };
            disk.set_trap(step, Survival::Nothing);
            file.sync_data().unwrap();
            file.write_all_at(b"y", 1).unwrap();
            assert!(disk.sprung().is_none());
            assert!(file.sync_data().is_err());
            assert!(disk.sprung().is_some());
            assert!(file.write_all_at(b"z", 2).is_err(), "nothing follows");
            let kept: &[u8] = if before { b"x" } else { b"xy" };
            assert_eq!(read_file(&*disk.mount(), Path::new("/data/log/1")).unwrap(), kept);
        }
    }

    #[test]
    fn a_read_that_lies_leaves_what_lies_there_as_it_is() {
        let disk = disk();
        let mount = disk.mount();
        let path = Path::new("/data/log");
        let file = mount.open(path, OpenMode::Create).unwrap();
        file.write_all_at(b"what is written\0\0\0", 0).unwrap();
        disk.set_faults(DiskFaults { reads_flip_percent: 100, ..DiskFaults::default() });
        let read = read_file(&*mount, path).unwrap();
        let flipped: u32 = read.iter().zip(b"what is written\0\0\0").map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, 1);
        assert!(read.ends_with(b"\0\0\0"));
        disk.set_faults(DiskFaults::default());
        assert_eq!(read_file(&*mount, path).unwrap(), b"what is written\0\0\0");
    }

    #[test]
    fn a_failed_sync_never_becomes_durable() {
        let disk = disk();
        let mount = disk.mount();
        let file = mount.open(Path::new("/data/log"), OpenMode::Create).unwrap();
        mount.sync_dir(Path::new("/data")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        disk.set_faults(DiskFaults { sync_fails: true, ..DiskFaults::default() });
        assert!(file.sync_data().is_err());
        disk.set_faults(DiskFaults::default());
        file.sync_data().unwrap();
        disk.crash(Survival::Nothing);
        assert_eq!(disk.mount().len(Path::new("/data/log")).unwrap(), 0);
    }
}
