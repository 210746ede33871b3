//! The disk behind the product's seam: what one life of a process sees of it, and can do with it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::MutexGuard,
};

use jangbu_raft_store::vfs::{OpenMode, Vfs, VfsFile};

use super::{
    Inner, SimDisk,
    changes::{Change, NameChange},
    inner::place_of,
};
use crate::faults::{Act, Place};

/// A mount of this life is never cut off.
pub(super) const ANY_LIFE: u64 = u64::MAX;

/// The disk as one life of a process sees it.
pub(super) struct Mount {
    disk: SimDisk,
    life: u64,
}

impl Mount {
    pub(super) fn new(disk: &SimDisk, life: u64) -> Self {
        Self { disk: disk.clone(), life }
    }
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

pub(super) fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

pub(super) fn gone() -> io::Error {
    io::Error::other("the process that had this open is gone")
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
