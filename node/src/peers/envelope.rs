//! Who speaks to whom: checked on each call between replicas, before anything else.
//!
//! A replica that takes a vote or an entry from the wrong node can lose money that was acknowledged. So each call names
//! the cluster, both nodes, and both incarnations (the data folders), and a mistake of an operator (a folder wiped, an
//! address given to another cluster, a copied configuration) is refused by name instead of replicated.
//!
//! Laws
//! * Who calls itself a node has proved to be it (`access.rs`), where certificates prove anything.
//! * A fresh node joins a cluster only if that cluster means its very incarnation.
//! * A node whose folder was wiped is refused under its old id, and its process ends and says so: with its vote
//!   forgotten it could elect two leaders for one term.
//!
//! Not here: who may become a member (`membership.rs`).

use std::sync::Arc;

use jangbu_proto::{
    Malformed,
    cluster::v1::{Envelope, Removal},
    convert::bytes_16,
    reason,
};
use jangbu_raft_store::{Raft, StateReader};
use openraft::async_runtime::WatchReceiver;
use tokio::sync::mpsc;

use super::{GROUP, convert};
use crate::{
    access::PeerCaller,
    error::{CallError, NodeError},
    identity::{Identity, hex},
};

pub struct Gate {
    identity: Arc<Identity>,
    raft: Raft,
    reader: StateReader,
    /// Ends the process.
    end: mpsc::UnboundedSender<NodeError>,
}

/// What an envelope must say, decoded.
struct Claim {
    cluster_id: [u8; 16],
    from_node: u64,
    from_incarnation: [u8; 16],
    to_node: u64,
    to_incarnation: [u8; 16],
}

impl Gate {
    pub fn new(
        identity: Arc<Identity>,
        raft: Raft,
        reader: StateReader,
        end: mpsc::UnboundedSender<NodeError>,
    ) -> Self {
        Self { identity, raft, reader, end }
    }

    /// The sender's node id, if it may speak to this node. Blocks on the disk once in a node's life, when it joins.
    pub async fn check(&self, caller: PeerCaller, envelope: Option<&Envelope>) -> Result<u64, CallError> {
        let claim = Claim::read(envelope)?;
        if !caller.may_be(claim.from_node) {
            let message = format!("who calls itself node {} shows the certificate of {caller:?}", claim.from_node);
            return Err(CallError::denied(reason::WRONG_NODE, message));
        }
        self.check_target(&claim)?;
        self.check_cluster(&claim).await?;
        self.check_sender(&claim)?;
        Ok(claim.from_node)
    }

    fn check_target(&self, claim: &Claim) -> Result<(), CallError> {
        let this = self.identity.node_id;
        if claim.to_node != this {
            let message = format!("node {} was meant; this is node {this}", claim.to_node);
            return Err(CallError::denied(reason::WRONG_NODE, message));
        }
        if claim.from_node == this {
            let message =
                format!("node {this} calls itself: another process uses its id, or its address leads back to it");
            return Err(CallError::denied(reason::WRONG_NODE, message));
        }
        Ok(())
    }

    async fn check_cluster(&self, claim: &Claim) -> Result<(), CallError> {
        let meant = claim.to_incarnation == self.identity.info.incarnation;
        let joined = match self.identity.cluster_id() {
            Some(cluster_id) => cluster_id == claim.cluster_id,
            None if meant => self.identity.join(claim.cluster_id).await?,
            None => return Err(self.disowned(claim)),
        };
        if !joined {
            let message = format!("cluster {} calls a node of another cluster", hex(&claim.cluster_id));
            return Err(CallError::denied(reason::WRONG_CLUSTER, message));
        }
        if !meant {
            let message = format!("another incarnation of node {} was meant", self.identity.node_id);
            return Err(CallError::denied(reason::WRONG_INCARNATION, message));
        }
        Ok(())
    }

    /// A cluster calls this fresh node by the incarnation it had before.
    fn disowned(&self, claim: &Claim) -> CallError {
        let message = format!(
            "node {} of cluster {} has lost its data folder (incarnation {} is gone, this one is {}). It must not vote \
             again under its old id: remove node {} from the cluster and add this machine under a new node_id",
            self.identity.node_id,
            hex(&claim.cluster_id),
            hex(&claim.to_incarnation),
            hex(&self.identity.info.incarnation),
            self.identity.node_id,
        );
        // The receiver is gone only when the process is ending anyway.
        let _ = self.end.send(NodeError::Disowned(message.clone()));
        CallError::denied(reason::WRONG_INCARNATION, message)
    }

    fn check_sender(&self, claim: &Claim) -> Result<(), CallError> {
        let metrics = self.raft.server_metrics();
        let (known, any) = {
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            (membership.get_node(&claim.from_node).map(|node| node.incarnation), membership.nodes().next().is_some())
        };
        match known {
            Some(incarnation) if incarnation == claim.from_incarnation => Ok(()),
            Some(_) => {
                let message =
                    format!("node {} speaks from a data folder that the cluster doesn't know", claim.from_node);
                Err(CallError::denied(reason::WRONG_INCARNATION, message))
            }
            // Ids only grow: an id above all that were seen here is of a node that joined while this one was away.
            None if any && claim.from_node <= self.reader.highest_node_id() => Err(self.not_a_member(claim)),
            None => Ok(()),
        }
    }

    /// The sender hears what proves it, so that it can end: but only once the change is agreed on, and not merely under way.
    fn not_a_member(&self, claim: &Claim) -> CallError {
        let node = claim.from_node;
        match self.reader.removed(node) {
            Some(at) => {
                let (cluster_id, membership) = (claim.cluster_id.to_vec().into(), convert::log_id_to_wire(&at));
                CallError::Removed { node, removal: Removal { cluster_id, membership: Some(membership) } }
            }
            None => CallError::denied(reason::NOT_A_MEMBER, format!("node {node} is being removed from the cluster")),
        }
    }
}

impl Claim {
    fn read(envelope: Option<&Envelope>) -> Result<Self, Malformed> {
        let envelope = envelope.ok_or_else(|| Malformed::new("envelope", "is missing"))?;
        if envelope.group != GROUP {
            return Err(Malformed::new("envelope.group", format!("there is no group {}", envelope.group)));
        }
        Ok(Self {
            cluster_id: bytes_16("envelope.cluster_id", &envelope.cluster_id)?,
            from_node: envelope.from_node,
            from_incarnation: bytes_16("envelope.from_incarnation", &envelope.from_incarnation)?,
            to_node: envelope.to_node,
            to_incarnation: bytes_16("envelope.to_incarnation", &envelope.to_incarnation)?,
        })
    }
}
