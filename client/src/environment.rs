//! The seams to clock and chance. A simulation brings its own.
//!
//! Laws
//! * The system clock and the operating system's randomness are read in this file and nowhere else in this crate.
//!   What measures a duration is `tokio::time`, which a simulation can advance.
//!
//! Not here: the network's seam (`jangbu_proto::transport`).

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Nanoseconds since the Unix epoch. May jump either way: it only makes ids that sort by time.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The next 64 random bits: for ids, and to keep callers from asking again in step.
pub type Entropy = Arc<dyn Fn() -> u64 + Send + Sync>;

pub fn system_clock() -> Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64))
}

pub fn system_entropy() -> Entropy {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    Arc::new(rand::random::<u64>)
}
