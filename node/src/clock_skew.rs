//! How far the clocks of the nodes are apart, and what a node does whose own clock is wrong.
//!
//! Log time follows the leader's clock. One that is an hour ahead would expire an hour of holds too early, and later leaders
//! could follow it only by a nanosecond at a time. So nodes tell each other their clocks now and then (`digests.rs`), each
//! judges its own, and one that finds itself wrong stamps nothing: if it leads, it hands the leadership over (`abdication.rs`).
//!
//! Laws
//! * A clock is wrong if a majority of all members agrees on a time that isn't its own. Where no majority agrees, nobody can
//!   say which clock is wrong, and all go on: a cluster never stops for its clocks alone.
//! * Nothing but stamping rests on a clock: a node whose clock is wrong goes on to vote, to follow and to answer.
//!
//! Not here: how a stamp is made (`proposer.rs`), and log time's order, which no clock can harm (`proto::batch`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{environment::Clock, metrics::Metrics};

pub struct ClockSkew {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    max: Duration,
    is_wrong: watch::Sender<bool>,
}

impl ClockSkew {
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>, max: Duration) -> Self {
        Self { clock, metrics, max, is_wrong: watch::Sender::new(false) }
    }

    /// A leader's clock came with its entries. What it was on the way is in the difference.
    pub fn heard(&self, from: u64, clock_ns: u64) {
        self.metrics.clock_offset(from, self.offset_ns(clock_ns) as f64 / 1e9);
    }

    pub fn now_ns(&self) -> u64 {
        self.clock.wall_ns()
    }

    /// A peer's clock less this node's, if the answer that told it came soon enough to tell much.
    pub fn measured(&self, clock_ns: u64, round_trip: Duration) -> Option<i128> {
        let told = clock_ns > 0 && round_trip <= self.max / 4;
        told.then(|| self.offset_ns(clock_ns) + round_trip.as_nanos() as i128 / 2)
    }

    /// Takes one round of measurements; `members` counts this node and those who didn't answer, too.
    pub fn judge(&self, offsets: &BTreeMap<u64, i128>, members: usize) {
        let offsets: Vec<i128> = offsets.values().copied().collect();
        let majority = contradicted_by(&offsets, members, self.max.as_nanos() as i128);
        let changed = self.is_wrong.send_if_modified(|wrong| std::mem::replace(wrong, majority.is_some()) != *wrong);
        self.metrics.clock_wrong.set(majority.is_some().into());
        match majority {
            Some(offset_ns) if changed => tracing::error!(
                behind_seconds = offset_ns as f64 / 1e9,
                "this node's clock differs from those of a majority: it stamps nothing before it is set right"
            ),
            None if changed => tracing::info!("this node's clock is right again"),
            _ => {}
        }
    }

    pub fn is_wrong(&self) -> bool {
        *self.is_wrong.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<bool> {
        self.is_wrong.subscribe()
    }

    fn offset_ns(&self, clock_ns: u64) -> i128 {
        i128::from(clock_ns) - i128::from(self.clock.wall_ns())
    }
}

/// The time that a majority agrees on within `max`, as an offset, if it isn't this node's.
fn contradicted_by(offsets: &[i128], members: usize, max: i128) -> Option<i128> {
    let mut sorted = offsets.to_vec();
    sorted.sort_unstable();
    let majority = members / 2 + 1;
    let mut windows = sorted.windows(majority).map(|window| (window[0], window[majority / 2], window[majority - 1]));
    let agrees_elsewhere =
        |(least, _, most): &(i128, i128, i128)| most - least <= max && (*least > max || *most < -max);
    windows.find(agrees_elsewhere).map(|(_, middle, _)| middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: i128 = 1_000;

    #[test]
    fn a_clock_that_a_majority_contradicts_is_wrong() {
        assert_eq!(contradicted_by(&[-3_600_000, -3_600_010], 3, MAX), Some(-3_600_000));
        assert_eq!(contradicted_by(&[5_000, 5_100, 4_900, 90_000], 5, MAX), Some(5_000));
    }

    #[test]
    fn a_clock_within_the_bound_of_another_is_right_enough() {
        assert_eq!(contradicted_by(&[0, 5_000], 3, MAX), None);
        assert_eq!(contradicted_by(&[500, 1_400], 3, MAX), None);
        assert_eq!(contradicted_by(&[-1_500, -700], 3, MAX), None);
    }

    #[test]
    fn where_no_majority_agrees_all_go_on() {
        assert_eq!(contradicted_by(&[5_000, -5_000], 3, MAX), None, "three clocks, three times");
        assert_eq!(contradicted_by(&[5_000], 3, MAX), None, "the third gave no answer");
        assert_eq!(contradicted_by(&[], 1, MAX), None);
        assert_eq!(contradicted_by(&[5_000], 2, MAX), None);
    }
}
