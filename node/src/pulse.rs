//! Expiry: when a pending transfer's time is up, the leader says so in the log.
//!
//! Replicas never read a clock while applying, so what is due is released by an entry that carries the time (a pulse). A
//! pulse of a leader that was deposed meanwhile is harmless: it expires what is due at its stamp, or nothing.
//!
//! Not here: what expires and in which order (`ledger`), how many at once (`raft_store`, bounded per entry).

use std::{sync::Arc, time::Duration};

use jangbu_raft_store::StateReader;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    applied::AppliedIndex, batcher::Outcome, environment::Clock, leadership::Leadership, metrics::Metrics,
    proposer::Proposer,
};

/// The longest sleep: the wall clock may jump, and an earlier expiry may be added.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// After a pulse that wasn't applied. Also its limit: a leader without a quorum must not sit on one pulse for ever.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const PULSE_LIMIT: Duration = Duration::from_secs(5);

pub struct Pulse {
    pub proposer: Arc<Proposer>,
    pub state: StateReader,
    pub applied: AppliedIndex,
    pub leadership: watch::Receiver<Leadership>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}

impl Pulse {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                running = self.step() => if !running { return },
            }
        }
    }

    /// False: the node stops.
    async fn step(&mut self) -> bool {
        if self.leadership.wait_for(Leadership::is_here).await.is_err() {
            return false;
        }
        let applied = self.applied.get();
        let due_at = self.state.next_expiry();
        match due_at.map(|at| at.saturating_sub(self.clock.wall_ns())) {
            Some(0) => {
                self.metrics.pulses.inc();
                let pulse = timeout(PULSE_LIMIT, self.proposer.pulse()).await;
                let moved_on = matches!(pulse, Ok(Outcome::Applied(_))) && self.state.next_expiry() != due_at;
                // Many may be due at one instant; even so, a pulse that changes nothing must not be followed at once.
                if !moved_on {
                    sleep(RETRY_PAUSE).await;
                }
                true
            }
            Some(left_ns) => {
                sleep(Duration::from_nanos(left_ns).min(LOOK_EVERY_MAX)).await;
                true
            }
            // Nothing is pending: only a new entry can change that.
            None => tokio::select! {
                biased;
                more = self.applied.past(applied) => more,
                changed = self.leadership.changed() => changed.is_ok(),
            },
        }
    }
}
