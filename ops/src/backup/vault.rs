//! Where backups lie: a folder, or a bucket of object storage. One place, one cluster.
//!
//!     jangbu-backup                          whose backups these are, and whether they are encrypted
//!     files/<xxh3-128>-<bytes>/<piece>       a snapshot's files in pieces, named by what is in them: what is here isn't sent again
//!     full/<index>-<term>                    a full backup: its snapshot's manifest, and what it is the state of. Written last
//!     log/<first>-<last>                     entries of the log, with the digest of the state behind them
//!
//! Laws
//! * An object is whole or not there; its size is looked at once it was put, and a put that fails is tried again.
//! * Nothing is changed: what was put stays as it is, until it is removed as a whole (`prune.rs`).
//! * Every object is guarded, with its name (`seal.rs`). What is damaged is named, never skipped.
//!
//! Not here: what the objects mean (`record.rs`, `segment.rs`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::place::{Place, PlaceError};
use super::s3;
use super::seal::{self, Key, OVERHEAD_BYTES};
use crate::error::{Failure, Kind};

const MARKER: &str = "jangbu-backup";
const FORMAT: u32 = 1;

/// So often is a put tried: a second's hiccup of the storage must not end a backup of hours. (S3 is tried again within each, too.)
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// No object of ours is larger: what claims to be isn't read into memory.
const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// The one object that needs no key to be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    format: u32,
    /// Hexadecimal.
    pub cluster_id: String,
    /// Of the key; empty: nothing is encrypted.
    key_fingerprint: String,
}

#[derive(Clone)]
pub struct Vault {
    storage: Arc<Place>,
    key: Option<Key>,
    /// As it was named.
    place: String,
    pause: Duration,
}

impl Vault {
    /// `place`: a folder, or s3://bucket/prefix with the usual AWS_ variables in the environment. A folder that isn't there is
    /// made when there is something to put into it.
    pub fn at(place: &str, key_file: Option<&Path>) -> Result<Vault, Failure> {
        let key = key_file.map(Key::from_file).transpose()?;
        let Some((scheme, rest)) = place.split_once("://") else {
            if Path::new(place).is_file() {
                return Err(unusable(place, "it is a file"));
            }
            return Ok(Vault::over(Place::Folder(place.into()), key, place));
        };
        if scheme != "s3" {
            return Err(unusable(place, format!("`{scheme}` is no storage that this program knows")));
        }
        let bucket = s3::bucket(rest).map_err(|error| unusable(place, error))?;
        Ok(Vault::over(bucket, key, place))
    }

    fn over(storage: Place, key: Option<Key>, place: &str) -> Vault {
        Vault { storage: Arc::new(storage), key, place: place.to_owned(), pause: PAUSE }
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// How an object is named to a person.
    pub fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.place.trim_end_matches('/'))
    }

    /// Whose backups these are. Refuses a key that isn't theirs.
    pub async fn marker(&self) -> Result<Option<Marker>, Failure> {
        let Some(object) = self.read(MARKER).await? else { return Ok(None) };
        let payload = seal::open(None, MARKER, &object).map_err(|why| self.damaged(MARKER, why))?;
        let marker: Marker =
            serde_json::from_slice(&payload).map_err(|error| self.damaged(MARKER, &error.to_string()))?;
        if marker.format != FORMAT {
            return Err(Failure::new(
                Kind::Conflict,
                format!("{}: format {} is not known to this version", self.place, marker.format),
            ));
        }
        let (theirs, ours) = (&marker.key_fingerprint, self.key.as_ref().map(Key::fingerprint).unwrap_or_default());
        if *theirs == ours {
            return Ok(Some(marker));
        }
        let refuse = |why: String, advice: &str| Err(Failure::new(Kind::Denied, why).advise(advice));
        match (theirs.as_str(), ours.as_str()) {
            (theirs, "") => {
                refuse(format!("{} is encrypted with key {theirs}", self.place), "name the key's file with --key-file")
            }
            ("", _) => {
                refuse(format!("{} isn't encrypted", self.place), "leave --key-file away, or name another place")
            }
            (theirs, ours) => refuse(
                format!("{} is encrypted with key {theirs}, and this is key {ours}", self.place),
                "name the file of the key that it was made with",
            ),
        }
    }

    /// The same of a place that must hold backups.
    pub async fn existing(&self) -> Result<Marker, Failure> {
        self.marker().await?.ok_or_else(|| {
            Failure::usage(format!("{}: there are no backups here", self.place))
                .advise("make one: jangbu backup run PLACE")
        })
    }

    /// Makes the place this cluster's, or sees that it is.
    pub async fn claim(&self, cluster_id: &str) -> Result<(), Failure> {
        match self.marker().await? {
            Some(marker) if marker.cluster_id == cluster_id => Ok(()),
            Some(marker) => Err(Failure::new(
                Kind::Conflict,
                format!(
                    "{} holds backups of cluster {}, and this is cluster {cluster_id}",
                    self.place, marker.cluster_id
                ),
            )
            .advise("name another place for this cluster")),
            None => {
                self.storage.make().await.map_err(|error| unusable(&self.place, error))?;
                let key_fingerprint = self.key.as_ref().map(Key::fingerprint).unwrap_or_default();
                let marker = Marker { format: FORMAT, cluster_id: cluster_id.to_owned(), key_fingerprint };
                let json = serde_json::to_vec(&marker).map_err(std::io::Error::other)?;
                self.write(MARKER, seal::seal(None, MARKER, &json)).await
            }
        }
    }

    /// Durable when it returns, as far as the storage keeps what it says.
    pub async fn put(&self, name: &str, payload: &[u8]) -> Result<(), Failure> {
        self.write(name, seal::seal(self.key.as_ref(), name, payload)).await
    }

    /// Refuses what is missing or damaged, by name.
    pub async fn get(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let object = self.read(name).await?.ok_or_else(|| {
            Failure::new(Kind::Unhealthy, format!("{} is missing", self.named(name))).advise(DAMAGE_ADVICE)
        })?;
        seal::open(self.key.as_ref(), name, &object).map_err(|why| self.damaged(name, why))
    }

    /// Also of what isn't there any more.
    pub async fn remove(&self, name: &str) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            match self.storage.remove(name).await {
                Ok(()) => return Ok(()),
                Err(error) if attempt == ATTEMPTS || error.is_denied() => {
                    return Err(self.failed("removing", name, &error));
                }
                Err(_) => tokio::time::sleep(self.pause * 2u32.pow(attempt)).await,
            }
            attempt += 1;
        }
    }

    /// The objects below a folder: names and sizes of payloads, in order.
    pub async fn list(&self, folder: &str) -> Result<BTreeMap<String, u64>, Failure> {
        let listed = self.storage.list(folder).await.map_err(|error| self.failed("listing", folder, &error))?;
        Ok(listed.into_iter().map(|(name, bytes)| (name, bytes.saturating_sub(OVERHEAD_BYTES))).collect())
    }

    async fn write(&self, name: &str, object: Vec<u8>) -> Result<(), Failure> {
        let object = bytes::Bytes::from(object);
        let mut attempt = 1;
        loop {
            match self.write_once(name, object.clone()).await {
                Ok(()) => return Ok(()),
                Err(_) if attempt < ATTEMPTS => tokio::time::sleep(self.pause * 2u32.pow(attempt)).await,
                Err(failure) => return Err(failure),
            }
            attempt += 1;
        }
    }

    async fn write_once(&self, name: &str, object: bytes::Bytes) -> Result<(), Failure> {
        let bytes = object.len() as u64;
        self.storage.put(name, object).await.map_err(|error| self.failed("writing", name, &error))?;
        let stored = self.storage.size(name).await.map_err(|error| self.failed("looking at", name, &error))?;
        if stored != Some(bytes) {
            let stored = stored.unwrap_or(0);
            return Err(Failure::general(format!("{}: {bytes} bytes were put, {stored} are there", self.named(name)))
                .advise(STORAGE_ADVICE));
        }
        Ok(())
    }

    async fn read(&self, name: &str) -> Result<Option<bytes::Bytes>, Failure> {
        match self.storage.get(name, OBJECT_BYTES_MAX).await {
            Err(error @ PlaceError::TooLarge(_)) => Err(self.damaged(name, &error.to_string())),
            read => read.map_err(|error| self.failed("reading", name, &error)),
        }
    }

    /// What is wrong with an object that was read.
    pub fn damaged(&self, name: &str, why: &str) -> Failure {
        Failure::new(Kind::Unhealthy, format!("{}: {why}", self.named(name))).advise(DAMAGE_ADVICE)
    }

    fn failed(&self, doing: &str, name: &str, error: &PlaceError) -> Failure {
        let (kind, advice) =
            if error.is_denied() { (Kind::Denied, DENIED_ADVICE) } else { (Kind::General, STORAGE_ADVICE) };
        Failure::new(kind, format!("{doing} {}: {error}", self.named(name))).advise(advice)
    }
}

fn unusable(place: &str, error: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{place}: {error}")).advise("name a folder, or s3://BUCKET/PREFIX")
}

const STORAGE_ADVICE: &str = "see that the storage answers and lets you in; then begin again: it goes on where it was";

const DENIED_ADVICE: &str = "see that it lets you in: to a bucket with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to a folder as its owner; then begin again: it goes on where it was";

const DAMAGE_ADVICE: &str = "restore an older full backup (jangbu backup list) or one from another place; and find out what the storage does to its objects";

#[cfg(test)]
pub mod testing {
    use super::*;
    use futures_util::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
        PutOptions, PutPayload, PutResult, path,
    };
    use std::sync::atomic::{AtomicU32, Ordering};

    /// In memory, and not to be relied on.
    #[derive(Debug, Default)]
    pub struct Faulty {
        inner: InMemory,
        /// So many puts from now on fail.
        pub fail: AtomicU32,
        /// So many from now on store half of what they were given, and say that all is well.
        pub halve: AtomicU32,
        /// So many from now on are late.
        pub delay: AtomicU32,
        pub puts: AtomicU32,
    }

    impl std::fmt::Display for Faulty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Faulty")
        }
    }

    fn take(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    #[async_trait::async_trait]
    impl ObjectStore for Faulty {
        async fn put_opts(
            &self,
            path: &path::Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> object_store::Result<PutResult> {
            self.puts.fetch_add(1, Ordering::SeqCst);
            if take(&self.fail) {
                return Err(object_store::Error::Generic { store: "Faulty", source: "it failed".into() });
            }
            if take(&self.delay) {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            if take(&self.halve) {
                let whole = bytes::Bytes::from(payload);
                let half = whole.slice(..whole.len() / 2);
                return self.inner.put_opts(path, half.into(), options).await;
            }
            self.inner.put_opts(path, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            path: &path::Path,
            options: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(path, options).await
        }

        async fn get_opts(&self, path: &path::Path, options: GetOptions) -> object_store::Result<GetResult> {
            self.inner.get_opts(path, options).await
        }

        fn delete_stream(
            &self,
            paths: BoxStream<'static, object_store::Result<path::Path>>,
        ) -> BoxStream<'static, object_store::Result<path::Path>> {
            self.inner.delete_stream(paths)
        }

        fn list(&self, prefix: Option<&path::Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&path::Path>) -> object_store::Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(
            &self,
            from: &path::Path,
            to: &path::Path,
            options: CopyOptions,
        ) -> object_store::Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    /// A place in memory under a prefix, as in a bucket that holds other things, too.
    pub fn vault() -> (Vault, Arc<Faulty>) {
        let store = Arc::new(Faulty::default());
        let prefix = path::Path::from("money/backups");
        let storage = Place::Bucket { store: store.clone(), prefix };
        let mut vault = Vault::over(storage, None, "memory://money/backups");
        vault.pause = Duration::from_millis(1);
        (vault, store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{ObjectStoreExt as _, path};
    use std::sync::atomic::Ordering;

    #[tokio::test]
    async fn a_put_that_fails_or_stores_half_is_tried_again_until_it_is_whole() {
        let (vault, store) = testing::vault();
        store.fail.store(2, Ordering::SeqCst);
        vault.put("log/1", b"money").await.unwrap();
        assert_eq!(store.puts.swap(0, Ordering::SeqCst), 3);
        store.halve.store(1, Ordering::SeqCst);
        vault.put("log/2", b"more money").await.unwrap();
        assert_eq!(store.puts.swap(0, Ordering::SeqCst), 2);
        assert_eq!(vault.get("log/2").await.unwrap(), b"more money");
    }

    #[tokio::test]
    async fn storage_that_goes_on_failing_is_told_with_the_objects_name() {
        let (vault, store) = testing::vault();
        store.fail.store(u32::MAX, Ordering::SeqCst);
        let failure = vault.put("log/1", b"money").await.unwrap_err();
        assert!(failure.message.contains("memory://money/backups/log/1"), "{failure}");
        assert!(failure.advice.unwrap().contains("goes on where it was"));
        store.fail.store(0, Ordering::SeqCst);
        store.halve.store(u32::MAX, Ordering::SeqCst);
        let failure = vault.put("log/1", b"money").await.unwrap_err();
        assert!(failure.message.contains("45 bytes were put, 22 are there"), "{failure}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_storage_is_waited_for() {
        let (vault, store) = testing::vault();
        store.delay.store(1, Ordering::SeqCst);
        vault.put("log/1", b"money").await.unwrap();
        assert_eq!(vault.get("log/1").await.unwrap(), b"money");
    }

    #[tokio::test]
    async fn what_is_missing_or_half_there_is_named() {
        let (vault, store) = testing::vault();
        let missing = vault.get("files/a/0").await.unwrap_err();
        assert_eq!(missing.kind, Kind::Unhealthy);
        assert!(missing.message.contains("files/a/0 is missing"), "{missing}");
        // As a storage that lies about sizes, too, would leave it.
        let half = seal::seal(None, "files/a/0", b"money")[..20].to_vec();
        store.put(&path::Path::from("money/backups/files/a/0"), half.into()).await.unwrap();
        let damaged = vault.get("files/a/0").await.unwrap_err();
        assert!(damaged.message.contains("files/a/0: it is cut short"), "{damaged}");
    }

    #[tokio::test]
    async fn a_listing_tells_names_and_payload_sizes_and_nothing_of_other_folders() {
        let (vault, store) = testing::vault();
        for (name, payload) in [("log/1-2", "abc"), ("log/3-4", ""), ("full/9", "x"), ("logs/5", "no")] {
            vault.put(name, payload.as_bytes()).await.unwrap();
        }
        store.put(&path::Path::from("other/log/1"), "no".into()).await.unwrap();
        let listed = vault.list("log").await.unwrap();
        assert_eq!(listed, BTreeMap::from([("log/1-2".to_owned(), 3), ("log/3-4".to_owned(), 0)]));
    }

    #[tokio::test]
    async fn a_place_belongs_to_one_cluster() {
        let (vault, _) = testing::vault();
        assert!(vault.existing().await.is_err());
        vault.claim("aa").await.unwrap();
        vault.claim("aa").await.unwrap();
        assert_eq!(vault.existing().await.unwrap().cluster_id, "aa");
        let refused = vault.claim("bb").await.unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict);
    }

    #[tokio::test]
    async fn a_key_that_is_not_the_places_is_refused_before_anything_is_read() {
        let folder = tempfile_folder();
        let key_file = |digit: &str| {
            let path = folder.join(format!("{digit}.key"));
            std::fs::write(&path, digit.repeat(64)).unwrap();
            path
        };
        let place = folder.join("vault").display().to_string();
        let vault = Vault::at(&place, Some(&key_file("a"))).unwrap();
        vault.claim("aa").await.unwrap();
        vault.put("log/1", b"money").await.unwrap();
        for (key, word) in [(None, "--key-file"), (Some(key_file("b")), "it was made with")] {
            let refused = Vault::at(&place, key.as_deref()).unwrap().marker().await.unwrap_err();
            assert_eq!(refused.kind, Kind::Denied);
            assert!(refused.advice.unwrap().contains(word));
        }
        let again = Vault::at(&place, Some(&key_file("a"))).unwrap();
        assert_eq!(again.get("log/1").await.unwrap(), b"money");
        std::fs::remove_dir_all(folder).unwrap();
    }

    fn tempfile_folder() -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("jangbu-vault-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}
