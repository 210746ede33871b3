//! Committed entries lie on the durable logs of a quorum of voters, and logs that share an entry share its content. Source:
//! Raft, "Log Matching", "Leader Completeness"; checked on what would survive if the power of all failed at this moment.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use jangbu_raft_store::log::Inspection;

use super::{Disks, DurableNode, Law};

#[derive(Default)]
pub(super) struct CommittedIsDurable {
    /// index -> (term, content) of entries that were found committed once.
    committed: BTreeMap<u64, (u64, u64)>,
}

/// What one durable log shows.
struct Log {
    node: usize,
    purged: u64,
    /// index -> (term, hash of the content)
    entries: BTreeMap<u64, (u64, u64)>,
}

impl Log {
    fn of(node: usize, inspection: &Inspection) -> Self {
        let content = |entry: &jangbu_raft_store::Entry| {
            let mut hasher = DefaultHasher::new();
            format!("{:?}", entry.payload).hash(&mut hasher);
            (entry.log_id.leader_id.term, hasher.finish())
        };
        Self {
            node,
            purged: inspection.purged.map_or(0, |id| id.index),
            entries: inspection.entries.iter().map(|entry| (entry.log_id.index, content(entry))).collect(),
        }
    }
}

impl Law for CommittedIsDurable {
    fn name(&self) -> &'static str {
        "committed_is_durable"
    }

    fn see_disks(&mut self, disks: &Disks<'_>) -> Option<String> {
        if disks.is_changing() {
            return None;
        }
        let voters = disks.nodes.len();
        let mut logs = Vec::new();
        for DurableNode { node, log, .. } in disks.nodes {
            match log {
                Ok(Some(inspection)) => logs.push(Log::of(*node, inspection)),
                Ok(None) => {}
                Err(error) => {
                    return Some(format!(
                        "the log that n{} would find after a power cut can't be used: {error}",
                        node + 1
                    ));
                }
            }
        }
        let first = logs.iter().map(|log| log.purged + 1).min()?;
        for index in first..=disks.committed {
            let mut copies: BTreeMap<(u64, u64), usize> = BTreeMap::new();
            let mut have = 0;
            for log in &logs {
                match log.entries.get(&index) {
                    Some(entry) => *copies.entry(*entry).or_default() += 1,
                    None if index <= log.purged => have += 1,
                    None => {}
                }
            }
            let (entry, count) =
                copies.iter().max_by_key(|(_, count)| **count).map_or((None, 0), |(e, c)| (Some(*e), *c));
            if (count + have) * 2 <= voters {
                let who: Vec<usize> = logs.iter().map(|log| log.node + 1).collect();
                return Some(format!(
                    "entry {index} is committed and durable on {} of {voters} voters (logs read: {who:?})",
                    count + have
                ));
            }
            // A voter that was away may still hold an entry of an old leader; what a majority holds is what was committed.
            if let Some(entry) = entry.filter(|_| count * 2 > voters) {
                let known = *self.committed.entry(index).or_insert(entry);
                if known != entry {
                    return Some(format!(
                        "entry {index} was committed in term {}, and is another one of term {}",
                        known.0, entry.0
                    ));
                }
            }
        }
        None
    }
}
