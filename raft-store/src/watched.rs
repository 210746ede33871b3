//! An entry that somebody watches on its way: told of both its events where they happen.
//!
//!     client_write_ff ─► log, quorum ─► committed ─► handed to the state machine ─► answered ─► whoever proposed it
//!
//! Whoever waits for the answer hears of it when it is its turn to run; what watches hears at once, on Raft's own path.
//!
//! Not here: entries that nobody watches, which are nearly all; they go by openraft's `client_write`.

use std::sync::Arc;

use openraft::{OptionalSend, raft::responder::Responder};
use tokio::sync::oneshot;

use crate::type_config::{LogId, TypeConfig};

/// Each is called at most once, in this order, and holds up Raft for as long as it takes.
pub trait Watcher: Send + Sync + 'static {
    /// A quorum has it durable, and this replica, its leader, is about to apply it.
    fn committed(&self);

    /// This replica has applied it; without `committed` before: it came to nothing.
    fn answered(&self);
}

/// For openraft: who is told, and who waits.
pub struct Watched<T> {
    watcher: Arc<dyn Watcher>,
    answer: oneshot::Sender<T>,
}

impl<T> Watched<T> {
    pub fn new(watcher: Arc<dyn Watcher>) -> (Self, oneshot::Receiver<T>) {
        let (answer, receiver) = oneshot::channel();
        (Self { watcher, answer }, receiver)
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Watched<T> {
    fn on_commit(&mut self, _: LogId) {
        self.watcher.committed();
    }

    fn on_complete(self, answer: T) {
        self.watcher.answered();
        // Whoever proposed it may have given up.
        let _ = self.answer.send(answer);
    }
}
