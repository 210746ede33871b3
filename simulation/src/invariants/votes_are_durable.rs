//! Who leads in a term was elected by votes that would survive a power cut of all: a majority of voters has that term or a
//! later one on its disk. Source: Raft, "persistent state"; a vote that is given before it is durable can be given twice.

use super::{Disks, Law, Sighting};

#[derive(Default)]
pub(super) struct VotesAreDurable {
    /// The highest term that anyone was seen to lead in.
    term: u64,
}

impl Law for VotesAreDurable {
    fn name(&self) -> &'static str {
        "votes_are_durable"
    }

    fn see(&mut self, Sighting { status, .. }: &Sighting) -> Option<String> {
        if status.role == "Leader" {
            self.term = self.term.max(status.term);
        }
        None
    }

    fn see_disks(&mut self, disks: &Disks<'_>) -> Option<String> {
        if disks.is_changing() {
            return None;
        }
        let voters = disks.nodes.len();
        let have = disks.nodes.iter().filter(|node| node.durable_term() >= self.term).count();
        (have * 2 <= voters)
            .then(|| format!("somebody leads in term {}, which is durable on {have} of {voters} voters", self.term))
    }
}
