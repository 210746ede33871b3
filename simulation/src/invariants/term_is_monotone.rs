//! A node's term never goes back while it lives, and the durable one never, over any crash: a vote that was forgotten can be
//! given twice. Source: Raft, "persistent state".
//!
//! A node may tell a term that is on its way to the disk; one that dies then was never heard of by a peer.

use std::collections::BTreeMap;

use super::{Disks, DurableNode, Law, Loss, Sighting};

#[derive(Default)]
pub(super) struct TermIsMonotone {
    /// (node, life) -> term
    told: BTreeMap<(usize, u64), u64>,
    durable: BTreeMap<usize, u64>,
}

impl Law for TermIsMonotone {
    fn name(&self) -> &'static str {
        "term_is_monotone"
    }

    fn see(&mut self, Sighting { node, life, status, .. }: &Sighting) -> Option<String> {
        let seen = self.told.entry((*node, *life)).or_default();
        if status.term < *seen {
            return Some(format!("n{} was in term {seen} and is in term {}", node + 1, status.term));
        }
        *seen = status.term;
        None
    }

    fn see_disks(&mut self, disks: &Disks<'_>) -> Option<String> {
        // A damaged log that is not refused binds like any other.
        let binds = |node: &&DurableNode| match node.loss {
            Loss::None => true,
            Loss::Some => node.inspection().is_some(),
            Loss::All => false,
        };
        for node in disks.nodes.iter().filter(binds) {
            let term = node.durable_term();
            let seen = self.durable.entry(node.node).or_default();
            if term < *seen {
                return Some(format!("n{} had voted in term {seen} durably, and now in term {term}", node.node + 1));
            }
            *seen = term;
        }
        None
    }
}
