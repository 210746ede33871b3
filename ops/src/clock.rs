//! This machine's clock, for what people are told and for what is recorded without a cluster to ask.
//!
//! Not here: log time, which only a leader stamps; durations, which `Instant` measures.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch; 0 if the clock stands before it.
pub fn now_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}
