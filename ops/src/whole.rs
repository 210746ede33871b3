//! Files that are never seen half written: made under another name beside it, synced, and then given their own. And folders for
//! work that isn't whole yet, such as files that belong together:
//!
//! ```text
//!     NAME.making/  all of them, synced ──► each linked to its place ──► NAME.made/ ──► removed
//!                                 cut off before that: the next attempt takes back what was put, which is the very same file
//! ```
//!
//! Not here: files too long for memory (`export/table.rs`, in a folder that is renamed), objects of a backup (`backup/place.rs`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::output;

/// Where there must be none yet. Durable when it returns.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A link takes no other's place, as renaming would.
    aside(path, bytes, mode, |new| fs::hard_link(new, path).and_then(|()| fs::remove_file(new)))
}

/// In the place of what may be there, also behind a link. Durable when it returns. A pipe or a device is written to.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let path = match fs::metadata(path) {
        Ok(there) if !there.is_file() => return File::options().write(true).open(path)?.write_all(bytes),
        Ok(_) => &fs::canonicalize(path)?,
        Err(_) => path,
    };
    aside(path, bytes, mode, |new| fs::rename(new, path))
}

/// Files of one folder that are worth nothing without each other.
pub struct Together {
    folder: PathBuf,
    making: PathBuf,
    made: PathBuf,
    /// Held for as long as this lives.
    _lock: File,
}

impl Together {
    /// Takes back what an attempt under the same name has put that was cut off. Fails if that one is still at work.
    pub fn begin(folder: &Path, name: &str) -> io::Result<Together> {
        let [making, made] = ["making", "made"].map(|state| folder.join(format!("{name}.{state}")));
        let lock = File::open(folder)?;
        lock.try_lock().map_err(|_| io::Error::other("another command makes files there just now"))?;
        let together = Together { folder: folder.to_owned(), making, made, _lock: lock };
        together.take_back()?;
        Ok(together)
    }

    /// Puts them all where there must be none yet, or none of them. Durable when it returns.
    pub fn create(&self, files: &[(&Path, &[u8], u32)]) -> io::Result<()> {
        let put = self.write(files).and_then(|()| files.iter().try_for_each(|(path, ..)| self.put(path)));
        if put.is_err() {
            self.take_back()?;
            return put;
        }
        fs::rename(&self.making, &self.made)?;
        File::open(&self.folder)?.sync_all()?;
        fs::remove_dir_all(&self.made)
    }

    fn write(&self, files: &[(&Path, &[u8], u32)]) -> io::Result<()> {
        fs::create_dir(&self.making)?;
        files.iter().try_for_each(|(path, bytes, mode)| write(&self.aside(path), bytes, *mode))
    }

    fn put(&self, path: &Path) -> io::Result<()> {
        fs::hard_link(self.aside(path), path)
    }

    fn aside(&self, path: &Path) -> PathBuf {
        self.making.join(path.file_name().unwrap_or_default())
    }

    fn take_back(&self) -> io::Result<()> {
        remove_folder(&self.made)?;
        let there = match fs::read_dir(&self.making) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            there => there?,
        };
        for aside in there {
            let aside = aside?;
            let (ours, path) = (aside.metadata()?, self.folder.join(aside.file_name()));
            let is_ours = |there: fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
            if fs::symlink_metadata(&path).is_ok_and(is_ours) {
                fs::remove_file(path)?;
            }
        }
        remove_folder(&self.making)
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A folder that goes with all that is in it when this does, unless it was given another name.
pub struct Scratch(PathBuf);

/// Of those that there are.
static SCRATCHES: AtomicUsize = AtomicUsize::new(0);

/// Whether something would be left if the process ended here and now.
pub fn has_scratches() -> bool {
    SCRATCHES.load(Ordering::Relaxed) > 0
}

/// Threads that were at work in it when their command was left may make it anew: it is gone when it stays gone for so long.
const GONE_FOR: Duration = Duration::from_millis(100);

/// How often that is tried.
const REMOVALS: u32 = 20;

impl Scratch {
    /// It is there already.
    pub fn new(folder: PathBuf) -> Scratch {
        SCRATCHES.fetch_add(1, Ordering::Relaxed);
        Scratch(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn remove(&self) {
        let mut met = None;
        for _ in 0..REMOVALS {
            match fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                removed => met = removed.err(),
            }
            std::thread::sleep(GONE_FOR);
        }
        if let Some(error) = met {
            output::note(format!("{} can't be removed: {error}", self.0.display()));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove();
        SCRATCHES.fetch_sub(1, Ordering::Relaxed);
    }
}

fn aside(path: &Path, bytes: &[u8], mode: u32, name: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(new);
    let written = write(&new, bytes, mode).and_then(|()| name(&new));
    if written.is_err() {
        let _ = fs::remove_file(&new); // it may not even be there
    }
    written
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_replaced_only_by_whoever_means_to() {
        let path = std::env::temp_dir().join(format!("jangbu-whole-{}", std::process::id()));
        create(&path, b"first", 0o600).unwrap();
        assert_eq!(create(&path, b"second", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        replace(&path, b"third", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        replace(Path::new("/dev/null"), b"fourth", 0o600).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let beside = fs::read_dir(path.parent().unwrap()).unwrap().filter_map(Result::ok);
        let left: Vec<_> = beside.filter(|one| one.file_name().to_string_lossy().starts_with(&name)).collect();
        assert_eq!(left.len(), 1, "nothing is left beside it");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn files_that_belong_together_are_all_there_or_none_wherever_it_is_cut_off() {
        let folder = std::env::temp_dir().join(format!("jangbu-together-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let [first, second] = ["a", "b"].map(|name| folder.join(name));
        let files = |content: &'static [u8]| [(first.as_path(), content, 0o600), (second.as_path(), content, 0o644)];
        let left = || fs::read_dir(&folder).unwrap().count();

        let cut_off = Together::begin(&folder, "pair").unwrap();
        assert!(Together::begin(&folder, "pair").is_err(), "while it is at work");
        cut_off.write(&files(b"old")).unwrap();
        cut_off.put(&first).unwrap();
        drop(cut_off);
        assert_eq!((first.exists(), second.exists()), (true, false), "as a kill leaves it");
        let again = Together::begin(&folder, "pair").unwrap();
        assert_eq!(left(), 0, "all is taken back");
        again.create(&files(b"new")).unwrap();
        assert_eq!([&first, &second].map(|path| fs::read(path).unwrap()), [b"new", b"new"]);
        assert_eq!(left(), 2, "nothing is left beside them");

        // All were put, and the folder aside was about to go.
        fs::create_dir(folder.join("pair.made")).unwrap();
        fs::hard_link(&second, folder.join("pair.made/b")).unwrap();
        drop(again);
        let again = Together::begin(&folder, "pair").unwrap();
        assert_eq!(left(), 2, "what was whole stays");

        // Another's file under one of the names stays what it is.
        fs::remove_file(&first).unwrap();
        assert_eq!(again.create(&files(b"third")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((first.exists(), fs::read(&second).unwrap()), (false, b"new".to_vec()));
        assert_eq!(left(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
