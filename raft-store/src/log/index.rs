//! Where each entry lies in the stream, and which leader proposed it.
//!
//! Sixteen bytes per entry, and one item per change of leader: a log of a million entries costs memory in tens of
//! megabytes, not hundreds. Recovery replays the stream into it; the running log keeps it.
//!
//! Laws
//! * Entries are contiguous: there is never a hole between the first and the last.
//! * Positions grow with the index: a truncated entry's place is never used again.

use std::collections::VecDeque;

use super::record::record_bytes;
use crate::type_config::{LeaderId, LogId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(super) position: u64,
    pub(super) body_bytes: u32,
}

impl Slot {
    pub(super) fn bytes(&self) -> u64 {
        record_bytes(self.body_bytes as usize)
    }

    pub(super) fn end(&self) -> u64 {
        self.position + self.bytes()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The index that the next entry must have; none if nothing is known, and any will do.
    next: Option<u64>,
    /// Of the entries right before `next`.
    slots: VecDeque<Slot>,
    /// The first index of each leader's run of entries; the first run may begin before the first slot.
    leaders: VecDeque<(u64, LeaderId)>,
    purged: Option<LogId>,
}

impl Index {
    pub(super) fn new(next: Option<u64>, purged: Option<LogId>) -> Self {
        Self { next, purged, ..Self::default() }
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.next
    }

    /// One past the last entry; 0 in a log that never had one.
    pub(crate) fn next_or_first(&self) -> u64 {
        self.next.unwrap_or(0)
    }

    /// The first entry's index, or what the next one's will be.
    pub(crate) fn first(&self) -> u64 {
        self.next_or_first() - self.slots.len() as u64
    }

    /// The last entry's log id; the last purged one's if there is no entry.
    pub(crate) fn last(&self) -> Option<LogId> {
        match self.slots.len() {
            0 => self.purged,
            _ => Some(self.log_id(self.next_or_first() - 1)),
        }
    }

    pub(super) fn slot(&self, index: u64) -> Slot {
        self.slots[(index - self.first()) as usize]
    }

    /// The last entry that lies before `position`.
    pub(super) fn last_before(&self, position: u64) -> Option<u64> {
        let count = self.slots.partition_point(|slot| slot.position < position) as u64;
        (self.first() + count).checked_sub(1)
    }

    pub(super) fn first_position(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.position)
    }

    /// Of an entry that is here.
    pub(crate) fn log_id(&self, index: u64) -> LogId {
        let after = self.leaders.partition_point(|(first, _)| *first <= index);
        LogId { leader_id: self.leaders[after - 1].1, index }
    }

    /// The last log id of each leader from `first` to `last`.
    pub(crate) fn key_log_ids(&self, first: u64, last: u64) -> Vec<LogId> {
        let (first, last) = (first.max(self.first()), last.min(self.next_or_first().saturating_sub(1)));
        if self.slots.is_empty() || first > last {
            return Vec::new();
        }
        let starts = self.leaders.iter().map(|(start, _)| *start).filter(|start| first < *start && *start <= last);
        starts.map(|start| start - 1).chain([last]).map(|index| self.log_id(index)).collect()
    }

    /// One past the last entry from `start` on that fits into `bytes_max`, at most `end`; the first one always does.
    pub(super) fn end_within(&self, start: u64, end: u64, bytes_max: u64) -> u64 {
        let mut bytes = 0;
        (start..end)
            .find(|index| {
                bytes += self.slot(*index).body_bytes as u64;
                bytes > bytes_max && *index > start
            })
            .unwrap_or(end)
    }

    /// The last entry to purge so that of those up to `last` at most `entries_kept` stay, in at most `bytes_kept`; none if none has to go.
    pub(super) fn last_to_purge(&self, last: u64, entries_kept: u64, bytes_kept: u64) -> Option<u64> {
        let first = self.first();
        if !(first..self.next_or_first()).contains(&last) {
            return None;
        }
        let keep_from = self.slot(last).end().saturating_sub(bytes_kept);
        let by_bytes = first + self.slots.partition_point(|slot| slot.position < keep_from) as u64;
        let by_entries = (last + 1).saturating_sub(entries_kept);
        by_bytes.max(by_entries).checked_sub(1).filter(|upto| *upto >= first)
    }

    /// `Err` with what is wrong if `id` may not come next.
    pub(super) fn check_next(&self, id: LogId) -> Result<(), String> {
        match self.next {
            Some(next) if next != id.index => {
                Err(format!("entry {} would leave a hole: the log goes on at {next}", id.index))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn append(&mut self, id: LogId, slot: Slot) {
        assert!(self.check_next(id).is_ok(), "checked by the caller: {id} does not come next");
        if self.leaders.back().is_none_or(|(_, leader)| *leader != id.leader_id) {
            self.leaders.push_back((id.index, id.leader_id));
        }
        self.slots.push_back(slot);
        self.next = Some(id.index + 1);
    }

    pub(super) fn truncate_after(&mut self, after: Option<u64>) {
        let purged_to = self.purged.map(|purged| purged.index + 1);
        let keep_to = after.map(|after| after + 1).max(purged_to);
        if self.next <= keep_to {
            return;
        }
        let first = self.first();
        self.slots.truncate(keep_to.unwrap_or(0).saturating_sub(first) as usize);
        self.next = keep_to;
        let end = keep_to.unwrap_or(0);
        while self.leaders.back().is_some_and(|(start, _)| *start >= end) {
            self.leaders.pop_back();
        }
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let gone = (upto.index + 1).saturating_sub(self.first()).min(self.slots.len() as u64);
        self.slots.drain(..gone as usize);
        if self.slots.is_empty() {
            self.leaders.clear();
            self.next = self.next.max(Some(upto.index + 1));
        }
        while self.leaders.get(1).is_some_and(|(start, _)| *start <= upto.index + 1) {
            self.leaders.pop_front();
        }
        self.purged = Some(upto);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_config::log_id;

    fn index(ids: &[(u64, u64)]) -> Index {
        let mut index = Index::default();
        for (term, at) in ids {
            index.append(log_id(*term, 1, *at), Slot { position: at * 100, body_bytes: 10 });
        }
        index
    }

    fn terms(ids: Vec<LogId>) -> Vec<(u64, u64)> {
        ids.into_iter().map(|id| (id.leader_id.term, id.index)).collect()
    }

    #[test]
    fn key_log_ids_are_the_last_of_each_leader() {
        let index = index(&[(2, 2), (2, 3), (5, 4), (5, 5)]);
        assert_eq!(terms(index.key_log_ids(2, 5)), [(2, 3), (5, 5)]);
        assert_eq!(terms(index.key_log_ids(3, 4)), [(2, 3), (5, 4)]);
        assert_eq!(terms(index.key_log_ids(4, 4)), [(5, 4)]);
    }

    #[test]
    fn truncated_entries_are_gone_and_the_log_goes_on_after_them() {
        let mut index = index(&[(1, 0), (1, 1), (2, 2), (2, 3)]);
        index.truncate_after(Some(1));
        assert_eq!(index.last(), Some(log_id(1, 1, 1)));
        assert!(index.check_next(log_id(3, 1, 3)).is_err());
        index.append(log_id(3, 1, 2), Slot { position: 900, body_bytes: 1 });
        assert_eq!(terms(index.key_log_ids(0, 2)), [(1, 1), (3, 2)]);
        index.truncate_after(None);
        assert_eq!((index.last(), index.next()), (None, None));
    }

    #[test]
    fn purged_entries_are_gone_and_the_rest_keeps_its_place() {
        let mut index = index(&[(1, 0), (1, 1), (2, 2), (2, 3)]);
        index.purge(log_id(1, 1, 1));
        assert_eq!((index.first(), index.first_position()), (2, Some(200)));
        assert_eq!(index.log_id(3), log_id(2, 1, 3));
        index.purge(log_id(9, 1, 20));
        assert_eq!((index.first(), index.last(), index.next()), (21, Some(log_id(9, 1, 20)), Some(21)));
        index.purge(log_id(1, 1, 1));
        assert_eq!(index.purged(), Some(log_id(9, 1, 20)), "an older purge changes nothing");
    }

    #[test]
    fn what_is_kept_behind_an_entry_is_bounded_by_count_and_by_bytes() {
        let mut index = Index::default();
        let bytes = record_bytes(10);
        (0..5).for_each(|at| index.append(log_id(1, 1, at), Slot { position: at * bytes, body_bytes: 10 }));
        assert_eq!(index.last_to_purge(3, 9, 4 * bytes), None);
        assert_eq!(index.last_to_purge(3, 2, 4 * bytes), Some(1));
        assert_eq!(index.last_to_purge(3, 9, 2 * bytes), Some(1));
        assert_eq!(index.last_to_purge(3, 9, 2 * bytes - 1), Some(2), "an entry stays whole or not at all");
        assert_eq!(index.last_to_purge(3, 1, 2 * bytes), Some(2), "the stricter of the two decides");
        assert_eq!((index.last_to_purge(3, 9, 0), index.last_to_purge(3, 0, 4 * bytes)), (Some(3), Some(3)));
        assert_eq!(index.last_to_purge(5, 0, 0), None, "there is no such entry");
        index.purge(log_id(1, 1, 2));
        assert_eq!(index.last_to_purge(4, 2, 4 * bytes), None, "what should go has gone");
        assert_eq!(index.last_to_purge(1, 0, 0), None);
        assert_eq!(index.last_to_purge(4, 1, 4 * bytes), Some(3));
    }

    #[test]
    fn a_byte_cap_always_lets_one_entry_pass() {
        let index = index(&[(1, 0), (1, 1), (1, 2), (1, 3)]);
        assert_eq!(index.end_within(0, 4, 1), 1);
        assert_eq!(index.end_within(0, 4, 20), 2);
        assert_eq!(index.end_within(1, 4, 25), 3);
        assert_eq!(index.end_within(0, 4, 1000), 4);
        assert_eq!(index.end_within(4, 4, 0), 4);
    }
}
