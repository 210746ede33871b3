//! What proves who this node is, to clients and to other nodes; read again whenever the files change.
//!
//!     tls.client.*   shown to clients; believes the authority for clients
//!     tls.peer.*     shown to nodes, calling and called; believes the authority for nodes
//!
//! Laws
//! * A node shows peers a certificate of its own cluster and id, or doesn't start.
//! * New keys are for new connections; those that are there go on. Keys that can't be used are not taken.
//!
//! Not here: TLS itself (`proto::transport`), what a certificate allows (`access.rs`).

use std::{sync::Arc, time::Duration};

use jangbu_proto::{
    grant::Identity,
    transport::{Certificates, KeyError, Keyring, TlsTransport, Transport},
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{DoorKeys, Tls},
    environment::Clock,
    error::NodeError,
    metrics::{CLIENTS, Metrics, PEERS},
};

/// How often the files are looked at: often enough for whoever waits for it, and next to nothing to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often an operator is told that a certificate will expire.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// From when on. Whoever renews by the month has had a reminder too many by then.
const WARN_BEFORE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The keys of a node's doors.
pub struct Keys {
    cluster: String,
    client: Arc<Keyring>,
    peer: Arc<Keyring>,
}

impl Keys {
    /// Reads the files; blocks on them. `None`: the doors are open to plain text.
    pub fn open(tls: &Tls, node_id: u64) -> Result<Option<Self>, NodeError> {
        let (Some(client), Some(peer)) = (&tls.client, &tls.peer) else { return Ok(None) };
        if !tls.is_on() {
            return Ok(None);
        }
        let callers = tls.client_certificates.into();
        let myself = Identity::Node { cluster: tls.cluster.clone(), id: node_id };
        let peer = Keyring::open(peer.into(), Certificates::Required, Some(myself)).map_err(unusable)?;
        let client = Keyring::open(client.into(), callers, None).map_err(unusable)?;
        Ok(Some(Self { cluster: tls.cluster.clone(), client, peer }))
    }

    pub fn client_door(&self, below: Arc<dyn Transport>) -> TlsTransport {
        TlsTransport::to_hosts(below, self.client.clone())
    }

    pub fn peer_door(&self, below: Arc<dyn Transport>) -> TlsTransport {
        TlsTransport::to_nodes(below, self.peer.clone(), &self.cluster)
    }

    /// Seconds since the Unix epoch at which the first of the certificates expires. Tells `metrics` of each.
    fn expires_at_s(&self, metrics: &Metrics) -> i64 {
        let each = [(CLIENTS, &self.client), (PEERS, &self.peer)];
        let told = each.into_iter().filter_map(|(shown_to, keyring)| {
            let expires_at_s = keyring.own()?.expires_at_s;
            metrics.certificate_expires_at(shown_to, expires_at_s);
            Some(expires_at_s)
        });
        told.min().unwrap_or(i64::MAX)
    }

    /// Looks at the files until `stop`.
    pub async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>, stop: CancellationToken) {
        let mut warned_at: Option<Instant> = None;
        loop {
            refresh(CLIENTS, &self.client);
            refresh(PEERS, &self.peer);
            let left_s = self.expires_at_s(&metrics) - (clock.wall_ns() / 1_000_000_000) as i64;
            let is_late = left_s < WARN_BEFORE.as_secs() as i64;
            if is_late && warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                warned_at = Some(Instant::now());
                tracing::warn!(
                    left_hours = left_s / 3_600,
                    "a certificate of this node expires soon: replace its files"
                );
            }
            if stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none() {
                return;
            }
        }
    }
}

fn refresh(shown_to: &'static str, keyring: &Keyring) {
    match keyring.refresh() {
        Ok(false) => {}
        Ok(true) => {
            let expires_at_s = keyring.own().map(|own| own.expires_at_s);
            tracing::info!(shown_to, expires_at_s, "new keys are taken");
        }
        Err(error) => tracing::error!(shown_to, %error, "new keys can't be used; the ones before go on"),
    }
}

fn unusable(error: KeyError) -> NodeError {
    NodeError::Config(format!("tls: {error}"))
}

impl From<&DoorKeys> for jangbu_proto::transport::KeyFiles {
    fn from(keys: &DoorKeys) -> Self {
        let own = jangbu_proto::transport::OwnFiles { certificate: keys.certificate.clone(), key: keys.key.clone() };
        Self { authority: keys.authority.clone(), own: Some(own) }
    }
}
