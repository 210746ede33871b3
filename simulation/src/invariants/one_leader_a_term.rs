//! No two nodes lead in one term. Source: Raft, "Election Safety".

use std::collections::BTreeMap;

use super::{Law, Sighting};

#[derive(Default)]
pub(super) struct OneLeaderATerm {
    leaders: BTreeMap<u64, usize>,
}

impl Law for OneLeaderATerm {
    fn name(&self) -> &'static str {
        "one_leader_a_term"
    }

    fn see(&mut self, Sighting { node, status, .. }: &Sighting) -> Option<String> {
        if status.role != "Leader" {
            return None;
        }
        let leader = *self.leaders.entry(status.term).or_insert(*node);
        (leader != *node).then(|| format!("n{} and n{} both led in term {}", leader + 1, node + 1, status.term))
    }
}
