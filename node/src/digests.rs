//! The replicas compare notes: who differs at the same index takes itself out of service.
//!
//! Each replica records a digest of its state at fixed log indexes. Every few seconds this node asks the others for
//! theirs, and looks at the newest index that it has in common with them. It asks for their clocks on the way.
//!
//! Laws
//! * A replica fences itself if a majority of all members agrees on a digest that isn't its own. Two that differ without
//!   a majority on either side both go on, loudly: nobody can say which one is wrong.
//!
//! Not here: the digest (`ledger`), and what fencing does (`raft_store`: the process ends and does not come back before
//! its state is rebuilt), and what follows from the clocks (`clock_skew.rs`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jangbu_proto::{
    cluster::v1::{DigestsReply, DigestsRequest},
    entry::NodeInfo,
};
use jangbu_raft_store::{Raft, StateReader};
use openraft::async_runtime::WatchReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock_skew::ClockSkew,
    identity::hex,
    metrics::Metrics,
    peers::{Peers, Purpose},
};

const ASK_LIMIT: Duration = Duration::from_secs(2);

type Digest = [u8; 16];

pub struct Digests {
    pub raft: Raft,
    pub peers: Arc<Peers>,
    pub state: StateReader,
    pub clock_skew: Arc<ClockSkew>,
    pub metrics: Arc<Metrics>,
    pub every: Duration,
}

impl Digests {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.compare().await;
        }
    }

    async fn compare(&self) {
        let members = self.members();
        let (mut told, mut offsets) = (BTreeMap::new(), BTreeMap::new());
        for (id, node) in members.iter().filter(|(id, _)| **id != self.peers.common.identity.node_id) {
            let asked = Instant::now();
            if let Some(reply) = self.ask(*id, node).await {
                offsets.extend(self.clock_skew.measured(reply.clock_ns, asked.elapsed()).map(|offset| (*id, offset)));
                told.extend(digests_of(reply).map(|digests| (*id, digests)));
            }
        }
        self.clock_skew.judge(&offsets, members.len());
        // Asked last, so that what the others have recorded is recorded here too, or will be by the next time.
        let own: BTreeMap<u64, Digest> = self.state.digests().into_iter().collect();
        match judge(&own, &told, members.len()) {
            Verdict::Agreed => {}
            Verdict::Unclear { index } => {
                self.metrics.digest_mismatches.inc();
                tracing::error!(index, "replicas differ, and no majority says which one is wrong: verify all of them");
            }
            Verdict::Outvoted { index, own, theirs } => {
                self.metrics.digest_mismatches.inc();
                self.state.fence(format!(
                    "at log index {index} the state of this replica has digest {} and a majority has {}. It must not \
                     answer any more: remove this node and add it again under a new id with an empty data folder",
                    hex(&own),
                    hex(&theirs),
                ));
            }
        }
    }

    fn members(&self) -> BTreeMap<u64, NodeInfo> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().nodes().map(|(id, node)| (*id, node.clone())).collect()
    }

    async fn ask(&self, id: u64, node: &NodeInfo) -> Option<DigestsReply> {
        let link = self.peers.link(id, node, Purpose::Control);
        let request = DigestsRequest { envelope: Some(link.envelope()) };
        let reply = timeout(ASK_LIMIT, link.client().ok()?.digests(request)).await.ok()?;
        // Every node asks, a learner too, which asks for nothing else: so each hears in time that it was removed.
        Some(reply.inspect_err(|status| link.note_refusal(status)).ok()?.into_inner())
    }
}

fn digests_of(reply: DigestsReply) -> Option<BTreeMap<u64, Digest>> {
    reply.digests.into_iter().map(|at| Some((at.log_index, at.digest[..].try_into().ok()?))).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Agreed,
    Unclear { index: u64 },
    Outvoted { index: u64, own: Digest, theirs: Digest },
}

/// Judges by the newest index that this replica has in common with others.
fn judge(own: &BTreeMap<u64, Digest>, told: &BTreeMap<u64, BTreeMap<u64, Digest>>, members: usize) -> Verdict {
    let newest_common = own.iter().rev().find(|(index, _)| told.values().any(|digests| digests.contains_key(index)));
    let Some((&index, &own)) = newest_common else { return Verdict::Agreed };
    let mut votes: BTreeMap<Digest, usize> = BTreeMap::new();
    for digest in told.values().filter_map(|digests| digests.get(&index)) {
        *votes.entry(*digest).or_default() += 1;
    }
    if votes.keys().all(|digest| *digest == own) {
        return Verdict::Agreed;
    }
    let outvoted = votes.into_iter().find(|(digest, count)| *digest != own && *count > members / 2);
    match outvoted {
        Some((theirs, _)) => Verdict::Outvoted { index, own, theirs },
        None => Verdict::Unclear { index },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(at: &[(u64, u8)]) -> BTreeMap<u64, Digest> {
        at.iter().map(|(index, digest)| (*index, [*digest; 16])).collect()
    }

    fn told(replicas: &[&[(u64, u8)]]) -> BTreeMap<u64, BTreeMap<u64, Digest>> {
        (2..).zip(replicas.iter().map(|at| digests(at))).collect()
    }

    #[test]
    fn equal_digests_agree_although_one_replica_is_behind() {
        let own = digests(&[(1_024, 1), (2_048, 2)]);
        assert_eq!(judge(&own, &told(&[&[(1_024, 1)], &[(1_024, 1), (2_048, 2)]]), 3), Verdict::Agreed);
    }

    #[test]
    fn a_replica_that_a_majority_contradicts_is_outvoted() {
        let verdict = judge(&digests(&[(1_024, 9)]), &told(&[&[(1_024, 1)], &[(1_024, 1)]]), 3);
        assert_eq!(verdict, Verdict::Outvoted { index: 1_024, own: [9; 16], theirs: [1; 16] });
    }

    #[test]
    fn one_of_three_that_differs_from_the_other_two_does_not_drag_them_down() {
        let verdict = judge(&digests(&[(1_024, 1)]), &told(&[&[(1_024, 9)], &[(1_024, 1)]]), 3);
        assert_eq!(verdict, Verdict::Unclear { index: 1_024 });
    }

    #[test]
    fn one_against_one_is_unclear() {
        assert_eq!(judge(&digests(&[(1_024, 1)]), &told(&[&[(1_024, 9)]]), 3), Verdict::Unclear { index: 1_024 });
    }

    #[test]
    fn nothing_in_common_is_no_difference() {
        assert_eq!(judge(&digests(&[(2_048, 1)]), &told(&[&[(1_024, 9)]]), 3), Verdict::Agreed);
    }
}
