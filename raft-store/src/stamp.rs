//! The stamp: which entry the durable state is the state of, in the same atomic batch as the state itself.
//!
//! Not here: the identity of the node and its cluster (`identity.rs`).

use crate::admin::{VERSION_MAX, VERSION_MIN};
use crate::codec::{self, Put, Take};
use crate::engine::{Engine, get_sealed};
use crate::error::StoreError;
use crate::schema::{Family, STAMP};
use crate::type_config::{LogId, StoredMembership, decode_membership, encode_membership, log_id};
use bytes::Bytes;
use jangbu_ledger::{Books, Digest, EventNumber, Head};
use jangbu_proto::entry;

/// What a flush says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The last entry whose effects are in the state.
    pub applied: Option<LogId>,
    /// The membership as of that entry.
    pub membership: StoredMembership,
    /// Of all memberships ever applied: ids are never used again.
    pub highest_node_id: u64,
    pub head: Head,
    pub accounts_count: u32,
    /// Per stripe of accounts: the events below this number are in its pages (`accounts.rs`).
    pub stripes: Vec<EventNumber>,
    /// The cluster's (`admin.rs`). A program that doesn't know it refuses the state.
    pub version: u32,
}

impl Stamp {
    /// Of a state in which nothing has happened.
    pub fn start() -> Stamp {
        Stamp {
            applied: None,
            membership: StoredMembership::default(),
            highest_node_id: 0,
            head: Books::new().head(),
            accounts_count: 0,
            stripes: Vec::new(),
            version: VERSION_MIN,
        }
    }

    /// The stamp of a state; that of the start where nothing was flushed yet.
    pub fn read(engine: &dyn Engine) -> Result<Stamp, StoreError> {
        match get_sealed(engine, Family::Meta, STAMP)? {
            None => Ok(Stamp::start()),
            Some(payload) => {
                let stamp =
                    Stamp::decode(&payload).ok_or_else(|| codec::corrupt(Family::Meta, STAMP, "is no stamp"))?;
                check_version(stamp.version)?;
                Ok(stamp)
            }
        }
    }

    pub fn applied_index(&self) -> u64 {
        self.applied.map_or(0, |id| id.index)
    }

    /// Those of the newest configuration.
    pub fn voters(&self) -> Vec<u64> {
        let configs = self.membership.membership().get_joint_config();
        configs.last().map(|voters| voters.iter().copied().collect()).unwrap_or_default()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_log_id(&mut out, self.applied);
        put_log_id(&mut out, *self.membership.log_id());
        let membership = encode_membership(self.membership.membership()).encode();
        out.put_u32(membership.len() as u32);
        out.extend_from_slice(&membership);
        out.put_u64(self.highest_node_id);
        put_head(&mut out, &self.head);
        out.put_u32(self.accounts_count);
        out.put_u32(self.stripes.len() as u32);
        self.stripes.iter().for_each(|stripe| out.put_u64(stripe.0));
        // A state of version 1 is what programs before versions wrote and read; what follows makes them refuse a later one.
        if self.version > VERSION_MIN {
            out.put_u32(self.version);
        }
        out
    }

    fn decode(payload: &[u8]) -> Option<Stamp> {
        let mut take = Take::new(payload);
        let applied = take_log_id(&mut take)?;
        let membership_at = take_log_id(&mut take)?;
        let membership_bytes = take.u32()? as usize;
        let membership = entry::Membership::parse(Bytes::copy_from_slice(take.bytes(membership_bytes)?)).ok()?;
        let stamp = Stamp {
            applied,
            membership: StoredMembership::new(membership_at, decode_membership(membership).ok()?),
            highest_node_id: take.u64()?,
            head: take_head(&mut take)?,
            accounts_count: take.u32()?,
            stripes: (0..take.u32()?).map(|_| take.u64().map(EventNumber)).collect::<Option<_>>()?,
            version: if take.is_empty() { VERSION_MIN } else { take.u32()? },
        };
        take.is_empty().then_some(stamp)
    }
}

/// A state of a version that this program doesn't know is not guessed at.
fn check_version(version: u32) -> Result<(), StoreError> {
    if version <= VERSION_MAX {
        return Ok(());
    }
    Err(StoreError::TooNew { version, version_max: VERSION_MAX })
}

fn put_log_id(out: &mut Vec<u8>, id: Option<LogId>) {
    out.put_u8(u8::from(id.is_some()));
    let (term, node_id, index) = id.map_or((0, 0, 0), |id| (id.leader_id.term, id.leader_id.node_id, id.index));
    out.put_u64(term);
    out.put_u64(node_id);
    out.put_u64(index);
}

fn take_log_id(take: &mut Take<'_>) -> Option<Option<LogId>> {
    let present = take.u8()? == 1;
    let id = log_id(take.u64()?, take.u64()?, take.u64()?);
    Some(present.then_some(id))
}

fn put_head(out: &mut Vec<u8>, head: &Head) {
    out.put_u64(head.next_event.0);
    out.put_u64(head.last_timestamp);
    out.put_u64(head.last_account_timestamp);
    out.put_u64(head.last_transfer_timestamp);
    out.put_u64(head.pendings_open);
    let mut digest = [0; Digest::BYTES];
    head.digest.encode(&mut digest);
    out.extend_from_slice(&digest);
}

fn take_head(take: &mut Take<'_>) -> Option<Head> {
    Some(Head {
        next_event: EventNumber(take.u64()?),
        last_timestamp: take.u64()?,
        last_account_timestamp: take.u64()?,
        last_transfer_timestamp: take.u64()?,
        pendings_open: take.u64()?,
        digest: Digest::decode(take.bytes(Digest::BYTES)?.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn a_stamp_comes_back() {
        let nodes = BTreeMap::from([(7, entry::NodeInfo { peer_address: "a:1".into(), ..Default::default() })]);
        let membership = openraft::Membership::new(vec![BTreeSet::from([7])], nodes).unwrap();
        let stamp = Stamp {
            applied: Some(log_id(3, 7, 99)),
            membership: StoredMembership::new(Some(log_id(1, 7, 5)), membership),
            highest_node_id: 9,
            head: Head { next_event: EventNumber(12), last_timestamp: 34, pendings_open: 5, ..Books::new().head() },
            accounts_count: 6,
            stripes: vec![EventNumber(1), EventNumber(12)],
            version: 2,
        };
        assert_eq!(Stamp::decode(&stamp.encode()).as_ref(), Some(&stamp));
        let first = Stamp { version: 1, ..stamp };
        assert_eq!(Stamp::decode(&first.encode()), Some(first));
        assert_eq!(Stamp::decode(&Stamp::start().encode()), Some(Stamp::start()));
    }
}
