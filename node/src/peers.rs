//! Other nodes, seen from here.
//!
//!     network   openraft's way to a peer       append     the stream of entries and heartbeats
//!     service   the peer door                  snapshot   a state too far away for entries
//!     envelope  who speaks to whom             convert    openraft's types and the wire's
//!
//! What peers say of this node itself is not acted on here: it goes to `hearsay.rs`.
//!
//! Three connections per peer, so that a vote or a heartbeat never waits behind megabytes: `append` for entries and for
//! requests on their way to the leader (those two flow in opposite directions), `control` for everything small,
//! `snapshot` for the bulk.
//!
//! Laws
//! * With TLS, whoever answers has proved to be the node that is meant.
//! * A connection leads where the newest membership says that the peer is, also for those who hold it for long.
//!
//! Not here: HTTP/2, keepalives and the pace of reconnecting (`proto::transport`).

pub mod append;
pub mod convert;
pub mod envelope;
pub mod network;
pub mod service;
pub mod snapshot;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jangbu_proto::{
    Malformed,
    cluster::v1::{Envelope, operator_client::OperatorClient, peer_client::PeerClient},
    entry::NodeInfo,
    reason,
    transport::{Channel, Http2Settings, Io, PEER_MESSAGE_BYTES_MAX, TlsTransport, Transport, channel},
};
use jangbu_raft_store::Raft;
use openraft::async_runtime::WatchReceiver;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::{
    config::Timings,
    environment::{Clock, Environment},
    hearsay::Hearsay,
    identity::Identity,
    snapshots::Sendings,
};

/// The one group there is. Every path, record and call names it already.
pub const GROUP: u32 = 0;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    Append,
    Control,
    Snapshot,
}

/// All ways to all peers.
pub struct Peers {
    pub common: Arc<Common>,
    links: Mutex<BTreeMap<(u64, Purpose), Arc<Link>>>,
}

/// What every way needs.
pub struct Common {
    pub identity: Arc<Identity>,
    pub timings: Timings,
    pub clock: Arc<dyn Clock>,
    /// A peer refused the snapshot that it was sent: `Snapshots` takes another.
    pub snapshot_refused: Arc<Notify>,
    /// `Snapshots` leaves them the log that they need.
    pub snapshots_sent: Arc<Sendings>,
    /// The bare network.
    network: Arc<dyn Transport>,
    /// `None`: nodes speak in plain text.
    to_nodes: Option<TlsTransport>,
    settings: Http2Settings,
    hearsay: mpsc::Sender<Hearsay>,
}

impl Common {
    /// The way to a node; to this one and no other, if it is known which.
    fn way_to(&self, id: Option<u64>) -> Arc<dyn Transport> {
        match (&self.to_nodes, id) {
            (None, _) => self.network.clone(),
            (Some(to_nodes), None) => Arc::new(to_nodes.clone()),
            (Some(to_nodes), Some(id)) => Arc::new(to_nodes.to_node(id)),
        }
    }
}

impl Peers {
    pub fn new(
        identity: Arc<Identity>,
        timings: Timings,
        settings: Http2Settings,
        environment: &Environment,
        to_nodes: Option<TlsTransport>,
        hearsay: mpsc::Sender<Hearsay>,
    ) -> Self {
        let common = Common {
            identity,
            timings,
            clock: environment.clock.clone(),
            snapshot_refused: Arc::default(),
            snapshots_sent: Arc::default(),
            network: environment.transport.clone(),
            to_nodes,
            settings,
            hearsay,
        };
        Self { common: Arc::new(common), links: Mutex::default() }
    }

    /// The connection to a peer for one purpose; shared by all who ask for it. Connects when it is first used.
    pub fn link(&self, id: u64, node: &NodeInfo, purpose: Purpose) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry((id, purpose)).and_modify(|link| link.follow(node));
        link.or_insert_with(|| Arc::new(Link::new(self.common.clone(), id, node.clone()))).clone()
    }

    /// A bare connection, to find out whether anybody is there at all.
    pub async fn connect(&self, peer_address: &str) -> io::Result<Io> {
        self.common.network.connect(peer_address.to_owned()).await
    }

    /// Keeps the connections leading where the membership says, until `stop`: openraft keeps its way to a peer for as long
    /// as the peer is a member, wherever it moves.
    pub async fn follow(self: Arc<Self>, raft: Raft, stop: CancellationToken) {
        let mut metrics = raft.server_metrics();
        loop {
            let membership = metrics.borrow_watched().membership_config.clone();
            for ((id, _), link) in self.links.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                if let Some(node) = membership.membership().get_node(id) {
                    link.follow(node);
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = metrics.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The operator's service at some peer door, to find out who is there.
    pub fn operator(&self, peer_address: &str) -> Result<OperatorClient<Channel>, Malformed> {
        Ok(OperatorClient::new(channel(self.common.way_to(None), peer_address, &self.common.settings)?))
    }
}

/// One connection to one peer. It heals by itself; [`Link::drop_channel`] forces it to.
pub struct Link {
    pub common: Arc<Common>,
    pub id: u64,
    node: Mutex<NodeInfo>,
    channel: Mutex<Option<Channel>>,
    refused_at: Mutex<Option<Instant>>,
    /// The manifest of a snapshot that the peer couldn't open, and how long it isn't offered again.
    unusable_snapshot: Mutex<Option<(Bytes, Instant)>>,
}

/// A peer that refuses this node does so at every attempt: it is told to the operator this often.
const REFUSAL_EVERY: Duration = Duration::from_secs(10);

impl Link {
    fn new(common: Arc<Common>, id: u64, node: NodeInfo) -> Self {
        Self {
            common,
            id,
            node: Mutex::new(node),
            channel: Mutex::default(),
            refused_at: Mutex::default(),
            unusable_snapshot: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, NodeInfo> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer may have moved.
    fn follow(&self, node: &NodeInfo) {
        let has_moved = {
            let mut known = self.known();
            let has_moved = known.peer_address != node.peer_address;
            if *known != *node {
                *known = node.clone();
            }
            has_moved
        };
        // After the new address stands: a channel that was made to the old one meanwhile goes, too.
        if has_moved {
            self.drop_channel();
        }
    }

    pub fn client(&self) -> Result<PeerClient<Channel>, Status> {
        let mut kept = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match &*kept {
            Some(channel) => channel.clone(),
            None => {
                let made =
                    channel(self.common.way_to(Some(self.id)), &self.known().peer_address, &self.common.settings)
                        .map_err(|error| Status::invalid_argument(error.to_string()))?;
                kept.insert(made).clone()
            }
        };
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX))
    }

    /// The connection is alive as far as the kernel knows, and yet nothing comes: the next call makes a new one.
    pub fn drop_channel(&self) {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// If the peer has looked at this node's envelope and will have none of it, an operator must look.
    pub fn note_refusal(&self, status: &Status) {
        if status.code() != Code::PermissionDenied {
            return;
        }
        let told = reason::told(status);
        if let Some(removal) = told.removal {
            self.hear(Hearsay::Removed { by: self.id, removal });
        }
        let mut refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.is_none_or(|at| at.elapsed() >= REFUSAL_EVERY) {
            *refused_at = Some(Instant::now());
            tracing::warn!(peer = self.id, reason = told.reason, "a peer refuses this node: {}", status.message());
        }
    }

    pub fn note_unusable_snapshot(&self, manifest: Bytes, for_now: Duration) {
        tracing::error!(
            peer = self.id,
            "a peer can't open the snapshot that this node sent; it goes on with what it has"
        );
        *self.unusable_snapshot.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((manifest, Instant::now() + for_now));
        self.hear(Hearsay::SnapshotUnusable { by: self.id });
    }

    /// The manifest of the snapshot that is better not offered now.
    pub fn unusable_snapshot(&self) -> Option<Bytes> {
        let noted = self.unusable_snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        noted.as_ref().filter(|(_, until)| Instant::now() < *until).map(|(manifest, _)| manifest.clone())
    }

    /// What the peer says of this node itself. It says so again if there is no time to look into it now.
    pub fn hear(&self, hearsay: Hearsay) {
        let _ = self.common.hearsay.try_send(hearsay);
    }

    pub fn envelope(&self) -> Envelope {
        let identity = &self.common.identity;
        Envelope {
            cluster_id: identity.cluster_id().map(|id| id.to_vec()).unwrap_or_default().into(),
            from_node: identity.node_id,
            from_incarnation: identity.info.incarnation.to_vec().into(),
            to_node: self.id,
            group: GROUP,
            to_incarnation: self.known().incarnation.to_vec().into(),
        }
    }
}
