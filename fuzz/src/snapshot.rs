//! What a snapshot says of itself.

#[path = "../../raft-store/src/snapshot/manifest.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod manifest;

use manifest::Manifest;
use xxhash_rust::xxh3::xxh3_128;

/// Named by openraft's types; nobody makes one here.
#[derive(Debug, Clone)]
pub struct SnapshotData;

/// As they are, and as the JSON of a manifest whose checksum is right: chance finds no checksum.
pub fn snapshot_manifest(bytes: &[u8]) {
    check(bytes);
    let checksum = manifest::hex(&xxh3_128(bytes).to_be_bytes());
    check(&[bytes, b"\n", checksum.as_bytes(), b"\n"].concat());
}

fn check(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    assert_eq!(Manifest::parse(&manifest.encode()).as_ref(), Ok(&manifest), "what is read back is the same");
    manifest.meta().expect("a manifest is checked when it is parsed");
    for file in &manifest.files {
        assert!(!file.name.contains('/') && !file.name.starts_with('.'), "{:?} leaves its folder", file.name);
    }
    let name = manifest.folder_name();
    assert!(!name.contains('/') && !name.starts_with('.'), "{name:?} leaves its folder");
}
