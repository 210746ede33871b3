//! What the comparison tells: medians over the rounds, spreads, ratios.
//!
//! Laws
//! * A ratio is between medians of the same row in the same run: nothing else.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use super::driver::Quantiles;
use super::measure::{Outcome, Place, Recovery, Tenth};
use super::row::ROWS;
use super::system::PLACES;
use crate::output;
use crate::text;

/// Our own name among the systems.
const OURS: &str = "jangbu";

#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rounds: u32,
    /// Of each measurement.
    pub seconds: u32,
    /// By the whole run.
    pub seconds_taken: u64,
    /// Why not all was measured.
    pub cut_short: Option<String>,
    outcomes: Vec<Outcome>,
    recoveries: Vec<Recovery>,
    pub long: Vec<Tenth>,
}

#[derive(Debug, Serialize)]
pub struct Machine {
    cores: usize,
    memory_gib: f64,
    processor: String,
    kernel: String,
    /// Before the run began; above a few tenths, others were at work too.
    load_average: String,
}

impl Machine {
    fn this() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_string())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kibibytes: f64 = memory.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
        Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: (kibibytes / f64::from(1 << 20) * 10.0).round() / 10.0,
            processor: field(&read("/proc/cpuinfo"), "model name"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
            load_average: read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let median = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        Some(Spread { median, min, max })
    }

    fn text(&self) -> String {
        format!("{} ({}–{})", short(self.median), short(self.min), short(self.max))
    }
}

/// Three digits, and `k` for thousands.
fn short(value: f64) -> String {
    match value {
        _ if value >= 99_950.0 => format!("{:.0}k", value / 1e3),
        _ if value >= 9_995.0 => format!("{:.1}k", value / 1e3),
        _ if value >= 100.0 => text::grouped(value.round() as u128),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Report {
    pub fn new(rounds: u32, seconds: u32) -> Report {
        Report {
            machine: Machine::this(),
            rounds,
            seconds,
            seconds_taken: 0,
            cut_short: None,
            outcomes: Vec::new(),
            recoveries: Vec::new(),
            long: Vec::new(),
        }
    }

    pub fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    pub fn recovered(&mut self, recovery: Recovery) {
        self.recoveries.push(recovery);
    }

    /// In the order in which they were measured.
    pub fn systems(&self) -> Vec<&'static str> {
        let mut systems: Vec<&'static str> = Vec::new();
        for outcome in &self.outcomes {
            if !systems.contains(&outcome.system) {
                systems.push(outcome.system);
            }
        }
        systems
    }

    pub fn rows(&self) -> Vec<&'static str> {
        let is_there = |name: &&str| self.outcomes.iter().any(|outcome| outcome.row == *name);
        ROWS.iter().map(|row| row.name).filter(is_there).collect()
    }

    pub fn figure(&self, row: &str, system: &str, figure: impl Fn(&Outcome) -> f64) -> Option<Spread> {
        let found = self.outcomes.iter().filter(|outcome| outcome.row == row && outcome.system == system);
        Spread::of(found.map(figure))
    }

    pub fn rate(&self, row: &str, system: &str) -> Option<Spread> {
        self.figure(row, system, |outcome| outcome.per_second)
    }

    /// Ours to the best of the others.
    fn ratio(&self, row: &str) -> Option<f64> {
        let ours = self.rate(row, OURS)?.median;
        let others = self.systems().into_iter().filter(|system| *system != OURS);
        let best = others.filter_map(|system| self.rate(row, system)).map(|spread| spread.median).reduce(f64::max)?;
        Some(ours / best)
    }

    /// The machine, and how long it was measured.
    pub fn heading(&self) -> String {
        let Machine { cores, memory_gib, processor, kernel, load_average } = &self.machine;
        format!(
            "{cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, load average before {load_average}; \
             {} rounds, each measurement {} s, {} min in all",
            self.rounds,
            self.seconds,
            self.seconds_taken.div_ceil(60)
        )
    }

    pub fn text(&self) -> String {
        let mut parts = vec![format!("{}\nmedians (least–most)", self.heading())];
        if let Some(cause) = &self.cut_short {
            parts.push(format!("Not all was measured: {cause}"));
        }
        if !self.outcomes.is_empty() {
            parts.push(format!("Transfers or reads a second\n{}", self.rates_text()));
            parts.push(format!("Latency in ms at 80 % of that rate, p50 / p99 / p99.9\n{}", self.latency_text()));
            parts.push(format!("Rate once a follower is killed\n{}", self.killed_text()));
            parts.push(format!("Reads at each replica: a second, p50 / p99 in ms\n{}", self.places_text()));
            parts.push(format!(
                "Per transfer and replica: CPU in µs, bytes written; memory of the largest replica\n{}",
                self.cost_text()
            ));
        }
        if !self.recoveries.is_empty() {
            parts.push(format!("Recovery, in ms\n{}", self.recovery_text()));
        }
        if !self.long.is_empty() {
            parts.push(format!("A long run, tenth by tenth\n{}", self.long_text()));
        }
        parts.join("\n\n")
    }

    fn rates_text(&self) -> String {
        self.table(
            &["to the best other"],
            |row, system| Some(self.rate(row, system)?.text()),
            |row| vec![self.ratio(row).map_or("-".into(), |ratio| format!("{ratio:.2} x"))],
        )
    }

    fn latency_text(&self) -> String {
        let cell = |row: &str, system: &str| {
            let at = |quantile: fn(&Quantiles) -> f64| {
                self.figure(row, system, |outcome| quantile(&outcome.open)).map(|spread| short(spread.median))
            };
            Some(format!(
                "{} / {} / {}",
                at(|quantiles| quantiles.p50_ms)?,
                at(|quantiles| quantiles.p99_ms)?,
                at(|quantiles| quantiles.p999_ms)?
            ))
        };
        self.table(&[], cell, |_| vec![])
    }

    fn killed_text(&self) -> String {
        let cell =
            |row: &str, system: &str| Some(self.figure(row, system, |outcome| outcome.per_second_while_killed)?.text());
        self.table(&[], cell, |_| vec![])
    }

    fn places_text(&self) -> String {
        let mut lines = Vec::new();
        for (row, system) in
            self.rows().into_iter().flat_map(|row| self.systems().into_iter().map(move |system| (row, system)))
        {
            let cells: Vec<String> = PLACES.iter().filter_map(|place| self.place_text(row, system, place)).collect();
            if !cells.is_empty() {
                lines.push([row.to_string(), system.to_string()].into_iter().chain(cells).collect::<Vec<_>>());
            }
        }
        output::table(&[&["row", "system"], PLACES.as_slice()].concat(), lines)
    }

    fn place_text(&self, row: &str, system: &str, place: &str) -> Option<String> {
        let figure = |figure: fn(&Place) -> f64| {
            let outcomes = self.outcomes.iter().filter(|outcome| outcome.row == row && outcome.system == system);
            let places = outcomes.flat_map(|outcome| &outcome.places).filter(|measured| measured.place == place);
            Some(short(Spread::of(places.map(figure))?.median))
        };
        let (rate, p50) = (figure(|place| place.per_second)?, figure(|place| place.closed.p50_ms)?);
        Some(format!("{rate}, {p50} / {}", figure(|place| place.closed.p99_ms)?))
    }

    fn cost_text(&self) -> String {
        let cell = |row: &str, system: &str| {
            let median = |figure: fn(&Outcome) -> f64| Some(short(self.figure(row, system, figure)?.median));
            Some(format!(
                "{} µs, {} B, {} MiB",
                median(|outcome| outcome.cpu_us_per_transfer_and_replica)?,
                median(|outcome| outcome.bytes_written_per_transfer_and_replica)?,
                median(|outcome| outcome.memory_mib_largest_replica)?
            ))
        };
        self.table(&[], cell, |_| vec![])
    }

    /// A line per row, a column per system, and what else there is.
    fn table(
        &self,
        more: &[&str],
        cell: impl Fn(&str, &str) -> Option<String>,
        beside: impl Fn(&str) -> Vec<String>,
    ) -> String {
        let systems = self.systems();
        let heading: Vec<&str> =
            std::iter::once("row").chain(systems.iter().copied()).chain(more.iter().copied()).collect();
        let lines = self.rows().into_iter().map(|row| {
            let cells = systems.iter().map(|system| cell(row, system).unwrap_or_else(|| "-".into()));
            std::iter::once(row.to_string()).chain(cells).chain(beside(row)).collect::<Vec<_>>()
        });
        output::table(&heading, lines)
    }

    fn recovery_text(&self) -> String {
        let mut systems: BTreeMap<&str, Vec<&Recovery>> = BTreeMap::new();
        for recovery in &self.recoveries {
            systems.entry(recovery.system).or_default().push(recovery);
        }
        let text = |values: Vec<f64>| Spread::of(values).map_or("-".into(), |spread| spread.text());
        let lines = systems.into_iter().map(|(system, recoveries)| {
            [
                system.to_string(),
                text(recoveries.iter().filter_map(|recovery| recovery.leader_killed_pause_ms).collect()),
                text(recoveries.iter().map(|recovery| recovery.start_after_crash_ms).collect()),
            ]
        });
        output::table(&["system", "pause when the leader is killed", "start after a crash"], lines)
    }

    fn long_text(&self) -> String {
        let lines = self.long.iter().map(|tenth| {
            [
                text::grouped(tenth.transfers_before),
                short(tenth.per_second),
                short(tenth.closed.p50_ms),
                short(tenth.closed.p99_ms),
            ]
        });
        output::table(&["after", "a second", "p50 ms", "p99 ms"], lines)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::bench) fn report(rates: &[(&'static str, &'static str, f64)]) -> Report {
        let mut report = Report::new(1, 1);
        for (row, system, per_second) in rates {
            report.add(Outcome {
                row,
                system,
                per_second: *per_second,
                closed: Quantiles::default(),
                open: Quantiles::default(),
                per_second_while_killed: 0.0,
                places: Vec::new(),
                cpu_us_per_transfer_and_replica: 0.0,
                bytes_written_per_transfer_and_replica: 0.0,
                memory_mib_largest_replica: 0.0,
            });
            report.recovered(Recovery { system, leader_killed_pause_ms: None, start_after_crash_ms: 1.0 });
        }
        report
    }

    #[test]
    fn a_ratio_is_to_the_best_of_the_others() {
        let report = report(&[
            ("1 caller", "jangbu", 3_000.0),
            ("1 caller", "postgres", 1_000.0),
            ("1 caller", "etcd", 1_500.0),
            ("16 callers", "jangbu", 5.0),
        ]);
        assert_eq!(report.ratio("1 caller"), Some(2.0));
        assert_eq!(report.ratio("16 callers"), None, "nobody else was measured");
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        let spread = Spread::of([3.0, 1.0, 2.5]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn figures_are_written_with_three_digits() {
        let texts: Vec<String> = [0.512, 12.34, 345.6, 1_540.4, 23_568.0, 429_359.0].map(short).to_vec();
        assert_eq!(texts, ["0.51", "12.3", "346", "1,540", "23.6k", "429k"]);
    }
}
