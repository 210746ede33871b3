//! Time-ordered ids: 48 bits of milliseconds, 80 bits of chance.
//!
//! They sort by the time they were made, across processes as well as their clocks agree; within a generator each is above
//! the one before, also when the clock jumps back.
//!
//! Laws
//! * An id is neither 0 nor 2^128 - 1.
//!
//! Not here: which id belongs to which payment. Keep it before you ask.

use std::sync::{LazyLock, Mutex};

use jangbu_ledger::TransferId;

use crate::environment::{Clock, Entropy, system_clock, system_entropy};

const CHANCE_BITS: u32 = 80;
const MILLISECONDS_MAX: u64 = (1 << 48) - 1;

/// A generator of ids.
pub struct Ids {
    clock: Clock,
    entropy: Entropy,
    last: Mutex<u128>,
}

impl Ids {
    pub fn new(clock: Clock, entropy: Entropy) -> Self {
        Self { clock, entropy, last: Mutex::new(0) }
    }

    /// The next id, above all before it.
    pub fn next(&self) -> u128 {
        let milliseconds = ((self.clock)() / 1_000_000).min(MILLISECONDS_MAX);
        let fresh = ((milliseconds as u128) << CHANCE_BITS) | self.chance();
        let mut last = self.last.lock().expect("nothing here panics while it holds the lock");
        if fresh >> CHANCE_BITS > *last >> CHANCE_BITS {
            *last = fresh;
        } else {
            // In the same millisecond, or after the clock jumped back: a random step on, so that the next can't be guessed
            // and two generators that started alike part ways.
            *last = last.checked_add(1 + ((self.entropy)() as u32 as u128)).expect("the clock isn't in the year 10889");
        }
        *last
    }

    fn chance(&self) -> u128 {
        let (high, low) = ((self.entropy)(), (self.entropy)());
        // The top bit stays free, so that the steps of one millisecond don't run into the next.
        ((high as u128) << 64 | low as u128) & ((1 << (CHANCE_BITS - 1)) - 1)
    }
}

/// The next id of this process, from the system's clock and randomness.
pub fn id() -> TransferId {
    static IDS: LazyLock<Ids> = LazyLock::new(|| Ids::new(system_clock(), system_entropy()));
    TransferId(IDS.next())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    fn ids(now: &Arc<AtomicU64>) -> Ids {
        let (now, state) = (now.clone(), AtomicU64::new(1));
        let entropy = move || state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).rotate_left(31);
        Ids::new(Arc::new(move || now.load(Ordering::Relaxed)), Arc::new(entropy))
    }

    #[test]
    fn ids_rise_within_a_millisecond_and_when_the_clock_jumps_back() {
        let now = Arc::new(AtomicU64::new(1_700_000_000_000_000_000));
        let ids = ids(&now);
        let mut last = 0;
        for round in 0..10_000u64 {
            if round % 1_000 == 999 {
                now.fetch_sub(5_000_000, Ordering::Relaxed);
            }
            let id = ids.next();
            assert!(id > last, "{id:x} after {last:x}");
            last = id;
        }
    }

    #[test]
    fn an_id_begins_with_its_milliseconds() {
        let now = Arc::new(AtomicU64::new(1_700_000_000_123_999_999));
        let ids = ids(&now);
        for _ in 0..1_000 {
            assert_eq!(ids.next() >> CHANCE_BITS, 1_700_000_000_123);
        }
    }

    #[test]
    fn a_broken_clock_still_makes_ids() {
        let now = Arc::new(AtomicU64::new(0));
        assert_ne!(ids(&now).next(), 0);
        now.store(u64::MAX, Ordering::Relaxed);
        assert_ne!(ids(&now).next(), u128::MAX);
    }

    #[test]
    fn the_process_makes_each_id_once() {
        let (first, second) = (id(), id());
        assert!(second > first);
    }
}
