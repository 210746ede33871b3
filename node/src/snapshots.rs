//! When a snapshot is taken: after so many bytes of log, when an operator asks, or when a peer refused the one there is.
//!
//! openraft counts entries; an entry may hold one transfer or eight thousand, so bytes are counted here: those that bring the
//! next snapshot, and those that stay in the log behind it for peers that were away for a moment. What is not purged is
//! what a restart reads.
//!
//! A peer that was sent a snapshot needs the log behind it. If the next snapshot purged that log, the peer would be sent the
//! next one, and under load so on for ever; so the node waits for it, up to [`PATIENCE`] times as many bytes.
//!
//! Not here: what a snapshot is (`raft_store::snapshot`).

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::FutureExt;
use jangbu_proto::reason;
use jangbu_raft_store::{LogStats, Raft};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{applied::AppliedIndex, error::CallError};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many times longer than usual the log may grow while a peer needs it.
const PATIENCE: u64 = 64;

/// A peer that has installed its snapshot has taken up the log behind it within this time, or won't soon.
const TAKES_UP_WITHIN: Duration = Duration::from_secs(10);

/// Short against what a large snapshot takes, long against a look.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(100);

pub struct Snapshots {
    pub raft: Raft,
    pub log: LogStats,
    pub applied: AppliedIndex,
    pub after_log_bytes: u64,
    /// What stays in the log behind a snapshot: the less of the two.
    pub log_entries_kept: u64,
    pub log_bytes_kept: u64,
    /// A peer was sent the newest and will not have it.
    pub refused: Arc<Notify>,
    pub sendings: Arc<Sendings>,
}

/// Which snapshots this node is sending, and when the last one was over.
#[derive(Default)]
pub struct Sendings(Mutex<Sent>);

#[derive(Default)]
struct Sent {
    under_way: usize,
    last_over: Option<Instant>,
}

/// A snapshot on its way to a peer; it is over when this is dropped.
pub struct Sending<'a>(&'a Sendings);

impl Sendings {
    pub fn begin(&self) -> Sending<'_> {
        self.now().under_way += 1;
        Sending(self)
    }

    /// Whether a peer may still need the log behind a snapshot that it was sent.
    fn need_the_log(&self, now: Instant) -> bool {
        let sent = self.now();
        sent.under_way > 0 || sent.last_over.is_some_and(|over| now < over + TAKES_UP_WITHIN)
    }

    fn now(&self) -> MutexGuard<'_, Sent> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut sent = self.0.now();
        sent.under_way -= 1;
        sent.last_over = Some(Instant::now());
    }
}

impl Snapshots {
    /// Runs until `stop`, or until openraft has ended.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.take_when_due() => {}
            () = self.purge_behind_them() => {}
        }
    }

    async fn take_when_due(&self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What was on disk after the last snapshot; entries that are kept behind it don't count twice.
        let mut base = 0;
        loop {
            ticks.tick().await;
            // Looked at once a tick, so that a peer that refuses whatever it is sent doesn't keep the disk busy.
            if self.refused.notified().now_or_never().is_some() {
                tracing::warn!("a peer refused the snapshot it was sent; another is taken");
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            let log_bytes = self.log.bytes_unpurged();
            base = log_bytes.min(base);
            let patience = if self.sendings.need_the_log(Instant::now()) { PATIENCE } else { 1 };
            if log_bytes - base >= self.after_log_bytes.saturating_mul(patience) {
                base = log_bytes;
                tracing::info!(applied = self.applied.get(), log_bytes, "taking a snapshot");
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
        }
    }

    /// openraft does it at once, or when no peer is being sent what is to go.
    async fn purge_behind_them(&self) {
        let mut taken = self.raft.watch_snapshot_progress();
        while let Ok(last) = taken.next().await {
            let upto = |last| self.log.last_to_purge(last, self.log_entries_kept, self.log_bytes_kept);
            if let Some(upto) = last.and_then(|last| upto(last.index))
                && self.raft.trigger().purge_log(upto).await.is_err()
            {
                return;
            }
        }
    }

    /// Takes a snapshot of at least what is applied now; returns its index. Blocks on the disk.
    pub async fn take(&self, deadline: Instant) -> Result<u64, CallError> {
        let applied = self.applied.get();
        if applied == 0 {
            return Err(CallError::precondition(reason::NOT_INITIALIZED, "there is nothing to take a snapshot of"));
        }
        let mut progress = self.raft.watch_snapshot_progress();
        let taken = async {
            loop {
                self.raft.trigger().snapshot().await.map_err(|fatal| CallError::internal(fatal.to_string()))?;
                // While one is being made no other is begun, and that one may be of a moment before: then it is asked again.
                let taken = progress.wait_until(move |at| at.as_ref().is_some_and(|id| id.index >= applied));
                match timeout(ASKED_AGAIN_AFTER, taken).await {
                    Ok(Ok(at)) => return Ok(at.map_or(0, |id| id.index)),
                    Ok(Err(_)) => return Err(crate::admission::shutting_down()),
                    Err(_) => {}
                }
            }
        };
        let late = || CallError::unavailable(reason::NOT_READY, "the snapshot is being taken; look again");
        timeout_at(deadline, taken).await.unwrap_or_else(|_| Err(late()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_behind_a_snapshot_is_needed_until_its_receiver_has_taken_it_up() {
        let sendings = Sendings::default();
        assert!(!sendings.need_the_log(Instant::now()));
        let (first, second) = (sendings.begin(), sendings.begin());
        drop(first);
        tokio::time::advance(TAKES_UP_WITHIN * 2).await;
        assert!(sendings.need_the_log(Instant::now()), "another is under way");
        drop(second);
        assert!(sendings.need_the_log(Instant::now()), "it has just been installed");
        tokio::time::advance(TAKES_UP_WITHIN).await;
        assert!(!sendings.need_the_log(Instant::now()));
    }
}
