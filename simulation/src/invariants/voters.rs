//! Whose votes counted when: the sets of voters that a run has had, as the logs show them.
//!
//! An entry may be committed by the voters of its own time or by any that came later, so a law that asks for a quorum asks
//! whether some of these sets had one. Laws that use it stay in force while members change.

use std::collections::{BTreeMap, BTreeSet};

use jangbu_raft_store::log::Inspection;
use openraft::EntryPayload;

use super::Sighting;

/// What must agree: a majority of each of these. Two while one set hands over to another.
type Configuration = Vec<BTreeSet<u64>>;

#[derive(Default)]
pub(super) struct Voters {
    /// By the index of the entry that named them.
    configurations: BTreeMap<u64, Configuration>,
}

impl Voters {
    /// Logs show every change; what a leader says stands in for those that all logs have purged.
    pub(super) fn hear(&mut self, Sighting { status, .. }: &Sighting) {
        let voters: BTreeSet<u64> = status
            .members
            .iter()
            .filter(|member| member.voter)
            .filter_map(|member| Some(member.node.as_ref()?.node_id))
            .collect();
        let known = self.configurations.values().any(|configuration| configuration.contains(&voters));
        if status.role == "Leader" && !voters.is_empty() && !known {
            self.configurations.entry(status.last_log_index).or_insert_with(|| vec![voters]);
        }
    }

    pub(super) fn read(&mut self, log: &Inspection) {
        for entry in &log.entries {
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.configurations.insert(entry.log_id.index, membership.get_joint_config().clone());
            }
        }
    }

    /// Whether `nodes` were enough to commit the entry at `index`, then or later.
    pub(super) fn could_commit(&self, index: u64, nodes: &BTreeSet<u64>) -> bool {
        let then = self.configurations.range(..=index).next_back();
        let later = self.configurations.range(index + 1..);
        self.configurations.is_empty() || then.into_iter().chain(later).any(|(_, sets)| is_quorum(sets, nodes))
    }

    /// Whether `nodes` were enough to elect a leader at some time.
    pub(super) fn could_elect(&self, nodes: &BTreeSet<u64>) -> bool {
        self.configurations.is_empty() || self.configurations.values().any(|sets| is_quorum(sets, nodes))
    }
}

fn is_quorum(sets: &Configuration, nodes: &BTreeSet<u64>) -> bool {
    sets.iter().all(|set| set.intersection(nodes).count() * 2 > set.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(configurations: &[(u64, &[&[u64]])]) -> Voters {
        let set = |ids: &&[u64]| ids.iter().copied().collect();
        let sets = |(index, sets): &(u64, &[&[u64]])| (*index, sets.iter().map(set).collect());
        Voters { configurations: configurations.iter().map(sets).collect() }
    }

    #[test]
    fn a_quorum_is_a_majority_of_each_set_of_then_or_later() {
        let voters = voters(&[(0, &[&[1, 2, 3]]), (10, &[&[1, 2, 3], &[2, 3, 4]]), (11, &[&[2, 3, 4]])]);
        let could = |index, nodes: &[u64]| voters.could_commit(index, &nodes.iter().copied().collect());
        assert!(could(5, &[1, 2]), "of its own time");
        assert!(could(5, &[3, 4]), "of those that came later");
        assert!(!could(11, &[1, 2]), "one that is no voter any more doesn't count");
        assert!(!could(5, &[1, 4]), "each is one of three");
    }
}
