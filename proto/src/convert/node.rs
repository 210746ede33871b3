//! Who a node is.

use bytes::Bytes;

use crate::{Malformed, cluster::v1, entry::NodeInfo};

pub fn node_to_wire(node_id: u64, node: &NodeInfo) -> v1::NodeInfo {
    v1::NodeInfo {
        node_id,
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        data_center: node.data_center.clone(),
        incarnation: Bytes::copy_from_slice(&node.incarnation),
    }
}

/// A node's id, which is never zero, and what is known of it.
pub fn node_from_wire(node: Option<&v1::NodeInfo>) -> Result<(u64, NodeInfo), Malformed> {
    let node = node.ok_or_else(|| Malformed::new("node", "is missing"))?;
    if node.node_id == 0 {
        return Err(Malformed::new("node.node_id", "must not be zero"));
    }
    let info = NodeInfo {
        peer_address: node.peer_address.clone(),
        client_address: node.client_address.clone(),
        data_center: node.data_center.clone(),
        incarnation: bytes_16("node.incarnation", &node.incarnation)?,
    };
    Ok((node.node_id, info))
}

/// A cluster id, an incarnation or a digest.
pub fn bytes_16(field: &str, bytes: &[u8]) -> Result<[u8; 16], Malformed> {
    bytes.try_into().map_err(|_| Malformed::new(field, format!("has {} bytes, not 16", bytes.len())))
}
