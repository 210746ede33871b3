//! What a stage costs for each transfer: the difference between a run and one twice as long.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::allocations;
use crate::stages::{Stage, TRANSFERS_PER_ROUND};

/// Of one transfer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    instructions: f64,
    allocations: f64,
    bytes_written: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.0} instructions {:>8.3} allocations {:>8.1} bytes written",
            self.instructions, self.allocations, self.bytes_written
        )
    }
}

impl Cost {
    /// What is beyond `budget`, in words.
    pub(crate) fn beyond(&self, budget: &Cost, tolerance: f64, slack: f64) -> Vec<String> {
        let figures = [
            ("instructions", self.instructions, budget.instructions),
            ("allocations", self.allocations, budget.allocations),
            ("bytes written", self.bytes_written, budget.bytes_written),
        ];
        let is_beyond = |(_, found, allowed): &(&str, f64, f64)| *found > allowed * (1.0 + tolerance) + slack;
        let text = |(name, found, allowed)| format!("{found:.2} {name} a transfer, where {allowed:.2} were recorded");
        figures.into_iter().filter(is_beyond).map(text).collect()
    }
}

pub(crate) fn per_transfer(stage: Stage) -> Result<Cost> {
    let rounds = stage.rounds();
    let (allocations, bytes_written) = difference(rounds, |rounds| {
        let output = this_program(stage, rounds).output()?;
        ensure!(output.status.success(), "{}: {}", stage.name(), String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let (allocations, bytes) = text.trim().split_once(' ').context("two numbers")?;
        Ok((allocations.parse()?, bytes.parse()?))
    })?;
    let (instructions, _) = difference(rounds, |rounds| Ok((counted(stage, rounds)?, 0)))?;
    Ok(Cost { instructions, allocations, bytes_written })
}

/// Of two figures, what a transfer more adds.
fn difference(rounds: u64, measure: impl Fn(u64) -> Result<(u64, u64)>) -> Result<(f64, f64)> {
    let (once, twice) = (measure(rounds)?, measure(2 * rounds)?);
    let transfers = (rounds * TRANSFERS_PER_ROUND) as f64;
    let per_transfer = |once: u64, twice: u64| (twice as f64 - once as f64).max(0.0) / transfers;
    Ok((round(per_transfer(once.0, twice.0)), round(per_transfer(once.1, twice.1))))
}

/// To a thousandth: what is recorded should be read with ease.
fn round(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

fn this_program(stage: Stage, rounds: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a program knows where it lies"));
    command.args([stage.name(), &rounds.to_string()]);
    command
}

/// Instructions of a whole process, all threads together.
fn counted(stage: Stage, rounds: u64) -> Result<u64> {
    let plain = this_program(stage, rounds);
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(plain.get_program())
        .args(plain.get_args());
    let output = valgrind.output().context("valgrind: install it (apt-get install valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", stage.name());
    match said.lines().find_map(|line| line.split_once("Collected :")) {
        Some((_, count)) => Ok(count.trim().parse()?),
        None => bail!("valgrind did not say how many instructions it counted: {said}"),
    }
}

/// Runs a stage here. Allocations, and bytes handed to the kernel to be written.
pub(crate) fn in_this_process(stage: Stage, rounds: u64) -> String {
    let (allocations, bytes) = (allocations::count(), bytes_written());
    stage.run(rounds);
    format!("{} {}", allocations::count() - allocations, bytes_written() - bytes)
}

fn bytes_written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
