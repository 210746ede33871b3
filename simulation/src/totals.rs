//! What many runs come to: figures for people, and the same as JSON for programs.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
};

use serde::Serialize;

use crate::{
    coverage::{self, Coverage},
    marks,
    run::Outcome,
};

#[derive(Debug, Default, Serialize)]
pub struct Totals {
    pub commit: String,
    pub seeds: u64,
    /// Seeds in which a law was broken.
    pub failed: Vec<u64>,
    /// Laws that were broken, and in how many seeds.
    pub violations: BTreeMap<String, u64>,
    /// Seeds that were run twice and told the same story.
    pub twice: u64,
    pub simulated_hours: f64,
    pub real_seconds: f64,
    /// What this program was built with: `gate` checks the assertions of openraft, `sweep` is what is shipped.
    pub build: &'static str,
    /// Processor time of all first runs, their start and end included.
    pub cpu_seconds: f64,
    /// Simulated to processor time: what one core does that has nothing else to do.
    pub ratio_cpu: f64,
    /// Simulated to real time of one process, whatever share of a core it got.
    pub ratio_wall: f64,
    pub transfers_per_cpu_second: f64,
    pub calls: u64,
    pub transfers: u64,
    pub unknown_resolved: u64,
    /// Attempts that took effect though nobody was told.
    pub silent: u64,
    pub change_events: u64,
    pub syncs: u64,
    pub writes_lost: u64,
    pub disk_failures: u64,
    pub faults: BTreeMap<String, u64>,
    /// Answers of the rules to transfers.
    pub statuses: BTreeMap<String, u64>,
    pub marks: BTreeMap<String, u64>,
    /// Marks that so many seeds must have met and did not.
    pub marks_missing: Vec<&'static str>,
    pub coverage: Coverage,
    #[serde(skip)]
    run_seconds: f64,
}

impl Totals {
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated_hours += outcome.simulated_ms as f64 / 3.6e6;
        self.run_seconds += outcome.real_ms as f64 / 1e3;
        self.cpu_seconds += outcome.cpu_us as f64 / 1e6;
        self.calls += outcome.calls;
        self.transfers += outcome.transfers;
        self.unknown_resolved += outcome.unknown_resolved;
        self.silent += outcome.silent;
        self.change_events += outcome.change_events;
        self.syncs += outcome.syncs;
        self.writes_lost += outcome.writes_lost;
        self.disk_failures += outcome.disk_failures;
        for (into, from) in [
            (&mut self.faults, &outcome.faults),
            (&mut self.statuses, &outcome.statuses),
            (&mut self.marks, &outcome.marks),
        ] {
            for (name, count) in from {
                *into.entry(name.clone()).or_default() += count;
            }
        }
        coverage::add(&mut self.coverage, &outcome.coverage);
        if !outcome.broken.is_empty() {
            self.failed.push(outcome.seed);
            let mut laws: Vec<&str> = outcome.broken.iter().map(|broken| broken.law.as_str()).collect();
            laws.sort_unstable();
            laws.dedup();
            for law in laws {
                *self.violations.entry(law.to_owned()).or_default() += 1;
            }
        }
    }

    /// All runs are in. `must_meet`: what did not happen counts, as these were seeds and no scenario.
    pub fn finish(&mut self, commit: String, real_seconds: f64, must_meet: bool) {
        self.commit = commit;
        self.real_seconds = real_seconds;
        self.build = crate::BUILD;
        self.ratio_cpu = self.simulated_hours * 3_600.0 / self.cpu_seconds.max(0.001);
        self.ratio_wall = self.simulated_hours * 3_600.0 / self.run_seconds.max(0.001);
        self.transfers_per_cpu_second = self.transfers as f64 / self.cpu_seconds.max(0.001);
        self.failed.sort_unstable();
        if must_meet {
            self.marks_missing = marks::missing(self.seeds, &self.marks).into_iter().map(|mark| mark.name).collect();
        }
    }

    pub fn is_good(&self) -> bool {
        self.failed.is_empty() && self.marks_missing.is_empty()
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "\n{} runs, {} failed {:?}", self.seeds, self.failed.len(), self.failed);
        let mut row = |name: &str, value: &dyn Display| {
            let _ = writeln!(out, "  {name:<28} {value}");
        };
        row("commit", &self.commit);
        row("build", &self.build);
        row("run twice, same story", &self.twice);
        row("simulated hours", &format!("{:.3}", self.simulated_hours));
        row("real seconds", &format!("{:.1}", self.real_seconds));
        row("CPU seconds", &format!("{:.1}", self.cpu_seconds));
        row("simulated / CPU time", &format!("{:.1}", self.ratio_cpu));
        row("simulated / real, per run", &format!("{:.1}", self.ratio_wall));
        row("calls", &self.calls);
        row("transfers judged", &format!("{} ({:.0} a CPU second)", self.transfers, self.transfers_per_cpu_second));
        row("change events", &self.change_events);
        row("unknown outcomes resolved", &self.unknown_resolved);
        row("silent attempts found", &self.silent);
        row("disk: syncs", &self.syncs);
        row("disk: writes torn or lost", &self.writes_lost);
        row("disk: failures on purpose", &self.disk_failures);
        for (title, counts) in [
            ("faults", &self.faults),
            ("transfers by status", &self.statuses),
            ("it did happen", &self.marks),
            ("violations, by seeds", &self.violations),
        ] {
            let _ = writeln!(out, "  {title}");
            if counts.is_empty() {
                let _ = writeln!(out, "    none");
            }
            for (name, count) in counts {
                let _ = writeln!(out, "    {name:<64} {count}");
            }
        }
        let _ = writeln!(out, "  operations and their outcomes, by what was wrong meanwhile");
        out.push_str(&coverage::table(&self.coverage));
        for mark in &self.marks_missing {
            let _ = writeln!(out, "  NEVER HAPPENED  {mark}: a run of {} seeds must have met it", self.seeds);
        }
        let yet: Vec<&str> = marks::TABLE
            .iter()
            .filter(|mark| !self.marks.contains_key(mark.name) && !self.marks_missing.contains(&mark.name))
            .map(|mark| mark.name)
            .collect();
        if !yet.is_empty() {
            let _ = writeln!(out, "  did not happen, and need not have in so few runs: {}", yet.join("; "));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::BrokenLaw;

    fn outcome(seed: u64, laws: &[&str]) -> Outcome {
        let broken = |law: &&str| BrokenLaw { law: (*law).into(), text: String::new(), at_ns: 0, call: None };
        Outcome { seed, simulated_ms: 36_000, broken: laws.iter().map(broken).collect(), ..Outcome::default() }
    }

    #[test]
    fn a_run_in_which_a_mark_never_fired_is_no_good() {
        let mut totals = Totals::default();
        (0..marks::LEADER_DIED.within).for_each(|seed| totals.add(&outcome(seed, &[])));
        totals.finish(String::new(), 1.0, true);
        assert!(totals.marks_missing.contains(&marks::LEADER_DIED.name));
        assert!(!totals.is_good());
        assert!(totals.table().contains("NEVER HAPPENED  a leader died"));
        totals.marks_missing.clear();
        totals.finish(String::new(), 1.0, false);
        assert!(totals.is_good(), "a scenario need not meet what seeds must");
    }

    #[test]
    fn violations_are_counted_by_seed() {
        let mut totals = Totals::default();
        totals.add(&outcome(9, &["b", "a", "a"]));
        totals.add(&outcome(3, &["a"]));
        totals.finish("abc".into(), 2.0, false);
        assert_eq!(totals.failed, [3, 9]);
        assert_eq!(totals.violations["a"], 2);
        assert!(!totals.is_good());
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&totals).unwrap()).unwrap();
        assert_eq!(json["violations"]["b"], 1);
        assert_eq!(json["commit"], "abc");
    }
}
