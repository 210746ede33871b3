//! What lies in a place of backups, read: the full backups, and how far the log behind each of them reaches.
//!
//! Laws
//! * A full backup counts once its record is there: it is put last.
//! * The log behind a full backup reaches as far as its segments follow on each other without a gap.
//!
//! Not here: the form of a segment (`segment.rs`).

use jangbu_proto::cluster::v1::EntryId;
use jangbu_raft_store::snapshot::manifest::{FileInfo, Manifest};
use serde::{Deserialize, Serialize};

use super::vault::Vault;
use crate::error::Failure;

const FORMAT: u32 = 1;

/// A file's bytes in one object: what an interruption costs at most, and what memory holds of a file.
pub const PIECE_BYTES: u64 = 8 << 20;

/// An entry's place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct At {
    pub term: u64,
    pub node_id: u64,
    pub index: u64,
}

impl From<At> for EntryId {
    fn from(at: At) -> EntryId {
        EntryId { term: at.term, node_id: at.node_id, index: at.index }
    }
}

/// A full backup: a snapshot, and what it is the state of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Full {
    format: u32,
    pub last: At,
    /// Log time of the state.
    pub timestamp: u64,
    /// Of the books, hexadecimal.
    pub digest: String,
    pub events_count: u64,
    /// When it was taken, and of which node: by the clock of whoever took it.
    pub taken_at: u64,
    pub node_id: u64,
    /// Of all its files.
    pub bytes: u64,
    /// The snapshot's own, as between replicas.
    manifest: String,
}

impl Full {
    /// Of a snapshot as its node describes it.
    pub fn new(manifest: &[u8], timestamp: u64, node_id: u64, taken_at: u64) -> Result<Full, Failure> {
        let parsed = parse(manifest)?;
        let Some(last) = parsed.last_log_id() else {
            return Err(Failure::general("the node's snapshot is of nothing").advise("make a cluster of it first"));
        };
        Ok(Full {
            format: FORMAT,
            last: At { term: last.leader_id.term, node_id: last.leader_id.node_id, index: last.index },
            timestamp,
            digest: parsed.digest.clone(),
            events_count: parsed.events_count,
            taken_at,
            node_id,
            bytes: parsed.files.iter().map(|file| file.bytes).sum(),
            manifest: String::from_utf8_lossy(manifest).into_owned(),
        })
    }

    pub fn name(&self) -> String {
        format!("full/{:020}-{}", self.last.index, self.last.term)
    }

    pub fn manifest_bytes(&self) -> &[u8] {
        self.manifest.as_bytes()
    }

    pub fn manifest(&self) -> Result<Manifest, Failure> {
        parse(self.manifest.as_bytes())
    }

    /// The objects that hold its files, and how much is in each.
    pub fn pieces(&self) -> Result<Vec<(String, u64)>, Failure> {
        let manifest = self.manifest()?;
        let of_file = |file: &FileInfo| {
            let (name, bytes) = (file.xxh3_128.clone(), file.bytes);
            pieces(bytes).map(move |(piece, length)| (piece_name(&name, bytes, piece), length))
        };
        Ok(manifest.files.iter().flat_map(of_file).collect())
    }

    pub async fn put(&self, vault: &Vault) -> Result<(), Failure> {
        let json = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        vault.put(&self.name(), &json).await
    }

    async fn get(vault: &Vault, name: &str) -> Result<Full, Failure> {
        let full: Full =
            serde_json::from_slice(&vault.get(name).await?).map_err(|error| vault.damaged(name, &error.to_string()))?;
        if full.format != FORMAT {
            return Err(vault.damaged(name, &format!("format {} is not known to this version", full.format)));
        }
        Ok(full)
    }
}

pub fn parse(manifest: &[u8]) -> Result<Manifest, Failure> {
    Manifest::parse(manifest).map_err(|malformed| {
        Failure::general(malformed.to_string())
            .advise("is this program older than the node's? Compare `jangbu version`")
    })
}

/// The object with a piece of a file.
pub fn piece_name(xxh3_128: &str, bytes: u64, piece: u64) -> String {
    format!("files/{xxh3_128}-{bytes}/{piece:04}")
}

/// The bytes of each piece of a file; none of an empty one.
pub fn pieces(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..bytes.div_ceil(PIECE_BYTES)).map(move |piece| (piece, PIECE_BYTES.min(bytes - piece * PIECE_BYTES)))
}

/// A segment of the log, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    pub fn name(&self) -> String {
        format!("log/{:020}-{:020}", self.first, self.last)
    }

    fn of(name: &str) -> Option<Span> {
        let (first, last) = name.strip_prefix("log/")?.split_once('-')?;
        let span = Span { first: first.parse().ok()?, last: last.parse().ok()? };
        (span.first <= span.last && span.name() == name).then_some(span)
    }
}

/// All that a place holds, by its names.
pub struct Archive {
    /// Oldest first.
    pub fulls: Vec<Full>,
    /// In order.
    pub spans: Vec<Span>,
}

impl Archive {
    pub async fn read(vault: &Vault) -> Result<Archive, Failure> {
        let mut fulls = Vec::new();
        for name in vault.list("full").await?.keys() {
            fulls.push(Full::get(vault, name).await?);
        }
        fulls.sort_by_key(|full| full.last);
        let spans = vault.list("log").await?.keys().filter_map(|name| Span::of(name)).collect();
        Ok(Archive { fulls, spans })
    }

    pub fn newest(&self) -> Option<&Full> {
        self.fulls.last()
    }

    /// The segments that hold what follows on entry `index`, in order and without a gap, each as far as it reaches.
    pub fn behind(&self, index: u64) -> Vec<Span> {
        let (mut chain, mut end) = (Vec::new(), index);
        loop {
            let follows = self.spans.iter().filter(|span| span.first <= end + 1 && span.last > end);
            match follows.max_by_key(|span| span.last) {
                None => return chain,
                Some(span) => {
                    end = span.last;
                    chain.push(*span);
                }
            }
        }
    }

    /// The last entry that can be restored from a full backup on.
    pub fn end_behind(&self, index: u64) -> u64 {
        self.behind(index).last().map_or(index, |span| span.last)
    }
}

#[cfg(test)]
impl Full {
    /// One of nothing, of a log time.
    pub fn at(timestamp: u64) -> Full {
        Full {
            format: FORMAT,
            last: At { term: 1, node_id: 1, index: timestamp },
            timestamp,
            digest: String::new(),
            events_count: 0,
            taken_at: timestamp,
            node_id: 1,
            bytes: 0,
            manifest: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(spans: &[(u64, u64)]) -> Archive {
        let mut spans: Vec<Span> = spans.iter().map(|(first, last)| Span { first: *first, last: *last }).collect();
        spans.sort();
        Archive { fulls: Vec::new(), spans }
    }

    #[test]
    fn the_log_reaches_to_the_first_gap() {
        let archive = archive(&[(1, 4), (5, 9), (11, 20)]);
        assert_eq!(archive.end_behind(0), 9);
        assert_eq!(archive.end_behind(6), 9, "a full backup within a segment");
        assert_eq!(archive.end_behind(9), 9);
        assert_eq!(archive.end_behind(10), 20);
        assert_eq!(archive.end_behind(30), 30);
        assert!(archive.behind(9).is_empty());
    }

    #[test]
    fn what_two_runs_have_archived_side_by_side_is_read_once() {
        let archive = archive(&[(1, 10), (3, 5), (4, 15), (11, 12), (16, 18)]);
        let chain: Vec<(u64, u64)> = archive.behind(0).iter().map(|span| (span.first, span.last)).collect();
        assert_eq!(chain, [(1, 10), (4, 15), (16, 18)]);
    }

    #[test]
    fn a_segments_name_sorts_by_its_first_entry_and_reads_back() {
        let span = Span { first: 7, last: 12 };
        assert_eq!(span.name(), "log/00000000000000000007-00000000000000000012");
        assert_eq!(Span::of(&span.name()), Some(span));
        for name in ["log/7-12", "log/x", "full/7-12", "log/00000000000000000012-00000000000000000007"] {
            assert_eq!(Span::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_file_is_cut_into_pieces_that_are_all_of_it() {
        assert_eq!(pieces(0).count(), 0);
        assert_eq!(pieces(PIECE_BYTES).collect::<Vec<_>>(), [(0, PIECE_BYTES)]);
        assert_eq!(pieces(2 * PIECE_BYTES + 1).map(|(_, bytes)| bytes).sum::<u64>(), 2 * PIECE_BYTES + 1);
    }
}
