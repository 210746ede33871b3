//! No node has applied an entry, loaded a flush or installed a snapshot of a version that its program does not know.
//!
//! The entry that raises the version is of the version that it raises to, so the state's version stands for all of them.

use super::{Law, Sighting};

pub(super) struct VersionIsKnown;

impl Law for VersionIsKnown {
    fn name(&self) -> &'static str {
        "version_is_known"
    }

    fn see(&mut self, Sighting { node, status, .. }: &Sighting) -> Option<String> {
        let (version, knows) = (status.cluster_version, status.cluster_version_max);
        (version > knows).then(|| {
            let (n, at) = (node + 1, status.applied_index);
            format!("n{n} is at version {version} at entry {at}, and its program knows versions up to {knows}")
        })
    }
}
