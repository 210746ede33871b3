//! Waiting for what must come, by name.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How long anything may take that happens in a second or two on an idle machine. Tests run beside each other, and
/// beside compilers, on two cores.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How many times as long something may take in all that is seen to come nearer.
const STRETCH_MAX: u32 = 5;

/// How often is looked. Short against an election, long against a look.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something. Panics with `what` when the deadline has passed.
pub async fn until<T>(what: impl Display, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    until_ok(what, async || look().await.ok_or("not yet")).await
}

/// Waits until `ask` succeeds. Panics with `what`, and with its last answer, when the deadline has passed.
pub async fn until_ok<T, E: Display>(what: impl Display, ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    until_ok_nearer(what, ask, async || ()).await
}

/// The same, for what takes as long as a busy machine makes it: the deadline begins anew when `near` has another answer than
/// before, [`STRETCH_MAX`] times at most in all.
pub async fn until_ok_nearer<T, E: Display, N: PartialEq>(
    what: impl Display,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
    mut near: impl AsyncFnMut() -> N,
) -> T {
    let (began, mut moved, mut before) = (Instant::now(), Instant::now(), near().await);
    loop {
        let answer = match ask().await {
            Ok(found) => return found,
            Err(answer) => answer,
        };
        let now = near().await;
        if now != before {
            (moved, before) = (Instant::now(), now);
        }
        if moved.elapsed() > DEADLINE || began.elapsed() > DEADLINE * STRETCH_MAX {
            panic!("waited {:?} in vain until {what}; the last answer was: {answer}", began.elapsed())
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
