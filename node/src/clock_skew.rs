//! How far the clocks of the nodes are apart, as far as their messages tell.
//!
//! A leader's appends carry its wall clock. The difference to this node's clock, less the time on the way, is the skew;
//! it is shown as a metric, because a clock that runs ahead stamps entries that later leaders can only follow by a
//! nanosecond at a time.
//!
//! Not here: a guard that keeps a leader with a bad clock from stamping. It would stand between this and `proposer.rs`.

use std::sync::Arc;

use crate::{environment::Clock, metrics::Metrics};

pub struct ClockSkew {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl ClockSkew {
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { clock, metrics }
    }

    pub fn heard(&self, from: u64, clock_ns: u64) {
        let offset_ns = clock_ns as i128 - self.clock.wall_ns() as i128;
        self.metrics.clock_offset(from, offset_ns as f64 / 1e9);
    }
}
