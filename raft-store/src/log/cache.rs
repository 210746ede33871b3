//! The newest entries, in memory: replication and applying read these, and never the disk, while they keep up.
//!
//! Bodies are `Bytes`: handing an entry out shares it.
//!
//! Laws
//! * What is cached is the end of the log, without a hole.
//!
//! Not here: when to evict (`log.rs`: never before the entry is written).

use std::collections::VecDeque;

use crate::type_config::Entry;

#[derive(Default)]
pub(crate) struct Cache {
    /// With the bytes that each entry's body takes.
    entries: VecDeque<(Entry, u32)>,
    bytes: u64,
}

impl Cache {
    /// Of all entries' bodies.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest entry's index.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id.index)
    }

    pub(super) fn push(&mut self, entry: Entry, body_bytes: u32) {
        self.entries.push_back((entry, body_bytes));
        self.bytes += body_bytes as u64;
    }

    /// Drops the oldest entry.
    pub(super) fn evict(&mut self) {
        if let Some((_, body_bytes)) = self.entries.pop_front() {
            self.bytes -= body_bytes as u64;
        }
    }

    /// Drops the entries from `next` on.
    pub(super) fn truncate(&mut self, next: u64) {
        while self.entries.back().is_some_and(|(entry, _)| entry.log_id.index >= next) {
            let (_, body_bytes) = self.entries.pop_back().expect("just seen");
            self.bytes -= body_bytes as u64;
        }
    }

    /// Drops the entries before `first`.
    pub(super) fn purge(&mut self, first: u64) {
        while self.first().is_some_and(|index| index < first) {
            self.evict();
        }
    }

    /// Of entries that are here.
    pub(super) fn range(&self, start: u64, end: u64) -> Vec<Entry> {
        let Some(first) = self.first().filter(|_| start < end) else { return Vec::new() };
        self.entries.range((start - first) as usize..(end - first) as usize).map(|(entry, _)| entry.clone()).collect()
    }
}
