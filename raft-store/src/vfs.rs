//! The disk seam: every file that must survive a crash is touched through here.
//!
//! [`StdVfs`] is the real file system. The simulator puts one behind the same trait that tears writes, forgets what was
//! not synced and fails on purpose, so the code that money rests on runs unchanged in both.
//!
//! Laws
//! * What `sync_data` has covered survives a crash; what it has not may survive whole, torn, or not at all.
//! * A name (create, rename, remove) survives only once its folder has been through `sync_dir`.
//! * Nothing is synced when a value is dropped: a crash runs destructors too, and must not make anything durable.
//!
//! Not here: when to sync (`log/writer.rs`, `snapshot.rs`), and RocksDB, which brings its own file system.

mod direct;

use std::{
    fs, io,
    io::IoSlice,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use direct::Direct;
use rustix::fs::{FallocateFlags, FlockOperation};

/// Linux takes at most this many slices in one call.
const SLICES_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist.
    Read,
    /// To read and write; must exist.
    Write,
    /// To read and write; must not exist.
    Create,
}

/// A file system. Each call may block on a disk.
pub trait Vfs: Send + Sync + 'static {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn VfsFile>>;
    /// What lies directly in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Replaces what is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    fn exists(&self, path: &Path) -> bool;
    /// A file's length in bytes.
    fn len(&self, path: &Path) -> io::Result<u64>;
    /// Keeps other processes out of the folder that holds `path` until the guard is dropped; `WouldBlock` when one is in.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. Each call may block on a disk.
pub trait VfsFile: Send + Sync + 'static {
    /// Returns how many bytes were read; fewer than asked only at the end of the file.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// One write of all slices, one after the other.
    fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.write_all_at(&slices.concat_bytes(), offset)
    }
    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Reserves room up to `bytes`, so that later writes below it need no new blocks. The file is that long afterwards.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for [IoSlice<'_>] {
    fn concat_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.iter().map(|slice| slice.len()).sum());
        self.iter().for_each(|slice| bytes.extend_from_slice(slice));
        bytes
    }
}

/// Reads a whole file.
pub fn read_file(vfs: &dyn Vfs, path: &Path) -> io::Result<Vec<u8>> {
    let file = vfs.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; file.len()? as usize];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Puts a whole file in place, durable when this returns: after a crash there is the old one or the new one, never half.
/// The folder that holds it must be durable already.
pub fn replace_file(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a file lies in a folder"))?;
    let unfinished = path.with_extension("unfinished");
    if vfs.exists(&unfinished) {
        vfs.remove_file(&unfinished)?;
    }
    let file = vfs.open(&unfinished, OpenMode::Create)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    drop(file);
    vfs.rename(&unfinished, path)?;
    vfs.sync_dir(dir)
}

/// Creates `dir` and its parents, durable when this returns.
pub fn create_dir_durable(vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !vfs.exists(path)).collect();
    vfs.create_dir_all(dir)?;
    missing
        .into_iter()
        .filter_map(Path::parent)
        .try_for_each(|parent| vfs.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }))
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdVfs;

impl Vfs for StdVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn VfsFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::Create);
        let file = options.open(path)?;
        let direct = if mode == OpenMode::Read { None } else { Direct::open(path) };
        Ok(Box::new(StdFile { file, direct }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        // The kernel lets go of it when the process ends, however it ends.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
}

struct StdFile {
    file: fs::File,
    direct: Option<Direct>,
}

impl VfsFile for StdFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut count = 0;
        while count < bytes.len() {
            match self.file.read_at(&mut bytes[count..], offset + count as u64) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_vectored_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        match &self.direct {
            Some(direct) if bytes >= direct::WRITE_BYTES_MIN => direct.write_all_at(&self.file, slices, offset),
            _ => write_vectored_at(&self.file, slices, offset),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // Not every file system can; then the first write to each block is a little slower.
            Err(rustix::io::Errno::OPNOTSUPP) => self.file.set_len(bytes.max(self.len()?)),
            Err(error) => Err(error.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

fn write_vectored_at(file: &fs::File, slices: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    for slices in slices.chunks(SLICES_MAX) {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = rustix::io::pwritev(file, slices, offset)?;
        // A short write is rare (a signal, a nearly full disk): the rest goes slice by slice.
        let mut start = 0;
        for slice in slices {
            let end = start + slice.len();
            if written < end {
                let rest = &slice[written - start..];
                file.write_all_at(rest, offset + written as u64)?;
                written = end;
            }
            start = end;
        }
        offset += bytes as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_written_one_after_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = StdVfs.open(&dir.path().join("file"), OpenMode::Create).unwrap();
        let bytes: Vec<Vec<u8>> = (0..3000u32).map(|n| vec![n as u8; 1 + n as usize % 7]).collect();
        let slices: Vec<IoSlice<'_>> = bytes.iter().map(|bytes| IoSlice::new(bytes)).collect();
        file.write_vectored_at(&slices, 5).unwrap();
        let mut read = vec![0; 5 + bytes.concat().len()];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), read.len());
        assert_eq!(read[5..], bytes.concat());
    }

    #[test]
    fn a_locked_folder_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let guard = StdVfs.lock(&path).unwrap();
        assert_eq!(StdVfs.lock(&path).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(guard);
        assert!(StdVfs.lock(&path).is_ok());
    }

    #[test]
    fn a_replaced_file_is_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file");
        create_dir_durable(&StdVfs, path.parent().unwrap()).unwrap();
        replace_file(&StdVfs, &path, b"old").unwrap();
        replace_file(&StdVfs, &path, b"new").unwrap();
        assert_eq!(read_file(&StdVfs, &path).unwrap(), b"new");
        assert_eq!(StdVfs.list(path.parent().unwrap()).unwrap(), [path]);
    }
}
