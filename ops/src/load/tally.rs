//! What a load measured.
//!
//! Laws
//! * Latency counts from when a request should have been sent to when its outcome was known, all attempts included.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// What one client saw, or several together.
pub struct Tally {
    pub requests: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub refused: BTreeMap<&'static str, u64>,
    pub errors: BTreeMap<&'static str, u64>,
    pub unknown_resolved: u64,
    pub unknown_left: u64,
    /// Nanoseconds.
    pub latency: Histogram<u64>,
    pub read_latency: Histogram<u64>,
    pub by_endpoint: BTreeMap<String, u64>,
    pub last_answer: Option<Instant>,
    /// When payments were acknowledged, and how many.
    acknowledgements: Vec<(Instant, u32)>,
    error_times: Vec<Instant>,
}

/// Three significant digits: one microsecond in a millisecond.
const DIGITS: u8 = 3;

impl Tally {
    #[allow(clippy::new_without_default, reason = "an empty tally is made by name, in two places")]
    pub fn new() -> Tally {
        let histogram = || Histogram::new(DIGITS).expect("three digits are within bounds");
        Tally {
            requests: 0,
            acknowledged: 0,
            reads: 0,
            refused: BTreeMap::new(),
            errors: BTreeMap::new(),
            unknown_resolved: 0,
            unknown_left: 0,
            latency: histogram(),
            read_latency: histogram(),
            by_endpoint: BTreeMap::new(),
            last_answer: None,
            acknowledgements: Vec::new(),
            error_times: Vec::new(),
        }
    }

    /// A request's outcome is known: so many of its payments were acknowledged.
    pub fn answered(&mut self, intended: Instant, now: Instant, acknowledged: u32) {
        self.requests += 1;
        self.acknowledged += u64::from(acknowledged);
        record(&mut self.latency, now - intended);
        if acknowledged > 0 {
            self.acknowledgements.push((now, acknowledged));
        }
        self.last_answer = self.last_answer.max(Some(now));
    }

    pub fn read(&mut self, intended: Instant, now: Instant) {
        self.reads += 1;
        record(&mut self.read_latency, now - intended);
        self.last_answer = self.last_answer.max(Some(now));
    }

    pub fn error(&mut self, kind: &'static str, now: Instant) {
        *self.errors.entry(kind).or_default() += 1;
        self.error_times.push(now);
    }

    pub fn add(&mut self, other: Tally) {
        self.requests += other.requests;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        add_counts(&mut self.refused, other.refused);
        add_counts(&mut self.errors, other.errors);
        add_counts(&mut self.by_endpoint, other.by_endpoint);
        self.unknown_resolved += other.unknown_resolved;
        self.unknown_left += other.unknown_left;
        self.latency.add(other.latency).expect("histograms that grow take any value");
        self.read_latency.add(other.read_latency).expect("histograms that grow take any value");
        self.last_answer = self.last_answer.max(other.last_answer);
        self.acknowledgements.extend(other.acknowledgements);
        self.error_times.extend(other.error_times);
    }

    /// The longest time between two acknowledgements that follow each other, over all clients; the start counts as one.
    pub fn longest_pause(&self, began: Instant) -> Pause {
        let mut times: Vec<Instant> = self.acknowledgements.iter().map(|(time, _)| *time).collect();
        times.push(began);
        times.sort_unstable();
        let gaps = times.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
        let (length, at) = gaps.max_by_key(|(gap, _)| *gap).unwrap_or((Duration::ZERO, began));
        Pause { ms: (length.as_secs_f64() * 1e6).round() / 1e3, at_second: (at - began).as_secs_f64() }
    }

    pub fn timeline(&self, began: Instant) -> Vec<Second> {
        let acknowledged = self.acknowledgements.iter().map(|(time, count)| (*time, u64::from(*count), 0));
        let errors = self.error_times.iter().map(|time| (*time, 0, 1));
        let mut seconds: Vec<Second> = Vec::new();
        for (time, acknowledged, errors) in acknowledged.chain(errors) {
            let index = (time - began).as_secs() as usize;
            while seconds.len() <= index {
                seconds.push(Second { second: seconds.len() as u64, acknowledged: 0, errors: 0 });
            }
            seconds[index].acknowledged += acknowledged;
            seconds[index].errors += errors;
        }
        seconds
    }
}

fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.record(latency.as_nanos() as u64).expect("histograms that grow take any value");
}

fn add_counts<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pause {
    pub ms: f64,
    /// Where it began, in seconds from the start.
    pub at_second: f64,
}

impl Pause {
    pub fn text(&self) -> String {
        format!("{:.1} ms, {:.1} s after the start", self.ms, self.at_second)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Second {
    pub second: u64,
    pub acknowledged: u64,
    pub errors: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    pub mean_us: f64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        Latency {
            p50_us: us(histogram.value_at_quantile(0.5)),
            p99_us: us(histogram.value_at_quantile(0.99)),
            p999_us: us(histogram.value_at_quantile(0.999)),
            max_us: us(histogram.max()),
            mean_us: (histogram.mean() / 10.0).round() / 100.0,
        }
    }

    pub fn text(&self) -> String {
        let [p50, p99, p999, max] = [self.p50_us, self.p99_us, self.p999_us, self.max_us].map(|us| us / 1e3);
        format!("p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(began: Instant, ms: u64) -> Instant {
        began + Duration::from_millis(ms)
    }

    #[test]
    fn the_longest_pause_is_between_any_two_clients_acknowledgements() {
        let began = Instant::now();
        let (mut one, mut two) = (Tally::new(), Tally::new());
        for ms in [10, 500, 900] {
            one.answered(at(began, ms - 5), at(began, ms), 1);
        }
        for ms in [250, 520] {
            two.answered(at(began, ms - 5), at(began, ms), 1);
        }
        one.add(two);
        let pause = one.longest_pause(began);
        assert_eq!((pause.ms, pause.at_second), (380.0, 0.52));
    }

    #[test]
    fn latency_counts_from_when_a_request_should_have_been_sent() {
        let began = Instant::now();
        let mut tally = Tally::new();
        tally.answered(at(began, 100), at(began, 900), 1); // sent late, because the one before it was slow
        assert!((798_000.0..802_000.0).contains(&Latency::of(&tally.latency).max_us));
    }

    #[test]
    fn the_timeline_has_every_second_also_those_in_which_nothing_happened() {
        let began = Instant::now();
        let mut tally = Tally::new();
        tally.answered(began, at(began, 10), 5);
        tally.answered(began, at(began, 2_500), 7);
        tally.error("unavailable", at(began, 1_200));
        let seconds: Vec<(u64, u64)> =
            tally.timeline(began).iter().map(|second| (second.acknowledged, second.errors)).collect();
        assert_eq!(seconds, [(5, 0), (0, 1), (7, 0)]);
    }
}
