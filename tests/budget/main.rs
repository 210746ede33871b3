//! What a transfer costs where no clock is needed to tell: instructions, allocations, bytes written. Each stage of the
//! payment path has a recorded budget (`budgets.toml`), and going beyond it fails the build.
//!
//!     jangbu-budget              measures every stage and compares it with its budget
//!     jangbu-budget --record     measures, and writes what was found as the new budgets
//!     jangbu-budget STAGE        one stage alone, as often as wanted: for a profiler
//!
//! A stage is run twice, the second time for twice as many transfers; the difference is what transfers cost, and what starting
//! costs falls out. Instructions are counted by valgrind, of all threads together.
//!
//! Not here: time (`figures/`, `jangbu bench`).

mod allocations;
mod measure;
mod stages;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use measure::Cost;
use stages::Stage;

/// How far beyond its budget a stage may be: processors choose among a library's variants, mistakes move more.
const TOLERANCE: f64 = 0.10;
/// Below this difference nothing is wrong: how often a thread finds work waiting is chance, and shows in hundredths of an
/// allocation.
const SLACK: f64 = 0.05;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        ["--record"] => record().map(|()| ExitCode::SUCCESS),
        [stage] => run(stage, "1").map(|()| ExitCode::SUCCESS),
        [stage, times] => run(stage, times).map(|()| ExitCode::SUCCESS),
        _ => bail!("usage: jangbu-budget [--record | STAGE [TIMES]]"),
    }
}

/// One stage in this process; what it cost goes to standard output, for `measure.rs`.
fn run(stage: &str, times: &str) -> Result<()> {
    let known = || format!("`{stage}` is none of {:?}", Stage::ALL.map(Stage::name));
    let stage = Stage::ALL.into_iter().find(|known| known.name() == stage).with_context(known)?;
    let times: u64 = times.parse().context("TIMES: a number of rounds")?;
    println!("{}", measure::in_this_process(stage, times));
    Ok(())
}

fn measure_all() -> Result<BTreeMap<String, Cost>> {
    let mut costs = BTreeMap::new();
    for stage in Stage::ALL {
        eprint!("{:<12}", stage.name());
        let cost = measure::per_transfer(stage)?;
        eprintln!("{cost}");
        costs.insert(stage.name().to_string(), cost);
    }
    Ok(costs)
}

fn budgets_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("budget/budgets.toml")
}

fn record() -> Result<()> {
    let head = "# What a transfer may cost, by stage (tests/budget). Written by `jangbu-budget --record`; a larger figure wants a reason\n\
                # in the commit message.\n\n";
    let text = format!("{head}{}", toml::to_string(&measure_all()?)?);
    std::fs::write(budgets_path(), text).with_context(|| budgets_path().display().to_string())
}

fn check() -> Result<ExitCode> {
    let text = std::fs::read_to_string(budgets_path()).with_context(|| budgets_path().display().to_string())?;
    let budgets: BTreeMap<String, Cost> = toml::from_str(&text)?;
    let mut breaches = Vec::new();
    for (stage, cost) in measure_all()? {
        let budget = budgets.get(&stage).with_context(|| format!("{stage} has no budget: run --record"))?;
        breaches.extend(cost.beyond(budget, TOLERANCE, SLACK).into_iter().map(|breach| format!("{stage}: {breach}")));
    }
    for breach in &breaches {
        eprintln!("over budget: {breach}");
    }
    match breaches.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => {
            eprintln!(
                "  -> find out why, and mend it; if it is worth its price, `jangbu-budget --record` and say so in the commit"
            );
            Ok(ExitCode::FAILURE)
        }
    }
}
