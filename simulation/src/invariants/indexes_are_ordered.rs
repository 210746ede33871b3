//! Purged <= snapshot <= applied, and applied <= last: nothing is purged that no snapshot holds.
//!
//! A status is put together from two looks a moment apart, the state's later than Raft's: so applied may be ahead of what
//! Raft said, and only what cannot come from that is held against a node.

use super::{Law, Sighting};

pub(super) struct IndexesAreOrdered;

impl Law for IndexesAreOrdered {
    fn name(&self) -> &'static str {
        "indexes_are_ordered"
    }

    fn see(&mut self, Sighting { node, status, .. }: &Sighting) -> Option<String> {
        let (purged, snapshot, applied) = (status.purged_index, status.snapshot_index, status.applied_index);
        (purged > snapshot || snapshot > applied)
            .then(|| format!("n{}: purged {purged}, snapshot {snapshot}, applied {applied}", node + 1))
    }
}
