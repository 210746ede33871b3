//! Committed entries lie on the durable logs of a quorum of voters, logs that share an entry share its content, and no log
//! loses an entry that it held durably. Source: Raft, "Log Matching", "Leader Completeness"; checked on what would survive if
//! the power of all failed at this moment.
//!
//! A node that lost what it had synced counts as if it still held it: the plan took it, not the program. But a log in which a
//! bit has flipped must be refused, or hold what it held before.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use jangbu_raft_store::{Command, Entry, log::Inspection};
use openraft::EntryPayload;

use super::{Disks, DurableNode, Law, Loss, Sighting, voters::Voters};

/// Nothing proves that the newest entries of a damaged log were synced, so recovery may cut them: as many as one write holds.
const CUT_ENTRIES_MAX: u64 = 64;

/// Term and content of an entry, by its index.
type Entries = BTreeMap<u64, (u64, u64)>;

#[derive(Default)]
pub(super) struct CommittedIsDurable {
    voters: Voters,
    /// What was found on a quorum once.
    committed: Entries,
    /// What each node's log held at the last look.
    held: BTreeMap<usize, Entries>,
}

/// What one durable log shows.
struct Log {
    node: usize,
    id: u64,
    loss: Loss,
    purged: u64,
    entries: Entries,
}

impl Log {
    fn of(node: &DurableNode, inspection: &Inspection) -> Self {
        Self {
            node: node.node,
            id: node.id,
            loss: node.loss,
            purged: inspection.purged.map_or(0, |id| id.index),
            entries: inspection.entries.iter().map(|entry| (entry.log_id.index, content(entry))).collect(),
        }
    }

    fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(self.purged, |(last, _)| *last)
    }
}

fn content(entry: &Entry) -> (u64, u64) {
    let mut hasher = DefaultHasher::new();
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(Command(bytes)) => bytes.hash(&mut hasher),
        EntryPayload::Membership(membership) => format!("{membership:?}").hash(&mut hasher),
    }
    (entry.log_id.leader_id.term, hasher.finish())
}

impl Law for CommittedIsDurable {
    fn name(&self) -> &'static str {
        "committed_is_durable"
    }

    fn see(&mut self, sighting: &Sighting) -> Option<String> {
        self.voters.hear(sighting);
        None
    }

    fn see_disks(&mut self, disks: &Disks<'_>) -> Option<String> {
        let mut logs = Vec::new();
        // Of these nothing is known any more.
        let mut robbed = BTreeSet::new();
        for node in disks.nodes {
            match &node.log {
                Ok(Some(inspection)) if node.loss != Loss::All => {
                    self.voters.read(inspection);
                    logs.push(Log::of(node, inspection));
                }
                Err(error) if node.loss == Loss::None => {
                    let found = "the log that it would find after a power cut can't be used";
                    return Some(format!("n{}: {found}: {error}", node.node + 1));
                }
                _ if node.loss != Loss::None => drop(robbed.insert(node.id)),
                _ => {}
            }
        }
        if let Some(forgotten) = logs.iter().find_map(|log| self.forgotten(log)) {
            return Some(forgotten);
        }
        let first = logs.iter().map(|log| log.purged + 1).min()?;
        let wrong = (first..=disks.committed).find_map(|index| self.wrong(index, &logs, &robbed));
        self.held = logs.into_iter().map(|log| (log.node, log.entries)).collect();
        wrong
    }
}

impl CommittedIsDurable {
    /// What is wrong with a committed entry.
    fn wrong(&mut self, index: u64, logs: &[Log], robbed: &BTreeSet<u64>) -> Option<String> {
        let mut copies: BTreeMap<(u64, u64), BTreeSet<u64>> = BTreeMap::new();
        let mut holders = robbed.clone();
        for log in logs {
            match log.entries.get(&index) {
                Some(entry) => drop(copies.entry(*entry).or_default().insert(log.id)),
                None if index <= log.purged => drop(holders.insert(log.id)),
                None => {}
            }
        }
        // A voter that was away may still hold an entry of an old leader; what a quorum holds is what was committed.
        let most = copies.into_iter().max_by_key(|(_, nodes)| nodes.len());
        let proven = most.as_ref().is_some_and(|(_, nodes)| self.voters.could_commit(index, nodes));
        holders.extend(most.iter().flat_map(|(_, nodes)| nodes));
        if !self.voters.could_commit(index, &holders) {
            return Some(format!("entry {index} is committed, and durable on nodes {holders:?} alone"));
        }
        let (entry, _) = most.filter(|_| proven)?;
        let known = *self.committed.entry(index).or_insert(entry);
        (known != entry).then(|| {
            let (before, now) = (known.0, entry.0);
            format!("entry {index} was committed in term {before}, and is another one of term {now}")
        })
    }

    /// What a log held durably and holds no more, or otherwise. (Raft itself may take away what was never committed.)
    fn forgotten(&self, log: &Log) -> Option<String> {
        let (held, n) = (self.held.get(&log.node)?, log.node + 1);
        let may_be_cut = if log.loss == Loss::Some { CUT_ENTRIES_MAX } else { 0 };
        for (index, before) in held.range(log.purged + 1..) {
            match log.entries.get(index) {
                Some(now) if now.0 == before.0 && now != before => {
                    return Some(format!("entry {index} of n{n} had another content when it became durable"));
                }
                None if self.committed.get(index) == Some(before) && index - log.last() > may_be_cut => {
                    let last = log.last();
                    return Some(format!("n{n} held the committed entry {index} durably, and its log ends at {last}"));
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(node: usize, loss: Loss, entries: impl Iterator<Item = u64>) -> Log {
        let entries = entries.map(|index| (index, (1, index))).collect();
        Log { node, id: node as u64 + 1, loss, purged: 0, entries }
    }

    fn law(held: &Log) -> CommittedIsDurable {
        let held_by = BTreeMap::from([(held.node, held.entries.clone())]);
        CommittedIsDurable { committed: held.entries.clone(), held: held_by, ..Default::default() }
    }

    #[test]
    fn a_log_that_ends_earlier_than_it_did_has_forgotten() {
        let law = law(&log(0, Loss::None, 1..200));
        assert_eq!(law.forgotten(&log(0, Loss::None, 1..200)), None);
        assert!(law.forgotten(&log(0, Loss::None, 1..199)).is_some());
        assert_eq!(law.forgotten(&log(0, Loss::Some, 1..190)), None, "nothing proved the last ones durable");
        assert!(law.forgotten(&log(0, Loss::Some, 1..90)).is_some(), "a middle is missing");
        let purged = Log { purged: 199, ..log(0, Loss::None, 0..0) };
        assert_eq!(law.forgotten(&purged), None);
    }

    #[test]
    fn an_entry_that_changed_was_not_checked() {
        let law = law(&log(0, Loss::Some, 1..20));
        let mut rotten = log(0, Loss::Some, 1..20);
        rotten.entries.insert(7, (1, 777));
        assert!(law.forgotten(&rotten).is_some());
        rotten.entries.insert(7, (2, 777));
        assert_eq!(law.forgotten(&rotten), None, "Raft put another one there");
    }

    #[test]
    fn what_the_plan_took_counts_as_held() {
        let mut law = CommittedIsDurable::default();
        let (one, two) = (log(0, Loss::None, 1..5), log(1, Loss::None, 1..3));
        let status = |id| jangbu_proto::cluster::v1::MemberStatus {
            node: Some(jangbu_proto::cluster::v1::NodeInfo { node_id: id, ..Default::default() }),
            voter: true,
            ..Default::default()
        };
        let status = jangbu_proto::cluster::v1::StatusReply {
            role: "Leader".into(),
            members: (1..=3).map(status).collect(),
            ..Default::default()
        };
        law.see(&Sighting { at_ns: 0, node: 0, life: 0, status });
        let logs = [one, two];
        assert_eq!(law.wrong(2, &logs, &BTreeSet::new()), None);
        assert!(law.wrong(4, &logs, &BTreeSet::new()).is_some(), "one of three");
        assert_eq!(law.wrong(4, &logs, &BTreeSet::from([3])), None, "the third may have had it");
    }
}
