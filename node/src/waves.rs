//! Callers who ask again as soon as they are answered come in waves, and are worth waiting for.
//!
//!     entry of 16 answered -> 16 callers are back one by one -> first alone, the others after it:  two entries that take turns
//!                                                            -> all of them together:              one entry
//!
//! So once nothing is in flight the next entry waits for those who were just answered: until they are back, and for no longer
//! than an entry takes. Those who come by chance and not in waves aren't back by then; after a wave that didn't come the next few
//! entries wait for nobody.
//!
//! Laws
//! * A lone caller waits for nobody.
//! * Of entries that waited in vain there is at most one in [`SKIPPED`] + 1.
//!
//! Not here: what gathers while an entry is in flight (`batcher.rs`).

use tokio::time::Instant;

/// Entries that wait for nobody after one that waited in vain. Fewer find the next wave sooner; more cost those who come by
/// chance less: with 8, a ninth of the time that an entry takes.
const SKIPPED: u32 = 8;

#[derive(Default)]
pub struct Waves {
    awaited: Option<Wave>,
    to_skip: u32,
}

struct Wave {
    /// Requests that wait once all of them are back.
    expected: usize,
    until: Instant,
}

impl Waves {
    /// An entry of so many requests was answered, and nothing is in flight any more.
    pub fn answered(&mut self, answered_count: usize, waiting_count: usize, until: Instant) {
        let expected = answered_count + waiting_count;
        self.awaited = (self.to_skip == 0).then_some(Wave { expected, until });
        self.to_skip = self.to_skip.saturating_sub(1);
    }

    /// Until when those who wait should wait for the others. `None`: all are there, or won't come.
    pub fn wait_until(&mut self, waiting_count: usize, now: Instant) -> Option<Instant> {
        let Wave { expected, until } = *self.awaited.as_ref()?;
        if waiting_count < expected && now < until {
            return Some(until);
        }
        if waiting_count < expected {
            self.to_skip = SKIPPED;
        }
        self.awaited = None;
        None
    }

    /// Whoever was answered before is another leader's.
    pub fn forget(&mut self) {
        self.awaited = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TAKES: Duration = Duration::from_millis(1);

    #[test]
    fn a_wave_is_waited_for_until_all_of_it_is_back() {
        let (mut waves, now) = (Waves::default(), Instant::now());
        waves.answered(16, 2, now + TAKES);
        assert_eq!(waves.wait_until(3, now), Some(now + TAKES));
        assert_eq!(waves.wait_until(17, now), Some(now + TAKES));
        assert_eq!(waves.wait_until(18, now), None);
        waves.answered(18, 0, now + TAKES);
        assert_eq!(waves.wait_until(1, now), Some(now + TAKES), "one that came is waited for again");
    }

    #[test]
    fn a_lone_caller_waits_for_nobody() {
        let (mut waves, now) = (Waves::default(), Instant::now());
        for _ in 0..100 {
            waves.answered(1, 0, now + TAKES);
            assert_eq!(waves.wait_until(1, now), None);
        }
    }

    #[test]
    fn after_a_wave_that_did_not_come_the_next_entries_wait_for_nobody() {
        let (mut waves, now) = (Waves::default(), Instant::now());
        let mut waited = |now| {
            waves.answered(2, 1, now + TAKES);
            let waits = waves.wait_until(1, now).is_some();
            assert_eq!(waves.wait_until(1, now + TAKES), None, "no longer than that");
            waits
        };
        let waits: Vec<bool> = (0..20).map(|round| waited(now + TAKES * round)).collect();
        let expected: Vec<bool> = (0..20).map(|round| round % (SKIPPED + 1) == 0).collect();
        assert_eq!(waits, expected);
    }
}
