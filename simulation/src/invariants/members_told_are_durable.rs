//! A change of members that an operator was told is done is on the durable logs of a majority of the members. Otherwise a
//! node is switched off that the cluster still counts on.

use openraft::EntryPayload;

use super::{Disks, DurableNode, Law, MemberTold};

#[derive(Default)]
pub(super) struct MembersToldAreDurable;

impl Law for MembersToldAreDurable {
    fn name(&self) -> &'static str {
        "members_told_are_durable"
    }

    fn see_disks(&mut self, disks: &Disks<'_>) -> Option<String> {
        disks.told.iter().find_map(|told| {
            // Who was removed has no say in it, and is the last to hear of it; nor has who was removed before.
            let members = || disks.nodes.iter().filter(|node| node.voter && (told.voter || node.id != told.id));
            let against: Vec<u64> =
                members().filter(|node| agrees(node, told) == Some(false)).map(|node| node.id).collect();
            let asked = members().count();
            let state = if told.voter { "a voter" } else { "removed" };
            (against.len() * 2 > asked)
                .then(|| format!("node {} is told to be {state}, and is not so on the disks of {against:?}", told.id))
        })
    }
}

/// Whether a node's log says so; `None` if it holds no change of members any more.
fn agrees(node: &DurableNode, told: &MemberTold) -> Option<bool> {
    let entries = node.inspection()?.entries.iter().rev();
    let membership = entries.into_iter().find_map(|entry| match &entry.payload {
        EntryPayload::Membership(membership) => Some(membership),
        _ => None,
    })?;
    let is_member = membership.nodes().any(|(id, _)| *id == told.id);
    let is_voter = membership.voter_ids().any(|id| id == told.id);
    Some(if told.voter { is_voter } else { !is_member })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jangbu_proto::entry::NodeInfo;
    use jangbu_raft_store::{Entry, log::Inspection, log_id};

    use super::*;
    use crate::invariants::Loss;

    /// A node whose log says that these are the members.
    fn node(id: u64, voter: bool, members: &[u64]) -> DurableNode {
        let nodes: BTreeMap<u64, NodeInfo> = members.iter().map(|id| (*id, NodeInfo::default())).collect();
        let voters: BTreeSet<u64> = members.iter().copied().collect();
        let payload = EntryPayload::Membership(openraft::Membership::new(vec![voters], nodes).unwrap());
        let entries = vec![Entry { log_id: log_id(1, 1, 5), payload }];
        let log = Inspection { vote: None, committed: None, purged: None, entries };
        DurableNode { node: id as usize - 1, id, voter, loss: Loss::None, log: Ok(Some(log)) }
    }

    fn broken(nodes: &[DurableNode], told: MemberTold) -> bool {
        MembersToldAreDurable.see_disks(&Disks { nodes, committed: 0, told: &[told] }).is_some()
    }

    #[test]
    fn a_majority_of_those_that_are_left_must_have_it() {
        let told = || MemberTold { id: 3, voter: false };
        let (before, after) = ([1, 2, 3], [1, 2]);
        assert!(!broken(&[node(1, true, &after), node(2, true, &after), node(3, false, &before)], told()));
        assert!(broken(&[node(1, true, &before), node(2, true, &before), node(3, false, &before)], told()));
    }

    /// Found by seed 20639: node 1 had been removed before, and its old disk was counted against the removal of node 3.
    #[test]
    fn who_was_removed_before_has_no_say() {
        let (before, after) = ([2, 3, 4, 5], [2, 4, 5]);
        let nodes = [node(1, false, &[1, 2, 3]), node(2, true, &after), node(4, true, &before), node(5, true, &after)];
        assert!(!broken(&nodes, MemberTold { id: 3, voter: false }));
    }
}
