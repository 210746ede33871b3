//! A segment of the archived log: entries that follow on each other, and the state behind the last of them.
//!
//!     length u32, description (JSON)     the entry before the first; the last one; the recorded digest
//!     length u32, entry                  as in the log (proto/src/entry.rs), again and again
//!
//! Integers are little-endian.
//!
//! Laws
//! * A segment is made of entries that follow on each other; what doesn't follow is refused where it is added.
//! * What is read back is what was written: as many entries, and the last one with the log id that was said.
//!
//! Not here: the object that holds it (`vault.rs`).

use bytes::{Buf as _, BufMut as _, Bytes};
use jangbu_proto::cluster::v1::StateMark;
use jangbu_proto::entry::Entry;
use serde::{Deserialize, Serialize};

use super::record::{At, Span};
use crate::text;

const FORMAT: u32 = 1;

/// What tells the state behind an entry from any other, as a node recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub log_index: u64,
    /// Of the books, hexadecimal.
    pub digest: String,
    /// Of the audit trail, hexadecimal.
    pub audit_hash: String,
    /// Log time.
    pub timestamp: u64,
}

impl From<StateMark> for Mark {
    fn from(mark: StateMark) -> Mark {
        Mark {
            log_index: mark.log_index,
            digest: text::hex(&mark.digest),
            audit_hash: text::hex(&mark.audit_hash),
            timestamp: mark.timestamp,
        }
    }
}

impl From<jangbu_raft_store::StateMark> for Mark {
    fn from(mark: jangbu_raft_store::StateMark) -> Mark {
        Mark {
            log_index: mark.at.log_index,
            digest: text::hex(&mark.at.digest),
            audit_hash: text::hex(&mark.audit_hash),
            timestamp: mark.at.timestamp,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    after: At,
    last: At,
    entries_count: u64,
    /// Of the state behind the last entry, if it was recorded there.
    mark: Option<Mark>,
}

/// Entries on their way into the archive.
#[derive(Debug)]
pub struct Builder {
    after: At,
    last: At,
    entries: Vec<Bytes>,
    bytes: usize,
    mark: Option<Mark>,
}

impl Builder {
    pub fn behind(after: At) -> Builder {
        Builder { after, last: after, entries: Vec::new(), bytes: 0, mark: None }
    }

    pub fn push(&mut self, entry: Bytes) -> Result<(), String> {
        self.last = follow(self.last, &entry)?;
        self.bytes += entry.len() + 4;
        self.entries.push(entry);
        self.mark = None;
        Ok(())
    }

    /// The state behind the last entry.
    pub fn record(&mut self, mark: Mark) -> Result<(), String> {
        if mark.log_index != self.last.index {
            return Err(format!("the digest is of entry {}, and the last one is {}", mark.log_index, self.last.index));
        }
        self.mark = Some(mark);
        Ok(())
    }

    pub fn last(&self) -> At {
        self.last
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    pub fn span(&self) -> Span {
        Span { first: self.after.index + 1, last: self.last.index }
    }

    pub fn encode(&self) -> Vec<u8> {
        let description = Description {
            format: FORMAT,
            after: self.after,
            last: self.last,
            entries_count: self.entries.len() as u64,
            mark: self.mark.clone(),
        };
        let json = serde_json::to_vec(&description).expect("text and numbers are always JSON");
        let mut out = Vec::with_capacity(4 + json.len() + self.bytes);
        for part in std::iter::once(&json[..]).chain(self.entries.iter().map(|entry| &entry[..])) {
            out.put_u32_le(part.len() as u32);
            out.extend_from_slice(part);
        }
        out
    }
}

/// A segment, read back.
#[derive(Debug)]
pub struct Segment {
    pub after: At,
    pub last: At,
    pub entries: Vec<(u64, Bytes)>,
    pub mark: Option<Mark>,
}

impl Segment {
    /// `Err`: what is wrong with it.
    pub fn parse(payload: Vec<u8>, span: Span) -> Result<Segment, String> {
        let mut rest = Bytes::from(payload);
        let described = part(&mut rest)?;
        let described: Description = serde_json::from_slice(&described).map_err(|error| error.to_string())?;
        if described.format != FORMAT {
            return Err(format!("format {} is not known to this version", described.format));
        }
        let (mut last, mut entries) = (described.after, Vec::new());
        while rest.has_remaining() {
            let entry = part(&mut rest)?;
            last = follow(last, &entry)?;
            entries.push((last.index, entry));
        }
        let is_named = span == Span { first: described.after.index + 1, last: last.index };
        if last != described.last || entries.len() as u64 != described.entries_count || !is_named {
            return Err("its entries aren't those that it says it holds".into());
        }
        Ok(Segment { after: described.after, last, entries, mark: described.mark })
    }
}

fn part(rest: &mut Bytes) -> Result<Bytes, String> {
    let length = rest.try_get_u32_le().map_err(|_| "it is cut short")? as usize;
    if rest.len() < length {
        return Err("it is cut short".into());
    }
    Ok(rest.split_to(length))
}

/// The log id of an entry that may come next.
fn follow(last: At, entry: &Bytes) -> Result<At, String> {
    let Entry { term, node_id, index, .. } = Entry::parse(entry.clone()).map_err(|malformed| malformed.to_string())?;
    let at = At { term, node_id, index };
    if index != last.index + 1 || (term, node_id) < (last.term, last.node_id) {
        return Err(format!(
            "entry {index} of term {term} doesn't follow on entry {} of term {}",
            last.index, last.term
        ));
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jangbu_proto::entry::Payload;

    fn entry(term: u64, index: u64) -> Bytes {
        Entry { term, node_id: 1, index, payload: Payload::Command(Bytes::from(vec![7; index as usize])) }.encode()
    }

    fn at(term: u64, index: u64) -> At {
        At { term, node_id: 1, index }
    }

    fn mark(log_index: u64) -> Mark {
        Mark { log_index, digest: "d1".into(), audit_hash: "a1".into(), timestamp: 9 }
    }

    fn built() -> Builder {
        let mut builder = Builder::behind(at(2, 10));
        for (term, index) in [(2, 11), (3, 12), (3, 13)] {
            builder.push(entry(term, index)).unwrap();
        }
        builder.record(mark(13)).unwrap();
        builder
    }

    #[test]
    fn a_segment_reads_back_as_it_was_made() {
        let builder = built();
        let segment = Segment::parse(builder.encode(), builder.span()).unwrap();
        assert_eq!((segment.after, segment.last, segment.mark), (at(2, 10), at(3, 13), Some(mark(13))));
        let indexes: Vec<u64> = segment.entries.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, [11, 12, 13]);
        assert_eq!(segment.entries[1].1, entry(3, 12));
    }

    #[test]
    fn what_does_not_follow_is_refused_where_it_is_added() {
        let mut builder = Builder::behind(at(2, 10));
        for wrong in [entry(2, 10), entry(2, 12), entry(1, 11), Bytes::from_static(b"rubbish")] {
            assert!(builder.push(wrong).is_err());
        }
        assert!(builder.record(mark(11)).is_err(), "of an entry that isn't there");
        builder.push(entry(2, 11)).unwrap();
        builder.record(mark(11)).unwrap();
        builder.push(entry(2, 12)).unwrap();
        assert_eq!(builder.mark(), None, "what was recorded is of an entry before");
    }

    #[test]
    fn a_cut_a_hole_and_another_name_are_noticed() {
        let builder = built();
        let (whole, span) = (builder.encode(), builder.span());
        for length in 0..whole.len() {
            assert!(Segment::parse(whole[..length].to_vec(), span).is_err(), "cut to {length}");
        }
        assert!(Segment::parse(whole.clone(), Span { first: 11, last: 14 }).is_err());
        let twice = [&whole[..], &whole[whole.len() - (4 + entry(3, 13).len())..]].concat();
        assert!(Segment::parse(twice, span).is_err(), "the last entry twice");
    }
}
