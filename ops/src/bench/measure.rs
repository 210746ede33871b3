//! One row of the comparison on one system: its highest rate, its latency at four fifths of it, and its rate while a
//! follower is away.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::driver::{Answers, Load, Pace, Quantiles};
use super::row::{LARGEST, ROWS, Row};
use super::system::{PLACES, System};
use super::usage::Usage;
use crate::error::Failure;

/// Where latency is measured without coordinated omission: at this share of the highest rate.
const OPEN_LOOP_SHARE: f64 = 0.8;

/// Between rows the replicas are looked at this often, and not longer than that; there is idleness that is never quite idle.
const SETTLE_LOOK: Duration = Duration::from_millis(200);
const SETTLE_LOOKS_MAX: u32 = 15;
/// Heartbeats, timers and the like of three replicas, as a share of one processor, …
const IDLE_SHARE: f64 = 0.15;
/// … and in one look.
const IDLE_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What was measured of one row. Rates count transfers or reads, not requests.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub row: &'static str,
    pub system: &'static str,
    pub per_second: f64,
    /// Of the closed loop at that rate.
    pub closed: Quantiles,
    /// Of an open loop at four fifths of that rate.
    pub open: Quantiles,
    /// From the moment in which a follower was killed.
    pub per_second_while_killed: f64,
    /// Of a read, replica by replica; none where only one was asked.
    pub places: Vec<Place>,
    pub cpu_us_per_transfer_and_replica: f64,
    pub bytes_written_per_transfer_and_replica: f64,
    pub memory_mib_largest_replica: f64,
}

/// What one replica answered, in the closed loop.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    pub place: &'static str,
    pub per_second: f64,
    pub closed: Quantiles,
}

impl Outcome {
    pub fn text(&self) -> String {
        let Outcome { row, system, per_second, open, .. } = self;
        let Quantiles { p50_ms, p99_ms, .. } = open;
        format!("{system:<8} {row:<42} {per_second:>10.0} a second; at 80 %: p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms")
    }
}

/// Measures a row. The system is whole again afterwards.
pub async fn row(system: &mut dyn System, row: &'static Row, seed: u64, times: Times) -> Result<Outcome, Failure> {
    let per_request = f64::from(row.per_request());
    let closed = Pace { warm_up: times.warm_up, measured: times.measured, rate: None, requests_max: None };

    settled(system).await;
    let load = Load::begin(system.callers(row).await?, row, seed, closed);
    let (before, after) = usage_during(system, &load).await;
    let answers = load.finish().await?;
    let transfers = answers.answers.len() as f64 * per_request;
    let used = sum_of_differences(&before, &after);
    let replicas_count = after.len().max(1) as f64;
    let per_transfer = |amount: f64| if transfers > 0.0 { amount / transfers / replicas_count } else { 0.0 };

    let rate = (answers.per_second() * OPEN_LOOP_SHARE).max(1.0);
    let open = Load::begin(system.callers(row).await?, row, seed + 1, Pace { rate: Some(rate), ..closed });
    let open = open.finish_due().await?;

    let killed = while_killed(system, row, seed + 2, closed).await?;
    Ok(Outcome {
        row: row.name,
        system: system.name(),
        per_second: answers.per_second() * per_request,
        closed: answers.quantiles(),
        open: open.quantiles(),
        per_second_while_killed: killed.per_second() * per_request,
        places: if row.is_read() { places(&answers) } else { Vec::new() },
        cpu_us_per_transfer_and_replica: per_transfer(used.cpu_seconds * 1e6),
        bytes_written_per_transfer_and_replica: per_transfer(used.bytes_written as f64),
        memory_mib_largest_replica: after.iter().map(|usage| usage.memory_bytes).max().unwrap_or(0) as f64
            / f64::from(1 << 20),
    })
}

/// Waits until the replicas have done in the background what the row before left them to do, so that no row pays for another.
async fn settled(system: &dyn System) {
    let usage = || system.replicas().into_iter().map(Usage::of_tree).collect::<Vec<_>>();
    let mut before = usage();
    for _ in 0..SETTLE_LOOKS_MAX {
        tokio::time::sleep(SETTLE_LOOK).await;
        let now = usage();
        let used = sum_of_differences(&before, &now);
        if used.cpu_seconds <= SETTLE_LOOK.as_secs_f64() * IDLE_SHARE && used.bytes_written < IDLE_BYTES {
            return;
        }
        before = now;
    }
}

fn places(answers: &Answers) -> Vec<Place> {
    let of = |(number, place): (usize, &'static str)| {
        let answers = answers.of(number);
        Place { place, per_second: answers.per_second(), closed: answers.quantiles() }
    };
    let places: Vec<Place> = PLACES.into_iter().enumerate().map(of).filter(|place| place.per_second > 0.0).collect();
    if places.len() > 1 { places } else { Vec::new() }
}

/// What each replica had used when the measured time began, and when it ended.
async fn usage_during(system: &dyn System, load: &Load) -> (Vec<Usage>, Vec<Usage>) {
    let usage = || system.replicas().into_iter().map(Usage::of_tree).collect();
    tokio::time::sleep_until(load.measured_from.into()).await;
    let before = usage();
    tokio::time::sleep_until(load.until.into()).await;
    (before, usage())
}

fn sum_of_differences(before: &[Usage], after: &[Usage]) -> Usage {
    before.iter().zip(after).fold(Usage::default(), |sum, (before, after)| {
        let used = after.since(*before);
        Usage {
            cpu_seconds: sum.cpu_seconds + used.cpu_seconds,
            bytes_written: sum.bytes_written + used.bytes_written,
            memory_bytes: sum.memory_bytes + used.memory_bytes,
        }
    })
}

/// The answers that came after a follower was killed.
async fn while_killed(system: &mut dyn System, row: &Row, seed: u64, pace: Pace) -> Result<Answers, Failure> {
    system.make_ready_for_a_kill().await?;
    let load = Load::begin(system.callers(row).await?, row, seed, pace);
    tokio::time::sleep_until(load.measured_from.into()).await;
    system.kill_follower().await?;
    let killed = Instant::now();
    let answers = load.finish().await?;
    system.revive().await?;
    Ok(answers.between(killed, answers.until))
}

/// What a system is asked once: how it gets over the loss of its leader, and how soon it serves again after a crash.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    pub system: &'static str,
    /// The longest time without an answer to any of sixteen callers; none where nobody takes a leader's place by itself.
    pub leader_killed_pause_ms: Option<f64>,
    /// From the start of a killed replica until it serves and has caught up.
    pub start_after_crash_ms: f64,
}

pub async fn recovery(system: &mut dyn System, times: Times) -> Result<Recovery, Failure> {
    let sixteen = &ROWS[1];
    system.make_ready_for_a_kill().await?;
    // Long enough for a slow election.
    let measured = times.measured.max(Duration::from_secs(4));
    let pace = Pace { warm_up: times.warm_up, measured, rate: None, requests_max: None };
    let load = Load::begin(system.callers(sixteen).await?, sixteen, 77, pace);
    tokio::time::sleep_until((load.measured_from + measured / 4).into()).await;
    let is_replaced = match system.kill_leader() {
        Some(kill) => kill.await.map(|()| true)?,
        None => false,
    };
    let pause = load.finish().await?.longest_pause();
    if !is_replaced {
        system.kill_follower().await?;
    }
    let began = Instant::now();
    system.revive().await?;
    Ok(Recovery {
        system: system.name(),
        leader_killed_pause_ms: is_replaced.then_some(pause.as_secs_f64() * 1e3),
        start_after_crash_ms: began.elapsed().as_secs_f64() * 1e3,
    })
}

/// A tenth of a long run.
#[derive(Clone, Debug, Serialize)]
pub struct Tenth {
    pub transfers_before: u64,
    pub per_second: f64,
    pub closed: Quantiles,
}

/// Does the rate decay as the books grow? Largest requests, until so many transfers are made.
pub async fn long(system: &mut dyn System, transfers_count: u64) -> Result<Vec<Tenth>, Failure> {
    let row = ROWS.iter().find(|row| row.name == "largest requests").expect("it is there");
    let requests_count = transfers_count.div_ceil(u64::from(LARGEST));
    let pace = Pace {
        warm_up: Duration::ZERO,
        // A bound, not an aim.
        measured: Duration::from_secs(3_600),
        rate: None,
        requests_max: Some(requests_count),
    };
    let answers = Load::begin(system.callers(row).await?, row, 99, pace).finish().await?;
    let size = answers.answers.len().div_ceil(10).max(1);
    let mut from = answers.from;
    let tenth = |(number, chunk): (usize, &[super::driver::Answer])| {
        let until = chunk.last().map_or(from, |last| last.at);
        let part = Answers { from, until, answers: chunk.to_vec() };
        from = until;
        Tenth {
            transfers_before: (number * size) as u64 * u64::from(LARGEST),
            per_second: part.per_second() * f64::from(LARGEST),
            closed: part.quantiles(),
        }
    };
    Ok(answers.answers.chunks(size).enumerate().map(tenth).collect())
}
