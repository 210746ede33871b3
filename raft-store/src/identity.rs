//! Whose data folder this is.
//!
//!     <data_dir>/lock        held while a node runs
//!     <data_dir>/identity    { magic u32, version u32, node_id u64, incarnation [u8; 16],
//!                              has_cluster u8, zero [u8; 7], cluster_id [u8; 16], checksum u32 }
//!
//! The incarnation is drawn once, when the folder is made: a node that was wiped comes back with another one, and the cluster
//! refuses it under its old id. The identity is written last at the very first start, so where there is one, the log and the
//! state were made before, and their absence is a loss.
//!
//! Laws
//! * One folder, one node id, one incarnation, at most one cluster, for ever.
//! * Two processes never have the same folder open.
//!
//! Not here: who belongs to the cluster (membership, in the log).

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::{Buf, BufMut};

use crate::{
    error::StoreError,
    vfs::{Vfs, create_dir_durable, read_file, replace_file},
};

const MAGIC: u32 = u32::from_le_bytes(*b"JBID");
const FORMAT_VERSION: u32 = 1;
const BYTES: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub node_id: u64,
    /// Drawn when the folder was made.
    pub incarnation: [u8; 16],
    /// None until the node has joined one.
    pub cluster_id: Option<[u8; 16]>,
}

/// A data folder that this process alone has open, until the last clone is dropped.
#[derive(Clone)]
pub struct DataFolder(Arc<Inner>);

struct Inner {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    node_id: u64,
    /// None in a folder that is being made.
    identity: Mutex<Option<Identity>>,
    _lock: Box<dyn Send + Sync>,
}

impl DataFolder {
    /// Locks the folder and reads whose it is; makes it if it is not there. Blocks on a disk.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, node_id: u64) -> Result<Self, StoreError> {
        create_dir_durable(&*vfs, dir).map_err(|error| StoreError::io("make the data folder", dir, error))?;
        let lock = vfs.lock(&dir.join("lock")).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => refused(dir, "another process has this data folder open"),
            _ => StoreError::io("lock the data folder", dir, error),
        })?;
        let path = dir.join("identity");
        let identity = match vfs.exists(&path) {
            true => Some(read(&*vfs, &path)?),
            false => None,
        };
        if let Some(Identity { node_id: other, .. }) = identity.filter(|identity| identity.node_id != node_id) {
            let reason = format!(
                "this folder belongs to node {other}, and the configuration says node {node_id}. Correct node_id or data_dir; a \
                 node's data is never used under another id"
            );
            return Err(refused(&path, reason));
        }
        let inner = Inner { vfs, dir: dir.into(), node_id, identity: Mutex::new(identity), _lock: lock };
        Ok(Self(Arc::new(inner)))
    }

    /// The folder of a stopped node, locked, for whoever only wants to look: nothing is made, and any node's will do. Blocks on a
    /// disk.
    pub fn look_into(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("identity");
        if !vfs.exists(&path) {
            return Err(refused(dir, "this is no node's data folder: there is no file `identity` in it"));
        }
        let node_id = read(&*vfs, &path)?.node_id;
        Self::open(vfs, dir, node_id)
    }

    /// Whether log and state were made here before.
    pub fn is_founded(&self) -> bool {
        self.get().is_some()
    }

    /// Of a folder that is founded.
    pub fn identity(&self) -> Identity {
        self.get().expect("the store founds its folder before it hands it out")
    }

    /// Says that log and state are made: from here on their absence is a loss. Blocks on a disk.
    pub fn found(&self, incarnation: [u8; 16]) -> Result<(), StoreError> {
        assert!(!self.is_founded(), "a folder is founded once");
        self.write(Identity { node_id: self.0.node_id, incarnation, cluster_id: None })
    }

    /// Binds the folder to a cluster; again to the same one is fine. Blocks on a disk.
    pub fn join(&self, cluster_id: [u8; 16]) -> Result<(), StoreError> {
        let identity = self.identity();
        match identity.cluster_id {
            Some(same) if same == cluster_id => Ok(()),
            Some(other) => Err(refused(
                &self.0.dir,
                format!("this folder belongs to cluster {}, not to {}", Hex(&other), Hex(&cluster_id)),
            )),
            None => self.write(Identity { cluster_id: Some(cluster_id), ..identity }),
        }
    }

    fn get(&self) -> Option<Identity> {
        *self.0.identity.lock().expect("only copies are made under this lock")
    }

    fn write(&self, identity: Identity) -> Result<(), StoreError> {
        let path = self.0.dir.join("identity");
        replace_file(&*self.0.vfs, &path, &encode(&identity)).map_err(|error| StoreError::io("write", path, error))?;
        *self.0.identity.lock().expect("only copies are made under this lock") = Some(identity);
        Ok(())
    }
}

fn refused(path: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::Refused { path: path.into(), reason: reason.into() }
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.put_u32_le(MAGIC);
    bytes.put_u32_le(FORMAT_VERSION);
    bytes.put_u64_le(identity.node_id);
    bytes.put_slice(&identity.incarnation);
    bytes.put_u8(identity.cluster_id.is_some() as u8);
    bytes.put_bytes(0, 7);
    bytes.put_slice(&identity.cluster_id.unwrap_or_default());
    bytes.put_u32_le(crc32c::crc32c(&bytes));
    bytes
}

fn read(vfs: &dyn Vfs, path: &Path) -> Result<Identity, StoreError> {
    let bytes = read_file(vfs, path).map_err(|error| StoreError::io("read", path, error))?;
    let damaged = |reason| Err(StoreError::damaged(path, 0, reason));
    let Some((contents, checksum)) = bytes.split_last_chunk() else { return damaged("the file is too short") };
    if crc32c::crc32c(contents) != u32::from_le_bytes(*checksum) {
        return damaged("the checksum does not match");
    }
    let mut rest = contents;
    if bytes.len() != BYTES || rest.get_u32_le() != MAGIC {
        return damaged("this is not an identity");
    }
    let version = rest.get_u32_le();
    if version != FORMAT_VERSION {
        return Err(refused(path, format!("format {version} is not known to this version")));
    }
    let node_id = rest.get_u64_le();
    let incarnation = rest.get_u128().to_be_bytes();
    let has_cluster = rest.get_u8() == 1;
    rest.advance(7);
    let cluster_id = rest.get_u128().to_be_bytes();
    Ok(Identity { node_id, incarnation, cluster_id: has_cluster.then_some(cluster_id) })
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{OpenMode, StdVfs};

    fn open(dir: &Path, node_id: u64) -> Result<DataFolder, StoreError> {
        DataFolder::open(Arc::new(StdVfs), dir, node_id)
    }

    #[test]
    fn a_folder_remembers_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        let folder = open(&path, 7).unwrap();
        assert!(!folder.is_founded());
        folder.found([1; 16]).unwrap();
        folder.join([2; 16]).unwrap();
        folder.join([2; 16]).unwrap();
        assert!(folder.join([3; 16]).unwrap_err().to_string().contains("belongs to cluster 02020202"));
        drop(folder);
        let identity = open(&path, 7).unwrap().identity();
        assert_eq!(identity, Identity { node_id: 7, incarnation: [1; 16], cluster_id: Some([2; 16]) });
    }

    #[test]
    fn a_folder_is_refused_under_another_id_and_while_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let folder = open(dir.path(), 7).unwrap();
        folder.found([1; 16]).unwrap();
        assert!(open(dir.path(), 7).err().unwrap().to_string().contains("another process"));
        drop(folder);
        assert!(open(dir.path(), 8).err().unwrap().to_string().contains("belongs to node 7"));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), 7).unwrap().found([1; 16]).unwrap();
        let file = StdVfs.open(&dir.path().join("identity"), OpenMode::Write).unwrap();
        let mut bytes = [0; BYTES];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), BYTES);
        for bit in 0..BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            file.write_all_at(&flipped, 0).unwrap();
            assert!(matches!(open(dir.path(), 7), Err(StoreError::Damaged { .. })), "bit {bit}");
        }
    }
}
