//! openraft's type parameters, named once, and the way between its entries and our bytes.
//!
//! Laws
//! * openraft's own serialisation is never used: what is on disk and on the wire is `proto::entry`.
//!
//! Not here: what a command means (`proto::batch`, `state_machine.rs`).

use std::fmt;

use bytes::Bytes;
use jangbu_proto::{
    Malformed,
    entry::{self, NodeInfo, Payload},
};
use openraft::{EntryPayload, OptionalSend, entry::RaftEntry};

use crate::{rt::Rt, watched::Watched};

/// The same in production and in simulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

/// By hand, as openraft's macro takes no responder but its own.
impl openraft::RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Applied;
    type NodeId = u64;
    type Node = NodeInfo;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Command, u64, NodeInfo>;
    type Entry = openraft::Entry<LeaderId, Self::Payload>;
    type Responder<T>
        = Watched<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = Rt;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub type LeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, crate::snapshot::SnapshotData>;
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// The body of an entry (`proto::batch`): the requests of many callers, packed.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub Bytes);

/// What applying an entry gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub log_index: u64,
    pub term: u64,
    /// `proto::batch` replies, one per request; empty for an entry without requests.
    pub replies: Bytes,
}

/// A body may be a megabyte: its length says enough in a log line.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({self})")
    }
}

pub fn log_id(term: u64, node_id: u64, index: u64) -> LogId {
    LogId { leader_id: LeaderId { term, node_id }, index }
}

/// Header and payload of `entry` as bytes. A command's body is not copied.
pub fn encode_entry(entry: &Entry) -> ([u8; entry::HEADER_BYTES], Bytes) {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(Command(body)) => Payload::Command(body.clone()),
        EntryPayload::Membership(membership) => Payload::Membership(encode_membership(membership)),
    };
    let LogId { leader_id, index } = entry.log_id;
    entry::Entry { term: leader_id.term, node_id: leader_id.node_id, index, payload }.encode_parts()
}

/// A command's body stays a slice of `bytes`.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, Malformed> {
    let entry = entry::Entry::parse(bytes)?;
    let payload = match entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(body) => EntryPayload::Normal(Command(body)),
        Payload::Membership(membership) => EntryPayload::Membership(decode_membership(membership)?),
    };
    Ok(Entry::new(log_id(entry.term, entry.node_id, entry.index), payload))
}

pub fn encode_membership(membership: &openraft::Membership<u64, NodeInfo>) -> entry::Membership {
    entry::Membership {
        configs: membership.get_joint_config().to_vec(),
        nodes: membership.nodes().map(|(id, node)| (*id, node.clone())).collect(),
    }
}

pub fn decode_membership(membership: entry::Membership) -> Result<openraft::Membership<u64, NodeInfo>, Malformed> {
    openraft::Membership::new(membership.configs, membership.nodes)
        .map_err(|error| Malformed::new("membership", error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn round_trip(payload: EntryPayload<Command, u64, NodeInfo>) {
        let before = Entry::new(log_id(3, 7, 42), payload);
        let (header, payload) = encode_entry(&before);
        let after = decode_entry([&header[..], &payload].concat().into()).unwrap();
        assert_eq!(after, before);
    }

    #[test]
    fn every_kind_of_entry_comes_back_as_it_was() {
        round_trip(EntryPayload::Blank);
        round_trip(EntryPayload::Normal(Command(Bytes::from_static(b"body"))));
        let nodes: BTreeMap<u64, NodeInfo> = (1..=4)
            .map(|id| {
                (id, NodeInfo { peer_address: format!("h{id}:1"), incarnation: [id as u8; 16], ..NodeInfo::default() })
            })
            .collect();
        let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        round_trip(EntryPayload::Membership(openraft::Membership::new(configs, nodes).unwrap()));
    }
}
