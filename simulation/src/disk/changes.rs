//! What was written to a file or done to a folder and is not durable yet, and what a power failure leaves of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::DiskStats;
use crate::chance::Dice;

/// A torn write is torn between sectors.
const SECTOR_BYTES: usize = 512;

#[derive(Default, Clone)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
pub(super) struct NameChange {
    pub(super) removed: Option<PathBuf>,
    pub(super) made: Option<(PathBuf, usize)>,
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes: written } => {
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(written);
            }
            Change::Length(length) => bytes.resize(*length, 0),
        }
    }

    /// The part that reached the platter: whole sectors from its beginning, the last of which may hold anything.
    pub(super) fn torn(&self, dice: &mut Dice, stats: &mut DiskStats) -> Option<Self> {
        match self {
            Change::Write { offset, bytes } => {
                let sectors = (bytes.len() / SECTOR_BYTES) as u64 + 1;
                let first = SECTOR_BYTES - offset % SECTOR_BYTES;
                let kept = match dice.below(sectors + 1) as usize {
                    0 => 0,
                    sectors => (first + (sectors - 1) * SECTOR_BYTES).min(bytes.len()),
                };
                let mut bytes = bytes[..kept].to_vec();
                if kept > 0 && dice.percent(30) {
                    let garbage_bytes = (offset + kept - 1) % SECTOR_BYTES + 1;
                    bytes.iter_mut().rev().take(garbage_bytes).for_each(|byte| *byte = dice.draw() as u8);
                    stats.garbage += 1;
                }
                (kept > 0).then_some(Change::Write { offset: *offset, bytes })
            }
            Change::Length(_) => None,
        }
    }
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(removed) = &self.removed {
            names.remove(removed);
        }
        if let Some((path, file)) = &self.made {
            names.insert(path.clone(), *file);
        }
    }

    pub(super) fn touches(&self, dir: &Path) -> bool {
        let paths = [self.removed.as_ref(), self.made.as_ref().map(|(path, _)| path)];
        paths.into_iter().flatten().any(|path| path.parent() == Some(dir))
    }
}
