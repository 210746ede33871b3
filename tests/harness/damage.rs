//! What disks do to files, done on purpose.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
};

/// Every file under `folder`, in order.
pub fn files_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_under(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Every file under `folder` whose name ends so.
pub fn files_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let ends = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending));
    files_under(folder).into_iter().filter(ends).collect()
}

/// Turns one bit of the byte at `offset`, as a disk does that has forgotten.
pub fn flip(file: &Path, offset: u64) {
    let handle = OpenOptions::new().read(true).write(true).open(file).expect("the file is there");
    let mut byte = [0u8];
    handle.read_exact_at(&mut byte, offset).expect("the file is that long");
    handle.write_all_at(&[byte[0] ^ 0x10], offset).expect("the file can be written");
}

/// How much of a preallocated file has been written: up to its last byte that isn't zero.
pub fn written_bytes(file: &Path) -> u64 {
    let bytes = fs::read(file).expect("the file is there");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

/// Where a record of the log begins: at a multiple of 32 bytes, with these four bytes, its kind in byte 36.
/// (raft-store/src/log/record.rs; part of the format on disk, which doesn't change without a new version.)
pub fn first_log_record(segment: &Path, kind: u8) -> Option<u64> {
    let bytes = fs::read(segment).expect("the segment is there");
    let is_such = |start: &usize| bytes[*start..].starts_with(b"JBLR") && bytes.get(start + 36) == Some(&kind);
    (0..bytes.len()).step_by(32).find(is_such).map(|start| start as u64)
}

/// The kind of a log record that holds a vote.
pub const VOTE_RECORD: u8 = 3;

/// A small disk of its own, mounted over a folder. Dropping it unmounts it.
pub struct SmallDisk {
    folder: CString,
}

impl SmallDisk {
    /// `None` where mounting isn't allowed, as only root may.
    pub fn mount(folder: &Path, mebibytes: u32) -> Option<SmallDisk> {
        fs::create_dir_all(folder).expect("a folder can be made");
        let folder = CString::new(folder.as_os_str().as_bytes()).expect("a path holds no zero byte");
        mount(&folder, mebibytes, 0).then_some(SmallDisk { folder })
    }

    pub fn resize(&self, mebibytes: u32) {
        assert!(mount(&self.folder, mebibytes, libc::MS_REMOUNT), "a mounted disk can be resized");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: a plain system call on a path that outlives it. Detached, as a node may still be at it.
        unsafe { libc::umount2(self.folder.as_ptr(), libc::MNT_DETACH) };
    }
}

fn mount(folder: &CString, mebibytes: u32, flags: libc::c_ulong) -> bool {
    let size = CString::new(format!("size={mebibytes}m")).expect("digits hold no zero byte");
    let tmpfs = c"tmpfs";
    // SAFETY: a plain system call on strings that outlive it.
    unsafe { libc::mount(tmpfs.as_ptr(), folder.as_ptr(), tmpfs.as_ptr(), flags, size.as_ptr().cast()) == 0 }
}
