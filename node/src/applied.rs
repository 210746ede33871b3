//! How far this replica has applied, as something to wait for.

use jangbu_raft_store::Raft;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The index of the last entry applied here. Cheap to clone.
#[derive(Clone)]
pub struct AppliedIndex(watch::Receiver<u64>);

impl AppliedIndex {
    /// Watches until `stop`.
    pub fn watch(raft: &Raft, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let mut progress = raft.watch_apply_progress();
        let index = |applied: Option<jangbu_raft_store::LogId>| applied.map_or(0, |id| id.index);
        let (sender, receiver) = watch::channel(index(progress.get()));
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    changed = progress.changed() => if changed.is_err() { return },
                }
                let _ = sender.send(index(progress.get()));
            }
        });
        Self(receiver)
    }

    pub fn get(&self) -> u64 {
        *self.0.borrow()
    }

    /// Waits until `index` is applied here; false if that isn't so by `deadline`.
    pub async fn reached(&self, index: u64, deadline: Instant) -> bool {
        let mut receiver = self.0.clone();
        let reached = receiver.wait_for(|applied| *applied >= index);
        matches!(timeout_at(deadline, reached).await, Ok(Ok(_)))
    }

    /// Waits until anything more than `index` is applied here. False: nothing will be, the node stops.
    pub async fn past(&self, index: u64) -> bool {
        self.0.clone().wait_for(|applied| *applied > index).await.is_ok()
    }
}
