//! The manifest: what is in a snapshot, and whose it is. One line of JSON, and a line with its checksum.
//!
//! Laws
//! * It is written last: a folder with a manifest is complete.
//! * Nothing in it is believed before its own checksum was right.
//!
//! Not here: the files it names (`snapshot.rs`, `receive.rs`).

use crate::admin::{VERSION_MAX, VERSION_MIN};
use crate::stamp::Stamp;
use crate::type_config::{LogId, SnapshotMeta, StoredMembership, decode_membership, encode_membership, log_id};
use bytes::Bytes;
use jangbu_proto::{Malformed, entry};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

pub const FILE_NAME: &str = "jangbu.manifest";

/// So many files are 64 TiB of state; a claim of more is no claim of ours.
const FILES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this form, and of what it describes: the cluster's (`admin.rs`).
    format: u32,
    /// Hexadecimal; empty of a node that is in no cluster.
    pub cluster_id: String,
    pub group: u32,
    /// The last entry whose effects are in it.
    last_log_id: Option<LogIdText>,
    membership_log_id: Option<LogIdText>,
    /// Hexadecimal, as in the log (`proto::entry`).
    membership: String,
    /// The digest of the state, hexadecimal.
    pub digest: String,
    pub events_count: u64,
    /// The state it was taken from: within one state a file's name never comes back with other bytes.
    pub source: String,
    /// Sorted by name.
    pub files: Vec<FileInfo>,
}

/// What a manifest of any form says, also of one that this program doesn't know yet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Outline {
    pub format: u32,
    pub cluster_id: String,
    pub group: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileInfo {
    pub name: String,
    pub bytes: u64,
    /// Hexadecimal.
    pub xxh3_128: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogIdText {
    term: u64,
    node_id: u64,
    index: u64,
}

impl From<LogId> for LogIdText {
    fn from(id: LogId) -> LogIdText {
        LogIdText { term: id.leader_id.term, node_id: id.leader_id.node_id, index: id.index }
    }
}

impl LogIdText {
    fn log_id(self) -> LogId {
        log_id(self.term, self.node_id, self.index)
    }
}

impl Manifest {
    pub fn new(
        stamp: &Stamp,
        cluster_id: Option<[u8; 16]>,
        group: u32,
        source: String,
        files: Vec<FileInfo>,
    ) -> Manifest {
        Manifest {
            format: stamp.version,
            cluster_id: cluster_id.map(|id| hex(&id)).unwrap_or_default(),
            group,
            last_log_id: stamp.applied.map(LogIdText::from),
            membership_log_id: stamp.membership.log_id().map(LogIdText::from),
            membership: hex(&encode_membership(stamp.membership.membership()).encode()),
            digest: hex(&stamp.head.digest.to_bytes()),
            events_count: stamp.head.next_event.0,
            source,
            files,
        }
    }

    pub fn encode(&self) -> Bytes {
        let json = serde_json::to_string(self).expect("text and numbers are always JSON");
        format!("{json}\n{}\n", hex(&xxh3_128(json.as_bytes()).to_be_bytes())).into()
    }

    pub fn parse(bytes: &[u8]) -> Result<Manifest, Malformed> {
        let json = verified(bytes)?;
        let format = Manifest::outline(bytes)?.format;
        if !(VERSION_MIN..=VERSION_MAX).contains(&format) {
            let reason = format!("is {format}; this program knows {VERSION_MIN} to {VERSION_MAX}");
            return Err(Malformed::new("manifest.format", reason));
        }
        let manifest: Manifest = serde_json::from_str(json).map_err(no_manifest)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Whose it is, and of which version.
    pub fn outline(bytes: &[u8]) -> Result<Outline, Malformed> {
        serde_json::from_str(verified(bytes)?).map_err(no_manifest)
    }

    fn check(&self) -> Result<(), Malformed> {
        self.meta()?;
        if self.files.len() > FILES_MAX {
            return Err(Malformed::new("manifest.files", "has too many entries"));
        }
        for (index, file) in self.files.iter().enumerate() {
            // A name becomes a path: it must stay within its folder.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.';
            let fine = file.name.bytes().all(plain)
                && !file.name.starts_with('.')
                && !file.name.is_empty()
                && file.name.len() <= 100;
            if !fine || file.name == FILE_NAME {
                return Err(Malformed::new(format!("manifest.files[{index}].name"), "is no name of a snapshot's file"));
            }
            if index > 0 && self.files[index - 1].name >= file.name {
                return Err(Malformed::new(format!("manifest.files[{index}].name"), "doesn't ascend"));
            }
        }
        Ok(())
    }

    pub fn last_log_id(&self) -> Option<LogId> {
        self.last_log_id.map(LogIdText::log_id)
    }

    pub fn last_index(&self) -> u64 {
        self.last_log_id.map_or(0, |id| id.index)
    }

    pub fn meta(&self) -> Result<SnapshotMeta, Malformed> {
        let bytes =
            unhex(&self.membership).ok_or_else(|| Malformed::new("manifest.membership", "is not hexadecimal"))?;
        let membership = decode_membership(entry::Membership::parse(bytes.into())?)?;
        let at = self.membership_log_id.map(LogIdText::log_id);
        Ok(SnapshotMeta { last_log_id: self.last_log_id(), last_membership: StoredMembership::new(at, membership) })
    }

    /// The folder's name: newer ones sort after older ones. Of one index, later ones have a number behind it.
    pub fn folder_name(&self) -> String {
        let term = self.last_log_id.map_or(0, |id| id.term);
        format!("snap-{:020}-{term}", self.last_index())
    }

    pub fn file(&self, name: &str) -> Option<&FileInfo> {
        let place = self.files.binary_search_by(|file| file.name.as_str().cmp(name)).ok()?;
        Some(&self.files[place])
    }
}

/// The JSON, if its checksum is right.
fn verified(bytes: &[u8]) -> Result<&str, Malformed> {
    let refuse = |reason: &str| Malformed::new("manifest", reason);
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("is no text"))?;
    let (json, checksum) =
        text.strip_suffix('\n').and_then(|text| text.split_once('\n')).ok_or_else(|| refuse("is cut short"))?;
    if hex(&xxh3_128(json.as_bytes()).to_be_bytes()) != checksum {
        return Err(refuse("doesn't match its checksum"));
    }
    Ok(json)
}

fn no_manifest(error: serde_json::Error) -> Malformed {
    Malformed::new("manifest", error.to_string())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(names: &[&str]) -> Manifest {
        let files =
            names.iter().map(|name| FileInfo { name: (*name).into(), bytes: 5, xxh3_128: "00".into() }).collect();
        let stamp = Stamp { applied: Some(log_id(2, 1, 77)), ..Stamp::start() };
        Manifest::new(&stamp, Some([7; 16]), 0, "state-0".into(), files)
    }

    #[test]
    fn a_manifest_comes_back() {
        let manifest = manifest(&["000001.sst", "CURRENT"]);
        let parsed = Manifest::parse(&manifest.encode()).unwrap();
        assert_eq!(parsed, manifest);
        assert_eq!(parsed.folder_name(), "snap-00000000000000000077-2");
        assert_eq!(parsed.meta().unwrap().last_log_id, Some(log_id(2, 1, 77)));
    }

    #[test]
    fn a_manifest_of_a_later_form_is_refused_and_still_says_whose_it_is() {
        let later = Manifest { format: VERSION_MAX + 1, ..manifest(&["000001.sst"]) };
        let refused = Manifest::parse(&later.encode()).unwrap_err().to_string();
        assert!(refused.contains("manifest.format"), "{refused}");
        let outline = Manifest::outline(&later.encode()).unwrap();
        assert_eq!((outline.format, outline.cluster_id), (VERSION_MAX + 1, later.cluster_id));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = manifest(&["000001.sst"]).encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // The checksum's own digits may be written in another case, and say the same.
            if damaged.eq_ignore_ascii_case(&bytes) {
                continue;
            }
            assert!(Manifest::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", "..", "../up", "a/b", ".hidden", "jangbu.manifest", "nul\0"] {
            assert!(Manifest::parse(&manifest(&[name]).encode()).is_err(), "{name:?}");
        }
        assert!(Manifest::parse(&manifest(&["b", "a"]).encode()).is_err(), "names ascend");
        assert!(Manifest::parse(&manifest(&["a", "a"]).encode()).is_err(), "names are unique");
    }
}
