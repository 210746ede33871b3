//! One call: attempts at one node after another, until there is an answer, a reason to stop, or no time left.
//!
//!     attempt -> answer                                                      -> the answer
//!             -> malformed, not allowed                                      -> that error
//!             -> unavailable, no connection                                  -> the next node, at once
//!             -> overloaded                                                  -> the same node, after the delay it named
//!             -> outcome unknown, no answer in time, the connection broke    -> the next node; from now on in doubt
//!
//! Once every node was asked, attempts are apart by a random pause of up to a bound that doubles ("full jitter"), so that
//! many callers who failed together don't come back together.
//!
//! Laws
//! * A call in doubt never ends as "nothing was done".
//! * Attempts that cost a node work are paid from a budget that each call refills by a tenth: when all is failing, retries
//!   add a tenth to the load instead of multiplying it.
//!
//! Not here: what is asked (`client`), which node is next (`endpoints`).

use jangbu_ledger::planted::{self, Bug};
use std::{error::Error, sync::Mutex, time::Duration};

use jangbu_proto::{Malformed, reason, transport::Channel};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, ConnectError, Status};

use crate::{ClientError, endpoints::Endpoints, environment::Entropy};

/// The bound of the first random pause.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The largest bound of a random pause: an election is over in about that time.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Which part of a retry each call pays for.
const BUDGET_SHARE: f64 = 0.1;

/// The retries that can be saved up: enough for all callers of a process whose node died at once.
const BUDGET_MAX: f64 = 1_000.0;

/// What an attempt may leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: ask as often as you like.
    None,
    /// The same, however often it is asked: it goes by ids.
    Once,
    /// Something each time: when in doubt, stop.
    Each,
}

/// How long and how often a call is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) deadline: Duration,
    pub(crate) attempt_deadline: Duration,
    pub(crate) attempts_max: u32,
}

#[derive(Debug)]
pub(crate) struct Answered<T> {
    pub(crate) value: T,
    /// An earlier attempt of this call may have been carried out.
    pub(crate) after_doubt: bool,
}

#[derive(Debug)]
pub(crate) struct Failed {
    /// What to tell when nothing was done.
    error: ClientError,
    in_doubt: bool,
}

impl Failed {
    /// For a call that leaves nothing behind.
    pub(crate) fn of_read(self) -> ClientError {
        self.error
    }

    pub(crate) fn of_write(self, ids: impl FnOnce() -> Vec<u128>) -> ClientError {
        match self.in_doubt {
            true => ClientError::OutcomeUnknown { ids: ids(), message: message_of(&self.error) },
            false => self.error,
        }
    }
}

fn message_of(error: &ClientError) -> String {
    match error {
        ClientError::Overloaded { message, .. }
        | ClientError::Unavailable { message, .. }
        | ClientError::OutcomeUnknown { message, .. }
        | ClientError::NotAllowed { message, .. } => message.clone(),
        ClientError::Refused(malformed) | ClientError::Unintelligible(malformed) => malformed.to_string(),
    }
}

/// What all calls of a client share.
pub(crate) struct Caller {
    pub(crate) endpoints: Endpoints,
    pub(crate) entropy: Entropy,
    pub(crate) budget: Budget,
}

impl Caller {
    /// Asks until there is an answer. `ask` makes one attempt, which the node and the connection are told to end within the
    /// given time. Waits for nodes, within the deadline.
    pub(crate) async fn call<T, F>(
        &self,
        patience: Patience,
        effect: Effect,
        mut ask: impl FnMut(Channel, Duration) -> F,
    ) -> Result<Answered<T>, Failed>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + patience.deadline;
        let mut in_doubt = false;
        let mut attempts_count = 0;
        self.budget.refill();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = left.min(patience.attempt_deadline);
            let index = self.endpoints.pick();
            let asked = timeout(limit, ask(self.endpoints.get(index).channel.clone(), limit)).await;
            attempts_count += 1;
            let verdict = match asked {
                Ok(Ok(value)) => {
                    self.endpoints.good(index);
                    return Ok(Answered { value, after_doubt: in_doubt });
                }
                Ok(Err(status)) => judge(&status),
                Err(_) => Verdict::no_answer(),
            };
            tracing::debug!(address = self.endpoints.get(index).address, ?verdict, "an attempt failed");
            in_doubt |= verdict.maybe_done && !planted::is(Bug::ClientForgetsDoubt);
            if verdict.then == Then::Elsewhere {
                self.endpoints.bad(index);
            }
            let pause = self.pause(verdict.then, attempts_count);
            let go_on = verdict.then != Then::Stop
                && !(in_doubt && effect == Effect::Each)
                && attempts_count < patience.attempts_max
                && Instant::now() + pause < deadline
                && (verdict.cost_nothing || self.budget.spend());
            if !go_on {
                let error = verdict.error.at(&self.endpoints.get(index).address);
                return Err(Failed { error, in_doubt });
            }
            sleep(pause).await;
        }
    }

    pub(crate) fn pause(&self, then: Then, attempts_count: u32) -> Duration {
        match then {
            // Those who were turned away together must not come back together, and none earlier than told.
            Then::After(delay) => delay + self.random_up_to(delay),
            _ => {
                let rounds = attempts_count.saturating_sub(self.endpoints.len() as u32 - 1);
                if rounds == 0 { Duration::ZERO } else { self.jitter(rounds) }
            }
        }
    }

    /// A random pause before the `rounds`-th attempt in a row, from 1.
    pub(crate) fn jitter(&self, rounds: u32) -> Duration {
        let bound = PAUSE_MIN.saturating_mul(1 << (rounds - 1).min(10)).min(PAUSE_MAX);
        self.random_up_to(bound)
    }

    fn random_up_to(&self, bound: Duration) -> Duration {
        bound.mul_f64(((self.entropy)() >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// What is made of a failed attempt.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// It may have been carried out all the same.
    pub(crate) maybe_done: bool,
    /// No node had any work with it.
    cost_nothing: bool,
    pub(crate) then: Then,
    /// What to tell if this was the last attempt and nothing was done.
    pub(crate) error: ClientError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Stop,
    Elsewhere,
    After(Duration),
}

impl Verdict {
    fn nothing_done(then: Then, error: ClientError) -> Self {
        Self { maybe_done: false, cost_nothing: false, then, error }
    }

    fn maybe_done(error: ClientError) -> Self {
        Self { maybe_done: true, cost_nothing: false, then: Then::Elsewhere, error }
    }

    pub(crate) fn no_answer() -> Self {
        Self::maybe_done(ClientError::unavailable("no answer in time"))
    }
}

pub(crate) fn judge(status: &Status) -> Verdict {
    let told = reason::told(status);
    let message = status.message().to_owned();
    let field = |name: &str| told.field.clone().unwrap_or_else(|| Malformed::new(name, &message));
    let unavailable = || ClientError::Unavailable { reason: told.reason.clone(), message: message.clone() };
    match (status.code(), told.reason.as_str()) {
        (_, reason::OUTCOME_UNKNOWN | reason::INTERNAL) => Verdict::maybe_done(unavailable()),
        (_, reason::OVERLOADED) => {
            let retry_after = told.retry_after.unwrap_or(PAUSE_MAX);
            let error = ClientError::Overloaded { retry_after, message };
            Verdict::nothing_done(Then::After(retry_after), error)
        }
        (_, reason::NOT_PROPOSED | reason::NOT_LEADER) => Verdict::nothing_done(Then::Elsewhere, unavailable()),
        (Code::Unavailable, known) if !known.is_empty() => Verdict::nothing_done(Then::Elsewhere, unavailable()),
        (Code::Unavailable, _) if never_left(status) => {
            Verdict { cost_nothing: true, ..Verdict::nothing_done(Then::Elsewhere, unavailable()) }
        }
        // A message above the node's bound is found out before it is looked at.
        (Code::InvalidArgument, _) => Verdict::nothing_done(Then::Stop, ClientError::Refused(field("request"))),
        (Code::OutOfRange, "") => Verdict::nothing_done(Then::Stop, ClientError::Refused(field("message"))),
        (
            Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::NotFound
            | Code::AlreadyExists
            | Code::OutOfRange,
            reason,
        ) => {
            let error = ClientError::NotAllowed { reason: reason.to_owned(), message };
            Verdict::nothing_done(Then::Stop, error)
        }
        // The connection broke, the time was up, something in between answered: the node may have got it.
        _ => Verdict::maybe_done(unavailable()),
    }
}

/// There was no connection to send it on.
fn never_left(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Pays for retries.
pub(crate) struct Budget(Mutex<f64>);

impl Budget {
    pub(crate) fn full() -> Self {
        Self(Mutex::new(BUDGET_MAX))
    }

    /// A call begins.
    pub(crate) fn refill(&self) {
        let mut retries = self.lock();
        *retries = (*retries + BUDGET_SHARE).min(BUDGET_MAX);
    }

    /// A retry is about to be made. May it?
    pub(crate) fn spend(&self) -> bool {
        let mut retries = self.lock();
        let enough = *retries >= 1.0;
        if enough {
            *retries -= 1.0;
        }
        enough
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, f64> {
        self.0.lock().expect("nothing here panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_the_calls_in_the_long_run() {
        let budget = Budget::full();
        let mut retries_count = 0;
        for _ in 0..100_000 {
            budget.refill();
            while budget.spend() {
                retries_count += 1;
            }
        }
        assert!((10_900..=11_100).contains(&retries_count), "{retries_count}: the savings, and a tenth");
    }

    #[test]
    fn each_failure_is_judged_by_what_was_done_and_what_to_do() {
        let told = |code, reason: &str| judge(&reason::status(code, reason, "why"));
        for reason in [reason::NO_LEADER, reason::NO_QUORUM, reason::STALE, reason::SHUTTING_DOWN, reason::NOT_READY] {
            let verdict = told(Code::Unavailable, reason);
            assert_eq!((verdict.maybe_done, verdict.then), (false, Then::Elsewhere), "{reason}");
        }
        let verdict = told(Code::DeadlineExceeded, reason::NOT_PROPOSED);
        assert_eq!((verdict.maybe_done, verdict.then), (false, Then::Elsewhere));
        for reason in [reason::OUTCOME_UNKNOWN, reason::INTERNAL] {
            assert!(told(Code::DeadlineExceeded, reason).maybe_done, "{reason}");
        }
        for reason in [reason::WRONG_CLUSTER, reason::LAGGING, reason::GONE_BY] {
            let verdict = told(Code::FailedPrecondition, reason);
            assert_eq!((verdict.maybe_done, verdict.then), (false, Then::Stop), "{reason}");
        }
        let malformed = judge(&reason::malformed(&Malformed::new("transfers[1].code", "too large")));
        assert_eq!(malformed.then, Then::Stop);
        assert_eq!(malformed.error, ClientError::Refused(Malformed::new("transfers[1].code", "too large")));
        let delay = Duration::from_millis(70);
        assert_eq!(judge(&reason::overloaded("full", delay)).then, Then::After(delay));
    }

    #[test]
    fn a_failure_without_our_reason_leaves_a_doubt() {
        for code in [Code::Unavailable, Code::Cancelled, Code::Unknown, Code::Internal, Code::DeadlineExceeded] {
            assert!(judge(&Status::new(code, "a proxy says so")).maybe_done, "{code:?}");
        }
    }

    #[test]
    fn a_refused_connection_leaves_no_doubt() {
        let status = Status::from_error(Box::new(ConnectError("refused".into())));
        let verdict = judge(&status);
        assert_eq!((verdict.maybe_done, verdict.cost_nothing, verdict.then), (false, true, Then::Elsewhere));
    }
}
