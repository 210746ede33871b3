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
    coverage::{self, Coverage, Lasted},
    faults::Plan,
    marks,
    tell::Tell,
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
    /// What was asked while what was wrong, and what came of it.
    pub coverage: Coverage,
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
    /// Real, and processor time of the process; everything else is simulated.
    #[serde(default)]
    pub real_ms: u64,
    #[serde(default)]
    pub cpu_us: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BrokenLaw {
    pub law: String,
    pub text: String,
    pub at_ns: u64,
    /// The call that showed it, by its place in the history.
    #[serde(default)]
    pub call: Option<usize>,
}

/// The whole story, for the report.
pub struct Story {
    pub plan: Plan,
    pub outcome: Outcome,
    pub lines: Vec<Line>,
    pub history: Vec<Call>,
    pub faults: Vec<Lasted>,
}

/// Runs a plan. `tell`: what is printed as it happens.
pub fn run(plan: &Plan, tell: Tell) -> Story {
    plant(plan.planted);
    let chronicle = Chronicle::new(tell, plan.needs_wiretap());
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
            let at_ns = violation.call.map_or(chronicle.now_ns(), |index| history[index].answered_ns);
            chronicle.broken_at(violation.law, format!("{}{call}", violation.text), at_ns, violation.call);
        }
    } else if chronicle.book().broken.is_empty() {
        chronicle.broken("the_cluster_heals", "the books could not be read in the end".into());
    }
    let (trace, trace_lines) = chronicle.trace();
    let mut book = chronicle.book();
    let mut shown = marks::look_back(&history, books.as_ref().unwrap_or(&auditor::Books::default()), &book.leaders);
    shown.push((&marks::SILENT, verdict.silent as u64));
    for (mark, count) in shown.into_iter().filter(|(_, count)| *count > 0) {
        *book.marks.entry(mark.name).or_default() += count;
    }
    let name = |status: &u32| auditor::codes::transfer::name(*status).to_lowercase();
    let outcome = Outcome {
        seed: plan.seed,
        broken: book
            .broken
            .iter()
            .map(|Broken { law, text, at_ns, call }| BrokenLaw {
                law: law.clone(),
                text: text.clone(),
                at_ns: *at_ns,
                call: *call,
            })
            .collect(),
        simulated_ms: ran.simulated_ms,
        trace: format!("{trace:016x}"),
        trace_lines,
        calls: history.len() as u64,
        transfers: verdict.statuses.values().sum(),
        coverage: coverage::of(&history, &book.faults),
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
        cpu_us: 0,
    };
    let (lines, faults) = (std::mem::take(&mut book.story), std::mem::take(&mut book.faults));
    Story { plan: plan.clone(), outcome, lines, history, faults }
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
