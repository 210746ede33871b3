//! What a disk does when it is asked: the rules of its folders, its faults, its traps and its crashes.

use std::{io, path::Path};

use super::{
    Inner, Survival, Trap,
    changes::{Change, File, NameChange},
    mount::{gone, not_found},
};
use crate::faults::{Act, Place};

impl Trap {
    pub(super) fn is_sprung_by(&mut self, act: Act, place: Option<Place>) -> bool {
        if self.step.act != act || place != Some(self.step.place) {
            return false;
        }
        let now = self.step.skip == 0;
        self.step.skip = self.step.skip.saturating_sub(1);
        now
    }
}

/// What lies at a path of a data folder.
pub(super) fn place_of(path: &Path) -> Option<Place> {
    path.components().rev().find_map(|part| {
        let part = part.as_os_str().to_str()?;
        let places = [
            ("log", Place::Log),
            ("snapshots", Place::Snapshots),
            ("incoming", Place::Incoming),
            ("identity", Place::Identity),
            ("CURRENT", Place::Current),
            ("state-", Place::State),
        ];
        // Files that are about to take the name of another begin with it.
        places.into_iter().find(|(name, _)| part.starts_with(name)).map(|(_, place)| place)
    })
}

impl Inner {
    pub(super) fn crash(&mut self, survival: Survival) {
        let Inner { files, dirs, durable_dirs, names, durable_names, unsynced_names, dice, stats, .. } = self;
        if survival != Survival::All {
            let names_kept = match survival {
                Survival::Some => dice.below(unsynced_names.len() as u64 + 1) as usize,
                _ => 0,
            };
            unsynced_names[..names_kept].iter().for_each(|change| change.apply(durable_names));
            unsynced_names.clear();
            *dirs = durable_dirs.clone();
            durable_names.retain(|path, _| path.parent().is_some_and(|dir| dirs.contains(dir)));
            *names = durable_names.clone();
            for file in files.iter_mut() {
                for change in std::mem::take(&mut file.unsynced) {
                    let survivor = match (survival, dice.below(3)) {
                        (Survival::Some, 0) => Some(change),
                        (Survival::Some, 1) => change.torn(dice, stats),
                        _ => None,
                    };
                    match survivor {
                        Some(change) => change.apply(&mut file.durable),
                        None => stats.writes_lost += 1,
                    }
                }
                file.bytes = file.durable.clone();
            }
        }
        self.life += 1;
        self.locks.clear();
    }

    /// Something is done to the disk, unless the power fails at it.
    pub(super) fn step<T>(
        &mut self,
        act: Act,
        place: Option<Place>,
        take: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(Trap { step, survival }) = self.trap.take_if(|trap| trap.is_sprung_by(act, place)) else {
            return take(self);
        };
        if !step.before {
            // Done, and nobody will ever be told.
            let _ = take(self);
        }
        self.crash(survival);
        self.sprung = Some(step);
        Err(gone())
    }

    pub(super) fn failing(&mut self, text: &str) -> io::Error {
        self.stats.failures += 1;
        io::Error::other(format!("{text}, on purpose"))
    }

    /// Some reads lie: one bit of what is read, and nothing of what lies there. Not in the zeros of a file that is not full.
    pub(super) fn flip(&mut self, read: &mut [u8]) {
        let percent = self.faults.reads_flip_percent;
        let used = read.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if percent > 0 && used > 0 && self.dice.percent(percent) {
            read[self.dice.below(used as u64) as usize] ^= 1 << self.dice.below(8);
            self.stats.flips += 1;
        }
    }

    pub(super) fn full(&mut self) -> io::Error {
        self.stats.failures += 1;
        io::Error::new(io::ErrorKind::StorageFull, "no space left on device, on purpose")
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| not_found(path))
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<usize> {
        self.must_have_dir_of(path)?;
        if self.names.contains_key(path) {
            let text = format!("{} is there already", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        if self.faults.full {
            return Err(self.full());
        }
        self.files.push(File::default());
        let file = self.files.len() - 1;
        self.rename(NameChange { removed: None, made: Some((path.into(), file)) });
        Ok(file)
    }

    pub(super) fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    pub(super) fn change(&mut self, file: usize, change: Change) {
        let file = &mut self.files[file];
        change.apply(&mut file.bytes);
        file.unsynced.push(change);
    }

    pub(super) fn must_have_dir_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(dir) if self.dirs.contains(dir) => Ok(()),
            _ => Err(not_found(path)),
        }
    }
}

impl Inner {
    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        if !self.dirs.contains(dir) {
            return Err(not_found(dir));
        }
        if self.faults.sync_fails {
            return Err(self.failing("syncing a folder failed"));
        }
        let Inner { dirs, durable_dirs, durable_names, unsynced_names, .. } = self;
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(unsynced_names).into_iter().partition(|change| change.touches(dir));
        now.iter().for_each(|change| change.apply(durable_names));
        *unsynced_names = later;
        durable_dirs.retain(|path| path.parent() != Some(dir) || dirs.contains(path));
        durable_dirs.extend(dirs.iter().filter(|path| path.parent() == Some(dir)).cloned());
        Ok(())
    }

    /// Folders are renamed whole, and durable at once: a journaling file system orders that before what follows.
    pub(super) fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = |path: &Path| {
            path.strip_prefix(from).map(|rest| if rest.as_os_str().is_empty() { to.into() } else { to.join(rest) })
        };
        for dirs in [&mut self.dirs, &mut self.durable_dirs] {
            *dirs = dirs.iter().map(|path| moved(path).unwrap_or_else(|_| path.clone())).collect();
        }
        for names in [&mut self.names, &mut self.durable_names] {
            *names =
                std::mem::take(names).into_iter().map(|(path, file)| (moved(&path).unwrap_or(path), file)).collect();
        }
        for change in &mut self.unsynced_names {
            if let Some(removed) = &mut change.removed {
                *removed = moved(removed).unwrap_or_else(|_| removed.clone());
            }
            if let Some((made, _)) = &mut change.made {
                *made = moved(made).unwrap_or_else(|_| made.clone());
            }
        }
        Ok(())
    }
}
