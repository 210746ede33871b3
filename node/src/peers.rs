//! Other nodes, seen from here.
//!
//!     network   openraft's way to a peer       append     the stream of entries and heartbeats
//!     service   the peer door                  snapshot   a state too far away for entries
//!     envelope  who speaks to whom             convert    openraft's types and the wire's
//!
//! Three connections per peer, so that a vote or a heartbeat never waits behind megabytes: `append` for entries and for
//! requests on their way to the leader (those two flow in opposite directions), `control` for everything small,
//! `snapshot` for the bulk.
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
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jangbu_proto::{
    Malformed,
    cluster::v1::{Envelope, operator_client::OperatorClient, peer_client::PeerClient},
    entry::NodeInfo,
    reason,
    transport::{Http2Settings, Io, PEER_MESSAGE_BYTES_MAX, Transport, channel},
};
use tokio::time::Instant;
use tonic::{Status, transport::Channel};

use crate::{
    config::Timings,
    environment::{Clock, Environment},
    identity::Identity,
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
    transport: Arc<dyn Transport>,
    settings: Http2Settings,
}

impl Peers {
    pub fn new(identity: Arc<Identity>, timings: Timings, settings: Http2Settings, environment: &Environment) -> Self {
        let common = Common {
            identity,
            timings,
            clock: environment.clock.clone(),
            transport: environment.transport.clone(),
            settings,
        };
        Self { common: Arc::new(common), links: Mutex::default() }
    }

    /// The connection to a peer for one purpose; shared by all who ask for it. Connects when it is first used.
    pub fn link(&self, id: u64, node: &NodeInfo, purpose: Purpose) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry((id, purpose)).and_modify(|link| {
            if link.node != *node {
                *link = Arc::new(Link::new(self.common.clone(), id, node.clone()));
            }
        });
        link.or_insert_with(|| Arc::new(Link::new(self.common.clone(), id, node.clone()))).clone()
    }

    /// A bare connection, to find out whether anybody is there at all.
    pub async fn connect(&self, peer_address: &str) -> io::Result<Io> {
        self.common.transport.connect(peer_address.to_owned()).await
    }

    /// The operator's service at some peer door, to find out who is there.
    pub fn operator(&self, peer_address: &str) -> Result<OperatorClient<Channel>, Malformed> {
        Ok(OperatorClient::new(channel(self.common.transport.clone(), peer_address, &self.common.settings)?))
    }
}

/// One connection to one peer. It heals by itself; [`Link::drop_channel`] forces it to.
pub struct Link {
    pub common: Arc<Common>,
    pub id: u64,
    pub node: NodeInfo,
    channel: Mutex<Option<Channel>>,
    refused_at: Mutex<Option<Instant>>,
}

/// A peer that refuses this node does so at every attempt: it is told to the operator this often.
const REFUSAL_EVERY: Duration = Duration::from_secs(10);

impl Link {
    fn new(common: Arc<Common>, id: u64, node: NodeInfo) -> Self {
        Self { common, id, node, channel: Mutex::default(), refused_at: Mutex::default() }
    }

    pub fn client(&self) -> Result<PeerClient<Channel>, Status> {
        let mut kept = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match &*kept {
            Some(channel) => channel.clone(),
            None => {
                let made = channel(self.common.transport.clone(), &self.node.peer_address, &self.common.settings)
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

    /// The peer has looked at this node's envelope and will have none of it: an operator must look.
    pub fn refused(&self, status: &Status) {
        let mut refused_at = self.refused_at.lock().unwrap_or_else(PoisonError::into_inner);
        if refused_at.is_none_or(|at| at.elapsed() >= REFUSAL_EVERY) {
            *refused_at = Some(Instant::now());
            let reason = reason::told(status).reason;
            tracing::warn!(peer = self.id, reason, "a peer refuses this node: {}", status.message());
        }
    }

    pub fn envelope(&self) -> Envelope {
        let identity = &self.common.identity;
        Envelope {
            cluster_id: identity.cluster_id().map(|id| id.to_vec()).unwrap_or_default().into(),
            from_node: identity.node_id,
            from_incarnation: identity.info.incarnation.to_vec().into(),
            to_node: self.id,
            group: GROUP,
            to_incarnation: self.node.incarnation.to_vec().into(),
        }
    }
}
