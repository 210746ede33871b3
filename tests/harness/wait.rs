//! Waiting for what must come, by name.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How long anything may take that happens in a second or two on an idle machine. Tests run beside each other, and
/// beside compilers, on two cores.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often is looked. Short against an election, long against a look.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something. Panics with `what` when the deadline has passed.
pub async fn until<T>(what: impl Display, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    until_ok(what, async || look().await.ok_or("not yet")).await
}

/// Waits until `ask` succeeds. Panics with `what`, and with its last answer, when the deadline has passed.
pub async fn until_ok<T, E: Display>(what: impl Display, mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(answer) if started.elapsed() > DEADLINE => {
                panic!("waited {DEADLINE:?} in vain until {what}; the last answer was: {answer}")
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
