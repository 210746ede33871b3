//! Where a group's state lies, and which of several folders is the one.
//!
//!     group-0/CURRENT          names the state in use, with a checksum: "state-3 8bca2f31"
//!     group-0/state-3/         the engine's
//!     group-0/snapshots/       snap-<index>-<term>[.<n>]/, complete ones only, and building/
//!     group-0/incoming/        a snapshot that is being received
//!     group-0/FENCED           this replica differed from the others: it must not start with this state
//!
//! Laws
//! * A folder becomes the state by one rename of `CURRENT`, after everything in it is durable: a crash leaves the old state or the new one.
//! * What `CURRENT` doesn't name, and what isn't complete, is removed at the next start; only `incoming` is kept, to go on from.
//!
//! Not here: the log (`log/`), and whose data folder this is (`identity.rs`).

use crate::engine::EngineFactory;
use crate::error::{REPLACE_ADVICE, StoreError};
use crate::vfs::{Vfs, create_dir_durable, read_file, replace_file};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone)]
pub struct GroupFolder {
    pub vfs: Arc<dyn Vfs>,
    pub engines: Arc<dyn EngineFactory>,
    dir: PathBuf,
}

impl GroupFolder {
    pub fn new(vfs: Arc<dyn Vfs>, engines: Arc<dyn EngineFactory>, dir: PathBuf) -> GroupFolder {
        GroupFolder { vfs, engines, dir }
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    pub fn incoming(&self) -> PathBuf {
        self.dir.join("incoming")
    }

    pub fn state(&self, number: u64) -> PathBuf {
        self.dir.join(format!("state-{number}"))
    }

    /// Finds the state in use and clears away what isn't; makes the first one where nothing was made before. Blocks on a disk.
    pub fn prepare(&self, must_exist: bool) -> Result<u64, StoreError> {
        self.refuse_if_fenced()?;
        for dir in [self.dir.clone(), self.snapshots(), self.incoming()] {
            self.io("making", &dir, create_dir_durable(&*self.vfs, &dir))?;
        }
        let number = match self.current()? {
            Some(number) if !self.vfs.exists(&self.state(number)) => {
                return Err(StoreError::damaged(self.state(number), 0, "the folder that holds the state is gone"));
            }
            Some(number) => number,
            None if must_exist => {
                return Err(StoreError::damaged(self.pointer(), 0, "nothing says which folder holds the state"));
            }
            None => {
                self.make_state(0)?;
                self.switch(0)?;
                0
            }
        };
        self.sweep(number)?;
        Ok(number)
    }

    /// An empty folder for a state, durable, and nothing left of an earlier one of that number.
    pub fn make_state(&self, number: u64) -> Result<PathBuf, StoreError> {
        let dir = self.state(number);
        self.remove(&dir)?;
        self.io("making", &dir, create_dir_durable(&*self.vfs, &dir))?;
        Ok(dir)
    }

    /// From here on this is the state. Durable when it returns.
    pub fn switch(&self, number: u64) -> Result<(), StoreError> {
        let pointer = self.pointer();
        self.io("writing", &pointer, replace_file(&*self.vfs, &pointer, name_with_checksum(number).as_bytes()))
    }

    /// Removes a folder if it is there.
    pub fn remove(&self, dir: &Path) -> Result<(), StoreError> {
        self.engines.forget(dir);
        if self.vfs.exists(dir) {
            self.io("removing", dir, self.vfs.remove_dir_all(dir))?;
        }
        Ok(())
    }

    /// Keeps this state from being started with again. Durable when it returns.
    pub fn leave_fence(&self, reason: &str) -> Result<(), StoreError> {
        let fence = self.dir.join("FENCED");
        self.io("writing", &fence, replace_file(&*self.vfs, &fence, reason.as_bytes()))
    }

    fn refuse_if_fenced(&self) -> Result<(), StoreError> {
        match self.fence()? {
            None => Ok(()),
            Some(reason) => Err(StoreError::Refused {
                path: self.dir.join("FENCED"),
                reason: format!("this replica was fenced: {reason}. {REPLACE_ADVICE}"),
            }),
        }
    }

    /// Why this replica may not start with its state; nothing if it may.
    pub fn fence(&self) -> Result<Option<String>, StoreError> {
        let fence = self.dir.join("FENCED");
        if !self.vfs.exists(&fence) {
            return Ok(None);
        }
        let reason = self.io("reading", &fence, read_file(&*self.vfs, &fence))?;
        Ok(Some(String::from_utf8_lossy(&reason).into_owned()))
    }

    fn pointer(&self) -> PathBuf {
        self.dir.join("CURRENT")
    }

    /// The number of the state in use.
    pub fn current(&self) -> Result<Option<u64>, StoreError> {
        let pointer = self.pointer();
        if !self.vfs.exists(&pointer) {
            return Ok(None);
        }
        let bytes = self.io("reading", &pointer, read_file(&*self.vfs, &pointer))?;
        // All other states are removed: a number that is not the one that was written would cost the one in use.
        let number = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.strip_suffix('\n')?.strip_prefix("state-"))
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .filter(|number| {
                // Without a checksum: written by a version before it had one.
                name_with_checksum(*number).as_bytes() == bytes || format!("state-{number}\n").as_bytes() == bytes
            });
        number.map(Some).ok_or_else(|| StoreError::damaged(&pointer, 0, "it names no state, or its checksum is wrong"))
    }

    fn sweep(&self, current: u64) -> Result<(), StoreError> {
        let in_use = self.state(current);
        for path in self.io("listing", &self.dir, self.vfs.list(&self.dir))? {
            let is_state =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("state-"));
            if is_state && path != in_use {
                tracing::info!(path = %path.display(), "removing a state that is not in use");
                self.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Names the path in an error.
    pub fn io<T>(&self, doing: &'static str, path: &Path, result: std::io::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| StoreError::io(doing, path, error))
    }
}

/// What `CURRENT` says.
fn name_with_checksum(number: u64) -> String {
    let name = format!("state-{number}");
    format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()))
}
