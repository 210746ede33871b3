//! How long the log's syncs take: the disk's share of every payment's wait.
//!
//! Counted in buckets without a lock, by the one lane that syncs; read by whoever asks.
//!
//! Not here: how it is shown (`node/src/metrics.rs`).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// From 62.5 µs, a good disk, to 16 s, a dead one: each bound is twice the one before.
const BOUNDS: usize = 19;
const FIRST_BOUND: Duration = Duration::from_nanos(62_500);

#[derive(Debug, Default)]
pub(super) struct SyncTimes {
    /// How many took at most the bound of that number and more than the one before it; the last: more than any.
    counts: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

/// A copy of the buckets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncHistogram {
    pub sum: Duration,
    pub count: u64,
    /// Upper bound in seconds, the last one infinite; and how many lie within it and above the one before.
    pub buckets: Vec<(f64, u64)>,
}

impl SyncTimes {
    pub(super) fn record(&self, took: Duration) {
        let bucket = bounds().position(|bound| took <= bound).unwrap_or(BOUNDS);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> SyncHistogram {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let bounds = bounds().map(|bound| bound.as_secs_f64()).chain([f64::INFINITY]);
        SyncHistogram {
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
            count: counts.iter().sum(),
            buckets: bounds.zip(counts).collect(),
        }
    }
}

fn bounds() -> impl Iterator<Item = Duration> {
    (0..BOUNDS as u32).map(|power| FIRST_BOUND * 2u32.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_once_in_the_smallest_bucket_that_holds_it() {
        let times = SyncTimes::default();
        for took in [FIRST_BOUND, FIRST_BOUND + Duration::from_nanos(1), Duration::from_secs(3_600)] {
            times.record(took);
        }
        let SyncHistogram { sum, count, buckets } = times.read();
        assert_eq!((count, sum), (3, FIRST_BOUND * 2 + Duration::from_nanos(1) + Duration::from_secs(3_600)));
        let filled: Vec<(f64, u64)> = buckets.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.000_062_5, 1), (0.000_125, 1), (f64::INFINITY, 1)]);
    }

    #[test]
    fn the_bounds_reach_from_a_good_disk_to_a_dead_one() {
        assert_eq!(bounds().last(), Some(Duration::from_nanos(16_384_000_000)));
    }
}
