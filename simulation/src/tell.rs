//! The story of a run, told while it happens: for a person at a terminal.
//!
//! What nodes, operators and faults do is told line by line. Of the calls only those are told that got no answer; how many
//! did is summed up each simulated second. `Everything` leaves nothing out.
//!
//! Not here: what is told (`chronicle.rs`), and the same as a picture (`report.rs`).

use std::{collections::BTreeMap, fmt::Write};

use crate::faults::{Engine, Fault, Plan};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    Nothing,
    Story,
    Everything,
}

/// What is summed up until the second is over.
pub struct Teller {
    tell: Tell,
    second: u64,
    sums: BTreeMap<&'static str, u64>,
}

impl Teller {
    pub fn new(tell: Tell) -> Self {
        Self { tell, second: 0, sums: BTreeMap::new() }
    }

    /// Takes a line, and gives back what is to be printed now.
    pub fn line(&mut self, at_ns: u64, lane: &str, kind: &'static str, text: &str) -> String {
        let mut out = String::new();
        if self.tell == Tell::Nothing {
            return out;
        }
        if at_ns / 1_000_000_000 != self.second {
            out.push_str(&self.sum_up());
            self.second = at_ns / 1_000_000_000;
        }
        let is_usual = matches!(kind, "answered" | "refused" | "again");
        if self.tell == Tell::Story && is_usual {
            *self.sums.entry(kind).or_default() += 1;
            return out;
        }
        writeln!(out, "{:>10.3} s  {lane:<9} {kind:<12} {text}", at_ns as f64 / 1e9).expect(WRITES);
        out
    }

    fn sum_up(&mut self) -> String {
        let sums: Vec<String> = std::mem::take(&mut self.sums)
            .into_iter()
            .map(|(kind, count)| match kind {
                "answered" => format!("{count} calls answered"),
                "refused" => format!("{count} refused as malformed"),
                _ => format!("{count} messages heard again"),
            })
            .collect();
        match sums.is_empty() {
            true => String::new(),
            false => format!("{:>10} s  …         {}\n", self.second, sums.join(", ")),
        }
    }
}

/// What a plan will do, before it does it.
pub fn plan(plan: &Plan) -> String {
    let mut out = String::new();
    let of = plan.scenario.as_ref().map_or(String::new(), |name| format!(", scenario {name}"));
    let tuning = &plan.tuning;
    let engine = match plan.engine {
        Engine::Memory => "in memory",
        Engine::Rocks => "in RocksDB",
    };
    writeln!(
        out,
        "Seed {}{of}: {} nodes, state {engine}, {} s of load",
        plan.seed,
        plan.nodes,
        plan.duration_ms as f64 / 1e3
    )
    .expect(WRITES);
    writeln!(
        out,
        "  deadline {} ms, latency up to {} ms, segments of {} KiB, {} entries kept behind a snapshot, a flush each {} events, {} wallets",
        tuning.deadline_ms,
        tuning.latency_ms,
        tuning.segment_bytes >> 10,
        tuning.log_entries_kept,
        tuning.flush_events,
        tuning.wallets
    )
    .expect(WRITES);
    for (index, client) in plan.clients.iter().enumerate() {
        let habits: Vec<String> = client.habits.iter().map(|habit| format!("{habit:?}")).collect();
        writeln!(
            out,
            "  c{index} asks every {} ms, up to {} events: {}",
            client.think_ms,
            client.events_max,
            habits.join(" ")
        )
        .expect(WRITES);
    }
    match plan.faults.is_empty() {
        true => out.push_str("  nothing goes wrong\n"),
        false => out.push_str("  what goes wrong, from the beginning of the load:\n"),
    }
    plan.faults.iter().for_each(|fault| writeln!(out, "    {}", self::fault(fault)).expect(WRITES));
    out
}

pub fn fault(fault: &Fault) -> String {
    format!("{:>7.3} s  {:?} for {:.3} s", fault.at_ms as f64 / 1e3, fault.kind, fault.for_ms as f64 / 1e3)
}

const WRITES: &str = "a string takes whatever is written";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Kind, Target};

    #[test]
    fn a_story_sums_up_what_went_well_and_tells_the_rest() {
        let mut teller = Teller::new(Tell::Story);
        assert_eq!(teller.line(1_000_000, "c0", "answered", "a payment"), "");
        assert_eq!(teller.line(2_000_000, "c0", "answered", "a payment"), "");
        assert!(teller.line(3_000_000, "c1", "unknown", "a payment").contains("a payment"));
        let next = teller.line(1_100_000_000, "n1", "stop", "");
        assert!(next.contains("2 calls answered") && next.contains("stop"), "{next}");
        assert!(Teller::new(Tell::Everything).line(1, "c0", "answered", "a payment").contains("a payment"));
        assert_eq!(Teller::new(Tell::Nothing).line(1, "c0", "unknown", "a payment"), "");
    }

    #[test]
    fn a_plan_says_who_asks_and_what_goes_wrong() {
        let plan = Plan::quiet(7, 3, 8_000).with(1_500, 300, Kind::Kill { node: Target::Leader });
        let text = super::plan(&plan);
        assert!(text.contains("Seed 7: 3 nodes") && text.contains("Kill { node: Leader } for 0.300 s"), "{text}");
        assert!(text.contains("Pay Repeat"));
    }
}
