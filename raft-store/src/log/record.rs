//! One record of the stream: a header, a body, zeros up to the next multiple of 32 bytes.
//!
//!      0 magic u32            4 checksum of the header from byte 8 on, u32
//!      8 segment u64         16 position u64         24 durable u64
//!     32 group u32           36 kind u8, zero [u8; 3]
//!     40 body_bytes u32      44 checksum of the body u32
//!     48 stamp      { term u64, node_id u64, index u64 }
//!     72 committed  { term u64, node_id u64, index u64 }
//!     96 body
//!
//! All integers are little-endian, checksums are CRC-32C. A stamp is the log id that the record is about; a vote puts 0 or
//! 1 in `index` for granted or committed; all bits set means none.
//!
//! Laws
//! * A record is only ever taken for what it is where it lies: segment, position and group are under its checksum, so what
//!   an earlier use of the file left behind is never read as new.
//! * `durable` says how far the stream was known to be synced when this record was written. It never says more.
//! * Every byte is under a checksum or known to be zero.

use jangbu_ledger::planted::{self, Bug};
use std::{fmt, ops::Range};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use jangbu_proto::entry;

use crate::type_config::{LeaderId, LogId, Vote, log_id};

pub(super) const HEADER_BYTES: usize = 96;

/// Records begin at multiples of this, so that a search behind a hole has few places to look at.
pub(super) const ALIGNMENT: u64 = 32;

const MAGIC: u32 = u32::from_le_bytes(*b"JBLR");

/// The format of the log's files; stands in each segment's head.
const FORMAT_VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first record of a segment: what must be known without the segments before it.
    Head = 1,
    Entry = 2,
    Vote = 3,
    /// All entries after the stamp are void.
    Truncate = 4,
    /// All entries up to the stamp are gone.
    Purge = 5,
    /// Says only what every header says: how far the stream is durable, and what is committed.
    Mark = 6,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        [Self::Head, Self::Entry, Self::Vote, Self::Truncate, Self::Purge, Self::Mark]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// A log id or a vote, or none, in 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) term: u64,
    pub(super) node_id: u64,
    pub(super) index: u64,
}

impl Stamp {
    pub(super) const NONE: Self = Self { term: u64::MAX, node_id: u64::MAX, index: u64::MAX };

    pub(super) fn of(id: Option<LogId>) -> Self {
        id.map_or(Self::NONE, Self::from)
    }

    fn of_vote(vote: Option<Vote>) -> Self {
        vote.map_or(Self::NONE, Self::from)
    }

    pub(super) fn log_id(self) -> Option<LogId> {
        (self != Self::NONE).then(|| log_id(self.term, self.node_id, self.index))
    }

    pub(super) fn vote(self) -> Option<Vote> {
        (self != Self::NONE).then_some(Vote {
            leader_id: LeaderId { term: self.term, node_id: self.node_id },
            committed: self.index == 1,
        })
    }

    fn put(self, bytes: &mut impl BufMut) {
        [self.term, self.node_id, self.index].into_iter().for_each(|word| bytes.put_u64_le(word));
    }

    fn get(bytes: &mut &[u8]) -> Self {
        Self { term: bytes.get_u64_le(), node_id: bytes.get_u64_le(), index: bytes.get_u64_le() }
    }
}

impl From<LogId> for Stamp {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
    }
}

impl From<Vote> for Stamp {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node_id: vote.leader_id.node_id, index: vote.committed as u64 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) segment: u64,
    pub(super) position: u64,
    pub(super) durable: u64,
    pub(super) group: u32,
    pub(super) kind: Kind,
    pub(super) body_bytes: u32,
    pub(super) body_checksum: u32,
    pub(super) stamp: Stamp,
    pub(super) committed: Stamp,
}

/// A body in up to two pieces, so that an entry's megabyte is written from where it lies.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    pub(super) header: Option<[u8; entry::HEADER_BYTES]>,
    pub(super) payload: Bytes,
}

impl Body {
    pub(super) fn header(&self) -> &[u8] {
        self.header.as_ref().map_or(&[], |header| header)
    }

    pub(super) fn len(&self) -> usize {
        self.header().len() + self.payload.len()
    }

    pub(super) fn checksum(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(self.header()), &self.payload)
    }
}

/// How many bytes of the stream a record takes.
pub(super) fn record_bytes(body_bytes: usize) -> u64 {
    (HEADER_BYTES as u64 + body_bytes as u64).next_multiple_of(ALIGNMENT)
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = &mut bytes[8..];
        rest.put_u64_le(self.segment);
        rest.put_u64_le(self.position);
        rest.put_u64_le(self.durable);
        rest.put_u32_le(self.group);
        rest.put_u32_le(self.kind as u32);
        rest.put_u32_le(self.body_bytes);
        rest.put_u32_le(self.body_checksum);
        self.stamp.put(&mut rest);
        self.committed.put(&mut rest);
        let checksum = crc32c::crc32c(&bytes[8..]);
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn end(&self) -> u64 {
        self.position + record_bytes(self.body_bytes as usize)
    }
}

/// Why bytes are not the record that should lie there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bad {
    /// Nothing was written here, or something else was.
    NoRecord,
    Header(&'static str),
    /// The header is right; what follows is not what was written with it.
    Body,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecord => write!(f, "no record begins here"),
            Self::Header(reason) => write!(f, "the record's header is wrong: {reason}"),
            Self::Body => write!(f, "the record's checksum does not match its contents"),
        }
    }
}

/// A record found where it should be.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) header: Header,
    bytes: &'a [u8],
}

impl<'a> Found<'a> {
    pub(super) fn body(&self) -> &'a [u8] {
        &self.bytes[self.body_range()]
    }

    /// Within the bytes that were parsed.
    pub(super) fn body_range(&self) -> Range<usize> {
        HEADER_BYTES..HEADER_BYTES + self.header.body_bytes as usize
    }
}

/// The header of the record that should lie at `position`, its body not looked at.
pub(super) fn parse_header(bytes: &[u8], segment: u64, position: u64, group: u32) -> Result<Header, Bad> {
    let mut rest = bytes.get(..HEADER_BYTES).ok_or(Bad::NoRecord)?;
    if rest.get_u32_le() != MAGIC {
        return Err(Bad::NoRecord);
    }
    let checksum = rest.get_u32_le();
    if crc32c::crc32c(rest) != checksum {
        return Err(Bad::Header("its checksum does not match"));
    }
    let header = Header {
        segment: rest.get_u64_le(),
        position: rest.get_u64_le(),
        durable: rest.get_u64_le(),
        group: rest.get_u32_le(),
        kind: u8::try_from(rest.get_u32_le()).ok().and_then(Kind::from_code).ok_or(Bad::Header("unknown kind"))?,
        body_bytes: rest.get_u32_le(),
        body_checksum: rest.get_u32_le(),
        stamp: Stamp::get(&mut rest),
        committed: Stamp::get(&mut rest),
    };
    match header {
        // Left behind by an earlier use of the file.
        Header { segment: other, .. } if other != segment => Err(Bad::NoRecord),
        Header { position: other, .. } if other != position => Err(Bad::Header("it belongs to another position")),
        Header { group: other, .. } if other != group => Err(Bad::Header("it belongs to another group")),
        header => Ok(header),
    }
}

/// The record that should lie at `position`; `bytes` begins there and may go on beyond it.
pub(super) fn parse(bytes: &[u8], segment: u64, position: u64, group: u32) -> Result<Found<'_>, Bad> {
    let header = parse_header(bytes, segment, position, group)?;
    let bytes = bytes.get(..record_bytes(header.body_bytes as usize) as usize).ok_or(Bad::Body)?;
    let found = Found { header, bytes };
    let padding = &bytes[found.body_range().end..];
    let is_blind = planted::is(Bug::TornTailAccepted);
    let whole =
        is_blind || crc32c::crc32c(found.body()) == found.header.body_checksum && padding.iter().all(|byte| *byte == 0);
    whole.then_some(found).ok_or(Bad::Body)
}

/// What a segment's first record says, so that the segments before it can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    /// The index that the next entry must have; none if any will do.
    pub(super) next: Option<u64>,
}

impl Head {
    pub(super) const BYTES: usize = 64;

    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(Self::BYTES);
        bytes.put_u32_le(FORMAT_VERSION);
        bytes.put_u32_le(0);
        Stamp::of_vote(self.vote).put(&mut bytes);
        Stamp::of(self.purged).put(&mut bytes);
        bytes.put_u64_le(self.next.unwrap_or(u64::MAX));
        bytes.freeze()
    }

    /// `Err` with the version if it is not ours.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, u32> {
        let version = if bytes.len() == Self::BYTES { bytes.get_u32_le() } else { 0 };
        if version != FORMAT_VERSION {
            return Err(version);
        }
        bytes.advance(4);
        let (vote, purged) = (Stamp::get(&mut bytes).vote(), Stamp::get(&mut bytes).log_id());
        let next = bytes.get_u64_le();
        Ok(Self { vote, purged, next: (next != u64::MAX).then_some(next) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(body: &Body) -> Vec<u8> {
        let header = Header {
            segment: 3,
            position: 640,
            durable: 320,
            group: 0,
            kind: Kind::Entry,
            body_bytes: body.len() as u32,
            body_checksum: body.checksum(),
            stamp: log_id(2, 1, 9).into(),
            committed: Stamp::NONE,
        };
        let mut bytes = [&header.encode()[..], body.header(), &body.payload].concat();
        bytes.resize(record_bytes(body.len()) as usize, 0);
        bytes
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let body = Body { header: Some([7; 32]), payload: Bytes::from_static(b"payload") };
        let bytes = sample(&body);
        let found = parse(&bytes, 3, 640, 0).unwrap();
        assert_eq!(found.header.stamp.log_id(), Some(log_id(2, 1, 9)));
        assert_eq!(found.header.committed.log_id(), None);
        assert_eq!(found.body(), [&[7; 32][..], b"payload"].concat());
        assert_eq!(found.header.end() - 640, bytes.len() as u64);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = sample(&Body { header: None, payload: Bytes::from_static(b"payload") });
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bytes, 3, 640, 0).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_is_nothing_anywhere_else() {
        let bytes = sample(&Body::default());
        assert!(parse(&bytes, 3, 640, 0).is_ok());
        assert_eq!(parse(&bytes, 4, 640, 0).unwrap_err(), Bad::NoRecord, "an earlier use of the file");
        assert!(matches!(parse(&bytes, 3, 672, 0), Err(Bad::Header(_))));
        assert!(matches!(parse(&bytes, 3, 640, 1), Err(Bad::Header(_))));
        assert_eq!(parse(&bytes[..64], 3, 640, 0).unwrap_err(), Bad::NoRecord);
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let vote = Vote { leader_id: LeaderId { term: 4, node_id: 2 }, committed: true };
        for head in [
            Head { vote: None, purged: None, next: None },
            Head { vote: Some(vote), purged: Some(log_id(1, 2, 3)), next: Some(17) },
        ] {
            assert_eq!(Head::parse(&head.encode()), Ok(head));
        }
        assert_eq!(Head::parse(&[9, 0, 0, 0]), Err(0));
    }
}
