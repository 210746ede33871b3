//! Stopping in good order: hand over, finish, close.
//!
//!     not ready any more -> leadership handed over -> doors close, calls in flight end -> tasks, Raft, store
//!
//! Clients are served until the leadership has moved: their requests are forwarded to the new leader. Then the client
//! door tells them to go elsewhere, and what is in flight has the rest of the time to end.
//!
//! Not here: who asks for it (`main.rs` hears the signals).

use std::time::Duration;

use tokio::time::Instant;

use crate::{health::Health, membership::Membership};

/// The most that is waited for one handover, so that the rest of the drain has time left.
const HANDOVER_MAX: Duration = Duration::from_secs(3);

/// Between the words "not ready" and the door's closing, so that balancers hear them. Short: clients are forwarded anyway.
const NOTICE: Duration = Duration::from_millis(100);

/// Steps down in favour of a voter that has caught up, if this node leads. Blocks on that voter.
pub async fn hand_over(health: &Health, membership: &Membership, deadline: Instant) {
    health.set_draining(true);
    tokio::time::sleep(NOTICE.min(deadline.saturating_duration_since(Instant::now()))).await;
    if !membership.leadership.borrow().is_here() {
        return;
    }
    let limit = deadline.min(Instant::now() + HANDOVER_MAX);
    match membership.move_leader(0, limit).await {
        Ok((leader, term)) => tracing::info!(leader, term, "the leadership is handed over"),
        // The others will elect one when this node is gone.
        Err(error) => tracing::warn!(%error, "the leadership could not be handed over"),
    }
}
