//! Who this node is, and which cluster it belongs to.
//!
//! The data folder says so (`raft_store::identity`). A fresh folder has an incarnation of its own and no cluster; it
//! gets one when a cluster is made of it, or when a peer calls that means this very incarnation.
//!
//! Laws
//! * A node joins one cluster, once. A wiped folder is another incarnation: the cluster refuses it under the old id.
//!
//! Not here: what peers must say about themselves (`peers/envelope.rs`).

use std::sync::{Arc, OnceLock};

use jangbu_proto::entry::NodeInfo;
use jangbu_raft_store::{
    DataFolder, StoreError,
    blocking::{Blocking, Lane, run_blocking},
};
use tokio::sync::Mutex;

pub struct Identity {
    pub node_id: u64,
    pub info: NodeInfo,
    cluster_id: OnceLock<[u8; 16]>,
    folder: DataFolder,
    blocking: Arc<dyn Blocking>,
    /// Two peers may call a fresh node at once.
    joining: Mutex<()>,
}

impl Identity {
    pub fn new(node_id: u64, info: NodeInfo, folder: DataFolder, blocking: Arc<dyn Blocking>) -> Self {
        let cluster_id = folder.identity().cluster_id.map(OnceLock::from).unwrap_or_default();
        Self { node_id, info, cluster_id, folder, blocking, joining: Mutex::new(()) }
    }

    /// `None`: fresh.
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.cluster_id.get().copied()
    }

    /// Joins a cluster, durably. True if this node is in that cluster now. Blocks on the disk.
    pub async fn join(&self, cluster_id: [u8; 16]) -> Result<bool, StoreError> {
        let _one_at_a_time = self.joining.lock().await;
        if let Some(joined) = self.cluster_id() {
            return Ok(joined == cluster_id);
        }
        let folder = self.folder.clone();
        run_blocking(&*self.blocking, Lane::Snapshot, move || folder.join(cluster_id)).await?;
        tracing::info!(cluster_id = %hex(&cluster_id), "this node belongs to a cluster now");
        Ok(*self.cluster_id.get_or_init(|| cluster_id) == cluster_id)
    }
}

/// For logs and messages.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
