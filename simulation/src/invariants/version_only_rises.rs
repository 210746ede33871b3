//! The cluster's version never falls: not along the log, not on a replica that goes back to an older state in a crash, and
//! not from one replica to another. It follows from the index alone.

use std::collections::BTreeMap;

use super::{Law, Sighting};

#[derive(Default)]
pub(super) struct VersionOnlyRises {
    /// The lowest and the highest applied index at which each version was seen.
    seen: BTreeMap<u32, (u64, u64)>,
}

impl Law for VersionOnlyRises {
    fn name(&self) -> &'static str {
        "version_only_rises"
    }

    fn see(&mut self, Sighting { node, status, .. }: &Sighting) -> Option<String> {
        let (version, applied) = (status.cluster_version, status.applied_index);
        let (first, last) = self.seen.entry(version).or_insert((applied, applied));
        (*first, *last) = (applied.min(*first), applied.max(*last));
        let higher = self.seen.range(version + 1..).find(|(_, (first, _))| *first <= applied);
        let lower = self.seen.range(..version).find(|(_, (_, last))| *last >= applied);
        let (other, _) = higher.or(lower)?;
        Some(format!(
            "n{} has version {version} at entry {applied}; another had {other} at or before it, or after",
            node + 1
        ))
    }
}

#[cfg(test)]
mod tests {
    use jangbu_proto::cluster::v1::StatusReply;

    use super::*;

    fn sighting(applied_index: u64, cluster_version: u32) -> Sighting {
        let status = StatusReply { applied_index, cluster_version, ..StatusReply::default() };
        Sighting { at_ns: 0, node: 0, life: 0, status }
    }

    #[test]
    fn what_follows_from_the_index_alone_may_be_seen_in_any_order() {
        let mut law = VersionOnlyRises::default();
        for (applied, version) in [(5, 1), (12, 2), (9, 1), (10, 2), (3, 1)] {
            assert_eq!(law.see(&sighting(applied, version)), None, "{applied}");
        }
        assert!(law.see(&sighting(11, 1)).is_some(), "it has fallen");
        assert!(
            VersionOnlyRises { seen: BTreeMap::from([(1, (3, 9))]) }.see(&sighting(9, 2)).is_some(),
            "one index, two versions"
        );
    }
}
