//! The seam of the state: an ordered store of bytes in five families.
//!
//! Two real things stand behind it: RocksDB ([`rocks`]), and memory ([`memory`]) for simulations, where a crash must be able to lose what
//! was not flushed. One suite of tests runs on both (`tests/engine_contract.rs`).
//!
//! Laws
//! * A batch is written whole or not at all, and becomes durable whole or not at all: a crash leaves the state after some prefix of the batches.
//! * What was written before a [`Engine::flush`] that succeeded is durable. Nothing else promises to be.
//! * Rows can also be written aside ([`Engine::stage`]) and appear together, durable at once, out of turn with the batches ([`Engine::ingest`]). Nothing durable may refer to
//!   them before, so a crash leaves at most rows that nobody knows.
//! * One thread writes at a time (the Flush lane). Any number read.
//!
//! Not here: what keys and values mean (`schema.rs`), checksums (`codec.rs`), and the decision when to flush (`flush.rs`).

pub mod memory;
pub mod rocks;

use crate::error::StoreError;
use crate::schema::Family;
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A key and its value.
pub type Row = (Vec<u8>, Bytes);

/// The same, where it lies.
pub type RowRef<'a> = (&'a [u8], &'a [u8]);

/// What a scan reads ahead: fewer and larger reads.
const SCAN_AHEAD_BYTES: usize = 2 << 20;

pub trait Engine: Send + Sync + 'static {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The row with the greatest key that is not after `key`.
    fn at_or_before(&self, family: Family, key: &[u8]) -> Result<Option<Row>, StoreError>;

    /// The row with the smallest key that is not before `key`.
    fn at_or_after(&self, family: Family, key: &[u8]) -> Result<Option<Row>, StoreError>;

    /// The rows from `from` up to, not including, `to`, ascending, one by one. What is written meanwhile may be among them or not. For what is
    /// read once: nothing of it is kept in memory. `ahead_bytes` are read ahead; 0: what the engine thinks best.
    fn rows<'e>(&'e self, family: Family, from: &[u8], to: &[u8], ahead_bytes: usize) -> Box<dyn Rows + 'e>;

    /// Shows the rows from `from` up to, not including, `to`, in ascending order. An error of the visitor ends the scan.
    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut rows = self.rows(family, from, to, SCAN_AHEAD_BYTES);
        while let Some((key, value)) = rows.next()? {
            visit(key, value)?;
        }
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError>;

    /// Makes durable all that was written. Blocks on the disk.
    fn flush(&self) -> Result<(), StoreError>;

    /// Writes rows aside, where nobody sees them: the puts of a batch, all of one family, in ascending order. What is still aside at a crash is gone.
    fn stage(&self, batch: Batch) -> Result<Staged, StoreError>;

    /// Makes staged rows visible and durable, in one step. No row of their family may lie between the first and the last of one part. Nothing
    /// that is ingested is ever written again, which is what it is for.
    fn ingest(&self, family: Family, parts: Vec<Staged>) -> Result<(), StoreError>;

    /// Lets go of rows from `from` to `to`, both included, that nothing durable refers to. A row may stay as long as it shares a file with one
    /// outside; asking again is cheap.
    fn let_go(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError>;

    /// Lays a consistent copy of all that was written, synced, into the new folder `dir`. Cheap: files that never change are linked.
    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError>;

    /// Reads every table and compares it with the engine's own checksums.
    fn scrub(&self) -> Result<(), StoreError>;

    /// Bytes of memory and disk in use, for the metrics.
    fn usage(&self) -> Usage;
}

/// Rows on their way out of an engine.
pub trait Rows {
    /// The next one; none when there are no more. Reads the disk.
    fn next(&mut self) -> Result<Option<RowRef<'_>>, StoreError>;
}

/// Rows that were written aside, as the engine keeps them.
pub enum Staged {
    File(PathBuf),
    Rows(Vec<Row>),
}

pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// Opens the state in a folder; the simulator's factory keeps its images over a crash.
pub trait EngineFactory: Send + Sync + 'static {
    /// Opens the state in `dir`, making an empty one where there is none.
    fn open(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError>;

    /// Opens a checkpoint without changing anything in it.
    fn open_read_only(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError>;

    /// Forgets the state in `dir`, which is no longer open. The folder's files are the caller's to remove.
    fn forget(&self, dir: &Path);
}

/// Changes that become visible, and durable, together. Later ones win.
#[derive(Default)]
pub struct Batch {
    pub changes: Vec<Change>,
    value_bytes: usize,
}

pub enum Change {
    Put {
        family: Family,
        key: Box<[u8]>,
        value: Vec<u8>,
    },
    Delete {
        family: Family,
        key: Box<[u8]>,
    },
    /// Deletes from `from` up to, not including, `to`.
    DeleteRange {
        family: Family,
        from: Box<[u8]>,
        to: Box<[u8]>,
    },
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn put(&mut self, family: Family, key: &[u8], value: Vec<u8>) {
        self.value_bytes += value.len();
        self.changes.push(Change::Put { family, key: key.into(), value });
    }

    /// Puts a payload under its seal.
    pub fn put_sealed(&mut self, family: Family, key: &[u8], payload: Vec<u8>) {
        self.put(family, key, crate::codec::seal(family, key, payload));
    }

    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.changes.push(Change::Delete { family, key: key.into() });
    }

    pub fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        self.changes.push(Change::DeleteRange { family, from: from.into(), to: to.into() });
    }

    /// Of all values that it puts.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }
}

/// Reads a sealed value.
pub fn get_sealed(engine: &dyn Engine, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let Some(value) = engine.get(family, key)? else {
        return Ok(None);
    };
    let length = crate::codec::unseal(family, key, &value)?.len();
    Ok(Some(value.slice(..length)))
}
