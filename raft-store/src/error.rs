//! What stops a replica. A client never sees one of these.
//!
//! Each error says what happened, where, and what the operator can do. There is no kind that may be retried: a replica
//! that cannot trust its disk stops, and comes back by restart or by snapshot.
//!
//! Not here: refusals (`ledger`'s statuses), and failures of the cluster (`node`'s `NodeError`).

use std::{io, path::PathBuf, sync::Arc};

use tokio::sync::watch;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system said no. After a failed write or sync nobody knows what is on the disk, so nothing is tried again.
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },

    /// What was known to be durable is not there, or is not what was written.
    #[error("damaged data in {} at byte {offset}: {reason}. This replica must not vote or answer with it. {advice}", path.display())]
    Damaged { path: PathBuf, offset: u64, reason: String, advice: &'static str },

    /// The same of the state, whose values have names rather than places in a file.
    #[error("damaged state: {0}. This replica must not answer with it. {REPLACE_ADVICE}")]
    DamagedState(String),

    /// The state's engine said no.
    #[error("{doing} {}: {reason}", path.display())]
    Engine { doing: &'static str, path: PathBuf, reason: String },

    /// The folder belongs to someone else, to another version, or is in use.
    #[error("{}: {reason}", path.display())]
    Refused { path: PathBuf, reason: String },

    /// The cluster has agreed to use what a later program knows: the state here, an entry or a snapshot is of that version.
    #[error(
        "the cluster is at version {version} and this program knows up to {version_max}: start the newer program again"
    )]
    TooNew { version: u32, version_max: u32 },

    /// This replica's state cannot be trusted any more.
    #[error("fenced: {0}")]
    Fenced(String),
}

/// What an operator does about damage: the cluster has what this replica lost.
pub const REPLACE_ADVICE: &str = "Keep the folder for study, remove this node from the cluster, and add it again under a new id with an empty \
     folder (jangbu member --help); the other replicas have its data. If they have been lost too, restore a backup.";

impl StoreError {
    pub fn io(doing: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { doing, path: path.into(), source }
    }

    /// Its checksum was right and its content is not: it was proposed by a program that knows more, or has a fault.
    pub fn unreadable_entry(index: u64, reason: &str) -> Self {
        Self::DamagedState(format!(
            "entry {index} can't be read by this program ({reason}); is it older than another node's?"
        ))
    }

    pub fn damaged(path: impl Into<PathBuf>, offset: u64, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), offset, reason: reason.into(), advice: REPLACE_ADVICE }
    }
}

/// For openraft's traits, which speak `io::Error`.
impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        io::Error::other(error)
    }
}

/// The one place where a store says that it cannot go on. The first cause stands; whoever holds a clone hears of it.
#[derive(Debug, Clone)]
pub struct Fatal(Arc<watch::Sender<Option<Arc<StoreError>>>>);

impl Default for Fatal {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Fatal {
    /// From here on the process has to end. Returns the cause that stands.
    pub fn raise(&self, error: StoreError) -> Arc<StoreError> {
        let error = Arc::new(error);
        self.0.send_if_modified(|cause| {
            let first = cause.is_none();
            if first {
                tracing::error!(%error, "the store cannot go on");
                *cause = Some(error);
            }
            first
        });
        self.cause().expect("a cause was just given")
    }

    pub fn cause(&self) -> Option<Arc<StoreError>> {
        self.0.borrow().clone()
    }

    /// `Err` once the store cannot go on.
    pub fn check(&self) -> io::Result<()> {
        self.cause().map_or(Ok(()), |cause| Err(io::Error::other(cause)))
    }

    /// Waits until the store cannot go on; for ever, if all goes well.
    pub async fn raised(&self) -> Arc<StoreError> {
        let mut receiver = self.0.subscribe();
        let cause = receiver.wait_for(Option::is_some).await.expect("the sender is in self");
        cause.clone().expect("waited for it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cause_stands_and_everyone_hears_it() {
        let fatal = Fatal::default();
        assert!(fatal.check().is_ok());
        let listener = fatal.clone();
        fatal.raise(StoreError::Fenced("first".into()));
        fatal.raise(StoreError::Fenced("second".into()));
        assert_eq!(listener.raised().await.to_string(), "fenced: first");
        assert!(listener.check().is_err());
    }
}
