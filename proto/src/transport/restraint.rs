//! How often the log is told of what strangers do: whoever knocks ten thousand times must not fill a disk by it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Often enough to see that it goes on, and what it is.
const EVERY: Duration = Duration::from_secs(1);

/// One line in a second; the others are counted.
#[derive(Debug, Default)]
pub(super) struct Restraint(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Restraint {
    /// Whether to say it now, and how many were left unsaid since the last time.
    pub(super) fn say(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.said_at.is_some_and(|at| now - at < EVERY) {
            state.unsaid += 1;
            return None;
        }
        state.said_at = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_and_then_one_a_second_with_how_many_there_were() {
        let restraint = Restraint::default();
        assert_eq!([restraint.say(), restraint.say(), restraint.say()], [Some(0), None, None]);
        tokio::time::advance(EVERY).await;
        assert_eq!([restraint.say(), restraint.say()], [Some(2), None]);
    }
}
