//! The state in memory, with two images: what was flushed, and what lies over it.
//!
//! A crash is a drop: the factory keeps only the durable images. A checkpoint is one file, written through the disk seam, so that a simulated disk can lose
//! or tear it as it would any other.
//!
//! Not here: speed. A flush moves rows from one tree to another, which is right for the thousands of rows of a simulation.

use super::{Batch, Change, Engine, EngineFactory, Row, RowRef, Rows, Staged, Usage};
use crate::error::StoreError;
use crate::schema::Family;
use crate::vfs::{Vfs, create_dir_durable, read_file, replace_file};
use bytes::Bytes;
use jangbu_ledger::planted::{self, Bug};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use xxhash_rust::xxh3::xxh3_64;

/// The one file of a checkpoint.
const IMAGE_FILE: &str = "state.image";

type Image = BTreeMap<(Family, Vec<u8>), Bytes>;
/// `None`: deleted since the last flush.
type Overlay = BTreeMap<(Family, Vec<u8>), Option<Bytes>>;

/// Keeps the durable image of every folder, over any number of crashes of the nodes that use it.
pub struct MemoryEngines {
    vfs: Arc<dyn Vfs>,
    images: Arc<Mutex<BTreeMap<PathBuf, Arc<RwLock<Image>>>>>,
}

impl MemoryEngines {
    pub fn new(vfs: Arc<dyn Vfs>) -> MemoryEngines {
        MemoryEngines { vfs, images: Arc::default() }
    }

    /// The same images over the disk that a crash left.
    pub fn on(&self, vfs: Arc<dyn Vfs>) -> MemoryEngines {
        MemoryEngines { vfs, images: self.images.clone() }
    }

    fn images(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<RwLock<Image>>>> {
        self.images.lock().expect("no holder of this lock panics: it only moves pointers")
    }
}

impl EngineFactory for MemoryEngines {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        let known = self.images().get(dir).cloned();
        let durable = match known {
            Some(image) => image,
            None => {
                let image = Arc::new(RwLock::new(read_image(self.vfs.as_ref(), dir)?));
                self.images().insert(dir.to_owned(), image.clone());
                image
            }
        };
        Ok(Arc::new(MemoryEngine {
            vfs: self.vfs.clone(),
            images: RwLock::new(Images { durable, overlay: Overlay::new() }),
        }))
    }

    fn open_read_only(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        let durable = Arc::new(RwLock::new(read_image(self.vfs.as_ref(), dir)?));
        Ok(Arc::new(MemoryEngine {
            vfs: self.vfs.clone(),
            images: RwLock::new(Images { durable, overlay: Overlay::new() }),
        }))
    }

    fn forget(&self, dir: &Path) {
        self.images().remove(dir);
    }
}

pub struct MemoryEngine {
    vfs: Arc<dyn Vfs>,
    images: RwLock<Images>,
}

struct Images {
    durable: Arc<RwLock<Image>>,
    overlay: Overlay,
}

const POISONED: &str = "no holder of this lock panics: it only moves rows";

impl Images {
    fn get(&self, key: &(Family, Vec<u8>)) -> Option<Bytes> {
        match self.overlay.get(key) {
            Some(change) => change.clone(),
            None => self.durable.read().expect(POISONED).get(key).cloned(),
        }
    }

    /// The nearest row from `key` on, itself included, that isn't deleted: first of both images' candidates.
    fn nearest(&self, family: Family, key: &[u8], forward: bool) -> Option<Row> {
        let durable = self.durable.read().expect(POISONED);
        let mut bound = Bound::Included((family, key.to_vec()));
        loop {
            let (flushed, changed) = if forward {
                let range = (bound.clone(), Bound::Unbounded);
                (durable.range(range.clone()).next(), self.overlay.range(range).next())
            } else {
                let range = (Bound::Unbounded, bound.clone());
                (durable.range(range.clone()).next_back(), self.overlay.range(range).next_back())
            };
            let overlay_first = match (flushed, changed) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some((flushed, _)), Some((changed, _))) if forward => changed <= flushed,
                (Some((flushed, _)), Some((changed, _))) => changed >= flushed,
            };
            let (at, value) = if overlay_first {
                changed.map(|(at, value)| (at, value.clone()))?
            } else {
                flushed.map(|(at, value)| (at, Some(value.clone())))?
            };
            if at.0 != family {
                return None;
            }
            match value {
                Some(value) => return Some((at.1.clone(), value)),
                None => bound = Bound::Excluded(at.clone()),
            }
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Put { family, key, value } => {
                self.overlay.insert((family, key.into_vec()), Some(value.into()));
            }
            Change::Delete { family, key } => {
                self.overlay.insert((family, key.into_vec()), None);
            }
            Change::DeleteRange { family, from, to } => {
                let range = (family, from.into_vec())..(family, to.into_vec());
                let durable = self.durable.read().expect(POISONED);
                let doomed: Vec<_> = durable.range(range.clone()).map(|(key, _)| key.clone()).collect();
                let fresh: Vec<_> = self.overlay.range(range).map(|(key, _)| key.clone()).collect();
                self.overlay.extend(doomed.into_iter().chain(fresh).map(|key| (key, None)));
            }
        }
    }

    fn flush(&mut self) {
        let mut durable = self.durable.write().expect(POISONED);
        for (key, change) in std::mem::take(&mut self.overlay) {
            match change {
                Some(value) => durable.insert(key, value),
                None => durable.remove(&key),
            };
        }
    }
}

struct MemoryRows<'e> {
    engine: &'e MemoryEngine,
    family: Family,
    next: Vec<u8>,
    to: Vec<u8>,
    row: Option<Row>,
}

impl Rows for MemoryRows<'_> {
    fn next(&mut self) -> Result<Option<RowRef<'_>>, StoreError> {
        let row = self.engine.at_or_after(self.family, &self.next)?.filter(|(key, _)| *key < self.to);
        if let Some((key, _)) = &row {
            self.next.clone_from(key);
            self.next.push(0);
        }
        self.row = row;
        Ok(self.row.as_ref().map(|(key, value)| (key.as_slice(), value.as_ref())))
    }
}

impl Engine for MemoryEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.images.read().expect(POISONED).get(&(family, key.to_vec())))
    }

    fn at_or_before(&self, family: Family, key: &[u8]) -> Result<Option<Row>, StoreError> {
        Ok(self.images.read().expect(POISONED).nearest(family, key, false))
    }

    fn at_or_after(&self, family: Family, key: &[u8]) -> Result<Option<Row>, StoreError> {
        Ok(self.images.read().expect(POISONED).nearest(family, key, true))
    }

    fn rows<'e>(&'e self, family: Family, from: &[u8], to: &[u8], _: usize) -> Box<dyn Rows + 'e> {
        Box::new(MemoryRows { engine: self, family, next: from.to_vec(), to: to.to_vec(), row: None })
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut images = self.images.write().expect(POISONED);
        for change in batch.changes {
            images.apply(change);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.images.write().expect(POISONED).flush();
        Ok(())
    }

    fn stage(&self, batch: Batch) -> Result<Staged, StoreError> {
        let row = |change| match change {
            Change::Put { key, value, .. } => (key.into_vec(), Bytes::from(value)),
            Change::Delete { .. } | Change::DeleteRange { .. } => unreachable!("only puts are written aside"),
        };
        let rows: Vec<Row> = batch.changes.into_iter().map(row).collect();
        assert!(rows.is_sorted_by(|(before, _), (after, _)| before < after), "what is written aside ascends");
        Ok(Staged::Rows(rows))
    }

    fn ingest(&self, family: Family, parts: Vec<Staged>) -> Result<(), StoreError> {
        let images = self.images.write().expect(POISONED);
        let mut durable = images.durable.write().expect(POISONED);
        for part in parts {
            let Staged::Rows(rows) = part else { unreachable!("this engine stages rows") };
            durable.extend(rows.into_iter().map(|(key, value)| ((family, key), value)));
        }
        Ok(())
    }

    fn let_go(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let range = (family, from.to_vec())..=(family, to.to_vec());
        let mut images = self.images.write().expect(POISONED);
        images.overlay.retain(|key, _| !range.contains(key));
        images.durable.write().expect(POISONED).retain(|key, _| !range.contains(key));
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        let rows = {
            let mut images = self.images.write().expect(POISONED);
            images.flush();
            let mut rows = images.durable.read().expect(POISONED).clone();
            rows.retain(|(family, _), _| *family != Family::Rows || !planted::is(Bug::SnapshotMissesRows));
            rows
        };
        let path = dir.join(IMAGE_FILE);
        create_dir_durable(self.vfs.as_ref(), dir)
            .and_then(|()| replace_file(self.vfs.as_ref(), &path, &encode_image(&rows)))
            .map_err(|error| StoreError::io("writing a checkpoint", &path, error))
    }

    fn scrub(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn usage(&self) -> Usage {
        let images = self.images.read().expect(POISONED);
        let flushed: usize = images.durable.read().expect(POISONED).values().map(Bytes::len).sum();
        let fresh: usize = images.overlay.values().flatten().map(Bytes::len).sum();
        Usage { memory_bytes: (flushed + fresh) as u64, disk_bytes: 0 }
    }
}

/// family u8, key length u32, value length u32, key, value; at the end the xxh3-64 of all.
fn encode_image(rows: &Image) -> Vec<u8> {
    let mut out = Vec::new();
    for ((family, key), value) in rows {
        out.push(*family as u8);
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The image that a checkpoint left in `dir`; no rows where there is none.
fn read_image(vfs: &dyn Vfs, dir: &Path) -> Result<Image, StoreError> {
    let path = dir.join(IMAGE_FILE);
    if !vfs.exists(&path) {
        return Ok(Image::new());
    }
    let bytes = read_file(vfs, &path).map_err(|error| StoreError::io("reading", &path, error))?;
    decode_image(&bytes).ok_or_else(|| StoreError::damaged(&path, 0, "the image doesn't match its checksum"))
}

fn decode_image(bytes: &[u8]) -> Option<Image> {
    let (covered, checksum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    if xxh3_64(covered).to_le_bytes() != checksum {
        return None;
    }
    let mut rows = Image::new();
    let mut take = crate::codec::Take::new(covered);
    while !take.is_empty() {
        let family = Family::from_u8(take.u8()?)?;
        let (key_bytes, value_bytes) = (take.u32()? as usize, take.u32()? as usize);
        let key = take.bytes(key_bytes)?.to_vec();
        rows.insert((family, key), Bytes::copy_from_slice(take.bytes(value_bytes)?));
    }
    Some(rows)
}
