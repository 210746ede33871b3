//! Drives callers against a system, and writes down every answer.
//!
//! In a closed loop each caller asks again when it has its answer: that finds the highest rate. In an open loop requests have
//! a time at which they should be sent, and latency counts from that time, also where a slow answer before it made it late: a
//! pause shows at its full length.
//!
//!     pacer (a thread) -- a permit per request that is due --> callers -- the next slot's time --> ask
//!
//! Nobody sleeps on tokio's clock: it ticks in milliseconds, which is longer than many an answer takes.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::row::{Requests, Row};
use super::system::Caller;
use crate::error::Failure;

/// The pacer looks at the time no more often than this: it shares the machine with what it measures.
const PACE_MIN: Duration = Duration::from_micros(100);

/// How long, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What comes before it is not counted.
    pub warm_up: Duration,
    pub measured: Duration,
    /// Requests a second, all callers together; none: a closed loop.
    pub rate: Option<f64>,
    /// Stop after so many requests, if that comes first.
    pub requests_max: Option<u64>,
}

/// One answer: when it came, and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub at: Instant,
    pub latency: Duration,
    /// Of the replica that was asked ([`Caller::place`]).
    pub place: usize,
}

/// The answers of the measured time, in the order in which they came.
pub struct Answers {
    pub from: Instant,
    pub until: Instant,
    pub answers: Vec<Answer>,
}

/// A load under way.
pub struct Load {
    pub measured_from: Instant,
    pub until: Instant,
    callers: JoinSet<Result<Vec<Answer>, Failure>>,
}

struct Schedule {
    began: Instant,
    until: Instant,
    rate: Option<f64>,
    callers_count: usize,
    /// A permit for each slot whose time has come; once all have, one more per caller, which tells it that it is over.
    due: Semaphore,
    next_slot: AtomicU64,
    requests_left: AtomicI64,
}

impl Schedule {
    /// Waits until the next request is due, and says since when it is; none when no more are begun.
    async fn next(&self) -> Option<Instant> {
        if self.requests_left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return None;
        }
        let at = match self.rate {
            Some(rate) => {
                self.due.acquire().await.expect("it is never closed").forget();
                self.slot_at(rate, self.next_slot.fetch_add(1, Ordering::Relaxed))
            }
            None => Instant::now(),
        };
        (at < self.until).then_some(at)
    }

    fn slot_at(&self, rate: f64, slot: u64) -> Instant {
        self.began + Duration::from_secs_f64(slot as f64 / rate)
    }
}

/// Gives leave for every slot as its time comes. Ends with the schedule, or when nobody is left that follows it.
fn pace(schedule: Weak<Schedule>, rate: f64) {
    let mut next_slot = 0;
    while let Some(schedule) = schedule.upgrade() {
        let now = Instant::now();
        let first = next_slot;
        while schedule.slot_at(rate, next_slot) <= now.min(schedule.until) {
            next_slot += 1;
        }
        schedule.due.add_permits((next_slot - first) as usize);
        if now >= schedule.until {
            schedule.due.add_permits(schedule.callers_count);
            return;
        }
        let pause = schedule.slot_at(rate, next_slot) - now;
        drop(schedule);
        thread::sleep(pause.max(PACE_MIN));
    }
}

impl Load {
    pub fn begin(callers: Vec<Box<dyn Caller>>, row: &Row, seed: u64, pace: Pace) -> Load {
        let began = Instant::now();
        let measured_from = began + pace.warm_up;
        let until = measured_from + pace.measured;
        let requests_left = pace.requests_max.map_or(i64::MAX, |count| count as i64);
        let schedule = Arc::new(Schedule {
            began,
            until,
            rate: pace.rate,
            callers_count: callers.len(),
            due: Semaphore::new(0),
            next_slot: AtomicU64::new(0),
            requests_left: AtomicI64::new(requests_left),
        });
        if let Some(rate) = pace.rate {
            let schedule = Arc::downgrade(&schedule);
            thread::spawn(move || self::pace(schedule, rate));
        }
        let mut tasks = JoinSet::new();
        for (number, caller) in callers.into_iter().enumerate() {
            let requests = Requests::new(*row, seed << 32 | number as u64);
            tasks.spawn(work(caller, requests, schedule.clone()));
        }
        Load { measured_from, until, callers: tasks }
    }

    /// Waits for every caller. The answers that came in the measured time.
    pub async fn finish(self) -> Result<Answers, Failure> {
        let (from, until) = (self.measured_from, self.until);
        let answers = self.all().await?;
        let until = until.min(answers.last().map_or(until, |last| last.at));
        Ok(Answers { from, until, answers }.between(from, until))
    }

    /// Waits for every caller. The answers to what was due in the measured time, however late they came.
    pub async fn finish_due(self) -> Result<Answers, Failure> {
        let (from, until) = (self.measured_from, self.until);
        let mut answers = self.all().await?;
        answers.retain(|answer| (from..until).contains(&(answer.at - answer.latency)));
        Ok(Answers { from, until, answers })
    }

    async fn all(mut self) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::new();
        while let Some(ended) = self.callers.join_next().await {
            answers.extend(ended.map_err(|error| Failure::general(format!("a caller ended: {error}")))??);
        }
        answers.sort_unstable_by_key(|answer: &Answer| answer.at);
        Ok(answers)
    }
}

async fn work(
    mut caller: Box<dyn Caller>,
    mut requests: Requests,
    schedule: Arc<Schedule>,
) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::new();
    while let Some(due) = schedule.next().await {
        caller.ask(&requests.draw()).await?;
        let at = Instant::now();
        answers.push(Answer { at, latency: at - due, place: caller.place() });
    }
    Ok(answers)
}

impl Answers {
    /// Those that came from `from` to `until`.
    pub fn between(&self, from: Instant, until: Instant) -> Answers {
        let first = self.answers.partition_point(|answer| answer.at < from);
        let end = self.answers.partition_point(|answer| answer.at <= until);
        Answers { from, until, answers: self.answers[first..end.max(first)].to_vec() }
    }

    /// Those of one replica.
    pub fn of(&self, place: usize) -> Answers {
        let of_place = self.answers.iter().filter(|answer| answer.place == place);
        Answers { from: self.from, until: self.until, answers: of_place.copied().collect() }
    }

    pub fn per_second(&self) -> f64 {
        let seconds = (self.until - self.from).as_secs_f64();
        if seconds > 0.0 { self.answers.len() as f64 / seconds } else { 0.0 }
    }

    pub fn quantiles(&self) -> Quantiles {
        let mut latencies: Vec<Duration> = self.answers.iter().map(|answer| answer.latency).collect();
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = ((latencies.len() as f64 * share).ceil() as usize).clamp(1, latencies.len().max(1)) - 1;
            latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
        };
        Quantiles { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999) }
    }

    /// The longest time without an answer to anybody.
    pub fn longest_pause(&self) -> Duration {
        let ends = std::iter::once(self.from).chain(self.answers.iter().map(|answer| answer.at));
        ends.clone().zip(ends.skip(1)).map(|(one, next)| next - one).max().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Quantiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(ms: &[(u64, u64)]) -> Answers {
        let from = Instant::now();
        let answer = |(at, latency): &(u64, u64)| Answer {
            at: from + Duration::from_millis(*at),
            latency: Duration::from_millis(*latency),
            place: 0,
        };
        Answers { from, until: from + Duration::from_secs(1), answers: ms.iter().map(answer).collect() }
    }

    #[test]
    fn quantiles_are_answers_that_were_measured() {
        let hundred: Vec<(u64, u64)> = (1..=100).map(|number| (number, number)).collect();
        let Quantiles { p50_ms, p99_ms, p999_ms } = answers(&hundred).quantiles();
        assert_eq!((p50_ms, p99_ms, p999_ms), (50.0, 99.0, 100.0));
        assert_eq!(answers(&[]).quantiles().p99_ms, 0.0);
    }

    #[test]
    fn the_longest_pause_counts_from_the_start() {
        assert_eq!(answers(&[(400, 1), (500, 1), (700, 1)]).longest_pause(), Duration::from_millis(400));
    }

    #[test]
    fn only_what_came_in_the_measured_time_is_counted() {
        let all = answers(&[(100, 1), (500, 1), (900, 1)]);
        let some = all.between(all.from + Duration::from_millis(400), all.from + Duration::from_millis(800));
        assert_eq!((some.answers.len(), some.per_second()), (1, 2.5));
    }

    struct Slow;

    impl Caller for Slow {
        fn ask<'a>(
            &'a mut self,
            _: &'a super::super::row::Request,
        ) -> futures_util::future::BoxFuture<'a, Result<(), Failure>> {
            Box::pin(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            })
        }
    }

    struct Quick;

    impl Caller for Quick {
        fn ask<'a>(
            &'a mut self,
            _: &'a super::super::row::Request,
        ) -> futures_util::future::BoxFuture<'a, Result<(), Failure>> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn a_closed_loop_waits_for_nothing_but_answers() {
        let pace =
            Pace { warm_up: Duration::ZERO, measured: Duration::from_secs(30), rate: None, requests_max: Some(1_000) };
        let load = Load::begin(vec![Box::new(Quick)], &super::super::row::ROWS[0], 1, pace);
        let latencies = load.finish().await.unwrap().answers;
        // With a tick of tokio's clock before each, as it was once, half of them would take more than a quarter of it.
        let slow = latencies.iter().filter(|answer| answer.latency > Duration::from_micros(250)).count();
        assert!(latencies.len() == 1_000 && slow < 500, "{slow} of {}", latencies.len());
    }

    #[tokio::test]
    async fn an_open_loop_asks_for_each_slot_once_and_ends() {
        let pace = Pace {
            warm_up: Duration::ZERO,
            measured: Duration::from_millis(100),
            rate: Some(1_000.0),
            requests_max: None,
        };
        let callers: Vec<Box<dyn Caller>> = vec![Box::new(Quick), Box::new(Quick)];
        let load = Load::begin(callers, &super::super::row::ROWS[0], 1, pace);
        assert_eq!(load.finish_due().await.unwrap().answers.len(), 100);
    }

    #[tokio::test]
    async fn in_an_open_loop_a_late_request_counts_from_when_it_was_due() {
        let pace = Pace {
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(30),
            rate: Some(1_000.0),
            requests_max: Some(10),
        };
        let load = Load::begin(vec![Box::new(Slow)], &super::super::row::ROWS[0], 1, pace);
        let answers = load.finish_due().await.unwrap().answers;
        // Each of ten waits for those before it: the last was due at 9 ms, and is answered after 200 ms at the earliest.
        assert!(answers.last().unwrap().latency >= Duration::from_millis(190));
    }
}
