//! One run: a plan in, a verdict out.
//!
//! Laws
//! * One process makes one run (`runner.rs`): tokio's task ids are process-global and decide the order in which a crash drops
//!   tasks.
//! * A run that can't decide has failed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    auditor::{self, records::*},
    chronicle::{Broken, Chronicle, Line},
    cluster::Cluster,
    faults::Plan,
};

/// What became of a run; what the child process tells its parent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub seed: u64,
    pub broken: Vec<BrokenLaw>,
    pub simulated_ms: u64,
    /// One number for all that happened, and of how many lines it was made.
    pub trace: String,
    pub trace_lines: u64,
    pub calls: u64,
    pub transfers: u64,
    /// By kind: ok, malformed, unavailable, unknown.
    pub answers: BTreeMap<String, u64>,
    /// By name: what the rules answered.
    pub statuses: BTreeMap<String, u64>,
    pub faults: BTreeMap<String, u64>,
    pub marks: BTreeMap<String, u64>,
    pub unknown_resolved: u64,
    pub silent: u64,
    pub assumed_burnt: u64,
    pub change_events: u64,
    pub syncs: u64,
    pub writes_lost: u64,
    pub disk_failures: u64,
    /// Real; everything else is simulated.
    #[serde(default)]
    pub real_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BrokenLaw {
    pub law: String,
    pub text: String,
    pub at_ns: u64,
}

/// The whole story, for the report.
pub struct Story {
    pub plan: Plan,
    pub outcome: Outcome,
    pub lines: Vec<Line>,
}

/// Runs a plan. `tell`: print the story as it happens.
pub fn run(plan: &Plan, tell: bool) -> Story {
    plant(plan.planted);
    let chronicle = Chronicle::new(tell);
    let mut cluster = Cluster::new(plan, chronicle.clone());
    let ran = cluster.run();
    let (history, books) = {
        let mut book = chronicle.book();
        (std::mem::take(&mut book.history), book.books.take())
    };
    let verdict = auditor::judge(&history, books.as_ref().unwrap_or(&auditor::Books::default()));
    if books.is_some() {
        for violation in &verdict.violations {
            let call = violation.call.map_or(String::new(), |index| describe_call(&history[index], index));
            chronicle.broken(violation.law, format!("{}{call}", violation.text));
        }
    } else if chronicle.book().broken.is_empty() {
        chronicle.broken("the_cluster_heals", "the books could not be read in the end".into());
    }
    let (trace, trace_lines) = chronicle.trace();
    let mut answers = BTreeMap::<String, u64>::new();
    for call in &history {
        let kind = match call.answer {
            Answer::Written { .. } | Answer::Read { .. } => "ok",
            Answer::Malformed(_) => "malformed",
            Answer::Unavailable(_) => "unavailable",
            Answer::Unknown(_) => "unknown",
        };
        *answers.entry(format!("{} {kind}", call.op.name())).or_default() += 1;
    }
    let book = chronicle.book();
    let name = |status: &u32| auditor::codes::transfer::name(*status).to_lowercase();
    let outcome = Outcome {
        seed: plan.seed,
        broken: book
            .broken
            .iter()
            .map(|Broken { law, text, at_ns }| BrokenLaw { law: law.clone(), text: text.clone(), at_ns: *at_ns })
            .collect(),
        simulated_ms: ran.simulated_ms,
        trace: format!("{trace:016x}"),
        trace_lines,
        calls: history.len() as u64,
        transfers: verdict.statuses.values().sum(),
        answers,
        statuses: verdict.statuses.iter().map(|(status, count)| (name(status), *count)).collect(),
        faults: ran.faults.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
        marks: book.marks.iter().map(|(mark, count)| ((*mark).to_owned(), *count)).collect(),
        unknown_resolved: book.unknown_resolved as u64,
        silent: verdict.silent as u64,
        assumed_burnt: verdict.assumed_burnt as u64,
        change_events: books.map_or(0, |books| books.events.len() as u64),
        syncs: ran.syncs,
        writes_lost: ran.writes_lost,
        disk_failures: ran.disk_failures,
        real_ms: 0,
    };
    Story { plan: plan.clone(), outcome, lines: book.story.clone() }
}

#[cfg(feature = "planted")]
fn plant(number: u32) {
    jangbu_ledger::planted::plant(number);
}

#[cfg(not(feature = "planted"))]
fn plant(number: u32) {
    assert!(number == 0, "this build has no bugs to plant: build with --features planted");
}

fn describe_call(call: &Call, index: usize) -> String {
    format!(
        "\n    call {index} of c{}: {} asked at {:.3} ms, answered at {:.3} ms{}",
        call.client,
        call.op.name(),
        call.invoked_ns as f64 / 1e6,
        call.answered_ns as f64 / 1e6,
        if call.retried { ", may have been attempted more than once" } else { "" }
    )
}
