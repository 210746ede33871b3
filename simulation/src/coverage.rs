//! Which operation had which outcome while which fault lasted: what was tried together, and what never was.
//!
//! A fault that strikes while nobody asks proves nothing. A cell that stays empty over many seeds is a combination that no
//! seed has met, and a reason to change the plan's weights or the callers' habits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::auditor::records::*;

/// Calls by fault, operation and outcome, each by its name.
pub type Coverage = BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>;

/// While nothing was wrong.
const NO_FAULT: &str = "no fault";

/// A fault from when it struck until it was lifted.
#[derive(Debug, Clone)]
pub struct Lasted {
    pub fault: &'static str,
    pub from_ns: u64,
    pub to_ns: u64,
}

/// The outcomes, in the order of the table's letters.
const OUTCOMES: &[(&str, char)] = &[("answered", 'A'), ("refused", 'R'), ("unavailable", 'U'), ("unknown", '?')];

pub fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Written { .. } | Answer::Read { .. } => "answered",
        Answer::Malformed(_) => "refused",
        Answer::Unavailable(_) => "unavailable",
        Answer::Unknown(_) => "unknown",
    }
}

/// Of one run.
pub fn of(history: &[Call], faults: &[Lasted]) -> Coverage {
    let mut coverage = Coverage::new();
    for call in history {
        let during = |fault: &&Lasted| fault.from_ns <= call.answered_ns && call.invoked_ns <= fault.to_ns;
        let mut lasting: BTreeSet<&str> = faults.iter().filter(during).map(|fault| fault.fault).collect();
        if lasting.is_empty() {
            lasting.insert(NO_FAULT);
        }
        for fault in lasting {
            let by_op = coverage.entry(fault.to_owned()).or_default().entry(call.op.name().to_owned()).or_default();
            *by_op.entry(outcome(&call.answer).to_owned()).or_default() += 1;
        }
    }
    coverage
}

pub fn add(into: &mut Coverage, from: &Coverage) {
    for (fault, ops) in from {
        for (op, outcomes) in ops {
            for (outcome, count) in outcomes {
                *into
                    .entry(fault.clone())
                    .or_default()
                    .entry(op.clone())
                    .or_default()
                    .entry(outcome.clone())
                    .or_default() += count;
            }
        }
    }
}

/// For people: a row for each fault, a column for each operation, and in it a letter for each outcome that was met.
pub fn table(coverage: &Coverage) -> String {
    let ops: BTreeSet<&str> = coverage.values().flat_map(|ops| ops.keys().map(String::as_str)).collect();
    let mut out = String::new();
    let row = |out: &mut String, name: &str, cells: &mut dyn Iterator<Item = String>| {
        let _ = write!(out, "    {name:<18}");
        cells.for_each(|cell| {
            let _ = write!(out, " {cell:>17}");
        });
        out.push('\n');
    };
    row(&mut out, "", &mut ops.iter().map(|op| (*op).to_owned()));
    for (fault, by_op) in coverage {
        let cell = |op: &&str| {
            let met = by_op.get(*op);
            let letter = |(name, letter): &(&str, char)| {
                if met.is_some_and(|met| met.contains_key(*name)) { *letter } else { '.' }
            };
            OUTCOMES.iter().map(letter).collect()
        };
        row(&mut out, fault, &mut ops.iter().map(cell));
    }
    out.push_str("    A answered, R refused as malformed, U unavailable, ? outcome unknown, . never met\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(invoked_ns: u64, answered_ns: u64, answer: Answer) -> Call {
        let op = Op::LookupAccounts(vec![1]);
        Call { client: 0, op, level: Level::Linearizable, invoked_ns, answered_ns, answer, retried: false }
    }

    #[test]
    fn a_call_counts_for_each_fault_that_it_met() {
        let history = [
            call(0, 5, Answer::Unavailable(String::new())),
            call(8, 12, Answer::Unknown(String::new())),
            call(30, 31, Answer::Malformed(String::new())),
        ];
        let faults = [
            Lasted { fault: "kill", from_ns: 4, to_ns: 10 },
            Lasted { fault: "pause", from_ns: 11, to_ns: 20 },
            Lasted { fault: "kill", from_ns: 9, to_ns: 9 },
        ];
        let coverage = of(&history, &faults);
        let op = history[0].op.name();
        assert_eq!(coverage["kill"][op]["unavailable"], 1);
        assert_eq!(coverage["kill"][op]["unknown"], 1, "two of a kind at once are one");
        assert_eq!(coverage["pause"][op]["unknown"], 1);
        assert_eq!(coverage[NO_FAULT][op]["refused"], 1);
        assert!(!coverage["pause"][op].contains_key("unavailable"));
        let mut sum = Coverage::new();
        add(&mut sum, &coverage);
        add(&mut sum, &coverage);
        assert_eq!(sum["kill"][op]["unknown"], 2);
        let table = table(&sum);
        let kill = table.lines().find(|line| line.trim_start().starts_with("kill")).unwrap();
        assert!(kill.ends_with("..U?"), "{table}");
    }
}
