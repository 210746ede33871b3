//! Replicas that applied the same index hold the same state. Compared at equal index only: etcd once compared without.

use std::collections::BTreeMap;

use super::{Law, Sighting};

#[derive(Default)]
pub(super) struct DigestsAgree {
    /// index -> (who said so first, digest)
    digests: BTreeMap<u64, (usize, Vec<u8>)>,
}

impl Law for DigestsAgree {
    fn name(&self) -> &'static str {
        "digests_agree"
    }

    fn see(&mut self, Sighting { node, status, .. }: &Sighting) -> Option<String> {
        let digest = status.digest.to_vec();
        let (other, known) = self.digests.entry(status.applied_index).or_insert((*node, digest.clone()));
        (*known != digest).then(|| {
            format!("at index {} n{} holds another state than n{}", status.applied_index, node + 1, *other + 1)
        })
    }
}
