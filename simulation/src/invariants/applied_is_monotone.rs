//! While a node lives, what it applied and its log time never go back. (After a crash they may: the log is applied again.)

use std::collections::BTreeMap;

use super::{Law, Sighting};

#[derive(Default)]
pub(super) struct AppliedIsMonotone {
    seen: BTreeMap<(usize, u64), (u64, u64)>,
}

impl Law for AppliedIsMonotone {
    fn name(&self) -> &'static str {
        "applied_is_monotone"
    }

    fn see(&mut self, Sighting { node, life, status, .. }: &Sighting) -> Option<String> {
        let now = (status.applied_index, status.last_timestamp);
        let seen = self.seen.entry((*node, *life)).or_default();
        if now.0 < seen.0 || now.1 < seen.1 {
            return Some(format!("n{} had applied (index, log time) {seen:?} and says {now:?}", node + 1));
        }
        *seen = now;
        None
    }
}
