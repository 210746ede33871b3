//! Who leads in a term was elected by votes that would survive a power cut of all: a quorum of voters has that term or a
//! later one on its disk. Source: Raft, "persistent state"; a vote that is given before it is durable can be given twice.
//!
//! A node that lost what it had synced counts as if it still had its vote: the plan took it.

use std::collections::BTreeSet;

use super::{Disks, DurableNode, Law, Loss, Sighting, voters::Voters};

#[derive(Default)]
pub(super) struct VotesAreDurable {
    voters: Voters,
    /// The highest term that anyone was seen to lead in.
    term: u64,
}

impl Law for VotesAreDurable {
    fn name(&self) -> &'static str {
        "votes_are_durable"
    }

    fn see(&mut self, sighting: &Sighting) -> Option<String> {
        self.voters.hear(sighting);
        if sighting.status.role == "Leader" {
            self.term = self.term.max(sighting.status.term);
        }
        None
    }

    fn see_disks(&mut self, disks: &Disks<'_>) -> Option<String> {
        disks.nodes.iter().filter_map(DurableNode::inspection).for_each(|log| self.voters.read(log));
        let voted = |node: &&DurableNode| node.loss != Loss::None || node.durable_term() >= self.term;
        let voted: BTreeSet<u64> = disks.nodes.iter().filter(voted).map(|node| node.id).collect();
        (!self.voters.could_elect(&voted))
            .then(|| format!("somebody leads in term {}, which is durable on nodes {voted:?} alone", self.term))
    }
}
