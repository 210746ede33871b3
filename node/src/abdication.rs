//! Who should not lead hands the leadership over, for as long as it finds itself leading: a node whose clock is wrong, and one
//! that is drained.
//!
//! It may be elected again, because it may be the only one that has all that was acknowledged; then it hands over again.
//!
//! Not here: what makes a clock wrong (`clock_skew.rs`), and the last handover of a node that stops (`shutdown.rs`).

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{leadership::Leadership, membership::Membership};

/// Between attempts to hand the leadership over; one fails while no other voter is known to have caught up.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// For one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);

pub struct Abdication {
    pub clock_is_wrong: watch::Receiver<bool>,
    pub draining: watch::Receiver<bool>,
    pub membership: Arc<Membership>,
    pub leadership: watch::Receiver<Leadership>,
}

impl Abdication {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (mut wrong, mut draining) = (self.clock_is_wrong.clone(), self.draining.clone());
        let mut leadership = self.leadership.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = wrong.changed() => if changed.is_err() { return },
                changed = draining.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                () = self.hand_over() => {}
            }
        }
    }

    /// Returns after an attempt; never, if there is nothing to hand over.
    async fn hand_over(&self) {
        let unfit = *self.clock_is_wrong.borrow() || *self.draining.borrow();
        if !(unfit && self.leadership.borrow().is_here()) {
            return std::future::pending().await;
        }
        if let Err(error) = self.membership.move_leader(0, Instant::now() + ATTEMPT_LIMIT).await {
            tracing::debug!(%error, "the leadership can't be handed over yet");
        }
        sleep(RETRY_PAUSE).await;
    }
}
