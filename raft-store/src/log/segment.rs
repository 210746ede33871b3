//! One file of the stream, and the files that wait to become one.
//!
//!     000000000007.log       the seventh segment ever; its number is in each of its records
//!     spare-000000000003     room made ready: zeros, or an older segment that was purged
//!
//! A segment is never made smaller or moved. When all in it is purged it becomes a spare, and later another segment: then
//! its blocks are already there, and a sync need not wait for the file system's own journal.
//!
//! Laws
//! * A number is used once. Records name their segment's number, so a reused file's old records mean nothing.
//! * A name is durable before anything is written into the file.
//! * A file that is being read is not reused.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Log;
use crate::{
    blocking::Lane,
    error::StoreError,
    vfs::{OpenMode, Vfs, VfsFile},
};

/// How much is written at once when a spare is filled with zeros.
const FILL_BYTES: usize = 1 << 20;

pub(crate) struct Segment {
    pub(super) sequence: u64,
    /// The position of the file's first byte.
    pub(super) start: u64,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn VfsFile>,
}

impl Segment {
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|error| StoreError::io("sync", &self.path, error))
    }
}

#[derive(Default)]
pub(super) struct Spares {
    ready: Vec<PathBuf>,
    /// Purged, but perhaps still being read.
    purged: Vec<Arc<Segment>>,
    /// Of the newest spare.
    number: u64,
}

/// What a file's name says it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Segment(u64),
    Spare(u64),
    Unknown,
}

impl Name {
    pub(super) fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = |digits: &str| digits.parse().ok();
        name.strip_suffix(".log")
            .and_then(number)
            .map(Self::Segment)
            .or_else(|| name.strip_prefix("spare-").and_then(number).map(Self::Spare))
            .unwrap_or(Self::Unknown)
    }
}

pub(super) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:012}.log"))
}

/// Makes an empty segment, from `spare` if there is one. Its name is durable when this returns; blocks on a disk.
pub(super) fn create(
    vfs: &dyn Vfs,
    dir: &Path,
    spare: Option<PathBuf>,
    sequence: u64,
    start: u64,
    segment_bytes: u64,
) -> Result<Segment, StoreError> {
    let path = segment_path(dir, sequence);
    let make = || -> io::Result<Box<dyn VfsFile>> {
        let file = match &spare {
            Some(spare) => {
                vfs.rename(spare, &path)?;
                vfs.open(&path, OpenMode::Write)?
            }
            None => vfs.open(&path, OpenMode::Create)?,
        };
        if file.len()? < segment_bytes {
            file.allocate(segment_bytes)?;
        }
        vfs.sync_dir(dir)?;
        Ok(file)
    };
    let file = make().map_err(|error| StoreError::io("make a log segment", &path, error))?;
    Ok(Segment { sequence, start, path, file })
}

impl Spares {
    /// From what lies in the folder at start-up.
    pub(super) fn new(ready: Vec<PathBuf>, number: u64) -> Self {
        Self { ready, purged: Vec::new(), number }
    }

    fn next_path(&mut self, dir: &Path) -> PathBuf {
        self.number += 1;
        dir.join(format!("spare-{:012}", self.number))
    }

    pub(super) fn take(&mut self) -> Option<PathBuf> {
        self.ready.pop()
    }
}

impl Log {
    /// Takes segments that nothing is needed from any more, and makes spares of them when nobody reads them.
    pub(super) fn retire(self: &Arc<Self>, purged: Vec<Arc<Segment>>) {
        self.spares().purged.extend(purged);
        let log = self.clone();
        drop(self.blocking.run(Lane::Spare, Box::new(move || log.recycle())));
    }

    /// Makes one spare from nothing if there is none, before the next roll needs it.
    pub(super) fn replenish(self: &Arc<Self>) {
        let log = self.clone();
        drop(self.blocking.run(Lane::Spare, Box::new(move || log.fill_spare())));
    }

    fn recycle(&self) {
        let purged = std::mem::take(&mut self.spares().purged);
        for segment in purged {
            if Arc::strong_count(&segment) > 1 {
                self.spares().purged.push(segment);
            } else if let Err(error) = self.recycle_one(&segment) {
                // A disk that refuses to move a name is not one to go on writing to.
                self.fatal.raise(StoreError::io("reuse a purged log segment", &segment.path, error));
                return;
            }
        }
    }

    /// Not made durable here: a crash only brings back a name that recovery takes away again, and the spare's next name is
    /// durable before the file is written to (`create`).
    fn recycle_one(&self, segment: &Segment) -> io::Result<()> {
        if self.spares().ready.len() >= self.config.spares_max {
            return self.vfs.remove_file(&segment.path);
        }
        let spare = self.spares().next_path(&self.dir);
        self.vfs.rename(&segment.path, &spare)?;
        self.spares().ready.push(spare);
        Ok(())
    }

    fn fill_spare(&self) {
        let path = {
            let mut spares = self.spares();
            if self.config.spares_max == 0 || !spares.ready.is_empty() {
                return;
            }
            spares.next_path(&self.dir)
        };
        match self.fill(&path) {
            Ok(()) => self.spares().ready.push(path),
            // Nothing depends on a spare. If the disk is full, the roll that needs the room will say so.
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot make a spare log segment");
                let _may_not_exist = self.vfs.remove_file(&path);
            }
        }
    }

    fn fill(&self, path: &Path) -> io::Result<()> {
        let file = self.vfs.open(path, OpenMode::Create)?;
        fill(&*file, self.config.segment_bytes)?;
        self.vfs.sync_dir(&self.dir)
    }
}

/// Writes zeros all over a segment, durable when this returns. Piece by piece past the page cache: all at once, other syncs would wait
/// for all of them.
pub(super) fn fill(file: &dyn VfsFile, segment_bytes: u64) -> io::Result<()> {
    file.allocate(segment_bytes)?;
    let zeros = vec![0; FILL_BYTES.min(segment_bytes as usize)];
    let mut offset = 0;
    while offset < segment_bytes {
        let count = zeros.len().min((segment_bytes - offset) as usize);
        file.write_vectored_at(&[IoSlice::new(&zeros[..count])], offset)?;
        offset += count as u64;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_says_what_it_is() {
        let dir = Path::new("/log");
        assert_eq!(Name::of(&segment_path(dir, 7)), Name::Segment(7));
        assert_eq!(Name::of(&Spares::default().next_path(dir)), Name::Spare(1));
        assert_eq!(Name::of(Path::new("/log/notes.txt")), Name::Unknown);
        assert_eq!(Name::of(Path::new("/log/x.log")), Name::Unknown);
    }
}
