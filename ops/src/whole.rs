//! Files that are never seen half written: made under another name beside it, synced, and then given their own. And folders for
//! work that isn't whole yet.
//!
//! Not here: files too long for memory (`export/table.rs`, in a folder that is renamed), objects of a backup (`backup/place.rs`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
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
}
