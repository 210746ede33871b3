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
            // Who was removed has no say in it, and is the last to hear of it.
            let members = || disks.nodes.iter().filter(|node| told.voter || node.id != told.id);
            let against: Vec<u64> =
                members().filter(|node| agrees(node, told) == Some(false)).map(|node| node.id).collect();
            let asked = members().filter(|node| node.voter).count();
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
