//! What peers say of this node itself: looked into before it is believed.
//!
//! A node that was removed is the last to hear of it, because the others stop sending it entries as soon as that is agreed
//! on. It goes on asking for votes, and whoever refuses it names the membership that it isn't in. And a snapshot that no
//! receiver can open tells of damage here that nobody has met yet.
//!
//! Laws
//! * A node ends as removed only by a membership that was agreed on and is later than all that its own log knows of: ids are
//!   never used again, so nothing can bring it back. A peer of another cluster can't make it end.
//! * What a peer says of a snapshot costs this node a look at its own files. Only what it finds there itself stops it.
//!
//! Not here: what makes a peer say so (`peers/envelope.rs`, `peers/snapshot.rs`).

use std::{sync::Arc, time::Duration};

use jangbu_proto::cluster::v1::Removal;
use jangbu_raft_store::{LogId, Raft, StateReader};
use openraft::async_runtime::WatchReceiver;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{error::NodeError, identity::Identity, peers::convert};

/// How often a node looks whether it is still in the membership that it has applied. Long enough for the word of a leader
/// that removed itself to reach the operator first.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// More than the peers of the largest cluster; what finds no room is said again.
pub const HEARSAY_MAX: usize = 16;

#[derive(Debug)]
pub enum Hearsay {
    /// It was removed from the cluster.
    Removed { by: u64, removal: Removal },
    /// Its snapshot can't be opened.
    SnapshotUnusable { by: u64 },
}

pub struct Hearing {
    pub raft: Raft,
    pub state: StateReader,
    pub identity: Arc<Identity>,
    pub heard: mpsc::Receiver<Hearsay>,
    /// Ends the process.
    pub end: mpsc::UnboundedSender<NodeError>,
    /// The others look for this node elsewhere, as far as is known, and the operator was told.
    pub moved: bool,
}

impl Hearing {
    /// Runs until `stop`, or until this node has to end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let removed = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                heard = self.heard.recv() => match heard {
                    Some(Hearsay::Removed { by, removal }) => self.is_removed_by(&removal).then(|| format!("as node {by} says")),
                    Some(Hearsay::SnapshotUnusable { by }) => { self.look_after(by).await; None }
                    None => return,
                },
                _ = ticks.tick() => {
                    self.look_at_address();
                    self.knows_it_is_removed().then(|| "as its own log says".into())
                }
            };
            if let Some(how) = removed {
                // The receiver is gone only when the process is ending anyway.
                let _ = self.end.send(NodeError::Removed { node: self.identity.node_id, how });
                return;
            }
        }
    }

    fn is_removed_by(&self, removal: &Removal) -> bool {
        let own = *self.raft.server_metrics().borrow_watched().membership_config.log_id();
        proves(removal, self.identity.cluster_id(), own.as_ref())
    }

    fn knows_it_is_removed(&self) -> bool {
        self.state.removed(self.identity.node_id).is_some()
    }

    /// The members know each other by the addresses they joined with, or moved to.
    fn look_at_address(&mut self) {
        let metrics = self.raft.server_metrics();
        let known = metrics.borrow_watched().membership_config.membership().get_node(&self.identity.node_id).cloned();
        let now = &self.identity.info.peer_address;
        let moved = known.as_ref().is_some_and(|known| known.peer_address != *now);
        if moved && !self.moved {
            let known = known.map(|known| known.peer_address);
            tracing::warn!(
                known,
                now,
                "the others look for this node at another address; type: jangbu member update {now}"
            );
        }
        self.moved = moved;
    }

    /// Damage that is found stops the replica. If there is none, the snapshot alone was damaged: the next one is another.
    async fn look_after(&self, by: u64) {
        tracing::warn!(peer = by, "a peer can't open this node's snapshot: all that is stored here is read");
        if self.state.scrub().await.is_ok() {
            tracing::info!("the state is whole; a new snapshot is taken");
            // A Raft core that has stopped ends the process elsewhere.
            let _ = self.raft.trigger().snapshot().await;
        }
    }
}

/// Whether a peer's word shows that this node is out for good. `own`: of the newest membership in its own log.
fn proves(removal: &Removal, cluster_id: Option<[u8; 16]>, own: Option<&LogId>) -> bool {
    let Some(agreed) = removal.membership.map(convert::log_id_from_wire) else { return false };
    cluster_id.is_some_and(|id| id[..] == removal.cluster_id[..]) && own.is_none_or(|own| *own < agreed)
}

#[cfg(test)]
mod tests {
    use jangbu_raft_store::log_id;

    use super::*;

    fn removal(cluster: u8, term: u64, index: u64) -> Removal {
        let membership = Some(convert::log_id_to_wire(&log_id(term, 1, index)));
        Removal { cluster_id: vec![cluster; 16].into(), membership }
    }

    #[test]
    fn a_later_membership_of_the_same_cluster_is_believed() {
        assert!(proves(&removal(7, 2, 40), Some([7; 16]), Some(&log_id(2, 1, 39))));
        assert!(proves(&removal(7, 2, 40), Some([7; 16]), None), "it was removed before it heard of anything");
        let never_agreed_on = log_id(1, 3, 90);
        assert!(proves(&removal(7, 2, 40), Some([7; 16]), Some(&never_agreed_on)), "a later term counts for more");
    }

    #[test]
    fn an_earlier_membership_or_that_of_another_cluster_is_not() {
        assert!(!proves(&removal(7, 2, 40), Some([7; 16]), Some(&log_id(2, 1, 40))), "it has that one itself");
        assert!(!proves(&removal(7, 2, 40), Some([7; 16]), Some(&log_id(2, 1, 41))), "the peer is behind");
        assert!(!proves(&removal(7, 2, 40), Some([7; 16]), Some(&log_id(3, 1, 20))), "the peer is behind");
        assert!(!proves(&removal(8, 2, 40), Some([7; 16]), None));
        assert!(!proves(&removal(7, 2, 40), None, None), "this node is in no cluster");
        assert!(!proves(&Removal { membership: None, ..removal(7, 2, 40) }, Some([7; 16]), None));
    }
}
