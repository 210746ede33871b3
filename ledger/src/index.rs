//! From an id of 128 bits to the place of its record in a list.
//!
//! Eight bytes an entry: the place, and 32 bits of the id's hash. The id itself stays in its record, which is looked at only when
//! those 32 bits agree: for an id that is not there, which is what deduplication meets nearly always, that is next to never. They
//! also let the table grow without looking at any record.
//!
//! Laws
//! * It is never iterated: no answer depends on the order of a hash table.
//!
//! Not here: a defence against ids chosen so that their hashes agree. Whoever names accounts and transfers is let in by name.

use core::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

#[derive(Default)]
pub(crate) struct Index {
    table: HashTable<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    fragment: u32,
    place: u32,
}

/// Of an id, for `Index`. Computed once where several indexes are asked.
#[derive(Clone, Copy)]
pub(crate) struct Fragment(u32);

impl Fragment {
    #[inline]
    pub(crate) fn of(id: u128) -> Fragment {
        Fragment(FixedState::default().hash_one(id) as u32)
    }

    /// The table takes its buckets from the low bits and its tags from the high ones: both must vary with the fragment.
    #[inline]
    fn hash(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Index {
    /// `is_it`: whether the record at a place has the id.
    #[inline]
    pub(crate) fn find(&self, fragment: Fragment, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let found = self.table.find(fragment.hash(), |entry| entry.fragment == fragment.0 && is_it(entry.place));
        found.map(|entry| entry.place)
    }

    /// The id must not be there yet.
    #[inline]
    pub(crate) fn insert(&mut self, fragment: Fragment, place: u32) {
        let entry = Entry { fragment: fragment.0, place };
        self.table.insert_unique(fragment.hash(), entry, |entry| Fragment(entry.fragment).hash());
    }

    /// The place must be there.
    pub(crate) fn remove(&mut self, fragment: Fragment, place: u32) {
        let entry = self.table.find_entry(fragment.hash(), |entry| entry.place == place);
        entry.expect("what is removed from the index is in it").remove();
    }

    pub(crate) fn reserve(&mut self, count: usize) {
        self.table.reserve(count, |entry| Fragment(entry.fragment).hash());
    }

    pub(crate) fn clear(&mut self) {
        self.table.clear();
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn ids_that_share_a_fragment_are_told_apart_by_their_records() {
        let ids: Vec<u128> = (0..1_000).collect();
        let mut index = Index::default();
        let fragment = Fragment(7);
        (0..1_000).for_each(|place| index.insert(fragment, place));
        for place in 0..1_000 {
            assert_eq!(index.find(fragment, |at| ids[at as usize] == u128::from(place)), Some(place));
        }
        index.remove(fragment, 500);
        assert_eq!(index.find(fragment, |at| ids[at as usize] == 500), None);
        assert_eq!(index.find(fragment, |at| ids[at as usize] == 501), Some(501));
        assert_eq!(index.find(Fragment(8), |_| true), None);
    }
}
