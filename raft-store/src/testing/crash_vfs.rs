//! A disk in memory that dies at the operation it is told to, and then shows what a real one might.
//!
//! Each change to a file, a name or a length is an operation with a number. At `die_at` that operation does not happen, and
//! all later ones fail, as they would for a process that is gone. [`CrashVfs::restart`] then gives the disk that the next
//! process finds, by one of the ways in which unsynced data may survive.
//!
//! Laws
//! * What was synced is always there after a restart.
//! * What was not may be there or not, each write for itself, whole or cut; names come back in the order they were made.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::Dice;
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// A torn write is torn between sectors.
const SECTOR_BYTES: usize = 512;

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// The power failed: all of it is gone.
    Lost,
    /// The process died, the machine went on: all of it is there, and none of it is synced.
    Kept,
    /// All of it is there, but the last write of each file is cut somewhere.
    TornLast(u64),
    /// Each write is there, cut, or gone, by a seed.
    Some(u64),
}

#[derive(Clone, Default)]
pub struct CrashVfs(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: Vec<File>,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    operations: u64,
    die_at: Option<u64>,
    fail_at: Option<u64>,
    /// Of writes and syncs that were done.
    syncs: u64,
    reads: u64,
    lie: Option<Lie>,
}

/// A read that returns one bit that is not what lies there.
#[derive(Clone, Copy)]
struct Lie {
    read: u64,
    seed: u64,
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

/// Takes effect on `dir` once that is synced.
#[derive(Clone)]
struct NameChange {
    dirs: BTreeSet<PathBuf>,
    removed: Option<PathBuf>,
    made: Option<(PathBuf, usize)>,
}

struct Handle {
    disk: CrashVfs,
    file: usize,
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset..end].copy_from_slice(bytes);
            }
            Self::Length(length) => file.resize(*length, 0),
        }
    }

    /// The same change, cut at a sector.
    fn cut(&self, dice: &mut Dice) -> Self {
        match self {
            Self::Write { offset, bytes } => {
                let first = SECTOR_BYTES - offset % SECTOR_BYTES;
                let sectors = (bytes.len().saturating_sub(first)).div_ceil(SECTOR_BYTES) as u64 + 1;
                let kept = first * dice.below(2) as usize + SECTOR_BYTES * dice.below(sectors) as usize;
                Self::Write { offset: *offset, bytes: bytes[..kept.min(bytes.len())].to_vec() }
            }
            Self::Length(length) => Self::Length(*length),
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
}

impl CrashVfs {
    /// The operation with this number does not happen, and nothing after it does.
    pub fn die_at(&self, operation: u64) {
        self.disk().die_at = Some(operation);
    }

    /// The operation with this number fails with an error, and leaves the disk alive.
    pub fn fail_at(&self, operation: u64) {
        self.disk().fail_at = Some(operation);
    }

    /// The read with this number returns one wrong bit, and leaves what lies there as it is.
    pub fn lie_at(&self, read: u64, seed: u64) {
        self.disk().lie = Some(Lie { read, seed });
    }

    /// How many reads there have been.
    pub fn reads(&self) -> u64 {
        self.disk().reads
    }

    /// How many operations there have been.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// How many syncs of files there have been.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    pub fn is_dead(&self) -> bool {
        let disk = self.disk();
        disk.die_at.is_some_and(|die_at| disk.operations > die_at)
    }

    /// The disk that the next process finds. This one is not changed.
    pub fn restart(&self, survival: Survival) -> Self {
        let disk = self.disk();
        let mut dice = Dice(match survival {
            // The machine went on: what was not synced still is not.
            Survival::Kept => return Self(Arc::new(Mutex::new(disk.go_on()))),
            Survival::Lost => 0,
            Survival::TornLast(seed) | Survival::Some(seed) => seed,
        });
        let names_kept = match survival {
            Survival::Lost => 0,
            Survival::Kept | Survival::TornLast(_) => disk.unsynced_names.len(),
            Survival::Some(_) => dice.below(disk.unsynced_names.len() as u64 + 1) as usize,
        };
        let mut names = disk.durable_names.clone();
        disk.unsynced_names[..names_kept].iter().for_each(|change| change.apply(&mut names));
        let files = disk.files.iter().map(|file| file.survive(survival, &mut dice)).collect();
        // A file that comes back has its folder, whatever was done to that in the meantime.
        let mut dirs = disk.dirs.clone();
        dirs.extend(names.keys().flat_map(|name| name.ancestors().skip(1)).map(Path::to_path_buf));
        Self(Arc::new(Mutex::new(Disk { files, dirs, durable_names: names.clone(), names, ..Disk::default() })))
    }

    /// Changes a byte behind everyone's back, durably.
    pub fn flip(&self, path: &Path, offset: u64) {
        let mut disk = self.disk();
        let file = disk.names[path];
        let File { bytes, durable, .. } = &mut disk.files[file];
        bytes[offset as usize] ^= 0x10;
        if let Some(byte) = durable.get_mut(offset as usize) {
            *byte ^= 0x10;
        }
    }

    /// Takes a file away behind everyone's back, durably.
    pub fn lose(&self, path: &Path) {
        let mut disk = self.disk();
        disk.names.remove(path);
        disk.durable_names.remove(path);
    }

    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let disk = self.disk();
        disk.files[disk.names[path]].bytes.clone()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("a test that panics is over")
    }

    /// Counts an operation; `Err` if it must not happen.
    fn begin(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.disk();
        let number = disk.operations;
        disk.operations += 1;
        if disk.die_at.is_some_and(|die_at| number >= die_at) {
            return Err(io::Error::other("the process is dead"));
        }
        if disk.fail_at == Some(number) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(disk)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk();
        match disk.die_at.is_some_and(|die_at| disk.operations > die_at) {
            true => Err(io::Error::other("the process is dead")),
            false => Ok(disk),
        }
    }
}

impl File {
    fn survive(&self, survival: Survival, dice: &mut Dice) -> Self {
        let mut bytes = self.durable.clone();
        let last_write = self.unsynced.iter().rposition(|change| matches!(change, Change::Write { .. }));
        for (place, change) in self.unsynced.iter().enumerate() {
            match survival {
                Survival::Lost => {}
                Survival::Kept => change.apply(&mut bytes),
                Survival::TornLast(_) if Some(place) == last_write => change.cut(dice).apply(&mut bytes),
                Survival::TornLast(_) => change.apply(&mut bytes),
                Survival::Some(_) => match dice.below(3) {
                    0 => change.apply(&mut bytes),
                    1 => change.cut(dice).apply(&mut bytes),
                    _ => {}
                },
            }
        }
        Self { durable: bytes.clone(), bytes, unsynced: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.bytes);
        self.unsynced.push(change);
    }
}

impl Disk {
    fn go_on(&self) -> Self {
        Self {
            files: self.files.clone(),
            dirs: self.dirs.clone(),
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            unsynced_names: self.unsynced_names.clone(),
            ..Self::default()
        }
    }

    fn rename_in_memory(&mut self, removed: Option<&Path>, made: Option<(&Path, usize)>) {
        let parent = |path: &Path| path.parent().map(Path::to_path_buf).unwrap_or_default();
        let dirs = removed.iter().map(|path| parent(path)).chain(made.iter().map(|(path, _)| parent(path))).collect();
        let change = NameChange {
            dirs,
            removed: removed.map(Path::to_path_buf),
            made: made.map(|(path, file)| (path.to_path_buf(), file)),
        };
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Vfs for CrashVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn VfsFile>> {
        if mode != OpenMode::Create {
            let file = self.alive()?.find(path)?;
            return Ok(Box::new(Handle { disk: self.clone(), file }));
        }
        let mut disk = self.begin()?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = disk.files.len();
        disk.files.push(File::default());
        disk.rename_in_memory(None, Some((path, file)));
        Ok(Box::new(Handle { disk: self.clone(), file }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let disk = self.alive()?;
        let paths = disk.names.keys().chain(&disk.dirs).filter(|path| path.parent() == Some(dir));
        Ok(paths.cloned().collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Folders are durable at once: losing them is losing everything in them, and no test needs that.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.begin()?;
        disk.dirs.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.begin()?;
        if disk.dirs.contains(from) {
            return disk.rename_dir(from, to);
        }
        let file = disk.find(from)?;
        disk.rename_in_memory(Some(from), Some((to, file)));
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.begin()?;
        let file = disk.find(from)?;
        disk.rename_in_memory(None, Some((to, file)));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.begin()?;
        disk.find(path)?;
        disk.rename_in_memory(Some(path), None);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.begin()?;
        let inside: Vec<_> = disk.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        inside.iter().for_each(|name| disk.rename_in_memory(Some(name), None));
        disk.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.begin()?;
        let changes = std::mem::take(&mut disk.unsynced_names);
        for change in changes {
            if change.dirs.contains(dir) {
                change.apply(&mut disk.durable_names);
            } else {
                disk.unsynced_names.push(change);
            }
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        let disk = self.disk();
        disk.names.contains_key(path) || disk.dirs.contains(path)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        let disk = self.alive()?;
        Ok(disk.files[disk.find(path)?].bytes.len() as u64)
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
}

impl Disk {
    /// A folder moves with all that is in it, as one change.
    fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = |path: &Path| to.join(path.strip_prefix(from).expect("chosen by this prefix"));
        let inside: Vec<_> = self.names.keys().filter(|name| name.starts_with(from)).cloned().collect();
        for name in inside {
            let file = self.names[&name];
            self.rename_in_memory(Some(&name), Some((&moved(&name), file)));
            let change = self.unsynced_names.last_mut().expect("just pushed");
            change.dirs = [from, to].into_iter().filter_map(Path::parent).map(Path::to_path_buf).collect();
        }
        let dirs: Vec<_> = self.dirs.iter().filter(|dir| dir.starts_with(from)).cloned().collect();
        for dir in dirs {
            self.dirs.insert(if dir == from { to.to_path_buf() } else { moved(&dir) });
            self.dirs.remove(&dir);
        }
        Ok(())
    }
}

impl VfsFile for Handle {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.alive()?;
        let file = &disk.files[self.file].bytes;
        let rest = file.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        let read = disk.reads;
        disk.reads += 1;
        if let Some(lie) = disk.lie.take_if(|lie| lie.read == read) {
            let used = bytes[..count].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let bit = Dice(lie.seed).below(used as u64 * 8) as usize;
            bytes.get_mut(bit / 8).into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
        }
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let change = Change::Write { offset: offset as usize, bytes: bytes.to_vec() };
        let is_last_breath = {
            let disk = self.disk.disk();
            disk.die_at == Some(disk.operations)
        };
        if is_last_breath {
            // The write was under way when the process died: how much of it arrived is for `restart` to say.
            self.disk.disk().files[self.file].change(change.clone());
        }
        let mut disk = self.disk.begin()?;
        disk.files[self.file].change(change);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.begin()?;
        disk.syncs += 1;
        let file = &mut disk.files[self.file];
        // Bit by bit the same, so only what changed is copied.
        let changes = std::mem::take(&mut file.unsynced);
        changes.iter().for_each(|change| change.apply(&mut file.durable));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.begin()?;
        disk.files[self.file].change(Change::Length(bytes as usize));
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.begin()?;
        let file = &mut disk.files[self.file];
        let length = file.bytes.len().max(bytes as usize);
        file.change(Change::Length(length));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.files[self.file].bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivors(survival: Survival) -> Vec<u8> {
        let disk = CrashVfs::default();
        let path = Path::new("/d/f");
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.open(path, OpenMode::Create).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_all_at(&[1; 600], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[2; 600], 600).unwrap();
        disk.restart(survival).contents(path)
    }

    #[test]
    fn synced_data_survives_and_the_rest_may() {
        assert_eq!(survivors(Survival::Lost), [1; 600]);
        assert_eq!(survivors(Survival::Kept), [[1; 600], [2; 600]].concat());
        let mut lengths: BTreeSet<usize> = BTreeSet::new();
        for seed in 0..20 {
            lengths.insert(survivors(Survival::TornLast(seed)).len());
            assert!(survivors(Survival::Some(seed)).starts_with(&[1; 600]));
        }
        assert!(lengths.len() > 1, "a write is torn in more than one place: {lengths:?}");
    }

    #[test]
    fn a_name_survives_once_its_folder_is_synced() {
        let disk = CrashVfs::default();
        let (old, new) = (Path::new("/d/old"), Path::new("/d/new"));
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.open(old, OpenMode::Create).unwrap();
        assert!(!disk.restart(Survival::Lost).exists(old));
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.rename(old, new).unwrap();
        assert!(disk.restart(Survival::Lost).exists(old));
        assert!(disk.restart(Survival::Kept).exists(new));
    }

    #[test]
    fn nothing_happens_after_death() {
        let disk = CrashVfs::default();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f"), OpenMode::Create).unwrap();
        disk.die_at(disk.operations());
        assert!(file.sync_data().is_err());
        assert!(disk.is_dead());
        assert!(file.write_all_at(b"late", 0).is_err());
        assert!(file.read_at(&mut [0], 0).is_err());
    }
}
