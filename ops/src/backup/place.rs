//! The two kinds of storage: a folder, and a bucket of an S3-compatible service.
//!
//! Laws
//! * An object is there whole or not at all, and stays when its put has returned: a folder's is written beside, synced and renamed.
//!
//! Not here: what is put (`vault.rs`), and how a bucket's service is reached (`s3.rs`).

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, path};

pub enum Place {
    Folder(PathBuf),
    Bucket { store: Arc<dyn ObjectStore>, prefix: path::Path },
}

/// What storage says when it doesn't do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Folder(#[from] io::Error),
    #[error(transparent)]
    Bucket(#[from] object_store::Error),
    #[error("it is larger than any object of a backup ({0} bytes)")]
    TooLarge(u64),
}

impl PlaceError {
    pub fn is_denied(&self) -> bool {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        match self {
            PlaceError::Folder(error) => error.kind() == io::ErrorKind::PermissionDenied,
            PlaceError::Bucket(error) => matches!(error, PermissionDenied { .. } | Unauthenticated { .. }),
            PlaceError::TooLarge(_) => false,
        }
    }
}

impl Place {
    /// A bucket was made by others; a folder may be new.
    pub async fn make(&self) -> Result<(), PlaceError> {
        match self {
            Place::Folder(folder) => {
                let folder = folder.clone();
                Ok(blocking(move || fs::create_dir_all(folder)).await?)
            }
            Place::Bucket { .. } => Ok(()),
        }
    }

    pub async fn put(&self, name: &str, object: Bytes) -> Result<(), PlaceError> {
        match self {
            Place::Folder(folder) => {
                let path = folder.join(name);
                Ok(blocking(move || put_file(&path, &object)).await?)
            }
            Place::Bucket { store, prefix } => Ok(store.put(&key(prefix, name), object.into()).await.map(drop)?),
        }
    }

    /// `None`: there is no such object.
    pub async fn size(&self, name: &str) -> Result<Option<u64>, PlaceError> {
        match self {
            Place::Folder(folder) => {
                let path = folder.join(name);
                Ok(blocking(move || found(fs::metadata(path).map(|meta| meta.len()))).await?)
            }
            Place::Bucket { store, prefix } => match store.head(&key(prefix, name)).await {
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                met => Ok(Some(met?.size)),
            },
        }
    }

    /// `None`: there is no such object. What is larger than `bytes_max` isn't read.
    pub async fn get(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, PlaceError> {
        match self.size(name).await? {
            None => return Ok(None),
            Some(bytes) if bytes > bytes_max => return Err(PlaceError::TooLarge(bytes)),
            Some(_) => {}
        }
        match self {
            Place::Folder(folder) => {
                let path = folder.join(name);
                Ok(blocking(move || found(fs::read(path).map(Bytes::from))).await?)
            }
            Place::Bucket { store, prefix } => match store.get(&key(prefix, name)).await {
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                met => Ok(Some(met?.bytes().await?)),
            },
        }
    }

    /// Also of what isn't there.
    pub async fn remove(&self, name: &str) -> Result<(), PlaceError> {
        match self {
            Place::Folder(folder) => {
                let path = folder.join(name);
                Ok(blocking(move || found(remove_file(&path)).map(drop)).await?)
            }
            Place::Bucket { store, prefix } => match store.delete(&key(prefix, name)).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                met => Ok(met?),
            },
        }
    }

    /// Names and sizes of all objects below a folder.
    pub async fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, PlaceError> {
        match self {
            Place::Folder(root) => {
                let (path, name) = (root.join(folder), folder.to_owned());
                Ok(blocking(move || {
                    let mut files = Vec::new();
                    list_files(&path, &name, &mut files)?;
                    Ok(files)
                })
                .await?)
            }
            Place::Bucket { store, prefix } => {
                let below = key(prefix, folder);
                let listed: Vec<_> = store.list(Some(&below)).try_collect().await?;
                let name = |location: &path::Path| {
                    let rest = location.prefix_match(&below)?;
                    Some(rest.fold(folder.to_owned(), |name, part| format!("{name}/{}", part.as_ref())))
                };
                Ok(listed.iter().filter_map(|meta| Some((name(&meta.location)?, meta.size))).collect())
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn key(prefix: &path::Path, name: &str) -> path::Path {
    name.split('/').fold(prefix.clone(), |path, part| path.join(part))
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        // Below a file there is nothing either.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        result => result.map(Some),
    }
}

fn put_file(path: &Path, object: &[u8]) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("an object has a name"));
    };
    fs::create_dir_all(parent)?;
    // Hidden: no object's name begins with a dot, and what a crash leaves isn't listed.
    let partial = parent.join(format!(".{}.{}", name.display(), std::process::id()));
    let mut file = File::create(&partial)?;
    file.write_all(object)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    // The folder may be new in its parent, too.
    let named = [Some(parent), parent.parent()].into_iter().flatten().filter(|folder| !folder.as_os_str().is_empty());
    named.map(File::open).try_for_each(|folder| folder?.sync_all())
}

fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    // The folder of a file's pieces goes with the last of them; any other isn't empty, or is wanted again.
    if let Some(parent) = path.parent() {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}

fn list_files(folder: &Path, name: &str, files: &mut Vec<(String, u64)>) -> io::Result<()> {
    let Some(entries) = found(fs::read_dir(folder))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let (own, meta) = (entry.file_name().to_string_lossy().into_owned(), entry.metadata()?);
        let name = format!("{name}/{own}");
        match meta.is_dir() {
            true => list_files(&entry.path(), &name, files)?,
            false if own.starts_with('.') => {}
            false => files.push((name, meta.len())),
        }
    }
    Ok(())
}
