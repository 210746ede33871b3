//! A log entry, as it lies on disk and travels between replicas.
//!
//!     entry       header 32 { term u64, node_id u64, index u64, payload u8, zero [u8; 7] }, then the payload
//!     blank       nothing: what a new leader begins its term with
//!     command     a body (`batch`)
//!     membership  { version u8 = 1, zero [u8; 3], configs_count u32 }
//!                 per config { voters_count u32, zero u32 }, then the voters' ids, u64, ascending
//!                 { nodes_count u32, zero u32 }
//!                 per node { node_id u64, incarnation [u8; 16] }, then three texts { bytes u16, UTF-8 }:
//!                 peer address, client address, data centre; ascending by id
//!
//! All integers are little-endian. There is no length and no checksum: the log's record and the peer's message around it
//! have both.
//!
//! Laws
//! * One entry, one encoding: what is read back encodes to the same bytes.
//!
//! Not here: openraft's types. `raft-store` turns these into them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Malformed, batch::Reader};

/// The bytes before the payload.
pub const HEADER_BYTES: usize = 32;

const MEMBERSHIP_VERSION: u8 = 1;

/// An address or a data centre's name takes two bytes of length.
const TEXT_BYTES_MAX: usize = u16::MAX as usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// The leader that proposed it.
    pub node_id: u64,
    /// Its place in the log.
    pub index: u64,
    pub payload: Payload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Blank,
    /// A body (`batch`), not parsed.
    Command(Bytes),
    Membership(Membership),
}

/// Who votes, and who is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// The voters; two sets while the membership changes from the first to the second.
    pub configs: Vec<BTreeSet<u64>>,
    /// Voters and learners.
    pub nodes: BTreeMap<u64, NodeInfo>,
}

/// What is known of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// host:port of its peer door.
    pub peer_address: String,
    /// host:port of its client door.
    pub client_address: String,
    pub data_center: String,
    /// Drawn when its data folder was made: a wiped node is another one.
    pub incarnation: [u8; 16],
}

impl fmt::Display for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.peer_address, self.data_center)
    }
}

impl Entry {
    pub fn encode(&self) -> Bytes {
        let (header, payload) = self.encode_parts();
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        bytes.put_slice(&header);
        bytes.put_slice(&payload);
        bytes.freeze()
    }

    /// Header and payload apart, so that a command's bytes aren't copied.
    pub fn encode_parts(&self) -> ([u8; HEADER_BYTES], Bytes) {
        let (kind, payload) = match &self.payload {
            Payload::Blank => (0, Bytes::new()),
            Payload::Command(body) => (1, body.clone()),
            Payload::Membership(membership) => (2, membership.encode()),
        };
        let mut header = [0; HEADER_BYTES];
        let mut rest = &mut header[..];
        rest.put_u64_le(self.term);
        rest.put_u64_le(self.node_id);
        rest.put_u64_le(self.index);
        rest.put_u8(kind);
        (header, payload)
    }

    /// A command's body stays a slice of `bytes`.
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "entry");
        let term = reader.u64("term")?;
        let node_id = reader.u64("node_id")?;
        let index = reader.u64("index")?;
        let kind = reader.u8("payload")?;
        reader.expect(0, 7, "reserved")?;
        let rest = reader.take(reader.remaining(), "payload")?;
        let payload = match kind {
            0 if rest.is_empty() => Payload::Blank,
            0 => return Err(reader.refuse("payload", "must be empty in a blank entry")),
            1 => Payload::Command(rest),
            2 => Payload::Membership(Membership::parse(rest)?),
            other => return Err(reader.refuse("payload", format!("{other} is none"))),
        };
        Ok(Self { term, node_id, index, payload })
    }
}

impl Membership {
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(MEMBERSHIP_VERSION);
        bytes.put_bytes(0, 3);
        bytes.put_u32_le(self.configs.len() as u32);
        for voters in &self.configs {
            bytes.put_u32_le(voters.len() as u32);
            bytes.put_u32_le(0);
            voters.iter().for_each(|id| bytes.put_u64_le(*id));
        }
        bytes.put_u32_le(self.nodes.len() as u32);
        bytes.put_u32_le(0);
        for (id, node) in &self.nodes {
            bytes.put_u64_le(*id);
            bytes.put_slice(&node.incarnation);
            put_text(&mut bytes, &node.peer_address);
            put_text(&mut bytes, &node.client_address);
            put_text(&mut bytes, &node.data_center);
        }
        bytes.freeze()
    }

    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "membership");
        reader.expect(MEMBERSHIP_VERSION as u64, 1, "version")?;
        reader.expect(0, 3, "reserved")?;
        let mut membership = Self::default();
        for _ in 0..reader.u32("configs_count")? {
            membership.configs.push(read_voters(&mut reader)?);
        }
        let nodes_count = reader.u32("nodes_count")?;
        reader.expect(0, 4, "reserved")?;
        for _ in 0..nodes_count {
            let id = reader.u64("node_id")?;
            let node = NodeInfo {
                incarnation: reader.take(16, "incarnation")?[..].try_into().expect("16 bytes were taken"),
                peer_address: read_text(&mut reader, "peer_address")?,
                client_address: read_text(&mut reader, "client_address")?,
                data_center: read_text(&mut reader, "data_center")?,
            };
            ascending(&reader, "node_id", membership.nodes.last_key_value().map(|(last, _)| *last), id)?;
            membership.nodes.insert(id, node);
        }
        reader.end()?;
        Ok(membership)
    }
}

fn read_voters(reader: &mut Reader) -> Result<BTreeSet<u64>, Malformed> {
    let voters_count = reader.u32("voters_count")?;
    reader.expect(0, 4, "reserved")?;
    let mut voters = BTreeSet::new();
    for _ in 0..voters_count {
        let id = reader.u64("voter")?;
        ascending(reader, "voter", voters.last().copied(), id)?;
        voters.insert(id);
    }
    Ok(voters)
}

/// Order is part of the encoding: without it, one membership would have many.
fn ascending(reader: &Reader, field: &str, last: Option<u64>, next: u64) -> Result<(), Malformed> {
    match last {
        Some(last) if last >= next => Err(reader.refuse(field, format!("{next} comes after {last}"))),
        _ => Ok(()),
    }
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    assert!(text.len() <= TEXT_BYTES_MAX, "an address is checked when a node joins");
    bytes.put_u16_le(text.len() as u16);
    bytes.put_slice(text.as_bytes());
}

fn read_text(reader: &mut Reader, field: &str) -> Result<String, Malformed> {
    let count = reader.u16(field)? as usize;
    let bytes = reader.take(count, field)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| reader.refuse(field, "is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::{btree_map, btree_set, vec},
        prelude::*,
    };

    use super::*;

    fn node() -> impl Strategy<Value = NodeInfo> {
        (".{0,20}", ".{0,20}", ".{0,8}", any::<[u8; 16]>()).prop_map(
            |(peer_address, client_address, data_center, incarnation)| NodeInfo {
                peer_address,
                client_address,
                data_center,
                incarnation,
            },
        )
    }

    fn payload() -> impl Strategy<Value = Payload> {
        let membership = (vec(btree_set(any::<u64>(), 0..6), 0..3), btree_map(any::<u64>(), node(), 0..6))
            .prop_map(|(configs, nodes)| Payload::Membership(Membership { configs, nodes }));
        let command = vec(any::<u8>(), 0..300).prop_map(|body| Payload::Command(body.into()));
        prop_oneof![Just(Payload::Blank), command, membership]
    }

    proptest! {
        #[test]
        fn an_entry_gives_back_itself(term: u64, node_id: u64, index: u64, payload in payload()) {
            let entry = Entry { term, node_id, index, payload };
            prop_assert_eq!(Entry::parse(entry.encode()), Ok(entry));
        }

        #[test]
        fn one_entry_has_one_encoding(payload in payload(), at: prop::sample::Index, bit in 0u8..8) {
            let bytes = Entry { term: 1, node_id: 2, index: 3, payload }.encode();
            let mut flipped = bytes.to_vec();
            let at = at.index(flipped.len());
            flipped[at] ^= 1 << bit;
            if let Ok(entry) = Entry::parse(flipped.clone().into()) {
                prop_assert_eq!(entry.encode().to_vec(), flipped);
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(kind in 0u8..4, rest in vec(any::<u8>(), 0..200)) {
            let bytes = [&[0; 24][..], &[kind, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0], &rest].concat();
            let _ = Entry::parse(bytes.into());
        }
    }

    #[test]
    fn the_layout_of_an_entry_is_fixed() {
        let entry = Entry { term: 1, node_id: 2, index: 3, payload: Payload::Command(Bytes::from_static(b"body")) };
        let mut expected = [0; 36];
        (expected[0], expected[8], expected[16], expected[24]) = (1, 2, 3, 1);
        expected[32..].copy_from_slice(b"body");
        assert_eq!(entry.encode()[..], expected);
    }

    #[test]
    fn the_layout_of_a_membership_is_fixed() {
        let node = NodeInfo {
            peer_address: "p:1".into(),
            client_address: "c:2".into(),
            data_center: "a".into(),
            incarnation: [7; 16],
        };
        let membership = Membership { configs: vec![[1].into(), [1, 2].into()], nodes: [(1, node)].into() };
        let expected = [
            &[1, 0, 0, 0, 2, 0, 0, 0][..],
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[7; 16],
            b"\x03\0p:1\x03\0c:2\x01\0a",
        ];
        assert_eq!(membership.encode(), expected.concat());
    }

    #[test]
    fn voters_and_nodes_out_of_order_are_refused() {
        let voters = |ids: [u8; 2]| {
            let id = |id: u8| [id, 0, 0, 0, 0, 0, 0, 0];
            [[1, 0, 0, 0, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0], id(ids[0]), id(ids[1]), [0; 8]].concat()
        };
        assert!(Membership::parse(voters([1, 2]).into()).is_ok());
        assert_eq!(Membership::parse(voters([2, 1]).into()).unwrap_err().field, "membership.voter");
        assert_eq!(Membership::parse(voters([1, 1]).into()).unwrap_err().field, "membership.voter");
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused() {
        let blank = Entry { term: 1, node_id: 2, index: 3, payload: Payload::Blank }.encode();
        assert_eq!(Entry::parse(blank.slice(..31)).unwrap_err().field, "entry.reserved");
        let longer: Bytes = [&blank[..], &[0]].concat().into();
        assert_eq!(Entry::parse(longer).unwrap_err().field, "entry.payload");
    }
}
