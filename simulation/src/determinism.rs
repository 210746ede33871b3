//! The same seed twice tells the same story, byte for byte, in two processes.
//!
//! Every line of the chronicle goes into one number: each answer with its rows, each node's status each time it was asked, each
//! fault. Two runs of a seed must come to the same number over the same count of lines.

use crate::{faults::Plan, run::Outcome, runner::run_in_child};

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation needs `--cfg tokio_unstable`, or tokio's own randomness follows no seed: build with the workspace's \
     .cargo/config.toml, and leave RUSTFLAGS unset, which would override it"
);

/// Runs the plan once more; says how the stories differ, if they do.
pub fn check(plan: &Plan, first: &Outcome) -> Option<String> {
    let second = run_in_child(plan);
    let same = first.trace == second.trace && first.trace_lines == second.trace_lines;
    (!same).then(|| {
        format!(
            "seed {} told two stories: {} over {} lines, then {} over {} lines",
            plan.seed, first.trace, first.trace_lines, second.trace, second.trace_lines
        )
    })
}
